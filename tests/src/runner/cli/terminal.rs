//! `do` on a terminal.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

use crate::runner::bundle::Ctx;

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

pub(super) fn do_terminal(ctx: &Ctx<'_>) -> Result<(), String> {
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

pub(super) fn do_interactive_shell(ctx: &Ctx<'_>) -> Result<(), String> {
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
