//! Opening files by path (`open(2)`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::BoxFuture;
use syscall_tables::Errno;
use syscall_tables::abi::OpenFlags;

use super::device::DeviceOpen;
use super::fifo::PeerWait;
use super::lookup::lookup_locked;
use super::path::{LinkEnd, ParentAndLast, Walk, WalkFlags, resolve_as};
use super::perm::{self, Access};
use super::{
    Dentry, File, FileKind, FileOps, MountFlags, OpenMode, OpenRequest, SetAttr, Start,
    StatusFlags, Vfs, VfsPath,
};
use crate::ctx::{Ctx, SysResult};
use crate::kernel::Kernel;
use crate::task::{CapSet, Creds, Task};

/// Flags of `open(2)` that do not stay with the open file.
const TRANSIENT: u32 = OpenFlags::O_CREAT.bits()
    | OpenFlags::O_EXCL.bits()
    | OpenFlags::O_NOCTTY.bits()
    | OpenFlags::O_TRUNC.bits()
    | OpenFlags::O_CLOEXEC.bits();

/// How to open.
#[derive(Clone, Copy, Debug)]
pub struct OpenArgs {
    pub flags: OpenFlags,
    /// Mode of a new file, umask not applied.
    pub perm: u32,
    /// `openat2`'s `RESOLVE_*`.
    pub resolve: WalkFlags,
}

/// An open file, perhaps before its FIFO's other side is there.
pub struct Opened {
    pub file: Arc<File>,
    /// The file did not exist before.
    pub created: bool,
    /// Wait for this before `file` goes to the guest.
    pub wait: Option<PeerWait>,
}

/// Who opens. Without a task devices can't be opened.
pub struct Opener<'a> {
    pub vfs: &'a Vfs,
    pub creds: &'a Creds,
    pub umask: u32,
    pub task: Option<(&'a Arc<Kernel>, &'a Arc<Task>)>,
}

/// Opens `path` for `task`.
pub fn open(
    kernel: &Arc<Kernel>,
    task: &Arc<Task>,
    start: Start,
    path: &[u8],
    args: &OpenArgs,
) -> Result<Opened, Errno> {
    let creds = task.creds();
    let opener = Opener {
        vfs: &kernel.vfs,
        creds: &creds,
        umask: task.fs_ref().state.read().umask,
        task: Some((kernel, task)),
    };
    if !args.flags.contains(OpenFlags::O_CREAT) {
        let found = resolve_as(kernel, task, &creds, start, path, args.walk_flags())?;
        return opener.open_existing(found, args);
    }
    let mut walk = Walk::for_task(&kernel.vfs, task, &creds, start, path, args.walk_flags())?;
    opener.open(&mut walk, path, args)
}

/// Opens `path` to be executed: a regular file with execute permission on a
/// mount that allows it; else `EACCES`. `flags`: `FOLLOW`, `EMPTY_PATH`.
pub fn open_exec(
    kernel: &Kernel,
    task: &Task,
    start: Start,
    path: &[u8],
    flags: WalkFlags,
) -> Result<Arc<File>, Errno> {
    let creds = task.creds();
    let mut walk = Walk::for_task(&kernel.vfs, task, &creds, start, path, flags)?;
    exec_file(&kernel.vfs, walk.resolve(path)?, &creds)
}

/// Opens what a walk has found to be executed by `creds`.
pub fn exec_file(vfs: &Vfs, found: VfsPath, creds: &Creds) -> Result<Arc<File>, Errno> {
    let inode = found.inode()?;
    if inode.kind() == FileKind::Symlink {
        return Err(Errno::ELOOP);
    }
    if inode.kind() != FileKind::Regular || found.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    perm::check(&inode.attr()?, creds, Access::EXEC)?;
    let claim = vfs.claims.execute(&inode)?;
    let ops = inode.open(&OpenRequest {
        read: true,
        write: false,
        truncate: false,
        append: false,
        direct: false,
        nonblock: false,
    })?;
    let file = File::new(ops, found, OpenMode::READ, StatusFlags::LARGEFILE);
    file.hold(claim);
    Ok(file)
}

