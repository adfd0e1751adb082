//! System V IPC and POSIX message queues and shared memory: sysvipc(7),
//! mq_overview(7), shm_overview(7).

use crate::util::*;

cases![
    shm_create_attach,
    shm_between_processes,
    shm_rmid_lives_until_detach,
    shm_flags_and_errors,
    shm_stat,
    shm_permissions,
    shm_remap_and_address,
    shm_fork_and_exec_detach,
    sem_basic,
    sem_blocks_and_wakes,
    sem_zero_wait,
    sem_undo_at_exit,
    sem_timed_and_nowait,
    sem_atomic_multi,
    sem_rmid_wakes,
    sem_errors,
    sem_all_and_counts,
    msg_send_receive,
    msg_types,
    msg_limits_and_block,
    msg_rmid_wakes,
    msg_errors,
    msg_truncation,
    keys_and_exclusive,
    proc_sysvipc,
    mq_basic,
    mq_priorities,
    mq_full_and_empty,
    mq_notify_signal,
    mq_errors,
    mq_attributes,
    mq_unlink_semantics,
    mq_poll,
    shm_open_shared,
    posix_named_semaphore_like,
    ipc_permission_other_user,
];

const PRIV: i32 = libc::IPC_PRIVATE;

unsafe fn shmget(size: usize) -> i32 {
    ok!(libc::shmget(PRIV, size, libc::IPC_CREAT | 0o600))
}

unsafe fn shm_rm(id: i32) -> i32 {
    libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut())
}

unsafe fn shmat(id: i32, flags: i32) -> *mut u8 {
    ok!(libc::shmat(id, std::ptr::null(), flags)).cast()
}

unsafe fn shm_create_attach() {
    let id = shmget(10_000);
    let p = shmat(id, 0);
    eq!(*p.add(9_999), 0);
    *p = 5;
    let q = shmat(id, 0);
    check!(p != q);
    eq!(*q, 5);
    ok!(libc::shmdt(p.cast()));
    err!(libc::EINVAL, libc::shmdt(p.cast()));
    *q = 6;
    let r = shmat(id, libc::SHM_RDONLY);
    eq!(*r, 6);
    ok!(shm_rm(id));
}

unsafe fn shm_between_processes() {
    let id = shmget(4096);
    in_child(|| *shmat(id, 0).add(7) = 77);
    eq!(*shmat(id, 0).add(7), 77);
    ok!(shm_rm(id));
}

unsafe fn shm_rmid_lives_until_detach() {
    let id = shmget(4096);
    let p = shmat(id, 0);
    *p = 1;
    ok!(shm_rm(id));
    *p.add(1) = 2;
    let mut ds: libc::shmid_ds = std::mem::zeroed();
    // Marked for destruction, still there while attached.
    ok!(libc::shmctl(id, libc::IPC_STAT, &mut ds));
    check!(ds.shm_perm.mode as u32 & 0o1000 != 0);
    eq!(ds.shm_nattch, 1);
    ok!(libc::shmdt(p.cast()));
    check!(libc::shmctl(id, libc::IPC_STAT, &mut ds) == -1);
    check!([libc::EINVAL, libc::EIDRM].contains(&errno()));
}

unsafe fn shm_flags_and_errors() {
    err!(libc::EINVAL, libc::shmget(PRIV, 0, libc::IPC_CREAT | 0o600));
    err!(libc::ENOENT, libc::shmget(0x1234_4321, 4096, 0));
    err!(
        libc::EINVAL,
        libc::shmat(999_999, std::ptr::null(), 0) as i64
    );
    let id = shmget(4096);
    err!(libc::EINVAL, libc::shmat(id, 0x1001 as *const _, 0) as i64);
    err!(libc::EINVAL, libc::shmctl(id, 999, std::ptr::null_mut()));
    ok!(shm_rm(id));
    err!(libc::EINVAL, libc::shmat(id, std::ptr::null(), 0) as i64);
}

