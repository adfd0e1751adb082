//! poll(2), select(2).

use super::*;
use crate::util::*;

cases![
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
];

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
