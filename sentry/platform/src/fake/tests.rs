use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::FakePlatform;
use crate::executor::block_on;
use crate::traits::{
    AddressSpace, AtomicOp, CopyFault, MemError, MemOp, Platform, Protection, Sharing, Trap,
};
use syscall_tables::Errno;

const RW: Protection = Protection::READ.union(Protection::WRITE);

fn space() -> Arc<dyn AddressSpace> {
    block_on(FakePlatform::new().new_space()).expect("fake spaces always start")
}

#[test]
fn copies_stop_at_the_first_inaccessible_page() {
    let space = space();
    let map = MemOp::MapAnonymous {
        range: 0x10_0000..0x10_2000,
        protection: RW,
    };
    let protect = MemOp::Protect {
        range: 0x10_1000..0x10_2000,
        protection: Protection::READ,
    };
    block_on(space.apply(&[map, protect])).expect("map");
    let write = block_on(space.write(0x10_0ff0, &[1; 32]));
    assert_eq!(write, Err(CopyFault { copied: 16 }));
    let mut buf = [9; 32];
    assert_eq!(block_on(space.read(0x10_0ff0, &mut buf)), Ok(()));
    assert_eq!(buf[..16], [1; 16]);
    assert_eq!(buf[16..], [0; 16]);
    let unmapped = block_on(space.read(0x10_1ff0, &mut buf));
    assert_eq!(unmapped, Err(CopyFault { copied: 16 }));
}

#[test]
fn protect_over_a_hole_is_enomem_and_bad_ranges_are_einval() {
    let space = space();
    let map = MemOp::MapAnonymous {
        range: 0x10_0000..0x10_1000,
        protection: RW,
    };
    let protect = |range| MemOp::Protect {
        range,
        protection: RW,
    };
    let ops = [map, protect(0x10_0000..0x10_2000)];
    let enomem = MemError {
        index: 1,
        errno: Errno::ENOMEM,
    };
    assert_eq!(block_on(space.apply(&ops)), Err(enomem));
    for range in [0x10_0001..0x10_1000, 0..0x1000, 0x10_1000..0x10_1000] {
        let einval = MemError {
            index: 0,
            errno: Errno::EINVAL,
        };
        assert_eq!(block_on(space.apply(&[protect(range)])), Err(einval));
    }
}

#[test]
fn file_mappings_read_the_file_and_shared_ones_write_it() {
    let mut file = tempfile();
    file.write_all(&[7; 5000]).expect("write");
    let space = space();
    let map = |start: u64, sharing| MemOp::MapFile {
        range: start..start + 0x3000,
        protection: RW,
        sharing,
        fd: file.as_fd(),
        offset: 0,
    };
    let ops = [
        map(0x10_0000, Sharing::Private),
        map(0x20_0000, Sharing::Shared),
    ];
    block_on(space.apply(&ops)).expect("map");
    block_on(space.write(0x20_0000, b"shared")).expect("write");
    block_on(space.write(0x10_0000, b"private")).expect("write");
    let mut buf = [0; 7];
    block_on(space.read(0x10_0000, &mut buf)).expect("read");
    assert_eq!(&buf, b"private");
    block_on(space.read(0x20_0000, &mut buf)).expect("read");
    assert_eq!(&buf, b"shared\x07");
    block_on(space.read(0x10_1387, &mut buf)).expect("read over the end of file");
    assert_eq!(buf, [7, 0, 0, 0, 0, 0, 0]);
    let behind = block_on(space.read(0x10_2000, &mut buf));
    assert_eq!(behind, Err(CopyFault { copied: 0 }));
}

fn tempfile() -> std::fs::File {
    let fd = nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .expect("memfd");
    fd.into()
}

#[test]
fn fork_copies_memory_and_registers_and_remap_moves_pages() {
    let platform = FakePlatform::new();
    let space = block_on(platform.new_space()).expect("space");
    let mut parent = block_on(space.new_thread()).expect("thread");
    let map = MemOp::MapAnonymous {
        range: 0x10_0000..0x10_2000,
        protection: RW,
    };
    block_on(space.apply(&[map])).expect("map");
    block_on(space.write(0x10_1000, b"before")).expect("write");
    parent.regs_mut().rbx = 3;
    let child = block_on(parent.fork()).expect("fork");
    assert_eq!(child.regs().rbx, 3);
    let remap = MemOp::Remap {
        from: 0x10_1000..0x10_2000,
        to: 0x30_0000..0x30_2000,
        keep_source: false,
    };
    block_on(space.apply(&[remap])).expect("remap");
    block_on(space.write(0x30_0000, b"after!")).expect("write");
    let mut buf = [0; 6];
    block_on(child.space().read(0x10_1000, &mut buf)).expect("read");
    assert_eq!(&buf, b"before");
    assert!(block_on(space.read(0x10_1000, &mut buf)).is_err());
    assert!(platform.try_next_guest().is_some() && platform.try_next_guest().is_some());
}

#[test]
fn guests_play_syscalls_and_see_their_end() {
    let platform = FakePlatform::new();
    let space = block_on(platform.new_space()).expect("space");
    let mut thread = block_on(space.new_thread()).expect("thread");
    let guest = block_on(platform.next_guest());
    let kernel = std::thread::spawn(move || {
        loop {
            let trap = block_on(std::future::poll_fn(|cx| thread.poll_run(cx)));
            assert_eq!(trap, Trap::Syscall);
            if thread.regs().orig_rax == 60 {
                return;
            }
            let sum: u64 = thread.regs().syscall_args().iter().sum();
            thread.regs_mut().rax = sum;
        }
    });
    assert_eq!(block_on(guest.syscall(1, [1, 2, 3, 4, 5, 6])), Some(21));
    assert_eq!(block_on(guest.syscall(60, [0; 6])), None);
    assert!(guest.has_ended());
    kernel.join().expect("the kernel side ends");
}

#[test]
fn interrupts_kills_and_atomics() {
    let platform = FakePlatform::new();
    let space = block_on(platform.new_space()).expect("space");
    let mut thread = block_on(space.new_thread()).expect("thread");
    thread.handle().interrupt();
    let trap = block_on(std::future::poll_fn(|cx| thread.poll_run(cx)));
    assert_eq!(trap, Trap::Interrupted);
    let map = MemOp::MapAnonymous {
        range: 0x10_0000..0x10_1000,
        protection: RW,
    };
    block_on(space.apply(&[map])).expect("map");
    let mut atomic = |op| {
        block_on(std::future::poll_fn(|cx| {
            thread.poll_atomic(cx, 0x10_0000, op)
        }))
    };
    assert_eq!(atomic(AtomicOp::Add(5)), Ok(0));
    let failed = AtomicOp::CompareExchange {
        expected: 4,
        new: 9,
    };
    assert_eq!(atomic(failed), Ok(5));
    assert_eq!(atomic(AtomicOp::Load), Ok(5));
    space.kill();
    let trap = block_on(std::future::poll_fn(|cx| thread.poll_run(cx)));
    assert_eq!(trap, Trap::Killed);
}
