//! `features.md`: what the features document says is true.

use serde_json::{Value, json};

use super::config::add_mount;
use super::runtime::{Runtime, check, equal, succeeded};
use super::{Case, case};

pub const CASES: &[Case] = &[
    case(
        "features/versions",
        "ociVersionMin and ociVersionMax are accepted by create",
        versions,
    ),
    case(
        "features/properties",
        "no property is there that the specification does not define",
        properties,
    ),
    case("features/hooks", "the named hooks run", hooks),
    case(
        "features/mount_options",
        "the named mount options are recognised",
        mount_options,
    ),
    case(
        "features/namespaces",
        "the named namespaces are accepted",
        namespaces,
    ),
    case(
        "features/capabilities",
        "the named capabilities are accepted",
        capabilities,
    ),
    case(
        "features/seccomp",
        "the named actions and operators are accepted",
        seccomp,
    ),
    case(
        "features/annotations",
        "annotations map strings to strings",
        annotations,
    ),
];

fn features(rt: &Runtime<'_>) -> Result<Value, String> {
    let done = succeeded(rt.run(&["features"]))?;
    serde_json::from_str(&done.stdout).map_err(|err| err.to_string())
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn versions(rt: &Runtime<'_>) -> Result<(), String> {
    let features = features(rt)?;
    for key in ["ociVersionMin", "ociVersionMax"] {
        let version = features[key].as_str().ok_or(format!("no {key}"))?;
        equal(
            &rt.output("echo ran", |c| c["ociVersion"] = json!(version))?,
            "ran",
        )?;
    }
    Ok(())
}

fn properties(rt: &Runtime<'_>) -> Result<(), String> {
    let known = [
        "ociVersionMin",
        "ociVersionMax",
        "hooks",
        "mountOptions",
        "linux",
        "annotations",
        "potentiallyUnsafeConfigAnnotations",
    ];
    let linux = [
        "namespaces",
        "capabilities",
        "cgroup",
        "seccomp",
        "apparmor",
        "selinux",
        "intelRdt",
        "mountExtensions",
    ];
    let features = features(rt)?;
    for (object, known) in [(&features, &known[..]), (&features["linux"], &linux[..])] {
        for key in object.as_object().into_iter().flatten().map(|(key, _)| key) {
            check(known.contains(&key.as_str()), || {
                format!("unknown property {key}")
            })?;
        }
    }
    Ok(())
}

fn hooks(rt: &Runtime<'_>) -> Result<(), String> {
    let features = features(rt)?;
    let points = strings(&features["hooks"]);
    check(points.len() == 6, || features["hooks"].to_string())?;
    let out = rt.output("echo ran", |c| {
        let mut hooks = json!({});
        for point in &points {
            // There on the host and inside.
            hooks[*point] = json!([{"path": "/bin/true"}]);
        }
        c["hooks"] = hooks;
    })?;
    equal(&out, "ran")
}

fn mount_options(rt: &Runtime<'_>) -> Result<(), String> {
    let features = features(rt)?;
    let dir = rt.ctx.dir.join("volume");
    std::fs::create_dir_all(&dir).map_err(|err| err.to_string())?;
    // Some need what the host's kernel or another option gives.
    let special = [
        "remount", "defaults", "bind", "rbind", "idmap", "ridmap", "mand", "iversion",
    ];
    let options = strings(&features["mountOptions"]);
    check(options.len() > 40, || features["mountOptions"].to_string())?;
    let out = rt.output("echo ran", |c| {
        for option in options.iter().filter(|option| !special.contains(option)) {
            let mount = if option.starts_with('r')
                && *option != "ro"
                && *option != "rw"
                && *option != "relatime"
            {
                json!({"destination": format!("/m/{option}"), "type": "bind", "source": dir,
                    "options": ["rbind", option]})
            } else {
                json!({"destination": format!("/m/{option}"), "type": "tmpfs", "source": "t",
                    "options": [option]})
            };
            add_mount(c, mount);
        }
    })?;
    equal(&out, "ran")
}

fn namespaces(rt: &Runtime<'_>) -> Result<(), String> {
    let features = features(rt)?;
    let kinds = strings(&features["linux"]["namespaces"]);
    let out = rt.output("echo ran", |c| {
        // A user namespace needs mappings, which have cases of their own.
        let kinds = kinds.iter().filter(|kind| **kind != "user");
        c["linux"]["namespaces"] = kinds.map(|kind| json!({"type": kind})).collect();
    })?;
    equal(&out, "ran")
}

fn capabilities(rt: &Runtime<'_>) -> Result<(), String> {
    let features = features(rt)?;
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t"));
    let own = own
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .unwrap_or(0);
    // runc gives what its caller has; the names are in the kernel's order.
    let all = strings(&features["linux"]["capabilities"])
        .into_iter()
        .enumerate();
    let all = all.filter(|(number, _)| !rt.is_runc() || own & (1 << number) != 0);
    let all: Vec<&str> = all.map(|(_, name)| name).collect();
    let out = rt.output("grep CapEff /proc/self/status", |c| {
        c["process"]["capabilities"] = json!({"bounding": all, "permitted": all, "effective": all});
    })?;
    let count = out
        .rsplit('\t')
        .next()
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .map_or(0, u64::count_ones);
    equal(&count.to_string(), &all.len().to_string())
}

fn seccomp(rt: &Runtime<'_>) -> Result<(), String> {
    let features = features(rt)?;
    let seccomp = &features["linux"]["seccomp"];
    check(
        strings(&seccomp["archs"]).contains(&"SCMP_ARCH_X86_64"),
        || seccomp.to_string(),
    )?;
    let mut rules = Vec::new();
    for action in strings(&seccomp["actions"]) {
        // Needs a listener.
        if action != "SCMP_ACT_NOTIFY" {
            rules.push(json!({"names": ["mkdirat"], "action": action,
                "args": [{"index": 0, "value": rules.len() + 1000, "op": "SCMP_CMP_EQ"}]}));
        }
    }
    for (number, operator) in strings(&seccomp["operators"]).into_iter().enumerate() {
        rules.push(json!({"names": ["rmdir"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": number % 6, "value": 7, "valueTwo": 7, "op": operator}]}));
    }
    let out = rt.output("echo ran", |c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
    })?;
    equal(&out, "ran")
}

fn annotations(rt: &Runtime<'_>) -> Result<(), String> {
    let features = features(rt)?;
    for (key, value) in features["annotations"].as_object().into_iter().flatten() {
        check(!key.is_empty() && value.is_string(), || {
            format!("{key}: {value}")
        })?;
    }
    Ok(())
}
