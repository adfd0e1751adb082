//! `unshare`, `setns`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::CloneFlags;

use crate::ctx::{Ctx, SysResult};
use crate::task::access::AccessCreds;
use crate::task::clone::{enter_new_user_ns, new_namespaces};
use crate::task::nsfs::{Namespace, NsFile};
use crate::task::pidfd::Pidfd;
use crate::task::{CapSet, Creds, Namespaces, Task};
use crate::user::Args;
use crate::vfs::{Fd, FsState};

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
    if flags.contains(CloneFlags::CLONE_NEWTIME) {
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

/// Kinds of namespaces that a pidfd stands for together.
const PIDFD_FLAGS: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUSER)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWCGROUP)
    .union(CloneFlags::CLONE_NEWTIME);

/// Names of `/proc/PID/ns` in the order they are entered.
const ENTER_ORDER: [&str; 8] = ["user", "mnt", "uts", "ipc", "pid", "cgroup", "net", "time"];

pub async fn setns(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let wanted = CloneFlags::from_bits_retain(u64::from(args.u32(1)));
    if let Some(ns) = file.downcast::<NsFile>() {
        let ns = ns.namespace();
        if !wanted.is_empty() && wanted != ns.flag() {
            return Err(Errno::EINVAL);
        }
        let mut new = NewState::of(ctx.task);
        new.enter(ctx.task, ns)?;
        new.commit(ctx.task);
        return Ok(0);
    }
    let target = match Pidfd::of(&file) {
        Ok(pidfd) => pidfd.task()?,
        Err(_) => return Err(Errno::EINVAL),
    };
    if wanted.is_empty() || !PIDFD_FLAGS.contains(wanted) {
        return Err(Errno::EINVAL);
    }
    if target.has_exited() {
        return Err(Errno::ESRCH);
    }
    if !target.may_be_accessed_by(ctx.task, AccessCreds::Real) {
        return Err(Errno::EPERM);
    }
    let mut new = NewState::of(ctx.task);
    for name in ENTER_ORDER {
        let ns = Namespace::of(&target, name).ok_or(Errno::EINVAL)?;
        if wanted.contains(ns.flag()) {
            new.enter(ctx.task, &ns)?;
        }
    }
    new.commit(ctx.task);
    Ok(0)
}

/// What `setns` will put in force when all of it is allowed.
struct NewState {
    creds: Creds,
    namespaces: Namespaces,
    fs: Option<FsState>,
}

impl NewState {
    fn of(task: &Task) -> Self {
        Self {
            creds: Creds::clone(&task.creds()),
            namespaces: Namespaces::clone(&task.namespaces()),
            fs: None,
        }
    }

    fn require(&self, allowed: bool) -> Result<(), Errno> {
        if allowed { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn enter(&mut self, task: &Task, ns: &Namespace) -> Result<(), Errno> {
        let admin = self.creds.has_in(&ns.owner(), CapSet::SYS_ADMIN)
            && self.creds.has_own(CapSet::SYS_ADMIN);
        match ns {
            Namespace::User(ns) => {
                if Arc::ptr_eq(ns, &self.creds.user_ns) {
                    return Err(Errno::EINVAL);
                }
                let shared_fs = Arc::strong_count(&task.fs()) > 2;
                if task.group.thread_count() > 1 || shared_fs {
                    return Err(Errno::EINVAL);
                }
                self.require(self.creds.has_in(ns, CapSet::SYS_ADMIN))?;
                self.creds = self.creds.in_user_ns(ns.clone());
            }
            Namespace::Uts(ns) => {
                self.require(admin)?;
                self.namespaces.uts = ns.clone();
            }
            Namespace::Pid(ns) => {
                self.require(admin)?;
                // Only downwards.
                if !task.pid_ns().contains(ns) {
                    return Err(Errno::EINVAL);
                }
                self.namespaces.pid_for_children = ns.clone();
            }
            Namespace::Mount(ns) => {
                self.require(admin && self.creds.has_own(CapSet::SYS_CHROOT))?;
                if Arc::strong_count(&task.fs()) > 2 {
                    return Err(Errno::EINVAL);
                }
                let umask = task.fs().state.read().umask;
                let mut state = FsState::at_root_of(ns).ok_or(Errno::EINVAL)?;
                state.umask = umask;
                self.fs = Some(state);
            }
            Namespace::Ipc(ns) => {
                self.require(admin)?;
                self.namespaces.ipc = ns.clone();
            }
            Namespace::Net(id) => {
                self.require(admin)?;
                self.namespaces.net_id = *id;
            }
            Namespace::Cgroup(id) => {
                self.require(admin)?;
                self.namespaces.cgroup_id = *id;
            }
            Namespace::Time => self.require(admin)?,
        }
        Ok(())
    }

    fn commit(self, task: &Task) {
        if let Some(state) = self.fs {
            *task.fs().state.write() = state;
        }
        task.set_namespaces(self.namespaces);
        task.set_creds(self.creds);
    }
}
