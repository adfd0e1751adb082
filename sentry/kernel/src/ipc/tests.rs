//! System V IPC, with the test playing guest code.

use sentry_platform::executor::block_on;
use sentry_platform::fake::FakeGuest;
use syscall_tables::Errno;
use syscall_tables::abi::{
    GETALL, GETNCNT, GETVAL, IPC_CREAT, IPC_EXCL, IPC_NOWAIT, IPC_RMID, IPC_STAT, MSG_NOERROR,
    SEM_UNDO, SETALL, SETVAL, Sembuf, ShmidDs, Timespec,
};
use syscall_tables::table::nr;
use zerocopy::{FromZeros, IntoBytes};

use crate::testing::{DATA, World};

const KEY: u64 = 0x1234;
const BUF: u64 = DATA + 0x1000;

fn error(errno: Errno) -> i64 {
    -i64::from(errno.raw())
}

fn id(value: i64) -> u64 {
    u64::try_from(value).expect("an id")
}

fn fork(world: &World) -> FakeGuest {
    assert!(world.call(&world.init, nr::FORK, &[]) > 1);
    world.next_guest()
}

fn shm_stat(world: &World, shm: u64) -> ShmidDs {
    let call = [shm, IPC_STAT.into(), BUF];
    assert_eq!(world.call(&world.init, nr::SHMCTL, &call), 0);
    let mut stat = ShmidDs::new_zeroed();
    let mm = world.task(1).mm();
    block_on(mm.read_memory(BUF, stat.as_mut_bytes())).expect("mapped");
    stat
}

#[test]
fn a_segment_is_shared_and_goes_with_its_last_attach() {
    let world = World::new();
    let init = &world.init;
    let create = u64::from(IPC_CREAT | 0o600);
    let shm = id(world.call(init, nr::SHMGET, &[KEY, 5000, create]));
    let again = |size, flags: u32| world.call(init, nr::SHMGET, &[KEY, size, flags.into()]);
    assert_eq!(again(5000, 0), shm.cast_signed());
    assert_eq!(again(5001, 0), error(Errno::EINVAL));
    assert_eq!(again(1, IPC_CREAT | IPC_EXCL), error(Errno::EEXIST));
    assert_eq!(
        world.call(init, nr::SHMGET, &[KEY + 1, 1, 0]),
        error(Errno::ENOENT)
    );
    assert_eq!(
        world.call(init, nr::SHMGET, &[0, 0, create]),
        error(Errno::EINVAL)
    );
    let one = id(world.call(init, nr::SHMAT, &[shm, 0, 0]));
    let two = id(world.call(init, nr::SHMAT, &[shm, 0, 0o10000]));
    world.poke(1, one + 100, b"shared!!");
    assert_eq!(world.peek(1, two + 100), u64::from_le_bytes(*b"shared!!"));
    let child = fork(&world);
    let stat = shm_stat(&world, shm);
    assert_eq!((stat.shm_nattch, stat.shm_segsz), (4, 5000));
    assert_eq!((stat.shm_cpid, stat.shm_lpid), (1, 1));
    world.poke(2, two, &[0; 0]);
    assert_eq!(world.peek(2, one + 100), u64::from_le_bytes(*b"shared!!"));
    // The read-only one can't be made writable.
    assert_eq!(
        world.call(init, nr::MPROTECT, &[two, 4096, 3]),
        error(Errno::EACCES)
    );
    assert_eq!(world.call(init, nr::SHMDT, &[two]), 0);
    assert_eq!(world.call(init, nr::SHMDT, &[two]), error(Errno::EINVAL));
    assert_eq!(world.call(init, nr::SHMCTL, &[shm, IPC_RMID.into(), 0]), 0);
    assert_eq!(again(1, 0), error(Errno::ENOENT));
    assert_eq!(shm_stat(&world, shm).shm_perm.mode, 0o1600);
    assert_eq!(world.try_call(&child, nr::EXIT_GROUP, &[0]), None);
    world.until("the child's attaches are gone", || {
        shm_stat(&world, shm).shm_nattch == 1
    });
    assert_eq!(world.call(init, nr::SHMDT, &[one]), 0);
    let call = [shm, IPC_STAT.into(), BUF];
    assert_eq!(world.call(init, nr::SHMCTL, &call), error(Errno::EINVAL));
}

fn ops(world: &World, list: &[(u16, i16, u16)]) {
    for (index, (sem_num, sem_op, sem_flg)) in list.iter().enumerate() {
        let op = Sembuf {
            sem_num: *sem_num,
            sem_op: *sem_op,
            sem_flg: *sem_flg,
        };
        world.poke(1, BUF + index as u64 * 6, op.as_bytes());
    }
}

