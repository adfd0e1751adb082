//! Sockets.

mod socket;

pub use socket::{Received, RecvFlags, SendRequest, Socket, SocketAddr};
