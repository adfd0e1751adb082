//! The sentry's file system over a real gofer: both ends in one process.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sentry_kernel::fs::gofer::{CachePolicy, Connection, GoferFs};
use sentry_kernel::task::Creds;
use sentry_kernel::vfs::path::Walk;
use sentry_kernel::vfs::{
    DirEntry, File, FileKind, FileSystem, FsState, InodeRef, MapSource, MountFlags, OpenMode,
    OpenRequest, RenameFlags, SetAttr, SetTime, StatusFlags, Timestamp, Vfs, VfsPath, WalkFlags,
    XattrFlags,
};
use syscall_tables::Errno;

/// A gofer on a temporary directory, mounted as the root of a namespace.
struct World {
    dir: PathBuf,
    vfs: Vfs,
    state: FsState,
    connection: Arc<Connection>,
    creds: Creds,
}

impl World {
    fn new(policy: CachePolicy) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("gofer-fs-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).expect("temporary directory");
        let connection = serve(&dir);
        let vfs = Vfs::new();
        let fs = GoferFs::attach(&vfs, &connection, 0, policy, "none").expect("attach");
        assert!(fs.stat().expect("statfs").blocks > 0);
        let sb = vfs.superblock(fs);
        let namespace = vfs.new_namespace(&sb, MountFlags::empty());
        let state = FsState::at_root_of(&namespace).expect("root");
        Self {
            dir,
            vfs,
            state,
            connection,
            creds: Creds::root(),
        }
    }

    fn host(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    fn walk(&self) -> Walk<'_> {
        Walk::new(
            &self.vfs,
            &self.creds,
            self.state.root.clone(),
            self.state.root.clone(),
            WalkFlags::FOLLOW,
        )
    }

    fn get(&self, path: &str) -> Result<VfsPath, Errno> {
        self.walk().resolve(path.as_bytes())
    }

    fn inode(&self, path: &str) -> InodeRef {
        self.get(path).expect(path).inode().expect(path)
    }

    fn root(&self) -> InodeRef {
        self.state.root.inode().expect("root")
    }

    fn make(&self, path: &str) -> InodeRef {
        let at = self.walk().parent(path.as_bytes()).expect("parent");
        let made = self
            .vfs
            .mknod(&self.creds, &at, FileKind::Regular, 0o644, 0)
            .expect("file");
        made.inode().expect("inode")
    }

    fn unlink(&self, path: &str) -> Result<(), Errno> {
        let at = self.walk().parent(path.as_bytes())?;
        self.vfs.unlink(&self.creds, &at).map(drop)
    }

    fn rename(&self, from: &str, to: &str, flags: RenameFlags) -> Result<(), Errno> {
        let old = self.walk().parent(from.as_bytes())?;
        let new = self.walk().parent(to.as_bytes())?;
        self.vfs.rename(&self.creds, &old, &new, flags).map(drop)
    }

    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<File>, Errno> {
        let path = self.get(path)?;
        let inode = path.inode()?;
        let ops = inode.open(&OpenRequest {
            read: mode.contains(OpenMode::READ),
            write: mode.contains(OpenMode::WRITE),
            truncate: false,
            append: false,
            direct: false,
            nonblock: false,
        })?;
        Ok(File::new(ops, path, mode, StatusFlags::empty()))
    }

