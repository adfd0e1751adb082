//! Semaphores: semget(2), semop(2).

use super::*;
use crate::util::*;

cases![
    sem_basic,
    sem_blocks_and_wakes,
    sem_zero_wait,
    sem_undo_at_exit,
    sem_timed_and_nowait,
    sem_atomic_multi,
    sem_rmid_wakes,
    sem_errors,
    sem_all_and_counts,
];

unsafe fn getval(id: i32, n: i32) -> i32 {
    ok!(libc::semctl(id, n, libc::GETVAL))
}

unsafe fn sem_basic() {
    let id = semget(3);
    eq!(getval(id, 0), 0);
    ok!(libc::semctl(id, 1, libc::SETVAL, 5));
    ok!(semop(id, &[(1, -2, 0), (0, 4, 0)]));
    eq!((getval(id, 0), getval(id, 1), getval(id, 2)), (4, 3, 0));
    eq!(ok!(libc::semctl(id, 0, libc::GETPID)), libc::getpid());
    sem_rm(id);
    err!(libc::EINVAL, libc::semctl(id, 0, libc::GETVAL));
}

unsafe fn sem_blocks_and_wakes() {
    let id = semget(1);
    let pid = fork(|| {
        ok!(semop(id, &[(0, -3, 0)]));
    });
    wait_state(pid, "S");
    eq!(ok!(libc::semctl(id, 0, libc::GETNCNT)), 1);
    ok!(semop(id, &[(0, 2, 0)]));
    sleep_ms(10);
    eq!(
        ok!(libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG)),
        0
    );
    ok!(semop(id, &[(0, 2, 0)]));
    wait_ok(pid);
    eq!(getval(id, 0), 1);
    sem_rm(id);
}

unsafe fn sem_zero_wait() {
    let id = semget(1);
    ok!(semop(id, &[(0, 0, 0)]));
    ok!(libc::semctl(id, 0, libc::SETVAL, 1));
    let pid = fork(|| {
        ok!(semop(id, &[(0, 0, 0)]));
    });
    wait_state(pid, "S");
    eq!(ok!(libc::semctl(id, 0, libc::GETZCNT)), 1);
    ok!(semop(id, &[(0, -1, 0)]));
    wait_ok(pid);
    sem_rm(id);
}

unsafe fn sem_undo_at_exit() {
    let id = semget(1);
    ok!(libc::semctl(id, 0, libc::SETVAL, 2));
    in_child(|| {
        ok!(semop(id, &[(0, -1, libc::SEM_UNDO)]));
        ok!(semop(id, &[(0, -1, 0)]));
        eq!(getval(id, 0), 0);
    });
    eq!(getval(id, 0), 1);
    // Also after a kill, waking whoever waits.
    let (r, w) = pipe();
    let pid = fork(|| {
        ok!(semop(id, &[(0, -1, libc::SEM_UNDO)]));
        write_all(w, b"x");
        loop {
            libc::pause();
        }
    });
    read_some(r, 1);
    let waiter = fork(|| {
        ok!(semop(id, &[(0, -1, 0)]));
    });
    wait_state(waiter, "S");
    libc::kill(pid, libc::SIGKILL);
    wait(pid);
    wait_ok(waiter);
    sem_rm(id);
}

unsafe fn sem_timed_and_nowait() {
    let id = semget(1);
    err!(libc::EAGAIN, semop(id, &[(0, -1, libc::IPC_NOWAIT)]));
    let mut op = libc::sembuf {
        sem_num: 0,
        sem_op: -1,
        sem_flg: 0,
    };
    let ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 30_000_000,
    };
    let start = now_ms();
    err!(
        libc::EAGAIN,
        sys!(
            libc::SYS_semtimedop,
            id,
            &mut op as *mut _,
            1,
            &ts as *const _
        )
    );
    check!(now_ms() - start >= 29);
    sem_rm(id);
}

unsafe fn sem_atomic_multi() {
    let id = semget(2);
    ok!(libc::semctl(id, 0, libc::SETVAL, 1));
    // The second can't be done, so neither is.
    err!(
        libc::EAGAIN,
        semop(id, &[(0, -1, libc::IPC_NOWAIT), (1, -1, libc::IPC_NOWAIT)])
    );
    eq!(getval(id, 0), 1);
    sem_rm(id);
}

unsafe fn sem_rmid_wakes() {
    let id = semget(1);
    let pid = fork(|| err!(libc::EIDRM, semop(id, &[(0, -1, 0)])));
    wait_state(pid, "S");
    sem_rm(id);
    wait_ok(pid);
}

unsafe fn sem_errors() {
    let id = semget(2);
    err!(libc::EFBIG, semop(id, &[(2, 1, 0)]));
    err!(libc::ERANGE, {
        ok!(libc::semctl(id, 0, libc::SETVAL, 32767));
        semop(id, &[(0, 1, 0)])
    });
    err!(libc::ERANGE, libc::semctl(id, 0, libc::SETVAL, 32768));
    err!(libc::EINVAL, libc::semctl(id, 5, libc::GETVAL));
    err!(libc::EINVAL, libc::semget(PRIV, 0, libc::IPC_CREAT | 0o600));
    err!(
        libc::EINVAL,
        libc::semget(PRIV, 1 << 20, libc::IPC_CREAT | 0o600)
    );
    err!(libc::EINVAL, semop(id, &[]));
    err!(libc::E2BIG, semop(id, &vec![(0, 1, 0); 600]));
    // Their number is looked at before who they are for.
    err!(libc::E2BIG, semop(-1, &vec![(0, 1, 0); 600]));
    err!(libc::EINVAL, semop(-1, &[(0, 1, 0)]));
    sem_rm(id);
}

unsafe fn sem_all_and_counts() {
    let id = semget(3);
    let mut values = [3u16, 4, 5];
    ok!(libc::semctl(id, 0, libc::SETALL, values.as_mut_ptr()));
    values = [0; 3];
    ok!(libc::semctl(id, 0, libc::GETALL, values.as_mut_ptr()));
    eq!(values, [3, 4, 5]);
    let mut ds: libc::semid_ds = std::mem::zeroed();
    ok!(libc::semctl(id, 0, libc::IPC_STAT, &mut ds as *mut _));
    eq!(ds.sem_nsems, 3);
    sem_rm(id);
}
