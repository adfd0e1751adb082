//! Tests of the mapping tree alone, and of the manager on the fake platform.

use std::sync::Arc;

use sentry_platform::executor::block_on;
use sentry_platform::fake::FakePlatform;
use sentry_platform::{Platform, Protection};
use syscall_tables::Errno;

use super::*;

const RW: Protection = Protection::READ.union(Protection::WRITE);
const P: u64 = PAGE_SIZE;

fn vma(start: u64, end: u64) -> Vma {
    Vma {
        start,
        end,
        protection: RW,
        max_protection: Protection::all(),
        flags: VmaFlags::empty(),
        backing: Backing::Anonymous,
        name: None,
    }
}

fn ranges(tree: &VmaTree) -> Vec<(u64, u64)> {
    tree.iter().map(|vma| (vma.start, vma.end)).collect()
}

#[test]
fn neighbours_merge_only_when_alike() {
    let mut tree = VmaTree::new();
    tree.insert(vma(P, 2 * P));
    tree.insert(vma(3 * P, 4 * P));
    tree.insert(vma(2 * P, 3 * P));
    assert_eq!(ranges(&tree), [(P, 4 * P)]);
    let mut read_only = vma(4 * P, 5 * P);
    read_only.protection = Protection::READ;
    tree.insert(read_only);
    assert_eq!(ranges(&tree), [(P, 4 * P), (4 * P, 5 * P)]);
    tree.update(4 * P..5 * P, |vma| vma.protection = RW);
    assert_eq!(ranges(&tree), [(P, 5 * P)]);
    assert_eq!(tree.data_bytes(), 4 * P);
}

#[test]
fn removing_the_middle_splits() {
    let mut tree = VmaTree::new();
    tree.insert(vma(P, 10 * P));
    let removed = tree.remove(3 * P..5 * P);
    assert_eq!(removed.len(), 1);
    assert_eq!(ranges(&tree), [(P, 3 * P), (5 * P, 10 * P)]);
    assert_eq!(tree.total_bytes(), 7 * P);
    assert!(tree.is_free(3 * P..5 * P));
    assert!(!tree.is_free(2 * P..4 * P));
    assert_eq!(tree.mapped_until(P..6 * P), 3 * P);
    assert_eq!(tree.mapped_until(5 * P..6 * P), 6 * P);
    assert_eq!(tree.mapped_bytes(0..6 * P), 3 * P);
    assert!(tree.remove(20 * P..30 * P).is_empty());
}

#[test]
fn updates_of_a_part_split_and_merge_back() {
    let mut tree = VmaTree::new();
    tree.insert(vma(0x10 * P, 0x20 * P));
    tree.update(0x12 * P..0x14 * P, |vma| vma.flags |= VmaFlags::LOCKED);
    assert_eq!(tree.len(), 3);
    assert_eq!(tree.locked_bytes(), 2 * P);
    tree.update(0x11 * P..0x15 * P, |vma| vma.flags -= VmaFlags::LOCKED);
    assert_eq!(ranges(&tree), [(0x10 * P, 0x20 * P)]);
    assert_eq!(tree.locked_bytes(), 0);
}

#[test]
fn gaps_are_taken_from_the_top_and_refilled() {
    let mut tree = VmaTree::new();
    let (floor, base) = (0x10 * P, 0x100 * P);
    let take = |tree: &mut VmaTree, pages: u64| {
        let addr = tree.gap_below(pages * P, floor, base, P)?;
        let mut new = vma(addr, addr + pages * P);
        // Unlike neighbours stay apart.
        new.name = Some(Arc::from(addr.to_le_bytes().as_slice()));
        tree.insert(new);
        Some(addr / P)
    };
    assert_eq!(take(&mut tree, 4), Some(0xfc));
    assert_eq!(take(&mut tree, 4), Some(0xf8));
    assert_eq!(take(&mut tree, 4), Some(0xf4));
    drop(tree.remove(0xf8 * P..0xfc * P));
    // Too large for the hole: below; then the hole.
    assert_eq!(take(&mut tree, 5), Some(0xef));
    assert_eq!(take(&mut tree, 4), Some(0xf8));
    assert_eq!(take(&mut tree, 0xdf), Some(0x10));
    assert_eq!(take(&mut tree, 1), None);
    drop(tree.remove(0xf9 * P..0xfa * P));
    assert_eq!(take(&mut tree, 2), None);
    assert_eq!(take(&mut tree, 1), Some(0xf9));
}

