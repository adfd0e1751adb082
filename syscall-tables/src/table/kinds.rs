//! Kinds of arguments and results of system calls.

use crate::abi::NameSet;

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
    /// Address of bytes the call writes, their count behind the address in
    /// another argument (in and out).
    OutBufLenAt(usize),
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
    /// Number of an ioctl(2).
    IoctlRequest,
    /// Argument of an ioctl(2) whose number is another argument.
    IoctlArg(usize),
    /// Argument of a fcntl(2) whose command is another argument.
    FcntlArg(usize),
    /// Argument of a prctl(2) whose operation is another argument.
    PrctlArg(usize),
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
        use crate::abi;
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
