//! Terminals: pseudo terminal pairs with their line discipline, and the
//! bridge to a terminal of the host.
//!
//! | file | holds |
//! |---|---|
//! | `discipline.rs` | editing, echo, signals, output processing |
//! | `terminal.rs` | [`Terminal`]: what both ends share; job control |
//! | `pty.rs` | open ends: [`Master`] and [`Slave`] |
//! | `ioctl.rs` | `ioctl_tty(2)` |
//! | `bridge.rs` | [`Bridge`]: a terminal of the host as the user's side |
//!
//! The file system of the ends is [`crate::fs::devpts`].

mod bridge;
mod discipline;
mod ioctl;
mod pty;
mod terminal;

pub use bridge::Bridge;
pub use pty::{Master, Slave, open_current};
pub use terminal::Terminal;
