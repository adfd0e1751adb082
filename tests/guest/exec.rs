//! execve(2), execveat(2), script interpreters, what an exec keeps and drops,
//! the auxiliary vector.

use crate::helpers::exe;
use crate::util::{self, *};

cases![
    argv_and_env,
    empty_argv,
    exit_code_of_helper,
    path_errors,
    permission_errors,
    format_errors,
    argument_limits,
    bad_pointers,
    script_basic,
    script_with_argument,
    script_long_argument_is_one,
    script_nested,
    script_missing_interpreter,
    script_empty_interpreter,
    script_through_relative_path,
    cloexec_closes,
    dup_clears_cloexec,
    close_range_cloexec,
    handlers_reset_ignored_kept,
    mask_and_pending_kept,
    altstack_dropped,
    exec_from_thread,
    exec_kills_other_threads,
    vfork_exec,
    execveat_empty_path,
    execveat_dirfd,
    execveat_nofollow,
    execveat_script_cloexec,
    fexec_memfd,
    auxv_contents,
    auxv_in_proc,
    comm_and_cmdline,
    proc_exe_link,
    deleted_exe_link,
    setuid_bit,
    setuid_bit_no_new_privs,
    setgid_bit,
    unreadable_is_not_dumpable,
    mappings_replaced,
    brk_starts_after_image,
    stack_holds_big_arguments,
    text_busy,
    pid_kept,
    itimer_kept_posix_timer_dropped,
    umask_cwd_kept,
    noexec_directory,
    aslr_moves,
    shell_and_true,
];

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

unsafe fn path_errors() {
    eq!(exec_errno("/does/not/exist"), libc::ENOENT);
    eq!(exec_errno(""), libc::ENOENT);
    write_file("plain", b"");
    eq!(exec_errno("plain/x"), libc::ENOTDIR);
    ok!(libc::symlink(c("loop").as_ptr(), c("loop").as_ptr()));
    eq!(exec_errno("loop"), libc::ELOOP);
    let long = "n".repeat(256);
    eq!(exec_errno(&long), libc::ENAMETOOLONG);
    eq!(exec_errno(&"d/".repeat(2100)), libc::ENAMETOOLONG);
    ok!(libc::symlink(c("nowhere").as_ptr(), c("dangling").as_ptr()));
    eq!(exec_errno("dangling"), libc::ENOENT);
}

unsafe fn permission_errors() {
    write_file("noexec", b"#!/bin/sh\n");
    eq!(exec_errno("noexec"), libc::EACCES);
    eq!(exec_errno("/tmp"), libc::EACCES);
    eq!(exec_errno("/dev/null"), libc::EACCES);
    // A single x bit is enough for root; not for another user.
    ok!(libc::chmod(c("noexec").as_ptr(), 0o744));
    in_child(|| {
        ok!(libc::setresuid(1234, 1234, 1234));
        eq!(exec_errno("noexec"), libc::EACCES);
    });
    // Search permission on the way.
    ok!(libc::mkdir(c("closed").as_ptr(), 0o700));
    write_file("closed/x", b"#!/bin/sh\n");
    ok!(libc::chmod(c("closed/x").as_ptr(), 0o755));
    in_child(|| {
        ok!(libc::setresuid(1234, 1234, 1234));
        eq!(exec_errno("closed/x"), libc::EACCES);
    });
}

unsafe fn make_exec(name: &str, content: &[u8]) {
    write_file(name, content);
    ok!(libc::chmod(c(name).as_ptr(), 0o755));
}

