//! Cgroups of the host: where a container's processes are, what limits them,
//! and what is told of that inside and outside. Version 1 and version 2 alike:
//! `tests/run` shows what this host has, `tests/run --vm` version 2 alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bundle::{Ctx, expect};
use super::cli::{SKIP, Test};
use super::command::{self, Done};

pub const TESTS: &[(&str, Test)] = &[
    ("placement", placement),
    ("limits_are_written", limits_are_written),
    ("limits_show_inside", limits_show_inside),
    ("outside_changes_show", outside_changes_show),
    ("update_shows", update_shows),
    ("oom_kill_is_told", oom_kill_is_told),
    ("throttling_is_told", throttling_is_told),
    ("tasks_are_limited", tasks_are_limited),
    ("containers_of_a_pod", containers_of_a_pod),
    ("update_as_runc_does", update_as_runc_does),
    ("systemd_scope", systemd_scope),
];

pub(super) fn check(ok: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(what()) }
}

/// Repeats `attempt` until it answers something.
pub(super) fn eventually<T>(
    what: &str,
    mut attempt: impl FnMut() -> Option<T>,
) -> Result<T, String> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = attempt() {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(format!("in vain: {what}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether version 2 is all that this host has.
pub(super) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A cgroup of this test by itself; its directories go with it.
pub(super) struct Place {
    /// As in `linux.cgroupsPath`.
    pub path: String,
}

impl Place {
    pub fn new(ctx: &Ctx<'_>, name: &str) -> Self {
        Self {
            path: format!("/runsc-test-{}-{}-{name}", std::process::id(), ctx.platform),
        }
    }

    /// The directory in the hierarchy of a controller.
    pub fn dir(&self, controller: &str) -> PathBuf {
        let top = Path::new("/sys/fs/cgroup");
        let path = self.path.trim_start_matches('/');
        if unified() {
            top.join(path)
        } else {
            top.join(controller).join(path)
        }
    }

    /// A file of a controller by its name in version 1 and 2.
    pub fn file(&self, v1: &str, v2: &str) -> PathBuf {
        let name = if unified() { v2 } else { v1 };
        let controller = name.split('.').next().unwrap_or_default();
        self.dir(controller).join(name)
    }

    pub fn read(&self, v1: &str, v2: &str) -> Result<String, String> {
        let path = self.file(v1, v2);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// As somebody does who runs the host.
    pub fn write(&self, v1: &str, v2: &str, value: &str) -> Result<(), String> {
        let path = self.file(v1, v2);
        fs::write(&path, value).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Host pids there.
    pub fn members(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.dir("pids").join("cgroup.procs"));
        let text = text.unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }
}

/// A container that has been started in a [`Place`].
pub(super) struct Running<'a> {
    ctx: &'a Ctx<'a>,
    pub id: String,
}

impl<'a> Running<'a> {
    /// Runs `script` with these resources.
    pub fn start(
        ctx: &'a Ctx<'a>,
        place: &Place,
        script: &str,
        resources: &Value,
    ) -> Result<Self, String> {
        Self::start_with(ctx, "box", script, |config| {
            config["linux"]["cgroupsPath"] = json!(place.path);
            config["linux"]["resources"] = resources.clone();
        })
    }

    pub fn start_with(
        ctx: &'a Ctx<'a>,
        id: &str,
        script: &str,
        f: impl FnOnce(&mut Value),
    ) -> Result<Self, String> {
        let bundle = ctx.bundle(id, &["/bin/sh", "-c", script], |config| {
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup2",
                    "source": "cgroup"}));
            }
            f(config);
        })?;
        let guest = ctx.dir.join(id).join("rootfs/bin/guest");
        fs::copy(&ctx.options.guest, guest).map_err(|e| e.to_string())?;
        let running = Self {
            ctx,
            id: id.to_owned(),
        };
        let output = fs::File::create(running.output_path()).map_err(|e| e.to_string())?;
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        let status = ctx
            .runsc(&["run", "--detach", "--bundle", &bundle, id])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status();
        let ok = status.map_err(|e| e.to_string())?.success();
        check(ok, || format!("run {id}: {}", running.output()))?;
        Ok(running)
    }

    fn output_path(&self) -> PathBuf {
        self.ctx.dir.join(format!("{}.out", self.id))
    }

    pub fn output(&self) -> String {
        fs::read_to_string(self.output_path()).unwrap_or_default()
    }

    pub fn exec(&self, script: &str) -> Done {
        self.ctx.run(&["exec", &self.id, "/bin/sh", "-c", script])
    }

    /// What a file of the guest's own cgroup holds.
    pub fn inside(&self, file: &str) -> String {
        let done = self.exec(&format!("cat /sys/fs/cgroup/{file}"));
        done.stdout.trim().to_owned()
    }

    /// Waits until such a file holds something.
    pub fn shows(&self, file: &str, wanted: &str) -> Result<(), String> {
        let now = || self.inside(file);
        eventually(wanted, || (now() == wanted).then_some(()))
            .map_err(|e| format!("{e}: {file} inside is {:?}", now()))
    }

    /// Waits until a line of such a file names a number above zero.
    pub fn counts(&self, file: &str, key: &str) -> Result<u64, String> {
        let now = || self.inside(file);
        eventually(&format!("{key} in {file}"), || {
            keyed(&now(), key).filter(|count| *count > 0)
        })
        .map_err(|e| format!("{e}: inside is {:?}", now()))
    }

    /// `events --stats`.
    pub fn stats(&self) -> Result<Value, String> {
        let done = self.ctx.run(&["events", "--stats", &self.id]);
        let event: Value = serde_json::from_str(&done.stdout)
            .map_err(|e| format!("events --stats: {e}: {}", done.describe()))?;
        Ok(event["data"].clone())
    }

    pub fn update(&self, flags: &[&str]) -> Result<(), String> {
        let done = self.ctx.run(&[&["update"], flags, &[&self.id]].concat());
        check(done.ok(), || {
            format!("update {flags:?}: {}", done.describe())
        })
    }

    /// Deletes it; its cgroup goes with it.
    pub fn end(self, place: &Place) -> Result<(), String> {
        let done = self.ctx.run(&["delete", "--force", &self.id]);
        check(done.ok(), || done.describe())?;
        for controller in ["memory", "cpu", "pids"] {
            let dir = place.dir(controller);
            check(!dir.exists(), || format!("{} is left", dir.display()))?;
        }
        self.ctx.nothing_left()
    }
}

