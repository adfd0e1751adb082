//! UDP used by calls of a played guest.

use syscall_tables::Errno;
use syscall_tables::table::nr;

use crate::testing::{DATA, World};

const ADDR: u64 = DATA + 0x100;
const LEN: u64 = DATA + 0x180;
const TEXT: u64 = DATA + 0x200;
const BUF: u64 = DATA + 0x1000;

#[test]
fn datagrams_arrive_and_closed_ports_refuse() {
    let world = World::new();
    let call = |number, args: &[u64]| world.call(&world.init, number, args);
    let socket = || call(nr::SOCKET, &[2, 2, 0]).unsigned_abs();
    let (a, b) = (socket(), socket());
    world.poke(1, ADDR, &[2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(call(nr::BIND, &[b, ADDR, 16]), 0);
    world.poke(1, LEN, &16_u32.to_le_bytes());
    assert_eq!(call(nr::GETSOCKNAME, &[b, ADDR, LEN]), 0);
    world.poke(1, TEXT, b"datagram");
    assert_eq!(call(nr::SENDTO, &[a, TEXT, 8, 0, ADDR, 16]), 8);
    assert_eq!(call(nr::SENDTO, &[a, TEXT, 0, 0, ADDR, 16]), 0);
    // MSG_TRUNC tells the whole length.
    assert_eq!(call(nr::RECVFROM, &[b, BUF, 3, 0x20, 0, 0]), 8);
    assert_eq!(call(nr::RECVFROM, &[b, BUF, 3, 0, 0, 0]), 0);
    assert_eq!(call(nr::CONNECT, &[a, ADDR, 16]), 0);
    assert_eq!(call(nr::CLOSE, &[b]), 0);
    assert_eq!(call(nr::WRITE, &[a, TEXT, 8]), 8);
    let refused = -i64::from(Errno::ECONNREFUSED.raw());
    assert_eq!(call(nr::RECVFROM, &[a, BUF, 8, 0x40, 0, 0]), refused);
}

#[test]
fn udp_lite_has_ports_of_its_own() {
    let world = World::new();
    let call = |number, args: &[u64]| world.call(&world.init, number, args);
    let lite = || call(nr::SOCKET, &[2, 2, 136]).unsigned_abs();
    let (a, b) = (lite(), lite());
    let udp = call(nr::SOCKET, &[2, 2, 0]).unsigned_abs();
    world.poke(
        1,
        ADDR,
        &[2, 0, 0x80, 1, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    assert_eq!(call(nr::BIND, &[b, ADDR, 16]), 0);
    assert_eq!(call(nr::BIND, &[udp, ADDR, 16]), 0);
    world.poke(1, TEXT, b"datagram");
    assert_eq!(call(nr::SENDTO, &[a, TEXT, 8, 0, ADDR, 16]), 8);
    let again = -i64::from(Errno::EAGAIN.raw());
    assert_eq!(call(nr::RECVFROM, &[udp, BUF, 8, 0x40, 0, 0]), again);
    assert_eq!(call(nr::RECVFROM, &[b, BUF, 8, 0x40, 0, 0]), 8);
}
