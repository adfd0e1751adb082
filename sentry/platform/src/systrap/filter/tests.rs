//! The filters, run by an interpreter of classic BPF against a second,
//! independent statement of what is allowed.

use super::*;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
struct Call {
    nr: u32,
    arch: u32,
    ip: u64,
    args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 => low(self.ip),
            12 => high(self.ip),
            _ => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) {
                    low(arg)
                } else {
                    high(arg)
                }
            }
        }
    }
}

fn allows(program: &[u8], call: &Call) -> bool {
    let ops: Vec<(u16, u8, u8, u32)> = program
        .chunks(8)
        .map(|c| {
            (
                u16::from_le_bytes([c[0], c[1]]),
                c[2],
                c[3],
                u32::from_le_bytes([c[4], c[5], c[6], c[7]]),
            )
        })
        .collect();
    let (mut a, mut x, mut mem, mut pc) = (0u32, 0u32, [0u32; 16], 0);
    loop {
        let (code, jt, jf, k) = ops[pc];
        pc += 1;
        let mut jump = |condition: bool| pc += usize::from(if condition { jt } else { jf });
        match code {
            0x20 => a = call.word(k),
            0x00 => a = k,
            0x60 => a = mem[k as usize],
            0x61 => x = mem[k as usize],
            0x02 => mem[k as usize] = a,
            0x07 => x = a,
            0x0c => a = a.wrapping_add(x),
            0x05 => pc += k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x3d => jump(a >= x),
            0x45 => jump(a & k != 0),
            0x06 => {
                assert!(k == RET_ALLOW || k == RET_TRAP);
                return k == RET_ALLOW;
            }
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn app(nr: i64, args: [u64; 6]) -> Call {
    Call {
        nr: nr as u32,
        arch: AUDIT_ARCH_X86_64,
        ip: l::APP_TEXT + 0x100,
        args,
    }
}

fn in_guest(addr: u64, len: u64) -> bool {
    addr.checked_add(len).is_some_and(|end| end <= l::STUB_BASE)
}

/// DESIGN section 2, written down a second time.
fn app_may(call: &Call, memory: MemoryCalls) -> bool {
    let [a, b, c, d, e, _] = call.args;
    if call.arch != AUDIT_ARCH_X86_64 {
        return false;
    }
    if call.ip <= l::APP_TEXT || call.ip > l::APP_TEXT + l::SITES_LEN {
        return false;
    }
    let memory = memory == MemoryCalls::AppThread;
    match i64::from(call.nr) {
        libc::SYS_futex => {
            (b == 0 || b == 1)
                && d == 0
                && (l::CONTEXTS..l::CONTEXTS + l::CONTEXTS_LEN).contains(&a)
        }
        libc::SYS_sched_yield | libc::SYS_exit => true,
        libc::SYS_mmap => memory && in_guest(a, b) && c < 8 && d == 0x4032 && e == u64::MAX,
        libc::SYS_munmap => memory && in_guest(a, b),
        libc::SYS_mprotect => memory && in_guest(a, b) && c < 8,
        libc::SYS_madvise => memory && in_guest(a, b) && (c == 4 || c == 8),
        _ => false,
    }
}

/// Values that matter somewhere, and neighbours.
fn interesting() -> Vec<u64> {
    let mut values = vec![
        0, 1, 2, 3, 4, 7, 8, 0x1000, 0x4032, 0x4011, 0x5_0f00, 0x8011,
    ];
    for base in [
        1 << 31,
        1 << 32,
        1 << 63,
        l::STUB_BASE,
        l::COMMAND,
        l::COMMAND + l::K_MSGHDR,
        l::COMMAND + l::K_SIGNAL_STACK,
        l::GLOBAL + l::G_CONTROL_FPROG,
        l::GLOBAL + l::G_EMPTY_MASK,
        l::CONTEXTS,
        l::CONTEXTS + l::CONTEXTS_LEN,
        l::VIEW_LEN,
        l::VIEW_REGION,
        l::VIEW_REGION + l::VIEW_REGION_LEN - l::VIEW_LEN,
        l::TASK_SIZE,
        0u64,
    ] {
        for delta in [0u64, 1, 0x1000, u64::MAX, 0u64.wrapping_sub(0x1000)] {
            values.push(base.wrapping_add(delta));
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

/// A small generator, so that the test is the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick(&mut self, values: &[u64]) -> u64 {
        let index = (self.next() % values.len() as u64) as usize;
        values[index]
    }
}

#[test]
fn app_text_may_make_the_permitted_calls_and_nothing_else() {
    let values = interesting();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let numbers = [
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_exit,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
    ];
    for memory in [MemoryCalls::AppThread, MemoryCalls::Control] {
        let program = stub(memory);
        let mut allowed = 0;
        for round in 0..400_000u64 {
            let nr = if round % 8 == 0 {
                i64::from(low(random.next()) % 1024)
            } else {
                numbers[(random.next() % 7) as usize]
            };
            let mut call = app(nr, [0; 6].map(|_: u64| random.pick(&values)));
            // Near misses of the long conditions are rare by chance alone.
            if nr == libc::SYS_mmap && round % 3 != 0 {
                call.args[2] = random.next() % 9;
                call.args[3] = 0x4032 ^ (u64::from(round % 16 == 1) << (random.next() % 64));
                call.args[4] = u64::MAX;
            }
            assert_eq!(
                allows(&program, &call),
                app_may(&call, memory),
                "{call:x?} {memory:?}"
            );
            allowed += u32::from(app_may(&call, memory));
        }
        assert!(allowed > 10_000, "{allowed}");
    }
}

#[test]
fn other_numbers_places_and_architectures_trap() {
    let filter = stub(MemoryCalls::AppThread);
    let known: Vec<u32> = control_calls()
        .iter()
        .chain(&app_calls(MemoryCalls::AppThread))
        .map(|(nr, _)| *nr as u32)
        .collect();
    let benign = app(libc::SYS_sched_yield, [0; 6]);
    assert!(allows(&filter, &benign));
    for nr in (0..2048u32).flat_map(|nr| [nr, nr | 0x4000_0000, nr | 0x8000_0000, !nr]) {
        for ip in [l::APP_TEXT + 2, l::CONTROL_TEXT + 2] {
            let call = Call { nr, ip, ..benign };
            if !known.contains(&nr) {
                assert!(!allows(&filter, &call), "{call:x?}");
            }
        }
    }
    for ip in [
        0,
        0x40_0002,
        l::APP_TEXT,
        l::APP_TEXT + l::SITES_LEN + 1,
        l::CONTROL_TEXT + 0x100,
        l::TEXT + 0x100,
        low(l::APP_TEXT).into(),
        l::APP_TEXT + (1 << 32) + 2,
        0xffff_ffff_ff60_0000,
    ] {
        assert!(!allows(&filter, &Call { ip, ..benign }), "{ip:x}");
    }
    for arch in [0x4000_0003, 0xc000_00b7, 0, !AUDIT_ARCH_X86_64] {
        let call = Call { arch, ..benign };
        assert!(!allows(&filter, &call));
    }
}

#[test]
fn no_call_of_a_control_thread_reaches_the_stub_region() {
    let program = stub(MemoryCalls::AppThread);
    let values = interesting();
    let mut random = Random(0x1234_5678_9abc_def1);
    // Calls that take an address range, and where.
    let ranges: [(i64, usize, usize); 7] = [
        (libc::SYS_mmap, 0, 1),
        (libc::SYS_munmap, 0, 1),
        (libc::SYS_mprotect, 0, 1),
        (libc::SYS_madvise, 0, 1),
        (libc::SYS_mremap, 0, 1),
        (libc::SYS_pread64, 1, 2),
        (libc::SYS_pwrite64, 1, 2),
    ];
    let mut allowed = 0;
    let mut views = 0;
    for _ in 0..600_000 {
        let (nr, addr, len) = ranges[(random.next() % 7) as usize];
        let mut call = app(nr, [0; 6].map(|_: u64| random.pick(&values)));
        call.ip = l::CONTROL_TEXT + 0x40;
        match nr {
            libc::SYS_mmap => {
                call.args[2] = random.next() % 8;
                call.args[3] = random.pick(&[0x4032, 0x4011, 0x4012, 0x12, 0x2]);
                call.args[4] = random.pick(&[0, 1, 2, 3, 4, u64::MAX]);
            }
            libc::SYS_mremap => call.args[3] = random.next() % 9,
            libc::SYS_pread64 | libc::SYS_pwrite64 => {
                call.args[0] = 1;
                call.args[3] = l::R_TRANSFER;
            }
            libc::SYS_mprotect => call.args[2] = random.next() % 8,
            _ => {}
        }
        if !allows(&program, &call) {
            continue;
        }
        allowed += 1;
        let own = [(l::COMMAND, l::COMMAND_LEN), (l::CONTEXTS, l::CONTEXTS_LEN)]
            .contains(&(call.args[addr], call.args[len]));
        if own {
            assert!(
                [libc::SYS_mmap, libc::SYS_madvise].contains(&nr),
                "{call:x?}"
            );
            continue;
        }
        if call.args[addr] >= l::VIEW_REGION && call.args[len] == l::VIEW_LEN {
            views += 1;
            assert!(call.args[addr] <= l::VIEW_REGION + l::VIEW_REGION_LEN - l::VIEW_LEN);
            match nr {
                // Read-only, of a file that has come.
                libc::SYS_mmap => {
                    assert_eq!(call.args[2..4], [1, 0x4011]);
                    assert!(call.args[4] >= l::FD_RECEIVED);
                }
                libc::SYS_munmap => {}
                libc::SYS_madvise => assert_eq!(call.args[2], 10),
                _ => panic!("{call:x?}"),
            }
            continue;
        }
        assert!(in_guest(call.args[addr], call.args[len]), "{call:x?}");
        if nr == libc::SYS_mremap {
            let target = match call.args[3] {
                0 => call.args[0],
                3 | 7 => call.args[4],
                flags => panic!("flags {flags}"),
            };
            assert!(in_guest(target, call.args[2]), "{call:x?}");
        }
    }
    assert!(allowed > 10_000, "{allowed}");
    assert!(views > 20, "{views}");
}

#[test]
fn the_control_thread_can_do_its_work() {
    let program = stub(MemoryCalls::Control);
    let may = |nr: i64, args: [u64; 6]| {
        let ip = l::CONTROL_TEXT + 0x40;
        allows(
            &program,
            &Call {
                ip,
                ..app(nr, args)
            },
        )
    };
    assert!(may(
        libc::SYS_mmap,
        [0x1_0000, 0x1000, 3, 0x4032, u64::MAX, 0]
    ));
    assert!(may(
        libc::SYS_mmap,
        [0x1_0000, 0x1000, 5, 0x4012, 2, 0x8000]
    ));
    assert!(!may(
        libc::SYS_mmap,
        [0x1_0000, 0x1000, 5, 0x4012, 1, 0x8000]
    ));
    // Views: mapped for reading and not inherited; all of them unmapped.
    let view = [l::VIEW_REGION + l::VIEW_LEN, l::VIEW_LEN];
    let map = |protection, flags| [view[0], view[1], protection, flags, 2, 0x20_0000];
    assert!(may(libc::SYS_mmap, map(1, 0x4011)));
    assert!(!may(libc::SYS_mmap, map(3, 0x4011)));
    assert!(!may(libc::SYS_mmap, map(1, 0x4012)));
    assert!(may(libc::SYS_madvise, [view[0], view[1], 10, 0, 0, 0]));
    assert!(!may(libc::SYS_mprotect, [view[0], view[1], 3, 0, 0, 0]));
    assert!(may(
        libc::SYS_munmap,
        [l::VIEW_REGION, l::VIEW_REGION_LEN, 0, 0, 0, 0]
    ));
    assert!(may(libc::SYS_clone, [l::CLONE_FORK_FLAGS, 0, 1, 2, 3, 4]));
    assert!(!may(
        libc::SYS_clone,
        [l::CLONE_FORK_FLAGS | 0x2000_0000, 0, 0, 0, 0, 0]
    ));
    assert!(may(
        libc::SYS_clone,
        [l::CLONE_THREAD_FLAGS, l::CONTEXTS + 0x3_0000, 0, 0, 0, 0]
    ));
    assert!(!may(
        libc::SYS_clone,
        [l::CLONE_THREAD_FLAGS, 0x3_0000, 0, 0, 0, 0]
    ));
    // Two constant paths, for reading, below what it has received.
    let (status, file) = (l::GLOBAL + l::G_STATUS_PATH, l::GLOBAL + l::G_FILE_PATH);
    for path in [status, file] {
        assert!(may(
            libc::SYS_openat,
            [l::FD_RECEIVED, path, l::OPEN_FLAGS, 0, 0, 0]
        ));
    }
    for args in [
        [l::FD_RECEIVED, l::COMMAND, l::OPEN_FLAGS, 0, 0, 0],
        [l::FD_RECEIVED, status + 1, l::OPEN_FLAGS, 0, 0, 0],
        [l::FD_RECEIVED + 1, status, l::OPEN_FLAGS, 0, 0, 0],
        [l::FD_RECEIVED, file, l::OPEN_FLAGS | 2, 0, 0, 0],
        [l::FD_RECEIVED, file, l::OPEN_FLAGS | 0o100, 0o700, 0, 0],
    ] {
        assert!(!may(libc::SYS_openat, args), "{args:x?}");
    }
    assert!(!may(libc::SYS_open, [status, 0, 0, 0, 0, 0]));
    assert!(!may(
        libc::SYS_openat2,
        [l::FD_RECEIVED, status, 0, 0, 0, 0]
    ));
    let header = l::GLOBAL + l::G_SEND_FILE;
    assert!(may(
        libc::SYS_sendmsg,
        [l::FD_SOCKET, header, l::SENDMSG_FLAGS, 0, 0, 0]
    ));
    assert!(!may(
        libc::SYS_sendmsg,
        [l::FD_SOCKET, l::COMMAND, l::SENDMSG_FLAGS, 0, 0, 0]
    ));
    assert!(may(
        libc::SYS_pread64,
        [l::FD_CONTEXTS, 0x1_0000, 0x1000, l::ZEROS, 0, 0]
    ));
    assert!(!may(
        libc::SYS_pread64,
        [l::FD_CONTEXTS, l::STUB_BASE, 0x1000, l::ZEROS, 0, 0]
    ));
    assert!(!may(
        libc::SYS_pwrite64,
        [l::FD_CONTEXTS, 0x1_0000, 0x1000, l::ZEROS, 0, 0]
    ));
    assert!(!may(libc::SYS_clone3, [0; 6]));
    assert!(!may(libc::SYS_execve, [0; 6]));
    assert!(!may(libc::SYS_close, [0; 6]));
    assert!(may(libc::SYS_close, [2, 0, 0, 0, 0, 0]));
}
