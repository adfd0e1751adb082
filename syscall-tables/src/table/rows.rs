//! The rows: number, name, arguments and result of every x86-64 system call
//! up to Linux 6.18. The only place where a number meets a name.

use super::kinds::{Arg, Kind, Ret, Struct as S};
use crate::abi;
use Kind::{
    Addr, CloneWord, CreateMode, Dev, DirFd, Enum, EnumFlags, FcntlArg, Fd, Flags, FutexOp,
    FutexTimeout, Gid, Hex, In, InArray, InBuf, InIovec, InMmsg, InMsg, InOut, InOutArray,
    InSockAddr, InSockOpt, Int, IoctlArg, IoctlRequest, IpcCmd, Long, Mode, Octal, Offset, Out,
    OutArray, OutBuf, OutBufFull, OutDirents, OutIovec, OutMmsg, OutMsg, OutSockAddr, OutSockOpt,
    Path, Pid, PrctlArg, Signal, Size, SockOptName, Str, StrArray, Uid, Uint,
};

/// A row without its status.
pub(super) struct Row {
    pub number: u32,
    pub name: &'static str,
    pub args: &'static [Arg],
    pub ret: Ret,
}

macro_rules! rows {
    ($($number:literal $name:ident $upper:ident ($($arg:ident: $kind:expr),*) $(-> $ret:ident)?;)*) => {
        /// Numbers by name: `nr::READ`.
        pub mod nr {
            $(
                #[doc = concat!("`", stringify!($name), "`.")]
                pub const $upper: u32 = $number;
            )*
        }

        pub(super) static ROWS: [Row; COUNT] = [
            $(Row {
                number: $number,
                name: stringify!($name),
                args: &[$(Arg { name: stringify!($arg), kind: $kind }),*],
                ret: ret!($($ret)?),
            },)*
        ];

        /// Number of rows.
        pub(super) const COUNT: usize = [$($number,)*].len();
    };
}

macro_rules! ret {
    () => {
        Ret::Int
    };
    ($ret:ident) => {
        Ret::$ret
    };
}

