//! `config-linux.md`: filters of system calls.

use serde_json::{Value, json};

use super::runtime::{Runtime, check, equal};
use super::{Case, case};

pub const CASES: &[Case] = &[
    case(
        "linux/seccomp/errno",
        "SCMP_ACT_ERRNO fails with EPERM by default",
        |rt| {
            let out = rt.output("busybox mkdir /tmp/x 2>&1; true", |c| {
                filter(c, json!([rule("mkdir", "SCMP_ACT_ERRNO")]))
            })?;
            check(out.contains("Operation not permitted"), || out.clone())
        },
    ),
    case("linux/seccomp/errno_ret", "errnoRet is the error", |rt| {
        let out = rt.output("busybox mkdir /tmp/x 2>&1; true", |c| {
            let mut rule = rule("mkdir", "SCMP_ACT_ERRNO");
            rule["errnoRet"] = json!(28);
            filter(c, json!([rule]));
        })?;
        check(out.contains("No space left"), || out.clone())
    }),
    case(
        "linux/seccomp/default_errno",
        "defaultErrnoRet is the error of the default action",
        default_errno,
    ),
    case(
        "linux/seccomp/kill",
        "SCMP_ACT_KILL_PROCESS ends the process by SIGSYS",
        |rt| {
            let out = rt.output("(busybox mkdir /tmp/x); echo $?", |c| {
                filter(c, json!([rule("mkdir", "SCMP_ACT_KILL_PROCESS")]))
            })?;
            equal(out.lines().last().unwrap_or_default(), "159")
        },
    ),
    case("linux/seccomp/args", "arguments are compared", args),
    case(
        "linux/seccomp/unknown_call",
        "names of calls that do not exist are no error",
        |rt| {
            equal(
                &rt.output("echo ran", |c| {
                    filter(c, json!([rule("no_such_call", "SCMP_ACT_ERRNO")]))
                })?,
                "ran",
            )
        },
    ),
    case(
        "linux/seccomp/no_names",
        "names has at least one entry",
        |rt| {
            rt.refuses(|c| filter(c, json!([{"names": [], "action": "SCMP_ACT_ERRNO"}])))
                .map(|_| ())
        },
    ),
    case(
        "linux/seccomp/unknown_action",
        "an unknown action is an error",
        |rt| {
            rt.refuses(|c| filter(c, json!([rule("mkdir", "SCMP_ACT_BOGUS")])))
                .map(|_| ())
        },
    ),
    case(
        "linux/seccomp/unknown_operator",
        "an unknown operator is an error",
        |rt| {
            rt.refuses(|c| {
                let mut rule = rule("mkdir", "SCMP_ACT_ERRNO");
                rule["args"] = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_BOGUS"}]);
                filter(c, json!([rule]));
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/seccomp/index",
        "there is no seventh argument",
        |rt| {
            rt.refuses(|c| {
                let mut rule = rule("mkdir", "SCMP_ACT_ERRNO");
                rule["args"] = json!([{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]);
                filter(c, json!([rule]));
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/seccomp/unknown_arch",
        "an unknown architecture is an error",
        |rt| {
            rt.refuses(|c| {
                filter(c, json!([]));
                c["linux"]["seccomp"]["architectures"] = json!(["SCMP_ARCH_BOGUS"]);
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/seccomp/unknown_flag",
        "an unknown flag is an error",
        |rt| {
            rt.refuses(|c| {
                filter(c, json!([rule("mkdir", "SCMP_ACT_ERRNO")]));
                c["linux"]["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_BOGUS"]);
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/seccomp/errno_of_allow",
        "errnoRet with an action that has none is an error",
        |rt| {
            rt.refuses(|c| {
                let mut rule = rule("mkdir", "SCMP_ACT_KILL");
                rule["errnoRet"] = json!(5);
                filter(c, json!([rule]));
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/seccomp/metadata",
        "listenerMetadata is not set without listenerPath",
        |rt| {
            rt.refuses(|c| {
                filter(c, json!([rule("mkdir", "SCMP_ACT_ERRNO")]));
                c["linux"]["seccomp"]["listenerMetadata"] = json!("x");
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/seccomp/listener_unused",
        "listenerPath is ignored without SCMP_ACT_NOTIFY",
        |rt| {
            let out = rt.output("echo ran", |c| {
                filter(c, json!([rule("mkdir", "SCMP_ACT_ERRNO")]));
                c["linux"]["seccomp"]["listenerPath"] = json!("/no/such/socket");
            })?;
            equal(&out, "ran")
        },
    ),
    case(
        "linux/seccomp/listener_gone",
        "SCMP_ACT_NOTIFY with a listener that is not there is an error",
        |rt| {
            rt.refuses(|c| {
                filter(c, json!([rule("mkdir", "SCMP_ACT_NOTIFY")]));
                c["linux"]["seccomp"]["listenerPath"] = json!("/no/such/socket");
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/seccomp/exec",
        "the filter holds for further processes",
        |rt| {
            let bundle = rt.bundle("sleep 1000", |c| {
                filter(c, json!([rule("mkdir", "SCMP_ACT_ERRNO")]))
            })?;
            let id = rt.id("c");
            rt.start(&id, &bundle)?;
            let done = rt.run(&["exec", &id, "/bin/mkdir", "/tmp/x"]);
            check(!done.ok() && done.stderr.contains("not permitted"), || {
                done.describe()
            })
        },
    ),
];

fn rule(call: &str, action: &str) -> Value {
    json!({"names": [call], "action": action})
}

/// Allows what `rules` don't name.
fn filter(config: &mut Value, rules: Value) {
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
}

fn default_errno(rt: &Runtime<'_>) -> Result<(), String> {
    // What a shell needs is allowed; mkdir is not among it.
    let allowed = [
        "read",
        "write",
        "open",
        "openat",
        "close",
        "stat",
        "fstat",
        "lstat",
        "newfstatat",
        "mmap",
        "munmap",
        "mprotect",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "ioctl",
        "access",
        "faccessat",
        "faccessat2",
        "pipe",
        "pipe2",
        "dup",
        "dup2",
        "dup3",
        "getpid",
        "getppid",
        "fork",
        "vfork",
        "clone",
        "clone3",
        "execve",
        "exit",
        "exit_group",
        "wait4",
        "waitid",
        "fcntl",
        "getcwd",
        "getuid",
        "getgid",
        "geteuid",
        "getegid",
        "arch_prctl",
        "set_tid_address",
        "setpgid",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "getrandom",
        "futex",
        "uname",
        "readlink",
        "readlinkat",
        "chdir",
        "getdents64",
        "statx",
        "prctl",
        "sigaltstack",
        "umask",
        "setuid",
        "setgid",
        "setgroups",
        "capset",
        "capget",
        "fchdir",
        "getpgrp",
        "getpgid",
        "setsid",
        "poll",
        "ppoll",
        "epoll_create1",
        "epoll_ctl",
        "epoll_pwait",
        "nanosleep",
        "clock_nanosleep",
        "sched_yield",
        "madvise",
        "gettid",
        "tgkill",
        "tkill",
        "kill",
        "fstatfs",
        "statfs",
        "lseek",
        "pread64",
        "writev",
        "readv",
        "restart_syscall",
        "setresuid",
        "setresgid",
        "getresuid",
        "getresgid",
        "sched_getaffinity",
        "clock_gettime",
        "time",
    ];
    let out = rt.output("busybox mkdir /tmp/x 2>&1; true", |c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 28,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": allowed.to_vec(), "action": "SCMP_ACT_ALLOW"}]});
    })?;
    check(out.contains("No space left"), || out.clone())
}

fn args(rt: &Runtime<'_>) -> Result<(), String> {
    // kill(…, 10) fails, other signals don't.
    let out = rt.output(
        "kill -USR1 $$ 2> /dev/null || echo refused; trap 'echo got' USR2; kill -USR2 $$",
        |c| {
            let mut rule = rule("kill", "SCMP_ACT_ERRNO");
            rule["args"] = json!([{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]);
            filter(c, json!([rule]));
        },
    )?;
    equal(&out, "refused\ngot")
}
