//! Guest memory on the ptrace platform.

mod common;

use std::io::Write;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use common::{CODE, DATA, RW, anonymous, atomic, copy_in, copy_in_str, copy_out, load, run, start};
use sentry_platform::executor::block_on;
use sentry_platform::ptrace::PtracePlatform;
use sentry_platform::{
    AtomicOp, CopyFault, MemAdvice, MemError, MemOp, Platform, Protection, Sharing, Trap,
};
use syscall_tables::Errno;

fn platform() -> Arc<PtracePlatform> {
    PtracePlatform::new().expect("the host lets us trace our children")
}

code!(nothing, "2: mov eax, 24", "syscall", "jmp 2b");

#[test]
fn copies_fault_at_the_right_byte() {
    let platform = platform();
    let mut thread = start(&*platform, nothing());
    assert_eq!(run(&mut thread), Trap::Syscall);
    let protect = MemOp::Protect {
        range: DATA + 0x1000..DATA + 0x2000,
        protection: Protection::READ,
    };
    block_on(thread.apply(&[protect])).expect("mprotect");
    let mut buf = [0; 64];
    assert_eq!(
        copy_out(&mut thread, DATA + 0xff0, &[7; 64]),
        Err(CopyFault { copied: 16 })
    );
    assert_eq!(copy_in(&mut thread, DATA + 0xff0, &mut buf), Ok(()));
    assert_eq!((buf[15], buf[16]), (7, 0));
    assert_eq!(
        copy_in(&mut thread, DATA + 0x1ff0, &mut buf),
        Err(CopyFault { copied: 16 })
    );
    let stub = platform.guest_range().end;
    for addr in [0, stub, stub + 0x1000, u64::MAX - 8, 1 << 63] {
        assert_eq!(
            copy_in(&mut thread, addr, &mut buf),
            Err(CopyFault { copied: 0 }),
            "{addr:x}"
        );
        assert_eq!(
            copy_out(&mut thread, addr, &buf),
            Err(CopyFault { copied: 0 }),
            "{addr:x}"
        );
    }
    // A string ends where its NUL is, even at the border to nothing.
    copy_out(&mut thread, DATA + 0xff0, b"hello\0").expect("copy");
    let mut string = [0; 4096];
    assert_eq!(copy_in_str(&mut thread, DATA + 0xff0, &mut string), Ok(5));
    assert_eq!(
        copy_in_str(&mut thread, DATA + 0xff0, &mut string[..3]),
        Ok(3)
    );
    assert_eq!(
        copy_in_str(&mut thread, DATA + 0x2000, &mut string),
        Err(CopyFault { copied: 0 })
    );
}

#[test]
fn atomic_operations_answer_with_the_previous_value() {
    let platform = platform();
    let mut thread = start(&*platform, nothing());
    assert_eq!(run(&mut thread), Trap::Syscall);
    let ops = [
        (AtomicOp::Load, 0, 0),
        (AtomicOp::Exchange(5), 0, 5),
        (
            AtomicOp::CompareExchange {
                expected: 4,
                new: 1,
            },
            5,
            5,
        ),
        (
            AtomicOp::CompareExchange {
                expected: 5,
                new: 6,
            },
            5,
            6,
        ),
        (AtomicOp::Add(u32::MAX), 6, 5),
        (AtomicOp::Or(8), 5, 13),
        (AtomicOp::And(12), 13, 12),
        (AtomicOp::Xor(4), 12, 8),
    ];
    for (op, old, new) in ops {
        assert_eq!(atomic(&mut thread, DATA + 4, op), Ok(old), "{op:?}");
        let mut word = [0; 4];
        copy_in(&mut thread, DATA + 4, &mut word).expect("copy");
        assert_eq!(u32::from_ne_bytes(word), new, "{op:?}");
    }
    let fault = Err(CopyFault { copied: 0 });
    for addr in [DATA + 1, 0, DATA + 0x2000, platform.guest_range().end] {
        assert_eq!(atomic(&mut thread, addr, AtomicOp::Add(1)), fault);
    }
    // The guest goes on as if nothing had happened.
    assert_eq!(run(&mut thread), Trap::Syscall);
}

