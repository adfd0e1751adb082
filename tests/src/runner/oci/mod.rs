//! Conformance with the OCI runtime specification 1.2, requirement by
//! requirement: each case asserts one sentence of the specification, of `runc`
//! as well as of this runtime on each platform. What `runc` passes, we pass.
//!
//! | file | walks through |
//! |---|---|
//! | `lifecycle.rs` | `runtime.md`: state, operations, errors |
//! | `config.rs` | `config.md`: version, root, mounts, names, extensibility |
//! | `process.rs` | `config.md`: process, user, capabilities, limits |
//! | `hooks.rs` | `config.md`: hooks |
//! | `linux.rs` | `config-linux.md`: namespaces, devices, paths, sysctl… |
//! | `cgroups.rs` | `config-linux.md`: cgroups path and resources |
//! | `seccomp.rs` | `config-linux.md`: seccomp |
//! | `features.rs` | `features.md` |
//! | `commands.rs` | what engines call beside the specification, as `runc` has it |
//! | `runtime.rs` | the runtime under test |
//!
//! Cases were written from the text of the specification.

mod cgroups;
mod commands;
mod config;
mod exceptions;
mod features;
mod hooks;
mod lifecycle;
mod linux;
mod process;
mod runtime;
mod seccomp;

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::bundle::Ctx;
use super::options::Options;
use super::pool::{self, Job};
use super::tally::{Outcome, Tally, Verdict};
use runtime::Runtime;

/// How `runc` is called in results, beside the platforms.
pub const RUNC: &str = "runc";

/// One requirement.
pub struct Case {
    /// Section and a short name: `config/process/cwd`.
    pub name: &'static str,
    /// What the specification asks, in a few words.
    pub must: &'static str,
    pub run: fn(&Runtime<'_>) -> Result<(), String>,
}

/// Shorthand for the tables of cases.
const fn case(
    name: &'static str,
    must: &'static str,
    run: fn(&Runtime<'_>) -> Result<(), String>,
) -> Case {
    Case { name, must, run }
}

fn cases() -> impl Iterator<Item = &'static Case> {
    [
        lifecycle::CASES,
        config::CASES,
        process::CASES,
        hooks::CASES,
        linux::CASES,
        cgroups::CASES,
        seccomp::CASES,
        features::CASES,
        commands::CASES,
    ]
    .into_iter()
    .flatten()
}

/// What came of a case under one runtime.
#[derive(Clone, PartialEq, Eq)]
enum Result1 {
    Pass,
    /// It differs, for this reason.
    Known(&'static str),
    Fail,
}

type Results = Mutex<BTreeMap<&'static str, BTreeMap<String, Result1>>>;

/// Runs all cases under all runtimes and prints the table.
pub fn run(options: &Options, tally: &Tally) {
    let mut runtimes = vec![RUNC.to_owned()];
    runtimes.extend(options.platforms.iter().cloned());
    if !runtime::has_runc() {
        runtimes.remove(0);
    }
    let results = Results::default();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for case in cases() {
        let name = format!("oci/{}", case.name);
        if !options.wants(&name) {
            continue;
        }
        for platform in &runtimes {
            let (name, results) = (name.clone(), &results);
            jobs.push(Box::new(move || {
                let result = run_one(options, platform, case);
                let known = exceptions::reason(case.name, platform);
                let (verdict, detail, result) = match (result, known) {
                    (Ok(()), None) => (Verdict::Pass, String::new(), Result1::Pass),
                    (Err(_), Some(why)) => {
                        let told = format!("differs from the specification: {why}");
                        (Verdict::Skip, told, Result1::Known(why))
                    }
                    (Err(why), None) => {
                        let told = format!("{}\n{why}", case.must);
                        (Verdict::Fail, told, Result1::Fail)
                    }
                    (Ok(()), Some(_)) => {
                        let told = "passes now: take it out of oci/exceptions.rs".to_owned();
                        (Verdict::Fail, told, Result1::Fail)
                    }
                };
                if let Ok(mut results) = results.lock() {
                    let row = results.entry(case.name).or_default();
                    row.insert(platform.clone(), result);
                }
                let platform = platform.clone();
                tally.add(
                    "oci",
                    Outcome {
                        name,
                        platform,
                        verdict,
                        detail,
                    },
                );
            }));
        }
    }
    pool::run_all(jobs, options.jobs);
    if let Ok(results) = results.lock() {
        table(&results, &runtimes);
    }
}

fn run_one(options: &Options, platform: &str, case: &Case) -> Result<(), String> {
    // Short, since paths of sockets are.
    let number = cases().position(|other| other.name == case.name);
    let ctx = Ctx::new(options, platform, &format!("oci{}", number.unwrap_or(0)))?;
    (case.run)(&Runtime::new(&ctx))
}

/// Passed of all by section, then each difference with its reason.
fn table(results: &BTreeMap<&'static str, BTreeMap<String, Result1>>, runtimes: &[String]) {
    let mut sections: BTreeMap<&str, BTreeMap<&str, (u32, u32)>> = BTreeMap::new();
    for (name, row) in results {
        let section = name.rsplit_once('/').map_or(*name, |(section, _)| section);
        for (platform, result) in row {
            let count = sections
                .entry(section)
                .or_default()
                .entry(platform)
                .or_default();
            count.0 += u32::from(*result == Result1::Pass);
            count.1 += 1;
        }
    }
    print!("{:28}", "requirements met");
    for platform in runtimes {
        print!(" {platform:>9}");
    }
    println!();
    for (section, counts) in &sections {
        print!("{section:28}");
        for platform in runtimes {
            let (passed, all) = counts.get(platform.as_str()).copied().unwrap_or_default();
            print!(" {:>9}", format!("{passed}/{all}"));
        }
        println!();
    }
    for (name, row) in results {
        let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (platform, result) in row {
            if let Result1::Known(why) = result {
                told.entry(why).or_default().push(platform);
            }
        }
        for (why, platforms) in told {
            println!("{name} differs under {}: {why}", platforms.join(", "));
        }
    }
}
