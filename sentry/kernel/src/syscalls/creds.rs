//! User and group ids, capabilities.

use syscall_tables::Errno;
use syscall_tables::abi::{
    _LINUX_CAPABILITY_VERSION_1, _LINUX_CAPABILITY_VERSION_2, _LINUX_CAPABILITY_VERSION_3,
    CapUserData, CapUserHeader,
};

use crate::ctx::{Ctx, SysResult};
use crate::task::exec_creds::{SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP};
use crate::task::{CapSet, Creds, Gid, Task, Uid};
use crate::user::{Args, UserPtr};

/// An argument that leaves an id as it is.
const KEEP: u32 = u32::MAX;

/// Most supplementary groups.
const GROUPS_MAX: usize = 65536;

/// Capabilities that follow the file system uid.
const FS_CAPS: CapSet = CapSet::CHOWN
    .union(CapSet::DAC_OVERRIDE)
    .union(CapSet::DAC_READ_SEARCH)
    .union(CapSet::FOWNER)
    .union(CapSet::FSETID)
    .union(CapSet::LINUX_IMMUTABLE)
    .union(CapSet::MKNOD)
    .union(CapSet::MAC_OVERRIDE);

pub async fn getuid(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let creds = ctx.task.creds();
    Ok(creds.user_ns.uid_or_overflow(creds.uid).into())
}

pub async fn geteuid(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let creds = ctx.task.creds();
    Ok(creds.user_ns.uid_or_overflow(creds.euid).into())
}

pub async fn getgid(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let creds = ctx.task.creds();
    Ok(creds.user_ns.gid_or_overflow(creds.gid).into())
}

pub async fn getegid(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let creds = ctx.task.creds();
    Ok(creds.user_ns.gid_or_overflow(creds.egid).into())
}

pub async fn getresuid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let creds = ctx.task.creds();
    for (index, uid) in [creds.uid, creds.euid, creds.suid].into_iter().enumerate() {
        let shown = creds.user_ns.uid_or_overflow(uid);
        ctx.write(args.ptr(index), &shown).await?;
    }
    Ok(0)
}

pub async fn getresgid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let creds = ctx.task.creds();
    for (index, gid) in [creds.gid, creds.egid, creds.sgid].into_iter().enumerate() {
        let shown = creds.user_ns.gid_or_overflow(gid);
        ctx.write(args.ptr(index), &shown).await?;
    }
    Ok(0)
}

fn kernel_uid(creds: &Creds, uid: u32) -> Result<Uid, Errno> {
    creds.user_ns.uid_to_kernel(uid).ok_or(Errno::EINVAL)
}

fn kernel_gid(creds: &Creds, gid: u32) -> Result<Gid, Errno> {
    creds.user_ns.gid_to_kernel(gid).ok_or(Errno::EINVAL)
}

/// `None` for an id that is to stay.
fn optional_uid(creds: &Creds, uid: u32) -> Result<Option<Uid>, Errno> {
    (uid != KEEP).then(|| kernel_uid(creds, uid)).transpose()
}

fn optional_gid(creds: &Creds, gid: u32) -> Result<Option<Gid>, Errno> {
    (gid != KEEP).then(|| kernel_gid(creds, gid)).transpose()
}

/// Takes new ids into force: capabilities follow the uids, and a process with
/// other ids than before must not be looked into.
fn commit(task: &Task, old: &Creds, new: Creds) {
    let mut new = new;
    if old.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
        fix_capabilities(old, &mut new);
    }
    if (new.euid, new.egid, new.fsuid, new.fsgid) != (old.euid, old.egid, old.fsuid, old.fsgid) {
        task.mm().set_dumpable(0);
        task.pdeath_signal
            .store(0, std::sync::atomic::Ordering::Relaxed);
    }
    task.set_creds(new);
}

/// The effect of uid changes on capabilities (capabilities(7)).
fn fix_capabilities(old: &Creds, new: &mut Creds) {
    let root = old.user_ns.uid_to_kernel(0);
    let is_root = |uid: Uid| Some(uid) == root;
    let had_root = [old.uid, old.euid, old.suid].into_iter().any(is_root);
    let has_root = [new.uid, new.euid, new.suid].into_iter().any(is_root);
    if had_root && !has_root {
        if old.securebits & SECBIT_KEEP_CAPS == 0 {
            new.permitted = CapSet::empty();
            new.effective = CapSet::empty();
        }
        new.ambient = CapSet::empty();
    }
    if is_root(old.euid) && !is_root(new.euid) {
        new.effective = CapSet::empty();
    }
    if !is_root(old.euid) && is_root(new.euid) {
        new.effective = new.permitted;
    }
}

pub async fn setuid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = ctx.task.creds();
    let uid = kernel_uid(&old, args.u32(0))?;
    let mut new = Creds::clone(&old);
    if old.has_own(CapSet::SETUID) {
        new.uid = uid;
        new.suid = uid;
    } else if uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM);
    }
    new.euid = uid;
    new.fsuid = uid;
    commit(ctx.task, &old, new);
    Ok(0)
}

