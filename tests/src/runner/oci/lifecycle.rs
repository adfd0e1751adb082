//! `runtime.md`: state, life cycle, operations and errors.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::runtime::{Runtime, check, equal, failed, succeeded};
use super::{Case, case};

/// Runs until it is told to end.
const FOREVER: &str = "exec sleep 1000";

pub const CASES: &[Case] = &[
    case(
        "runtime/state/properties",
        "the state has ociVersion, id, status, pid, bundle and annotations",
        properties,
    ),
    case(
        "runtime/state/pid",
        "pid is the container's process on the host",
        pid,
    ),
    case(
        "runtime/state/no_id",
        "state without an id is an error",
        |rt| no_id(rt, "state"),
    ),
    case(
        "runtime/state/unknown",
        "state of a container that does not exist is an error",
        |rt| unknown(rt, "state"),
    ),
    case(
        "runtime/create/no_id",
        "create without an id is an error",
        |rt| no_id(rt, "create"),
    ),
    case(
        "runtime/create/no_bundle",
        "create without a bundle is an error",
        no_bundle,
    ),
    case(
        "runtime/create/unique",
        "an id in use is refused, and its container is left alone",
        unique,
    ),
    case(
        "runtime/create/invalid_id",
        "an invalid id is refused",
        invalid_id,
    ),
    case(
        "runtime/create/not_run",
        "create does not run the program; the status is created",
        not_run,
    ),
    case(
        "runtime/create/config_later",
        "config.json is not looked at after create",
        config_later,
    ),
    case(
        "runtime/create/error",
        "a failed create leaves nothing",
        failed_create,
    ),
    case(
        "runtime/start/no_id",
        "start without an id is an error",
        |rt| no_id(rt, "start"),
    ),
    case(
        "runtime/start/unknown",
        "start of a container that does not exist is an error",
        |rt| unknown(rt, "start"),
    ),
    case(
        "runtime/start/runs",
        "start runs the program; the status is running",
        runs,
    ),
    case(
        "runtime/start/twice",
        "start of a running container is an error without effect",
        twice,
    ),
    case(
        "runtime/start/stopped",
        "start of a stopped container is an error without effect",
        start_stopped,
    ),
    case(
        "runtime/kill/no_id",
        "kill without an id is an error",
        |rt| no_id(rt, "kill"),
    ),
    case(
        "runtime/kill/unknown",
        "kill of a container that does not exist is an error",
        |rt| unknown(rt, "kill"),
    ),
    case(
        "runtime/kill/signal",
        "kill sends the signal that is named",
        signal,
    ),
    case(
        "runtime/kill/created",
        "kill reaches a created container",
        kill_created,
    ),
    case(
        "runtime/kill/stopped",
        "kill of a stopped container is an error",
        kill_stopped,
    ),
    case(
        "runtime/kill/status",
        "after the process has been killed the status is stopped",
        kill_status,
    ),
    case(
        "runtime/kill/exit",
        "after the process has ended by itself the status is stopped",
        exit_status,
    ),
    case(
        "runtime/delete/no_id",
        "delete without an id is an error",
        |rt| no_id(rt, "delete"),
    ),
    case(
        "runtime/delete/unknown",
        "delete of a container that does not exist is an error",
        |rt| unknown(rt, "delete"),
    ),
    case(
        "runtime/delete/running",
        "delete of a running container is an error without effect",
        delete_running,
    ),
    case(
        "runtime/delete/created",
        "delete of a created container is an error without effect",
        delete_created,
    ),
    case(
        "runtime/delete/resources",
        "delete removes what create has made",
        resources,
    ),
    case(
        "runtime/delete/others",
        "delete leaves what create has not made",
        others,
    ),
    case("runtime/delete/reuse", "the id is free after delete", reuse),
];

fn properties(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(FOREVER, |c| c["annotations"] = json!({"a.b": "c"}))?;
    let id = rt.id("c");
    succeeded(rt.create(&id, &bundle))?;
    let state = rt.state(&id)?;
    let version = state["ociVersion"].as_str().unwrap_or_default();
    check(version.split('.').count() >= 3, || state.to_string())?;
    check(state["id"] == id.as_str(), || state.to_string())?;
    check(state["status"] == "created", || state.to_string())?;
    check(state["pid"].as_i64().is_some_and(|pid| pid > 0), || {
        state.to_string()
    })?;
    check(state["bundle"] == bundle.as_str(), || state.to_string())?;
    check(state["annotations"]["a.b"] == "c", || state.to_string())
}