unsafe fn format_errors() {
    make_exec("empty", b"");
    eq!(exec_errno("empty"), libc::ENOEXEC);
    make_exec("text", b"echo hello\n");
    eq!(exec_errno("text"), libc::ENOEXEC);
    make_exec("magic", b"\x7fELF");
    eq!(exec_errno("magic"), libc::ENOEXEC);
    let me = read_file(&me());
    // Foreign machine (AArch64).
    let mut head = me[..4096].to_vec();
    head[18] = 183;
    make_exec("arm", &head);
    eq!(exec_errno("arm"), libc::ENOEXEC);
    // Neither executable nor shared object.
    let mut head = me[..4096].to_vec();
    head[16] = 1;
    make_exec("rel", &head);
    eq!(exec_errno("rel"), libc::ENOEXEC);
    // Program header size that is not that of the class.
    let mut head = me[..4096].to_vec();
    head[54] = 55;
    make_exec("phsize", &head);
    eq!(exec_errno("phsize"), libc::ENOEXEC);
    // Program headers behind the end of the file.
    let mut head = me[..4096].to_vec();
    head[32..40].copy_from_slice(&0x100_0000u64.to_le_bytes());
    make_exec("phoff", &head);
    let e = exec_errno("phoff");
    check!(e == libc::ENOEXEC || e == libc::EIO, "errno {e}");
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

unsafe fn bad_pointers() {
    let path = exe();
    let argv = [path.as_ptr(), std::ptr::null()];
    err!(libc::EFAULT, sys!(libc::SYS_execve, 8, argv.as_ptr(), 0));
    err!(libc::EFAULT, sys!(libc::SYS_execve, path.as_ptr(), 8, 0));
    err!(
        libc::EFAULT,
        sys!(libc::SYS_execve, path.as_ptr(), argv.as_ptr(), 8)
    );
    let bad = [8 as *const libc::c_char, std::ptr::null()];
    err!(
        libc::EFAULT,
        sys!(libc::SYS_execve, path.as_ptr(), bad.as_ptr(), 0)
    );
}

unsafe fn script_basic() {
    make_exec("s", format!("#!{} print-args\nignored\n", me()).as_bytes());
    let out = run(&["./s", "one", "two"]);
    let lines: Vec<&str> = out.lines().filter(|l| l.starts_with("arg")).collect();
    eq!(
        lines[1..],
        ["arg print-args", "arg ./s", "arg one", "arg two"]
    );
    // No newline at the end of the file.
    make_exec("t", format!("#! \t{}  print-args", me()).as_bytes());
    let out = run(&["./t"]);
    let lines: Vec<&str> = out.lines().filter(|l| l.starts_with("arg")).collect();
    eq!(lines[1..], ["arg print-args", "arg ./t"]);
}

unsafe fn script_with_argument() {
    make_exec("s", b"#!/bin/sh -e\nfalse\necho not reached\n");
    let (out, st) = run_env(&["./s"], &[]);
    eq!(out, "");
    eq!(libc::WEXITSTATUS(st), 1);
}

unsafe fn script_long_argument_is_one() {
    // Everything behind the interpreter is a single argument.
    make_exec("s", format!("#!{} print-args a b  c\n", me()).as_bytes());
    let (_, st) = run_env(&["./s"], &[]);
    eq!(libc::WEXITSTATUS(st), 2);
    let bytes = format!("#!/bin/echo a b  c{}\n", " ".repeat(10));
    make_exec("e", bytes.as_bytes());
    eq!(run(&["./e", "z"]), "a b  c ./e z\n");
}

unsafe fn script_nested() {
    make_exec("s0", format!("#!{} print-args\n", me()).as_bytes());
    for i in 1..=4 {
        make_exec(&format!("s{i}"), format!("#!./s{}\n", i - 1).as_bytes());
    }
    let out = run(&["./s4", "x"]);
    let lines: Vec<&str> = out.lines().filter(|l| l.starts_with("arg")).collect();
    eq!(
        lines[1..],
        [
            "arg print-args",
            "arg ./s0",
            "arg ./s1",
            "arg ./s2",
            "arg ./s3",
            "arg ./s4",
            "arg x"
        ]
    );
    make_exec("s5", b"#!./s4\n");
    make_exec("s6", b"#!./s5\n");
    eq!(exec_errno("./s6"), libc::ELOOP);
}

unsafe fn script_missing_interpreter() {
    make_exec("s", b"#!/no/such/interpreter\n");
    eq!(exec_errno("./s"), libc::ENOENT);
    make_exec("d", b"#!/tmp\n");
    eq!(exec_errno("./d"), libc::EACCES);
    write_file("plain", b"#!/bin/sh\n");
    make_exec("p", b"#!./plain\n");
    eq!(exec_errno("./p"), libc::EACCES);
}

unsafe fn script_empty_interpreter() {
    make_exec("s", b"#!\n");
    eq!(exec_errno("./s"), libc::ENOEXEC);
    make_exec("t", b"#!   \n");
    eq!(exec_errno("./t"), libc::ENOEXEC);
    // An interpreter path cut off by the 256-byte buffer.
    make_exec("u", format!("#!/{}\n", "a".repeat(300)).as_bytes());
    eq!(exec_errno("./u"), libc::ENOEXEC);
}

unsafe fn script_through_relative_path() {
    ok!(libc::mkdir(c("bin").as_ptr(), 0o755));
    make_exec("bin/tool", b"#!/bin/sh\necho \"$0\" \"$#\"\n");
    ok!(libc::chdir(c("bin").as_ptr()));
    eq!(run(&["../bin/tool", "1", "2"]), "../bin/tool 2\n");
}

unsafe fn fds_after_exec() -> Vec<i32> {
    run(&[&me(), "print-fds"])
        .lines()
        .filter_map(|l| l.parse().ok())
        .collect()
}

unsafe fn cloexec_closes() {
    let keep = open("/dev/null", libc::O_RDONLY);
    let drop = open("/dev/null", libc::O_RDONLY | libc::O_CLOEXEC);
    let dup = ok!(libc::fcntl(keep, libc::F_DUPFD_CLOEXEC, 60));
    let dup3 = ok!(libc::dup3(keep, 70, libc::O_CLOEXEC));
    let set = ok!(libc::dup2(keep, 71));
    ok!(libc::fcntl(set, libc::F_SETFD, libc::FD_CLOEXEC));
    let fds = fds_after_exec();
    check!(fds.contains(&keep), "{fds:?}");
    for gone in [drop, dup, dup3, set] {
        check!(!fds.contains(&gone), "{gone} is still open: {fds:?}");
    }
    // Only the child's table changed.
    ok!(libc::fcntl(drop, libc::F_GETFD));
}

unsafe fn dup_clears_cloexec() {
    let fd = open("/dev/null", libc::O_RDONLY | libc::O_CLOEXEC);
    let d = ok!(libc::dup2(fd, 80));
    eq!(ok!(libc::fcntl(d, libc::F_GETFD)), 0);
    check!(fds_after_exec().contains(&80));
    err!(libc::EINVAL, libc::dup3(fd, fd, 0));
    eq!(ok!(libc::dup2(fd, fd)), fd);
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
}

unsafe fn close_range_cloexec() {
    for fd in 100..110 {
        ok!(libc::dup2(0, fd));
    }
    ok!(sys!(libc::SYS_close_range, 103, 105, 4));
    ok!(sys!(libc::SYS_close_range, 107, 107, 0));
    err!(libc::EBADF, libc::fcntl(107, libc::F_GETFD));
    err!(libc::EINVAL, sys!(libc::SYS_close_range, 5, 4, 0));
    err!(libc::EINVAL, sys!(libc::SYS_close_range, 5, 6, 1));
    let fds: Vec<i32> = fds_after_exec().into_iter().filter(|f| *f >= 100).collect();
    eq!(fds, [100, 101, 102, 106, 108, 109]);
    ok!(sys!(libc::SYS_close_range, 100, u32::MAX, 0));
    err!(libc::EBADF, libc::fcntl(109, libc::F_GETFD));
}

/// A mask line of the helper's signal report, without the bits that language
/// runtimes set themselves (SIGPIPE ignored; SIGSEGV, SIGBUS caught; 32 and 33
/// belong to the threads library).
fn mask(report: &str, key: &str) -> u64 {
    let line = report.lines().find(|l| l.starts_with(key)).unwrap_or("");
    let value =
        u64::from_str_radix(line.rsplit('\t').next().unwrap_or("").trim(), 16).unwrap_or(u64::MAX);
    value
        & !((3 << 31)
            | (1 << (libc::SIGPIPE - 1))
            | (1 << (libc::SIGSEGV - 1))
            | (1 << (libc::SIGBUS - 1)))
}

extern "C" fn ignore(_: i32) {}

unsafe fn handlers_reset_ignored_kept() {
    handle(libc::SIGUSR1, ignore as *const () as usize, 0);
    libc::signal(libc::SIGUSR2, libc::SIG_IGN);
    let report = run(&[&me(), "print-signals"]);
    eq!(mask(&report, "SigCgt"), 0);
    eq!(mask(&report, "SigIgn"), 1 << (libc::SIGUSR2 - 1));
}

unsafe fn mask_and_pending_kept() {
    let (out, st) = {
        let pid_out = std::cell::RefCell::new(String::new());
        let (r, w) = pipe();
        let path = exe();
        let pid = fork(|| {
            block(&[libc::SIGUSR1, libc::SIGTERM]);
            libc::raise(libc::SIGUSR1);
            libc::dup2(w, 1);
            let argv = [path.as_ptr(), c"print-signals".as_ptr(), std::ptr::null()];
            libc::execve(path.as_ptr(), argv.as_ptr(), argv[2..].as_ptr());
        });
        libc::close(w);
        pid_out
            .borrow_mut()
            .push_str(&String::from_utf8_lossy(&read_full(r, 100_000)));
        (pid_out.into_inner(), util::wait(pid))
    };
    eq!(st, 0);
    eq!(
        mask(&out, "SigBlk"),
        (1 << (libc::SIGUSR1 - 1)) | (1 << (libc::SIGTERM - 1))
    );
    let pending = mask(&out, "SigPnd") | mask(&out, "ShdPnd");
    eq!(pending, 1 << (libc::SIGUSR1 - 1));
}

unsafe fn altstack_dropped() {
    // sigaltstack state is not kept; the helper could not start otherwise
    // with an alternate stack that is not mapped any more.
    let p = anon(65536);
    let ss = libc::stack_t {
        ss_sp: p.cast(),
        ss_flags: 0,
        ss_size: 65536,
    };
    ok!(libc::sigaltstack(&ss, std::ptr::null_mut()));
    let (_, st) = run_env(&[&me(), "exit", "3"], &[]);
    eq!(libc::WEXITSTATUS(st), 3);
}

unsafe fn exec_from_thread() {
    let path = exe();
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::dup2(w, 1);
        let t = std::thread::spawn(move || {
            let argv = [
                path.as_ptr(),
                c"exit".as_ptr(),
                c"21".as_ptr(),
                std::ptr::null(),
            ];
            libc::execv(path.as_ptr(), argv.as_ptr());
            libc::_exit(9);
        });
        let _ = t.join();
        libc::_exit(8);
    });
    libc::close(w);
    // The image that replaced us answers with the thread group's pid.
    eq!(libc::WEXITSTATUS(util::wait(pid)), 21);
    let _ = r;
}

