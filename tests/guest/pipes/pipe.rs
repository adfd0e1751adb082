//! pipe(7), fifo(7).

use super::*;
use crate::util::*;

cases![
    pipe_basic,
    pipe2_flags,
    pipe_eof_and_epipe,
    pipe_capacity,
    pipe_atomic_writes,
    pipe_nonblock_partial,
    pipe_resize,
    pipe_blocking_writer,
    pipe_many_processes,
    pipe_packet_mode,
    pipe_stat_and_fionread,
    fifo_open_blocks,
    fifo_data_and_reopen,
    fifo_rdwr,
    sigpipe_process_death,
    shell_pipeline,
    pipe_splice_chain,
    async_io_signal,
];

unsafe fn pipe_basic() {
    let (r, w) = pipe();
    write_all(w, b"hello ");
    write_all(w, b"world");
    eq!(read_some(r, 5), b"hello");
    eq!(read_some(r, 100), b" world");
    let mut b = [0u8; 1];
    err!(libc::EBADF, libc::read(w, b.as_mut_ptr().cast(), 1));
    err!(libc::EBADF, libc::write(r, b.as_ptr().cast(), 1));
}

unsafe fn pipe2_flags() {
    let (r, w) = pipe2(libc::O_CLOEXEC | libc::O_NONBLOCK);
    eq!(ok!(libc::fcntl(r, libc::F_GETFD)), libc::FD_CLOEXEC);
    eq!(
        ok!(libc::fcntl(w, libc::F_GETFL)),
        libc::O_WRONLY | libc::O_NONBLOCK
    );
    let mut b = [0u8; 1];
    err!(libc::EAGAIN, libc::read(r, b.as_mut_ptr().cast(), 1));
    let mut fds = [0; 2];
    err!(libc::EINVAL, libc::pipe2(fds.as_mut_ptr(), libc::O_APPEND));
    err!(libc::EFAULT, libc::pipe2(8 as *mut i32, 0));
}

unsafe fn pipe_eof_and_epipe() {
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    let (r, w) = pipe();
    write_all(w, b"last");
    libc::close(w);
    eq!(read_some(r, 10), b"last");
    eq!(read_some(r, 10), b"");
    let (r, w) = pipe();
    libc::close(r);
    err!(libc::EPIPE, libc::write(w, b"x".as_ptr().cast(), 1));
}

unsafe fn pipe_capacity() {
    let (r, w) = pipe2(libc::O_NONBLOCK);
    eq!(ok!(libc::fcntl(w, libc::F_GETPIPE_SZ)), 65536);
    // Page slots: partly filled pages merge, so all of it is usable.
    let mut total = 0;
    loop {
        let n = libc::write(w, [1u8; 4096].as_ptr().cast(), 4096);
        if n < 0 {
            break;
        }
        total += n;
    }
    eq!(errno(), libc::EAGAIN);
    eq!(total, 65536);
    eq!(poll_one(w, libc::POLLOUT, 0), 0);
    // One byte read from a full page does not make room for a page.
    eq!(read_full(r, 4096).len(), 4096);
    eq!(poll_one(w, libc::POLLOUT, 0), libc::POLLOUT);
}

unsafe fn pipe_atomic_writes() {
    let (r, w) = pipe();
    let writers: Vec<i32> = (0..4u8)
        .map(|i| {
            fork(|| {
                libc::close(r);
                for _ in 0..100 {
                    eq!(libc::write(w, [b'a' + i; 4096].as_ptr().cast(), 4096), 4096);
                }
            })
        })
        .collect();
    libc::close(w);
    let mut blocks = 0;
    loop {
        let part = read_full(r, 4096);
        if part.is_empty() {
            break;
        }
        eq!(part.len(), 4096);
        check!(
            part.iter().all(|b| *b == part[0]),
            "an atomic write was torn"
        );
        blocks += 1;
    }
    eq!(blocks, 400);
    for w in writers {
        wait_ok(w);
    }
}

