//! The CRI server's client suite, with each handler; with `--long` also what
//! takes minutes, and containerd as the reference.

use std::process::Command;
use std::time::Duration;

use super::command;
use super::options::Options;
use super::tally::{Outcome, Tally, Verdict};

/// Label and arguments of each round.
const ROUNDS: &[(&str, &[&str])] = &[
    ("runc", &["--handler", "runc"]),
    ("runsc", &["--handler", "runsc"]),
];
const REFERENCE: (&str, &[&str]) = ("containerd", &["--containerd"]);

pub fn run(options: &Options, tally: &Tally) {
    let top = options.source.parent().unwrap_or(&options.source);
    let cargo = || {
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        cargo
            .current_dir(top)
            .env("CARGO_TERM_COLOR", "never")
            .env("RUNSC", &options.runsc)
            .args(["test", "--quiet", "-p", "runsc-cri", "--test", "suite"]);
        cargo
    };
    let built = command::run(cargo().arg("--no-run"), Duration::from_secs(1800));
    if !built.ok() {
        add(tally, "-", "build", Verdict::Fail, built.describe());
        return;
    }
    let mut rounds = ROUNDS.to_vec();
    if options.long {
        rounds.push(REFERENCE);
    }
    // Each has network and mounts of its own.
    std::thread::scope(|scope| {
        for (platform, args) in rounds {
            scope.spawn(move || {
                let mut suite = cargo();
                suite.args(["--", "run"]).args(args);
                if options.long {
                    suite.arg("--long");
                }
                for filter in &options.filters {
                    suite.args(["--filter", filter.trim_start_matches("cri/")]);
                }
                let limit = if options.long { 3600 } else { 600 };
                let done = command::run(&mut suite, Duration::from_secs(limit));
                round(tally, platform, &done);
            });
        }
    });
}

fn add(tally: &Tally, platform: &str, name: &str, verdict: Verdict, detail: String) {
    let outcome = Outcome {
        name: format!("cri/{name}"),
        platform: platform.to_owned(),
        verdict,
        detail,
    };
    tally.add("cri", outcome);
}

fn round(tally: &Tally, platform: &str, done: &command::Done) {
    let mut failed = false;
    for line in done.stdout.lines() {
        if let Some(rest) = line.strip_prefix("ok ") {
            let name = rest.split(' ').next().unwrap_or(rest);
            add(tally, platform, name, Verdict::Pass, String::new());
        } else if let Some(rest) = line.strip_prefix("FAIL ") {
            failed = true;
            let (name, detail) = rest.split_once(": ").unwrap_or((rest, ""));
            add(tally, platform, name, Verdict::Fail, detail.to_owned());
        }
    }
    if !done.ok() && !failed {
        add(tally, platform, "suite", Verdict::Fail, done.describe());
    }
}
