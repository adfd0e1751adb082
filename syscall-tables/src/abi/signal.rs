//! Signal numbers, sets, actions and constants.

use core::fmt;

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A valid signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

impl Signal {
    /// `SIGHUP`.
    pub const SIGHUP: Self = Self(1);
    /// `SIGINT`.
    pub const SIGINT: Self = Self(2);
    /// `SIGQUIT`.
    pub const SIGQUIT: Self = Self(3);
    /// `SIGILL`.
    pub const SIGILL: Self = Self(4);
    /// `SIGTRAP`.
    pub const SIGTRAP: Self = Self(5);
    /// `SIGABRT`.
    pub const SIGABRT: Self = Self(6);
    /// `SIGBUS`.
    pub const SIGBUS: Self = Self(7);
    /// `SIGFPE`.
    pub const SIGFPE: Self = Self(8);
    /// `SIGKILL`.
    pub const SIGKILL: Self = Self(9);
    /// `SIGUSR1`.
    pub const SIGUSR1: Self = Self(10);
    /// `SIGSEGV`.
    pub const SIGSEGV: Self = Self(11);
    /// `SIGUSR2`.
    pub const SIGUSR2: Self = Self(12);
    /// `SIGPIPE`.
    pub const SIGPIPE: Self = Self(13);
    /// `SIGALRM`.
    pub const SIGALRM: Self = Self(14);
    /// `SIGTERM`.
    pub const SIGTERM: Self = Self(15);
    /// `SIGSTKFLT`.
    pub const SIGSTKFLT: Self = Self(16);
    /// `SIGCHLD`.
    pub const SIGCHLD: Self = Self(17);
    /// `SIGCONT`.
    pub const SIGCONT: Self = Self(18);
    /// `SIGSTOP`.
    pub const SIGSTOP: Self = Self(19);
    /// `SIGTSTP`.
    pub const SIGTSTP: Self = Self(20);
    /// `SIGTTIN`.
    pub const SIGTTIN: Self = Self(21);
    /// `SIGTTOU`.
    pub const SIGTTOU: Self = Self(22);
    /// `SIGURG`.
    pub const SIGURG: Self = Self(23);
    /// `SIGXCPU`.
    pub const SIGXCPU: Self = Self(24);
    /// `SIGXFSZ`.
    pub const SIGXFSZ: Self = Self(25);
    /// `SIGVTALRM`.
    pub const SIGVTALRM: Self = Self(26);
    /// `SIGPROF`.
    pub const SIGPROF: Self = Self(27);
    /// `SIGWINCH`.
    pub const SIGWINCH: Self = Self(28);
    /// `SIGIO`.
    pub const SIGIO: Self = Self(29);
    /// `SIGPWR`.
    pub const SIGPWR: Self = Self(30);
    /// `SIGSYS`.
    pub const SIGSYS: Self = Self(31);

    /// First realtime signal, as the kernel counts.
    pub const SIGRTMIN: Self = Self(32);
    /// Last realtime signal.
    pub const SIGRTMAX: Self = Self(64);
    /// Number of signals.
    pub const COUNT: usize = 64;

    /// The signal with this number, if it is 1 to 64.
    pub const fn from_raw(number: i32) -> Option<Self> {
        if number >= 1 && number <= 64 {
            Some(Self(number as u8))
        } else {
            None
        }
    }

    /// The number.
    pub const fn raw(self) -> i32 {
        self.0 as i32
    }

