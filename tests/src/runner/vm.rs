//! Tests in a virtual machine that boots Debian's kernel with systemd and
//! cgroup version 2 alone, for what this machine's own set-up can't show
//! (`tests/run --vm`).
//!
//! `tests/vm/image` makes kernel and root once. Each run puts the binaries on
//! a second disk and boots; there the runner itself runs, and sends what it
//! finds over a serial line, one JSON object a line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::command::{self, Running};
use super::options::Options;
use super::tally::{Outcome, Tally, Verdict};

/// For making image and machine, and for all tests in it.
const IMAGE_TIMEOUT: Duration = Duration::from_secs(1200);
const TIMEOUT: Duration = Duration::from_secs(900);

/// Exit status of `tests/vm/image` where there can be no machine.
const NOT_HERE: i32 = 77;

/// Runs of the runner in the machine: groups, and what of them.
const ROUNDS: &[&[&str]] = &[
    &["--group", "cgroups"],
    &[
        "--group",
        "cli",
        "--group",
        "pods",
        "--platform",
        "systrap",
        "--filter",
        "cli/do_exit_codes",
        "--filter",
        "cli/life_cycle",
        "--filter",
        "cli/exec_and_ps",
        "--filter",
        "cli/killed_sentry_is_reported",
        "--filter",
        "pods/shared_namespaces",
        "--filter",
        "pods/cgroups",
    ],
];

/// Runs everything in a machine whose parts are kept in `RUNSC_VM_DIR`.
pub fn run(options: &Options, tally: &Tally) {
    let outcome = |verdict, detail: String| Outcome {
        name: "vm/machine".to_owned(),
        platform: "vm".to_owned(),
        verdict,
        detail,
    };
    match boot(options, tally) {
        Ok(None) => tally.add("vm", outcome(Verdict::Pass, String::new())),
        Ok(Some(reason)) => tally.add("vm", outcome(Verdict::Skip, reason)),
        Err(e) => tally.add("vm", outcome(Verdict::Fail, e)),
    }
}

/// Answers why there can be no machine here, if so.
fn boot(options: &Options, tally: &Tally) -> Result<Option<String>, String> {
    let parts = std::env::var_os("RUNSC_VM_DIR").map_or("/var/tmp/runsc-vm".into(), PathBuf::from);
    let script = options.source.join("vm/image");
    println!("preparing the machine in {}", parts.display());
    let made = command::run(Command::new(script).arg(&parts), IMAGE_TIMEOUT);
    if made.code() == Some(NOT_HERE) {
        let reason = made.stdout.lines().last().unwrap_or("no reason given");
        return Ok(Some(reason.to_owned()));
    }
    if !made.ok() {
        return Err(made.describe());
    }
    let scratch = Scratch::new()?;
    let disk = data_disk(options, &scratch.0)?;
    let (console, results) = (scratch.0.join("console"), scratch.0.join("results"));
    let mut machine = qemu(&parts);
    machine
        .args(["-m", "2048", "-smp", "4", "-cpu", CPU])
        .args(accelerator())
        .args(["-nographic", "-monitor", "none", "-nic", "none"])
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(parts.join("vmlinuz"))
        .args(["-append", KERNEL_LINE]);
    for (name, file) in [("root", &parts.join("root.ext4")), ("data", &disk)] {
        // Writes go to a file that is gone with the machine.
        let drive = format!(
            "if=none,id={name},format=raw,snapshot=on,file={}",
            file.display()
        );
        let device = format!("nvme,drive={name},serial={name}");
        machine.args(["-drive", &drive, "-device", &device]);
    }
    for file in [&console, &results] {
        machine.args(["-serial", &format!("file:{}", file.display())]);
    }
    let ended = follow(Running::start(&mut machine)?, &results, tally);
    let log = fs::read_to_string(&console).unwrap_or_default();
    ended
        .map(|()| None)
        .map_err(|e| format!("{e}\n{}", command::tail(&log, 40)))
}

/// As much as is emulated, but for SMAP: qemu 7.2 reads the stack of an `iret`
/// in user mode, which stubs use, as the kernel would.
const CPU: &str = "max,smap=off";

/// The second NVMe disk is mounted by the unit that `tests/vm/image` wrote.
const KERNEL_LINE: &str = "root=/dev/nvme0n1 rw console=ttyS0 quiet panic=-1 \
    systemd.show_status=no mitigations=off systemd.unified_cgroup_hierarchy=1";

/// The emulator, or that which was unpacked with its libraries.
fn qemu(parts: &Path) -> Command {
    let own = parts.join("qemu");
    let program = own.join("usr/bin/qemu-system-x86_64");
    if !program.exists() {
        return Command::new("qemu-system-x86_64");
    }
    let mut command = Command::new(program);
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
    let libraries = libraries.map(|dir| own.join(dir).display().to_string());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(own.join(firmware));
    }
    command
}

/// Emulation works everywhere; `RUNSC_VM_ACCEL=kvm` asks for more.
fn accelerator() -> [String; 2] {
    let name = std::env::var("RUNSC_VM_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".to_owned());
    ["-accel".to_owned(), name]
}

