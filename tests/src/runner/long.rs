//! Suites that take minutes: CPython's own tests, one case per module, and
//! stress-ng, one per stressor. Each case runs natively first and counts
//! inside only if it passes there, with up to three tries on either side and
//! three times the native time.
//!
//! What fails is listed in `known-failures.txt`; the list of CPython's modules
//! may not grow over one in twenty, and `docs/COMPATIBILITY.md` explains each
//! (a rule in `src/rules.rs` compares the two).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::command::{self, Done};
use super::options::Options;
use super::pool::{self, Job};
use super::tally::{Outcome, Tally, Verdict};

/// Where Debian's libpython3.11-testsuite has CPython's suite.
fn cpython() -> Option<PathBuf> {
    let mut entries = std::fs::read_dir("/usr/lib").ok()?.flatten();
    entries.find_map(|entry| {
        let named = entry.file_name().to_string_lossy().starts_with("python3.");
        let tests = entry.path().join("test");
        (named && tests.join("test_os.py").exists()).then_some(tests)
    })
}

const STRESSORS: &[&str] = &[
    "cpu", "vm", "brk", "mmap", "mremap", "fork", "vfork", "clone", "exec", "pipe", "signal",
    "kill", "futex", "timer", "itimer", "sem", "sem-sysv", "mq", "msg", "shm", "shm-sysv", "epoll",
    "poll", "eventfd", "hdd", "dir", "dentry", "rename", "link", "flock", "fcntl", "inotify",
    "sock", "udp", "sockpair", "sockfd", "pthread", "switch", "sigq",
];

const TRIES: u32 = 3;
/// A case that takes longer natively is a failure.
const NATIVE_LIMIT: Duration = Duration::from_secs(300);
/// Least time a case gets inside: a start of Python on a busy machine.
const LEAST_LIMIT: Duration = Duration::from_secs(45);

/// How many modules count and how many of them pass.
#[derive(Default)]
struct Share {
    counted: u64,
    passed: u64,
}