fn pid(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(FOREVER, |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let pid = rt.pid(&id)?;
    let process = format!("/proc/{pid}");
    check(Path::new(&process).exists(), || format!("no process {pid}"))?;
    succeeded(rt.run(&["kill", &id, "KILL"]))?;
    rt.wait_status(&id, "stopped")?;
    check(!alive(pid), || format!("process {pid} is still there"))
}

fn alive(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
    state.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

fn no_id(rt: &Runtime<'_>, operation: &str) -> Result<(), String> {
    failed(&rt.run(&[operation]))
}

fn unknown(rt: &Runtime<'_>, operation: &str) -> Result<(), String> {
    failed(&rt.run(&[operation, &rt.id("nobody")]))
}

fn no_bundle(rt: &Runtime<'_>) -> Result<(), String> {
    // The working directory holds no config.json.
    failed(&rt.run(&["create", &rt.id("a")]))?;
    failed(&rt.create(&rt.id("b"), "/no/such/bundle"))
}

fn unique(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(FOREVER, |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let pid = rt.pid(&id)?;
    failed(&rt.create(&id, &bundle))?;
    equal(&rt.status(&id)?, "running")?;
    equal(&rt.pid(&id)?.to_string(), &pid.to_string())
}

fn invalid_id(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(FOREVER, |_| ())?;
    for id in ["", "a/b", "..", "a b", "a\nb", "ä"] {
        failed(&rt.create(id, &bundle)).map_err(|err| format!("{id:?}: {err}"))?;
    }
    equal(&rt.run(&["list", "-q"]).stdout, "")
}

fn not_run(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("echo ran > /ran; exec sleep 1000", |_| ())?;
    let id = rt.id("c");
    succeeded(rt.create(&id, &bundle))?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    equal(&rt.status(&id)?, "created")?;
    check(!rt.in_root(&bundle, "ran").exists(), || "it ran".into())
}

fn config_later(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("echo first > /ran; sleep 1000", |_| ())?;
    let id = rt.id("c");
    succeeded(rt.create(&id, &bundle))?;
    let path = Path::new(&bundle).join("config.json");
    fs::write(&path, "{}").map_err(|err| err.to_string())?;
    succeeded(rt.run(&["start", &id]))?;
    equal(&rt.wait_for(&bundle, "ran")?, "first\n")
}

fn failed_create(rt: &Runtime<'_>) -> Result<(), String> {
    let path = format!("/{}", rt.id("cgroup"));
    rt.refuses(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["process"]["args"] = json!(["/no/such/program"]);
    })?;
    check(cgroups(&path).is_empty(), || {
        format!("left behind: {:?}", cgroups(&path))
    })?;
    equal(&rt.run(&["list", "-q"]).stdout, "")
}

/// Directories of a cgroup in all hierarchies.
pub fn cgroups(path: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup").then(|| format!("{point}{path}"))
    });
    points.filter(|dir| Path::new(dir).exists()).collect()
}

