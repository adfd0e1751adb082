//! Shared memory: shmget(2), shm_overview(7), keys.

use super::*;
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
    keys_and_exclusive,
    proc_sysvipc,
    shm_open_shared,
    posix_named_semaphore_like,
    ipc_permission_other_user,
];

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