    /// Index into tables of actions: the number less one.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// The signal's bit in a [`SigSet`].
    pub const fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }

    /// Whether more than one instance can be queued.
    pub const fn is_realtime(self) -> bool {
        self.0 >= 32
    }

    /// Whether the signal can be neither caught, blocked nor ignored.
    pub const fn is_unblockable(self) -> bool {
        matches!(self, Self::SIGKILL | Self::SIGSTOP)
    }

    /// All signals in ascending order.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=64).map(Self)
    }

    /// What the signal does when its action is `SIG_DFL` (signal(7)).
    pub const fn default_action(self) -> DefaultAction {
        match self {
            Self::SIGCHLD | Self::SIGURG | Self::SIGWINCH => DefaultAction::Ignore,
            Self::SIGCONT => DefaultAction::Continue,
            Self::SIGSTOP | Self::SIGTSTP | Self::SIGTTIN | Self::SIGTTOU => DefaultAction::Stop,
            Self::SIGQUIT
            | Self::SIGILL
            | Self::SIGTRAP
            | Self::SIGABRT
            | Self::SIGBUS
            | Self::SIGFPE
            | Self::SIGSEGV
            | Self::SIGXCPU
            | Self::SIGXFSZ
            | Self::SIGSYS => DefaultAction::Core,
            _ => DefaultAction::Terminate,
        }
    }

    /// The symbolic name; realtime signals have none.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::SIGHUP => "SIGHUP",
            Self::SIGINT => "SIGINT",
            Self::SIGQUIT => "SIGQUIT",
            Self::SIGILL => "SIGILL",
            Self::SIGTRAP => "SIGTRAP",
            Self::SIGABRT => "SIGABRT",
            Self::SIGBUS => "SIGBUS",
            Self::SIGFPE => "SIGFPE",
            Self::SIGKILL => "SIGKILL",
            Self::SIGUSR1 => "SIGUSR1",
            Self::SIGSEGV => "SIGSEGV",
            Self::SIGUSR2 => "SIGUSR2",
            Self::SIGPIPE => "SIGPIPE",
            Self::SIGALRM => "SIGALRM",
            Self::SIGTERM => "SIGTERM",
            Self::SIGSTKFLT => "SIGSTKFLT",
            Self::SIGCHLD => "SIGCHLD",
            Self::SIGCONT => "SIGCONT",
            Self::SIGSTOP => "SIGSTOP",
            Self::SIGTSTP => "SIGTSTP",
            Self::SIGTTIN => "SIGTTIN",
            Self::SIGTTOU => "SIGTTOU",
            Self::SIGURG => "SIGURG",
            Self::SIGXCPU => "SIGXCPU",
            Self::SIGXFSZ => "SIGXFSZ",
            Self::SIGVTALRM => "SIGVTALRM",
            Self::SIGPROF => "SIGPROF",
            Self::SIGWINCH => "SIGWINCH",
            Self::SIGIO => "SIGIO",
            Self::SIGPWR => "SIGPWR",
            Self::SIGSYS => "SIGSYS",
            _ => return None,
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None if self.0 == 32 => f.write_str("SIGRTMIN"),
            None => write!(f, "SIGRT_{}", self.0 - 32),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a signal without a handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// Ends the process.
    Terminate,
    /// Ends the process, with a core dump if the limits allow.
    Core,
    /// Stops the process.
    Stop,
    /// Continues a stopped process.
    Continue,
    /// Nothing.
    Ignore,
}

/// The kernel's 64-bit signal set.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal.
    pub const FULL: Self = Self(u64::MAX);
    /// `SIGKILL` and `SIGSTOP`.
    pub const UNBLOCKABLE: Self = Self(Signal::SIGKILL.bit() | Signal::SIGSTOP.bit());
    /// Signals that the thread brought upon itself and that are delivered first.
    pub const SYNCHRONOUS: Self = Self(
        Signal::SIGSEGV.bit()
            | Signal::SIGBUS.bit()
            | Signal::SIGILL.bit()
            | Signal::SIGTRAP.bit()
            | Signal::SIGFPE.bit()
            | Signal::SIGSYS.bit(),
    );
    /// Signals that stop by default.
    pub const STOPPING: Self = Self(
        Signal::SIGSTOP.bit()
            | Signal::SIGTSTP.bit()
            | Signal::SIGTTIN.bit()
            | Signal::SIGTTOU.bit(),
    );
    /// Size of the set the kernel demands in `sigsetsize` arguments.
    pub const SIZE: usize = 8;

    /// The set of one signal.
    pub const fn of(signal: Signal) -> Self {
        Self(signal.bit())
    }

    /// Whether the signal is in the set.
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & signal.bit() != 0
    }

    /// Whether there is none in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Puts the signal into the set.
    pub const fn add(&mut self, signal: Signal) {
        self.0 |= signal.bit();
    }

    /// Takes the signal out of the set.
    pub const fn remove(&mut self, signal: Signal) {
        self.0 &= !signal.bit();
    }

    /// Signals in either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Signals in both.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Signals in this but not the other.
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Signals not in the set.
    pub const fn complement(self) -> Self {
        Self(!self.0)
    }

    /// The lowest signal of the set.
    pub const fn first(self) -> Option<Signal> {
        Signal::from_raw(self.0.trailing_zeros() as i32 + 1)
    }

    /// The signals of the set, ascending.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        Signal::all().filter(move |&s| self.contains(s))
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// `struct kernel_sigaction` of rt_sigaction(2) on x86-64.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SigAction {
    /// Address, [`SIG_DFL`] or [`SIG_IGN`].
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: SigSet,
}

/// Default action.
pub const SIG_DFL: u64 = 0;
/// Ignored.
pub const SIG_IGN: u64 = 1;

