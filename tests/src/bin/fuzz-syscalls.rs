//! Passes garbage to every system call: `fuzz-syscalls [SECONDS [SEED [WORKERS]]]`.
//!
//! Each round forks a child that makes a few hundred calls with random
//! arguments and may well kill itself; the parent goes on. At the end the
//! parent proves that ordinary calls still work and prints one line. The seed
//! of a round is printed before it, so that a round can be repeated.

use std::io::Write;

/// xorshift64*: small, seeded, good enough to vary arguments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// Calls that would only make the fuzzer itself wait or go away natively; the
/// child may do what it likes otherwise.
const SKIPPED: &[i64] = &[
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_swapon,
    libc::SYS_swapoff,
];

/// Calls that must not be tried outside a sandbox, because arguments decide
/// who is hit.
const OUTSIDE: &[i64] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rename,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
];

struct Arena {
    data: *mut u8,
    len: usize,
    /// A page that faults.
    hole: usize,
    read_only: usize,
}

unsafe fn arena() -> Arena {
    let len = 64 * 4096;
    let map = |len, prot| {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            prot,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    let data = map(len, libc::PROT_READ | libc::PROT_WRITE).cast::<u8>();
    Arena {
        data,
        len,
        hole: map(4096, libc::PROT_NONE) as usize,
        read_only: map(4096, libc::PROT_READ) as usize,
    }
}

unsafe fn argument(r: &mut Random, a: &Arena, fds: &[i32]) -> u64 {
    match r.below(22) {
        0 => 0,
        1 => r.below(16),
        2 => 1 << r.below(64),
        3 => u64::MAX - r.below(4),
        4 => r.next(),
        5 => u64::from(r.next() as u32),
        6 => i64::from(r.next() as i32) as u64,
        7 | 8 => fds[r.below(fds.len() as u64) as usize] as u64,
        9 => r.below(70),
        10 => (a.data as u64 + a.len as u64) - r.below(64),
        11 => a.hole as u64 + r.below(4096),
        12 => a.read_only as u64 + r.below(4096),
        13 => r.below(1 << 20),
        14 => 4096 * r.below(1024),
        15 => *[
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 47,
            (1 << 47) - 4096,
            1 << 63,
            0xffff_8000_0000_0000,
            4095,
        ]
        .get(r.below(8) as usize)
        .unwrap_or(&0),
        16 => std::process::id() as u64,
        _ => a.data as u64 + (r.below(a.len as u64 - 4096) & !if r.below(4) == 0 { 0 } else { 7 }),
    }
}

/// Fills the arena with plausible things: paths, small numbers, pointers into
/// itself, noise.
unsafe fn fill(r: &mut Random, a: &Arena) {
    let words = std::slice::from_raw_parts_mut(a.data.cast::<u64>(), a.len / 8);
    let mut i = 0;
    while i < words.len() {
        match r.below(8) {
            0 => words[i] = r.next(),
            1 | 2 => words[i] = r.below(64),
            3 => words[i] = a.data as u64 + r.below(a.len as u64),
            4 => words[i] = 0,
            5 => words[i] = r.below(1 << 32),
            6 => {
                let paths: [&[u8]; 10] = [
                    b".\0",
                    b"fuzz-a\0",
                    b"fuzz-d/x\0",
                    b"/proc/self/maps\0",
                    b"/dev/null\0",
                    b"/dev/tty\0",
                    b"fuzz-l\0",
                    b"..\0",
                    b"/proc/self/fd/3\0",
                    b"user.fuzz\0",
                ];
                let p = paths[r.below(10) as usize];
                let room = (words.len() - i) * 8;
                let n = p.len().min(room);
                std::ptr::copy_nonoverlapping(p.as_ptr(), words.as_mut_ptr().add(i).cast(), n);
                i += n / 8;
            }
            _ => words[i] = r.below(1 << 16) << (16 * r.below(4)),
        }
        i += 1;
    }
}

unsafe fn open_things() -> Vec<i32> {
    let mut fds = vec![-1, 0, 999, libc::AT_FDCWD];
    let mut pair = [0; 2];
    libc::pipe(pair.as_mut_ptr());
    fds.extend(pair);
    if libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) == 0 {
        fds.extend(pair);
    }
    for name in [
        c"fuzz-a",
        c".",
        c"/dev/null",
        c"/proc/self/maps",
        c"/dev/zero",
        c"/dev/ptmx",
    ] {
        fds.push(libc::open(
            name.as_ptr(),
            libc::O_RDWR | libc::O_CREAT | libc::O_NONBLOCK,
            0o644,
        ));
        fds.push(libc::open(name.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK));
    }
    fds.push(libc::eventfd(0, 0));
    fds.push(libc::epoll_create1(0));
    fds.push(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0));
    fds.push(libc::inotify_init1(libc::IN_NONBLOCK));
    fds.push(libc::memfd_create(
        c"fuzz".as_ptr(),
        libc::MFD_ALLOW_SEALING,
    ));
    for (family, kind) in [
        (libc::AF_INET, libc::SOCK_STREAM),
        (libc::AF_INET, libc::SOCK_DGRAM),
        (libc::AF_INET6, libc::SOCK_STREAM),
        (libc::AF_UNIX, libc::SOCK_DGRAM),
        (libc::AF_NETLINK, libc::SOCK_RAW),
    ] {
        fds.push(libc::socket(family, kind | libc::SOCK_NONBLOCK, 0));
    }
    let mut set: libc::sigset_t = std::mem::zeroed();
    libc::sigfillset(&mut set);
    fds.push(libc::signalfd(-1, &set, libc::SFD_NONBLOCK));
    fds.push(libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) as i32);
    fds
}

