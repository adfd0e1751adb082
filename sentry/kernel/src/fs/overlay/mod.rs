//! overlay: a writable layer over read-only ones
//! (`Documentation/filesystems/overlayfs.rst`).
//!
//! | file | holds |
//! |---|---|
//! | `inode.rs` | [`OverlayInode`]: lookups and attributes |
//! | `copy_up.rs` | making the upper copy of what is about to change |
//! | `names.rs` | creating, removing and renaming |
//! | `dir.rs` | merged listings |
//! | `file.rs` | open files that may still be lower ones |
//! | `options.rs` | `mount -t overlay` |
//!
//! Layers are directories of any file system. Whiteouts are character devices
//! 0/0, opaque directories have the xattr `trusted.overlay.opaque`, as Linux
//! makes them. Renaming a directory that has a lower part answers `EXDEV`, as
//! Linux does without `redirect_dir`.
//!
//! All objects show the overlay's device number and an inode number that
//! stays the same when they are copied up. (A lower file with several names
//! stops being one file when it is written, as in Linux without an index; it
//! gets a new number then.)
//!
//! Locks, outermost first: `copy_lock` of an inode, then that of its parent;
//! `Shared::names`; an inode's `place`; locks of the layers.

mod copy_up;
mod dir;
mod file;
mod inode;
mod names;
mod options;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::Errno;

pub use inode::OverlayInode;
pub use options::mount;

use crate::fs::tmpfs::{TmpFs, TmpFsOptions};
use crate::task::Creds;
use crate::vfs::{Attr, FileKind, FileSystem, FsStat, InodeRef, Vfs};

/// `OVERLAYFS_SUPER_MAGIC`.
const MAGIC: u64 = 0x794c_7630;

/// Xattrs of this prefix are ours and not shown.
const PRIVATE_PREFIX: &[u8] = b"trusted.overlay.";
/// Marks a directory that hides what is below.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Bits of an inode number that a layer's own number has.
const INO_BITS: u32 = 48;

/// What an overlay is made of.
pub struct OverlayLayers {
    /// `None` makes it read-only.
    pub upper: Option<UpperLayer>,
    /// Topmost first.
    pub lowers: Vec<(InodeRef, Arc<dyn FileSystem>)>,
}

/// The writable layer.
pub struct UpperLayer {
    pub root: InodeRef,
    /// An empty directory of the same file system.
    pub work: InodeRef,
    pub fs: Arc<dyn FileSystem>,
}

/// One overlay.
pub struct OverlayFs {
    shared: Arc<Shared>,
    root: Arc<OverlayInode>,
    upper_fs: Option<Arc<dyn FileSystem>>,
    lower_fs: Vec<Arc<dyn FileSystem>>,
    options: String,
}

/// What all inodes of an overlay share.
struct Shared {
    dev: u64,
    /// Where new upper objects are made before they get their name.
    work: Option<InodeRef>,
    next_work_name: AtomicU64,
    stable: bool,
    names: Mutex<()>,
    numbers: Mutex<Numbers>,
    live: Mutex<HashMap<u64, Weak<OverlayInode>>>,
}

#[derive(Default)]
struct Numbers {
    /// Devices of the layers; their index goes into the inode number.
    devices: Vec<(Layer, u64)>,
    /// Number of copied-up objects by device and number of their upper copy.
    origins: HashMap<(u64, u64), u64>,
}

/// Which side a real inode is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Upper,
    Lower,
}

impl OverlayFs {
    /// An overlay with device number `dev`.
    pub fn new(dev: u64, layers: OverlayLayers, options: String) -> Result<Arc<Self>, Errno> {
        let mut all_fs = layers.lowers.iter().map(|(_, fs)| fs);
        let stable = all_fs.all(|fs| fs.names_are_stable());
        let (upper, work, upper_fs) = match layers.upper {
            Some(upper) => (Some(upper.root), Some(upper.work), Some(upper.fs)),
            None => (None, None, None),
        };
        let shared = Arc::new(Shared {
            dev,
            work,
            next_work_name: AtomicU64::new(0),
            stable,
            names: Mutex::new(()),
            numbers: Mutex::default(),
            live: Mutex::default(),
        });
        // The first lower device numbers its inodes as they are.
        for (root, _) in &layers.lowers {
            shared.number(Layer::Lower, &root.attr()?);
        }
        let (lower, lower_fs): (Vec<_>, Vec<_>) = layers.lowers.into_iter().unzip();
        let root = OverlayInode::new_root(&shared, upper, lower)?;
        Ok(Arc::new(Self {
            shared,
            root,
            upper_fs,
            lower_fs,
            options,
        }))
    }

