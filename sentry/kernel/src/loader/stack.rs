//! The initial stack: strings, vectors and the auxiliary vector, laid out as
//! the x86-64 ABI supplement's "Initial Stack and Register State" says.

use std::ops::Range;

use syscall_tables::Errno;
use syscall_tables::abi::{AT_EXECFN, AT_NULL, AT_PLATFORM, AT_RANDOM};

use super::Arguments;

/// `AT_PLATFORM`.
const PLATFORM: &[u8] = b"x86_64";

/// A stack's content and the places in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackImage {
    /// Initial stack pointer: address of the first byte, 16-byte aligned.
    pub pointer: u64,
    /// Bytes from there to the top of the stack.
    pub bytes: Vec<u8>,
    pub args: Range<u64>,
    pub env: Range<u64>,
    /// The auxiliary vector with its end mark.
    pub auxv: Vec<u8>,
}

/// Collects bytes from the top down.
struct Strings {
    top: u64,
    /// Reversed: the last byte is the lowest.
    reversed: Vec<u8>,
}

impl Strings {
    fn addr(&self) -> u64 {
        self.top.saturating_sub(self.reversed.len() as u64)
    }

    fn push(&mut self, bytes: &[u8]) -> u64 {
        self.reversed.extend(bytes.iter().rev());
        self.addr()
    }

    fn push_string(&mut self, string: &[u8]) -> u64 {
        self.push(&[0]);
        self.push(string)
    }

    fn align(&mut self, to: u64) {
        while !self.addr().is_multiple_of(to) {
            self.reversed.push(0);
        }
    }
}

/// Builds the stack below `top`. `auxv` lacks what points into the stack;
/// that is added. `gap` bytes are left free between strings and vectors.
pub fn build(
    top: u64,
    arguments: &Arguments,
    random: [u8; 16],
    auxv: &[(u64, u64)],
    gap: u64,
) -> Result<StackImage, Errno> {
    let mut strings = Strings {
        top,
        reversed: Vec::with_capacity(4096),
    };
    strings.push(&[0; 8]);
    let filename = strings.push_string(&arguments.filename);
    let env_end = filename;
    let mut envp: Vec<u64> = Vec::with_capacity(arguments.envp.len());
    for string in arguments.envp.iter().rev() {
        envp.push(strings.push_string(string));
    }
    envp.reverse();
    let args_end = strings.addr();
    let mut argv: Vec<u64> = Vec::with_capacity(arguments.argv.len());
    for string in arguments.argv.iter().rev() {
        argv.push(strings.push_string(string));
    }
    argv.reverse();
    let args_start = strings.addr();
    strings.align(16);
    for _ in 0..gap / 16 {
        strings.push(&[0; 16]);
    }
    let platform = strings.push_string(PLATFORM);
    let random = strings.push(&random);
    strings.align(16);

    let own = [
        (AT_RANDOM, random),
        (AT_EXECFN, filename),
        (AT_PLATFORM, platform),
        (AT_NULL, 0),
    ];
    let mut auxv_bytes = Vec::with_capacity((auxv.len() + own.len()) * 16);
    for (kind, value) in auxv.iter().chain(&own) {
        auxv_bytes.extend(kind.to_le_bytes());
        auxv_bytes.extend(value.to_le_bytes());
    }
    let mut vectors = Vec::with_capacity(auxv_bytes.len() + 8 * (argv.len() + envp.len() + 3));
    vectors.extend((argv.len() as u64).to_le_bytes());
    for pointer in argv.iter().chain(&[0]).chain(&envp).chain(&[0]) {
        vectors.extend(pointer.to_le_bytes());
    }
    vectors.extend(&auxv_bytes);
    // The stack pointer is a multiple of 16.
    if !vectors.len().is_multiple_of(16) {
        strings.push(&[0; 8]);
    }
    let pointer = strings.push(&vectors);
    if pointer >= top || strings.reversed.len() as u64 > top {
        return Err(Errno::E2BIG);
    }
    strings.reversed.reverse();
    Ok(StackImage {
        pointer,
        bytes: strings.reversed,
        args: args_start..args_end,
        env: args_end..env_end,
        auxv: auxv_bytes,
    })
}
