//! Process file descriptors.

use std::sync::Arc;

use syscall_tables::Errno;

use super::{Pid, Task, ThreadGroup};
use crate::fs::anon_inode;
use crate::sync::{Events, WaitQueue};
use crate::vfs::{File, FileOps, StatusFlags};

/// What a pidfd speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidfdKind {
    Process,
    /// One thread (`PIDFD_THREAD`).
    Thread,
}

/// An open pidfd.
pub struct Pidfd {
    pub pid: Arc<Pid>,
    pub kind: PidfdKind,
}

/// Opens a pidfd.
pub fn open(pid: Arc<Pid>, kind: PidfdKind, status: StatusFlags) -> Arc<File> {
    anon_inode::open(Arc::new(Pidfd { pid, kind }), "[pidfd]", status)
}

impl Pidfd {
    /// The pidfd behind a file; `EBADF` for any other file.
    pub fn of(file: &File) -> Result<&Self, Errno> {
        file.downcast::<Self>().ok_or(Errno::EBADF)
    }

    /// The task, until it is reaped.
    pub fn task(&self) -> Result<Arc<Task>, Errno> {
        self.pid.task().ok_or(Errno::ESRCH)
    }

    /// The process, until it is reaped.
    pub fn process(&self) -> Result<Arc<ThreadGroup>, Errno> {
        Ok(self.task()?.group.clone())
    }
}

impl FileOps for Pidfd {
    fn read(&self, _file: &File, _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn write(&self, _file: &File, _buf: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, _file: &File) -> Events {
        let Some(task) = self.pid.task() else {
            return Events::READABLE | Events::HUP;
        };
        let ended = match self.kind {
            PidfdKind::Process => task.group.is_zombie(),
            PidfdKind::Thread => task.has_exited(),
        };
        if ended {
            Events::READABLE
        } else {
            Events::empty()
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pid.exited)
    }

    fn fdinfo(&self, _file: &File) -> String {
        let number = match self.pid.task() {
            Some(_) => self.pid.number(),
            None => -1,
        };
        format!("Pid:\t{number}\nNSpid:\t{number}\n")
    }
}
