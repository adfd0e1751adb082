//! What engines call beside the operations of the specification: `exec`,
//! `list`, `ps`, `events`, `update`, error records. `runc` defines it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use serde_json::{Value, json};

use super::runtime::{Runtime, check, equal, failed, succeeded, until};
use super::{Case, case};
use crate::runner::command::Done;

pub const CASES: &[Case] = &[
    case(
        "commands/errors/state",
        "state of an unknown id: status 1, \"does not exist\"",
        |rt| message(&rt.run(&["state", &rt.id("x")]), "does not exist"),
    ),
    case(
        "commands/errors/delete",
        "delete of an unknown id: status 1, \"does not exist\"",
        |rt| message(&rt.run(&["delete", &rt.id("x")]), "does not exist"),
    ),
    case(
        "commands/errors/delete_force",
        "delete --force of an unknown id is no error",
        |rt| succeeded(rt.run(&["delete", "--force", &rt.id("x")])).map(|_| ()),
    ),
    case(
        "commands/errors/kill_stopped",
        "kill of a stopped container: status 1, \"not running\"",
        |rt| {
            let id = stopped(rt)?;
            message(&rt.run(&["kill", &id, "KILL"]), "not running")
        },
    ),
    case(
        "commands/errors/exec_stopped",
        "exec in a stopped container is an error",
        |rt| {
            let id = stopped(rt)?;
            failed(&rt.run(&["exec", &id, "true"]))
        },
    ),
    case(
        "commands/errors/exec_unknown",
        "exec in an unknown container is an error",
        |rt| failed(&rt.run(&["exec", &rt.id("x"), "true"])),
    ),
    case(
        "commands/errors/bad_id",
        "ids with strange characters: status 1",
        |rt| {
            let bundle = rt.bundle("true", |_| ())?;
            for id in ["a/b", "a b", "..", "a*", "a:b", "é"] {
                for command in ["state", "delete", "start", "kill", "pause", "ps"] {
                    let done = rt.run(&[command, id]);
                    check(done.code() == Some(1), || {
                        format!("{command} {id:?}: {}", done.describe())
                    })?;
                }
                let done = rt.create(id, &bundle);
                check(done.code() == Some(1), || {
                    format!("create {id:?}: {}", done.describe())
                })?;
            }
            Ok(())
        },
    ),
    case(
        "commands/errors/exists",
        "create of an id in use: status 1, \"already exists\"",
        |rt| {
            let id = sleeping(rt)?;
            let bundle = rt.bundle("true", |_| ())?;
            message(&rt.create(&id, &bundle), "already exists")
        },
    ),
    case(
        "commands/errors/pause_stopped",
        "pause and resume of what does not run are errors",
        |rt| {
            let id = stopped(rt)?;
            failed(&rt.run(&["pause", &id]))?;
            failed(&rt.run(&["resume", &id]))
        },
    ),
    case(
        "commands/log/json",
        "--log-format json writes a record of the error that is printed",
        log_json,
    ),
    case(
        "commands/log/text",
        "--log writes a line of the error that is printed",
        log_text,
    ),
    case(
        "commands/log/program",
        "a program that is not there is named in the record",
        log_program,
    ),
    case("commands/list/quiet", "list -q prints ids", |rt| {
        let id = sleeping(rt)?;
        equal(
            &succeeded(rt.run(&["list", "-q"]))?.stdout,
            &format!("{id}\n"),
        )
    }),
    case(
        "commands/list/json",
        "list -f json prints states",
        list_json,
    ),
    case("commands/list/table", "list prints a table", |rt| {
        let id = sleeping(rt)?;
        let out = succeeded(rt.run(&["list"]))?.stdout;
        let words = |line: Option<&str>| {
            line.unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut lines = out.lines();
        equal(
            &words(lines.next()).join(" "),
            "ID PID STATUS BUNDLE CREATED OWNER",
        )?;
        let row = words(lines.next());
        check(
            row.first() == Some(&id)
                && row.get(2).map(String::as_str) == Some("running")
                && row.len() == 6,
            || out.clone(),
        )
    }),
    case(
        "commands/ps/json",
        "ps -f json prints pids, the state's among them",
        |rt| {
            let id = sleeping(rt)?;
            let out = succeeded(rt.run(&["ps", "-f", "json", &id]))?.stdout;
            let pids: Vec<i64> =
                serde_json::from_str(&out).map_err(|err| format!("{err}: {out}"))?;
            let pid = rt.pid(&id)?;
            check(pids.contains(&pid), || format!("{pid}: {out}"))
        },
    ),
    case(
        "commands/ps/table",
        "ps prints the container's processes",
        |rt| {
            let id = sleeping(rt)?;
            until("sleep", || rt.run(&["ps", &id]).stdout.contains("sleep"))
        },
    ),
    case(
        "commands/events/stats",
        "events --stats prints one object with cpu, memory and pids",
        stats,
    ),
    case(
        "commands/update/stdin",
        "update -r - takes resources from stdin",
        update_stdin,
    ),
    case(
        "commands/update/flags",
        "update --memory and --pids-limit act",
        update_flags,
    ),
    case(
        "commands/update/unknown",
        "update of an unknown container is an error",
        |rt| failed(&rt.run(&["update", "--memory", "100m", &rt.id("x")])),
    ),
    case(
        "commands/pause",
        "pause and resume change the status",
        pause,
    ),
    case(
        "commands/exec/status",
        "exec ends with the program's status",
        |rt| {
            let id = sleeping(rt)?;
            let done = rt.run(&[
                "exec",
                &id,
                "/bin/sh",
                "-c",
                "echo out; echo err >&2; exit 42",
            ]);
            check(
                done.code() == Some(42) && done.stdout == "out\n" && done.stderr == "err\n",
                || done.describe(),
            )
        },
    ),
    case(
        "commands/exec/signal",
        "exec of a program ended by a signal is 128 and the signal",
        |rt| {
            let id = sleeping(rt)?;
            let done = rt.run(&["exec", &id, "/bin/sh", "-c", "kill -9 $$"]);
            check(done.code() == Some(137), || done.describe())
        },
    ),
    case(
        "commands/exec/missing",
        "exec of a program that is not there is an error that names it",
        |rt| {
            let id = sleeping(rt)?;
            let done = rt.run(&["exec", &id, "/no/such/program"]);
            failed(&done)?;
            check(done.stderr.contains("/no/such/program"), || done.describe())
        },
    ),
    case(
        "commands/exec/flags",
        "--cwd, --env, --user and --additional-gids are the process's",
        exec_flags,
    ),
    case("commands/exec/cap", "--cap adds a capability", |rt| {
        let id = sleeping(rt)?;
        let done = rt.run(&[
            "exec",
            "--cap",
            "CAP_SYS_PTRACE",
            &id,
            "grep",
            "-e",
            "CapEff",
            "-e",
            "CapBnd",
            "/proc/self/status",
        ]);
        let masks: Vec<u64> = done
            .stdout
            .lines()
            .filter_map(|line| u64::from_str_radix(line.rsplit('\t').next()?, 16).ok())
            .collect();
        check(
            masks.len() == 2 && masks.iter().all(|mask| mask & (1 << 19) != 0),
            || done.describe(),
        )
    }),
    case(
        "commands/exec/process",
        "--process takes each field of the process",
        exec_process,
    ),
    case(
        "commands/exec/process_defaults",
        "--process without capabilities and limits has the container's",
        exec_process_defaults,
    ),
    case(
        "commands/exec/detach",
        "--detach with --pid-file leaves a host process that can be signalled",
        exec_detach,
    ),
    case(
        "commands/exec/console",
        "--tty with --console-socket gives the process a terminal",
        exec_console,
    ),
    case(
        "commands/exec/preserve_fds",
        "--preserve-fds passes descriptors on",
        |rt| {
            let id = sleeping(rt)?;
            let done = shell(
                rt,
                "3< /dev/zero 4< /etc/hostname",
                &[
                    "exec",
                    "--preserve-fds",
                    "2",
                    &id,
                    "/bin/sh",
                    "-c",
                    "head -c 2 <&3 | wc -c; wc -l <&4",
                ],
            );
            equal(&succeeded(done)?.stdout, "2\n1\n")
        },
    ),
    case(
        "commands/exec/no_fds",
        "without --preserve-fds descriptors stay out",
        |rt| {
            let id = sleeping(rt)?;
            let done = shell(
                rt,
                "5< /dev/zero",
                &[
                    "exec",
                    &id,
                    "/bin/sh",
                    "-c",
                    "test -e /proc/self/fd/5 || echo none",
                ],
            );
            equal(&succeeded(done)?.stdout, "none\n")
        },
    ),
    case(
        "commands/run/preserve_fds",
        "run --preserve-fds passes descriptors on",
        |rt| {
            let bundle = rt.bundle("wc -l <&3", |_| ())?;
            let done = shell(
                rt,
                "3< /etc/hostname",
                &[
                    "run",
                    "--preserve-fds",
                    "1",
                    "--bundle",
                    &bundle,
                    &rt.id("c"),
                ],
            );
            equal(&succeeded(done)?.stdout, "1\n")
        },
    ),
    case(
        "commands/run/preserve_fds_closed",
        "--preserve-fds of a closed descriptor is an error",
        |rt| {
            let bundle = rt.bundle("true", |_| ())?;
            let done = shell(
                rt,
                "3<&-",
                &[
                    "run",
                    "--preserve-fds",
                    "1",
                    "--bundle",
                    &bundle,
                    &rt.id("c"),
                ],
            );
            failed(&done)
        },
    ),
    case(
        "commands/run/listen_fds",
        "LISTEN_FDS passes descriptors of a service manager on",
        |rt| {
            let bundle = rt.bundle("echo $LISTEN_FDS $LISTEN_PID; wc -l <&3", |_| ())?;
            let mut command = rt.command(&["run", "--bundle", &bundle, &rt.id("c")]);
            command.env("LISTEN_FDS", "1");
            let done = rt.finish(&mut redirected(&command, "3< /etc/hostname"));
            equal(&succeeded(done)?.stdout, "1 1\n1\n")
        },
    ),
    case(
        "commands/run/detach",
        "run --detach leaves a running container",
        |rt| {
            let bundle = rt.bundle("sleep 1000", |_| ())?;
            let (id, file) = (rt.id("c"), rt.ctx.dir.join("pid"));
            let name = file.to_string_lossy().into_owned();
            succeeded(rt.run(&[
                "run",
                "--detach",
                "--pid-file",
                &name,
                "--bundle",
                &bundle,
                &id,
            ]))?;
            equal(&rt.status(&id)?, "running")?;
            equal(
                &fs::read_to_string(file).unwrap_or_default(),
                &rt.pid(&id)?.to_string(),
            )
        },
    ),
    case(
        "commands/run/keep",
        "run --keep leaves a stopped container",
        |rt| {
            let bundle = rt.bundle("exit 3", |_| ())?;
            let id = rt.id("c");
            let done = rt.run(&["run", "--keep", "--bundle", &bundle, &id]);
            check(done.code() == Some(3), || done.describe())?;
            equal(&rt.status(&id)?, "stopped")
        },
    ),
    case("commands/run/no_keep", "run leaves nothing", |rt| {
        let bundle = rt.bundle("exit 3", |_| ())?;
        let id = rt.id("c");
        let done = rt.run(&["run", "--bundle", &bundle, &id]);
        check(done.code() == Some(3), || done.describe())?;
        failed(&rt.run(&["state", &id]))
    }),
    case(
        "commands/run/no_pivot",
        "--no-pivot and --no-new-keyring are accepted",
        |rt| {
            let bundle = rt.bundle("echo ran", |_| ())?;
            let done = rt.run(&[
                "run",
                "--no-pivot",
                "--no-new-keyring",
                "--bundle",
                &bundle,
                &rt.id("c"),
            ]);
            equal(&succeeded(done)?.stdout, "ran\n")
        },
    ),
    case(
        "commands/kill/all",
        "kill --all reaches all processes",
        kill_all,
    ),
    case(
        "commands/delete/force",
        "delete --force ends a running container",
        |rt| {
            let id = sleeping(rt)?;
            let pid = rt.pid(&id)?;
            succeeded(rt.run(&["delete", "--force", &id]))?;
            failed(&rt.run(&["state", &id]))?;
            until("its end", || {
                !std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists()
            })
        },
    ),
    case(
        "commands/create/console",
        "a terminal without --console-socket is an error",
        |rt| {
            rt.refuses(|c| c["process"]["terminal"] = json!(true))
                .map(|_| ())
        },
    ),
    case(
        "commands/create/pid_file",
        "--pid-file holds the state's pid",
        |rt| {
            let bundle = rt.bundle("sleep 1000", |_| ())?;
            let (id, file) = (rt.id("c"), rt.ctx.dir.join("pid"));
            let name = file.to_string_lossy().into_owned();
            succeeded(rt.run(&["create", "--pid-file", &name, "--bundle", &bundle, &id]))?;
            equal(
                &fs::read_to_string(file).unwrap_or_default(),
                &rt.pid(&id)?.to_string(),
            )
        },
    ),
    case("commands/spec", "spec writes a config.json that runs", spec),
];

/// Status 1 and these words.
fn message(done: &Done, words: &str) -> Result<(), String> {
    check(
        done.code() == Some(1) && done.stderr.contains(words),
        || done.describe(),
    )
}

fn sleeping(rt: &Runtime<'_>) -> Result<String, String> {
    let bundle = rt.bundle("exec sleep 1000", |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    Ok(id)
}

fn stopped(rt: &Runtime<'_>) -> Result<String, String> {
    let bundle = rt.bundle("true", |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    rt.wait_status(&id, "stopped")?;
    Ok(id)
}

/// A command by way of a shell that opens descriptors for it.
fn redirected(command: &Command, redirections: &str) -> Command {
    let mut shell = Command::new("/bin/bash");
    shell
        .arg("-c")
        .arg(format!("export LISTEN_PID=$$; exec \"$@\" {redirections}"))
        .arg("bash");
    shell.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(key, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell
}

fn shell(rt: &Runtime<'_>, redirections: &str, args: &[&str]) -> Done {
    rt.finish(&mut redirected(&rt.command(args), redirections))
}

/// Runs `create` with the path of a console socket; answers the master that
/// came over it.
pub fn with_console(
    rt: &Runtime<'_>,
    create: impl FnOnce(&str) -> Done,
) -> Result<(Done, File), String> {
    // Paths of sockets are short.
    let path = std::env::temp_dir().join(format!("{}.sock", rt.id("console")));
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(|err| err.to_string())?;
    let received = std::thread::spawn(move || -> Result<File, String> {
        let (stream, _) = listener.accept().map_err(|err| err.to_string())?;
        receive(&stream)
    });
    let done = create(&path.to_string_lossy());
    if !done.ok() {
        // Nobody will come any more.
        let _ = UnixStream::connect(&path);
        let _ = fs::remove_file(&path);
        return Err(done.describe());
    }
    let master = received.join().map_err(|_| "a thread panicked")?;
    let _ = fs::remove_file(&path);
    Ok((done, master?))
}

fn receive(stream: &UnixStream) -> Result<File, String> {
    let mut data = [0u8; 256];
    let mut vector = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    let mut control = [0u64; 8];
    // SAFETY: all zeros is a valid value of this plain C struct.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header names buffers that live until the call returns.
    let len = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    check(len > 0, || "no message with the terminal".into())?;
    // SAFETY: the kernel has filled the control buffer.
    let message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    check(!message.is_null(), || "no terminal in the message".into())?;
    // SAFETY: a message of rights holds at least one descriptor, now ours.
    let fd =
        unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(message).cast::<i32>().read_unaligned()) };
    Ok(File::from(fd))
}

fn log_json(rt: &Runtime<'_>) -> Result<(), String> {
    let log = rt.ctx.dir.join("log.json");
    let name = log.to_string_lossy().into_owned();
    let bundle = rt.bundle("true", |c| c["root"]["path"] = json!("nothing"))?;
    let done = rt.run(&[
        "--log",
        &name,
        "--log-format",
        "json",
        "create",
        "--bundle",
        &bundle,
        &rt.id("c"),
    ]);
    failed(&done)?;
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().last().unwrap_or_default();
    let record: Value = serde_json::from_str(last).map_err(|err| format!("{err}: {text}"))?;
    check(
        record["level"] == "error" && record["time"].is_string(),
        || text.clone(),
    )?;
    let message = record["msg"].as_str().unwrap_or_default();
    // runc prints its record's text with quotes escaped.
    let printed = done.stderr.replace("\\\"", "\"");
    check(!message.is_empty() && printed.contains(message), || {
        format!("logged {message:?}, printed {}", done.stderr)
    })
}

fn log_text(rt: &Runtime<'_>) -> Result<(), String> {
    let log = rt.ctx.dir.join("log.text");
    let name = log.to_string_lossy().into_owned();
    failed(&rt.run(&["--log", &name, "state", &rt.id("x")]))?;
    let text = fs::read_to_string(log).unwrap_or_default();
    check(
        text.contains("level=error") && text.contains("does not exist"),
        || text.clone(),
    )
}

fn log_program(rt: &Runtime<'_>) -> Result<(), String> {
    let log = rt.ctx.dir.join("log.json");
    let name = log.to_string_lossy().into_owned();
    let bundle = rt.bundle("true", |c| {
        c["process"]["args"] = json!(["no-such-program"])
    })?;
    let done = rt.run(&[
        "--log",
        &name,
        "--log-format",
        "json",
        "create",
        "--bundle",
        &bundle,
        &rt.id("c"),
    ]);
    failed(&done)?;
    let text = fs::read_to_string(log).unwrap_or_default();
    // Engines tell "not found" from other errors by these words.
    check(
        text.contains("no-such-program") && text.contains("executable file not found"),
        || text.clone(),
    )
}

fn list_json(rt: &Runtime<'_>) -> Result<(), String> {
    let id = sleeping(rt)?;
    let out = succeeded(rt.run(&["list", "-f", "json"]))?.stdout;
    let list: Value = serde_json::from_str(&out).map_err(|err| format!("{err}: {out}"))?;
    let item = &list[0];
    check(
        item["id"] == id.as_str() && item["status"] == "running",
        || out.clone(),
    )?;
    check(item["pid"] == rt.pid(&id)?, || out.clone())?;
    for key in ["ociVersion", "bundle", "rootfs", "created", "owner"] {
        check(item[key].is_string(), || format!("no {key}: {out}"))?;
    }
    Ok(())
}

fn stats(rt: &Runtime<'_>) -> Result<(), String> {
    let id = sleeping(rt)?;
    let out = succeeded(rt.run(&["events", "--stats", &id]))?.stdout;
    let event: Value = serde_json::from_str(&out).map_err(|err| format!("{err}: {out}"))?;
    check(
        event["type"] == "stats" && event["id"] == id.as_str(),
        || out.clone(),
    )?;
    let data = &event["data"];
    for number in [
        &data["cpu"]["usage"]["total"],
        &data["memory"]["usage"]["usage"],
        &data["pids"]["current"],
    ] {
        check(number.as_u64().is_some_and(|number| number > 0), || {
            out.clone()
        })?;
    }
    Ok(())
}

fn memory_limit(path: &str) -> Option<String> {
    super::lifecycle::cgroups(path).into_iter().find_map(|dir| {
        ["memory.limit_in_bytes", "memory.max"]
            .into_iter()
            .find_map(|file| {
                let text = fs::read_to_string(format!("{dir}/{file}")).ok()?;
                Some(text.trim().to_owned())
            })
    })
}

fn update_stdin(rt: &Runtime<'_>) -> Result<(), String> {
    let path = format!("/{}", rt.id("group"));
    let bundle = rt.bundle("sleep 1000", |c| c["linux"]["cgroupsPath"] = json!(path))?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let file = rt.ctx.dir.join("resources");
    fs::write(&file, json!({"memory": {"limit": 134_217_728}}).to_string())
        .map_err(|err| err.to_string())?;
    let mut command = redirected(
        &rt.command(&["update", "-r", "-", &id]),
        &format!("< {}", file.display()),
    );
    succeeded(rt.finish(&mut command))?;
    equal(&memory_limit(&path).unwrap_or_default(), "134217728")
}

fn update_flags(rt: &Runtime<'_>) -> Result<(), String> {
    let path = format!("/{}", rt.id("group"));
    let bundle = rt.bundle("sleep 1000", |c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = json!({"memory": {"limit": 268_435_456}});
    })?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    succeeded(rt.run(&[
        "update",
        "--memory",
        "134217728",
        "--pids-limit",
        "500",
        "--cpu-quota",
        "20000",
        "--cpu-period",
        "100000",
        &id,
    ]))?;
    equal(&memory_limit(&path).unwrap_or_default(), "134217728")
}

fn pause(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("while :; do echo x >> /ticks; sleep 0.01; done", |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    rt.wait_for(&bundle, "ticks")?;
    succeeded(rt.run(&["pause", &id]))?;
    equal(&rt.status(&id)?, "paused")?;
    let len = || fs::metadata(rt.in_root(&bundle, "ticks")).map_or(0, |meta| meta.len());
    let before = len();
    std::thread::sleep(std::time::Duration::from_millis(100));
    check(len() == before, || "it goes on".into())?;
    failed(&rt.run(&["pause", &id]))?;
    succeeded(rt.run(&["resume", &id]))?;
    equal(&rt.status(&id)?, "running")?;
    until("ticks", || len() > before)
}

fn exec_flags(rt: &Runtime<'_>) -> Result<(), String> {
    let id = sleeping(rt)?;
    let done = rt.run(&[
        "exec",
        "--cwd",
        "/tmp",
        "--env",
        "A=b c",
        "--user",
        "1000:100",
        "--additional-gids",
        "7",
        &id,
        "/bin/sh",
        "-c",
        "pwd; echo $A; id -u; id -g; grep Groups /proc/self/status",
    ]);
    let words: Vec<&str> = done.stdout.split_whitespace().collect();
    equal(&words.join(" "), "/tmp b c 1000 100 Groups: 7")
        .map_err(|err| format!("{err} {}", done.describe()))
}

fn exec_with(rt: &Runtime<'_>, id: &str, process: Value) -> Result<Done, String> {
    let file = rt.ctx.dir.join("process.json");
    fs::write(&file, process.to_string()).map_err(|err| err.to_string())?;
    Ok(rt.run(&["exec", "--process", &file.to_string_lossy(), id]))
}

fn exec_process(rt: &Runtime<'_>) -> Result<(), String> {
    let id = sleeping(rt)?;
    let script = "pwd; echo $ONLY; id -u; id -g; umask; grep -e Groups -e CapEff -e NoNewPrivs /proc/self/status; \
                  cat /proc/self/oom_score_adj; grep 'open files' /proc/self/limits; \
                  echo $ENV_OF_CONTAINER end";
    let done = exec_with(
        rt,
        &id,
        json!({
            "terminal": false,
            "consoleSize": {"height": 3, "width": 4},
            "user": {"uid": 0, "gid": 100, "umask": 0o77, "additionalGids": [7]},
            "args": ["/bin/sh", "-c", script],
            "env": ["ONLY=this", "PATH=/bin"],
            "cwd": "/tmp",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66}],
            "noNewPrivileges": false,
            "oomScoreAdj": 321,
        }),
    )?;
    let words: Vec<&str> = done.stdout.split_whitespace().collect();
    equal(
        &words.join(" "),
        "/tmp this 0 100 0077 Groups: 7 CapEff: 0000000000000020 NoNewPrivs: 0 321 Max open files 55 66 files end",
    )
    .map_err(|err| format!("{err} {}", done.describe()))
}