/// Takes over what the machine reports until it ends.
fn follow(mut machine: Running, results: &Path, tally: &Tally) -> Result<(), String> {
    let until = Instant::now() + TIMEOUT;
    let mut seen = 0;
    let mut complete = false;
    loop {
        let ended = machine.wait(Instant::now() + Duration::from_secs(1));
        // The line may be cut anywhere while it is being written.
        let text = fs::read(results).unwrap_or_default();
        let fresh = text.get(seen..).unwrap_or_default();
        let whole = fresh.iter().rposition(|byte| *byte == b'\n');
        let fresh = fresh
            .get(..whole.map_or(0, |at| at + 1))
            .unwrap_or_default();
        seen += fresh.len();
        for line in String::from_utf8_lossy(fresh).lines() {
            match serde_json::from_str::<Value>(line.trim()) {
                Ok(value) if value["complete"] == true => complete = true,
                Ok(value) => tally.add("vm", outcome(&value)),
                Err(_) => {}
            }
        }
        if ended.is_some() || Instant::now() > until {
            break;
        }
    }
    machine.kill();
    if complete {
        return Ok(());
    }
    let (mut said, now) = (String::new(), Instant::now());
    while let Ok(Some((_, bytes))) = machine.next(now) {
        said.push_str(&String::from_utf8_lossy(&bytes));
    }
    Err(format!(
        "the machine ended or was given up before its tests: {said}"
    ))
}

fn outcome(value: &Value) -> Outcome {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Outcome {
        name: text("name"),
        platform: format!("vm-{}", text("platform")),
        verdict: match value["verdict"].as_str() {
            Some("pass") => Verdict::Pass,
            Some("skip") => Verdict::Skip,
            _ => Verdict::Fail,
        },
        detail: text("detail"),
    }
}

/// A line of what the machine reports.
pub fn line(outcome: &Outcome) -> String {
    let verdict = match outcome.verdict {
        Verdict::Pass => "pass",
        Verdict::Skip => "skip",
        Verdict::Fail => "fail",
    };
    let detail: String = outcome.detail.chars().take(4000).collect();
    let value = json!({
        "name": outcome.name,
        "platform": outcome.platform,
        "verdict": verdict,
        "detail": detail,
    });
    format!("{value}\n")
}

/// The disk with binaries, tests, and the script that runs them.
fn data_disk(options: &Options, scratch: &Path) -> Result<PathBuf, String> {
    let data = scratch.join("data");
    let shown = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(data.join("tests/programs")).map_err(|e| shown(&data, e))?;
    let mut size = 0;
    let known = options.source.join("known-failures.txt");
    for (from, to) in [
        (options.runsc.clone(), "runsc"),
        (options.static_dir.join("run-tests"), "run-tests"),
        (options.static_dir.join("guest"), "guest"),
        (known, "tests/known-failures.txt"),
    ] {
        size += fs::copy(&from, data.join(to)).map_err(|e| shown(&from, e))?;
    }
    let start = data.join("start");
    fs::write(&start, start_script(options)).map_err(|e| shown(&start, e))?;
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&start, mode).map_err(|e| shown(&start, e))?;
    let disk = scratch.join("data.ext4");
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-d"])
        .arg(&data)
        .arg(&disk)
        .arg(format!("{}M", (size >> 20) * 5 / 4 + 64));
    let made = command::run(&mut make, Duration::from_secs(120));
    let _ = fs::remove_dir_all(&data);
    if !made.ok() {
        return Err(made.describe());
    }
    Ok(disk)
}

fn start_script(options: &Options) -> String {
    let mut script = "#!/bin/sh\n\
        stty -F /dev/ttyS1 raw -echo\n\
        export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/var/tmp\n\
        cd /data\n\
        echo \"machine is up after $(cut -d' ' -f1 /proc/uptime) s\"\n"
        .to_owned();
    for round in ROUNDS {
        let mut filters = String::new();
        if options.filters.is_empty() {
            filters = round.join(" ");
        } else {
            // Only those that are asked for, of all rounds.
            for pair in round
                .chunks(2)
                .filter(|pair| pair.first() != Some(&"--filter"))
            {
                filters.push_str(&pair.join(" "));
                filters.push(' ');
            }
            for filter in &options.filters {
                filters.push_str(&format!(" --filter '{}'", filter.replace('\'', "")));
            }
        }
        script.push_str(&format!(
            "./run-tests --source /data/tests --runsc /data/runsc --static-dir /data \
             --results /dev/ttyS1 --jobs 2 --verbose {filters}\n"
        ));
    }
    script.push_str("echo '{\"complete\": true}' > /dev/ttyS1\nsync\n");
    script
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("runsc-vm-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Appends what is found to a file; see [`line`].
pub fn append(path: &Path, outcome: &Outcome) {
    use std::io::Write;
    let file = fs::OpenOptions::new().append(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(line(outcome).as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        let sent = Outcome {
            name: "cgroups/one".to_owned(),
            platform: "systrap".to_owned(),
            verdict: Verdict::Fail,
            detail: "two\nlines \"quoted\"".to_owned(),
        };
        let line = line(&sent);
        assert_eq!(line.matches('\n').count(), 1);
        let got = outcome(&serde_json::from_str(&line).expect("JSON"));
        assert_eq!(got.platform, "vm-systrap");
        assert_eq!(
            (got.name, got.verdict, got.detail),
            (sent.name, sent.verdict, sent.detail)
        );
    }
}
