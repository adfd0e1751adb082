//! Where the segments of an ELF file go.

use std::ops::Range;
use std::sync::Arc;

use sentry_platform::Protection;
use syscall_tables::Errno;

use super::elf::{Elf, Segment};
use crate::mm::{Backing, Layout, MIN_ADDR, Mapped, Vma, VmaFlags, VmaTree, page_ceil, page_floor};

/// Mappings of an address space that is being planned.
pub struct Placed {
    guest: Range<u64>,
    mmap_base: u64,
    stack: Range<u64>,
    tree: VmaTree,
    /// In the order of mapping: later ones replace what they overlap.
    pub vmas: Vec<Vma>,
    /// Parts of pages to be zeroed: address and length in bytes.
    pub zeroes: Vec<(u64, usize)>,
}

impl Placed {
    pub fn new(guest: Range<u64>, layout: &Layout) -> Self {
        Self {
            guest,
            mmap_base: layout.mmap_base,
            stack: layout.stack.clone(),
            tree: VmaTree::new(),
            vmas: Vec::new(),
            zeroes: Vec::new(),
        }
    }

    /// Adds a mapping, replacing what it overlaps.
    pub fn add(&mut self, vma: Vma) -> Result<(), Errno> {
        let range = vma.range();
        if range.is_empty()
            || range.start < self.guest.start.max(MIN_ADDR)
            || range.end > self.guest.end
        {
            return Err(Errno::ENOEXEC);
        }
        drop(self.tree.remove(range));
        self.tree.insert(vma.clone());
        self.vmas.push(vma);
        Ok(())
    }

    /// A free place below the mapping base.
    pub fn gap(&mut self, len_bytes: u64, align: u64) -> Result<u64, Errno> {
        let floor = self.guest.start.max(MIN_ADDR);
        self.tree
            .gap_below(len_bytes, floor, self.mmap_base, align)
            .ok_or(Errno::ENOMEM)
    }
}

/// Plans the mappings of `elf`, answering the bias of its addresses.
/// `preferred` is where a position independent one goes if that is free.
pub fn place(
    placed: &mut Placed,
    elf: &Elf,
    mapped: &Arc<Mapped>,
    preferred: Option<u64>,
) -> Result<u64, Errno> {
    let span = elf.span();
    let bias = if elf.is_dynamic {
        let len = span.end - span.start;
        let preferred = preferred
            .map(|base| base & !(elf.align - 1))
            .filter(|base| {
                base.checked_add(len)
                    .is_some_and(|end| end <= placed.mmap_base && placed.tree.is_free(*base..end))
            });
        let start = match preferred {
            Some(base) => base,
            None => placed.gap(len, elf.align)?,
        };
        start.wrapping_sub(span.start)
    } else {
        0
    };
    let range = span.start.wrapping_add(bias)..span.end.wrapping_add(bias);
    if range.start < placed.stack.end && range.end > placed.stack.start {
        return Err(Errno::ENOMEM);
    }
    for segment in &elf.segments {
        place_segment(placed, segment, mapped, bias)?;
    }
    Ok(bias)
}

fn place_segment(
    placed: &mut Placed,
    segment: &Segment,
    mapped: &Arc<Mapped>,
    bias: u64,
) -> Result<(), Errno> {
    let bad = Errno::ENOEXEC;
    let addr = segment.addr.wrapping_add(bias);
    let start = page_floor(addr);
    let mem_end = addr.checked_add(segment.mem_len).ok_or(bad)?;
    let file_end = addr.checked_add(segment.file_len).ok_or(bad)?;
    let end = page_ceil(mem_end).ok_or(bad)?;
    let protection = segment.protection;
    let vma = |range: Range<u64>, backing| Vma {
        start: range.start,
        end: range.end,
        protection,
        max_protection: Protection::all(),
        flags: VmaFlags::empty(),
        backing,
        name: None,
    };
    let mut anonymous_from = start;
    if segment.file_len > 0 {
        let file_pages_end = page_ceil(file_end).ok_or(bad)?;
        // Both lie equally within their page: this was checked.
        let offset = page_floor(segment.offset);
        placed.add(vma(
            start..file_pages_end,
            Backing::Object(mapped.clone(), offset),
        ))?;
        anonymous_from = file_pages_end;
        let tail = file_pages_end - file_end;
        if segment.mem_len > segment.file_len && tail > 0 && protection.contains(Protection::WRITE)
        {
            // All of the rest of the page, as Linux does it.
            let tail = usize::try_from(tail).map_err(|_| bad)?;
            placed.zeroes.push((file_end, tail));
        }
    }
    if end > anonymous_from {
        placed.add(vma(anonymous_from..end, Backing::Anonymous))?;
    }
    Ok(())
}
