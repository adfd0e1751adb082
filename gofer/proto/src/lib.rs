//! What sentry and gofer say to each other.
//!
//! A *request* and its *reply* travel through a [`ring`] in shared memory, one
//! of [`ring::SLOTS`] slots per call in flight; file descriptors follow over
//! a unix socket. Both sides treat what they read as hostile: it is copied
//! once into private memory and only then decoded.
//!
//! | module | holds |
//! |---|---|
//! | [`attr`] | attributes, times, file system figures |
//! | [`request`] | [`Request`] and its coding |
//! | [`reply`] | replies and their coding |
//! | [`ring`] | layout of the shared memory, hand-over, fd passing |
//! | [`wire`] | reader and writer that the codings share |

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

pub mod attr;
pub mod reply;
pub mod request;
pub mod ring;
pub mod wire;

pub use attr::{Attr, FileKind, FsStat, SetAttr, SetMask, Time};
pub use request::{Names, NodeId, OpenFlags, RenameFlags, Request};
pub use wire::Malformed;
