//! `memfd_create(2)`.

use syscall_tables::Errno;
use syscall_tables::abi::{MemfdFlags, Seals};

use super::open::fd_flags;
use crate::ctx::{Ctx, SysResult};
use crate::user::Args;
use crate::vfs::{File, OpenMode, StatusFlags, VfsPath};

/// Longest name, without `memfd:`.
const NAME_MAX: usize = 249;

pub async fn memfd_create(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    // The bits above hold a huge page size.
    let flags = MemfdFlags::from_bits(args.u32(1) & 0x03ff_ffff).ok_or(Errno::EINVAL)?;
    if flags.contains(MemfdFlags::MFD_HUGETLB) {
        return Err(Errno::ENOSYS);
    }
    if args.u32(1) >> 26 != 0 || flags.contains(MemfdFlags::MFD_EXEC | MemfdFlags::MFD_NOEXEC_SEAL)
    {
        return Err(Errno::EINVAL);
    }
    let name = ctx
        .read_str(args.raw(0), NAME_MAX + 1, Errno::EINVAL)
        .await?;
    let noexec = flags.contains(MemfdFlags::MFD_NOEXEC_SEAL);
    let perm = if noexec { 0o666 } else { 0o777 };
    let inode = ctx.kernel.vfs.shm.unnamed_file(perm, &ctx.task.creds())?;
    let mut seals = Seals::F_SEAL_SEAL;
    if flags.contains(MemfdFlags::MFD_ALLOW_SEALING) || noexec {
        seals = Seals::empty();
    }
    if noexec {
        seals |= Seals::F_SEAL_EXEC;
    }
    inode.set_initial_seals(seals.bits());
    let display = format!("/memfd:{} (deleted)", String::from_utf8_lossy(&name));
    let path = VfsPath::anonymous(inode.clone(), display);
    let mode = OpenMode::READ | OpenMode::WRITE;
    let file = File::new(inode, path, mode, StatusFlags::LARGEFILE);
    ctx.add_fd(file, fd_flags(flags.contains(MemfdFlags::MFD_CLOEXEC)))
}
