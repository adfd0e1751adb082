//! Trampolines: the code to which a patched call site jumps.
//!
//! A *slot* for `mov $n, %eax; syscall`:
//! ```text
//!         mov  $n, %eax
//!         lea  data(%rip), %rcx
//!         jmp  *entry(%rip)          the stub
//! data:   .long back - data
//!         jmp  back                  the stub returns here
//! ```
//! For a bare `syscall` the `mov` is missing, and before the last jump stands
//! the instruction whose place the jump to here has taken. Somebody may return
//! to that place (a signal handler, a forked child) or even jump there: the
//! sentry sends them here, since the byte that they find is chosen to be no
//! instruction (see [`UNDEFINED`]).
//!
//! Everything is relative to the text, so one image serves all processes that
//! map it, wherever.

use super::site::{JUMP_LEN, Kind, SYSCALL_LEN, Site};
use crate::systrap::layout as l;

/// Slots begin at multiples of this.
const UNIT: usize = 32;
const PAGE: usize = 4096;
/// Room for trampolines of one text.
pub(super) const MAX_TRAMPOLINES: usize = 16 * PAGE;
/// Address of the stub's entry, at the start of the trampolines.
const HEADER_UNITS: usize = 1;
const MOV_LEN: usize = 5;
const LEA_LEN: usize = 7;
const JUMP_INDIRECT_LEN: usize = 6;
const DATA_LEN: usize = 4;
/// `hlt`, which faults in user mode.
const FILLER: u8 = 0xf4;

/// First bytes that are no instruction in 64-bit mode.
const UNDEFINED: [u8; 19] = [
    0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce,
    0xd4, 0xd6, 0xea,
];

/// A site with its place among the trampolines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) site: Site,
    /// From the start of the trampolines.
    pub(super) start: usize,
}

/// Where a program counter in a slot is, as the guest knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the call.
    Before,
    /// Behind it, at this offset in the text.
    Behind(usize),
}

impl Slot {
    fn data(&self) -> usize {
        let mov = match self.site.kind {
            Kind::Mov { .. } => MOV_LEN,
            Kind::Bare { .. } => 0,
        };
        // Aligned, since the guest may have alignment checked.
        self.start + (mov + LEA_LEN + JUMP_INDIRECT_LEN).next_multiple_of(DATA_LEN)
    }

    /// Where the stub returns to.
    pub(super) fn behind(&self) -> usize {
        self.data() + DATA_LEN
    }

    fn end(&self) -> usize {
        let moved = match self.site.kind {
            Kind::Mov { .. } => 0,
            Kind::Bare { len } => len,
        };
        self.behind() + moved + JUMP_LEN
    }

    /// What `offset` among the trampolines means, if it is in this slot.
    pub(super) fn place(&self, offset: usize) -> Option<Place> {
        if !(self.start..self.end()).contains(&offset) {
            return None;
        }
        Some(if offset < self.behind() {
            Place::Before
        } else if offset == self.behind() {
            Place::Behind(self.site.back())
        } else {
            Place::Behind(self.site.patched().end)
        })
    }

    /// Offset in the text that the guest may come back to and that the jump
    /// has taken away.
    pub(super) fn displaced(&self) -> Option<usize> {
        match self.site.kind {
            Kind::Mov { .. } => None,
            Kind::Bare { .. } => Some(self.site.back()),
        }
    }
}

/// Gives sites their places. Places are never changed, so that trampolines can
/// be replaced by later ones under running threads.
pub(super) struct Allocator {
    /// Start of the trampolines less that of the text.
    delta: i64,
    used: Vec<bool>,
    slots: Vec<Slot>,
}