/// The number behind `key` in lines of keys and numbers.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = pairs.find(|(name, _)| *name == key)?;
    value.trim().parse().ok()
}

const WAIT: &str = "exec sleep 1000";

/// All processes of a sandbox are in the container's cgroup.
fn placement(ctx: &Ctx<'_>) -> Result<(), String> {
    let place = Place::new(ctx, "placement");
    let running = Running::start(ctx, &place, "sleep 1000 & sleep 1000", &json!({}))?;
    let done = ctx.run(&["state", &running.id]);
    let state: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
    let pid = state["pid"].as_u64().ok_or_else(|| done.describe())?;
    // Sentry, gofer, and a stub for each of the three.
    let members = eventually("five processes in the cgroup", || {
        let members = place.members();
        (members.len() >= 5).then_some(members)
    })?;
    check(
        members.iter().any(|member| u64::from(*member) == pid),
        || format!("{pid} is not in {members:?}"),
    )?;
    running.end(&place)
}

/// Contents of the host's files for one set of limits.
fn limits_are_written(ctx: &Ctx<'_>) -> Result<(), String> {
    let place = Place::new(ctx, "limits");
    let resources = json!({
        "memory": {"limit": 256 << 20, "reservation": 128 << 20},
        "cpu": {"shares": 512, "quota": 150_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 100},
    });
    let running = Running::start(ctx, &place, WAIT, &resources)?;
    let written = |v1: (&str, &str), v2: (&str, &str)| {
        let wanted = if unified() { v2.1 } else { v1.1 };
        let found = place.read(v1.0, v2.0)?;
        check(found == wanted, || {
            format!("{}: {found:?}, not {wanted:?}", v2.0)
        })
    };
    written(
        ("memory.limit_in_bytes", "268435456"),
        ("memory.max", "268435456"),
    )?;
    written(
        ("memory.soft_limit_in_bytes", "134217728"),
        ("memory.low", "134217728"),
    )?;
    written(("cpu.shares", "512"), ("cpu.weight", "20"))?;
    written(("cpu.cfs_quota_us", "150000"), ("cpu.max", "150000 100000"))?;
    written(("cpuset.cpus", "0"), ("cpuset.cpus", "0"))?;
    running.end(&place)
}

