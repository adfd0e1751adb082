//! From an executable file to a fresh address space.
//!
//! In steps, because credentials depend on the file that is really
//! executed and the stack depends on the credentials:
//! [`Image::open`] follows interpreter scripts and checks the ELF files,
//! [`Image::plan`] decides where they go and builds the stack. The result
//! becomes a fresh address space, or that of a process that has only ever had
//! one thread, whose own program goes then ([`Planned`]).
//!
//! | file | holds |
//! |---|---|
//! | `args.rs` | [`Arguments`]: strings of `execve`, their limits |
//! | `script.rs` | the `#!` line |
//! | `elf.rs` | [`Elf`]: headers, checked |
//! | `image.rs` | [`Image`]: what to execute |
//! | `place.rs` | where segments go, as mappings |
//! | `stack.rs` | strings, vectors and auxiliary vector of a new stack |

mod args;
mod elf;
mod image;
mod place;
mod script;
mod stack;
#[cfg(test)]
mod tests;

pub use args::Arguments;
pub use elf::{Elf, Segment};
pub use image::{Identity, Image, Loaded, OpenExec, Planned, Settings};
pub use script::{Script, parse_script};

use syscall_tables::Errno;

/// Why something can't be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {errno}")]
pub struct LoadError {
    pub errno: Errno,
    /// The object and what is wrong with it.
    pub what: String,
}

impl LoadError {
    fn new(errno: Errno, what: impl Into<String>) -> Self {
        Self {
            errno,
            what: what.into(),
        }
    }
}

impl From<LoadError> for Errno {
    fn from(error: LoadError) -> Self {
        error.errno
    }
}
