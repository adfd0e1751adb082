//! poll, epoll, select, eventfd and inotify.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flag_set! {
    /// Events of poll(2) (low 16 bits) and epoll(7), which have the same values
    /// for both.
    PollEvents: u32, POLL_EVENTS {
        POLLIN = 1,
        POLLPRI = 2,
        POLLOUT = 4,
        POLLERR = 8,
        POLLHUP = 0x10,
        POLLNVAL = 0x20,
        POLLRDNORM = 0x40,
        POLLRDBAND = 0x80,
        POLLWRNORM = 0x100,
        POLLWRBAND = 0x200,
        POLLMSG = 0x400,
        POLLRDHUP = 0x2000,
        EPOLLEXCLUSIVE = 0x10000000,
        EPOLLWAKEUP = 0x20000000,
        EPOLLONESHOT = 0x40000000,
        EPOLLET = 0x80000000,
    }
}

impl PollEvents {
    /// From the 16-bit word of [`PollFd`].
    pub const fn from_poll(events: u16) -> Self {
        Self::from_bits_retain(events as u32)
    }

    /// The 16-bit word of [`PollFd`].
    pub const fn as_poll(self) -> u16 {
        self.bits() as u16
    }

    /// Reported whether asked for or not.
    pub const ALWAYS: Self = Self::POLLERR.union(Self::POLLHUP).union(Self::POLLNVAL);
    /// Readable data.
    pub const READABLE: Self = Self::POLLIN.union(Self::POLLRDNORM);
    /// Room to write.
    pub const WRITABLE: Self = Self::POLLOUT.union(Self::POLLWRNORM);
    /// epoll_ctl(2): behaviour rather than events.
    pub const EPOLL_MODE: Self = Self::EPOLLEXCLUSIVE
        .union(Self::EPOLLWAKEUP)
        .union(Self::EPOLLONESHOT)
        .union(Self::EPOLLET);
    /// What makes an fd readable to select(2).
    pub const SELECT_IN: Self = Self::POLLRDNORM
        .union(Self::POLLRDBAND)
        .union(Self::POLLIN)
        .union(Self::POLLHUP)
        .union(Self::POLLERR);
    /// What makes an fd writable to select(2).
    pub const SELECT_OUT: Self = Self::POLLWRBAND
        .union(Self::POLLWRNORM)
        .union(Self::POLLOUT)
        .union(Self::POLLERR);
    /// What makes an fd exceptional to select(2).
    pub const SELECT_EX: Self = Self::POLLPRI;
}

/// `struct pollfd`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PollFd {
    pub fd: i32,
    pub events: u16,
    pub revents: u16,
}

/// `struct epoll_event`, packed on x86-64.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, packed)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

/// Argument pair of pselect6(2) for the signal mask.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PselectSigmask {
    pub mask: u64,
    pub size: u64,
}

/// Most fds select(2) handles.
pub const FD_SETSIZE: usize = 1024;

const_set! {
    /// Operations of epoll_ctl(2).
    EPOLL_CTL_OPS: u32 {
        EPOLL_CTL_ADD = 1,
        EPOLL_CTL_DEL = 2,
        EPOLL_CTL_MOD = 3,
    }
}

flag_set! {
    /// Flags of epoll_create1(2).
    EpollFlags: u32, EPOLL_FLAGS {
        EPOLL_CLOEXEC = 0x80000,
    }
}

flag_set! {
    /// Flags of eventfd2(2).
    EventfdFlags: u32, EVENTFD_FLAGS {
        EFD_SEMAPHORE = 0x1,
        EFD_NONBLOCK = 0x800,
        EFD_CLOEXEC = 0x80000,
    }
}

flag_set! {
    /// Flags of inotify_init1(2).
    InotifyFlags: u32, INOTIFY_FLAGS {
        IN_NONBLOCK = 0x800,
        IN_CLOEXEC = 0x80000,
    }
}

flag_set! {
    /// Event mask of inotify(7).
    InotifyMask: u32, INOTIFY_MASK {
        IN_ACCESS = 0x1,
        IN_MODIFY = 0x2,
        IN_ATTRIB = 0x4,
        IN_CLOSE_WRITE = 0x8,
        IN_CLOSE_NOWRITE = 0x10,
        IN_OPEN = 0x20,
        IN_MOVED_FROM = 0x40,
        IN_MOVED_TO = 0x80,
        IN_CREATE = 0x100,
        IN_DELETE = 0x200,
        IN_DELETE_SELF = 0x400,
        IN_MOVE_SELF = 0x800,
        IN_UNMOUNT = 0x2000,
        IN_Q_OVERFLOW = 0x4000,
        IN_IGNORED = 0x8000,
        IN_ONLYDIR = 0x1000000,
        IN_DONT_FOLLOW = 0x2000000,
        IN_EXCL_UNLINK = 0x4000000,
        IN_MASK_CREATE = 0x10000000,
        IN_MASK_ADD = 0x20000000,
        IN_ISDIR = 0x40000000,
        IN_ONESHOT = 0x80000000,
    }
}

impl InotifyMask {
    /// All events a watch can ask for.
    pub const IN_ALL_EVENTS: Self = Self::from_bits_retain(0xfff);
}

/// Fixed part of `struct inotify_event`; the padded name follows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct InotifyEventHeader {
    pub wd: i32,
    pub mask: u32,
    pub cookie: u32,
    /// Length of the name with its NULs.
    pub len: u32,
}
