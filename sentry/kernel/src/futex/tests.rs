//! Futexes, with the test playing guest threads.

use sentry_platform::executor::block_on;
use sentry_platform::fake::{FakeGuest, PendingTrap};
use syscall_tables::Errno;
use syscall_tables::abi::{
    FUTEX_CMP_REQUEUE, FUTEX_LOCK_PI, FUTEX_OWNER_DIED, FUTEX_PRIVATE_FLAG, FUTEX_TRYLOCK_PI,
    FUTEX_UNLOCK_PI, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAITERS, FUTEX_WAKE, FUTEX_WAKE_BITSET,
    FUTEX_WAKE_OP, FutexWaitv, RobustListHead, Timespec,
};
use syscall_tables::table::nr;
use zerocopy::IntoBytes;

use super::{FutexKey, Scope, key};
use crate::testing::{DATA, World};

const WORD: u64 = DATA + 0x1000;
const OTHER: u64 = DATA + 0x1004;
const TIME: u64 = DATA + 0x1100;
const SHARED_FLAGS: u32 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;

fn error(errno: Errno) -> i64 {
    -i64::from(errno.raw())
}

fn thread(world: &World) -> FakeGuest {
    let args = [u64::from(SHARED_FLAGS), DATA + 0x8000, 0, 0, 0];
    assert!(world.call(&world.init, nr::CLONE, &args) > 0);
    world.next_guest()
}

fn futex(world: &World, guest: &FakeGuest, op: u32, args: &[u64]) -> i64 {
    let mut all = vec![args[0], u64::from(op)];
    all.extend(&args[1..]);
    world.call(guest, nr::FUTEX, &all)
}

fn queue(guest: &FakeGuest, op: u32, args: &[u64]) -> PendingTrap {
    let mut all = [0; 6];
    all[0] = args[0];
    all[1] = op.into();
    all[2..=args.len()].copy_from_slice(&args[1..]);
    guest.queue_syscall(nr::FUTEX.into(), all)
}

fn result(call: PendingTrap) -> i64 {
    block_on(call).expect("returns").rax.cast_signed()
}

fn set(world: &World, addr: u64, value: u32) {
    world.poke(1, addr, &value.to_le_bytes());
}

fn get(world: &World, addr: u64) -> u32 {
    world.peek(1, addr) as u32
}

fn waiters(world: &World, addr: u64) -> usize {
    let mm = world.task(1).mm();
    let key = key(&mm, addr, Scope::Private).expect("aligned");
    assert!(matches!(key, FutexKey::Private { .. }));
    world.sandbox.kernel().futexes.waiters(&key)
}

fn until_waiting(world: &World, addr: u64, count: usize) {
    world.until("waiters", || waiters(world, addr) == count);
}

#[test]
fn a_wait_ends_by_a_wake_a_changed_word_or_time() {
    let world = World::new();
    let other = thread(&world);
    set(&world, WORD, 5);
    let init = &world.init;
    assert_eq!(
        futex(&world, init, FUTEX_WAIT, &[WORD, 4]),
        error(Errno::EAGAIN)
    );
    assert_eq!(
        futex(&world, init, FUTEX_WAIT, &[WORD + 2, 4]),
        error(Errno::EINVAL)
    );
    assert_eq!(
        futex(&world, init, FUTEX_WAIT, &[0x10_0000, 4]),
        error(Errno::EFAULT)
    );
    world.poke(1, TIME, Timespec::from_ns(2_000_000).as_bytes());
    assert_eq!(
        futex(&world, init, FUTEX_WAIT, &[WORD, 5, TIME]),
        error(Errno::ETIMEDOUT)
    );
    // Private and shared keys of private memory are the same.
    for (wait, wake) in [(0, FUTEX_PRIVATE_FLAG), (FUTEX_PRIVATE_FLAG, 0)] {
        let call = queue(&other, FUTEX_WAIT | wait, &[WORD, 5]);
        until_waiting(&world, WORD, 1);
        assert_eq!(futex(&world, init, FUTEX_WAKE | wake, &[OTHER, 1]), 0);
        assert_eq!(futex(&world, init, FUTEX_WAKE | wake, &[WORD, 1]), 1);
        assert_eq!(result(call), 0);
    }
    assert_eq!(waiters(&world, WORD), 0);
}

