//! Kinds of arguments and results of system calls.

use crate::abi::{self, NameSet};

/// One argument of a system call.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub name: &'static str,
    pub kind: Kind,
}

/// What an argument is. Numbers in variants are indices of other arguments
/// of the same call.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A file descriptor.
    Fd,
    /// A directory fd of an `*at` call, or `AT_FDCWD`.
    DirFd,
    /// Address of a NUL-terminated path.
    Path,
    /// Address of a NUL-terminated string that is no path.
    Str,
    /// Address of a NULL-terminated array of string addresses.
    StrArray,
    /// Address of bytes the call reads; their count is another argument.
    InBuf(usize),
    /// Address of bytes the call writes; their count is the result, at most
    /// another argument.
    OutBuf(usize),
    /// As [`Kind::OutBuf`], with all bytes written whatever the result.
    OutBufFull(usize),
    /// Address of directory entries the call writes; their bytes are the
    /// result, at most another argument.
    OutDirents(usize),
    /// Name of a socket option whose level is another argument.
    SockOptName(usize),
    /// Value of a socket option to set, its length in another argument.
    InSockOpt(usize),
    /// Value of a socket option, its length behind the address in another
    /// argument.
    OutSockOpt(usize),
    /// Time-out or second count of a futex(2) whose operation is another
    /// argument.
    FutexTimeout(usize),
    /// Address of a struct the call reads.
    In(Struct),
    /// Address of a struct the call writes.
    Out(Struct),
    /// Address of a struct the call reads and writes.
    InOut(Struct),
    /// Address of structs the call reads; their count is another argument.
    InArray(Struct, usize),
    /// Address of structs the call writes; their count is the result, at most
    /// another argument.
    OutArray(Struct, usize),
    /// Address of structs the call reads and writes.
    InOutArray(Struct, usize),
    /// Address of `iovec`s whose buffers the call reads.
    InIovec(usize),
    /// Address of `iovec`s whose buffers the call writes.
    OutIovec(usize),
    /// Address of a `sockaddr` the call reads, its length in another argument.
    InSockAddr(usize),
    /// Address of a `sockaddr` the call writes, its length behind the address
    /// in another argument.
    OutSockAddr(usize),
    /// Address of a `msghdr` with data to send.
    InMsg,
    /// Address of a `msghdr` to receive into.
    OutMsg,
    /// Address of `mmsghdr`s with data to send.
    InMmsg(usize),
    /// Address of `mmsghdr`s to receive into.
    OutMmsg(usize),
    /// A flag word.
    Flags(&'static NameSet),
    /// A value of an enumeration.
    Enum(&'static NameSet),
    /// A value of an enumeration, or-ed with a flag word.
    EnumFlags(&'static NameSet, &'static NameSet),
    /// An `IPC_*` command or one of the set.
    IpcCmd(&'static NameSet),
    /// clone(2)'s flag word with the exit signal in the low byte.
    CloneWord,
    /// Operation of futex(2).
    FutexOp,
    /// Permissions in octal.
    Mode,
    /// Permissions that only count if the flag word in another argument
    /// creates a file.
    CreateMode(usize),
    /// A device number.
    Dev,
    Pid,
    Uid,
    Gid,
    Signal,
    /// A count of bytes or elements.
    Size,
    /// A signed 64-bit position or length.
    Offset,
    /// A signed 32-bit number.
    Int,
    /// An unsigned 32-bit number.
    Uint,
    /// A signed 64-bit number.
    Long,
    /// A number best read in hexadecimal.
    Hex,
    /// A number best read in octal.
    Octal,
    /// An address whose contents are not described.
    Addr,
    /// A capability number.
    Capability,
    /// Address of a thread name of 16 bytes the call writes.
    OutName,
    /// Ignored by this variant of the call.
    Unused,
    /// Number of an ioctl(2).
    IoctlRequest,
    /// Argument of an ioctl(2) whose number is another argument.
    IoctlArg(usize),
    /// Argument of a fcntl(2) whose command is another argument.
    FcntlArg(usize),
    /// Argument of a prctl(2) whose operation is another argument.
    PrctlArg(usize),
}

impl Kind {
    /// The kind of an argument that depends on other arguments, given all of
    /// them; other kinds stay as they are.
    pub fn resolve(self, args: &[u64; 6]) -> Self {
        // Commands are 32-bit numbers; the kernel ignores the upper half.
        let number = |index: usize| args.get(index).map_or(0, |&arg| arg as u32);
        match self {
            Self::IoctlArg(request) => ioctl_arg(number(request)),
            Self::FcntlArg(cmd) => fcntl_arg(number(cmd)),
            Self::PrctlArg(op) => prctl_arg(number(op)),
            Self::FutexTimeout(op) => futex_timeout(number(op)),
            other => other,
        }
    }
}

/// What ioctl(2)'s third argument is.
fn ioctl_arg(request: u32) -> Kind {
    match request {
        abi::TCGETS => Kind::Out(Struct::Termios),
        abi::TCSETS | abi::TCSETSW | abi::TCSETSF => Kind::In(Struct::Termios),
        abi::TIOCGWINSZ => Kind::Out(Struct::Winsize),
        abi::TIOCSWINSZ => Kind::In(Struct::Winsize),
        abi::FIONREAD
        | abi::TIOCOUTQ
        | abi::TIOCGPGRP
        | abi::TIOCGSID
        | abi::TIOCGPTN
        | abi::TIOCGPTLCK
        | abi::TIOCGPKT
        | abi::TIOCGEXCL
        | abi::TIOCGETD
        | abi::FIOGETOWN
        | abi::SIOCGPGRP
        | abi::SIOCATMARK
        | abi::FIGETBSZ
        | abi::RNDGETENTCNT => Kind::Out(Struct::Int),
        abi::FIONBIO
        | abi::FIOASYNC
        | abi::TIOCSPGRP
        | abi::TIOCSPTLCK
        | abi::TIOCPKT
        | abi::TIOCSETD
        | abi::FIOSETOWN
        | abi::SIOCSPGRP => Kind::In(Struct::Int),
        abi::TCFLSH => Kind::Enum(&abi::TCFLSH_QUEUES),
        abi::TCXONC => Kind::Enum(&abi::TCXONC_ACTIONS),
        abi::TIOCSCTTY | abi::TCSBRK | abi::TCSBRKP | abi::FICLONE => Kind::Int,
        abi::TIOCGPTPEER => Kind::Flags(&abi::OPEN_FLAGS),
        _ => Kind::Hex,
    }
}

/// What fcntl(2)'s third argument is.
fn fcntl_arg(cmd: u32) -> Kind {
    match cmd {
        abi::F_DUPFD | abi::F_DUPFD_CLOEXEC | abi::F_SETOWN | abi::F_SETPIPE_SZ => Kind::Int,
        abi::F_DUPFD_QUERY => Kind::Fd,
        abi::F_SETFD => Kind::Enum(&abi::FD_FLAGS),
        abi::F_SETFL => Kind::Flags(&abi::OPEN_FLAGS),
        abi::F_SETLK | abi::F_SETLKW | abi::F_OFD_SETLK | abi::F_OFD_SETLKW => {
            Kind::In(Struct::Flock)
        }
        abi::F_GETLK | abi::F_OFD_GETLK => Kind::InOut(Struct::Flock),
        abi::F_SETSIG => Kind::Signal,
        abi::F_SETLEASE => Kind::Enum(&abi::LOCK_TYPES),
        abi::F_NOTIFY => Kind::Flags(&abi::DNOTIFY_MASK),
        abi::F_ADD_SEALS => Kind::Flags(&abi::SEALS),
        abi::F_GETFD
        | abi::F_GETFL
        | abi::F_GETOWN
        | abi::F_GETSIG
        | abi::F_GETLEASE
        | abi::F_GETPIPE_SZ
        | abi::F_GET_SEALS => Kind::Unused,
        _ => Kind::Hex,
    }
}

/// What prctl(2)'s second argument is.
fn prctl_arg(op: u32) -> Kind {
    match op {
        abi::PR_SET_NAME => Kind::Str,
        abi::PR_GET_NAME => Kind::OutName,
        abi::PR_SET_PDEATHSIG => Kind::Signal,
        abi::PR_GET_PDEATHSIG | abi::PR_GET_CHILD_SUBREAPER | abi::PR_GET_TSC => {
            Kind::Out(Struct::Int)
        }
        abi::PR_GET_TID_ADDRESS => Kind::Out(Struct::Word),
        abi::PR_CAPBSET_READ | abi::PR_CAPBSET_DROP => Kind::Capability,
        abi::PR_CAP_AMBIENT => Kind::Enum(&abi::PR_CAP_AMBIENT_OPS),
        abi::PR_SET_MM => Kind::Enum(&abi::PR_SET_MM_OPS),
        abi::PR_SET_SECUREBITS => Kind::Flags(&abi::SECURE_BITS),
        abi::PR_SET_DUMPABLE
        | abi::PR_SET_KEEPCAPS
        | abi::PR_SET_NO_NEW_PRIVS
        | abi::PR_SET_CHILD_SUBREAPER
        | abi::PR_SET_TIMERSLACK
        | abi::PR_SET_SECCOMP => Kind::Int,
        _ => Kind::Hex,
    }
}

/// What futex(2)'s fourth argument is.
fn futex_timeout(op: u32) -> Kind {
    match op & abi::FUTEX_CMD_MASK {
        abi::FUTEX_WAIT
        | abi::FUTEX_WAIT_BITSET
        | abi::FUTEX_LOCK_PI
        | abi::FUTEX_LOCK_PI2
        | abi::FUTEX_WAIT_REQUEUE_PI => Kind::In(Struct::Timespec),
        abi::FUTEX_REQUEUE
        | abi::FUTEX_CMP_REQUEUE
        | abi::FUTEX_CMP_REQUEUE_PI
        | abi::FUTEX_WAKE_OP => Kind::Uint,
        _ => Kind::Hex,
    }
}

/// Structs behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Struct {
    /// `int` or `pid_t`.
    Int,
    /// `unsigned int`, `uid_t`, `socklen_t`.
    Uint,
    /// `int[2]` of pipe(2) and socketpair(2).
    IntPair,
    /// A 64-bit number: `off_t`, `time_t`, `long`.
    Long,
    /// A 64-bit address or mask.
    Word,
    Stat,
    Statx,
    Statfs,
    FileAttr,
    Timespec,
    /// Two of utimensat(2).
    TimespecPair,
    Timeval,
    /// Two of utimes(2).
    TimevalPair,
    Timezone,
    Utimbuf,
    Itimerval,
    Itimerspec,
    Timex,
    Tms,
    Rusage,
    Rlimit,
    Utsname,
    Sysinfo,
    SigSet,
    SigAction,
    SigInfo,
    SigEvent,
    StackT,
    SignalMaskArg,
    PollFd,
    EpollEvent,
    /// 128 bytes of `fd_set`.
    FdSet,
    WaitStatus,
    CloneArgs,
    SchedParam,
    SchedAttr,
    RobustListHead,
    FutexWaitv,
    OpenHow,
    XattrArgs,
    MountAttr,
    MntIdReq,
    CapHeader,
    CapData,
    Sembuf,
    ShmidDs,
    MsqidDs,
    MqAttr,
    SockFprog,
    Termios,
    Winsize,
    Flock,
    Iovec,
    FileHandle,
}

impl Struct {
    /// Size in bytes on x86-64.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::Int | Self::Uint | Self::WaitStatus => 4,
            Self::IntPair | Self::Long | Self::Word | Self::FileHandle => 8,
            Self::Stat => size_of::<abi::Stat>(),
            Self::Statx => size_of::<abi::Statx>(),
            Self::Statfs => size_of::<abi::Statfs>(),
            Self::FileAttr => size_of::<abi::FileAttr>(),
            Self::Timespec | Self::Timeval | Self::Utimbuf => 16,
            Self::TimespecPair | Self::TimevalPair => 32,
            Self::Itimerval | Self::Itimerspec => 32,
            Self::Timezone => 8,
            Self::Timex => size_of::<abi::Timex>(),
            Self::Tms => size_of::<abi::Tms>(),
            Self::Rusage => size_of::<abi::Rusage>(),
            Self::Rlimit => size_of::<abi::Rlimit>(),
            Self::Utsname => size_of::<abi::Utsname>(),
            Self::Sysinfo => size_of::<abi::Sysinfo>(),
            Self::SigSet => size_of::<abi::SigSet>(),
            Self::SigAction => size_of::<abi::SigAction>(),
            Self::SigInfo => size_of::<abi::SigInfo>(),
            Self::SigEvent => size_of::<abi::SigEvent>(),
            Self::StackT => size_of::<abi::StackT>(),
            Self::SignalMaskArg => size_of::<abi::PselectSigmask>(),
            Self::PollFd => size_of::<abi::PollFd>(),
            Self::EpollEvent => size_of::<abi::EpollEvent>(),
            Self::FdSet => abi::FD_SETSIZE / 8,
            Self::CloneArgs => size_of::<abi::CloneArgs>(),
            Self::SchedParam => size_of::<abi::SchedParam>(),
            Self::SchedAttr => size_of::<abi::SchedAttr>(),
            Self::RobustListHead => size_of::<abi::RobustListHead>(),
            Self::FutexWaitv => size_of::<abi::FutexWaitv>(),
            Self::OpenHow => size_of::<abi::OpenHow>(),
            Self::XattrArgs => size_of::<abi::XattrArgs>(),
            Self::MountAttr => size_of::<abi::MountAttr>(),
            Self::MntIdReq => size_of::<abi::MntIdReq>(),
            Self::CapHeader => size_of::<abi::CapUserHeader>(),
            Self::CapData => 2 * size_of::<abi::CapUserData>(),
            Self::Sembuf => size_of::<abi::Sembuf>(),
            Self::ShmidDs => size_of::<abi::ShmidDs>(),
            Self::MsqidDs => size_of::<abi::MsqidDs>(),
            Self::MqAttr => size_of::<abi::MqAttr>(),
            Self::SockFprog => size_of::<abi::SockFprog>(),
            Self::Termios => size_of::<abi::Termios>(),
            Self::Winsize => size_of::<abi::Winsize>(),
            Self::Flock => size_of::<abi::Flock>(),
            Self::Iovec => size_of::<abi::Iovec>(),
        }
    }
}

/// What the result of a successful call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// A signed number, mostly 0.
    Int,
    /// A new file descriptor.
    Fd,
    /// A count of bytes or elements.
    Size,
    /// An address.
    Addr,
    /// A process or thread id.
    Pid,
    /// A mode in octal.
    Octal,
    /// A number best read in hexadecimal.
    Hex,
    /// The call does not return.
    Never,
}
