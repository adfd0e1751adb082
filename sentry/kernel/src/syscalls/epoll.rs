//! `epoll_create1`, `epoll_ctl`, `epoll_wait` and their variants.

use std::sync::Arc;
use std::time::{Duration, Instant};

use syscall_tables::Errno;
use syscall_tables::abi::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EpollEvent, PollEvents};
use zerocopy::IntoBytes as _;

use super::poll::{deadline_in, read_timespec, set_mask};
use crate::ctx::{Ctx, SysResult};
use crate::fs::anon_inode;
use crate::fs::epoll::Epoll;
use crate::sync::Events;
use crate::user::Args;
use crate::vfs::{Fd, FdFlags, StatusFlags};

/// What `EPOLLEXCLUSIVE` goes with.
const EXCLUSIVE_WITH: PollEvents = PollEvents::EPOLLEXCLUSIVE
    .union(PollEvents::POLLIN)
    .union(PollEvents::POLLOUT)
    .union(PollEvents::POLLERR)
    .union(PollEvents::POLLHUP)
    .union(PollEvents::EPOLLWAKEUP)
    .union(PollEvents::EPOLLET);

/// `EPOLL_CLOEXEC`.
const CLOEXEC: u32 = 0o2000000;
/// Most events one wait may ask for (`EP_MAX_EVENTS`).
const MAX_EVENTS: usize = i32::MAX as usize / size_of::<EpollEvent>();
/// Most events delivered at once; a caller with more ready ones asks again.
const BATCH: usize = 1 << 16;

pub async fn epoll_create(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.i32(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    create(ctx, FdFlags::empty())
}

pub async fn epoll_create1(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    match args.u32(0) {
        0 => create(ctx, FdFlags::empty()),
        CLOEXEC => create(ctx, FdFlags::CLOEXEC),
        _ => Err(Errno::EINVAL),
    }
}

fn create(ctx: &Ctx<'_>, flags: FdFlags) -> SysResult {
    let file = anon_inode::open(Arc::new(Epoll::new()), "[eventpoll]", StatusFlags::empty());
    ctx.add_fd(file, flags)
}

pub async fn epoll_ctl(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let operation = args.u32(1);
    let event = if operation == EPOLL_CTL_DEL {
        EpollEvent::default()
    } else {
        ctx.read(args.ptr(3)).await?
    };
    let table = ctx.task.files();
    let instance = table.get(Fd(args.i32(0)))?;
    let fd = Fd(args.i32(2));
    let target = table.get(fd)?;
    if target.ops.wait_queue().is_none() {
        return Err(Errno::EPERM);
    }
    let epoll = instance.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    if Arc::ptr_eq(&instance, &target) {
        return Err(Errno::EINVAL);
    }
    let events = PollEvents::from_bits_retain(event.events);
    if events.contains(PollEvents::EPOLLEXCLUSIVE) {
        let nested = target.downcast::<Epoll>().is_some();
        let fits = !nested && EXCLUSIVE_WITH.contains(events);
        if operation == EPOLL_CTL_MOD || operation == EPOLL_CTL_ADD && !fits {
            return Err(Errno::EINVAL);
        }
    }
    match operation {
        EPOLL_CTL_ADD => epoll.add(fd, &target, event)?,
        EPOLL_CTL_MOD => epoll.modify(fd, &target, event)?,
        EPOLL_CTL_DEL => epoll.delete(fd, &target)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

pub async fn epoll_wait(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let deadline = deadline_ms(args.i32(3));
    wait(ctx, args, deadline).await
}

pub async fn epoll_pwait(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    set_mask(ctx, args.raw(4), args.raw(5)).await?;
    let deadline = deadline_ms(args.i32(3));
    wait(ctx, args, deadline).await
}

pub async fn epoll_pwait2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let timeout = read_timespec(ctx, args.raw(3)).await?;
    set_mask(ctx, args.raw(4), args.raw(5)).await?;
    wait(ctx, args, timeout.and_then(deadline_in)).await
}

fn deadline_ms(millis: i32) -> Option<Instant> {
    let millis = u64::try_from(millis).ok()?;
    deadline_in(Duration::from_millis(millis))
}

async fn wait(ctx: &mut Ctx<'_>, args: Args, deadline: Option<Instant>) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let max = usize::try_from(args.i32(2)).map_err(|_| Errno::EINVAL)?;
    if max == 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL);
    }
    let epoll = file.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    let attempt = || {
        let events = epoll.take(max.min(BATCH));
        if events.is_empty() {
            Err(Errno::EAGAIN)
        } else {
            Ok(events)
        }
    };
    let waited = if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        attempt().map_err(|_| Errno::ETIMEDOUT)
    } else {
        ctx.wait_on(
            &[epoll.queue()],
            Events::READABLE,
            deadline,
            Errno::ETIMEDOUT,
            attempt,
        )
        .await
    };
    let events = match waited {
        Ok(events) => events,
        Err(Errno::ETIMEDOUT) => return Ok(0),
        // epoll_wait(2) is never restarted after a handler.
        Err(Errno::ERESTARTSYS) => return Err(Errno::EINTR),
        Err(err) => return Err(err),
    };
    ctx.write_bytes(args.raw(1), events.as_slice().as_bytes())
        .await?;
    Ok(events.len() as u64)
}
