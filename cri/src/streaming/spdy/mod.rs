//! SPDY/3.1, the part of it that remote commands and port forwarding of
//! Kubernetes clients use: streams opened by the client, data both ways,
//! resets, pings.

#[cfg(test)]
pub mod client;
mod connection;
mod frame;
mod headers;

pub use connection::{Connection, Stream};