fn limits_show_inside(ctx: &Ctx<'_>) -> Result<(), String> {
    let place = Place::new(ctx, "inside");
    let resources = json!({
        "memory": {"limit": 256 << 20},
        "cpu": {"shares": 512, "quota": 150_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 100},
    });
    let running = Running::start(ctx, &place, WAIT, &resources)?;
    running.shows("memory.max", "268435456")?;
    running.shows("cpu.max", "150000 100000")?;
    running.shows("cpu.weight", "20")?;
    running.shows("cpuset.cpus", "0")?;
    running.shows("cpuset.cpus.effective", "0")?;
    running.shows("pids.max", "100")?;
    // What is used counts on the host's side.
    let used: u64 = running.inside("memory.current").parse().unwrap_or(0);
    check(used > 0 && used <= 256 << 20, || format!("{used} used"))?;
    running.end(&place)
}

/// Whoever runs the host changes limits without asking `runsc`.
fn outside_changes_show(ctx: &Ctx<'_>) -> Result<(), String> {
    let place = Place::new(ctx, "outside");
    let resources = json!({
        "memory": {"limit": 256 << 20},
        "cpu": {"quota": 150_000, "period": 100_000},
        "pids": {"limit": 100},
    });
    let running = Running::start(ctx, &place, WAIT, &resources)?;
    running.shows("memory.max", "268435456")?;
    place.write("memory.limit_in_bytes", "memory.max", "134217728")?;
    running.shows("memory.max", "134217728")?;
    place.write("cpu.cfs_quota_us", "cpu.max", "50000")?;
    running.shows("cpu.max", "50000 100000")?;
    place.write(
        "cpu.shares",
        "cpu.weight",
        if unified() { "20" } else { "512" },
    )?;
    running.shows("cpu.weight", "20")?;
    place.write("cpuset.cpus", "cpuset.cpus", "0")?;
    running.shows("cpuset.cpus.effective", "0")?;
    // A number of tasks that is not the host's for the guest's own is meant
    // for the guest.
    running.shows("pids.max", "100")?;
    place.write("pids.max", "pids.max", "40")?;
    running.shows("pids.max", "40")?;
    let fork = "i=0; while test $i -lt 50; do sleep 1000 & i=$((i+1)); done; echo all";
    let done = running.exec(fork);
    check(done.stderr.contains("can't fork"), || done.describe())?;
    running.counts("pids.events", "max")?;
    running.end(&place)
}

/// `update` shows on the host and inside, and again after a change from
/// outside.
fn update_shows(ctx: &Ctx<'_>) -> Result<(), String> {
    let place = Place::new(ctx, "update");
    let running = Running::start(ctx, &place, WAIT, &json!({}))?;
    running.shows("memory.max", "max")?;
    running.shows("pids.max", "max")?;
    running.update(&["--memory", "128m", "--pids-limit", "50"])?;
    running.shows("memory.max", "134217728")?;
    running.shows("pids.max", "50")?;
    running.update(&["--cpu-quota", "30000", "--cpu-period", "50000"])?;
    running.shows("cpu.max", "30000 50000")?;
    place.write("pids.max", "pids.max", "max")?;
    running.shows("pids.max", "max")?;
    running.update(&["--pids-limit", "60"])?;
    running.shows("pids.max", "60")?;
    running.shows("memory.max", "134217728")?;
    running.update(&["--memory", "-1", "--pids-limit", "-1", "--cpu-quota", "-1"])?;
    running.shows("memory.max", "max")?;
    running.shows("pids.max", "max")?;
    running.shows("cpu.max", "max 100000")?;
    running.end(&place)
}