impl OpenArgs {
    /// How the path is to be walked.
    pub fn walk_flags(&self) -> WalkFlags {
        let mut walk = self.resolve;
        let stays = OpenFlags::O_CREAT | OpenFlags::O_EXCL;
        let no_follow = self.flags.contains(OpenFlags::O_NOFOLLOW)
            || (self.flags.contains(stays) && !self.flags.contains(OpenFlags::O_PATH));
        walk.set(WalkFlags::FOLLOW, !no_follow);
        walk
    }

    fn access_mode(&self) -> u32 {
        self.flags.bits() & OpenFlags::ACCESS_MODE
    }

    fn request(&self) -> OpenRequest {
        OpenRequest {
            read: self.flags.is_readable(),
            write: self.flags.is_writable(),
            truncate: self.flags.contains(OpenFlags::O_TRUNC),
            append: self.flags.contains(OpenFlags::O_APPEND),
            direct: self.flags.contains(OpenFlags::O_DIRECT),
            nonblock: self.flags.contains(OpenFlags::O_NONBLOCK),
        }
    }

    fn mode(&self) -> OpenMode {
        let mut mode = OpenMode::empty();
        mode.set(OpenMode::READ, self.flags.is_readable());
        mode.set(OpenMode::WRITE, self.flags.is_writable());
        mode
    }

    fn status(&self) -> StatusFlags {
        let kept = self.flags.bits() & !TRANSIENT & !OpenFlags::ACCESS_MODE;
        StatusFlags::from_bits_truncate(kept) | StatusFlags::LARGEFILE
    }
}

