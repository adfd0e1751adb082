//! File systems and kinds of open files, one file or folder each.

pub mod anon;
pub mod anon_inode;
pub mod cgroup;
pub mod dev;
pub mod devpts;
pub mod epoll;
pub mod eventfd;
pub mod gofer;
pub mod host_file;
pub mod kernfs;
pub mod mqueue;
pub mod overlay;
pub mod pipe;
pub mod proc;
pub mod signalfd;
pub mod sys;
pub mod timerfd;
pub mod tmpfs;

use syscall_tables::Errno;

use crate::vfs::{FileSystem, FsStat, Vfs};

/// Device numbers of internal file systems, as `stat` of their files shows.
pub const PIPEFS_DEV: u64 = 0x0e;
/// Of event files, epoll and the like.
pub const ANON_DEV: u64 = 0x0f;
/// Of sockets.
pub const SOCKFS_DEV: u64 = 0x08;
/// Of namespaces.
pub const NSFS_DEV: u64 = 0x04;

/// What `fstatfs(2)` says of a file without a name: that of the internal file
/// system with device number `dev`.
pub fn stat_of_anonymous(vfs: &Vfs, dev: u64) -> Result<FsStat, Errno> {
    if dev == vfs.shm.dev() {
        return vfs.shm.stat();
    }
    Ok(FsStat {
        magic: match dev {
            PIPEFS_DEV => 0x5049_5045,
            SOCKFS_DEV => 0x534f_434b,
            NSFS_DEV => 0x6e73_6673,
            _ => return anon::AnonFs.stat(),
        },
        block_size: 4096,
        name_max: 255,
        ..FsStat::default()
    })
}
