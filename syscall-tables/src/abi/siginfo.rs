//! `siginfo_t` with accessors, `sigevent`, `signalfd_siginfo`.

use core::fmt;

use super::names::const_set;
use super::signal::{SI_KERNEL, SI_SIGIO, SI_TIMER, SI_TKILL, SI_USER, Signal};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `siginfo_t`: three numbers, then a union by origin, 128 bytes in all.
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigInfo {
    pub si_signo: i32,
    pub si_errno: i32,
    pub si_code: i32,
    pub __pad0: u32,
    /// The union, from byte 16 on; use the accessors.
    pub fields: [u64; 14],
}

const _: () = assert!(size_of::<SigInfo>() == 128);

/// Low and high half as `union` members of 32 bits lie in memory.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl SigInfo {
    /// Number and code with an empty union.
    pub const fn new(signal: Signal, code: i32) -> Self {
        Self {
            si_signo: signal.raw(),
            si_errno: 0,
            si_code: code,
            __pad0: 0,
            fields: [0; 14],
        }
    }

    const fn with(signal: Signal, code: i32, f0: u64, f1: u64, f2: u64) -> Self {
        let mut info = Self::new(signal, code);
        info.fields[0] = f0;
        info.fields[1] = f1;
        info.fields[2] = f2;
        info
    }

    /// Sent by the kernel itself, without details (`SI_KERNEL`).
    pub const fn kernel(signal: Signal) -> Self {
        Self::new(signal, SI_KERNEL)
    }

    /// Sent by kill(2) (`SI_USER`).
    pub const fn kill(signal: Signal, pid: i32, uid: u32) -> Self {
        Self::with(signal, SI_USER, pair(pid as u32, uid), 0, 0)
    }

    /// Sent by tkill(2) or tgkill(2).
    pub const fn tkill(signal: Signal, pid: i32, uid: u32) -> Self {
        Self::with(signal, SI_TKILL, pair(pid as u32, uid), 0, 0)
    }

    /// Sent by sigqueue(3) or mq_notify(3) with a value.
    pub const fn queue(signal: Signal, code: i32, pid: i32, uid: u32, value: u64) -> Self {
        Self::with(signal, code, pair(pid as u32, uid), value, 0)
    }

    /// A fault at an address.
    pub const fn fault(signal: Signal, code: i32, addr: u64) -> Self {
        Self::with(signal, code, addr, 0, 0)
    }

    /// A child changed state; times are in clock ticks.
    pub const fn child(code: i32, pid: i32, uid: u32, status: i32, utime: i64, stime: i64) -> Self {
        let mut info = Self::with(
            Signal::SIGCHLD,
            code,
            pair(pid as u32, uid),
            status as u32 as u64,
            utime as u64,
        );
        info.fields[3] = stime as u64;
        info
    }

    /// A POSIX timer expired (`SI_TIMER`).
    pub const fn timer(signal: Signal, timer_id: i32, overrun: i32, value: u64) -> Self {
        Self::with(
            signal,
            SI_TIMER,
            pair(timer_id as u32, overrun as u32),
            value,
            0,
        )
    }

    /// An fd is ready (`O_ASYNC` with `F_SETSIG`): `POLL_*` code, band and fd.
    pub const fn poll(signal: Signal, code: i32, band: i64, fd: i32) -> Self {
        Self::with(signal, code, band as u64, fd as u32 as u64, 0)
    }

    /// A system call refused by seccomp (`SYS_SECCOMP`) or user dispatch.
    pub const fn syscall(code: i32, errno: i32, call_addr: u64, number: i32, arch: u32) -> Self {
        let mut info = Self::with(
            Signal::SIGSYS,
            code,
            call_addr,
            pair(number as u32, arch),
            0,
        );
        info.si_errno = errno;
        info
    }

    const fn low(&self, index: usize) -> u32 {
        self.fields[index] as u32
    }

    const fn high(&self, index: usize) -> u32 {
        (self.fields[index] >> 32) as u32
    }

    /// Sender or child (kill, queue, child).
    pub const fn pid(&self) -> i32 {
        self.low(0) as i32
    }

    /// Real uid of the sender or child (kill, queue, child).
    pub const fn uid(&self) -> u32 {
        self.high(0)
    }

    /// Sets the sender, for translation between pid namespaces.
    pub const fn set_pid(&mut self, pid: i32) {
        self.fields[0] = pair(pid as u32, self.high(0));
    }

    /// Sets the sender's uid, for translation between user namespaces.
    pub const fn set_uid(&mut self, uid: u32) {
        self.fields[0] = pair(self.low(0), uid);
    }

    /// `sigval` (queue, timer).
    pub const fn value(&self) -> u64 {
        self.fields[1]
    }

    /// Exit status or signal (child).
    pub const fn status(&self) -> i32 {
        self.low(1) as i32
    }

    /// User time in clock ticks (child).
    pub const fn utime(&self) -> i64 {
        self.fields[2] as i64
    }

    /// System time in clock ticks (child).
    pub const fn stime(&self) -> i64 {
        self.fields[3] as i64
    }

    /// Fault address (fault) or address of the call (syscall).
    pub const fn addr(&self) -> u64 {
        self.fields[0]
    }

    /// Timer id (timer).
    pub const fn timer_id(&self) -> i32 {
        self.low(0) as i32
    }

    /// Expirations beyond the first (timer).
    pub const fn overrun(&self) -> i32 {
        self.high(0) as i32
    }

    /// Sets the count of expirations beyond the first (timer).
    pub const fn set_overrun(&mut self, overrun: i32) {
        self.fields[0] = pair(self.low(0), overrun as u32);
    }

    /// Event mask (poll).
    pub const fn band(&self) -> i64 {
        self.fields[0] as i64
    }

    /// Descriptor (poll).
    pub const fn fd(&self) -> i32 {
        self.low(1) as i32
    }

    /// System call number (syscall).
    pub const fn syscall_number(&self) -> i32 {
        self.low(1) as i32
    }

    /// Audit architecture (syscall).
    pub const fn syscall_arch(&self) -> u32 {
        self.high(1)
    }
}

