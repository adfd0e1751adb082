//! `pipe`, `pipe2`, `eventfd`, `eventfd2`.

use std::sync::Arc;

use syscall_tables::Errno;

use crate::ctx::{Ctx, SysResult};
use crate::fs::anon_inode;
use crate::fs::eventfd::{EventFile, EventMode};
use crate::fs::pipe::Pipe;
use crate::user::Args;
use crate::vfs::{Fd, FdFlags, StatusFlags};

/// `O_CLOEXEC`, `EFD_CLOEXEC`.
const CLOEXEC: u32 = 0o2000000;
/// `EFD_SEMAPHORE`.
const SEMAPHORE: u32 = 1;

pub async fn pipe(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    make_pipe(ctx, args, 0).await
}

pub async fn pipe2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    make_pipe(ctx, args, args.u32(1)).await
}

async fn make_pipe(ctx: &mut Ctx<'_>, args: Args, flags: u32) -> SysResult {
    let status = StatusFlags::from_bits_retain(flags & !CLOEXEC);
    if !(StatusFlags::NONBLOCK | StatusFlags::DIRECT).contains(status) {
        return Err(Errno::EINVAL);
    }
    let fd_flags = fd_flags(flags);
    let (reader, writer) = Pipe::pair(&ctx.task.creds(), status);
    let table = ctx.task.files();
    let read_fd = number(ctx.add_fd(reader, fd_flags)?);
    let fds = match ctx.add_fd(writer, fd_flags) {
        Ok(write_fd) => [read_fd, number(write_fd)],
        Err(err) => {
            drop(table.remove(Fd(read_fd)));
            return Err(err);
        }
    };
    if let Err(err) = ctx.write(args.ptr::<[i32; 2]>(0), &fds).await {
        for fd in fds {
            drop(table.remove(Fd(fd)));
        }
        return Err(err);
    }
    Ok(0)
}

/// A descriptor number as `Ctx::add_fd` answers it.
fn number(fd: u64) -> i32 {
    i32::try_from(fd).unwrap_or(-1)
}

fn fd_flags(flags: u32) -> FdFlags {
    if flags & CLOEXEC != 0 {
        FdFlags::CLOEXEC
    } else {
        FdFlags::empty()
    }
}

pub async fn eventfd(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    make_eventfd(ctx, args.u32(0), 0)
}

pub async fn eventfd2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    make_eventfd(ctx, args.u32(0), args.u32(1))
}

fn make_eventfd(ctx: &Ctx<'_>, initial: u32, flags: u32) -> SysResult {
    let status = StatusFlags::from_bits_retain(flags & !CLOEXEC & !SEMAPHORE);
    if !StatusFlags::NONBLOCK.contains(status) {
        return Err(Errno::EINVAL);
    }
    let mode = if flags & SEMAPHORE != 0 {
        EventMode::Semaphore
    } else {
        EventMode::Counter
    };
    let file = anon_inode::open(Arc::new(EventFile::new(initial, mode)), "[eventfd]", status);
    ctx.add_fd(file, fd_flags(flags))
}
