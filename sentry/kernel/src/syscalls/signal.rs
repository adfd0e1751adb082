//! Signal calls.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use syscall_tables::Errno;
use syscall_tables::abi::{
    SI_TKILL, SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK, SaFlags, SigAction, SigInfo, SigSet, Signal,
    StackT, Timespec,
};

use crate::ctx::{Ctx, SysResult};
use crate::signal::{Origin, frame};
use crate::task::{CapSet, Creds, PidNamespace, Task, ThreadGroup};
use crate::user::{Args, UserPtr};

/// Flags of an action that the kernel keeps; unknown ones are cleared, so
/// that programs can find out what is supported.
const KNOWN_ACTION_FLAGS: u64 = SaFlags::all().bits();

fn check_set_size(size: u64) -> Result<(), Errno> {
    if size == SigSet::SIZE as u64 {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

pub async fn rt_sigaction(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    check_set_size(args.raw(3))?;
    let new = match args.ptr::<SigAction>(1).non_null() {
        Some(ptr) => Some(ctx.read(ptr).await?),
        None => None,
    };
    let signal = Signal::from_raw(args.i32(0)).ok_or(Errno::EINVAL)?;
    if new.is_some() && signal.is_unblockable() {
        return Err(Errno::EINVAL);
    }
    let sighand = ctx.task.group.sighand();
    let old = sighand.action(signal);
    if let Some(new) = new {
        let action = SigAction {
            flags: new.flags & KNOWN_ACTION_FLAGS,
            mask: new.mask.difference(SigSet::UNBLOCKABLE),
            ..new
        };
        sighand.set_action(signal, action);
        if sighand.ignores(signal) {
            // What is pending is lost, even if it is blocked.
            ctx.task.group.discard_pending(SigSet::of(signal));
        }
    }
    if let Some(ptr) = args.ptr(2).non_null() {
        ctx.write(ptr, &old).await?;
    }
    Ok(0)
}

pub async fn rt_sigprocmask(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    check_set_size(args.raw(3))?;
    let old = ctx.task.blocked();
    if let Some(ptr) = args.ptr::<SigSet>(1).non_null() {
        let set = ctx.read(ptr).await?;
        let new = match args.u32(0) {
            SIG_BLOCK => old.union(set),
            SIG_UNBLOCK => old.difference(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        ctx.task.set_blocked(new);
    }
    if let Some(ptr) = args.ptr(2).non_null() {
        ctx.write(ptr, &old).await?;
    }
    Ok(0)
}

pub async fn rt_sigreturn(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    match frame::leave_handler(ctx).await {
        Ok(rax) => Ok(rax),
        Err(_) => {
            // There is no sane state to go on with.
            ctx.task.force_signal(SigInfo::kernel(Signal::SIGSEGV));
            Ok(0)
        }
    }
}

pub async fn rt_sigpending(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.raw(1) > SigSet::SIZE as u64 {
        return Err(Errno::EINVAL);
    }
    let pending = ctx.task.pending_signals().intersection(ctx.task.blocked());
    let bytes = pending.0.to_le_bytes();
    let len = args.usize(1).min(bytes.len());
    ctx.write_bytes(args.raw(0), bytes.get(..len).unwrap_or_default())
        .await?;
    Ok(0)
}

pub async fn rt_sigsuspend(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    check_set_size(args.raw(1))?;
    let mask = ctx.read(args.ptr::<SigSet>(0)).await?;
    ctx.task.set_temporary_mask(mask);
    wait_for_signal(ctx).await
}

pub async fn pause(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    wait_for_signal(ctx).await
}

async fn wait_for_signal(ctx: &mut Ctx<'_>) -> SysResult {
    let task = ctx.task;
    poll_fn(|cx| {
        if task.has_interrupt(cx) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    Err(Errno::ERESTARTNOHAND)
}

pub async fn sigaltstack(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let new = match args.ptr::<StackT>(0).non_null() {
        Some(ptr) => Some(ctx.read(ptr).await?),
        None => None,
    };
    let sp = ctx.regs().rsp;
    let old = ctx.task.signals.lock().altstack.describe(sp);
    if let Some(new) = new {
        ctx.task
            .set_altstack(new.ss_sp, new.ss_size, new.ss_flags, sp)?;
    }
    if let Some(ptr) = args.ptr(1).non_null() {
        ctx.write(ptr, &old).await?;
    }
    Ok(0)
}

pub async fn rt_sigtimedwait(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    check_set_size(args.raw(3))?;
    let set = ctx.read(args.ptr::<SigSet>(0)).await?;
    let deadline = match args.ptr::<Timespec>(2).non_null() {
        Some(ptr) => {
            let timeout = ctx.read(ptr).await?;
            if !timeout.is_valid() {
                return Err(Errno::EINVAL);
            }
            let ns = u64::try_from(timeout.as_ns()).map_err(|_| Errno::EINVAL)?;
            Instant::now().checked_add(Duration::from_nanos(ns))
        }
        None => None,
    };
    let wanted = set.difference(SigSet::UNBLOCKABLE);
    let (signal, info) = wait_for(ctx, wanted, deadline).await?;
    if let Some(ptr) = args.ptr(1).non_null() {
        ctx.write(ptr, &info).await?;
    }
    Ok(signal.raw().unsigned_abs().into())
}

/// Takes a pending signal of `wanted`, waiting for one until `deadline`.
async fn wait_for(
    ctx: &mut Ctx<'_>,
    wanted: SigSet,
    deadline: Option<Instant>,
) -> Result<(Signal, SigInfo), Errno> {
    if let Some(taken) = ctx.task.take_signal(wanted) {
        return Ok(taken);
    }
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(Errno::EAGAIN);
    }
    // While it waits the task accepts what it waits for.
    let mask = ctx.task.blocked();
    ctx.task.signals.lock().real_blocked = mask;
    ctx.task.set_blocked(mask.difference(wanted));
    let mut taken = None;
    let outcome = ctx
        .wait_on(
            &[],
            crate::sync::Events::empty(),
            deadline,
            Errno::EAGAIN,
            || {
                taken = taken.take().or_else(|| ctx.task.take_signal(wanted));
                match taken {
                    Some(taken) => Ok(taken),
                    None => Err(Errno::EAGAIN),
                }
            },
        )
        .await;
    ctx.task.signals.lock().real_blocked = SigSet::EMPTY;
    ctx.task.set_blocked(mask);
    match outcome {
        Err(Errno::ERESTARTSYS) => match ctx.task.take_signal(wanted) {
            Some(taken) => Ok(taken),
            None => Err(Errno::EINTR),
        },
        other => other,
    }
}

/// Whether `sender` may signal `target`.
pub(super) fn may_signal(sender: &Task, target: &Task, signal: Option<Signal>) -> bool {
    if Arc::ptr_eq(&sender.group, &target.group) {
        return true;
    }
    let creds = sender.creds();
    if may_signal_creds(&creds, &target.creds()) {
        return true;
    }
    if signal != Some(Signal::SIGCONT) {
        return false;
    }
    match (sender.group.session(), target.group.session()) {
        (Some(own), Some(other)) => Arc::ptr_eq(&own, &other),
        _ => false,
    }
}

fn may_signal_creds(sender: &Creds, target: &Creds) -> bool {
    [sender.euid, sender.uid]
        .iter()
        .any(|uid| *uid == target.suid || *uid == target.uid)
        || sender.has_in(&target.user_ns, CapSet::KILL)
}

/// Where a signal of `sender` comes from, seen from `target`.
pub(super) fn origin(sender: &Task, target: &ThreadGroup) -> Origin {
    if target.pid().number_in(&sender.pid_ns()) != 0 && sender.pid().number_in(target.pid_ns()) == 0
    {
        Origin::Outside
    } else {
        Origin::Inside
    }
}

/// The sender as the target's namespaces call it: its process id and uid.
fn sender_ids(sender: &Task, target: &ThreadGroup) -> (i32, u32) {
    let pid = sender.group.id_in(target.pid_ns());
    let uid = sender.creds().uid;
    let uid = match target.leader() {
        Some(leader) => leader.creds().user_ns.uid_or_overflow(uid),
        None => uid.0,
    };
    (pid, uid)
}

/// Checks and sends one signal of `kill(2)`; signal 0 only checks.
pub(super) fn kill_process(
    sender: &Task,
    target: &Arc<ThreadGroup>,
    signal: Option<Signal>,
) -> Result<(), Errno> {
    let leader = target.leader().ok_or(Errno::ESRCH)?;
    if !may_signal(sender, &leader, signal) {
        return Err(Errno::EPERM);
    }
    let Some(signal) = signal else {
        return Ok(());
    };
    let (pid, uid) = sender_ids(sender, target);
    target.signal(SigInfo::kill(signal, pid, uid), origin(sender, target))
}

/// The signal of a call that takes 0 as a test.
pub(super) fn signal_or_test(number: i32) -> Result<Option<Signal>, Errno> {
    match number {
        0 => Ok(None),
        number => Signal::from_raw(number).map(Some).ok_or(Errno::EINVAL),
    }
}

pub async fn kill(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let sender = ctx.task;
    let number = args.i32(1);
    let ns = sender.pid_ns();
    match args.i32(0) {
        pid if pid > 0 => {
            let signal = signal_or_test(number)?;
            let target = find_process(&ns, pid)?;
            kill_process(sender, &target, signal)?;
        }
        -1 => {
            let signal = signal_or_test(number)?;
            let targets = ns
                .processes()
                .into_iter()
                .filter(|(pid, group)| *pid != 1 && !Arc::ptr_eq(group, &sender.group));
            let mut outcome = Err(Errno::ESRCH);
            for (_, target) in targets {
                match kill_process(sender, &target, signal) {
                    // Those that may not be signalled are passed over.
                    Err(Errno::EPERM) => {
                        if outcome == Err(Errno::ESRCH) {
                            outcome = Err(Errno::EPERM);
                        }
                    }
                    sent => outcome = sent,
                }
            }
            outcome?;
        }
        pid => {
            let group = if pid == 0 {
                sender.group.process_group()
            } else {
                let pgid = pid.checked_neg().ok_or(Errno::ESRCH)?;
                ns.process_group(pgid)
            };
            let signal = signal_or_test(number)?;
            let mut outcome = Err(Errno::ESRCH);
            for target in group.ok_or(Errno::ESRCH)?.members() {
                let sent = kill_process(sender, &target, signal);
                if outcome.is_err() {
                    outcome = sent;
                }
            }
            outcome?;
        }
    }
    Ok(0)
}

/// A process by the id of its leader or of any of its threads, as `kill(2)`
/// takes it.
fn find_process(ns: &Arc<PidNamespace>, pid: i32) -> Result<Arc<ThreadGroup>, Errno> {
    let task = ns.task(pid).ok_or(Errno::ESRCH)?;
    Ok(task.group.clone())
}

pub async fn tkill(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let tid = args.i32(0);
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    send_to_thread(ctx, None, tid, args.i32(1), None)
}

pub async fn tgkill(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (tgid, tid) = (args.i32(0), args.i32(1));
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    send_to_thread(ctx, Some(tgid), tid, args.i32(2), None)
}

fn send_to_thread(
    ctx: &Ctx<'_>,
    tgid: Option<i32>,
    tid: i32,
    number: i32,
    info: Option<SigInfo>,
) -> SysResult {
    let sender = ctx.task;
    let ns = sender.pid_ns();
    let target = ns.task(tid).ok_or(Errno::ESRCH)?;
    if tgid.is_some_and(|tgid| target.group.id_in(&ns) != tgid) {
        return Err(Errno::ESRCH);
    }
    let signal = signal_or_test(number)?;
    if !may_signal(sender, &target, signal) {
        return Err(Errno::EPERM);
    }
    let Some(signal) = signal else {
        return Ok(0);
    };
    if target.has_exited() {
        // The call can't be told from one that came just before the end.
        return Ok(0);
    }
    let info = info.unwrap_or_else(|| {
        let (pid, uid) = sender_ids(sender, &target.group);
        SigInfo::tkill(signal, pid, uid)
    });
    target.signal(info, origin(sender, &target.group))?;
    Ok(0)
}

/// Reads the siginfo of a `*queueinfo` call; `own` tells whether the target
/// is the sender itself, who may pretend anything.
async fn read_info(
    ctx: &mut Ctx<'_>,
    ptr: UserPtr<SigInfo>,
    number: i32,
    own: bool,
) -> Result<SigInfo, Errno> {
    let mut info = ctx.read(ptr).await?;
    info.si_signo = number;
    if (info.si_code >= 0 || info.si_code == SI_TKILL) && !own {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

pub async fn rt_sigqueueinfo(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (pid, number) = (args.i32(0), args.i32(1));
    let ns = ctx.task.pid_ns();
    let own = ctx.task.group.id_in(&ns) == pid;
    let info = read_info(ctx, args.ptr(2), number, own).await?;
    let target = find_process(&ns, pid)?;
    let signal = signal_or_test(number)?;
    let leader = target.leader().ok_or(Errno::ESRCH)?;
    if !may_signal(ctx.task, &leader, signal) {
        return Err(Errno::EPERM);
    }
    if signal.is_some() {
        target.signal(info, origin(ctx.task, &target))?;
    }
    Ok(0)
}

pub async fn rt_tgsigqueueinfo(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (tgid, tid, number) = (args.i32(0), args.i32(1), args.i32(2));
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let own = ctx.task.tid_in(&ctx.task.pid_ns()) == tid;
    let info = read_info(ctx, args.ptr(3), number, own).await?;
    send_to_thread(ctx, Some(tgid), tid, number, Some(info))
}

/// The task's loop answers this call where there is something to restart.
pub async fn restart_syscall(_ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    Err(Errno::EINTR)
}