#[test]
fn mappings_of_files_are_private_or_shared() {
    let platform = platform();
    let space = load(&*platform, nothing());
    let memfd = nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    let mut file = std::fs::File::from(memfd.expect("memfd"));
    file.write_all(&[b'f'; 5000]).expect("write");
    let map = |start: u64, sharing| MemOp::MapFile {
        range: start..start + 0x3000,
        protection: RW,
        sharing,
        fd: file.as_fd(),
        offset: 0,
    };
    let ops = [
        map(0x1000_0000, Sharing::Private),
        map(0x2000_0000, Sharing::Shared),
    ];
    block_on(space.apply(&ops)).expect("map");
    block_on(space.write(0x1000_0000, b"private")).expect("write");
    block_on(space.write(0x2000_0000, b"shared!")).expect("write");
    let mut buf = [0; 7];
    block_on(space.read(0x1000_0000, &mut buf)).expect("read");
    assert_eq!(&buf, b"private");
    use std::os::unix::fs::FileExt;
    file.read_exact_at(&mut buf, 0).expect("read");
    assert_eq!(&buf, b"shared!");
    assert_eq!(
        block_on(space.read(0x2000_2000, &mut buf)),
        Err(CopyFault { copied: 0 }),
        "behind the end of file"
    );
    // Read-only descriptors can't be mapped shared and writable.
    let read_only = std::fs::File::open("/proc/self/exe").expect("open");
    let op = MemOp::MapFile {
        range: 0x3000_0000..0x3000_1000,
        protection: RW,
        sharing: Sharing::Shared,
        fd: read_only.as_fd(),
        offset: 0,
    };
    let eacces = MemError {
        index: 0,
        errno: Errno::EACCES,
    };
    assert_eq!(block_on(space.apply(&[op])), Err(eacces));
}

#[test]
fn remap_protect_advise_unmap() {
    let platform = platform();
    let space = load(&*platform, nothing());
    block_on(space.write(DATA, b"page")).expect("write");
    let moved = MemOp::Remap {
        from: DATA..DATA + 0x1000,
        to: 0x1000_0000..0x1000_2000,
        keep_source: false,
    };
    let grown = MemOp::Remap {
        from: 0x1000_0000..0x1000_2000,
        to: 0x1000_0000..0x1000_4000,
        keep_source: false,
    };
    block_on(space.apply(&[moved, grown])).expect("mremap");
    let mut buf = [0; 4];
    block_on(space.read(0x1000_0000, &mut buf)).expect("read");
    assert_eq!(&buf, b"page");
    block_on(space.read(0x1000_3000, &mut buf)).expect("read the grown part");
    assert!(block_on(space.read(DATA, &mut buf)).is_err());
    let dropped = MemOp::Advise {
        range: 0x1000_0000..0x1000_1000,
        advice: MemAdvice::DontNeed,
    };
    block_on(space.apply(&[dropped])).expect("madvise");
    block_on(space.read(0x1000_0000, &mut buf)).expect("read");
    assert_eq!(buf, [0; 4]);
    let unmap = MemOp::Unmap {
        range: 0x1000_0000..0x1000_4000,
    };
    block_on(space.apply(&[unmap])).expect("munmap");
    assert!(block_on(space.read(0x1000_0000, &mut buf)).is_err());
}

#[test]
fn the_stub_region_and_odd_ranges_are_refused() {
    let platform = platform();
    let space = load(&*platform, nothing());
    let end = platform.guest_range().end;
    let ranges = [
        end..end + 0x1000,
        end - 0x1000..end + 0x1000,
        0..0x1000,
        CODE + 1..CODE + 0x1001,
        CODE..CODE,
        Range {
            start: CODE + 0x1000,
            end: CODE,
        },
        Range {
            start: u64::MAX - 0xfff,
            end: 0,
        },
    ];
    for range in ranges {
        let einval = Err(MemError {
            index: 0,
            errno: Errno::EINVAL,
        });
        let ops = [
            MemOp::Unmap {
                range: range.clone(),
            },
            anonymous(range.clone(), RW),
            MemOp::Remap {
                from: DATA..DATA + 0x1000,
                to: range.clone(),
                keep_source: false,
            },
        ];
        for op in ops {
            assert_eq!(block_on(space.apply(&[op])), einval, "{range:x?}");
        }
    }
}

#[test]
fn resident_size_grows_with_what_is_touched() {
    let platform = platform();
    let space = load(&*platform, nothing());
    let before = space.resident_bytes();
    let range = 0x1000_0000..0x1100_0000;
    block_on(space.apply(&[anonymous(range.clone(), RW)])).expect("map");
    assert!(space.resident_bytes() < before + (1 << 20));
    block_on(space.write(range.start, &vec![1; 16 << 20])).expect("write");
    let after = space.resident_bytes();
    assert!(after >= before + (12 << 20), "{before} {after}");
    space.kill();
    assert!(space.resident_bytes() <= after);
}