/// Whether a call would end, stop or change the process that counts the rounds.
fn hits(fuzzer: i32, nr: i64, args: &[u64; 6]) -> bool {
    let aims = [
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_tgkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_prlimit64,
        libc::SYS_fcntl,
        libc::SYS_pidfd_open,
    ];
    let names_it = |arg: &u64| [fuzzer, -fuzzer].contains(&(*arg as i32));
    let to_all = nr == libc::SYS_kill && args[0] as i32 == -1;
    to_all || (aims.contains(&nr) && args.iter().take(3).any(names_it))
}

/// Points the output of a child elsewhere and restores the action that a
/// faulty instruction has by default: garbage must not reach the log.
unsafe fn quieten() {
    let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
    for fd in 0..3 {
        libc::dup2(null, fd);
    }
    libc::close(null);
    for signal in DEADLY {
        libc::signal(signal, libc::SIG_DFL);
    }
}

const DEADLY: [i32; 5] = [
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGTRAP,
];

/// Has the fuzzer itself say what ended it: a signal somebody sent, or an
/// instruction, and which.
unsafe fn tell_of_death() {
    extern "C" fn tell(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        unsafe {
            let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
            let at = registers[libc::REG_RIP as usize] as usize;
            println!(
                "the fuzzer got signal {signal}, code {}, from {}, at {at:#x}, rax {:#x}, rsp {:#x}",
                (*info).si_code,
                (*info).si_pid(),
                registers[libc::REG_RAX as usize],
                registers[libc::REG_RSP as usize],
            );
            let _ = std::io::stdout().flush();
            // A read by a call says whether the place is mapped at all.
            let mut code = [0u8; 32];
            let mut pipe = [0; 2];
            libc::pipe(pipe.as_mut_ptr());
            if libc::write(pipe[1], (at - 16) as *const _, 32) == 32 {
                libc::read(pipe[0], code.as_mut_ptr().cast(), 32);
            }
            println!("around it: {code:02x?}");
            println!(
                "{}",
                std::fs::read_to_string("/proc/self/maps").unwrap_or_default()
            );
            libc::_exit(9);
        }
    }
    let mut action: libc::sigaction = std::mem::zeroed();
    action.sa_sigaction = tell as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    for signal in DEADLY {
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

unsafe fn child(seed: u64, calls: u64, native: bool) -> ! {
    let fuzzer = libc::getppid();
    let mut r = Random(seed | 1);
    // A watchdog for calls that sleep; SIGKILL cannot be blocked away.
    let me = libc::getpid();
    if libc::fork() == 0 {
        libc::usleep(3_000_000);
        libc::kill(me, libc::SIGKILL);
        libc::_exit(0);
    }
    let a = arena();
    let fds = open_things();
    for _ in 0..calls {
        if r.below(8) == 0 {
            fill(&mut r, &a);
        }
        let nr = match r.below(20) {
            0 => r.below(600) as i64,
            1 => r.next() as i64,
            _ => r.below(470) as i64,
        };
        if SKIPPED.contains(&nr) || (native && OUTSIDE.contains(&nr)) {
            continue;
        }
        let mut args = [0u64; 6];
        for x in &mut args {
            *x = argument(&mut r, &a, &fds);
        }
        if hits(fuzzer, nr, &args) {
            continue;
        }
        libc::syscall(
            nr as libc::c_long,
            args[0],
            args[1],
            args[2],
            args[3],
            args[4],
            args[5],
        );
    }
    libc::_exit(0)
}

/// Whether ordinary things still work.
unsafe fn healthy() -> Result<(), String> {
    let done = std::process::Command::new("/bin/sh")
        .args(["-c", "echo alive | cat"])
        .output()
        .map_err(|e| format!("no process could be started: {e}"))?;
    if done.stdout != b"alive\n" {
        return Err(format!(
            "a pipeline answered {:?}",
            String::from_utf8_lossy(&done.stdout)
        ));
    }
    std::fs::write("health", "check").map_err(|e| format!("no file could be written: {e}"))?;
    match std::fs::read_to_string("health") {
        Ok(text) if text == "check" => Ok(()),
        other => Err(format!("a file reads back as {other:?}")),
    }
}

fn number(i: usize, default: u64) -> u64 {
    std::env::args()
        .nth(i)
        .and_then(|a| a.parse().ok())
        .unwrap_or(default)
}

fn main() {
    let (seconds, seed, workers) = (number(1, 10), number(2, 1), number(3, 2));
    let native = std::env::var("PLATFORM").as_deref() == Ok("native");
    let dir = format!(
        "{}/fuzz-{}",
        std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".into()),
        std::process::id()
    );
    let base = dir.clone();
    let start = std::time::Instant::now();
    let mut rounds = 0u64;
    let mut ends = std::collections::BTreeMap::<i32, u64>::new();
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        tell_of_death();
        while start.elapsed().as_secs() < seconds {
            let mut pids = Vec::new();
            for w in 0..workers {
                rounds += 1;
                let round =
                    Random(seed.wrapping_mul(1_000_003).wrapping_add(rounds * 64 + w) | 1).next();
                println!("round {rounds} seed {round}");
                let _ = std::io::stdout().flush();
                let dir = format!("{base}/{w}");
                let _ = std::fs::create_dir_all(format!("{dir}/fuzz-d"));
                let pid = libc::fork();
                if pid == 0 {
                    // Its own session, so that stray signals to a group stay there.
                    libc::setsid();
                    let _ = std::env::set_current_dir(&dir);
                    quieten();
                    child(round, 300, native);
                }
                if pid > 0 {
                    pids.push(pid);
                }
            }
            let end = std::time::Instant::now() + std::time::Duration::from_secs(6);
            for pid in pids {
                let mut status = 0;
                while libc::waitpid(pid, &mut status, libc::__WALL | libc::WNOHANG) == 0 {
                    // A child that is traced by another, or whose watchdog is
                    // gone, ends only when all do.
                    if !native && std::time::Instant::now() > end {
                        libc::kill(-1, libc::SIGKILL);
                    }
                    libc::usleep(5000);
                }
                *ends
                    .entry(if libc::WIFSIGNALED(status) {
                        libc::WTERMSIG(status)
                    } else {
                        0
                    })
                    .or_default() += 1;
                // Whatever the session left behind.
                libc::kill(-pid, libc::SIGKILL);
            }
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) > 0 {}
        }
    }
    let _ = std::fs::create_dir_all(&base);
    let _ = std::env::set_current_dir(&base);
    match unsafe { healthy() } {
        Ok(()) => {
            println!("survived {rounds} rounds of 300 calls; ends by signal: {ends:?}");
            let _ = std::env::set_current_dir("/");
            let _ = std::fs::remove_dir_all(&base);
        }
        Err(e) => {
            println!("not healthy after {rounds} rounds: {e}");
            std::process::exit(1);
        }
    }
}
