//! Making tasks and processes: `clone(2)` and its relatives.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use sentry_platform::GuestThread;
use syscall_tables::Errno;
use syscall_tables::abi::{CloneFlags, RLIMIT_NPROC, Regs, Signal};

use super::{
    CapSet, Creds, Namespaces, NewGroup, NewTask, Pid, PidNamespace, Task, ThreadGroup,
    UserNamespace, UtsNamespace, VforkDone, Work, pidfd, ptrace, run,
};
use crate::ctx::{Ctx, SysResult};
use crate::ipc::IpcNamespace;
use crate::limits;
use crate::mm::MemoryManager;
use crate::signal::{AltStack, SigHand, TaskSignals};
use crate::sync::Events;
use crate::vfs::{Fd, FdFlags, FsContextRef};

/// Flags that make new namespaces, but for the user namespace.
const NEW_NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWCGROUP)
    .union(CloneFlags::CLONE_NEWTIME);

/// Namespaces that don't exist here.
const UNSUPPORTED: CloneFlags = CloneFlags::CLONE_NEWTIME;

/// What a clone call asks for.
#[derive(Clone, Debug, Default)]
pub struct CloneRequest {
    pub flags: CloneFlags,
    /// Signal for the parent at exit; 0 for none.
    pub exit_signal: i32,
    /// Initial stack pointer; 0 keeps the caller's.
    pub stack_pointer: u64,
    pub tls: u64,
    pub parent_tid: u64,
    pub child_tid: u64,
    pub pidfd: u64,
    /// Wanted ids, innermost namespace first.
    pub set_tid: Vec<i32>,
}

impl CloneRequest {
    fn has(&self, flags: CloneFlags) -> bool {
        self.flags.contains(flags)
    }

