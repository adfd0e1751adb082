//! Sockets: unix(7), socket(7), ip(7), tcp(7), udp(7), netlink(7).

pub mod inet6;
pub mod messages;
pub mod netlink;
pub mod options;
pub mod tcp;
pub mod udp;
pub mod unix;

use crate::util::*;

unsafe fn pair(kind: i32) -> (i32, i32) {
    let mut sv = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, kind, 0, sv.as_mut_ptr()));
    (sv[0], sv[1])
}

unsafe fn socket(family: i32, kind: i32) -> i32 {
    ok!(libc::socket(family, kind, 0))
}

unsafe fn send(fd: i32, data: &[u8], flags: i32) -> isize {
    libc::send(fd, data.as_ptr().cast(), data.len(), flags)
}

unsafe fn recv(fd: i32, len: usize, flags: i32) -> Vec<u8> {
    let mut b = vec![0u8; len];
    let n = ok!(libc::recv(fd, b.as_mut_ptr().cast(), len, flags));
    b.truncate(n as usize);
    b
}

unsafe fn try_recv(fd: i32, flags: i32) -> isize {
    let mut b = [0u8; 100];
    libc::recv(fd, b.as_mut_ptr().cast(), 100, flags)
}

unsafe fn nonblock(fd: i32) {
    ok!(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK));
}

unsafe fn un(path: &[u8]) -> (libc::sockaddr_un, u32) {
    let mut a: libc::sockaddr_un = std::mem::zeroed();
    a.sun_family = libc::AF_UNIX as u16;
    for (to, from) in a.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    let nul = u32::from(path.first() != Some(&0));
    (a, 2 + path.len() as u32 + nul)
}

unsafe fn bind_un(fd: i32, path: &[u8]) -> i32 {
    let (a, len) = un(path);
    libc::bind(fd, (&a as *const libc::sockaddr_un).cast(), len)
}

unsafe fn connect_un(fd: i32, path: &[u8]) -> i32 {
    let (a, len) = un(path);
    libc::connect(fd, (&a as *const libc::sockaddr_un).cast(), len)
}

unsafe fn listen_un(path: &[u8], kind: i32, backlog: i32) -> i32 {
    let s = socket(libc::AF_UNIX, kind);
    ok!(bind_un(s, path));
    ok!(libc::listen(s, backlog));
    s
}

unsafe fn accept(fd: i32) -> i32 {
    ok!(libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()))
}

unsafe fn setopt(fd: i32, level: i32, name: i32, value: i32) -> i32 {
    libc::setsockopt(fd, level, name, (&value as *const i32).cast(), 4)
}

unsafe fn getopt(fd: i32, level: i32, name: i32) -> i32 {
    let mut v = 0i32;
    let mut len = 4u32;
    ok!(libc::getsockopt(
        fd,
        level,
        name,
        (&mut v as *mut i32).cast(),
        &mut len
    ));
    v
}

fn v4(port: u16) -> libc::sockaddr_in {
    let mut a: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    a.sin_family = libc::AF_INET as u16;
    a.sin_port = port.to_be();
    a.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
    a
}

fn v6(port: u16) -> libc::sockaddr_in6 {
    let mut a: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    a.sin6_family = libc::AF_INET6 as u16;
    a.sin6_port = port.to_be();
    a.sin6_addr.s6_addr[15] = 1;
    a
}

unsafe fn bind4(fd: i32, port: u16) -> i32 {
    libc::bind(fd, (&v4(port) as *const libc::sockaddr_in).cast(), 16)
}

unsafe fn connect4(fd: i32, port: u16) -> i32 {
    libc::connect(fd, (&v4(port) as *const libc::sockaddr_in).cast(), 16)
}

unsafe fn port_of(fd: i32) -> u16 {
    let mut a: libc::sockaddr_in6 = std::mem::zeroed();
    let mut len = 28u32;
    ok!(libc::getsockname(
        fd,
        (&mut a as *mut libc::sockaddr_in6).cast(),
        &mut len
    ));
    u16::from_be(a.sin6_port)
}

unsafe fn peer_port(fd: i32) -> u16 {
    let mut a: libc::sockaddr_in = std::mem::zeroed();
    let mut len = 16u32;
    ok!(libc::getpeername(
        fd,
        (&mut a as *mut libc::sockaddr_in).cast(),
        &mut len
    ));
    u16::from_be(a.sin_port)
}

unsafe fn need_v6() {
    let s = libc::socket(libc::AF_INET6, libc::SOCK_STREAM, 0);
    if s < 0 || libc::bind(s, (&v6(0) as *const libc::sockaddr_in6).cast(), 28) < 0 {
        skip("no IPv6 loopback");
    }
    libc::close(s);
}

unsafe fn udp4() -> (i32, u16) {
    let s = socket(libc::AF_INET, libc::SOCK_DGRAM);
    ok!(bind4(s, 0));
    (s, port_of(s))
}
