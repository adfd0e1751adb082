//! `runsc`: an OCI runtime that runs untrusted Linux programs on a userspace
//! kernel.
//!
//! | file | holds |
//! |---|---|
//! | `cli/` | one file per group of commands |
//! | `oci.rs`, `plan.rs`, `spec.rs` | OCI configuration to checked plan |
//! | `state.rs` | containers on disk |
//! | `pod.rs` | further containers of a sandbox |
//! | `launch.rs` | making and ending sandboxes |
//! | `network.rs` | network namespaces of containers |
//! | `jail.rs`, `sys.rs` | namespaces, ids, capabilities; the `unsafe` |
//! | `gofer_process.rs`, `boot/` | the two processes of a sandbox |
//! | `control/` | commands to a running sentry |
//! | `cgroup/`, `hooks.rs` | what the host does for a container |
//! | `attendant.rs` | host processes that stand for guest processes |
//! | `user.rs` | whom the command runs as |
//! | `console.rs` | terminals, signals, exit status |

mod attendant;
mod boot;
mod cgroup;
mod cli;
mod console;
mod control;
mod creation;
mod gofer_process;
mod hooks;
mod jail;
mod launch;
mod network;
mod oci;
mod plan;
mod pod;
mod signals;
mod spec;
mod state;
mod sys;
mod time;
mod user;

fn main() -> std::process::ExitCode {
    cli::main()
}