pub async fn setgid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = ctx.task.creds();
    let gid = kernel_gid(&old, args.u32(0))?;
    let mut new = Creds::clone(&old);
    if old.has_own(CapSet::SETGID) {
        new.gid = gid;
        new.sgid = gid;
    } else if gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM);
    }
    new.egid = gid;
    new.fsgid = gid;
    commit(ctx.task, &old, new);
    Ok(0)
}

pub async fn setreuid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = ctx.task.creds();
    let uid = optional_uid(&old, args.u32(0))?;
    let euid = optional_uid(&old, args.u32(1))?;
    let capable = old.has_own(CapSet::SETUID);
    let mut new = Creds::clone(&old);
    if let Some(uid) = uid {
        if uid != old.uid && uid != old.euid && !capable {
            return Err(Errno::EPERM);
        }
        new.uid = uid;
    }
    if let Some(euid) = euid {
        if ![old.uid, old.euid, old.suid].contains(&euid) && !capable {
            return Err(Errno::EPERM);
        }
        new.euid = euid;
    }
    if uid.is_some() || euid.is_some_and(|euid| euid != old.uid) {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    commit(ctx.task, &old, new);
    Ok(0)
}

pub async fn setregid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = ctx.task.creds();
    let gid = optional_gid(&old, args.u32(0))?;
    let egid = optional_gid(&old, args.u32(1))?;
    let capable = old.has_own(CapSet::SETGID);
    let mut new = Creds::clone(&old);
    if let Some(gid) = gid {
        if gid != old.gid && gid != old.egid && !capable {
            return Err(Errno::EPERM);
        }
        new.gid = gid;
    }
    if let Some(egid) = egid {
        if ![old.gid, old.egid, old.sgid].contains(&egid) && !capable {
            return Err(Errno::EPERM);
        }
        new.egid = egid;
    }
    if gid.is_some() || egid.is_some_and(|egid| egid != old.gid) {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    commit(ctx.task, &old, new);
    Ok(0)
}

pub async fn setresuid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = ctx.task.creds();
    let mut wanted = [None; 3];
    for (index, slot) in wanted.iter_mut().enumerate() {
        *slot = optional_uid(&old, args.u32(index))?;
    }
    let own = [old.uid, old.euid, old.suid];
    let foreign = wanted.iter().flatten().any(|uid| !own.contains(uid));
    if foreign && !old.has_own(CapSet::SETUID) {
        return Err(Errno::EPERM);
    }
    let [uid, euid, suid] = wanted;
    let mut new = Creds::clone(&old);
    new.uid = uid.unwrap_or(old.uid);
    new.euid = euid.unwrap_or(old.euid);
    new.suid = suid.unwrap_or(old.suid);
    new.fsuid = new.euid;
    commit(ctx.task, &old, new);
    Ok(0)
}

pub async fn setresgid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = ctx.task.creds();
    let mut wanted = [None; 3];
    for (index, slot) in wanted.iter_mut().enumerate() {
        *slot = optional_gid(&old, args.u32(index))?;
    }
    let own = [old.gid, old.egid, old.sgid];
    let foreign = wanted.iter().flatten().any(|gid| !own.contains(gid));
    if foreign && !old.has_own(CapSet::SETGID) {
        return Err(Errno::EPERM);
    }
    let [gid, egid, sgid] = wanted;
    let mut new = Creds::clone(&old);
    new.gid = gid.unwrap_or(old.gid);
    new.egid = egid.unwrap_or(old.egid);
    new.sgid = sgid.unwrap_or(old.sgid);
    new.fsgid = new.egid;
    commit(ctx.task, &old, new);
    Ok(0)
}

/// Answers the old id, whether or not it could be changed.
pub async fn setfsuid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = ctx.task.creds();
    let shown = old.user_ns.uid_or_overflow(old.fsuid);
    let Some(fsuid) = old.user_ns.uid_to_kernel(args.u32(0)) else {
        return Ok(shown.into());
    };
    let own = [old.uid, old.euid, old.suid, old.fsuid];
    if fsuid != old.fsuid && (own.contains(&fsuid) || old.has_own(CapSet::SETUID)) {
        let mut new = Creds::clone(&old);
        new.fsuid = fsuid;
        if old.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
            let root = old.user_ns.uid_to_kernel(0);
            if root == Some(old.fsuid) {
                new.effective.remove(FS_CAPS);
            } else if root == Some(fsuid) {
                new.effective |= new.permitted & FS_CAPS;
            }
        }
        ctx.task.mm().set_dumpable(0);
        ctx.task.set_creds(new);
    }
    Ok(shown.into())
}

