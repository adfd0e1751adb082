//! `seccomp` and its older form in `prctl`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    SECCOMP_GET_ACTION_AVAIL, SECCOMP_GET_NOTIF_SIZES, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT,
    SECCOMP_SET_MODE_FILTER, SECCOMP_SET_MODE_STRICT, SeccompData, SeccompFlags, SeccompNotifSizes,
    SockFilter, SockFprog,
};

use crate::ctx::{Ctx, SysResult};
use crate::task::CapSet;
use crate::task::seccomp::{self, Diverged, Install, Listener, Program};
use crate::user::{Args, UserPtr};
use crate::vfs::{Fd, FdFlags};

pub async fn seccomp(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (flags, arg) = (args.u32(1), args.raw(2));
    match args.u32(0) {
        SECCOMP_SET_MODE_STRICT if flags == 0 && arg == 0 => {
            ctx.task.seccomp.set_strict()?;
            Ok(0)
        }
        SECCOMP_SET_MODE_FILTER => {
            let flags = SeccompFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
            set_filter(ctx, flags, arg).await
        }
        SECCOMP_GET_ACTION_AVAIL if flags == 0 => {
            let action = ctx.read(UserPtr::<u32>::new(arg)).await?;
            if seccomp::is_action(action) {
                Ok(0)
            } else {
                Err(Errno::EOPNOTSUPP)
            }
        }
        SECCOMP_GET_NOTIF_SIZES if flags == 0 => {
            let size = |len: usize| u16::try_from(len).unwrap_or(0);
            let (notification, response) = seccomp::NOTIFY_SIZES;
            let sizes = SeccompNotifSizes {
                seccomp_notif: size(notification),
                seccomp_notif_resp: size(response),
                seccomp_data: size(size_of::<SeccompData>()),
            };
            ctx.write(UserPtr::new(arg), &sizes).await?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `prctl(PR_SET_SECCOMP)`.
pub(super) async fn prctl_set(ctx: &mut Ctx<'_>, mode: u64, filter: u64) -> SysResult {
    match u32::try_from(mode) {
        Ok(SECCOMP_MODE_STRICT) => {
            ctx.task.seccomp.set_strict()?;
            Ok(0)
        }
        Ok(SECCOMP_MODE_FILTER) => set_filter(ctx, SeccompFlags::empty(), filter).await,
        _ => Err(Errno::EINVAL),
    }
}

async fn set_filter(ctx: &mut Ctx<'_>, flags: SeccompFlags, arg: u64) -> SysResult {
    let synchronise = flags.contains(SeccompFlags::SECCOMP_FILTER_FLAG_TSYNC);
    let listens = flags.contains(SeccompFlags::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    let reports = flags.contains(SeccompFlags::SECCOMP_FILTER_FLAG_TSYNC_ESRCH);
    let killable = flags.contains(SeccompFlags::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    // Both answer with a number: only one can.
    if (synchronise && listens && !reports) || (killable && !listens) {
        return Err(Errno::EINVAL);
    }
    let program = ctx.read(UserPtr::<SockFprog>::new(arg)).await?;
    let len = usize::from(program.len);
    if len == 0 || len > syscall_tables::abi::BPF_MAXINSNS {
        return Err(Errno::EINVAL);
    }
    let creds = ctx.task.creds();
    if !creds.no_new_privs && !creds.has_own(CapSet::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let code = ctx
        .read_array::<SockFilter>(UserPtr::new(program.filter), len)
        .await?;
    let listener = listens.then(|| Arc::new(Listener::default()));
    let install = Install {
        program: Program::new(code)?,
        log: flags.contains(SeccompFlags::SECCOMP_FILTER_FLAG_LOG),
        all_threads: synchronise,
        listener: listener.clone(),
    };
    // The descriptor is there before the filter can refuse to make it.
    let fd = match &listener {
        Some(listener) => Some(ctx.add_fd(listener.open(), FdFlags::CLOEXEC)?),
        None => None,
    };
    let failure = match seccomp::install(ctx.task, install) {
        Ok(Ok(())) => return Ok(fd.unwrap_or(0)),
        Ok(Err(Diverged(_))) if reports => Err(Errno::ESRCH),
        Ok(Err(Diverged(other))) => {
            let tid = other.tid_in(&ctx.task.pid_ns());
            Ok(u64::from(tid.unsigned_abs()))
        }
        Err(error) => Err(error),
    };
    if let Some(fd) = fd.and_then(|fd| i32::try_from(fd).ok()) {
        drop(ctx.task.files().remove(Fd(fd)));
    }
    failure
}