/// A random walk compared with a page table that can't be wrong.
#[test]
fn the_tree_agrees_with_a_page_table() {
    const PAGES: u64 = 256;
    let mut tree = VmaTree::new();
    let mut pages = vec![None::<Protection>; PAGES as usize];
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..5_000 {
        let start = random(PAGES);
        let end = (start + 1 + random(16)).min(PAGES);
        let range = start * P..end * P;
        let protection = Protection::from_bits_truncate(random(8) as u32);
        match random(3) {
            0 => {
                drop(tree.remove(range));
                pages[start as usize..end as usize].fill(None);
            }
            1 => {
                drop(tree.remove(range.clone()));
                let mut new = vma(range.start, range.end);
                new.protection = protection;
                tree.insert(new);
                pages[start as usize..end as usize].fill(Some(protection));
            }
            _ => {
                tree.update(range, |vma| vma.protection = protection);
                for page in pages[start as usize..end as usize].iter_mut().flatten() {
                    *page = protection;
                }
            }
        }
        for (index, page) in pages.iter().enumerate() {
            let found = tree.find(index as u64 * P).map(|vma| vma.protection);
            assert_eq!(found, *page, "page {index}");
        }
        let mapped = pages.iter().flatten().count() as u64;
        assert_eq!(tree.total_bytes(), mapped * P);
        let all: Vec<&Vma> = tree.iter().collect();
        for pair in all.windows(2) {
            assert!(pair[0].end <= pair[1].start);
            assert!(!pair[0].can_merge(pair[1]));
        }
        let want = 1 + random(20);
        let naive = (0..=PAGES - want).rev().find(|at| {
            pages[*at as usize..(*at + want) as usize]
                .iter()
                .all(Option::is_none)
        });
        let found = tree.gap_below(want * P, 0, PAGES * P, P);
        assert_eq!(found.is_some(), naive.is_some());
        if let Some(found) = found {
            assert!(tree.is_free(found..found + want * P));
        }
    }
}

/// A manager with a thread of its space.
fn manager() -> (Arc<MemoryManager>, Box<dyn sentry_platform::GuestThread>) {
    let platform = FakePlatform::new();
    let space = block_on(platform.new_space()).expect("fake spaces start");
    let thread = block_on(space.new_thread()).expect("fake threads start");
    let guest = platform.guest_range();
    let mut layout = Layout::new(&guest, 8 << 20, Aslr::Off, [0; 2]);
    layout.brk_start = 0x1000_0000;
    layout.brk = 0x1000_0000;
    (Arc::new(MemoryManager::new(space, guest, layout)), thread)
}

fn anonymous(place: Place, len_bytes: u64) -> MapRequest {
    MapRequest {
        place,
        len_bytes,
        protection: RW,
        max_protection: Protection::all(),
        flags: VmaFlags::empty(),
        backing: Backing::Anonymous,
        populate: false,
    }
}

fn map(mm: &MemoryManager, place: Place, len_bytes: u64) -> Result<u64, Errno> {
    let mut via = Via::Space(mm.space.as_ref());
    block_on(mm.map(&mut via, anonymous(place, len_bytes), &Limits::NONE))
}

