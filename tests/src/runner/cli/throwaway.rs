//! `runsc do`: programs on the files of this machine.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use crate::runner::bundle::{Ctx, check, expect, refused};
use crate::runner::command;

pub(super) fn do_exit_codes(ctx: &Ctx<'_>) -> Result<(), String> {
    for code in [0, 1, 7, 255] {
        expect(&ctx.sh(&format!("exit {code}")), code, "")?;
    }
    // The first process takes no signal from its own sandbox but faults.
    expect(&ctx.sh("kill -9 $$; echo alive"), 0, "alive\n")?;
    let guest = ctx.options.guest.to_string_lossy().into_owned();
    expect(&ctx.run(&["do", "--", &guest, "crash"]), 139, "")?;
    ctx.nothing_left()
}

/// Commands clean up behind others that were killed, and not behind those that
/// are about to read how their program has ended.
pub(super) fn do_short_programs_at_once(ctx: &Ctx<'_>) -> Result<(), String> {
    let one = || -> Result<(), String> {
        for _ in 0..6 {
            let done = ctx.run(&["do", "--", "/bin/false"]);
            check(done.code() == Some(1) && done.stderr.is_empty(), || {
                done.describe()
            })?;
        }
        Ok(())
    };
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        let outcomes = threads.into_iter().map(|thread| thread.join());
        outcomes.collect::<Vec<_>>()
    });
    for outcome in outcomes {
        outcome.map_err(|_| "a thread has panicked".to_owned())??;
    }
    ctx.nothing_left()
}

pub(super) fn do_missing_program(ctx: &Ctx<'_>) -> Result<(), String> {
    let done = ctx.run(&["do", "--", "/no/such/program"]);
    // The runtime's own code or the shell's.
    check(
        matches!(done.code(), Some(1 | 127)) && done.stderr.contains("/no/such/program"),
        || done.describe(),
    )?;
    let done = ctx.run(&["do", "--", "no-such-program-in-path"]);
    check(
        matches!(done.code(), Some(1 | 127)) && done.stderr.contains("no-such-program-in-path"),
        || done.describe(),
    )?;
    let done = ctx.run(&["do", "--", "/etc/passwd"]);
    check(
        matches!(done.code(), Some(1 | 126)) && done.stderr.contains("/etc/passwd"),
        || done.describe(),
    )?;
    ctx.nothing_left()
}

pub(super) fn do_stdin_and_pipes(ctx: &Ctx<'_>) -> Result<(), String> {
    let mut c = ctx.runsc(&["do", "--", "cat"]);
    c.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = c.spawn().map_err(|e| e.to_string())?;
    let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let copy = data.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let mut out = Vec::new();
    child
        .stdout
        .take()
        .ok_or("no stdout")?
        .read_to_end(&mut out)
        .map_err(|e| e.to_string())?;
    let _ = writer.join();
    let status = child.wait().map_err(|e| e.to_string())?;
    check(status.success() && out == data, || {
        format!("{status}, {} bytes came back", out.len())
    })?;
    // Standard output and error stay apart.
    let done = ctx.sh("echo out; echo err >&2");
    check(done.stdout == "out\n" && done.stderr == "err\n", || {
        done.describe()
    })?;
    // A reader that goes away ends the writer.
    let pipeline = format!(
        "{} --root {} do -- yes | head -1",
        ctx.options.runsc.display(),
        ctx.state.display()
    );
    let done = command::run(
        std::process::Command::new("sh").args(["-c", &pipeline]),
        Duration::from_secs(30),
    );
    check(done.stdout == "y\n", || done.describe())
}

pub(super) fn do_leaves_host_alone(ctx: &Ctx<'_>) -> Result<(), String> {
    let file = ctx.dir.join("mine");
    std::fs::write(&file, "host").map_err(|e| e.to_string())?;
    let path = file.display();
    expect(
        &ctx.sh(&format!(
            "cat {path}; echo changed > {path}; cat {path}; rm {path}; test ! -e {path} && echo gone; \
             touch /etc/new-in-sandbox && echo made; rm -rf /usr/share/doc && test ! -e /usr/share/doc && echo removed"
        )),
        0,
        "hostchanged\ngone\nmade\nremoved\n",
    )?;
    let text = std::fs::read_to_string(&file).map_err(|e| format!("the host's file: {e}"))?;
    check(text == "host", || format!("the host's file holds {text:?}"))?;
    check(
        !std::path::Path::new("/etc/new-in-sandbox").exists(),
        || "a new file came through".into(),
    )?;
    check(std::path::Path::new("/usr/share/doc").exists(), || {
        "a removal came through".into()
    })
}

