//! What a sandbox looks like from the host while a guest runs: users,
//! capabilities, seccomp, namespaces, open files, maps.

use std::io::Read;
use std::process::{Child, Stdio};

use super::bundle::{Ctx, check, tree};
use super::cli::Test;

pub const TESTS: &[(&str, Test)] = &[
    ("sentry_is_confined", sentry_is_confined),
    ("stubs_hold_nothing", stubs_hold_nothing),
    ("gofer_is_confined", gofer_is_confined),
    ("namespaces_are_own", namespaces_are_own),
    ("guest_sees_no_host_processes", guest_sees_no_host_processes),
    (
        "guest_cannot_reach_host_network",
        guest_cannot_reach_host_network,
    ),
    (
        "guest_env_has_no_host_secrets_by_proc",
        guest_env_has_no_host_secrets_by_proc,
    ),
    ("no_core_files", no_core_files),
];

struct Live {
    child: Child,
    sentry: u32,
    gofer: Vec<u32>,
    stubs: Vec<u32>,
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn status(pid: u32, key: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .find_map(|l| {
            l.strip_prefix(key)?
                .strip_prefix(':')
                .map(|v| v.trim().to_owned())
        })
        .unwrap_or_default()
}

fn live(ctx: &Ctx<'_>) -> Result<Live, String> {
    let mut c = ctx.runsc(&[
        "do",
        "--",
        "/bin/sh",
        "-c",
        "sleep 300 & echo ready; exec sleep 300",
    ]);
    c.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = c.spawn().map_err(|e| e.to_string())?;
    let mut buf = [0u8; 6];
    if let Err(e) = child
        .stdout
        .as_mut()
        .ok_or("no stdout")?
        .read_exact(&mut buf)
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("the guest did not start: {e}"));
    }
    let all = tree(child.id());
    let exe = |p: &u32| std::fs::read_link(format!("/proc/{p}/exe")).unwrap_or_default();
    let runsc = std::fs::canonicalize(&ctx.options.runsc).unwrap_or_default();
    let below: Vec<u32> = all.iter().skip(1).copied().collect();
    let unprivileged: Vec<u32> = below
        .iter()
        .copied()
        .filter(|p| !status(*p, "Uid").starts_with("0\t"))
        .collect();
    let sentry = unprivileged
        .first()
        .copied()
        .ok_or("no unprivileged process below runsc")?;
    let stubs: Vec<u32> = unprivileged.iter().skip(1).copied().collect();
    let gofer: Vec<u32> = below
        .iter()
        .copied()
        .filter(|p| exe(p) == runsc && *p != sentry && !unprivileged.contains(p))
        .collect();
    Ok(Live {
        child,
        sentry,
        gofer,
        stubs,
    })
}

fn sentry_is_confined(ctx: &Ctx<'_>) -> Result<(), String> {
    let l = live(ctx)?;
    for cap in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        check(status(l.sentry, cap) == "0000000000000000", || {
            format!("the sentry has {cap} {}", status(l.sentry, cap))
        })?;
    }
    check(status(l.sentry, "Seccomp") == "2", || {
        format!("seccomp mode {}", status(l.sentry, "Seccomp"))
    })?;
    check(status(l.sentry, "NoNewPrivs") == "1", || {
        "no_new_privs is off".into()
    })?;
    // Its root is empty.
    let entries: Vec<String> = std::fs::read_dir(format!("/proc/{}/root", l.sentry))
        .map(|d| {
            d.flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    check(entries.is_empty(), || {
        format!("the sentry's root holds {entries:?}")
    })?;
    // No descriptor of a host directory: only regular files are donated.
    for entry in std::fs::read_dir(format!("/proc/{}/fd", l.sentry))
        .into_iter()
        .flatten()
        .flatten()
    {
        let meta = std::fs::metadata(entry.path());
        let link = std::fs::read_link(entry.path()).unwrap_or_default();
        let is_dir = meta.as_ref().is_ok_and(std::fs::Metadata::is_dir);
        let proc = link.starts_with("/proc");
        check(!is_dir || proc, || {
            format!("the sentry holds directory {}", link.display())
        })?;
    }
    // Every thread is under the filter.
    for task in std::fs::read_dir(format!("/proc/{}/task", l.sentry))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        check(text.contains("\nSeccomp:\t2\n"), || {
            format!("thread {:?} has no filter", task.file_name())
        })?;
    }
    Ok(())
}

fn stubs_hold_nothing(ctx: &Ctx<'_>) -> Result<(), String> {
    let l = live(ctx)?;
    let mut looked_at = 0;
    for stub in &l.stubs {
        match stub_holds_nothing(ctx, *stub) {
            // Spare stubs come and go, also between two looks.
            Err(_) if has_ended(*stub) => {}
            looked => {
                looked?;
                looked_at += 1;
            }
        }
    }
    check(looked_at > 0, || "no stubs found".into())
}

fn has_ended(pid: u32) -> bool {
    let state = status(pid, "State");
    state.is_empty() || state.starts_with('Z')
}

