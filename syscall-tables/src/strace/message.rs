//! Text of `iovec` arrays and message headers.

use zerocopy::FromBytes;

use super::text::{self, addr, flags, list, name, read_exact};
use super::{Memory, Options, PIECE_MAX, sockaddr};
use crate::abi;

/// `count` vectors and what is in their buffers, of `data_len` bytes in all.
pub fn iovecs(
    at: u64,
    count: u64,
    data_len: u64,
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    if at == 0 {
        return "NULL".to_owned();
    }
    let shown = usize::try_from(count).map_or(options.max_array, |n| n.min(options.max_array));
    if shown == 0 {
        return list(&[], count > 0);
    }
    let Some(bytes) = read_exact(memory, at, shown * size_of::<abi::Iovec>()) else {
        return addr(at);
    };
    let vectors = bytes
        .chunks_exact(size_of::<abi::Iovec>())
        .filter_map(|chunk| abi::Iovec::read_from_bytes(chunk).ok());
    let mut left = data_len;
    let items: Vec<_> = vectors
        .map(|vector| {
            let here = vector.iov_len.min(left);
            left -= here;
            format!(
                "{{iov_base={}, iov_len={}}}",
                text::buffer(memory, vector.iov_base, here, options),
                vector.iov_len
            )
        })
        .collect();
    list(&items, count > shown as u64)
}

/// A message header; `received` is the count of bytes received, `None` when
/// sending.
pub fn msghdr(
    at: u64,
    received: Option<u64>,
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    if at == 0 {
        return "NULL".to_owned();
    }
    match read_exact(memory, at, size_of::<abi::MsgHdr>())
        .and_then(|bytes| abi::MsgHdr::read_from_bytes(&bytes).ok())
    {
        Some(header) => message(&header, received, memory, options),
        None => addr(at),
    }
}

/// `count` of sendmmsg(2)'s or recvmmsg(2)'s headers; `received` if the call
/// has filled them in.
pub fn mmsghdrs(
    at: u64,
    count: u64,
    received: Option<()>,
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    const SIZE: usize = size_of::<abi::MmsgHdr>();
    if at == 0 {
        return "NULL".to_owned();
    }
    let shown = usize::try_from(count & 0xffff_ffff)
        .map_or(options.max_array, |n| n.min(options.max_array));
    if shown == 0 {
        return list(&[], false);
    }
    let Some(bytes) = read_exact(memory, at, shown * SIZE) else {
        return addr(at);
    };
    let items: Vec<_> = bytes
        .chunks_exact(SIZE)
        .filter_map(|chunk| abi::MmsgHdr::read_from_bytes(chunk).ok())
        .map(|header| {
            let received = received.map(|()| header.msg_len.into());
            format!(
                "{{msg_hdr={}, msg_len={}}}",
                message(&header.msg_hdr, received, memory, options),
                header.msg_len
            )
        })
        .collect();
    list(&items, count > shown as u64)
}

fn message(
    header: &abi::MsgHdr,
    received: Option<u64>,
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    let mut out = format!(
        "{{msg_name={}, msg_namelen={}, msg_iov={}, msg_iovlen={}",
        sockaddr::sockaddr(header.msg_name, header.msg_namelen as u32 as u64, memory),
        header.msg_namelen,
        iovecs(
            header.msg_iov,
            header.msg_iovlen,
            received.unwrap_or(u64::MAX),
            memory,
            options
        ),
        header.msg_iovlen
    );
    if header.msg_control != 0 && header.msg_controllen != 0 {
        out.push_str(", msg_control=");
        out.push_str(&control(
            header.msg_control,
            header.msg_controllen,
            memory,
            options,
        ));
    }
    out.push_str(&format!(
        ", msg_controllen={}, msg_flags={}}}",
        header.msg_controllen,
        flags(&abi::MSG_FLAGS, header.msg_flags.into())
    ));
    out
}

fn control(at: u64, len: u64, memory: &mut dyn Memory, options: &Options) -> String {
    let shown = usize::try_from(len).map_or(PIECE_MAX, |len| len.min(PIECE_MAX));
    let Some(bytes) = memory.read(at, shown) else {
        return addr(at);
    };
    let mut items = Vec::new();
    let mut rest = bytes.as_slice();
    let mut more = len > bytes.len() as u64;
    while let Ok((header, data)) = abi::CmsgHdr::read_from_prefix(rest) {
        if items.len() == options.max_array {
            more = true;
            break;
        }
        let Some(data_len) = usize::try_from(header.cmsg_len)
            .ok()
            .and_then(|len| len.checked_sub(size_of::<abi::CmsgHdr>()))
        else {
            break;
        };
        let data = data.get(..data_len).unwrap_or(data);
        items.push(cmsg(&header, data, options));
        match rest.get(abi::CmsgHdr::space_of(data_len.min(PIECE_MAX))..) {
            Some(next) if !next.is_empty() => rest = next,
            _ => break,
        }
    }
    list(&items, more)
}

fn cmsg(header: &abi::CmsgHdr, data: &[u8], options: &Options) -> String {
    let socket = header.cmsg_level as u32 == abi::SOL_SOCKET;
    let kind = if socket {
        name(&abi::SCM_TYPES, header.cmsg_type as u64)
    } else {
        header.cmsg_type.to_string()
    };
    let text = match header.cmsg_type {
        abi::SCM_RIGHTS if socket => {
            let fds: Vec<_> = data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&fd| i32::from_ne_bytes(fd).to_string())
                .collect();
            list(&fds, false)
        }
        abi::SCM_CREDENTIALS if socket => match abi::Ucred::read_from_prefix(data) {
            Ok((cred, _)) => format!("{{pid={}, uid={}, gid={}}}", cred.pid, cred.uid, cred.gid),
            Err(_) => text::quote(data, false),
        },
        _ => {
            let shown = data.get(..options.max_string).unwrap_or(data);
            text::quote(shown, shown.len() < data.len())
        }
    };
    format!(
        "{{cmsg_len={}, cmsg_level={}, cmsg_type={kind}, cmsg_data={text}}}",
        header.cmsg_len,
        name(&abi::SOCKOPT_LEVELS, header.cmsg_level as u64)
    )
}
