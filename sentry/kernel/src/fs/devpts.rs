//! devpts: the slaves of an instance's pseudo terminals, and `ptmx`, which
//! makes new ones.
//!
//! Locks: an instance's table is a leaf.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::Errno;

use crate::task::{Gid, Uid};
use crate::tty::{Master, Slave, Terminal, open_current};
use crate::vfs::device::{DeviceOpen, DeviceRegistry};
use crate::vfs::lookup::lookup;
use crate::vfs::{
    Attr, DirEntry, File, FileKind, FileOps, FileSystem, FsStat, Inode, InodeRef, MountRequest,
    OpenRequest, SetAttr, Timestamp, VfsPath, makedev,
};

/// `DEVPTS_SUPER_MAGIC`.
const MAGIC: u64 = 0x1cd1;
/// Most terminals of an instance (`/proc/sys/kernel/pty/max`).
const MAX_TERMINALS: usize = 4096;
/// Numbers of root, ptmx and slave 0.
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
const FIRST_SLAVE_INO: u64 = 3;
const SLAVE_MAJOR: u32 = 136;

/// Mount options.
#[derive(Clone, Copy)]
struct Options {
    perm: u32,
    ptmx_perm: u32,
    uid: Option<Uid>,
    gid: Option<Gid>,
}

impl Options {
    fn parse(data: &[u8]) -> Result<Self, Errno> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let mut options = Self {
            perm: 0o600,
            ptmx_perm: 0,
            uid: None,
            gid: None,
        };
        let octal = |value| u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL);
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let number = || value.parse::<u32>().map_err(|_| Errno::EINVAL);
            match name {
                "mode" => options.perm = octal(value)? & 0o777,
                "ptmxmode" => options.ptmx_perm = octal(value)? & 0o777,
                "uid" => options.uid = Some(Uid(number()?)),
                "gid" => options.gid = Some(Gid(number()?)),
                "newinstance" => {}
                "max" => {
                    number()?;
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }
}

struct Shared {
    dev: u64,
    options: Options,
    created: Timestamp,
    slaves: Mutex<BTreeMap<u32, Arc<SlaveInode>>>,
    /// What `chmod` and `chown` made of `ptmx`.
    ptmx: Mutex<Owner>,
}

#[derive(Clone, Copy)]
struct Owner {
    perm: u32,
    uid: Uid,
    gid: Gid,
}

/// A devpts instance.
pub struct Devpts {
    shared: Arc<Shared>,
}