/// The host kills one guest process for lack of memory: that is SIGKILL of
/// that process and of no other, and is told inside and outside.
fn oom_kill_is_told(ctx: &Ctx<'_>) -> Result<(), String> {
    let place = Place::new(ctx, "oom");
    let resources = json!({"memory": {"limit": 96 << 20, "swap": 96 << 20}});
    let script = "while ! test -e /go; do sleep 0.1; done; guest hog 300000000; echo $?; \
                  exec sleep 1000";
    let running = Running::start(ctx, &place, script, &resources)?;
    let mut events = Follower::start(&running)?;
    events.until("\"stats\"")?;
    check(
        keyed(&running.inside("memory.events"), "oom_kill") == Some(0),
        || running.inside("memory.events"),
    )?;
    expect(&running.exec("touch /go"), 0, "")?;
    eventually("the end of the process", || {
        running.output().ends_with("137\n").then_some(())
    })
    .map_err(|e| format!("{e}: {:?}", running.output()))?;
    events.until("\"oom\"")?;
    running.counts("memory.events", "oom_kill")?;
    let stats = running.stats()?;
    check(stats["memory"]["usage"]["limit"] == 96 << 20, || {
        stats.to_string()
    })?;
    expect(&running.exec("echo alive"), 0, "alive\n")?;
    running.end(&place)
}

/// `runsc events` of a container.
struct Follower {
    child: Child,
    path: PathBuf,
}

impl Follower {
    fn start(running: &Running<'_>) -> Result<Self, String> {
        let path = running.ctx.dir.join(format!("{}.events", running.id));
        let output = fs::File::create(&path).map_err(|e| e.to_string())?;
        let child = running
            .ctx
            .runsc(&["events", "--interval", "1s", &running.id])
            .stdout(output)
            .spawn()
            .map_err(|e| e.to_string())?;
        Ok(Self { child, path })
    }

