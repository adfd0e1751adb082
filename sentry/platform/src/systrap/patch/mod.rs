//! Patching of call sites: system calls that jump to the stub instead of
//! trapping.
//!
//! | file | holds |
//! |---|---|
//! | `site.rs` | which calls may be patched |
//! | `encode.rs` | trampolines and jumps |
//! | `apply.rs` | replacing pages in a stub |
//! | `map.rs` | which texts an address space has, and which are patched |
//! | this file | texts, which all processes of the sandbox share |
//!
//! A [`Text`] is the executable segment of a file. Calls at which the guest has
//! trapped a few times are looked at in the file, and the pages that change are
//! put, with the trampolines, into a sealed memfd: an [`Image`]. What the guest
//! has not run as a call is never changed.
//! Address spaces that map the text from then on have those pages replaced at
//! once, others after a few traps. The pages are private mappings as those of the file
//! were, and never writable: before a guest changes the protection of its text
//! it gets the file's pages back.
//!
//! Trampolines lie at a fixed distance from the text (*delta*) where guests
//! have nothing; the kernel's own list of mappings does not show them. Who maps
//! something there gets it, and the text its own pages back.
//!
//! Trust: texts and trampolines are guest code with no rights that guest code
//! lacks. What is shared by processes is sealed.

mod apply;
mod encode;
mod map;
mod site;

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::shared::{self, Executable};
use crate::host;
use encode::{Allocator, Slot};
use site::Site;

pub(super) use apply::Patch;
pub(super) use map::{Located, Mapping, TextMap, is_text};

const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;
/// Traps at one call, or at all new calls of a text together, before they are
/// patched.
const HITS_OF_ONE: u32 = 3;
const HITS_OF_ALL: u32 = 16;
/// Calls known of one text, patched or not.
const MAX_CALLS: usize = 4096;
/// Images of one text with one place for its trampolines.
const MAX_BUILDS: u32 = 64;
/// Pages that lie this close to each other are replaced in one go, or closer
/// than a multiple of it if there are too many.
const MAX_GAP_PAGES: usize = 16;
const MAX_RUNS: usize = 100;
/// Larger texts stay as they are.
const MAX_TEXT: u64 = 512 << 20;
/// Texts remembered, in use or not. Each holds a descriptor.
const MAX_TEXTS: usize = 512;
/// Memory for the images of a sandbox, and for one of them.
const MAX_IMAGES: u64 = 64 << 20;
const MAX_IMAGE: u64 = 8 << 20;

/// Room for trampolines.
pub(super) const TRAMPOLINES_LEN: u64 = encode::MAX_TRAMPOLINES as u64;

/// Whether call sites are patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patching {
    On,
    Off,
}

/// What tells a text from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
    offset: u64,
    len: u64,
}

impl Key {
    fn new(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, Errno> {
        let stat = host::io::fstat(fd)?;
        // A file without a name can change without a trace.
        if stat.st_nlink == 0 || stat.st_size <= 0 || len > MAX_TEXT {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime.tv_sec, stat.st_mtime.tv_nsec),
            changed: (stat.st_ctime.tv_sec, stat.st_ctime.tv_nsec),
            offset,
            len,
        })
    }
}

/// All texts of a sandbox.
#[derive(Default)]
pub(super) struct Texts {
    texts: Mutex<HashMap<Key, Arc<Text>>>,
    images: Arc<AtomicU64>,
}

/// Memory of images that is in use.
struct Charge {
    images: Arc<AtomicU64>,
    len: u64,
}

impl Charge {
    fn new(images: &Arc<AtomicU64>, len: u64) -> Result<Self, Errno> {
        let charge = Self {
            images: images.clone(),
            len,
        };
        let before = images.fetch_add(len, Ordering::Relaxed);
        if len > MAX_IMAGE || before.saturating_add(len) > MAX_IMAGES {
            return Err(Errno::ENOMEM);
        }
        Ok(charge)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.images.fetch_sub(self.len, Ordering::Relaxed);
    }
}

impl Texts {
    /// The text at `offset` of a file; none where it may not be patched.
    pub(super) fn get(&self, fd: BorrowedFd<'_>, offset: u64, len: u64) -> Option<Arc<Text>> {
        let key = Key::new(fd, offset, len).ok()?;
        let mut texts = self.texts.lock();
        if let Some(text) = texts.get(&key) {
            return Some(text.clone());
        }
        if texts.len() >= MAX_TEXTS {
            texts.retain(|_, text| Arc::strong_count(text) > 1);
        }
        if texts.len() >= MAX_TEXTS {
            return None;
        }
        let text = Arc::new(Text {
            fd: fd.try_clone_to_owned().ok()?,
            images: self.images.clone(),
            key,
            state: Mutex::default(),
        });
        texts.insert(key, text.clone());
        Some(text)
    }
}

