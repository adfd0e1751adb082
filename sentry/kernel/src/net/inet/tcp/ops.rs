//! The [`Socket`] interface of TCP.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    IP_MTU, IP_OPTIONS_OPT, IPV6_MTU, IPV6_V6ONLY, MsgFlags, SO_PEERCRED, SOL_IP, SOL_IPV6,
    SOL_SOCKET, SOL_TCP, SOL_UDP, SOL_UDPLITE, TCP_CC_INFO, TCP_CONGESTION, TCP_INFO, TCP_MAXSEG,
    TCP_REPAIR, TCP_ULP, TcpInfo, Ucred,
};
use zerocopy::IntoBytes;

use super::{Hold, TcpSocket};
use crate::ctx::Ctx;
use crate::net::interface::LOOPBACK_MTU;
use crate::net::{Received, SendRequest, Shutdown, Socket, SocketAddr, SocketBase};
use crate::sync::Events;
use crate::task::CapSet;

/// Largest segment on loopback: MTU less headers.
const LOOPBACK_MSS: i32 = 65_483;
/// The only congestion control.
const CONGESTION: &[u8] = b"cubic";

impl TcpSocket {
    fn info(&self) -> TcpInfo {
        TcpInfo {
            tcpi_state: self.state_number(),
            tcpi_options: 7,
            tcpi_wscale: 0x77,
            tcpi_rto: 201_000,
            tcpi_ato: 40_000,
            tcpi_snd_mss: LOOPBACK_MSS.unsigned_abs(),
            tcpi_rcv_mss: 536,
            tcpi_pmtu: LOOPBACK_MTU.unsigned_abs(),
            tcpi_rcv_ssthresh: 65_483,
            tcpi_rtt: 20,
            tcpi_rttvar: 10,
            tcpi_snd_ssthresh: i32::MAX.unsigned_abs(),
            tcpi_snd_cwnd: 10,
            tcpi_advmss: LOOPBACK_MSS.unsigned_abs(),
            tcpi_reordering: 3,
            tcpi_rcv_space: 65_495,
            ..TcpInfo::default()
        }
    }
}

impl Socket for TcpSocket {
    fn base(&self) -> &SocketBase {
        &self.base
    }

    fn bind(&self, ctx: &Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        self.do_bind(ctx.task, addr)
    }

    fn connect(&self, _ctx: &Ctx<'_>, addr: &[u8], nonblocking: bool) -> Result<(), Errno> {
        self.do_connect(addr, nonblocking)
    }

    fn listen(&self, _ctx: &Ctx<'_>, backlog: i32) -> Result<(), Errno> {
        self.do_listen(backlog)
    }

    fn accept(&self) -> Result<(Arc<dyn Socket>, SocketAddr), Errno> {
        let child = self.do_accept()?;
        let (local, peer) = child.addresses();
        let addr = self.family.to_wire(peer.unwrap_or(local));
        Ok((child, addr))
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        self.do_shutdown(how)
    }

    fn local_addr(&self) -> Result<SocketAddr, Errno> {
        Ok(self.family.to_wire(self.addresses().0))
    }

    fn peer_addr(&self) -> Result<SocketAddr, Errno> {
        if self.connection().is_none() || self.rx.lock().reset {
            return Err(Errno::ENOTCONN);
        }
        let (_, peer) = self.addresses();
        Ok(self.family.to_wire(peer.ok_or(Errno::ENOTCONN)?))
    }

    fn send(&self, request: SendRequest<'_>) -> Result<usize, Errno> {
        self.do_send(&request)
    }

    fn recv(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        self.do_recv(buf, flags)
    }

    fn get_option(
        &self,
        _ctx: &Ctx<'_>,
        level: u32,
        name: u32,
        max_len: usize,
    ) -> Result<Vec<u8>, Errno> {
        let connected = || self.connection().is_some();
        let number = match (level, name) {
            (SOL_SOCKET, SO_PEERCRED) => {
                let nobody = Ucred {
                    pid: 0,
                    uid: u32::MAX,
                    gid: u32::MAX,
                };
                return Ok(nobody.as_bytes().to_vec());
            }
            (SOL_SOCKET, _) => return self.base.get_option(name, self.is_listening(), max_len),
            (SOL_TCP, TCP_INFO) => return Ok(self.info().as_bytes().to_vec()),
            (SOL_TCP, TCP_CONGESTION) => {
                let mut text = CONGESTION.to_vec();
                text.resize(16, 0);
                return Ok(text);
            }
            (SOL_TCP, TCP_ULP | TCP_CC_INFO) => return Ok(Vec::new()),
            (SOL_TCP, TCP_REPAIR) => 0,
            (SOL_TCP, TCP_MAXSEG) if connected() => LOOPBACK_MSS,
            (SOL_IP, IP_MTU) | (SOL_IPV6, IPV6_MTU) => {
                if !connected() {
                    return Err(Errno::ENOTCONN);
                }
                LOOPBACK_MTU
            }
            (SOL_UDP | SOL_UDPLITE, _) => return Err(self.family.no_such_level()),
            (SOL_IP, IP_OPTIONS_OPT) => return Ok(Vec::new()),
            _ => {
                let options = self.options.lock();
                return options.get(self.family, level, name, max_len);
            }
        };
        Ok(number.to_ne_bytes().to_vec())
    }

    fn set_option(&self, ctx: &Ctx<'_>, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        let creds = ctx.task.creds();
        match (level, name) {
            (SOL_SOCKET, _) => self.base.set_option(ctx, name, value),
            (SOL_UDP | SOL_UDPLITE, _) => Err(Errno::ENOPROTOOPT),
            (SOL_TCP, TCP_CONGESTION) => {
                let wanted = value.split(|byte| *byte == 0).next().unwrap_or_default();
                if wanted == CONGESTION || wanted == b"reno" {
                    Ok(())
                } else {
                    Err(Errno::ENOENT)
                }
            }
            (SOL_TCP, TCP_ULP) => Err(Errno::ENOENT),
            (SOL_TCP, TCP_REPAIR) => Err(if creds.has_own(CapSet::NET_ADMIN) {
                Errno::EOPNOTSUPP
            } else {
                Errno::EPERM
            }),
            (SOL_IP, IP_OPTIONS_OPT) if value.is_empty() => Ok(()),
            (SOL_IPV6, IPV6_V6ONLY) if self.state.lock().hold != Hold::None => Err(Errno::EINVAL),
            _ => {
                let mut options = self.options.lock();
                options.set(&creds, self.family, level, name, value)
            }
        }
    }

    fn poll(&self) -> Events {
        self.do_poll()
    }

    fn release(&self) {
        self.close();
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn unread(&self, bytes: &[u8]) {
        self.do_unread(bytes);
    }

    fn readable_bytes(&self) -> Result<usize, Errno> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(self.rx.lock().bytes.len())
    }

    fn unsent_bytes(&self) -> Result<usize, Errno> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        // What is in the peer's ring has been acknowledged.
        Ok(0)
    }

    fn at_mark(&self) -> Result<bool, Errno> {
        Ok(self.mark_reached())
    }
}
