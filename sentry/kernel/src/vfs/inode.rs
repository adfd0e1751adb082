//! What a file system implements.
//!
//! Permission checks, path walks, symlink resolution, mount crossing, name
//! length and `.`/`..` handling, `O_EXCL` and sticky-bit rules are the VFS's
//! business; an inode does what it is told or says why it can't (`EROFS`,
//! `ENOSPC`, `EIO`, `EXDEV`…).

use std::any::Any;
use std::sync::Arc;

use bitflags::bitflags;
use syscall_tables::Errno;

use super::{Attr, FileKind, FileOps, FsStat, Owner, SetAttr};
use crate::ipc::IpcNamespace;
use crate::task::{Creds, PidNamespace, Task};

/// A shared inode.
pub type InodeRef = Arc<dyn Inode>;

bitflags! {
    /// Flags of `renameat2(2)`, same bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RenameFlags: u32 {
        const NOREPLACE = 1;
        const EXCHANGE = 2;
        const WHITEOUT = 4;
    }

    /// Flags of `setxattr(2)`, same bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct XattrFlags: u32 {
        const CREATE = 1;
        const REPLACE = 2;
    }
}

/// A mounted file system instance (a superblock).
pub trait FileSystem: Send + Sync {
    /// Type name as in `/proc/filesystems` (`"tmpfs"`).
    fn type_name(&self) -> &'static str;

    fn root(&self) -> InodeRef;

    /// Device number in `makedev` encoding, as `stat` shows it.
    fn dev(&self) -> u64;

    fn stat(&self) -> Result<FsStat, Errno>;

    /// Source column of `/proc/mounts`.
    fn source(&self) -> String {
        "none".to_owned()
    }

    /// File system specific options for `/proc/mounts`, without leading comma.
    fn options(&self) -> String {
        String::new()
    }

    fn sync(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// `mount -o remount` with these options; those that can't be changed are
    /// `EINVAL`. `memory_bytes` is what percentages count from.
    fn remount(&self, _data: &[u8], _memory_bytes: u64) -> Result<(), Errno> {
        Ok(())
    }

    /// Tells a file system that a container is to start with whose processes
    /// it shows (`proc` mounted before there are any).
    fn bind_pid_namespace(&self, _ns: &Arc<PidNamespace>) {}

    /// The same for file systems that show an IPC namespace (`mqueue`).
    fn bind_ipc_namespace(&self, _ns: &Arc<IpcNamespace>) {}

    /// Whether the dentry cache may keep names without asking again. Where it
    /// is false each use of a cached name calls [`Inode::lookup_revalidate`].
    fn names_are_stable(&self) -> bool {
        true
    }
}

/// How a file is opened; access rights have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    pub read: bool,
    pub write: bool,
    /// `O_TRUNC`: the VFS has truncated already by [`Inode::set_attr`].
    pub truncate: bool,
    pub append: bool,
    pub direct: bool,
    pub nonblock: bool,
}

/// A file system object. Operations on names act on a directory inode and a
/// single name component (never empty, `.`, `..`, and without `/`).
pub trait Inode: Any + Send + Sync {
    fn kind(&self) -> FileKind;

    fn attr(&self) -> Result<Attr, Errno>;

    /// What remembering this inode takes, in bytes.
    fn memory_bytes(&self) -> usize {
        size_of_val(self)
    }

    /// What access checks look at. Asked for each directory of each path, so
    /// worth an answer that takes no lock.
    fn owner(&self) -> Result<Owner, Errno> {
        Ok(self.attr()?.owner())
    }

    /// Permission bits as last known, where asking for them costs something.
    fn known_perm(&self) -> Option<u32> {
        None
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno>;

    /// The child called `name`, or `ENOENT`.
    fn lookup(&self, _name: &[u8]) -> Result<InodeRef, Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Whether `child` (`None`: a negative entry) is still what `name` means.
    fn lookup_revalidate(&self, _name: &[u8], _child: Option<&InodeRef>) -> bool {
        true
    }

    /// Until when (by [`super::path_cache::now_ns`]) the last answer about
    /// `name` and the rights on this directory count without asking again.
    /// Asked only where [`FileSystem::names_are_stable`] is false; 0: never.
    fn name_valid_until_ns(&self, _name: &[u8], _child: Option<&InodeRef>) -> u64 {
        0
    }

    /// Creates a regular file, device node, FIFO or socket node owned by the
    /// credentials' fs uid and gid (or the directory's gid where it is
    /// set-gid); `EEXIST` if the name is taken. `perm` has the umask applied.
    fn create(
        &self,
        _name: &[u8],
        _kind: FileKind,
        _perm: u32,
        _rdev: u64,
        _creds: &Creds,
    ) -> Result<InodeRef, Errno> {
        Err(Errno::EPERM)
    }

    fn mkdir(&self, _name: &[u8], _perm: u32, _creds: &Creds) -> Result<InodeRef, Errno> {
        Err(Errno::EPERM)
    }

    fn symlink(&self, _name: &[u8], _target: &[u8], _creds: &Creds) -> Result<InodeRef, Errno> {
        Err(Errno::EPERM)
    }

    /// Hard link to `target`, an inode of the same file system.
    fn link(&self, _name: &[u8], _target: &InodeRef) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Removes a name that is not a directory.
    fn unlink(&self, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    fn rmdir(&self, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Moves `name` to `new_name` in `new_dir`, a directory of the same file
    /// system; kinds and emptiness are for the file system to check.
    fn rename(
        &self,
        _name: &[u8],
        _new_dir: &InodeRef,
        _new_name: &[u8],
        _flags: RenameFlags,
    ) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// An unnamed regular file in this directory (`O_TMPFILE`).
    fn tmpfile(&self, _perm: u32, _creds: &Creds) -> Result<InodeRef, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn readlink(&self) -> Result<Vec<u8>, Errno> {
        Err(Errno::EINVAL)
    }

    /// For links that are not paths (`/proc/PID/fd/N`, `exe`, `cwd`): the
    /// object itself.
    fn follow_magic(&self) -> Option<Result<super::VfsPath, Errno>> {
        None
    }

    /// [`Inode::readlink`] for links whose target depends on who looks
    /// (`/proc/self`). `caller` is `None` for the sentry itself.
    fn readlink_by(&self, _caller: Option<&Task>) -> Result<Vec<u8>, Errno> {
        self.readlink()
    }

    /// [`Inode::follow_magic`] with the rights of who follows.
    fn follow_magic_by(&self, _caller: Option<&Task>) -> Option<Result<super::VfsPath, Errno>> {
        self.follow_magic()
    }

    /// [`Inode::open`] for objects that are opened by one task in particular.
    fn open_by(
        self: Arc<Self>,
        request: &OpenRequest,
        _caller: Option<&Arc<Task>>,
    ) -> Result<Arc<dyn FileOps>, Errno> {
        self.open(request)
    }

    /// Opens the object. FIFOs, sockets and device nodes are opened by the
    /// VFS and not here.
    fn open(self: Arc<Self>, request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno>;

    fn get_xattr(&self, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn set_xattr(&self, _name: &[u8], _value: &[u8], _flags: XattrFlags) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Names of all attributes.
    fn list_xattr(&self) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(Vec::new())
    }

    fn remove_xattr(&self, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}
