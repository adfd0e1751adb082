//! What is measured. A row of the micro benchmarks is a row of
//! `guest/micro.c` by the same name, one of programs a set of functions in
//! `guest/programs.sh`.

use clap::ValueEnum;

/// Kinds of rows, each measured in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Single calls: [`crate::micro`]
    Micro,
    /// The same calls by several threads or processes at once
    Scaling,
    /// Real programs: [`crate::programs`]
    Macro,
    /// From the command to the end of a program: [`crate::startup`]
    StartUp,
    /// What an idle sandbox takes: [`crate::density`]
    Density,
}

/// What a row's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Bytes,
    /// Of one CPU.
    Percent,
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    None,
    /// To the target that the row is compared with.
    Ratio(f64),
    Value(f64),
    /// More than native.
    Above(f64),
}

/// One workload.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    pub group: Group,
    pub unit: Unit,
    pub goal: Goal,
    /// The target whose median is 1.
    pub base: &'static str,
}

const fn any(group: Group, name: &'static str, goal: Goal, what: &'static str) -> Row {
    Row {
        name,
        what,
        group,
        unit: Unit::Nanoseconds,
        goal,
        base: "native",
    }
}

const fn row(name: &'static str, at_most: f64, what: &'static str) -> Row {
    any(Group::Micro, name, Goal::Ratio(at_most), what)
}

const fn free(name: &'static str, what: &'static str) -> Row {
    any(Group::Micro, name, Goal::None, what)
}

const fn scaling(name: &'static str, goal: Goal, what: &'static str) -> Row {
    any(Group::Scaling, name, goal, what)
}

const fn program(name: &'static str, at_most: f64, what: &'static str) -> Row {
    any(Group::Macro, name, Goal::Ratio(at_most), what)
}

