//! POSIX message queues.

use std::sync::Arc;
use std::time::Instant;

use syscall_tables::Errno;
use syscall_tables::abi::{
    MQ_PRIO_MAX, MqAttr, OpenFlags, RLIMIT_MSGQUEUE, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD,
    SigEvent, Signal, Timespec,
};

use super::time::duration;
use crate::ctx::{Ctx, SysResult};
use crate::fs::mqueue::{QueueFile, QueueInode};
use crate::ipc::mqueue::{Notice, Queue, Size, check_name};
use crate::sync::Events;
use crate::user::{Args, UserPtr};
use crate::vfs::perm::{self, Access};
use crate::vfs::{Fd, FdFlags, File, OpenMode, StatusFlags, VfsPath};

/// Longest path a name is read from.
const NAME_LEN: usize = 4096;

pub async fn mq_open(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = OpenFlags::from_bits_retain(args.u32(1));
    let mode = args.u32(2);
    let attr = match args.ptr::<MqAttr>(3).non_null() {
        Some(ptr) if flags.contains(OpenFlags::O_CREAT) => Some(ctx.read(ptr).await?),
        _ => None,
    };
    let name = ctx
        .read_str(args.raw(0), NAME_LEN, Errno::ENAMETOOLONG)
        .await?;
    let access = match flags.bits() & 3 {
        0 => OpenMode::READ,
        1 => OpenMode::WRITE,
        2 => OpenMode::READ | OpenMode::WRITE,
        _ => return Err(Errno::EINVAL),
    };
    check_name(&name)?;
    let ns = ctx.task.namespaces().ipc.clone();
    let creds = ctx.task.creds();
    let existing = ns.queues.get(&name);
    let queue = match existing {
        Some(_) if flags.contains(OpenFlags::O_CREAT | OpenFlags::O_EXCL) => {
            return Err(Errno::EEXIST);
        }
        Some(queue) => {
            let mut wanted = Access::empty();
            wanted.set(Access::READ, access.contains(OpenMode::READ));
            wanted.set(Access::WRITE, access.contains(OpenMode::WRITE));
            perm::check(&queue.attr(), &creds, wanted)?;
            queue
        }
        None if !flags.contains(OpenFlags::O_CREAT) => return Err(Errno::ENOENT),
        None => {
            let size = attr.map_or_else(Size::default, |attr| Size {
                max_messages: attr.mq_maxmsg,
                message_size: attr.mq_msgsize,
            });
            let umask = ctx.task.fs().state.read().umask;
            let limit = ctx.task.group.limit(RLIMIT_MSGQUEUE);
            ns.queues
                .create(&name, mode & !umask, size, &creds, limit)?
        }
    };
    let mut status = StatusFlags::empty();
    status.set(StatusFlags::NONBLOCK, flags.contains(OpenFlags::O_NONBLOCK));
    let shown = format!("/{}", String::from_utf8_lossy(&name));
    let path = VfsPath::anonymous(Arc::new(QueueInode(queue.clone())), shown);
    let file = File::new(Arc::new(QueueFile(queue)), path, access, status);
    ctx.add_fd(file, FdFlags::CLOEXEC)
}

pub async fn mq_unlink(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let name = ctx
        .read_str(args.raw(0), NAME_LEN, Errno::ENAMETOOLONG)
        .await?;
    check_name(&name)?;
    let ns = ctx.task.namespaces().ipc.clone();
    let queue = ns.queues.get(&name).ok_or(Errno::ENOENT)?;
    // The directory of queues is sticky.
    perm::check_owner(&queue.attr(), &ctx.task.creds())?;
    ns.queues.unlink(&name)?;
    Ok(0)
}

/// The queue at a descriptor that allows `access`.
fn queue_at(ctx: &Ctx<'_>, fd: i32, access: OpenMode) -> Result<(Arc<File>, Arc<Queue>), Errno> {
    let file = ctx.task.files().get(Fd(fd))?;
    let queue = file.downcast::<QueueFile>().ok_or(Errno::EBADF)?.0.clone();
    if !file.mode.contains(access) {
        return Err(Errno::EBADF);
    }
    Ok((file, queue))
}

/// The absolute time-out of a call, on the real time clock.
async fn deadline(ctx: &mut Ctx<'_>, addr: u64) -> Result<Option<Instant>, Errno> {
    match UserPtr::<Timespec>::new(addr).non_null() {
        None => Ok(None),
        Some(ptr) => {
            let at = duration(ctx.read(ptr).await?)?;
            Ok(ctx.kernel.clock.realtime_instant(at))
        }
    }
}

