//! Route queries to the host (`rtnetlink(7)`), of the network namespace the
//! sentry is in.

use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{
    NLMSG_DONE, NLMSG_ERROR, NlMsgHdr, NlmFlags, RTM_GETADDR, RTM_GETLINK, RTM_GETNEIGH,
    RTM_GETROUTE, RTM_GETRULE,
};
use zerocopy::{FromBytes, IntoBytes};

/// Queries that are passed on.
const QUERIES: [u16; 5] = [
    RTM_GETLINK,
    RTM_GETADDR,
    RTM_GETROUTE,
    RTM_GETNEIGH,
    RTM_GETRULE,
];
/// Longest query.
const REQUEST_MAX: usize = 512;
/// Longest answer taken.
const ANSWER_MAX: usize = 8 << 20;
/// Buffer for one datagram; the host makes them at most 32 KiB long.
const DATAGRAM_MAX: usize = 64 << 10;

/// A netlink socket, made before the sentry is locked in.
pub struct RouteSocket {
    fd: OwnedFd,
    /// One query at a time, with its number.
    sequence: Mutex<u32>,
}

impl RouteSocket {
    pub fn open() -> Result<Self, Errno> {
        let kind = libc::SOCK_RAW as u32;
        let fd = super::socket(libc::AF_NETLINK as u16, kind, libc::NETLINK_ROUTE as u32)?;
        Ok(Self {
            fd,
            sequence: Mutex::new(0),
        })
    }

    /// Whether the host is asked at all for `kind`.
    pub fn answers(kind: u16) -> bool {
        QUERIES.contains(&kind)
    }

    /// Asks the host; `body` follows the message header. The messages of the
    /// answer are whole, their headers as the host made them but for sequence
    /// and port, which are 0. The end of a dump is not among them.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for what is not a query; the host's own errors.
    pub fn query(&self, kind: u16, dump: bool, body: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        if !Self::answers(kind) || body.len() > REQUEST_MAX {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut sequence = self.sequence.lock();
        *sequence = sequence.wrapping_add(1);
        let mut flags = NlmFlags::NLM_F_REQUEST;
        flags.set(NlmFlags::NLM_F_DUMP, dump);
        let header = NlMsgHdr {
            nlmsg_len: (size_of::<NlMsgHdr>() + body.len()) as u32,
            nlmsg_type: kind,
            nlmsg_flags: flags.bits(),
            nlmsg_seq: *sequence,
            nlmsg_pid: 0,
        };
        let mut request = header.as_bytes().to_vec();
        request.extend_from_slice(body);
        super::send(&self.fd, &request, 0)?;
        let mut messages = Vec::new();
        let mut total = 0;
        let mut buf = vec![0; DATAGRAM_MAX];
        // The host answers while it takes the query and the datagrams before:
        // nothing has to be waited for.
        loop {
            let len = match super::receive(&self.fd, &mut buf, 0) {
                Ok(len) => len,
                // An answer to an acknowledged query is complete.
                Err(Errno::EAGAIN) => return Ok(messages),
                Err(errno) => return Err(errno),
            };
            total += len;
            let datagram = buf.get(..len).unwrap_or_default();
            if take(datagram, *sequence, &mut messages)? == Progress::Complete {
                return Ok(messages);
            }
            if total > ANSWER_MAX {
                return Err(Errno::ENOBUFS);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    More,
    Complete,
}

/// Takes the messages of a datagram that answer query `sequence`.
fn take(datagram: &[u8], sequence: u32, messages: &mut Vec<Vec<u8>>) -> Result<Progress, Errno> {
    let mut rest = datagram;
    let mut progress = Progress::More;
    while let Ok((mut header, _)) = NlMsgHdr::read_from_prefix(rest) {
        let len = header.nlmsg_len as usize;
        let Some(body) = rest.get(size_of::<NlMsgHdr>()..len) else {
            break;
        };
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        // A rest of an answer that was given up.
        if header.nlmsg_seq != sequence {
            continue;
        }
        match header.nlmsg_type {
            NLMSG_DONE => return Ok(Progress::Complete),
            NLMSG_ERROR => {
                let number = body.first_chunk::<4>().ok_or(Errno::EIO)?;
                return match i32::from_ne_bytes(*number) {
                    0 => Ok(Progress::Complete),
                    number => Err(Errno::from_raw(number.saturating_neg())),
                };
            }
            _ => {}
        }
        let multi = NlmFlags::from_bits_retain(header.nlmsg_flags).contains(NlmFlags::NLM_F_MULTI);
        if !multi {
            progress = Progress::Complete;
        }
        header.nlmsg_seq = 0;
        header.nlmsg_pid = 0;
        let mut message = header.as_bytes().to_vec();
        message.extend_from_slice(body);
        message.resize(message.len().next_multiple_of(4), 0);
        messages.push(message);
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_dumped_and_unknown_ones_refused() {
        let socket = RouteSocket::open().expect("netlink");
        let links = socket.query(RTM_GETLINK, true, &[0; 16]).expect("dump");
        assert!(!links.is_empty());
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&0x7fff_fff0_i32.to_ne_bytes());
        let missing = socket.query(RTM_GETLINK, false, &body);
        assert_eq!(missing.err(), Some(Errno::ENODEV));
        body[4..8].copy_from_slice(&1_i32.to_ne_bytes());
        let lo = socket.query(RTM_GETLINK, false, &body).expect("lo");
        assert_eq!(lo.len(), 1);
        let write = socket.query(RTM_GETLINK + 1, false, &body);
        assert_eq!(write.err(), Some(Errno::EOPNOTSUPP));
    }
}
