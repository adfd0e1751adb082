//! How a process ended.

use syscall_tables::abi::{CLD_DUMPED, CLD_EXITED, CLD_KILLED, Signal, w_exitcode, w_termsig};

/// Outcome of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Low byte of the argument of `exit(2)`.
    Code(u8),
    /// Killed by a signal; whether the wait status says that core was dumped.
    Signal { signal: Signal, core: bool },
}

impl ExitStatus {
    /// From the argument of `exit(2)`.
    pub const fn from_exit_arg(arg: i32) -> Self {
        Self::Code((arg & 0xff) as u8)
    }

    /// `wait(2)` status word.
    pub const fn wait_status(self) -> i32 {
        match self {
            Self::Code(code) => w_exitcode(code as i32),
            Self::Signal { signal, core } => w_termsig(signal.raw(), core),
        }
    }

    /// `si_code` of the parent's `SIGCHLD`.
    pub const fn child_code(self) -> i32 {
        match self {
            Self::Code(_) => CLD_EXITED,
            Self::Signal { core: true, .. } => CLD_DUMPED,
            Self::Signal { core: false, .. } => CLD_KILLED,
        }
    }

    /// `si_status` of the parent's `SIGCHLD`.
    pub const fn child_status(self) -> i32 {
        match self {
            Self::Code(code) => code as i32,
            Self::Signal { signal, .. } => signal.raw(),
        }
    }

    /// What a shell shows as `$?`: the code, or 128 plus the signal.
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code as i32,
            Self::Signal { signal, .. } => 128 + signal.raw(),
        }
    }
}
