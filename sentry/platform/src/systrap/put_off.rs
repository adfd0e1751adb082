//! Mappings of files that are made when the guest comes to them.
//!
//! A dynamic linker maps a library by four or five calls before it touches the
//! first byte. Each of them takes the control thread: a message with the file,
//! and often a wake-up. So while a process has a single thread, its private
//! mappings of files are only noted here, with what is mapped over them. All
//! of it is carried out in one batch before anybody can tell the difference:
//! before that memory is copied from or to for a call (copies of what lies
//! elsewhere don't wait), before a change of memory that is not put off too,
//! before the process gets a second thread or a child, and when the guest
//! itself touches one of the ranges, where there is nothing yet: the fault is
//! not told.
//!
//! Only regular files of file systems that map all of theirs are taken, so that
//! nothing but a lack of memory for the host's own tables can make such a
//! mapping fail. The guest has been told of its success by then, and is killed.
//!
//! Locks: `ops` is a leaf. Settling has the control thread's turn, so that who
//! comes second waits for the end of it.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::hub::Dead;
use super::memop;
use super::patch;
use super::space::{Batch, KnownTexts, SystrapSpace};
use crate::{MemOp, Protection, Sharing, host};

/// All of them go into one batch.
const MAX_OPS: usize = 24;

/// See the module documentation.
#[derive(Default)]
pub(super) struct PutOff {
    /// There are some, or they are just being carried out.
    any: AtomicBool,
    ops: Mutex<Vec<Op>>,
}

struct Op {
    range: Range<u64>,
    kind: Kind,
}

enum Kind {
    File {
        protection: Protection,
        offset: u64,
        file: Arc<Opened>,
    },
    Anonymous(Protection),
    Unmap,
    Protect(Protection),
}

/// A file, and whether it may be executed where it was opened.
struct Opened {
    fd: OwnedFd,
    device: u64,
    inode: u64,
    executable: bool,
}

/// File systems on which every regular file can be mapped.
const MAPPABLE: [i64; 9] = [
    libc::EXT4_SUPER_MAGIC,
    libc::XFS_SUPER_MAGIC,
    libc::BTRFS_SUPER_MAGIC,
    libc::TMPFS_MAGIC,
    libc::OVERLAYFS_SUPER_MAGIC,
    libc::F2FS_SUPER_MAGIC,
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // erofs
    0x2fc1_2fc1, // zfs
];

impl Opened {
    /// A file if it can be mapped. `known` are those looked at before.
    fn new(fd: BorrowedFd<'_>, known: &[Op]) -> Option<Arc<Self>> {
        let stat = host::io::fstat(fd).ok()?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return None;
        }
        let mut known = known.iter().filter_map(Op::file);
        let same = known.find(|file| file.device == stat.st_dev && file.inode == stat.st_ino);
        if let Some(file) = same {
            return Some(file.clone());
        }
        let system = host::io::fstatfs(fd).ok()?;
        if !MAPPABLE.contains(&system.f_type) {
            return None;
        }
        Some(Arc::new(Self {
            fd: fd.try_clone_to_owned().ok()?,
            device: stat.st_dev,
            inode: stat.st_ino,
            executable: system.f_flags.cast_unsigned() & libc::ST_NOEXEC == 0,
        }))
    }
}

impl Op {
    fn file(&self) -> Option<&Arc<Opened>> {
        match &self.kind {
            Kind::File { file, .. } => Some(file),
            _ => None,
        }
    }

    /// Nothing if it can't be noted. `known` are those noted before.
    fn new(op: &MemOp<'_>, known: &[Self]) -> Option<Self> {
        let (range, kind) = match op {
            MemOp::MapFile {
                range,
                protection,
                sharing: Sharing::Private,
                fd,
                offset,
            } => {
                let file = Opened::new(*fd, known)?;
                if protection.contains(Protection::EXEC) && !file.executable {
                    return None;
                }
                let kind = Kind::File {
                    protection: *protection,
                    offset: *offset,
                    file,
                };
                (range, kind)
            }
            MemOp::MapAnonymous { range, protection } => (range, Kind::Anonymous(*protection)),
            MemOp::Unmap { range } => (range, Kind::Unmap),
            MemOp::Protect { range, protection } => (range, Kind::Protect(*protection)),
            _ => return None,
        };
        let range = range.clone();
        Some(Self { range, kind })
    }

