//! Processes and threads: ids, creation, end, groups and sessions.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{CSIGNAL, CloneArgs, CloneFlags, Signal};
use zerocopy::{FromBytes, IntoBytes};

use crate::ctx::{Ctx, SysResult};
use crate::task::clone::{self, CloneRequest};
use crate::task::{ExitStatus, ProcessGroup, Session, Task, ThreadGroup};
use crate::user::Args;

/// An id for `rax`.
fn id(number: i32) -> SysResult {
    Ok(u64::from(number.unsigned_abs()))
}

pub async fn getpid(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    id(ctx.task.group.pid().number())
}

pub async fn gettid(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    id(ctx.task.pid().number())
}

pub async fn getppid(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    id(ctx.task.group.parent_id_in(&ctx.task.pid_ns()))
}

pub async fn set_tid_address(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    id(clone::set_tid_address(ctx.task, args.raw(0)))
}

pub async fn exit(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let status = ExitStatus::from_exit_arg(args.i32(0));
    ctx.task.request_exit(status);
    Ok(0)
}

pub async fn exit_group(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let status = ExitStatus::from_exit_arg(args.i32(0));
    ctx.task.group.begin_exit(status);
    Ok(0)
}

pub async fn fork(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let request = CloneRequest {
        exit_signal: Signal::SIGCHLD.raw(),
        ..CloneRequest::default()
    };
    Box::pin(clone::clone_task(ctx, request)).await
}

pub async fn vfork(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let request = CloneRequest {
        flags: CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK,
        exit_signal: Signal::SIGCHLD.raw(),
        ..CloneRequest::default()
    };
    Box::pin(clone::clone_task(ctx, request)).await
}

pub async fn clone(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let word = args.raw(0) & u64::from(u32::MAX);
    let flags = CloneFlags::from_bits_retain(word & !CSIGNAL);
    let shared_pointer = CloneFlags::CLONE_PIDFD | CloneFlags::CLONE_PARENT_SETTID;
    if flags.contains(shared_pointer)
        || flags.contains(CloneFlags::CLONE_PIDFD | CloneFlags::CLONE_DETACHED)
    {
        return Err(Errno::EINVAL);
    }
    let request = CloneRequest {
        flags,
        exit_signal: i32::try_from(word & CSIGNAL).map_err(|_| Errno::EINVAL)?,
        stack_pointer: args.raw(1),
        parent_tid: args.raw(2),
        pidfd: args.raw(2),
        child_tid: args.raw(3),
        tls: args.raw(4),
        set_tid: Vec::new(),
    };
    Box::pin(clone::clone_task(ctx, request)).await
}

pub async fn clone3(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let request = read_clone_args(ctx, args.raw(0), args.usize(1)).await?;
    Box::pin(clone::clone_task(ctx, request)).await
}

async fn read_clone_args(ctx: &mut Ctx<'_>, addr: u64, size: usize) -> Result<CloneRequest, Errno> {
    const PAGE: usize = 4096;
    const MAX_SET_TID: u64 = 32;
    if size > PAGE {
        return Err(Errno::E2BIG);
    }
    if size < CloneArgs::SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; size.max(size_of::<CloneArgs>())];
    let given = bytes.get_mut(..size).unwrap_or_default();
    ctx.read_bytes(addr, given).await?;
    let (known, newer) = bytes
        .split_at_checked(size_of::<CloneArgs>())
        .ok_or(Errno::EINVAL)?;
    if newer.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let clone = CloneArgs::read_from_bytes(known).map_err(|_| Errno::EINVAL)?;
    let flags = CloneFlags::from_bits(clone.flags).ok_or(Errno::EINVAL)?;
    if flags.contains(CloneFlags::CLONE_DETACHED) || clone.exit_signal & !CSIGNAL != 0 {
        return Err(Errno::EINVAL);
    }
    let ends_elsewhere = CloneFlags::CLONE_THREAD | CloneFlags::CLONE_PARENT;
    if flags.intersects(ends_elsewhere) && clone.exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    let exit_signal = i32::try_from(clone.exit_signal).map_err(|_| Errno::EINVAL)?;
    if exit_signal != 0 && Signal::from_raw(exit_signal).is_none() {
        return Err(Errno::EINVAL);
    }
    if (clone.stack == 0) != (clone.stack_size == 0) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloneFlags::CLONE_INTO_CGROUP) {
        return Err(Errno::EOPNOTSUPP);
    }
    if clone.set_tid_size > MAX_SET_TID || (clone.set_tid == 0) != (clone.set_tid_size == 0) {
        return Err(Errno::EINVAL);
    }
    let count = usize::try_from(clone.set_tid_size).map_err(|_| Errno::EINVAL)?;
    let mut set_tid = vec![0_i32; count];
    ctx.read_bytes(clone.set_tid, set_tid.as_mut_slice().as_mut_bytes())
        .await?;
    Ok(CloneRequest {
        flags,
        exit_signal,
        stack_pointer: clone.stack.wrapping_add(clone.stack_size),
        tls: clone.tls,
        parent_tid: clone.parent_tid,
        child_tid: clone.child_tid,
        pidfd: clone.pidfd,
        set_tid,
    })
}