const fn density(name: &'static str, unit: Unit, goal: Goal, what: &'static str) -> Row {
    Row {
        unit,
        ..any(Group::Density, name, goal, what)
    }
}

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    row(
        "getppid",
        1.0,
        "the cheapest call, through libc's syscall()",
    ),
    free("getpid", "the same, of a number that does not change"),
    row("close-bad", 1.0, "close(-1)"),
    free("sched-yield", "sched_yield()"),
    free("clock-gettime", "through the vDSO"),
    row("read-1-zero", 1.2, "one byte of /dev/zero"),
    row("pread-4k-tmpfs", 1.2, "4 KiB of a tmpfs file"),
    row("pwrite-4k-tmpfs", 1.2, "4 KiB to a tmpfs file"),
    row("pread-4k-root", 1.4, "4 KiB of a file of the root"),
    row("pwrite-4k-root", 1.4, "4 KiB to a file of the root"),
    row("pread-64k-tmpfs", 1.2, "64 KiB"),
    row("pwrite-64k-tmpfs", 1.2, "64 KiB"),
    row("pread-64k-root", 1.2, "64 KiB"),
    row("pwrite-64k-root", 1.2, "64 KiB"),
    row("pread-1m-tmpfs", 1.2, "1 MiB"),
    row("pwrite-1m-tmpfs", 1.2, "1 MiB"),
    row("pread-1m-root", 1.2, "1 MiB"),
    row("pwrite-1m-root", 1.2, "1 MiB"),
    row("stat-tmpfs", 0.8, "stat of a path of two components"),
    row("stat-root", 0.8, "stat of a path of two components"),
    row("stat-deep-root", 0.8, "stat of a path of five components"),
    row("stat-missing-root", 0.8, "stat of a name that is not there"),
    free("fstat-root", "fstat of an open file"),
    row("access-tmpfs", 0.8, "access(R_OK)"),
    row("access-root", 0.8, "access(R_OK)"),
    row("readlink-tmpfs", 0.8, "readlink"),
    row("readlink-root", 0.8, "readlink"),
    row("open-close-tmpfs", 1.0, "open and close"),
    row("open-close-root", 1.0, "open and close"),
    free("create-unlink-tmpfs", "create, close and remove a file"),
    free("create-unlink-root", "create, close and remove a file"),
    free("mkdir-rmdir-tmpfs", "make and remove a directory"),
    free("mkdir-rmdir-root", "make and remove a directory"),
    free("rename-tmpfs", "rename there and back"),
    free("rename-root", "rename there and back"),
    row("getdents-10000", 1.0, "list a directory of 10,000 entries"),
    row("find-50000", 1.0, "list a tree of 50,000 files"),
    row("find-lstat-50000", 1.0, "the same with lstat of each"),
    row("mmap-touch-munmap", 1.3, "map, touch and unmap 16 pages"),
    row("malloc-8-threads", 1.2, "malloc and free in eight threads"),
    row("pipe", 1.0, "write and read one byte in one thread"),
    free("pipe-64k", "write and read 64 KiB in one thread"),
    row(
        "pipe-ping-pong",
        1.0,
        "one byte to another process and back",
    ),
    row("unix-pair", 0.6, "write and read one byte in one thread"),
    free("unix-ping-pong", "one byte to another process and back"),
    row("tcp-loopback", 0.5, "write and read one byte in one thread"),
    row("tcp-ping-pong", 0.5, "one byte to another process and back"),
    free("udp-loopback", "send and receive one byte in one thread"),
    free("eventfd", "write and read"),
    row("epoll-ready", 1.0, "epoll_wait of a pipe that has data"),
    row(
        "futex-ping-pong",
        1.2,
        "wake another thread and wait for it",
    ),
    row("pthread-create-join", 1.5, "a thread that ends at once"),
    row("kill-self-handler", 1.5, "a signal with a handler"),
    row("fork-exit-wait", 1.5, "a process that ends at once"),
    row("fork-exec-wait", 1.5, "a static program that ends at once"),
    row(
        "posix-spawn-wait",
        1.5,
        "a static program that ends at once",
    ),
    row("cpu", 1.02, "arithmetic alone"),
    scaling("threads-1", Goal::None, "getppid in one thread"),
    scaling("threads-2", Goal::None, "getppid in two threads at once"),
    scaling("threads-4", Goal::None, "getppid in four threads at once"),
    scaling(
        "threads-16",
        Goal::None,
        "getppid in sixteen threads at once",
    ),
    scaling(
        "processes-4",
        Goal::None,
        "1,000 preads of 4 KiB in each of four processes",
    ),
    scaling(
        "yield-barrier-4",
        Goal::Ratio(1.1),
        "four threads meet at a barrier by sched_yield",
    ),
    program("bash-1000", 1.3, "a script of 1,000 small commands"),
    program("make-100", 1.3, "make -j2 of a C project of 100 files"),
    program("git-5000", 1.3, "clone, status, checkout of 5,000 files"),
    program("tar-10000", 1.3, "tar x of 10,000 files"),
    program("find-files", 1.0, "find over 50,000 files"),
    program("python-pass", 1.3, "python3 -c pass"),
    program("node-0", 1.3, "node -e 0"),
    program("compileall", 1.1, "compileall of python's standard library"),
    program("sqlite-100k", 1.1, "100,000 inserts in one transaction"),
    program("redis-set", 1.0, "redis-benchmark SET, 50 clients"),
    program("redis-get", 1.0, "redis-benchmark GET, 50 clients"),
    program("memcached", 1.0, "memcached, 90 % get, by memcaslap"),
    program("nginx-wrk", 1.0, "nginx, 1 KiB, by wrk"),
    program("pgbench", 1.2, "pgbench on a unix socket"),
    program("sha256", 1.02, "sha256sum of 256 MiB"),
    program(
        "openmp",
        1.1,
        "threads as many as CPUs that spin at barriers",
    ),
    program("javac", 1.02, "javac of a small program"),
    program("java-gc", 1.1, "a Java program that allocates"),
    program("go-gc", 1.1, "a Go program that allocates"),
    Row {
        base: "runc",
        ..any(
            Group::StartUp,
            "run-true",
            Goal::Ratio(0.7),
            "`run` of a program that ends at once; against runc",
        )
    },
    Row {
        base: "runc",
        ..any(
            Group::StartUp,
            "exec-true",
            Goal::None,
            "`exec` of one in a running container; against runc",
        )
    },
    density(
        "idle-pss",
        Unit::Bytes,
        Goal::Value(6.0 * 1024.0 * 1024.0),
        "PSS of all processes of an idle sandbox",
    ),
    density(
        "process-pss",
        Unit::Bytes,
        Goal::Above(300.0 * 1024.0),
        "PSS of each further process, above native",
    ),
    density(
        "idle-cpu",
        Unit::Percent,
        Goal::Value(0.05),
        "CPU of an idle sandbox",
    ),
];
