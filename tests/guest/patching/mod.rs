//! Calls made over and over from the same places, which the sentry may take a
//! faster way for: whatever it does to the text is not to be noticed.
//!
//! Most cases map a page of this program's own code once more, so that its
//! places are fresh.

pub mod calls;
pub mod debuggers;
pub mod text;

use crate::util::{self, *};

std::arch::global_asm!(
    ".pushsection .text.calls,\"ax\",@progbits",
    ".balign 4096",
    ".global calls_page",
    "calls_page:",
    // 0: getppid.
    "mov eax, 110",
    "syscall",
    "ret",
    // 16: any call without arguments.
    ".balign 16",
    "mov rax, rdi",
    "syscall",
    "cmp rax, -4095",
    "jae 2f",
    "2:",
    "ret",
    // 32: the same with nothing between the call and the return.
    ".balign 16, 0x90",
    "mov rax, rdi",
    "syscall",
    "ret",
    ".byte 0x66, 0x66, 0x66, 0x90, 0x66, 0x90",
    // 48: three arguments after the number.
    ".balign 16",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "syscall",
    "cmp rax, -4095",
    "jae 2f",
    "2:",
    "ret",
    ".balign 4096",
    ".popsection",
);

unsafe extern "C" {
    static calls_page: [u8; 4096];
}

const GETPPID: usize = 0;

const ANY: usize = 16;

const RETURN: usize = 32;

const ARGUMENTS: usize = 48;

/// Where instructions begin that a handler may be told of.
const BOUNDARIES: [usize; 19] = [
    0, 5, 7, 16, 19, 21, 27, 29, 32, 35, 37, 48, 51, 54, 57, 60, 62, 68, 70,
];

/// Where this program has the page.
fn here() -> usize {
    std::ptr::addr_of!(calls_page) as usize
}

/// A copy of the page, mapped from the file.
#[derive(Clone, Copy)]
struct Page(usize);

impl Page {
    /// Where the page is in this program's file.
    unsafe fn offset() -> i64 {
        let maps = read_text("/proc/self/maps");
        let offset = maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            let offset = usize::from_str_radix(rest.split(' ').nth(1)?, 16).ok()?;
            (start..end)
                .contains(&here())
                .then_some(offset + here() - start)
        });
        match offset {
            Some(offset) => offset as i64,
            None => util::skip("the text is no mapping of a file"),
        }
    }

    unsafe fn new() -> Self {
        let fd = open("/proc/self/exe", libc::O_RDONLY);
        let at = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            fd,
            Self::offset(),
        );
        ok!(at);
        ok!(libc::close(fd));
        Self(at as usize)
    }

    /// One whose places have been used.
    unsafe fn warm() -> Self {
        let page = Self::new();
        page.check(100);
        page
    }

    unsafe fn getppid(self) -> i64 {
        let f: extern "C" fn() -> i64 = std::mem::transmute(self.0 + GETPPID);
        f()
    }

    unsafe fn any(self, nr: i64) -> i64 {
        let f: extern "C" fn(i64) -> i64 = std::mem::transmute(self.0 + ANY);
        f(nr)
    }

    unsafe fn returning(self, nr: i64) -> i64 {
        let f: extern "C" fn(i64) -> i64 = std::mem::transmute(self.0 + RETURN);
        f(nr)
    }

    unsafe fn arguments(self, nr: i64, a: usize, b: usize, c: usize) -> i64 {
        let f: extern "C" fn(i64, usize, usize, usize) -> i64 =
            std::mem::transmute(self.0 + ARGUMENTS);
        f(nr, a, b, c)
    }

    /// All places, `times` each.
    unsafe fn check(self, times: usize) {
        let (pid, parent) = (i64::from(libc::getpid()), i64::from(libc::getppid()));
        for _ in 0..times {
            eq!(self.getppid(), parent);
            eq!(self.any(libc::SYS_getpid), pid);
            eq!(self.any(0x7fff_ffff), -i64::from(libc::ENOSYS));
            eq!(self.returning(libc::SYS_getppid), parent);
            let closed = self.arguments(libc::SYS_close, usize::MAX, 0, 0);
            eq!(closed, -i64::from(libc::EBADF));
        }
    }
}

/// The page as the file has it.
unsafe fn original() -> [u8; 4096] {
    let mut bytes = [0; 4096];
    let fd = open("/proc/self/exe", libc::O_RDONLY);
    let len = libc::pread(fd, bytes.as_mut_ptr().cast(), 4096, Page::offset());
    eq!(len, 4096);
    ok!(libc::close(fd));
    bytes
}
