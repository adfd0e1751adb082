//! What is measured. A row of the micro benchmarks is a row of
//! `guest/micro.c` by the same name.

/// One workload.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    /// The ratio to native it is to reach, if one is set.
    pub at_most: Option<f64>,
}

const fn row(name: &'static str, at_most: f64, what: &'static str) -> Row {
    Row {
        name,
        what,
        at_most: Some(at_most),
    }
}

const fn free(name: &'static str, what: &'static str) -> Row {
    Row {
        name,
        what,
        at_most: None,
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
];
