//! What hostile guest code can do: nothing but the calls that DESIGN section 2
//! permits, by whatever entry, from wherever, with whatever registers.

mod guest;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use guest::*;
use sentry_platform::executor::block_on;
use sentry_platform::{AddressSpace, Found, GuestThread, Trap, View, ViewId};

/// Of `stub/layout.rs`, as guests know them.
const TEXT: u64 = 0x7fff_0001_0000;
const CONTROL_TEXT: u64 = TEXT + 0x4000;
const APP_TEXT: u64 = TEXT + 0x5000;
const TEXT_END: u64 = TEXT + 0x6000;
const CONTEXTS: u64 = 0x7fff_1000_0000;
const SLOT_LEN: u64 = 0x2_0000;
const VIEW_REGION: u64 = 0x7fff_a000_0000;
const VIEW_REGION_END: u64 = VIEW_REGION + 64 * 0x20_0000;
const FIRST_SLOT: u64 = CONTEXTS + SLOT_LEN;

static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub"));

guest_code!(
    entries,
    "test rdi, rdi",
    "jz 1f",
    "dec rdi",
    "jz 2f",
    "dec rdi",
    "jz 3f",
    "call rsi",
    "ud2",
    "1: mov rdi, rsi",
    "syscall",
    "ud2",
    "2: mov rdi, rsi",
    "int 0x80",
    "ud2",
    "3: mov rdi, rsi",
    "sysenter",
    "ud2",
);

/// `uretprobe` and `uprobe`: from Linux 6.11 and 6.18 on the host lets them past
/// every seccomp filter. Outside a trampoline of the host's uprobes they do
/// nothing but answer `SIGILL` or `ENXIO`.
const UPROBE_CALLS: [u64; 2] = [335, 336];

/// A place where calls that do happen leave traces.
struct Traces(std::path::PathBuf);

impl Traces {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// Puts the path of a file that does not exist at `DATA`.
    fn name_file(&self, thread: &mut dyn GuestThread) {
        let mut path = self.0.join("trace").into_os_string().into_encoded_bytes();
        path.push(0);
        copy_out(thread, DATA, &path).expect("mapped");
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        let count = std::fs::read_dir(&self.0).map_or(0, Iterator::count);
        let _ = std::fs::remove_dir_all(&self.0);
        if !std::thread::panicking() {
            assert_eq!(count, 0, "a call has left a file");
        }
    }
}

/// Starts guest code at `rip` with everything else forged.
fn forge(thread: &mut dyn GuestThread, rip: u64, nr: u64) {
    let regs = thread.regs_mut();
    regs.rip = rip;
    regs.rax = nr;
    regs.rdi = DATA;
    regs.rsi = 0o100;
    regs.rdx = 0o777;
    regs.r10 = 0;
    regs.r8 = 0;
    regs.r9 = 0;
    regs.rbx = FIRST_SLOT;
    regs.rbp = 56; // "clone" to the control loop
    regs.r12 = DATA;
    regs.r13 = DATA;
    regs.r14 = 0;
    regs.r15 = DATA;
    regs.rsp = STACK_TOP;
}

#[test]
fn every_call_number_traps_by_every_instruction() {
    let platform = platform();
    let traces = Traces::new("systrap-entries");
    let (_space, mut thread) = load(&platform, entries());
    traces.name_file(&mut *thread);
    let numbers = (0..=600u64).chain(0x4000_0000..0x4000_0258).chain([
        u64::MAX,
        1 << 31,
        1 << 32,
        0x8000_0027,
    ]);
    for nr in numbers {
        forge(&mut *thread, CODE, nr);
        thread.regs_mut().rsi = DATA;
        thread.regs_mut().rdi = 0;
        let trap = run(&mut *thread);
        if UPROBE_CALLS.contains(&nr) {
            assert!(!matches!(trap, Trap::Killed), "{nr}");
        } else {
            assert_eq!(trap, Trap::Syscall, "{nr}");
            assert_eq!(thread.regs().orig_rax, nr);
        }
        for entry in [1, 2] {
            forge(&mut *thread, CODE, nr);
            thread.regs_mut().rdi = entry;
            thread.regs_mut().rsi = DATA;
            let trap = run(&mut *thread);
            assert!(matches!(trap, Trap::Fault(_)), "{nr} by {entry}: {trap:?}");
        }
    }
    // The vsyscall page: gettimeofday, time, getcpu.
    for (offset, nr) in [(0, 96), (0x400, 201), (0x800, 309)] {
        forge(&mut *thread, CODE, 0);
        thread.regs_mut().rdi = 3;
        thread.regs_mut().rsi = 0xffff_ffff_ff60_0000 + offset;
        match run(&mut *thread) {
            Trap::Syscall => assert_eq!(thread.regs().orig_rax, nr),
            // Not there on this host.
            Trap::Fault(fault) => assert_eq!(fault.signo, libc::SIGSEGV),
            other => panic!("{other:?}"),
        }
    }
}

