//! System V semaphores.

use std::time::Instant;

use syscall_tables::Errno;
use syscall_tables::abi::{
    GETALL, GETNCNT, GETPID, GETVAL, GETZCNT, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, SEM_INFO,
    SEM_STAT, SEM_STAT_ANY, SEMAEM, SEMVMX, SETALL, SETVAL, Sembuf, SemidDs, Seminfo, Timespec,
};

use super::shm::id_result;
use super::time::duration;
use crate::ctx::{Ctx, SysResult};
use crate::ipc::{Object, READ, WRITE};
use crate::sync::Events;
use crate::user::{Args, UserPtr};

pub async fn semget(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let ns = ctx.task.namespaces().ipc.clone();
    let creds = ctx.task.creds();
    id_result(ns.semget(args.i32(0), args.i32(1), args.u32(2), &creds)?)
}

pub async fn semop(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    operate(ctx, args, None).await
}

pub async fn semtimedop(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let deadline = match args.ptr::<Timespec>(3).non_null() {
        None => None,
        Some(ptr) => {
            let timeout = duration(ctx.read(ptr).await?)?;
            Instant::now().checked_add(timeout)
        }
    };
    operate(ctx, args, deadline).await
}

async fn operate(ctx: &mut Ctx<'_>, args: Args, deadline: Option<Instant>) -> SysResult {
    let count = args.u32(2);
    let ns = ctx.task.namespaces().ipc.clone();
    if u64::from(count) > ns.settings.semopm.get() {
        return Err(Errno::E2BIG);
    }
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    let operations = ctx
        .read_array(args.ptr::<Sembuf>(1), count as usize)
        .await?;
    let set = ns.sem.get(args.i32(0))?;
    let len = set.len();
    if operations
        .iter()
        .any(|operation| usize::from(operation.sem_num) >= len)
    {
        return Err(Errno::EFBIG);
    }
    let alters = operations.iter().any(|operation| operation.sem_op != 0);
    let wanted = if alters { WRITE } else { READ };
    let creds = ctx.task.creds();
    set.with_perm(|perm| perm.check(&creds, &ns.user_ns, wanted))?;
    let pid = ctx.task.group.pid().clone();
    let mut waiting: Option<crate::ipc::sem::Waiting> = None;
    let attempt = || match set.operate(&operations, &pid) {
        Ok(()) => Ok(Ok(())),
        // Not to be waited for, though the error is the same.
        Err((Errno::EAGAIN, None)) => Ok(Err(Errno::EAGAIN)),
        Err((Errno::EAGAIN, Some(blocked))) => {
            if waiting.as_ref().map(|waiting| waiting.blocked()) != Some(blocked) {
                waiting = None;
                waiting = Some(set.waiting(blocked));
            }
            Err(Errno::EAGAIN)
        }
        Err((error, _)) => Err(error),
    };
    let queues = [set.changed()];
    let done = ctx
        .wait_on(&queues, Events::OUT, deadline, Errno::ETIMEDOUT, attempt)
        .await;
    match done {
        Ok(done) => done.map(|()| 0),
        Err(Errno::ETIMEDOUT) => Err(Errno::EAGAIN),
        Err(error) if error.is_restart() => Err(Errno::EINTR),
        Err(error) => Err(error),
    }
}

pub async fn semctl(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let ns = ctx.task.namespaces().ipc.clone();
    let creds = ctx.task.creds();
    let pids = ctx.task.pid_ns();
    let pid = ctx.task.group.pid().clone();
    let (id, index, command) = (args.i32(0), args.i32(1), args.u32(2));
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let user_ns = &ns.user_ns;
    match command {
        IPC_INFO | SEM_INFO => {
            let number = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
            let settings = &ns.settings;
            let mut info = Seminfo {
                semmap: number(settings.semmns.get()),
                semmni: number(settings.semmni.get()),
                semmns: number(settings.semmns.get()),
                semmnu: number(settings.semmns.get()),
                semmsl: number(settings.semmsl.get()),
                semopm: number(settings.semopm.get()),
                semume: number(settings.semopm.get()),
                semusz: 20,
                semvmx: number(SEMVMX),
                semaem: number(SEMAEM),
            };
            if command == SEM_INFO {
                let sets = ns.sem.list();
                let total: usize = sets.iter().map(|(_, set)| set.len()).sum();
                info.semusz = number(sets.len() as u64);
                info.semaem = number(total as u64);
            }
            ctx.write(args.ptr(3), &info).await?;
            Ok(ns.sem.max_index())
        }
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => {
            let (result, set) = if command == IPC_STAT {
                (0, ns.sem.get(id)?)
            } else {
                ns.sem.at_index(id)?
            };
            if command != SEM_STAT_ANY {
                set.with_perm(|perm| perm.check(&creds, user_ns, READ))?;
            }
            ctx.write(args.ptr(3), &set.stat(&creds)).await?;
            id_result(result)
        }
        GETVAL | GETPID | GETNCNT | GETZCNT => {
            let set = ns.sem.get(id)?;
            set.with_perm(|perm| perm.check(&creds, user_ns, READ))?;
            let value = match command {
                GETVAL => set.value(index)?.unsigned_abs(),
                GETPID => set.last_pid(index, &pids)?.unsigned_abs(),
                GETNCNT => set.waiting_more(index)?,
                _ => set.waiting_zero(index)?,
            };
            Ok(u64::from(value))
        }
        GETALL => {
            let set = ns.sem.get(id)?;
            set.with_perm(|perm| perm.check(&creds, user_ns, READ))?;
            ctx.write_array(args.ptr::<u16>(3), &set.values()).await?;
            Ok(0)
        }
        SETALL => {
            let set = ns.sem.get(id)?;
            set.with_perm(|perm| perm.check(&creds, user_ns, WRITE))?;
            let values = ctx.read_array(args.ptr::<u16>(3), set.len()).await?;
            set.set_values(&values, &pid)?;
            Ok(0)
        }
        SETVAL => {
            let set = ns.sem.get(id)?;
            let value = args.i32(3);
            if value < 0 || i64::from(value) > SEMVMX.cast_signed() {
                return Err(Errno::ERANGE);
            }
            set.with_perm(|perm| perm.check(&creds, user_ns, WRITE))?;
            set.set_value(index, value, &pid)?;
            Ok(0)
        }
        IPC_SET => {
            let new = ctx.read(UserPtr::<SemidDs>::new(args.raw(3))).await?;
            let set = ns.sem.get(id)?;
            set.with_perm(|perm| perm.check_owner(&creds, user_ns))?;
            set.set(&new, &creds)?;
            Ok(0)
        }
        IPC_RMID => {
            let set = ns.sem.get(id)?;
            set.with_perm(|perm| perm.check_owner(&creds, user_ns))?;
            ns.sem.remove(id);
            set.remove();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
