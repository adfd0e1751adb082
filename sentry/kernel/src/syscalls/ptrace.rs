//! `ptrace`: the tracer's requests.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::*;
use zerocopy::IntoBytes;

use crate::ctx::{Ctx, SysResult};
use crate::sync::Events;
use crate::task::ptrace::{
    self, Resume, TraceFlags, TraceStop, VectorRequest, from_user_area, user_area, write_user_area,
};
use crate::task::{ExitStatus, Task, Work};
use crate::user::{Args, UserPtr};

/// Size of the FXSAVE area.
const FXSAVE_LEN: usize = 512;

pub async fn ptrace(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let request = args.u32(0);
    if request == PTRACE_TRACEME {
        ptrace::trace_me(ctx.task)?;
        return Ok(0);
    }
    let pid = args.i32(1);
    let target = ctx.task.pid_ns().task(pid).ok_or(Errno::ESRCH)?;
    let (addr, data) = (args.raw(2), args.raw(3));
    match request {
        PTRACE_ATTACH => {
            ptrace::attach(ctx.task, &target)?;
            return Ok(0);
        }
        PTRACE_SEIZE => {
            if addr != 0 {
                return Err(Errno::EIO);
            }
            let options = options(data).map_err(|_| Errno::EIO)?;
            ptrace::seize(ctx.task, &target, options)?;
            return Ok(0);
        }
        _ => {}
    }
    check_tracer(ctx, &target)?;
    match request {
        PTRACE_KILL => {
            // Does nothing to a tracee that runs.
            if target.trace.lock().stop.is_some() {
                resume(&target, Some(Signal::SIGKILL), TraceFlags::empty());
            }
            return Ok(0);
        }
        PTRACE_INTERRUPT => {
            if !target.trace.lock().seized {
                return Err(Errno::EIO);
            }
            target.add_work(Work::TRACE);
            return Ok(0);
        }
        _ => {}
    }
    let stop = target.trace.lock().stop.ok_or(Errno::ESRCH)?;
    Box::pin(stopped(ctx, &target, &stop, request, addr, data)).await
}

/// Only the tracer itself may ask; a stop it is in counts for nobody else.
fn check_tracer(ctx: &Ctx<'_>, target: &Task) -> Result<(), Errno> {
    let tracer = target.trace.lock().tracer();
    match tracer {
        Some(tracer) if Arc::ptr_eq(&tracer, ctx.task) => Ok(()),
        _ => Err(Errno::ESRCH),
    }
}

fn options(data: u64) -> Result<PtraceOptions, Errno> {
    let bits = u32::try_from(data).map_err(|_| Errno::EINVAL)?;
    let options = PtraceOptions::from_bits(bits).ok_or(Errno::EINVAL)?;
    if options.contains(PtraceOptions::PTRACE_O_SUSPEND_SECCOMP) {
        // Only for those who checkpoint from outside.
        return Err(Errno::EPERM);
    }
    Ok(options)
}

/// The signal argument of requests that let a tracee go on.
fn resume_signal(data: u64) -> Result<Option<Signal>, Errno> {
    match i32::try_from(data) {
        Ok(0) => Ok(None),
        Ok(number) => Signal::from_raw(number).map(Some).ok_or(Errno::EIO),
        Err(_) => Err(Errno::EIO),
    }
}

fn resume(target: &Arc<Task>, signal: Option<Signal>, flags: TraceFlags) {
    if signal == Some(Signal::SIGKILL) {
        target.group.begin_exit(ExitStatus::Signal {
            signal: Signal::SIGKILL,
            core: false,
        });
    }
    target.trace.lock().resume = Some(Resume {
        signal,
        flags,
        listen: false,
        keep_signal: false,
    });
    target.kick();
}

