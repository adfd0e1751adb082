//! Pods: several containers in one sandbox, by the annotations of engines.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bundle::{Ctx, check, expect, pids};
use super::cli::Test;
use super::command;
use super::pod::{PidNamespace, Pod, eventually};

pub const TESTS: &[(&str, Test)] = &[
    ("shared_namespaces", shared_namespaces),
    ("volumes", volumes),
    ("containers_end_alone", containers_end_alone),
    ("one_at_a_time", one_at_a_time),
    ("come_and_go", come_and_go),
    ("sandbox_ends_with_its_root", sandbox_ends_with_its_root),
    ("names_of_crio", names_of_crio),
    ("port_forward", port_forward),
    ("bad_pods", bad_pods),
    ("killed_pieces", killed_pieces),
    ("cgroups", cgroups),
];

fn shared_namespaces(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod::start(ctx)?;
    let script = "guest shm-put; hostname; echo $$; exec sleep 1000";
    pod.add("first", PidNamespace::OfPod, script)?;
    pod.says("first", "test-host\n2\n")?;
    pod.add(
        "second",
        PidNamespace::Own,
        "echo $$; hostname; guest shm-get; exec sleep 1000",
    )?;
    pod.says("second", "1\ntest-host\n!\n")?;
    // Each sees the processes of its pid namespace.
    let seen = pod.exec("first", "ps").stdout;
    check(
        seen.contains("/bin/sleep 1000") && seen.contains("{sh}") | seen.contains("sleep 1000"),
        || format!("first sees {seen}"),
    )?;
    check(seen.lines().count() >= 4, || format!("first sees {seen}"))?;
    let seen = pod.exec("second", "ps").stdout;
    check(!seen.contains("/bin/sleep"), || {
        format!("second sees {seen}")
    })?;
    // One pid namespace by the path of the other's.
    let path = format!("/proc/{}/ns/pid", pod.pid("second")?);
    pod.add_with(
        "third",
        PidNamespace::Own,
        &["/bin/sh", "-c", "echo $$; exec sleep 1000"],
        |config| {
            config["linux"]["namespaces"] =
                json!([{"type": "mount"}, {"type": "pid", "path": path}]);
        },
    )?;
    let second = pod.exec("second", "ps").stdout;
    check(
        second.contains("sleep 1000") && second.lines().count() >= 4,
        || format!("second sees {second}"),
    )?;
    // One with a host name and IPC objects of its own.
    pod.add_with(
        "own",
        PidNamespace::OfPod,
        &["/bin/sh", "-c", "hostname; guest shm-get; exec sleep 1000"],
        |config| {
            config["hostname"] = json!("own-name");
            config["linux"]["namespaces"] = json!([{"type": "ipc"}, {"type": "uts"}]);
        },
    )?;
    pod.says("own", "own-name\nnone\n")?;
    // Loopback is the pod's.
    let namespace =
        |id: &str, name: &str| pod.exec(id, &format!("ls -l /proc/self/ns/{name}")).stdout;
    for name in ["ipc", "uts", "net"] {
        let strip = |text: String| text.rsplit(' ').next().unwrap_or_default().to_owned();
        let (one, other) = (
            strip(namespace("first", name)),
            strip(namespace("second", name)),
        );
        check(one == other && one.starts_with(name), || {
            format!("{name}: {one} and {other}")
        })?;
    }
    pod.add(
        "server",
        PidNamespace::Own,
        "echo hello | nc -l -p 8080 127.0.0.1",
    )?;
    let heard = eventually("an answer", || {
        let done = pod.exec("first", "nc -w 1 127.0.0.1 8080 </dev/null");
        (!done.stdout.is_empty()).then_some(done.stdout)
    })?;
    check(heard == "hello\n", || heard.clone())?;
    pod.end()
}

