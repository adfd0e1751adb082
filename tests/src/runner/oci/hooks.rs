//! `config.md`: hooks, and their places in the life cycle.

use std::fs;

use serde_json::{Value, json};

use super::runtime::{Runtime, check, equal, failed, succeeded};
use super::{Case, case};

pub const CASES: &[Case] = &[
    case(
        "hooks/order",
        "hooks run at their points of the life cycle, in the listed order",
        order,
    ),
    case(
        "hooks/state",
        "each hook gets the state on stdin, with its status",
        state,
    ),
    case(
        "hooks/args_env",
        "args and env are the hook's, as they are",
        args_env,
    ),
    case(
        "hooks/relative_path",
        "the path of a hook is absolute",
        |rt| {
            rt.refuses(|c| c["hooks"] = json!({"createRuntime": [{"path": "bin/true"}]}))
                .map(|_| ())
        },
    ),
    case(
        "hooks/timeout_zero",
        "a timeout is greater than zero",
        |rt| {
            rt.refuses(|c| {
                c["hooks"] = json!({"createRuntime": [{"path": "/bin/true", "timeout": 0}]})
            })
            .map(|_| ())
        },
    ),
    case(
        "hooks/timeout",
        "a hook that runs into its timeout is an error",
        |rt| {
            rt.refuses(|c| {
                c["hooks"] = json!({"createRuntime": [
            {"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]})
            })
            .map(|_| ())
        },
    ),
    case(
        "hooks/prestart_fails",
        "a failed prestart hook undoes the container",
        |rt| undone(rt, "prestart"),
    ),
    case(
        "hooks/create_runtime_fails",
        "a failed createRuntime hook undoes the container",
        |rt| undone(rt, "createRuntime"),
    ),
    case(
        "hooks/create_container_fails",
        "a failed createContainer hook undoes the container",
        |rt| undone(rt, "createContainer"),
    ),
    case(
        "hooks/start_container_fails",
        "a failed startContainer hook keeps the program from running",
        start_container_fails,
    ),
    case(
        "hooks/poststart_fails",
        "a failed poststart hook is an error that stops the container",
        poststart_fails,
    ),
    case(
        "hooks/poststop_fails",
        "a failed poststop hook is a warning; the others run",
        poststop_fails,
    ),
    case(
        "hooks/poststop_undone",
        "poststop hooks run after a failed create",
        poststop_undone,
    ),
    case(
        "hooks/runtime_namespace",
        "createRuntime hooks run in the runtime's namespaces",
        runtime_namespace,
    ),
    case(
        "hooks/container_namespace",
        "createContainer hooks run in the container's network namespace",
        container_namespace,
    ),
    case(
        "hooks/start_container_inside",
        "startContainer hooks are files of the container, run inside",
        inside,
    ),
    case(
        "hooks/null",
        "hooks that are null or empty are none",
        |rt| {
            equal(
                &rt.output("echo ran", |c| {
                    c["hooks"] = json!({"prestart": null, "poststop": []})
                })?,
                "ran",
            )
        },
    ),
];

/// Points whose hooks are programs of the host.
const ON_HOST: [&str; 5] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "poststart",
    "poststop",
];

fn sh(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
}

fn order(rt: &Runtime<'_>) -> Result<(), String> {
    let log = rt.ctx.dir.join("log");
    let bundle = rt.bundle("echo run >> /log/log", |c| {
        let mut hooks = json!({});
        for point in ON_HOST {
            let line = |n| sh(&format!("echo {point}{n} >> {}", log.display()));
            hooks[point] = json!([line(1), line(2)]);
        }
        let line = |n| {
            json!({"path": "/bin/sh", "env": ["PATH=/bin"],
            "args": ["sh", "-c", format!("echo startContainer{n} >> /log/log")]})
        };
        hooks["startContainer"] = json!([line(1), line(2)]);
        c["hooks"] = hooks;
        super::config::add_mount(
            c,
            json!({"destination": "/log", "type": "bind",
            "source": rt.ctx.dir, "options": ["rbind"]}),
        );
    })?;
    let id = rt.id("c");
    let read = || {
        fs::read_to_string(&log)
            .unwrap_or_default()
            .replace('\n', " ")
    };
    succeeded(rt.create(&id, &bundle))?;
    let created =
        "prestart1 prestart2 createRuntime1 createRuntime2 createContainer1 createContainer2 ";
    equal(&read(), created)?;
    succeeded(rt.run(&["start", &id]))?;
    rt.wait_status(&id, "stopped")?;
    let started = read();
    let started = started.strip_prefix(created).unwrap_or(&started).to_owned();
    // The program and the poststart hooks run at the same time.
    let without: Vec<&str> = started.split(' ').filter(|word| *word != "run").collect();
    equal(
        &without.join(" "),
        "startContainer1 startContainer2 poststart1 poststart2 ",
    )?;
    let ran = started.find("run").unwrap_or(0);
    check(
        started.find("startContainer2").is_some_and(|at| at < ran),
        || started.clone(),
    )?;
    succeeded(rt.run(&["delete", &id]))?;
    check(read().ends_with("poststop1 poststop2 "), read)
}

fn state(rt: &Runtime<'_>) -> Result<(), String> {
    let dir = rt.ctx.dir.clone();
    let bundle = rt.bundle("sleep 1000", |c| {
        c["annotations"] = json!({"key": "value"});
        let mut hooks = json!({});
        for point in ON_HOST {
            hooks[point] = json!([sh(&format!("cat > {}", dir.join(point).display()))]);
        }
        c["hooks"] = hooks;
    })?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let pid = rt.pid(&id)?;
    succeeded(rt.run(&["kill", &id, "KILL"]))?;
    rt.wait_status(&id, "stopped")?;
    succeeded(rt.run(&["delete", &id]))?;
    for point in ON_HOST {
        let text = fs::read_to_string(dir.join(point)).unwrap_or_default();
        let state: Value = serde_json::from_str(&text).map_err(|err| format!("{point}: {err}"))?;
        let wanted: &[&str] = match point {
            "poststart" => &["running"],
            "poststop" => &["stopped"],
            _ => &["creating", "created"],
        };
        check(
            wanted.contains(&state["status"].as_str().unwrap_or_default()),
            || format!("{point}: {state}"),
        )?;
        check(
            state["id"] == id.as_str() && state["bundle"] == bundle.as_str(),
            || format!("{point}: {state}"),
        )?;
        check(
            state["annotations"]["key"] == "value" && state["ociVersion"].is_string(),
            || format!("{point}: {state}"),
        )?;
        // A createContainer hook may be told the pid of its own namespace.
        if !matches!(point, "poststop" | "createContainer") {
            check(state["pid"] == pid, || {
                format!("{point}: {state}, pid {pid}")
            })?;
        }
    }
    Ok(())
}

fn args_env(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.ctx.dir.join("hook");
    let script = format!(
        "(echo \"$0|$#|$1|$2\"; env | grep -v -e ^PWD= -e ^SHLVL= -e ^_=) > {}",
        out.display()
    );
    rt.output("true", |c| {
        c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh",
            "args": ["sh", "-c", script, "name", "a b", ""], "env": ["ONLY=this one"]}]});
    })?;
    equal(
        &fs::read_to_string(out).unwrap_or_default(),
        "name|2|a b|\nONLY=this one\n",
    )
}

