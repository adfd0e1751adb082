//! The virtual file system: names, inodes, open files.
//!
//! | file | holds |
//! |---|---|
//! | `types.rs` | [`FileKind`], [`Attr`], [`SetAttr`], [`Timestamp`], [`DirEntry`] |
//! | `inode.rs` | [`FileSystem`] and [`Inode`]: what a file system implements |
//! | `file.rs` | [`FileOps`] and [`File`]: what an open file does |
//! | `fd_table.rs` | [`FdTable`]: descriptors of a process |
//! | `dentry.rs` | dentry cache with negative entries |
//! | `mount.rs` | mounts, mount namespaces |
//! | `path.rs` | path walks with permission checks |
//!
//! File system code is synchronous: it may block its worker in a short host
//! call (see `sentry_platform::executor::blocking`), never on another guest.
//! Whatever waits for another guest (pipes, sockets, FIFO opens, locks)
//! answers `EAGAIN` and has a [`crate::sync::WaitQueue`]; the system call
//! layer waits.

mod dentry;
mod fd_table;
mod file;
mod inode;
mod mount;
pub mod path;
mod types;

pub use dentry::Dentry;
pub use fd_table::{Fd, FdFlags, FdTable};
pub use file::{File, FileOps, FileOwner, MapSource, OpenMode, StatusFlags};
pub use inode::{FileSystem, Inode, InodeRef, OpenRequest, RenameFlags, XattrFlags};
pub use mount::{Mount, MountNamespace, VfsPath};
pub use path::{FsContext, FsContextRef, FsState};
pub use types::{Attr, DirEntry, FileKind, FsStat, SetAttr, SetTime, Timestamp};