/// The process a call names; 0 names the caller's own.
fn process_or_own(task: &Task, pid: i32) -> Result<Arc<ThreadGroup>, Errno> {
    if pid == 0 {
        return Ok(task.group.clone());
    }
    let found = task.pid_ns().task(pid).ok_or(Errno::ESRCH)?;
    Ok(found.group.clone())
}

pub async fn getpgid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let process = process_or_own(ctx.task, args.i32(0))?;
    let group = process.process_group().ok_or(Errno::ESRCH)?;
    id(group.id_in(&ctx.task.pid_ns()))
}

pub async fn getpgrp(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let group = ctx.task.group.process_group().ok_or(Errno::ESRCH)?;
    id(group.id_in(&ctx.task.pid_ns()))
}

pub async fn getsid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let process = process_or_own(ctx.task, args.i32(0))?;
    let session = process.session().ok_or(Errno::ESRCH)?;
    id(session.id_in(&ctx.task.pid_ns()))
}

pub async fn setpgid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (pid, pgid) = (args.i32(0), args.i32(1));
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let own = &ctx.task.group;
    let ns = ctx.task.pid_ns();
    let tree = ctx.kernel.tree.lock();
    let target = match pid {
        0 => own.clone(),
        pid => {
            let task = ns.task(pid).ok_or(Errno::ESRCH)?;
            if !task.is_leader() {
                return Err(Errno::EINVAL);
            }
            task.group.clone()
        }
    };
    let session = own.session().ok_or(Errno::ESRCH)?;
    let target_session = target.session().ok_or(Errno::ESRCH)?;
    let is_child = target
        .parent(&tree)
        .is_some_and(|parent| Arc::ptr_eq(&parent, own));
    if is_child {
        if !Arc::ptr_eq(&target_session, &session) {
            return Err(Errno::EPERM);
        }
        if target.did_exec.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
    } else if !Arc::ptr_eq(&target, own) {
        return Err(Errno::ESRCH);
    }
    if target.is_session_leader() {
        return Err(Errno::EPERM);
    }
    let pid = target.id_in(&ns);
    let wanted = if pgid == 0 { pid } else { pgid };
    let group = if wanted == pid {
        match target.pid().process_group() {
            Some(group) => group,
            None => ProcessGroup::new(target.pid().clone(), target_session),
        }
    } else {
        let group = ns.process_group(wanted).ok_or(Errno::EPERM)?;
        if !Arc::ptr_eq(group.session(), &session) {
            return Err(Errno::EPERM);
        }
        group
    };
    let already = target
        .process_group()
        .is_some_and(|current| Arc::ptr_eq(&current, &group));
    if !already {
        target.join_process_group(&tree, group);
    }
    Ok(0)
}

pub async fn setsid(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let own = &ctx.task.group;
    let tree = ctx.kernel.tree.lock();
    if own.is_session_leader() || own.pid().process_group().is_some() {
        return Err(Errno::EPERM);
    }
    let session = Session::new(own.pid().clone());
    let group = ProcessGroup::new(own.pid().clone(), session);
    own.join_process_group(&tree, group);
    id(own.pid().number())
}
