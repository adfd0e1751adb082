//! Replacing the program of a process.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use sentry_platform::GuestThread;
use syscall_tables::Errno;
use syscall_tables::abi::{RLIMIT_STACK, Signal};

use super::exec_creds::ExecCreds;
use super::{Creds, ExitStatus, Task, Work, exit, ptrace};
use crate::ctx::Ctx;
use crate::loader::{Arguments, Identity, Image, LoadError, Loaded, OpenExec, Planned, Settings};
use crate::mm::Aslr;
use crate::signal::{AltStack, SigHand};
use crate::sync::Events;
use crate::vfs::{FdFlags, File};

/// `ADDR_NO_RANDOMIZE` of `personality(2)`.
const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;

/// User code and data selectors, interrupts enabled.
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
const EFLAGS: u64 = 0x202;

/// How the file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReachedBy {
    Path,
    /// By a descriptor that `execve` closes: an interpreter could not open
    /// it.
    ClosingFd,
}

/// A program in a fresh address space, with a thread to run it.
pub(crate) struct Program {
    pub loaded: Loaded,
    pub thread: Box<dyn GuestThread>,
    pub creds: ExecCreds,
}

/// Who executes a program, and how.
pub(crate) struct Caller<'a> {
    pub creds: &'a Creds,
    /// `RLIMIT_STACK` in bytes.
    pub stack_limit: u64,
    pub personality: u32,
    pub by: ReachedBy,
    /// Id of its container.
    pub container: &'a str,
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> LoadError {
    move |errno| LoadError {
        errno,
        what: what.to_owned(),
    }
}

/// Plans the address space of a program.
fn plan(
    kernel: &crate::kernel::Kernel,
    open_exec: &OpenExec<'_>,
    file: Arc<File>,
    arguments: Arguments,
    caller: &Caller<'_>,
) -> Result<(Planned, ExecCreds), LoadError> {
    let guest = kernel.platform.guest_range();
    let image = Image::open(open_exec, file, arguments, caller.stack_limit, &guest)?;
    if image.is_script && caller.by == ReachedBy::ClosingFd {
        return Err(failed("script behind a descriptor that closes")(
            Errno::ENOENT,
        ));
    }
    let file = image.file.clone();
    let creds = ExecCreds::new(caller.creds, &file).map_err(failed("attributes of the program"))?;
    let new = &creds.creds;
    let identity = Identity {
        uid: new.uid,
        euid: new.euid,
        gid: new.gid,
        egid: new.egid,
        secure: creds.secure,
    };
    let settings = Settings {
        aslr: if caller.personality & ADDR_NO_RANDOMIZE != 0 {
            Aslr::Off
        } else {
            Aslr::Randomize
        },
        stack_limit: caller.stack_limit,
    };
    let planned = image.plan(kernel.platform.as_ref(), &identity, &settings)?;
    Ok((planned, creds))
}

/// Loads a program into a fresh address space.
pub(crate) async fn load(
    kernel: &crate::kernel::Kernel,
    open_exec: &OpenExec<'_>,
    file: Arc<File>,
    arguments: Arguments,
    caller: &Caller<'_>,
) -> Result<Program, LoadError> {
    let (planned, creds) = plan(kernel, open_exec, file, arguments, caller)?;
    let (loaded, thread) = start_afresh(kernel, planned, caller.container).await?;
    Ok(Program {
        loaded,
        thread,
        creds,
    })
}

async fn start_afresh(
    kernel: &crate::kernel::Kernel,
    planned: Planned,
    container: &str,
) -> Result<(Loaded, Box<dyn GuestThread>), LoadError> {
    let space = kernel.new_space(container).await;
    let loaded = planned
        .load(space.map_err(failed("new address space"))?)
        .await?;
    let mut thread = loaded
        .mm
        .space
        .new_thread()
        .await
        .map_err(failed("thread for the program"))?;
    set_registers(thread.as_mut(), &loaded);
    Ok((loaded, thread))
}

fn set_registers(thread: &mut dyn GuestThread, loaded: &Loaded) {
    let regs = thread.regs_mut();
    *regs = loaded.start_regs();
    regs.cs = USER_CS;
    regs.ss = USER_SS;
    regs.eflags = EFLAGS;
    regs.orig_rax = u64::MAX;
}

/// Whether the program can go where the caller's is: nobody else has to do
/// with that memory, or has ever run in its process, and the new program does
/// not have more rights than what may have been left there: then the caller
/// could have led it anywhere by its environment as well.
fn can_replace(ctx: &Ctx<'_>, creds: &ExecCreds) -> bool {
    // The task's own reference and the one asked for here.
    let only_ours = Arc::strong_count(&ctx.task.mm()) == 2;
    only_ours && creds.readable && !creds.gains && ctx.thread.can_replace_memory()
}

