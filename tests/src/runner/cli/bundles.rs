//! Bundles: life cycle, exec, mounts.

use std::time::Duration;

use serde_json::{Value, json};

use super::{quiet, state_of, wait_status};
use crate::runner::bundle::{Ctx, check, expect, refused};
use crate::runner::command;

pub(super) fn spec_runs(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("b", &["true"], |_| ())?;
    let path = std::path::Path::new(&bundle).join("config.json");
    std::fs::remove_file(&path).map_err(|e| e.to_string())?;
    let mut c = ctx.runsc(&["spec"]);
    c.current_dir(&bundle);
    let done = command::run(&mut c, Duration::from_secs(20));
    check(done.ok(), || done.describe())?;
    let text = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
    let mut v: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    check(
        v.get("process").is_some() && v.get("root").is_some() && v.get("ociVersion").is_some(),
        || text.clone(),
    )?;
    v["process"]["args"] = json!(["/bin/echo", "from spec"]);
    v["process"]["terminal"] = json!(false);
    std::fs::write(&path, v.to_string()).map_err(|e| e.to_string())?;
    expect(&ctx.run_bundle("s", &bundle), 0, "from spec\n")?;
    ctx.nothing_left()
}

pub(super) fn run_exit_codes(ctx: &Ctx<'_>) -> Result<(), String> {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 5", 5),
        ("sh -c 'kill -9 $$'; exit $?", 137),
    ] {
        let bundle = ctx.bundle("b", &["/bin/sh", "-c", script], |_| ())?;
        expect(&ctx.run_bundle("x", &bundle), code, "")?;
    }
    ctx.nothing_left()
}

pub(super) fn life_cycle(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle(
        "b",
        &["/bin/sh", "-c", "echo started > /out; exec sleep 1000"],
        |c| {
            c["annotations"] = json!({"test.key": "value"});
        },
    )?;
    let pid_file = ctx.dir.join("pid");
    let done = quiet(
        ctx,
        &[
            "create",
            "--bundle",
            &bundle,
            "--pid-file",
            &pid_file.to_string_lossy(),
            "c1",
        ],
    )?;
    check(done.ok(), || format!("create: {}", done.describe()))?;
    let v = state_of(ctx, "c1")?;
    check(
        v["status"] == "created" && v["id"] == "c1" && v["bundle"] == bundle.as_str(),
        || v.to_string(),
    )?;
    check(v["annotations"]["test.key"] == "value", || v.to_string())?;
    let pid: u64 = std::fs::read_to_string(&pid_file)
        .unwrap_or_default()
        .trim()
        .parse()
        .unwrap_or(0);
    check(pid > 1 && v["pid"] == pid, || {
        format!("pid file {pid}, state {v}")
    })?;
    check(
        !std::path::Path::new(&bundle).join("rootfs/out").exists(),
        || "it ran before start".into(),
    )?;
    let done = ctx.run(&["start", "c1"]);
    check(done.ok(), || format!("start: {}", done.describe()))?;
    wait_status(ctx, "c1", "running")?;
    refused(&ctx.run(&["start", "c1"]), &["c1"])
        .or_else(|_| refused(&ctx.run(&["start", "c1"]), &["start"]))?;
    let list = ctx.run(&["list"]);
    check(
        list.stdout.contains("c1") && list.stdout.contains("running"),
        || list.describe(),
    )?;
    let json = ctx.run(&["list", "--format", "json"]);
    check(
        serde_json::from_str::<Value>(&json.stdout).is_ok_and(|v| v[0]["id"] == "c1"),
        || json.describe(),
    )?;
    refused(&ctx.run(&["delete", "c1"]), &["c1"])
        .or_else(|_| refused(&ctx.run(&["delete", "c1"]), &["running"]))?;
    refused(
        &ctx.run(&["create", "--bundle", &bundle, "c1"]),
        &["c1", "exist"],
    )?;
    let done = ctx.run(&["kill", "c1", "KILL"]);
    check(done.ok(), || format!("kill: {}", done.describe()))?;
    wait_status(ctx, "c1", "stopped")?;
    let done = ctx.run(&["kill", "c1", "KILL"]);
    check(!done.ok(), || "a stopped container was killed again".into())?;
    let done = ctx.run(&["delete", "c1"]);
    check(done.ok(), || format!("delete: {}", done.describe()))?;
    refused(&ctx.run(&["state", "c1"]), &["c1"])?;
    // Forced deletion of a running one.
    check(
        quiet(ctx, &["create", "--bundle", &bundle, "c2"])?.ok(),
        || "create c2".into(),
    )?;
    check(ctx.run(&["start", "c2"]).ok(), || "start c2".into())?;
    let done = ctx.run(&["delete", "--force", "c2"]);
    check(done.ok(), || format!("delete --force: {}", done.describe()))?;
    // Deleted before it was ever started.
    check(
        quiet(ctx, &["create", "--bundle", &bundle, "c3"])?.ok(),
        || "create c3".into(),
    )?;
    let done = ctx.run(&["delete", "--force", "c3"]);
    check(done.ok(), || {
        format!("delete of a created one: {}", done.describe())
    })?;
    ctx.nothing_left()
}

