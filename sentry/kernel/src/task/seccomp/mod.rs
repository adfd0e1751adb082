//! The guest's own seccomp filters (seccomp(2)).
//!
//! | file | holds |
//! |---|---|
//! | `bpf.rs` | [`Program`]: classic BPF |
//! | `notify.rs` | [`Listener`]: calls handed to a supervisor |
//!
//! Filters are a chain that children share; the newest is first. A task
//! without filters pays one relaxed load per call.

mod bpf;
mod notify;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{
    AUDIT_ARCH_X86_64, SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT,
    SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW, SECCOMP_RET_DATA, SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF, SYS_SECCOMP, SeccompData, SigInfo, Signal,
};
use syscall_tables::table::nr;

use super::{ExitStatus, Task};
use crate::ctx::Ctx;
use crate::kernel::LogLevel;

pub use bpf::Program;
pub use notify::{Listener, SIZES as NOTIFY_SIZES};

/// Instructions in all filters of a task together.
const MAX_TOTAL: usize = 32768;
/// What each filter counts beside its instructions.
const FILTER_COST: usize = 4;

/// A filter and those installed before it.
pub struct Filter {
    program: Program,
    previous: Option<Arc<Filter>>,
    /// Log what it does, but for `ALLOW`.
    log: bool,
    listener: Option<Arc<Listener>>,
    allowed: Allowed,
}

/// Calls that a filter and all before it allow whatever their arguments are:
/// one bit each, so that the filters need not run for them.
#[derive(Clone, Copy)]
struct Allowed([u64; 8]);

impl Allowed {
    fn of(program: &Program, previous: Option<&Arc<Filter>>) -> Self {
        let mut bits = [0; 8];
        for (word, first) in bits.iter_mut().zip((0_u32..).step_by(64)) {
            for bit in 0..64 {
                if program.constant(first + bit) == Some(SECCOMP_RET_ALLOW) {
                    *word |= 1 << bit;
                }
            }
        }
        if let Some(previous) = previous {
            for (word, before) in bits.iter_mut().zip(previous.allowed.0) {
                *word &= before;
            }
        }
        Self(bits)
    }

    fn has(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok();
        let word = word.and_then(|word| self.0.get(word));
        word.is_some_and(|word| word >> (number % 64) & 1 != 0)
    }
}

impl Filter {
    fn cost(&self) -> usize {
        let mut total = 0;
        let mut at = Some(self);
        while let Some(filter) = at {
            total += filter.program.instructions().len() + FILTER_COST;
            at = filter.previous.as_deref();
        }
        total
    }

    fn chain(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |filter| filter.previous.as_ref())
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.detach();
        }
        // A long chain must not be dropped recursively.
        let mut next = self.previous.take();
        while let Some(filter) = next {
            next = Arc::into_inner(filter).and_then(|mut filter| filter.previous.take());
        }
    }
}

/// Seccomp state of a task.
#[derive(Default)]
pub struct Seccomp {
    mode: AtomicU8,
    filters: Mutex<Option<Arc<Filter>>>,
}

/// What is to be done about a call.
pub(crate) enum Verdict {
    Run,
    /// Skip the call; it answers this error.
    Fail(Errno),
    /// Skip the call; it answers this value.
    Answer(u64),
    /// Skip the call; a signal is on its way.
    Signalled,
    /// Ask the tracer, with this message.
    Trace(u32),
}

impl Seccomp {
    /// Of a process that starts with a filter.
    pub fn with_filter(program: Program, log: bool) -> Self {
        let filter = Filter {
            allowed: Allowed::of(&program, None),
            program,
            previous: None,
            log,
            listener: None,
        };
        Self {
            mode: AtomicU8::new(SECCOMP_MODE_FILTER as u8),
            filters: Mutex::new(Some(Arc::new(filter))),
        }
    }

    /// What a child inherits.
    pub fn duplicate(&self) -> Self {
        Self {
            mode: AtomicU8::new(self.mode.load(Ordering::Relaxed)),
            filters: Mutex::new(self.filters.lock().clone()),
        }
    }

    pub(crate) fn take_from(&self, parent: &Self) {
        let filters = parent.filters.lock().clone();
        *self.filters.lock() = filters;
        let mode = parent.mode.load(Ordering::Relaxed);
        self.mode.store(mode, Ordering::Relaxed);
    }

    /// `SECCOMP_MODE_*`.
    pub fn mode(&self) -> u32 {
        self.mode.load(Ordering::Relaxed).into()
    }

