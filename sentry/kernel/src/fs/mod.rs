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

/// Device numbers of internal file systems, as `stat` of their files shows.
pub const PIPEFS_DEV: u64 = 0x0e;
/// Of event files, epoll and the like.
pub const ANON_DEV: u64 = 0x0f;
/// Of sockets.
pub const SOCKFS_DEV: u64 = 0x08;
