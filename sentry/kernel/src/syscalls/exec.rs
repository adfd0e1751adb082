//! `execve`, `execveat`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::RLIMIT_STACK;

use crate::ctx::{Ctx, SysResult};
use crate::loader::Arguments;
use crate::task::exec::{self, ReachedBy};
use crate::user::Args;
use crate::vfs::{Fd, FdFlags, File, Start, WalkFlags, open};

/// `AT_FDCWD`, `AT_SYMLINK_NOFOLLOW`, `AT_EMPTY_PATH`.
const AT_FDCWD: i32 = -100;
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EMPTY_PATH: u32 = 0x1000;

pub async fn execve(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [path, argv, envp] = [args.raw(0), args.raw(1), args.raw(2)];
    Box::pin(run(ctx, AT_FDCWD, path, argv, envp, 0)).await
}

pub async fn execveat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [path, argv, envp] = [args.raw(1), args.raw(2), args.raw(3)];
    Box::pin(run(ctx, args.i32(0), path, argv, envp, args.u32(4))).await
}

fn closes(ctx: &Ctx<'_>, fd: i32) -> bool {
    let found = ctx.task.files().get_with_flags(Fd(fd));
    found.is_ok_and(|(_, flags)| flags.contains(FdFlags::CLOEXEC))
}

async fn run(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: u64,
    argv: u64,
    envp: u64,
    flags: u32,
) -> SysResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = ctx.read_path(path).await?;
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::FOLLOW, flags & AT_SYMLINK_NOFOLLOW == 0);
    walk.set(WalkFlags::EMPTY_PATH, flags & AT_EMPTY_PATH != 0);
    let start = Start::from_dirfd(dirfd);
    let file = open::open_exec(ctx.kernel, ctx.task, start, &path, walk)?;
    let by_path = dirfd == AT_FDCWD || path.starts_with(b"/");
    let by = if !by_path && closes(ctx, dirfd) {
        ReachedBy::ClosingFd
    } else {
        ReachedBy::Path
    };
    let filename = if by_path {
        path.into_vec()
    } else if path.is_empty() {
        format!("/dev/fd/{dirfd}").into_bytes()
    } else {
        let mut name = format!("/dev/fd/{dirfd}/").into_bytes();
        name.extend_from_slice(&path);
        name
    };
    let stack_limit = ctx.task.group.limit(RLIMIT_STACK);
    let arguments = Arguments::read(ctx, filename, argv, envp, stack_limit).await?;
    let (kernel, task) = (ctx.kernel.clone(), ctx.task.clone());
    let open_exec = move |path: &[u8]| -> Result<Arc<File>, Errno> {
        open::open_exec(&kernel, &task, Start::Cwd, path, WalkFlags::FOLLOW)
    };
    exec::execve(ctx, &open_exec, file, arguments, by).await?;
    Ok(0)
}