fn volumes(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod::start(ctx)?;
    let volume = ctx.dir.join("volume");
    std::fs::create_dir_all(&volume).map_err(|e| e.to_string())?;
    let mounts = |config: &mut Value| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            let source = volume.to_string_lossy().into_owned();
            mounts.push(
                json!({"destination": "/volume", "type": "bind", "source": source,
                               "options": ["rbind", "rw"]}),
            );
            mounts.push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}));
        }
    };
    let wait = ["/bin/sleep", "1000"];
    pod.add_with("first", PidNamespace::Own, &wait, mounts)?;
    pod.add_with("second", PidNamespace::Own, &wait, mounts)?;
    let script = "echo one > /volume/file; echo private > /tmp/file; echo root > /file";
    expect(&pod.exec("first", script), 0, "")?;
    let script = "cat /volume/file; ls /tmp; ls /file 2>/dev/null";
    expect(&pod.exec("second", script), 1, "one\n")?;
    // What one changes, the other sees, and the host.
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 {
            ("first", "second")
        } else {
            ("second", "first")
        };
        let script = format!("echo {round} >> /volume/file; echo {round} > /volume/{round}");
        expect(&pod.exec(writer, &script), 0, "")?;
        let script =
            format!("while read x; do y=$x; done < /volume/file; echo $y; cat /volume/{round}");
        expect(
            &pod.exec(reader, &script),
            0,
            &format!("{round}\n{round}\n"),
        )?;
    }
    let host = std::fs::read_to_string(volume.join("19")).map_err(|e| e.to_string())?;
    check(host == "19\n", || format!("the host reads {host:?}"))?;
    pod.end()
}

fn containers_end_alone(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod::start(ctx)?;
    pod.add("stays", PidNamespace::Own, "while :; do sleep 0.1; done")?;
    pod.add("ends", PidNamespace::OfPod, "sleep 0.3; exit 5")?;
    let done = ctx.run(&["wait", "ends"]);
    check(done.stdout.contains("\"exitStatus\":5"), || done.describe())?;
    pod.becomes("ends", "stopped")?;
    // Again, after its end.
    let done = ctx.run(&["wait", "ends"]);
    check(done.stdout.contains("\"exitStatus\":5"), || done.describe())?;
    check(pod.status("stays") == "running", || pod.status("stays"))?;
    expect(&pod.exec("stays", "echo alive"), 0, "alive\n")?;
    let done = pod.exec("ends", "echo alive");
    check(done.code() != Some(0), || done.describe())?;
    pod.ok(&["delete", "ends"])?;
    // Processes it leaves behind die with it.
    pod.add("leaves", PidNamespace::OfPod, "sleep 1234 & exit 0")?;
    pod.becomes("leaves", "stopped")?;
    pod.ok(&["delete", "leaves"])?;
    let seen = ctx.run(&["debug", "--stacks", "pod"]).stdout;
    check(!seen.contains("leaves"), || format!("left: {seen}"))?;
    // The id is free again.
    pod.add("ends", PidNamespace::OfPod, "echo again; exit 6")?;
    pod.says("ends", "again\n")?;
    let done = ctx.run(&["wait", "ends"]);
    check(done.stdout.contains("\"exitStatus\":6"), || done.describe())?;
    pod.end()
}

/// Commands that name one container leave the others alone.
fn one_at_a_time(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod::start(ctx)?;
    let script = "trap 'echo term; exit 9' TERM; echo up; while :; do sleep 0.05; done";
    pod.add("first", PidNamespace::OfPod, script)?;
    pod.add("second", PidNamespace::OfPod, script)?;
    for id in ["first", "second"] {
        pod.says(id, "up\n")?;
    }
    let listed = ctx.run(&["ps", "first"]).stdout;
    check(
        listed.contains("sh") && !listed.contains("/bin/sleep"),
        || listed.clone(),
    )?;
    pod.ok(&["pause", "first"])?;
    check(
        (pod.status("first"), pod.status("second")) == ("paused".into(), "running".into()),
        || format!("{} {}", pod.status("first"), pod.status("second")),
    )?;
    expect(&pod.exec("second", "echo alive"), 0, "alive\n")?;
    let done = pod.exec("first", "echo alive");
    check(done.code() != Some(0), || done.describe())?;
    // A signal waits until it is resumed.
    pod.ok(&["kill", "first", "TERM"])?;
    std::thread::sleep(Duration::from_millis(200));
    check(pod.output("first") == "up\n", || pod.output("first"))?;
    pod.ok(&["resume", "first"])?;
    pod.says("first", "up\nterm\n")?;
    pod.becomes("first", "stopped")?;
    check(pod.status("second") == "running", || pod.status("second"))?;
    check(pod.output("second") == "up\n", || pod.output("second"))?;
    // A paused one can be deleted by force.
    pod.ok(&["pause", "second"])?;
    pod.ok(&["delete", "--force", "second"])?;
    check(pod.status("pod") == "running", || pod.status("pod"))?;
    pod.end()
}

