//! What kills, crowds and shortages must not leave behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::bundle::{Ctx, refused, tree};
use super::cli::Test;
use super::command::{self, Done};

pub const TESTS: &[(&str, Test)] = &[
    ("kill_anything", kill_anything),
    ("crowd_leaves_nothing", crowd_leaves_nothing),
    ("commands_are_serialised", commands_are_serialised),
    ("full_disk", full_disk),
    ("no_more_descriptors", no_more_descriptors),
    ("no_more_processes", no_more_processes),
];

/// A small generator of random numbers (xorshift), so that a run can be
/// repeated from its seed.
struct Random(AtomicU64);

impl Random {
    fn below(&self, bound: u64) -> u64 {
        let step = |mut x: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            Some(x)
        };
        let old = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        (old.unwrap_or(1) >> 11) % bound.max(1)
    }
}

/// The cgroup below which all containers of a test are.
fn cgroup(ctx: &Ctx<'_>, what: &str) -> String {
    format!("/runsc-test-{}-{}-{what}", std::process::id(), ctx.platform)
}

/// Directories of that cgroup in all hierarchies.
fn cgroup_dirs(parent: &str) -> Vec<PathBuf> {
    let tops = std::fs::read_dir("/sys/fs/cgroup")
        .map(|dirs| dirs.flatten().map(|dir| dir.path()).collect::<Vec<_>>())
        .unwrap_or_default();
    tops.into_iter()
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|top| top.join(parent.trim_start_matches('/')))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// Nothing below the test's cgroup; the parent itself is the test's to remove.
fn no_cgroups(parent: &str) -> Result<(), String> {
    for dir in cgroup_dirs(parent) {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                return Err(format!("cgroup {} is left", entry.path().display()));
            }
        }
        let _ = std::fs::remove_dir(&dir);
    }
    Ok(())
}

fn no_mounts(ctx: &Ctx<'_>) -> Result<(), String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let dir = ctx.dir.to_string_lossy().into_owned();
    match mounts.lines().find(|line| line.contains(&dir)) {
        Some(line) => Err(format!("a mount is left: {line}")),
        None => Ok(()),
    }
}

fn kill(pid: u32) {
    // SAFETY: kill takes plain integers.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
}

