//! The texts of one address space.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

use super::encode::Place;
use super::{Demand, Image, PAGE, TRAMPOLINES_LEN, Text, Texts};
use crate::systrap::layout as l;
use crate::{MemOp, Protection, Sharing};

/// Distances from a text to its trampolines, by where the text is: places
/// that address space layouts leave empty. Programs at fixed addresses have
/// their break behind them, others nothing before them; libraries lie below
/// the base of mappings and have a gap above it.
const DELTAS_FIXED: [i64; 2] = [0x6000_0000, 0x3000_0000];
const DELTAS_PROGRAM: [i64; 2] = [-0x7000_0000, 0x7000_0000];
const DELTAS_LIBRARY: [i64; 3] = [0x7000_0000, 0x0600_0000, -0x7000_0000];

/// Traps in a text that was mapped before others have patched it: many
/// processes end before it would be worth it.
const HITS_IN_SPACE: u32 = 6;

fn deltas(start: u64) -> &'static [i64] {
    match start >> 32 {
        0 => &DELTAS_FIXED,
        0x1..0x6000 => &DELTAS_PROGRAM,
        _ => &DELTAS_LIBRARY,
    }
}

/// A mapped text.
#[derive(Clone)]
pub(in super::super) struct Mapping {
    pub(in super::super) range: Range<u64>,
    pub(in super::super) protection: Protection,
    pub(in super::super) text: Arc<Text>,
    pub(in super::super) image: Option<Arc<Image>>,
    /// It was found that it can't be patched.
    barred: bool,
    /// Traps in this address space since the text was mapped or patched.
    hits: u32,
}

impl Mapping {
    /// What `op` maps, if it may be patched.
    pub(in super::super) fn of(op: &MemOp<'_>, texts: &Texts) -> Option<Self> {
        let (Some((range, protection)), MemOp::MapFile { fd, offset, .. }) = (text_of(op), op)
        else {
            return None;
        };
        Some(Self {
            range: range.clone(),
            protection,
            text: texts.get(*fd, *offset, range.end - range.start)?,
            image: None,
            barred: false,
            hits: 0,
        })
    }

    /// Where trampolines are or might come to be.
    fn trampolines(&self) -> impl Iterator<Item = Range<u64>> {
        let start = self.range.start;
        let all = deltas(start).iter().map(move |&delta| {
            let at = start.wrapping_add_signed(delta);
            at..at.saturating_add(TRAMPOLINES_LEN)
        });
        let image = self.image.as_ref().map(|image| image.trampolines(start));
        let wanted = if self.barred || image.is_some() {
            0
        } else {
            usize::MAX
        };
        image.into_iter().chain(all.take(wanted))
    }

    /// Distances at which trampolines may be tried.
    pub(in super::super) fn deltas(&self) -> impl Iterator<Item = i64> + use<> {
        let start = self.range.start;
        let fixed = self.image.as_ref().map(|image| image.delta);
        deltas(start).iter().copied().filter(move |&delta| {
            let at = i128::from(start) + i128::from(delta);
            let end = at + i128::from(TRAMPOLINES_LEN);
            fixed.is_none_or(|fixed| fixed == delta)
                && at >= i128::from(PAGE * 16)
                && end <= i128::from(l::STUB_BASE)
        })
    }
}

/// Where a program counter in a trampoline is for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Located {
    /// Before the call: where the site starts, the number it sets, and the
    /// instruction behind it.
    Before {
        site: u64,
        number: Option<u32>,
        back: u64,
    },
    Behind(u64),
}

#[derive(Clone, Default)]
struct Inner {
    mappings: Vec<Mapping>,
    /// Trampolines that are no longer jumped to, where threads may still be,
    /// and the texts they serve.
    retired: Vec<(u64, Arc<Image>)>,
}

/// Trampolines kept for threads that may be in them.
const MAX_RETIRED: usize = 64;

/// What an operation asks for before it is carried out.
#[derive(Default)]
pub(in super::super) struct Before {
    /// Patched texts that need their own pages back.
    pub(in super::super) restore: Vec<Mapping>,
    /// Trampolines that nobody needs any more.
    pub(in super::super) unmap: Vec<Range<u64>>,
}

/// See the module documentation.
#[derive(Default)]
pub(in super::super) struct TextMap {
    inner: Mutex<Inner>,
    /// Some text is or was patched.
    patched: AtomicBool,
    /// Changes when trampolines go away.
    epoch: AtomicU32,
    /// Operations on texts that are under way.
    changing: AtomicU32,
}

/// While it lives, texts may not be what the map says.
pub(in super::super) struct Changing<'a>(&'a TextMap);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.changing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Clone for TextMap {
    fn clone(&self) -> Self {
        Self {
            inner: Mutex::new(self.inner.lock().clone()),
            patched: AtomicBool::new(self.patched.load(Ordering::Relaxed)),
            epoch: AtomicU32::new(0),
            changing: AtomicU32::new(0),
        }
    }
}

