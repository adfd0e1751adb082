//! Extended attributes (`xattr(7)`).

use syscall_tables::Errno;
use syscall_tables::abi::{AtFlags, XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX, XattrArgs};

use super::attributes::find;
use super::stat::{at_flags, walk_flags};
use crate::ctx::{Ctx, SysResult};
use crate::task::{CapSet, Creds};
use crate::user::{Args, UserPtr};
use crate::vfs::notify::Mask;
use crate::vfs::perm::{self, Access, S_ISVTX};
use crate::vfs::{Fd, FileKind, Start, VfsPath, WalkFlags, XattrFlags};

/// The object a call means. Looked up only after the name and the value have
/// been read, whose errors come first.
#[derive(Clone, Copy)]
enum Object {
    Path(WalkFlags),
    Fd,
    /// Directory, path and flags of the `*xattrat` calls.
    At,
}

const FOLLOWED: Object = Object::Path(WalkFlags::FOLLOW);
const LINK: Object = Object::Path(WalkFlags::empty());

impl Object {
    async fn find(self, ctx: &mut Ctx<'_>, args: Args) -> Result<VfsPath, Errno> {
        let by_fd = |ctx: &Ctx<'_>| Ok(ctx.task.files().get(Fd(args.i32(0)))?.path.clone());
        match self {
            Self::Path(flags) => find(ctx, Start::Cwd, args.raw(0), flags).await,
            Self::Fd => by_fd(ctx),
            Self::At => {
                let flags = self.flags(args)?;
                if args.raw(1) == 0 && flags.contains(AtFlags::AT_EMPTY_PATH) {
                    return by_fd(ctx);
                }
                let start = Start::from_dirfd(args.i32(0));
                find(ctx, start, args.raw(1), walk_flags(flags)).await
            }
        }
    }

    /// Checked before anything else.
    fn flags(self, args: Args) -> Result<AtFlags, Errno> {
        match self {
            Self::Path(_) | Self::Fd => Ok(AtFlags::empty()),
            Self::At => {
                let known = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
                at_flags(args.u32(2), known)
            }
        }
    }
}

/// Where a call has its value: the value's address, its size and, for
/// setting, flags.
fn value_args(args: Args) -> XattrArgs {
    XattrArgs {
        value: args.raw(2),
        // Sizes beyond are too large in any case.
        size: u32::try_from(args.raw(3)).unwrap_or(u32::MAX),
        flags: args.u32(4),
    }
}

async fn read_name(ctx: &mut Ctx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    let name = ctx
        .read_str(addr, XATTR_NAME_MAX + 1, Errno::ERANGE)
        .await?;
    if name.is_empty() {
        return Err(Errno::ERANGE);
    }
    Ok(name)
}

/// What is done with an attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
}

/// Who may use which name spaces.
fn check_name(path: &VfsPath, creds: &Creds, name: &[u8], purpose: Use) -> Result<(), Errno> {
    let inode = path.inode_ref()?;
    if purpose == Use::Write && path.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    let refused = match purpose {
        Use::Read => Errno::ENODATA,
        Use::Write => Errno::EPERM,
    };
    if name.starts_with(b"trusted.") {
        return if creds.has(CapSet::SYS_ADMIN) {
            Ok(())
        } else {
            Err(refused)
        };
    }
    if name.starts_with(b"security.") {
        if purpose == Use::Read {
            return Ok(());
        }
        let needed = if name == b"security.capability" {
            CapSet::SETFCAP
        } else {
            CapSet::SYS_ADMIN
        };
        return if creds.has(needed) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        };
    }
    if !name.starts_with(b"user.") {
        return Err(Errno::EOPNOTSUPP);
    }
    let attr = inode.attr()?;
    if !matches!(attr.kind, FileKind::Regular | FileKind::Directory) {
        return Err(refused);
    }
    if purpose == Use::Write && attr.kind == FileKind::Directory && attr.perm & S_ISVTX != 0 {
        perm::check_owner(&attr, creds)?;
    }
    let wanted = match purpose {
        Use::Read => Access::READ,
        Use::Write => Access::WRITE,
    };
    perm::check(&attr, creds, wanted)
}

/// A prefix alone is no name.
fn check_suffix(name: &[u8]) -> Result<(), Errno> {
    let prefixes: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];
    if prefixes.contains(&name) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

async fn set(
    ctx: &mut Ctx<'_>,
    object: Object,
    args: Args,
    name: u64,
    value: XattrArgs,
) -> SysResult {
    object.flags(args)?;
    let flags = XattrFlags::from_bits(value.flags).ok_or(Errno::EINVAL)?;
    let name = read_name(ctx, name).await?;
    let size = value.size as usize;
    if size > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; size];
    ctx.read_bytes(value.value, &mut bytes).await?;
    let path = object.find(ctx, args).await?;
    check_name(&path, &ctx.task.creds(), &name, Use::Write)?;
    check_suffix(&name)?;
    path.inode_ref()?.set_xattr(&name, &bytes, flags)?;
    ctx.kernel.vfs.watches.happened(&path, Mask::ATTRIB);
    Ok(0)
}

