//! TCP used by calls of a played guest.

use syscall_tables::Errno;
use syscall_tables::table::nr;

use crate::testing::{DATA, World};

const ADDR: u64 = DATA + 0x100;
const LEN: u64 = DATA + 0x180;
const TEXT: u64 = DATA + 0x200;
const BUF: u64 = DATA + 0x1000;

/// `struct sockaddr_in` of 127.0.0.1.
fn loopback(port: u16) -> Vec<u8> {
    let mut addr = vec![2, 0];
    addr.extend_from_slice(&port.to_be_bytes());
    addr.extend_from_slice(&[127, 0, 0, 1]);
    addr.extend_from_slice(&[0; 8]);
    addr
}

fn errno(errno: Errno) -> i64 {
    -i64::from(errno.raw())
}

struct Guest(World);

impl Guest {
    fn call(&self, number: u32, args: &[u64]) -> i64 {
        self.0.call(&self.0.init, number, args)
    }

    fn socket(&self) -> u64 {
        self.call(nr::SOCKET, &[2, 1, 0]).unsigned_abs()
    }

    fn addr_call(&self, number: u32, fd: u64, port: u16) -> i64 {
        self.0.poke(1, ADDR, &loopback(port));
        self.call(number, &[fd, ADDR, 16])
    }

    fn port(&self, fd: u64) -> u16 {
        self.0.poke(1, LEN, &16_u32.to_le_bytes());
        assert_eq!(self.call(nr::GETSOCKNAME, &[fd, ADDR, LEN]), 0);
        let bytes = self.0.peek(1, ADDR).to_le_bytes();
        u16::from_be_bytes([bytes[2], bytes[3]])
    }

    /// A connected pair.
    fn pair(&self) -> (u64, u64) {
        let listener = self.socket();
        assert_eq!(self.addr_call(nr::BIND, listener, 0), 0);
        assert_eq!(self.call(nr::LISTEN, &[listener, 4]), 0);
        let port = self.port(listener);
        let client = self.socket();
        assert_eq!(self.addr_call(nr::CONNECT, client, port), 0);
        let server = self.call(nr::ACCEPT, &[listener, 0, 0]).unsigned_abs();
        assert_eq!(self.call(nr::CLOSE, &[listener]), 0);
        (client, server)
    }
}

#[test]
fn bytes_go_both_ways_and_end() {
    let guest = Guest(World::new());
    let (a, b) = guest.pair();
    guest.0.poke(1, TEXT, b"hello");
    assert_eq!(guest.call(nr::WRITE, &[a, TEXT, 5]), 5);
    assert_eq!(guest.call(nr::READ, &[b, BUF, 3]), 3);
    assert_eq!(guest.call(nr::READ, &[b, BUF, 9]), 2);
    assert_eq!(guest.call(nr::SHUTDOWN, &[a, 1]), 0);
    assert_eq!(guest.call(nr::READ, &[b, BUF, 9]), 0);
    assert_eq!(guest.call(nr::WRITE, &[b, TEXT, 4]), 4);
    assert_eq!(guest.call(nr::READ, &[a, BUF, 9]), 4);
}

#[test]
fn nobody_listens() {
    let guest = Guest(World::new());
    let socket = guest.socket();
    let refused = errno(Errno::ECONNREFUSED);
    assert_eq!(guest.addr_call(nr::CONNECT, socket, 9), refused);
    let recv = [socket, BUF, 1, 0, 0, 0];
    assert_eq!(guest.call(nr::RECVFROM, &recv), errno(Errno::ENOTCONN));
}

#[test]
fn unread_bytes_reset_the_connection() {
    let guest = Guest(World::new());
    let (a, b) = guest.pair();
    assert_eq!(guest.call(nr::WRITE, &[a, TEXT, 5]), 5);
    assert_eq!(guest.call(nr::CLOSE, &[b]), 0);
    let read = || guest.call(nr::READ, &[a, BUF, 9]);
    assert_eq!(read(), errno(Errno::ECONNRESET));
    assert_eq!(read(), 0);
}

#[test]
fn a_full_ring_pushes_back_until_it_is_read() {
    let guest = Guest(World::new());
    let (a, b) = guest.pair();
    let send = || guest.call(nr::SENDTO, &[a, BUF, 0x8000, 0x40, 0, 0]);
    let mut total = 0;
    while let sent @ 1.. = send() {
        total += sent;
    }
    assert_eq!(send(), errno(Errno::EAGAIN));
    let mut read = 0;
    while read < total {
        read += guest.call(nr::READ, &[b, BUF, 0x8000]);
    }
    assert_eq!(read, total);
    assert_eq!(send(), 0x8000);
}