pub async fn setfsgid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = ctx.task.creds();
    let shown = old.user_ns.gid_or_overflow(old.fsgid);
    let Some(fsgid) = old.user_ns.gid_to_kernel(args.u32(0)) else {
        return Ok(shown.into());
    };
    let own = [old.gid, old.egid, old.sgid, old.fsgid];
    if fsgid != old.fsgid && (own.contains(&fsgid) || old.has_own(CapSet::SETGID)) {
        let mut new = Creds::clone(&old);
        new.fsgid = fsgid;
        ctx.task.mm().set_dumpable(0);
        ctx.task.set_creds(new);
    }
    Ok(shown.into())
}

pub async fn getgroups(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let creds = ctx.task.creds();
    let size = usize::try_from(args.i32(0)).map_err(|_| Errno::EINVAL)?;
    let count = creds.groups.len();
    if size != 0 {
        if size < count {
            return Err(Errno::EINVAL);
        }
        let shown: Vec<u32> = creds
            .groups
            .iter()
            .map(|gid| creds.user_ns.gid_or_overflow(*gid))
            .collect();
        ctx.write_array(args.ptr(1), &shown).await?;
    }
    Ok(count as u64)
}

pub async fn setgroups(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let creds = ctx.task.creds();
    if !creds.has_own(CapSet::SETGID) || !creds.user_ns.may_setgroups() {
        return Err(Errno::EPERM);
    }
    let count = usize::try_from(args.u32(0)).map_err(|_| Errno::EINVAL)?;
    if count > GROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let given = ctx.read_array::<u32>(args.ptr(1), count).await?;
    let groups: Result<Vec<Gid>, Errno> =
        given.iter().map(|gid| kernel_gid(&creds, *gid)).collect();
    let mut groups = groups?;
    groups.sort();
    let mut new = Creds::clone(&creds);
    new.groups = groups.into();
    ctx.task.set_creds(new);
    Ok(0)
}

/// How many [`CapUserData`] a header's version comes with. An unknown one is
/// answered with the one to use.
async fn cap_words(
    ctx: &mut Ctx<'_>,
    ptr: UserPtr<CapUserHeader>,
) -> Result<(CapUserHeader, usize), Errno> {
    let header = ctx.read(ptr).await?;
    match header.version {
        _LINUX_CAPABILITY_VERSION_1 => Ok((header, 1)),
        _LINUX_CAPABILITY_VERSION_2 | _LINUX_CAPABILITY_VERSION_3 => Ok((header, 2)),
        _ => {
            ctx.write(UserPtr::new(ptr.addr), &_LINUX_CAPABILITY_VERSION_3)
                .await?;
            Err(Errno::EINVAL)
        }
    }
}

const fn half(set: CapSet, index: usize) -> u32 {
    (set.bits() >> (32 * index)) as u32
}

pub async fn capget(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let data = args.ptr::<CapUserData>(1);
    let (header, words) = match cap_words(ctx, args.ptr(0)).await {
        // Asking for the version alone is fine.
        Err(Errno::EINVAL) if data.is_null() => return Ok(0),
        other => other?,
    };
    if header.pid < 0 {
        return Err(Errno::EINVAL);
    }
    let creds = if header.pid == 0 {
        ctx.task.creds()
    } else {
        let task = ctx.task.pid_ns().task(header.pid).ok_or(Errno::ESRCH)?;
        task.creds()
    };
    if data.is_null() {
        return Ok(0);
    }
    let all: Vec<CapUserData> = (0..words)
        .map(|index| CapUserData {
            effective: half(creds.effective, index),
            permitted: half(creds.permitted, index),
            inheritable: half(creds.inheritable, index),
        })
        .collect();
    ctx.write_array(data, &all).await?;
    Ok(0)
}

pub async fn capset(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (header, words) = cap_words(ctx, args.ptr(0)).await?;
    let own = ctx.task.tid_in(&ctx.task.pid_ns());
    if header.pid != 0 && header.pid != own {
        return Err(Errno::EPERM);
    }
    let given = ctx.read_array::<CapUserData>(args.ptr(1), words).await?;
    let join = |part: fn(&CapUserData) -> u32| {
        let mut bits = 0;
        for (index, data) in given.iter().enumerate() {
            bits |= u64::from(part(data)) << (32 * index);
        }
        CapSet::from_bits_truncate(bits)
    };
    let effective = join(|data| data.effective);
    let permitted = join(|data| data.permitted);
    let inheritable = join(|data| data.inheritable);
    let old = ctx.task.creds();
    let may_inherit = old.inheritable | old.permitted;
    let too_much_inheritable = !old.has_own(CapSet::SETPCAP) && !may_inherit.contains(inheritable);
    if too_much_inheritable
        || !(old.inheritable | old.bounding).contains(inheritable)
        || !old.permitted.contains(permitted)
        || !permitted.contains(effective)
    {
        return Err(Errno::EPERM);
    }
    let mut new = Creds::clone(&old);
    new.effective = effective;
    new.permitted = permitted;
    new.inheritable = inheritable;
    new.ambient &= permitted & inheritable;
    ctx.task.set_creds(new);
    Ok(0)
}
