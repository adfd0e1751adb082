//! `sendto`, `sendmsg`, `sendmmsg`, `recvfrom`, `recvmsg`, `recvmmsg`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use syscall_tables::Errno;
use syscall_tables::abi::{
    AF_UNIX, IOV_MAX, MmsgHdr, MsgFlags, MsgHdr, SOCKADDR_STORAGE_LEN, Signal,
};

use super::control_message::{Control, ControlBuffer};
use super::poll::read_timespec;
use super::read_write::{GuestVectors, send_to_self, wait_io};
use super::socket::{as_socket, read_addr, socket_file, write_addr};
use crate::ctx::{Ctx, SysResult};
use crate::net::{Received, SendRequest};
use crate::user::{Args, UserPtr};
use crate::vfs::buffers::CHUNK_MAX;
use crate::vfs::{File, OpenMode};

/// Most messages of one `sendmmsg` or `recvmmsg`.
const MESSAGES_MAX: u32 = 1024;
/// Longest record buffer made for one call.
const RECORD_MAX: usize = 16 << 20;

fn msg_flags(raw: u32) -> MsgFlags {
    MsgFlags::from_bits_retain(raw)
}

/// A message to send, but for its bytes.
struct Outgoing {
    to: Option<Vec<u8>>,
    control: Control,
    flags: MsgFlags,
}

pub async fn sendto(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mut memory = GuestVectors::one(args.raw(1), args.raw(2))?;
    let file = socket_file(ctx, args.i32(0))?;
    let to = match args.raw(4) {
        0 => None,
        addr => Some(read_addr(ctx, addr, args.i32(5)).await?),
    };
    let message = Outgoing {
        to,
        control: Control::default(),
        flags: msg_flags(args.u32(3)),
    };
    send(ctx, &file, &mut memory, message).await
}

pub async fn sendmsg(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    let header = ctx.read(args.ptr::<MsgHdr>(1)).await?;
    send_header(ctx, &file, &header, msg_flags(args.u32(2))).await
}

/// The name buffer of a message: address and length, none if there is none.
fn name_of(header: &MsgHdr) -> Result<(u64, usize), Errno> {
    if header.msg_name == 0 {
        return Ok((0, 0));
    }
    let len = usize::try_from(header.msg_namelen).map_err(|_| Errno::EINVAL)?;
    Ok((header.msg_name, len.min(SOCKADDR_STORAGE_LEN)))
}

async fn vectors_of(ctx: &mut Ctx<'_>, header: &MsgHdr) -> Result<GuestVectors, Errno> {
    if header.msg_iovlen > IOV_MAX as u64 {
        return Err(Errno::EMSGSIZE);
    }
    GuestVectors::import(ctx, header.msg_iov, header.msg_iovlen).await
}

async fn send_header(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    header: &MsgHdr,
    flags: MsgFlags,
) -> SysResult {
    let domain = as_socket(file)?.base().domain;
    let (name, name_len) = name_of(header)?;
    let mut to = None;
    if name_len > 0 {
        let mut bytes = vec![0; name_len];
        ctx.read_bytes(name, &mut bytes).await?;
        to = Some(bytes);
    }
    let mut memory = vectors_of(ctx, header).await?;
    let control = Control::import(ctx, header.msg_control, header.msg_controllen, domain).await?;
    let message = Outgoing { to, control, flags };
    send(ctx, file, &mut memory, message).await
}

/// Sends what is in `memory`: a record whole, a stream as far as it goes.
async fn send(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    memory: &mut GuestVectors,
    mut message: Outgoing,
) -> SysResult {
    let kernel = ctx.kernel;
    let socket = as_socket(file)?;
    let flags = message.flags;
    let nonblocking = file.is_nonblocking() || flags.contains(MsgFlags::MSG_DONTWAIT);
    let total = memory.left();
    let stream = socket.is_stream();
    if !stream && total > socket.max_message().min(RECORD_MAX) {
        return Err(Errno::EMSGSIZE);
    }
    let mut record = Vec::new();
    let mut pooled = None;
    if !stream && total > CHUNK_MAX {
        record = vec![0; total];
    } else {
        pooled = Some(kernel.vfs.buffers.take(total));
    }
    let buffer: &mut [u8] = match &mut pooled {
        Some(buffer) => buffer,
        None => &mut record,
    };
    let mut done: usize = 0;
    loop {
        let wanted = buffer.len().min(memory.left());
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        let got = memory.copy_in(ctx, chunk).await;
        if got < wanted && (!stream || got == 0) {
            return if done == 0 {
                Err(Errno::EFAULT)
            } else {
                Ok(done as u64)
            };
        }
        let mut bytes = chunk.get(..got).unwrap_or_default();
        loop {
            let sender = ctx.task;
            let (to, control) = (message.to.as_deref(), &mut message.control);
            let attempt = || {
                socket.send(SendRequest {
                    sender: Some(sender),
                    data: bytes,
                    to,
                    flags,
                    files: &mut control.files,
                    credentials: control.credentials.clone(),
                    control: &control.packet,
                })
            };
            match wait_io(ctx, file, OpenMode::WRITE, nonblocking, attempt).await {
                Ok(count) => {
                    done += count;
                    bytes = bytes.get(count..).unwrap_or_default();
                    if bytes.is_empty() || count == 0 {
                        break;
                    }
                }
                Err(errno) => {
                    if errno == Errno::EPIPE && stream && !flags.contains(MsgFlags::MSG_NOSIGNAL) {
                        send_to_self(ctx, Signal::SIGPIPE);
                    }
                    return if done == 0 {
                        Err(errno)
                    } else {
                        Ok(done as u64)
                    };
                }
            }
        }
        if got < wanted || !bytes.is_empty() || memory.left() == 0 {
            return Ok(done as u64);
        }
    }
}

