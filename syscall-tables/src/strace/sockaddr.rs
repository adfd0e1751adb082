//! Text of socket addresses and options.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::FromBytes;

use super::text::{addr, name, quote};
use super::{Memory, Options, text};
use crate::abi;

/// An address of `len` bytes.
pub fn sockaddr(at: u64, len: u64, memory: &mut dyn Memory) -> String {
    if at == 0 {
        return "NULL".to_owned();
    }
    let len = usize::try_from(len & 0xffff_ffff)
        .unwrap_or(0)
        .min(abi::SOCKADDR_STORAGE_LEN);
    match memory.read(at, len) {
        Some(bytes) => decode(&bytes).unwrap_or_else(|| addr(at)),
        None => addr(at),
    }
}

fn decode(bytes: &[u8]) -> Option<String> {
    let (family, rest) = u16::read_from_prefix(bytes).ok()?;
    let family_name = name(&abi::ADDRESS_FAMILIES, family.into());
    let body = match family {
        abi::AF_UNIX => unix(rest),
        abi::AF_INET => {
            let (a, _) = abi::SockAddrIn::read_from_prefix(bytes).ok()?;
            format!(
                ", sin_port=htons({}), sin_addr=inet_addr(\"{}\")",
                u16::from_be_bytes(a.sin_port),
                Ipv4Addr::from(a.sin_addr)
            )
        }
        abi::AF_INET6 => {
            let mut padded = [0; size_of::<abi::SockAddrIn6>()];
            if bytes.len() < abi::SockAddrIn6::MIN_LEN {
                return None;
            }
            for (to, from) in padded.iter_mut().zip(bytes) {
                *to = *from;
            }
            let (a, _) = abi::SockAddrIn6::read_from_prefix(&padded).ok()?;
            format!(
                ", sin6_port=htons({}), sin6_addr=\"{}\", sin6_scope_id={}",
                u16::from_be_bytes(a.sin6_port),
                Ipv6Addr::from(a.sin6_addr),
                a.sin6_scope_id
            )
        }
        abi::AF_NETLINK => {
            let (a, _) = abi::SockAddrNl::read_from_prefix(bytes).ok()?;
            format!(", nl_pid={}, nl_groups={:08x}", a.nl_pid, a.nl_groups)
        }
        _ if rest.is_empty() => String::new(),
        _ => format!(", sa_data={}", quote(rest, false)),
    };
    Some(format!("{{sa_family={family_name}{body}}}"))
}

/// `sun_path`: a path, an abstract name (`@"name"`), or none.
fn unix(path: &[u8]) -> String {
    match path {
        [] => String::new(),
        [0, rest @ ..] => format!(", sun_path=@{}", quote(rest, false)),
        path => {
            let end = path.iter().position(|&b| b == 0).unwrap_or(path.len());
            format!(
                ", sun_path={}",
                quote(path.get(..end).unwrap_or(path), false)
            )
        }
    }
}

/// Name of an option at a level.
pub fn option_name(level: u32, option: u64) -> String {
    let set = match level {
        abi::SOL_SOCKET => &abi::SO_OPTIONS,
        abi::SOL_IP => &abi::IP_OPTIONS,
        abi::SOL_IPV6 => &abi::IPV6_OPTIONS,
        abi::SOL_TCP => &abi::TCP_OPTIONS,
        abi::SOL_UDP | abi::SOL_UDPLITE => &abi::UDP_OPTIONS,
        abi::SOL_NETLINK => &abi::NETLINK_OPTIONS,
        _ => return (option as i32).to_string(),
    };
    match set.name_of(option) {
        Some(name) => name.to_owned(),
        None => (option as i32).to_string(),
    }
}

/// Value of an option: most are an `int`.
pub fn option_value(at: u64, len: u64, memory: &mut dyn Memory, options: &Options) -> String {
    if at != 0
        && len == 4
        && let Some(bytes) = text::read_exact(memory, at, 4)
        && let Ok((value, _)) = i32::read_from_prefix(&bytes)
    {
        return format!("[{value}]");
    }
    text::buffer(memory, at, len & 0xffff_ffff, options)
}