unsafe fn exec_kills_other_threads() {
    let path = exe();
    let (r, w) = pipe();
    let pid = fork(|| {
        for _ in 0..4 {
            std::thread::spawn(move || {
                loop {
                    sleep_ms(300);
                    write_all(w, b"alive");
                }
            });
        }
        sleep_ms(20);
        libc::fcntl(w, libc::F_SETFD, 0);
        let argv = [path.as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(path.as_ptr(), argv.as_ptr());
        libc::_exit(9);
    });
    sleep_ms(600);
    libc::kill(pid, libc::SIGKILL);
    libc::close(w);
    util::wait(pid);
    eq!(read_some(r, 100), b"");
}

unsafe fn vfork_exec() {
    // posix_spawn is CLONE_VM|CLONE_VFORK with an exec in the child.
    let path = exe();
    let mut pid = 0;
    let argv = [
        path.as_ptr() as *mut libc::c_char,
        c"exit".as_ptr() as *mut _,
        c"33".as_ptr() as *mut _,
        std::ptr::null_mut(),
    ];
    let env = [std::ptr::null_mut()];
    for _ in 0..10 {
        eq!(
            libc::posix_spawn(
                &mut pid,
                path.as_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                argv.as_ptr(),
                env.as_ptr()
            ),
            0
        );
        eq!(libc::WEXITSTATUS(util::wait(pid)), 33);
    }
    // The child's exec failure comes back as an error of posix_spawn.
    let r = libc::posix_spawn(
        &mut pid,
        c"/no/such".as_ptr(),
        std::ptr::null(),
        std::ptr::null(),
        argv.as_ptr(),
        env.as_ptr(),
    );
    eq!(r, libc::ENOENT);
}

unsafe fn execveat(dirfd: i32, path: &str, flags: i32) -> i64 {
    let argv = [
        c"x".as_ptr(),
        c"exit".as_ptr(),
        c"5".as_ptr(),
        std::ptr::null(),
    ];
    sys!(
        libc::SYS_execveat,
        dirfd,
        c(path).as_ptr(),
        argv.as_ptr(),
        argv[3..].as_ptr(),
        flags
    )
}

unsafe fn execveat_empty_path() {
    let fd = open(&me(), libc::O_PATH | libc::O_CLOEXEC);
    let pid = fork(|| {
        execveat(fd, "", libc::AT_EMPTY_PATH);
        libc::_exit(9);
    });
    eq!(libc::WEXITSTATUS(util::wait(pid)), 5);
    err!(libc::ENOENT, execveat(fd, "", 0));
    err!(libc::EBADF, execveat(99, "", libc::AT_EMPTY_PATH));
    err!(libc::EINVAL, execveat(libc::AT_FDCWD, "/bin/true", 0x4));
}

unsafe fn execveat_dirfd() {
    ok!(libc::mkdir(c("d").as_ptr(), 0o755));
    ok!(libc::symlink(exe().as_ptr(), c("d/link").as_ptr()));
    let dir = open("d", libc::O_RDONLY | libc::O_DIRECTORY);
    let pid = fork(|| {
        execveat(dir, "link", 0);
        libc::_exit(9);
    });
    eq!(libc::WEXITSTATUS(util::wait(pid)), 5);
    err!(libc::ENOENT, execveat(dir, "other", 0));
    err!(libc::EACCES, execveat(dir, "", libc::AT_EMPTY_PATH));
    err!(libc::ENOTDIR, execveat(0, "link", 0));
}

unsafe fn execveat_nofollow() {
    ok!(libc::symlink(exe().as_ptr(), c("link").as_ptr()));
    err!(
        libc::ELOOP,
        execveat(libc::AT_FDCWD, "link", libc::AT_SYMLINK_NOFOLLOW)
    );
}

unsafe fn execveat_script_cloexec() {
    make_exec("s", b"#!/bin/sh\necho $0\n");
    // The interpreter could not open the script behind a close-on-exec fd.
    let fd = open("s", libc::O_RDONLY | libc::O_CLOEXEC);
    err!(libc::ENOENT, execveat(fd, "", libc::AT_EMPTY_PATH));
    let fd = open("s", libc::O_RDONLY);
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::dup2(w, 1);
        let argv = [c"x".as_ptr(), std::ptr::null()];
        sys!(
            libc::SYS_execveat,
            fd,
            c"".as_ptr(),
            argv.as_ptr(),
            argv[1..].as_ptr(),
            libc::AT_EMPTY_PATH
        );
    });
    libc::close(w);
    let out = read_full(r, 100);
    wait_ok(pid);
    eq!(String::from_utf8_lossy(&out), format!("/dev/fd/{fd}\n"));
}