unsafe fn shm_stat() {
    let id = ok!(libc::shmget(PRIV, 5000, libc::IPC_CREAT | 0o640));
    let mut ds: libc::shmid_ds = std::mem::zeroed();
    ok!(libc::shmctl(id, libc::IPC_STAT, &mut ds));
    eq!(
        (ds.shm_segsz, ds.shm_nattch, ds.shm_cpid),
        (5000, 0, libc::getpid())
    );
    eq!(ds.shm_perm.mode as u32 & 0o777, 0o640);
    eq!(ds.shm_perm.uid, libc::geteuid());
    let p = shmat(id, 0);
    ok!(libc::shmctl(id, libc::IPC_STAT, &mut ds));
    eq!((ds.shm_nattch, ds.shm_lpid), (1, libc::getpid()));
    check!(ds.shm_atime > 0);
    in_child(|| {
        let mut ds: libc::shmid_ds = std::mem::zeroed();
        ok!(libc::shmctl(id, libc::IPC_STAT, &mut ds));
        eq!(ds.shm_nattch, 2);
    });
    ds.shm_perm.mode = 0o600;
    ok!(libc::shmctl(id, libc::IPC_SET, &mut ds));
    ok!(libc::shmctl(id, libc::IPC_STAT, &mut ds));
    eq!(ds.shm_perm.mode as u32 & 0o777, 0o600);
    eq!(ds.shm_nattch, 1);
    ok!(libc::shmdt(p.cast()));
    ok!(shm_rm(id));
}

unsafe fn shm_permissions() {
    let id = ok!(libc::shmget(PRIV, 4096, libc::IPC_CREAT | 0o604));
    in_child(|| {
        ok!(libc::setresgid(1000, 1000, 1000));
        ok!(libc::setresuid(1000, 1000, 1000));
        err!(libc::EACCES, libc::shmat(id, std::ptr::null(), 0) as i64);
        shmat(id, libc::SHM_RDONLY);
        err!(libc::EPERM, shm_rm(id));
    });
    ok!(shm_rm(id));
}

unsafe fn shm_remap_and_address() {
    let id = shmget(4096);
    let p = libc::shmat(id, 0x7300_0000 as *const _, 0) as *mut u8;
    eq!(p as usize, 0x7300_0000);
    err!(
        libc::EINVAL,
        libc::shmat(id, 0x7300_0000 as *const _, 0) as i64
    );
    let q = ok!(libc::shmat(
        id,
        0x7300_0123 as *const _,
        libc::SHM_RND | libc::SHM_REMAP
    ));
    eq!(q as usize, 0x7300_0000);
    let maps = read_text("/proc/self/maps");
    check!(maps.contains("/SYSV00000000"), "{maps}");
    ok!(shm_rm(id));
}

