//! `signalfd`, `signalfd4`.

use syscall_tables::Errno;
use syscall_tables::abi::{SigSet, SignalfdFlags};

use crate::ctx::{Ctx, SysResult};
use crate::fs::signalfd::SignalFile;
use crate::user::Args;
use crate::vfs::{Fd, FdFlags, StatusFlags};

pub async fn signalfd(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    make(ctx, args, SignalfdFlags::empty()).await
}

pub async fn signalfd4(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = SignalfdFlags::from_bits(args.u32(3)).ok_or(Errno::EINVAL)?;
    make(ctx, args, flags).await
}

async fn make(ctx: &mut Ctx<'_>, args: Args, flags: SignalfdFlags) -> SysResult {
    if args.raw(2) != SigSet::SIZE as u64 {
        return Err(Errno::EINVAL);
    }
    let mask = ctx.read(args.ptr::<SigSet>(1)).await?;
    let mask = mask.difference(SigSet::UNBLOCKABLE);
    if args.i32(0) != -1 {
        let file = ctx.task.files().get(Fd(args.i32(0)))?;
        let signal_file = file.downcast::<SignalFile>().ok_or(Errno::EINVAL)?;
        signal_file.set_mask(mask);
        return Ok(u64::from(args.u32(0)));
    }
    let status = if flags.contains(SignalfdFlags::SFD_NONBLOCK) {
        StatusFlags::NONBLOCK
    } else {
        StatusFlags::empty()
    };
    let fd_flags = if flags.contains(SignalfdFlags::SFD_CLOEXEC) {
        FdFlags::CLOEXEC
    } else {
        FdFlags::empty()
    };
    ctx.add_fd(SignalFile::open(ctx.task, mask, status), fd_flags)
}