impl Opener<'_> {
    /// Opens what `walk` finds at `path`.
    pub fn open(&self, walk: &mut Walk<'_>, path: &[u8], args: &OpenArgs) -> Result<Opened, Errno> {
        let flags = args.flags;
        if !flags.contains(OpenFlags::O_CREAT)
            || flags.contains(OpenFlags::O_PATH)
            || flags.contains(OpenFlags::O_TMPFILE)
        {
            return self.open_existing(walk.resolve(path)?, args);
        }
        let mut at = walk.parent(path)?;
        loop {
            // `.` and `..` are there already.
            let name = at.name(if flags.contains(OpenFlags::O_EXCL) {
                Errno::EEXIST
            } else {
                Errno::EISDIR
            })?;
            if at.trailing_slash {
                return Err(Errno::EISDIR);
            }
            let found = match walk.child(name)? {
                Some(found) => found,
                None => match self.create(&at, name, args) {
                    Ok(created) => return self.open_found(created, args, true),
                    Err(Errno::EEXIST) => match walk.child(name)? {
                        Some(found) => found,
                        None => return Err(Errno::ENOENT),
                    },
                    Err(errno) => return Err(errno),
                },
            };
            let follow = args.walk_flags().contains(WalkFlags::FOLLOW);
            if follow && found.inode_ref()?.kind() == FileKind::Symlink {
                match walk.parent_through(&found, false)? {
                    LinkEnd::Parent(next) => at = next,
                    LinkEnd::Object(found) => return self.open_found(found, args, false),
                }
                continue;
            }
            if !flags.contains(OpenFlags::O_EXCL) {
                self.check_sticky_create(&at.parent, &found)?;
            }
            return self.open_found(found, args, false);
        }
    }

    /// Opens what a path has led to, making no name.
    fn open_existing(&self, found: VfsPath, args: &OpenArgs) -> Result<Opened, Errno> {
        if args.flags.contains(OpenFlags::O_PATH) {
            return open_path_only(found, args);
        }
        if args.flags.contains(OpenFlags::O_TMPFILE) {
            return self.open_tmpfile(&found, args);
        }
        self.open_found(found, args, false)
    }

    fn caller(&self) -> Option<&Arc<Task>> {
        self.task.map(|(_, task)| task)
    }

    fn create(&self, at: &ParentAndLast, name: &[u8], args: &OpenArgs) -> Result<VfsPath, Errno> {
        let parent = &at.parent;
        let _lock = parent.dentry.dir_lock.write();
        let child = lookup_locked(parent, name)?;
        if child.inode().is_some() {
            return Err(Errno::EEXIST);
        }
        if parent.mount.is_readonly() {
            return Err(Errno::EROFS);
        }
        if parent.dentry.is_removed() {
            return Err(Errno::ENOENT);
        }
        perm::check_dir_change(parent, self.creds)?;
        let perm = args.perm & 0o7777 & !self.umask;
        let dir = parent.inode_ref()?;
        match dir.create(name, FileKind::Regular, perm, 0, self.creds) {
            Ok(inode) => Ok(VfsPath {
                mount: parent.mount.clone(),
                dentry: child.instantiate(inode),
            }),
            Err(errno) => {
                if errno == Errno::EEXIST {
                    child.forget();
                }
                Err(errno)
            }
        }
    }

    /// `protected_fifos` and `protected_regular`: no opening with `O_CREAT`
    /// of what somebody else put into a sticky directory.
    fn check_sticky_create(&self, dir: &VfsPath, found: &VfsPath) -> Result<(), Errno> {
        if !self.vfs.sysctl.protected_fifos.load(Ordering::Relaxed) {
            return Ok(());
        }
        let kind = found.inode_ref()?.kind();
        if !matches!(kind, FileKind::Regular | FileKind::Fifo) {
            return Ok(());
        }
        let dir = dir.inode_ref()?.attr()?;
        if dir.perm & perm::S_ISVTX == 0 || dir.perm & 0o002 == 0 {
            return Ok(());
        }
        let uid = found.inode_ref()?.attr()?.uid;
        if uid == dir.uid || uid == self.creds.fsuid {
            return Ok(());
        }
        Err(Errno::EACCES)
    }

    fn open_tmpfile(&self, dir: &VfsPath, args: &OpenArgs) -> Result<Opened, Errno> {
        let inode = dir.inode_ref()?;
        if inode.kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if dir.mount.is_readonly() {
            return Err(Errno::EROFS);
        }
        perm::check_dir_change(dir, self.creds)?;
        let perm = args.perm & 0o7777 & !self.umask;
        let inode = inode.tmpfile(perm, self.creds)?;
        let name = format!("#{}", inode.attr()?.ino);
        let dentry = Dentry::new_unlinked(&dir.dentry, name.as_bytes(), inode.clone());
        if !args.flags.contains(OpenFlags::O_EXCL) {
            dentry.set_linkable();
        }
        let path = VfsPath {
            mount: dir.mount.clone(),
            dentry,
        };
        let ops = inode.open(&args.request())?;
        Ok(Opened {
            file: File::new(ops, path, args.mode(), args.status()),
            created: true,
            wait: None,
        })
    }

    /// Opens the object at `path`.
    pub fn open_found(
        &self,
        path: VfsPath,
        args: &OpenArgs,
        created: bool,
    ) -> Result<Opened, Errno> {
        let inode = path.inode()?;
        let kind = inode.kind();
        let flags = args.flags;
        let mut claim = None;
        if !created {
            self.check_open(&path, kind, args)?;
        }
        let writes = flags.is_writable() || flags.contains(OpenFlags::O_TRUNC);
        if kind == FileKind::Regular && writes && !path.is_anonymous() {
            claim = Some(self.vfs.claims.write(&inode)?);
        }
        if !created && flags.contains(OpenFlags::O_TRUNC) && kind == FileKind::Regular {
            truncate_for_open(&path, self.creds)?;
        }
        let request = args.request();
        let mut wait = None;
        let ops = match kind {
            _ if path.is_anonymous() => inode.open_by(&request, self.caller())?,
            FileKind::Fifo => {
                let end = self.vfs.fifos.open(&inode, &request, self.creds)?;
                wait = end.wait;
                end.ops
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                self.open_device(&path, kind, &request, flags)?
            }
            FileKind::Socket => return Err(Errno::ENXIO),
            _ => inode.open_by(&request, self.caller())?,
        };
        let file = File::new(ops, path, args.mode(), args.status());
        if let Some(claim) = claim.filter(|_| flags.is_writable()) {
            file.hold(claim);
        }
        Ok(Opened {
            file,
            created,
            wait,
        })
    }

    fn check_open(&self, path: &VfsPath, kind: FileKind, args: &OpenArgs) -> Result<(), Errno> {
        let flags = args.flags;
        if flags.contains(OpenFlags::O_CREAT) {
            if flags.contains(OpenFlags::O_EXCL) {
                return Err(Errno::EEXIST);
            }
            if kind == FileKind::Directory {
                return Err(Errno::EISDIR);
            }
        }
        if flags.contains(OpenFlags::O_DIRECTORY) && kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let mut wanted = match args.access_mode() {
            0 => Access::READ,
            1 => Access::WRITE,
            _ => Access::READ | Access::WRITE,
        };
        if flags.contains(OpenFlags::O_TRUNC) {
            wanted |= Access::WRITE;
        }
        match kind {
            FileKind::Symlink => return Err(Errno::ELOOP),
            FileKind::Directory if wanted.contains(Access::WRITE) => return Err(Errno::EISDIR),
            FileKind::CharDevice | FileKind::BlockDevice
                if path.mount.flags().contains(MountFlags::NODEV) =>
            {
                return Err(Errno::EACCES);
            }
            _ => {}
        }
        perm::check_path(path, self.creds, wanted)?;
        if flags.contains(OpenFlags::O_NOATIME) {
            perm::check_owner(&path.inode_ref()?.attr()?, self.creds)?;
        }
        Ok(())
    }

    fn open_device(
        &self,
        path: &VfsPath,
        kind: FileKind,
        request: &OpenRequest,
        flags: OpenFlags,
    ) -> Result<Arc<dyn FileOps>, Errno> {
        let (kernel, task) = self.task.ok_or(Errno::ENXIO)?;
        let rdev = path.inode_ref()?.attr()?.rdev;
        let opener = self.vfs.devices.find(kind, rdev)?;
        opener(&DeviceOpen {
            kernel,
            task,
            path,
            major: super::dev_major(rdev),
            minor: super::dev_minor(rdev),
            request,
            no_ctty: flags.contains(OpenFlags::O_NOCTTY),
        })
    }
}

