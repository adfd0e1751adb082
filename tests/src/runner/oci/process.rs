//! `config.md`: the process, its user, capabilities and limits.

use serde_json::{Value, json};

use super::runtime::{Runtime, check, equal};
use super::{Case, case};

pub const CASES: &[Case] = &[
    case("config/process/cwd", "cwd is the working directory", |rt| {
        equal(
            &rt.output("pwd", |c| c["process"]["cwd"] = json!("/tmp"))?,
            "/tmp",
        )
    }),
    case(
        "config/process/cwd_relative",
        "cwd is an absolute path",
        |rt| {
            rt.refuses(|c| c["process"]["cwd"] = json!("tmp"))
                .map(|_| ())
        },
    ),
    case("config/process/cwd_missing", "cwd is required", |rt| {
        rt.refuses(|c| {
            remove(&mut c["process"], "cwd");
        })
        .map(|_| ())
    }),
    case(
        "config/process/env",
        "env is the environment, as it is",
        env,
    ),
    case(
        "config/process/args",
        "args are the arguments, as they are",
        args,
    ),
    case(
        "config/process/args_empty",
        "args holds at least one entry",
        |rt| rt.refuses(|c| c["process"]["args"] = json!([])).map(|_| ()),
    ),
    case(
        "config/process/path",
        "a program without a slash is looked up in the container's PATH",
        path,
    ),
    case(
        "config/process/program_missing",
        "a program that is not there is an error",
        |rt| {
            rt.refuses(|c| c["process"]["args"] = json!(["/no/such/program"]))
                .map(|_| ())
        },
    ),
    case(
        "config/process/terminal",
        "terminal gives the process a terminal",
        terminal,
    ),
    case(
        "config/process/no_terminal",
        "without terminal there is none; consoleSize is ignored",
        no_terminal,
    ),
    case(
        "config/process/rlimits",
        "rlimits are what getrlimit tells",
        rlimits,
    ),
    case(
        "config/process/rlimits_twice",
        "two limits of one type are an error",
        |rt| {
            let limit = json!({"type": "RLIMIT_CORE", "soft": 1, "hard": 2});
            rt.refuses(|c| c["process"]["rlimits"] = json!([limit, limit]))
                .map(|_| ())
        },
    ),
    case(
        "config/process/rlimits_unknown",
        "a limit of unknown type is an error",
        |rt| {
            let limit = json!({"type": "RLIMIT_BOGUS", "soft": 1, "hard": 2});
            rt.refuses(|c| c["process"]["rlimits"] = json!([limit]))
                .map(|_| ())
        },
    ),
    case(
        "config/process/no_new_privileges",
        "noNewPrivileges sets no_new_privs, and only then",
        no_new_privileges,
    ),
    case("config/process/oom_score_adj", "oomScoreAdj is set", |rt| {
        equal(
            &rt.output("cat /proc/self/oom_score_adj", |c| {
                c["process"]["oomScoreAdj"] = json!(123)
            })?,
            "123",
        )
    }),
    case(
        "config/process/oom_score_adj_unset",
        "oomScoreAdj is left alone if not set",
        |rt| {
            let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
            equal(
                &rt.output("cat /proc/self/oom_score_adj", |_| ())?,
                own.trim(),
            )
        },
    ),
    case(
        "config/process/capabilities",
        "the five sets of capabilities are those given",
        capabilities,
    ),
    case(
        "config/process/capabilities_none",
        "without capabilities there are none",
        no_capabilities,
    ),
    case(
        "config/process/capabilities_unknown",
        "an unknown capability is a warning, no error",
        unknown_capability,
    ),
    case(
        "config/process/ambient",
        "ambient capabilities survive an exec of another user",
        ambient,
    ),
    case(
        "config/process/apparmor_selinux",
        "labels of modules that are not there are handled",
        labels,
    ),
    case(
        "config/user/ids",
        "uid, gid and additional groups are the process's",
        ids,
    ),
    case("config/user/umask", "umask is the process's", |rt| {
        equal(
            &rt.output("umask", |c| c["process"]["user"]["umask"] = json!(0o027))?,
            "0027",
        )
    }),
    case(
        "config/user/files",
        "files that the process makes are its user's",
        files,
    ),
];

