//! The command line: `do`, life cycle of bundles, bad input.

mod bad_input;
mod bundles;
mod killed;
mod seeing;
mod terminal;
mod throwaway;

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use bad_input::{
    bad_bundle, bad_config, bad_elf_in_bundle, bad_ids, bad_process, elf_garbage, usage_errors,
};
use bundles::{
    exec_and_ps, life_cycle, mounts_and_paths, process_settings, rootfs_writes_go_through,
    run_exit_codes, spec_runs,
};
use killed::{killed_client_leaves_nothing, killed_gofer_ends_sandbox, killed_sentry_is_reported};
use seeing::{debug_stacks, debug_stats, help_syscalls, strace_lines};
use terminal::{do_interactive_shell, do_terminal};
use throwaway::{
    do_bad_cwd, do_cwd_env_args, do_exit_codes, do_group_signal, do_host_devices_unreachable,
    do_leaves_host_alone, do_missing_program, do_readme_example, do_short_programs_at_once,
    do_signal_forwarded, do_stdin_and_pipes,
};

use super::bundle::Ctx;
use super::command::Done;
use super::tables;

/// What the error of a test begins with that can't be made on this host.
pub const SKIP: &str = "skip: ";

pub type Test = fn(&Ctx<'_>) -> Result<(), String>;

pub const TESTS: &[(&str, Test)] = &[
    ("do_exit_codes", do_exit_codes),
    ("do_short_programs_at_once", do_short_programs_at_once),
    ("do_missing_program", do_missing_program),
    ("do_stdin_and_pipes", do_stdin_and_pipes),
    ("do_leaves_host_alone", do_leaves_host_alone),
    ("do_host_devices_unreachable", do_host_devices_unreachable),
    ("do_cwd_env_args", do_cwd_env_args),
    ("do_bad_cwd", do_bad_cwd),
    ("do_readme_example", do_readme_example),
    ("do_signal_forwarded", do_signal_forwarded),
    ("do_group_signal", do_group_signal),
    ("do_terminal", do_terminal),
    ("do_interactive_shell", do_interactive_shell),
    ("usage_errors", usage_errors),
    ("elf_garbage", elf_garbage),
    ("help_syscalls", help_syscalls),
    ("table_tells_the_truth", tables::table_tells_the_truth),
    ("strace_lines", strace_lines),
    ("spec_runs", spec_runs),
    ("run_exit_codes", run_exit_codes),
    ("life_cycle", life_cycle),
    ("exec_and_ps", exec_and_ps),
    ("debug_stacks", debug_stacks),
    ("debug_stats", debug_stats),
    ("process_settings", process_settings),
    ("mounts_and_paths", mounts_and_paths),
    ("rootfs_writes_go_through", rootfs_writes_go_through),
    ("bad_bundle", bad_bundle),
    ("bad_config", bad_config),
    ("bad_process", bad_process),
    ("bad_ids", bad_ids),
    ("bad_elf_in_bundle", bad_elf_in_bundle),
    ("killed_client_leaves_nothing", killed_client_leaves_nothing),
    ("killed_sentry_is_reported", killed_sentry_is_reported),
    ("killed_gofer_ends_sandbox", killed_gofer_ends_sandbox),
];

fn state_of(ctx: &Ctx<'_>, id: &str) -> Result<Value, String> {
    let done = ctx.run(&["state", id]);
    serde_json::from_str(&done.stdout).map_err(|e| format!("state: {e}: {}", done.describe()))
}

fn wait_status(ctx: &Ctx<'_>, id: &str, status: &str) -> Result<Value, String> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let v = state_of(ctx, id)?;
        if v["status"] == status {
            return Ok(v);
        }
        if Instant::now() > end {
            return Err(format!("status is {}, not {status}", v["status"]));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command whose container may keep the output open.
fn quiet(ctx: &Ctx<'_>, args: &[&str]) -> Result<Done, String> {
    let mut c = ctx.runsc(args);
    let log = ctx.dir.join("quiet.log");
    let file = std::fs::File::create(&log).map_err(|e| e.to_string())?;
    c.stdin(Stdio::null())
        .stdout(file.try_clone().map_err(|e| e.to_string())?)
        .stderr(file);
    let mut child = c.spawn().map_err(|e| e.to_string())?;
    let end = Instant::now() + Duration::from_secs(20);
    let status = loop {
        match child.try_wait() {
            Ok(Some(s)) => break Some(s),
            _ if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    Ok(Done {
        status,
        stdout: String::new(),
        stderr: std::fs::read_to_string(&log).unwrap_or_default(),
    })
}