fn stub_holds_nothing(ctx: &Ctx<'_>, stub: u32) -> Result<(), String> {
    for cap in ["CapPrm", "CapEff"] {
        check(status(stub, cap) == "0000000000000000", || {
            format!("stub {stub} has {cap} {}", status(stub, cap))
        })?;
    }
    check(status(stub, "NoNewPrivs") == "1", || {
        format!("stub {stub} may gain privileges")
    })?;
    if ctx.platform == "systrap" {
        check(status(stub, "Seccomp") == "2", || {
            format!("stub {stub} has seccomp mode {}", status(stub, "Seccomp"))
        })?;
    }
    let fds: Vec<String> = std::fs::read_dir(format!("/proc/{stub}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    for fd in &fds {
        let harmless = fd.starts_with("socket:")
            || fd.starts_with("/memfd:")
            || fd.starts_with("anon_inode:")
            || fd.starts_with("pipe:");
        check(harmless, || format!("stub {stub} holds {fds:?}"))?;
    }
    // Nothing of the runtime is mapped.
    let maps = std::fs::read_to_string(format!("/proc/{stub}/maps")).unwrap_or_default();
    check(!maps.contains("/runsc"), || {
        format!("stub {stub} maps the runtime:\n{maps}")
    })?;
    check(!maps.contains("[heap]"), || {
        format!("stub {stub} has a heap of its own:\n{maps}")
    })?;
    // Not writable and executable at once.
    for line in maps.lines() {
        check(!line.contains(" rwx"), || format!("stub {stub}: {line}"))?;
    }
    Ok(())
}

fn gofer_is_confined(ctx: &Ctx<'_>) -> Result<(), String> {
    let l = live(ctx)?;
    check(!l.gofer.is_empty(), || "no gofer found".into())?;
    for gofer in &l.gofer {
        check(status(*gofer, "Seccomp") == "2", || {
            format!(
                "gofer {gofer} has seccomp mode {}",
                status(*gofer, "Seccomp")
            )
        })?;
        check(status(*gofer, "NoNewPrivs") == "1", || {
            "the gofer may gain privileges".into()
        })?;
        let caps = u64::from_str_radix(&status(*gofer, "CapEff"), 16).unwrap_or(u64::MAX);
        // chown, dac_override, dac_read_search, fowner, fsetid, setuid, setgid,
        // sys_chroot, mknod, setfcap at most.
        let allowed: u64 = [0u32, 1, 2, 3, 4, 6, 7, 18, 27, 31]
            .iter()
            .map(|b| 1u64 << b)
            .sum();
        check(caps & !allowed == 0, || {
            format!("the gofer has capabilities {caps:x}")
        })?;
    }
    Ok(())
}

fn namespaces_are_own(ctx: &Ctx<'_>) -> Result<(), String> {
    let l = live(ctx)?;
    let ns = |pid: u32, kind: &str| {
        std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default()
    };
    let me = std::process::id();
    for kind in ["user", "mnt", "net", "pid", "ipc", "uts"] {
        check(ns(l.sentry, kind) != ns(me, kind), || {
            format!("the sentry shares the host's {kind} namespace")
        })?;
        for stub in &l.stubs {
            check(ns(*stub, kind) != ns(me, kind), || {
                format!("stub {stub} shares the host's {kind} namespace")
            })?;
        }
    }
    Ok(())
}

fn guest_sees_no_host_processes(ctx: &Ctx<'_>) -> Result<(), String> {
    let done =
        ctx.sh("ls /proc | grep -c '^[0-9]'; kill -0 1 && cat /proc/1/cmdline | tr '\\0' ' '");
    let n: u32 = done
        .stdout
        .lines()
        .next()
        .and_then(|l| l.parse().ok())
        .unwrap_or(999);
    check(done.ok() && n < 6, || done.describe())?;
    check(
        !done.stdout.contains("runsc") && !done.stdout.contains("systemd"),
        || done.stdout.clone(),
    )
}

fn guest_cannot_reach_host_network(ctx: &Ctx<'_>) -> Result<(), String> {
    let l = std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let port = l.local_addr().map_err(|e| e.to_string())?.port();
    let script = format!(
        "import socket; s = socket.socket(); s.settimeout(3); s.connect(('127.0.0.1', {port}))"
    );
    let done = ctx.run(&["do", "--", "/usr/bin/python3", "-c", &script]);
    check(
        done.code() == Some(1) && done.stderr.contains("refused"),
        || format!("the host's loopback answers: {}", done.describe()),
    )?;
    let script = "import socket; s = socket.socket(socket.AF_UNIX)\ntry: s.connect('\\0/tmp/.X11-unix/X0'); print('connected')\nexcept OSError as e: print(e.errno)";
    let done = ctx.run(&["do", "--", "/usr/bin/python3", "-c", script]);
    check(done.stdout == "111\n", || done.describe())
}

fn guest_env_has_no_host_secrets_by_proc(ctx: &Ctx<'_>) -> Result<(), String> {
    // /proc of the sandbox shows the guest's environment only.
    let done = ctx.sh("cat /proc/*/environ | tr '\\0' '\\n' | grep -c RUNSC_INTERNAL; cat /proc/keys /proc/kallsyms 2>/dev/null | grep -c ' T '");
    check(done.stdout.lines().next() == Some("0"), || done.describe())
}

fn no_core_files(ctx: &Ctx<'_>) -> Result<(), String> {
    let guest = ctx.options.guest.to_string_lossy().into_owned();
    let done = ctx.sh(&format!("ulimit -c unlimited; exec {guest} crash"));
    check(done.code() == Some(139), || done.describe())?;
    let left: Vec<String> = std::fs::read_dir(&ctx.dir)
        .map(|d| {
            d.flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .filter(|n| n.starts_with("core"))
                .collect()
        })
        .unwrap_or_default();
    check(left.is_empty(), || format!("{left:?} on the host"))
}
