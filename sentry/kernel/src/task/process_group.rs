//! Process groups and sessions.
//!
//! Membership changes only with the kernel's process tree lock held.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Pid, ThreadGroup, Tree};
use crate::task::PidNamespace;

/// A session's terminal, as far as job control needs it.
pub trait ControllingTerminal: std::any::Any + Send + Sync {
    /// Device number, for `/proc/PID/stat`.
    fn device(&self) -> u64;

    /// A session takes the terminal; `group` comes to the foreground.
    fn session_started(&self, session: &Arc<Session>, group: &Arc<ProcessGroup>);

    /// The foreground process group.
    fn foreground(&self) -> Option<Arc<ProcessGroup>>;

    /// The session leader has exited or given the terminal up: the terminal
    /// forgets session and foreground group.
    fn session_ended(&self);
}

/// A session.
pub struct Session {
    pid: Arc<Pid>,
    terminal: Mutex<Option<Arc<dyn ControllingTerminal>>>,
}

impl Session {
    pub(crate) fn new(pid: Arc<Pid>) -> Arc<Self> {
        Arc::new_cyclic(|weak| {
            pid.attach_session(weak.clone());
            Self {
                pid,
                terminal: Mutex::default(),
            }
        })
    }

    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }

    /// Session id as `ns` sees it; 0 if it doesn't.
    pub fn id_in(&self, ns: &Arc<PidNamespace>) -> i32 {
        self.pid.number_in(ns)
    }

    pub fn terminal(&self) -> Option<Arc<dyn ControllingTerminal>> {
        self.terminal.lock().clone()
    }

    /// Sets or gives up the controlling terminal, answering the old one.
    pub fn set_terminal(
        &self,
        terminal: Option<Arc<dyn ControllingTerminal>>,
    ) -> Option<Arc<dyn ControllingTerminal>> {
        std::mem::replace(&mut self.terminal.lock(), terminal)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pid.detach_holder();
    }
}

/// A process group.
pub struct ProcessGroup {
    pid: Arc<Pid>,
    session: Arc<Session>,
    members: Mutex<Vec<Weak<ThreadGroup>>>,
}

impl ProcessGroup {
    pub(crate) fn new(pid: Arc<Pid>, session: Arc<Session>) -> Arc<Self> {
        Arc::new_cyclic(|weak| {
            pid.attach_process_group(weak.clone());
            Self {
                pid,
                session,
                members: Mutex::default(),
            }
        })
    }

    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }

    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Process group id as `ns` sees it; 0 if it doesn't.
    pub fn id_in(&self, ns: &Arc<PidNamespace>) -> i32 {
        self.pid.number_in(ns)
    }

    /// The processes in this group, zombies included.
    pub fn members(&self) -> Vec<Arc<ThreadGroup>> {
        let members = self.members.lock();
        members.iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn add(&self, member: &Arc<ThreadGroup>) {
        self.members.lock().push(Arc::downgrade(member));
    }

    pub(crate) fn remove(&self, member: &Arc<ThreadGroup>) {
        let gone = Arc::as_ptr(member);
        self.members
            .lock()
            .retain(|other| other.as_ptr() != gone && other.strong_count() > 0);
    }

    /// Whether no member but `ignored` has a live parent in another group of
    /// the same session, so that nobody could continue a stopped member.
    pub fn is_orphaned(&self, tree: &Tree, ignored: Option<&Arc<ThreadGroup>>) -> bool {
        !self.members().iter().any(|member| {
            if ignored.is_some_and(|ignored| Arc::ptr_eq(ignored, member)) || member.is_zombie() {
                return false;
            }
            let Some(parent) = member.parent(tree) else {
                return false;
            };
            // The parent may be a namespace's init: only the host's init is no
            // shell, and no guest ever has that for a parent.
            parent.process_group().is_some_and(|group| {
                !std::ptr::eq(Arc::as_ptr(&group), self)
                    && Arc::ptr_eq(&group.session, &self.session)
            })
        })
    }

    /// Whether a member is stopped.
    pub fn has_stopped_member(&self) -> bool {
        self.members().iter().any(|member| member.is_stopped())
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.pid.detach_holder();
    }
}