fn undone(rt: &Runtime<'_>, point: &str) -> Result<(), String> {
    let second = rt.ctx.dir.join("second");
    rt.refuses(|c| {
        let mut hooks = json!({});
        hooks[point] = json!([sh("exit 3"), sh(&format!("touch {}", second.display()))]);
        c["hooks"] = hooks;
    })?;
    check(!second.exists(), || "the hook behind it ran".into())
}

fn start_container_fails(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("echo ran > /ran; sleep 1000", |c| {
        c["hooks"] =
            json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
    })?;
    let id = rt.id("c");
    succeeded(rt.create(&id, &bundle))?;
    let started = rt.run(&["start", &id]);
    // The process fails behind the back of runc's start.
    if !rt.is_runc() {
        failed(&started)?;
    }
    super::runtime::until("stopped", || {
        rt.status(&id).map_or(true, |status| status == "stopped")
    })?;
    check(!rt.in_root(&bundle, "ran").exists(), || {
        "the program ran".into()
    })
}

fn poststart_fails(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("sleep 1000", |c| {
        c["hooks"] = json!({"poststart": [sh("exit 3")]})
    })?;
    let id = rt.id("c");
    succeeded(rt.create(&id, &bundle))?;
    failed(&rt.run(&["start", &id]))?;
    super::runtime::until("stopped", || {
        rt.status(&id).map_or(true, |status| status == "stopped")
    })
}

