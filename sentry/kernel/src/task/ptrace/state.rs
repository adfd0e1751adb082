//! What a tracee and its tracer share.

use std::sync::{Arc, Weak};

use bitflags::bitflags;
use syscall_tables::Errno;
use syscall_tables::abi::{
    PTRACE_EVENT_STOP, PtraceOptions, PtraceSyscallInfo, Regs, SigInfo, Signal,
};

use crate::task::Task;

bitflags! {
    /// What the task's loop has to know without a lock.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct TraceFlags: u8 {
        const TRACED = 1;
        /// Stop before and after each call.
        const CALLS = 2;
        /// Stop before each call and don't run it (`PTRACE_SYSEMU`).
        const EMULATE = 4;
        /// Stop after each instruction.
        const STEP = 8;
    }
}

/// A stop that the tracer can wait for.
#[derive(Clone, Copy, Debug)]
pub struct TraceStop {
    /// Signal, with an event number above its byte.
    pub code: i32,
    /// What `PTRACE_GETSIGINFO` shows; a group stop has none.
    pub info: Option<SigInfo>,
    /// Whether `wait` has reported it.
    pub reported: bool,
    /// The process is stopped as a whole.
    pub is_group_stop: bool,
}

impl TraceStop {
    /// Event number, 0 for none.
    pub const fn event(&self) -> u32 {
        self.code.cast_unsigned() >> 8
    }
}

/// How a tracer lets a tracee go on.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    /// Signal to deliver, where the stop has one.
    pub signal: Option<Signal>,
    pub flags: TraceFlags,
    /// Stay stopped until the process is continued (`PTRACE_LISTEN`).
    pub listen: bool,
    /// Deliver the signal that was to be delivered.
    pub keep_signal: bool,
}

impl Resume {
    /// Goes on as if nobody had ever traced.
    pub const FREE: Self = Self {
        signal: None,
        flags: TraceFlags::empty(),
        listen: false,
        keep_signal: true,
    };
}

/// A request to the tracee's own thread, and its answer.
#[derive(Debug)]
pub enum VectorRequest {
    Get,
    Set(Vec<u8>),
    Done(Result<Vec<u8>, Errno>),
}

/// Tracing state of a task.
#[derive(Debug, Default)]
pub struct Trace {
    pub tracer: Option<Weak<Task>>,
    /// Attached by `PTRACE_SEIZE`.
    pub seized: bool,
    pub options: PtraceOptions,
    pub stop: Option<TraceStop>,
    pub resume: Option<Resume>,
    /// In `PTRACE_LISTEN`.
    pub listening: bool,
    /// Registers while stopped.
    pub regs: Regs,
    pub regs_changed: bool,
    pub vector: Option<VectorRequest>,
    pub event_message: u64,
    /// What `PTRACE_GET_SYSCALL_INFO` shows.
    pub call: PtraceSyscallInfo,
}

impl Trace {
    /// The tracer, while it lives.
    pub fn tracer(&self) -> Option<Arc<Task>> {
        self.tracer.as_ref()?.upgrade()
    }

    pub fn has_option(&self, option: PtraceOptions) -> bool {
        self.tracer.is_some() && self.options.contains(option)
    }

    /// Ends tracing; the tracee is to be woken.
    pub(super) fn clear(&mut self, resume: Resume) {
        self.tracer = None;
        self.seized = false;
        self.options = PtraceOptions::empty();
        self.listening = false;
        if self.stop.is_some() {
            self.resume = Some(resume);
        }
    }

    /// The code of a stop that only seized tracees make.
    pub(super) const fn event_stop(signal: Signal) -> i32 {
        signal.raw() | (PTRACE_EVENT_STOP.cast_signed() << 8)
    }
}