fn overlap(one: &Range<u64>, two: &Range<u64>) -> bool {
    one.start < two.end && two.start < one.end
}

/// The ranges whose mappings `op` takes away or changes.
fn changed<'a>(op: &'a MemOp<'_>) -> impl Iterator<Item = &'a Range<u64>> {
    let (one, two) = match op {
        MemOp::MapAnonymous { range, .. }
        | MemOp::MapFile { range, .. }
        | MemOp::Unmap { range }
        | MemOp::Protect { range, .. } => (Some(range), None),
        MemOp::Remap { from, to, .. } => (Some(from), Some(to)),
        MemOp::Advise { .. } => (None, None),
    };
    one.into_iter().chain(two)
}

/// Whether `op` maps what may be patched.
pub(in super::super) fn is_text(op: &MemOp<'_>) -> bool {
    text_of(op).is_some()
}

fn text_of<'a>(op: &'a MemOp<'_>) -> Option<(&'a Range<u64>, Protection)> {
    match op {
        MemOp::MapFile {
            range,
            protection,
            sharing: Sharing::Private,
            ..
        } if protection.contains(Protection::EXEC) && !protection.contains(Protection::WRITE) => {
            Some((range, *protection))
        }
        _ => None,
    }
}

impl TextMap {
    /// Whether some text is or was patched.
    pub(in super::super) fn is_patched(&self) -> bool {
        self.patched.load(Ordering::Relaxed)
    }