    fn until(&mut self, text: &str) -> Result<(), String> {
        let now = || fs::read_to_string(&self.path).unwrap_or_default();
        eventually(text, || now().contains(text).then_some(()))
            .map_err(|e| format!("{e}: events were {}", command::tail(&now(), 1)))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn throttling_is_told(ctx: &Ctx<'_>) -> Result<(), String> {
    let place = Place::new(ctx, "throttle");
    let resources = json!({"cpu": {"quota": 20_000, "period": 100_000}});
    let script = "while ! test -e /go; do sleep 0.1; done; guest burn 1500; exec sleep 1000";
    let running = Running::start(ctx, &place, script, &resources)?;
    expect(&running.exec("touch /go"), 0, "")?;
    running.counts("cpu.stat", "nr_throttled")?;
    running.counts("cpu.stat", "throttled_usec")?;
    running.counts("cpu.stat", "usage_usec")?;
    let stats = running.stats()?;
    let throttling = &stats["cpu"]["throttling"];
    check(throttling["throttledPeriods"].as_u64() > Some(0), || {
        stats.to_string()
    })?;
    check(throttling["throttledTime"].as_u64() > Some(0), || {
        stats.to_string()
    })?;
    running.end(&place)
}

/// The number of tasks is the guest's own, not that of the host's processes.
fn tasks_are_limited(ctx: &Ctx<'_>) -> Result<(), String> {
    let place = Place::new(ctx, "tasks");
    let resources = json!({"pids": {"limit": 10}});
    let script = "i=0; while test $i -lt 9; do sleep 1000 & i=$((i+1)); done; echo nine; \
                  sleep 1000 & echo ten; exec sleep 1000";
    let running = Running::start(ctx, &place, script, &resources)?;
    eventually("a refusal", || {
        running.output().contains("can't fork").then_some(())
    })
    .map_err(|e| format!("{e}: {:?}", running.output()))?;
    check(running.output().starts_with("nine\n"), || running.output())?;
    running.end(&place)
}

/// Limits of one container of a pod leave the others alone.
fn containers_of_a_pod(ctx: &Ctx<'_>) -> Result<(), String> {
    let parent = Place::new(ctx, "pod");
    let places = ["box", "small", "large"].map(|id| Place {
        path: format!("{}/{id}", parent.path),
    });
    let [pod_place, small_place, large_place] = &places;
    let pod = Running::start_with(ctx, "box", WAIT, |config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "sandbox",
            "io.kubernetes.cri.sandbox-id": "box",
        });
        config["linux"]["cgroupsPath"] = json!(pod_place.path);
    })?;
    let add = |id: &str, place: &Place, memory: i64, tasks: i64, quota: i64| {
        let script = format!(
            "while ! test -e /go; do sleep 0.1; done; guest burn 800; guest hog 150000000; \
             echo {id} $?; {WAIT}"
        );
        Running::start_with(ctx, id, &script, |config| {
            config["annotations"] = json!({
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.sandbox-id": "box",
            });
            config["linux"]["cgroupsPath"] = json!(place.path);
            config["linux"]["resources"] = json!({
                "memory": {"limit": memory, "swap": memory},
                "pids": {"limit": tasks},
                "cpu": {"quota": quota, "period": 100_000},
            });
        })
    };
    let small = add("small", small_place, 64 << 20, 10, 20_000)?;
    let large = add("large", large_place, 512 << 20, 100, -1)?;
    small.shows("memory.max", "67108864")?;
    large.shows("memory.max", "536870912")?;
    small.shows("pids.max", "10")?;
    large.shows("pids.max", "100")?;
    for running in [&small, &large] {
        expect(&running.exec("touch /go"), 0, "")?;
    }
    for (running, end) in [(&small, "small 137\n"), (&large, "large 0\n")] {
        eventually(end, || running.output().ends_with(end).then_some(()))
            .map_err(|e| format!("{e}: {:?}", running.output()))?;
    }
    small.counts("memory.events", "oom_kill")?;
    small.counts("cpu.stat", "nr_throttled")?;
    for (file, key) in [("memory.events", "oom_kill"), ("cpu.stat", "nr_throttled")] {
        let other = large.inside(file);
        check(keyed(&other, key) == Some(0), || {
            format!("the other's: {other}")
        })?;
    }
    let fork = "i=0; while test $i -lt 20; do sleep 3 & i=$((i+1)); done; echo all";
    check(small.exec(fork).stderr.contains("can't fork"), || {
        "the small one has all it wants".into()
    })?;
    expect(&large.exec(fork), 0, "all\n")?;
    for id in ["small", "large", "box"] {
        let done = ctx.run(&["delete", "--force", id]);
        check(done.ok(), || done.describe())?;
    }
    for place in &places {
        let dir = place.dir("memory");
        check(!dir.exists(), || format!("{} is left", dir.display()))?;
    }
    for controller in tops() {
        let _ = fs::remove_dir(controller.join(parent.path.trim_start_matches('/')));
    }
    drop(pod);
    ctx.nothing_left()
}

/// All hierarchies of this host.
fn tops() -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    let below = fs::read_dir(&top).into_iter().flatten().flatten();
    let mut tops: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
    tops.push(top);
    tops
}

/// Files that limits are written to, in either version.
const LIMIT_FILES: &[&str] = &[
    "memory/memory.limit_in_bytes",
    "memory/memory.memsw.limit_in_bytes",
    "memory/memory.soft_limit_in_bytes",
    "cpu/cpu.shares",
    "cpu/cpu.cfs_quota_us",
    "cpu/cpu.cfs_period_us",
    "cpuset/cpuset.cpus",
    "cpuset/cpuset.mems",
    "blkio/blkio.bfq.weight",
    "memory.max",
    "memory.low",
    "memory.swap.max",
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "cpuset.mems",
    "io.bfq.weight",
];

fn limit_files(place: &Place) -> Vec<(String, String)> {
    let name = place.path.trim_start_matches('/');
    let found = LIMIT_FILES.iter().filter_map(|file| {
        let path = match file.split_once('/') {
            Some((controller, file)) => Path::new(controller).join(name).join(file),
            None => Path::new(name).join(file),
        };
        let text = fs::read_to_string(Path::new("/sys/fs/cgroup").join(path)).ok()?;
        Some(((*file).to_owned(), text.trim().to_owned()))
    });
    found.collect()
}

