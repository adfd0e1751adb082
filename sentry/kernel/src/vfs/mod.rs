//! The virtual file system: names, inodes, open files.
//!
//! | file | holds |
//! |---|---|
//! | `types.rs` | [`FileKind`], [`Attr`], [`SetAttr`], [`Timestamp`], [`DirEntry`] |
//! | `inode.rs` | [`FileSystem`] and [`Inode`]: what a file system implements |
//! | `file.rs` | [`FileOps`] and [`File`]: what an open file does |
//! | `fd_table.rs` | [`FdTable`]: descriptors of a process |
//! | `dentry.rs` | dentry cache with negative entries |
//! | `mount.rs`, `mount_ns.rs`, `propagation.rs` | mounts, namespaces, peer groups |
//! | `mountinfo.rs` | mount tables for `/proc` |
//! | `path.rs` | path walks with permission checks |
//! | `lookup.rs` | one name in one directory |
//! | `fs_context.rs` | root, working directory and umask of a process |
//! | `shown.rs` | paths as programs are shown them |
//! | `path_cache.rs` | whole paths walked lately |
//! | `perm.rs` | who may do what |
//! | `names.rs` | making, removing and renaming names |
//! | `open.rs` | opening by path |
//! | `device.rs`, `fifo.rs` | what device nodes and FIFOs open |
//! | `locks.rs` | `flock` and record locks |
//! | `notify.rs` | watches of inodes (inotify) |
//! | `async_io.rs` | `O_ASYNC` signals |
//! | `claims.rs` | writers against runners (`ETXTBSY`) |
//! | `buffers.rs` | pooled kernel buffers |
//! | `state.rs` | [`Vfs`]: what all tasks share of this |
//!
//! File system code is synchronous: it may block its worker in a short host
//! call (see `sentry_platform::executor::blocking`), never on another guest.
//! Whatever waits for another guest (pipes, sockets, FIFO opens, locks)
//! answers `EAGAIN` and has a [`crate::sync::WaitQueue`]; the system call
//! layer waits.
//!
//! Locks, outermost first: mount lock, rename lock, a directory's `dir_lock`,
//! locks of file systems; see `dentry.rs` for those of dentries.

pub mod async_io;
pub mod buffers;
pub mod claims;
mod dentry;
pub mod device;
pub mod dnotify;
mod fd_table;
pub mod fifo;
mod file;
mod fs_context;
mod inode;
pub mod locks;
pub mod lookup;
mod mount;
mod mount_ns;
pub mod mountinfo;
mod names;
pub mod notify;
pub mod open;
pub mod path;
pub mod path_cache;
pub mod perm;
mod propagation;
pub mod shown;
mod state;
#[cfg(test)]
mod tests;
mod types;

pub use dentry::{CacheUsage, Dentry, DentryCache};
pub use fd_table::{Fd, FdFlags, FdTable};
pub use file::{
    File, FileOps, FileOwner, MapSource, OpenMode, ReadOnlyFd, StatusFlags, ViewSource,
};
pub use fs_context::{FsContext, FsContextRef, FsState};
pub use inode::{FileSystem, Inode, InodeRef, OpenRequest, RenameFlags, XattrFlags};
pub use mount::{Mount, MountFlags, Superblock, VfsPath};
pub use mount_ns::{MountNamespace, UmountMode};
pub use names::Renamed;
pub use path::{Start, WalkFlags};
pub use propagation::PropagationType;
pub use state::{FsFactory, MountRequest, Vfs};
pub use syscall_tables::abi::{dev_major, dev_minor, makedev};
pub use types::{Attr, DirEntry, EntryName, FileKind, FsStat, Owner, SetAttr, SetTime, Timestamp};