/// Requests to a tracee that is stopped.
async fn stopped(
    ctx: &mut Ctx<'_>,
    target: &Arc<Task>,
    stop: &TraceStop,
    request: u32,
    addr: u64,
    data: u64,
) -> SysResult {
    match request {
        PTRACE_CONT => resume(target, resume_signal(data)?, TraceFlags::empty()),
        PTRACE_SYSCALL => resume(target, resume_signal(data)?, TraceFlags::CALLS),
        PTRACE_SINGLESTEP => resume(target, resume_signal(data)?, TraceFlags::STEP),
        PTRACE_SYSEMU => resume(target, resume_signal(data)?, TraceFlags::EMULATE),
        PTRACE_SYSEMU_SINGLESTEP => {
            let flags = TraceFlags::EMULATE | TraceFlags::STEP;
            resume(target, resume_signal(data)?, flags);
        }
        PTRACE_DETACH => ptrace::detach(target, resume_signal(data)?),
        PTRACE_LISTEN => {
            let mut trace = target.trace.lock();
            if !trace.seized || stop.event() != PTRACE_EVENT_STOP {
                return Err(Errno::EIO);
            }
            trace.resume = Some(Resume {
                listen: true,
                ..Resume::FREE
            });
            drop(trace);
            target.kick();
        }
        PTRACE_SETOPTIONS => target.trace.lock().options = options(data)?,
        PTRACE_PEEKTEXT | PTRACE_PEEKDATA => {
            let word = peek(target, addr).await?;
            ctx.write(UserPtr::new(data), &word).await?;
        }
        PTRACE_POKETEXT | PTRACE_POKEDATA => poke(target, addr, data).await?,
        PTRACE_PEEKUSR => {
            let word = user_area(&target.trace.lock().regs, addr)?;
            ctx.write(UserPtr::new(data), &word).await?;
        }
        PTRACE_POKEUSR => {
            let end = ctx.kernel.platform.guest_range().end;
            let mut trace = target.trace.lock();
            write_user_area(&mut trace.regs, end, addr, data)?;
            trace.regs_changed = true;
        }
        PTRACE_GETREGS => {
            let regs = target.trace.lock().regs;
            ctx.write(UserPtr::new(data), &regs).await?;
        }
        PTRACE_SETREGS => {
            let new = ctx.read(UserPtr::<Regs>::new(data)).await?;
            set_registers(ctx, target, &new)?;
        }
        PTRACE_GETFPREGS | PTRACE_GETFPXREGS => {
            let state = vector(ctx, target, VectorRequest::Get).await?;
            let legacy = state.get(..FXSAVE_LEN).unwrap_or(&state);
            ctx.write_bytes(data, legacy).await?;
        }
        PTRACE_SETFPREGS | PTRACE_SETFPXREGS => set_legacy(ctx, target, data, FXSAVE_LEN).await?,
        PTRACE_GETREGSET => get_set(ctx, target, addr, data).await?,
        PTRACE_SETREGSET => put_set(ctx, target, addr, data).await?,
        PTRACE_GETEVENTMSG => {
            let message = target.trace.lock().event_message;
            ctx.write(UserPtr::new(data), &message).await?;
        }
        PTRACE_GETSIGINFO => {
            let info = target.signals.lock().last_info.or(stop.info);
            ctx.write(UserPtr::new(data), &info.ok_or(Errno::EINVAL)?)
                .await?;
        }
        PTRACE_SETSIGINFO => {
            let info = ctx.read(UserPtr::<SigInfo>::new(data)).await?;
            stop.info.ok_or(Errno::EINVAL)?;
            target.signals.lock().last_info = Some(info);
        }
        PTRACE_PEEKSIGINFO => return peek_pending(ctx, target, addr, data).await,
        PTRACE_GETSIGMASK => {
            check_mask_size(addr)?;
            let mask = {
                let own = target.signals.lock();
                own.saved_mask.unwrap_or(own.blocked)
            };
            ctx.write(UserPtr::new(data), &mask).await?;
        }
        PTRACE_SETSIGMASK => {
            check_mask_size(addr)?;
            let mask = ctx.read(UserPtr::<SigSet>::new(data)).await?;
            target.set_blocked(mask);
        }
        PTRACE_GET_SYSCALL_INFO => return syscall_info(ctx, target, addr, data).await,
        PTRACE_SECCOMP_GET_FILTER => return get_filter(ctx, target, addr, data).await,
        PTRACE_ARCH_PRCTL => return arch_prctl(ctx, target, addr, data).await,
        _ => return Err(Errno::EIO),
    }
    Ok(0)
}

