//! pipe(7), fifo(7), poll(2), select(2), epoll(7), eventfd(2).

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
    poll_pipe_states,
    poll_many_and_errors,
    poll_timeout,
    poll_hup_and_err,
    poll_wakes_from_other,
    ppoll_mask,
    select_basic,
    select_errors_and_time_left,
    pselect_mask,
    poll_regular_files,
    epoll_basic,
    epoll_level_and_edge,
    epoll_oneshot,
    epoll_data_and_mod,
    epoll_errors,
    epoll_nested,
    epoll_closed_fd_leaves,
    epoll_dup_stays,
    epoll_maxevents_fair,
    epoll_edge_new_data,
    epoll_exclusive_and_threads,
    epoll_pwait2_timeout,
    epoll_wakes_thread,
    epoll_fork_shares,
    epoll_rdhup,
    eventfd_counter,
    eventfd_semaphore,
    eventfd_overflow,
    eventfd_blocking,
    eventfd_errors,
    eventfd_poll,
    sigpipe_process_death,
    shell_pipeline,
    pipe_splice_chain,
    async_io_signal,
];

unsafe fn pipe2(flags: i32) -> (i32, i32) {
    let mut fds = [0; 2];
    ok!(libc::pipe2(fds.as_mut_ptr(), flags));
    (fds[0], fds[1])
}

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

unsafe fn fill(w: i32) -> usize {
    let mut total = 0;
    loop {
        let n = libc::write(w, [1u8; 1000].as_ptr().cast(), 1000);
        if n < 0 {
            eq!(errno(), libc::EAGAIN);
            return total;
        }
        total += n as usize;
    }
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

unsafe fn poll_pipe_states() {
    let (r, w) = pipe2(libc::O_NONBLOCK);
    eq!(poll_one(r, libc::POLLIN, 0), 0);
    eq!(poll_one(w, libc::POLLOUT, 0), libc::POLLOUT);
    write_all(w, b"x");
    eq!(
        poll_one(r, libc::POLLIN | libc::POLLRDNORM, 0),
        libc::POLLIN | libc::POLLRDNORM
    );
    fill(w);
    eq!(poll_one(w, libc::POLLOUT, 0), 0);
}

unsafe fn poll_many_and_errors() {
    let pipes: Vec<_> = (0..20).map(|_| pipe()).collect();
    write_all(pipes[7].1, b"x");
    write_all(pipes[13].1, b"x");
    let mut set: Vec<libc::pollfd> = pipes
        .iter()
        .map(|p| libc::pollfd {
            fd: p.0,
            events: libc::POLLIN,
            revents: 99,
        })
        .collect();
    set.push(libc::pollfd {
        fd: -1,
        events: libc::POLLIN,
        revents: 99,
    });
    set.push(libc::pollfd {
        fd: 999,
        events: libc::POLLIN,
        revents: 0,
    });
    eq!(ok!(libc::poll(set.as_mut_ptr(), set.len() as u64, 1000)), 3);
    eq!(
        (set[7].revents, set[13].revents, set[0].revents),
        (libc::POLLIN, libc::POLLIN, 0)
    );
    eq!((set[20].revents, set[21].revents), (0, libc::POLLNVAL));
    err!(libc::EFAULT, libc::poll(8 as *mut _, 1, 0));
    in_child(|| {
        let limit = libc::rlimit {
            rlim_cur: 10,
            rlim_max: 10,
        };
        ok!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit));
        err!(libc::EINVAL, libc::poll(set.as_mut_ptr(), 11, 0));
    });
}

unsafe fn poll_timeout() {
    let start = now_ms();
    eq!(ok!(libc::poll(std::ptr::null_mut(), 0, 50)), 0);
    let took = now_ms() - start;
    check!((49..1000).contains(&took), "{took}");
    let (r, _w) = pipe();
    eq!(poll_one(r, libc::POLLIN, 20), 0);
}