fn remove(object: &mut Value, key: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(key);
    }
}

fn env(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output("", |c| {
        c["process"]["args"] = json!(["/bin/env"]);
        c["process"]["env"] = json!(["PATH=/bin", "A=1", "B=with space=and more", "EMPTY="]);
    })?;
    // HOME is added by runc.
    let mut lines: Vec<&str> = out
        .lines()
        .filter(|line| !line.starts_with("HOME="))
        .collect();
    lines.sort_unstable();
    equal(
        &lines.join("|"),
        "A=1|B=with space=and more|EMPTY=|PATH=/bin",
    )
}

fn args(rt: &Runtime<'_>) -> Result<(), String> {
    let args = json!([
        "/bin/sh",
        "-c",
        "echo \"$0|$#|$1|$2|$3\"",
        "name",
        "a b",
        "",
        "*"
    ]);
    equal(
        &rt.output("", |c| c["process"]["args"] = args)?,
        "name|3|a b||*",
    )
}

fn path(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("", |c| {
        c["process"]["args"] = json!(["tool", "found"]);
        c["process"]["env"] = json!(["PATH=/opt/none:/opt/tools"]);
    })?;
    let tools = rt.in_root(&bundle, "opt/tools");
    std::fs::create_dir_all(&tools).map_err(|err| err.to_string())?;
    std::os::unix::fs::symlink("/bin/busybox", tools.join("echo"))
        .map_err(|err| err.to_string())?;
    std::fs::write(
        tools.join("tool"),
        "#!/bin/busybox sh\nexec /bin/busybox echo $1\n",
    )
    .map_err(|err| err.to_string())?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(tools.join("tool"), std::fs::Permissions::from_mode(0o755))
        .map_err(|err| err.to_string())?;
    let done = rt.run(&["run", "--bundle", &bundle, &rt.id("c")]);
    equal(&done.stdout, "found\n").map_err(|err| format!("{err} {}", done.describe()))
}

