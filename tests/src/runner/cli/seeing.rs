//! What is told of a sandbox: strace, tables, stacks, figures.

use std::time::Duration;

use serde_json::Value;

use super::quiet;
use crate::runner::bundle::{Ctx, check};
use crate::runner::command;

pub(super) fn help_syscalls(ctx: &Ctx<'_>) -> Result<(), String> {
    let done = ctx.run(&["help", "syscalls", "--format", "json"]);
    let v: Value = serde_json::from_str(&done.stdout).map_err(|e| format!("not JSON: {e}"))?;
    check(v.to_string().contains("openat2"), || {
        "no openat2 in the JSON".into()
    })?;
    let csv = ctx.run(&["help", "syscalls", "--format", "csv"]);
    check(csv.ok() && csv.stdout.lines().count() > 350, || {
        csv.describe()
    })?;
    let table = ctx.run(&["help", "syscalls"]);
    check(table.ok() && table.stdout.contains("openat2"), || {
        table.describe()
    })
}

pub(super) fn strace_lines(ctx: &Ctx<'_>) -> Result<(), String> {
    let log = ctx.dir.join("log");
    let log_name = log.to_string_lossy().into_owned();
    let done = ctx.run(&[
        "--strace",
        "--debug-log",
        &log_name,
        "do",
        "--",
        "/bin/sh",
        "-c",
        "cat /etc/hostname; true",
    ]);
    check(done.ok(), || done.describe())?;
    let text = std::fs::read_to_string(&log).map_err(|e| format!("{log_name}: {e}"))?;
    let line = text
        .lines()
        .find(|l| l.contains("openat(") && l.contains("\"/etc/hostname\""));
    check(
        line.is_some_and(|l| {
            l.contains("AT_FDCWD") && l.contains("O_RDONLY") && l.contains(" = 3")
        }),
        || format!("no readable openat line:\n{}", command::tail(&text, 20)),
    )?;
    check(text.contains("execve("), || "no execve line".into())
}

pub(super) fn debug_stacks(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("b", &["/bin/sleep", "1000"], |_| ())?;
    check(
        quiet(ctx, &["create", "--bundle", &bundle, "c"])?.ok(),
        || "create".into(),
    )?;
    check(ctx.run(&["start", "c"]).ok(), || "start".into())?;
    std::thread::sleep(Duration::from_millis(200));
    let done = ctx.run(&["debug", "--stacks", "c"]);
    check(done.ok() && done.stdout.contains("nanosleep"), || {
        done.describe()
    })?;
    check(ctx.run(&["delete", "--force", "c"]).ok(), || {
        "delete".into()
    })
}

pub(super) fn debug_stats(ctx: &Ctx<'_>) -> Result<(), String> {
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); kill -0 $$; done; exec sleep 1000";
    let bundle = ctx.bundle("b", &["/bin/sh", "-c", script], |_| ())?;
    check(
        quiet(ctx, &["create", "--bundle", &bundle, "c"])?.ok(),
        || "create".into(),
    )?;
    check(ctx.run(&["start", "c"]).ok(), || "start".into())?;
    let mut done = ctx.run(&["debug", "--stats", "c"]);
    for _ in 0..100 {
        if ctx.platform != "systrap" || done.stdout.contains(" sleep\n") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        done = ctx.run(&["debug", "--stats", "c"]);
    }
    check(done.ok() && done.stdout.contains("PROGRAM"), || {
        done.describe()
    })?;
    if ctx.platform == "systrap" {
        // Fast, trapped, share in percent, name.
        let row = done.stdout.lines().find(|line| line.ends_with(" sh"));
        let fields: Vec<f64> = row
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let [fast, trapped, share] = fields[..] else {
            return Err(done.describe());
        };
        check(
            fast >= 2900.0 && (1.0..100.0).contains(&trapped) && share >= 95.0,
            || done.describe(),
        )?;
    }
    check(ctx.run(&["delete", "--force", "c"]).ok(), || {
        "delete".into()
    })
}