unsafe fn poll_hup_and_err() {
    let (r, w) = pipe();
    libc::close(w);
    eq!(poll_one(r, libc::POLLIN, 0), libc::POLLHUP);
    let (r, w) = pipe();
    write_all(w, b"x");
    libc::close(w);
    eq!(poll_one(r, libc::POLLIN, 0), libc::POLLHUP | libc::POLLIN);
    let (r, w) = pipe();
    libc::close(r);
    eq!(poll_one(w, libc::POLLOUT, 0), libc::POLLERR | libc::POLLOUT);
    eq!(poll_one(w, 0, 0), libc::POLLERR);
}

unsafe fn poll_wakes_from_other() {
    let (r, w) = pipe();
    let pid = fork(|| {
        sleep_ms(20);
        write_all(w, b"x");
    });
    eq!(poll_one(r, libc::POLLIN, 5000), libc::POLLIN);
    wait_ok(pid);
    // A close wakes as well.
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(r);
        sleep_ms(20);
    });
    libc::close(w);
    eq!(poll_one(r, libc::POLLIN, 5000), libc::POLLHUP);
    wait_ok(pid);
}

extern "C" fn nothing(_: i32) {}

unsafe fn ppoll_mask() {
    handle(libc::SIGUSR1, nothing as *const () as usize, 0);
    block(&[libc::SIGUSR1]);
    libc::raise(libc::SIGUSR1);
    let (r, _w) = pipe();
    let mut p = libc::pollfd {
        fd: r,
        events: libc::POLLIN,
        revents: 0,
    };
    let ts = libc::timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    err!(libc::EINTR, libc::ppoll(&mut p, 1, &ts, &sigset(&[])));
    let ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    eq!(ok!(libc::ppoll(&mut p, 1, &ts, std::ptr::null())), 0);
    // The raw call writes the remaining time back.
    let mut ts = libc::timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    p.fd = _w;
    p.events = libc::POLLOUT;
    eq!(
        ok!(sys!(
            libc::SYS_ppoll,
            &mut p as *mut _,
            1,
            &mut ts as *mut _,
            0,
            8
        )),
        1
    );
    check!(ts.tv_sec == 4);
    ts.tv_nsec = -1;
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_ppoll,
            &mut p as *mut _,
            1,
            &mut ts as *mut _,
            0,
            8
        )
    );
}

unsafe fn fdset(fds: &[i32]) -> libc::fd_set {
    let mut set: libc::fd_set = std::mem::zeroed();
    for fd in fds {
        libc::FD_SET(*fd, &mut set);
    }
    set
}

unsafe fn select_basic() {
    let (r, w) = pipe();
    let (r2, _w2) = pipe();
    write_all(w, b"x");
    let mut rd = fdset(&[r, r2]);
    let mut wr = fdset(&[w]);
    let max = r.max(r2).max(w) + 1;
    let n = ok!(libc::select(
        max,
        &mut rd,
        &mut wr,
        std::ptr::null_mut(),
        std::ptr::null_mut()
    ));
    eq!(n, 2);
    check!(libc::FD_ISSET(r, &rd) && !libc::FD_ISSET(r2, &rd) && libc::FD_ISSET(w, &wr));
}

unsafe fn select_errors_and_time_left() {
    let (r, w) = pipe();
    let mut rd = fdset(&[60]);
    err!(
        libc::EBADF,
        libc::select(
            61,
            &mut rd,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut()
        )
    );
    err!(
        libc::EINVAL,
        libc::select(
            -1,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut()
        )
    );
    let mut tv = libc::timeval {
        tv_sec: 0,
        tv_usec: -1,
    };
    err!(
        libc::EINVAL,
        libc::select(
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &mut tv
        )
    );
    // Linux writes the time left back.
    let mut tv = libc::timeval {
        tv_sec: 3,
        tv_usec: 0,
    };
    write_all(w, b"x");
    let mut rd = fdset(&[r]);
    eq!(
        ok!(libc::select(
            r + 1,
            &mut rd,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &mut tv
        )),
        1
    );
    eq!(tv.tv_sec, 2);
    read_some(r, 1);
    let mut tv = libc::timeval {
        tv_sec: 0,
        tv_usec: 20_000,
    };
    let mut rd = fdset(&[r]);
    eq!(
        ok!(libc::select(
            r + 1,
            &mut rd,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &mut tv
        )),
        0
    );
    check!(!libc::FD_ISSET(r, &rd));
    eq!((tv.tv_sec, tv.tv_usec), (0, 0));
}

