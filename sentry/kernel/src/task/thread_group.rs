//! One guest process.

use super::Tid;

/// A process: the tasks that share a thread group id.
pub struct ThreadGroup {
    pub tgid: Tid,
}
