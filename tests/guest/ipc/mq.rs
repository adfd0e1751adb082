//! mq_overview(7).

use super::*;
use crate::util::*;

cases![
    mq_basic,
    mq_priorities,
    mq_full_and_empty,
    mq_notify_signal,
    mq_errors,
    mq_attributes,
    mq_unlink_semantics,
    mq_poll,
];

unsafe fn mq_open(name: &std::ffi::CStr, flags: i32, max: i64, size: i64) -> i32 {
    let mut attr: libc::mq_attr = std::mem::zeroed();
    attr.mq_maxmsg = max;
    attr.mq_msgsize = size;
    // The kernel takes the name without its slash.
    sys!(
        libc::SYS_mq_open,
        name.as_ptr().add(1),
        flags,
        0o600,
        &attr as *const _
    ) as i32
}

const MQ: i32 = libc::O_CREAT | libc::O_RDWR;

unsafe fn mq_send(q: i32, text: &[u8], prio: u32) -> i64 {
    sys!(
        libc::SYS_mq_timedsend,
        q,
        text.as_ptr(),
        text.len(),
        prio,
        0
    )
}

unsafe fn mq_recv(q: i32) -> Option<(u32, Vec<u8>)> {
    let mut b = vec![0u8; 8192];
    let mut prio = 0u32;
    let n = sys!(
        libc::SYS_mq_timedreceive,
        q,
        b.as_mut_ptr(),
        b.len(),
        &mut prio as *mut u32,
        0
    );
    if n < 0 {
        return None;
    }
    b.truncate(n as usize);
    Some((prio, b))
}

unsafe fn mq_unlink(name: &std::ffi::CStr) -> i64 {
    sys!(libc::SYS_mq_unlink, name.as_ptr().add(1))
}

unsafe fn mq_basic() {
    let name = mq_name();
    let q = ok!(mq_open(&name, MQ, 5, 64));
    ok!(mq_send(q, b"hello", 3));
    eq!(mq_recv(q), Some((3, b"hello".to_vec())));
    let pid = fork(|| eq!(mq_recv(q), Some((0, b"waited".to_vec()))));
    wait_state(pid, "S");
    ok!(mq_send(q, b"waited", 0));
    wait_ok(pid);
    ok!(mq_unlink(&name));
    err!(libc::ENOENT, mq_unlink(&name));
}

unsafe fn mq_priorities() {
    let name = mq_name();
    let q = ok!(mq_open(&name, MQ, 8, 64));
    for (p, t) in [(1, b"a"), (5, b"b"), (1, b"c"), (5, b"d"), (0, b"e")] {
        ok!(mq_send(q, t, p));
    }
    let got: Vec<u8> = (0..5).filter_map(|_| mq_recv(q).map(|m| m.1[0])).collect();
    eq!(got, b"bdace");
    err!(libc::EINVAL, mq_send(q, b"x", 32768));
    ok!(mq_unlink(&name));
}

unsafe fn mq_full_and_empty() {
    let name = mq_name();
    let q = ok!(mq_open(&name, MQ | libc::O_NONBLOCK, 2, 10));
    eq!(mq_recv(q), None);
    eq!(errno(), libc::EAGAIN);
    ok!(mq_send(q, b"1", 0));
    ok!(mq_send(q, b"2", 0));
    err!(libc::EAGAIN, mq_send(q, b"3", 0));
    err!(libc::EMSGSIZE, mq_send(q, &[0; 11], 0));
    err!(
        libc::EMSGSIZE,
        sys!(libc::SYS_mq_timedreceive, q, [0u8; 9].as_mut_ptr(), 9, 0, 0)
    );
    // With a time-out.
    let b = ok!(mq_open(&name, libc::O_RDWR, 0, 0));
    let mut ts: libc::timespec = std::mem::zeroed();
    libc::clock_gettime(libc::CLOCK_REALTIME, &mut ts);
    ts.tv_sec -= 1;
    err!(
        libc::ETIMEDOUT,
        sys!(
            libc::SYS_mq_timedsend,
            b,
            b"x".as_ptr(),
            1,
            0,
            &ts as *const _
        )
    );
    ok!(mq_unlink(&name));
}

