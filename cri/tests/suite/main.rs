//! Client tests of the CRI server: they play kubelet over gRPC against a
//! daemon of their own, with a local registry and images made here, in network
//! and mount namespaces of their own.
//!
//! ```text
//! suite run [--long] [--filter TEXT] [--handler NAME] [--containerd] [--endpoint SOCKET]
//!           [--verbose] [--list]
//! ```
//! `--containerd` starts Debian's containerd instead of ours, as the reference;
//! `--endpoint` tests a server that runs already. RUNSC names the runtime of
//! handler `runsc`, RUNSC_CRI another daemon (a release build, for figures),
//! GVISOR a `runsc` of gVisor for containerd's handler of that name. Needs root,
//! `docker-registry`, the standard network plugins, `runc`, and a static busybox.

mod bad_registry;
mod cases;
mod env;
mod hostile;
mod image;
mod kubectl;
mod options;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use options::Options;

const INSIDE: &str = "CRI_SUITE_INSIDE";

fn main() -> ExitCode {
    // `cargo test` of the workspace passes by.
    if std::env::args().nth(1).as_deref() == Some("hostile") {
        return match hostile::run(std::env::args().skip(2)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    if std::env::args().nth(1).as_deref() != Some("run") {
        println!("suite: `cargo test -p runsc-cri --test suite -- run` runs it; see `tests/run`");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(std::env::args().skip(2)) {
        Ok(options) => options,
        Err(err) => {
            eprintln!("suite: {err}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        for case in cases::all() {
            println!("{}{}", case.name, if case.long { " (long)" } else { "" });
        }
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(INSIDE).is_none() && options.endpoint.is_none() {
        return inside();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(run(options))
}

/// Runs this program again in namespaces of its own.
fn inside() -> ExitCode {
    let exe = std::env::current_exe().expect("own path");
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    let status = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
        ])
        .arg(exe)
        .args(std::env::args().skip(1))
        .env(INSIDE, "1")
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("suite: unshare: {err}");
            ExitCode::from(2)
        }
    }
}

async fn run(options: Options) -> ExitCode {
    let env = match env::Env::start(&options).await {
        Ok(env) => env,
        Err(err) => {
            eprintln!("suite: {err:#}");
            return ExitCode::from(2);
        }
    };
    let (mut passed, mut failed) = (0, 0);
    for case in cases::all() {
        if (case.long && !options.long) || (case.own && !env.own) || !options.wants(case.name) {
            continue;
        }
        let start = Instant::now();
        let limit = Duration::from_secs(if case.long { 600 } else { 60 });
        let result = match tokio::time::timeout(limit, (case.run)(env.clone())).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("took longer than {limit:?}")),
        };
        match result {
            Ok(()) => {
                passed += 1;
                println!("ok {} ({:.2?})", case.name, start.elapsed());
            }
            Err(err) => {
                failed += 1;
                println!("FAIL {}: {err:#}", case.name);
            }
        }
        if let Err(err) = env.clean().await {
            println!("FAIL {} (clean-up): {err:#}", case.name);
            failed += 1;
        }
    }
    if failed > 0 && options.verbose {
        eprintln!("{}", env.daemon_log());
    }
    env.shut_down().await;
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