#[test]
fn bitsets_choose() {
    let world = World::new();
    let (one, two) = (thread(&world), thread(&world));
    let init = &world.init;
    set(&world, WORD, 1);
    let first = queue(&one, FUTEX_WAIT_BITSET, &[WORD, 1, 0, 0, 1]);
    until_waiting(&world, WORD, 1);
    let second = queue(&two, FUTEX_WAIT_BITSET, &[WORD, 1, 0, 0, 2]);
    until_waiting(&world, WORD, 2);
    let wake = |bits| futex(&world, init, FUTEX_WAKE_BITSET, &[WORD, 9, 0, 0, bits]);
    assert_eq!(wake(0), error(Errno::EINVAL));
    assert_eq!(wake(4), 0);
    assert_eq!(wake(2), 1);
    assert_eq!(result(second), 0);
    assert_eq!(wake(3), 1);
    assert_eq!(result(first), 0);
}

#[test]
fn requeued_waiters_wait_elsewhere() {
    let world = World::new();
    let threads: Vec<_> = (0..3).map(|_| thread(&world)).collect();
    let init = &world.init;
    set(&world, WORD, 1);
    let calls: Vec<_> = threads
        .iter()
        .enumerate()
        .map(|(index, thread)| {
            let call = queue(thread, FUTEX_WAIT, &[WORD, 1]);
            until_waiting(&world, WORD, index + 1);
            call
        })
        .collect();
    let requeue = |expected| {
        futex(
            &world,
            init,
            FUTEX_CMP_REQUEUE,
            &[WORD, 1, 9, OTHER, expected],
        )
    };
    assert_eq!(requeue(2), error(Errno::EAGAIN));
    assert_eq!(requeue(1), 3);
    assert_eq!((waiters(&world, WORD), waiters(&world, OTHER)), (0, 2));
    assert_eq!(futex(&world, init, FUTEX_WAKE, &[WORD, 9]), 0);
    assert_eq!(futex(&world, init, FUTEX_WAKE, &[OTHER, 9]), 2);
    for call in calls {
        assert_eq!(result(call), 0);
    }
}

#[test]
fn wake_op_changes_compares_and_wakes_both() {
    let world = World::new();
    let (one, two) = (thread(&world), thread(&world));
    let init = &world.init;
    let op = |kind: u32, argument: u32, cmp: u32, than: u32| {
        u64::from(kind << 28 | cmp << 24 | argument << 12 | than)
    };
    let call = |word| futex(&world, init, FUTEX_WAKE_OP, &[WORD, 1, 1, OTHER, word]);
    // Add 3, wake the second if it was equal to 7.
    set(&world, OTHER, 7);
    let first = queue(&one, FUTEX_WAIT, &[WORD, 0]);
    let second = queue(&two, FUTEX_WAIT, &[OTHER, 7]);
    until_waiting(&world, WORD, 1);
    until_waiting(&world, OTHER, 1);
    assert_eq!(call(op(1, 3, 0, 7)), 2);
    assert_eq!(get(&world, OTHER), 10);
    assert_eq!((result(first), result(second)), (0, 0));
    // Set to -1, and -1 is less than 0; and-not bit 4 by shift.
    assert_eq!(call(op(0, 0xfff, 5, 0)), 0);
    assert_eq!(get(&world, OTHER), u32::MAX);
    assert_eq!(call(op(3 | 8, 4, 2, 0)), 0);
    assert_eq!(get(&world, OTHER), !(1 << 4));
    assert_eq!(call(op(7, 0, 0, 0)), error(Errno::ENOSYS));
}

#[test]
fn waitv_tells_which() {
    let world = World::new();
    let other = thread(&world);
    let waiter = |uaddr, val, flags| FutexWaitv {
        val,
        uaddr,
        flags,
        __reserved: 0,
    };
    let list = [waiter(WORD, 0, 2), waiter(OTHER, 0, 0x82)];
    world.poke(1, DATA + 0x1200, list.as_bytes());
    let call = other.queue_syscall(nr::FUTEX_WAITV.into(), [DATA + 0x1200, 2, 0, 0, 0, 0]);
    until_waiting(&world, WORD, 1);
    until_waiting(&world, OTHER, 1);
    let woken = world.call(&world.init, nr::FUTEX_WAKE, &[OTHER, 1, 1, 0x82]);
    assert_eq!(woken, 1);
    assert_eq!(result(call), 1);
    assert_eq!(waiters(&world, WORD), 0);
    let bad = [waiter(WORD, 0, 3)];
    world.poke(1, DATA + 0x1200, bad.as_bytes());
    let call = |count| world.call(&world.init, nr::FUTEX_WAITV, &[DATA + 0x1200, count]);
    assert_eq!(call(1), error(Errno::EINVAL));
    assert_eq!(call(0), error(Errno::EINVAL));
    assert_eq!(call(129), error(Errno::EINVAL));
}

