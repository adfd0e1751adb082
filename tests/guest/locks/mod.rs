//! flock(2), record locks (fcntl(2)), leases, inotify(7).

pub mod advisory;
pub mod inotify;