unsafe fn pipe_nonblock_partial() {
    let (r, w) = pipe2(libc::O_NONBLOCK);
    // More than fits: what fits is written.
    let big = vec![2u8; 100_000];
    eq!(libc::write(w, big.as_ptr().cast(), big.len()), 65536);
    err!(libc::EAGAIN, libc::write(w, big.as_ptr().cast(), 1));
    eq!(read_full(r, 5000).len(), 5000);
    // Up to PIPE_BUF all or nothing.
    let n = libc::write(w, big.as_ptr().cast(), 4096);
    eq!(n, 4096);
    err!(libc::EAGAIN, libc::write(w, big.as_ptr().cast(), 4096));
}

unsafe fn pipe_resize() {
    let (_r, w) = pipe2(libc::O_NONBLOCK);
    eq!(ok!(libc::fcntl(w, libc::F_SETPIPE_SZ, 100_000)), 131_072);
    eq!(ok!(libc::fcntl(w, libc::F_GETPIPE_SZ)), 131_072);
    check!(fill(w) > 65536);
    err!(libc::EBUSY, libc::fcntl(w, libc::F_SETPIPE_SZ, 4096));
    let (_r, w) = pipe();
    eq!(ok!(libc::fcntl(w, libc::F_SETPIPE_SZ, 1)), 4096);
    err!(libc::EINVAL, libc::fcntl(w, libc::F_SETPIPE_SZ, u32::MAX));
    err!(
        libc::EBADF,
        libc::fcntl(open("f", libc::O_CREAT | libc::O_RDWR), libc::F_GETPIPE_SZ)
    );
    in_child(|| {
        ok!(libc::setresuid(1000, 1000, 1000));
        err!(libc::EPERM, libc::fcntl(w, libc::F_SETPIPE_SZ, 2 << 20));
    });
}

unsafe fn pipe_blocking_writer() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(r);
        write_all(w, &vec![3u8; 1_000_000]);
    });
    libc::close(w);
    let mut n = 0;
    loop {
        let part = read_some(r, 70_000);
        if part.is_empty() {
            break;
        }
        n += part.len();
    }
    eq!(n, 1_000_000);
    wait_ok(pid);
}

unsafe fn pipe_many_processes() {
    // A token passed around a ring of processes.
    let n = 10;
    let pipes: Vec<(i32, i32)> = (0..n).map(|_| pipe()).collect();
    let kids: Vec<i32> = (1..n)
        .map(|i| {
            let pipes = &pipes;
            fork(move || {
                for _ in 0..50 {
                    let token = read_full(pipes[i - 1].0, 4);
                    write_all(pipes[i].1, &token);
                }
            })
        })
        .collect();
    for i in 0..50u32 {
        write_all(pipes[0].1, &i.to_ne_bytes());
        eq!(read_full(pipes[n - 1].0, 4), i.to_ne_bytes());
    }
    for k in kids {
        wait_ok(k);
    }
}

unsafe fn pipe_packet_mode() {
    let (r, w) = pipe2(libc::O_DIRECT);
    write_all(w, b"one");
    write_all(w, b"two");
    eq!(read_some(r, 100), b"one");
    // What does not fit is dropped.
    eq!(read_some(r, 2), b"tw");
    write_all(w, b"three");
    eq!(read_some(r, 100), b"three");
}

unsafe fn pipe_stat_and_fionread() {
    let (r, w) = pipe();
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(w, &mut st));
    eq!(st.st_mode & libc::S_IFMT, libc::S_IFIFO);
    let mut st2: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(r, &mut st2));
    eq!(st.st_ino, st2.st_ino);
    write_all(w, &[0; 777]);
    let mut n = 0;
    ok!(libc::ioctl(r, libc::FIONREAD, &mut n));
    eq!(n, 777);
}

