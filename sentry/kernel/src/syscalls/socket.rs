//! `socket`, `socketpair`, `bind`, `listen`, `accept`, `connect`, names,
//! `shutdown`, and the options.

use std::sync::Arc;
use std::time::Instant;

use syscall_tables::Errno;
use syscall_tables::abi::{
    AF_UNIX, SO_PEERNAME, SOCK_TYPE_MASK, SOCKADDR_STORAGE_LEN, SOL_SOCKET, SockFlags,
};

use super::read_write::wait_io;
use crate::ctx::{Ctx, SysResult};
use crate::net::unix::{UnixKind, UnixSocket};
use crate::net::{Shutdown, Socket, SocketFile};
use crate::sync::Events;
use crate::user::{Args, UserPtr};
use crate::vfs::{Fd, FdFlags, File, OpenMode, StatusFlags};

/// Largest option value taken from a guest.
const OPTION_MAX: usize = 4096;
/// One more than the highest address family.
const FAMILY_MAX: i32 = 46;
/// One more than the highest socket type.
const TYPE_MAX: u32 = 11;

/// The socket at `fd` with its file.
pub(super) fn socket_file(ctx: &Ctx<'_>, fd: i32) -> Result<Arc<File>, Errno> {
    let file = ctx.task.files().get(Fd(fd))?;
    match file.ops.as_socket() {
        Some(_) => Ok(file),
        None => Err(Errno::ENOTSOCK),
    }
}

/// What [`socket_file`] has checked.
pub(super) fn as_socket(file: &File) -> Result<&dyn Socket, Errno> {
    file.ops.as_socket().ok_or(Errno::ENOTSOCK)
}

/// Splits the type argument of `socket(2)`.
fn split_type(raw: u32) -> Result<(u32, FdFlags, StatusFlags), Errno> {
    let flags = SockFlags::from_bits_retain(raw & !SOCK_TYPE_MASK);
    let (fd_flags, status) = socket_flags(flags)?;
    Ok((raw & SOCK_TYPE_MASK, fd_flags, status))
}

fn socket_flags(flags: SockFlags) -> Result<(FdFlags, StatusFlags), Errno> {
    let known = SockFlags::SOCK_CLOEXEC | SockFlags::SOCK_NONBLOCK;
    if !known.contains(flags) {
        return Err(Errno::EINVAL);
    }
    let mut fd_flags = FdFlags::empty();
    fd_flags.set(FdFlags::CLOEXEC, flags.contains(SockFlags::SOCK_CLOEXEC));
    let mut status = StatusFlags::empty();
    status.set(
        StatusFlags::NONBLOCK,
        flags.contains(SockFlags::SOCK_NONBLOCK),
    );
    Ok((fd_flags, status))
}

pub async fn socket(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (kind, fd_flags, status) = split_type(args.u32(1))?;
    let socket = crate::net::create(ctx, family(args.i32(0), kind)?, kind, args.i32(2))?;
    ctx.add_fd(SocketFile::open(socket, status), fd_flags)
}

/// Checks in the order of Linux what is out of all range.
fn family(raw: i32, kind: u32) -> Result<u16, Errno> {
    if !(0..FAMILY_MAX).contains(&raw) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if kind >= TYPE_MAX {
        return Err(Errno::EINVAL);
    }
    u16::try_from(raw).map_err(|_| Errno::EAFNOSUPPORT)
}

pub async fn socketpair(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (kind, fd_flags, status) = split_type(args.u32(1))?;
    let domain = family(args.i32(0), kind)?;
    if domain != AF_UNIX {
        // Whether the family exists is found out first.
        drop(crate::net::create(ctx, domain, kind, args.i32(2))?);
        return Err(Errno::EOPNOTSUPP);
    }
    let protocol = args.i32(2);
    if protocol != 0 && protocol != i32::from(AF_UNIX) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let kind = UnixKind::from_raw(kind)?;
    let (a, b) = UnixSocket::pair(ctx.kernel, ctx.task, kind);
    let (a, b) = (SocketFile::open(a, status), SocketFile::open(b, status));
    let table = ctx.task.files();
    let first = number(ctx.add_fd(a, fd_flags)?);
    let fds = match ctx.add_fd(b, fd_flags) {
        Ok(second) => [first, number(second)],
        Err(errno) => {
            drop(table.remove(Fd(first)));
            return Err(errno);
        }
    };
    if let Err(errno) = ctx.write(args.ptr::<[i32; 2]>(3), &fds).await {
        for fd in fds {
            drop(table.remove(Fd(fd)));
        }
        return Err(errno);
    }
    Ok(0)
}

fn number(fd: u64) -> i32 {
    i32::try_from(fd).unwrap_or(-1)
}

/// Reads a socket address.
pub(super) async fn read_addr(ctx: &mut Ctx<'_>, addr: u64, len: i32) -> Result<Vec<u8>, Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > SOCKADDR_STORAGE_LEN {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; len];
    ctx.read_bytes(addr, &mut bytes).await?;
    Ok(bytes)
}

