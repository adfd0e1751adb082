//! `containerd-shim-runsc-v1`: runs containers of containerd with `runsc`
//! (containerd's runtime v2, `runtime/v2/README.md` there).
//!
//! One shim process serves one container, or all containers of a Kubernetes
//! pod. It talks ttrpc with containerd, drives `runsc` by its command line,
//! and as the subreaper of what that starts learns how processes end.
//!
//! | file | holds |
//! |---|---|
//! | `args.rs` | the command line |
//! | `bootstrap.rs` | the `start` and `delete` commands |
//! | `serve.rs` | the shim process itself |
//! | `ttrpc.rs` | the protocol: frames, server, client |
//! | `messages.rs` | protobuf messages |
//! | `service.rs` | the task service: requests to actions |
//! | `containers.rs`, `process.rs` | what there is to serve |
//! | `runtime.rs` | `runsc` by its command line |
//! | `options.rs` | configuration |
//! | `reaper.rs` | ends of processes |
//! | `stdio.rs`, `console.rs`, `logger.rs` | standard streams |
//! | `rootfs.rs` | mounts of the root file system |
//! | `events.rs` | events to containerd |
//! | `oom.rs` | notices of memory that has run out |
//! | `stats.rs` | metrics |
#![forbid(unsafe_code)]

mod args;
mod bootstrap;
mod console;
mod containers;
mod events;
mod logger;
mod messages;
mod oom;
mod options;
mod process;
mod reaper;
mod rootfs;
mod runtime;
mod serve;
mod service;
mod stats;
mod stdio;
mod ttrpc;

use std::process::ExitCode;

use args::Action;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(err) => {
            eprintln!("containerd-shim-runsc-v1: {err:#}");
            return ExitCode::FAILURE;
        }
    };
    let done = match args.action {
        Action::Version => {
            println!("containerd-shim-runsc-v1 {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Action::Start => bootstrap::start(&args),
        Action::Delete => bootstrap::delete(&args),
        Action::Serve => serve::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("containerd-shim-runsc-v1: {err:#}");
            ExitCode::FAILURE
        }
    }
}