unsafe fn pselect_mask() {
    handle(
        libc::SIGUSR1,
        nothing as *const () as usize,
        libc::SA_RESTART,
    );
    block(&[libc::SIGUSR1]);
    libc::raise(libc::SIGUSR1);
    err!(
        libc::EINTR,
        libc::pselect(
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null(),
            &sigset(&[])
        )
    );
    let mut now = sigset(&[]);
    libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut now);
    eq!(libc::sigismember(&now, libc::SIGUSR1), 1);
}

unsafe fn poll_regular_files() {
    let fd = open("f", libc::O_CREAT | libc::O_RDWR);
    eq!(
        poll_one(fd, libc::POLLIN | libc::POLLOUT, 0),
        libc::POLLIN | libc::POLLOUT
    );
    let null = open("/dev/null", libc::O_RDWR);
    eq!(
        poll_one(null, libc::POLLIN | libc::POLLOUT, 0),
        libc::POLLIN | libc::POLLOUT
    );
    let dir = open(".", libc::O_RDONLY);
    eq!(poll_one(dir, libc::POLLIN, 0), libc::POLLIN);
}

unsafe fn ep() -> i32 {
    ok!(libc::epoll_create1(libc::EPOLL_CLOEXEC))
}

unsafe fn ctl(ep: i32, op: i32, fd: i32, events: i32, data: u64) -> i32 {
    let mut ev = libc::epoll_event {
        events: events as u32,
        u64: data,
    };
    libc::epoll_ctl(ep, op, fd, &mut ev)
}

unsafe fn add(ep: i32, fd: i32, events: i32) {
    ok!(ctl(ep, libc::EPOLL_CTL_ADD, fd, events, fd as u64));
}

/// Events as (mask, data), sorted by data.
unsafe fn take(ep: i32, timeout: i32) -> Vec<(i32, u64)> {
    let mut ev: [libc::epoll_event; 32] = std::mem::zeroed();
    let n = ok!(libc::epoll_wait(ep, ev.as_mut_ptr(), 32, timeout)) as usize;
    let mut out: Vec<(i32, u64)> = ev[..n].iter().map(|e| (e.events as i32, e.u64)).collect();
    out.sort_by_key(|e| e.1);
    out
}

unsafe fn epoll_basic() {
    let e = ep();
    let (r, w) = pipe();
    add(e, r, libc::EPOLLIN);
    eq!(take(e, 0), []);
    write_all(w, b"x");
    eq!(take(e, 1000), [(libc::EPOLLIN, r as u64)]);
    eq!(take(e, 0), [(libc::EPOLLIN, r as u64)]);
    read_some(r, 1);
    eq!(take(e, 0), []);
    libc::close(w);
    // Hang-up needs no asking.
    eq!(take(e, 0), [(libc::EPOLLHUP, r as u64)]);
    ok!(ctl(e, libc::EPOLL_CTL_DEL, r, 0, 0));
    eq!(take(e, 0), []);
}

unsafe fn epoll_level_and_edge() {
    let e = ep();
    let (r, w) = pipe();
    write_all(w, b"ab");
    add(e, r, libc::EPOLLIN | libc::EPOLLET);
    eq!(take(e, 0), [(libc::EPOLLIN, r as u64)]);
    eq!(take(e, 0), []);
    read_some(r, 1);
    eq!(take(e, 0), []);
    // New data is a new edge, also when old data is left.
    write_all(w, b"c");
    eq!(take(e, 0), [(libc::EPOLLIN, r as u64)]);
    // A modification rearms.
    eq!(take(e, 0), []);
    ok!(ctl(
        e,
        libc::EPOLL_CTL_MOD,
        r,
        libc::EPOLLIN | libc::EPOLLET,
        5
    ));
    eq!(take(e, 0), [(libc::EPOLLIN, 5)]);
}

