//! Text of one argument.

use super::signals::signal;
use super::text::{self, addr, flags, hex, list, name, octal};
use super::{Memory, Options, Part, is_output, message, sockaddr, structs};
use crate::abi;
use crate::table::{Arg, Kind, Struct};

/// When an argument is decoded.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    Enter,
    Exit { result: u64, failed: bool },
}

/// Decodes an argument; at entry, arguments that the call writes stay
/// [`Part::Pending`].
pub fn format_arg(
    arg: &Arg,
    index: usize,
    args: &[u64; 6],
    phase: Phase,
    memory: &mut dyn Memory,
    options: &Options,
) -> Part {
    let kind = arg.kind.resolve(args);
    let value = at(args, index);
    if is_output(kind) {
        return output(kind, value, args, phase, memory, options);
    }
    Part::Done(match kind {
        Kind::StrArray => string_array(value, arg.name == "envp", memory, options),
        Kind::CreateMode(flags) => {
            let creating = abi::OpenFlags::O_CREAT.bits()
                | abi::OpenFlags::O_TMPFILE.bits() ^ abi::OpenFlags::O_DIRECTORY.bits();
            if at(args, flags) & u64::from(creating) == 0 {
                return Part::Skip;
            }
            octal(value & 0xffff_ffff)
        }
        Kind::Unused => return Part::Skip,
        kind => input(kind, value, args, memory, options),
    })
}

/// An argument by index.
pub fn at(args: &[u64; 6], index: usize) -> u64 {
    args.get(index).copied().unwrap_or(0)
}

fn input(
    kind: Kind,
    value: u64,
    args: &[u64; 6],
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    match kind {
        Kind::Fd | Kind::Pid | Kind::Int => (value as i32).to_string(),
        Kind::DirFd if value as i32 == abi::AT_FDCWD => "AT_FDCWD".to_owned(),
        Kind::DirFd => (value as i32).to_string(),
        Kind::Uid | Kind::Gid if value as u32 == u32::MAX => "-1".to_owned(),
        Kind::Uid | Kind::Gid | Kind::Uint => (value as u32).to_string(),
        Kind::Signal => signal(value as i32),
        Kind::Size => value.to_string(),
        Kind::Offset | Kind::Long => (value as i64).to_string(),
        Kind::Hex => hex(value),
        Kind::Octal => octal(value & 0xffff_ffff),
        Kind::Addr => addr(value),
        Kind::Mode => mode(value as u32),
        Kind::Dev => device(value),
        Kind::Flags(set) => flags(set, value),
        Kind::Enum(set) => name(set, value),
        Kind::EnumFlags(values, bits) => enum_flags(values, bits, value),
        Kind::IpcCmd(set) => {
            // IPC_64 (0x100) says nothing on x86-64.
            let cmd = value & 0xffff_ffff & !0x100;
            match abi::IPC_CMDS.name_of(cmd) {
                Some(name) => name.to_owned(),
                None => name(set, cmd),
            }
        }
        Kind::CloneWord => clone_word(value),
        Kind::FutexOp => futex_op(value as u32),
        Kind::Capability => abi::CapSet::from_number(value)
            .map_or_else(|| value.to_string(), |cap| flags(&abi::CAP_SET, cap.bits())),
        Kind::IoctlRequest => name(&abi::IOCTLS, value),
        Kind::SockOptName(level) => sockaddr::option_name(at(args, level) as u32, value),
        Kind::Path => text::string(memory, value, abi::PATH_MAX),
        Kind::Str => text::string(memory, value, options.max_string.max(255)),
        Kind::InBuf(len) => text::buffer(memory, value, at(args, len), options),
        Kind::InSockOpt(len) => sockaddr::option_value(value, at(args, len), memory, options),
        Kind::InSockAddr(len) => sockaddr::sockaddr(value, at(args, len), memory),
        Kind::InMsg => message::msghdr(value, None, memory, options),
        Kind::InMmsg(len) => message::mmsghdrs(value, at(args, len), None, memory, options),
        Kind::InIovec(len) => message::iovecs(value, at(args, len), u64::MAX, memory, options),
        Kind::In(what) => structs::one(what, value, args, memory),
        Kind::InArray(what, len) => {
            structs::array(what, value, at(args, len), args, memory, options)
        }
        _ => hex(value),
    }
}

