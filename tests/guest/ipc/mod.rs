//! System V IPC and POSIX message queues and shared memory: sysvipc(7),
//! mq_overview(7), shm_overview(7).

pub mod mq;
pub mod msg;
pub mod sem;
pub mod shm;

use crate::util::*;

const PRIV: i32 = libc::IPC_PRIVATE;

unsafe fn semget(n: i32) -> i32 {
    ok!(libc::semget(PRIV, n, libc::IPC_CREAT | 0o600))
}

unsafe fn semop(id: i32, ops: &[(u16, i16, i32)]) -> i32 {
    let mut v: Vec<libc::sembuf> = ops
        .iter()
        .map(|o| libc::sembuf {
            sem_num: o.0,
            sem_op: o.1,
            sem_flg: o.2 as i16,
        })
        .collect();
    libc::semop(id, v.as_mut_ptr(), v.len())
}

unsafe fn sem_rm(id: i32) {
    ok!(libc::semctl(id, 0, libc::IPC_RMID));
}

#[repr(C)]
struct Msg {
    kind: i64,
    text: [u8; 100],
}

unsafe fn send(id: i32, kind: i64, text: &[u8], flags: i32) -> i32 {
    let mut m = Msg {
        kind,
        text: [0; 100],
    };
    m.text[..text.len()].copy_from_slice(text);
    libc::msgsnd(id, (&m as *const Msg).cast(), text.len(), flags)
}

unsafe fn msgget() -> i32 {
    ok!(libc::msgget(PRIV, libc::IPC_CREAT | 0o600))
}

unsafe fn msg_rm(id: i32) {
    ok!(libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()));
}

unsafe fn mq_name() -> std::ffi::CString {
    c(&format!("/guest-{}", libc::getpid()))
}
