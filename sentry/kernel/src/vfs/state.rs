//! What all tasks of a sandbox share of the VFS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use syscall_tables::Errno;

use super::buffers::BufferPool;
use super::claims::ClaimTable;
use super::dentry::DentryCache;
use super::device::DeviceRegistry;
use super::fifo::FifoRegistry;
use super::locks::LockManager;
use super::mount::Superblock;
use super::notify::Watches;
use super::path_cache::PathCache;
use super::{FileSystem, VfsPath, makedev};
use crate::fs::tmpfs::{TmpFs, TmpFsOptions};
use crate::task::Creds;

/// Dentries kept without use.
const DENTRY_CACHE_LIMIT: usize = 65_536;

/// Device number of the internal tmpfs.
const SHM_DEV: u64 = makedev(0, 1);

/// First minor number of anonymous block devices (major 0).
const FIRST_ANONYMOUS_MINOR: u64 = 20;

/// The VFS of one sandbox; part of [`crate::kernel::Kernel`].
pub struct Vfs {
    pub dentries: Arc<DentryCache>,
    pub paths: PathCache,
    pub devices: DeviceRegistry,
    pub sysctl: FsSysctl,
    types: RwLock<BTreeMap<&'static str, FsType>>,
    next_id: AtomicU64,
    next_mount_id: AtomicU64,
    next_group_id: AtomicU64,
    next_minor: AtomicU64,
    /// What `size=50%` of a tmpfs counts from.
    memory_bytes: AtomicU64,
    pub fifos: FifoRegistry,
    pub locks: Arc<LockManager>,
    pub claims: Arc<ClaimTable>,
    pub buffers: BufferPool,
    pub watches: Arc<Watches>,
    /// Holds memfds and shared memory segments.
    pub shm: Arc<TmpFs>,
    pub(super) mount_lock: Mutex<()>,
    /// Held while two directories are locked.
    pub(super) rename_lock: Mutex<()>,
}

/// `/proc/sys/fs`.
pub struct FsSysctl {
    pub protected_symlinks: AtomicBool,
    pub protected_hardlinks: AtomicBool,
    /// Also stands for `protected_regular`.
    pub protected_fifos: AtomicBool,
}

/// What `mount(2)` gives a file system to start from.
pub struct MountRequest<'a> {
    pub vfs: &'a Vfs,
    pub creds: &'a Creds,
    /// First argument of `mount(2)`, as bytes.
    pub source: &'a [u8],
    /// Comma-separated options.
    pub data: &'a [u8],
    /// For file systems that show the caller's view (`proc`, `mqueue`).
    pub task: Option<&'a Arc<crate::task::Task>>,
    pub kernel: Option<&'a Arc<crate::kernel::Kernel>>,
    /// Resolves a path named in the options (overlay's layers).
    pub resolve: &'a dyn Fn(&[u8]) -> Result<VfsPath, Errno>,
}

/// Makes an instance of a file system type.
pub type FsFactory =
    Box<dyn Fn(&MountRequest<'_>) -> Result<Arc<dyn FileSystem>, Errno> + Send + Sync>;

struct FsType {
    factory: Arc<FsFactory>,
}

impl Vfs {
    pub fn new() -> Self {
        let dentries = DentryCache::new(DENTRY_CACHE_LIMIT);
        let vfs = Self {
            paths: PathCache::new(&dentries),
            dentries,
            devices: DeviceRegistry::default(),
            sysctl: FsSysctl {
                protected_symlinks: AtomicBool::new(true),
                protected_hardlinks: AtomicBool::new(true),
                protected_fifos: AtomicBool::new(true),
            },
            types: RwLock::default(),
            // Namespace and pseudo inode numbers start where Linux has them.
            next_id: AtomicU64::new(0xf100_0000),
            next_mount_id: AtomicU64::new(20),
            next_group_id: AtomicU64::new(1),
            next_minor: AtomicU64::new(FIRST_ANONYMOUS_MINOR),
            memory_bytes: AtomicU64::new(4 << 30),
            fifos: FifoRegistry::default(),
            locks: LockManager::new(),
            claims: Arc::default(),
            buffers: BufferPool::default(),
            watches: Arc::default(),
            shm: TmpFs::new(SHM_DEV, &TmpFsOptions::default()),
            mount_lock: Mutex::new(()),
            rename_lock: Mutex::new(()),
        };
        vfs.register_type("tmpfs", Box::new(crate::fs::tmpfs::mount));
        vfs.register_type("sysfs", Box::new(crate::fs::sys::mount));
        vfs.register_type("cgroup2", Box::new(crate::fs::cgroup::mount));
        vfs.register_type("proc", Box::new(crate::fs::proc::mount));
        vfs.register_type("devtmpfs", Box::new(crate::fs::dev::mount));
        crate::fs::dev::register(&vfs.devices);
        crate::fs::devpts::register(&vfs.devices);
        vfs.register_type("devpts", Box::new(crate::fs::devpts::mount));
        vfs.register_type("mqueue", Box::new(crate::fs::mqueue::mount));
        vfs.register_type("overlay", Box::new(crate::fs::overlay::mount));
        vfs
    }

    /// Makes a file system type known to `mount(2)` and `/proc/filesystems`.
    pub fn register_type(&self, name: &'static str, factory: FsFactory) {
        let kind = FsType {
            factory: Arc::new(factory),
        };
        self.types.write().insert(name, kind);
    }

    /// Names for `/proc/filesystems`.
    pub fn type_names(&self) -> Vec<&'static str> {
        self.types.read().keys().copied().collect()
    }

    /// A new instance of type `name`; `ENODEV` for an unknown one.
    pub fn instantiate(
        &self,
        name: &str,
        request: &MountRequest<'_>,
    ) -> Result<Arc<Superblock>, Errno> {
        let factory = self
            .types
            .read()
            .get(name)
            .map(|kind| kind.factory.clone())
            .ok_or(Errno::ENODEV)?;
        Ok(self.superblock(factory(request)?))
    }

    /// The dentry tree of a new file system instance.
    pub fn superblock(&self, fs: Arc<dyn FileSystem>) -> Arc<Superblock> {
        Superblock::new(&self.dentries, fs)
    }

    /// A number for an unnamed inode or a namespace, unique in the sandbox.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A device number for a file system without a device.
    pub fn next_dev(&self) -> u64 {
        let minor = self.next_minor.fetch_add(1, Ordering::Relaxed);
        makedev(0, minor as u32)
    }

    /// Memory of the sandbox in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    pub fn set_memory_bytes(&self, bytes: u64) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
        // Linux has no limit for memfds; without one a guest without a host
        // cgroup of its own takes the whole machine's memory with one call.
        self.shm.limit_bytes(bytes / 2);
    }

    /// Forgets all that can be learnt again.
    pub fn shrink(&self) {
        self.paths.clear();
        self.dentries.shrink();
    }

    pub(super) fn next_mount_id(&self) -> u64 {
        self.next_mount_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn next_group_id(&self) -> u64 {
        self.next_group_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl Default for Vfs {
    fn default() -> Self {
        Self::new()
    }
}