rows! {
    0 read READ (fd: Fd, buf: OutBuf(2), count: Size) -> Size;
    1 write WRITE (fd: Fd, buf: InBuf(2), count: Size) -> Size;
    2 open OPEN (path: Path, flags: Flags(&abi::OPEN_FLAGS), mode: CreateMode(1)) -> Fd;
    3 close CLOSE (fd: Fd);
    4 stat STAT (path: Path, statbuf: Out(S::Stat));
    5 fstat FSTAT (fd: Fd, statbuf: Out(S::Stat));
    6 lstat LSTAT (path: Path, statbuf: Out(S::Stat));
    7 poll POLL (fds: InOutArray(S::PollFd, 1), nfds: Size, timeout_ms: Int) -> Size;
    8 lseek LSEEK (fd: Fd, offset: Offset, whence: Enum(&abi::SEEK_WHENCE)) -> Size;
    9 mmap MMAP (addr: Addr, len: Size, prot: Flags(&abi::PROT_FLAGS), flags: Flags(&abi::MAP_FLAGS), fd: Fd, offset: Hex) -> Addr;
    10 mprotect MPROTECT (addr: Addr, len: Size, prot: Flags(&abi::PROT_FLAGS));
    11 munmap MUNMAP (addr: Addr, len: Size);
    12 brk BRK (addr: Addr) -> Addr;
    13 rt_sigaction RT_SIGACTION (sig: Signal, act: In(S::SigAction), oldact: Out(S::SigAction), sigsetsize: Size);
    14 rt_sigprocmask RT_SIGPROCMASK (how: Enum(&abi::SIG_HOW), set: In(S::SigSet), oldset: Out(S::SigSet), sigsetsize: Size);
    15 rt_sigreturn RT_SIGRETURN () -> Hex;
    16 ioctl IOCTL (fd: Fd, request: IoctlRequest, arg: IoctlArg(1));
    17 pread64 PREAD64 (fd: Fd, buf: OutBuf(2), count: Size, offset: Offset) -> Size;
    18 pwrite64 PWRITE64 (fd: Fd, buf: InBuf(2), count: Size, offset: Offset) -> Size;
    19 readv READV (fd: Fd, iov: OutIovec(2), iovcnt: Size) -> Size;
    20 writev WRITEV (fd: Fd, iov: InIovec(2), iovcnt: Size) -> Size;
    21 access ACCESS (path: Path, mode: Flags(&abi::ACCESS_MODE));
    22 pipe PIPE (fds: Out(S::IntPair));
    23 select SELECT (nfds: Int, readfds: InOut(S::FdSet), writefds: InOut(S::FdSet), exceptfds: InOut(S::FdSet), timeout: InOut(S::Timeval)) -> Size;
    24 sched_yield SCHED_YIELD ();
    25 mremap MREMAP (old_addr: Addr, old_len: Size, new_len: Size, flags: Flags(&abi::MREMAP_FLAGS), new_addr: Addr) -> Addr;
    26 msync MSYNC (addr: Addr, len: Size, flags: Flags(&abi::MSYNC_FLAGS));
    27 mincore MINCORE (addr: Addr, len: Size, vec: Addr);
    28 madvise MADVISE (addr: Addr, len: Size, advice: Enum(&abi::MADVICE));
    29 shmget SHMGET (key: Hex, size: Size, shmflg: Octal);
    30 shmat SHMAT (shmid: Int, addr: Addr, flags: Flags(&abi::SHM_FLAGS)) -> Addr;
    31 shmctl SHMCTL (shmid: Int, cmd: IpcCmd(&abi::SHM_CMDS), buf: Addr);
    32 dup DUP (fd: Fd) -> Fd;
    33 dup2 DUP2 (oldfd: Fd, newfd: Fd) -> Fd;
    34 pause PAUSE ();
    35 nanosleep NANOSLEEP (req: In(S::Timespec), rem: Out(S::Timespec));
    36 getitimer GETITIMER (which: Enum(&abi::ITIMERS), value: Out(S::Itimerval));
    37 alarm ALARM (seconds: Uint);
    38 setitimer SETITIMER (which: Enum(&abi::ITIMERS), new: In(S::Itimerval), old: Out(S::Itimerval));
    39 getpid GETPID () -> Pid;
    40 sendfile SENDFILE (out_fd: Fd, in_fd: Fd, offset: InOut(S::Long), count: Size) -> Size;
    41 socket SOCKET (domain: Enum(&abi::ADDRESS_FAMILIES), socktype: EnumFlags(&abi::SOCK_TYPES, &abi::SOCK_FLAGS), protocol: Int) -> Fd;
    42 connect CONNECT (fd: Fd, addr: InSockAddr(2), addrlen: Size);
    43 accept ACCEPT (fd: Fd, addr: OutSockAddr(2), addrlen: InOut(S::Uint)) -> Fd;
    44 sendto SENDTO (fd: Fd, buf: InBuf(2), len: Size, flags: Flags(&abi::MSG_FLAGS), addr: InSockAddr(5), addrlen: Size) -> Size;
    45 recvfrom RECVFROM (fd: Fd, buf: OutBuf(2), len: Size, flags: Flags(&abi::MSG_FLAGS), addr: OutSockAddr(5), addrlen: InOut(S::Uint)) -> Size;
    46 sendmsg SENDMSG (fd: Fd, msg: InMsg, flags: Flags(&abi::MSG_FLAGS)) -> Size;
    47 recvmsg RECVMSG (fd: Fd, msg: OutMsg, flags: Flags(&abi::MSG_FLAGS)) -> Size;
    48 shutdown SHUTDOWN (fd: Fd, how: Enum(&abi::SHUTDOWN_HOW));
    49 bind BIND (fd: Fd, addr: InSockAddr(2), addrlen: Size);
    50 listen LISTEN (fd: Fd, backlog: Int);
    51 getsockname GETSOCKNAME (fd: Fd, addr: OutSockAddr(2), addrlen: InOut(S::Uint));
    52 getpeername GETPEERNAME (fd: Fd, addr: OutSockAddr(2), addrlen: InOut(S::Uint));
    53 socketpair SOCKETPAIR (domain: Enum(&abi::ADDRESS_FAMILIES), socktype: EnumFlags(&abi::SOCK_TYPES, &abi::SOCK_FLAGS), protocol: Int, fds: Out(S::IntPair));
    54 setsockopt SETSOCKOPT (fd: Fd, level: Enum(&abi::SOCKOPT_LEVELS), optname: SockOptName(1), optval: InSockOpt(4), optlen: Size);
    55 getsockopt GETSOCKOPT (fd: Fd, level: Enum(&abi::SOCKOPT_LEVELS), optname: SockOptName(1), optval: OutSockOpt(4), optlen: InOut(S::Uint));
    56 clone CLONE (flags: CloneWord, stack: Addr, parent_tid: Out(S::Int), child_tid: Addr, tls: Addr) -> Pid;
    57 fork FORK () -> Pid;
    58 vfork VFORK () -> Pid;
    59 execve EXECVE (path: Path, argv: StrArray, envp: StrArray);
    60 exit EXIT (status: Int) -> Never;
    61 wait4 WAIT4 (pid: Pid, status: Out(S::WaitStatus), options: Flags(&abi::WAIT_OPTIONS), rusage: Out(S::Rusage)) -> Pid;
    62 kill KILL (pid: Pid, sig: Signal);
    63 uname UNAME (name: Out(S::Utsname));
    64 semget SEMGET (key: Hex, nsems: Int, semflg: Octal);
    65 semop SEMOP (semid: Int, sops: InArray(S::Sembuf, 2), nsops: Size);
    66 semctl SEMCTL (semid: Int, semnum: Int, cmd: IpcCmd(&abi::SEM_CMDS), arg: Hex);
    67 shmdt SHMDT (addr: Addr);
    68 msgget MSGGET (key: Hex, msgflg: Octal);
    69 msgsnd MSGSND (msqid: Int, msgp: Addr, msgsz: Size, msgflg: Octal);
    70 msgrcv MSGRCV (msqid: Int, msgp: Addr, msgsz: Size, msgtyp: Long, msgflg: Octal) -> Size;
    71 msgctl MSGCTL (msqid: Int, cmd: IpcCmd(&abi::MSG_CMDS), buf: Addr);
    72 fcntl FCNTL (fd: Fd, cmd: Enum(&abi::FCNTL_CMDS), arg: FcntlArg(1));
    73 flock FLOCK (fd: Fd, operation: Flags(&abi::FLOCK_OPS));
    74 fsync FSYNC (fd: Fd);
    75 fdatasync FDATASYNC (fd: Fd);
    76 truncate TRUNCATE (path: Path, length: Offset);
    77 ftruncate FTRUNCATE (fd: Fd, length: Offset);
    78 getdents GETDENTS (fd: Fd, dirents: OutDirents(2), count: Size) -> Size;
    79 getcwd GETCWD (buf: OutBuf(1), size: Size) -> Size;
    80 chdir CHDIR (path: Path);
    81 fchdir FCHDIR (fd: Fd);
    82 rename RENAME (oldpath: Path, newpath: Path);
    83 mkdir MKDIR (path: Path, mode: Mode);
    84 rmdir RMDIR (path: Path);
    85 creat CREAT (path: Path, mode: Mode) -> Fd;
    86 link LINK (oldpath: Path, newpath: Path);
    87 unlink UNLINK (path: Path);
    88 symlink SYMLINK (target: Str, linkpath: Path);
    89 readlink READLINK (path: Path, buf: OutBuf(2), bufsiz: Size) -> Size;
    90 chmod CHMOD (path: Path, mode: Mode);
    91 fchmod FCHMOD (fd: Fd, mode: Mode);
    92 chown CHOWN (path: Path, uid: Uid, gid: Gid);
    93 fchown FCHOWN (fd: Fd, uid: Uid, gid: Gid);
    94 lchown LCHOWN (path: Path, uid: Uid, gid: Gid);
    95 umask UMASK (mask: Octal) -> Octal;
    96 gettimeofday GETTIMEOFDAY (tv: Out(S::Timeval), tz: Out(S::Timezone));
    97 getrlimit GETRLIMIT (resource: Enum(&abi::RLIMITS), rlim: Out(S::Rlimit));
    98 getrusage GETRUSAGE (who: Enum(&abi::RUSAGE_WHO), usage: Out(S::Rusage));
    99 sysinfo SYSINFO (info: Out(S::Sysinfo));
    100 times TIMES (buf: Out(S::Tms));
    101 ptrace PTRACE (request: Enum(&abi::PTRACE_REQUESTS), pid: Pid, addr: Addr, data: Addr);
    102 getuid GETUID ();
    103 syslog SYSLOG (kind: Int, buf: OutBuf(2), len: Size);
    104 getgid GETGID ();
    105 setuid SETUID (uid: Uid);
    106 setgid SETGID (gid: Gid);
    107 geteuid GETEUID ();
    108 getegid GETEGID ();
    109 setpgid SETPGID (pid: Pid, pgid: Pid);
    110 getppid GETPPID () -> Pid;
    111 getpgrp GETPGRP () -> Pid;
    112 setsid SETSID () -> Pid;
    113 setreuid SETREUID (ruid: Uid, euid: Uid);
    114 setregid SETREGID (rgid: Gid, egid: Gid);
    115 getgroups GETGROUPS (size: Int, list: OutArray(S::Uint, 0)) -> Size;
    116 setgroups SETGROUPS (size: Size, list: InArray(S::Uint, 0));
    117 setresuid SETRESUID (ruid: Uid, euid: Uid, suid: Uid);
    118 getresuid GETRESUID (ruid: Out(S::Uint), euid: Out(S::Uint), suid: Out(S::Uint));
    119 setresgid SETRESGID (rgid: Gid, egid: Gid, sgid: Gid);
    120 getresgid GETRESGID (rgid: Out(S::Uint), egid: Out(S::Uint), sgid: Out(S::Uint));
    121 getpgid GETPGID (pid: Pid) -> Pid;
    122 setfsuid SETFSUID (uid: Uid);
    123 setfsgid SETFSGID (gid: Gid);
    124 getsid GETSID (pid: Pid) -> Pid;
    125 capget CAPGET (header: InOut(S::CapHeader), data: Out(S::CapData));
    126 capset CAPSET (header: InOut(S::CapHeader), data: In(S::CapData));
    127 rt_sigpending RT_SIGPENDING (set: Out(S::SigSet), sigsetsize: Size);
    128 rt_sigtimedwait RT_SIGTIMEDWAIT (set: In(S::SigSet), info: Out(S::SigInfo), timeout: In(S::Timespec), sigsetsize: Size);
    129 rt_sigqueueinfo RT_SIGQUEUEINFO (pid: Pid, sig: Signal, info: In(S::SigInfo));
    130 rt_sigsuspend RT_SIGSUSPEND (mask: In(S::SigSet), sigsetsize: Size);
    131 sigaltstack SIGALTSTACK (ss: In(S::StackT), old_ss: Out(S::StackT));
    132 utime UTIME (path: Path, times: In(S::Utimbuf));
    133 mknod MKNOD (path: Path, mode: Mode, dev: Dev);
    134 uselib USELIB (path: Path);
    135 personality PERSONALITY (persona: Hex) -> Hex;
    136 ustat USTAT (dev: Dev, ubuf: Addr);
    137 statfs STATFS (path: Path, buf: Out(S::Statfs));
    138 fstatfs FSTATFS (fd: Fd, buf: Out(S::Statfs));
    139 sysfs SYSFS (option: Int, arg1: Hex, arg2: Hex);
    140 getpriority GETPRIORITY (which: Enum(&abi::PRIO_WHICH), who: Int);
    141 setpriority SETPRIORITY (which: Enum(&abi::PRIO_WHICH), who: Int, prio: Int);
    142 sched_setparam SCHED_SETPARAM (pid: Pid, param: In(S::SchedParam));
    143 sched_getparam SCHED_GETPARAM (pid: Pid, param: Out(S::SchedParam));
    144 sched_setscheduler SCHED_SETSCHEDULER (pid: Pid, policy: Enum(&abi::SCHED_POLICIES), param: In(S::SchedParam));
    145 sched_getscheduler SCHED_GETSCHEDULER (pid: Pid);
    146 sched_get_priority_max SCHED_GET_PRIORITY_MAX (policy: Enum(&abi::SCHED_POLICIES));
    147 sched_get_priority_min SCHED_GET_PRIORITY_MIN (policy: Enum(&abi::SCHED_POLICIES));
    148 sched_rr_get_interval SCHED_RR_GET_INTERVAL (pid: Pid, interval: Out(S::Timespec));
    149 mlock MLOCK (addr: Addr, len: Size);
    150 munlock MUNLOCK (addr: Addr, len: Size);
    151 mlockall MLOCKALL (flags: Flags(&abi::MLOCKALL_FLAGS));
    152 munlockall MUNLOCKALL ();
    153 vhangup VHANGUP ();
    154 modify_ldt MODIFY_LDT (func: Int, ptr: Addr, bytecount: Size);
    155 pivot_root PIVOT_ROOT (new_root: Path, put_old: Path);
    156 _sysctl _SYSCTL (args: Addr);
    157 prctl PRCTL (option: Enum(&abi::PRCTL_OPS), arg2: PrctlArg(0), arg3: Hex, arg4: Hex, arg5: Hex);
    158 arch_prctl ARCH_PRCTL (option: Enum(&abi::ARCH_PRCTL_OPS), addr: Addr);
    159 adjtimex ADJTIMEX (buf: InOut(S::Timex));
    160 setrlimit SETRLIMIT (resource: Enum(&abi::RLIMITS), rlim: In(S::Rlimit));
    161 chroot CHROOT (path: Path);
    162 sync SYNC ();
    163 acct ACCT (path: Path);
    164 settimeofday SETTIMEOFDAY (tv: In(S::Timeval), tz: In(S::Timezone));
    165 mount MOUNT (source: Str, target: Path, fstype: Str, flags: Flags(&abi::MOUNT_FLAGS), data: Str);
    166 umount2 UMOUNT2 (target: Path, flags: Flags(&abi::UMOUNT_FLAGS));
    167 swapon SWAPON (path: Path, flags: Hex);
    168 swapoff SWAPOFF (path: Path);
    169 reboot REBOOT (magic: Hex, magic2: Hex, cmd: Enum(&abi::REBOOT_CMDS), arg: Addr);
    170 sethostname SETHOSTNAME (name: InBuf(1), len: Size);
    171 setdomainname SETDOMAINNAME (name: InBuf(1), len: Size);
    172 iopl IOPL (level: Int);
    173 ioperm IOPERM (from: Hex, num: Size, turn_on: Int);
    174 create_module CREATE_MODULE (name: Str, size: Size);
    175 init_module INIT_MODULE (image: Addr, len: Size, params: Str);
    176 delete_module DELETE_MODULE (name: Str, flags: Hex);
    177 get_kernel_syms GET_KERNEL_SYMS (table: Addr);
    178 query_module QUERY_MODULE (name: Str, which: Int, buf: Addr, bufsize: Size, ret: Addr);
    179 quotactl QUOTACTL (cmd: Hex, special: Path, id: Uid, addr: Addr);
    180 nfsservctl NFSSERVCTL (cmd: Int, argp: Addr, resp: Addr);
    181 getpmsg GETPMSG ();
    182 putpmsg PUTPMSG ();
    183 afs_syscall AFS_SYSCALL ();
    184 tuxcall TUXCALL ();
    185 security SECURITY ();
    186 gettid GETTID () -> Pid;
    187 readahead READAHEAD (fd: Fd, offset: Offset, count: Size);
    188 setxattr SETXATTR (path: Path, name: Str, value: InBuf(3), size: Size, flags: Flags(&abi::XATTR_FLAGS));
    189 lsetxattr LSETXATTR (path: Path, name: Str, value: InBuf(3), size: Size, flags: Flags(&abi::XATTR_FLAGS));
    190 fsetxattr FSETXATTR (fd: Fd, name: Str, value: InBuf(3), size: Size, flags: Flags(&abi::XATTR_FLAGS));
    191 getxattr GETXATTR (path: Path, name: Str, value: OutBuf(3), size: Size) -> Size;
    192 lgetxattr LGETXATTR (path: Path, name: Str, value: OutBuf(3), size: Size) -> Size;
    193 fgetxattr FGETXATTR (fd: Fd, name: Str, value: OutBuf(3), size: Size) -> Size;
    194 listxattr LISTXATTR (path: Path, list: OutBuf(2), size: Size) -> Size;
    195 llistxattr LLISTXATTR (path: Path, list: OutBuf(2), size: Size) -> Size;
    196 flistxattr FLISTXATTR (fd: Fd, list: OutBuf(2), size: Size) -> Size;
    197 removexattr REMOVEXATTR (path: Path, name: Str);
    198 lremovexattr LREMOVEXATTR (path: Path, name: Str);
    199 fremovexattr FREMOVEXATTR (fd: Fd, name: Str);
    200 tkill TKILL (tid: Pid, sig: Signal);
    201 time TIME (tloc: Out(S::Long));
    202 futex FUTEX (uaddr: Addr, op: FutexOp, val: Uint, timeout_or_val2: FutexTimeout(1), uaddr2: Addr, val3: Hex);
    203 sched_setaffinity SCHED_SETAFFINITY (pid: Pid, len: Size, mask: InBuf(1));
    204 sched_getaffinity SCHED_GETAFFINITY (pid: Pid, len: Size, mask: OutBuf(1)) -> Size;
    205 set_thread_area SET_THREAD_AREA (u_info: Addr);
    206 io_setup IO_SETUP (nr_events: Uint, ctx: InOut(S::Word));
    207 io_destroy IO_DESTROY (ctx: Addr);
    208 io_getevents IO_GETEVENTS (ctx: Addr, min_nr: Long, nr: Long, events: Addr, timeout: In(S::Timespec)) -> Size;
    209 io_submit IO_SUBMIT (ctx: Addr, nr: Long, iocbpp: Addr) -> Size;
    210 io_cancel IO_CANCEL (ctx: Addr, iocb: Addr, result: Addr);
    211 get_thread_area GET_THREAD_AREA (u_info: Addr);
    212 lookup_dcookie LOOKUP_DCOOKIE (cookie: Hex, buf: OutBuf(2), len: Size);
    213 epoll_create EPOLL_CREATE (size: Int) -> Fd;
    214 epoll_ctl_old EPOLL_CTL_OLD ();
    215 epoll_wait_old EPOLL_WAIT_OLD ();
    216 remap_file_pages REMAP_FILE_PAGES (addr: Addr, size: Size, prot: Flags(&abi::PROT_FLAGS), pgoff: Hex, flags: Flags(&abi::MAP_FLAGS));
    217 getdents64 GETDENTS64 (fd: Fd, dirents: OutDirents(2), count: Size) -> Size;
    218 set_tid_address SET_TID_ADDRESS (tidptr: Addr) -> Pid;
    219 restart_syscall RESTART_SYSCALL ();
    220 semtimedop SEMTIMEDOP (semid: Int, sops: InArray(S::Sembuf, 2), nsops: Size, timeout: In(S::Timespec));
    221 fadvise64 FADVISE64 (fd: Fd, offset: Offset, len: Size, advice: Enum(&abi::FADVICE));
    222 timer_create TIMER_CREATE (clockid: Enum(&abi::CLOCKS), sevp: In(S::SigEvent), timerid: Out(S::Int));
    223 timer_settime TIMER_SETTIME (timerid: Int, flags: Flags(&abi::TIMER_FLAGS), new: In(S::Itimerspec), old: Out(S::Itimerspec));
    224 timer_gettime TIMER_GETTIME (timerid: Int, value: Out(S::Itimerspec));
    225 timer_getoverrun TIMER_GETOVERRUN (timerid: Int);
    226 timer_delete TIMER_DELETE (timerid: Int);
    227 clock_settime CLOCK_SETTIME (clockid: Enum(&abi::CLOCKS), tp: In(S::Timespec));
    228 clock_gettime CLOCK_GETTIME (clockid: Enum(&abi::CLOCKS), tp: Out(S::Timespec));
    229 clock_getres CLOCK_GETRES (clockid: Enum(&abi::CLOCKS), res: Out(S::Timespec));
    230 clock_nanosleep CLOCK_NANOSLEEP (clockid: Enum(&abi::CLOCKS), flags: Flags(&abi::TIMER_FLAGS), req: In(S::Timespec), rem: Out(S::Timespec));
    231 exit_group EXIT_GROUP (status: Int) -> Never;
    232 epoll_wait EPOLL_WAIT (epfd: Fd, events: OutArray(S::EpollEvent, 2), maxevents: Int, timeout_ms: Int) -> Size;
    233 epoll_ctl EPOLL_CTL (epfd: Fd, op: Enum(&abi::EPOLL_CTL_OPS), fd: Fd, event: In(S::EpollEvent));
    234 tgkill TGKILL (tgid: Pid, tid: Pid, sig: Signal);
    235 utimes UTIMES (path: Path, times: In(S::TimevalPair));
    236 vserver VSERVER ();
    237 mbind MBIND (addr: Addr, len: Size, mode: Enum(&abi::MEMPOLICIES), nodemask: Addr, maxnode: Size, flags: Hex);
    238 set_mempolicy SET_MEMPOLICY (mode: Enum(&abi::MEMPOLICIES), nodemask: Addr, maxnode: Size);
    239 get_mempolicy GET_MEMPOLICY (mode: Out(S::Int), nodemask: Addr, maxnode: Size, addr: Addr, flags: Flags(&abi::GET_MEMPOLICY_FLAGS));
    240 mq_open MQ_OPEN (name: Str, oflag: Flags(&abi::OPEN_FLAGS), mode: CreateMode(1), attr: In(S::MqAttr)) -> Fd;
    241 mq_unlink MQ_UNLINK (name: Str);
    242 mq_timedsend MQ_TIMEDSEND (mqdes: Fd, msg: InBuf(2), len: Size, prio: Uint, timeout: In(S::Timespec));
    243 mq_timedreceive MQ_TIMEDRECEIVE (mqdes: Fd, msg: OutBuf(2), len: Size, prio: Out(S::Uint), timeout: In(S::Timespec)) -> Size;
    244 mq_notify MQ_NOTIFY (mqdes: Fd, sevp: In(S::SigEvent));
    245 mq_getsetattr MQ_GETSETATTR (mqdes: Fd, new: In(S::MqAttr), old: Out(S::MqAttr));
    246 kexec_load KEXEC_LOAD (entry: Addr, nr_segments: Size, segments: Addr, flags: Hex);
    247 waitid WAITID (idtype: Enum(&abi::WAITID_TYPES), id: Pid, info: Out(S::SigInfo), options: Flags(&abi::WAIT_OPTIONS), rusage: Out(S::Rusage));
    248 add_key ADD_KEY (kind: Str, description: Str, payload: InBuf(3), len: Size, keyring: Int);
    249 request_key REQUEST_KEY (kind: Str, description: Str, callout_info: Str, dest_keyring: Int);
    250 keyctl KEYCTL (operation: Int, arg2: Hex, arg3: Hex, arg4: Hex, arg5: Hex);
    251 ioprio_set IOPRIO_SET (which: Int, who: Int, ioprio: Hex);
    252 ioprio_get IOPRIO_GET (which: Int, who: Int) -> Hex;
    253 inotify_init INOTIFY_INIT () -> Fd;
    254 inotify_add_watch INOTIFY_ADD_WATCH (fd: Fd, path: Path, mask: Flags(&abi::INOTIFY_MASK));
    255 inotify_rm_watch INOTIFY_RM_WATCH (fd: Fd, wd: Int);
    256 migrate_pages MIGRATE_PAGES (pid: Pid, maxnode: Size, old_nodes: Addr, new_nodes: Addr);
    257 openat OPENAT (dirfd: DirFd, path: Path, flags: Flags(&abi::OPEN_FLAGS), mode: CreateMode(2)) -> Fd;
    258 mkdirat MKDIRAT (dirfd: DirFd, path: Path, mode: Mode);
    259 mknodat MKNODAT (dirfd: DirFd, path: Path, mode: Mode, dev: Dev);
    260 fchownat FCHOWNAT (dirfd: DirFd, path: Path, uid: Uid, gid: Gid, flags: Flags(&abi::AT_FLAGS));
    261 futimesat FUTIMESAT (dirfd: DirFd, path: Path, times: In(S::TimevalPair));
    262 newfstatat NEWFSTATAT (dirfd: DirFd, path: Path, statbuf: Out(S::Stat), flags: Flags(&abi::AT_FLAGS));
    263 unlinkat UNLINKAT (dirfd: DirFd, path: Path, flags: Flags(&abi::AT_FLAGS));
    264 renameat RENAMEAT (olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path);
    265 linkat LINKAT (olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path, flags: Flags(&abi::AT_FLAGS));
    266 symlinkat SYMLINKAT (target: Str, newdirfd: DirFd, linkpath: Path);
    267 readlinkat READLINKAT (dirfd: DirFd, path: Path, buf: OutBuf(3), bufsiz: Size) -> Size;
    268 fchmodat FCHMODAT (dirfd: DirFd, path: Path, mode: Mode);
    269 faccessat FACCESSAT (dirfd: DirFd, path: Path, mode: Flags(&abi::ACCESS_MODE));
    270 pselect6 PSELECT6 (nfds: Int, readfds: InOut(S::FdSet), writefds: InOut(S::FdSet), exceptfds: InOut(S::FdSet), timeout: InOut(S::Timespec), sigmask: In(S::SignalMaskArg)) -> Size;
    271 ppoll PPOLL (fds: InOutArray(S::PollFd, 1), nfds: Size, timeout: InOut(S::Timespec), sigmask: In(S::SigSet), sigsetsize: Size) -> Size;
    272 unshare UNSHARE (flags: Flags(&abi::CLONE_FLAGS));
    273 set_robust_list SET_ROBUST_LIST (head: In(S::RobustListHead), len: Size);
    274 get_robust_list GET_ROBUST_LIST (pid: Pid, head: Out(S::Word), len: Out(S::Long));
    275 splice SPLICE (fd_in: Fd, off_in: InOut(S::Long), fd_out: Fd, off_out: InOut(S::Long), len: Size, flags: Flags(&abi::SPLICE_FLAGS)) -> Size;
    276 tee TEE (fd_in: Fd, fd_out: Fd, len: Size, flags: Flags(&abi::SPLICE_FLAGS)) -> Size;
    277 sync_file_range SYNC_FILE_RANGE (fd: Fd, offset: Offset, nbytes: Offset, flags: Flags(&abi::SYNC_RANGE_FLAGS));
    278 vmsplice VMSPLICE (fd: Fd, iov: InIovec(2), nr_segs: Size, flags: Flags(&abi::SPLICE_FLAGS)) -> Size;
    279 move_pages MOVE_PAGES (pid: Pid, count: Size, pages: Addr, nodes: Addr, status: Addr, flags: Hex);
    280 utimensat UTIMENSAT (dirfd: DirFd, path: Path, times: In(S::TimespecPair), flags: Flags(&abi::AT_FLAGS));
    281 epoll_pwait EPOLL_PWAIT (epfd: Fd, events: OutArray(S::EpollEvent, 2), maxevents: Int, timeout_ms: Int, sigmask: In(S::SigSet), sigsetsize: Size) -> Size;
    282 signalfd SIGNALFD (fd: Fd, mask: In(S::SigSet), sizemask: Size) -> Fd;
    283 timerfd_create TIMERFD_CREATE (clockid: Enum(&abi::CLOCKS), flags: Flags(&abi::TIMERFD_FLAGS)) -> Fd;
    284 eventfd EVENTFD (initval: Uint) -> Fd;
    285 fallocate FALLOCATE (fd: Fd, mode: Flags(&abi::FALLOC_FLAGS), offset: Offset, len: Offset);
    286 timerfd_settime TIMERFD_SETTIME (fd: Fd, flags: Flags(&abi::TIMERFD_SET_FLAGS), new: In(S::Itimerspec), old: Out(S::Itimerspec));
    287 timerfd_gettime TIMERFD_GETTIME (fd: Fd, value: Out(S::Itimerspec));
    288 accept4 ACCEPT4 (fd: Fd, addr: OutSockAddr(2), addrlen: InOut(S::Uint), flags: Flags(&abi::SOCK_FLAGS)) -> Fd;
    289 signalfd4 SIGNALFD4 (fd: Fd, mask: In(S::SigSet), sizemask: Size, flags: Flags(&abi::SIGNALFD_FLAGS)) -> Fd;
    290 eventfd2 EVENTFD2 (initval: Uint, flags: Flags(&abi::EVENTFD_FLAGS)) -> Fd;
    291 epoll_create1 EPOLL_CREATE1 (flags: Flags(&abi::EPOLL_FLAGS)) -> Fd;
    292 dup3 DUP3 (oldfd: Fd, newfd: Fd, flags: Flags(&abi::OPEN_FLAGS)) -> Fd;
    293 pipe2 PIPE2 (fds: Out(S::IntPair), flags: Flags(&abi::OPEN_FLAGS));
    294 inotify_init1 INOTIFY_INIT1 (flags: Flags(&abi::INOTIFY_FLAGS)) -> Fd;
    295 preadv PREADV (fd: Fd, iov: OutIovec(2), iovcnt: Size, pos_l: Offset, pos_h: Offset) -> Size;
    296 pwritev PWRITEV (fd: Fd, iov: InIovec(2), iovcnt: Size, pos_l: Offset, pos_h: Offset) -> Size;
    297 rt_tgsigqueueinfo RT_TGSIGQUEUEINFO (tgid: Pid, tid: Pid, sig: Signal, info: In(S::SigInfo));
    298 perf_event_open PERF_EVENT_OPEN (attr: Addr, pid: Pid, cpu: Int, group_fd: Fd, flags: Hex) -> Fd;
    299 recvmmsg RECVMMSG (fd: Fd, msgvec: OutMmsg(2), vlen: Size, flags: Flags(&abi::MSG_FLAGS), timeout: InOut(S::Timespec)) -> Size;
    300 fanotify_init FANOTIFY_INIT (flags: Hex, event_f_flags: Flags(&abi::OPEN_FLAGS)) -> Fd;
    301 fanotify_mark FANOTIFY_MARK (fanotify_fd: Fd, flags: Hex, mask: Hex, dirfd: DirFd, path: Path);
    302 prlimit64 PRLIMIT64 (pid: Pid, resource: Enum(&abi::RLIMITS), new: In(S::Rlimit), old: Out(S::Rlimit));
    303 name_to_handle_at NAME_TO_HANDLE_AT (dirfd: DirFd, path: Path, handle: InOut(S::FileHandle), mount_id: Out(S::Int), flags: Flags(&abi::AT_FLAGS));
    304 open_by_handle_at OPEN_BY_HANDLE_AT (mount_fd: DirFd, handle: In(S::FileHandle), flags: Flags(&abi::OPEN_FLAGS)) -> Fd;
    305 clock_adjtime CLOCK_ADJTIME (clockid: Enum(&abi::CLOCKS), buf: InOut(S::Timex));
    306 syncfs SYNCFS (fd: Fd);
    307 sendmmsg SENDMMSG (fd: Fd, msgvec: InMmsg(2), vlen: Size, flags: Flags(&abi::MSG_FLAGS)) -> Size;
    308 setns SETNS (fd: Fd, nstype: Flags(&abi::CLONE_FLAGS));
    309 getcpu GETCPU (cpu: Out(S::Uint), node: Out(S::Uint), cache: Addr);
    310 process_vm_readv PROCESS_VM_READV (pid: Pid, local: OutIovec(2), local_cnt: Size, remote: InArray(S::Iovec, 4), remote_cnt: Size, flags: Hex) -> Size;
    311 process_vm_writev PROCESS_VM_WRITEV (pid: Pid, local: InIovec(2), local_cnt: Size, remote: InArray(S::Iovec, 4), remote_cnt: Size, flags: Hex) -> Size;
    312 kcmp KCMP (pid1: Pid, pid2: Pid, kind: Enum(&abi::KCMP_TYPES), idx1: Hex, idx2: Hex);
    313 finit_module FINIT_MODULE (fd: Fd, params: Str, flags: Hex);
    314 sched_setattr SCHED_SETATTR (pid: Pid, attr: In(S::SchedAttr), flags: Hex);
    315 sched_getattr SCHED_GETATTR (pid: Pid, attr: Out(S::SchedAttr), size: Size, flags: Hex);
    316 renameat2 RENAMEAT2 (olddirfd: DirFd, oldpath: Path, newdirfd: DirFd, newpath: Path, flags: Flags(&abi::RENAME_FLAGS));
    317 seccomp SECCOMP (operation: Enum(&abi::SECCOMP_OPS), flags: Flags(&abi::SECCOMP_FLAGS), args: Addr);
    318 getrandom GETRANDOM (buf: OutBuf(1), len: Size, flags: Flags(&abi::GETRANDOM_FLAGS)) -> Size;
    319 memfd_create MEMFD_CREATE (name: Str, flags: Flags(&abi::MEMFD_FLAGS)) -> Fd;
    320 kexec_file_load KEXEC_FILE_LOAD (kernel_fd: Fd, initrd_fd: Fd, cmdline_len: Size, cmdline: Str, flags: Hex);
    321 bpf BPF (cmd: Int, attr: Addr, size: Size);
    322 execveat EXECVEAT (dirfd: DirFd, path: Path, argv: StrArray, envp: StrArray, flags: Flags(&abi::AT_FLAGS));
    323 userfaultfd USERFAULTFD (flags: Flags(&abi::OPEN_FLAGS)) -> Fd;
    324 membarrier MEMBARRIER (cmd: Flags(&abi::MEMBARRIER_CMDS), flags: Hex, cpu_id: Int) -> Hex;
    325 mlock2 MLOCK2 (addr: Addr, len: Size, flags: Flags(&abi::MLOCK2_FLAGS));
    326 copy_file_range COPY_FILE_RANGE (fd_in: Fd, off_in: InOut(S::Long), fd_out: Fd, off_out: InOut(S::Long), len: Size, flags: Hex) -> Size;
    327 preadv2 PREADV2 (fd: Fd, iov: OutIovec(2), iovcnt: Size, pos_l: Offset, pos_h: Offset, flags: Flags(&abi::RWF_FLAGS)) -> Size;
    328 pwritev2 PWRITEV2 (fd: Fd, iov: InIovec(2), iovcnt: Size, pos_l: Offset, pos_h: Offset, flags: Flags(&abi::RWF_FLAGS)) -> Size;
    329 pkey_mprotect PKEY_MPROTECT (addr: Addr, len: Size, prot: Flags(&abi::PROT_FLAGS), pkey: Int);
    330 pkey_alloc PKEY_ALLOC (flags: Hex, access_rights: Hex);
    331 pkey_free PKEY_FREE (pkey: Int);
    332 statx STATX (dirfd: DirFd, path: Path, flags: Flags(&abi::AT_FLAGS), mask: Flags(&abi::STATX_MASK), statxbuf: Out(S::Statx));
    333 io_pgetevents IO_PGETEVENTS (ctx: Addr, min_nr: Long, nr: Long, events: Addr, timeout: In(S::Timespec), sigmask: In(S::SignalMaskArg)) -> Size;
    334 rseq RSEQ (rseq: Addr, rseq_len: Size, flags: Hex, sig: Hex);
    335 uretprobe URETPROBE ();
    336 uprobe UPROBE ();
    424 pidfd_send_signal PIDFD_SEND_SIGNAL (pidfd: Fd, sig: Signal, info: In(S::SigInfo), flags: Flags(&abi::PIDFD_SIGNAL_FLAGS));
    425 io_uring_setup IO_URING_SETUP (entries: Uint, params: Addr) -> Fd;
    426 io_uring_enter IO_URING_ENTER (fd: Fd, to_submit: Uint, min_complete: Uint, flags: Hex, arg: Addr, argsz: Size) -> Size;
    427 io_uring_register IO_URING_REGISTER (fd: Fd, opcode: Uint, arg: Addr, nr_args: Uint);
    428 open_tree OPEN_TREE (dirfd: DirFd, path: Path, flags: Flags(&abi::OPEN_TREE_FLAGS)) -> Fd;
    429 move_mount MOVE_MOUNT (from_dirfd: DirFd, from_path: Path, to_dirfd: DirFd, to_path: Path, flags: Flags(&abi::MOVE_MOUNT_FLAGS));
    430 fsopen FSOPEN (fstype: Str, flags: Flags(&abi::FSOPEN_FLAGS)) -> Fd;
    431 fsconfig FSCONFIG (fd: Fd, cmd: Enum(&abi::FSCONFIG_CMDS), key: Str, value: Addr, aux: Int);
    432 fsmount FSMOUNT (fs_fd: Fd, flags: Flags(&abi::FSMOUNT_FLAGS), attr_flags: Flags(&abi::MOUNT_ATTR_FLAGS)) -> Fd;
    433 fspick FSPICK (dirfd: DirFd, path: Path, flags: Flags(&abi::FSPICK_FLAGS)) -> Fd;
    434 pidfd_open PIDFD_OPEN (pid: Pid, flags: Flags(&abi::PIDFD_FLAGS)) -> Fd;
    435 clone3 CLONE3 (args: In(S::CloneArgs), size: Size) -> Pid;
    436 close_range CLOSE_RANGE (first: Uint, last: Uint, flags: Flags(&abi::CLOSE_RANGE_FLAGS));
    437 openat2 OPENAT2 (dirfd: DirFd, path: Path, how: In(S::OpenHow), size: Size) -> Fd;
    438 pidfd_getfd PIDFD_GETFD (pidfd: Fd, targetfd: Fd, flags: Hex) -> Fd;
    439 faccessat2 FACCESSAT2 (dirfd: DirFd, path: Path, mode: Flags(&abi::ACCESS_MODE), flags: Flags(&abi::AT_ACCESS_FLAGS));
    440 process_madvise PROCESS_MADVISE (pidfd: Fd, iov: InArray(S::Iovec, 2), vlen: Size, advice: Enum(&abi::MADVICE), flags: Hex) -> Size;
    441 epoll_pwait2 EPOLL_PWAIT2 (epfd: Fd, events: OutArray(S::EpollEvent, 2), maxevents: Int, timeout: In(S::Timespec), sigmask: In(S::SigSet), sigsetsize: Size) -> Size;
    442 mount_setattr MOUNT_SETATTR (dirfd: DirFd, path: Path, flags: Flags(&abi::AT_FLAGS), attr: In(S::MountAttr), size: Size);
    443 quotactl_fd QUOTACTL_FD (fd: Fd, cmd: Hex, id: Uid, addr: Addr);
    444 landlock_create_ruleset LANDLOCK_CREATE_RULESET (attr: Addr, size: Size, flags: Hex) -> Fd;
    445 landlock_add_rule LANDLOCK_ADD_RULE (ruleset_fd: Fd, rule_type: Int, rule_attr: Addr, flags: Hex);
    446 landlock_restrict_self LANDLOCK_RESTRICT_SELF (ruleset_fd: Fd, flags: Hex);
    447 memfd_secret MEMFD_SECRET (flags: Flags(&abi::OPEN_FLAGS)) -> Fd;
    448 process_mrelease PROCESS_MRELEASE (pidfd: Fd, flags: Hex);
    449 futex_waitv FUTEX_WAITV (waiters: InArray(S::FutexWaitv, 1), nr_futexes: Size, flags: Hex, timeout: In(S::Timespec), clockid: Enum(&abi::CLOCKS));
    450 set_mempolicy_home_node SET_MEMPOLICY_HOME_NODE (addr: Addr, len: Size, home_node: Size, flags: Hex);
    451 cachestat CACHESTAT (fd: Fd, range: Addr, stat: Addr, flags: Hex);
    452 fchmodat2 FCHMODAT2 (dirfd: DirFd, path: Path, mode: Mode, flags: Flags(&abi::AT_FLAGS));
    453 map_shadow_stack MAP_SHADOW_STACK (addr: Addr, size: Size, flags: Hex) -> Addr;
    454 futex_wake FUTEX_WAKE (uaddr: Addr, mask: Hex, nr: Int, flags: Flags(&abi::FUTEX2_FLAGS)) -> Size;
    455 futex_wait FUTEX_WAIT (uaddr: Addr, val: Hex, mask: Hex, flags: Flags(&abi::FUTEX2_FLAGS), timeout: In(S::Timespec), clockid: Enum(&abi::CLOCKS));
    456 futex_requeue FUTEX_REQUEUE (waiters: Addr, flags: Hex, nr_wake: Int, nr_requeue: Int) -> Size;
    457 statmount STATMOUNT (req: In(S::MntIdReq), buf: OutBufFull(2), bufsize: Size, flags: Hex);
    458 listmount LISTMOUNT (req: In(S::MntIdReq), mnt_ids: OutArray(S::Long, 2), nr: Size, flags: Hex) -> Size;
    459 lsm_get_self_attr LSM_GET_SELF_ATTR (attr: Uint, ctx: Addr, size: InOut(S::Uint), flags: Hex);
    460 lsm_set_self_attr LSM_SET_SELF_ATTR (attr: Uint, ctx: InBuf(2), size: Size, flags: Hex);
    461 lsm_list_modules LSM_LIST_MODULES (ids: Addr, size: InOut(S::Uint), flags: Hex);
    462 mseal MSEAL (addr: Addr, len: Size, flags: Hex);
    463 setxattrat SETXATTRAT (dirfd: DirFd, path: Path, at_flags: Flags(&abi::AT_FLAGS), name: Str, args: In(S::XattrArgs), size: Size);
    464 getxattrat GETXATTRAT (dirfd: DirFd, path: Path, at_flags: Flags(&abi::AT_FLAGS), name: Str, args: In(S::XattrArgs), size: Size) -> Size;
    465 listxattrat LISTXATTRAT (dirfd: DirFd, path: Path, at_flags: Flags(&abi::AT_FLAGS), list: OutBuf(4), size: Size) -> Size;
    466 removexattrat REMOVEXATTRAT (dirfd: DirFd, path: Path, at_flags: Flags(&abi::AT_FLAGS), name: Str);
    467 open_tree_attr OPEN_TREE_ATTR (dirfd: DirFd, path: Path, flags: Flags(&abi::OPEN_TREE_FLAGS), attr: In(S::MountAttr), size: Size) -> Fd;
    468 file_getattr FILE_GETATTR (dirfd: DirFd, path: Path, attr: Out(S::FileAttr), size: Size, at_flags: Flags(&abi::AT_FLAGS));
    469 file_setattr FILE_SETATTR (dirfd: DirFd, path: Path, attr: In(S::FileAttr), size: Size, at_flags: Flags(&abi::AT_FLAGS));
}
