//! Suites that take minutes: CPython's own tests and stress-ng, one case per
//! module or stressor, each compared with its native run.

use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::command;
use super::options::Options;
use super::pool::{self, Job};
use super::tally::{Outcome, Tally, Verdict};

const STRESSORS: &[&str] = &[
    "cpu", "vm", "brk", "mmap", "mremap", "fork", "vfork", "clone", "exec", "pipe", "signal",
    "kill", "futex", "timer", "itimer", "sem", "sem-sysv", "mq", "msg", "shm", "shm-sysv", "epoll",
    "poll", "eventfd", "hdd", "dir", "dentry", "rename", "link", "flock", "fcntl", "inotify",
    "sock", "udp", "sockpair", "sockfd", "pthread", "switch", "sigq",
];

/// Names of all cases.
pub fn list() -> Vec<String> {
    let mut names: Vec<String> = STRESSORS.iter().map(|s| format!("stress-ng/{s}")).collect();
    let dir = std::path::Path::new("/usr/lib/python3.11/test");
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let module = file.strip_suffix(".py").unwrap_or(&file);
        let package = entry.path().join("__init__.py").exists();
        if module.starts_with("test_") && (file.ends_with(".py") || package) {
            names.push(format!("cpython/{module}"));
        }
    }
    names.sort();
    names
}

fn case(name: &str) -> Vec<String> {
    let (suite, what) = name.split_once('/').unwrap_or_default();
    let line = if suite == "stress-ng" {
        format!(
            "cd $(mktemp -d) && stress-ng --{what} 2 --timeout 5s --verify --temp-path . --oomable 2>&1 | tail -30; test ${{PIPESTATUS[0]}} = 0"
        )
    } else {
        format!(
            "cd $(mktemp -d) && /usr/bin/python3 -m test -u none --timeout 600 {what} 2>&1 | tail -60; exit ${{PIPESTATUS[0]}}"
        )
    };
    [
        "env",
        "-i",
        "HOME=/tmp",
        "LANG=C.UTF-8",
        "TERM=dumb",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "bash",
        "-c",
        &line,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn native(name: &str) -> (bool, Duration, String) {
    let words = case(name);
    let (program, args) = words
        .split_first()
        .map(|(p, a)| (p.clone(), a.to_vec()))
        .unwrap_or_default();
    let start = Instant::now();
    let done = command::run(Command::new(program).args(args), Duration::from_secs(400));
    (done.ok(), start.elapsed(), done.describe())
}

/// Up to three tries, each with three times the native time.
fn inside(options: &Options, platform: &str, name: &str, took: Duration) -> (bool, String) {
    let mut detail = String::new();
    for _ in 0..3 {
        let mut c = Command::new(&options.runsc);
        c.arg(format!("--platform={platform}"))
            .args(["do", "--cwd=/", "--"])
            .args(case(name));
        let done = command::run(&mut c, took * 3 + Duration::from_secs(15));
        if done.ok() {
            return (true, detail);
        }
        detail = done.describe();
    }
    (false, detail)
}

pub fn run(options: &Options, tally: &Tally) {
    let passed = Mutex::new(Vec::new());
    let names: Vec<String> = list().into_iter().filter(|n| options.wants(n)).collect();
    println!("== long suites natively: {} cases", names.len());
    let jobs: Vec<Job<'_>> = names
        .iter()
        .map(|name| {
            let passed = &passed;
            Box::new(move || {
                let (ok, took, detail) = native(name);
                if ok {
                    if let Ok(mut p) = passed.lock() {
                        p.push((name.clone(), took));
                    }
                } else {
                    let first = detail.lines().next().unwrap_or("").to_owned();
                    tally.add(
                        "long",
                        Outcome {
                            name: name.clone(),
                            platform: "native".into(),
                            verdict: Verdict::Skip,
                            detail: format!("fails natively: {first}"),
                        },
                    );
                }
            }) as Job<'_>
        })
        .collect();
    pool::run_all(jobs, options.jobs);
    if options.native_only {
        return;
    }
    let passed = passed.into_inner().unwrap_or_default();
    let platform = "systrap";
    if !options.platforms.iter().any(|p| p == platform) {
        return;
    }
    println!("== long suites on {platform}: {} cases", passed.len());
    let jobs: Vec<Job<'_>> = passed
        .iter()
        .map(|(name, took)| {
            Box::new(move || {
                let (ok, detail) = inside(options, platform, name, *took);
                let verdict = if ok { Verdict::Pass } else { Verdict::Fail };
                tally.add(
                    "long",
                    Outcome {
                        name: name.clone(),
                        platform: platform.into(),
                        verdict,
                        detail,
                    },
                );
            }) as Job<'_>
        })
        .collect();
    pool::run_all(jobs, options.jobs.div_ceil(2));
}