    pub(crate) fn is_active(&self) -> bool {
        self.mode.load(Ordering::Relaxed) != 0
    }

    /// Number of filters, for `/proc/PID/status`.
    pub fn filter_count(&self) -> usize {
        let filters = self.filters.lock();
        filters.as_ref().map_or(0, |filter| filter.chain().count())
    }

    /// The filter at `index`, oldest first (`PTRACE_SECCOMP_GET_FILTER`).
    pub fn filter(&self, index: usize) -> Option<Arc<Filter>> {
        let filters = self.filters.lock();
        let filter = filters.as_ref()?;
        let count = filter.chain().count();
        let from_newest = count.checked_sub(index + 1)?;
        filter.chain().nth(from_newest).cloned()
    }

    /// Enters the strict mode; `EINVAL` in filter mode.
    pub fn set_strict(&self) -> Result<(), Errno> {
        if self.mode() == SECCOMP_MODE_FILTER {
            return Err(Errno::EINVAL);
        }
        self.mode
            .store(SECCOMP_MODE_STRICT as u8, Ordering::Relaxed);
        Ok(())
    }
}

impl Filter {
    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn logs(&self) -> bool {
        self.log
    }
}

/// How a filter is installed.
pub struct Install {
    pub program: Program,
    pub log: bool,
    /// Give all threads of the process the caller's filters.
    pub all_threads: bool,
    pub listener: Option<Arc<Listener>>,
}

/// A thread whose filters are not those of the caller or older.
pub struct Diverged(pub Arc<Task>);

/// Installs a filter; `Ok(Err)` names a thread with filters of its own.
pub fn install(task: &Arc<Task>, install: Install) -> Result<Result<(), Diverged>, Errno> {
    if task.seccomp.mode() == SECCOMP_MODE_STRICT {
        return Err(Errno::EINVAL);
    }
    // Threads can't come while their list is looked at.
    let links = task.group.links.lock();
    let mut own = task.seccomp.filters.lock();
    if install.all_threads {
        for other in &links.tasks {
            if Arc::ptr_eq(other, task) || other.is_leaving() {
                continue;
            }
            let theirs = other.seccomp.filters.lock();
            if other.seccomp.mode() == SECCOMP_MODE_STRICT || !is_ancestor(&theirs, &own) {
                return Ok(Err(Diverged(other.clone())));
            }
        }
    }
    if let Some(listener) = &install.listener {
        let taken = own
            .as_ref()
            .is_some_and(|filter| filter.chain().any(|filter| filter.listener.is_some()));
        if taken {
            return Err(Errno::EBUSY);
        }
        listener.attach();
    }
    let total = own.as_ref().map_or(0, |filter| filter.cost());
    if total + install.program.instructions().len() > MAX_TOTAL {
        return Err(Errno::ENOMEM);
    }
    let filter = Arc::new(Filter {
        allowed: Allowed::of(&install.program, own.as_ref()),
        program: install.program,
        previous: own.take(),
        log: install.log,
        listener: install.listener,
    });
    *own = Some(filter.clone());
    drop(own);
    task.seccomp
        .mode
        .store(SECCOMP_MODE_FILTER as u8, Ordering::Relaxed);
    if install.all_threads {
        let no_new_privs = task.creds().no_new_privs;
        for other in &links.tasks {
            if Arc::ptr_eq(other, task) {
                continue;
            }
            *other.seccomp.filters.lock() = Some(filter.clone());
            other
                .seccomp
                .mode
                .store(SECCOMP_MODE_FILTER as u8, Ordering::Relaxed);
            if no_new_privs && !other.creds().no_new_privs {
                let mut creds = super::Creds::clone(&other.creds());
                creds.no_new_privs = true;
                other.set_creds(creds);
            }
        }
    }
    Ok(Ok(()))
}

/// Whether `theirs` is `own` or was it before.
fn is_ancestor(theirs: &Option<Arc<Filter>>, own: &Option<Arc<Filter>>) -> bool {
    let Some(theirs) = theirs else {
        return true;
    };
    let mut chain = own.iter().flat_map(|filter| filter.chain());
    chain.any(|filter| Arc::ptr_eq(filter, theirs))
}

/// Severity: the smaller as a signed number, the more severe.
fn severity(answer: u32) -> i32 {
    (answer & SECCOMP_RET_ACTION_FULL).cast_signed()
}

