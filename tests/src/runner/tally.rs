//! Results of all groups: printed as they come, counted at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use super::known::Known;
use super::vm;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    Skip,
}

/// One check on one platform (`native`, `systrap`, `ptrace`, or `-`).
#[derive(Clone, Debug)]
pub struct Outcome {
    pub name: String,
    pub platform: String,
    pub verdict: Verdict,
    /// Output of a failure, reason of a skip.
    pub detail: String,
}

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
    failures: Vec<Outcome>,
    /// `(group) -> passed, failed, skipped`
    groups: BTreeMap<String, (u64, u64, u64)>,
    skips: BTreeMap<String, u64>,
}

pub struct Tally {
    counts: Mutex<Counts>,
    known: Known,
    verbose: bool,
    /// Takes every result as it comes.
    results: Option<PathBuf>,
}

impl Tally {
    pub fn new(known: Known, verbose: bool, results: Option<PathBuf>) -> Self {
        Self {
            counts: Mutex::new(Counts::default()),
            known,
            verbose,
            results,
        }
    }

    /// Counts a result. A listed known failure that fails is a skip; one that
    /// passes is a failure, so that the list only shrinks.
    pub fn add(&self, group: &str, mut outcome: Outcome) {
        if let Some(reason) = self.known.reason(&outcome.platform, &outcome.name) {
            match outcome.verdict {
                Verdict::Fail => {
                    outcome.verdict = Verdict::Skip;
                    outcome.detail = format!("known failure: {reason}");
                }
                Verdict::Pass if !self.known.flaky(&outcome.platform, &outcome.name) => {
                    outcome.verdict = Verdict::Fail;
                    outcome.detail = "passes now: take it out of tests/known-failures.txt".into();
                }
                _ => {}
            }
        }
        let Ok(mut counts) = self.counts.lock() else {
            return;
        };
        if let Some(results) = &self.results {
            vm::append(results, &outcome);
        }
        let entry = counts
            .groups
            .entry(format!("{group} {}", outcome.platform))
            .or_default();
        match outcome.verdict {
            Verdict::Pass => entry.0 += 1,
            Verdict::Fail => entry.1 += 1,
            Verdict::Skip => entry.2 += 1,
        }
        match outcome.verdict {
            Verdict::Pass => {
                counts.passed += 1;
                if self.verbose {
                    println!("ok   [{}] {}", outcome.platform, outcome.name);
                }
            }
            Verdict::Skip => {
                counts.skipped += 1;
                let reason = outcome.detail.lines().next().unwrap_or("").to_owned();
                if self.verbose {
                    println!("skip [{}] {}: {reason}", outcome.platform, outcome.name);
                }
                *counts.skips.entry(reason).or_default() += 1;
            }
            Verdict::Fail => {
                counts.failed += 1;
                println!("FAIL [{}] {}", outcome.platform, outcome.name);
                for line in outcome.detail.lines() {
                    println!("     {line}");
                }
                counts.failures.push(outcome);
            }
        }
    }

    /// Counts of a tool that counts by itself, such as `cargo test`.
    pub fn add_counts(&self, group: &str, passed: u64, skipped: u64) {
        if let Ok(mut counts) = self.counts.lock() {
            counts.passed += passed;
            counts.skipped += skipped;
            let entry = counts.groups.entry(format!("{group} -")).or_default();
            entry.0 += passed;
            entry.2 += skipped;
            if skipped > 0 {
                *counts
                    .skips
                    .entry("ignored by cargo test".into())
                    .or_default() += skipped;
            }
        }
    }

    /// Prints the table and the summary line; true if nothing failed.
    pub fn finish(&self, report: Option<&std::path::Path>) -> bool {
        let Ok(counts) = self.counts.lock() else {
            return false;
        };
        println!();
        for (reason, n) in &counts.skips {
            println!("skipped {n}: {reason}");
        }
        for (group, (passed, failed, skipped)) in &counts.groups {
            println!("{group:24} {passed:5} passed {failed:5} failed {skipped:5} skipped");
        }
        if !counts.failures.is_empty() {
            println!("failed:");
            for f in &counts.failures {
                println!("  [{}] {}: {}", f.platform, f.name, first_line(&f.detail));
            }
        }
        if let Some(path) = report {
            let mut lines: Vec<String> = counts
                .failures
                .iter()
                .map(|f| format!("{} {} {}", f.name, f.platform, first_line(&f.detail)))
                .collect();
            lines.sort();
            if let Err(e) = std::fs::write(path, lines.join("\n") + "\n") {
                eprintln!("{}: {e}", path.display());
            }
        }
        println!(
            "{} passed, {} failed, {} skipped",
            counts.passed, counts.failed, counts.skipped
        );
        counts.failed == 0 && counts.passed > 0
    }
}

fn first_line(text: &str) -> &str {
    text.lines().find(|l| !l.trim().is_empty()).unwrap_or("")
}
