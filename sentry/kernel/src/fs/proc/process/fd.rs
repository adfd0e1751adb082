//! `fd` and `fdinfo`.

use std::fmt::Write;
use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::OpenFlags;

use super::{Subject, may_look, show_path};
use crate::fs::kernfs::{Listing, OpenDir, OpenText, Viewer, set_attr};
use crate::fs::proc::root::parse_id;
use crate::task::Task;
use crate::vfs::{
    Attr, DirEntry, Fd, FdFlags, File, FileKind, FileOps, Inode, InodeRef, OpenMode, OpenRequest,
    SetAttr, VfsPath,
};

/// What the entries of a directory are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Files,
    Info,
}

/// `/proc/PID/fd` or `/proc/PID/fdinfo`.
pub(super) struct Descriptors {
    subject: Subject,
    ino: u64,
    parent_ino: u64,
    show: Show,
}

impl Descriptors {
    pub fn new(subject: Subject, ino: u64, parent_ino: u64, show: Show) -> Arc<Self> {
        Arc::new(Self {
            subject,
            ino,
            parent_ino,
            show,
        })
    }

    /// Numbers of entries are in the upper half of the range.
    fn entry_ino(&self, fd: Fd) -> u64 {
        let info = u64::from(self.show == Show::Info);
        (1 << 63)
            | ((self.subject.pid.inode & 0x7fff_ffff) << 32)
            | (u64::from(fd.0.unsigned_abs()) << 1)
            | info
    }

    const fn kind_of_entries(&self) -> FileKind {
        match self.show {
            Show::Files => FileKind::Symlink,
            Show::Info => FileKind::Regular,
        }
    }
}

impl Listing for Descriptors {
    fn ino(&self) -> u64 {
        self.ino
    }

    fn parent_ino(&self) -> u64 {
        self.parent_ino
    }

    fn list(&self, offset: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let task = self.subject.task().map_err(|_| Errno::ENOENT)?;
        if task.has_exited() {
            return Ok(());
        }
        for (fd, ..) in task.files().list() {
            let position = u64::from(fd.0.unsigned_abs()) + 2;
            let entry = DirEntry {
                name: fd.0.to_string().into_bytes().into(),
                ino: self.entry_ino(fd),
                kind: self.kind_of_entries(),
                next_offset: position + 1,
            };
            if position >= offset && !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

impl Inode for Descriptors {
    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let perm = match self.show {
            Show::Files => 0o500,
            Show::Info => 0o555,
        };
        let mut attr = self.subject.attr(FileKind::Directory, perm, self.ino);
        if self.show == Show::Files
            && let Ok(task) = self.subject.task()
        {
            // How many there are, as newer kernels tell it.
            attr.size_bytes = task.files().list().len() as u64;
        }
        Ok(attr)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        set_attr(changes)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let task = self.subject.task()?;
        let fd = Fd(parse_id(name).ok_or(Errno::ENOENT)?);
        let found = task.files().get_raw(fd);
        found.map_err(|_| Errno::ENOENT)?;
        let descriptor = Descriptor {
            subject: self.subject.clone(),
            ino: self.entry_ino(fd),
            fd,
        };
        Ok(match self.show {
            Show::Files => Arc::new(FdLink(descriptor)),
            Show::Info => Arc::new(FdInfo(Arc::new(descriptor))),
        })
    }

    fn lookup_revalidate(&self, name: &[u8], child: Option<&InodeRef>) -> bool {
        let (Some(fd), Ok(task)) = (parse_id(name), self.subject.task()) else {
            return false;
        };
        child.is_some() == task.files().get_raw(Fd(fd)).is_ok()
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(OpenDir(self)))
    }
}

/// One descriptor of a process.
struct Descriptor {
    subject: Subject,
    ino: u64,
    fd: Fd,
}

impl Descriptor {
    fn get(&self) -> Result<(Arc<File>, FdFlags), Errno> {
        let files = self.subject.task()?.files();
        files.get_with_flags(self.fd).map_err(|_| Errno::ENOENT)
    }
}

/// `/proc/PID/fd/N`.
struct FdLink(Descriptor);

impl FdLink {
    fn target(&self, caller: Option<&Task>) -> Result<VfsPath, Errno> {
        let task = self.0.subject.task()?;
        if !may_look(&task, caller) {
            return Err(Errno::EACCES);
        }
        Ok(self.0.get()?.0.path.clone())
    }
}

impl Inode for FdLink {
    fn kind(&self) -> FileKind {
        FileKind::Symlink
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let (file, _) = self.0.get()?;
        let mut perm = 0o100;
        if file.mode.contains(OpenMode::READ) {
            perm |= 0o400;
        }
        if file.mode.contains(OpenMode::WRITE) {
            perm |= 0o200;
        }
        let subject = &self.0.subject;
        let mut attr = subject.attr(FileKind::Symlink, perm, self.0.ino);
        attr.size_bytes = 64;
        Ok(attr)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        set_attr(changes)
    }

    fn readlink(&self) -> Result<Vec<u8>, Errno> {
        self.readlink_by(None)
    }

    fn readlink_by(&self, caller: Option<&Task>) -> Result<Vec<u8>, Errno> {
        let target = self.target(caller)?;
        let task = self.0.subject.task()?;
        Ok(show_path(&target, caller.unwrap_or(&task)))
    }

    fn follow_magic(&self) -> Option<Result<VfsPath, Errno>> {
        Some(self.target(None))
    }

    fn follow_magic_by(&self, caller: Option<&Task>) -> Option<Result<VfsPath, Errno>> {
        Some(self.target(caller))
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ELOOP)
    }
}

/// `/proc/PID/fdinfo/N`.
struct FdInfo(Arc<Descriptor>);

impl Inode for FdInfo {
    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let subject = &self.0.subject;
        Ok(subject.attr(FileKind::Regular, 0o444, self.0.ino))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        set_attr(changes)
    }

    fn open(self: Arc<Self>, request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        self.open_by(request, None)
    }

    fn open_by(
        self: Arc<Self>,
        request: &OpenRequest,
        caller: Option<&Arc<Task>>,
    ) -> Result<Arc<dyn FileOps>, Errno> {
        let task = self.0.subject.task()?;
        if !may_look(&task, caller.map(Arc::as_ref)) {
            return Err(Errno::EACCES);
        }
        let descriptor = self.0.clone();
        let source = move |_: &Viewer| info(&descriptor);
        let instance = &self.0.subject.shared.instance;
        let open = OpenText::new(instance, Arc::new(source), request, caller)?;
        Ok(Arc::new(open))
    }
}

fn info(descriptor: &Descriptor) -> Result<Vec<u8>, Errno> {
    let (file, fd_flags) = descriptor.get()?;
    let mut flags = file.status().bits();
    flags |= match (
        file.mode.contains(OpenMode::READ),
        file.mode.contains(OpenMode::WRITE),
    ) {
        (true, true) => OpenFlags::O_RDWR.bits(),
        (false, true) => OpenFlags::O_WRONLY.bits(),
        _ => 0,
    };
    if fd_flags.contains(FdFlags::CLOEXEC) {
        flags |= OpenFlags::O_CLOEXEC.bits();
    }
    let ino = file.attr().map_or(0, |attr| attr.ino);
    let position = *file.position.lock();
    let mut text = String::new();
    let _ = write!(
        text,
        "pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{ino}\n",
        file.path.mount.id,
    );
    text.push_str(&file.ops.fdinfo(&file));
    Ok(text.into_bytes())
}