unsafe fn epoll_oneshot() {
    let e = ep();
    let (r, w) = pipe();
    add(e, r, libc::EPOLLIN | libc::EPOLLONESHOT);
    write_all(w, b"x");
    eq!(take(e, 0).len(), 1);
    write_all(w, b"y");
    eq!(take(e, 0), []);
    ok!(ctl(
        e,
        libc::EPOLL_CTL_MOD,
        r,
        libc::EPOLLIN | libc::EPOLLONESHOT,
        1
    ));
    eq!(take(e, 0).len(), 1);
    eq!(take(e, 0), []);
    // A disabled one does not report a hang-up either.
    libc::close(w);
    eq!(take(e, 0), []);
}

unsafe fn epoll_data_and_mod() {
    let e = ep();
    let (r, w) = pipe();
    ok!(ctl(e, libc::EPOLL_CTL_ADD, w, libc::EPOLLOUT, u64::MAX));
    eq!(take(e, 0), [(libc::EPOLLOUT, u64::MAX)]);
    ok!(ctl(e, libc::EPOLL_CTL_MOD, w, libc::EPOLLIN, 7));
    eq!(take(e, 0), []);
    ok!(ctl(
        e,
        libc::EPOLL_CTL_MOD,
        w,
        libc::EPOLLOUT,
        0x1234_5678_9abc_def0
    ));
    eq!(take(e, 0), [(libc::EPOLLOUT, 0x1234_5678_9abc_def0)]);
    let _ = r;
}

unsafe fn epoll_errors() {
    let e = ep();
    let (r, _w) = pipe();
    add(e, r, libc::EPOLLIN);
    err!(
        libc::EEXIST,
        ctl(e, libc::EPOLL_CTL_ADD, r, libc::EPOLLIN, 0)
    );
    err!(
        libc::ENOENT,
        ctl(e, libc::EPOLL_CTL_MOD, _w, libc::EPOLLIN, 0)
    );
    err!(libc::ENOENT, ctl(e, libc::EPOLL_CTL_DEL, _w, 0, 0));
    err!(libc::EINVAL, ctl(e, 9, r, 0, 0));
    err!(
        libc::EINVAL,
        ctl(e, libc::EPOLL_CTL_ADD, e, libc::EPOLLIN, 0)
    );
    err!(
        libc::EBADF,
        ctl(e, libc::EPOLL_CTL_ADD, 99, libc::EPOLLIN, 0)
    );
    err!(
        libc::EBADF,
        ctl(99, libc::EPOLL_CTL_ADD, r, libc::EPOLLIN, 0)
    );
    err!(
        libc::EINVAL,
        ctl(r, libc::EPOLL_CTL_ADD, _w, libc::EPOLLIN, 0)
    );
    // Regular files can't be watched.
    let f = open("f", libc::O_CREAT | libc::O_RDWR);
    err!(
        libc::EPERM,
        ctl(e, libc::EPOLL_CTL_ADD, f, libc::EPOLLIN, 0)
    );
    let mut ev: libc::epoll_event = std::mem::zeroed();
    err!(libc::EINVAL, libc::epoll_wait(e, &mut ev, 0, 0));
    err!(libc::EINVAL, libc::epoll_wait(r, &mut ev, 1, 0));
    err!(libc::EINVAL, sys!(libc::SYS_epoll_create, 0));
    err!(libc::EINVAL, libc::epoll_create1(1));
    err!(
        libc::EFAULT,
        sys!(libc::SYS_epoll_ctl, e, libc::EPOLL_CTL_ADD, _w, 8)
    );
}

unsafe fn epoll_nested() {
    let (outer, inner) = (ep(), ep());
    let (r, w) = pipe();
    add(inner, r, libc::EPOLLIN);
    add(outer, inner, libc::EPOLLIN);
    eq!(take(outer, 0), []);
    write_all(w, b"x");
    eq!(take(outer, 0), [(libc::EPOLLIN, inner as u64)]);
    eq!(poll_one(outer, libc::POLLIN, 0), libc::POLLIN);
    read_some(r, 1);
    eq!(take(outer, 0), []);
    // No cycles.
    err!(
        libc::ELOOP,
        ctl(inner, libc::EPOLL_CTL_ADD, outer, libc::EPOLLIN, 0)
    );
    // A sleeper on the outer one is woken through the inner one.
    let pid = fork(|| {
        sleep_ms(20);
        write_all(w, b"y");
    });
    eq!(take(outer, 5000).len(), 1);
    wait_ok(pid);
}