pub(super) fn do_host_devices_unreachable(ctx: &Ctx<'_>) -> Result<(), String> {
    let fifo = ctx.dir.join("fifo");
    let socket = ctx.dir.join("socket");
    let device = ctx.dir.join("null");
    let c = |p: &std::path::Path| {
        std::ffi::CString::new(p.to_string_lossy().into_owned()).unwrap_or_default()
    };
    // SAFETY: both calls read one NUL-terminated path.
    unsafe {
        libc::mkfifo(c(&fifo).as_ptr(), 0o666);
        libc::mknod(
            c(&device).as_ptr(),
            libc::S_IFCHR | 0o666,
            libc::makedev(1, 11),
        );
    }
    let _listener = std::os::unix::net::UnixListener::bind(&socket).map_err(|e| e.to_string())?;
    // A writer on the host is not heard inside.
    let mut writer = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .map_err(|e| e.to_string())?;
    writer.write_all(b"secret").map_err(|e| e.to_string())?;
    let done = ctx.sh(&format!("timeout 1 head -c 6 {}", fifo.display()));
    check(!done.stdout.contains("secret"), || {
        "the host's FIFO is reachable".into()
    })?;
    let done = ctx.sh(&format!("head -c 1 {} | wc -c", device.display()));
    check(done.stdout.trim() == "0", || {
        format!("the host's device reads: {}", done.describe())
    })?;
    let script = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{}')",
        socket.display()
    );
    let done = ctx.run(&["do", "--", "/usr/bin/python3", "-c", &script]);
    check(
        done.code() == Some(1) && done.stderr.contains("refused"),
        || format!("the host's socket: {}", done.describe()),
    )?;
    let done = ctx.sh("ls /dev/vda /dev/sda /dev/kmsg /dev/mem 2>/dev/null");
    check(done.stdout.is_empty(), || done.describe())
}

pub(super) fn do_cwd_env_args(ctx: &Ctx<'_>) -> Result<(), String> {
    let done = ctx.run(&[
        "do",
        "--",
        "/bin/sh",
        "-c",
        "pwd; echo \"$#:$1:$2\"",
        "sh",
        "a b",
        "",
    ]);
    expect(&done, 0, &format!("{}\n2:a b:\n", ctx.dir.display()))?;
    expect(&ctx.run(&["do", "--cwd", "/usr", "--", "pwd"]), 0, "/usr\n")?;
    let mut c = ctx.runsc(&["do", "--", "/bin/sh", "-c", "echo $PASSED"]);
    c.env("PASSED", "yes");
    expect(&command::run(&mut c, Duration::from_secs(30)), 0, "yes\n")
}

pub(super) fn do_bad_cwd(ctx: &Ctx<'_>) -> Result<(), String> {
    refused(
        &ctx.run(&["do", "--cwd", "/no/such/dir", "--", "true"]),
        &["/no/such/dir"],
    )?;
    refused(
        &ctx.run(&["do", "--rootfs", "/no/such/root", "--", "true"]),
        &["/no/such/root"],
    )?;
    ctx.nothing_left()
}

pub(super) fn do_readme_example(ctx: &Ctx<'_>) -> Result<(), String> {
    let done = ctx.run(&[
        "do",
        "--",
        "bash",
        "-c",
        "uname -a; id; ls /; python3 -c \"print(6*7)\"",
    ]);
    check(
        done.ok()
            && done.stdout.starts_with("Linux ")
            && done.stdout.contains("uid=0(root)")
            && done.stdout.contains("\nusr\n")
            && done.stdout.ends_with("42\n"),
        || done.describe(),
    )
}

pub(super) fn do_signal_forwarded(ctx: &Ctx<'_>) -> Result<(), String> {
    let mut c = ctx.runsc(&[
        "do",
        "--",
        "/bin/sh",
        "-c",
        "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    c.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = c.spawn().map_err(|e| e.to_string())?;
    let mut out = child.stdout.take().ok_or("no stdout")?;
    let mut buf = [0u8; 6];
    out.read_exact(&mut buf)
        .map_err(|e| format!("the guest did not start: {e}"))?;
    // SAFETY: kill takes plain integers.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let mut rest = String::new();
    let _ = out.read_to_string(&mut rest);
    let status = child.wait().map_err(|e| e.to_string())?;
    check(rest == "got\n" && status.code() == Some(9), || {
        format!("{rest:?} {status}")
    })?;
    ctx.nothing_left()
}

/// `timeout` and a terminal signal the whole process group; the guest still
/// has its files while it reacts.
pub(super) fn do_group_signal(ctx: &Ctx<'_>) -> Result<(), String> {
    let line =
        "trap 'sort /etc/passwd | grep -c root:x:0:0; exit' TERM; while :; do sleep 0.1; done";
    let mut c = std::process::Command::new("timeout");
    c.arg("1")
        .arg(&ctx.options.runsc)
        .arg("--root")
        .arg(&ctx.state);
    c.arg(format!("--platform={}", ctx.platform));
    c.args(["do", "--", "/bin/sh", "-c", line]);
    // 124 is what `timeout` itself answers.
    let done = command::run(&mut c, Duration::from_secs(20));
    expect(&done, 124, "1\n")?;
    ctx.nothing_left()
}