unsafe fn fexec_memfd() {
    let content = read_file(&me());
    let fd = ok!(libc::memfd_create(c"prog".as_ptr(), libc::MFD_CLOEXEC));
    write_all(fd, &content);
    let pid = fork(|| {
        execveat(fd, "", libc::AT_EMPTY_PATH);
        libc::_exit(9);
    });
    eq!(libc::WEXITSTATUS(util::wait(pid)), 5);
}

unsafe fn auxv_contents() {
    eq!(libc::getauxval(libc::AT_PAGESZ), 4096);
    eq!(libc::getauxval(libc::AT_UID), u64::from(libc::getuid()));
    eq!(libc::getauxval(libc::AT_EGID), u64::from(libc::getegid()));
    eq!(libc::getauxval(libc::AT_SECURE), 0);
    eq!(libc::getauxval(libc::AT_CLKTCK), 100);
    check!(libc::getauxval(libc::AT_PHNUM) > 3);
    eq!(libc::getauxval(libc::AT_PHENT), 56);
    check!(libc::getauxval(libc::AT_ENTRY) != 0);
    let platform = libc::getauxval(libc::AT_PLATFORM) as *const libc::c_char;
    eq!(std::ffi::CStr::from_ptr(platform), c"x86_64");
    let execfn = libc::getauxval(libc::AT_EXECFN) as *const libc::c_char;
    check!(!execfn.is_null());
    // 16 random bytes, not constant over execs.
    let random = libc::getauxval(libc::AT_RANDOM) as *const [u8; 16];
    check!(!random.is_null() && *random != [0; 16]);
    // The program headers are readable at AT_PHDR and start with what the
    // file says.
    let phdr = libc::getauxval(libc::AT_PHDR) as *const u32;
    check!(*phdr <= 10 || *phdr > 0x6000_0000);
    let vdso = libc::getauxval(libc::AT_SYSINFO_EHDR) as *const [u8; 4];
    if !vdso.is_null() {
        eq!(*vdso, *b"\x7fELF");
    }
}