unsafe fn shm_fork_and_exec_detach() {
    let id = shmget(4096);
    shmat(id, 0);
    let count = || {
        let mut ds: libc::shmid_ds = std::mem::zeroed();
        ok!(libc::shmctl(id, libc::IPC_STAT, &mut ds));
        ds.shm_nattch
    };
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let exe = crate::helpers::exe();
    let pid = fork(|| {
        let argv = [exe.as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(exe.as_ptr(), argv.as_ptr());
    });
    libc::close(w);
    read_some(r, 1);
    eq!(count(), 1);
    libc::kill(pid, libc::SIGKILL);
    wait(pid);
    in_child(|| eq!(count(), 2));
    eq!(count(), 1);
    ok!(shm_rm(id));
}

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

unsafe fn getval(id: i32, n: i32) -> i32 {
    ok!(libc::semctl(id, n, libc::GETVAL))
}

unsafe fn sem_rm(id: i32) {
    ok!(libc::semctl(id, 0, libc::IPC_RMID));
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

unsafe fn msgget() -> i32 {
    ok!(libc::msgget(PRIV, libc::IPC_CREAT | 0o600))
}

unsafe fn msg_rm(id: i32) {
    ok!(libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()));
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

unsafe fn keys_and_exclusive() {
    let key = 0x7e57_0000 | (libc::getpid() & 0xffff);
    let id = ok!(libc::semget(
        key,
        1,
        libc::IPC_CREAT | libc::IPC_EXCL | 0o600
    ));
    err!(
        libc::EEXIST,
        libc::semget(key, 1, libc::IPC_CREAT | libc::IPC_EXCL | 0o600)
    );
    eq!(ok!(libc::semget(key, 1, libc::IPC_CREAT | 0o600)), id);
    eq!(ok!(libc::semget(key, 0, 0)), id);
    err!(libc::EINVAL, libc::semget(key, 2, 0));
    sem_rm(id);
    err!(libc::ENOENT, libc::semget(key, 0, 0));
    let id = ok!(libc::shmget(key, 4096, libc::IPC_CREAT | 0o600));
    err!(libc::EINVAL, libc::shmget(key, 8192, 0));
    eq!(ok!(libc::shmget(key, 100, 0)), id);
    ok!(shm_rm(id));
    // Ids are not reused at once.
    let (a, b) = (msgget(), 0);
    msg_rm(a);
    let again = msgget();
    check!(again != a && again != b);
    msg_rm(again);
}

unsafe fn proc_sysvipc() {
    let id = shmget(12_345);
    let text = read_text("/proc/sysvipc/shm");
    check!(
        text.lines()
            .any(|l| l.split_whitespace().nth(1) == Some(&id.to_string()) && l.contains("12345")),
        "{text}"
    );
    ok!(shm_rm(id));
    check!(read_text("/proc/sysvipc/sem").contains("semid"));
    check!(read_text("/proc/sysvipc/msg").contains("msqid"));
}

unsafe fn mq_name() -> std::ffi::CString {
    c(&format!("/guest-{}", libc::getpid()))
}

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

unsafe fn shm_open_shared() {
    let name = mq_name();
    let fd = ok!(libc::shm_open(
        name.as_ptr(),
        libc::O_CREAT | libc::O_RDWR,
        0o600
    ));
    ok!(libc::ftruncate(fd, 4096));
    let p: *mut u8 = ok!(libc::mmap(
        std::ptr::null_mut(),
        4096,
        3,
        libc::MAP_SHARED,
        fd,
        0
    ))
    .cast();
    in_child(|| {
        let fd = ok!(libc::shm_open(name.as_ptr(), libc::O_RDWR, 0));
        let q: *mut u8 = ok!(libc::mmap(
            std::ptr::null_mut(),
            4096,
            3,
            libc::MAP_SHARED,
            fd,
            0
        ))
        .cast();
        *q = 123;
    });
    eq!(*p, 123);
    ok!(libc::shm_unlink(name.as_ptr()));
    err!(libc::ENOENT, libc::shm_open(name.as_ptr(), libc::O_RDWR, 0));
}

unsafe fn posix_named_semaphore_like() {
    let name = mq_name();
    let sem = libc::sem_open(name.as_ptr(), libc::O_CREAT, 0o600, 0);
    check!(sem != libc::SEM_FAILED, "{}", errno_text());
    let pid = fork(|| {
        let s = libc::sem_open(name.as_ptr(), 0);
        check!(s != libc::SEM_FAILED);
        sleep_ms(10);
        ok!(libc::sem_post(s));
    });
    ok!(libc::sem_wait(sem));
    wait_ok(pid);
    ok!(libc::sem_unlink(name.as_ptr()));
}

unsafe fn ipc_permission_other_user() {
    let sem = semget(1);
    let msg = msgget();
    in_child(|| {
        ok!(libc::setresgid(1000, 1000, 1000));
        ok!(libc::setresuid(1000, 1000, 1000));
        err!(libc::EACCES, semop(sem, &[(0, 1, 0)]));
        err!(libc::EACCES, send(msg, 1, b"x", 0));
        err!(libc::EPERM, libc::semctl(sem, 0, libc::IPC_RMID));
    });
    sem_rm(sem);
    msg_rm(msg);
}
