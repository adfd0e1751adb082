//! `mmap`, `munmap`, `mprotect`, `brk`, `mremap` and their relatives.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use sentry_platform::{Protection, host};
use syscall_tables::Errno;
use syscall_tables::abi::{
    MapFlags, MremapFlags, PAGE_SIZE, ProtFlags, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK,
    RLIMIT_STACK,
};

use crate::ctx::{Ctx, SysResult};
use crate::kernel::Kernel;
use crate::mm::{
    Backing, Extend, FutexObject, Holder, Limits, MapRequest, Mapped, Place, RemapRequest, Via,
    VmaFlags, is_page_aligned, page_ceil, page_range,
};
use crate::task::CapSet;
use crate::user::Args;
use crate::vfs::{Fd, File, FileKind, MapSource, MountFlags, OpenMode, ReadOnlyFd, StatusFlags};

/// The caller's limits on memory.
pub(super) fn limits(ctx: &Ctx<'_>) -> Limits {
    let limits = ctx.task.group.limits();
    let may_lock = ctx.task.creds().has(CapSet::IPC_LOCK);
    Limits {
        address_space: limits.soft(RLIMIT_AS),
        data: limits.soft(RLIMIT_DATA),
        stack: limits.soft(RLIMIT_STACK),
        locked: if may_lock {
            u64::MAX
        } else {
            limits.soft(RLIMIT_MEMLOCK)
        },
    }
}

/// Access rights of `PROT_*` bits; others are for the caller.
fn protection(prot: ProtFlags) -> Protection {
    let mut protection = Protection::empty();
    protection.set(Protection::READ, prot.contains(ProtFlags::PROT_READ));
    protection.set(Protection::WRITE, prot.contains(ProtFlags::PROT_WRITE));
    protection.set(Protection::EXEC, prot.contains(ProtFlags::PROT_EXEC));
    protection
}

/// A memory object of its own for a shared anonymous mapping.
fn shared_anonymous(len_bytes: u64) -> Result<Arc<Mapped>, Errno> {
    let len = page_ceil(len_bytes).ok_or(Errno::ENOMEM)?;
    let fd = host::memfd::create("shared", len).map_err(|error| match error {
        // A size beyond what files can have.
        Errno::EINVAL | Errno::EFBIG => Errno::ENOMEM,
        other => other,
    })?;
    let fd = Arc::new(fd);
    Ok(Arc::new(Mapped {
        object: FutexObject::Anonymous(Arc::as_ptr(&fd).addr()),
        fd,
        holder: Holder::SharedAnonymous,
    }))
}

/// `fd` itself if it can't be written through, or else the descriptor in
/// `read_only`: on some platforms guest code can change the protection of a
/// mapping without the kernel's leave, and the host must refuse it then.
pub(super) async fn without_write(
    kernel: &Kernel,
    fd: Arc<OwnedFd>,
    read_only: &ReadOnlyFd,
) -> Result<Arc<OwnedFd>, Errno> {
    if host::file::is_read_only(&fd)? {
        return Ok(fd);
    }
    if let Some(known) = read_only.get() {
        return Ok(known.clone());
    }
    let made = Arc::new(kernel.platform.read_only(fd.as_fd()).await?);
    Ok(read_only.get_or_init(|| made).clone())
}

/// What a mapping of `file` shows and may become.
async fn file_backing(
    kernel: &Kernel,
    file: Arc<File>,
    shared: bool,
    wanted: Protection,
    len_bytes: u64,
    offset: u64,
) -> Result<(Backing, Protection), Errno> {
    if file.status().contains(StatusFlags::PATH) {
        return Err(Errno::EBADF);
    }
    let mut max = Protection::all();
    if shared && !file.mode.contains(OpenMode::WRITE) {
        if wanted.contains(Protection::WRITE) {
            return Err(Errno::EACCES);
        }
        max.remove(Protection::WRITE);
    }
    if !file.mode.contains(OpenMode::READ) {
        return Err(Errno::EACCES);
    }
    // Pipes, sockets and their like are on file systems without execution.
    let anonymous = file.path.is_anonymous() && file.path.inode_ref()?.kind() != FileKind::Regular;
    if anonymous || file.path.mount.flags().contains(MountFlags::NOEXEC) {
        if wanted.contains(Protection::EXEC) {
            return Err(Errno::EPERM);
        }
        max.remove(Protection::EXEC);
    }
    let backing = match file.ops.map(&file)? {
        MapSource::Host {
            fd,
            object,
            read_only,
        } => {
            let fd = if shared && !max.contains(Protection::WRITE) {
                without_write(kernel, fd, &read_only).await?
            } else {
                fd
            };
            let mapped = Mapped {
                fd,
                object: FutexObject::File(object),
                holder: Holder::File(file),
            };
            Backing::Object(Arc::new(mapped), offset)
        }
        MapSource::Zero if shared => Backing::Object(shared_anonymous(len_bytes)?, 0),
        MapSource::Zero => Backing::Anonymous,
    };
    Ok((backing, max))
}