    fn check(&self, task: &Task) -> Result<(), Errno> {
        let both = |a, b| self.has(a) && self.has(b);
        let only = |a, b| self.has(a) && !self.has(b);
        if both(CloneFlags::CLONE_NEWNS, CloneFlags::CLONE_FS)
            || both(CloneFlags::CLONE_NEWUSER, CloneFlags::CLONE_FS)
            || only(CloneFlags::CLONE_THREAD, CloneFlags::CLONE_SIGHAND)
            || only(CloneFlags::CLONE_SIGHAND, CloneFlags::CLONE_VM)
            || both(CloneFlags::CLONE_NEWIPC, CloneFlags::CLONE_SYSVSEM)
            || both(CloneFlags::CLONE_CLEAR_SIGHAND, CloneFlags::CLONE_SIGHAND)
        {
            return Err(Errno::EINVAL);
        }
        if self.has(CloneFlags::CLONE_PARENT) && task.group.is_namespace_init() {
            return Err(Errno::EINVAL);
        }
        if self.has(CloneFlags::CLONE_THREAD) {
            let foreign = !Arc::ptr_eq(&task.namespaces().pid_for_children, &task.pid_ns());
            let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID;
            if foreign || self.flags.intersects(namespaces) {
                return Err(Errno::EINVAL);
            }
        }
        if self.flags.intersects(UNSUPPORTED) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

/// Makes a task as `request` says; answers its id as the caller sees it.
pub async fn clone_task(ctx: &mut Ctx<'_>, request: CloneRequest) -> SysResult {
    request.check(ctx.task)?;
    if ctx
        .task
        .work()
        .intersects(Work::SIGNAL | Work::STOP | Work::KILL)
    {
        // Signals to the whole process must not miss a newborn thread.
        return Err(Errno::ERESTARTNOINTR);
    }
    let parts = Parts::new(ctx, &request)?;
    check_process_limit(ctx.task, &parts.creds)?;
    limits::check_tasks(ctx.kernel, ctx.task)?;
    let (mm, mut thread) = child_thread(ctx, &request).await?;
    set_registers(thread.regs_mut(), &request);
    let pid = Pid::allocate(&parts.namespaces.pid_for_children, &request.set_tid)?;
    let child = build(ctx.task, &request, parts, mm.clone(), &pid, thread.as_ref());
    let number = pid.number_in(&ctx.task.pid_ns());
    let pidfd = match give_pidfd(ctx, &request, &pid).await {
        Ok(pidfd) => pidfd,
        Err(error) => {
            pid.discard();
            return Err(error);
        }
    };
    if request.has(CloneFlags::CLONE_PARENT_SETTID) {
        // Linux ignores a bad address here.
        let _ = ctx
            .write_bytes(request.parent_tid, &number.to_le_bytes())
            .await;
    }
    if request.has(CloneFlags::CLONE_CHILD_SETTID) {
        let own = pid.number().to_le_bytes();
        write_child_tid(thread.as_mut(), &mm, request.child_tid, &own).await;
    }
    let vfork = request.has(CloneFlags::CLONE_VFORK).then(|| {
        let done = Arc::new(VforkDone::default());
        *child.vfork_done.lock() = Some(done.clone());
        done
    });
    if let Err(error) = publish(ctx, &request, &child, &pid) {
        if let Some(fd) = pidfd {
            drop(ctx.task.files().remove(fd));
        }
        pid.discard();
        return Err(error);
    }
    run::spawn(child, thread);
    let traced = ctx.task.is_traced();
    if traced {
        ptrace::report_clone(ctx, &request, &pid).await;
    }
    if let Some(done) = vfork {
        wait_for_vfork(ctx.task, &done).await;
        if traced {
            ptrace::report_vfork_done(ctx, &pid).await;
        }
    }
    Ok(u64::from(number.unsigned_abs()))
}

/// What the child has instead of or together with its parent.
struct Parts {
    creds: Arc<Creds>,
    namespaces: Arc<Namespaces>,
    fs: FsContextRef,
}

impl Parts {
    fn new(ctx: &Ctx<'_>, request: &CloneRequest) -> Result<Self, Errno> {
        let task = ctx.task;
        let creds = if request.has(CloneFlags::CLONE_NEWUSER) {
            Arc::new(enter_new_user_ns(&task.creds())?)
        } else {
            task.creds()
        };
        let fs = if request.has(CloneFlags::CLONE_FS) {
            task.fs()
        } else {
            task.fs().duplicate()
        };
        let (namespaces, fs) = new_namespaces(ctx, request.flags, &creds, fs)?;
        Ok(Self {
            creds,
            namespaces,
            fs,
        })
    }
}

/// Credentials of the first task in a new user namespace: all capabilities,
/// there.
pub(crate) fn enter_new_user_ns(creds: &Creds) -> Result<Creds, Errno> {
    let user_ns = UserNamespace::new_child(creds)?;
    Ok(creds.in_user_ns(user_ns))
}

/// The namespaces after `clone` or `unshare` with `flags`.
pub(crate) fn new_namespaces(
    ctx: &Ctx<'_>,
    flags: CloneFlags,
    creds: &Creds,
    fs: FsContextRef,
) -> Result<(Arc<Namespaces>, FsContextRef), Errno> {
    let old = ctx.task.namespaces();
    if !flags.intersects(NEW_NAMESPACES) {
        return Ok((old, fs));
    }
    if !creds.has_own(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let kernel = ctx.kernel;
    let mut new = Namespaces::clone(&old);
    if flags.contains(CloneFlags::CLONE_NEWUTS) {
        let names = old.uts.names.read().clone();
        new.uts = UtsNamespace::new(kernel.new_namespace_id(), creds.user_ns.clone(), names);
    }
    if flags.contains(CloneFlags::CLONE_NEWPID) {
        new.pid_for_children = PidNamespace::new(
            kernel.new_namespace_id(),
            Some(old.pid_for_children.clone()),
            creds.user_ns.clone(),
        )?;
    }
    if flags.contains(CloneFlags::CLONE_NEWIPC) {
        new.ipc = IpcNamespace::new(kernel, creds.user_ns.clone());
    }
    if flags.contains(CloneFlags::CLONE_NEWNET) {
        new.net_id = kernel.new_namespace_id();
    }
    if flags.contains(CloneFlags::CLONE_NEWCGROUP) {
        new.cgroup_id = kernel.new_namespace_id();
    }
    let fs = if flags.contains(CloneFlags::CLONE_NEWNS) {
        crate::vfs::FsContext::new(
            kernel
                .vfs
                .clone_namespace(&fs.state.read().clone(), creds.user_ns.clone())?,
        )
    } else {
        fs
    };
    Ok((Arc::new(new), fs))
}

/// `RLIMIT_NPROC`.
fn check_process_limit(task: &Task, creds: &Creds) -> Result<(), Errno> {
    let limit = task.group.limit(RLIMIT_NPROC);
    let exempt =
        creds.uid.0 == 0 || creds.has(CapSet::SYS_RESOURCE) || creds.has(CapSet::SYS_ADMIN);
    let count = task.kernel().users.tasks(creds.uid).load(Ordering::Relaxed);
    if !exempt && count >= limit {
        return Err(Errno::EAGAIN);
    }
    Ok(())
}

async fn child_thread(
    ctx: &mut Ctx<'_>,
    request: &CloneRequest,
) -> Result<(Arc<MemoryManager>, Box<dyn GuestThread>), Errno> {
    let mm = ctx.task.mm();
    if request.has(CloneFlags::CLONE_VM) {
        let thread = ctx.thread.clone_thread().await?;
        Ok((mm, thread))
    } else {
        mm.fork(ctx.thread.as_mut()).await
    }
}

fn set_registers(regs: &mut Regs, request: &CloneRequest) {
    regs.rax = 0;
    regs.orig_rax = u64::MAX;
    if request.stack_pointer != 0 {
        regs.rsp = request.stack_pointer;
    }
    if request.has(CloneFlags::CLONE_SETTLS) {
        regs.fs_base = request.tls;
    }
}

fn build(
    parent: &Arc<Task>,
    request: &CloneRequest,
    parts: Parts,
    mm: Arc<MemoryManager>,
    pid: &Arc<Pid>,
    thread: &dyn GuestThread,
) -> Arc<Task> {
    let group = if request.has(CloneFlags::CLONE_THREAD) {
        parent.group.clone()
    } else {
        new_group(parent, request, pid)
    };
    let files = parent.files();
    let files = if request.has(CloneFlags::CLONE_FILES) {
        files
    } else {
        Arc::new(files.duplicate())
    };
    let signals = {
        let own = parent.signals.lock();
        let shares_stack =
            request.has(CloneFlags::CLONE_VM) && !request.has(CloneFlags::CLONE_VFORK);
        TaskSignals {
            blocked: own.blocked,
            altstack: if shares_stack {
                AltStack::default()
            } else {
                own.altstack
            },
            ..TaskSignals::default()
        }
    };
    let child = Task::new(NewTask {
        pid: pid.clone(),
        group,
        creds: parts.creds,
        files,
        fs: parts.fs,
        mm,
        namespaces: parts.namespaces,
        comm: parent.comm(),
        handle: thread.handle(),
        signals,
        sched: parent.sched.lock().for_child(),
        personality: parent.personality.load(Ordering::Relaxed),
        timer_slack_ns: parent.timer_slack_ns.load(Ordering::Relaxed),
        login: *parent.login.lock(),
        seccomp: parent.seccomp.duplicate(),
    });
    if request.has(CloneFlags::CLONE_CHILD_CLEARTID) {
        child
            .clear_child_tid
            .store(request.child_tid, Ordering::Relaxed);
    }
    child
}

fn new_group(parent: &Arc<Task>, request: &CloneRequest, pid: &Arc<Pid>) -> Arc<ThreadGroup> {
    let sighand = parent.group.sighand();
    let sighand = if request.has(CloneFlags::CLONE_SIGHAND) {
        sighand
    } else {
        let copy: SigHand = sighand.duplicate();
        if request.has(CloneFlags::CLONE_CLEAR_SIGHAND) {
            copy.reset_handlers();
        }
        Arc::new(copy)
    };
    ThreadGroup::new(NewGroup {
        kernel: parent.kernel().clone(),
        pid: pid.clone(),
        sighand,
        limits: parent.group.limits(),
        exit_signal: if request.has(CloneFlags::CLONE_PARENT) {
            parent.group.exit_signal().map_or(0, Signal::raw)
        } else {
            request.exit_signal
        },
        container: parent.group.container.clone(),
        oom_score_adj: parent.group.oom_score_adj.load(Ordering::Relaxed),
    })
}

async fn give_pidfd(
    ctx: &mut Ctx<'_>,
    request: &CloneRequest,
    pid: &Arc<Pid>,
) -> Result<Option<Fd>, Errno> {
    if !request.has(CloneFlags::CLONE_PIDFD) {
        return Ok(None);
    }
    let kind = if request.has(CloneFlags::CLONE_THREAD) {
        pidfd::PidfdKind::Thread
    } else {
        pidfd::PidfdKind::Process
    };
    let file = pidfd::open(pid.clone(), kind, crate::vfs::StatusFlags::empty());
    let number = ctx.add_fd(file, FdFlags::CLOEXEC)?;
    let fd = Fd(i32::try_from(number).map_err(|_| Errno::EMFILE)?);
    if let Err(error) = ctx.write_bytes(request.pidfd, &fd.0.to_le_bytes()).await {
        drop(ctx.task.files().remove(fd));
        return Err(error);
    }
    Ok(Some(fd))
}

/// Stores the child's id in the child's memory.
async fn write_child_tid(
    thread: &mut dyn GuestThread,
    mm: &MemoryManager,
    addr: u64,
    number: &[u8],
) {
    let stored = poll_fn(|cx| thread.poll_copy_out(cx, addr, number)).await;
    if stored.is_err() {
        // A bad address is ignored, as Linux does.
        let _ = mm.write_memory(addr, number).await;
    }
}

/// Makes the child visible, unless the parent is to do something else first.
fn publish(
    ctx: &Ctx<'_>,
    request: &CloneRequest,
    child: &Arc<Task>,
    pid: &Arc<Pid>,
) -> Result<(), Errno> {
    let parent = ctx.task;
    let tree = ctx.kernel.tree.lock();
    if pid.namespace().is_dying() {
        return Err(Errno::ENOMEM);
    }
    if request.has(CloneFlags::CLONE_THREAD) {
        let mut links = parent.group.links.lock();
        let signals = parent.group.signals.lock();
        let blocked = parent
            .work()
            .intersects(Work::SIGNAL | Work::STOP | Work::KILL);
        if signals.exit.is_some() || blocked {
            return Err(Errno::ERESTARTNOINTR);
        }
        // A sibling may have given all threads a filter meanwhile.
        child.seccomp.take_from(&parent.seccomp);
        pid.attach_task(child.clone());
        links.tasks.push(child.clone());
        drop(signals);
        drop(links);
        ptrace::attach_child(&tree, parent, child, request);
        return Ok(());
    }
    if parent
        .work()
        .intersects(Work::SIGNAL | Work::STOP | Work::KILL)
    {
        return Err(Errno::ERESTARTNOINTR);
    }
    child.group.timers.set_cpu_limit(&child.group);
    pid.attach_task(child.clone());
    {
        let mut links = child.group.links.lock();
        links.leader = Some(child.clone());
        links.tasks.push(child.clone());
        links.creator = parent.tid();
    }
    let new_parent = if request.has(CloneFlags::CLONE_PARENT) {
        parent.group.parent(&tree)
    } else {
        Some(parent.group.clone())
    };
    if let Some(new_parent) = new_parent {
        child.group.set_parent(&tree, &new_parent);
    }
    if let Some(group) = parent.group.process_group() {
        child.group.join_process_group(&tree, group);
    }
    ptrace::attach_child(&tree, parent, child, request);
    if pid.number() == 1 {
        pid.namespace().set_init(&child.group);
        child.group.unkillable.store(true, Ordering::Relaxed);
    }
    Ok(())
}

async fn wait_for_vfork(task: &Arc<Task>, done: &VforkDone) {
    let mut subscription = None;
    poll_fn(|cx| {
        if subscription.is_none() {
            let waker = Arc::new(cx.waker().clone());
            subscription = Some(done.queue.subscribe(Events::READABLE, waker));
        }
        if done.done.load(Ordering::Acquire) || task.has_fatal(cx) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// `set_tid_address(2)`.
pub(crate) fn set_tid_address(task: &Task, addr: u64) -> i32 {
    task.clear_child_tid.store(addr, Ordering::Relaxed);
    task.tid_in(&task.pid_ns())
}
