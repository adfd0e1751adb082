//! Message queues: msgget(2), msgop(2).

use super::*;
use crate::util::*;

cases![
    msg_send_receive,
    msg_types,
    msg_limits_and_block,
    msg_rmid_wakes,
    msg_errors,
    msg_truncation,
];

unsafe fn recv(id: i32, kind: i64, flags: i32) -> Option<(i64, Vec<u8>)> {
    let mut m = Msg {
        kind: 0,
        text: [0; 100],
    };
    let n = libc::msgrcv(id, (&mut m as *mut Msg).cast(), 100, kind, flags);
    if n < 0 {
        None
    } else {
        Some((m.kind, m.text[..n as usize].to_vec()))
    }
}

unsafe fn msg_send_receive() {
    let id = msgget();
    ok!(send(id, 1, b"first", 0));
    ok!(send(id, 2, b"", 0));
    eq!(recv(id, 0, 0), Some((1, b"first".to_vec())));
    eq!(recv(id, 0, 0), Some((2, Vec::new())));
    let pid = fork(|| eq!(recv(id, 0, 0), Some((9, b"later".to_vec()))));
    wait_state(pid, "S");
    ok!(send(id, 9, b"later", 0));
    wait_ok(pid);
    let mut ds: libc::msqid_ds = std::mem::zeroed();
    ok!(send(id, 1, b"12345", 0));
    ok!(libc::msgctl(id, libc::IPC_STAT, &mut ds));
    eq!(
        (ds.msg_qnum, ds.__msg_cbytes, ds.msg_lspid),
        (1, 5, libc::getpid())
    );
    msg_rm(id);
}

unsafe fn msg_types() {
    let id = msgget();
    for (k, t) in [(3, b"c"), (1, b"a"), (2, b"b"), (1, b"d")] {
        ok!(send(id, k, t, 0));
    }
    eq!(recv(id, 2, 0), Some((2, b"b".to_vec())));
    // Negative: the lowest type up to the absolute value.
    eq!(recv(id, -3, 0), Some((1, b"a".to_vec())));
    eq!(recv(id, 1, libc::MSG_EXCEPT), Some((3, b"c".to_vec())));
    eq!(recv(id, 5, libc::IPC_NOWAIT), None);
    eq!(errno(), libc::ENOMSG);
    eq!(recv(id, 0, 0), Some((1, b"d".to_vec())));
    msg_rm(id);
}

unsafe fn msg_limits_and_block() {
    let id = msgget();
    let mut ds: libc::msqid_ds = std::mem::zeroed();
    ok!(libc::msgctl(id, libc::IPC_STAT, &mut ds));
    ds.msg_qbytes = 150;
    ok!(libc::msgctl(id, libc::IPC_SET, &mut ds));
    ok!(send(id, 1, &[1; 100], 0));
    err!(libc::EAGAIN, send(id, 1, &[1; 100], libc::IPC_NOWAIT));
    let pid = fork(|| {
        ok!(send(id, 2, &[2; 100], 0));
    });
    wait_state(pid, "S");
    check!(recv(id, 0, 0).is_some());
    wait_ok(pid);
    eq!(recv(id, 0, 0).map(|m| m.0), Some(2));
    msg_rm(id);
}

unsafe fn msg_rmid_wakes() {
    let id = msgget();
    let pid = fork(|| {
        eq!(recv(id, 0, 0), None);
        eq!(errno(), libc::EIDRM);
    });
    wait_state(pid, "S");
    msg_rm(id);
    wait_ok(pid);
}

unsafe fn msg_errors() {
    let id = msgget();
    err!(libc::EINVAL, send(id, 0, b"x", 0));
    err!(libc::EINVAL, send(id, -1, b"x", 0));
    err!(libc::EINVAL, send(999_999, 1, b"x", 0));
    let m = Msg {
        kind: 1,
        text: [0; 100],
    };
    err!(
        libc::EINVAL,
        libc::msgsnd(id, (&m as *const Msg).cast(), usize::MAX, 0)
    );
    err!(libc::EFAULT, libc::msgsnd(id, 8 as *const _, 10, 0));
    err!(libc::ENOENT, libc::msgget(0x5544_3322, 0));
    msg_rm(id);
}

unsafe fn msg_truncation() {
    let id = msgget();
    ok!(send(id, 1, b"0123456789", 0));
    let mut m = Msg {
        kind: 0,
        text: [0; 100],
    };
    let p = (&mut m as *mut Msg).cast();
    err!(libc::E2BIG, libc::msgrcv(id, p, 4, 0, 0));
    eq!(ok!(libc::msgrcv(id, p, 4, 0, libc::MSG_NOERROR)), 4);
    eq!(&m.text[..5], b"0123\0");
    msg_rm(id);
}
