//! Who logged in (`/proc/PID/loginuid` and `sessionid`): PAM sets it at the
//! start of a session, and children inherit it.

use syscall_tables::Errno;

use super::{CapSet, Task, Uid};
use crate::kernel::Kernel;

/// Login of a task; none until something sets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Login {
    pub uid: Option<Uid>,
    pub session: Option<u32>,
}

impl Task {
    /// Sets the login uid, or takes it away. The first one is free to all, a
    /// change needs `CAP_AUDIT_CONTROL` in the initial user namespace.
    pub fn set_login(&self, kernel: &Kernel, uid: Option<Uid>) -> Result<(), Errno> {
        let may_change = self.creds().has(CapSet::AUDIT_CONTROL);
        let mut login = self.login.lock();
        if login.uid.is_some() && !may_change {
            return Err(Errno::EPERM);
        }
        *login = Login {
            uid,
            session: uid.map(|_| kernel.next_login()),
        };
        Ok(())
    }
}