#[test]
fn mmap_places_from_the_top_and_honours_fixed() {
    let (mm, _thread) = manager();
    let base = mm.layout().mmap_base;
    let first = map(&mm, Place::Hint(0), 3 * P).expect("maps");
    assert_eq!(first, base - 3 * P);
    let second = map(&mm, Place::Hint(0), 1).expect("maps");
    assert_eq!(second, first - P);
    assert_eq!(
        map(&mm, Place::FixedNoReplace(first), P),
        Err(Errno::EEXIST)
    );
    assert_eq!(map(&mm, Place::Fixed(first), P), Ok(first));
    assert_eq!(map(&mm, Place::Fixed(first + 1), P), Err(Errno::EINVAL));
    assert_eq!(map(&mm, Place::Fixed(0), P), Err(Errno::EPERM));
    assert_eq!(
        map(&mm, Place::Fixed(u64::MAX - P + 1), P),
        Err(Errno::ENOMEM)
    );
    assert_eq!(map(&mm, Place::Hint(0), u64::MAX), Err(Errno::ENOMEM));
    assert_eq!(map(&mm, Place::Hint(0), 0), Err(Errno::EINVAL));
    assert_eq!(map(&mm, Place::Hint(0x5555_5000), P), Ok(0x5555_5000));
    let low = map(&mm, Place::Low(0), P).expect("maps");
    assert!((0x4000_0000..0x8000_0000).contains(&low));
    // All neighbours are alike: one mapping.
    assert_eq!(mm.map_lines().len(), 3);
}

#[test]
fn memory_is_zero_readable_and_gone_after_munmap() {
    let (mm, _thread) = manager();
    let addr = map(&mm, Place::Hint(0), 2 * P).expect("maps");
    let mut bytes = [1; 8];
    assert_eq!(block_on(mm.read_memory(addr, &mut bytes)), Ok(8));
    assert_eq!(bytes, [0; 8]);
    assert_eq!(block_on(mm.write_memory(addr + P - 4, b"12345678")), Ok(8));
    let mut via = Via::Space(mm.space.as_ref());
    block_on(mm.unmap(&mut via, addr + P, P)).expect("unmaps");
    assert_eq!(block_on(mm.read_memory(addr + P - 4, &mut bytes)), Ok(4));
    assert_eq!(
        block_on(mm.read_memory(addr + P, &mut bytes)),
        Err(Errno::EFAULT)
    );
    assert_eq!(
        block_on(mm.unmap(&mut via, addr + 1, P)),
        Err(Errno::EINVAL)
    );
    assert_eq!(block_on(mm.unmap(&mut via, addr, 0)), Err(Errno::EINVAL));
}

#[test]
fn brk_grows_shrinks_and_stops_at_obstacles() {
    let (mm, _thread) = manager();
    let mut via = Via::Space(mm.space.as_ref());
    let start = 0x1000_0000;
    let none = Limits::NONE;
    assert_eq!(block_on(mm.brk(&mut via, 0, &none)), start);
    let up = start + 5 * P + 7;
    assert_eq!(block_on(mm.brk(&mut via, up, &none)), up);
    assert_eq!(block_on(mm.write_memory(start + 5 * P, b"x")), Ok(1));
    assert_eq!(mm.map_lines()[0].name, "[heap]");
    let limits = Limits {
        data: 6 * P,
        ..none
    };
    assert_eq!(block_on(mm.brk(&mut via, start + 7 * P, &limits)), up);
    map(&mm, Place::Fixed(start + 8 * P), P).expect("maps");
    assert_eq!(block_on(mm.brk(&mut via, start + 9 * P, &none)), up);
    assert_eq!(block_on(mm.brk(&mut via, start + P, &none)), start + P);
    assert_eq!(
        block_on(mm.write_memory(start + 5 * P, b"x")),
        Err(Errno::EFAULT)
    );
}

