//! The gofer: the only process that touches a container's host files.
//!
//! It holds the roots of the container's mounts as directory fds and answers
//! the sentry's requests beneath them. It never follows a symbolic link and
//! never opens a device node, FIFO or unix socket.
//!
//! | module | holds |
//! |---|---|
//! | [`shared`] | mapped ring and socket |
//! | [`serve`](mod@serve) | threads that take requests from the ring |
//! | [`session`] | what each request does |
//! | [`tree`] | nodes, and the bounded set of open directories |
//! | [`host`] | host calls |
//! | [`confine`](mod@confine) | mount namespace, capabilities |
//! | [`seccomp`] | the host calls a confined gofer may make |
//!
//! `unsafe` is used in `shared` (the view of the mapping as atomics) and
//! `confine` (two calls without a wrapper) and denied elsewhere.

#![deny(unsafe_code, clippy::indexing_slicing)]

pub mod confine;
pub mod host;
pub mod seccomp;
pub mod serve;
pub mod session;
pub mod shared;
pub mod tree;

use std::os::fd::OwnedFd;

pub use confine::{ConfineError, confine};
pub use host::ProcFd;
pub use serve::{ServeError, serve};
pub use shared::{create_ring, create_socket};
pub use tree::Limits;

/// Whether a mount may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// The root of a mount: a directory or, for a bind mount of a file, a file.
#[derive(Debug)]
pub struct Root {
    /// Opened with `O_PATH`.
    pub fd: OwnedFd,
    pub access: Access,
}

/// How a gofer serves.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Threads that take requests.
    pub threads: usize,
    pub limits: Limits,
    /// Whether guests may leave FIFO and socket nodes on the host's file
    /// system. They are names only; nothing is ever sent through them.
    pub special_nodes: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 4,
            limits: Limits::default(),
            special_nodes: true,
        }
    }
}
