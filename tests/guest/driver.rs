//! Command line of the guest program and the loop over cases.

use std::io::Write;

use crate::FAMILIES;
use crate::util::{self, Case, SKIP};

fn all() -> impl Iterator<Item = (String, unsafe fn())> {
    FAMILIES.iter().flat_map(|(family, cases)| {
        cases
            .iter()
            .map(move |(name, f): &Case| (format!("{family}/{name}"), *f))
    })
}

/// A name, a family, or a prefix that ends in `/` or `*`.
fn matches(name: &str, pattern: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix('*') {
        return name.starts_with(prefix);
    }
    name == pattern || name.split('/').next() == Some(pattern.trim_end_matches('/'))
}

pub fn main() -> i32 {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for (name, _) in all() {
                println!("{name}");
            }
            0
        }
        ["list", patterns @ ..] => {
            for (name, _) in all() {
                if patterns.iter().any(|p| matches(&name, p)) {
                    println!("{name}");
                }
            }
            0
        }
        ["run", name] => match all().find(|(n, _)| n == name) {
            Some((_, f)) => {
                prepare();
                // Without a child around it, the case gets its directory here.
                let dir = make_dir();
                let _ = std::env::set_current_dir(&dir);
                unsafe { f() };
                let _ = std::env::set_current_dir("/");
                let _ = std::fs::remove_dir_all(&dir);
                0
            }
            None => {
                eprintln!("no case named {name}");
                2
            }
        },
        ["all", "--timeout", seconds, patterns @ ..] => {
            run_all(patterns, seconds.parse().unwrap_or(20))
        }
        ["all", patterns @ ..] => run_all(patterns, 20),
        [helper, rest @ ..] => match crate::helpers::run(helper, rest) {
            Some(code) => code,
            None => usage(),
        },
        [] => usage(),
    }
}

fn usage() -> i32 {
    eprintln!("usage: guest list [PREFIX…] | run NAME | all [--timeout SECONDS] NAME…");
    2
}

/// Undoes what the language runtime set up, so that cases start as a plain C
/// program would.
pub fn prepare() {
    unsafe {
        for signo in [libc::SIGPIPE, libc::SIGSEGV, libc::SIGBUS] {
            libc::signal(signo, libc::SIG_DFL);
        }
        let off = libc::stack_t {
            ss_sp: std::ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: 0,
        };
        libc::sigaltstack(&off, std::ptr::null_mut());
        libc::umask(0o022);
    }
}

fn make_dir() -> String {
    let base = std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".into());
    let template = util::c(&format!("{base}/guest-XXXXXX"));
    let mut bytes = template.into_bytes_with_nul();
    let p = unsafe { libc::mkdtemp(bytes.as_mut_ptr().cast()) };
    if p.is_null() {
        eprintln!("mkdtemp in {base}: {}", util::errno_text());
        std::process::exit(3);
    }
    unsafe { libc::chmod(p, 0o755) };
    bytes.pop();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs the cases one after another, each in a child of its own. A report is
/// `@ NAME pass|fail|skip MILLISECONDS` after `> NAME`; lines that start with
/// `| ` are the case's output.
fn run_all(patterns: &[&str], timeout_s: u64) -> i32 {
    let mut failed = 0;
    for (name, f) in all() {
        if !patterns.is_empty() && !patterns.iter().any(|p| matches(&name, p)) {
            continue;
        }
        println!("> {name}");
        let _ = std::io::stdout().flush();
        let (verdict, ms, output) = run_one(f, timeout_s);
        let mut report = String::new();
        if verdict != "pass" {
            for line in output
                .lines()
                .rev()
                .take(30)
                .collect::<Vec<_>>()
                .iter()
                .rev()
            {
                report.push_str("| ");
                report.push_str(line);
                report.push('\n');
            }
        }
        if verdict == "fail" {
            failed += 1;
        }
        report.push_str(&format!("@ {name} {verdict} {ms}\n"));
        let _ = std::io::stdout().write_all(report.as_bytes());
        let _ = std::io::stdout().flush();
    }
    i32::from(failed > 0)
}

fn run_one(f: unsafe fn(), timeout_s: u64) -> (&'static str, u64, String) {
    let dir = make_dir();
    let log = format!("{dir}.log");
    let start = util::now_ms();
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return (
            "fail",
            0,
            format!("fork of the case: {}", util::errno_text()),
        );
    }
    if pid == 0 {
        unsafe {
            libc::setpgid(0, 0);
            let fd = libc::open(
                util::c(&log).as_ptr(),
                libc::O_CREAT | libc::O_WRONLY | libc::O_APPEND,
                0o600,
            );
            if fd >= 0 {
                libc::dup2(fd, 1);
                libc::dup2(fd, 2);
                libc::close(fd);
            }
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
            if null > 0 {
                libc::dup2(null, 0);
                libc::close(null);
            }
            if std::env::set_current_dir(&dir).is_err() {
                util::fail(file!(), line!(), "chdir to the case's directory");
            }
            // Descriptors that the caller leaked to us are not the cases' business.
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
            prepare();
            f();
            libc::_exit(0);
        }
    }
    unsafe { libc::setpgid(pid, pid) };
    let mut status = 0;
    let mut timed_out = false;
    let mut nap = 1;
    loop {
        let r = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
        if r == pid || r < 0 {
            break;
        }
        if util::now_ms() - start > timeout_s * 1000 {
            timed_out = true;
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::kill(-pid, libc::SIGKILL);
                libc::waitpid(pid, &mut status, 0);
            }
            break;
        }
        util::sleep_ms(nap);
        nap = (nap + 1).min(10);
    }
    let ms = util::now_ms() - start;
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    let mut output = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
    let verdict = if timed_out {
        output.push_str(&format!("\ntimed out after {timeout_s} s\n"));
        "fail"
    } else if libc::WIFSIGNALED(status) {
        output.push_str(&format!("\nended by signal {}\n", libc::WTERMSIG(status)));
        "fail"
    } else {
        match libc::WEXITSTATUS(status) {
            0 => "pass",
            SKIP => "skip",
            code => {
                output.push_str(&format!("\nexit code {code}\n"));
                "fail"
            }
        }
    };
    let _ = std::fs::remove_file(&log);
    let _ = std::fs::remove_dir_all(&dir);
    (verdict, ms, output)
}
