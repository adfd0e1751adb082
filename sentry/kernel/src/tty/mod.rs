//! Terminals: pseudo terminal pairs with their line discipline, and the
//! bridge from a terminal of the host.
//!
//! | file | holds |
//! |---|---|
//! | `discipline.rs` | editing, echo, signals, output processing |
//! | `terminal.rs` | [`Terminal`]: a pair's shared state, job control |
//! | `pty.rs` | open ends: master and slave |

mod discipline;