unsafe fn mq_notify_signal() {
    let name = mq_name();
    let q = ok!(mq_open(&name, MQ, 4, 10));
    block(&[libc::SIGUSR1]);
    let mut ev: libc::sigevent = std::mem::zeroed();
    ev.sigev_notify = libc::SIGEV_SIGNAL;
    ev.sigev_signo = libc::SIGUSR1;
    ev.sigev_value = libc::sigval {
        sival_ptr: 88 as *mut _,
    };
    ok!(sys!(libc::SYS_mq_notify, q, &ev as *const _));
    in_child(|| err!(libc::EBUSY, sys!(libc::SYS_mq_notify, q, &ev as *const _)));
    ok!(mq_send(q, b"x", 0));
    let mut si: libc::siginfo_t = std::mem::zeroed();
    let ts = libc::timespec {
        tv_sec: 3,
        tv_nsec: 0,
    };
    eq!(
        ok!(libc::sigtimedwait(&sigset(&[libc::SIGUSR1]), &mut si, &ts)),
        libc::SIGUSR1
    );
    eq!(
        (si.si_code, si.si_value().sival_ptr as usize),
        (libc::SI_MESGQ, 88)
    );
    // Only once.
    mq_recv(q);
    ok!(mq_send(q, b"y", 0));
    let ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    err!(
        libc::EAGAIN,
        libc::sigtimedwait(&sigset(&[libc::SIGUSR1]), std::ptr::null_mut(), &ts)
    );
    ok!(mq_unlink(&name));
}

unsafe fn mq_errors() {
    let name = mq_name();
    err!(libc::ENOENT, mq_open(&name, libc::O_RDWR, 0, 0));
    err!(libc::EINVAL, mq_open(&name, MQ, 0, 10));
    err!(libc::EINVAL, mq_open(&name, MQ, 10, -1));
    let q = ok!(mq_open(&name, MQ, 2, 10));
    err!(libc::EEXIST, mq_open(&name, MQ | libc::O_EXCL, 2, 10));
    let ro = ok!(mq_open(&name, libc::O_RDONLY, 0, 0));
    err!(libc::EBADF, mq_send(ro, b"x", 0));
    err!(libc::EBADF, mq_send(0, b"x", 0));
    let _ = q;
    ok!(mq_unlink(&name));
    err!(libc::EACCES, mq_open(c"/a/b", MQ, 2, 10));
}

unsafe fn mq_attributes() {
    let name = mq_name();
    let q = ok!(mq_open(&name, MQ, 7, 33));
    ok!(mq_send(q, b"x", 0));
    let mut a: libc::mq_attr = std::mem::zeroed();
    ok!(sys!(libc::SYS_mq_getsetattr, q, 0, &mut a as *mut _));
    eq!(
        (a.mq_flags, a.mq_maxmsg, a.mq_msgsize, a.mq_curmsgs),
        (0, 7, 33, 1)
    );
    a.mq_flags = i64::from(libc::O_NONBLOCK);
    ok!(sys!(libc::SYS_mq_getsetattr, q, &a as *const _, 0));
    mq_recv(q);
    eq!(mq_recv(q), None);
    eq!(errno(), libc::EAGAIN);
    ok!(mq_unlink(&name));
}

unsafe fn mq_unlink_semantics() {
    let name = mq_name();
    let q = ok!(mq_open(&name, MQ, 2, 10));
    ok!(mq_unlink(&name));
    ok!(mq_send(q, b"still", 0));
    let other = ok!(mq_open(&name, MQ | libc::O_NONBLOCK, 2, 10));
    eq!(mq_recv(other), None);
    eq!(mq_recv(q).map(|m| m.1), Some(b"still".to_vec()));
    ok!(mq_unlink(&name));
}

unsafe fn mq_poll() {
    let name = mq_name();
    let q = ok!(mq_open(&name, MQ, 1, 10));
    eq!(poll_one(q, libc::POLLIN | libc::POLLOUT, 0), libc::POLLOUT);
    ok!(mq_send(q, b"x", 0));
    eq!(poll_one(q, libc::POLLIN | libc::POLLOUT, 0), libc::POLLIN);
    ok!(mq_unlink(&name));
}