pub(super) fn exec_and_ps(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("b", &["/bin/sleep", "1000"], |_| ())?;
    check(
        quiet(ctx, &["create", "--bundle", &bundle, "c"])?.ok(),
        || "create".into(),
    )?;
    check(ctx.run(&["start", "c"]).ok(), || "start".into())?;
    expect(&ctx.run(&["exec", "c", "/bin/echo", "hello"]), 0, "hello\n")?;
    expect(&ctx.run(&["exec", "c", "/bin/sh", "-c", "exit 9"]), 9, "")?;
    expect(
        &ctx.run(&[
            "exec",
            "--cwd",
            "/tmp",
            "--env",
            "A=b",
            "c",
            "/bin/sh",
            "-c",
            "pwd; echo $A",
        ]),
        0,
        "/tmp\nb\n",
    )?;
    expect(
        &ctx.run(&["exec", "--user", "1000:1000", "c", "/bin/id", "-u"]),
        0,
        "1000\n",
    )?;
    let done = ctx.run(&["exec", "c", "/no/such"]);
    check(!done.ok() && done.stderr.contains("/no/such"), || {
        done.describe()
    })?;
    let ps = ctx.run(&["ps", "c"]);
    check(ps.ok() && ps.stdout.contains("sleep"), || ps.describe())?;
    // The sandbox's processes see each other.
    let done = ctx.run(&["exec", "c", "/bin/sh", "-c", "kill -0 1 && echo sees"]);
    check(done.stdout == "sees\n", || done.describe())?;
    refused(&ctx.run(&["exec", "none", "/bin/true"]), &["none"])?;
    check(ctx.run(&["delete", "--force", "c"]).ok(), || {
        "delete".into()
    })?;
    ctx.nothing_left()
}

pub(super) fn process_settings(ctx: &Ctx<'_>) -> Result<(), String> {
    let script = "id -u; id -g; id -G; pwd; echo $VAR; ulimit -n; hostname; umask; \
                  grep -E '^(CapEff|NoNewPrivs)' /proc/self/status";
    let bundle = ctx.bundle("b", &["/bin/sh", "-c", script], |c| {
        c["process"]["user"] =
            json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27});
        c["process"]["cwd"] = json!("/tmp");
        c["process"]["env"] = json!(["PATH=/bin", "VAR=value"]);
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 77, "soft": 55}]);
        c["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        });
    })?;
    let out = "1000\n1001\n1001 5 6\n/tmp\nvalue\n55\ntest-host\n0027\nCapEff:\t0000000000000020\nNoNewPrivs:\t1\n";
    expect(&ctx.run_bundle("x", &bundle), 0, out)?;
    // Root with few capabilities.
    let bundle = ctx.bundle("c", &["/bin/grep", "CapBnd", "/proc/self/status"], |_| ())?;
    expect(
        &ctx.run_bundle("y", &bundle),
        0,
        "CapBnd:\t00000000000000e3\n",
    )
}

pub(super) fn mounts_and_paths(ctx: &Ctx<'_>) -> Result<(), String> {
    let shared = ctx.dir.join("shared");
    std::fs::create_dir_all(&shared).map_err(|e| e.to_string())?;
    std::fs::write(shared.join("in"), "from host\n").map_err(|e| e.to_string())?;
    let script = "cat /data/in; echo back > /data/out; touch /ro/x 2>/dev/null || echo ro; \
                  head -c 5 /proc/version >/dev/null && cat /proc/keys 2>/dev/null | wc -c; \
                  echo 1 > /proc/sys/kernel/hostname 2>/dev/null || echo locked; \
                  echo x > /tmp/t && stat -f -c %T /tmp; test -c /dev/null && test -d /sys/class && echo dev";
    let bundle = ctx.bundle("b", &["/bin/sh", "-c", script], |c| {
        let extra = json!([
            {"destination": "/data", "type": "bind", "source": shared, "options": ["rbind", "rw"]},
            {"destination": "/ro", "type": "bind", "source": shared, "options": ["bind", "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        ]);
        if let (Some(mounts), Some(extra)) = (c["mounts"].as_array_mut(), extra.as_array()) {
            mounts.extend(extra.iter().cloned());
        }
        c["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/kcore"]);
        c["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
    })?;
    expect(
        &ctx.run_bundle("x", &bundle),
        0,
        "from host\nro\n0\nlocked\ntmpfs\ndev\n",
    )?;
    let back = std::fs::read_to_string(shared.join("out")).unwrap_or_default();
    check(back == "back\n", || {
        format!("the bind mount holds {back:?}")
    })?;
    let bundle = ctx.bundle("c", &["/bin/touch", "/new"], |c| {
        c["root"]["readonly"] = json!(true)
    })?;
    let done = ctx.run_bundle("y", &bundle);
    check(!done.ok() && done.stderr.contains("Read-only"), || {
        done.describe()
    })
}

pub(super) fn rootfs_writes_go_through(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle(
        "b",
        &[
            "/bin/sh",
            "-c",
            "echo kept > /etc/new; rm /etc/passwd; mkdir /d",
        ],
        |_| (),
    )?;
    expect(&ctx.run_bundle("x", &bundle), 0, "")?;
    let rootfs = std::path::Path::new(&bundle).join("rootfs");
    check(
        std::fs::read_to_string(rootfs.join("etc/new")).is_ok_and(|t| t == "kept\n"),
        || "the file is not there".into(),
    )?;
    check(
        !rootfs.join("etc/passwd").exists() && rootfs.join("d").is_dir(),
        || "changes are missing".into(),
    )?;
    let mut c = ctx.runsc(&["--overlay2=root:memory", "run", "--bundle", &bundle, "y"]);
    let done = command::run(&mut c, Duration::from_secs(30));
    check(done.code().is_some(), || done.describe())?;
    let bundle = ctx.bundle("b2", &["/bin/touch", "/etc/thrown-away"], |_| ())?;
    let done = ctx.run(&["--overlay2=root:memory", "run", "--bundle", &bundle, "z"]);
    check(done.ok(), || done.describe())?;
    check(
        !std::path::Path::new(&bundle)
            .join("rootfs/etc/thrown-away")
            .exists(),
        || "the overlay leaks".into(),
    )
}
