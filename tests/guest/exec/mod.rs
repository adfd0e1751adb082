//! execve(2), execveat(2), script interpreters, what an exec keeps and drops,
//! the auxiliary vector.

pub mod arguments;
pub mod files;
pub mod ids;
pub mod image;
pub mod kept;
pub mod script;

use crate::helpers::exe;
use crate::util::{self, *};

/// Runs argv with this environment in a child; its stdout and wait status.
pub unsafe fn run_env(argv: &[&str], env: &[&str]) -> (String, i32) {
    let (r, w) = pipe();
    let argv_c: Vec<_> = argv.iter().map(|s| c(s)).collect();
    let env_c: Vec<_> = env.iter().map(|s| c(s)).collect();
    let mut argv_p: Vec<_> = argv_c.iter().map(|s| s.as_ptr()).collect();
    let mut env_p: Vec<_> = env_c.iter().map(|s| s.as_ptr()).collect();
    argv_p.push(std::ptr::null());
    env_p.push(std::ptr::null());
    let pid = fork(|| {
        libc::dup2(w, 1);
        libc::close(r);
        libc::close(w);
        libc::execve(argv_p[0], argv_p.as_ptr(), env_p.as_ptr());
        eprintln!("execve {}: {}", argv[0], errno_text());
        libc::_exit(126);
    });
    libc::close(w);
    let mut out = Vec::new();
    loop {
        let part = read_some(r, 65536);
        if part.is_empty() {
            break;
        }
        out.extend_from_slice(&part);
    }
    libc::close(r);
    (String::from_utf8_lossy(&out).into_owned(), util::wait(pid))
}

pub unsafe fn run(argv: &[&str]) -> String {
    let (out, status) = run_env(argv, &["PATH=/usr/bin:/bin"]);
    check!(status == 0, "{argv:?} ended with {status:#x}: {out}");
    out
}

fn me() -> String {
    exe().to_string_lossy().into_owned()
}

unsafe fn exec_errno(path: &str) -> i32 {
    let argv = [c"x".as_ptr(), std::ptr::null()];
    let r = libc::execve(c(path).as_ptr(), argv.as_ptr(), argv[1..].as_ptr().cast());
    eq!(r, -1);
    errno()
}

unsafe fn make_exec(name: &str, content: &[u8]) {
    write_file(name, content);
    ok!(libc::chmod(c(name).as_ptr(), 0o755));
}