/// The executable segment of a file.
pub(super) struct Text {
    fd: OwnedFd,
    images: Arc<AtomicU64>,
    key: Key,
    state: Mutex<State>,
}

/// What is known of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has trapped so many times.
    Hit(u32),
    /// It was looked at: it is a site, or can't be one.
    Seen,
}

#[derive(Default)]
struct State {
    /// By where their `syscall` is.
    calls: HashMap<usize, Known>,
    /// Traps at calls that were not looked at.
    hits: u32,
    sites: Vec<Site>,
    builds: u32,
    variants: Vec<Variant>,
}

/// The text with trampolines at one distance.
struct Variant {
    delta: i64,
    slots: Allocator,
    image: Option<Arc<Image>>,
    /// There are sites that the image lacks.
    is_old: bool,
}

/// Patched pages and trampolines, in one memfd: trampolines first.
pub(super) struct Image {
    fd: OwnedFd,
    _charge: Charge,
    delta: i64,
    /// Pages: where in the text, where in the memfd, how many bytes.
    runs: Vec<(u64, u64, u64)>,
    /// By their start.
    slots: Vec<Slot>,
    /// Places in the text that the guest may come to and where they have moved
    /// to, by place.
    displaced: Vec<(usize, usize)>,
}

impl Image {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where its trampolines go for a text at `start`.
    pub(super) fn trampolines(&self, start: u64) -> Range<u64> {
        let at = start.wrapping_add_signed(self.delta);
        at..at.saturating_add(TRAMPOLINES_LEN)
    }

    pub(super) fn runs(&self) -> &[(u64, u64, u64)] {
        &self.runs
    }

    /// The slot in which an offset among the trampolines is.
    fn slot(&self, offset: usize) -> Option<&Slot> {
        let after = self.slots.partition_point(|slot| slot.start <= offset);
        self.slots.get(after.checked_sub(1)?)
    }

    /// Places in the text that are changed, and what the file has there.
    fn originals(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let slots = self.slots.iter();
        slots.map(|slot| (slot.site.offset, slot.site.original()))
    }

    fn moved(&self, offset: usize) -> Option<usize> {
        let index = self
            .displaced
            .binary_search_by_key(&offset, |&(place, _)| place);
        self.displaced.get(index.ok()?).map(|&(_, to)| to)
    }
}

/// What a trap in a text asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Nothing,
    /// [`Text::prepare`], and the newest image.
    Patch,
}

impl Text {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where in its file it starts.
    pub(super) fn offset(&self) -> u64 {
        self.key.offset
    }

    /// Whether there is, or could be made, a newer image than `old`.
    fn is_newer_than(&self, old: &Arc<Image>) -> bool {
        let Some(state) = self.state.try_lock() else {
            return false;
        };
        let mut variants = state.variants.iter();
        let variant = variants.find(|variant| variant.delta == old.delta);
        variant.is_some_and(|variant| {
            let image = variant.image.as_ref();
            variant.is_old || image.is_some_and(|image| !Arc::ptr_eq(image, old))
        })
    }

    /// Notes a trap at the call at `offset`.
    fn hit(&self, offset: usize) -> Demand {
        let Some(mut state) = self.state.try_lock() else {
            return Demand::Nothing;
        };
        let state = &mut *state;
        if state.builds >= MAX_BUILDS
            || state.calls.len() >= MAX_CALLS && !state.calls.contains_key(&offset)
        {
            return Demand::Nothing;
        }
        let Known::Hit(hits) = state.calls.entry(offset).or_insert(Known::Hit(0)) else {
            // This address space has not got it yet, or can't have it.
            return Demand::Nothing;
        };
        *hits += 1;
        state.hits += 1;
        if *hits >= HITS_OF_ONE || state.hits >= HITS_OF_ALL {
            Demand::Patch
        } else {
            Demand::Nothing
        }
    }

    /// The image with trampolines at `delta` that was made for others.
    fn known_image(&self, delta: i64) -> Option<Arc<Image>> {
        let state = self.state.try_lock()?;
        let mut variants = state.variants.iter();
        let variant = variants.find(|variant| variant.delta == delta)?;
        variant.image.clone()
    }

    /// Whether it has something to patch.
    fn is_ready(&self) -> bool {
        let state = self.state.try_lock();
        state.is_some_and(|state| !state.sites.is_empty())
    }