/// Mounts a new instance.
pub fn mount(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>, Errno> {
    let options = Options::parse(request.data)?;
    let created = request
        .kernel
        .map(|kernel| kernel.clock.now())
        .unwrap_or_default();
    let ptmx = Owner {
        perm: options.ptmx_perm,
        uid: Uid::ROOT,
        gid: Gid::ROOT,
    };
    let shared = Shared {
        dev: request.vfs.next_dev(),
        options,
        created,
        slaves: Mutex::default(),
        ptmx: Mutex::new(ptmx),
    };
    Ok(Arc::new(Devpts {
        shared: Arc::new(shared),
    }))
}

/// Registers ptmx, slaves and `/dev/tty`.
pub fn register(devices: &DeviceRegistry) {
    let kind = FileKind::CharDevice;
    devices.register(kind, 5, Some(2), Arc::new(open_ptmx));
    devices.register(
        kind,
        5,
        Some(0),
        Arc::new(|open| Ok(open_current(open.task)?)),
    );
    devices.register(kind, SLAVE_MAJOR, None, Arc::new(open_slave));
}

fn open_ptmx(open: &DeviceOpen<'_>) -> Result<Arc<dyn FileOps>, Errno> {
    let inode: Arc<dyn Any + Send + Sync> = open.path.inode()?;
    let ptmx = inode.downcast::<PtmxInode>().map_err(|_| Errno::ENXIO)?;
    let creds = open.task.creds();
    let (_, master) = allocate(&ptmx.0, creds.fsuid, creds.fsgid)?;
    Ok(master)
}

fn open_slave(open: &DeviceOpen<'_>) -> Result<Arc<dyn FileOps>, Errno> {
    let inode: Arc<dyn Any + Send + Sync> = open.path.inode()?;
    let slave = inode.downcast::<SlaveInode>().map_err(|_| Errno::ENXIO)?;
    Ok(Slave::open_by(&slave.terminal, open.task, open.no_ctty)?)
}

/// A new terminal of the instance that `ptmx` belongs to; `ENXIO` if it is
/// not a devpts `ptmx`. Its master is never opened by a guest.
pub fn new_terminal(ptmx: &VfsPath, uid: Uid, gid: Gid) -> Result<Arc<Terminal>, Errno> {
    let inode: Arc<dyn Any + Send + Sync> = ptmx.inode()?;
    let ptmx = inode.downcast::<PtmxInode>().map_err(|_| Errno::ENXIO)?;
    let (terminal, _) = allocate(&ptmx.0, uid, gid)?;
    terminal.set_locked(false);
    Ok(terminal)
}

/// Where slave `index` is, next to the `ptmx` that its master was opened by.
pub fn slave_path(ptmx: &VfsPath, index: u32) -> Result<VfsPath, Errno> {
    let dir = VfsPath {
        mount: ptmx.mount.clone(),
        dentry: ptmx.mount.root.clone(),
    };
    let dentry = lookup(&dir, index.to_string().as_bytes())?;
    Ok(VfsPath {
        mount: ptmx.mount.clone(),
        dentry,
    })
}

fn allocate(
    shared: &Arc<Shared>,
    uid: Uid,
    gid: Gid,
) -> Result<(Arc<Terminal>, Arc<Master>), Errno> {
    let mut slaves = shared.slaves.lock();
    if slaves.len() >= MAX_TERMINALS {
        return Err(Errno::ENOSPC);
    }
    let index = (0..).find(|index| !slaves.contains_key(index));
    let index = index.ok_or(Errno::ENOSPC)?;
    let terminal = Terminal::new(index);
    let owner = Owner {
        perm: shared.options.perm,
        uid: shared.options.uid.unwrap_or(uid),
        gid: shared.options.gid.unwrap_or(gid),
    };
    let inode = SlaveInode {
        shared: Arc::downgrade(shared),
        terminal: terminal.clone(),
        owner: Mutex::new(owner),
    };
    slaves.insert(index, Arc::new(inode));
    let instance = Arc::downgrade(shared);
    let forget = move |index| {
        if let Some(shared) = instance.upgrade() {
            let gone = shared.slaves.lock().remove(&index);
            drop(gone);
        }
    };
    Ok((terminal.clone(), Arc::new(Master::new(terminal, forget))))
}

impl FileSystem for Devpts {
    fn type_name(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> InodeRef {
        Arc::new(RootInode(self.shared.clone()))
    }

    fn dev(&self) -> u64 {
        self.shared.dev
    }

    fn stat(&self) -> Result<FsStat, Errno> {
        Ok(FsStat {
            magic: MAGIC,
            block_size: 4096,
            name_max: 255,
            ..FsStat::default()
        })
    }

    fn source(&self) -> String {
        "devpts".to_owned()
    }

    fn options(&self) -> String {
        let options = &self.shared.options;
        let gid = options
            .gid
            .map_or(String::new(), |gid| format!("gid={gid},"));
        let (perm, ptmx) = (options.perm, options.ptmx_perm);
        format!("{gid}mode={perm:03o},ptmxmode={ptmx:03o}")
    }

    /// Terminals come and go without the dentry cache's knowledge.
    fn names_are_stable(&self) -> bool {
        false
    }
}

impl Shared {
    fn attr(&self, kind: FileKind, ino: u64, owner: Owner, rdev: u64) -> Attr {
        Attr {
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            uid: owner.uid,
            gid: owner.gid,
            block_size: 1024,
            rdev,
            ..Attr::of_root(kind, owner.perm, self.dev, ino, self.created)
        }
    }
}

/// `chmod` and `chown` of a node; times and sizes of devices stay.
fn change(owner: &Mutex<Owner>, changes: &SetAttr) {
    let mut owner = owner.lock();
    if let Some(perm) = changes.perm {
        owner.perm = perm & 0o7777;
    }
    if let Some(uid) = changes.uid {
        owner.uid = uid;
    }
    if let Some(gid) = changes.gid {
        owner.gid = gid;
    }
}

struct RootInode(Arc<Shared>);

impl Inode for RootInode {
    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let owner = Owner {
            perm: 0o755,
            uid: Uid::ROOT,
            gid: Gid::ROOT,
        };
        Ok(self.0.attr(FileKind::Directory, ROOT_INO, owner, 0))
    }

    fn set_attr(&self, _changes: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        if name == b"ptmx" {
            return Ok(Arc::new(PtmxInode(self.0.clone())));
        }
        let index = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse().ok());
        let slaves = self.0.slaves.lock();
        let slave = index.and_then(|index: u32| slaves.get(&index));
        Ok(slave.cloned().ok_or(Errno::ENOENT)?)
    }

    fn lookup_revalidate(&self, name: &[u8], child: Option<&InodeRef>) -> bool {
        match (self.lookup(name), child) {
            (Ok(now), Some(child)) => {
                name == b"ptmx" || std::ptr::addr_eq(Arc::as_ptr(&now), Arc::as_ptr(child))
            }
            (Err(_), None) => true,
            _ => false,
        }
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(RootDir(self.0.clone())))
    }
}