/// Commands on some containers while their processes, and the commands
/// themselves, are killed at random.
fn kill_anything(ctx: &Ctx<'_>) -> Result<(), String> {
    let operations = if ctx.options.long { 300 } else { 60 };
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| since.as_nanos() as u64 | 1);
    let random = Random(AtomicU64::new(seed));
    let parent = cgroup(ctx, "kill");
    let bundle = |id: &str| {
        ctx.bundle(id, &["/bin/sleep", "1000"], |c| {
            c["linux"]["cgroupsPath"] = json!(format!("{parent}/{id}"));
        })
    };
    let ids: Vec<String> = (0..4).map(|number| format!("victim{number}")).collect();
    let mut bundles = Vec::new();
    for id in &ids {
        bundles.push(bundle(id)?);
    }
    let done = AtomicBool::new(false);
    let kills = AtomicU64::new(0);
    let errors = Mutex::new(Vec::new());
    let fail = |message: String| {
        if let Ok(mut errors) = errors.lock() {
            errors.push(message);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10 + random.below(60)));
                let roots = ctx.processes();
                let all: Vec<u32> = roots.iter().flat_map(|pid| tree(*pid)).collect();
                let at = random.below(all.len() as u64) as usize;
                if let Some(pid) = all.get(at) {
                    kill(*pid);
                    kills.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let workers: Vec<_> = ids
            .iter()
            .zip(&bundles)
            .map(|(id, bundle)| {
                let (random, fail) = (&random, &fail);
                scope.spawn(move || {
                    for _ in 0..operations / 4 {
                        if let Err(message) = operate(ctx, random, id, bundle) {
                            fail(message);
                            return;
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            let _ = worker.join();
        }
        done.store(true, Ordering::Relaxed);
    });
    let errors = errors.into_inner().unwrap_or_default();
    if let Some(error) = errors.first() {
        return Err(format!("seed {seed}: {error}"));
    }
    for id in &ids {
        let deleted = ctx.run(&["delete", "--force", id]);
        if !deleted.ok() {
            return Err(format!("seed {seed}: {}", deleted.describe()));
        }
    }
    let kills = kills.load(Ordering::Relaxed);
    ctx.nothing_left()
        .and_then(|()| no_cgroups(&parent))
        .and_then(|()| no_mounts(ctx))
        .map_err(|left| format!("seed {seed}, {kills} kills: {left}"))
}

/// One random command, and a look at whether the state is told truthfully.
fn operate(ctx: &Ctx<'_>, random: &Random, id: &str, bundle: &str) -> Result<(), String> {
    let args: Vec<&str> = match random.below(12) {
        0..=2 => vec!["create", "--bundle", bundle, id],
        3 | 4 => vec!["start", id],
        5 => vec!["exec", id, "/bin/true"],
        6 => vec!["exec", "--detach", id, "/bin/sleep", "100"],
        7 => vec!["pause", id],
        8 => vec!["resume", id],
        9 => vec!["kill", id, "KILL"],
        10 => vec!["delete", id],
        _ => vec!["delete", "--force", id],
    };
    // An engine gives a created container no pipes that end with it.
    let mut command = ctx.runsc(&args);
    let done = command::run(&mut command, Duration::from_secs(30));
    if done.status.is_none() {
        return Err(format!("{args:?} hangs: {}", done.describe()));
    }
    let state = ctx.run(&["state", id]);
    if state.status.is_none() {
        return Err(format!("state hangs after {args:?}: {}", state.describe()));
    }
    let Ok(told) = serde_json::from_str::<serde_json::Value>(&state.stdout) else {
        // Killed itself, or there is no such container.
        return Ok(());
    };
    let status = told["status"].as_str().unwrap_or_default();
    let pid = told["pid"].as_u64().unwrap_or(0);
    // A moment later it may be otherwise, so only lasting lies count.
    let until = Instant::now() + Duration::from_secs(5);
    while matches!(status, "created" | "running" | "paused") && !alive(pid) {
        let again = ctx.run(&["state", id]);
        let again = serde_json::from_str::<serde_json::Value>(&again.stdout);
        if again.is_ok_and(|again| again["status"] == status && again["pid"] == pid) {
            if Instant::now() > until {
                return Err(format!("{id} is said to be {status}, but {pid} has ended"));
            }
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        break;
    }
    Ok(())
}

fn alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some(state) if state != 'Z' && state != 'X')
}

/// Many containers at once.
fn crowd_leaves_nothing(ctx: &Ctx<'_>) -> Result<(), String> {
    let containers = if ctx.options.long { 200 } else { 40 };
    let parent = cgroup(ctx, "crowd");
    let shared = ctx.bundle("crowd", &["/bin/sh", "-c", "exit 3"], |c| {
        if let Some(linux) = c["linux"].as_object_mut() {
            linux.remove("cgroupsPath");
        }
    })?;
    let text = std::fs::read_to_string(Path::new(&shared).join("config.json"))
        .map_err(|e| e.to_string())?;
    let config: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let next = AtomicU64::new(0);
    let errors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= containers {
                        return;
                    }
                    let one = crowd_member(ctx, &shared, &config, &parent, number);
                    if let (Err(error), Ok(mut errors)) = (one, errors.lock()) {
                        errors.push(format!("container {number}: {error}"));
                    }
                }
            });
        }
    });
    let errors = errors.into_inner().unwrap_or_default();
    if let Some(error) = errors.first() {
        return Err(format!("{} failed, the first: {error}", errors.len()));
    }
    ctx.nothing_left()?;
    no_cgroups(&parent)?;
    no_mounts(ctx)
}

fn crowd_member(
    ctx: &Ctx<'_>,
    shared: &str,
    config: &serde_json::Value,
    parent: &str,
    number: u64,
) -> Result<(), String> {
    let id = format!("crowd{number}");
    let bundle = ctx.dir.join(&id);
    std::fs::create_dir_all(&bundle).map_err(|e| e.to_string())?;
    let mut config = config.clone();
    config["root"] = json!({"path": format!("{shared}/rootfs"), "readonly": true});
    config["linux"]["cgroupsPath"] = json!(format!("{parent}/{id}"));
    std::fs::write(bundle.join("config.json"), config.to_string()).map_err(|e| e.to_string())?;
    let bundle = bundle.to_string_lossy().into_owned();
    let must = |args: &[&str]| -> Result<Done, String> {
        let done = command::run(&mut ctx.runsc(args), Duration::from_secs(100));
        if done.ok() {
            Ok(done)
        } else {
            Err(format!("{args:?}: {}", done.describe()))
        }
    };
    must(&["create", "--bundle", &bundle, &id])?;
    must(&["start", &id])?;
    let waited = must(&["wait", &id])?;
    if !waited.stdout.contains("\"exitStatus\":3") {
        return Err(waited.describe());
    }
    must(&["delete", &id])?;
    Ok(())
}

