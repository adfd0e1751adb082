//! What calls read and write, by their numbers: what a stub fetches and touches
//! before it hands a call over, so that no further hand-over is needed for it.
//!
//! The table of system calls says what arguments are. Fetched is the first one
//! that is read, but a path before others; touched is the first one that is
//! written. That is a guess about what the handler will want, no more: what it
//! does not ask for is forgotten, and what it asks for beyond is copied by
//! commands.

use syscall_tables::table::{Arg, Kind, Struct, TABLE, nr};

use super::layout as l;
use super::shared::SharedMap;

/// Calls that write before others may look at what they have written: children
/// and tracers. `fd_set`s are shorter than their type.
const NOT_WRITTEN: [u32; 8] = [
    nr::CLONE,
    nr::CLONE3,
    nr::PTRACE,
    nr::SELECT,
    nr::PSELECT6,
    nr::PROCESS_VM_READV,
    nr::EXECVE,
    nr::RT_SIGRETURN,
];

/// Guest memory that a call names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Index of the argument that points to it, from 1; 0 if there is none.
    pub(super) pointer: u8,
    /// Index of the argument that counts it, from 1; 0 for one.
    count: u8,
    /// Size of one; 0 for a string.
    size: u16,
}

impl Memory {
    fn new(pointer: usize, count: Option<usize>, size: usize) -> Self {
        let index = |index: usize| u8::try_from(index + 1).unwrap_or(0);
        Self {
            pointer: index(pointer),
            count: count.map_or(0, index),
            size: u16::try_from(size).unwrap_or(0),
        }
    }

    fn encode(self) -> u64 {
        u64::from(self.pointer) | u64::from(self.count) << 8 | u64::from(self.size) << 16
    }

    /// Whether it is a string.
    pub(super) fn is_string(self) -> bool {
        self.size == 0
    }

    /// Its address, if there is one.
    pub(super) fn address(self, args: &[u64; 6]) -> Option<u64> {
        let index = usize::from(self.pointer).checked_sub(1)?;
        args.get(index).copied()
    }

    /// How many bytes the arguments say it has.
    pub(super) fn len(self, args: &[u64; 6]) -> u64 {
        let count = usize::from(self.count).checked_sub(1);
        let count = count.and_then(|index| args.get(index)).copied();
        u64::from(self.size).saturating_mul(count.unwrap_or(1))
    }
}

/// One row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) read: Memory,
    pub(super) written: Memory,
}

/// The table.
pub(super) struct Hints(Vec<Row>);

impl Hints {
    pub(super) fn new() -> Self {
        let mut rows = vec![Row::default(); usize::try_from(l::HINTS).unwrap_or(0)];
        for call in &TABLE {
            let number = usize::try_from(call.number).unwrap_or(usize::MAX);
            if let Some(row) = rows.get_mut(number)
                && call.status.is_implemented()
            {
                let may_write = !NOT_WRITTEN.contains(&call.number);
                *row = Row {
                    read: read(call.args),
                    written: may_write.then(|| written(call.args)).unwrap_or_default(),
                };
            }
        }
        Self(rows)
    }

    pub(super) fn row(&self, number: u64) -> Row {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        self.0.get(number).copied().unwrap_or_default()
    }

    /// Where stubs read it.
    pub(super) fn publish(&self, global: &SharedMap) {
        for (row, index) in self.0.iter().zip(0..) {
            let value = row.read.encode() | row.written.encode() << 32;
            global.store(l::G_HINTS + index * 8, value);
        }
    }
}

fn read(args: &[Arg]) -> Memory {
    let memory = |(index, arg): (usize, &Arg)| {
        let (count, size) = match arg.kind {
            Kind::Str => (None, 0),
            Kind::In(kind) | Kind::InOut(kind) => (None, kind.size_bytes()),
            Kind::InBuf(count) | Kind::InSockAddr(count) => (Some(count), 1),
            Kind::InArray(kind, count) | Kind::InOutArray(kind, count) => {
                (Some(count), kind.size_bytes())
            }
            Kind::InIovec(count) | Kind::OutIovec(count) => {
                (Some(count), Struct::Iovec.size_bytes())
            }
            Kind::InMsg | Kind::OutMsg => (None, size_of::<libc::msghdr>()),
            _ => return None,
        };
        Some(Memory::new(index, count, size))
    };
    let mut all = args.iter().enumerate();
    let path = all.find(|(_, arg)| matches!(arg.kind, Kind::Path));
    let path = path.map(|(index, _)| Memory::new(index, None, 0));
    let first = || args.iter().enumerate().find_map(memory);
    path.or_else(first).unwrap_or_default()
}

fn written(args: &[Arg]) -> Memory {
    let memory = |(index, arg): (usize, &Arg)| {
        let (count, size) = match arg.kind {
            Kind::Out(kind) | Kind::InOut(kind) => (None, kind.size_bytes()),
            Kind::OutBuf(count) | Kind::OutBufFull(count) | Kind::OutDirents(count) => {
                (Some(count), 1)
            }
            Kind::OutArray(kind, count) | Kind::InOutArray(kind, count) => {
                (Some(count), kind.size_bytes())
            }
            _ => return None,
        };
        Some(Memory::new(index, count, size))
    };
    let first = args.iter().enumerate().find_map(memory);
    first.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_the_table_of_calls() {
        let hints = Hints::new();
        let args = [1, 2, 3, 4, 5, 6];
        let row = |number: u32| hints.row(number.into());
        assert_eq!(row(nr::GETPPID), Row::default());
        let read = row(nr::READ);
        assert_eq!(read.read, Memory::default());
        assert_eq!(read.written.address(&args), Some(2));
        assert_eq!(read.written.len(&args), 3);
        let stat = row(nr::STAT);
        assert!(stat.read.is_string());
        assert_eq!(stat.read.address(&args), Some(1));
        assert_eq!(stat.written.len(&args), 144);
        let poll = row(nr::POLL);
        assert_eq!(poll.read, poll.written);
        assert_eq!(poll.read.len(&args), 16);
        assert_eq!(row(nr::CLONE).written, Memory::default());
        assert_eq!(row(nr::WRITEV).read.len(&args), 48);
        assert_eq!(hints.row(u64::MAX), Row::default());
    }

    #[test]
    fn the_table_of_stubs_holds_all_calls() {
        assert!(TABLE.iter().all(|call| u64::from(call.number) < l::HINTS));
    }
}