fn exec_process_defaults(rt: &Runtime<'_>) -> Result<(), String> {
    let id = sleeping(rt)?;
    let script = "id -u; umask; grep CapEff /proc/self/status; grep 'open files' /proc/self/limits";
    let done = exec_with(
        rt,
        &id,
        json!({
            "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
        }),
    )?;
    let words: Vec<&str> = done.stdout.split_whitespace().collect();
    // The limits of the container hold, its capabilities don't.
    equal(
        &words.join(" "),
        "0 0022 CapEff: 0000000000000000 Max open files 1024 1024 files",
    )
    .or_else(|_| {
        equal(
            &words.join(" "),
            "0 0022 CapEff: 00000000000000e3 Max open files 1024 1024 files",
        )
    })
    .map_err(|err| format!("{err} {}", done.describe()))
}

fn exec_detach(rt: &Runtime<'_>) -> Result<(), String> {
    let id = sleeping(rt)?;
    let file = rt.ctx.dir.join("pid");
    let name = file.to_string_lossy().into_owned();
    succeeded(rt.run(&[
        "exec",
        "--detach",
        "--pid-file",
        &name,
        &id,
        "/bin/sh",
        "-c",
        "trap 'echo got > /tmp/got; exit' TERM; echo up > /tmp/up; while :; do sleep 0.02; done",
    ]))?;
    let pid: i32 = fs::read_to_string(file)
        .unwrap_or_default()
        .parse()
        .map_err(|err| format!("{err}"))?;
    check(i64::from(pid) != rt.pid(&id)?, || {
        "not a process of its own".into()
    })?;
    let says = |file: &str| rt.run(&["exec", &id, "cat", file]).stdout;
    until("it is up", || says("/tmp/up") == "up\n")?;
    // SAFETY: kill takes plain integers.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    until("the signal", || says("/tmp/got") == "got\n")
}

