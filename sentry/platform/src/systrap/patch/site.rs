//! Where a call may be patched.
//!
//! Text holds data too, and where instructions begin is not known without
//! running it: what looks like a call may be part of a constant. So only those
//! calls are looked at that the guest has made.

use std::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl};

/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
pub(super) const SYSCALL_LEN: usize = 2;
/// `jmp rel32`.
pub(super) const JUMP_LEN: usize = 5;
/// Largest call number believed of a `mov`.
const MAX_NUMBER: u32 = 1023;
/// Prefixes that would make `mov $n, %eax` another instruction.
const PREFIXES: [u8; 11] = [
    0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
];

/// Longest stretch of text that changes: the call and the longest instruction.
pub(super) const MAX_PATCHED: usize = SYSCALL_LEN + 15;

/// A place where the guest calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// Where the jump goes, from the start of the text.
    pub(super) offset: usize,
    pub(super) kind: Kind,
    /// What stands there in the file.
    bytes: [u8; MAX_PATCHED],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `mov $number, %eax; syscall`: the jump takes the place of the `mov`.
    Mov { number: u32 },
    /// `syscall` and one instruction of `len` bytes, which move out. A `ret`
    /// takes the padding behind it along.
    Bare { len: usize },
}

impl Site {
    fn new(text: &[u8], offset: usize, kind: Kind) -> Option<Self> {
        let mut site = Self {
            offset,
            kind,
            bytes: [0; MAX_PATCHED],
        };
        let len = site.patched().len();
        let original = text.get(site.patched())?;
        site.bytes.get_mut(..len)?.copy_from_slice(original);
        Some(site)
    }

    /// The same in a text of which the one it was found in starts at `base`.
    fn shifted(self, base: usize) -> Self {
        Self {
            offset: self.offset + base,
            ..self
        }
    }

    /// What stands in the file in the place of [`Self::patched`].
    pub(super) fn original(&self) -> &[u8] {
        self.bytes.get(..self.patched().len()).unwrap_or_default()
    }

    /// The instruction behind the call.
    pub(super) fn back(&self) -> usize {
        match self.kind {
            Kind::Mov { .. } => self.offset + JUMP_LEN + SYSCALL_LEN,
            Kind::Bare { .. } => self.offset + SYSCALL_LEN,
        }
    }

    /// The call number that the site itself sets.
    pub(super) fn number(&self) -> Option<u32> {
        match self.kind {
            Kind::Mov { number } => Some(number),
            Kind::Bare { .. } => None,
        }
    }

    /// The bytes that change.
    pub(super) fn patched(&self) -> Range<usize> {
        let len = match self.kind {
            Kind::Mov { .. } => JUMP_LEN,
            Kind::Bare { len, .. } => JUMP_LEN.max(SYSCALL_LEN + len),
        };
        self.offset..self.offset + len
    }
}

/// How much has to be known of the text before and behind a call. A multiple of
/// 16, by which functions are aligned.
pub(super) const MARGIN: usize = 32;

/// The place to patch for a `syscall` that the guest has executed, at `at` in
/// a part of a text that starts at `base`.
pub(super) fn executed(part: &[u8], base: usize, at: usize) -> Option<Site> {
    let at = at.checked_sub(base)?;
    if part.get(at..)?.get(..SYSCALL_LEN)? != SYSCALL {
        return None;
    }
    let site = with_mov(part, at).or_else(|| bare(part, at));
    site.map(|site| site.shifted(base))
}

fn with_mov(text: &[u8], at: usize) -> Option<Site> {
    let offset = at.checked_sub(JUMP_LEN)?;
    let (&code, number) = text.get(offset..at)?.split_first()?;
    let number = u32::from_le_bytes(*number.first_chunk()?);
    let prefix = offset.checked_sub(1).and_then(|before| text.get(before));
    let prefixed = prefix.is_some_and(|byte| byte & 0xf0 == 0x40 || PREFIXES.contains(byte));
    if code != 0xb8 || number > MAX_NUMBER || prefixed {
        return None;
    }
    Site::new(text, offset, Kind::Mov { number })
}

fn bare(text: &[u8], at: usize) -> Option<Site> {
    let rest = text.get(at + SYSCALL_LEN..)?;
    let mut decoder = Decoder::new(64, rest, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let len = instruction.len();
    match instruction.code() {
        Code::INVALID => return None,
        Code::Retnq => {
            // What follows a return and is no code to run into.
            let padding = rest.get(len..)?;
            let nops: [&[u8]; 5] = [
                &[0x66, 0x90],
                &[0x66, 0x2e],
                &[0x66, 0x66],
                &[0x0f, 0x1f],
                &[0xcc, 0xcc],
            ];
            let aligned = (at + SYSCALL_LEN + len).is_multiple_of(16);
            if aligned || !nops.iter().any(|nop| padding.starts_with(nop)) {
                return None;
            }
        }
        _ if instruction.flow_control() != FlowControl::Next => return None,
        _ if instruction.is_ip_rel_memory_operand() => return None,
        _ if len < JUMP_LEN - SYSCALL_LEN => return None,
        _ => {}
    }
    Site::new(text, at, Kind::Bare { len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &[u8], at: usize) -> Option<Kind> {
        executed(text, 0, at).map(|site| site.kind)
    }

    #[test]
    fn a_number_before_the_call() {
        let text = [0x90, 0xb8, 0x6e, 0, 0, 0, 0x0f, 0x05, 0xc3];
        let site = executed(&text, 0x100, 0x106).expect("a site");
        assert_eq!(site.kind, Kind::Mov { number: 110 });
        assert_eq!((site.offset, site.back()), (0x101, 0x108));
        assert_eq!(site.original(), &text[1..6]);
        // `mov $0x6e, %r8d`, and no call.
        let other = [0x41, 0xb8, 0x6e, 0, 0, 0, 0x0f, 0x05, 0xc3];
        assert_eq!(kind(&other, 6), None);
        assert_eq!(kind(&text, 5), None);
    }

    #[test]
    fn an_instruction_behind_the_call() {
        let text = [
            0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0x77,
        ];
        assert_eq!(kind(&text, 2), Some(Kind::Bare { len: 6 }));
        let text = [0x90, 0x0f, 0x05, 0x48, 0x89, 0xc7, 0x90];
        assert_eq!(kind(&text, 1), Some(Kind::Bare { len: 3 }));
        // A jump, an operand relative to the instruction, too short.
        let unfit: [&[u8]; 3] = [
            &[0x75, 0x10, 0x90, 0x90],
            &[0x48, 0x8b, 5, 0, 0, 0, 0],
            &[0x85, 0xc0, 0x90],
        ];
        for rest in unfit {
            let text: Vec<u8> = SYSCALL.iter().chain(rest).copied().collect();
            assert_eq!(kind(&text, 0), None);
        }
    }

    #[test]
    fn a_return_takes_its_padding_along() {
        let text = [0x0f, 0x05, 0xc3, 0x66, 0x90];
        assert_eq!(kind(&text, 0), Some(Kind::Bare { len: 1 }));
        assert_eq!(kind(&[0x0f, 0x05, 0xc3, 0x55, 0x90], 0), None);
    }
}