struct RootDir(Arc<Shared>);

impl FileOps for RootDir {
    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Ok(0)
    }

    fn read_dir(
        &self,
        _file: &File,
        offset: u64,
        emit: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        let fixed = [
            (".".to_owned(), ROOT_INO, FileKind::Directory),
            ("..".to_owned(), ROOT_INO, FileKind::Directory),
            ("ptmx".to_owned(), PTMX_INO, FileKind::CharDevice),
        ];
        let indices: Vec<u32> = self.0.slaves.lock().keys().copied().collect();
        let slaves = indices.into_iter().map(|index| {
            let ino = FIRST_SLAVE_INO + u64::from(index);
            (index.to_string(), ino, FileKind::CharDevice)
        });
        // Positions are inode numbers behind the two dots: stable.
        for (position, (name, ino, kind)) in fixed.into_iter().chain(slaves).enumerate() {
            let next_offset = match position {
                0 | 1 => position as u64 + 1,
                _ => ino + 1,
            };
            if next_offset <= offset {
                continue;
            }
            let name = name.into_bytes();
            let entry = DirEntry {
                name: name.into(),
                ino,
                kind,
                next_offset,
            };
            if !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

struct PtmxInode(Arc<Shared>);

impl Inode for PtmxInode {
    fn kind(&self) -> FileKind {
        FileKind::CharDevice
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let owner = *self.0.ptmx.lock();
        let rdev = makedev(5, 2);
        Ok(self.0.attr(FileKind::CharDevice, PTMX_INO, owner, rdev))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        change(&self.0.ptmx, changes);
        Ok(())
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }
}

struct SlaveInode {
    shared: Weak<Shared>,
    terminal: Arc<Terminal>,
    owner: Mutex<Owner>,
}

impl Inode for SlaveInode {
    fn kind(&self) -> FileKind {
        FileKind::CharDevice
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let shared = self.shared.upgrade().ok_or(Errno::EIO)?;
        let index = self.terminal.index;
        let owner = *self.owner.lock();
        let ino = FIRST_SLAVE_INO + u64::from(index);
        let rdev = makedev(SLAVE_MAJOR, index);
        Ok(shared.attr(FileKind::CharDevice, ino, owner, rdev))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        change(&self.owner, changes);
        Ok(())
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }
}
