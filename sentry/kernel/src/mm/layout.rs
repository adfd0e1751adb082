//! Where things go in a fresh address space.

use std::ops::Range;

use super::{MIN_ADDR, PAGE_SIZE, page_ceil, page_floor};

/// Whether addresses are randomised (`ADDR_NO_RANDOMIZE` of
/// `personality(2)` turns it off).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aslr {
    Randomize,
    Off,
}

/// Smallest and largest room kept for the stack above the mapping area.
const MIN_STACK_GAP: u64 = 128 << 20;
/// Largest stack that is reserved, whatever `RLIMIT_STACK` says: beyond it
/// (or without limit) the rest of the room can still be grown into.
const MAX_STACK_RESERVE: u64 = 1 << 30;

/// Random bits of the mapping base and of the base of position independent
/// executables, in pages (`vm.mmap_rnd_bits`).
const MMAP_RANDOM_PAGES: u64 = 1 << 28;
/// Randomisation of the stack's top, in pages.
const STACK_RANDOM_PAGES: u64 = 1 << 22;
/// Randomisation of the break's start, in pages.
const BRK_RANDOM_PAGES: u64 = 1 << 13;

/// Places of the parts of a process image. `/proc/PID/stat` and
/// `prctl(PR_SET_MM)` deal in these.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Mappings are placed below this, downwards.
    pub mmap_base: u64,
    /// The stack's reserve.
    pub stack: Range<u64>,
    pub brk_start: u64,
    pub brk: u64,
    pub code: Range<u64>,
    pub data: Range<u64>,
    /// Initial stack pointer.
    pub stack_start: u64,
    pub args: Range<u64>,
    pub env: Range<u64>,
    /// The auxiliary vector as `/proc/PID/auxv` shows it.
    pub auxv: Vec<u8>,
    /// Where the vDSO is.
    pub vdso: Option<u64>,
}

impl Layout {
    /// Works out bases for a stack limited to `stack_limit` bytes.
    /// `random` gives random numbers; they are not used with [`Aslr::Off`].
    pub fn new(guest: &Range<u64>, stack_limit: u64, aslr: Aslr, random: [u64; 2]) -> Self {
        let [stack_random, mmap_random] = match aslr {
            Aslr::Randomize => [
                (random[0] % STACK_RANDOM_PAGES) * PAGE_SIZE,
                (random[1] % MMAP_RANDOM_PAGES) * PAGE_SIZE,
            ],
            Aslr::Off => [0, 0],
        };
        let size = guest.end.saturating_sub(guest.start);
        // A small range (tests) gives a small share to chance.
        let stack_random = page_floor(stack_random.min(size / 16));
        let mmap_random = page_floor(mmap_random.min(size / 16));
        let stack_top = page_floor(guest.end).saturating_sub(PAGE_SIZE + stack_random);
        let reserve = page_ceil(stack_limit.clamp(PAGE_SIZE * 32, MAX_STACK_RESERVE))
            .unwrap_or(MAX_STACK_RESERVE)
            .min(page_floor(size / 8));
        let gap = stack_limit
            .saturating_add(super::STACK_GUARD_GAP)
            .max(MIN_STACK_GAP)
            .min(size / 6 * 5);
        let mmap_base = page_floor(
            stack_top
                .saturating_sub(page_floor(gap))
                .saturating_sub(mmap_random),
        )
        .min(
            stack_top
                .saturating_sub(reserve)
                .saturating_sub(super::STACK_GUARD_GAP),
        )
        .max(guest.start.max(MIN_ADDR));
        Self {
            mmap_base,
            stack: stack_top.saturating_sub(reserve)..stack_top,
            stack_start: stack_top,
            ..Self::default()
        }
    }

    /// Base for a position independent executable.
    pub fn pie_base(guest: &Range<u64>, aslr: Aslr, random: u64) -> u64 {
        let size = guest.end.saturating_sub(guest.start);
        let base = guest.start + size / 3 * 2;
        let random = match aslr {
            Aslr::Randomize => ((random % MMAP_RANDOM_PAGES) * PAGE_SIZE).min(size / 16),
            Aslr::Off => 0,
        };
        page_floor(base.saturating_add(random))
    }

    /// Start of the break behind an image that ends at `end`.
    pub fn brk_base(end: u64, aslr: Aslr, random: u64) -> u64 {
        let end = page_ceil(end).unwrap_or(end);
        match aslr {
            Aslr::Randomize => end.saturating_add((random % BRK_RANDOM_PAGES) * PAGE_SIZE),
            Aslr::Off => end,
        }
    }
}