impl Allocator {
    pub(super) fn new(delta: i64) -> Self {
        let mut used = vec![false; MAX_TRAMPOLINES / UNIT];
        used[..HEADER_UNITS].fill(true);
        Self {
            delta,
            used,
            slots: Vec::new(),
        }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Finds a place for `site`; says whether there is one.
    pub(super) fn add(&mut self, site: Site) -> bool {
        let overlaps = |other: &Slot| {
            let (one, two) = (other.site.patched(), site.patched());
            one.start < two.end && two.start < one.end
        };
        if self.slots.iter().any(overlaps) {
            return false;
        }
        let units = Slot { site, start: 0 }.end().div_ceil(UNIT);
        let place = (0..=self.used.len() - units).find(|&first| {
            let free = self.used.iter().skip(first).take(units).all(|used| !used);
            free && self.is_safe(site, first * UNIT)
        });
        let Some(first) = place else { return false };
        for used in self.used.iter_mut().skip(first).take(units) {
            *used = true;
        }
        self.slots.push(Slot {
            site,
            start: first * UNIT,
        });
        true
    }

    /// The distance that the jump at `site` to `start` covers.
    fn distance(&self, site: Site, start: usize) -> Option<i32> {
        let from = i64::try_from(site.offset + JUMP_LEN).ok()?;
        let to = self.delta.checked_add(i64::try_from(start).ok()?)?;
        i32::try_from(to.checked_sub(from)?).ok()
    }

    /// Whether the jump reaches, and what it leaves of the instruction behind
    /// the call is none.
    fn is_safe(&self, site: Site, start: usize) -> bool {
        let Some(distance) = self.distance(site, start) else {
            return false;
        };
        let [_, second, ..] = distance.to_le_bytes();
        matches!(site.kind, Kind::Mov { .. }) || UNDEFINED.contains(&second)
    }

    /// The code of all trampolines.
    pub(super) fn trampolines(&self) -> Vec<u8> {
        let end = self.slots.iter().map(Slot::end).max().unwrap_or(0);
        let mut code = vec![FILLER; end.next_multiple_of(PAGE)];
        put(&mut code, 0, &l::CALL_ENTRY.to_le_bytes());
        for slot in &self.slots {
            self.put_slot(&mut code, slot);
        }
        code
    }

    fn put_slot(&self, code: &mut [u8], slot: &Slot) {
        let relative = |to: usize, from: usize| {
            // All within the 64 KiB of trampolines.
            i32::try_from(to as i64 - from as i64)
                .unwrap_or(0)
                .to_le_bytes()
        };
        // From here to a place in the text, which reaches as the way here does.
        let to_text = |to: usize, from: usize| {
            let distance = to as i64 - (self.delta + from as i64);
            i32::try_from(distance).unwrap_or(0).to_le_bytes()
        };
        let mut at = slot.start;
        if let Kind::Mov { number } = slot.site.kind {
            put(code, at, &[0xb8]);
            put(code, at + 1, &number.to_le_bytes());
            at += MOV_LEN;
        }
        put(code, at, &[0x48, 0x8d, 0x0d]);
        put(code, at + 3, &relative(slot.data(), at + LEA_LEN));
        at += LEA_LEN;
        put(code, at, &[0xff, 0x25]);
        put(code, at + 2, &relative(0, at + JUMP_INDIRECT_LEN));
        put(code, slot.data(), &to_text(slot.site.back(), slot.data()));
        at = slot.behind();
        if let Kind::Bare { len } = slot.site.kind {
            let moved = slot.site.original().get(SYSCALL_LEN..).unwrap_or_default();
            put(code, at, moved.get(..len).unwrap_or_default());
            at += len;
        }
        put(code, at, &[0xe9]);
        let back = match slot.site.kind {
            Kind::Mov { .. } => slot.site.back(),
            Kind::Bare { .. } => slot.site.patched().end,
        };
        put(code, at + 1, &to_text(back, at + JUMP_LEN));
    }

    /// Puts the jumps into a copy of the text, of which `page` starts at
    /// `offset`; says whether what it found there is what was there before.
    #[must_use]
    pub(super) fn patch(&self, page: &mut [u8], offset: usize) -> bool {
        for slot in &self.slots {
            let Some(distance) = self.distance(slot.site, slot.start) else {
                continue;
            };
            for (at, byte) in slot.site.patched().zip(slot.site.original()) {
                let found = at.checked_sub(offset).and_then(|at| page.get(at));
                if found.is_some_and(|found| found != byte) {
                    return false;
                }
            }
            let [a, b, c, d] = distance.to_le_bytes();
            let jump = [0xe9, a, b, c, d];
            // What is left of a longer instruction is never run.
            let bytes = jump.into_iter().chain(std::iter::repeat(UNDEFINED[0]));
            for (at, byte) in slot.site.patched().zip(bytes) {
                if let Some(to) = at.checked_sub(offset).and_then(|at| page.get_mut(at)) {
                    *to = byte;
                }
            }
        }
        true
    }
}

fn put(code: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = code.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::{Code, Decoder, DecoderOptions};

    use super::super::site::executed;
    use super::*;

    fn decode(code: &[u8], at: usize, ip: u64) -> iced_x86::Instruction {
        Decoder::with_ip(64, &code[at..], ip, DecoderOptions::NONE).decode()
    }

    const TEXT: [u8; 32] = {
        let mut text = [0x90; 32];
        let calls = [
            0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3, 0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d, 0, 0xf0,
            0xff, 0xff, 0x77, 0x02,
        ];
        let mut at = 0;
        while at < calls.len() {
            text[at] = calls[at];
            at += 1;
        }
        text
    };

    fn sites() -> [Site; 2] {
        [5, 10].map(|at| executed(&TEXT, 0, at).expect("a site"))
    }

    #[test]
    fn sites_jump_to_their_slots_and_back() {
        for delta in [0x6000_0000i64, -0x7000_0000] {
            let base = 0x7000_1234_5000u64;
            let mut slots = Allocator::new(delta);
            for site in sites() {
                assert!(slots.add(site));
            }
            let area = base.wrapping_add_signed(delta);
            let code = slots.trampolines();
            let mut text = TEXT;
            assert!(slots.patch(&mut text, 0));
            assert!(!slots.patch(&mut text, 0), "no longer what it was");
            assert_eq!(text[5..8], TEXT[5..8], "a call after `mov` stays");
            for slot in slots.slots() {
                let at = slot.site.offset;
                let jump = decode(&text, at, base + at as u64);
                assert_eq!(jump.code(), Code::Jmp_rel32_64);
                assert_eq!(jump.near_branch64(), area + slot.start as u64);
                if let Some(displaced) = slot.displaced() {
                    assert_eq!(decode(&text, displaced, 0).code(), Code::INVALID);
                    let moved = decode(&code, slot.behind(), area);
                    assert_eq!(moved.code(), Code::Cmp_RAX_imm32);
                }
                let end = slot.end() - JUMP_LEN;
                let back = decode(&code, end, area + end as u64);
                let expected = match slot.site.kind {
                    Kind::Mov { .. } => 7,
                    Kind::Bare { .. } => 18,
                };
                assert_eq!(back.near_branch64(), base + expected);
                let data = i32::from_le_bytes(*code[slot.data()..].first_chunk().expect("data"));
                let back = (area + slot.data() as u64).wrapping_add_signed(data.into());
                assert_eq!(back, base + slot.site.back() as u64);
            }
        }
    }

    #[test]
    fn every_counter_in_a_slot_has_its_meaning() {
        let mut slots = Allocator::new(0x6000_0000);
        for site in sites() {
            assert!(slots.add(site));
        }
        let [mov, bare] = slots.slots() else {
            panic!("two sites")
        };
        assert_eq!(mov.place(mov.start), Some(Place::Before));
        assert_eq!(mov.place(mov.behind()), Some(Place::Behind(7)));
        assert_eq!(bare.place(bare.start), Some(Place::Before));
        assert_eq!(bare.place(bare.behind()), Some(Place::Behind(12)));
        assert_eq!(bare.place(bare.behind() + 6), Some(Place::Behind(18)));
        assert_eq!(bare.place(bare.end()), None);
    }

    #[test]
    fn a_place_is_taken_once() {
        let mut slots = Allocator::new(0x6000_0000);
        let [site, _] = sites();
        assert!(slots.add(site));
        assert!(!slots.add(site));
    }
}