unsafe fn epoll_closed_fd_leaves() {
    let e = ep();
    let (r, w) = pipe();
    add(e, r, libc::EPOLLIN);
    write_all(w, b"x");
    libc::close(r);
    eq!(take(e, 0), []);
    // The number can be used again.
    let (r2, w2) = pipe();
    add(e, r2, libc::EPOLLIN);
    write_all(w2, b"x");
    eq!(take(e, 0), [(libc::EPOLLIN, r2 as u64)]);
}

unsafe fn epoll_dup_stays() {
    let e = ep();
    let (r, w) = pipe();
    add(e, r, libc::EPOLLIN);
    let d = ok!(libc::dup(r));
    libc::close(r);
    write_all(w, b"x");
    // The file description is still open, so events go on.
    eq!(take(e, 0), [(libc::EPOLLIN, r as u64)]);
    libc::close(d);
    eq!(take(e, 0), []);
}

unsafe fn epoll_maxevents_fair() {
    let e = ep();
    let pipes: Vec<_> = (0..10).map(|_| pipe()).collect();
    for p in &pipes {
        add(e, p.0, libc::EPOLLIN);
        write_all(p.1, b"x");
    }
    let mut seen = std::collections::HashSet::new();
    for _ in 0..5 {
        let mut ev: [libc::epoll_event; 2] = std::mem::zeroed();
        eq!(ok!(libc::epoll_wait(e, ev.as_mut_ptr(), 2, 0)), 2);
        for x in ev {
            seen.insert(x.u64);
        }
    }
    // Ready ones take turns.
    eq!(seen.len(), 10);
}

unsafe fn epoll_edge_new_data() {
    let e = ep();
    let mut sv = [0; 2];
    ok!(libc::socketpair(
        libc::AF_UNIX,
        libc::SOCK_STREAM,
        0,
        sv.as_mut_ptr()
    ));
    add(e, sv[0], libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET);
    eq!(take(e, 0), [(libc::EPOLLOUT, sv[0] as u64)]);
    eq!(take(e, 0), []);
    write_all(sv[1], b"x");
    let got = take(e, 100);
    eq!(got.len(), 1);
    check!(got[0].0 & libc::EPOLLIN != 0);
}

unsafe fn epoll_exclusive_and_threads() {
    static GOT: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);
    use std::sync::atomic::Ordering::SeqCst;
    let e = ep();
    let (r, w) = pipe();
    add(e, r, libc::EPOLLIN | libc::EPOLLET);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut ev: libc::epoll_event = std::mem::zeroed();
                if libc::epoll_wait(e, &mut ev, 1, 300) == 1 {
                    GOT.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    sleep_ms(50);
    write_all(w, b"x");
    for t in threads {
        check!(t.join().is_ok());
    }
    // One edge wakes one thread.
    eq!(GOT.load(SeqCst), 1);
    let e2 = ep();
    let (r2, _w2) = pipe();
    add(e2, r2, libc::EPOLLIN | libc::EPOLLEXCLUSIVE);
    err!(
        libc::EINVAL,
        ctl(e2, libc::EPOLL_CTL_MOD, r2, libc::EPOLLIN, 0)
    );
}

unsafe fn epoll_pwait2_timeout() {
    let e = ep();
    let mut ev: libc::epoll_event = std::mem::zeroed();
    let ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    let r = sys!(
        libc::SYS_epoll_pwait2,
        e,
        &mut ev as *mut _,
        1,
        &ts as *const _,
        0,
        8
    );
    check!(r == 0 || errno() == libc::ENOSYS);
    let start = now_ms();
    eq!(ok!(libc::epoll_wait(e, &mut ev, 1, 30)), 0);
    check!(now_ms() - start >= 29);
}

unsafe fn epoll_wakes_thread() {
    let e = ep();
    let ev = ok!(libc::eventfd(0, 0));
    add(e, ev, libc::EPOLLIN);
    let t = std::thread::spawn(move || take(e, 5000));
    sleep_ms(20);
    write_all(ev, &1u64.to_ne_bytes());
    eq!(t.join().unwrap_or_default(), [(libc::EPOLLIN, ev as u64)]);
    // Added while somebody waits.
    let e = ep();
    let t = std::thread::spawn(move || take(e, 5000));
    sleep_ms(20);
    add(e, ev, libc::EPOLLIN);
    eq!(t.join().unwrap_or_default().len(), 1);
}

