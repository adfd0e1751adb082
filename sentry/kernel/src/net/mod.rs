//! Sockets.
//!
//! | file | holds |
//! |---|---|
//! | `socket.rs` | [`Socket`]: what a kind of socket implements |
//! | `base.rs` | [`SocketBase`]: queue, error and `SOL_SOCKET` options of any socket |
//! | `file.rs` | [`SocketFile`]: a socket as an open file |
//! | `namespace.rs` | [`Net`] and [`NetNamespace`]: what sockets share |
//! | `identity.rs` | [`Sender`]: who sent a message or made a connection |
//! | `interface.rs` | ioctls about interfaces |
//! | `create.rs` | [`create`]: what `socket(2)` makes |
//! | `unix/` | `AF_UNIX` |
//! | `inet/` | `AF_INET`, `AF_INET6` inside the sentry |
//! | `host/` | the same on sockets of the host, in host network mode |
//! | `netlink/` | `AF_NETLINK` |
//! | `ring.rs` | helpers for byte rings |
//!
//! Locks: each socket has a lock for its state and one for its receive
//! queue, taken in this order and never those of two sockets of a kind at
//! once (the exceptions say so); wait queues are below.

mod base;
mod create;
mod file;
pub mod host;
mod identity;
pub mod inet;
pub mod interface;
pub mod namespace;
pub mod netlink;
mod ring;
mod socket;
pub mod unix;

pub use base::{CommonOptions, SocketBase, int_option};
pub use create::create;
pub use file::SocketFile;
pub use identity::Sender;
pub use namespace::{Net, NetNamespace};
pub use socket::{Received, SendRequest, Shutdown, Socket, SocketAddr};