/// Asks the filters about the call that the task is making.
pub(crate) async fn check(ctx: &mut Ctx<'_>, number: u64, args: &[u64; 6]) -> Verdict {
    if ctx.task.seccomp.mode() == SECCOMP_MODE_STRICT {
        return check_strict(ctx, number);
    }
    let filters = match &*ctx.task.seccomp.filters.lock() {
        Some(filters) if !filters.allowed.has(number) => filters.clone(),
        _ => return Verdict::Run,
    };
    let data = SeccompData {
        nr: number as i32,
        arch: AUDIT_ARCH_X86_64,
        instruction_pointer: ctx.regs().rip,
        args: *args,
    };
    let mut answer = SECCOMP_RET_ALLOW;
    let mut decisive = &filters;
    for filter in filters.chain() {
        let theirs = filter.program.run(&data);
        if severity(theirs) < severity(answer) {
            answer = theirs;
            decisive = filter;
        }
    }
    let message = answer & SECCOMP_RET_DATA;
    let action = answer & SECCOMP_RET_ACTION_FULL;
    if action == SECCOMP_RET_LOG || (decisive.log && action != SECCOMP_RET_ALLOW) {
        log(ctx, number, action);
    }
    match action {
        SECCOMP_RET_ALLOW | SECCOMP_RET_LOG => Verdict::Run,
        SECCOMP_RET_ERRNO => match message.min(4095) {
            0 => Verdict::Answer(0),
            code => Verdict::Fail(Errno::from_raw(code.cast_signed())),
        },
        SECCOMP_RET_TRAP => {
            let info = trap_info(ctx, number, message);
            ctx.task.force_signal(info);
            Verdict::Signalled
        }
        SECCOMP_RET_TRACE => Verdict::Trace(message),
        SECCOMP_RET_USER_NOTIF => match &decisive.listener {
            Some(listener) => {
                let listener = listener.clone();
                notify::ask(ctx, &listener, data).await
            }
            None => Verdict::Fail(Errno::ENOSYS),
        },
        SECCOMP_RET_KILL_THREAD => kill(ctx, number, Kill::Thread),
        // What is not known kills, as Linux has it.
        _ => kill(ctx, number, Kill::Process),
    }
}

fn check_strict(ctx: &Ctx<'_>, number: u64) -> Verdict {
    let allowed = [nr::READ, nr::WRITE, nr::EXIT, nr::RT_SIGRETURN].map(u64::from);
    if allowed.contains(&number) {
        return Verdict::Run;
    }
    let status = ExitStatus::Signal {
        signal: Signal::SIGKILL,
        core: false,
    };
    end(ctx, Kill::Thread, status);
    Verdict::Signalled
}

fn log(ctx: &Ctx<'_>, number: u64, action: u32) {
    ctx.kernel.log(
        LogLevel::Info,
        format_args!(
            "seccomp: task {} call {number} action {action:#x}",
            ctx.task.tid()
        ),
    );
}

fn trap_info(ctx: &Ctx<'_>, number: u64, message: u32) -> SigInfo {
    SigInfo::syscall(
        SYS_SECCOMP,
        message.cast_signed(),
        ctx.regs().rip,
        number as i32,
        AUDIT_ARCH_X86_64,
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kill {
    Thread,
    Process,
}

/// The call ends its caller as `SIGSYS` would, whatever its action is.
fn kill(ctx: &Ctx<'_>, number: u64, what: Kill) -> Verdict {
    log(ctx, number, SECCOMP_RET_KILL_PROCESS);
    let status = ExitStatus::Signal {
        signal: Signal::SIGSYS,
        core: false,
    };
    end(ctx, what, status);
    Verdict::Signalled
}

fn end(ctx: &Ctx<'_>, what: Kill, status: ExitStatus) {
    if what == Kill::Process || ctx.task.group.thread_count() == 1 {
        ctx.task.group.begin_exit(status);
    } else {
        ctx.task.request_exit(status);
    }
}

/// Whether `action` is one that filters can answer (`GET_ACTION_AVAIL`).
pub fn is_action(action: u32) -> bool {
    matches!(
        action,
        SECCOMP_RET_KILL_PROCESS
            | SECCOMP_RET_KILL_THREAD
            | SECCOMP_RET_TRAP
            | SECCOMP_RET_ERRNO
            | SECCOMP_RET_USER_NOTIF
            | SECCOMP_RET_TRACE
            | SECCOMP_RET_LOG
            | SECCOMP_RET_ALLOW
    )
}

const _: () = assert!(SECCOMP_MODE_DISABLED == 0);