fn poststop_fails(rt: &Runtime<'_>) -> Result<(), String> {
    let second = rt.ctx.dir.join("second");
    let bundle = rt.bundle("true", |c| {
        c["hooks"] =
            json!({"poststop": [sh("exit 3"), sh(&format!("touch {}", second.display()))]});
    })?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    rt.wait_status(&id, "stopped")?;
    succeeded(rt.run(&["delete", &id]))?;
    check(second.exists(), || "the second hook did not run".into())?;
    failed(&rt.run(&["state", &id]))
}

fn poststop_undone(rt: &Runtime<'_>) -> Result<(), String> {
    let after = rt.ctx.dir.join("after");
    rt.refuses(|c| {
        c["hooks"] = json!({"createRuntime": [sh("exit 3")],
            "poststop": [sh(&format!("touch {}", after.display()))]});
    })?;
    check(after.exists(), || "it did not run".into())
}

/// The network namespace that hooks of `point` run in, and the container's.
fn network_of_hook(rt: &Runtime<'_>, point: &str) -> Result<(String, String), String> {
    let out = rt.ctx.dir.join("ns");
    let bundle = rt.bundle("sleep 1000", |c| {
        let mut hooks = json!({});
        hooks[point] = json!([sh(&format!(
            "readlink /proc/self/ns/net > {}",
            out.display()
        ))]);
        c["hooks"] = hooks;
    })?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let own =
        fs::read_link(format!("/proc/{}/ns/net", rt.pid(&id)?)).map_err(|err| err.to_string())?;
    let hook = fs::read_to_string(out).unwrap_or_default();
    Ok((hook.trim().to_owned(), own.display().to_string()))
}

fn runtime_namespace(rt: &Runtime<'_>) -> Result<(), String> {
    let (hook, own) = network_of_hook(rt, "createRuntime")?;
    let ours = fs::read_link("/proc/self/ns/net").map_err(|err| err.to_string())?;
    equal(&hook, &ours.display().to_string())?;
    check(hook != own, || {
        "the container has no network namespace of its own".into()
    })
}

fn container_namespace(rt: &Runtime<'_>) -> Result<(), String> {
    let (hook, own) = network_of_hook(rt, "createContainer")?;
    equal(&hook, &own)
}

fn inside(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("cat /by-hook", |c| {
        c["hooks"] =
            json!({"startContainer": [{"path": "/bin/own-hook", "args": ["own-hook", "arg"]}]});
    })?;
    let hook = rt.in_root(&bundle, "bin/own-hook");
    fs::write(&hook, "#!/bin/busybox sh\necho \"inside $1\" > /by-hook\n")
        .map_err(|err| err.to_string())?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).map_err(|err| err.to_string())?;
    let done = succeeded(rt.run(&["run", "--bundle", &bundle, &rt.id("c")]))?;
    equal(&done.stdout, "inside arg\n")
}