    /// Looks at calls that have trapped and were not looked at.
    fn prepare(&self) -> Result<(), Errno> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.hits == 0 {
            return Ok(());
        }
        state.hits = 0;
        let known = state.sites.len();
        for (&at, known) in &mut state.calls {
            if *known == Known::Seen {
                continue;
            }
            *known = Known::Seen;
            let base = at.saturating_sub(site::MARGIN);
            let part = self.read(base, at + site::MARGIN - base)?;
            state.sites.extend(site::executed(&part, base, at));
        }
        if state.sites.len() > known {
            state.builds += 1;
            for variant in &mut state.variants {
                variant.is_old = true;
            }
        }
        self.check()
    }

    fn len(&self) -> usize {
        // At most `MAX_TEXT`.
        usize::try_from(self.key.len).unwrap_or(0)
    }

    /// That the file is what it was: called after it was read.
    fn check(&self) -> Result<(), Errno> {
        let key = Key::new(self.fd(), self.key.offset, self.key.len)?;
        if key == self.key {
            Ok(())
        } else {
            Err(Errno::ESTALE)
        }
    }

    /// The newest image with trampolines at `delta`, if there is something to
    /// patch.
    pub(super) fn image(&self, delta: i64) -> Option<Arc<Image>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let sites = &state.sites;
        if sites.is_empty() {
            return None;
        }
        let variants = &mut state.variants;
        let index = variants
            .iter()
            .position(|variant| variant.delta == delta)
            .unwrap_or(variants.len());
        if index == variants.len() {
            variants.push(Variant {
                delta,
                slots: Allocator::new(delta),
                image: None,
                is_old: true,
            });
        }
        let variant = variants.get_mut(index)?;
        if variant.is_old {
            variant.is_old = false;
            for site in sites {
                let known = variant.slots.slots().iter().any(|slot| slot.site == *site);
                if !known {
                    variant.slots.add(*site);
                }
            }
            // What can't be built now is not tried again before the next site.
            if let Ok(image) = self.build(delta, &variant.slots) {
                variant.image = Some(Arc::new(image));
            }
        }
        variant.image.clone()
    }

    /// Bytes of the text; behind the end of the file, zeros.
    fn read(&self, offset: usize, len: usize) -> Result<Vec<u8>, Errno> {
        let to_u64 = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let mut bytes = vec![0; len];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = self.key.offset.checked_add(to_u64(offset + done));
            let at = at.and_then(|at| libc::off_t::try_from(at).ok());
            match nix::sys::uio::pread(&self.fd, rest, at.ok_or(Errno::EINVAL)?) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(host::errno(error)),
            }
        }
        Ok(bytes)
    }

    fn build(&self, delta: i64, slots: &Allocator) -> Result<Image, Errno> {
        let trampolines = slots.trampolines();
        let mut pages: Vec<usize> = slots
            .slots()
            .iter()
            .flat_map(|slot| {
                let bytes = slot.site.patched();
                [bytes.start / PAGE_LEN, (bytes.end - 1) / PAGE_LEN]
            })
            .collect();
        pages.sort_unstable();
        pages.dedup();
        let mut gap = MAX_GAP_PAGES;
        let mut ranges = join(&pages, gap);
        while ranges.len() > MAX_RUNS {
            gap *= 2;
            ranges = join(&pages, gap);
        }
        let to_u64 = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        let pages: usize = ranges.iter().map(Range::len).sum();
        let charged = trampolines.len() + pages * PAGE_LEN;
        let charge = Charge::new(&self.images, to_u64(charged))?;
        let mut runs = Vec::new();
        for range in ranges {
            let start = range.start * PAGE_LEN;
            let len = (range.end * PAGE_LEN).min(self.len()) - start;
            let mut part = self.read(start, len)?;
            if !slots.patch(&mut part, start) {
                return Err(Errno::ESTALE);
            }
            part.resize(len.next_multiple_of(PAGE_LEN), 0);
            let at = TRAMPOLINES_LEN + to_u64(bytes.len());
            runs.push((to_u64(start), at, to_u64(part.len())));
            bytes.append(&mut part);
        }
        self.check()?;
        // All the room that later images may need is mapped from the start.
        let len = TRAMPOLINES_LEN + to_u64(bytes.len());
        let fd = shared::memfd(c"text", len, Executable::Yes)?;
        shared::fill(fd.as_fd(), 0, &trampolines)?;
        shared::fill(fd.as_fd(), TRAMPOLINES_LEN, &bytes)?;
        shared::seal(fd.as_fd(), shared::SEAL_ALL)?;
        let mut sorted = slots.slots().to_vec();
        sorted.sort_unstable_by_key(|slot| slot.start);
        let mut displaced: Vec<_> = sorted
            .iter()
            .filter_map(|slot| Some((slot.displaced()?, slot.behind())))
            .collect();
        displaced.sort_unstable();
        Ok(Image {
            fd,
            _charge: charge,
            delta,
            runs,
            slots: sorted,
            displaced,
        })
    }
}

/// Ranges of pages with gaps of more than `gap` between them.
fn join(pages: &[usize], gap: usize) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for &page in pages {
        match ranges.last_mut() {
            Some(last) if page <= last.end + gap => last.end = page + 1,
            _ => ranges.push(page..page + 1),
        }
    }
    ranges
}
