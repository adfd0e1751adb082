//! Path walks, names and mounts over tmpfs.

mod remembered;

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::OpenFlags;

use super::open::{OpenArgs, Opened, Opener};
use super::path::{ParentAndLast, Walk};
use super::shown::path_from;
use super::*;
use crate::fs::tmpfs::{TmpFs, TmpFsOptions};
use crate::task::{CapSet, Creds, Gid, Uid};

/// A mount tree with a tmpfs at its root.
struct World {
    vfs: Vfs,
    fs: FsState,
    creds: Creds,
}

fn user(uid: u32) -> Creds {
    Creds {
        uid: Uid(uid),
        euid: Uid(uid),
        fsuid: Uid(uid),
        gid: Gid(uid),
        fsgid: Gid(uid),
        effective: CapSet::empty(),
        ..Creds::root()
    }
}

impl World {
    fn new() -> Self {
        let vfs = Vfs::new();
        let tmpfs = new_tmpfs(&vfs);
        let namespace = vfs.new_namespace(&tmpfs, MountFlags::empty());
        let fs = FsState::at_root_of(&namespace).expect("a new namespace has a root");
        Self {
            vfs,
            fs,
            creds: Creds::root(),
        }
    }

    fn walk<'a>(&'a self, path: &str, flags: WalkFlags) -> Walk<'a> {
        let at = if path.starts_with('/') {
            &self.fs.root
        } else {
            &self.fs.cwd
        };
        Walk::new(
            &self.vfs,
            &self.creds,
            self.fs.root.clone(),
            at.clone(),
            flags,
        )
    }

    fn get(&self, path: &str) -> Result<VfsPath, Errno> {
        self.walk(path, WalkFlags::FOLLOW).resolve(path.as_bytes())
    }

    fn at(&self, path: &str) -> Result<ParentAndLast, Errno> {
        self.walk(path, WalkFlags::empty()).parent(path.as_bytes())
    }

    fn mkdir(&self, path: &str) -> Result<VfsPath, Errno> {
        self.vfs.mkdir(&self.creds, &self.at(path)?, 0o755)
    }

    fn symlink(&self, target: &str, path: &str) -> Result<VfsPath, Errno> {
        let at = self.at(path)?;
        self.vfs.symlink(&self.creds, &at, target.as_bytes())
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Result<Opened, Errno> {
        let args = OpenArgs {
            flags,
            perm: 0o644,
            resolve: WalkFlags::empty(),
        };
        let opener = Opener {
            vfs: &self.vfs,
            creds: &self.creds,
            umask: 0o022,
            task: None,
        };
        let mut walk = self.walk(path, args.walk_flags());
        opener.open(&mut walk, path.as_bytes(), &args)
    }

    fn write(&self, path: &str, text: &str) -> Result<(), Errno> {
        let opened = self.open(path, OpenFlags::O_WRONLY | OpenFlags::O_CREAT)?;
        let file = &opened.file;
        assert_eq!(file.ops.write(file, text.as_bytes()), Ok(text.len()));
        Ok(())
    }

    fn read(&self, path: &str) -> Result<String, Errno> {
        let opened = self.open(path, OpenFlags::O_RDONLY)?;
        let mut buf = vec![0; 4096];
        let count = opened.file.ops.read(&opened.file, &mut buf)?;
        buf.truncate(count);
        Ok(String::from_utf8(buf).expect("tests write text"))
    }

    fn rename(&self, old: &str, new: &str, flags: RenameFlags) -> Result<(), Errno> {
        let (old, new) = (self.at(old)?, self.at(new)?);
        let done = self.vfs.rename(&self.creds, &old, &new, flags);
        done.map(drop)
    }

    fn show(&self, path: &VfsPath) -> String {
        let (shown, _) = path_from(&self.fs.root, path);
        String::from_utf8(shown).expect("tests name in text")
    }
}

fn new_tmpfs(vfs: &Vfs) -> Arc<Superblock> {
    let options = TmpFsOptions {
        perm: 0o755,
        ..TmpFsOptions::default()
    };
    vfs.superblock(TmpFs::new(vfs.next_dev(), &options))
}