/// Arguments that the call writes.
fn output(
    kind: Kind,
    value: u64,
    args: &[u64; 6],
    phase: Phase,
    memory: &mut dyn Memory,
    options: &Options,
) -> Part {
    if value == 0 {
        return Part::Done("NULL".to_owned());
    }
    let (result, failed) = match phase {
        Phase::Enter => {
            return Part::Pending(match kind {
                Kind::InOut(what) => Some(structs::one(what, value, args, memory)),
                Kind::InOutArray(what, len) => Some(structs::array(
                    what,
                    value,
                    at(args, len),
                    args,
                    memory,
                    options,
                )),
                _ => None,
            });
        }
        Phase::Exit { result, failed } => (result, failed),
    };
    if failed {
        // The call wrote nothing: what was there at entry, or the address.
        return match kind {
            Kind::InOut(_) | Kind::InOutArray(..) => Part::Skip,
            _ => Part::Done(addr(value)),
        };
    }
    Part::Done(match kind {
        Kind::OutBuf(len) => {
            let written = result.min(at(args, len));
            if written == 0 && at(args, len) == 0 {
                addr(value)
            } else {
                text::buffer(memory, value, written, options)
            }
        }
        Kind::OutBufFull(len) => text::buffer(memory, value, at(args, len), options),
        Kind::OutName => text::string(memory, value, abi::TASK_COMM_LEN),
        Kind::OutDirents(_) => dirents(value, result, memory),
        Kind::OutSockOpt(len) => match structs::uint_at(at(args, len), memory) {
            Some(len) => sockaddr::option_value(value, len.into(), memory, options),
            None => addr(value),
        },
        Kind::Out(what) | Kind::InOut(what) => structs::one(what, value, args, memory),
        Kind::OutArray(what, len) => {
            let count = result.min(at(args, len) & 0xffff_ffff);
            structs::array(what, value, count, args, memory, options)
        }
        Kind::InOutArray(what, len) => {
            structs::array_after(what, value, at(args, len), args, memory, options)
        }
        Kind::OutIovec(len) => message::iovecs(value, at(args, len), result, memory, options),
        Kind::OutSockAddr(len) => match structs::uint_at(at(args, len), memory) {
            Some(len) => sockaddr::sockaddr(value, len.into(), memory),
            None => addr(value),
        },
        Kind::OutMsg => message::msghdr(value, Some(result), memory, options),
        Kind::OutMmsg(_) => message::mmsghdrs(value, result, Some(()), memory, options),
        _ => addr(value),
    })
}

/// Text of a mode: `S_IFREG|0644`, or the permissions alone.
pub fn mode(mode: u32) -> String {
    let kind = mode & abi::S_IFMT;
    let bits = octal((mode & !abi::S_IFMT).into());
    match abi::FILE_TYPES.name_of(kind.into()) {
        Some(name) => format!("{name}|{bits}"),
        None => octal(mode.into()),
    }
}

/// Text of a device number.
pub fn device(dev: u64) -> String {
    format!(
        "makedev({:#x}, {:#x})",
        abi::dev_major(dev),
        abi::dev_minor(dev)
    )
}

fn enum_flags(values: &'static abi::NameSet, bits: &'static abi::NameSet, value: u64) -> String {
    let known = bits.names.iter().fold(0, |all, name| all | name.mask);
    let first = name(values, value & 0xffff_ffff & !known);
    match value & known {
        0 => first,
        rest => format!("{first}|{}", flags(bits, rest)),
    }
}

fn clone_word(value: u64) -> String {
    let exit = (value & abi::CSIGNAL) as i32;
    let rest = flags(&abi::CLONE_FLAGS, value & !abi::CSIGNAL);
    match (exit, rest.as_str()) {
        (0, _) => rest,
        (exit, "0") => signal(exit),
        (exit, _) => format!("{rest}|{}", signal(exit)),
    }
}