#[test]
fn mprotect_stops_at_holes_and_limits_of_the_file() {
    let (mm, _thread) = manager();
    let mut via = Via::Space(mm.space.as_ref());
    let none = Limits::NONE;
    let addr = map(&mm, Place::Hint(0), 4 * P).expect("maps");
    block_on(mm.unmap(&mut via, addr + 2 * P, P)).expect("unmaps");
    let protect = |addr, len, protection| {
        let mut via = Via::Space(mm.space.as_ref());
        block_on(mm.protect(&mut via, addr, len, protection, Extend::No, &none))
    };
    assert_eq!(protect(addr, 4 * P, Protection::READ), Err(Errno::ENOMEM));
    // The part before the hole has changed.
    assert_eq!(
        mm.vma_at(addr).map(|vma| vma.protection),
        Some(Protection::READ)
    );
    assert_eq!(mm.vma_at(addr + 3 * P).map(|vma| vma.protection), Some(RW));
    assert_eq!(protect(addr + 1, P, RW), Err(Errno::EINVAL));
    let mut request = anonymous(Place::Hint(0), P);
    request.max_protection = Protection::READ;
    request.protection = Protection::READ;
    let limited = block_on(mm.map(&mut via, request, &none)).expect("maps");
    assert_eq!(protect(limited, P, RW), Err(Errno::EACCES));
    block_on(mm.seal(addr, P)).expect("seals");
    assert_eq!(protect(addr, P, RW), Err(Errno::EPERM));
    assert_eq!(block_on(mm.unmap(&mut via, addr, P)), Err(Errno::EPERM));
}

fn remap(mm: &MemoryManager, addr: u64, old: u64, new: u64, may_move: bool) -> Result<u64, Errno> {
    let request = RemapRequest {
        addr,
        old_len_bytes: old,
        new_len_bytes: new,
        may_move,
        fixed: None,
        hint: 0,
        keep_source: false,
    };
    let mut via = Via::Space(mm.space.as_ref());
    block_on(mm.remap(&mut via, request, &Limits::NONE))
}

#[test]
fn mremap_grows_in_place_moves_and_shrinks() {
    let (mm, _thread) = manager();
    let addr = 0x7000_0000;
    map(&mm, Place::Fixed(addr), 2 * P).expect("maps");
    assert_eq!(block_on(mm.write_memory(addr, b"data")), Ok(4));
    assert_eq!(remap(&mm, addr, 2 * P, 4 * P, false), Ok(addr));
    map(&mm, Place::Fixed(addr + 4 * P), P).expect("maps");
    block_on(mm.protect(
        &mut Via::Space(mm.space.as_ref()),
        addr + 4 * P,
        P,
        Protection::READ,
        Extend::No,
        &Limits::NONE,
    ))
    .expect("protects");
    assert_eq!(remap(&mm, addr, 4 * P, 8 * P, false), Err(Errno::ENOMEM));
    let moved = remap(&mm, addr, 4 * P, 8 * P, true).expect("moves");
    assert_ne!(moved, addr);
    let mut bytes = [0; 4];
    assert_eq!(block_on(mm.read_memory(moved, &mut bytes)), Ok(4));
    assert_eq!(&bytes, b"data");
    assert!(mm.vma_at(addr).is_none());
    assert_eq!(remap(&mm, moved, 8 * P, P, false), Ok(moved));
    assert!(mm.vma_at(moved + P).is_none());
    assert_eq!(remap(&mm, moved, 2 * P, 8 * P, true), Err(Errno::EFAULT));
    assert_eq!(remap(&mm, moved, 0, P, true), Err(Errno::EINVAL));
    assert_eq!(remap(&mm, moved, P, 0, true), Err(Errno::EINVAL));
}

#[test]
fn limits_of_address_space_data_and_locks() {
    let (mm, _thread) = manager();
    let mut via = Via::Space(mm.space.as_ref());
    let mut try_map = |limits: Limits, flags| {
        let mut request = anonymous(Place::Hint(0), 4 * P);
        request.flags = flags;
        block_on(mm.map(&mut via, request, &limits))
    };
    let none = Limits::NONE;
    let no_flags = VmaFlags::empty();
    let few = 3 * P;
    let space = Limits {
        address_space: few,
        ..none
    };
    assert_eq!(try_map(space, no_flags), Err(Errno::ENOMEM));
    let data = Limits { data: few, ..none };
    assert_eq!(try_map(data, no_flags), Err(Errno::ENOMEM));
    let locked = Limits {
        locked: few,
        ..none
    };
    assert_eq!(try_map(locked, VmaFlags::LOCKED), Err(Errno::EAGAIN));
    assert!(try_map(locked, no_flags).is_ok());
}