    fn list(&self, path: &str) -> Vec<DirEntry> {
        let file = self.open(path, OpenMode::READ).expect("directory");
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            // A few at a time, as a guest with a small buffer.
            let mut batch = Vec::new();
            file.ops
                .read_dir(&file, offset, &mut |entry| {
                    let takes = batch.len() < 7;
                    if takes {
                        batch.push(entry);
                    }
                    takes
                })
                .expect("list");
            match batch.last() {
                Some(last) => offset = last.next_offset,
                None => return all,
            }
            all.append(&mut batch);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn serve(dir: &std::path::Path) -> Arc<Connection> {
    let ring = gofer::create_ring().expect("ring");
    let (ours, theirs) = gofer::create_socket().expect("socket");
    let fd: OwnedFd = std::fs::File::open(dir).expect("root").into();
    let root = gofer::Root {
        fd,
        access: gofer::Access::ReadWrite,
    };
    let served = ring.try_clone().expect("ring");
    std::thread::spawn(move || {
        let proc_fd = gofer::ProcFd::open().expect("proc");
        gofer::serve(
            gofer::Config::default(),
            proc_fd,
            served,
            theirs,
            vec![root],
        )
    });
    GoferFs::connect(ring, ours).expect("connection")
}

const RW: OpenMode = OpenMode::READ.union(OpenMode::WRITE);

#[test]
fn files_are_written_through_to_the_host() {
    let world = World::new(CachePolicy::ROOTFS);
    std::fs::create_dir_all(world.host("a/b")).expect("dirs");
    world.make("a/b/f");
    let file = world.open("a/b/f", RW).expect("open");
    assert_eq!(
        file.ops.write_at(&file, b"hello world", 0, false),
        Ok((11, 11))
    );
    assert_eq!(file.ops.write_at(&file, b"!", 0, true), Ok((1, 12)));
    assert_eq!(
        std::fs::read(world.host("a/b/f")).expect("read"),
        b"hello world!"
    );
    assert_eq!(world.inode("a/b/f").attr().expect("attr").size_bytes, 12);
    let mut buf = [0; 32];
    assert_eq!(file.ops.read_at(&file, &mut buf, 6), Ok(6));
    assert_eq!(buf.get(..6), Some(b"world!".as_slice()));
    assert_eq!(file.ops.read_at(&file, &mut buf, 100), Ok(0));
    file.ops.truncate(&file, 4).expect("truncate");
    assert_eq!(file.ops.end_position(&file), Ok(4));
    assert_eq!(file.attr().expect("attr").size_bytes, 4);
    file.ops.allocate(&file, 0, 0, 8192).expect("fallocate");
    assert_eq!(file.attr().expect("attr").size_bytes, 8192);
    file.ops.sync(&file, false).expect("fsync");
    assert!(matches!(file.ops.map(&file), Ok(MapSource::Host { .. })));
    // A directory is no file to read.
    let dir = world.open("a", OpenMode::READ).expect("open");
    assert!(dir.ops.read_at(&dir, &mut buf, 0).is_err());
    dir.ops.sync(&dir, false).expect("fsync of a directory");
}

#[test]
fn attributes_and_their_changes() {
    let world = World::new(CachePolicy::ROOTFS);
    let inode = world.make("f");
    let changes = SetAttr {
        perm: Some(0o4711),
        uid: Some(sentry_kernel::task::Uid(12)),
        size_bytes: Some(100),
        mtime: Some(SetTime::To(Timestamp {
            secs: 1000,
            nanos: 5,
        })),
        ..SetAttr::default()
    };
    inode.set_attr(&changes).expect("set");
    let attr = inode.attr().expect("attr");
    assert_eq!((attr.perm, attr.uid.0, attr.size_bytes), (0o4711, 12, 100));
    assert_eq!(attr.mtime.secs, 1000);
    assert_eq!(attr.dev, world.root().attr().expect("attr").dev);
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(world.host("f")).expect("meta");
    assert_eq!(
        (meta.mode(), meta.uid(), meta.ino()),
        (0o104_711, 12, attr.ino)
    );
}

#[test]
fn hard_links_are_one_inode() {
    let world = World::new(CachePolicy::ROOTFS);
    std::fs::write(world.host("a"), b"x").expect("file");
    std::fs::hard_link(world.host("a"), world.host("b")).expect("link");
    let (a, b) = (world.inode("a"), world.inode("b"));
    assert!(Arc::ptr_eq(&a, &b));
    world.root().link(b"c", &a).expect("link");
    assert_eq!(a.attr().expect("attr").nlink, 3);
    world.unlink("a").expect("unlink");
    // The other names go on working.
    assert_eq!(b.attr().expect("attr").nlink, 2);
    let set = SetAttr {
        perm: Some(0o600),
        ..SetAttr::default()
    };
    b.set_attr(&set).expect("chmod by another name");
    world.open("b", OpenMode::READ).expect("open");
}

#[test]
fn removed_files_live_while_open() {
    let world = World::new(CachePolicy::ROOTFS);
    world.make("f");
    let file = world.open("f", RW).expect("open");
    world.unlink("f").expect("unlink");
    assert_eq!(world.get("f").err(), Some(Errno::ENOENT));
    file.ops
        .write_at(&file, b"still here", 0, false)
        .expect("write");
    let attr = file.attr().expect("attr");
    assert_eq!((attr.nlink, attr.size_bytes), (0, 10));
    let set = SetAttr {
        perm: Some(0o640),
        ..SetAttr::default()
    };
    let inode = file.path.inode().expect("inode");
    inode.set_attr(&set).expect("fchmod");
    assert_eq!(file.attr().expect("attr").perm, 0o640);
    // A new file of that name is another one.
    let again = world.make("f");
    assert!(!Arc::ptr_eq(&again, &inode));
    assert_eq!(again.attr().expect("attr").size_bytes, 0);

    // Not open when removed: attributes are still answered.
    let inode = world.make("g");
    world.unlink("g").expect("unlink");
    assert_eq!(inode.attr().expect("attr").nlink, 0);
}

#[test]
fn renames_move_whole_trees() {
    let world = World::new(CachePolicy::ROOTFS);
    std::fs::create_dir_all(world.host("d/e")).expect("dirs");
    std::fs::write(world.host("d/e/f"), b"1").expect("file");
    std::fs::write(world.host("g"), b"22").expect("file");
    let f = world.inode("d/e/f");
    let none = RenameFlags::empty();
    world.rename("d", "moved", none).expect("rename");
    assert!(Arc::ptr_eq(&f, &world.inode("moved/e/f")));
    assert_eq!(world.get("d").err(), Some(Errno::ENOENT));
    let g = world.inode("g");
    world
        .rename("g", "moved/e/f", RenameFlags::EXCHANGE)
        .expect("exchange");
    assert!(Arc::ptr_eq(&g, &world.inode("moved/e/f")));
    assert!(Arc::ptr_eq(&f, &world.inode("g")));
    assert_eq!(f.attr().expect("attr").size_bytes, 1);
    // Over an open file.
    let open = world.open("g", OpenMode::READ).expect("open");
    world.rename("moved/e/f", "g", none).expect("replace");
    assert!(Arc::ptr_eq(&g, &world.inode("g")));
    assert_eq!(open.attr().expect("attr").nlink, 0);
    let set = SetAttr {
        perm: Some(0o600),
        ..SetAttr::default()
    };
    g.set_attr(&set).expect("chmod at the new place");
    assert_eq!(
        world.rename("moved", "moved/e/x", none).err(),
        Some(Errno::EINVAL)
    );
}

#[test]
fn links_directories_and_special_nodes() {
    let world = World::new(CachePolicy::ROOTFS);
    let root = world.root();
    root.mkdir(b"d", 0o750, &world.creds).expect("mkdir");
    root.symlink(b"l", b"d", &world.creds).expect("symlink");
    assert_eq!(world.inode("l").kind(), FileKind::Directory);
    let link = root.lookup(b"l").expect("link");
    assert_eq!(link.readlink(), Ok(b"d".to_vec()));
    let fifo = root
        .create(b"p", FileKind::Fifo, 0o600, 0, &world.creds)
        .expect("fifo");
    assert_eq!(fifo.kind(), FileKind::Fifo);
    assert_eq!(
        root.create(b"n", FileKind::CharDevice, 0o600, 0x103, &world.creds)
            .err(),
        Some(Errno::EPERM)
    );
    let tmp = root.tmpfile(0o600, &world.creds).expect("tmpfile");
    assert_eq!(tmp.attr().expect("attr").nlink, 0);
    root.link(b"named", &tmp).expect("link");
    assert_eq!(tmp.attr().expect("attr").nlink, 1);
    assert!(Arc::ptr_eq(&tmp, &world.inode("named")));
    root.rmdir(b"d").expect("rmdir");
    assert_eq!(root.lookup(b"d").err(), Some(Errno::ENOENT));
    assert_eq!(root.lookup(&[b'x'; 300]).err(), Some(Errno::ENAMETOOLONG));
}

#[test]
fn set_gid_directories_pass_their_group_on() {
    let world = World::new(CachePolicy::ROOTFS);
    let dir = world.root().mkdir(b"d", 0o755, &world.creds).expect("dir");
    let set = SetAttr {
        perm: Some(0o2775),
        gid: Some(sentry_kernel::task::Gid(77)),
        ..SetAttr::default()
    };
    dir.set_attr(&set).expect("chmod");
    let sub = dir.mkdir(b"s", 0o755, &world.creds).expect("dir");
    let attr = sub.attr().expect("attr");
    assert_eq!((attr.gid.0, attr.perm), (77, 0o2755));
    let file = dir
        .create(b"f", FileKind::Regular, 0o644, 0, &world.creds)
        .expect("file");
    assert_eq!(file.attr().expect("attr").gid.0, 77);
}

#[test]
fn directories_are_listed_in_small_bites() {
    let world = World::new(CachePolicy::ROOTFS);
    for i in 0..2500 {
        std::fs::write(world.host(&format!("file-{i}")), b"").expect("file");
    }
    let mut names: Vec<_> = world
        .list("/")
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort();
    let up = world
        .list("/")
        .into_iter()
        .find(|entry| entry.name.as_slice() == b"..");
    assert_eq!(up.expect("..").ino, world.root().attr().expect("attr").ino);
    let before = names.len();
    names.dedup();
    assert_eq!((before, names.len()), (2502, 2502));
}

#[test]
fn changes_on_the_host_are_seen_in_time() {
    let ttl = Duration::from_millis(300);
    for (policy, wait) in [
        (CachePolicy::SHARED, Duration::ZERO),
        (CachePolicy::Expiring(ttl), ttl + Duration::from_millis(100)),
    ] {
        let world = World::new(policy);
        std::fs::create_dir(world.host("d")).expect("dir");
        std::fs::write(world.host("d/f"), b"1").expect("file");
        let old = world.inode("d/f");
        assert_eq!(world.get("d/new").err(), Some(Errno::ENOENT));
        std::fs::write(world.host("d/new"), b"new").expect("file");
        std::fs::write(world.host("d/tmp"), b"replaced").expect("file");
        std::fs::rename(world.host("d/tmp"), world.host("d/f")).expect("rename");
        std::thread::sleep(wait);
        assert_eq!(world.inode("d/new").attr().expect("attr").size_bytes, 3);
        let now = world.inode("d/f");
        assert!(!Arc::ptr_eq(&old, &now));
        assert_eq!(now.attr().expect("attr").size_bytes, 8);
        std::fs::remove_file(world.host("d/new")).expect("remove");
        std::thread::sleep(wait);
        assert_eq!(world.get("d/new").err(), Some(Errno::ENOENT));
    }
}

#[test]
fn a_file_replaced_under_a_cached_name_opens_as_the_new_one() {
    let world = World::new(CachePolicy::Expiring(Duration::from_secs(600)));
    std::fs::write(world.host("conf"), b"old").expect("file");
    world.inode("conf").attr().expect("cached");
    std::fs::write(world.host("tmp"), b"newer").expect("file");
    std::fs::rename(world.host("tmp"), world.host("conf")).expect("rename");
    let file = world.open("conf", OpenMode::READ).expect("open");
    let mut buf = [0; 16];
    assert_eq!(file.ops.read_at(&file, &mut buf, 0), Ok(5));
    assert_eq!(file.attr().expect("attr").size_bytes, 5);
}

#[test]
fn an_exclusive_mount_needs_no_asking() {
    let world = World::new(CachePolicy::Exclusive);
    std::fs::write(world.host("f"), b"1").expect("file");
    assert_eq!(world.inode("f").attr().expect("attr").size_bytes, 1);
    std::fs::write(world.host("f"), b"changed").expect("file");
    assert_eq!(world.inode("f").attr().expect("attr").size_bytes, 1);
    // Own changes are seen at once.
    let file = world.open("f", RW).expect("open");
    file.ops.write_at(&file, b"x", 50, false).expect("write");
    assert_eq!(world.inode("f").attr().expect("attr").size_bytes, 51);
}

#[test]
fn extended_attributes() {
    let world = World::new(CachePolicy::ROOTFS);
    let inode = world.make("f");
    if inode.set_xattr(b"user.a", b"1", XattrFlags::empty()) == Err(Errno::EOPNOTSUPP) {
        eprintln!("skipped: no user attributes on this file system");
        return;
    }
    assert_eq!(inode.get_xattr(b"user.a"), Ok(b"1".to_vec()));
    assert_eq!(inode.list_xattr(), Ok(vec![b"user.a".to_vec()]));
    assert_eq!(
        inode.set_xattr(b"user.a", b"2", XattrFlags::CREATE),
        Err(Errno::EEXIST)
    );
    inode.remove_xattr(b"user.a").expect("remove");
    assert_eq!(inode.get_xattr(b"user.a"), Err(Errno::ENODATA));
}

#[test]
fn many_files_from_many_threads() {
    let world = World::new(CachePolicy::ROOTFS);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let world = &world;
            scope.spawn(move || {
                let dir = format!("t{thread}");
                let root = world.root();
                root.mkdir(dir.as_bytes(), 0o755, &world.creds)
                    .expect("dir");
                for i in 0..150 {
                    let path = format!("{dir}/{i}");
                    world.make(&path);
                    let file = world.open(&path, RW).expect("open");
                    file.ops
                        .write_at(&file, path.as_bytes(), 0, false)
                        .expect("write");
                    if i % 3 == 0 {
                        world
                            .rename(&path, &format!("{dir}/r{i}"), RenameFlags::empty())
                            .expect("rename");
                    } else if i % 3 == 1 {
                        world.unlink(&path).expect("unlink");
                    }
                    let mut buf = [0; 16];
                    assert_eq!(file.ops.read_at(&file, &mut buf, 0), Ok(path.len()));
                }
                assert_eq!(world.list(&dir).len(), 102);
            });
        }
    });
    assert!(!world.connection.is_gone());
}

