//! `cargo test` of the workspace, its counts taken over.

use std::process::Command;
use std::time::Duration;

use super::command;
use super::options::Options;
use super::tally::{Outcome, Tally, Verdict};

pub fn run(options: &Options, tally: &Tally) {
    let top = options.source.parent().unwrap_or(&options.source);
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo
        .current_dir(top)
        .env("CARGO_TERM_COLOR", "never")
        .args(["test", "--workspace", "--no-fail-fast", "--tests"]);
    if !options.filters.is_empty() {
        cargo.arg("--").args(&options.filters);
    }
    let done = command::run(&mut cargo, Duration::from_secs(1800));
    let (mut passed, mut ignored, mut failed) = (0, 0, 0);
    for line in done.stdout.lines() {
        if let Some(rest) = line.strip_prefix("test result: ") {
            let count = |what: &str| -> u64 {
                rest.split(';')
                    .find_map(|part| {
                        part.trim()
                            .trim_start_matches("ok. ")
                            .trim_start_matches("FAILED. ")
                            .strip_suffix(what)?
                            .trim()
                            .parse()
                            .ok()
                    })
                    .unwrap_or(0)
            };
            passed += count("passed");
            ignored += count("ignored");
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|l| l.strip_suffix(" ... FAILED"))
        {
            failed += 1;
            let from = done.stdout.find(&format!("---- {name} stdout ----"));
            let detail: String = from
                .and_then(|at| done.stdout.get(at..))
                .map(|text| {
                    text.lines()
                        .skip(1)
                        .take(15)
                        .map(|l| format!("{l}\n"))
                        .collect()
                })
                .unwrap_or_default();
            tally.add(
                "unit",
                Outcome {
                    name: format!("unit/{name}"),
                    platform: "-".into(),
                    verdict: Verdict::Fail,
                    detail,
                },
            );
        }
    }
    tally.add_counts("unit", passed, ignored);
    if !done.ok() && failed == 0 {
        let detail = done.describe();
        tally.add(
            "unit",
            Outcome {
                name: "unit/cargo-test".into(),
                platform: "-".into(),
                verdict: Verdict::Fail,
                detail,
            },
        );
    }
}