/// Checks that come before those of the kind of mapping.
fn check_place(addr: u64, len: u64, flags: MapFlags, top: u64) -> Result<(), Errno> {
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let len = page_ceil(len).ok_or(Errno::ENOMEM)?;
    let last = top.checked_sub(len).ok_or(Errno::ENOMEM)?;
    if flags.intersects(MapFlags::MAP_FIXED | MapFlags::MAP_FIXED_NOREPLACE) {
        if addr > last {
            return Err(Errno::ENOMEM);
        }
        if !is_page_aligned(addr) {
            return Err(Errno::EINVAL);
        }
    }
    Ok(())
}

pub async fn mmap(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [addr, len, _, _, _, offset] = args.0;
    let prot = ProtFlags::from_bits_truncate(args.u32(2));
    let flags = MapFlags::from_bits_retain(args.u32(3));
    if !is_page_aligned(offset) {
        return Err(Errno::EINVAL);
    }
    let anonymous = flags.contains(MapFlags::MAP_ANONYMOUS);
    let file = if anonymous {
        None
    } else {
        Some(ctx.task.files().get(Fd(args.i32(4)))?)
    };
    if flags.contains(MapFlags::MAP_HUGETLB) {
        // No huge pages are reserved, and no file is on hugetlbfs.
        return Err(if anonymous {
            Errno::ENOMEM
        } else {
            Errno::EINVAL
        });
    }
    check_place(addr, len, flags, ctx.task.mm().guest_range().end)?;
    let map_type = MapFlags::from_bits_retain(flags.map_type());
    let shared = match map_type {
        MapFlags::MAP_PRIVATE => false,
        MapFlags::MAP_SHARED => true,
        MapFlags::MAP_SHARED_VALIDATE if !anonymous => {
            let options = MapFlags::from_bits(flags.bits() & !MapFlags::TYPE);
            if flags.contains(MapFlags::MAP_SYNC) || options.is_none() {
                return Err(Errno::EOPNOTSUPP);
            }
            true
        }
        _ => return Err(Errno::EINVAL),
    };

    let limits = limits(ctx);
    let mut vma_flags = VmaFlags::empty();
    vma_flags.set(VmaFlags::SHARED, shared);
    vma_flags.set(VmaFlags::NORESERVE, flags.contains(MapFlags::MAP_NORESERVE));
    if flags.contains(MapFlags::MAP_LOCKED) {
        if limits.locked == 0 {
            return Err(Errno::EPERM);
        }
        vma_flags.insert(VmaFlags::LOCKED);
    }
    if flags.contains(MapFlags::MAP_GROWSDOWN) {
        if shared || !anonymous {
            return Err(Errno::EINVAL);
        }
        vma_flags.insert(VmaFlags::GROWSDOWN);
    }
    let wanted = protection(prot);
    let (backing, max_protection) = match file {
        Some(file) => file_backing(ctx.kernel, file, shared, wanted, len, offset).await?,
        None if shared => (
            Backing::Object(shared_anonymous(len)?, 0),
            Protection::all(),
        ),
        None => (Backing::Anonymous, Protection::all()),
    };
    if matches!(&backing, Backing::Anonymous) {
        vma_flags.remove(VmaFlags::SHARED);
    }
    let place = if flags.contains(MapFlags::MAP_FIXED_NOREPLACE) {
        Place::FixedNoReplace(addr)
    } else if flags.contains(MapFlags::MAP_FIXED) {
        Place::Fixed(addr)
    } else if flags.contains(MapFlags::MAP_32BIT) {
        Place::Low(addr)
    } else {
        Place::Hint(addr)
    };
    let request = MapRequest {
        place,
        len_bytes: len,
        protection: wanted,
        max_protection,
        flags: vma_flags,
        backing,
        populate: flags.contains(MapFlags::MAP_POPULATE) && !flags.contains(MapFlags::MAP_NONBLOCK),
    };
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    mm.map(&mut via, request, &limits).await
}

