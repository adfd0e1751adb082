//! Text of numbers, flag words, strings and arrays.

use std::fmt::Write;

use super::{Memory, Options};
use crate::abi::NameSet;

/// `0x1f`, or `0`.
pub fn hex(value: u64) -> String {
    if value == 0 {
        "0".to_owned()
    } else {
        format!("{value:#x}")
    }
}

/// `0644`, or `0`.
pub fn octal(value: u64) -> String {
    if value == 0 {
        "0".to_owned()
    } else {
        format!("0{value:o}")
    }
}

/// An address: `NULL` or hexadecimal.
pub fn addr(value: u64) -> String {
    if value == 0 {
        "NULL".to_owned()
    } else {
        format!("{value:#x}")
    }
}

/// Names of the bits joined by `|`, and what has no name in hexadecimal.
pub fn flags(set: &NameSet, value: u64) -> String {
    let value = if set.bits > 32 {
        value
    } else {
        value & u64::from(u32::MAX)
    };
    let mut rest = value;
    let mut out = String::new();
    let mut push = |text: &str| {
        if !out.is_empty() {
            out.push('|');
        }
        out.push_str(text);
    };
    for name in set.names {
        let matches = value & name.mask == name.value;
        if matches && (name.value == 0 || rest & name.mask != 0) {
            push(name.name);
            rest &= !name.mask;
        }
    }
    if rest != 0 {
        push(&hex(rest));
    } else if out.is_empty() {
        out.push('0');
    }
    out
}

/// The value's name, or the value in hexadecimal.
pub fn name(set: &NameSet, value: u64) -> String {
    match set.name_of(value) {
        Some(name) => name.to_owned(),
        None => hex(value & u64::from(u32::MAX)),
    }
}

/// A C string literal; `...` follows if there is more than was given.
pub fn quote(bytes: &[u8], more: bool) -> String {
    let mut out = String::with_capacity(bytes.len() + 5);
    out.push('"');
    for (i, &byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x0b => out.push_str("\\v"),
            0x0c => out.push_str("\\f"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                // A digit that follows would become part of a short escape.
                let digit_follows = bytes.get(i + 1).is_some_and(u8::is_ascii_digit);
                let _ = if digit_follows {
                    write!(out, "\\{byte:03o}")
                } else {
                    write!(out, "\\{byte:o}")
                };
            }
        }
    }
    out.push('"');
    if more {
        out.push_str("...");
    }
    out
}

/// `[a, b, ...]`.
pub fn list(items: &[String], more: bool) -> String {
    let mut out = String::from("[");
    out.push_str(&items.join(", "));
    if more {
        out.push_str(if items.is_empty() { "..." } else { ", ..." });
    }
    out.push(']');
    out
}

/// All of `len` bytes.
pub fn read_exact(memory: &mut dyn Memory, addr: u64, len: usize) -> Option<Vec<u8>> {
    let bytes = memory.read(addr, len)?;
    (bytes.len() == len).then_some(bytes)
}

/// A buffer of `len` bytes as a quoted string, cut to the option's length.
pub fn buffer(memory: &mut dyn Memory, at: u64, len: u64, options: &Options) -> String {
    if at == 0 {
        return "NULL".to_owned();
    }
    if len == 0 {
        return "\"\"".to_owned();
    }
    let shown = usize::try_from(len).map_or(options.max_string, |len| len.min(options.max_string));
    match memory.read(at, shown) {
        Some(bytes) => quote(&bytes, len > bytes.len() as u64),
        None => addr(at),
    }
}

/// Bytes of a NUL-terminated string and whether its end was found within
/// `max`; `None` if its beginning is not accessible. Reads page by page, as
/// the next page may not be there.
pub fn read_string(memory: &mut dyn Memory, addr: u64, max: usize) -> Option<(Vec<u8>, bool)> {
    const PAGE: u64 = 4096;
    let mut out = Vec::new();
    let mut at = addr;
    while out.len() < max {
        let to_page_end = (PAGE - at % PAGE) as usize;
        // Most strings are short: ask for little first.
        let step = if out.is_empty() { 256 } else { 4096 };
        let len = to_page_end.min(step).min(max - out.len());
        let Some(piece) = memory.read(at, len) else {
            break;
        };
        if let Some(end) = piece.iter().position(|&byte| byte == 0) {
            out.extend_from_slice(piece.get(..end).unwrap_or_default());
            return Some((out, true));
        }
        let got = piece.len();
        out.extend_from_slice(&piece);
        if got < len {
            break;
        }
        at = at.wrapping_add(got as u64);
    }
    if out.is_empty() && max > 0 {
        None
    } else {
        Some((out, false))
    }
}

/// A NUL-terminated string, quoted; its address if it is not accessible.
pub fn string(memory: &mut dyn Memory, at: u64, max: usize) -> String {
    if at == 0 {
        return "NULL".to_owned();
    }
    match read_string(memory, at, max) {
        Some((bytes, complete)) => quote(&bytes, !complete),
        None => addr(at),
    }
}
