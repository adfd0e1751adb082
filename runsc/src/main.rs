//! `runsc`: an OCI runtime that runs untrusted Linux programs on a userspace
//! kernel.
//!
//! | file | holds |
//! |---|---|
//! | `cli/` | one file per group of commands |
//! | `oci.rs`, `plan.rs`, `spec.rs` | OCI configuration to checked plan |
//! | `state.rs` | containers on disk |
//! | `launch.rs` | making and ending sandboxes |
//! | `network.rs` | network namespaces of containers |
//! | `jail.rs`, `sys.rs` | namespaces, ids, capabilities; the `unsafe` |
//! | `gofer_process.rs`, `boot/` | the two processes of a sandbox |
//! | `control/` | commands to a running sentry |
//! | `console.rs` | terminals, signals, exit status |

mod boot;
mod cli;
mod console;
mod control;
mod gofer_process;
mod jail;
mod launch;
mod network;
mod oci;
mod plan;
mod signals;
mod spec;
mod state;
mod sys;
mod time;

fn main() -> std::process::ExitCode {
    cli::main()
}