unsafe fn auxv_in_proc() {
    let bytes = read_file("/proc/self/auxv");
    check!(bytes.len() >= 32 && bytes.len() % 16 == 0);
    let words: Vec<u64> = bytes
        .chunks(8)
        .map(|b| u64::from_ne_bytes(b.try_into().unwrap_or([0; 8])))
        .collect();
    let mut seen = 0;
    for pair in words.chunks(2) {
        if pair[0] == libc::AT_PAGESZ || pair[0] == libc::AT_ENTRY || pair[0] == libc::AT_RANDOM {
            eq!(pair[1], libc::getauxval(pair[0]));
            seen += 1;
        }
    }
    eq!(seen, 3);
}

unsafe fn comm_and_cmdline() {
    ok!(libc::symlink(
        exe().as_ptr(),
        c("a-very-long-program-name").as_ptr()
    ));
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let pid = fork(|| {
        let argv = [
            c"zero".as_ptr(),
            c"pause".as_ptr(),
            c"".as_ptr(),
            c"two".as_ptr(),
            std::ptr::null(),
        ];
        libc::execv(c"./a-very-long-program-name".as_ptr(), argv.as_ptr());
    });
    libc::close(w);
    read_some(r, 1);
    eq!(read_text(&format!("/proc/{pid}/comm")), "a-very-long-pro\n");
    eq!(
        read_file(&format!("/proc/{pid}/cmdline")),
        b"zero\0pause\0\0two\0"
    );
    let stat = read_text(&format!("/proc/{pid}/stat"));
    check!(
        stat.starts_with(&format!("{pid} (a-very-long-pro) ")),
        "{stat}"
    );
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn proc_exe_link() {
    let link = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    check!(link.is_absolute());
    let a = std::fs::metadata(&link)
        .map(|m| std::os::unix::fs::MetadataExt::ino(&m))
        .unwrap_or(1);
    let b = std::fs::metadata("/proc/self/exe")
        .map(|m| std::os::unix::fs::MetadataExt::ino(&m))
        .unwrap_or(2);
    eq!(a, b);
}

unsafe fn deleted_exe_link() {
    make_exec("prog", &read_file(&me()));
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let pid = fork(|| {
        let argv = [c"prog".as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(c"./prog".as_ptr(), argv.as_ptr());
    });
    libc::close(w);
    read_some(r, 1);
    ok!(libc::unlink(c"prog".as_ptr()));
    let link = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    check!(
        link.to_string_lossy().ends_with("/prog (deleted)"),
        "{link:?}"
    );
    // It still opens.
    let fd = open(&format!("/proc/{pid}/exe"), libc::O_RDONLY);
    eq!(read_some(fd, 4), b"\x7fELF");
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn ids_of(path: &str, uid: u32, no_new_privs: bool) -> String {
    output_as(path, "print-ids", uid, no_new_privs)
}

/// What the program prints in a role, executed with this uid and gid.
unsafe fn output_as(path: &str, helper: &str, uid: u32, no_new_privs: bool) -> String {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::dup2(w, 1);
        ok!(libc::setgroups(0, std::ptr::null()));
        ok!(libc::setresgid(uid, uid, uid));
        ok!(libc::setresuid(uid, uid, uid));
        if no_new_privs {
            ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        }
        let helper = c(helper);
        let argv = [c"p".as_ptr(), helper.as_ptr(), std::ptr::null()];
        libc::execv(c(path).as_ptr(), argv.as_ptr());
        eprintln!("exec: {}", errno_text());
        libc::_exit(9);
    });
    libc::close(w);
    let out = String::from_utf8_lossy(&read_full(r, 1000)).into_owned();
    wait_ok(pid);
    out
}

unsafe fn setuid_copy(owner: u32, group: u32, mode: u32) {
    make_exec("prog", &read_file(&me()));
    ok!(libc::chown(c"prog".as_ptr(), owner, group));
    ok!(libc::chmod(c"prog".as_ptr(), mode));
}

unsafe fn setuid_bit() {
    setuid_copy(4000, 4000, 0o4755);
    eq!(
        ids_of("./prog", 1234, false),
        "1234 4000 1234 1234\nsecure 1\n"
    );
    eq!(
        ids_of("./prog", 4000, false),
        "4000 4000 4000 4000\nsecure 0\n"
    );
}

unsafe fn setuid_bit_no_new_privs() {
    setuid_copy(4000, 4000, 0o6755);
    let out = ids_of("./prog", 1234, true);
    check!(out.starts_with("1234 1234 1234 1234\n"), "{out}");
}

unsafe fn unreadable_is_not_dumpable() {
    for (mode, dumpable) in [(0o755, true), (0o711, false)] {
        setuid_copy(4000, 4000, mode);
        let out = output_as("./prog", "print-dumpable", 1234, false);
        check!((out.trim() == "1") == dumpable, "{mode:o}: {out}");
    }
}

unsafe fn setgid_bit() {
    setuid_copy(4000, 4001, 0o2755);
    eq!(
        ids_of("./prog", 1234, false),
        "1234 1234 1234 4001\nsecure 1\n"
    );
    // Without group execute the bit means nothing here.
    setuid_copy(4000, 4001, 0o2745);
    eq!(
        ids_of("./prog", 1234, false),
        "1234 1234 1234 1234\nsecure 0\n"
    );
}

unsafe fn mappings_replaced() {
    // A fixed mapping of the old image is not there after the exec.
    let p = libc::mmap(
        0x1234_5000 as *mut _,
        4096,
        libc::PROT_READ,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
        -1,
        0,
    );
    eq!(p as usize, 0x1234_5000);
    let out = run(&["/bin/cat", "/proc/self/maps"]);
    check!(!out.contains("12345000-"), "{out}");
    check!(out.contains("[stack]"), "{out}");
    check!(out.contains("cat"), "{out}");
}

unsafe fn brk_starts_after_image() {
    let out = run(&["/bin/cat", "/proc/self/maps"]);
    let heap = out.lines().find(|l| l.ends_with("[heap]"));
    check!(heap.is_some(), "{out}");
}

unsafe fn stack_holds_big_arguments() {
    let arg = "x".repeat(100_000);
    let out = run(&[&me(), "print-args", &arg, &arg, &arg, &arg]);
    eq!(out.lines().filter(|l| l.len() == 100_004).count(), 4);
}

unsafe fn text_busy() {
    make_exec("prog", &read_file(&me()));
    let fd = open("prog", libc::O_WRONLY);
    eq!(exec_errno("./prog"), libc::ETXTBSY);
    libc::close(fd);
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let pid = fork(|| {
        let argv = [c"prog".as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(c"./prog".as_ptr(), argv.as_ptr());
    });
    libc::close(w);
    read_some(r, 1);
    err!(libc::ETXTBSY, libc::open(c"prog".as_ptr(), libc::O_WRONLY));
    err!(libc::ETXTBSY, libc::truncate(c"prog".as_ptr(), 0));
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
    check!(eventually(
        || libc::open(c"prog".as_ptr(), libc::O_WRONLY) >= 0
    ));
}

unsafe fn pid_kept() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::dup2(w, 1);
        let argv = [
            c"sh".as_ptr(),
            c"-c".as_ptr(),
            c"echo $$".as_ptr(),
            std::ptr::null(),
        ];
        libc::execv(c"/bin/sh".as_ptr(), argv.as_ptr());
    });
    libc::close(w);
    let out = read_full(r, 100);
    wait_ok(pid);
    eq!(String::from_utf8_lossy(&out), format!("{pid}\n"));
}