fn runs(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("echo ran > /ran; exec sleep 1000", |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    equal(&rt.status(&id)?, "running")?;
    equal(&rt.wait_for(&bundle, "ran")?, "ran\n")
}

fn twice(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("echo ran >> /ran; exec sleep 1000", |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    rt.wait_for(&bundle, "ran")?;
    failed(&rt.run(&["start", &id]))?;
    equal(&rt.status(&id)?, "running")?;
    equal(&rt.wait_for(&bundle, "ran")?, "ran\n")
}

fn stopped(rt: &Runtime<'_>) -> Result<(String, String), String> {
    let bundle = rt.bundle("echo ran >> /ran", |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    rt.wait_status(&id, "stopped")?;
    Ok((id, bundle))
}

fn start_stopped(rt: &Runtime<'_>) -> Result<(), String> {
    let (id, bundle) = stopped(rt)?;
    failed(&rt.run(&["start", &id]))?;
    equal(&rt.status(&id)?, "stopped")?;
    equal(&rt.wait_for(&bundle, "ran")?, "ran\n")
}

fn signal(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "trap 'echo usr1 > /usr1' USR1; trap 'echo term > /term' TERM; trap 'echo usr2 > /usr2' USR2; \
                  echo up > /up; while :; do sleep 0.02; done";
    let bundle = rt.bundle(script, |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    rt.wait_for(&bundle, "up")?;
    for (args, file) in [
        (&["kill", &id, "USR1"][..], "usr1"),
        (&["kill", &id, "12"], "usr2"),
        (&["kill", &id], "term"),
    ] {
        succeeded(rt.run(args))?;
        equal(&rt.wait_for(&bundle, file)?, &format!("{file}\n"))?;
    }
    equal(&rt.status(&id)?, "running")?;
    failed(&rt.run(&["kill", &id, "NOSUCH"]))
}

fn kill_created(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(FOREVER, |_| ())?;
    let id = rt.id("c");
    succeeded(rt.create(&id, &bundle))?;
    succeeded(rt.run(&["kill", &id, "KILL"]))?;
    rt.wait_status(&id, "stopped")
}

fn kill_stopped(rt: &Runtime<'_>) -> Result<(), String> {
    let (id, _) = stopped(rt)?;
    failed(&rt.run(&["kill", &id, "TERM"]))?;
    failed(&rt.run(&["kill", &id, "KILL"]))?;
    equal(&rt.status(&id)?, "stopped")
}

fn kill_status(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(FOREVER, |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    succeeded(rt.run(&["kill", &id, "KILL"]))?;
    rt.wait_status(&id, "stopped")
}

fn exit_status(rt: &Runtime<'_>) -> Result<(), String> {
    stopped(rt).map(|_| ())
}

fn delete_running(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(FOREVER, |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    failed(&rt.run(&["delete", &id]))?;
    equal(&rt.status(&id)?, "running")
}

fn delete_created(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(FOREVER, |_| ())?;
    let id = rt.id("c");
    succeeded(rt.create(&id, &bundle))?;
    failed(&rt.run(&["delete", &id]))?;
    equal(&rt.status(&id)?, "created")
}

fn resources(rt: &Runtime<'_>) -> Result<(), String> {
    let path = format!("/{}", rt.id("cgroup"));
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let bundle = rt.bundle(FOREVER, |c| c["linux"]["cgroupsPath"] = json!(path))?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let pid = rt.pid(&id)?;
    check(!cgroups(&path).is_empty(), || "no cgroup".into())?;
    succeeded(rt.run(&["kill", &id, "KILL"]))?;
    rt.wait_status(&id, "stopped")?;
    succeeded(rt.run(&["delete", &id]))?;
    failed(&rt.run(&["state", &id]))?;
    check(cgroups(&path).is_empty(), || {
        format!("left behind: {:?}", cgroups(&path))
    })?;
    check(!alive(pid), || format!("process {pid} is left"))?;
    check(!mounts().contains(&bundle), || "a mount is left".into())
}

fn others(rt: &Runtime<'_>) -> Result<(), String> {
    let parent = format!("/{}", rt.id("parent"));
    let path = format!("{parent}/own");
    let made = super::cgroups::make(&parent)?;
    let volume = rt.ctx.dir.join("volume");
    fs::create_dir_all(&volume).map_err(|err| err.to_string())?;
    fs::write(volume.join("file"), "kept").map_err(|err| err.to_string())?;
    let bundle = rt.bundle(FOREVER, |c| {
        c["linux"]["cgroupsPath"] = json!(path);
        super::config::add_mount(
            c,
            json!({"destination": "/volume", "type": "bind", "source": volume,
                   "options": ["rbind"]}),
        );
    })?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    succeeded(rt.run(&["delete", "--force", &id]))?;
    check(cgroups(&path).is_empty(), || "its cgroup is left".into())?;
    let kept = fs::read_to_string(volume.join("file")).unwrap_or_default();
    equal(&kept, "kept")?;
    check(!cgroups(&parent).is_empty(), || {
        "the parent's cgroup is gone".into()
    })?;
    check(rt.in_root(&bundle, "bin/busybox").exists(), || {
        "the root is gone".into()
    })?;
    drop(made);
    Ok(())
}

fn reuse(rt: &Runtime<'_>) -> Result<(), String> {
    let (id, bundle) = stopped(rt)?;
    succeeded(rt.run(&["delete", &id]))?;
    rt.start(&id, &bundle)
}