fn come_and_go(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod::start(ctx)?;
    pod.add("stays", PidNamespace::Own, "exec sleep 1000")?;
    // In a row, then side by side.
    for round in 0..8 {
        let id = format!("row{round}");
        pod.add(
            &id,
            PidNamespace::Own,
            &format!("echo {round}; exit {round}"),
        )?;
        pod.becomes(&id, "stopped")?;
        pod.says(&id, &format!("{round}\n"))?;
        pod.ok(&["delete", &id])?;
    }
    let pod = &pod;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..12)
            .map(|number| {
                scope.spawn(move || {
                    let id = format!("side{number}");
                    pod.add(
                        &id,
                        PidNamespace::OfPod,
                        &format!("echo {number}; sleep 0.2"),
                    )?;
                    pod.becomes(&id, "stopped")?;
                    pod.says(&id, &format!("{number}\n"))?;
                    pod.ok(&["delete", &id])
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a panic".into())))
    })?;
    let listed = ctx.run(&["list", "--quiet"]).stdout;
    check(listed == "pod\nstays\n", || format!("left: {listed:?}"))?;
    let stacks = ctx.run(&["debug", "--stacks", "pod"]).stdout;
    check(stacks.lines().count() == 2, || format!("left: {stacks}"))?;
    expect(&pod.exec("stays", "echo alive"), 0, "alive\n")?;
    Pod { ctx }.end()
}

fn sandbox_ends_with_its_root(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod::start(ctx)?;
    pod.add("first", PidNamespace::Own, "exec sleep 1000")?;
    pod.add("second", PidNamespace::OfPod, "exec sleep 1000")?;
    let hosts = [pod.pid("pod")?, pod.pid("first")?, pod.pid("second")?];
    pod.ok(&["kill", "pod", "KILL"])?;
    for id in ["pod", "first", "second"] {
        pod.becomes(id, "stopped")?;
    }
    eventually("ends of the host processes", || {
        let alive =
            |pid: i32| u32::try_from(pid).is_ok_and(|pid| pids().contains(&pid) && !is_zombie(pid));
        (!hosts.into_iter().any(alive)).then_some(())
    })?;
    // A new container can't be added.
    let added = pod.add("third", PidNamespace::OfPod, "exit 0");
    check(added.is_err(), || {
        "a container in a sandbox that has ended".into()
    })?;
    for id in ["first", "second", "pod"] {
        pod.ok(&["delete", id])?;
    }
    ctx.nothing_left()
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn names_of_crio(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod { ctx };
    let names = |kind: &str| json!({"io.kubernetes.cri-o.ContainerType": kind, "io.kubernetes.cri-o.SandboxID": "pod"});
    pod.create("pod", &["/bin/sleep", "1000"], |config| {
        config["annotations"] = names("sandbox");
    })?;
    pod.ok(&["start", "pod"])?;
    pod.create("first", &["/bin/sh", "-c", "hostname; exit 3"], |config| {
        config["annotations"] = names("container");
    })?;
    check(pod.status("first") == "created", || pod.status("first"))?;
    pod.ok(&["start", "first"])?;
    pod.says("first", "test-host\n")?;
    pod.becomes("first", "stopped")?;
    pod.end()
}

fn port_forward(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod::start(ctx)?;
    let server = "nc -l -p 8080 127.0.0.1 -e /bin/sh -c 'read x; echo got $x'";
    pod.add(
        "first",
        PidNamespace::Own,
        &format!("while :; do {server}; done"),
    )?;
    let ask = |id: &str, port: &str| {
        let runsc = ctx.options.runsc.display();
        let state = ctx.state.display();
        let line = format!("echo hello | {runsc} --root {state} port-forward --stdio {id} {port}");
        command::run(
            std::process::Command::new("sh").args(["-c", &line]),
            Duration::from_secs(20),
        )
    };
    for id in ["first", "pod"] {
        let heard = eventually("an answer", || {
            let done = ask(id, "8080");
            done.ok().then_some(done.stdout)
        })?;
        check(heard == "got hello\n", || format!("{id}: {heard:?}"))?;
    }
    let done = ask("first", "8081");
    check(
        done.code() == Some(1) && done.stderr.contains("8081"),
        || done.describe(),
    )?;
    // From a port outside, several at a time.
    let mut listening =
        command::Running::start(&mut ctx.runsc(&["port-forward", "first", "0:8080"]))?;
    let line = match listening.next(Instant::now() + Duration::from_secs(10)) {
        Ok(Some((false, bytes))) => String::from_utf8_lossy(&bytes).into_owned(),
        other => return Err(format!("no line but {other:?}")),
    };
    let address = line.split(' ').nth(2).unwrap_or_default().to_owned();
    let answers = (0..3).map(|number| -> Result<String, String> {
        eventually("an answer", || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(&address).ok()?;
            stream.write_all(format!("{number}\n").as_bytes()).ok()?;
            let mut heard = String::new();
            stream.read_to_string(&mut heard).ok()?;
            (!heard.is_empty()).then_some(heard)
        })
    });
    let answers = answers.collect::<Result<String, String>>();
    listening.kill();
    check(answers.as_deref() == Ok("got 0\ngot 1\ngot 2\n"), || {
        format!("{answers:?}")
    })?;
    pod.end()
}

fn bad_pods(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod::start(ctx)?;
    let refused = |id: &str, annotations: Value, word: &str| {
        let bundle = ctx.bundle(id, &["/bin/true"], |config| {
            config["annotations"] = annotations;
        })?;
        let created = pod.create_from(id, &bundle)?;
        let said = pod.output(id);
        check(!created && said.contains(word), || {
            format!("{id}: {said:?}")
        })
    };
    let of = |sandbox: &str| {
        json!({"io.kubernetes.cri.container-type": "container",
               "io.kubernetes.cri.sandbox-id": sandbox})
    };
    refused("nowhere", of("no-such-pod"), "no-such-pod")?;
    refused("own", of("own"), "own")?;
    refused("up", of("../up"), "../up")?;
    let kind = json!({"io.kubernetes.cri.container-type": "container"});
    refused("unnamed", kind, "sandbox-id")?;
    pod.add("first", PidNamespace::Own, "exec sleep 1000")?;
    refused("nested", of("first"), "first")?;
    // A program that is not there undoes the creation.
    let created = pod.create("missing", &["/no/such/program"], |config| {
        config["annotations"] = of("pod");
    });
    check(
        created.is_err_and(|e| e.contains("/no/such/program")),
        || "a missing program".into(),
    )?;
    pod.add("missing", PidNamespace::Own, "exit 0")?;
    let done = ctx.run(&["delete", "first"]);
    check(!done.ok(), || "a running container was deleted".into())?;
    pod.end()
}

/// After SIGKILL of any process, state tells the truth and `delete` works.
fn killed_pieces(ctx: &Ctx<'_>) -> Result<(), String> {
    let pod = Pod::start(ctx)?;
    let wait = "exec sleep 1000";
    let kill = |pid: i32| {
        // SAFETY: kill takes plain integers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    };
    pod.add("stays", PidNamespace::Own, wait)?;
    // Its attendant.
    pod.add("first", PidNamespace::Own, wait)?;
    kill(pod.pid("first")?);
    pod.becomes("first", "stopped")?;
    eventually("the guest's end", || {
        let stacks = ctx.run(&["debug", "--stacks", "pod"]).stdout;
        (!stacks.contains("first")).then_some(())
    })?;
    pod.ok(&["delete", "first"])?;
    // Its gofer: its files are gone, it can still be deleted.
    pod.add("second", PidNamespace::Own, wait)?;
    let state = ctx.state.join("second/state.json");
    let state = std::fs::read_to_string(state).map_err(|e| e.to_string())?;
    let state: Value = serde_json::from_str(&state).map_err(|e| e.to_string())?;
    let gofer = state["gofer_pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok());
    kill(gofer.ok_or("no gofer")?);
    pod.ok(&["delete", "--force", "second"])?;
    expect(&pod.exec("stays", "echo alive"), 0, "alive\n")?;
    // The command that creates.
    for delay in [2, 5, 10, 20, 40, 80] {
        let bundle = ctx.dir.join("stays").to_string_lossy().into_owned();
        let mut command = ctx.runsc(&["create", "--bundle", &bundle, "cut"]);
        let null = || Stdio::null();
        let child = command.stdin(null()).stdout(null()).stderr(null()).spawn();
        let mut child = child.map_err(|e| e.to_string())?;
        std::thread::sleep(Duration::from_millis(delay));
        let _ = child.kill();
        let _ = child.wait();
        let status = pod.status("cut");
        check(
            ["none", "stopped", "created"].contains(&status.as_str()),
            || format!("cut off after {delay} ms: {status}"),
        )?;
        ctx.run(&["delete", "--force", "cut"]);
    }
    let listed = ctx.run(&["list", "--quiet"]).stdout;
    check(listed == "pod\nstays\n", || format!("left: {listed:?}"))?;
    eventually("no rest of what was cut off", || {
        let stacks = ctx.run(&["debug", "--stacks", "pod"]).stdout;
        (!stacks.contains("cut")).then_some(())
    })?;
    expect(&pod.exec("stays", "echo alive"), 0, "alive\n")?;
    // The sentry.
    kill(pod.pid("pod")?);
    for id in ["stays", "pod"] {
        pod.becomes(id, "stopped")?;
        pod.ok(&["delete", id])?;
    }
    ctx.nothing_left()
}

/// Host processes of each container are in its own cgroup.
fn cgroups(ctx: &Ctx<'_>) -> Result<(), String> {
    let hierarchy = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.join("cgroup.procs").exists())
        .ok_or("no cgroups")?;
    let name = format!("runsc-test-{}-{}", std::process::id(), ctx.platform);
    let place = |config: &mut Value, id: &str| {
        config["linux"]["cgroupsPath"] = json!(format!("/{name}/{id}"));
    };
    let pod = Pod { ctx };
    pod.create("pod", &["/bin/sleep", "1000"], |config| {
        place(config, "pod")
    })?;
    pod.ok(&["start", "pod"])?;
    let members = |id: &str| {
        let path = hierarchy.join(&name).join(id).join("cgroup.procs");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.parse().ok())
            .collect::<Vec<u32>>()
    };
    let before = members("pod").len();
    let script = "sleep 1000 & sleep 1000 & sleep 1000 & sleep 1000 & wait";
    pod.add_with(
        "first",
        PidNamespace::Own,
        &["/bin/sh", "-c", script],
        |config| {
            place(config, "first");
        },
    )?;
    let attendant = u32::try_from(pod.pid("first")?).unwrap_or(0);
    // Attendant, gofer and the five guest processes.
    eventually("processes in the container's cgroup", || {
        let members = members("first");
        (members.contains(&attendant) && members.len() >= 7).then_some(())
    })
    .map_err(|e| {
        format!(
            "{e}: {} there, {} in the pod's",
            members("first").len(),
            members("pod").len()
        )
    })?;
    let now = members("pod").len();
    check(now <= before + 1, || {
        format!("the pod's cgroup has grown from {before} to {now}")
    })?;
    pod.ok(&["delete", "--force", "first"])?;
    let path = hierarchy.join(&name).join("first");
    check(!path.exists(), || format!("{} is left", path.display()))?;
    pod.end()?;
    let _ = command::run(
        std::process::Command::new("sh").args([
            "-c",
            &format!("rmdir /sys/fs/cgroup/*/{name} /sys/fs/cgroup/{name}"),
        ]),
        Duration::from_secs(5),
    );
    Ok(())
}