/// Of the same command at the same time, exactly one succeeds.
fn commands_are_serialised(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("serial", &["/bin/sleep", "1000"], |_| {})?;
    let at_once = |args: &[&str]| -> Vec<Done> {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..6).map(|_| scope.spawn(|| ctx.run(args))).collect();
            all.into_iter().filter_map(|one| one.join().ok()).collect()
        })
    };
    for args in [
        &["create", "--bundle", &bundle, "serial"][..],
        &["start", "serial"],
        &["delete", "--force", "serial"],
    ] {
        let done = at_once(args);
        let good = done.iter().filter(|done| done.ok()).count();
        // To delete by force what is gone is no error.
        let right = if args[0] == "delete" {
            good == 6
        } else {
            good == 1
        };
        if !right {
            let said: Vec<&str> = done.iter().map(|done| done.stderr.trim()).collect();
            return Err(format!("{good} of {args:?} succeeded: {said:?}"));
        }
    }
    ctx.nothing_left()
}

/// A tmpfs of a few pages, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(dir: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "none"])
            .arg(&dir)
            .status();
        match mounted {
            Ok(status) if status.success() => Ok(Self(dir)),
            other => Err(format!("a small disk can't be mounted: {other:?}")),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn full_disk(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("full", &["/bin/true"], |_| {})?;
    let disk = SmallDisk::new(ctx.dir.join("small"))?;
    let filled = std::fs::write(disk.0.join("filler"), vec![0; 64 << 10]);
    let _ = filled;
    let run = |args: &[&str]| {
        let mut command = Command::new(&ctx.options.runsc);
        command
            .arg("--root")
            .arg(disk.0.join("state"))
            .arg(format!("--platform={}", ctx.platform))
            .args(args);
        command::run(&mut command, Duration::from_secs(30))
    };
    refused(
        &run(&["run", "--bundle", &bundle, "full"]),
        &["no space left"],
    )?;
    // With room again, nothing of it is in the way.
    std::fs::remove_file(disk.0.join("filler")).map_err(|e| e.to_string())?;
    let done = run(&["run", "--bundle", &bundle, "full"]);
    if !done.ok() {
        return Err(done.describe());
    }
    ctx.nothing_left()
}

fn no_more_descriptors(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("fds", &["/bin/true"], |_| {})?;
    for limit in [6, 9, 12] {
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={limit}:{limit}"))
            .arg(&ctx.options.runsc)
            .arg("--root")
            .arg(&ctx.state)
            .arg(format!("--platform={}", ctx.platform))
            .args(["run", "--bundle", &bundle, "fds"]);
        let done = command::run(&mut command, Duration::from_secs(30));
        if !done.ok() {
            refused(&done, &["too many open files"])?;
        }
        ctx.nothing_left()?;
    }
    Ok(())
}

fn no_more_processes(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("pids", &["/bin/true"], |c| {
        // It stays in the cgroup of the command, which is full.
        if let Some(linux) = c["linux"].as_object_mut() {
            linux.remove("cgroupsPath");
        }
    })?;
    let name = cgroup(ctx, "pids");
    let dir = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .into_iter()
        .map(|top| Path::new(top).join(name.trim_start_matches('/')))
        .find(|dir| {
            let _ = std::fs::create_dir(dir);
            dir.join("pids.max").exists()
        })
        .ok_or("no pids controller")?;
    let mut result = Ok(());
    for limit in [1, 2] {
        std::fs::write(dir.join("pids.max"), format!("{limit}")).map_err(|e| e.to_string())?;
        let line = format!(
            "echo $$ > {}/cgroup.procs && exec {} --root {} --platform={} run --bundle {bundle} pids",
            dir.display(),
            ctx.options.runsc.display(),
            ctx.state.display(),
            ctx.platform,
        );
        let done = command::run(
            Command::new("sh").args(["-c", &line]),
            Duration::from_secs(30),
        );
        // The sandbox leaves for a cgroup of its own, so two may be enough.
        if !done.ok() {
            result = refused(&done, &["temporarily unavailable"])
                .or_else(|_| refused(&done, &["EAGAIN"]));
        }
        if result.is_err() {
            break;
        }
        result = ctx.nothing_left();
    }
    let _ = std::fs::remove_dir(&dir);
    result
}
