//! Host calls the sentry makes, as safe functions that return Linux errors.
//!
//! The sentry's seccomp list allows exactly what this module needs.

pub mod random;

use syscall_tables::Errno;

/// Converts an error of `nix`.
pub fn errno(err: nix::Error) -> Errno {
    Errno::from_raw(err as i32)
}
