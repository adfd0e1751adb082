//! `pidfd_open`, `pidfd_send_signal`, `pidfd_getfd`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{PidfdFlags, PidfdSignalFlags, SI_TKILL, SigInfo};

use super::signal::{kill_process, may_signal, origin, signal_or_test};
use crate::ctx::{Ctx, SysResult};
use crate::fs::kernfs::OpenDir;
use crate::task::Pid;
use crate::task::access::AccessCreds;
use crate::task::pidfd::{self, Pidfd, PidfdKind};
use crate::user::Args;
use crate::vfs::{Fd, FdFlags, File, StatusFlags};

pub async fn pidfd_open(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = PidfdFlags::from_bits(args.u32(1)).ok_or(Errno::EINVAL)?;
    let pid = args.i32(0);
    if pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let pid = ctx.task.pid_ns().pid(pid).ok_or(Errno::ESRCH)?;
    let task = pid.task().ok_or(Errno::ESRCH)?;
    let kind = if flags.contains(PidfdFlags::PIDFD_THREAD) {
        PidfdKind::Thread
    } else if task.is_leader() {
        PidfdKind::Process
    } else {
        return Err(Errno::EINVAL);
    };
    let status = if flags.contains(PidfdFlags::PIDFD_NONBLOCK) {
        StatusFlags::NONBLOCK
    } else {
        StatusFlags::empty()
    };
    ctx.add_fd(pidfd::open(pid, kind, status), FdFlags::CLOEXEC)
}

/// Whom a descriptor lets its holder signal: that of a pidfd or, as before
/// there were pidfds, of `/proc/PID`.
fn signalled(file: &File) -> Result<(Arc<Pid>, PidfdKind), Errno> {
    if let Some(dir) = file.downcast::<OpenDir>() {
        let pid = dir.0.process().ok_or(Errno::EBADF)?;
        return Ok((pid.clone(), PidfdKind::Process));
    }
    let pidfd = Pidfd::of(file)?;
    Ok((pidfd.pid.clone(), pidfd.kind))
}

pub async fn pidfd_send_signal(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = PidfdSignalFlags::from_bits(args.u32(3)).ok_or(Errno::EINVAL)?;
    if flags.bits().count_ones() > 1 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let (pid, kind) = signalled(&file)?;
    let sender = ctx.task;
    let target = pid.task().ok_or(Errno::ESRCH)?;
    if target.pid().number_in(&sender.pid_ns()) == 0 {
        return Err(Errno::EINVAL);
    }
    let number = args.i32(1);
    let info = match args.ptr::<SigInfo>(2).non_null() {
        Some(ptr) => {
            let info = ctx.read(ptr).await?;
            if info.si_signo != number {
                return Err(Errno::EINVAL);
            }
            let own = Arc::ptr_eq(&target.group, &sender.group);
            if !own && (info.si_code >= 0 || info.si_code == SI_TKILL) {
                return Err(Errno::EPERM);
            }
            Some(info)
        }
        None => None,
    };
    let signal = signal_or_test(number)?;
    if flags.contains(PidfdSignalFlags::PIDFD_SIGNAL_PROCESS_GROUP) {
        let group = pid.process_group().ok_or(Errno::ESRCH)?;
        let mut outcome = Err(Errno::ESRCH);
        for member in group.members() {
            let sent = kill_process(sender, &member, signal);
            if outcome.is_err() {
                outcome = sent;
            }
        }
        outcome?;
        return Ok(0);
    }
    let to_thread = flags.contains(PidfdSignalFlags::PIDFD_SIGNAL_THREAD)
        || (flags.is_empty() && kind == PidfdKind::Thread);
    if !to_thread && info.is_none() {
        kill_process(sender, &target.group, signal)?;
        return Ok(0);
    }
    if !may_signal(sender, &target, signal) {
        return Err(Errno::EPERM);
    }
    let Some(signal) = signal else {
        return Ok(0);
    };
    let from = origin(sender, &target.group);
    let info = info.unwrap_or_else(|| {
        let pid = sender.group.id_in(target.group.pid_ns());
        let uid = target.creds().user_ns.uid_or_overflow(sender.creds().uid);
        SigInfo::kill(signal, pid, uid)
    });
    if to_thread {
        target.signal(info, from)?;
    } else {
        target.group.signal(info, from)?;
    }
    Ok(0)
}

pub async fn pidfd_getfd(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.u32(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let target = Pidfd::of(&file)?.task()?;
    if target.has_exited() {
        return Err(Errno::ESRCH);
    }
    if !target.may_be_accessed_by(ctx.task, AccessCreds::Real) {
        return Err(Errno::EPERM);
    }
    let wanted = target.files().get(Fd(args.i32(1)))?;
    ctx.add_fd(wanted, FdFlags::CLOEXEC)
}
