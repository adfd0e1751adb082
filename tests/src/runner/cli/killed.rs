//! What is left when a process of a sandbox is killed.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::runner::bundle::{Ctx, check};

/// Starts a long `do` in the background and waits until its guest runs.
fn background(ctx: &Ctx<'_>) -> Result<(std::process::Child, Vec<u32>), String> {
    let mut c = ctx.runsc(&["do", "--", "/bin/sh", "-c", "echo ready; exec sleep 300"]);
    c.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = c.spawn().map_err(|e| e.to_string())?;
    let mut buf = [0u8; 6];
    child
        .stdout
        .as_mut()
        .ok_or("no stdout")?
        .read_exact(&mut buf)
        .map_err(|e| format!("the guest did not start: {e}"))?;
    let tree = crate::runner::bundle::tree(child.id());
    Ok((child, tree))
}

fn all_gone(pids: &[u32]) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(8);
    loop {
        let left: Vec<u32> = pids
            .iter()
            .copied()
            .filter(|p| {
                std::fs::read_to_string(format!("/proc/{p}/stat"))
                    .is_ok_and(|s| !s.contains(") Z "))
            })
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            for p in &left {
                // SAFETY: kill takes plain integers.
                unsafe { libc::kill(*p as i32, libc::SIGKILL) };
            }
            return Err(format!("still there: {left:?} of {pids:?}"));
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

pub(super) fn killed_client_leaves_nothing(ctx: &Ctx<'_>) -> Result<(), String> {
    let (mut child, tree) = background(ctx)?;
    check(tree.len() >= 4, || format!("only {tree:?} run"))?;
    let _ = child.kill();
    let _ = child.wait();
    all_gone(&tree)
}

/// The descendants that run as another host user: sentry and stubs.
fn unprivileged(tree: &[u32]) -> Vec<u32> {
    tree.iter()
        .copied()
        .filter(|p| {
            std::fs::read_to_string(format!("/proc/{p}/status")).is_ok_and(|s| {
                s.lines()
                    .any(|l| l.starts_with("Uid:") && !l.contains("\t0\t"))
            })
        })
        .collect()
}

pub(super) fn killed_sentry_is_reported(ctx: &Ctx<'_>) -> Result<(), String> {
    let (mut child, tree) = background(ctx)?;
    // The sentry is the first unprivileged process below the client.
    let sentry = unprivileged(&tree)
        .first()
        .copied()
        .ok_or("no unprivileged process runs")?;
    // SAFETY: kill takes plain integers.
    unsafe { libc::kill(sentry as i32, libc::SIGKILL) };
    let end = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match child.try_wait() {
            Ok(Some(s)) => break s,
            _ if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                let _ = all_gone(&tree);
                return Err("the client hangs after the sentry's death".into());
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    check(!status.success(), || "success was reported".into())?;
    all_gone(&tree)?;
    ctx.nothing_left()
}

pub(super) fn killed_gofer_ends_sandbox(ctx: &Ctx<'_>) -> Result<(), String> {
    let (mut child, tree) = background(ctx)?;
    let unprivileged = unprivileged(&tree);
    let gofer = tree
        .iter()
        .skip(1)
        .copied()
        .find(|p| !unprivileged.contains(p))
        .ok_or("no gofer runs")?;
    // SAFETY: kill takes plain integers.
    unsafe { libc::kill(gofer as i32, libc::SIGKILL) };
    // Whether the guest goes on without files or ends: nothing may stay when
    // the client is gone.
    std::thread::sleep(Duration::from_millis(300));
    let _ = child.kill();
    let _ = child.wait();
    all_gone(&tree)
}