pub async fn sendmmsg(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    let list: UserPtr<MmsgHdr> = args.ptr(1);
    let count = args.u32(2).min(MESSAGES_MAX);
    let flags = msg_flags(args.u32(3));
    let mut done = 0;
    while done < count {
        let sent = send_one(ctx, &file, list.element(done as usize)?, flags).await;
        match sent {
            Ok(()) => done += 1,
            Err(_) if done != 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(u64::from(done))
}

async fn send_one(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    at: UserPtr<MmsgHdr>,
    flags: MsgFlags,
) -> Result<(), Errno> {
    let header = ctx.read(UserPtr::<MsgHdr>::new(at.addr)).await?;
    let sent = send_header(ctx, file, &header, flags).await?;
    write_len(ctx, at, sent).await
}

/// Stores `msg_len`.
async fn write_len(ctx: &mut Ctx<'_>, at: UserPtr<MmsgHdr>, len: u64) -> Result<(), Errno> {
    let field = at.addr.checked_add(size_of::<MsgHdr>() as u64);
    let field = UserPtr::<u32>::new(field.ok_or(Errno::EFAULT)?);
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    ctx.write(field, &len).await
}

pub async fn recvfrom(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mut memory = GuestVectors::one(args.raw(1), args.raw(2))?;
    let file = socket_file(ctx, args.i32(0))?;
    let (len, received) = receive(ctx, &file, &mut memory, msg_flags(args.u32(3))).await?;
    // Descriptors that came along are closed.
    let Received { from, files, .. } = received;
    ctx.kernel.net.close_files(files);
    if args.raw(4) != 0 {
        let from = from.unwrap_or_default();
        write_addr(ctx, &from, args.raw(4), args.ptr(5)).await?;
    }
    Ok(len)
}

/// Receives into `memory`: the result of the call, and what came with the
/// bytes.
async fn receive(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    memory: &mut GuestVectors,
    flags: MsgFlags,
) -> Result<(u64, Received), Errno> {
    let kernel = ctx.kernel;
    let socket = as_socket(file)?;
    // The error queue is never waited for.
    let nonblocking =
        file.is_nonblocking() || flags.intersects(MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_ERRQUEUE);
    if flags.contains(MsgFlags::MSG_ERRQUEUE) && !socket.has_error_queue() {
        // Nothing is ever queued there.
        return Err(Errno::EAGAIN);
    }
    let stream = socket.is_stream();
    let total = memory.left();
    let mut record = Vec::new();
    let mut pooled = None;
    if !stream && total > CHUNK_MAX {
        record = vec![0; total.min(RECORD_MAX)];
    } else {
        pooled = Some(kernel.vfs.buffers.take(total));
    }
    let buffer: &mut [u8] = match &mut pooled {
        Some(buffer) => buffer,
        None => &mut record,
    };
    let mut asked = flags;
    asked.set(MsgFlags::MSG_DONTWAIT, nonblocking);
    let discard = stream && flags.contains(MsgFlags::MSG_TRUNC);
    let patient =
        stream && flags.contains(MsgFlags::MSG_WAITALL) && !flags.contains(MsgFlags::MSG_PEEK);
    let mut all = Received::default();
    let mut done = 0;
    loop {
        let wanted = buffer.len().min(total - done);
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        let attempt = || socket.recv(chunk, asked);
        let late = nonblocking || (done != 0 && !patient);
        let part = match wait_io(ctx, file, OpenMode::READ, late, attempt).await {
            Ok(part) => part,
            Err(_) if done != 0 => break,
            Err(errno) => return Err(errno),
        };
        let got = part.len.min(wanted);
        let bytes = buffer.get(..got).unwrap_or_default();
        let stored = memory.copy_out(ctx, bytes).await;
        if stored < got {
            if stream && !flags.contains(MsgFlags::MSG_PEEK) {
                socket.unread(bytes.get(stored..).unwrap_or_default());
            }
            if stored == 0 && done == 0 {
                ctx.kernel.net.close_files(part.files);
                return Err(Errno::EFAULT);
            }
        }
        let ends = part.full_len == 0 || stored < got || !part.files.is_empty();
        let taken = if discard { part.full_len } else { stored };
        let full_len = part.full_len;
        if done == 0 {
            all = part;
        } else {
            all.files.extend(part.files);
        }
        done += taken;
        all.len = done;
        if !stream {
            all.full_len = full_len;
            break;
        }
        all.full_len = done;
        // Beyond what was there at once only MSG_WAITALL goes; a full chunk
        // may have more behind it.
        let more = patient || (got == wanted && got == CHUNK_MAX);
        if ends || done >= total || !more || flags.contains(MsgFlags::MSG_PEEK) {
            break;
        }
    }
    let result = if flags.contains(MsgFlags::MSG_TRUNC) {
        all.full_len
    } else {
        done
    };
    Ok((result as u64, all))
}

pub async fn recvmsg(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = socket_file(ctx, args.i32(0))?;
    let at = args.ptr::<MsgHdr>(1);
    receive_header(ctx, &file, at, msg_flags(args.u32(2))).await
}

async fn receive_header(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    at: UserPtr<MsgHdr>,
    flags: MsgFlags,
) -> SysResult {
    let header = ctx.read(at).await?;
    let (name, name_room) = name_of(&header)?;
    let mut memory = vectors_of(ctx, &header).await?;
    let (len, mut received) = receive(ctx, file, &mut memory, flags).await?;
    let base = as_socket(file)?.base();
    let passes = base.domain == AF_UNIX && base.passes_credentials();
    let room = if header.msg_control == 0 {
        0
    } else {
        usize::try_from(header.msg_controllen).unwrap_or(usize::MAX)
    };
    let mut control = ControlBuffer::new(room);
    control.fill(ctx, &mut received, passes, flags);
    let mut out = header;
    if name != 0 {
        let from = received.from.take().unwrap_or_default();
        let fits = from.get(..name_room).unwrap_or(&from);
        ctx.write_bytes(name, fits).await?;
        out.msg_namelen = i32::try_from(from.len()).unwrap_or(i32::MAX);
        let field = UserPtr::<i32>::new(at.addr.wrapping_add(8));
        ctx.write(field, &out.msg_namelen).await?;
    }
    ctx.write_bytes(header.msg_control, control.bytes()).await?;
    let kept = flags & MsgFlags::MSG_CMSG_CLOEXEC;
    let told = received.flags | control.flags | kept;
    let field = |offset: u64| at.addr.wrapping_add(offset);
    ctx.write(UserPtr::<u32>::new(field(48)), &told.bits())
        .await?;
    let used = control.bytes().len() as u64;
    ctx.write(UserPtr::<u64>::new(field(40)), &used).await?;
    Ok(len)
}

pub async fn recvmmsg(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let timeout = read_timespec(ctx, args.raw(4)).await?;
    let file = socket_file(ctx, args.i32(0))?;
    let list: UserPtr<MmsgHdr> = args.ptr(1);
    let count = args.u32(2).min(MESSAGES_MAX);
    let mut flags = msg_flags(args.u32(3));
    let one = flags.contains(MsgFlags::MSG_WAITFORONE);
    flags -= MsgFlags::MSG_WAITFORONE;
    as_socket(&file)?.base().take_error()?;
    let started = Instant::now();
    let mut done = 0;
    while done < count {
        let at = list.element(done as usize)?;
        let header = UserPtr::<MsgHdr>::new(at.addr);
        let received = match receive_header(ctx, &file, header, flags).await {
            Ok(received) => received,
            Err(_) if done != 0 => break,
            Err(errno) => return Err(errno),
        };
        write_len(ctx, at, received).await?;
        done += 1;
        if one {
            flags |= MsgFlags::MSG_DONTWAIT;
        }
        // Looked at between messages only, as Linux does.
        if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
            break;
        }
    }
    if let Some(timeout) = timeout {
        write_rest(ctx, args.raw(4), timeout.saturating_sub(started.elapsed())).await?;
    }
    Ok(u64::from(done))
}

async fn write_rest(ctx: &mut Ctx<'_>, addr: u64, rest: Duration) -> Result<(), Errno> {
    let rest = syscall_tables::abi::Timespec {
        tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(rest.subsec_nanos()),
    };
    ctx.write(UserPtr::new(addr), &rest).await
}