    /// Changes when trampolines go away: calls that have come by one before
    /// can't return there.
    pub(in super::super) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// To be held from [`Self::before`] until the stub has what it says.
    pub(in super::super) fn begin_change(&self) -> Changing<'_> {
        self.changing.fetch_add(1, Ordering::SeqCst);
        Changing(self)
    }

    /// Whether a thread may find text that is about to get its own pages back.
    pub(in super::super) fn is_changing(&self) -> bool {
        self.changing.load(Ordering::SeqCst) != 0
    }

    /// Whether `op` concerns texts or trampolines, so that it takes
    /// [`Self::before`] and [`Self::after`].
    pub(in super::super) fn concerns(&self, op: &MemOp<'_>) -> bool {
        let inner = self.inner.lock();
        let mut retired = inner.retired.iter();
        changed(op).any(|range| {
            inner.mappings.iter().any(|mapping| {
                overlap(&mapping.range, range)
                    || mapping.trampolines().any(|other| overlap(&other, range))
            }) || retired.any(|(start, image)| overlap(&image.trampolines(*start), range))
        })
    }

    /// Forgets what `op` will change, and says what is to be done before.
    pub(in super::super) fn before(&self, op: &MemOp<'_>) -> Before {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let mut before = Before::default();
        let mut lost = false;
        for range in changed(op) {
            let unmaps = !matches!(op, MemOp::Protect { .. } | MemOp::Remap { .. });
            let Inner { mappings, retired } = inner;
            mappings.retain_mut(|mapping| {
                let own = overlap(&mapping.range, range);
                let area = mapping.image.as_ref();
                let area = area.map(|image| image.trampolines(mapping.range.start));
                let hit = area.as_ref().is_some_and(|area| overlap(area, range));
                if !own && !hit {
                    return true;
                }
                mapping.barred = true;
                let (Some(image), Some(area)) = (mapping.image.take(), area) else {
                    return !own;
                };
                let whole =
                    unmaps && range.start <= mapping.range.start && mapping.range.end <= range.end;
                lost |= hit || whole;
                if whole {
                    before.unmap.push(area);
                    return !own;
                }
                if !hit {
                    retired.push((mapping.range.start, image.clone()));
                }
                before.restore.push(Mapping {
                    image: Some(image),
                    ..mapping.clone()
                });
                !own
            });
            retired.retain(|(start, image)| {
                let hit = overlap(&image.trampolines(*start), range);
                lost |= hit;
                !hit
            });
            if let Some(surplus) = retired.len().checked_sub(MAX_RETIRED) {
                let oldest = retired.drain(..surplus);
                lost |= surplus > 0;
                before
                    .unmap
                    .extend(oldest.map(|(start, image)| image.trampolines(start)));
            }
        }
        if lost {
            self.epoch.fetch_add(1, Ordering::SeqCst);
        }
        before
    }

    /// Remembers a text that was mapped.
    pub(in super::super) fn add(&self, mapping: Mapping) {
        self.inner.lock().mappings.push(mapping);
    }

    /// Forgets all: nothing of the guest's is mapped any more, and its one
    /// thread is in none of it.
    pub(in super::super) fn clear(&self) {
        *self.inner.lock() = Inner::default();
        self.patched.store(false, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// The mapping that starts at `start`, if it may be patched.
    pub(in super::super) fn get(&self, start: u64) -> Option<Mapping> {
        let inner = self.inner.lock();
        let mut mappings = inner.mappings.iter();
        mappings
            .find(|mapping| mapping.range.start == start && !mapping.barred)
            .cloned()
    }

    /// Notes what has become of the mapping at `start`; without an image it
    /// can't be patched.
    pub(in super::super) fn set(&self, start: u64, image: Option<Arc<Image>>) {
        let mut inner = self.inner.lock();
        let mut mappings = inner.mappings.iter_mut();
        if let Some(mapping) = mappings.find(|mapping| mapping.range.start == start) {
            mapping.barred = image.is_none() && mapping.image.is_none();
            if image.is_some() {
                mapping.image = image;
                self.patched.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Bars the mapping at `start`; it is as it was.
    pub(in super::super) fn retire(&self, start: u64) -> Option<Mapping> {
        let mut inner = self.inner.lock();
        let Inner { mappings, retired } = &mut *inner;
        let mut mappings = mappings.iter_mut();
        let mapping = mappings.find(|mapping| mapping.range.start == start)?;
        let old = mapping.clone();
        mapping.barred = true;
        retired.push((start, mapping.image.take()?));
        Some(old)
    }

    /// Notes a trap at the `syscall` before `rip`; says which mapping is to
    /// be patched.
    pub(in super::super) fn hit(&self, rip: u64) -> Option<u64> {
        let at = rip.checked_sub(2)?;
        let mut inner = self.inner.lock();
        let mapping = inner
            .mappings
            .iter_mut()
            .find(|mapping| mapping.range.contains(&at) && !mapping.barred)?;
        let offset = usize::try_from(at - mapping.range.start).ok()?;
        let demand = mapping.text.hit(offset);
        let stale = match &mapping.image {
            Some(image) => mapping.text.is_newer_than(image),
            None => mapping.text.is_ready(),
        };
        mapping.hits += 1;
        if demand == Demand::Nothing && (!stale || mapping.hits < HITS_IN_SPACE) {
            return None;
        }
        mapping.hits = 0;
        Some(mapping.range.start)
    }

    /// What a program counter means if it is in a trampoline.
    pub(in super::super) fn locate(&self, pc: u64) -> Option<Located> {
        let inner = self.inner.lock();
        let current = inner
            .mappings
            .iter()
            .filter_map(|mapping| Some((mapping.range.start, mapping.image.as_ref()?)));
        let retired = inner.retired.iter().map(|(start, image)| (*start, image));
        for (start, image) in current.chain(retired) {
            let area = image.trampolines(start);
            if !area.contains(&pc) {
                continue;
            }
            let offset = usize::try_from(pc - area.start).ok()?;
            let slot = image.slot(offset)?;
            let in_text = |offset: usize| start + u64::try_from(offset).unwrap_or(0);
            return Some(match slot.place(offset)? {
                Place::Before => Located::Before {
                    site: in_text(slot.site.offset),
                    number: slot.site.number(),
                    back: in_text(slot.site.back()),
                },
                Place::Behind(offset) => Located::Behind(in_text(offset)),
            });
        }
        None
    }

    /// Puts what the file has into `bytes`, which were read at `addr`, where the
    /// text is patched.
    pub(in super::super) fn unpatch(&self, addr: u64, bytes: &mut [u8]) {
        let Ok(len) = u64::try_from(bytes.len()) else {
            return;
        };
        let range = addr..addr.saturating_add(len);
        let inner = self.inner.lock();
        for mapping in &inner.mappings {
            let Some(image) = &mapping.image else {
                continue;
            };
            if !overlap(&mapping.range, &range) {
                continue;
            }
            for (offset, original) in image.originals() {
                let at = u64::try_from(offset).map(|offset| mapping.range.start + offset);
                for (at, byte) in at.into_iter().flat_map(|at| at..).zip(original) {
                    let to = at.checked_sub(addr).map(usize::try_from);
                    if let Some(Ok(to)) = to
                        && let Some(to) = bytes.get_mut(to)
                    {
                        *to = *byte;
                    }
                }
            }
        }
    }

    /// Whether the instruction at `rip` was moved at some time, and may have
    /// come back since.
    pub(in super::super) fn was_moved(&self, rip: u64) -> bool {
        let inner = self.inner.lock();
        inner.retired.iter().any(|(start, image)| {
            let offset = rip.checked_sub(*start).map(usize::try_from);
            offset.is_some_and(|offset| offset.is_ok_and(|offset| image.moved(offset).is_some()))
        })
    }

    /// Where to go for the guest to go on at `rip`.
    pub(in super::super) fn host_pc(&self, rip: u64) -> u64 {
        let inner = self.inner.lock();
        let moved = inner
            .mappings
            .iter()
            .find(|mapping| mapping.range.contains(&rip))
            .and_then(|mapping| {
                let image = mapping.image.as_ref()?;
                let offset = usize::try_from(rip - mapping.range.start).ok()?;
                let moved = u64::try_from(image.moved(offset)?).ok()?;
                Some(image.trampolines(mapping.range.start).start + moved)
            });
        moved.unwrap_or(rip)
    }
}