#[test]
fn a_dead_owner_is_marked_and_a_waiter_woken() {
    let world = World::new();
    let owner = thread(&world);
    let waiter = thread(&world);
    let tid = world.call(&owner, nr::GETTID, &[]) as u32;
    // One entry, whose word lies 16 bytes behind it, and a lock under way.
    let (head, entry, pending) = (DATA + 0x1400, DATA + 0x1500, DATA + 0x1600);
    let list = RobustListHead {
        list: entry,
        futex_offset: 16,
        list_op_pending: pending,
    };
    world.poke(1, head, list.as_bytes());
    world.poke(1, entry, &head.to_le_bytes());
    set(&world, entry + 16, tid | FUTEX_WAITERS);
    set(&world, pending + 16, tid);
    let size = size_of::<RobustListHead>() as u64;
    assert_eq!(
        world.call(&owner, nr::SET_ROBUST_LIST, &[head, size + 1]),
        error(Errno::EINVAL)
    );
    assert_eq!(world.call(&owner, nr::SET_ROBUST_LIST, &[head, size]), 0);
    let expected = u64::from(tid | FUTEX_WAITERS);
    let call = queue(&waiter, FUTEX_WAIT, &[entry + 16, expected]);
    until_waiting(&world, entry + 16, 1);
    assert_eq!(world.try_call(&owner, nr::EXIT, &[0]), None);
    assert_eq!(result(call), 0);
    assert_eq!(get(&world, entry + 16), FUTEX_WAITERS | FUTEX_OWNER_DIED);
    world.until("the pending one", || {
        get(&world, pending + 16) == FUTEX_OWNER_DIED
    });
}

#[test]
fn inherited_locks_are_handed_over() {
    let world = World::new();
    let (one, two) = (thread(&world), thread(&world));
    let (tid1, tid2) = (
        world.call(&one, nr::GETTID, &[]) as u32,
        world.call(&two, nr::GETTID, &[]) as u32,
    );
    assert_eq!(futex(&world, &one, FUTEX_LOCK_PI, &[WORD]), 0);
    assert_eq!(get(&world, WORD), tid1);
    assert_eq!(
        futex(&world, &one, FUTEX_LOCK_PI, &[WORD]),
        error(Errno::EDEADLK)
    );
    assert_eq!(
        futex(&world, &two, FUTEX_TRYLOCK_PI, &[WORD]),
        error(Errno::EAGAIN)
    );
    assert_eq!(
        futex(&world, &two, FUTEX_UNLOCK_PI, &[WORD]),
        error(Errno::EPERM)
    );
    let call = queue(&two, FUTEX_LOCK_PI, &[WORD]);
    world.until("a waiter", || get(&world, WORD) == tid1 | FUTEX_WAITERS);
    // The bit is there before the waiter is: unlocking waits for it.
    assert_eq!(futex(&world, &one, FUTEX_UNLOCK_PI, &[WORD]), 0);
    assert_eq!(result(call), 0);
    assert_eq!(get(&world, WORD), tid2);
    // An owner that dies hands over too.
    let call = queue(&one, FUTEX_LOCK_PI, &[WORD]);
    world.until("a waiter", || get(&world, WORD) == tid2 | FUTEX_WAITERS);
    assert_eq!(world.try_call(&two, nr::EXIT, &[0]), None);
    assert_eq!(result(call), 0);
    assert_eq!(get(&world, WORD) & !FUTEX_WAITERS, tid1 | FUTEX_OWNER_DIED);
    set(&world, WORD, 99_999);
    assert_eq!(
        futex(&world, &world.init, FUTEX_LOCK_PI, &[WORD]),
        error(Errno::ESRCH)
    );
}

#[test]
fn shared_words_are_known_by_their_object() {
    let world = World::new();
    // PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS.
    let addr = world.call(&world.init, nr::MMAP, &[0, 4096, 3, 0x21, u64::MAX, 0]);
    let addr = u64::try_from(addr).expect("maps");
    assert_eq!(world.call(&world.init, nr::FORK, &[]), 2);
    let child = world.next_guest();
    let call = queue(&child, FUTEX_WAIT, &[addr, 0]);
    let key = key(&world.task(1).mm(), addr, Scope::Shared).expect("mapped");
    assert!(matches!(key, FutexKey::Shared { .. }));
    let futexes = &world.sandbox.kernel().futexes;
    world.until("the child waits", || futexes.waiters(&key) == 1);
    // A private wake does not reach it.
    let private = FUTEX_WAKE | FUTEX_PRIVATE_FLAG;
    assert_eq!(futex(&world, &world.init, private, &[addr, 1]), 0);
    assert_eq!(futex(&world, &world.init, FUTEX_WAKE, &[addr, 1]), 1);
    assert_eq!(result(call), 0);
}
