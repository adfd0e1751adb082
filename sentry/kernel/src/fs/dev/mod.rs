//! Device files of a container: devtmpfs and the memory devices.
//!
//! | file | holds |
//! |---|---|
//! | `memory.rs` | null, zero, full, random, urandom |
//!
//! devtmpfs is a tmpfs that starts with the usual nodes. A `/dev` that is
//! mounted as a plain tmpfs, as OCI configurations have it, gets them by
//! [`populate`].

mod memory;

use std::sync::Arc;

use syscall_tables::Errno;

use super::tmpfs::{TmpFs, TmpFsOptions};
use crate::task::Creds;
use crate::vfs::{FileKind, FileSystem, InodeRef, MountRequest, Vfs, makedev};

pub use memory::register;

/// Character devices: name, major, minor. All are open to everybody.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Symlinks: name and target.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Directories that other file systems are mounted on.
const DIRS: [(&str, u32); 3] = [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)];

/// Makes the nodes, links and directories every container has in `/dev`;
/// what is there already stays.
pub fn populate(root: &InodeRef) -> Result<(), Errno> {
    let creds = Creds::root();
    let new = |made: Result<InodeRef, Errno>| match made {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    };
    for (name, major, minor) in NODES {
        let rdev = makedev(major, minor);
        let node = root.create(name.as_bytes(), FileKind::CharDevice, 0o666, rdev, &creds);
        new(node)?;
    }
    for (name, target) in LINKS {
        new(root.symlink(name.as_bytes(), target.as_bytes(), &creds))?;
    }
    for (name, perm) in DIRS {
        new(root.mkdir(name.as_bytes(), perm, &creds))?;
    }
    Ok(())
}

/// A populated devtmpfs.
pub fn new(vfs: &Vfs) -> Result<Arc<TmpFs>, Errno> {
    let fs = TmpFs::new(
        vfs.next_dev(),
        &TmpFsOptions {
            type_name: "devtmpfs",
            source: "devtmpfs".to_owned(),
            perm: 0o755,
            ..TmpFsOptions::default()
        },
    );
    populate(&fs.root())?;
    Ok(fs)
}

/// Mounts devtmpfs.
pub fn mount(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>, Errno> {
    Ok(new(request.vfs)?)
}