/// Stores an address into a buffer whose length is at `len_ptr`, which gets
/// the whole length.
pub(super) async fn write_addr(
    ctx: &mut Ctx<'_>,
    addr: &[u8],
    buf: u64,
    len_ptr: UserPtr<i32>,
) -> Result<(), Errno> {
    let room = usize::try_from(ctx.read(len_ptr).await?).map_err(|_| Errno::EINVAL)?;
    let fits = addr.get(..room).unwrap_or(addr);
    ctx.write_bytes(buf, fits).await?;
    let len = i32::try_from(addr.len()).unwrap_or(i32::MAX);
    ctx.write(len_ptr, &len).await
}

pub async fn bind(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    let addr = read_addr(ctx, args.raw(1), args.i32(2)).await?;
    as_socket(&file)?.bind(ctx, &addr)?;
    Ok(0)
}

pub async fn listen(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    as_socket(&file)?.listen(ctx, args.i32(1))?;
    Ok(0)
}

pub async fn connect(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let addr = read_addr(ctx, args.raw(1), args.i32(2)).await?;
    let socket = as_socket(&file)?;
    let nonblocking = file.is_nonblocking();
    let attempt = || socket.connect(ctx, &addr, nonblocking);
    let first = attempt();
    if nonblocking || first != Err(Errno::EAGAIN) {
        return first.map(|()| 0);
    }
    let timeout = file.ops.io_timeout(OpenMode::WRITE);
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // Unix sockets say EAGAIN when time is up, the others EINPROGRESS.
    let late = if socket.base().domain == AF_UNIX {
        Errno::EAGAIN
    } else {
        Errno::EINPROGRESS
    };
    let queue = &socket.base().queue;
    ctx.wait_on(&[queue], Events::WRITABLE, deadline, late, attempt)
        .await?;
    Ok(0)
}

pub async fn accept(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    do_accept(ctx, args, 0).await
}

pub async fn accept4(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    do_accept(ctx, args, args.u32(3)).await
}

async fn do_accept(ctx: &mut Ctx<'_>, args: Args, flags: u32) -> SysResult {
    let (fd_flags, status) = socket_flags(SockFlags::from_bits_retain(flags))?;
    let file = socket_file(ctx, args.i32(0))?;
    let socket = as_socket(&file)?;
    let limit = ctx.task.group.limit(syscall_tables::abi::RLIMIT_NOFILE);
    ctx.task.files().check_room(limit)?;
    let attempt = || socket.accept();
    let accepted = wait_io(ctx, &file, OpenMode::READ, file.is_nonblocking(), attempt);
    let (accepted, addr) = accepted.await?;
    // Opened first, so that it is released if anything fails.
    let accepted = SocketFile::open(accepted, status);
    if args.raw(1) != 0 {
        write_addr(ctx, &addr, args.raw(1), args.ptr(2)).await?;
    }
    ctx.add_fd(accepted, fd_flags)
}

pub async fn getsockname(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    let addr = as_socket(&file)?.local_addr()?;
    write_addr(ctx, &addr, args.raw(1), args.ptr(2)).await?;
    Ok(0)
}

pub async fn getpeername(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    let addr = as_socket(&file)?.peer_addr()?;
    write_addr(ctx, &addr, args.raw(1), args.ptr(2)).await?;
    Ok(0)
}

pub async fn shutdown(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    let how = Shutdown::from_raw(args.i32(1))?;
    as_socket(&file)?.shutdown(how)?;
    Ok(0)
}

pub async fn setsockopt(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    let len = usize::try_from(args.i32(4)).map_err(|_| Errno::EINVAL)?;
    let mut value = vec![0; len.min(OPTION_MAX)];
    ctx.read_bytes(args.raw(3), &mut value).await?;
    as_socket(&file)?.set_option(ctx, args.u32(1), args.u32(2), &value)?;
    Ok(0)
}

pub async fn getsockopt(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    let (level, name) = (args.u32(1), args.u32(2));
    let len_ptr: UserPtr<i32> = args.ptr(4);
    let room = usize::try_from(ctx.read(len_ptr).await?).map_err(|_| Errno::EINVAL)?;
    let socket = as_socket(&file)?;
    let value = if (level, name) == (SOL_SOCKET, SO_PEERNAME) {
        let addr = socket.peer_addr()?;
        if addr.len() < room {
            return Err(Errno::EINVAL);
        }
        addr
    } else {
        socket.get_option(ctx, level, name, room)?
    };
    let fits = value.get(..room).unwrap_or(&value);
    ctx.write_bytes(args.raw(3), fits).await?;
    let len = i32::try_from(fits.len()).unwrap_or(i32::MAX);
    ctx.write(len_ptr, &len).await?;
    Ok(0)
}
