//! epoll(7).

use crate::util::*;

cases![
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
    epoll_exclusive_limits,
    epoll_pwait2_timeout,
    epoll_wakes_thread,
    epoll_fork_shares,
    epoll_rdhup,
];

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

unsafe fn epoll_exclusive_limits() {
    let (e, other) = (ep(), ep());
    let (r, _w) = pipe();
    let exclusive = libc::EPOLLEXCLUSIVE | libc::EPOLLIN;
    // Nothing is modified to it, also not what is not there.
    err!(libc::EINVAL, ctl(e, libc::EPOLL_CTL_MOD, r, exclusive, 0));
    err!(libc::ENOENT, ctl(e, libc::EPOLL_CTL_DEL, r, exclusive, 0));
    for with in [libc::EPOLLONESHOT, libc::EPOLLRDHUP, libc::EPOLLPRI] {
        err!(
            libc::EINVAL,
            ctl(e, libc::EPOLL_CTL_ADD, r, exclusive | with, 0)
        );
    }
    err!(
        libc::EINVAL,
        ctl(e, libc::EPOLL_CTL_ADD, other, exclusive, 0)
    );
    ok!(ctl(e, libc::EPOLL_CTL_ADD, r, exclusive | libc::EPOLLET, 0));
    err!(
        libc::EINVAL,
        ctl(e, libc::EPOLL_CTL_MOD, r, libc::EPOLLIN, 0)
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