unsafe fn epoll_fork_shares() {
    let e = ep();
    let (r, w) = pipe();
    in_child(|| add(e, r, libc::EPOLLIN));
    write_all(w, b"x");
    eq!(take(e, 0), [(libc::EPOLLIN, r as u64)]);
}

unsafe fn epoll_rdhup() {
    let e = ep();
    let mut sv = [0; 2];
    ok!(libc::socketpair(
        libc::AF_UNIX,
        libc::SOCK_STREAM,
        0,
        sv.as_mut_ptr()
    ));
    add(e, sv[0], libc::EPOLLIN | libc::EPOLLRDHUP);
    ok!(libc::shutdown(sv[1], libc::SHUT_WR));
    eq!(
        take(e, 0),
        [(libc::EPOLLIN | libc::EPOLLRDHUP, sv[0] as u64)]
    );
    libc::close(sv[1]);
    eq!(
        take(e, 0),
        [(
            libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP,
            sv[0] as u64
        )]
    );
}

unsafe fn ev_read(fd: i32) -> u64 {
    let b = read_some(fd, 8);
    u64::from_ne_bytes(b.try_into().unwrap_or_default())
}

unsafe fn eventfd_counter() {
    let fd = ok!(libc::eventfd(3, 0));
    write_all(fd, &4u64.to_ne_bytes());
    eq!(ev_read(fd), 7);
    let fd = ok!(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC));
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    let mut b = [0u8; 8];
    err!(libc::EAGAIN, libc::read(fd, b.as_mut_ptr().cast(), 8));
    err!(libc::EINVAL, libc::read(fd, b.as_mut_ptr().cast(), 7));
    err!(libc::EINVAL, libc::write(fd, b.as_ptr().cast(), 4));
    err!(
        libc::EINVAL,
        libc::write(fd, [0xffu8; 8].as_ptr().cast(), 8)
    );
}

unsafe fn eventfd_semaphore() {
    let fd = ok!(libc::eventfd(2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK));
    eq!((ev_read(fd), ev_read(fd)), (1, 1));
    let mut b = [0u8; 8];
    err!(libc::EAGAIN, libc::read(fd, b.as_mut_ptr().cast(), 8));
}

unsafe fn eventfd_overflow() {
    let fd = ok!(libc::eventfd(0, libc::EFD_NONBLOCK));
    write_all(fd, &(u64::MAX - 1).to_ne_bytes());
    eq!(poll_one(fd, libc::POLLOUT | libc::POLLIN, 0), libc::POLLIN);
    err!(
        libc::EAGAIN,
        libc::write(fd, 1u64.to_ne_bytes().as_ptr().cast(), 8)
    );
    eq!(ev_read(fd), u64::MAX - 1);
}

unsafe fn eventfd_blocking() {
    let fd = ok!(libc::eventfd(0, 0));
    let pid = fork(|| {
        sleep_ms(20);
        write_all(fd, &9u64.to_ne_bytes());
    });
    eq!(ev_read(fd), 9);
    wait_ok(pid);
    write_all(fd, &(u64::MAX - 1).to_ne_bytes());
    let pid = fork(|| write_all(fd, &5u64.to_ne_bytes()));
    wait_state(pid, "S");
    eq!(ev_read(fd), u64::MAX - 1);
    wait_ok(pid);
    eq!(ev_read(fd), 5);
}

unsafe fn eventfd_errors() {
    err!(libc::EINVAL, libc::eventfd(0, 0x4000));
}

unsafe fn eventfd_poll() {
    let fd = ok!(libc::eventfd(0, 0));
    eq!(poll_one(fd, libc::POLLIN | libc::POLLOUT, 0), libc::POLLOUT);
    write_all(fd, &1u64.to_ne_bytes());
    eq!(
        poll_one(fd, libc::POLLIN | libc::POLLOUT, 0),
        libc::POLLIN | libc::POLLOUT
    );
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
