//! Socket calls: families, types, addresses, message headers.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const_set! {
    /// Address families.
    ADDRESS_FAMILIES: u16 {
        AF_UNSPEC = 0,
        AF_UNIX = 1,
        AF_INET = 2,
        AF_AX25 = 3,
        AF_IPX = 4,
        AF_APPLETALK = 5,
        AF_X25 = 9,
        AF_INET6 = 10,
        AF_KEY = 15,
        AF_NETLINK = 16,
        AF_PACKET = 17,
        AF_RDS = 21,
        AF_CAN = 29,
        AF_TIPC = 30,
        AF_BLUETOOTH = 31,
        AF_ALG = 38,
        AF_NFC = 39,
        AF_VSOCK = 40,
        AF_KCM = 41,
        AF_QIPCRTR = 42,
        AF_SMC = 43,
        AF_XDP = 44,
    }
}

const_set! {
    /// Socket types.
    SOCK_TYPES: u32 {
        SOCK_STREAM = 1,
        SOCK_DGRAM = 2,
        SOCK_RAW = 3,
        SOCK_RDM = 4,
        SOCK_SEQPACKET = 5,
        SOCK_DCCP = 6,
        SOCK_PACKET = 10,
    }
}

/// Mask of the type in socket(2)'s second argument.
pub const SOCK_TYPE_MASK: u32 = 0xf;

flag_set! {
    /// Flags in socket(2)'s type and of accept4(2).
    SockFlags: u32, SOCK_FLAGS {
        SOCK_CLOEXEC = 0x80000,
        SOCK_NONBLOCK = 0x800,
    }
}

const_set! {
    /// IP protocols.
    IP_PROTOCOLS: u32 {
        IPPROTO_IP = 0,
        IPPROTO_ICMP = 1,
        IPPROTO_IGMP = 2,
        IPPROTO_TCP = 6,
        IPPROTO_UDP = 17,
        IPPROTO_IPV6 = 41,
        IPPROTO_GRE = 47,
        IPPROTO_ESP = 50,
        IPPROTO_ICMPV6 = 58,
        IPPROTO_SCTP = 132,
        IPPROTO_UDPLITE = 136,
        IPPROTO_RAW = 255,
        IPPROTO_MPTCP = 262,
    }
}

flag_set! {
    /// Flags of send(2), recv(2) and `msg_flags`.
    MsgFlags: u32, MSG_FLAGS {
        MSG_OOB = 0x1,
        MSG_PEEK = 0x2,
        MSG_DONTROUTE = 0x4,
        MSG_CTRUNC = 0x8,
        MSG_PROXY = 0x10,
        MSG_TRUNC = 0x20,
        MSG_DONTWAIT = 0x40,
        MSG_EOR = 0x80,
        MSG_WAITALL = 0x100,
        MSG_FIN = 0x200,
        MSG_SYN = 0x400,
        MSG_CONFIRM = 0x800,
        MSG_RST = 0x1000,
        MSG_ERRQUEUE = 0x2000,
        MSG_NOSIGNAL = 0x4000,
        MSG_MORE = 0x8000,
        MSG_WAITFORONE = 0x10000,
        MSG_BATCH = 0x40000,
        MSG_ZEROCOPY = 0x4000000,
        MSG_FASTOPEN = 0x20000000,
        MSG_CMSG_CLOEXEC = 0x40000000,
    }
}

const_set! {
    /// How of shutdown(2).
    SHUTDOWN_HOW: u32 {
        SHUT_RD = 0,
        SHUT_WR = 1,
        SHUT_RDWR = 2,
    }
}

const_set! {
    /// `cmsg_type` at `SOL_SOCKET`.
    SCM_TYPES: i32 {
        SCM_RIGHTS = 1,
        SCM_CREDENTIALS = 2,
        SCM_SECURITY = 3,
        SCM_PIDFD = 4,
        SCM_TIMESTAMP = 29,
        SCM_TIMESTAMPNS = 35,
    }
}

/// `struct iovec`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Iovec {
    pub iov_base: u64,
    pub iov_len: u64,
}

/// `struct msghdr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MsgHdr {
    pub msg_name: u64,
    pub msg_namelen: i32,
    pub __pad0: u32,
    pub msg_iov: u64,
    pub msg_iovlen: u64,
    pub msg_control: u64,
    pub msg_controllen: u64,
    pub msg_flags: u32,
    pub __pad1: u32,
}

/// `struct mmsghdr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MmsgHdr {
    pub msg_hdr: MsgHdr,
    pub msg_len: u32,
    pub __pad0: u32,
}

/// `struct cmsghdr`; data follows, padded to 8 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CmsgHdr {
    /// Length with this header, without the padding.
    pub cmsg_len: u64,
    pub cmsg_level: i32,
    pub cmsg_type: i32,
}

impl CmsgHdr {
    /// `CMSG_LEN`: value of `cmsg_len` for this much data.
    pub const fn len_of(data_len: usize) -> usize {
        size_of::<Self>() + data_len
    }

    /// `CMSG_SPACE`: bytes this much data takes in the control buffer.
    pub const fn space_of(data_len: usize) -> usize {
        size_of::<Self>() + data_len.next_multiple_of(8)
    }
}

/// Most fds in one `SCM_RIGHTS`.
pub const SCM_MAX_FD: usize = 253;
/// Longest queue of listen(2).
pub const SOMAXCONN: u32 = 4096;

/// `struct ucred`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Ucred {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// `struct linger`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Linger {
    pub l_onoff: i32,
    pub l_linger: i32,
}

/// `struct sockaddr_in`; port and address in network order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockAddrIn {
    pub sin_family: u16,
    pub sin_port: [u8; 2],
    pub sin_addr: [u8; 4],
    pub sin_zero: [u8; 8],
}

/// `struct sockaddr_in6`; port, flow and address in network order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockAddrIn6 {
    pub sin6_family: u16,
    pub sin6_port: [u8; 2],
    pub sin6_flowinfo: [u8; 4],
    pub sin6_addr: [u8; 16],
    pub sin6_scope_id: u32,
}

impl SockAddrIn6 {
    /// Size without the scope id, which the kernel takes too.
    pub const MIN_LEN: usize = 24;
}

/// `struct sockaddr_un`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SockAddrUn {
    pub sun_family: u16,
    pub sun_path: [u8; 108],
}

/// `struct sockaddr_nl`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockAddrNl {
    pub nl_family: u16,
    pub nl_pad: u16,
    pub nl_pid: u32,
    pub nl_groups: u32,
}

/// `struct sockaddr_ll`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockAddrLl {
    pub sll_family: u16,
    /// In network order.
    pub sll_protocol: [u8; 2],
    pub sll_ifindex: i32,
    pub sll_hatype: u16,
    pub sll_pkttype: u8,
    pub sll_halen: u8,
    pub sll_addr: [u8; 8],
}

/// Size of `struct sockaddr_storage`, the longest address the kernel takes.
pub const SOCKADDR_STORAGE_LEN: usize = 128;