fn truncate_for_open(path: &VfsPath, creds: &Creds) -> Result<(), Errno> {
    let inode = path.inode_ref()?;
    let attr = inode.attr()?;
    let mut changes = SetAttr {
        size_bytes: Some(0),
        ..SetAttr::default()
    };
    let stripped = perm::without_set_id(attr.perm);
    if stripped != attr.perm && !perm::capable(&attr, creds, CapSet::FSETID) {
        changes.perm = Some(stripped);
    }
    inode.set_attr(&changes)
}

fn open_path_only(path: VfsPath, args: &OpenArgs) -> Result<Opened, Errno> {
    let kind = path.inode_ref()?.kind();
    if args.flags.contains(OpenFlags::O_DIRECTORY) && kind != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    let kept = OpenFlags::O_PATH | OpenFlags::O_DIRECTORY | OpenFlags::O_NOFOLLOW;
    let status = StatusFlags::from_bits_truncate((args.flags & kept).bits());
    Ok(Opened {
        file: File::new(Arc::new(PathOnly), path, OpenMode::empty(), status),
        created: false,
        wait: None,
    })
}

/// `O_PATH`: a place, not an open file.
struct PathOnly;

impl FileOps for PathOnly {
    fn ioctl<'a>(
        &'a self,
        _ctx: &'a mut Ctx<'_>,
        _file: &'a File,
        _command: u32,
        _arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async { Err(Errno::EBADF) })
    }
}
