//! Signal frames on the guest's stack, as the x86-64 ABI lays them out.

use std::future::poll_fn;

use syscall_tables::Errno;
use syscall_tables::abi::{
    FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, FP_XSTATE_MAGIC2_SIZE, FPX_SW_BYTES_OFFSET, FpxSwBytes,
    RED_ZONE, RtSigFrame, SaFlags, SigAction, SigContext, SigInfo, Signal, SsFlags, UC_FP_XSTATE,
    UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS, UContext,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::AltStack;
use crate::ctx::Ctx;

/// Size of the legacy FXSAVE area.
const FXSAVE_LEN: usize = 512;
/// Where the XSAVE header starts; its first word says which parts are there.
const XSAVE_HEADER: usize = 512;
/// x87 and SSE.
const XFEATURES_LEGACY: u64 = 3;

/// Flags that guest code can set: all of the condition codes, direction,
/// trap, alignment check and id.
const USER_FLAGS: u64 =
    0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
const FLAG_TRAP: u64 = 0x100;
const FLAG_DIRECTION: u64 = 0x400;
const FLAG_RESUME: u64 = 0x1_0000;
/// Selectors of 64-bit user code and of user data.
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;

/// Makes the guest run the handler of `signal` next. If the frame can't be
/// stored, the task gets `SIGSEGV` instead.
pub(crate) async fn enter_handler(
    ctx: &mut Ctx<'_>,
    signal: Signal,
    info: &SigInfo,
    action: &SigAction,
) {
    if push_frame(ctx, signal, info, action).await.is_err() {
        let task = ctx.task.clone();
        if signal == Signal::SIGSEGV {
            // Its handler can't run: no second try.
            task.group
                .sighand()
                .set_action(signal, SigAction::default());
        }
        task.force_signal(SigInfo::kernel(Signal::SIGSEGV));
        return;
    }
    let task = ctx.task;
    let mut blocked = task.blocked().union(action.mask);
    if action.flags & SaFlags::SA_NODEFER.bits() == 0 {
        blocked.add(signal);
    }
    task.signals.lock().saved_mask = None;
    task.mask_saved
        .store(false, std::sync::atomic::Ordering::Relaxed);
    task.set_blocked(blocked);
}

async fn push_frame(
    ctx: &mut Ctx<'_>,
    signal: Signal,
    info: &SigInfo,
    action: &SigAction,
) -> Result<(), Errno> {
    // x86-64 has no way back without a restorer.
    if action.flags & SaFlags::SA_RESTORER.bits() == 0 {
        return Err(Errno::EFAULT);
    }
    let regs = *ctx.regs();
    let (altstack, mask, fault) = {
        let own = ctx.task.signals.lock();
        (
            own.altstack,
            own.saved_mask.unwrap_or(own.blocked),
            own.fault,
        )
    };

    let mut sp = regs.rsp.wrapping_sub(RED_ZONE);
    let was_on_altstack = altstack.contains(regs.rsp);
    let mut entering = false;
    if action.flags & SaFlags::SA_ONSTACK.bits() != 0
        && !altstack.is_disabled()
        && !altstack.contains(sp)
    {
        sp = altstack.base.wrapping_add(altstack.size);
        entering = true;
    }

    let vector = vector_state_for_frame(ctx).await?;
    let vector_len = u64::try_from(vector.len()).map_err(|_| Errno::EFAULT)?;
    let fpstate = sp.checked_sub(vector_len).ok_or(Errno::EFAULT)? & !63;
    let frame_len = size_of::<RtSigFrame>() as u64;
    let frame_addr = (fpstate.checked_sub(frame_len).ok_or(Errno::EFAULT)? & !15)
        .checked_sub(8)
        .ok_or(Errno::EFAULT)?;
    // A handler must not run off the end of its alternate stack.
    if (entering || was_on_altstack) && frame_addr < altstack.base {
        return Err(Errno::EFAULT);
    }

    let mut flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
    if vector.len() > FXSAVE_LEN {
        flags |= UC_FP_XSTATE;
    }
    let frame = RtSigFrame {
        pretcode: action.restorer,
        uc: UContext {
            uc_flags: flags,
            uc_link: 0,
            uc_stack: altstack.describe(regs.rsp),
            uc_mcontext: SigContext {
                r8: regs.r8,
                r9: regs.r9,
                r10: regs.r10,
                r11: regs.r11,
                r12: regs.r12,
                r13: regs.r13,
                r14: regs.r14,
                r15: regs.r15,
                rdi: regs.rdi,
                rsi: regs.rsi,
                rbp: regs.rbp,
                rbx: regs.rbx,
                rdx: regs.rdx,
                rax: regs.rax,
                rcx: regs.rcx,
                rsp: regs.rsp,
                rip: regs.rip,
                eflags: regs.eflags,
                cs: USER_CS as u16,
                gs: 0,
                fs: 0,
                ss: USER_SS as u16,
                err: fault.error_code,
                trapno: fault.trap_no,
                oldmask: mask.0,
                cr2: fault.addr,
                fpstate,
                reserved1: [0; 8],
            },
            uc_sigmask: mask,
        },
        info: *info,
    };
    ctx.write_bytes(fpstate, &vector).await?;
    ctx.write_bytes(frame_addr, frame.as_bytes()).await?;

    if altstack.flags.contains(SsFlags::SS_AUTODISARM) {
        ctx.task.signals.lock().altstack = AltStack::default();
    }
    let uc_addr = frame_addr + std::mem::offset_of!(RtSigFrame, uc) as u64;
    let info_addr = frame_addr + std::mem::offset_of!(RtSigFrame, info) as u64;
    let regs = ctx.regs_mut();
    regs.rdi = signal.raw().unsigned_abs().into();
    regs.rsi = info_addr;
    regs.rdx = uc_addr;
    regs.rax = 0;
    regs.rsp = frame_addr;
    regs.rip = action.handler;
    regs.eflags &= !(FLAG_DIRECTION | FLAG_RESUME | FLAG_TRAP);
    regs.cs = USER_CS;
    regs.ss = USER_SS;
    regs.orig_rax = u64::MAX;
    Ok(())
}

/// The vector state with the marks that tell a handler what is there.
async fn vector_state_for_frame(ctx: &mut Ctx<'_>) -> Result<Vec<u8>, Errno> {
    let len = ctx.kernel.platform.vector_state_len_bytes();
    let mut state = vec![0; len];
    poll_fn(|cx| ctx.thread.poll_get_vector_state(cx, &mut state)).await?;
    if len <= FXSAVE_LEN {
        return Ok(state);
    }
    let features = ctx.kernel.platform.vector_state_features();
    let size = u32::try_from(len).map_err(|_| Errno::EFAULT)?;
    let marks = FpxSwBytes {
        magic1: FP_XSTATE_MAGIC1,
        extended_size: size + FP_XSTATE_MAGIC2_SIZE as u32,
        xfeatures: features,
        xstate_size: size,
        padding: [0; 7],
    };
    put(&mut state, FPX_SW_BYTES_OFFSET, marks.as_bytes());
    // Legacy parts count as present, so that a handler may change them.
    let present = word_at(&state, XSAVE_HEADER) | XFEATURES_LEGACY;
    put(&mut state, XSAVE_HEADER, &present.to_le_bytes());
    state.extend_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    Ok(state)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..at + value.len()) {
        slot.copy_from_slice(value);
    }
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// `rt_sigreturn(2)`: takes back what [`push_frame`] stored, or whatever the
/// guest has made of it. Answers the value for `rax`.
pub(crate) async fn leave_handler(ctx: &mut Ctx<'_>) -> Result<u64, Errno> {
    let frame_addr = ctx.regs().rsp.wrapping_sub(8);
    let uc_addr = frame_addr.wrapping_add(std::mem::offset_of!(RtSigFrame, uc) as u64);
    let mut uc = UContext::new_zeroed();
    ctx.read_bytes(uc_addr, uc.as_mut_bytes()).await?;
    let saved = uc.uc_mcontext;

    restore_vector_state(ctx, saved.fpstate).await?;
    {
        let regs = ctx.regs_mut();
        regs.r8 = saved.r8;
        regs.r9 = saved.r9;
        regs.r10 = saved.r10;
        regs.r11 = saved.r11;
        regs.r12 = saved.r12;
        regs.r13 = saved.r13;
        regs.r14 = saved.r14;
        regs.r15 = saved.r15;
        regs.rdi = saved.rdi;
        regs.rsi = saved.rsi;
        regs.rbp = saved.rbp;
        regs.rbx = saved.rbx;
        regs.rdx = saved.rdx;
        regs.rcx = saved.rcx;
        regs.rsp = saved.rsp;
        regs.rip = saved.rip;
        regs.eflags = (regs.eflags & !USER_FLAGS) | (saved.eflags & USER_FLAGS);
        regs.cs = USER_CS;
        regs.ss = USER_SS;
        regs.orig_rax = u64::MAX;
    }
    ctx.task.set_blocked(uc.uc_sigmask);
    let stack = uc.uc_stack;
    // A stack that sigaltstack(2) would refuse is not restored, silently.
    let _ = ctx
        .task
        .set_altstack(stack.ss_sp, stack.ss_size, stack.ss_flags, saved.rsp);
    Ok(saved.rax)
}

async fn restore_vector_state(ctx: &mut Ctx<'_>, fpstate: u64) -> Result<(), Errno> {
    let len = ctx.kernel.platform.vector_state_len_bytes();
    let mut state = vec![0; len];
    if fpstate == 0 {
        // Initial state: no part present; default x87 control word and MXCSR.
        put(&mut state, 0, &0x37f_u16.to_le_bytes());
        put(&mut state, 24, &0x1f80_u32.to_le_bytes());
        return set_vector_state(ctx, &state).await;
    }
    if !fpstate.is_multiple_of(16) {
        return Err(Errno::EFAULT);
    }
    let legacy_len = len.min(FXSAVE_LEN);
    let legacy = state.get_mut(..legacy_len).ok_or(Errno::EFAULT)?;
    ctx.read_bytes(fpstate, legacy).await?;
    if len > FXSAVE_LEN {
        let marks = state
            .get(FPX_SW_BYTES_OFFSET..FPX_SW_BYTES_OFFSET + size_of::<FpxSwBytes>())
            .and_then(|bytes| FpxSwBytes::read_from_bytes(bytes).ok())
            .unwrap_or_default();
        if has_extended_state(ctx, fpstate, &marks, len).await? {
            let rest = state.get_mut(FXSAVE_LEN..).ok_or(Errno::EFAULT)?;
            ctx.read_bytes(fpstate.wrapping_add(FXSAVE_LEN as u64), rest)
                .await?;
            let wanted = word_at(&state, XSAVE_HEADER) & marks.xfeatures;
            put(&mut state, XSAVE_HEADER, &wanted.to_le_bytes());
        } else {
            put(&mut state, XSAVE_HEADER, &XFEATURES_LEGACY.to_le_bytes());
        }
    }
    set_vector_state(ctx, &state).await
}

async fn has_extended_state(
    ctx: &mut Ctx<'_>,
    fpstate: u64,
    marks: &FpxSwBytes,
    len: usize,
) -> Result<bool, Errno> {
    let size = usize::try_from(marks.xstate_size).unwrap_or(0);
    let whole = usize::try_from(marks.extended_size).unwrap_or(0);
    if marks.magic1 != FP_XSTATE_MAGIC1 || size != len || whole != len + FP_XSTATE_MAGIC2_SIZE {
        return Ok(false);
    }
    let mut magic2 = [0; FP_XSTATE_MAGIC2_SIZE];
    ctx.read_bytes(fpstate.wrapping_add(len as u64), &mut magic2)
        .await?;
    Ok(u32::from_le_bytes(magic2) == FP_XSTATE_MAGIC2)
}

async fn set_vector_state(ctx: &mut Ctx<'_>, state: &[u8]) -> Result<(), Errno> {
    poll_fn(|cx| ctx.thread.poll_set_vector_state(cx, state)).await
}