pub async fn mq_timedsend(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [_, text, len, _, timeout, _] = args.0;
    let priority = args.u32(3);
    if args.raw(3) >= u64::from(MQ_PRIO_MAX) {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline(ctx, timeout).await?;
    let (file, queue) = queue_at(ctx, args.i32(0), OpenMode::WRITE)?;
    let longest = queue.message_size.unsigned_abs();
    if len > longest {
        return Err(Errno::EMSGSIZE);
    }
    let len = usize::try_from(len).map_err(|_| Errno::EMSGSIZE)?;
    let text = ctx.read_array(UserPtr::<u8>::new(text), len).await?;
    let sender = ctx.task.group.clone();
    let send = || queue.send(&text, priority, &sender);
    if file.is_nonblocking() {
        send()?;
        return Ok(0);
    }
    let queues = [queue.changed()];
    ctx.wait_on(&queues, Events::WRITABLE, deadline, Errno::ETIMEDOUT, send)
        .await?;
    Ok(0)
}

pub async fn mq_timedreceive(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [_, text, len, priority_addr, timeout, _] = args.0;
    let deadline = deadline(ctx, timeout).await?;
    let (file, queue) = queue_at(ctx, args.i32(0), OpenMode::READ)?;
    if len < queue.message_size.unsigned_abs() {
        return Err(Errno::EMSGSIZE);
    }
    let (message, priority) = if file.is_nonblocking() {
        queue.receive()?
    } else {
        let mut waiting = None;
        let receive = || {
            let received = queue.receive();
            if received == Err(Errno::EAGAIN) {
                waiting.get_or_insert_with(|| queue.receiving());
            }
            received
        };
        let queues = [queue.changed()];
        ctx.wait_on(
            &queues,
            Events::READABLE,
            deadline,
            Errno::ETIMEDOUT,
            receive,
        )
        .await?
    };
    ctx.write_bytes(text, &message).await?;
    if let Some(ptr) = UserPtr::<u32>::new(priority_addr).non_null() {
        ctx.write(ptr, &priority).await?;
    }
    Ok(message.len() as u64)
}

pub async fn mq_notify(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let event = match args.ptr::<SigEvent>(1).non_null() {
        None => None,
        Some(ptr) => Some(ctx.read(ptr).await?),
    };
    let notice = match event {
        None => None,
        Some(event) => Some(match event.sigev_notify {
            SIGEV_NONE => Notice::Nothing,
            SIGEV_SIGNAL => Notice::Signal {
                signal: Signal::from_raw(event.sigev_signo).ok_or(Errno::EINVAL)?,
                value: event.sigev_value,
            },
            // Told through a netlink socket of the C library.
            SIGEV_THREAD => return Err(Errno::ENOSYS),
            _ => return Err(Errno::EINVAL),
        }),
    };
    let (_, queue) = queue_at(ctx, args.i32(0), OpenMode::empty())?;
    match notice {
        Some(notice) => queue.register(&ctx.task.group, notice)?,
        None => queue.unregister(&ctx.task.group),
    }
    Ok(0)
}

pub async fn mq_getsetattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let nonblock = i64::from(OpenFlags::O_NONBLOCK.bits());
    let new = match args.ptr::<MqAttr>(1).non_null() {
        None => None,
        Some(ptr) => {
            let new = ctx.read(ptr).await?;
            if new.mq_flags & !nonblock != 0 {
                return Err(Errno::EINVAL);
            }
            Some(new)
        }
    };
    let (file, queue) = queue_at(ctx, args.i32(0), OpenMode::empty())?;
    let old = MqAttr {
        mq_flags: if file.is_nonblocking() { nonblock } else { 0 },
        mq_maxmsg: queue.max_messages,
        mq_msgsize: queue.message_size,
        mq_curmsgs: queue.count(),
        ..MqAttr::default()
    };
    if let Some(new) = new {
        let mut status = file.status();
        status.set(StatusFlags::NONBLOCK, new.mq_flags & nonblock != 0);
        file.set_status(status);
    }
    if let Some(ptr) = args.ptr::<MqAttr>(2).non_null() {
        ctx.write(ptr, &old).await?;
    }
    Ok(0)
}
