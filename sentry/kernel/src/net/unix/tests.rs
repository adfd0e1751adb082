//! Unix sockets used by calls of a played guest.

use syscall_tables::Errno;
use syscall_tables::table::nr;

use crate::testing::{DATA, World};

const FDS: u64 = DATA + 0x100;
const TEXT: u64 = DATA + 0x200;
const BUF: u64 = DATA + 0x1000;

fn pair(world: &World, kind: u64) -> (u64, u64) {
    assert_eq!(
        world.call(&world.init, nr::SOCKETPAIR, &[1, kind, 0, FDS]),
        0
    );
    let fds = world.peek(1, FDS);
    (fds & 0xffff_ffff, fds >> 32)
}

fn errno(errno: Errno) -> i64 {
    -i64::from(errno.raw())
}

#[test]
fn a_stream_pair_carries_bytes_both_ways() {
    let world = World::new();
    let (a, b) = pair(&world, 1);
    world.poke(1, TEXT, b"hello");
    assert_eq!(world.call(&world.init, nr::WRITE, &[a, TEXT, 5]), 5);
    assert_eq!(world.call(&world.init, nr::WRITE, &[a, TEXT, 3]), 3);
    assert_eq!(world.call(&world.init, nr::READ, &[b, BUF, 100]), 8);
    assert_eq!(&world.peek(1, BUF).to_le_bytes(), b"hellohel");
    assert_eq!(
        world.call(&world.init, nr::RECVFROM, &[b, BUF, 10, 0x40, 0, 0]),
        errno(Errno::EAGAIN)
    );
    assert_eq!(world.call(&world.init, nr::CLOSE, &[a]), 0);
    assert_eq!(world.call(&world.init, nr::READ, &[b, BUF, 100]), 0);
}

#[test]
fn closing_with_unread_bytes_resets_the_peer() {
    let world = World::new();
    let (a, b) = pair(&world, 1);
    assert_eq!(world.call(&world.init, nr::WRITE, &[b, TEXT, 5]), 5);
    assert_eq!(world.call(&world.init, nr::CLOSE, &[a]), 0);
    let read = || world.call(&world.init, nr::READ, &[b, BUF, 100]);
    assert_eq!(read(), errno(Errno::ECONNRESET));
    assert_eq!(read(), 0);
}

#[test]
fn records_keep_their_bounds() {
    let world = World::new();
    for kind in [2, 5] {
        let (a, b) = pair(&world, kind);
        world.poke(1, TEXT, b"12345678");
        assert_eq!(world.call(&world.init, nr::WRITE, &[a, TEXT, 5]), 5);
        assert_eq!(world.call(&world.init, nr::WRITE, &[a, TEXT, 8]), 8);
        assert_eq!(world.call(&world.init, nr::READ, &[b, BUF, 2]), 2);
        assert_eq!(world.call(&world.init, nr::READ, &[b, BUF, 100]), 8);
    }
}

#[test]
fn sockets_lost_in_each_others_messages_are_closed() {
    let world = World::new();
    let net = world.sandbox.kernel().net.clone();
    let (a, b) = pair(&world, 1);
    let number = |fd: u64| u32::try_from(fd).expect("small").to_le_bytes();
    // struct msghdr with one byte and both descriptors.
    let mut control = 24_u64.to_le_bytes().to_vec();
    control.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
    control.extend_from_slice(&number(a));
    control.extend_from_slice(&number(b));
    let (iov, cmsg, header) = (DATA + 0x300, DATA + 0x340, DATA + 0x400);
    world.poke(1, cmsg, &control);
    let words =
        |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    world.poke(1, iov, &words(&[TEXT, 1]));
    world.poke(1, header, &words(&[0, 0, iov, 1, cmsg, 24, 0]));
    assert_eq!(world.call(&world.init, nr::SENDMSG, &[a, header, 0]), 1);
    for fd in [a, b] {
        assert_eq!(world.call(&world.init, nr::CLOSE, &[fd]), 0);
    }
    assert_eq!(net.all_unix_sockets().len(), 2);
    // The next socket that is closed sweeps up.
    let (c, d) = pair(&world, 1);
    assert_eq!(net.all_unix_sockets().len(), 4);
    for fd in [c, d] {
        assert_eq!(world.call(&world.init, nr::CLOSE, &[fd]), 0);
    }
    assert_eq!(net.all_unix_sockets().len(), 0);
}
