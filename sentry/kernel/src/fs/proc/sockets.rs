//! Tables of sockets in `/proc/net`, of the viewer's network namespace.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN};

use crate::fs::kernfs::{Builder, Viewer};
use crate::net::inet::Family;
use crate::net::inet::udp::UdpSocket;
use crate::net::{NetNamespace, Socket, SocketBase};

/// Widths of lines without their line feed.
const TCP_WIDTH: usize = 149;
const UDP_WIDTH: usize = 127;

/// `__SO_ACCEPTCON`, shown in the flags of a listening unix socket.
const ACCEPTS: u32 = 0x1_0000;

pub(super) fn fill(dir: &mut Builder) {
    table(dir, "tcp", |viewer| tcp(viewer, Family::V4));
    table(dir, "tcp6", |viewer| tcp(viewer, Family::V6));
    let of_udp: Ports = |namespace| namespace.udp.bound();
    let of_lite: Ports = |namespace| namespace.udp_lite.bound();
    table(dir, "udp", move |viewer| udp(viewer, Family::V4, of_udp));
    table(dir, "udp6", move |viewer| udp(viewer, Family::V6, of_udp));
    table(dir, "udplite", move |viewer| {
        udp(viewer, Family::V4, of_lite)
    });
    table(dir, "udplite6", move |viewer| {
        udp(viewer, Family::V6, of_lite)
    });
    dir.file("unix", 0o444, unix);
    table(dir, "sockstat", sockstat);
    table(dir, "sockstat6", sockstat6);
}

/// A table of inet sockets: the host's where these are the host's.
fn table(
    dir: &mut Builder,
    name: &'static str,
    own: impl Fn(&Viewer) -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
) {
    dir.file(
        name,
        0o444,
        move |viewer: &Viewer| match super::net::from_host(viewer, name) {
            Some(text) => Ok(text),
            None => own(viewer),
        },
    );
}

/// Bound sockets of UDP or of UDP-Lite.
type Ports = fn(&NetNamespace) -> Vec<Arc<UdpSocket>>;

fn namespace(viewer: &Viewer) -> Result<Arc<NetNamespace>, Errno> {
    Ok(viewer.kernel.net.namespace_of(viewer.task()?))
}

/// An address as these tables have it: words in host order of what is in
/// network order, then the port.
fn address(addr: SocketAddr) -> String {
    let mut text = String::new();
    match addr.ip() {
        IpAddr::V4(ip) => {
            let _ = write!(text, "{:08X}", u32::from_ne_bytes(ip.octets()));
        }
        IpAddr::V6(ip) => {
            for word in ip.octets().chunks_exact(4) {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(word);
                let _ = write!(text, "{:08X}", u32::from_ne_bytes(bytes));
            }
        }
    }
    let _ = write!(text, ":{:04X}", addr.port());
    text
}

/// The remote address, or the unspecified one of the same kind.
fn remote(local: SocketAddr, peer: Option<SocketAddr>) -> SocketAddr {
    let none = match local {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0_u8; 16]),
    };
    peer.unwrap_or(SocketAddr::new(none, 0))
}

fn owner(viewer: &Viewer, base: &SocketBase) -> u32 {
    match &viewer.creds {
        Some(creds) => creds.user_ns.uid_or_overflow(base.owner),
        None => base.owner.0,
    }
}

fn tcp(viewer: &Viewer, family: Family) -> Result<Vec<u8>, Errno> {
    let mut text = match family {
        Family::V4 => super::net::TCP.to_owned(),
        Family::V6 => super::net::TCP6.to_owned(),
    };
    let sockets = namespace(viewer)?.tcp_sockets();
    let mut listed: Vec<_> = sockets
        .iter()
        .filter(|socket| socket.family() == family && socket.state_number() != TCP_CLOSE)
        .collect();
    // Listeners come first.
    listed.sort_by_key(|socket| socket.state_number() != TCP_LISTEN);
    for (at, socket) in listed.into_iter().enumerate() {
        let (local, peer) = socket.addresses();
        let base = socket.base();
        let line = format!(
            "{at:4}: {} {} {:02X} 00000000:{:08X} 00:00000000 00000000 {:5} {:8} {} 1 \
             0000000000000000 100 0 0 10 0",
            address(local),
            address(remote(local, peer)),
            socket.state_number(),
            socket.queued(),
            owner(viewer, base),
            0,
            base.ino,
        );
        let _ = writeln!(text, "{line:<TCP_WIDTH$}");
    }
    Ok(text.into_bytes())
}

