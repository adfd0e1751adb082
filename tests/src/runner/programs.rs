//! Real programs: scripts in `programs/`, each run natively and inside
//! sandboxes. The header says what a script needs:
//!
//! ```text
//! # packages: redis-server redis-tools
//! # platforms: systrap ptrace      (default: systrap)
//! # long                           (only with --long)
//! # native: no                     (would change the machine)
//! # timeout: 120                   (seconds, default 60)
//! ```

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use super::command;
use super::guest::Results;
use super::options::Options;
use super::pool::Job;
use super::tally::{Outcome, Tally, Verdict};

#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    pub path: PathBuf,
    pub platforms: Vec<String>,
    pub long: bool,
    pub native: bool,
    pub timeout: Duration,
    pub packages: Vec<String>,
}

/// All scripts, by name.
pub fn list(options: &Options) -> Result<Vec<Script>, String> {
    let dir = options.source.join("programs");
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(&dir)
        .map_err(|e| format!("{}: {e}", dir.display()))?
        .flatten()
    {
        let path = entry.path();
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".sh") else {
            continue;
        };
        let text =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        scripts.push(parse(stem, path, &text));
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

fn parse(stem: &str, path: PathBuf, text: &str) -> Script {
    let mut script = Script {
        name: format!("programs/{stem}"),
        path,
        platforms: vec!["systrap".into()],
        long: false,
        native: true,
        timeout: Duration::from_secs(60),
        packages: Vec::new(),
    };
    for line in text.lines().take_while(|l| l.starts_with('#')) {
        let line = line.trim_start_matches('#').trim();
        let words = |rest: &str| {
            rest.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        if line == "long" {
            script.long = true;
        } else if let Some(rest) = line.strip_prefix("platforms:") {
            script.platforms = words(rest);
        } else if let Some(rest) = line.strip_prefix("packages:") {
            script.packages = words(rest);
        } else if let Some(rest) = line.strip_prefix("timeout:") {
            script.timeout = Duration::from_secs(rest.trim().parse().unwrap_or(60));
        } else if line
            .strip_prefix("native:")
            .is_some_and(|r| r.trim() == "no")
        {
            script.native = false;
        }
    }
    script
}

/// Ports and process names of its own, as in a sandbox: what else runs on the
/// host is neither in the way of a script nor in reach of its `pkill`.
const NATIVE: [&str; 10] = [
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "sh",
    "-c",
    "ip link set lo up && exec \"$@\"",
    "sh",
    "env",
];

fn start(options: &Options, platform: &str, script: &Script) -> Command {
    let mut command = if platform == "native" {
        let mut c = Command::new("unshare");
        c.args(NATIVE);
        c
    } else {
        let mut c = Command::new(&options.runsc);
        c.arg(format!("--platform={platform}"))
            .args(["do", "--cwd=/", "--", "/usr/bin/env"]);
        c
    };
    command
        .args(["-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"])
        .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .arg(format!("STATIC_DIR={}", options.static_dir.display()))
        .arg(format!("LONG={}", u8::from(options.long)))
        .arg(format!("PLATFORM={platform}"))
        .arg("bash")
        .arg(&script.path);
    command
}

/// Jobs for the scripts of one platform.
pub fn jobs<'a>(
    options: &'a Options,
    tally: &'a Tally,
    scripts: &'a [Script],
    platform: &'a str,
    native: &'a Mutex<Results>,
) -> Vec<Job<'a>> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for script in scripts {
        if !options.wants(&script.name) || (script.long && !options.long) {
            continue;
        }
        if platform == "native" && !script.native {
            continue;
        }
        if platform != "native" && !script.platforms.iter().any(|p| p == platform) {
            continue;
        }
        jobs.push(Box::new(move || {
            // Inside, everything may take three times as long.
            let timeout = if platform == "native" {
                script.timeout
            } else {
                script.timeout * 3
            };
            let done = command::run(&mut start(options, platform, script), timeout);
            let mut verdict = match done.code() {
                Some(0) => Verdict::Pass,
                Some(77) => Verdict::Skip,
                _ => Verdict::Fail,
            };
            let mut detail = done.describe();
            if verdict == Verdict::Skip {
                detail = done
                    .stdout
                    .lines()
                    .last()
                    .unwrap_or("skipped by the script")
                    .to_owned();
            }
            if platform == "native" {
                if let Ok(mut native) = native.lock() {
                    native.insert(script.name.clone(), (verdict.clone(), String::new()));
                }
            } else if verdict == Verdict::Fail
                && native
                    .lock()
                    .is_ok_and(|n| n.get(&script.name).is_some_and(|r| r.0 == Verdict::Fail))
            {
                verdict = Verdict::Skip;
                detail = "fails natively".into();
            }
            tally.add(
                "programs",
                Outcome {
                    name: script.name.clone(),
                    platform: platform.to_owned(),
                    verdict,
                    detail,
                },
            );
        }));
    }
    jobs
}