/// Addresses of all `syscall` instructions in stub text.
fn sites() -> Vec<u64> {
    let text = &IMAGE[..(TEXT_END - TEXT) as usize];
    (0u64..)
        .zip(text.windows(2))
        .filter(|(_, bytes)| *bytes == [0x0f, 0x05])
        .map(|(offset, _)| TEXT + offset)
        .collect()
}

/// Calls that the strict filter allows with the right arguments.
const PERMITTED: [u64; 7] = [
    libc::SYS_futex as u64,
    libc::SYS_sched_yield as u64,
    libc::SYS_exit as u64,
    libc::SYS_mmap as u64,
    libc::SYS_munmap as u64,
    libc::SYS_mprotect as u64,
    libc::SYS_madvise as u64,
];

#[test]
fn jumps_to_host_call_sites_are_deadly() {
    let platform = platform();
    let traces = Traces::new("systrap-sites");
    let (_space, mut parent) = load(&platform, entries());
    assert_eq!(run(&mut *parent), Trap::Syscall);
    traces.name_file(&mut *parent);
    let sites = sites();
    assert!(sites.iter().filter(|&&site| site >= APP_TEXT).count() >= 4);
    assert!(
        sites
            .iter()
            .any(|&site| (CONTROL_TEXT..APP_TEXT).contains(&site))
    );
    let dangerous = [
        libc::SYS_open,
        libc::SYS_creat,
        libc::SYS_mkdir,
        libc::SYS_getpid,
        libc::SYS_clone,
        libc::SYS_execve,
        libc::SYS_recvmsg,
        libc::SYS_prctl,
        libc::SYS_seccomp,
        libc::SYS_mremap,
        libc::SYS_rt_sigreturn,
        libc::SYS_mmap,
    ];
    let all_numbers_at = [
        sites.iter().find(|&&site| site >= APP_TEXT),
        sites.iter().find(|&&site| site >= CONTROL_TEXT),
    ];
    let attempts = sites
        .iter()
        .flat_map(|&site| dangerous.map(|nr| (site, nr as u64)))
        .chain(
            all_numbers_at
                .into_iter()
                .flatten()
                .flat_map(|&site| (0..500).map(move |nr| (site, nr))),
        );
    for (site, nr) in attempts {
        let mut child = block_on(parent.fork()).expect("fork");
        forge(&mut *child, site, nr);
        let may = site >= APP_TEXT && PERMITTED.contains(&nr) && nr != libc::SYS_mmap as u64;
        if may || UPROBE_CALLS.contains(&nr) {
            continue;
        }
        assert_eq!(run(&mut *child), Trap::Killed, "{site:#x}, {nr}");
    }
}

/// Any place in stub text, with a watch on the clock: the sentry neither
/// hangs nor believes nonsense.
#[test]
fn jumps_anywhere_into_stub_text_are_survived() {
    let platform = platform();
    let traces = Traces::new("systrap-jumps");
    let (space, mut parent) = load(&platform, entries());
    assert_eq!(run(&mut *parent), Trap::Syscall);
    traces.name_file(&mut *parent);
    let mut outcomes = BTreeSet::new();
    for offset in (0x4000..0x5a00).step_by(7) {
        let mut child = block_on(parent.fork()).expect("fork");
        forge(&mut *child, TEXT + offset, libc::SYS_mkdir as u64);
        let handle = child.handle();
        let stub = child.space();
        let watchdog = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            handle.interrupt();
            std::thread::sleep(Duration::from_millis(20));
            stub.kill();
        });
        let trap = run(&mut *child);
        outcomes.insert(format!("{trap:?}").chars().take(8).collect::<String>());
        drop(child);
        watchdog.join().expect("no panic");
    }
    assert!(outcomes.contains("Killed"), "{outcomes:?}");
    // The parent is untouched.
    parent.regs_mut().rip = CODE;
    parent.regs_mut().rdi = 0;
    assert_eq!(run(&mut *parent), Trap::Syscall);
    drop(space);
}

