//! The command line: `do`, life cycle of bundles, bad input.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bundle::{Ctx, expect, refused};
use super::command::{self, Done};
use super::tables;

pub type Test = fn(&Ctx<'_>) -> Result<(), String>;

pub const TESTS: &[(&str, Test)] = &[
    ("do_exit_codes", do_exit_codes),
    ("do_short_programs_at_once", do_short_programs_at_once),
    ("do_missing_program", do_missing_program),
    ("do_stdin_and_pipes", do_stdin_and_pipes),
    ("do_leaves_host_alone", do_leaves_host_alone),
    ("do_host_devices_unreachable", do_host_devices_unreachable),
    ("do_cwd_env_args", do_cwd_env_args),
    ("do_bad_cwd", do_bad_cwd),
    ("do_readme_example", do_readme_example),
    ("do_signal_forwarded", do_signal_forwarded),
    ("do_group_signal", do_group_signal),
    ("do_terminal", do_terminal),
    ("do_interactive_shell", do_interactive_shell),
    ("usage_errors", usage_errors),
    ("elf_garbage", elf_garbage),
    ("help_syscalls", help_syscalls),
    ("table_tells_the_truth", tables::table_tells_the_truth),
    ("strace_lines", strace_lines),
    ("spec_runs", spec_runs),
    ("run_exit_codes", run_exit_codes),
    ("life_cycle", life_cycle),
    ("exec_and_ps", exec_and_ps),
    ("debug_stacks", debug_stacks),
    ("debug_stats", debug_stats),
    ("process_settings", process_settings),
    ("mounts_and_paths", mounts_and_paths),
    ("rootfs_writes_go_through", rootfs_writes_go_through),
    ("bad_bundle", bad_bundle),
    ("bad_config", bad_config),
    ("bad_process", bad_process),
    ("bad_ids", bad_ids),
    ("bad_elf_in_bundle", bad_elf_in_bundle),
    ("killed_client_leaves_nothing", killed_client_leaves_nothing),
    ("killed_sentry_is_reported", killed_sentry_is_reported),
    ("killed_gofer_ends_sandbox", killed_gofer_ends_sandbox),
];

fn check(ok: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(what()) }
}

