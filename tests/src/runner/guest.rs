//! Guest cases natively and in sandboxes: many cases per sandbox, a new
//! sandbox after one that hung or died.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::bundle::Ctx;
use super::command::{self, Running};
use super::options::Options;
use super::pool::Job;
use super::tally::{Outcome, Tally, Verdict};

/// Time-out of one case, in seconds.
const CASE_TIMEOUT_S: u64 = 20;
/// Silence after which a sandbox counts as hung.
const SILENCE: Duration = Duration::from_secs(CASE_TIMEOUT_S + 15);
/// Cases per sandbox.
const BATCH: usize = 40;

/// What a platform's name ends with when sockets are to be the host's.
pub const HOST_NETWORK: &str = "+host";
/// What it ends with when the root is a directory of the host, written through.
pub const WRITTEN_THROUGH: &str = "+rootfs";

/// What the cases need: all a container's root may have.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MKNOD",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
];

/// Verdict and detail by case name.
pub type Results = HashMap<String, (Verdict, String)>;

/// The names of all cases.
pub fn list(options: &Options) -> Result<Vec<String>, String> {
    let done = command::run(
        Command::new(&options.guest).arg("list"),
        Duration::from_secs(20),
    );
    if !done.ok() {
        return Err(format!(
            "{} list: {}",
            options.guest.display(),
            done.describe()
        ));
    }
    Ok(done.stdout.lines().map(str::to_owned).collect())
}

/// A command that runs the cases, and what must stay while it does.
struct Start<'a> {
    command: Command,
    _bundle: Option<Ctx<'a>>,
}

/// What runs the cases program with `args` in the environment.
fn start<'a>(options: &'a Options, platform: &'a str, args: &[&str]) -> Result<Start<'a>, String> {
    if let Some(platform) = platform.strip_suffix(WRITTEN_THROUGH) {
        return on_host_files(options, platform, args);
    }
    let mut command = if platform == "native" {
        Command::new(&options.guest)
    } else if let Some(platform) = platform.strip_suffix(HOST_NETWORK) {
        // In a network namespace of its own, so that ports are free.
        let up = "ip link set lo up && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--", "/bin/sh", "-c", up, "-"])
            .arg(&options.runsc)
            .arg(format!("--platform={platform}"))
            .arg("--network=host");
        command
    } else {
        let mut command = Command::new(&options.runsc);
        command.arg(format!("--platform={platform}"));
        command
    };
    if platform != "native" {
        command.args(["do", "--cwd=/", "--"]).arg(&options.guest);
        command.env("TMPDIR", "/tmp");
    }
    command.args(args);
    Ok(Start {
        command,
        _bundle: None,
    })
}

/// A bundle whose root is a directory of the host, writable.
fn on_host_files<'a>(
    options: &'a Options,
    platform: &'a str,
    args: &[&str],
) -> Result<Start<'a>, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("guest-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let ctx = Ctx::new(options, platform, &name)?;
    let args: Vec<&str> = ["/bin/guest"].iter().chain(args).copied().collect();
    let bundle = ctx.bundle("bundle", &args, |config| {
        config["process"]["env"] = json!(["PATH=/bin", "TMPDIR=/tmp"]);
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["rlimits"] = json!([]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(CAPABILITIES);
        }
    })?;
    let inside = Path::new(&bundle).join("rootfs/bin/guest");
    std::fs::copy(&options.guest, &inside).map_err(|e| format!("{}: {e}", inside.display()))?;
    let command = ctx.runsc(&["--network=none", "run", "--bundle", &bundle, "guest"]);
    Ok(Start {
        command,
        _bundle: Some(ctx),
    })
}

/// Runs `names` and returns the result of each.
pub fn run_batch(options: &Options, platform: &str, names: &[String]) -> Results {
    let mut results = Results::new();
    let mut left: Vec<String> = names.to_vec();
    let mut dead_starts = 0;
    while !left.is_empty() {
        let timeout = CASE_TIMEOUT_S.to_string();
        let options_of_all = ["all", "--timeout", &timeout];
        let args: Vec<&str> = options_of_all
            .into_iter()
            .chain(left.iter().map(String::as_str))
            .collect();
        let end = match start(options, platform, &args) {
            Ok(mut start) => drive(&mut start.command, &mut results),
            Err(reason) => End {
                current: None,
                reason,
            },
        };
        let before = left.len();
        left.retain(|n| !results.contains_key(n));
        match end.current {
            // Died or hung in the middle of a case.
            Some(name) if !results.contains_key(&name) => {
                results.insert(name.clone(), (Verdict::Fail, end.reason));
                left.retain(|n| *n != name);
                dead_starts = 0;
            }
            _ if left.len() < before => dead_starts = 0,
            _ => {
                dead_starts += 1;
                if dead_starts >= 2 {
                    for name in left.drain(..) {
                        results.insert(
                            name,
                            (Verdict::Fail, format!("nothing ran: {}", end.reason)),
                        );
                    }
                }
            }
        }
    }
    results
}