fn futex_op(op: u32) -> String {
    let cmd = name(&abi::FUTEX_OPS, (op & abi::FUTEX_CMD_MASK).into());
    // strace's spelling of the commonest combination.
    let mut out = if op & abi::FUTEX_PRIVATE_FLAG != 0 {
        format!("{cmd}_PRIVATE")
    } else {
        cmd
    };
    if op & abi::FUTEX_CLOCK_REALTIME != 0 {
        out.push_str("|FUTEX_CLOCK_REALTIME");
    }
    out
}

fn string_array(
    value: u64,
    count_only: bool,
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    // Far above what a reader of the line wants, far below what could hurt.
    const COUNT_MAX: usize = 4096;
    if value == 0 {
        return "NULL".to_owned();
    }
    let limit = if count_only {
        COUNT_MAX
    } else {
        options.max_array
    };
    let mut pointers = Vec::new();
    let mut more = false;
    let mut position = value;
    'pieces: loop {
        // Whole pages, so that a table ending at a page's end is read.
        let len = (4096 - position % 4096) as usize & !7;
        let Some(piece) = memory.read(position, if len == 0 { 8 } else { len }) else {
            if pointers.is_empty() {
                return addr(value);
            }
            more = true;
            break;
        };
        let words = piece.as_chunks::<8>().0;
        if words.is_empty() {
            more = true;
            break;
        }
        for word in words {
            match u64::from_ne_bytes(*word) {
                0 => break 'pieces,
                pointer if pointers.len() < limit => pointers.push(pointer),
                _ => {
                    more = true;
                    break 'pieces;
                }
            }
        }
        position = position.wrapping_add(8 * words.len() as u64);
    }
    if count_only {
        let plus = if more { "+" } else { "" };
        return format!("{value:#x} /* {}{plus} vars */", pointers.len());
    }
    let items: Vec<_> = pointers
        .iter()
        .map(|&pointer| {
            text::read_string(memory, pointer, options.max_string)
                .map_or_else(|| addr(pointer), |(bytes, end)| text::quote(&bytes, !end))
        })
        .collect();
    list(&items, more)
}

/// Number of directory entries in `len` bytes. Both forms of entry have
/// their length at the same offset.
fn dirents(value: u64, len: u64, memory: &mut dyn Memory) -> String {
    const RECLEN: usize = 16;
    let len = usize::try_from(len).unwrap_or(0).min(super::PIECE_MAX);
    if len == 0 {
        return format!("{value:#x} /* 0 entries */");
    }
    let Some(bytes) = memory.read(value, len) else {
        return addr(value);
    };
    let mut count = 0;
    let mut rest = bytes.as_slice();
    while let Some(&[low, high]) = rest.get(RECLEN..RECLEN + 2) {
        let reclen = usize::from(u16::from_ne_bytes([low, high]));
        count += 1;
        match rest.get(reclen..) {
            Some(next) if reclen > 0 => rest = next,
            _ => break,
        }
    }
    let plus = if len == super::PIECE_MAX { "+" } else { "" };
    format!("{value:#x} /* {count}{plus} entries */")
}

/// Text of `Struct::FdSet` needs the highest fd, which is select(2)'s first
/// argument.
pub fn fd_set(bytes: &[u8], args: &[u64; 6]) -> String {
    let limit = usize::try_from(at(args, 0) as u32).unwrap_or(0);
    let fds: Vec<_> = (0..limit.min(bytes.len() * 8))
        .filter(|fd| {
            bytes
                .get(fd / 8)
                .is_some_and(|byte| byte >> (fd % 8) & 1 != 0)
        })
        .map(|fd| fd.to_string())
        .collect();
    format!("[{}]", fds.join(" "))
}

/// Bytes of an fd set that count.
pub fn struct_len(what: Struct, args: &[u64; 6]) -> usize {
    match what {
        Struct::FdSet => {
            let fds = (at(args, 0) as u32 as usize).min(abi::FD_SETSIZE);
            fds.div_ceil(64) * 8
        }
        Struct::CloneArgs => abi::CloneArgs::SIZE_VER0,
        other => other.size_bytes(),
    }
}
