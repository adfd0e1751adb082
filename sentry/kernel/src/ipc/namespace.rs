//! IPC namespaces.

use std::sync::{Arc, Weak};

use super::mqueue::Queues;
use super::msg::MsgQueue;
use super::registry::Registry;
use super::sem::SemSet;
use super::settings::Settings;
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
    pub settings: Settings,
    pub(super) this: Weak<Self>,
}

impl IpcNamespace {
    pub fn new(kernel: &Kernel, user_ns: Arc<UserNamespace>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id: kernel.new_namespace_id(),
            user_ns,
            shm: Registry::default(),
            sem: Registry::default(),
            msg: Registry::default(),
            queues: Queues::new(kernel.vfs.next_dev()),
            settings: Settings::default(),
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