/// Names of all cases.
pub fn list() -> Vec<String> {
    let mut names: Vec<String> = STRESSORS.iter().map(|s| format!("stress-ng/{s}")).collect();
    let suite = cpython().and_then(|dir| std::fs::read_dir(dir).ok());
    for entry in suite.into_iter().flatten().flatten() {
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

/// The command of a case. Python dumps its threads shortly before the limit.
fn case(name: &str, limit: Duration) -> Vec<String> {
    let (suite, what) = name.split_once('/').unwrap_or_default();
    let line = if suite == "stress-ng" {
        format!("stress-ng --{what} 2 --timeout 5s --verify --temp-path . --oomable 2>&1")
    } else {
        let inner = limit.as_secs().saturating_sub(8).max(20);
        // Where the host has a vsock device but no loopback for it, as virtual
        // machines do, the wait for a connection never ends.
        let without = match what {
            "test_socket" => "-i '*VSOCK*' ",
            _ => "",
        };
        format!("/usr/bin/python3 -m test -W -u none --timeout {inner} {without}{what} 2>&1")
    };
    let line = format!(
        "TMPDIR=$(mktemp -d) && export TMPDIR && cd $TMPDIR || exit 99; {line} | tail -400; \
         code=${{PIPESTATUS[0]}}; cd /; rm -rf \"$TMPDIR\"; exit $code"
    );
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

/// The first success of some tries, or the last failure.
fn tries(mut once: impl FnMut() -> Done) -> (Done, Duration, u32) {
    let mut n = 1;
    loop {
        let start = Instant::now();
        let done = once();
        // What hangs natively hangs again, at minutes a try.
        let hopeless = start.elapsed() > NATIVE_LIMIT / 2 && !done.ok();
        if done.ok() || n == TRIES || hopeless {
            return (done, start.elapsed(), n);
        }
        n += 1;
    }
}

fn native(name: &str) -> (Done, Duration, u32) {
    let words = case(name, NATIVE_LIMIT);
    let (program, args) = words
        .split_first()
        .map(|(p, a)| (p.clone(), a.to_vec()))
        .unwrap_or_default();
    tries(|| command::run(Command::new(&program).args(&args), NATIVE_LIMIT))
}

fn inside(options: &Options, name: &str, took: Duration) -> (Done, Duration, u32) {
    let limit = (took * 3).max(LEAST_LIMIT);
    tries(|| {
        let mut c = Command::new(&options.runsc);
        c.args(["--platform=systrap", "do", "--cwd=/", "--"])
            .args(case(name, limit));
        command::run(&mut c, limit)
    })
}

/// One line of progress for each case.
fn progress(name: &str, verdict: &str, native: Duration, inside: Option<(Duration, u32)>) {
    let inside = inside.map_or_else(String::new, |(took, tries)| {
        format!(", systrap {:.1} s, try {tries}", took.as_secs_f32())
    });
    println!(
        "{verdict:7} {name}: native {:.1} s{inside}",
        native.as_secs_f32()
    );
}

fn one(options: &Options, tally: &Tally, share: &Mutex<Share>, name: &str) {
    let add = |platform: &str, verdict, detail| {
        tally.add(
            "long",
            Outcome {
                name: name.to_owned(),
                platform: platform.into(),
                verdict,
                detail,
            },
        );
    };
    let (done, native_took, _) = native(name);
    if !done.ok() {
        progress(name, "no", native_took, None);
        save(options, name, "native", &done);
        add("native", Verdict::Skip, "fails natively".into());
        return;
    }
    if options.native_only && !skipped(&done) {
        progress(name, "ok", native_took, None);
        add("native", Verdict::Pass, String::new());
        return;
    }
    if skipped(&done) {
        progress(name, "none", native_took, None);
        add("native", Verdict::Skip, "nothing to test natively".into());
        return;
    }
    let (done, took, tries) = inside(options, name, native_took);
    // One that finds nothing to test only inside has not passed.
    let ok = done.ok() && !skipped(&done);
    let word = if ok { "ok" } else { "FAILS" };
    progress(name, word, native_took, Some((took, tries)));
    if !ok || tries > 1 {
        save(options, name, "systrap", &done);
    }
    if name.starts_with("cpython/")
        && let Ok(mut share) = share.lock()
    {
        share.counted += 1;
        share.passed += u64::from(ok);
    }
    let verdict = if ok { Verdict::Pass } else { Verdict::Fail };
    add("systrap", verdict, done.describe());
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// Whether Python skipped the whole module.
fn skipped(done: &Done) -> bool {
    done.stdout.lines().any(|l| l.trim() == "1 test skipped:")
}

/// Keeps what a failed case said, with `--logs DIR`.
fn save(options: &Options, name: &str, platform: &str, done: &Done) {
    let Some(dir) = &options.logs else { return };
    let file: PathBuf = Path::new(dir).join(format!("{}.{platform}", name.replace('/', ".")));
    let text = format!("{:?}\n{}{}", done.status, done.stderr, done.stdout);
    let _ = std::fs::create_dir_all(dir);
    let _ = std::fs::write(file, text);
}

pub fn run(options: &Options, tally: &Tally) {
    if !options.native_only && !options.platforms.iter().any(|p| p == "systrap") {
        return;
    }
    let names: Vec<String> = list().into_iter().filter(|n| options.wants(n)).collect();
    println!("== long suites: {} cases", names.len());
    let share = Mutex::new(Share::default());
    let jobs: Vec<Job<'_>> = names
        .iter()
        .map(|name| {
            let share = &share;
            Box::new(move || one(options, tally, share, name)) as Job<'_>
        })
        .collect();
    // Two at once: a module may use several processes of its own.
    pool::run_all(jobs, options.jobs.min(2));
    let Ok(share) = share.into_inner() else {
        return;
    };
    // A suite that is not installed must not look like one that passes.
    for suite in ["cpython", "stress-ng"] {
        let names_suite = |name: &String| name.starts_with(suite);
        let missing = match suite {
            "cpython" => !names.iter().any(names_suite),
            _ => !on_path(suite),
        };
        if missing && options.filters.is_empty() {
            let outcome = Outcome {
                name: format!("long/{suite}"),
                platform: "native".into(),
                verdict: Verdict::Fail,
                detail: format!("{suite} is not installed"),
            };
            tally.add("long", outcome);
        }
    }
    if share.counted > 0 {
        println!(
            "CPython: {} of {} modules that pass natively",
            share.passed, share.counted
        );
        let enough = share.passed * 100 >= share.counted * 95 || !options.filters.is_empty();
        tally.add(
            "long",
            Outcome {
                name: "long/cpython-share".into(),
                platform: "systrap".into(),
                verdict: if enough { Verdict::Pass } else { Verdict::Fail },
                detail: format!("{} of {} modules pass", share.passed, share.counted),
            },
        );
    }
}
