//! Guest memory of a fake address space: regions with a backing, and the
//! pages of private ones that have been touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use syscall_tables::Errno;

use crate::traits::{AtomicOp, CopyFault, MemAdvice, MemError, MemOp, Protection, Sharing};

const PAGE: u64 = 4096;

pub(super) const GUEST_RANGE: Range<u64> = 0x1_0000..0x7fff_ffff_0000;

#[derive(Clone)]
enum Backing {
    Anonymous,
    /// The file and the offset of the region's first byte.
    PrivateFile(Arc<File>, u64),
    SharedFile(Arc<File>, u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OnFork {
    Copy,
    Omit,
    Wipe,
}

#[derive(Clone)]
struct Region {
    end: u64,
    protection: Protection,
    backing: Backing,
    on_fork: OnFork,
}

#[derive(Clone, Default)]
pub(super) struct Memory {
    /// By first address; they don't overlap.
    regions: BTreeMap<u64, Region>,
    /// Touched private pages by address.
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Memory {
    pub(super) fn apply(&mut self, ops: &[MemOp<'_>]) -> Result<(), MemError> {
        for (index, op) in ops.iter().enumerate() {
            self.apply_one(op)
                .map_err(|errno| MemError { index, errno })?;
        }
        Ok(())
    }

    fn apply_one(&mut self, op: &MemOp<'_>) -> Result<(), Errno> {
        match op {
            MemOp::MapAnonymous { range, protection } => {
                check(range)?;
                self.map(range, *protection, Backing::Anonymous);
                Ok(())
            }
            MemOp::MapFile {
                range,
                protection,
                sharing,
                fd,
                offset,
            } => {
                check(range)?;
                if offset % PAGE != 0 {
                    return Err(Errno::EINVAL);
                }
                let file = fd
                    .try_clone_to_owned()
                    .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(0)))?;
                let file = Arc::new(File::from(file));
                let backing = match sharing {
                    Sharing::Private => Backing::PrivateFile(file, *offset),
                    Sharing::Shared => Backing::SharedFile(file, *offset),
                };
                self.map(range, *protection, backing);
                Ok(())
            }
            MemOp::Unmap { range } => {
                check(range)?;
                self.unmap(range);
                Ok(())
            }
            MemOp::Protect { range, protection } => {
                check(range)?;
                self.change(range, |region| region.protection = *protection)
            }
            MemOp::Advise { range, advice } => {
                check(range)?;
                self.advise(range, *advice)
            }
            MemOp::Remap {
                from,
                to,
                keep_source,
            } => {
                check(from)?;
                check(to)?;
                self.remap(from, to, *keep_source)
            }
        }
    }

    fn map(&mut self, range: &Range<u64>, protection: Protection, backing: Backing) {
        self.unmap(range);
        self.regions.insert(
            range.start,
            Region {
                end: range.end,
                protection,
                backing,
                on_fork: OnFork::Copy,
            },
        );
    }

    fn unmap(&mut self, range: &Range<u64>) {
        self.split(range.start);
        self.split(range.end);
        self.regions.retain(|start, _| !range.contains(start));
        self.drop_pages(range);
    }

    fn drop_pages(&mut self, range: &Range<u64>) {
        let mut from = self.pages.split_off(&range.start);
        let mut behind = from.split_off(&range.end);
        self.pages.append(&mut behind);
    }

    /// Makes `at` a border between regions.
    fn split(&mut self, at: u64) {
        let Some((&start, region)) = self.regions.range_mut(..at).next_back() else {
            return;
        };
        if region.end <= at {
            return;
        }
        let mut tail = region.clone();
        region.end = at;
        if let Backing::PrivateFile(_, offset) | Backing::SharedFile(_, offset) = &mut tail.backing
        {
            *offset += at - start;
        }
        self.regions.insert(at, tail);
    }

    /// Applies `edit` to all regions of `range`.
    ///
    /// # Errors
    /// `ENOMEM` if there is a hole; regions before and after it are changed.
    fn change(&mut self, range: &Range<u64>, edit: impl Fn(&mut Region)) -> Result<(), Errno> {
        self.split(range.start);
        self.split(range.end);
        let mut covered = range.start;
        let mut has_hole = false;
        for (&start, region) in self.regions.range_mut(range.clone()) {
            has_hole |= start != covered;
            covered = region.end;
            edit(region);
        }
        if has_hole || covered != range.end {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    fn advise(&mut self, range: &Range<u64>, advice: MemAdvice) -> Result<(), Errno> {
        match advice {
            MemAdvice::DontNeed | MemAdvice::Free => {
                self.change(range, |_| {})?;
                self.drop_pages(range);
                Ok(())
            }
            MemAdvice::DontFork => self.change(range, |region| region.on_fork = OnFork::Omit),
            MemAdvice::WipeOnFork => self.change(range, |region| region.on_fork = OnFork::Wipe),
            MemAdvice::DoFork | MemAdvice::KeepOnFork => {
                self.change(range, |region| region.on_fork = OnFork::Copy)
            }
            MemAdvice::Remove => {
                let zeros = vec![0; usize::try_from(PAGE).unwrap_or(0)];
                let mut addr = range.start;
                while addr < range.end {
                    match self.region_at(addr).map(|(_, region)| &region.backing) {
                        Some(Backing::SharedFile(..)) => {}
                        _ => return Err(Errno::EINVAL),
                    }
                    self.write_page(addr, &zeros).map_err(|()| Errno::EIO)?;
                    addr += PAGE;
                }
                Ok(())
            }
            MemAdvice::HugePage
            | MemAdvice::NoHugePage
            | MemAdvice::WillNeed
            | MemAdvice::PopulateRead
            | MemAdvice::PopulateWrite => self.change(range, |_| {}),
        }
    }

    fn remap(&mut self, from: &Range<u64>, to: &Range<u64>, keep: bool) -> Result<(), Errno> {
        let in_place = from.start == to.start;
        if !in_place && from.start < to.end && to.start < from.end {
            return Err(Errno::EINVAL);
        }
        self.split(from.start);
        self.split(from.end);
        // Linux moves one mapping at a time: a hole is EFAULT.
        self.change(from, |_| {}).map_err(|_| Errno::EFAULT)?;
        let moved: Vec<_> = self
            .regions
            .range(from.clone())
            .map(|(&start, region)| (start, region.clone()))
            .collect();
        let pages: Vec<_> = self
            .pages
            .range(from.clone())
            .map(|(&addr, page)| (addr, page.clone()))
            .collect();
        if keep {
            self.drop_pages(from);
        } else {
            self.unmap(from);
        }
        self.unmap(to);
        for (start, mut region) in moved {
            let at = start - from.start + to.start;
            let end = region.end - from.start + to.start;
            if at >= to.end {
                continue;
            }
            // The last one grows or shrinks with the range.
            region.end = if region.end == from.end {
                to.end
            } else {
                end.min(to.end)
            };
            self.regions.insert(at, region);
        }
        for (addr, page) in pages {
            let at = addr - from.start + to.start;
            if at < to.end {
                self.pages.insert(at, page);
            }
        }
        Ok(())
    }

    pub(super) fn fork(&self) -> Self {
        let mut child = self.clone();
        for (&start, region) in &self.regions {
            match region.on_fork {
                OnFork::Copy => {}
                OnFork::Omit => child.unmap(&(start..region.end)),
                OnFork::Wipe => child.drop_pages(&(start..region.end)),
            }
        }
        child
    }

    pub(super) fn resident_bytes(&self) -> u64 {
        PAGE.saturating_mul(u64::try_from(self.pages.len()).unwrap_or(u64::MAX))
    }

    fn region_at(&self, addr: u64) -> Option<(u64, &Region)> {
        let (&start, region) = self.regions.range(..=addr).next_back()?;
        (addr < region.end).then_some((start, region))
    }

    /// The accessible region at `addr`: its start and backing.
    fn access(&self, addr: u64, needed: Protection) -> Result<(u64, Backing), ()> {
        let (start, region) = self.region_at(addr).ok_or(())?;
        // On x86 a page that can be written or executed can be read.
        let mut granted = region.protection;
        if !granted.is_empty() {
            granted |= Protection::READ;
        }
        if !granted.contains(needed) {
            return Err(());
        }
        Ok((start, region.backing.clone()))
    }

    /// The private page at `page_addr`, made if it is not there yet.
    fn private_page(
        &mut self,
        page_addr: u64,
        start: u64,
        backing: &Backing,
    ) -> Result<&mut Box<[u8]>, ()> {
        use std::collections::btree_map::Entry;
        match self.pages.entry(page_addr) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let mut page = vec![0; usize::try_from(PAGE).map_err(|_| ())?];
                if let Backing::PrivateFile(file, offset) = backing {
                    read_file_page(file, offset + (page_addr - start), &mut page)?;
                }
                Ok(entry.insert(page.into_boxed_slice()))
            }
        }
    }

    /// Reads within one page.
    fn read_page(&mut self, addr: u64, dst: &mut [u8]) -> Result<(), ()> {
        let (start, backing) = self.access(addr, Protection::READ)?;
        let page_addr = addr - addr % PAGE;
        let within = usize::try_from(addr % PAGE).map_err(|_| ())?;
        let source = within..within + dst.len();
        if let Backing::SharedFile(file, offset) = &backing {
            let mut page = vec![0; usize::try_from(PAGE).map_err(|_| ())?];
            read_file_page(file, offset + (page_addr - start), &mut page)?;
            dst.copy_from_slice(page.get(source).ok_or(())?);
            return Ok(());
        }
        let page = self.private_page(page_addr, start, &backing)?;
        dst.copy_from_slice(page.get(source).ok_or(())?);
        Ok(())
    }

    /// Writes within one page.
    fn write_page(&mut self, addr: u64, src: &[u8]) -> Result<(), ()> {
        let (start, backing) = self.access(addr, Protection::WRITE)?;
        let page_addr = addr - addr % PAGE;
        if let Backing::SharedFile(file, offset) = &backing {
            let at = offset + (addr - start);
            let size = file.metadata().map_err(drop)?.len();
            if offset + (page_addr - start) >= size {
                return Err(());
            }
            // Bytes of the last page behind the end of file are lost, as in
            // Linux once the page is dropped.
            let len = src
                .len()
                .min(usize::try_from(size - at.min(size)).map_err(drop)?);
            return file
                .write_all_at(src.get(..len).ok_or(())?, at)
                .map_err(drop);
        }
        let within = usize::try_from(addr % PAGE).map_err(|_| ())?;
        let page = self.private_page(page_addr, start, &backing)?;
        page.get_mut(within..within + src.len())
            .ok_or(())?
            .copy_from_slice(src);
        Ok(())
    }

    pub(super) fn read(&mut self, addr: u64, dst: &mut [u8]) -> Result<(), CopyFault> {
        let mut copied = 0;
        while copied < dst.len() {
            let (at, len) = chunk(addr, copied, dst.len())?;
            dst.get_mut(copied..copied + len)
                .ok_or(())
                .and_then(|part| self.read_page(at, part))
                .map_err(|()| CopyFault { copied })?;
            copied += len;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, addr: u64, src: &[u8]) -> Result<(), CopyFault> {
        let mut copied = 0;
        while copied < src.len() {
            let (at, len) = chunk(addr, copied, src.len())?;
            src.get(copied..copied + len)
                .ok_or(())
                .and_then(|part| self.write_page(at, part))
                .map_err(|()| CopyFault { copied })?;
            copied += len;
        }
        Ok(())
    }

    pub(super) fn atomic(&mut self, addr: u64, op: AtomicOp) -> Result<u32, CopyFault> {
        const FAULT: CopyFault = CopyFault { copied: 0 };
        if !addr.is_multiple_of(4) {
            return Err(FAULT);
        }
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes).map_err(|_| FAULT)?;
        let old = u32::from_ne_bytes(bytes);
        let new = match op {
            AtomicOp::Load => return Ok(old),
            AtomicOp::Exchange(value) => value,
            AtomicOp::CompareExchange { expected, new } if old == expected => new,
            AtomicOp::CompareExchange { .. } => old,
            AtomicOp::Add(value) => old.wrapping_add(value),
            AtomicOp::Or(value) => old | value,
            AtomicOp::And(value) => old & value,
            AtomicOp::Xor(value) => old ^ value,
        };
        self.write(addr, &new.to_ne_bytes()).map_err(|_| FAULT)?;
        Ok(old)
    }
}

/// Reads a page of `file`; behind its end there is nothing to read (`SIGBUS`),
/// and the rest of its last page is zero.
fn read_file_page(file: &File, offset: u64, page: &mut [u8]) -> Result<(), ()> {
    let mut filled = 0;
    while let Some(rest) = page.get_mut(filled..)
        && !rest.is_empty()
    {
        let at = offset + u64::try_from(filled).map_err(|_| ())?;
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err(()),
        }
    }
    if filled == 0 { Err(()) } else { Ok(()) }
}

/// The part of a copy that lies in one page: its address and length.
fn chunk(addr: u64, copied: usize, len: usize) -> Result<(u64, usize), CopyFault> {
    let fault = CopyFault { copied };
    let at = u64::try_from(copied)
        .ok()
        .and_then(|copied| addr.checked_add(copied))
        .filter(|at| GUEST_RANGE.contains(at))
        .ok_or(fault)?;
    let to_border = usize::try_from(PAGE - at % PAGE).map_err(|_| fault)?;
    Ok((at, to_border.min(len - copied)))
}

fn check(range: &Range<u64>) -> Result<(), Errno> {
    if !range.start.is_multiple_of(PAGE)
        || !range.end.is_multiple_of(PAGE)
        || range.start >= range.end
        || range.start < GUEST_RANGE.start
        || range.end > GUEST_RANGE.end
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}