/// `stack_t` of sigaltstack(2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StackT {
    pub ss_sp: u64,
    pub ss_flags: u32,
    pub __pad0: u32,
    pub ss_size: u64,
}

/// Smallest alternate stack sigaltstack(2) takes.
pub const MINSIGSTKSZ: u64 = 2048;

flag_set! {
    /// `sa_flags`.
    SaFlags: u64, SA_FLAGS {
        SA_NOCLDSTOP = 0x1,
        SA_NOCLDWAIT = 0x2,
        SA_SIGINFO = 0x4,
        SA_EXPOSE_TAGBITS = 0x800,
        SA_RESTORER = 0x4000000,
        SA_ONSTACK = 0x8000000,
        SA_RESTART = 0x10000000,
        SA_NODEFER = 0x40000000,
        SA_RESETHAND = 0x80000000,
    }
}

flag_set! {
    /// `ss_flags`.
    SsFlags: u32, SS_FLAGS {
        SS_ONSTACK = 1,
        SS_DISABLE = 2,
        SS_AUTODISARM = 0x80000000,
    }
}

const_set! {
    /// How rt_sigprocmask(2) changes the mask.
    SIG_HOW: u32 {
        SIG_BLOCK = 0,
        SIG_UNBLOCK = 1,
        SIG_SETMASK = 2,
    }
}

const_set! {
    /// Origin codes of `si_code` that any signal can have.
    SI_CODES: i32 {
        SI_USER = 0,
        SI_KERNEL = 0x80,
        SI_QUEUE = -1,
        SI_TIMER = -2,
        SI_MESGQ = -3,
        SI_ASYNCIO = -4,
        SI_SIGIO = -5,
        SI_TKILL = -6,
        SI_DETHREAD = -7,
        SI_ASYNCNL = -60,
    }
}

const_set! {
    /// `si_code` of `SIGILL`.
    ILL_CODES: i32 {
        ILL_ILLOPC = 1,
        ILL_ILLOPN = 2,
        ILL_ILLADR = 3,
        ILL_ILLTRP = 4,
        ILL_PRVOPC = 5,
        ILL_PRVREG = 6,
        ILL_COPROC = 7,
        ILL_BADSTK = 8,
    }
}

const_set! {
    /// `si_code` of `SIGFPE`.
    FPE_CODES: i32 {
        FPE_INTDIV = 1,
        FPE_INTOVF = 2,
        FPE_FLTDIV = 3,
        FPE_FLTOVF = 4,
        FPE_FLTUND = 5,
        FPE_FLTRES = 6,
        FPE_FLTINV = 7,
        FPE_FLTSUB = 8,
    }
}

const_set! {
    /// `si_code` of `SIGSEGV`.
    SEGV_CODES: i32 {
        SEGV_MAPERR = 1,
        SEGV_ACCERR = 2,
        SEGV_BNDERR = 3,
        SEGV_PKUERR = 4,
    }
}

const_set! {
    /// `si_code` of `SIGBUS`.
    BUS_CODES: i32 {
        BUS_ADRALN = 1,
        BUS_ADRERR = 2,
        BUS_OBJERR = 3,
        BUS_MCEERR_AR = 4,
        BUS_MCEERR_AO = 5,
    }
}

const_set! {
    /// `si_code` of `SIGTRAP`.
    TRAP_CODES: i32 {
        TRAP_BRKPT = 1,
        TRAP_TRACE = 2,
        TRAP_BRANCH = 3,
        TRAP_HWBKPT = 4,
        TRAP_UNK = 5,
    }
}

const_set! {
    /// `si_code` of `SIGCHLD`.
    CLD_CODES: i32 {
        CLD_EXITED = 1,
        CLD_KILLED = 2,
        CLD_DUMPED = 3,
        CLD_TRAPPED = 4,
        CLD_STOPPED = 5,
        CLD_CONTINUED = 6,
    }
}

const_set! {
    /// `si_code` of `SIGIO`.
    POLL_CODES: i32 {
        POLL_IN = 1,
        POLL_OUT = 2,
        POLL_MSG = 3,
        POLL_ERR = 4,
        POLL_PRI = 5,
        POLL_HUP = 6,
    }
}

const_set! {
    /// `si_code` of `SIGSYS`.
    SYS_CODES: i32 {
        SYS_SECCOMP = 1,
        SYS_USER_DISPATCH = 2,
    }
}

flag_set! {
    /// Flags of signalfd4(2).
    SignalfdFlags: u32, SIGNALFD_FLAGS {
        SFD_CLOEXEC = 0x80000,
        SFD_NONBLOCK = 0x800,
    }
}