fn check_mask_size(size: u64) -> Result<(), Errno> {
    if size == SigSet::SIZE as u64 {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

async fn peek(target: &Task, addr: u64) -> Result<u64, Errno> {
    let mut word = [0; 8];
    let mm = target.mm();
    match mm.read_memory(addr, &mut word).await {
        Ok(8) => Ok(u64::from_le_bytes(word)),
        _ => Err(Errno::EIO),
    }
}

async fn poke(target: &Task, addr: u64, value: u64) -> Result<(), Errno> {
    let mm = target.mm();
    match mm.poke_memory(addr, &value.to_le_bytes()).await {
        Ok(8) => Ok(()),
        _ => Err(Errno::EIO),
    }
}

fn set_registers(ctx: &Ctx<'_>, target: &Task, new: &Regs) -> Result<(), Errno> {
    let end = ctx.kernel.platform.guest_range().end;
    let mut trace = target.trace.lock();
    trace.regs = from_user_area(&trace.regs, new, end)?;
    trace.regs_changed = true;
    Ok(())
}

/// Asks the tracee's thread about its vector state.
async fn vector(
    ctx: &Ctx<'_>,
    target: &Arc<Task>,
    request: VectorRequest,
) -> Result<Vec<u8>, Errno> {
    target.trace.lock().vector = Some(request);
    target.kick();
    let queue = &target.trace_answers;
    ctx.wait_on(&[queue], Events::READABLE, None, Errno::EAGAIN, || {
        let mut trace = target.trace.lock();
        match trace.vector.take() {
            Some(VectorRequest::Done(answer)) => answer,
            _ if trace.stop.is_none() => Err(Errno::ESRCH),
            waiting => {
                trace.vector = waiting;
                Err(Errno::EAGAIN)
            }
        }
    })
    .await
}

async fn set_legacy(
    ctx: &mut Ctx<'_>,
    target: &Arc<Task>,
    from: u64,
    len: usize,
) -> Result<(), Errno> {
    let mut state = vector(ctx, target, VectorRequest::Get).await?;
    let len = len.min(state.len()).min(FXSAVE_LEN);
    let legacy = state.get_mut(..len).unwrap_or_default();
    ctx.read_bytes(from, legacy).await?;
    // x87 and SSE count as present from now on.
    if let Some(present) = state.get_mut(FXSAVE_LEN) {
        *present |= 3;
    }
    vector(ctx, target, VectorRequest::Set(state)).await?;
    Ok(())
}

/// Stores a register set to the `iovec` at `iov`, as much as fits.
async fn get_set(ctx: &mut Ctx<'_>, target: &Arc<Task>, kind: u64, iov: u64) -> Result<(), Errno> {
    let ptr = UserPtr::<Iovec>::new(iov);
    let mut iovec = ctx.read(ptr).await?;
    let bytes = match u32::try_from(kind) {
        Ok(NT_PRSTATUS) => target.trace.lock().regs.as_bytes().to_vec(),
        Ok(NT_PRFPREG) => {
            let mut state = vector(ctx, target, VectorRequest::Get).await?;
            state.truncate(FXSAVE_LEN);
            state
        }
        Ok(NT_X86_XSTATE) => {
            let mut state = vector(ctx, target, VectorRequest::Get).await?;
            mark_features(ctx, &mut state);
            state
        }
        _ => return Err(Errno::EINVAL),
    };
    let len = usize::try_from(iovec.iov_len)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    ctx.write_bytes(iovec.iov_base, bytes.get(..len).unwrap_or_default())
        .await?;
    iovec.iov_len = len as u64;
    ctx.write(ptr, &iovec).await
}

/// Debuggers look for the features in the software words of the area.
fn mark_features(ctx: &Ctx<'_>, state: &mut [u8]) {
    let features = ctx.kernel.platform.vector_state_features();
    let at = FPX_SW_BYTES_OFFSET;
    if let Some(slot) = state.get_mut(at..at + 8) {
        slot.copy_from_slice(&features.to_le_bytes());
    }
}

async fn put_set(ctx: &mut Ctx<'_>, target: &Arc<Task>, kind: u64, iov: u64) -> Result<(), Errno> {
    let iovec = ctx.read(UserPtr::<Iovec>::new(iov)).await?;
    let len = usize::try_from(iovec.iov_len).unwrap_or(usize::MAX);
    match u32::try_from(kind) {
        Ok(NT_PRSTATUS) => {
            let mut regs = target.trace.lock().regs;
            let len = len.min(size_of::<Regs>());
            if !len.is_multiple_of(8) {
                return Err(Errno::EINVAL);
            }
            let part = regs.as_mut_bytes().get_mut(..len).unwrap_or_default();
            ctx.read_bytes(iovec.iov_base, part).await?;
            set_registers(ctx, target, &regs)
        }
        Ok(NT_PRFPREG) => set_legacy(ctx, target, iovec.iov_base, len).await,
        Ok(NT_X86_XSTATE) => {
            let whole = ctx.kernel.platform.vector_state_len_bytes();
            if len != whole {
                return Err(Errno::EFAULT);
            }
            let mut state = vec![0; whole];
            ctx.read_bytes(iovec.iov_base, &mut state).await?;
            vector(ctx, target, VectorRequest::Set(state)).await?;
            Ok(())
        }
        _ => Err(Errno::EINVAL),
    }
}

async fn peek_pending(ctx: &mut Ctx<'_>, target: &Arc<Task>, addr: u64, data: u64) -> SysResult {
    const SHARED: u32 = 1;
    let wanted = ctx
        .read(UserPtr::<PtracePeeksiginfoArgs>::new(addr))
        .await?;
    if wanted.flags & !SHARED != 0 || wanted.nr < 0 {
        return Err(Errno::EINVAL);
    }
    let mut copied = 0_u64;
    while copied < u64::from(wanted.nr.unsigned_abs()) {
        let index = usize::try_from(wanted.off.saturating_add(copied)).unwrap_or(usize::MAX);
        let info = if wanted.flags & SHARED != 0 {
            target.group.signals.lock().pending.peek(index)
        } else {
            target.signals.lock().pending.peek(index)
        };
        let Some(info) = info else {
            break;
        };
        let at = data.saturating_add(copied * size_of::<SigInfo>() as u64);
        match ctx.write(UserPtr::new(at), &info).await {
            Ok(()) => copied += 1,
            Err(error) if copied == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(copied)
}

/// `struct ptrace_syscall_info`, cut to what the caller has room for; answers
/// the size of what there is.
async fn syscall_info(ctx: &mut Ctx<'_>, target: &Arc<Task>, room: u64, to: u64) -> SysResult {
    /// Bytes before the union.
    const HEAD: usize = 24;
    let (info, regs) = {
        let trace = target.trace.lock();
        (trace.call, trace.regs)
    };
    let info = PtraceSyscallInfo {
        arch: AUDIT_ARCH_X86_64,
        instruction_pointer: regs.rip,
        stack_pointer: regs.rsp,
        ..info
    };
    let size = HEAD
        + match info.op {
            PTRACE_SYSCALL_INFO_ENTRY => 56,
            PTRACE_SYSCALL_INFO_EXIT => 9,
            PTRACE_SYSCALL_INFO_SECCOMP => 60,
            _ => 0,
        };
    let len = usize::try_from(room).unwrap_or(usize::MAX).min(size);
    ctx.write_bytes(to, info.as_bytes().get(..len).unwrap_or_default())
        .await?;
    Ok(size as u64)
}

async fn get_filter(ctx: &mut Ctx<'_>, target: &Arc<Task>, index: u64, to: u64) -> SysResult {
    let creds = ctx.task.creds();
    if !creds.has(crate::task::CapSet::SYS_ADMIN) || ctx.task.seccomp.mode() != 0 {
        return Err(Errno::EACCES);
    }
    if target.seccomp.mode() != SECCOMP_MODE_FILTER {
        return Err(Errno::EINVAL);
    }
    let index = usize::try_from(index).map_err(|_| Errno::ENOENT)?;
    let filter = target.seccomp.filter(index).ok_or(Errno::ENOENT)?;
    let code = filter.program().instructions();
    if to != 0 {
        ctx.write_array(UserPtr::<SockFilter>::new(to), code)
            .await?;
    }
    Ok(code.len() as u64)
}

async fn arch_prctl(ctx: &mut Ctx<'_>, target: &Arc<Task>, addr: u64, code: u64) -> SysResult {
    let end = ctx.kernel.platform.guest_range().end;
    let code = u32::try_from(code).map_err(|_| Errno::EINVAL)?;
    let value = {
        let mut trace = target.trace.lock();
        match code {
            ARCH_GET_FS => trace.regs.fs_base,
            ARCH_GET_GS => trace.regs.gs_base,
            ARCH_SET_FS | ARCH_SET_GS if addr >= end => return Err(Errno::EPERM),
            ARCH_SET_FS | ARCH_SET_GS => {
                if code == ARCH_SET_FS {
                    trace.regs.fs_base = addr;
                } else {
                    trace.regs.gs_base = addr;
                }
                trace.regs_changed = true;
                return Ok(0);
            }
            _ => return Err(Errno::EINVAL),
        }
    };
    ctx.write(UserPtr::new(addr), &value).await?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_to_resume_with() {
        assert_eq!(resume_signal(0), Ok(None));
        assert_eq!(resume_signal(9), Ok(Some(Signal::SIGKILL)));
        assert_eq!(resume_signal(65), Err(Errno::EIO));
        assert_eq!(resume_signal(u64::MAX), Err(Errno::EIO));
    }

    #[test]
    fn the_call_info_has_its_size() {
        assert_eq!(size_of::<PtraceSyscallInfo>(), 88);
    }
}