    fn mem_op(&self) -> MemOp<'_> {
        let range = self.range.clone();
        match &self.kind {
            Kind::File {
                protection,
                offset,
                file,
            } => MemOp::MapFile {
                range,
                protection: *protection,
                sharing: Sharing::Private,
                fd: file.fd.as_fd(),
                offset: *offset,
            },
            &Kind::Anonymous(protection) => MemOp::MapAnonymous { range, protection },
            Kind::Unmap => MemOp::Unmap { range },
            &Kind::Protect(protection) => MemOp::Protect { range, protection },
        }
    }
}

fn overlap(one: &Range<u64>, two: &Range<u64>) -> bool {
    one.start < two.end && two.start < one.end
}

impl PutOff {
    /// Whether there is nothing to settle.
    pub(super) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::SeqCst)
    }

    /// Whether something at these addresses has yet to be done.
    pub(super) fn concerns(&self, addr: u64, len: usize) -> bool {
        if self.is_empty() {
            return false;
        }
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        let range = addr..addr.saturating_add(len);
        let ops = self.ops.lock();
        // Without any left they are just being carried out.
        ops.is_empty() || ops.iter().any(|op| overlap(&op.range, &range))
    }

    /// Whether `op` changes what has yet to be done.
    pub(super) fn is_concerned_by(&self, op: &MemOp<'_>) -> bool {
        let ranges = match op {
            MemOp::MapAnonymous { range, .. }
            | MemOp::MapFile { range, .. }
            | MemOp::Unmap { range }
            | MemOp::Protect { range, .. }
            | MemOp::Advise { range, .. } => [range, range],
            MemOp::Remap { from, to, .. } => [from, to],
        };
        ranges.into_iter().any(|range| {
            let len = range.end.saturating_sub(range.start);
            self.concerns(range.start, usize::try_from(len).unwrap_or(usize::MAX))
        })
    }

    /// Forgets all: their memory is no more.
    pub(super) fn clear(&self) {
        let ops = std::mem::take(&mut *self.ops.lock());
        self.any.store(false, Ordering::SeqCst);
        drop(ops);
    }
}

impl SystrapSpace {
    /// Notes `op` to be carried out later, if it may be; says whether it was.
    /// For the owner of the only thread.
    pub(super) fn put_off(&self, op: &MemOp<'_>) -> bool {
        let (range, is_file) = match op {
            MemOp::MapFile {
                range,
                sharing: Sharing::Private,
                ..
            } => (range, true),
            MemOp::MapAnonymous { range, .. }
            | MemOp::Unmap { range }
            | MemOp::Protect { range, .. } => (range, false),
            _ => return false,
        };
        if !is_file && self.put_off.is_empty() {
            return false;
        }
        let is_allowed = self.stub.has_single_thread()
            && !self.concerns_texts(op)
            && memop::plan(op, self.stub.machine.memory_calls).is_ok();
        if !is_allowed {
            return false;
        }
        let mut ops = self.put_off.ops.lock();
        if ops.len() >= MAX_OPS || self.put_off.any.load(Ordering::SeqCst) && ops.is_empty() {
            return false;
        }
        let mut over = false;
        for other in ops.iter().filter(|other| overlap(&other.range, range)) {
            if patch::is_text(&other.mem_op()) {
                return false;
            }
            over = true;
        }
        if !is_file && !over {
            return false;
        }
        let Some(op) = Op::new(op, &ops) else {
            return false;
        };
        ops.push(op);
        self.put_off.any.store(true, Ordering::SeqCst);
        true
    }

    /// Carries out what was put off.
    pub(super) async fn settle(&self, known_texts: KnownTexts) -> Result<(), Dead> {
        if self.put_off.is_empty() {
            return Ok(());
        }
        let control = self.stub.control.lock().await?;
        // In one step up to the order, so that nothing is lost if the caller
        // is no more before its end.
        let ops = std::mem::take(&mut *self.put_off.ops.lock());
        let ops: Vec<MemOp<'_>> = ops.iter().map(Op::mem_op).collect();
        let mut batch = Batch::new(known_texts);
        for (index, op) in ops.iter().enumerate() {
            // It was possible when the operation was noted.
            if let Ok(plan) = memop::plan(op, self.stub.machine.memory_calls) {
                batch.add(index, op, &plan);
            }
        }
        let done = self.run_batch_now(&control, batch).await;
        {
            let ops = self.put_off.ops.lock();
            self.put_off.any.store(!ops.is_empty(), Ordering::SeqCst);
        }
        if done.is_err() {
            self.stub.kill();
            return Err(Dead);
        }
        Ok(())
    }
}