unsafe fn fifo_open_blocks() {
    ok!(libc::mkfifo(c("p").as_ptr(), 0o644));
    let pid = fork(|| {
        let w = open("p", libc::O_WRONLY);
        write_all(w, b"opened");
    });
    wait_state(pid, "S");
    let r = open("p", libc::O_RDONLY);
    eq!(read_some(r, 10), b"opened");
    wait_ok(pid);
    eq!(read_some(r, 10), b"");
}

unsafe fn fifo_data_and_reopen() {
    ok!(libc::mkfifo(c("p").as_ptr(), 0o644));
    let r = open("p", libc::O_RDONLY | libc::O_NONBLOCK);
    for i in 0..3u8 {
        let w = open("p", libc::O_WRONLY);
        write_all(w, &[i]);
        libc::close(w);
        eq!(read_some(r, 5), [i]);
        eq!(read_some(r, 5), b"");
    }
    // Left-over data is dropped when the last end closes.
    let w = open("p", libc::O_WRONLY);
    write_all(w, b"lost");
    libc::close(w);
    libc::close(r);
    let r = open("p", libc::O_RDONLY | libc::O_NONBLOCK);
    eq!(read_some(r, 5), b"");
}

unsafe fn fifo_rdwr() {
    ok!(libc::mkfifo(c("p").as_ptr(), 0o644));
    let fd = open("p", libc::O_RDWR);
    write_all(fd, b"self");
    eq!(read_some(fd, 10), b"self");
    eq!(poll_one(fd, libc::POLLOUT | libc::POLLIN, 0), libc::POLLOUT);
}

unsafe fn sigpipe_process_death() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(r);
        loop {
            libc::write(w, [0u8; 4096].as_ptr().cast(), 4096);
        }
    });
    libc::close(w);
    read_some(r, 100);
    libc::close(r);
    eq!(libc::WTERMSIG(wait(pid)), libc::SIGPIPE);
}

unsafe fn shell_pipeline() {
    let out = crate::exec::run(&[
        "/bin/sh",
        "-c",
        "seq 1 1000 | grep 7 | sort -n | tail -1; yes | head -3 | wc -l",
    ]);
    eq!(out.split_whitespace().collect::<Vec<_>>(), ["997", "3"]);
}

unsafe fn pipe_splice_chain() {
    let (r, w) = pipe();
    let (r2, w2) = pipe();
    let pid = fork(|| {
        libc::close(w);
        libc::close(r2);
        loop {
            let n = ok!(libc::splice(
                r,
                std::ptr::null_mut(),
                w2,
                std::ptr::null_mut(),
                65536,
                0
            ));
            if n == 0 {
                break;
            }
        }
    });
    libc::close(w2);
    let data: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
    let copy = data.clone();
    let writer = fork(|| write_all(w, &copy));
    libc::close(w);
    check!(read_full(r2, data.len() + 1) == data);
    wait_ok(writer);
    wait_ok(pid);
}

unsafe fn async_io_signal() {
    handle(libc::SIGIO, nothing as *const () as usize, 0);
    block(&[libc::SIGIO]);
    let mut sv = [0; 2];
    ok!(libc::socketpair(
        libc::AF_UNIX,
        libc::SOCK_STREAM,
        0,
        sv.as_mut_ptr()
    ));
    ok!(libc::fcntl(sv[0], libc::F_SETOWN, libc::getpid()));
    eq!(ok!(libc::fcntl(sv[0], libc::F_GETOWN)), libc::getpid());
    ok!(libc::fcntl(sv[0], libc::F_SETFL, libc::O_ASYNC));
    write_all(sv[1], b"x");
    let ts = libc::timespec {
        tv_sec: 2,
        tv_nsec: 0,
    };
    eq!(
        ok!(libc::sigtimedwait(
            &sigset(&[libc::SIGIO]),
            std::ptr::null_mut(),
            &ts
        )),
        libc::SIGIO
    );
}