fn terminal(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "(tty && test -t 0 && test -t 2 && stty size && \
                  test -c /dev/console && echo console) > /out; echo end >> /out; sleep 1000";
    let bundle = rt.bundle(script, |c| {
        c["process"]["terminal"] = json!(true);
        c["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    })?;
    let id = rt.id("c");
    let (done, _master) = super::commands::with_console(rt, |socket| {
        rt.run(&[
            "create",
            "--bundle",
            &bundle,
            "--console-socket",
            socket,
            &id,
        ])
    })?;
    super::runtime::succeeded(done)?;
    super::runtime::succeeded(rt.run(&["start", &id]))?;
    let out = rt.in_root(&bundle, "out");
    let read = || std::fs::read_to_string(&out).unwrap_or_default();
    super::runtime::until("the end", || read().ends_with("end\n"))?;
    let said = read();
    let mut lines = said.lines();
    let tty = lines.next().unwrap_or_default();
    check(tty.starts_with("/dev/"), || said.clone())?;
    equal(&lines.collect::<Vec<_>>().join("|"), "33 77|console|end")
}

fn no_terminal(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output("tty; test -e /dev/console && echo console; true", |c| {
        c["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    })?;
    equal(&out, "not a tty")
}

fn rlimits(rt: &Runtime<'_>) -> Result<(), String> {
    let script =
        "grep -e 'open files' -e 'core file' -e 'cpu time' /proc/self/limits | busybox tr -s ' '";
    let out = rt.output(script, |c| {
        c["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 5},
            {"type": "RLIMIT_CPU", "soft": 300, "hard": 400},
        ]);
    })?;
    let mut lines: Vec<&str> = out.lines().map(str::trim).collect();
    lines.sort_unstable();
    equal(
        &lines.join("|"),
        "Max core file size 0 5 bytes|Max cpu time 300 400 seconds|Max open files 100 200 files",
    )
}

fn no_new_privileges(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "grep NoNewPrivs /proc/self/status";
    equal(
        &rt.output(script, |c| c["process"]["noNewPrivileges"] = json!(true))?,
        "NoNewPrivs:\t1",
    )?;
    equal(
        &rt.output(script, |c| remove(&mut c["process"], "noNewPrivileges"))?,
        "NoNewPrivs:\t0",
    )
}

fn capabilities(rt: &Runtime<'_>) -> Result<(), String> {
    // CAP_CHOWN is 0, CAP_KILL 5, CAP_SETGID 6, CAP_SETUID 7.
    let out = rt.output("grep Cap /proc/self/status", |c| {
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        c["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
            "permitted": ["CAP_KILL", "CAP_SETUID"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        });
    })?;
    let sets: Vec<String> = out
        .lines()
        .map(|line| line.replace('\t', "").replace("0000000", ""))
        .collect();
    equal(
        &sets.join(" "),
        "CapInh:20 CapPrm:20 CapEff:20 CapBnd:a1 CapAmb:20",
    )
}

fn no_capabilities(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "grep -e CapPrm -e CapEff -e CapBnd /proc/self/status";
    let out = rt.output(script, |c| remove(&mut c["process"], "capabilities"))?;
    check(
        !out.contains(|c: char| c.is_ascii_hexdigit() && c.is_ascii_digit() && c != '0'),
        || out.clone(),
    )
}

fn unknown_capability(rt: &Runtime<'_>) -> Result<(), String> {
    let log = rt.ctx.dir.join("log");
    let bundle = rt.bundle("echo ran", |c| {
        for set in ["bounding", "permitted", "effective"] {
            c["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_NO_SUCH"]);
        }
    })?;
    let log_name = log.to_string_lossy().into_owned();
    let done = rt.run(&["--log", &log_name, "run", "--bundle", &bundle, &rt.id("c")]);
    equal(&done.stdout, "ran\n").map_err(|err| format!("{err} {}", done.describe()))?;
    let logged = std::fs::read_to_string(&log).unwrap_or_default();
    check(logged.contains("CAP_NO_SUCH"), || {
        format!("no warning: {logged}")
    })
}

fn ambient(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output("touch /w/f; busybox chown 5:5 /w/f && busybox stat -c %u /w/f", |c| {
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let set = json!(["CAP_CHOWN"]);
        c["process"]["capabilities"] = json!({"bounding": set, "permitted": set, "effective": set,
            "inheritable": set, "ambient": set});
        super::config::add_mount(c, json!({"destination": "/w", "type": "tmpfs", "source": "t", "options": ["mode=777"]}));
    })?;
    equal(&out, "5")
}

fn labels(rt: &Runtime<'_>) -> Result<(), String> {
    // Unset and empty labels are those of every engine without modules.
    let out = rt.output("echo ran", |c| {
        c["process"]["apparmorProfile"] = json!("");
        c["process"]["selinuxLabel"] = json!("");
        c["linux"]["mountLabel"] = json!("");
    })?;
    equal(&out, "ran")
}

fn ids(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "id -u; id -g; grep Groups /proc/self/status";
    let out = rt.output(script, |c| {
        c["process"]["user"] = json!({"uid": 1000, "gid": 100, "additionalGids": [5, 77]});
    })?;
    let words: Vec<&str> = out.split_whitespace().collect();
    equal(&words.join(" "), "1000 100 Groups: 5 77")
}

fn files(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("echo > /tmp/made", |c| {
        c["process"]["user"] = json!({"uid": 1234, "gid": 567});
    })?;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let tmp = rt.in_root(&bundle, "tmp");
    std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o1777))
        .map_err(|err| err.to_string())?;
    super::runtime::succeeded(rt.run(&["run", "--bundle", &bundle, &rt.id("c")]))?;
    let meta = std::fs::metadata(tmp.join("made")).map_err(|err| err.to_string())?;
    equal(&format!("{}:{}", meta.uid(), meta.gid()), "1234:567")
}
