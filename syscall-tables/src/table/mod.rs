//! Every x86-64 system call up to Linux 6.18: number, name, arguments,
//! result and support status.
//!
//! [`rows`](self) holds what Linux says, `status` what this kernel does; the
//! two are joined at compile time, and a line in the wrong place does not
//! compile.

mod kinds;
mod rows;
mod status;

pub use kinds::{Arg, Kind, Ret, Struct};
pub use rows::nr;

use crate::Errno;
use rows::{COUNT, ROWS};
use status::STATUS;

/// A system call.
#[derive(Clone, Copy, Debug)]
pub struct Syscall {
    pub number: u32,
    pub name: &'static str,
    pub args: &'static [Arg],
    pub ret: Ret,
    pub status: Status,
}

/// How far a system call is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As on Linux.
    Full,
    /// With a note of what is missing.
    Partial(&'static str),
    /// Not at all; every call answers this error.
    Unimplemented(Errno),
}

impl Status {
    /// Whether there is a handler.
    pub const fn is_implemented(self) -> bool {
        !matches!(self, Self::Unimplemented(_))
    }

    /// `"full"`, `"partial"` or `"unimplemented"`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial(_) => "partial",
            Self::Unimplemented(_) => "unimplemented",
        }
    }
}

/// All system calls, sorted by number.
pub static TABLE: [Syscall; COUNT] = join();

/// One more than the highest number.
pub const LIMIT: usize = ROWS[COUNT - 1].number as usize + 1;

/// Positions in [`TABLE`] by number; `u16::MAX` in the gaps.
static INDEX: [u16; LIMIT] = index();

const fn join() -> [Syscall; COUNT] {
    let mut table = [Syscall {
        number: 0,
        name: "",
        args: &[],
        ret: Ret::Int,
        status: Status::Full,
    }; COUNT];
    let mut i = 0;
    while i < COUNT {
        assert!(
            i == 0 || ROWS[i - 1].number < ROWS[i].number,
            "rows are not sorted by number"
        );
        assert!(
            ROWS[i].number == STATUS[i].0,
            "a line of the status list is missing or in the wrong place"
        );
        assert!(ROWS[i].args.len() <= 6);
        table[i] = Syscall {
            number: ROWS[i].number,
            name: ROWS[i].name,
            args: ROWS[i].args,
            ret: ROWS[i].ret,
            status: STATUS[i].1,
        };
        i += 1;
    }
    table
}

const fn index() -> [u16; LIMIT] {
    let mut index = [u16::MAX; LIMIT];
    let mut i = 0;
    while i < COUNT {
        index[ROWS[i].number as usize] = i as u16;
        i += 1;
    }
    index
}

/// The call with this number.
pub fn by_number(number: u64) -> Option<&'static Syscall> {
    let position = *INDEX.get(usize::try_from(number).ok()?)?;
    TABLE.get(usize::from(position))
}

/// The call with this name.
pub fn by_name(name: &str) -> Option<&'static Syscall> {
    TABLE.iter().find(|call| call.name == name)
}

/// The number of the call with this name, at compile time: a name that does
/// not exist does not compile where the result is a constant.
///
/// ```
/// const READ: u32 = syscall_tables::table::number_of("read");
/// assert_eq!(READ, 0);
/// ```
pub const fn number_of(name: &str) -> u32 {
    let mut i = 0;
    while i < COUNT {
        if same(ROWS[i].name.as_bytes(), name.as_bytes()) {
            return ROWS[i].number;
        }
        i += 1;
    }
    panic!("no system call has this name")
}

/// The numbers of a list of names, at compile time, for seccomp lists.
///
/// ```
/// static ALLOWED: [u32; 2] = syscall_tables::table::numbers_of(["read", "futex"]);
/// assert_eq!(ALLOWED, [0, 202]);
/// ```
pub const fn numbers_of<const N: usize>(names: [&str; N]) -> [u32; N] {
    let mut numbers = [0; N];
    let mut i = 0;
    while i < N {
        numbers[i] = number_of(names[i]);
        i += 1;
    }
    numbers
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