/// The same updates by `runc` leave the same in the host's files. Of tasks the
/// host is to allow more for a sandbox.
fn update_as_runc_does(ctx: &Ctx<'_>) -> Result<(), String> {
    let runc = ["/usr/sbin/runc", "/usr/bin/runc"];
    let runc = runc.into_iter().find(|path| Path::new(path).exists());
    let runc = runc.ok_or_else(|| format!("{SKIP}runc is not installed"))?;
    let (theirs, ours) = (Place::new(ctx, "of-runc"), Place::new(ctx, "of-ours"));
    let resources = json!({"memory": {"limit": 256 << 20}, "cpu": {"shares": 512}});
    let running = Running::start(ctx, &ours, WAIT, &resources)?;
    let bundle = ctx.bundle("runc", &["/bin/sleep", "1000"], |config| {
        config["linux"]["cgroupsPath"] = json!(theirs.path);
        config["linux"]["resources"] = resources.clone();
    })?;
    let state = ctx.dir.join("runc-state");
    let call = |args: &[&str]| {
        let mut command = std::process::Command::new(runc);
        command.arg("--root").arg(&state).args(args);
        command.stdin(Stdio::null());
        command::run(&mut command, Duration::from_secs(40))
    };
    let id = format!("peer-{}-{}", std::process::id(), ctx.platform);
    let log = ctx.dir.join("runc.out");
    let output = fs::File::create(&log).map_err(|e| e.to_string())?;
    let errors = output.try_clone().map_err(|e| e.to_string())?;
    let status = std::process::Command::new(runc)
        .arg("--root")
        .arg(&state)
        .args(["run", "--detach", "--bundle", &bundle, &id])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .status();
    if !status.is_ok_and(|status| status.success()) {
        running.end(&ours)?;
        let why = fs::read_to_string(&log).unwrap_or_default();
        return Err(format!("{SKIP}runc does not run here: {}", why.trim()));
    }
    let compared = || -> Result<(), String> {
        for flags in UPDATES {
            let done = call(&[&["update"], *flags, &[&id]].concat());
            check(done.ok(), || format!("runc {flags:?}: {}", done.describe()))?;
            running.update(flags)?;
            let (theirs, ours) = (limit_files(&theirs), limit_files(&ours));
            for (their, our) in theirs.iter().zip(&ours) {
                check(their == our, || {
                    format!("{flags:?}: {our:?}, with runc {their:?}")
                })?;
            }
            check(theirs.len() == ours.len(), || {
                format!("{theirs:?} {ours:?}")
            })?;
        }
        Ok(())
    }();
    call(&["delete", "--force", &id]);
    compared.and_then(|()| running.end(&ours))
}

const UPDATES: &[&[&str]] = &[
    &["--memory", "134217728"],
    &["--memory", "200000000", "--memory-swap", "300000000"],
    &["--memory-reservation", "67108864"],
    &["--cpu-share", "2048"],
    &["--cpu-quota", "50000"],
    &["--cpu-period", "50000", "--cpu-quota", "20000"],
    &["--cpu-quota", "-1"],
    &["--cpuset-cpus", "0", "--cpuset-mems", "0"],
    &["--pids-limit", "300"],
    &["--memory", "-1", "--memory-swap", "-1"],
];