fn errno<T>(result: Result<T, Errno>) -> Errno {
    result.map(drop).expect_err("this must fail")
}

#[test]
fn walks_find_names() {
    let world = World::new();
    world.mkdir("/a").unwrap();
    world.mkdir("/a/b/").unwrap();
    world.write("/a/b/f", "x").unwrap();
    let file = world.get("/a/./b//../b/f").unwrap();
    assert_eq!(world.show(&file), "/a/b/f");
    assert_eq!(world.show(&world.get("/../..").unwrap()), "/");
    assert_eq!(errno(world.get("/a/c")), Errno::ENOENT);
    assert_eq!(errno(world.get("/a/c/d")), Errno::ENOENT);
    assert_eq!(errno(world.get("/a/b/f/")), Errno::ENOTDIR);
    assert_eq!(errno(world.get("/a/b/f/.")), Errno::ENOTDIR);
    assert_eq!(errno(world.get("/a/b/f/..")), Errno::ENOTDIR);
    assert_eq!(errno(world.get("")), Errno::ENOENT);
    let long = format!("/{}", "n".repeat(256));
    assert_eq!(errno(world.get(&long)), Errno::ENAMETOOLONG);
}

#[test]
fn symlinks_are_followed() {
    let world = World::new();
    world.mkdir("/d").unwrap();
    world.write("/d/f", "text").unwrap();
    world.symlink("d", "/rel").unwrap();
    world.symlink("/rel/", "/abs").unwrap();
    world.symlink("../d/f", "/d/up").unwrap();
    world.symlink("loop2", "/loop1").unwrap();
    world.symlink("loop1", "/loop2").unwrap();
    world.symlink("missing", "/dangling").unwrap();
    assert_eq!(world.read("/abs/up").unwrap(), "text");
    assert_eq!(world.show(&world.get("/abs").unwrap()), "/d");
    assert_eq!(errno(world.get("/loop1")), Errno::ELOOP);
    assert_eq!(errno(world.get("/dangling")), Errno::ENOENT);
    let stay = WalkFlags::empty();
    let link = world.walk("/rel", stay).resolve(b"/rel").unwrap();
    assert_eq!(world.show(&link), "/rel");
    let through = world.walk("/rel/", stay).resolve(b"/rel/").unwrap();
    assert_eq!(world.show(&through), "/d");
    let no_follow = OpenFlags::O_NOFOLLOW;
    assert_eq!(errno(world.open("/rel", no_follow)), Errno::ELOOP);
    // O_CREAT makes the target of a dangling link, unless O_EXCL.
    let exclusive = OpenFlags::O_CREAT | OpenFlags::O_EXCL | OpenFlags::O_WRONLY;
    assert_eq!(errno(world.open("/dangling", exclusive)), Errno::EEXIST);
    world.write("/dangling", "made").unwrap();
    assert_eq!(world.read("/missing").unwrap(), "made");
}

#[test]
fn a_chain_of_forty_links_is_the_limit() {
    let world = World::new();
    world.write("/l0", "end").unwrap();
    for at in 1..=41 {
        let target = format!("l{}", at - 1);
        world.symlink(&target, &format!("/l{at}")).unwrap();
    }
    assert_eq!(world.read("/l40").unwrap(), "end");
    assert_eq!(errno(world.read("/l41")), Errno::ELOOP);
}

#[test]
fn resolve_flags_confine() {
    let mut world = World::new();
    world.mkdir("/jail").unwrap();
    world.mkdir("/jail/in").unwrap();
    world.symlink("/in", "/jail/abs").unwrap();
    world.symlink("../..", "/jail/out").unwrap();
    world.fs.cwd = world.get("/jail").unwrap();
    let run = |path: &str, flags| world.walk("rel", flags).resolve(path.as_bytes());
    let follow = WalkFlags::FOLLOW;
    let beneath = WalkFlags::BENEATH | follow;
    assert!(run("in", beneath).is_ok());
    assert!(run("in/..", beneath).is_ok());
    assert_eq!(errno(run("..", beneath)), Errno::EXDEV);
    assert_eq!(errno(run("/in", beneath)), Errno::EXDEV);
    assert_eq!(errno(run("abs", beneath)), Errno::EXDEV);
    assert_eq!(errno(run("out", beneath)), Errno::EXDEV);
    let in_root = WalkFlags::IN_ROOT | follow;
    assert_eq!(world.show(&run("abs", in_root).unwrap()), "/jail/in");
    assert_eq!(world.show(&run("out", in_root).unwrap()), "/jail");
    let no_links = WalkFlags::NO_SYMLINKS | follow;
    assert_eq!(errno(run("abs", no_links)), Errno::ELOOP);
}

