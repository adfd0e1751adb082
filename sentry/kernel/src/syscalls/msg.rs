//! System V message queues.

use syscall_tables::Errno;
use syscall_tables::abi::{
    IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, MSG_COPY, MSG_EXCEPT, MSG_INFO, MSG_NOERROR,
    MSG_STAT, MSG_STAT_ANY, Msginfo, MsqidDs,
};

use super::shm::id_result;
use crate::ctx::{Ctx, SysResult};
use crate::ipc::msg::{Choice, Message, TooLong};
use crate::ipc::{Object, READ, WRITE};
use crate::sync::Events;
use crate::user::{Args, UserPtr};

/// Size of the type before the text.
const KIND_LEN: u64 = 8;

pub async fn msgget(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let ns = ctx.task.namespaces().ipc.clone();
    let creds = ctx.task.creds();
    id_result(ns.msgget(args.i32(0), args.u32(1), &creds)?)
}

pub async fn msgsnd(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [_, addr, len, _, _, _] = args.0;
    let flags = args.u32(3);
    let kind = ctx.read(UserPtr::<i64>::new(addr)).await?;
    let ns = ctx.task.namespaces().ipc.clone();
    if len > ns.settings.msgmax.get() || args.i32(0) < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let text_addr = addr.checked_add(KIND_LEN).ok_or(Errno::EFAULT)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    let text = ctx.read_array(UserPtr::<u8>::new(text_addr), len).await?;
    let message = Message { kind, text };
    let queue = ns.msg.get(args.i32(0))?;
    let creds = ctx.task.creds();
    queue.with_perm(|perm| perm.check(&creds, &ns.user_ns, WRITE))?;
    let pid = ctx.task.group.pid().clone();
    let send = || queue.send(&message, &pid);
    if flags & IPC_NOWAIT != 0 {
        send()?;
        return Ok(0);
    }
    ctx.wait_on(&[queue.changed()], Events::OUT, None, Errno::EAGAIN, send)
        .await
        .map_err(no_restart)?;
    Ok(0)
}

/// Interrupted by a handler these calls fail, whatever its flags say.
fn no_restart(error: Errno) -> Errno {
    if error == Errno::ERESTARTSYS {
        Errno::ERESTARTNOHAND
    } else {
        error
    }
}

pub async fn msgrcv(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [_, addr, len, _, _, _] = args.0;
    let kind = args.i64(3);
    let flags = args.u32(4);
    if args.i32(0) < 0 || i64::try_from(len).is_err() {
        return Err(Errno::EINVAL);
    }
    let nowait = flags & IPC_NOWAIT != 0;
    let choice = if flags & MSG_COPY != 0 {
        if flags & MSG_EXCEPT != 0 || !nowait {
            return Err(Errno::EINVAL);
        }
        Choice::Copy(u64::try_from(kind).map_err(|_| Errno::ENOMSG)?)
    } else if kind == 0 {
        Choice::First
    } else if kind < 0 {
        Choice::UpTo(kind.checked_neg().unwrap_or(i64::MAX))
    } else if flags & MSG_EXCEPT != 0 {
        Choice::Except(kind)
    } else {
        Choice::Kind(kind)
    };
    let too_long = if flags & MSG_NOERROR != 0 {
        TooLong::Cut
    } else {
        TooLong::Refuse
    };
    let room = usize::try_from(len).unwrap_or(usize::MAX);
    let ns = ctx.task.namespaces().ipc.clone();
    let queue = ns.msg.get(args.i32(0))?;
    let creds = ctx.task.creds();
    queue.with_perm(|perm| perm.check(&creds, &ns.user_ns, READ))?;
    let pid = ctx.task.group.pid().clone();
    let receive = || queue.receive(choice, room, too_long, &pid);
    let message = if nowait {
        receive().map_err(|error| match error {
            Errno::EAGAIN => Errno::ENOMSG,
            other => other,
        })?
    } else {
        ctx.wait_on(&[queue.changed()], Events::IN, None, Errno::EAGAIN, receive)
            .await
            .map_err(no_restart)?
    };
    ctx.write(UserPtr::<i64>::new(addr), &message.kind).await?;
    let text = message.text.get(..message.text.len().min(room));
    let text = text.unwrap_or_default();
    let text_addr = addr.checked_add(KIND_LEN).ok_or(Errno::EFAULT)?;
    ctx.write_bytes(text_addr, text).await?;
    Ok(text.len() as u64)
}

pub async fn msgctl(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let ns = ctx.task.namespaces().ipc.clone();
    let creds = ctx.task.creds();
    let pids = ctx.task.pid_ns();
    let (id, command) = (args.i32(0), args.u32(1));
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        IPC_INFO | MSG_INFO => {
            let number = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
            let settings = &ns.settings;
            let mut info = Msginfo {
                msgmax: number(settings.msgmax.get()),
                msgmnb: number(settings.msgmnb.get()),
                msgmni: number(settings.msgmni.get()),
                msgssz: 16,
                msgpool: number(settings.msgmni.get().saturating_mul(settings.msgmnb.get()) / 1024),
                msgmap: number(settings.msgmnb.get()),
                msgtql: number(settings.msgmnb.get()),
                msgseg: 0xffff,
                ..Msginfo::default()
            };
            if command == MSG_INFO {
                let queues = ns.msg.list();
                let (mut messages, mut bytes) = (0, 0);
                for (_, queue) in &queues {
                    let content = queue.content();
                    messages += content.0;
                    bytes += content.1;
                }
                info.msgpool = number(queues.len() as u64);
                info.msgmap = number(messages);
                info.msgtql = number(bytes);
            }
            ctx.write(args.ptr(2), &info).await?;
            Ok(ns.msg.max_index())
        }
        IPC_STAT | MSG_STAT | MSG_STAT_ANY => {
            let (result, queue) = if command == IPC_STAT {
                (0, ns.msg.get(id)?)
            } else {
                ns.msg.at_index(id)?
            };
            if command != MSG_STAT_ANY {
                queue.with_perm(|perm| perm.check(&creds, &ns.user_ns, READ))?;
            }
            ctx.write(args.ptr(2), &queue.stat(&creds, &pids)).await?;
            id_result(result)
        }
        IPC_SET => {
            let new = ctx.read(args.ptr::<MsqidDs>(2)).await?;
            let queue = ns.msg.get(id)?;
            queue.with_perm(|perm| perm.check_owner(&creds, &ns.user_ns))?;
            let most = ns.settings.msgmnb.get();
            queue.set(&new, &creds, &ns.user_ns, most)?;
            Ok(0)
        }
        IPC_RMID => {
            let queue = ns.msg.get(id)?;
            queue.with_perm(|perm| perm.check_owner(&creds, &ns.user_ns))?;
            ns.msg.remove(id);
            queue.remove();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