fn exec_console(rt: &Runtime<'_>) -> Result<(), String> {
    let id = sleeping(rt)?;
    let (done, mut master) = with_console(rt, |socket| {
        rt.run(&[
            "exec",
            "--tty",
            "--detach",
            "--console-socket",
            socket,
            &id,
            "/bin/sh",
            "-c",
            "test -t 0 && test -t 1 && echo terminal; sleep 1",
        ])
    })?;
    succeeded(done)?;
    let mut said = [0; 64];
    let len = master.read(&mut said).map_err(|err| err.to_string())?;
    let said = String::from_utf8_lossy(said.get(..len).unwrap_or_default()).into_owned();
    check(said.starts_with("terminal"), || said.clone())?;
    // The other end may be gone.
    let _ = master.write(b"\n");
    Ok(())
}

fn kill_all(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "sh -c 'trap \"echo child >> /got\" USR1; echo up > /up; while :; do sleep 0.02; done' & \
                  trap 'echo first >> /got' USR1; while :; do sleep 0.02; done";
    let bundle = rt.bundle(script, |_| ())?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    rt.wait_for(&bundle, "up")?;
    succeeded(rt.run(&["kill", "--all", &id, "USR1"]))?;
    let got = rt.in_root(&bundle, "got");
    until("both", || {
        let text = fs::read_to_string(&got).unwrap_or_default();
        text.contains("first") && text.contains("child")
    })?;
    succeeded(rt.run(&["kill", "--all", &id, "KILL"]))?;
    rt.wait_status(&id, "stopped")
}

fn spec(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("true", |_| ())?;
    let path = std::path::Path::new(&bundle).join("config.json");
    fs::remove_file(&path).map_err(|err| err.to_string())?;
    succeeded(rt.run(&["spec", "--bundle", &bundle]))?;
    failed(&rt.run(&["spec", "--bundle", &bundle]))?;
    let text = fs::read_to_string(&path).map_err(|err| err.to_string())?;
    let mut config: Value = serde_json::from_str(&text).map_err(|err| err.to_string())?;
    config["process"]["args"] = json!(["/bin/echo", "ran"]);
    config["process"]["terminal"] = json!(false);
    fs::write(&path, config.to_string()).map_err(|err| err.to_string())?;
    let done = rt.run(&["run", "--bundle", &bundle, &rt.id("c")]);
    equal(&succeeded(done)?.stdout, "ran\n")
}
