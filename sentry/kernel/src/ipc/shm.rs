//! Shared memory segments: a memfd each.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sentry_platform::host;
use syscall_tables::Errno;
use syscall_tables::abi::{PAGE_SIZE, SHM_DEST, SHM_LOCKED, SHMMIN, ShmFlags, ShmidDs};

use super::{IpcNamespace, Object, Perm, now};
use crate::mm::{Attachment, FutexObject, Holder, Mapped, page_ceil};
use crate::task::{Creds, Pid, PidNamespace, UserNamespace};
use crate::vfs::ReadOnlyFd;

struct State {
    perm: Perm,
    /// Attaches there are.
    attached: u64,
    /// `IPC_RMID` was called; goes with the last attach.
    is_removed: bool,
    is_locked: bool,
    attach_time: i64,
    detach_time: i64,
    change_time: i64,
    creator: Arc<Pid>,
    last: Option<Arc<Pid>>,
}

/// A shared memory segment.
pub struct Segment {
    state: Mutex<State>,
    fd: Arc<OwnedFd>,
    pub(crate) read_only: ReadOnlyFd,
    size_bytes: u64,
    ns: Weak<IpcNamespace>,
}

impl Object for Segment {
    fn with_perm<T>(&self, look: impl FnOnce(&mut Perm) -> T) -> T {
        look(&mut self.state.lock().perm)
    }
}

impl IpcNamespace {
    /// `shmget(2)`.
    pub fn shmget(
        &self,
        key: i32,
        size_bytes: u64,
        flags: u32,
        creds: &Creds,
        pid: &Arc<Pid>,
    ) -> Result<i32, Errno> {
        let fits = |segment: &Segment| {
            if size_bytes > segment.size_bytes {
                return Err(Errno::EINVAL);
            }
            Ok(())
        };
        let ns = self.this.clone();
        let make = |perm| {
            if !(SHMMIN..=self.settings.shmmax.get()).contains(&size_bytes) {
                return Err(Errno::EINVAL);
            }
            if flags & ShmFlags::SHM_HUGETLB.bits() != 0 {
                // No huge pages are reserved.
                return Err(Errno::ENOMEM);
            }
            let len = page_ceil(size_bytes).ok_or(Errno::ENOSPC)?;
            if len / PAGE_SIZE > self.settings.shmall.get() {
                return Err(Errno::ENOSPC);
            }
            let fd = host::memfd::create("sysv", len).map_err(|error| match error {
                Errno::EINVAL | Errno::EFBIG => Errno::ENOMEM,
                other => other,
            })?;
            Ok(Arc::new(Segment {
                state: Mutex::new(State {
                    perm,
                    attached: 0,
                    is_removed: false,
                    is_locked: false,
                    attach_time: 0,
                    detach_time: 0,
                    change_time: now(),
                    creator: pid.clone(),
                    last: None,
                }),
                fd: Arc::new(fd),
                read_only: ReadOnlyFd::default(),
                size_bytes,
                ns,
            }))
        };
        let most = self.settings.shmmni.get();
        self.shm
            .get_or_make(key, flags, creds, &self.user_ns, most, fits, make)
    }
}

impl Segment {
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// A new attach for a mapping; `EIDRM` if the segment is gone.
    pub fn attach(
        self: &Arc<Self>,
        creds: &Creds,
        ns: &Arc<UserNamespace>,
        wanted: u32,
        pid: &Arc<Pid>,
    ) -> Result<Arc<Mapped>, Errno> {
        let mut state = self.state.lock();
        state.perm.check(creds, ns, wanted)?;
        if state.is_removed && state.attached == 0 {
            return Err(Errno::EIDRM);
        }
        state.attached += 1;
        state.attach_time = now();
        state.last = Some(pid.clone());
        drop(state);
        let attachment = Attached {
            segment: self.clone(),
            pid: pid.clone(),
        };
        Ok(Arc::new(Mapped {
            fd: self.fd.clone(),
            object: FutexObject::Anonymous(Arc::as_ptr(&self.fd).addr()),
            holder: Holder::Attachment(Arc::new(attachment)),
        }))
    }

    fn detach(&self, pid: &Arc<Pid>) {
        let mut state = self.state.lock();
        state.attached -= 1;
        state.detach_time = now();
        state.last = Some(pid.clone());
        let gone = (state.is_removed && state.attached == 0).then_some(state.perm.id);
        drop(state);
        if let (Some(id), Some(ns)) = (gone, self.ns.upgrade()) {
            ns.shm.remove(id);
        }
    }

    /// `IPC_RMID`: the segment goes once nobody is attached.
    pub fn remove(&self, ns: &IpcNamespace) {
        let mut state = self.state.lock();
        let id = state.perm.id;
        state.is_removed = true;
        state.perm.key = syscall_tables::abi::IPC_PRIVATE;
        let unused = state.attached == 0;
        drop(state);
        ns.shm.forget_key(id);
        if unused {
            ns.shm.remove(id);
        }
    }

    /// `IPC_SET`.
    pub fn set(&self, new: &ShmidDs, creds: &Creds) -> Result<(), Errno> {
        let mut state = self.state.lock();
        state.perm.set(&new.shm_perm, creds)?;
        state.change_time = now();
        Ok(())
    }

    /// `SHM_LOCK` and `SHM_UNLOCK`.
    pub fn set_locked(&self, locked: bool) {
        self.state.lock().is_locked = locked;
    }

    /// `IPC_STAT`, with process ids as `pids` sees them.
    pub fn stat(&self, creds: &Creds, pids: &Arc<PidNamespace>) -> ShmidDs {
        let state = self.state.lock();
        let mut perm = state.perm.abi(creds);
        if state.is_removed {
            perm.mode |= SHM_DEST;
        }
        if state.is_locked {
            perm.mode |= SHM_LOCKED;
        }
        ShmidDs {
            shm_perm: perm,
            shm_segsz: self.size_bytes,
            shm_atime: state.attach_time,
            shm_dtime: state.detach_time,
            shm_ctime: state.change_time,
            shm_cpid: state.creator.number_in(pids),
            shm_lpid: super::number(state.last.as_ref(), pids),
            shm_nattch: state.attached,
            ..ShmidDs::default()
        }
    }
}

/// One attach: counted for as long as a mapping holds it.
struct Attached {
    segment: Arc<Segment>,
    pid: Arc<Pid>,
}

impl Attachment for Attached {
    fn reattach(&self) -> Arc<dyn Attachment> {
        let mut state = self.segment.state.lock();
        state.attached += 1;
        state.attach_time = now();
        drop(state);
        Arc::new(Self {
            segment: self.segment.clone(),
            pid: self.pid.clone(),
        })
    }

    fn name(&self) -> String {
        let key = self.segment.state.lock().perm.key;
        format!("/SYSV{:08x} (deleted)", key.cast_unsigned())
    }

    fn ino(&self) -> u64 {
        let id = self.segment.state.lock().perm.id;
        u64::from(id.unsigned_abs())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.segment.detach(&self.pid);
    }
}
