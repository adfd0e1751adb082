//! Terminal settings, their bits and the window size.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Number of control characters of the kernel's [`Termios`].
pub const NCCS: usize = 19;

/// The kernel's `struct termios` (36 bytes), of `TCGETS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Termios {
    pub c_iflag: u32,
    pub c_oflag: u32,
    pub c_cflag: u32,
    pub c_lflag: u32,
    pub c_line: u8,
    pub c_cc: [u8; NCCS],
}

/// The kernel's `struct termios2` (44 bytes), of `TCGETS2`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Termios2 {
    pub c_iflag: u32,
    pub c_oflag: u32,
    pub c_cflag: u32,
    pub c_lflag: u32,
    pub c_line: u8,
    pub c_cc: [u8; NCCS],
    pub c_ispeed: u32,
    pub c_ospeed: u32,
}

/// `struct winsize`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Winsize {
    pub ws_row: u16,
    pub ws_col: u16,
    pub ws_xpixel: u16,
    pub ws_ypixel: u16,
}

flag_set! {
    /// `c_iflag`.
    InputFlags: u32, INPUT_FLAGS {
        IGNBRK = 0x1,
        BRKINT = 0x2,
        IGNPAR = 0x4,
        PARMRK = 0x8,
        INPCK = 0x10,
        ISTRIP = 0x20,
        INLCR = 0x40,
        IGNCR = 0x80,
        ICRNL = 0x100,
        IUCLC = 0x200,
        IXON = 0x400,
        IXANY = 0x800,
        IXOFF = 0x1000,
        IMAXBEL = 0x2000,
        IUTF8 = 0x4000,
    }
}

flag_set! {
    /// `c_oflag`.
    OutputFlags: u32, OUTPUT_FLAGS {
        OPOST = 0x1,
        OLCUC = 0x2,
        ONLCR = 0x4,
        OCRNL = 0x8,
        ONOCR = 0x10,
        ONLRET = 0x20,
        OFILL = 0x40,
        OFDEL = 0x80,
    }
    field 0x1800 {
        TAB0 = 0x0,
        XTABS = 0x1800,
    }
}

flag_set! {
    /// `c_cflag`.
    ControlFlags: u32, CONTROL_FLAGS {
        CSTOPB = 0x40,
        CREAD = 0x80,
        PARENB = 0x100,
        PARODD = 0x200,
        HUPCL = 0x400,
        CLOCAL = 0x800,
        CRTSCTS = 0x80000000,
    }
    field 0x30 {
        CS5 = 0x0,
        CS6 = 0x10,
        CS7 = 0x20,
        CS8 = 0x30,
    }
    field 0x100f {
        B0 = 0x0,
        B50 = 0x1,
        B75 = 0x2,
        B110 = 0x3,
        B134 = 0x4,
        B150 = 0x5,
        B200 = 0x6,
        B300 = 0x7,
        B600 = 0x8,
        B1200 = 0x9,
        B1800 = 0xa,
        B2400 = 0xb,
        B4800 = 0xc,
        B9600 = 0xd,
        B19200 = 0xe,
        B38400 = 0xf,
        BOTHER = 0x1000,
        B57600 = 0x1001,
        B115200 = 0x1002,
    }
}

flag_set! {
    /// `c_lflag`.
    LocalFlags: u32, LOCAL_FLAGS {
        ISIG = 0x1,
        ICANON = 0x2,
        XCASE = 0x4,
        ECHO = 0x8,
        ECHOE = 0x10,
        ECHOK = 0x20,
        ECHONL = 0x40,
        NOFLSH = 0x80,
        TOSTOP = 0x100,
        ECHOCTL = 0x200,
        ECHOPRT = 0x400,
        ECHOKE = 0x800,
        FLUSHO = 0x1000,
        PENDIN = 0x4000,
        IEXTEN = 0x8000,
        EXTPROC = 0x10000,
    }
}

const_set! {
    /// Indices of `c_cc`.
    CONTROL_CHARS: usize {
        VINTR = 0,
        VQUIT = 1,
        VERASE = 2,
        VKILL = 3,
        VEOF = 4,
        VTIME = 5,
        VMIN = 6,
        VSWTC = 7,
        VSTART = 8,
        VSTOP = 9,
        VSUSP = 10,
        VEOL = 11,
        VREPRINT = 12,
        VDISCARD = 13,
        VWERASE = 14,
        VLNEXT = 15,
        VEOL2 = 16,
    }
}

const_set! {
    /// Argument of `TCFLSH`.
    TCFLSH_QUEUES: u32 {
        TCIFLUSH = 0,
        TCOFLUSH = 1,
        TCIOFLUSH = 2,
    }
}

const_set! {
    /// Argument of `TCXONC`.
    TCXONC_ACTIONS: u32 {
        TCOOFF = 0,
        TCOON = 1,
        TCIOFF = 2,
        TCION = 3,
    }
}

flag_set! {
    /// Control byte of a pty master in packet mode.
    PktFlags: u8, PKT_FLAGS {
        TIOCPKT_FLUSHREAD = 1,
        TIOCPKT_FLUSHWRITE = 2,
        TIOCPKT_STOP = 4,
        TIOCPKT_START = 8,
        TIOCPKT_NOSTOP = 0x10,
        TIOCPKT_DOSTOP = 0x20,
        TIOCPKT_IOCTL = 0x40,
    }
}

impl Termios {
    /// What a fresh terminal has: cooked, echoing, 38400 baud.
    pub const INITIAL: Self = Self {
        c_iflag: InputFlags::ICRNL.union(InputFlags::IXON).bits(),
        c_oflag: OutputFlags::OPOST.union(OutputFlags::ONLCR).bits(),
        c_cflag: ControlFlags::B38400
            .union(ControlFlags::CS8)
            .union(ControlFlags::CREAD)
            .union(ControlFlags::HUPCL)
            .bits(),
        c_lflag: LocalFlags::ISIG
            .union(LocalFlags::ICANON)
            .union(LocalFlags::ECHO)
            .union(LocalFlags::ECHOE)
            .union(LocalFlags::ECHOK)
            .union(LocalFlags::ECHOCTL)
            .union(LocalFlags::ECHOKE)
            .union(LocalFlags::IEXTEN)
            .bits(),
        c_line: 0,
        // ^C ^\ DEL ^U ^D, VTIME 0, VMIN 1, no VSWTC, ^Q ^S ^Z, no VEOL,
        // ^R ^O ^W ^V, no VEOL2.
        c_cc: [
            3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0,
        ],
    };
}