guest_code!(
    scribble,
    // Writes rdx to rcx words from rdi, for ever.
    "1: mov rsi, rdi",
    "mov r8, rcx",
    "2: mov [rsi], rdx",
    "add rsi, 8",
    "dec r8",
    "jnz 2b",
    "jmp 1b",
);

#[test]
fn scribbled_contexts_cost_the_stub_at_most() {
    let platform = platform();
    for (value, target, words) in [
        (0, FIRST_SLOT, 64),
        (u64::MAX, FIRST_SLOT, 64),
        (1, FIRST_SLOT, 1),
        (0x1_0101, FIRST_SLOT, 1),
        (0x41, FIRST_SLOT + 0x100, 32),
        (0x4141_4141_4141, FIRST_SLOT + 0x6000, 0x1400),
        (u64::MAX, CONTEXTS, 512),
        (0, CONTEXTS, 512),
    ] {
        let (space, mut victim) = load(&platform, entries());
        let mut scribbler = block_on(space.new_thread()).expect("thread");
        block_on(space.write(CODE + 512, scribble())).expect("mapped");
        let regs = scribbler.regs_mut();
        regs.rip = CODE + 512;
        regs.rdi = target;
        regs.rcx = words;
        regs.rdx = value;
        let handle = scribbler.handle();
        let scribbling = std::thread::spawn(move || run(&mut *scribbler));
        let watchdog = {
            let space = space.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                handle.interrupt();
                space.kill();
            })
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            victim.regs_mut().rip = CODE;
            victim.regs_mut().rdi = 0;
            if run(&mut *victim) == Trap::Killed {
                break;
            }
            let mut bytes = [0; 100];
            let _ = copy_in(&mut *victim, DATA, &mut bytes);
            let _ = copy_in_str(&mut *victim, DATA, &mut bytes);
            let mut area = vec![0; platform_area(&platform)];
            let _ = block_on(std::future::poll_fn(|cx| {
                victim.poll_get_vector_state(cx, &mut area)
            }));
        }
        assert!(Instant::now() < deadline, "{value:#x} at {target:#x}");
        watchdog.join().expect("no panic");
        let _ = scribbling.join().expect("no panic");
    }
    // The platform is as good as new.
    let (_space, mut thread) = load(&platform, entries());
    assert_eq!(run(&mut *thread), Trap::Syscall);
}

fn platform_area(platform: &sentry_platform::systrap::Systrap) -> usize {
    sentry_platform::Platform::vector_state_len_bytes(platform)
}

/// Invariant 3: nothing but the guest's own, stub text and the vDSO.
#[test]
fn a_stub_maps_and_opens_nothing_of_others() {
    let platform = platform();
    let (space, mut thread) = load(&platform, entries());
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let child = block_on(thread.fork()).expect("fork");
    for space in [space, child.space()] {
        let pid = stub_of(&*space);
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("readable");
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (start, end) = fields
                .next()
                .and_then(|range| range.split_once('-'))
                .expect("a range");
            let start = u64::from_str_radix(start, 16).expect("hexadecimal");
            let end = u64::from_str_radix(end, 16).expect("hexadecimal");
            let rights = fields.next().expect("rights");
            let name = fields.nth(3).unwrap_or_default();
            let known = match name {
                "/memfd:stub" => rights == "r-xp" && start == TEXT && end == TEXT_END,
                "/memfd:stub-global" | "/memfd:stub-command" => rights == "r--s",
                "/memfd:stub-contexts" => rights == "rw-s" && start == CONTEXTS,
                "[vdso]" | "[vsyscall]" => rights.ends_with("xp") && !rights.contains('w'),
                "[vvar]" | "[vvar_vclock]" => rights == "r--p",
                "" => (CODE..STACK_TOP).contains(&start) && end <= STACK_TOP,
                _ => false,
            };
            assert!(known, "{line}");
        }
        let mut fds: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("readable")
            .flatten()
            .map(|entry| {
                let target = std::fs::read_link(entry.path()).expect("a link");
                let target = target.to_string_lossy().into_owned();
                (entry.file_name().into_string().expect("a number"), target)
            })
            .collect();
        fds.sort();
        assert_eq!(fds.len(), 2, "{fds:?}");
        assert!(fds[0].0 == "0" && fds[0].1.starts_with("socket:"));
        assert!(fds[1].0 == "1" && fds[1].1.starts_with("/memfd:stub-contexts"));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
        assert!(status.contains("\nNoNewPrivs:\t1\n") && status.contains("\nSeccomp:\t2\n"));
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("readable");
        let core = limits.lines().find(|line| line.starts_with("Max core"));
        assert!(core.is_some_and(|line| line.split_whitespace().nth(4) == Some("0")));
    }
}

