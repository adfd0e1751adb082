//! `prctl`, `arch_prctl`, `personality`.

use std::sync::atomic::Ordering;

use syscall_tables::Errno;
use syscall_tables::abi::*;

use crate::ctx::{Ctx, SysResult};
use crate::task::{CapSet, Creds};
use crate::user::Args;

/// Default timer slack in nanoseconds, for `PR_SET_TIMERSLACK` with 0.
const DEFAULT_SLACK_NS: u64 = 50_000;

/// Longest name of an anonymous mapping, with its NUL.
const ANON_NAME_MAX: usize = 80;

fn all_zero(args: &Args, from: usize) -> Result<(), Errno> {
    if (from..5).any(|index| args.raw(index) != 0) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn change_creds(ctx: &Ctx<'_>, change: impl FnOnce(&mut Creds)) -> SysResult {
    let mut new = Creds::clone(&ctx.task.creds());
    change(&mut new);
    ctx.task.set_creds(new);
    Ok(0)
}

pub async fn prctl(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let arg = args.raw(1);
    match args.u32(0) {
        PR_SET_PDEATHSIG => {
            let number = i32::try_from(arg).map_err(|_| Errno::EINVAL)?;
            if number != 0 && Signal::from_raw(number).is_none() {
                return Err(Errno::EINVAL);
            }
            ctx.task.pdeath_signal.store(number, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_PDEATHSIG => {
            let number = ctx.task.pdeath_signal.load(Ordering::Relaxed);
            ctx.write(args.ptr(1), &number).await?;
            Ok(0)
        }
        PR_GET_DUMPABLE => Ok(ctx.task.mm().dumpable().into()),
        PR_SET_DUMPABLE => match arg {
            0 | 1 => {
                ctx.task.mm().set_dumpable(u8::from(arg == 1));
                Ok(0)
            }
            _ => Err(Errno::EINVAL),
        },
        PR_SET_NAME => {
            let name = read_name(ctx, arg).await?;
            ctx.task.set_comm(&name);
            Ok(0)
        }
        PR_GET_NAME => {
            let mut name = ctx.task.comm();
            name.resize(TASK_COMM_LEN, 0);
            ctx.write_bytes(arg, &name).await?;
            Ok(0)
        }
        PR_GET_KEEPCAPS => {
            let bits = ctx.task.creds().securebits;
            Ok(u64::from(bits & SecureBits::SECBIT_KEEP_CAPS.bits() != 0))
        }
        PR_SET_KEEPCAPS => set_keepcaps(ctx, arg),
        PR_GET_SECUREBITS => Ok(ctx.task.creds().securebits.into()),
        PR_SET_SECUREBITS => set_securebits(ctx, arg),
        PR_CAPBSET_READ => {
            let cap = capability(arg)?;
            Ok(u64::from(ctx.task.creds().bounding.contains(cap)))
        }
        PR_CAPBSET_DROP => {
            let cap = capability(arg)?;
            if !ctx.task.creds().has_own(CapSet::SETPCAP) {
                return Err(Errno::EPERM);
            }
            change_creds(ctx, |creds| creds.bounding.remove(cap))
        }
        PR_CAP_AMBIENT => ambient(ctx, args),
        PR_SET_NO_NEW_PRIVS => {
            if arg != 1 {
                return Err(Errno::EINVAL);
            }
            all_zero(&args, 2)?;
            change_creds(ctx, |creds| creds.no_new_privs = true)
        }
        PR_GET_NO_NEW_PRIVS => {
            all_zero(&args, 1)?;
            Ok(ctx.task.creds().no_new_privs.into())
        }
        PR_SET_CHILD_SUBREAPER => {
            ctx.task.group.subreaper.store(arg != 0, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_CHILD_SUBREAPER => {
            let set = i32::from(ctx.task.group.subreaper.load(Ordering::Relaxed));
            ctx.write(args.ptr(1), &set).await?;
            Ok(0)
        }
        PR_GET_TID_ADDRESS => {
            let addr = ctx.task.clear_child_tid.load(Ordering::Relaxed);
            ctx.write(args.ptr(1), &addr).await?;
            Ok(0)
        }
        PR_SET_TIMERSLACK => {
            let slack = if arg == 0 { DEFAULT_SLACK_NS } else { arg };
            ctx.task.timer_slack_ns.store(slack, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_TIMERSLACK => Ok(ctx.task.timer_slack_ns.load(Ordering::Relaxed)),
        PR_GET_TIMING | PR_SET_TIMING => {
            // Only statistical timing exists.
            if arg == 0 { Ok(0) } else { Err(Errno::EINVAL) }
        }
        PR_GET_TSC => {
            ctx.write(args.ptr(1), &1_u32).await?;
            Ok(0)
        }
        PR_SET_TSC if arg == PR_TSC_ENABLE => Ok(0),
        PR_SET_THP_DISABLE => {
            all_zero(&args, 2)?;
            Ok(0)
        }
        PR_GET_THP_DISABLE => {
            all_zero(&args, 1)?;
            Ok(0)
        }
        PR_MCE_KILL => mce_kill(&args),
        PR_MCE_KILL_GET => {
            all_zero(&args, 1)?;
            Ok(2)
        }
        PR_GET_SECCOMP => Ok(ctx.task.seccomp.mode().into()),
        PR_SET_SECCOMP => super::seccomp::prctl_set(ctx, arg, args.raw(2)).await,
        PR_SET_PTRACER => Ok(0),
        PR_GET_SPECULATION_CTRL => {
            all_zero(&args, 2)?;
            // Not affected, as far as the guest can do anything about it.
            if arg <= 2 { Ok(0) } else { Err(Errno::ENODEV) }
        }
        PR_SET_VMA if arg == PR_SET_VMA_ANON_NAME => set_anon_name(ctx, args).await,
        _ => Err(Errno::EINVAL),
    }
}

async fn read_name(ctx: &mut Ctx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    match ctx
        .read_str(addr, TASK_COMM_LEN - 1, Errno::ENAMETOOLONG)
        .await
    {
        Err(Errno::ENAMETOOLONG) => {
            let mut name = vec![0; TASK_COMM_LEN - 1];
            ctx.read_bytes(addr, &mut name).await?;
            Ok(name)
        }
        other => other,
    }
}

/// The name is only checked: `/proc/PID/maps` does not show it.
async fn set_anon_name(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (addr, len, name) = (args.raw(2), args.raw(3), args.raw(4));
    if !addr.is_multiple_of(4096) || addr.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    if name != 0 {
        let name = ctx.read_str(name, ANON_NAME_MAX, Errno::EINVAL).await?;
        let bad = |byte: &u8| !(0x20..0x7f).contains(byte) || b"\\`$[]".contains(byte);
        if name.iter().any(bad) {
            return Err(Errno::EINVAL);
        }
    }
    Ok(0)
}

fn mce_kill(args: &Args) -> SysResult {
    all_zero(args, 3)?;
    match (args.raw(1), args.raw(2)) {
        (0, 0) | (1, 0..=2) => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

fn capability(number: u64) -> Result<CapSet, Errno> {
    let bit = u32::try_from(number)
        .ok()
        .and_then(|number| 1_u64.checked_shl(number))
        .ok_or(Errno::EINVAL)?;
    CapSet::from_bits(bit).ok_or(Errno::EINVAL)
}

fn set_keepcaps(ctx: &Ctx<'_>, arg: u64) -> SysResult {
    if arg > 1 {
        return Err(Errno::EINVAL);
    }
    let bits = SecureBits::from_bits_truncate(ctx.task.creds().securebits);
    if bits.contains(SecureBits::SECBIT_KEEP_CAPS_LOCKED) {
        return Err(Errno::EPERM);
    }
    change_creds(ctx, |creds| {
        let mut bits = SecureBits::from_bits_truncate(creds.securebits);
        bits.set(SecureBits::SECBIT_KEEP_CAPS, arg == 1);
        creds.securebits = bits.bits();
    })
}

fn set_securebits(ctx: &Ctx<'_>, arg: u64) -> SysResult {
    const LOCKS: u32 = 0xaa;
    let creds = ctx.task.creds();
    let old = creds.securebits;
    let new = u32::try_from(arg).map_err(|_| Errno::EPERM)?;
    let locked = (old & LOCKS) >> 1;
    let changes_locked = locked & (old ^ new) != 0;
    let unlocks = old & LOCKS & !new != 0;
    let unknown = SecureBits::from_bits(new).is_none();
    if changes_locked || unlocks || unknown || !creds.has_own(CapSet::SETPCAP) {
        return Err(Errno::EPERM);
    }
    change_creds(ctx, |creds| creds.securebits = new)
}

fn ambient(ctx: &Ctx<'_>, args: Args) -> SysResult {
    let creds = ctx.task.creds();
    let operation = args.u32(1);
    if operation == PR_CAP_AMBIENT_CLEAR_ALL {
        all_zero(&args, 2)?;
        return change_creds(ctx, |creds| creds.ambient = CapSet::empty());
    }
    all_zero(&args, 3)?;
    let cap = capability(args.raw(2))?;
    match operation {
        PR_CAP_AMBIENT_IS_SET => Ok(creds.ambient.contains(cap).into()),
        PR_CAP_AMBIENT_RAISE => {
            let bits = SecureBits::from_bits_truncate(creds.securebits);
            if !creds.permitted.contains(cap)
                || !creds.inheritable.contains(cap)
                || bits.contains(SecureBits::SECBIT_NO_CAP_AMBIENT_RAISE)
            {
                return Err(Errno::EPERM);
            }
            change_creds(ctx, |creds| creds.ambient.insert(cap))
        }
        PR_CAP_AMBIENT_LOWER => change_creds(ctx, |creds| creds.ambient.remove(cap)),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn arch_prctl(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let addr = args.raw(1);
    let guest = ctx.kernel.platform.guest_range();
    match args.u32(0) {
        ARCH_SET_FS | ARCH_SET_GS if addr >= guest.end => Err(Errno::EPERM),
        ARCH_SET_FS => {
            ctx.regs_mut().fs_base = addr;
            Ok(0)
        }
        ARCH_SET_GS => {
            ctx.regs_mut().gs_base = addr;
            Ok(0)
        }
        ARCH_GET_FS => {
            let base = ctx.regs().fs_base;
            ctx.write(args.ptr(1), &base).await?;
            Ok(0)
        }
        ARCH_GET_GS => {
            let base = ctx.regs().gs_base;
            ctx.write(args.ptr(1), &base).await?;
            Ok(0)
        }
        // CPUID can't be made to fault here.
        ARCH_GET_CPUID => Ok(1),
        ARCH_SET_CPUID => Err(Errno::ENODEV),
        ARCH_GET_XCOMP_SUPP | ARCH_GET_XCOMP_PERM => {
            let features = ctx.kernel.platform.vector_state_features();
            ctx.write(args.ptr(1), &features).await?;
            Ok(0)
        }
        // Tile registers and shadow stacks are not offered.
        ARCH_REQ_XCOMP_PERM => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn personality(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = ctx.task.personality.load(Ordering::Relaxed);
    let new = args.u32(0);
    if u64::from(new) != PERSONALITY_QUERY {
        ctx.task.personality.store(new, Ordering::Relaxed);
    }
    Ok(old.into())
}