#[test]
fn semaphores_change_together_or_not_at_all() {
    let world = World::new();
    let init = &world.init;
    let create = u64::from(IPC_CREAT | 0o600);
    let sem = id(world.call(init, nr::SEMGET, &[0, 2, create]));
    let value = |index| world.call(init, nr::SEMCTL, &[sem, index, GETVAL.into()]);
    world.poke(1, BUF, [3u16, 0].as_bytes());
    assert_eq!(
        world.call(init, nr::SEMCTL, &[sem, 0, SETALL.into(), BUF]),
        0
    );
    let nowait = IPC_NOWAIT as u16;
    ops(&world, &[(0, -2, 0), (1, -1, nowait)]);
    assert_eq!(
        world.call(init, nr::SEMOP, &[sem, BUF, 2]),
        error(Errno::EAGAIN)
    );
    assert_eq!((value(0), value(1)), (3, 0));
    ops(&world, &[(0, -2, 0), (1, 4, 0), (1, -1, 0)]);
    assert_eq!(world.call(init, nr::SEMOP, &[sem, BUF, 3]), 0);
    assert_eq!((value(0), value(1)), (1, 3));
    assert_eq!(
        world.call(init, nr::SEMCTL, &[sem, 0, GETALL.into(), BUF]),
        0
    );
    assert_eq!(world.peek(1, BUF) & 0xffff_ffff, 0x3_0001);
    ops(&world, &[(2, 1, 0)]);
    assert_eq!(
        world.call(init, nr::SEMOP, &[sem, BUF, 1]),
        error(Errno::EFBIG)
    );
    ops(&world, &[(0, 32767, 0)]);
    assert_eq!(
        world.call(init, nr::SEMOP, &[sem, BUF, 1]),
        error(Errno::ERANGE)
    );
    ops(&world, &[(0, 0, 0)]);
    world.poke(1, BUF + 64, Timespec::from_ns(1_000_000).as_bytes());
    assert_eq!(
        world.call(init, nr::SEMTIMEDOP, &[sem, BUF, 1, BUF + 64]),
        error(Errno::EAGAIN)
    );
}

#[test]
fn semaphore_waiters_are_woken_undone_and_removed() {
    let world = World::new();
    let init = &world.init;
    let create = u64::from(IPC_CREAT | 0o600);
    let sem = id(world.call(init, nr::SEMGET, &[0, 1, create]));
    let value = || world.call(init, nr::SEMCTL, &[sem, 0, GETVAL.into()]);
    let waiting = || world.call(init, nr::SEMCTL, &[sem, 0, GETNCNT.into()]);
    ops(&world, &[(0, -1, SEM_UNDO)]);
    let child = fork(&world);
    let call = child.queue_syscall(nr::SEMOP.into(), [sem, BUF, 1, 0, 0, 0]);
    world.until("a waiter", || waiting() == 1);
    assert_eq!(world.call(init, nr::SEMCTL, &[sem, 0, SETVAL.into(), 1]), 0);
    assert_eq!(block_on(call).expect("returns").rax, 0);
    assert_eq!((value(), waiting()), (0, 0));
    // What it took comes back when it ends.
    assert_eq!(world.try_call(&child, nr::EXIT_GROUP, &[0]), None);
    world.until("the undo", || value() == 1);
    ops(&world, &[(0, -2, 0)]);
    let child = fork(&world);
    let call = child.queue_syscall(nr::SEMOP.into(), [sem, BUF, 1, 0, 0, 0]);
    world.until("a waiter", || waiting() == 1);
    assert_eq!(world.call(init, nr::SEMCTL, &[sem, 0, IPC_RMID.into()]), 0);
    let rax = block_on(call).expect("returns").rax.cast_signed();
    assert_eq!(rax, error(Errno::EIDRM));
}

#[test]
fn messages_are_chosen_by_type() {
    let world = World::new();
    let init = &world.init;
    let create = u64::from(IPC_CREAT | 0o600);
    let queue = id(world.call(init, nr::MSGGET, &[KEY, create]));
    let nowait = u64::from(IPC_NOWAIT);
    let send = |kind: i64, text: &[u8]| {
        world.poke(1, BUF, &kind.to_le_bytes());
        world.poke(1, BUF + 8, text);
        world.call(init, nr::MSGSND, &[queue, BUF, text.len() as u64, nowait])
    };
    let receive = |kind: i64, len: u64, flags: u64| {
        let args = [queue, BUF, len, kind.cast_unsigned(), nowait | flags];
        let len = world.call(init, nr::MSGRCV, &args);
        (
            len,
            world.peek(1, BUF),
            world.peek(1, BUF + 8).to_le_bytes()[0],
        )
    };
    assert_eq!(send(0, b"x"), error(Errno::EINVAL));
    for (kind, text) in [(5, b"a"), (3, b"b"), (9, b"c"), (3, b"d")] {
        assert_eq!(send(kind, text), 0);
    }
    assert_eq!(receive(9, 8, 0), (1, 9, b'c'));
    assert_eq!(receive(-4, 8, 0), (1, 3, b'b'));
    assert_eq!(receive(0, 8, 0), (1, 5, b'a'));
    assert_eq!(receive(7, 8, 0).0, error(Errno::ENOMSG));
    assert_eq!(receive(3, 0, 0).0, error(Errno::E2BIG));
    assert_eq!(receive(3, 0, MSG_NOERROR.into()).0, 0);
    // A full queue, and a waiter that gets what comes.
    let big = vec![0; 8192];
    world.poke(1, DATA + 0x4000, &1i64.to_le_bytes());
    let send_big = || world.call(init, nr::MSGSND, &[queue, DATA + 0x4000, 8192, nowait]);
    assert_eq!(big.len(), 8192);
    assert_eq!((send_big(), send_big()), (0, 0));
    assert_eq!(send_big(), error(Errno::EAGAIN));
    let child = fork(&world);
    let args = [queue, BUF, 8, 77, 0, 0];
    let call = child.queue_syscall(nr::MSGRCV.into(), args);
    assert_eq!(receive(1, 8192, 0).0, 8192);
    assert_eq!(send(77, b"z"), 0);
    assert_eq!(block_on(call).expect("returns").rax, 1);
    assert_eq!(world.peek(2, BUF), 77);
    assert_eq!(
        world.call(init, nr::MSGCTL, &[queue, IPC_RMID.into(), 0]),
        0
    );
    assert_eq!(send(1, b"x"), error(Errno::EINVAL));
}
