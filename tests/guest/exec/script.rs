//! Interpreter scripts.

use super::*;
use crate::util::*;

cases![
    script_basic,
    script_with_argument,
    script_long_argument_is_one,
    script_nested,
    script_missing_interpreter,
    script_empty_interpreter,
    script_through_relative_path,
];

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