#[test]
fn without_a_gofer_all_calls_fail() {
    let ring = gofer::create_ring().expect("ring");
    let (ours, theirs) = gofer::create_socket().expect("socket");
    let connection = GoferFs::connect(ring, ours).expect("connection");
    drop(theirs);
    let vfs = Vfs::new();
    let start = std::time::Instant::now();
    let result = GoferFs::attach(&vfs, &connection, 0, CachePolicy::ROOTFS, "none");
    assert_eq!(result.err(), Some(Errno::EIO));
    assert!(start.elapsed() < Duration::from_secs(1));
}

/// `cargo test --release -p runsc --test gofer_fs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn latency() {
    let world = World::new(CachePolicy::ROOTFS);
    std::fs::create_dir_all(world.host("a/b/c")).expect("dirs");
    std::fs::write(world.host("a/b/c/f"), [7; 8192]).expect("file");
    let measure = |what: &str, call: &mut dyn FnMut()| {
        const ROUNDS: u32 = 50_000;
        let start = std::time::Instant::now();
        for _ in 0..ROUNDS {
            call();
        }
        println!(
            "{what:32} {:6} ns",
            start.elapsed().as_nanos() / u128::from(ROUNDS)
        );
    };
    measure("stat of 4 components", &mut || {
        world.inode("a/b/c/f").attr().expect("attr");
    });
    measure("stat of nothing", &mut || {
        assert!(world.get("a/b/c/none").is_err());
    });
    measure("open, read only", &mut || {
        world.open("a/b/c/f", OpenMode::READ).expect("open");
    });
    measure("open, to write", &mut || {
        world.open("a/b/c/f", RW).expect("open");
    });
    let file = world.open("a/b/c/f", RW).expect("open");
    let mut buf = [0; 4096];
    measure("read of 1 byte", &mut || {
        file.ops.read_at(&file, &mut buf[..1], 0).expect("read");
    });
    measure("read of 4096 bytes", &mut || {
        file.ops.read_at(&file, &mut buf, 0).expect("read");
    });
    measure("write of 4096 bytes", &mut || {
        file.ops.write_at(&file, &buf, 0, false).expect("write");
    });
    measure("fstat after a write", &mut || {
        file.ops.write_at(&file, &buf, 0, false).expect("write");
        file.attr().expect("attr");
    });
    measure("create and unlink", &mut || {
        world.make("a/new");
        world.unlink("a/new").expect("unlink");
    });
}