#[test]
fn advice_zeroes_and_reports_holes() {
    let (mm, _thread) = manager();
    let mut via = Via::Space(mm.space.as_ref());
    let addr = map(&mm, Place::Hint(0), 2 * P).expect("maps");
    assert_eq!(block_on(mm.write_memory(addr, b"data")), Ok(4));
    block_on(mm.advise(&mut via, addr, 2 * P, Advice::DontNeed)).expect("advises");
    let mut bytes = [1; 4];
    assert_eq!(block_on(mm.read_memory(addr, &mut bytes)), Ok(4));
    assert_eq!(bytes, [0; 4]);
    let above = block_on(mm.advise(&mut via, addr, 3 * P, Advice::DontDump));
    assert_eq!(above, Err(Errno::ENOMEM));
    assert!(mm.map_lines()[0].flags.contains(VmaFlags::DONTDUMP));
    block_on(mm.lock(&mut via, addr, P, false, &Limits::NONE)).expect("locks");
    assert_eq!(
        block_on(mm.advise(&mut via, addr, P, Advice::DontNeed)),
        Err(Errno::EINVAL)
    );
    block_on(mm.unlock(addr, P)).expect("unlocks");
}

#[test]
fn fork_copies_but_for_what_was_advised_otherwise() {
    let (mm, mut thread) = manager();
    let mut via = Via::Space(mm.space.as_ref());
    let kept = map(&mm, Place::Fixed(0x10_0000), P).expect("maps");
    let wiped = map(&mm, Place::Fixed(0x20_0000), P).expect("maps");
    let dropped = map(&mm, Place::Fixed(0x30_0000), P).expect("maps");
    for addr in [kept, wiped, dropped] {
        assert_eq!(block_on(mm.write_memory(addr, b"data")), Ok(4));
    }
    block_on(mm.advise(&mut via, wiped, P, Advice::WipeOnFork)).expect("advises");
    block_on(mm.advise(&mut via, dropped, P, Advice::DontFork)).expect("advises");
    let (child, _child_thread) = block_on(mm.fork(thread.as_mut())).expect("forks");
    let mut bytes = [0; 4];
    assert_eq!(block_on(child.read_memory(kept, &mut bytes)), Ok(4));
    assert_eq!(&bytes, b"data");
    assert_eq!(block_on(child.read_memory(wiped, &mut bytes)), Ok(4));
    assert_eq!(bytes, [0; 4]);
    assert_eq!(
        block_on(child.read_memory(dropped, &mut bytes)),
        Err(Errno::EFAULT)
    );
    assert!(child.vma_at(dropped).is_none());
    // The copies are apart.
    assert_eq!(block_on(child.write_memory(kept, b"mine")), Ok(4));
    assert_eq!(block_on(mm.read_memory(kept, &mut bytes)), Ok(4));
    assert_eq!(&bytes, b"data");
}

#[test]
fn faults_are_classified_and_stacks_grow() {
    let (mm, _thread) = manager();
    let mut via = Via::Space(mm.space.as_ref());
    let fault = |addr| sentry_platform::Fault {
        signo: 11,
        code: 2,
        addr,
        trap_no: 14,
        error_code: 6,
    };
    let limits = Limits {
        stack: 64 * P,
        ..Limits::NONE
    };
    let stack = 0x6000_0000;
    let mut request = anonymous(Place::Fixed(stack), 4 * P);
    request.flags = VmaFlags::GROWSDOWN;
    block_on(mm.map(&mut via, request, &limits)).expect("maps");
    let mut check = |addr| block_on(mm.fault(&mut via, &fault(addr), &limits));
    assert_eq!(check(stack - 1), FaultOutcome::Retry);
    assert_eq!(mm.vma_at(stack - 1).map(|vma| vma.start), Some(stack - P));
    assert_eq!(check(stack - 70 * P), FaultOutcome::Signal { code: 1 });
    assert_eq!(check(0), FaultOutcome::Signal { code: 1 });
    assert_eq!(check(stack), FaultOutcome::Signal { code: 2 });
}
