//! `unshare`, `setns`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::CloneFlags;

use crate::ctx::{Ctx, SysResult};
use crate::task::clone::{enter_new_user_ns, new_namespaces};
use crate::task::{Creds, Namespaces};
use crate::user::Args;

/// Flags that `unshare` takes.
const UNSHARE_FLAGS: CloneFlags = CloneFlags::CLONE_THREAD
    .union(CloneFlags::CLONE_FS)
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_SIGHAND)
    .union(CloneFlags::CLONE_VM)
    .union(CloneFlags::CLONE_FILES)
    .union(CloneFlags::CLONE_SYSVSEM)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUSER)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWCGROUP)
    .union(CloneFlags::CLONE_NEWTIME);

pub async fn unshare(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mut flags = CloneFlags::from_bits_retain(args.raw(0) & u64::from(u32::MAX));
    if !UNSHARE_FLAGS.contains(flags) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        flags |= CloneFlags::CLONE_THREAD | CloneFlags::CLONE_FS;
    }
    if flags.contains(CloneFlags::CLONE_NEWNS) {
        flags |= CloneFlags::CLONE_FS;
    }
    let task = ctx.task;
    let together = CloneFlags::CLONE_THREAD | CloneFlags::CLONE_SIGHAND | CloneFlags::CLONE_VM;
    if flags.intersects(together) && task.group.thread_count() > 1 {
        return Err(Errno::EINVAL);
    }
    let unsupported = CloneFlags::CLONE_NEWTIME | CloneFlags::CLONE_NEWNET;
    if flags.intersects(unsupported) {
        return Err(Errno::EINVAL);
    }
    let old = task.creds();
    let creds = if flags.contains(CloneFlags::CLONE_NEWUSER) {
        Some(enter_new_user_ns(&old)?)
    } else {
        None
    };
    let fs = if flags.contains(CloneFlags::CLONE_FS) {
        task.fs().duplicate()
    } else {
        task.fs()
    };
    let effective: &Creds = creds.as_ref().unwrap_or(&old);
    let (namespaces, fs) = new_namespaces(ctx, flags, effective, fs)?;
    if flags.contains(CloneFlags::CLONE_FILES) {
        let own = Arc::new(task.files().duplicate());
        drop(task.set_files(own));
    }
    drop(task.set_fs(fs));
    task.set_namespaces(Namespaces::clone(&namespaces));
    if let Some(creds) = creds {
        task.set_creds(creds);
    }
    Ok(0)
}