pub async fn munmap(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    mm.unmap(&mut via, args.raw(0), args.raw(1)).await?;
    Ok(0)
}

pub async fn brk(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let limits = limits(ctx);
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    Ok(mm.brk(&mut via, args.raw(0), &limits).await)
}

pub async fn mprotect(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let prot = ProtFlags::from_bits(args.u32(2)).ok_or(Errno::EINVAL)?;
    let extend = match (
        prot.contains(ProtFlags::PROT_GROWSDOWN),
        prot.contains(ProtFlags::PROT_GROWSUP),
    ) {
        (false, false) => Extend::No,
        (true, false) => Extend::Down,
        // Nothing grows up on this machine.
        _ => return Err(Errno::EINVAL),
    };
    let limits = limits(ctx);
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    let (addr, len) = (args.raw(0), args.raw(1));
    mm.protect(&mut via, addr, len, protection(prot), extend, &limits)
        .await?;
    Ok(0)
}

/// `pkey_mprotect(2)`: no protection keys, as on a machine without them.
pub async fn pkey_mprotect(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.i32(3) != -1 {
        return Err(Errno::EINVAL);
    }
    mprotect(ctx, args).await
}

pub async fn mremap(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [addr, old_len_bytes, new_len_bytes, _, new_addr, _] = args.0;
    let flags = MremapFlags::from_bits(args.u32(3)).ok_or(Errno::EINVAL)?;
    let may_move = flags.contains(MremapFlags::MREMAP_MAYMOVE);
    let fixed = flags.contains(MremapFlags::MREMAP_FIXED);
    let keep_source = flags.contains(MremapFlags::MREMAP_DONTUNMAP);
    if (fixed || keep_source) && !may_move {
        return Err(Errno::EINVAL);
    }
    if keep_source && page_ceil(old_len_bytes) != page_ceil(new_len_bytes) {
        return Err(Errno::EINVAL);
    }
    let request = RemapRequest {
        addr,
        old_len_bytes,
        new_len_bytes,
        may_move,
        fixed: fixed.then_some(new_addr),
        hint: if keep_source { new_addr } else { 0 },
        keep_source,
    };
    let limits = limits(ctx);
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    mm.remap(&mut via, request, &limits).await
}

/// `remap_file_pages(2)`, emulated by a fixed mapping as Linux does.
pub async fn remap_file_pages(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [addr, len, prot, page_offset, _, _] = args.0;
    if prot != 0 {
        return Err(Errno::EINVAL);
    }
    let addr = crate::mm::page_floor(addr);
    let len = crate::mm::page_floor(len);
    let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
    let offset = page_offset.checked_mul(PAGE_SIZE).ok_or(Errno::EINVAL)?;
    if offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    let mm = ctx.task.mm();
    let vma = mm.vma_at(addr).ok_or(Errno::EINVAL)?;
    let Backing::Object(mapped, _) = &vma.backing else {
        return Err(Errno::EINVAL);
    };
    if len == 0 || end > vma.end || !vma.is_shared() {
        return Err(Errno::EINVAL);
    }
    let request = MapRequest {
        place: Place::Fixed(addr),
        len_bytes: len,
        protection: vma.protection,
        max_protection: vma.max_protection,
        flags: vma.flags,
        backing: Backing::Object(mapped.clone(), offset),
        populate: false,
    };
    let limits = limits(ctx);
    let mut via = Via::Thread(ctx.thread.as_mut());
    mm.map(&mut via, request, &limits).await?;
    Ok(0)
}

pub async fn mseal(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.raw(2) != 0 {
        return Err(Errno::EINVAL);
    }
    page_range(args.raw(0), args.raw(1), Errno::EINVAL)?;
    ctx.task.mm().seal(args.raw(0), args.raw(1)).await?;
    Ok(0)
}