/// Runs `file` in place of the caller's program. After an error nothing has
/// changed, or the task is about to die.
pub async fn execve(
    ctx: &mut Ctx<'_>,
    open_exec: &OpenExec<'_>,
    file: Arc<File>,
    arguments: Arguments,
    by: ReachedBy,
) -> Result<(), Errno> {
    let task = ctx.task.clone();
    let caller = Caller {
        creds: &task.creds(),
        stack_limit: task.group.limit(RLIMIT_STACK),
        personality: task.personality.load(Ordering::Relaxed),
        by,
        container: &task.group.container,
    };
    let (planned, creds) = plan(ctx.kernel, open_exec, file, arguments, &caller)?;
    let old_pid = task.pid();
    let loaded = if can_replace(ctx, &creds) {
        become_only_thread(&task).await?;
        exit::leave_memory(ctx).await;
        match planned.replace(ctx.thread.as_mut()).await {
            Ok(loaded) => {
                set_registers(ctx.thread.as_mut(), &loaded);
                loaded
            }
            Err(error) => {
                // There is nothing to return to.
                task.group.begin_exit(ExitStatus::Signal {
                    signal: Signal::SIGKILL,
                    core: false,
                });
                return Err(error.errno);
            }
        }
    } else {
        let (loaded, thread) = start_afresh(ctx.kernel, planned, caller.container).await?;
        become_only_thread(&task).await?;
        exit::leave_memory(ctx).await;
        // The old thread must not be interrupted in place of the new one.
        task.set_handle(thread.handle());
        let old_thread = std::mem::replace(ctx.thread, thread);
        drop(old_thread);
        loaded
    };
    let dumpable = creds.readable && !creds.secure;
    loaded.mm.set_dumpable(u8::from(dumpable));
    let old_mm = task.set_mm(loaded.mm.clone());
    task.group.note_peak(&old_mm, &loaded.mm);
    drop(old_mm);
    reset(&task, &loaded.comm);
    if creds.secure {
        task.pdeath_signal.store(0, Ordering::Relaxed);
    }
    task.set_creds(creds.creds);
    close_on_exec(&task);
    task.group.did_exec.store(true, Ordering::Relaxed);
    if task.is_traced() {
        ptrace::report_exec(ctx, &old_pid).await;
    }
    Ok(())
}

/// What a new program does not inherit.
fn reset(task: &Task, comm: &[u8]) {
    task.set_comm(comm);
    task.robust_list.store(0, Ordering::Relaxed);
    let sighand: SigHand = task.group.sighand().duplicate();
    sighand.reset_handlers();
    task.group.set_sighand(Arc::new(sighand));
    {
        let mut own = task.signals.lock();
        own.altstack = AltStack::default();
    }
    task.group.timers.exec();
    task.restart.lock().take();
    task.group.set_exit_signal(Some(Signal::SIGCHLD));
}

fn close_on_exec(task: &Task) {
    let files = task.files();
    // Shared with another process: that one keeps its descriptors.
    let files = if Arc::strong_count(&files) > 2 {
        let own = Arc::new(files.duplicate());
        drop(task.set_files(own.clone()));
        own
    } else {
        files
    };
    let closed = files.remove_where(|_, flags| flags.contains(FdFlags::CLOEXEC));
    for file in closed {
        // Errors of a flush have nobody to go to.
        let _ = files.close_file(&file);
    }
}

/// Ends all other threads of the process and takes the leader's id over.
async fn become_only_thread(task: &Arc<Task>) -> Result<(), Errno> {
    let group = &task.group;
    {
        let links = group.links.lock();
        let mut signals = group.signals.lock();
        if signals.exit.is_some() || signals.exec.is_some() {
            // Somebody else ends this task.
            return Err(Errno::EAGAIN);
        }
        if links.tasks.len() > 1 {
            signals.exec = Some(task.tid());
        }
        for other in &links.tasks {
            if !Arc::ptr_eq(other, task) {
                other.request_exit(ExitStatus::Code(0));
            }
        }
    }
    let mut subscription = None;
    let alone = poll_fn(|cx| {
        if subscription.is_none() {
            let waker = Arc::new(cx.waker().clone());
            subscription = Some(group.thread_exits.subscribe(Events::READABLE, waker));
        }
        if group.thread_count() <= 1 {
            Poll::Ready(Ok(()))
        } else if task.has_work(cx, Work::KILL) {
            Poll::Ready(Err(Errno::EAGAIN))
        } else {
            Poll::Pending
        }
    })
    .await;
    group.signals.lock().exec = None;
    alone?;
    if !task.is_leader() {
        take_over_leader(task);
    }
    Ok(())
}

fn take_over_leader(task: &Arc<Task>) {
    let group = &task.group;
    let tree = group.kernel.tree.lock();
    let old = group.leader();
    if let Some(old) = old {
        // Its tracer hears of the exec instead of this end.
        ptrace::forget(&tree, &old);
    }
    let own = task.pid();
    let leaders = group.pid().clone();
    own.detach_task();
    task.set_pid(leaders.clone());
    leaders.attach_task(task.clone());
    let mut links = group.links.lock();
    links.leader = Some(task.clone());
    links.leader_status = None;
}