#[test]
fn permissions_are_checked() {
    let mut world = World::new();
    world.mkdir("/private").unwrap();
    world.write("/private/f", "x").unwrap();
    let private = world.get("/private").unwrap().inode().unwrap();
    private
        .set_attr(&SetAttr {
            perm: Some(0o700),
            ..SetAttr::default()
        })
        .unwrap();
    world.creds = user(1000);
    assert_eq!(errno(world.get("/private/f")), Errno::EACCES);
    assert_eq!(errno(world.mkdir("/mine")), Errno::EACCES);
    assert_eq!(errno(world.mkdir("/private")), Errno::EEXIST);
    // One's own class counts, also where it grants less.
    private
        .set_attr(&SetAttr {
            perm: Some(0o077),
            uid: Some(Uid(1000)),
            ..SetAttr::default()
        })
        .unwrap();
    assert_eq!(errno(world.get("/private/f")), Errno::EACCES);
}

#[test]
fn sticky_directories_protect() {
    let mut world = World::new();
    let tmp = world.mkdir("/tmp").unwrap().inode().unwrap();
    tmp.set_attr(&SetAttr {
        perm: Some(0o1777),
        ..SetAttr::default()
    })
    .unwrap();
    world.creds = user(1000);
    world.write("/tmp/f", "x").unwrap();
    world.symlink("f", "/tmp/l").unwrap();
    world.creds = user(1001);
    let unlink = |path: &str| world.vfs.unlink(&world.creds, &world.at(path)?).map(drop);
    assert_eq!(errno(unlink("/tmp/f")), Errno::EPERM);
    assert_eq!(errno(world.get("/tmp/l")), Errno::EACCES);
    let create = OpenFlags::O_CREAT | OpenFlags::O_RDONLY;
    assert_eq!(errno(world.open("/tmp/f", create)), Errno::EACCES);
    assert!(world.open("/tmp/f", OpenFlags::O_RDONLY).is_ok());
}

#[test]
fn removed_names_stay_usable() {
    let world = World::new();
    world.mkdir("/d").unwrap();
    world.write("/d/f", "x").unwrap();
    let opened = world.open("/d/f", OpenFlags::O_RDWR).unwrap();
    let at = world.at("/d/f").unwrap();
    world.vfs.unlink(&world.creds, &at).unwrap();
    assert_eq!(errno(world.get("/d/f")), Errno::ENOENT);
    assert_eq!(world.show(&opened.file.path), "/d/f (deleted)");
    assert_eq!(opened.file.attr().unwrap().nlink, 0);
    let mut buf = [0; 4];
    assert_eq!(opened.file.ops.read(&opened.file, &mut buf), Ok(1));
    world.write("/d/f", "new").unwrap();
    assert_eq!(world.read("/d/f").unwrap(), "new");
    let rmdir = |path: &str| world.vfs.rmdir(&world.creds, &world.at(path)?).map(drop);
    assert_eq!(errno(rmdir("/d")), Errno::ENOTEMPTY);
    assert_eq!(errno(rmdir("/d/.")), Errno::EINVAL);
    assert_eq!(errno(rmdir("/d/..")), Errno::ENOTEMPTY);
    assert_eq!(errno(rmdir("/")), Errno::EBUSY);
    assert_eq!(errno(rmdir("/d/f")), Errno::ENOTDIR);
    let again = world.at("/d/f/").unwrap();
    assert_eq!(
        errno(world.vfs.unlink(&world.creds, &again)),
        Errno::ENOTDIR
    );
}