/// `--systemd-cgroup`: a scope in its slice, limited through systemd, gone with
/// the container.
fn systemd_scope(ctx: &Ctx<'_>) -> Result<(), String> {
    if !Path::new("/run/systemd/system").exists() {
        return Err(format!("{SKIP}systemd does not run here"));
    }
    let name = format!("{}-{}", std::process::id(), ctx.platform);
    let scope = format!("test-{name}.scope");
    let place = Place {
        path: format!("/runsc.slice/runsc-pod.slice/{scope}"),
    };
    let resources = json!({
        "memory": {"limit": 128 << 20},
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0"},
        "pids": {"limit": 20},
    });
    let bundle = ctx.bundle("scope", &["/bin/sleep", "1000"], |config| {
        config["linux"]["cgroupsPath"] = json!(format!("runsc-pod.slice:test:{name}"));
        config["linux"]["resources"] = resources;
        config["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "uint64 7"});
    })?;
    let property = |property: &str| {
        let mut command = std::process::Command::new("systemctl");
        command.args(["show", "--value", "-p", property, &scope]);
        let done = command::run(&mut command, Duration::from_secs(20));
        done.stdout.trim().to_owned()
    };
    let is = |name: &str, wanted: &str| {
        let found = property(name);
        check(found == wanted, || {
            format!("{name} is {found:?}, not {wanted:?}")
        })
    };
    let create = |id: &str| {
        let null = || Stdio::null();
        let log = fs::File::create(ctx.dir.join("create.out")).map_err(|e| e.to_string())?;
        let status = ctx
            .runsc(&["--systemd-cgroup", "create", "--bundle", &bundle, id])
            .stdin(null())
            .stdout(null())
            .stderr(log)
            .status();
        Ok::<bool, String>(status.map_err(|e| e.to_string())?.success())
    };
    let said = || fs::read_to_string(ctx.dir.join("create.out")).unwrap_or_default();
    check(create("scope")?, said)?;
    let ok = |args: &[&str]| {
        let done = ctx.run(args);
        check(done.ok(), || format!("{args:?}: {}", done.describe()))
    };
    ok(&["start", "scope"])?;
    is("ActiveState", "active")?;
    is("Slice", "runsc-pod.slice")?;
    is("Delegate", "yes")?;
    is("MemoryMax", "134217728")?;
    is("CPUQuotaPerSecUSec", "500ms")?;
    is("TimeoutStopUSec", "7s")?;
    is("AllowedCPUs", "0")?;
    let members = place.members();
    check(members.len() >= 3, || {
        format!("{members:?} are in the scope")
    })?;
    let read = |file: &str| place.read(file, file);
    check(read("memory.max")? == "134217728", || "memory.max".into())?;
    check(read("cpu.max")? == "50000 100000", || "cpu.max".into())?;
    ok(&["update", "--memory", "64m", "--cpu-quota", "30000", "scope"])?;
    is("MemoryMax", "67108864")?;
    is("CPUQuotaPerSecUSec", "300ms")?;
    check(read("memory.max")? == "67108864", || "memory.max".into())?;
    // A reload does not take limits back.
    let mut reload = std::process::Command::new("systemctl");
    let done = command::run(reload.arg("daemon-reload"), Duration::from_secs(60));
    check(done.ok(), || done.describe())?;
    check(read("memory.max")? == "67108864", || {
        "after a reload".into()
    })?;
    // The scope is taken: another container leaves it and its processes alone.
    check(!create("second")?, || "two containers in one scope".into())?;
    check(said().contains("not empty"), said)?;
    is("ActiveState", "active")?;
    let done = ctx.run(&["exec", "scope", "/bin/echo", "alive"]);
    expect(&done, 0, "alive\n")?;
    ok(&["delete", "--force", "scope"])?;
    eventually("the end of the scope", || {
        (property("LoadState") == "not-found").then_some(())
    })
    .map_err(|e| format!("{e}: {} {}", property("LoadState"), property("ActiveState")))?;
    let dir = place.dir("memory");
    check(!dir.exists(), || format!("{} is left", dir.display()))?;
    // One that can't be created leaves no scope.
    let broken = ctx.bundle("broken", &["/no/such/program"], |config| {
        config["linux"]["cgroupsPath"] = json!(format!("runsc-pod.slice:test:{name}"));
    })?;
    let args = ["--systemd-cgroup", "run", "--bundle", &broken, "broken"];
    let done = ctx.run(&args);
    check(!done.ok(), || done.describe())?;
    eventually("no scope", || {
        (property("LoadState") == "not-found").then_some(())
    })?;
    let wrong = ctx.bundle("wrong", &["/bin/true"], |config| {
        config["linux"]["cgroupsPath"] = json!("/a/b");
    })?;
    let done = ctx.run(&["--systemd-cgroup", "run", "--bundle", &wrong, "wrong"]);
    check(done.stderr.contains("slice:prefix:name"), || {
        done.describe()
    })?;
    ctx.nothing_left()
}