async fn get(
    ctx: &mut Ctx<'_>,
    object: Object,
    args: Args,
    name: u64,
    value: XattrArgs,
) -> SysResult {
    object.flags(args)?;
    let name = read_name(ctx, name).await?;
    let path = object.find(ctx, args).await?;
    check_name(&path, &ctx.task.creds(), &name, Use::Read)?;
    check_suffix(&name)?;
    let bytes = path.inode_ref()?.get_xattr(&name)?;
    put(ctx, &bytes, value.value, value.size as usize).await
}

/// Stores a value or list; with size 0 only tells how long it is.
async fn put(ctx: &mut Ctx<'_>, bytes: &[u8], addr: u64, size: usize) -> SysResult {
    if size != 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE);
        }
        ctx.write_bytes(addr, bytes).await?;
    }
    Ok(bytes.len() as u64)
}

async fn list(ctx: &mut Ctx<'_>, object: Object, args: Args, addr: u64, size: usize) -> SysResult {
    let path = object.find(ctx, args).await?;
    let names = path.inode_ref()?.list_xattr()?;
    let trusted = ctx.task.creds().has(CapSet::SYS_ADMIN);
    let mut bytes = Vec::new();
    for name in names {
        if trusted || !name.starts_with(b"trusted.") {
            bytes.extend_from_slice(&name);
            bytes.push(0);
        }
    }
    if bytes.len() > XATTR_LIST_MAX {
        return Err(Errno::E2BIG);
    }
    put(ctx, &bytes, addr, size).await
}

async fn remove(ctx: &mut Ctx<'_>, object: Object, args: Args, name: u64) -> SysResult {
    object.flags(args)?;
    let name = read_name(ctx, name).await?;
    let path = object.find(ctx, args).await?;
    check_name(&path, &ctx.task.creds(), &name, Use::Write)?;
    check_suffix(&name)?;
    path.inode_ref()?.remove_xattr(&name)?;
    ctx.kernel.vfs.watches.happened(&path, Mask::ATTRIB);
    Ok(0)
}

pub async fn setxattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    set(ctx, FOLLOWED, args, args.raw(1), value_args(args)).await
}

pub async fn lsetxattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    set(ctx, LINK, args, args.raw(1), value_args(args)).await
}

pub async fn fsetxattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    set(ctx, Object::Fd, args, args.raw(1), value_args(args)).await
}

pub async fn getxattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    get(ctx, FOLLOWED, args, args.raw(1), value_args(args)).await
}

pub async fn lgetxattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    get(ctx, LINK, args, args.raw(1), value_args(args)).await
}

pub async fn fgetxattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    get(ctx, Object::Fd, args, args.raw(1), value_args(args)).await
}

pub async fn listxattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    list(ctx, FOLLOWED, args, args.raw(1), args.usize(2)).await
}

pub async fn llistxattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    list(ctx, LINK, args, args.raw(1), args.usize(2)).await
}

pub async fn flistxattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    list(ctx, Object::Fd, args, args.raw(1), args.usize(2)).await
}

pub async fn removexattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    remove(ctx, FOLLOWED, args, args.raw(1)).await
}

pub async fn lremovexattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    remove(ctx, LINK, args, args.raw(1)).await
}

pub async fn fremovexattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    remove(ctx, Object::Fd, args, args.raw(1)).await
}

/// Reads `struct xattr_args` of a caller that knows at least its first form.
async fn xattr_args(ctx: &mut Ctx<'_>, args: Args) -> Result<XattrArgs, Errno> {
    let size = args.usize(5);
    if size < size_of::<XattrArgs>() {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let known = ctx.read(args.ptr::<XattrArgs>(4)).await?;
    let mut beyond = vec![0; size - size_of::<XattrArgs>()];
    let rest = UserPtr::<XattrArgs>::new(args.raw(4)).element(1)?;
    ctx.read_bytes(rest.addr, &mut beyond).await?;
    if beyond.iter().any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    Ok(known)
}

pub async fn setxattrat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let value = xattr_args(ctx, args).await?;
    set(ctx, Object::At, args, args.raw(3), value).await
}

pub async fn getxattrat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let value = xattr_args(ctx, args).await?;
    if value.flags != 0 {
        return Err(Errno::EINVAL);
    }
    get(ctx, Object::At, args, args.raw(3), value).await
}

pub async fn listxattrat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    list(ctx, Object::At, args, args.raw(3), args.usize(4)).await
}

pub async fn removexattrat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    remove(ctx, Object::At, args, args.raw(3)).await
}
