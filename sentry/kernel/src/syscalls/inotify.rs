//! `inotify(7)` calls.

use std::sync::Arc;

use sentry_platform::BoxFuture;
use syscall_tables::Errno;
use syscall_tables::abi::{FIONREAD, OpenFlags};

use super::open::fd_flags;
use crate::ctx::{Ctx, SysResult};
use crate::fs::anon_inode;
use crate::sync::{Events, WaitQueue};
use crate::user::{Args, UserPtr};
use crate::vfs::notify::{Instance, Mask};
use crate::vfs::path::resolve;
use crate::vfs::perm::{self, Access};
use crate::vfs::{Fd, File, FileOps, OpenMode, Start, StatusFlags, WalkFlags};

/// An inotify descriptor.
struct InotifyFile {
    instance: Arc<Instance>,
    kernel: std::sync::Weak<crate::kernel::Kernel>,
}

impl FileOps for InotifyFile {
    fn stays_at_start(&self) -> bool {
        true
    }

    fn read(&self, _file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        let events = self.instance.take(buf.len())?;
        let room = buf.get_mut(..events.len()).ok_or(Errno::EINVAL)?;
        room.copy_from_slice(&events);
        Ok(events.len())
    }

    fn write(&self, _file: &File, _buf: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }

    fn poll(&self, _file: &File) -> Events {
        if self.instance.is_empty() {
            Events::empty()
        } else {
            Events::READABLE
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.instance.wait)
    }

    fn ioctl<'a>(
        &'a self,
        ctx: &'a mut Ctx<'_>,
        _file: &'a File,
        command: u32,
        arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async move {
            if command != FIONREAD {
                return Err(Errno::ENOTTY);
            }
            let pending = i32::try_from(self.instance.pending_bytes()).unwrap_or(i32::MAX);
            ctx.write(UserPtr::new(arg), &pending).await?;
            Ok(0)
        })
    }

    fn release(&self, _file: &File) {
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.vfs.watches.remove_instance(&self.instance);
        }
    }
}

pub async fn inotify_init(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    init(ctx, 0)
}

pub async fn inotify_init1(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    init(ctx, args.u32(0))
}

fn init(ctx: &Ctx<'_>, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::O_NONBLOCK | OpenFlags::O_CLOEXEC).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let ops = Arc::new(InotifyFile {
        instance: Arc::default(),
        kernel: Arc::downgrade(ctx.kernel),
    });
    let mut status = StatusFlags::empty();
    status.set(StatusFlags::NONBLOCK, flags.contains(OpenFlags::O_NONBLOCK));
    let file = anon_inode::open_with(ops, "inotify", OpenMode::READ, status);
    ctx.add_fd(file, fd_flags(flags.contains(OpenFlags::O_CLOEXEC)))
}

fn instance(ctx: &Ctx<'_>, fd: i32) -> Result<Arc<Instance>, Errno> {
    let file = ctx.task.files().get(Fd(fd))?;
    let inotify: &InotifyFile = file.downcast().ok_or(Errno::EINVAL)?;
    Ok(inotify.instance.clone())
}

pub async fn inotify_add_watch(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mask = Mask::from_bits_truncate(args.u32(2));
    if !mask.intersects(Mask::ALL_EVENTS) || mask.contains(Mask::MASK_ADD | Mask::MASK_CREATE) {
        return Err(Errno::EINVAL);
    }
    let instance = instance(ctx, args.i32(0))?;
    let path = ctx.read_path(args.raw(1)).await?;
    let mut flags = WalkFlags::empty();
    flags.set(WalkFlags::FOLLOW, !mask.contains(Mask::DONT_FOLLOW));
    flags.set(WalkFlags::DIRECTORY, mask.contains(Mask::ONLYDIR));
    let found = resolve(ctx.kernel, ctx.task, Start::Cwd, &path, flags)?;
    perm::check_path(&found, &ctx.task.creds(), Access::READ)?;
    let wd = ctx
        .kernel
        .vfs
        .watches
        .add(&instance, found.inode_ref()?, mask)?;
    Ok(u64::from(wd.unsigned_abs()))
}

pub async fn inotify_rm_watch(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let instance = instance(ctx, args.i32(0))?;
    ctx.kernel.vfs.watches.remove(&instance, args.i32(1))?;
    Ok(0)
}