    /// An overlay whose upper layer is a tmpfs of its own.
    pub fn in_memory(
        vfs: &Vfs,
        lowers: Vec<(InodeRef, Arc<dyn FileSystem>)>,
        limits: &TmpFsOptions,
    ) -> Result<Arc<Self>, Errno> {
        let (lower, _) = lowers.first().ok_or(Errno::EINVAL)?;
        let attr = lower.attr()?;
        let fs = TmpFs::new(vfs.next_dev(), limits);
        let creds = Creds::root();
        let root = fs.root().mkdir(b"upper", attr.perm, &creds)?;
        let work = fs.root().mkdir(b"work", 0, &creds)?;
        copy_up::copy_attributes(&attr, &root)?;
        let layers = OverlayLayers {
            upper: Some(UpperLayer { root, work, fs }),
            lowers,
        };
        let options = "lowerdir=/,upperdir=/upper,workdir=/work".to_owned();
        Self::new(vfs.next_dev(), layers, options)
    }
}

impl FileSystem for OverlayFs {
    fn type_name(&self) -> &'static str {
        "overlay"
    }

    fn root(&self) -> InodeRef {
        self.root.clone()
    }

    fn dev(&self) -> u64 {
        self.shared.dev
    }

    fn stat(&self) -> Result<FsStat, Errno> {
        let mut layers = self.upper_fs.iter().chain(&self.lower_fs);
        let top = layers.next().ok_or(Errno::EIO)?;
        Ok(FsStat {
            magic: MAGIC,
            fsid: self.shared.dev,
            ..top.stat()?
        })
    }

    fn source(&self) -> String {
        "overlay".to_owned()
    }

    fn options(&self) -> String {
        self.options.clone()
    }

    fn sync(&self) -> Result<(), Errno> {
        match &self.upper_fs {
            Some(fs) => fs.sync(),
            None => Ok(()),
        }
    }

    fn names_are_stable(&self) -> bool {
        self.shared.stable
    }
}

impl Shared {
    /// The number shown for a real inode.
    fn number(&self, layer: Layer, attr: &Attr) -> u64 {
        let mut numbers = self.numbers.lock();
        if layer == Layer::Upper
            && let Some(origin) = numbers.origins.get(&(attr.dev, attr.ino))
        {
            return *origin;
        }
        let key = (layer, attr.dev);
        let known = numbers.devices.iter().position(|device| *device == key);
        let index = known.unwrap_or_else(|| {
            numbers.devices.push(key);
            numbers.devices.len() - 1
        });
        attr.ino ^ ((index as u64) << INO_BITS)
    }

    /// Lets the upper copy keep the number of what it was copied from.
    fn note_origin(&self, upper: &Attr, number: u64) {
        let mut numbers = self.numbers.lock();
        numbers.origins.insert((upper.dev, upper.ino), number);
    }

    /// Forgets a copy that has lost its last name.
    fn forget_origin(&self, upper: &Attr) {
        let mut numbers = self.numbers.lock();
        numbers.origins.remove(&(upper.dev, upper.ino));
    }

    /// A name in the work directory that nobody else uses.
    fn work_name(&self) -> Vec<u8> {
        let number = self.next_work_name.fetch_add(1, Ordering::Relaxed);
        format!("#{number:x}").into_bytes()
    }

    /// The work directory, or `EROFS`.
    fn work(&self) -> Result<&InodeRef, Errno> {
        self.work.as_ref().ok_or(Errno::EROFS)
    }
}

/// Whether a layer's entry says "removed here".
fn is_whiteout(inode: &InodeRef) -> Result<bool, Errno> {
    Ok(inode.kind() == FileKind::CharDevice && inode.attr()?.rdev == 0)
}

/// Whether a layer's directory hides those below.
fn is_opaque(dir: &InodeRef) -> bool {
    dir.get_xattr(OPAQUE).is_ok_and(|value| value == b"y")
}

/// The entry of a layer, whiteouts included; `None` without one.
fn layer_entry(dir: &InodeRef, name: &[u8]) -> Result<Option<InodeRef>, Errno> {
    match dir.lookup(name) {
        Ok(inode) => Ok(Some(inode)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
