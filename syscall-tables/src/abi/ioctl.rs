//! Numbers of ioctl(2).

use super::names::const_set;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const_set! {
    /// Numbers of ioctl(2) requests.
    IOCTLS: u32 {
        TCGETS = 0x5401,
        TCSETS = 0x5402,
        TCSETSW = 0x5403,
        TCSETSF = 0x5404,
        TCGETA = 0x5405,
        TCSETA = 0x5406,
        TCSETAW = 0x5407,
        TCSETAF = 0x5408,
        TCSBRK = 0x5409,
        TCXONC = 0x540a,
        TCFLSH = 0x540b,
        TIOCEXCL = 0x540c,
        TIOCNXCL = 0x540d,
        TIOCSCTTY = 0x540e,
        TIOCGPGRP = 0x540f,
        TIOCSPGRP = 0x5410,
        TIOCOUTQ = 0x5411,
        TIOCSTI = 0x5412,
        TIOCGWINSZ = 0x5413,
        TIOCSWINSZ = 0x5414,
        TIOCMGET = 0x5415,
        TIOCMBIS = 0x5416,
        TIOCMBIC = 0x5417,
        TIOCMSET = 0x5418,
        TIOCGSOFTCAR = 0x5419,
        TIOCSSOFTCAR = 0x541a,
        FIONREAD = 0x541b,
        TIOCLINUX = 0x541c,
        TIOCCONS = 0x541d,
        TIOCGSERIAL = 0x541e,
        TIOCSSERIAL = 0x541f,
        TIOCPKT = 0x5420,
        FIONBIO = 0x5421,
        TIOCNOTTY = 0x5422,
        TIOCSETD = 0x5423,
        TIOCGETD = 0x5424,
        TCSBRKP = 0x5425,
        TIOCSBRK = 0x5427,
        TIOCCBRK = 0x5428,
        TIOCGSID = 0x5429,
        TCGETS2 = 0x802c542a,
        TCSETS2 = 0x402c542b,
        TCSETSW2 = 0x402c542c,
        TCSETSF2 = 0x402c542d,
        TIOCGPTN = 0x80045430,
        TIOCSPTLCK = 0x40045431,
        TIOCGDEV = 0x80045432,
        TIOCSIG = 0x40045436,
        TIOCVHANGUP = 0x5437,
        TIOCGPKT = 0x80045438,
        TIOCGPTLCK = 0x80045439,
        TIOCGEXCL = 0x80045440,
        TIOCGPTPEER = 0x5441,
        FIONCLEX = 0x5450,
        FIOCLEX = 0x5451,
        FIOASYNC = 0x5452,
        FIOQSIZE = 0x5460,
        FIOSETOWN = 0x8901,
        SIOCSPGRP = 0x8902,
        FIOGETOWN = 0x8903,
        SIOCGPGRP = 0x8904,
        SIOCATMARK = 0x8905,
        SIOCGSTAMP = 0x8906,
        SIOCGSTAMPNS = 0x8907,
        SIOCADDRT = 0x890b,
        SIOCDELRT = 0x890c,
        SIOCGIFNAME = 0x8910,
        SIOCGIFCONF = 0x8912,
        SIOCGIFFLAGS = 0x8913,
        SIOCSIFFLAGS = 0x8914,
        SIOCGIFADDR = 0x8915,
        SIOCSIFADDR = 0x8916,
        SIOCGIFDSTADDR = 0x8917,
        SIOCGIFBRDADDR = 0x8919,
        SIOCGIFNETMASK = 0x891b,
        SIOCSIFNETMASK = 0x891c,
        SIOCGIFMETRIC = 0x891d,
        SIOCGIFMTU = 0x8921,
        SIOCSIFMTU = 0x8922,
        SIOCSIFNAME = 0x8923,
        SIOCGIFHWADDR = 0x8927,
        SIOCSIFHWADDR = 0x8924,
        SIOCGIFINDEX = 0x8933,
        SIOCGIFTXQLEN = 0x8942,
        SIOCETHTOOL = 0x8946,
        SIOCGIFMAP = 0x8970,
        BLKROSET = 0x125d,
        BLKROGET = 0x125e,
        BLKGETSIZE = 0x1260,
        BLKGETSIZE64 = 0x80081272,
        BLKSSZGET = 0x1268,
        BLKFLSBUF = 0x1261,
        FIBMAP = 0x1,
        FIGETBSZ = 0x2,
        FIFREEZE = 0xc0045877,
        FITHAW = 0xc0045878,
        FICLONE = 0x40049409,
        FICLONERANGE = 0x4020940d,
        FIDEDUPERANGE = 0xc0189436,
        FS_IOC_GETFLAGS = 0x80086601,
        FS_IOC_SETFLAGS = 0x40086602,
        FS_IOC_GETVERSION = 0x80087601,
        FS_IOC_FSGETXATTR = 0x801c581f,
        FS_IOC_FSSETXATTR = 0x401c5820,
        FS_IOC_GETFSLABEL = 0x81009431,
        FS_IOC_FIEMAP = 0xc020660b,
        RNDGETENTCNT = 0x80045200,
        RNDADDTOENTCNT = 0x40045201,
        RNDADDENTROPY = 0x40085203,
        RNDZAPENTCNT = 0x5204,
        RNDCLEARPOOL = 0x5206,
        RNDRESEEDCRNG = 0x5207,
        NS_GET_USERNS = 0xb701,
        NS_GET_PARENT = 0xb702,
        NS_GET_NSTYPE = 0xb703,
        NS_GET_OWNER_UID = 0xb704,
        TUNSETIFF = 0x400454ca,
    }
}

/// Bytes waiting in a socket's send queue: the same number as [`TIOCOUTQ`].
pub const SIOCOUTQ: u32 = TIOCOUTQ;
/// Bytes waiting in a socket's receive queue: the same number as [`FIONREAD`].
pub const SIOCINQ: u32 = FIONREAD;

/// Size of the argument, as coded in the number.
pub const fn ioctl_size(request: u32) -> u32 {
    (request >> 16) & 0x3fff
}

/// `struct ifreq`, with the union as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IfReq {
    pub ifr_name: [u8; 16],
    pub ifr_data: [u8; 24],
}

/// `struct ifconf`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct IfConf {
    pub ifc_len: i32,
    pub __pad0: u32,
    pub ifc_buf: u64,
}