struct End {
    current: Option<String>,
    reason: String,
}

fn drive(command: &mut Command, results: &mut Results) -> End {
    let mut running = match Running::start(command) {
        Ok(r) => r,
        Err(e) => {
            return End {
                current: None,
                reason: e,
            };
        }
    };
    let (mut line, mut stderr) = (Vec::new(), Vec::new());
    let mut current = None;
    let mut output = String::new();
    let mut last = Instant::now();
    let mut hung = false;
    loop {
        match running.next(last + SILENCE) {
            Ok(Some((true, bytes))) => {
                stderr.extend(bytes);
                if stderr.len() > 200_000 {
                    stderr.drain(..100_000);
                }
            }
            Ok(Some((false, bytes))) => {
                last = Instant::now();
                for b in bytes {
                    if b != b'\n' {
                        line.push(b);
                        continue;
                    }
                    let text = String::from_utf8_lossy(&line).into_owned();
                    line.clear();
                    if let Some(name) = text.strip_prefix("> ") {
                        current = Some(name.to_owned());
                        output.clear();
                    } else if let Some(rest) = text.strip_prefix("| ") {
                        output.push_str(rest);
                        output.push('\n');
                    } else if let Some(rest) = text.strip_prefix("@ ") {
                        let mut words = rest.split(' ');
                        if let (Some(name), Some(verdict)) = (words.next(), words.next()) {
                            let verdict = match verdict {
                                "pass" => Verdict::Pass,
                                "skip" => Verdict::Skip,
                                _ => Verdict::Fail,
                            };
                            results.insert(name.to_owned(), (verdict, std::mem::take(&mut output)));
                            current = None;
                        }
                    }
                }
            }
            Ok(None) => break,
            Err(()) => {
                hung = true;
                break;
            }
        }
    }
    let status = if hung {
        None
    } else {
        running.wait(Instant::now() + Duration::from_secs(15))
    };
    if status.is_none() {
        running.kill();
    }
    let how = match status {
        None => "the sandbox hung".to_owned(),
        Some(s) => format!("the sandbox ended ({s})"),
    };
    let text = String::from_utf8_lossy(&stderr).into_owned();
    End {
        current,
        reason: format!("{how}\n{}", command::tail(&text, 20)),
    }
}

/// Jobs that run all cases on `platform`; results go to `all`.
pub fn jobs<'a>(
    options: &'a Options,
    tally: &'a Tally,
    names: &'a [String],
    platform: &'a str,
    native: &'a Mutex<Results>,
) -> Vec<Job<'a>> {
    let mut families: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in names {
        if options.wants(name) {
            families
                .entry(name.split('/').next().unwrap_or(""))
                .or_default()
                .push(name.clone());
        }
    }
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for batch in families.values().flat_map(|f| f.chunks(BATCH)) {
        let batch = batch.to_vec();
        jobs.push(Box::new(move || {
            let mut results = run_batch(options, platform, &batch);
            // A second try, alone, tells a flaky case from a broken one.
            let failed: Vec<String> = batch
                .iter()
                .filter(|n| {
                    results
                        .get(*n)
                        .is_some_and(|r| r.0 == Verdict::Fail && !r.1.starts_with("nothing ran"))
                })
                .cloned()
                .collect();
            if failed.len() <= 8 {
                for name in failed {
                    let again = run_batch(options, platform, std::slice::from_ref(&name));
                    if again.get(&name).is_some_and(|r| r.0 == Verdict::Pass) {
                        let detail = results.get(&name).map(|r| r.1.clone()).unwrap_or_default();
                        println!(
                            "flaky [{platform}] {name}: {}",
                            detail.lines().next().unwrap_or("")
                        );
                        results.insert(name, (Verdict::Pass, detail));
                    }
                }
            }
            for name in &batch {
                let (mut verdict, mut detail) = results
                    .get(name)
                    .cloned()
                    .unwrap_or((Verdict::Fail, "no result".into()));
                if platform == "native" {
                    if let Ok(mut native) = native.lock() {
                        native.insert(name.clone(), (verdict.clone(), detail.clone()));
                    }
                } else {
                    let outside = native
                        .lock()
                        .ok()
                        .and_then(|n| n.get(name).map(|r| r.0.clone()));
                    if verdict == Verdict::Skip && outside == Some(Verdict::Pass) {
                        verdict = Verdict::Fail;
                        detail = format!("skipped inside, though it passes natively: {detail}");
                    } else if verdict == Verdict::Fail && outside == Some(Verdict::Fail) {
                        verdict = Verdict::Skip;
                        detail = "fails natively".into();
                    }
                }
                if verdict == Verdict::Skip && detail.is_empty() {
                    detail = "skipped by the case".into();
                }
                tally.add(
                    "guest",
                    Outcome {
                        name: name.clone(),
                        platform: platform.to_owned(),
                        verdict,
                        detail,
                    },
                );
            }
        }));
    }
    jobs
}