impl fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigInfo")
            .field("signo", &self.si_signo)
            .field("code", &self.si_code)
            .field("errno", &self.si_errno)
            .finish_non_exhaustive()
    }
}

/// `struct sigevent`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SigEvent {
    pub sigev_value: u64,
    pub sigev_signo: i32,
    pub sigev_notify: i32,
    /// Target of `SIGEV_THREAD_ID`; shares bytes with thread attributes that
    /// only libc looks at.
    pub sigev_notify_thread_id: i32,
    pub __pad0: [u32; 11],
}

const_set! {
    /// `sigev_notify`.
    SIGEV: i32 {
        SIGEV_SIGNAL = 0,
        SIGEV_NONE = 1,
        SIGEV_THREAD = 2,
        SIGEV_THREAD_ID = 4,
    }
}

/// `struct signalfd_siginfo`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SignalfdSiginfo {
    pub ssi_signo: u32,
    pub ssi_errno: i32,
    pub ssi_code: i32,
    pub ssi_pid: u32,
    pub ssi_uid: u32,
    pub ssi_fd: i32,
    pub ssi_tid: u32,
    pub ssi_band: u32,
    pub ssi_overrun: u32,
    pub ssi_trapno: u32,
    pub ssi_status: i32,
    pub ssi_int: i32,
    pub ssi_ptr: u64,
    pub ssi_utime: u64,
    pub ssi_stime: u64,
    pub ssi_addr: u64,
    pub ssi_addr_lsb: u16,
    pub __pad2: u16,
    pub ssi_syscall: i32,
    pub ssi_call_addr: u64,
    pub ssi_arch: u32,
    pub __pad: [u8; 28],
}

impl From<&SigInfo> for SignalfdSiginfo {
    /// The union's fields that the signal and code say are there.
    fn from(info: &SigInfo) -> Self {
        let mut out = Self {
            ssi_signo: info.si_signo as u32,
            ssi_errno: info.si_errno,
            ssi_code: info.si_code,
            ..Self::default()
        };
        let value = |out: &mut Self| {
            out.ssi_ptr = info.value();
            out.ssi_int = info.value() as i32;
        };
        let sender = |out: &mut Self| {
            out.ssi_pid = info.pid() as u32;
            out.ssi_uid = info.uid();
        };
        match info.si_code {
            SI_TIMER => {
                out.ssi_tid = info.timer_id() as u32;
                out.ssi_overrun = info.overrun() as u32;
                value(&mut out);
            }
            SI_SIGIO => {
                out.ssi_band = info.band() as u32;
                out.ssi_fd = info.fd();
            }
            SI_USER | SI_TKILL => sender(&mut out),
            code if code < 0 => {
                sender(&mut out);
                value(&mut out);
            }
            SI_KERNEL => sender(&mut out),
            _ => match Signal::from_raw(info.si_signo) {
                Some(Signal::SIGCHLD) => {
                    sender(&mut out);
                    out.ssi_status = info.status();
                    out.ssi_utime = info.utime() as u64;
                    out.ssi_stime = info.stime() as u64;
                }
                Some(
                    Signal::SIGSEGV
                    | Signal::SIGBUS
                    | Signal::SIGILL
                    | Signal::SIGFPE
                    | Signal::SIGTRAP,
                ) => out.ssi_addr = info.addr(),
                Some(Signal::SIGSYS) => {
                    out.ssi_call_addr = info.addr();
                    out.ssi_syscall = info.syscall_number();
                    out.ssi_arch = info.syscall_arch();
                }
                _ => {
                    out.ssi_band = info.band() as u32;
                    out.ssi_fd = info.fd();
                }
            },
        }
        out
    }
}