fn udp(viewer: &Viewer, family: Family, ports: Ports) -> Result<Vec<u8>, Errno> {
    let mut text = match family {
        Family::V4 => super::net::UDP.to_owned(),
        Family::V6 => super::net::UDP6.to_owned(),
    };
    let sockets = ports(&*namespace(viewer)?);
    let listed = sockets.iter().filter(|socket| socket.family() == family);
    for (at, socket) in listed.enumerate() {
        let (local, peer) = socket.addresses();
        let (queued, dropped) = socket.queue_state();
        let state = if peer.is_some() {
            TCP_ESTABLISHED
        } else {
            TCP_CLOSE
        };
        let base = socket.base();
        let line = format!(
            "{at:5}: {} {} {state:02X} 00000000:{queued:08X} 00:00000000 00000000 {:5} {:8} {} 2 \
             0000000000000000 {dropped}",
            address(local),
            address(remote(local, peer)),
            owner(viewer, base),
            0,
            base.ino,
        );
        let _ = writeln!(text, "{line:<UDP_WIDTH$}");
    }
    Ok(text.into_bytes())
}

fn unix(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let mut text = super::net::UNIX.to_owned();
    for socket in namespace(viewer)?.unix_sockets() {
        let (state, listens) = socket.proc_state();
        let flags = if listens { ACCEPTS } else { 0 };
        let base = socket.base();
        let _ = write!(
            text,
            "{:016x}: {:08X} {:08X} {flags:08X} {:04X} {state:02X} {:5}",
            0, 2, 0, base.kind, base.ino,
        );
        if let Some(name) = socket.name() {
            text.push(' ');
            text.push_str(&name.display());
        }
        text.push('\n');
    }
    Ok(text.into_bytes())
}

/// Sockets by kind: all, TCP and UDP of one family.
fn counts(viewer: &Viewer, family: Family) -> Result<[usize; 3], Errno> {
    let namespace = namespace(viewer)?;
    let (tcp, udp) = (namespace.tcp_sockets(), namespace.udp.bound());
    let all = tcp.len() + udp.len() + namespace.unix_sockets().len();
    let tcp = tcp.iter().filter(|socket| socket.family() == family);
    let udp = udp.iter().filter(|socket| socket.family() == family);
    Ok([all, tcp.count(), udp.count()])
}

fn sockstat(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let [all, tcp, udp] = counts(viewer, Family::V4)?;
    Ok(format!(
        "sockets: used {all}\nTCP: inuse {tcp} orphan 0 tw 0 alloc {tcp} mem 0\n\
         UDP: inuse {udp} mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"
    )
    .into_bytes())
}

fn sockstat6(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let [_, tcp, udp] = counts(viewer, Family::V6)?;
    Ok(format!(
        "TCP6: inuse {tcp}\nUDP6: inuse {udp}\nUDPLITE6: inuse 0\nRAW6: inuse 0\n\
         FRAG6: inuse 0 memory 0\n"
    )
    .into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_look_like_linux() {
        let v4: SocketAddr = "127.0.0.1:15432".parse().expect("address");
        assert_eq!(address(v4), "0100007F:3C48");
        let v6: SocketAddr = "[::1]:80".parse().expect("address");
        assert_eq!(address(v6), "00000000000000000000000001000000:0050");
        assert_eq!(address(remote(v4, None)), "00000000:0000");
    }
}
