//! Building netlink messages.

use syscall_tables::Errno;
use syscall_tables::abi::{
    NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR, NlMsgErr, NlMsgHdr, NlmFlags, RtAttr,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Largest datagram of a dump.
const DATAGRAM_MAX: usize = 16_384;

/// A message being built: header, body, attributes.
pub struct Message {
    bytes: Vec<u8>,
}

/// What an answer refers to.
#[derive(Clone, Copy)]
pub struct Reply {
    pub seq: u32,
    pub port: u32,
    /// Part of a dump.
    pub multi: bool,
}

impl Message {
    pub fn new(kind: u16, reply: Reply, body: &(impl IntoBytes + Immutable)) -> Self {
        let mut flags = NlmFlags::empty();
        flags.set(NlmFlags::NLM_F_MULTI, reply.multi);
        let header = NlMsgHdr {
            nlmsg_len: 0,
            nlmsg_type: kind,
            nlmsg_flags: flags.bits(),
            nlmsg_seq: reply.seq,
            nlmsg_pid: reply.port,
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(body.as_bytes());
        let mut message = Self { bytes };
        message.pad();
        message
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds an attribute.
    pub fn attr(&mut self, kind: u16, data: &[u8]) {
        let len = size_of::<RtAttr>() + data.len();
        let header = RtAttr {
            rta_len: u16::try_from(len).unwrap_or(u16::MAX),
            rta_type: kind,
        };
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    /// Adds a number.
    pub fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Adds a string with its NUL.
    pub fn attr_str(&mut self, kind: u16, text: &[u8]) {
        let mut data = text.to_vec();
        data.push(0);
        self.attr(kind, &data);
    }

    /// The finished message.
    pub fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.first_chunk_mut::<4>() {
            *field = len.to_ne_bytes();
        }
        self.bytes
    }
}

/// The requests in a datagram, each with its header, until one is cut off.
pub fn requests(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], NlMsgHdr)> {
    std::iter::from_fn(move || {
        let (header, _) = NlMsgHdr::read_from_prefix(rest).ok()?;
        let len = usize::try_from(header.nlmsg_len).ok()?;
        if len < size_of::<NlMsgHdr>() {
            return None;
        }
        let request = rest.get(..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((request, header))
    })
}

/// Puts messages into as few datagrams as hold them; the last one of a dump
/// comes alone, as from Linux.
pub fn pack(messages: Vec<Vec<u8>>, out: &mut Vec<Vec<u8>>) {
    let count = messages.len();
    let mut datagram: Vec<u8> = Vec::new();
    for (index, message) in messages.into_iter().enumerate() {
        let last = index + 1 == count && index > 0;
        if !datagram.is_empty() && (last || datagram.len() + message.len() > DATAGRAM_MAX) {
            out.push(std::mem::take(&mut datagram));
        }
        datagram.extend_from_slice(&message);
    }
    if !datagram.is_empty() {
        out.push(datagram);
    }
}

/// The end of a dump.
pub fn done(reply: Reply) -> Vec<u8> {
    Message::new(NLMSG_DONE, reply, &0_i32).finish()
}

/// An error, or an acknowledgement. `request` is the whole refused message;
/// with `cap` only its header is repeated.
pub fn error(
    request: &[u8],
    header: NlMsgHdr,
    port: u32,
    errno: Option<Errno>,
    cap: bool,
) -> Vec<u8> {
    let reply = Reply {
        seq: header.nlmsg_seq,
        port,
        multi: false,
    };
    let body = NlMsgErr {
        error: errno.map_or(0, |errno| -errno.raw()),
        msg: header,
    };
    let mut message = Message::new(NLMSG_ERROR, reply, &body);
    if errno.is_some() && !cap {
        let rest = request.get(size_of::<NlMsgHdr>()..).unwrap_or_default();
        message.bytes.extend_from_slice(rest);
        message.pad();
    } else if let Some(flags) = message.bytes.get_mut(6..8) {
        flags.copy_from_slice(&NLM_F_CAPPED.to_ne_bytes());
    }
    message.finish()
}
