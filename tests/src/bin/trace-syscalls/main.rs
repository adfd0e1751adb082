//! Random but sensible calls with their results, one line each, to compare
//! kernels: `trace-syscalls SEED CALLS [AREA]`, in an empty directory, which
//! becomes the root of the process. AREA is `options` (of sockets), `waits`
//! (epoll, poll, event files) or `ipc`, the first two in a network namespace
//! of its own, the last in one for IPC; without it files prevail. The same seed makes the same calls wherever the
//! same results come back, so the first line that differs between two kernels
//! shows a call that one of them gets wrong.
//!
//! Left out of the lines: inode and device numbers, times, sizes of
//! directories, addresses. No call blocks: all pipes and sockets are
//! non-blocking.

mod attribute;
mod descriptor;
mod file;
mod ipc;
mod memory;
mod option;
mod path;
mod pipe;
mod process;
mod wait;

use std::ffi::CString;
use std::fmt::Write as _;

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
        (self.next() >> 11) % n
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A subset of flags, small ones more often than large ones.
    fn flags(&mut self, choices: &[i32]) -> i32 {
        let count = self.below(4);
        (0..count).fold(0, |flags, _| flags | self.pick(choices))
    }
}

const NAMES: &[&str] = &[
    "a", "a", "b", "b", "c", "d", "d", "d/x", "d/x", "d/y", "d/e", "d/e", "d/e/z", "d/e/z", "s",
    "s", "s/x", "t", "l", "l/x", "p", ".", "..", "", "a/", "d/", "d/..", "d/./x", "d/e/../y",
    "../a", "/d/x", "//a", "nope/x", "a/x", "s/", "/", "d/e/..", "./.", "loop", "loop/x",
];

/// What most calls are about.
#[derive(Clone, Copy)]
enum Area {
    Files,
    Options,
    Waits,
    Ipc,
}

struct Tracer {
    random: Random,
    buf: Vec<u8>,
    line: String,
    mapped: *mut u8,
    area: Area,
    /// Ids of the IPC objects made.
    objects: Vec<i64>,
}

const BUF: usize = 1 << 16;

fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

impl Tracer {
    fn fd(&mut self) -> i64 {
        match self.random.below(40) {
            0 => -1,
            1 => 200,
            n => 3 + (n as i64) % 14,
        }
    }

    fn dirfd(&mut self) -> i64 {
        if self.random.below(2) == 0 {
            i64::from(libc::AT_FDCWD)
        } else {
            self.fd()
        }
    }

    fn name(&mut self) -> CString {
        let name = match self.random.below(120) {
            0 => "n".repeat(255),
            1 => "n".repeat(256),
            2 => "n/".repeat(2100),
            _ => self.random.pick(NAMES).to_owned(),
        };
        CString::new(name).expect("no zeros")
    }

    fn size(&mut self) -> i64 {
        let exact = self
            .random
            .pick(&[0, 1, 10, 100, 4095, 4096, 4097, 8192, 20000, 65536]);
        match self.random.below(12) {
            0 => -1,
            1 => 1 << 40,
            2 => i64::MAX,
            3 => 1 << 31,
            _ => exact,
        }
    }

    fn len(&mut self) -> i64 {
        self.random
            .pick(&[0, 1, 3, 10, 100, 1000, 4096, 5000, 65536])
    }

    fn call(&mut self, name: &str, nr: i64, args: &[i64]) -> i64 {
        let arg = |i: usize| args.get(i).copied().unwrap_or(0);
        // SAFETY: arguments are numbers, or addresses of buffers of `self`
        // that are large enough for every length used.
        let result = unsafe { libc::syscall(nr, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
        let result = if result == -1 {
            -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
        } else {
            result
        };
        let _ = write!(self.line, "{name}");
        result
    }

    fn at(&mut self) -> i64 {
        self.buf.as_mut_ptr() as i64
    }

    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.line.write_fmt(text);
    }

    /// What `stat` tells that does not depend on time and place.
    fn tell_stat(&mut self) {
        // SAFETY: the call has filled a `struct stat`, which is plain data.
        let stat: libc::stat = unsafe { std::ptr::read_unaligned(self.buf.as_ptr().cast()) };
        let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let size = if directory { -1 } else { stat.st_size };
        let (mode, links) = (stat.st_mode, stat.st_nlink);
        let (uid, gid) = (stat.st_uid, stat.st_gid);
        self.say(format_args!(
            " [mode {mode:o} links {links} {uid}:{gid} size {size}]"
        ));
    }

    fn fill(&mut self, len: i64) {
        let byte = self.random.below(255) as u8 + 1;
        for (at, place) in self.buf.iter_mut().take(len as usize).enumerate() {
            *place = byte.wrapping_add((at / 7) as u8);
        }
    }

    fn tell_data(&mut self, result: i64) {
        if result > 0 {
            let data = &self.buf[..(result as usize).min(BUF)];
            let hash = fnv(data);
            self.say(format_args!(" data {hash:08x}"));
        }
    }

    fn step(&mut self) {
        self.line.clear();
        let result = match (self.area, self.random.below(16)) {
            (Area::Options, 0..=12) => self.option_call(),
            (Area::Waits, 0..=9) => self.wait_call(),
            (Area::Ipc, 0..=14) => self.ipc_call(),
            (Area::Options | Area::Waits, 13) => self.descriptor_call(),
            (Area::Options | Area::Waits, _) => self.pipe_call(),
            (_, choice) => self.file_step(choice),
        };
        println!("{} = {result}", self.line);
    }

    fn file_step(&mut self, choice: u64) -> i64 {
        match choice {
            0..=4 => self.path_call(),
            5..=9 => self.file_call(),
            10..=11 => self.descriptor_call(),
            12 => self.attribute_call(),
            13 => self.pipe_call(),
            14 => self.memory_call(),
            _ => self.process_call(),
        }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = || -> u64 {
        let arg = args.next().expect("SEED CALLS [AREA]");
        arg.parse().expect("a number")
    };
    let (seed, calls) = (number(), number());
    let area = match args.next().as_deref() {
        None => Area::Files,
        Some("options") => Area::Options,
        Some("waits") => Area::Waits,
        Some("ipc") => Area::Ipc,
        Some(_) => panic!("AREA is options, waits or ipc"),
    };
    // SAFETY: plain calls before anything else runs; the mapping is used by
    // numbers only.
    let mapped = unsafe {
        assert_eq!(libc::chroot(c".".as_ptr()), 0, "chroot needs root");
        libc::chdir(c"/".as_ptr());
        libc::umask(0o22);
        libc::close_range(3, u32::MAX, 0);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(
            std::ptr::null_mut(),
            100 * 4096,
            libc::PROT_READ,
            flags,
            -1,
            0,
        )
    };
    let mut tracer = Tracer {
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        buf: vec![0; BUF],
        line: String::new(),
        mapped: mapped.cast(),
        area,
        objects: Vec::new(),
    };
    for _ in 0..20 {
        tracer.random.next();
    }
    for _ in 0..calls {
        tracer.step();
    }
}
