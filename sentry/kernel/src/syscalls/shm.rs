//! System V shared memory.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, PAGE_SIZE, SHM_INFO, SHM_LOCK, SHM_STAT, SHM_STAT_ANY,
    SHM_UNLOCK, SHMMIN, ShmFlags, ShmInfo, ShmidDs, Shminfo,
};

use super::memory::{limits, without_write};
use crate::ctx::{Ctx, SysResult};
use crate::ipc::{Object, READ, WRITE};
use crate::mm::{
    Backing, MapRequest, Mapped, Place, Via, VmaFlags, is_page_aligned, page_ceil, page_floor,
};
use crate::task::CapSet;
use crate::user::Args;
use sentry_platform::Protection;

/// Id of an object as a result.
pub(super) fn id_result(id: i32) -> SysResult {
    Ok(u64::from(id.unsigned_abs()))
}

pub async fn shmget(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let ns = ctx.task.namespaces().ipc.clone();
    let pid = ctx.task.group.pid();
    let creds = ctx.task.creds();
    id_result(ns.shmget(args.i32(0), args.raw(1), args.u32(2), &creds, pid)?)
}

pub async fn shmat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mut addr = args.raw(1);
    let flags = ShmFlags::from_bits_truncate(args.u32(2));
    if args.i32(0) < 0 {
        return Err(Errno::EINVAL);
    }
    let remap = flags.contains(ShmFlags::SHM_REMAP);
    if addr != 0 {
        if !is_page_aligned(addr) {
            if !flags.contains(ShmFlags::SHM_RND) {
                return Err(Errno::EINVAL);
            }
            addr = page_floor(addr);
            if addr == 0 && remap {
                return Err(Errno::EINVAL);
            }
        }
    } else if remap {
        return Err(Errno::EINVAL);
    }
    let mut protection = Protection::READ;
    let mut wanted = READ;
    if !flags.contains(ShmFlags::SHM_RDONLY) {
        protection |= Protection::WRITE;
        wanted |= WRITE;
    }
    if flags.contains(ShmFlags::SHM_EXEC) {
        protection |= Protection::EXEC;
        wanted |= 0o111;
    }
    let ns = ctx.task.namespaces().ipc.clone();
    let segment = ns.shm.get(args.i32(0))?;
    let creds = ctx.task.creds();
    let pid = ctx.task.group.pid();
    let mapped = segment.attach(&creds, &ns.user_ns, wanted, pid)?;
    let place = match addr {
        0 => Place::Hint(0),
        addr if remap => Place::Fixed(addr),
        addr => Place::FixedNoReplace(addr),
    };
    let mut max_protection = Protection::all();
    let mut mapped = mapped;
    if flags.contains(ShmFlags::SHM_RDONLY) {
        max_protection.remove(Protection::WRITE);
        let fd = without_write(ctx.kernel, mapped.fd.clone(), &segment.read_only).await?;
        mapped = Arc::new(Mapped {
            fd,
            ..Mapped::clone(&mapped)
        });
    }
    let request = MapRequest {
        place,
        len_bytes: segment.size_bytes(),
        protection,
        max_protection,
        flags: VmaFlags::SHARED,
        backing: Backing::Object(mapped, 0),
        populate: false,
    };
    let limits = limits(ctx);
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    match mm.map(&mut via, request, &limits).await {
        Err(Errno::EEXIST) => Err(Errno::EINVAL),
        result => result,
    }
}

pub async fn shmdt(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let addr = args.raw(0);
    if !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    mm.detach(&mut via, addr).await?;
    Ok(0)
}

pub async fn shmctl(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let ns = ctx.task.namespaces().ipc.clone();
    let creds = ctx.task.creds();
    let pids = ctx.task.pid_ns();
    let id = args.i32(0);
    let command = args.u32(1);
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        IPC_INFO => {
            let info = Shminfo {
                shmmax: ns.settings.shmmax.get(),
                shmmin: SHMMIN,
                shmmni: ns.settings.shmmni.get(),
                shmseg: ns.settings.shmmni.get(),
                shmall: ns.settings.shmall.get(),
                ..Shminfo::default()
            };
            ctx.write(args.ptr(2), &info).await?;
            Ok(ns.shm.max_index())
        }
        SHM_INFO => {
            let pages = |size: u64| page_ceil(size).unwrap_or(size) / PAGE_SIZE;
            let total = ns
                .shm
                .list()
                .iter()
                .map(|(_, segment)| pages(segment.size_bytes()))
                .sum();
            let info = ShmInfo {
                used_ids: i32::try_from(ns.shm.count()).unwrap_or(i32::MAX),
                shm_tot: total,
                ..ShmInfo::default()
            };
            ctx.write(args.ptr(2), &info).await?;
            Ok(ns.shm.max_index())
        }
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let (result, segment) = if command == IPC_STAT {
                (0, ns.shm.get(id)?)
            } else {
                let (id, segment) = ns.shm.at_index(id)?;
                (id, segment)
            };
            if command != SHM_STAT_ANY {
                segment.with_perm(|perm| perm.check(&creds, &ns.user_ns, READ))?;
            }
            ctx.write(args.ptr(2), &segment.stat(&creds, &pids)).await?;
            id_result(result)
        }
        IPC_SET => {
            let new = ctx.read(args.ptr::<ShmidDs>(2)).await?;
            let segment = ns.shm.get(id)?;
            segment.with_perm(|perm| perm.check_owner(&creds, &ns.user_ns))?;
            segment.set(&new, &creds)?;
            Ok(0)
        }
        IPC_RMID => {
            let segment = ns.shm.get(id)?;
            segment.with_perm(|perm| perm.check_owner(&creds, &ns.user_ns))?;
            segment.remove(&ns);
            Ok(0)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let segment = ns.shm.get(id)?;
            if !creds.has_in(&ns.user_ns, CapSet::IPC_LOCK) {
                let euid = creds.euid;
                let is_owner = segment.with_perm(|perm| perm.uid == euid || perm.cuid == euid);
                if !is_owner {
                    return Err(Errno::EPERM);
                }
                if command == SHM_LOCK && limits(ctx).locked == 0 {
                    return Err(Errno::EPERM);
                }
            }
            segment.set_locked(command == SHM_LOCK);
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