#[test]
fn a_removed_directory_takes_no_names() {
    let mut world = World::new();
    let dir = world.mkdir("/d").unwrap();
    let at = world.at("/d").unwrap();
    world.vfs.rmdir(&world.creds, &at).unwrap();
    world.fs.cwd = dir.clone();
    assert_eq!(errno(world.mkdir("x")), Errno::ENOENT);
    assert_eq!(errno(world.open("x", OpenFlags::O_CREAT)), Errno::ENOENT);
    assert_eq!(world.show(&dir), "/d (deleted)");
    assert_eq!(world.show(&world.get("..").unwrap()), "/");
}

#[test]
fn renames_move_names() {
    let world = World::new();
    let none = RenameFlags::empty();
    world.mkdir("/a").unwrap();
    world.mkdir("/b").unwrap();
    world.write("/a/f", "f").unwrap();
    world.write("/b/g", "g").unwrap();
    let open = world.open("/a/f", OpenFlags::O_RDONLY).unwrap();
    world.rename("/a/f", "/b/g", none).unwrap();
    assert_eq!(world.show(&open.file.path), "/b/g");
    assert_eq!(world.read("/b/g").unwrap(), "f");
    assert_eq!(errno(world.get("/a/f")), Errno::ENOENT);
    assert_eq!(errno(world.rename("/a/f", "/x", none)), Errno::ENOENT);
    assert_eq!(errno(world.rename("/b", "/b/in", none)), Errno::EINVAL);
    assert_eq!(errno(world.rename("/b/g", "/b", none)), Errno::ENOTEMPTY);
    assert_eq!(errno(world.rename("/b/g", "/a", none)), Errno::EISDIR);
    assert_eq!(errno(world.rename("/a", "/b/g", none)), Errno::ENOTDIR);
    assert_eq!(errno(world.rename("/b/g", "/new/", none)), Errno::ENOTDIR);
    assert_eq!(errno(world.rename("/a/.", "/c", none)), Errno::EBUSY);
    let no_replace = RenameFlags::NOREPLACE;
    assert_eq!(errno(world.rename("/a", "/b", no_replace)), Errno::EEXIST);
    world.rename("/a", "/b", none).map(drop).unwrap_err();
    world
        .rename("/b/g", "/a/inner", RenameFlags::empty())
        .unwrap();
    world
        .rename("/a/inner", "/b", RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!(world.read("/b").unwrap(), "f");
    assert!(world.get("/a/inner/").is_ok());
    let (parent, _) = world.get("/a/inner").unwrap().dentry.parent_and_name();
    assert!(Arc::ptr_eq(
        &parent.expect("it has a parent"),
        &world.get("/a").unwrap().dentry
    ));
}

#[test]
fn hard_links_share_the_inode() {
    let world = World::new();
    world.write("/f", "x").unwrap();
    let old = world.get("/f").unwrap();
    let at = world.at("/g").unwrap();
    world.vfs.link(&world.creds, &old, &at).unwrap();
    assert_eq!(old.inode().unwrap().attr().unwrap().nlink, 2);
    assert!(Arc::ptr_eq(
        &old.inode().unwrap(),
        &world.get("/g").unwrap().inode().unwrap()
    ));
    // Renaming one link onto the other does nothing.
    world.rename("/f", "/g", RenameFlags::empty()).unwrap();
    assert!(world.get("/f").is_ok());
    world.mkdir("/d").unwrap();
    let dir = world.get("/d").unwrap();
    let at = world.at("/e").unwrap();
    assert_eq!(errno(world.vfs.link(&world.creds, &dir, &at)), Errno::EPERM);
}

#[test]
fn nameless_files_can_be_linked_once_wanted() {
    let world = World::new();
    let opened = world
        .open("/", OpenFlags::O_TMPFILE | OpenFlags::O_RDWR)
        .unwrap();
    assert_eq!(opened.file.attr().unwrap().nlink, 0);
    let at = world.at("/named").unwrap();
    world
        .vfs
        .link(&world.creds, &opened.file.path, &at)
        .unwrap();
    assert_eq!(opened.file.attr().unwrap().nlink, 1);
    assert!(world.get("/named").is_ok());
    let exclusive = OpenFlags::O_TMPFILE | OpenFlags::O_RDWR | OpenFlags::O_EXCL;
    let opened = world.open("/", exclusive).unwrap();
    let at = world.at("/other").unwrap();
    let linked = world.vfs.link(&world.creds, &opened.file.path, &at);
    assert_eq!(errno(linked), Errno::ENOENT);
}

#[test]
fn open_says_what_linux_says() {
    let world = World::new();
    world.mkdir("/d").unwrap();
    world.write("/f", "text").unwrap();
    let create = OpenFlags::O_CREAT;
    assert_eq!(errno(world.open("/d", OpenFlags::O_WRONLY)), Errno::EISDIR);
    assert_eq!(errno(world.open("/d", create)), Errno::EISDIR);
    assert_eq!(errno(world.open("/new/", create)), Errno::EISDIR);
    assert_eq!(
        errno(world.open("/d", create | OpenFlags::O_EXCL)),
        Errno::EEXIST
    );
    assert_eq!(
        errno(world.open("/f", OpenFlags::O_DIRECTORY)),
        Errno::ENOTDIR
    );
    assert_eq!(errno(world.open("/x/y", create)), Errno::ENOENT);
    let truncated = world.open("/f", OpenFlags::O_WRONLY | OpenFlags::O_TRUNC);
    assert_eq!(truncated.unwrap().file.attr().unwrap().size_bytes, 0);
    let path_only = world.open("/f", OpenFlags::O_PATH).unwrap();
    assert!(path_only.file.mode.is_empty());
    assert_eq!(path_only.file.attr().unwrap().perm, 0o644);
}

#[test]
fn mounts_hide_and_reveal() {
    let world = World::new();
    world.mkdir("/m").unwrap();
    world.write("/m/below", "b").unwrap();
    let place = world.get("/m").unwrap();
    let sb = new_tmpfs(&world.vfs);
    world.vfs.mount(&sb, &place, MountFlags::empty()).unwrap();
    assert_eq!(errno(world.get("/m/below")), Errno::ENOENT);
    world.write("/m/above", "a").unwrap();
    assert_eq!(world.show(&world.get("/m/above").unwrap()), "/m/above");
    assert_eq!(world.show(&world.get("/m/..").unwrap()), "/");
    assert_eq!(
        errno(world.rename("/m/above", "/above", RenameFlags::empty())),
        Errno::EXDEV
    );
    assert_eq!(
        errno(world.rename("/m", "/n", RenameFlags::empty())),
        Errno::EBUSY
    );
    let rmdir = world.vfs.rmdir(&world.creds, &world.at("/m").unwrap());
    assert_eq!(errno(rmdir), Errno::EBUSY);
    // Busy while a file is open, unless detached.
    let open = world.open("/m/above", OpenFlags::O_RDONLY).unwrap();
    let target = world.get("/m").unwrap();
    assert_eq!(
        errno(world.vfs.umount(target, UmountMode::Normal)),
        Errno::EBUSY
    );
    let target = world.get("/m").unwrap();
    world.vfs.umount(target, UmountMode::Detach).unwrap();
    assert_eq!(world.read("/m/below").unwrap(), "b");
    let mut buf = [0; 4];
    assert_eq!(open.file.ops.read(&open.file, &mut buf), Ok(1));
    assert!(!place.dentry.is_mountpoint());
}

#[test]
fn bind_mounts_share_names() {
    let world = World::new();
    world.mkdir("/a").unwrap();
    world.mkdir("/a/sub").unwrap();
    world.mkdir("/b").unwrap();
    let source = world.get("/a").unwrap();
    let place = world.get("/b").unwrap();
    world.vfs.bind(&source, &place, false).unwrap();
    world.write("/b/sub/f", "x").unwrap();
    assert_eq!(world.read("/a/sub/f").unwrap(), "x");
    assert_eq!(world.show(&world.get("/b/sub/f").unwrap()), "/b/sub/f");
    assert_eq!(world.show(&world.get("/b/..").unwrap()), "/");
    let bound = world.get("/b").unwrap();
    world
        .vfs
        .set_mount_flags(&bound, MountFlags::RDONLY)
        .unwrap();
    assert_eq!(errno(world.write("/b/sub/g", "x")), Errno::EROFS);
    assert!(world.write("/a/sub/g", "x").is_ok());
    drop(bound);
    world
        .vfs
        .umount(world.get("/b").unwrap(), UmountMode::Normal)
        .unwrap();
    assert_eq!(errno(world.get("/b/sub")), Errno::ENOENT);
}

#[test]
fn shared_mounts_propagate() {
    let world = World::new();
    world.mkdir("/a").unwrap();
    world.mkdir("/b").unwrap();
    let sb = new_tmpfs(&world.vfs);
    let none = MountFlags::empty();
    world
        .vfs
        .mount(&sb, &world.get("/a").unwrap(), none)
        .unwrap();
    let a = world.get("/a").unwrap();
    world
        .vfs
        .set_propagation(&a, PropagationType::Shared, false)
        .unwrap();
    world
        .vfs
        .bind(&a, &world.get("/b").unwrap(), false)
        .unwrap();
    world.mkdir("/a/m").unwrap();
    let inner = new_tmpfs(&world.vfs);
    world
        .vfs
        .mount(&inner, &world.get("/a/m").unwrap(), none)
        .unwrap();
    world.write("/a/m/f", "seen").unwrap();
    assert_eq!(world.read("/b/m/f").unwrap(), "seen");
    let target = world.get("/b/m").unwrap();
    world.vfs.umount(target, UmountMode::Normal).unwrap();
    assert_eq!(errno(world.get("/a/m/f")), Errno::ENOENT);
}

#[test]
fn namespaces_are_copies() {
    let world = World::new();
    world.mkdir("/m").unwrap();
    let copy = world
        .vfs
        .clone_namespace(&world.fs, world.creds.user_ns.clone())
        .unwrap();
    let sb = new_tmpfs(&world.vfs);
    let place = world.get("/m").unwrap();
    world.vfs.mount(&sb, &place, MountFlags::empty()).unwrap();
    assert_eq!(world.fs.namespace.mounts().len(), 2);
    assert_eq!(copy.namespace.mounts().len(), 1);
    assert!(!Arc::ptr_eq(&copy.root.mount, &world.fs.root.mount));
    assert!(Arc::ptr_eq(&copy.root.dentry, &world.fs.root.dentry));
}

#[test]
fn pivot_root_swaps_trees() {
    let mut world = World::new();
    world.mkdir("/new").unwrap();
    world.write("/old-file", "o").unwrap();
    let sb = new_tmpfs(&world.vfs);
    world
        .vfs
        .mount(&sb, &world.get("/new").unwrap(), MountFlags::empty())
        .unwrap();
    world.mkdir("/new/put").unwrap();
    let new_root = world.get("/new").unwrap();
    let put_old = world.get("/new/put").unwrap();
    world
        .vfs
        .pivot_root(&world.fs.root, &new_root, &put_old)
        .unwrap();
    world.fs.root = new_root.clone();
    world.fs.cwd = new_root;
    assert_eq!(world.read("/put/old-file").unwrap(), "o");
    assert_eq!(
        world.show(&world.get("/put/old-file").unwrap()),
        "/put/old-file"
    );
}

#[test]
fn the_cache_is_bounded_and_deep_trees_drop() {
    let mut world = World::new();
    let root = world.fs.cwd.clone();
    for _ in 0..20_000 {
        world.fs.cwd = world.mkdir("d").unwrap();
    }
    world.vfs.dentries.shrink();
    assert!(world.vfs.dentries.is_empty());
    world.fs.cwd = root;
    assert!(world.get("/d/d/d").is_ok());

    world.vfs.shrink();
    world.vfs.dentries.limit(100);
    for number in 0..300 {
        world.mkdir(&format!("/e{number}")).unwrap();
    }
    let usage = world.vfs.dentries.usage();
    assert_eq!(usage.entries, 100);
    assert!((10_000..1_000_000).contains(&usage.bytes), "{usage:?}");
    assert!(world.get("/e7").is_ok());
}
