//! `O_ASYNC`: signals that tell of readiness (`fcntl(2)`, `F_SETOWN`).
//!
//! An observer on the file's wait queue hands each event to the executor,
//! which sends the signal: no lock of a file is held while signals are sent.

use std::sync::{Arc, Weak};

use syscall_tables::Errno;
use syscall_tables::abi::{
    F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, POLL_ERR, POLL_HUP, POLL_IN, POLL_MSG, POLL_OUT,
    POLL_PRI, SigInfo, Signal,
};

use super::dnotify::DirNotify;
use super::{File, FileOwner, OpenMode};
use crate::kernel::Kernel;
use crate::signal::Origin;
use crate::sync::{Events, Observer, Subscription};
use crate::task::{Creds, Pid, Task};

/// State of `O_ASYNC` of one file.
#[derive(Default)]
pub struct AsyncIo {
    owner: FileOwner,
    target: Option<(Arc<Pid>, Arc<Creds>)>,
    /// Descriptor that `O_ASYNC` was set through.
    fd: i32,
    subscription: Option<Subscription>,
    /// State of `F_NOTIFY`.
    pub(super) dir_notify: Option<DirNotify>,
}

/// `si_band` of a message: `POLLIN`, `POLLRDNORM` and `POLLMSG`.
const BAND_MESSAGE: i64 = 0x441;

impl AsyncIo {
    /// Owner and signal as the guest gave them.
    pub fn owner(&self) -> FileOwner {
        self.owner
    }

    /// `F_SETSIG`.
    pub fn set_signal(&mut self, signal: i32) {
        self.owner.signal = signal;
    }

    /// `F_SETOWN` and `F_SETOWN_EX`: `id` is one of the caller's pid
    /// namespace; 0 is nobody. `ESRCH` if there is no such process.
    pub fn set_owner(&mut self, caller: &Task, kind: i32, id: i32) -> Result<(), Errno> {
        let target = if id == 0 {
            None
        } else {
            let pid = caller.pid_ns().pid(id).ok_or(Errno::ESRCH)?;
            Some((pid, caller.creds()))
        };
        self.owner.kind = kind;
        self.owner.id = id;
        self.target = target;
        Ok(())
    }

    /// The caller's process becomes the owner where there is none.
    pub(super) fn own_by_default(&mut self, caller: &Task) -> Result<(), Errno> {
        if self.target.is_some() {
            return Ok(());
        }
        let own = caller.group.id_in(&caller.pid_ns());
        self.set_owner(caller, F_OWNER_PID.cast_signed(), own)
    }

    fn send(&self, events: Events) {
        let code = if events.contains(Events::HUP) {
            POLL_HUP
        } else if events.contains(Events::ERR) {
            POLL_ERR
        } else if events.contains(Events::PRI) {
            POLL_PRI
        } else if events.intersects(Events::READABLE) {
            POLL_IN
        } else {
            POLL_OUT
        };
        self.tell_owner(code, i64::from(events.bits()), self.fd);
    }

    /// A directory open as `fd` has changed.
    pub(super) fn send_message(&self, fd: i32) {
        self.tell_owner(POLL_MSG, BAND_MESSAGE, fd);
    }

    fn tell_owner(&self, code: i32, band: i64, fd: i32) {
        let Some((pid, creds)) = &self.target else {
            return;
        };
        let info = match Signal::from_raw(self.owner.signal) {
            None => SigInfo::kernel(Signal::SIGIO),
            Some(signal) => SigInfo::poll(signal, code, band, fd),
        };
        if self.owner.kind == F_OWNER_PGRP.cast_signed() {
            for member in pid.process_group().iter().flat_map(|group| group.members()) {
                if member.leader().is_some_and(|task| may_tell(creds, &task)) {
                    let _ = member.signal(info, Origin::Kernel);
                }
            }
            return;
        }
        let Some(task) = pid.task().filter(|task| may_tell(creds, task)) else {
            return;
        };
        // A full queue loses it, as in Linux.
        let _ = if self.owner.kind == F_OWNER_TID.cast_signed() {
            task.signal(info, Origin::Kernel)
        } else {
            task.group.signal(info, Origin::Kernel)
        };
    }
}

/// Whether who set the owner may signal it.
fn may_tell(creds: &Creds, target: &Task) -> bool {
    let target = target.creds();
    creds.euid.0 == 0
        || [creds.euid, creds.uid]
            .iter()
            .any(|uid| *uid == target.uid || *uid == target.suid)
}

struct Notifier {
    file: Weak<File>,
    kernel: Weak<Kernel>,
}

impl Observer for Notifier {
    fn notify(&self, events: Events) {
        let Some(kernel) = self.kernel.upgrade() else {
            return;
        };
        let file = self.file.clone();
        kernel.executor.spawn(async move {
            if let Some(file) = file.upgrade() {
                file.async_io.lock().send(events);
            }
        });
    }
}

/// Begins or ends telling the owner of `file`, as its `O_ASYNC` flag says.
/// `fd` is where the flag was set.
pub fn update(kernel: &Arc<Kernel>, file: &Arc<File>, fd: i32, on: bool) {
    let queue = file.ops.wait_queue();
    let subscription = queue.filter(|_| on).map(|queue| {
        let mut mask = Events::PRI;
        mask.set(Events::READABLE, file.mode.contains(OpenMode::READ));
        mask.set(Events::WRITABLE, file.mode.contains(OpenMode::WRITE));
        queue.subscribe(
            mask,
            Arc::new(Notifier {
                file: Arc::downgrade(file),
                kernel: Arc::downgrade(kernel),
            }),
        )
    });
    let mut state = file.async_io.lock();
    state.fd = fd;
    let old = std::mem::replace(&mut state.subscription, subscription);
    drop(state);
    drop(old);
}
