//! Arguments and environment.

use super::*;
use crate::helpers::exe;
use crate::util::{self, *};

cases![
    argv_and_env,
    empty_argv,
    exit_code_of_helper,
    argument_limits,
    shell_and_true,
];

unsafe fn argv_and_env() {
    let (out, st) = run_env(
        &[&me(), "print-args", "", "a b", "ü"],
        &["K=v", "EMPTY=", "X==y"],
    );
    eq!(st, 0);
    let lines: Vec<&str> = out.lines().skip(1).collect();
    eq!(
        lines,
        [
            "arg print-args",
            "arg ",
            "arg a b",
            "arg ü",
            "env K=v",
            "env EMPTY=",
            "env X==y"
        ]
    );
}

unsafe fn empty_argv() {
    // Since 5.18 an empty argv becomes one empty string.
    let (r, w) = pipe();
    let path = exe();
    let pid = fork(|| {
        libc::dup2(w, 1);
        let null = [std::ptr::null::<libc::c_char>()];
        libc::execve(path.as_ptr(), null.as_ptr(), null.as_ptr());
        libc::_exit(99);
    });
    libc::close(w);
    // Without a role the guest prints its usage and exits with 2.
    eq!(libc::WEXITSTATUS(util::wait(pid)), 2);
    let _ = read_some(r, 100);
}

unsafe fn exit_code_of_helper() {
    for code in [0, 1, 7, 200] {
        let (_, st) = run_env(&[&me(), "exit", &code.to_string()], &[]);
        eq!(libc::WEXITSTATUS(st), code);
    }
}

unsafe fn argument_limits() {
    let path = exe();
    // One string may have at most 128 KiB with its NUL.
    let exact = c(&"a".repeat(131_071));
    let over = c(&"a".repeat(131_072));
    let zero = c"exit";
    let pid = fork(|| {
        let argv = [
            path.as_ptr(),
            zero.as_ptr(),
            c"0".as_ptr(),
            exact.as_ptr(),
            std::ptr::null(),
        ];
        libc::execve(path.as_ptr(), argv.as_ptr(), argv[4..].as_ptr());
        libc::_exit(9);
    });
    eq!(util::wait(pid), 0);
    let argv = [
        path.as_ptr(),
        zero.as_ptr(),
        over.as_ptr(),
        std::ptr::null(),
    ];
    err!(
        libc::E2BIG,
        libc::execve(path.as_ptr(), argv.as_ptr(), argv[3..].as_ptr())
    );
    // All strings together: a quarter of the stack limit.
    let part = c(&"b".repeat(100_000));
    let mut argv: Vec<_> = vec![part.as_ptr(); 30];
    argv.push(std::ptr::null());
    err!(
        libc::E2BIG,
        libc::execve(path.as_ptr(), argv.as_ptr(), argv[30..].as_ptr())
    );
}

unsafe fn shell_and_true() {
    eq!(run(&["/bin/true"]), "");
    let (_, st) = run_env(&["/bin/false"], &[]);
    eq!(libc::WEXITSTATUS(st), 1);
    eq!(
        run(&["/bin/sh", "-c", "echo a | cat; (exit 3) || echo $?"]),
        "a\n3\n"
    );
}