unsafe fn itimer_kept_posix_timer_dropped() {
    let path = exe();
    let pid = fork(|| {
        let value = libc::itimerval {
            it_interval: libc::timeval {
                tv_sec: 0,
                tv_usec: 0,
            },
            it_value: libc::timeval {
                tv_sec: 0,
                tv_usec: 100_000,
            },
        };
        ok!(sys!(
            libc::SYS_setitimer,
            libc::ITIMER_REAL,
            &value as *const _,
            0
        ));
        let argv = [path.as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(path.as_ptr(), argv.as_ptr());
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGALRM);
    let pid = fork(|| {
        let mut id: i32 = 0;
        ok!(sys!(
            libc::SYS_timer_create,
            libc::CLOCK_MONOTONIC,
            0,
            &mut id as *mut i32
        ));
        let spec = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            },
        };
        ok!(sys!(libc::SYS_timer_settime, id, 0, &spec as *const _, 0));
        let argv = [c"sleep".as_ptr(), c"0.3".as_ptr(), std::ptr::null()];
        libc::execv(c"/bin/sleep".as_ptr(), argv.as_ptr());
    });
    eq!(util::wait(pid), 0);
}

unsafe fn umask_cwd_kept() {
    ok!(libc::mkdir(c("sub").as_ptr(), 0o755));
    ok!(libc::chdir(c("sub").as_ptr()));
    libc::umask(0o027);
    let out = run(&["/bin/sh", "-c", "umask; pwd"]);
    let mut lines = out.lines();
    eq!(lines.next(), Some("0027"));
    check!(lines.next().is_some_and(|l| l.ends_with("/sub")));
}

unsafe fn noexec_directory() {
    ok!(libc::mkdir(c("dir").as_ptr(), 0o755));
    eq!(exec_errno("dir"), libc::EACCES);
    eq!(exec_errno("dir/"), libc::EACCES);
    make_exec("file", b"#!/bin/sh\n");
    eq!(exec_errno("file/"), libc::ENOTDIR);
}

unsafe fn aslr_moves() {
    let mut stacks = std::collections::HashSet::new();
    let mut heaps = std::collections::HashSet::new();
    for _ in 0..4 {
        let out = run(&["/bin/cat", "/proc/self/maps"]);
        stacks.insert(
            out.lines()
                .find(|l| l.ends_with("[stack]"))
                .unwrap_or("")
                .to_owned(),
        );
        heaps.insert(
            out.lines()
                .find(|l| l.ends_with("[heap]"))
                .unwrap_or("")
                .to_owned(),
        );
    }
    check!(stacks.len() > 1, "{stacks:?}");
    check!(heaps.len() > 1, "{heaps:?}");
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