fn do_exit_codes(ctx: &Ctx<'_>) -> Result<(), String> {
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
fn do_short_programs_at_once(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn do_missing_program(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn do_stdin_and_pipes(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn do_leaves_host_alone(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn do_host_devices_unreachable(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn do_cwd_env_args(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn do_bad_cwd(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn do_readme_example(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn do_signal_forwarded(ctx: &Ctx<'_>) -> Result<(), String> {
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

/// A pseudo terminal of the host: master file and slave descriptor.
fn open_pty() -> Result<(std::fs::File, std::fs::File), String> {
    let (mut m, mut s) = (0, 0);
    let ws = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: openpty writes two descriptors; the other pointers are null or valid.
    let r = unsafe {
        libc::openpty(
            &mut m,
            &mut s,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &ws,
        )
    };
    if r != 0 {
        return Err(format!("openpty: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: both descriptors are fresh and ours.
    Ok(unsafe { (std::fs::File::from_raw_fd(m), std::fs::File::from_raw_fd(s)) })
}

struct Terminal {
    master: std::fs::File,
    child: std::process::Child,
    seen: String,
}

impl Terminal {
    fn start(ctx: &Ctx<'_>, args: &[&str]) -> Result<Self, String> {
        use std::os::unix::process::CommandExt;
        let (master, slave) = open_pty()?;
        let mut c = ctx.runsc(args);
        let copy = || slave.try_clone().map_err(|e| e.to_string());
        c.stdin(copy()?)
            .stdout(copy()?)
            .stderr(copy()?)
            .env("PS1", "$ ")
            .env("TERM", "dumb");
        // SAFETY: both calls are async-signal-safe; descriptor 0 is the slave.
        unsafe {
            c.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = c.spawn().map_err(|e| e.to_string())?;
        Ok(Self {
            master,
            child,
            seen: String::new(),
        })
    }

    fn write(&mut self, text: &str) -> Result<(), String> {
        self.master
            .write_all(text.as_bytes())
            .map_err(|e| e.to_string())
    }

    /// Waits until the output since the last call holds `text`.
    fn until(&mut self, text: &str) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return Ok(());
            }
            let mut p = libc::pollfd {
                fd: self.master.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid pollfd.
            if unsafe { libc::poll(&mut p, 1, 100) } > 0 {
                let mut buf = [0u8; 4096];
                match self.master.read(&mut buf) {
                    Ok(n) if n > 0 => self
                        .seen
                        .push_str(&String::from_utf8_lossy(buf.get(..n).unwrap_or_default())),
                    _ => break,
                }
            }
        }
        Err(format!("no {text:?} in {:?}", self.seen))
    }

    fn end(&mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `timeout` and a terminal signal the whole process group; the guest still
/// has its files while it reacts.
fn do_group_signal(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn do_terminal(ctx: &Ctx<'_>) -> Result<(), String> {
    let mut t = Terminal::start(
        ctx,
        &[
            "do",
            "--",
            "/bin/sh",
            "-c",
            "tty; stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done",
        ],
    )?;
    t.until("/dev/pts/")?;
    t.until("24 80")?;
    t.until("ready")?;
    let ws = libc::winsize {
        ws_row: 50,
        ws_col: 132,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    unsafe { libc::ioctl(t.master.as_raw_fd(), libc::TIOCSWINSZ, &ws) };
    t.until("50 132")?;
    t.write("\x03")?;
    match t.end() {
        Some(130) => Ok(()),
        other => Err(format!("^C ended it with {other:?}; output {:?}", t.seen)),
    }
}

fn do_interactive_shell(ctx: &Ctx<'_>) -> Result<(), String> {
    let mut t = Terminal::start(ctx, &["do", "--", "bash", "--norc", "-i"])?;
    t.until("$ ")?;
    t.write("echo $((6*7))\n")?;
    t.until("42")?;
    t.write("sleep 100\n")?;
    std::thread::sleep(Duration::from_millis(400));
    t.write("\x1a")?;
    t.until("Stopped")?;
    t.write("jobs; bg\n")?;
    t.until("sleep 100 &")?;
    t.write("fg\n")?;
    std::thread::sleep(Duration::from_millis(300));
    t.write("\x03")?;
    t.until("$ ")?;
    t.write("echo code=$?; exit 6\n")?;
    t.until("code=130")?;
    match t.end() {
        Some(6) => Ok(()),
        other => Err(format!("the shell ended with {other:?}")),
    }
}

fn usage_errors(ctx: &Ctx<'_>) -> Result<(), String> {
    for args in [
        &["no-such-command"][..],
        &["do", "--no-such-flag", "true"],
        &["--platform=none", "do", "true"],
        &["run"],
        &[],
    ] {
        let done = ctx.run(args);
        check(
            !done.ok() && done.code().is_some() && !done.stderr.is_empty(),
            || format!("{args:?}: {}", done.describe()),
        )?;
        check(!done.stderr.contains("panicked"), || done.describe())?;
    }
    Ok(())
}

/// Broken executables, each with a word its error should hold.
fn bad_elves(ctx: &Ctx<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let good = std::fs::read(&ctx.options.guest).unwrap_or_default();
    let head = |n: usize| good.get(..n).unwrap_or_default().to_vec();
    let change = |at: usize, bytes: &[u8]| {
        let mut b = good.clone();
        if let Some(slot) = b.get_mut(at..at + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
        b
    };
    let mut noise = Vec::new();
    let mut x = 12345u64;
    for _ in 0..8192 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.push((x >> 33) as u8);
    }
    let mut noise_elf = noise.clone();
    noise_elf.splice(..64, head(64));
    vec![
        ("empty", Vec::new()),
        ("magic", b"\x7fELF".to_vec()),
        ("header", head(63)),
        ("truncated", head(4096)),
        ("noise", noise),
        ("noise-elf", noise_elf),
        ("aarch64", change(18, &[183, 0])),
        ("big-endian", change(5, &[2])),
        ("32-bit", change(4, &[1])),
        ("relocatable", change(16, &[1, 0])),
        ("many-headers", change(56, &[0xff, 0xff])),
        ("phoff", change(32, &[0xff; 8])),
        ("entry", change(24, &[0xff; 8])),
        ("no-interpreter", interpreted("/no/such/ld.so")),
        ("dir-interpreter", interpreted("/tmp")),
        ("text-interpreter", interpreted("/etc/passwd")),
        ("loop-interpreter", b"#!/bad/loop-interpreter\n".to_vec()),
    ]
}

/// A minimal dynamic executable that names this interpreter.
fn interpreted(interpreter: &str) -> Vec<u8> {
    let mut b = vec![0u8; 64 + 2 * 56];
    let put = |b: &mut Vec<u8>, at: usize, v: &[u8]| {
        if let Some(s) = b.get_mut(at..at + v.len()) {
            s.copy_from_slice(v);
        }
    };
    put(&mut b, 0, b"\x7fELF\x02\x01\x01");
    put(&mut b, 16, &[3, 0, 62, 0, 1]);
    put(&mut b, 32, &64u64.to_le_bytes());
    put(&mut b, 52, &[64, 0, 56, 0, 2, 0]);
    let end = b.len() as u64;
    let name = format!("{interpreter}\0").into_bytes();
    put(&mut b, 64, &3u32.to_le_bytes()); // PT_INTERP
    put(&mut b, 72, &end.to_le_bytes());
    put(&mut b, 96, &(name.len() as u64).to_le_bytes());
    put(&mut b, 104, &(name.len() as u64).to_le_bytes());
    put(&mut b, 120, &1u32.to_le_bytes()); // PT_LOAD
    put(&mut b, 124, &5u32.to_le_bytes());
    let len = end + name.len() as u64;
    put(&mut b, 152, &len.to_le_bytes());
    put(&mut b, 160, &len.to_le_bytes());
    put(&mut b, 168, &4096u64.to_le_bytes());
    b.extend(name);
    b
}

fn make_executable(path: &std::path::Path, bytes: &[u8]) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes).map_err(|e| e.to_string())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(|e| e.to_string())
}

fn elf_garbage(ctx: &Ctx<'_>) -> Result<(), String> {
    for (name, bytes) in bad_elves(ctx) {
        let path = ctx.dir.join(name);
        make_executable(&path, &bytes)?;
        let done = ctx.run(&["do", "--", &path.to_string_lossy()]);
        let code = done.code();
        // A jump to a wild entry point is the guest's own fault: a signal.
        let fine = matches!(code, Some(1 | 126 | 127)) && done.stderr.contains(name)
            || name == "entry" && code == Some(139)
            || name == "noise-elf" && code.is_some_and(|c| c > 125);
        check(fine, || format!("{name}: {}", done.describe()))?;
        check(!done.stderr.contains("panicked"), || done.describe())?;
    }
    ctx.nothing_left()
}

fn help_syscalls(ctx: &Ctx<'_>) -> Result<(), String> {
    let done = ctx.run(&["help", "syscalls", "--format", "json"]);
    let v: Value = serde_json::from_str(&done.stdout).map_err(|e| format!("not JSON: {e}"))?;
    check(v.to_string().contains("openat2"), || {
        "no openat2 in the JSON".into()
    })?;
    let csv = ctx.run(&["help", "syscalls", "--format", "csv"]);
    check(csv.ok() && csv.stdout.lines().count() > 350, || {
        csv.describe()
    })?;
    let table = ctx.run(&["help", "syscalls"]);
    check(table.ok() && table.stdout.contains("openat2"), || {
        table.describe()
    })
}

fn strace_lines(ctx: &Ctx<'_>) -> Result<(), String> {
    let log = ctx.dir.join("log");
    let log_name = log.to_string_lossy().into_owned();
    let done = ctx.run(&[
        "--strace",
        "--debug-log",
        &log_name,
        "do",
        "--",
        "/bin/sh",
        "-c",
        "cat /etc/hostname; true",
    ]);
    check(done.ok(), || done.describe())?;
    let text = std::fs::read_to_string(&log).map_err(|e| format!("{log_name}: {e}"))?;
    let line = text
        .lines()
        .find(|l| l.contains("openat(") && l.contains("\"/etc/hostname\""));
    check(
        line.is_some_and(|l| {
            l.contains("AT_FDCWD") && l.contains("O_RDONLY") && l.contains(" = 3")
        }),
        || format!("no readable openat line:\n{}", command::tail(&text, 20)),
    )?;
    check(text.contains("execve("), || "no execve line".into())
}

fn spec_runs(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn run_exit_codes(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn state_of(ctx: &Ctx<'_>, id: &str) -> Result<Value, String> {
    let done = ctx.run(&["state", id]);
    serde_json::from_str(&done.stdout).map_err(|e| format!("state: {e}: {}", done.describe()))
}

fn wait_status(ctx: &Ctx<'_>, id: &str, status: &str) -> Result<Value, String> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let v = state_of(ctx, id)?;
        if v["status"] == status {
            return Ok(v);
        }
        if Instant::now() > end {
            return Err(format!("status is {}, not {status}", v["status"]));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command whose container may keep the output open.
fn quiet(ctx: &Ctx<'_>, args: &[&str]) -> Result<Done, String> {
    let mut c = ctx.runsc(args);
    let log = ctx.dir.join("quiet.log");
    let file = std::fs::File::create(&log).map_err(|e| e.to_string())?;
    c.stdin(Stdio::null())
        .stdout(file.try_clone().map_err(|e| e.to_string())?)
        .stderr(file);
    let mut child = c.spawn().map_err(|e| e.to_string())?;
    let end = Instant::now() + Duration::from_secs(20);
    let status = loop {
        match child.try_wait() {
            Ok(Some(s)) => break Some(s),
            _ if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    Ok(Done {
        status,
        stdout: String::new(),
        stderr: std::fs::read_to_string(&log).unwrap_or_default(),
    })
}

fn life_cycle(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn exec_and_ps(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn debug_stacks(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("b", &["/bin/sleep", "1000"], |_| ())?;
    check(
        quiet(ctx, &["create", "--bundle", &bundle, "c"])?.ok(),
        || "create".into(),
    )?;
    check(ctx.run(&["start", "c"]).ok(), || "start".into())?;
    std::thread::sleep(Duration::from_millis(200));
    let done = ctx.run(&["debug", "--stacks", "c"]);
    check(done.ok() && done.stdout.contains("nanosleep"), || {
        done.describe()
    })?;
    check(ctx.run(&["delete", "--force", "c"]).ok(), || {
        "delete".into()
    })
}

fn debug_stats(ctx: &Ctx<'_>) -> Result<(), String> {
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); kill -0 $$; done; exec sleep 1000";
    let bundle = ctx.bundle("b", &["/bin/sh", "-c", script], |_| ())?;
    check(
        quiet(ctx, &["create", "--bundle", &bundle, "c"])?.ok(),
        || "create".into(),
    )?;
    check(ctx.run(&["start", "c"]).ok(), || "start".into())?;
    let mut done = ctx.run(&["debug", "--stats", "c"]);
    for _ in 0..100 {
        if ctx.platform != "systrap" || done.stdout.contains(" sleep\n") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        done = ctx.run(&["debug", "--stats", "c"]);
    }
    check(done.ok() && done.stdout.contains("PROGRAM"), || {
        done.describe()
    })?;
    if ctx.platform == "systrap" {
        // Fast, trapped, share in percent, name.
        let row = done.stdout.lines().find(|line| line.ends_with(" sh"));
        let fields: Vec<f64> = row
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let [fast, trapped, share] = fields[..] else {
            return Err(done.describe());
        };
        check(
            fast >= 2900.0 && (1.0..100.0).contains(&trapped) && share >= 95.0,
            || done.describe(),
        )?;
    }
    check(ctx.run(&["delete", "--force", "c"]).ok(), || {
        "delete".into()
    })
}

fn process_settings(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn mounts_and_paths(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn rootfs_writes_go_through(ctx: &Ctx<'_>) -> Result<(), String> {
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

fn bad_bundle(ctx: &Ctx<'_>) -> Result<(), String> {
    refused(
        &ctx.run_bundle("x", "/no/such/bundle"),
        &["/no/such/bundle"],
    )?;
    let empty = ctx.dir.join("empty");
    std::fs::create_dir_all(&empty).map_err(|e| e.to_string())?;
    refused(
        &ctx.run_bundle("x", &empty.to_string_lossy()),
        &["config.json"],
    )?;
    let bundle = ctx.bundle("b", &["/bin/true"], |_| ())?;
    let config = std::path::Path::new(&bundle).join("config.json");
    for text in [
        "",
        "not json",
        "[]",
        "{\"ociVersion\": 5}",
        "{\"process\":",
        "\u{0}\u{1}\u{2}",
    ] {
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        refused(&ctx.run_bundle("x", &bundle), &["config.json"])
            .map_err(|e| format!("{text:?}: {e}"))?;
    }
    std::fs::remove_file(&config).map_err(|e| e.to_string())?;
    std::fs::create_dir(&config).map_err(|e| e.to_string())?;
    refused(&ctx.run_bundle("x", &bundle), &["config.json"])?;
    ctx.nothing_left()
}

fn bad_config(ctx: &Ctx<'_>) -> Result<(), String> {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change, &[&str])] = &[
        (
            "no-rootfs",
            |c| c["root"]["path"] = json!("missing-root"),
            &["missing-root"],
        ),
        (
            "file-rootfs",
            |c| c["root"]["path"] = json!("config.json"),
            &["config.json"],
        ),
        ("no-root", |c| c["root"] = Value::Null, &["root"]),
        ("no-process", |c| c["process"] = Value::Null, &["process"]),
        ("no-args", |c| c["process"]["args"] = json!([]), &["args"]),
        (
            "unknown-mount",
            |c| c["mounts"] = json!([{"destination": "/m", "type": "nosuchfs", "source": "x"}]),
            &["nosuchfs"],
        ),
        (
            "missing-source",
            |c| c["mounts"] = json!([{"destination": "/m", "type": "bind", "source": "/no/such/source", "options": ["bind"]}]),
            &["/no/such/source"],
        ),
        (
            "relative-mount",
            |c| c["mounts"] = json!([{"destination": "m", "type": "tmpfs", "source": "x", "options": ["nosuchoption=1"]}]),
            &[],
        ),
        (
            "unknown-capability",
            |c| c["process"]["capabilities"]["effective"] = json!(["CAP_NO_SUCH"]),
            &["CAP_NO_SUCH"],
        ),
        (
            "unknown-rlimit",
            |c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_NO_SUCH", "hard": 1, "soft": 1}]),
            &["RLIMIT_NO_SUCH"],
        ),
        (
            "unknown-namespace",
            |c| c["linux"]["namespaces"] = json!([{"type": "nosuchns"}]),
            &["nosuchns"],
        ),
    ];
    for (name, change, words) in cases {
        let bundle = ctx.bundle(name, &["/bin/true"], *change)?;
        refused(&ctx.run_bundle(name, &bundle), words).map_err(|e| format!("{name}: {e}"))?;
    }
    ctx.nothing_left()
}

fn bad_process(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("a", &["/bin/true"], |c| {
        c["process"]["cwd"] = json!("/no/such/cwd")
    })?;
    refused(&ctx.run_bundle("a", &bundle), &["/no/such/cwd"])?;
    let bundle = ctx.bundle("b", &["/bin/true"], |c| {
        c["process"]["cwd"] = json!("relative")
    })?;
    refused(&ctx.run_bundle("b", &bundle), &["relative"])?;
    let bundle = ctx.bundle("c", &["/no/such/program"], |_| ())?;
    refused(&ctx.run_bundle("c", &bundle), &["/no/such/program"]).map_err(|e| format!("c: {e}"))?;
    let bundle = ctx.bundle("d", &["/etc/passwd"], |_| ())?;
    refused(&ctx.run_bundle("d", &bundle), &["/etc/passwd"])?;
    let bundle = ctx.bundle("e", &["/bin/true"], |c| {
        c["process"]["user"] = json!({"uid": "root", "gid": 0})
    })?;
    refused(&ctx.run_bundle("e", &bundle), &["config.json"])?;
    let bundle = ctx.bundle("f", &["/bin/true"], |c| {
        c["process"]["user"] = json!({"uid": 4_294_967_295u64, "gid": 0})
    })?;
    refused(&ctx.run_bundle("f", &bundle), &["4294967295"])?;
    ctx.nothing_left()
}

fn bad_ids(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("b", &["/bin/true"], |_| ())?;
    for id in [
        "",
        ".",
        "..",
        "a/b",
        "../../etc",
        "with space",
        "new\nline",
        &"x".repeat(2000),
    ] {
        let done = ctx.run_bundle(id, &bundle);
        check(
            done.code().is_some_and(|c| c != 0) && !done.stderr.is_empty(),
            || format!("{id:?}: {}", done.describe()),
        )?;
    }
    for command in [
        &["state", "none"][..],
        &["start", "none"],
        &["kill", "none"],
        &["delete", "none"],
        &["ps", "none"],
        &["exec", "none", "true"],
        &["debug", "--stacks", "none"],
    ] {
        refused(&ctx.run(command), &["none"]).map_err(|e| format!("{command:?}: {e}"))?;
    }
    expect(&ctx.run(&["delete", "--force", "none"]), 0, "")?;
    check(
        quiet(ctx, &["create", "--bundle", &bundle, "c"])?.ok(),
        || "create".into(),
    )?;
    refused(&ctx.run(&["kill", "c", "NOSUCHSIGNAL"]), &["NOSUCHSIGNAL"])?;
    refused(&ctx.run(&["kill", "c", "999"]), &["999"])?;
    check(ctx.run(&["delete", "--force", "c"]).ok(), || {
        "delete".into()
    })?;
    ctx.nothing_left()
}

fn bad_elf_in_bundle(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("b", &["/bad/x"], |_| ())?;
    let bad = std::path::Path::new(&bundle).join("rootfs/bad");
    std::fs::create_dir_all(&bad).map_err(|e| e.to_string())?;
    for (name, bytes) in bad_elves(ctx) {
        if name == "entry" || name == "noise-elf" {
            continue;
        }
        make_executable(&bad.join(name), &bytes)?;
        let bundle = ctx.bundle("b", &[&format!("/bad/{name}")], |_| ())?;
        refused(&ctx.run_bundle("x", &bundle), &[name]).map_err(|e| format!("{name}: {e}"))?;
    }
    ctx.nothing_left()
}

/// Starts a long `do` in the background and waits until its guest runs.
fn background(ctx: &Ctx<'_>) -> Result<(std::process::Child, Vec<u32>), String> {
    let mut c = ctx.runsc(&["do", "--", "/bin/sh", "-c", "echo ready; exec sleep 300"]);
    c.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = c.spawn().map_err(|e| e.to_string())?;
    let mut buf = [0u8; 6];
    child
        .stdout
        .as_mut()
        .ok_or("no stdout")?
        .read_exact(&mut buf)
        .map_err(|e| format!("the guest did not start: {e}"))?;
    let tree = super::bundle::tree(child.id());
    Ok((child, tree))
}

fn all_gone(pids: &[u32]) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(8);
    loop {
        let left: Vec<u32> = pids
            .iter()
            .copied()
            .filter(|p| {
                std::fs::read_to_string(format!("/proc/{p}/stat"))
                    .is_ok_and(|s| !s.contains(") Z "))
            })
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            for p in &left {
                // SAFETY: kill takes plain integers.
                unsafe { libc::kill(*p as i32, libc::SIGKILL) };
            }
            return Err(format!("still there: {left:?} of {pids:?}"));
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn killed_client_leaves_nothing(ctx: &Ctx<'_>) -> Result<(), String> {
    let (mut child, tree) = background(ctx)?;
    check(tree.len() >= 4, || format!("only {tree:?} run"))?;
    let _ = child.kill();
    let _ = child.wait();
    all_gone(&tree)
}

/// The descendants that run as another host user: sentry and stubs.
fn unprivileged(tree: &[u32]) -> Vec<u32> {
    tree.iter()
        .copied()
        .filter(|p| {
            std::fs::read_to_string(format!("/proc/{p}/status")).is_ok_and(|s| {
                s.lines()
                    .any(|l| l.starts_with("Uid:") && !l.contains("\t0\t"))
            })
        })
        .collect()
}

fn killed_sentry_is_reported(ctx: &Ctx<'_>) -> Result<(), String> {
    let (mut child, tree) = background(ctx)?;
    // The sentry is the first unprivileged process below the client.
    let sentry = unprivileged(&tree)
        .first()
        .copied()
        .ok_or("no unprivileged process runs")?;
    // SAFETY: kill takes plain integers.
    unsafe { libc::kill(sentry as i32, libc::SIGKILL) };
    let end = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match child.try_wait() {
            Ok(Some(s)) => break s,
            _ if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                let _ = all_gone(&tree);
                return Err("the client hangs after the sentry's death".into());
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    check(!status.success(), || "success was reported".into())?;
    all_gone(&tree)?;
    ctx.nothing_left()
}

fn killed_gofer_ends_sandbox(ctx: &Ctx<'_>) -> Result<(), String> {
    let (mut child, tree) = background(ctx)?;
    let unprivileged = unprivileged(&tree);
    let gofer = tree
        .iter()
        .skip(1)
        .copied()
        .find(|p| !unprivileged.contains(p))
        .ok_or("no gofer runs")?;
    // SAFETY: kill takes plain integers.
    unsafe { libc::kill(gofer as i32, libc::SIGKILL) };
    // Whether the guest goes on without files or ends: nothing may stay when
    // the client is gone.
    std::thread::sleep(Duration::from_millis(300));
    let _ = child.kill();
    let _ = child.wait();
    all_gone(&tree)
}
