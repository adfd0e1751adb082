//! IPC namespaces.

use std::sync::{Arc, Weak};

use syscall_tables::abi::{MSGMNI, SEMMNI, SHMMNI};

use super::mqueue::Queues;
use super::msg::MsgQueue;
use super::registry::{Limits, Registry};
use super::sem::SemSet;
use super::shm::Segment;
use crate::kernel::Kernel;
use crate::task::{ThreadGroup, UserNamespace};

/// Objects that tasks of one namespace share.
pub struct IpcNamespace {
    pub id: u64,
    pub user_ns: Arc<UserNamespace>,
    pub shm: Registry<Segment>,
    pub sem: Registry<SemSet>,
    pub msg: Registry<MsgQueue>,
    pub queues: Queues,
    pub(super) this: Weak<Self>,
}

const fn limits(objects: u64) -> Limits {
    Limits {
        objects: objects as usize,
    }
}

impl IpcNamespace {
    pub fn new(kernel: &Kernel, user_ns: Arc<UserNamespace>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id: kernel.new_namespace_id(),
            user_ns,
            shm: Registry::new(limits(SHMMNI)),
            sem: Registry::new(limits(SEMMNI)),
            msg: Registry::new(limits(MSGMNI)),
            queues: Queues::new(kernel.vfs.next_dev()),
            this: this.clone(),
        })
    }

    /// Undoes semaphore operations of a process that has ended
    /// (`SEM_UNDO`).
    pub fn process_ends(&self, group: &Arc<ThreadGroup>) {
        for (_, set) in self.sem.list() {
            set.undo(group.pid());
        }
    }
}
