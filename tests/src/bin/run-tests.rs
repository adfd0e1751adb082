//! Runs all groups and prints one summary line; see `tests/run`.

use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use tests::runner::bundle::Ctx;
use tests::runner::guest::Results;
use tests::runner::known::Known;
use tests::runner::options::Options;
use tests::runner::pool::{self, Job};
use tests::runner::tally::Tally;
use tests::runner::tally::{Outcome, Verdict};
use tests::runner::{
    cgroups, cli, cri, engines, guest, long, network, oci, pods, programs, robust, security, unit,
    vm,
};

/// Families of cases that are about files.
const FILE_FAMILIES: &[&str] = &["open", "io", "meta", "locks", "edges", "mm"];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("run-tests: {e}");
            ExitCode::from(2)
        }
    }
}

/// Says what comes next, and when it began.
fn section(name: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let passed = START.get_or_init(Instant::now).elapsed().as_secs();
    println!("== {name} (from {passed} s on)");
}

fn run() -> Result<bool, String> {
    let options = Options::parse(std::env::args().skip(1))?;
    let known = Known::load(&options.source.join("known-failures.txt"))?;
    let tally = Tally::new(known, options.verbose, options.results.clone());
    if options.vm {
        section("virtual machine");
        vm::run(&options, &tally);
        return Ok(tally.finish(options.report.as_deref()));
    }
    let names = guest::list(&options)?;
    let scripts = programs::list(&options)?;
    let native = Mutex::new(Results::new());
    // Cases about files once more on a directory of the host.
    let on_files: Vec<String> = names
        .iter()
        .filter(|name| FILE_FAMILIES.contains(&name.split('/').next().unwrap_or("")))
        .cloned()
        .collect();
    // Socket cases once more on sockets of the host, which guests get of TCP
    // and UDP only.
    let sockets: Vec<String> = names
        .iter()
        .filter(|name| name.starts_with("sockets/") && !name.ends_with("/udp_lite"))
        .cloned()
        .collect();

    if options.group("unit") && !options.native_only {
        section("unit tests");
        unit::run(&options, &tally);
    }
    section("native");
    let mut jobs: Vec<Job<'_>> = Vec::new();
    if options.group("guest") || options.group("native") {
        jobs.extend(guest::jobs(&options, &tally, &names, "native", &native));
    }
    if options.group("programs") || options.group("native") {
        jobs.extend(programs::jobs(
            &options, &tally, &scripts, "native", &native,
        ));
    }
    pool::run_all(jobs, options.jobs);

    if !options.native_only {
        for platform in &options.platforms {
            section(platform);
            let on_host = format!("{platform}{}", guest::HOST_NETWORK);
            let through = format!("{platform}{}", guest::WRITTEN_THROUGH);
            let mut jobs: Vec<Job<'_>> = Vec::new();
            if options.group("programs") {
                jobs.extend(programs::jobs(
                    &options, &tally, &scripts, platform, &native,
                ));
            }
            if options.group("guest") {
                for (names, platform) in [
                    (&names, platform),
                    (&sockets, &on_host),
                    (&on_files, &through),
                ] {
                    jobs.extend(guest::jobs(&options, &tally, names, platform, &native));
                }
            }
            if options.group("cli") {
                jobs.extend(host_tests(&options, &tally, platform, "cli", cli::TESTS));
                jobs.extend(host_tests(
                    &options,
                    &tally,
                    platform,
                    "cli",
                    network::TESTS,
                ));
            }
            if options.group("pods") {
                jobs.extend(host_tests(&options, &tally, platform, "pods", pods::TESTS));
            }
            if options.group("cgroups") {
                jobs.extend(host_tests(
                    &options,
                    &tally,
                    platform,
                    "cgroups",
                    cgroups::TESTS,
                ));
            }
            if options.group("robust") {
                jobs.extend(host_tests(
                    &options,
                    &tally,
                    platform,
                    "robust",
                    robust::TESTS,
                ));
            }
            if options.group("security") {
                jobs.extend(host_tests(
                    &options,
                    &tally,
                    platform,
                    "security",
                    security::TESTS,
                ));
            }
            // A sandbox has more than one thread at work.
            pool::run_all(jobs, options.jobs.div_ceil(2).max(2));
            // Engines have timeouts of their own: nothing else runs meanwhile.
            if options.group("engines") && (platform == "systrap" || options.long) {
                section(&format!("{platform}: engines"));
                pool::run_all(engines::jobs(&options, &tally, platform), 2);
            }
        }
    }
    if options.group("oci") && !options.native_only {
        section("OCI conformance");
        oci::run(&options, &tally);
    }
    if options.group("cri") && !options.native_only {
        section("CRI server");
        cri::run(&options, &tally);
    }
    if options.long && options.group("long") {
        long::run(&options, &tally);
    }
    Ok(tally.finish(options.report.as_deref()))
}

/// Tests that look at the runtime from the host.
fn host_tests<'a>(
    options: &'a Options,
    tally: &'a Tally,
    platform: &'a str,
    group: &'a str,
    tests: &'static [(&'static str, cli::Test)],
) -> Vec<Job<'a>> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for (short, test) in tests {
        let name = format!("{group}/{short}");
        if !options.wants(&name) {
            continue;
        }
        jobs.push(Box::new(move || {
            let result = Ctx::new(options, platform, short).and_then(|ctx| test(&ctx));
            let (verdict, detail) = match result {
                Ok(()) => (Verdict::Pass, String::new()),
                Err(e) => match e.strip_prefix(cli::SKIP) {
                    Some(reason) => (Verdict::Skip, reason.to_owned()),
                    None => (Verdict::Fail, e),
                },
            };
            tally.add(
                group,
                Outcome {
                    name,
                    platform: platform.to_owned(),
                    verdict,
                    detail,
                },
            );
        }));
    }
    jobs
}