/// The lines of `/proc/PID/maps` in the region of views.
fn views_of(pid: u32) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("readable");
    let is_view = |line: &&str| {
        let start = line.split('-').next().unwrap_or_default();
        u64::from_str_radix(start, 16)
            .is_ok_and(|start| (VIEW_REGION..VIEW_REGION_END).contains(&start))
    };
    maps.lines().filter(is_view).map(str::to_owned).collect()
}

/// What a guest reads much of it finds mapped: so that it can read it, and
/// nothing else.
#[test]
fn views_are_for_reading_and_end_with_the_file() {
    use std::os::fd::AsFd;
    let platform = platform();
    let (space, mut thread) = load(&platform, entries());
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let pid = stub_of(&*space);
    let text: Vec<u8> = (0..1u32 << 16).flat_map(u32::to_ne_bytes).collect();
    let path = std::env::temp_dir().join(format!("view-{}", std::process::id()));
    std::fs::write(&path, &text).expect("written");
    let open = std::fs::File::options().read(true).write(true).open(&path);
    let file = open.expect("opened");
    std::fs::remove_file(&path).expect("removed");
    let id = ViewId::new();
    assert!(views_of(pid).is_empty() && !thread.has_views());
    assert!(matches!(thread.find_view(id, 0, 1 << 20), Found::Worth));
    block_on(thread.map_view(id, file.as_fd(), 0)).expect("mapped");
    let Found::View(view) = thread.find_view(id, 4096, 100) else {
        panic!("it is mapped");
    };
    let copy = |thread: &mut dyn GuestThread, view: &View, len| {
        block_on(poll_fn(|cx| thread.poll_copy_view(cx, view, DATA, len)))
    };
    assert_eq!(copy(&mut *thread, &view, 100), 100);
    let mut bytes = [0; 100];
    copy_in(&mut *thread, DATA, &mut bytes).expect("mapped");
    assert_eq!(bytes[..], text[4096..4196]);
    // Up to the end of the file's last page.
    let left = text.len() as u64 - 4096;
    assert_eq!(copy(&mut *thread, &view, left + 4096), left);
    // For reading, and not in a child.
    let lines = views_of(pid);
    assert!(lines.len() == 1 && lines[0].contains(" r--s "), "{lines:?}");
    let child = block_on(thread.fork()).expect("fork");
    assert!(views_of(stub_of(&*child.space())).is_empty());
    // A view in use is unmapped too.
    block_on(thread.forget_views(id));
    assert!(views_of(pid).is_empty());
    assert_eq!(copy(&mut *thread, &view, 100), 0);
    drop(view);
    assert!(matches!(thread.find_view(id, 0, 1), Found::Nothing));
}

/// The stub process behind `space`, found by a mark in its memory.
fn stub_of(space: &dyn AddressSpace) -> u32 {
    use std::os::unix::fs::FileExt;
    let mark = format!("{:?}", Instant::now()).into_bytes();
    block_on(space.write(DATA + 4096, &mark)).expect("mapped");
    let is_it = |pid: &u32| {
        let mut bytes = vec![0; mark.len()];
        std::fs::File::open(format!("/proc/{pid}/mem"))
            .is_ok_and(|mem| mem.read_exact_at(&mut bytes, DATA + 4096).is_ok())
            && bytes == mark
    };
    std::fs::read_dir("/proc/self/task")
        .expect("proc")
        .flatten()
        .flat_map(|task| {
            let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .find(is_it)
        .expect("a child with the mark")
}
