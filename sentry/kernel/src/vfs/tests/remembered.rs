//! The path cache, asked beside changes of what it remembers.

use super::*;
use crate::vfs::path_cache::Question;

impl World {
    /// What a call resolves `path` to: from the path cache, or by a walk that
    /// fills it. Says which.
    fn ask(&self, path: &str, creds: &Creds) -> (Result<VfsPath, Errno>, bool) {
        let question = Question {
            root: &self.fs.root,
            start: &self.fs.root,
            path: path.as_bytes(),
            flags: WalkFlags::FOLLOW,
            creds,
        };
        if let Some(known) = self.vfs.paths.get(&question) {
            return (known, true);
        }
        let before = self.vfs.paths.before();
        let (root, at) = (self.fs.root.clone(), self.fs.root.clone());
        let mut walk = Walk::new(&self.vfs, creds, root, at, WalkFlags::FOLLOW);
        (walk.resolve_remembering(path.as_bytes(), before), false)
    }

    /// Asks as root; from the second walk on the answer is remembered.
    fn warm(&self, path: &str) {
        let _ = self.ask(path, &self.creds);
        let (walked, _) = self.ask(path, &self.creds);
        let (known, remembered) = self.ask(path, &self.creds);
        assert!(remembered, "{path} is not remembered");
        assert_eq!(walked.is_ok(), known.is_ok());
        if let (Ok(walked), Ok(known)) = (walked, known) {
            assert!(walked.same_place(&known));
        }
    }

    fn shown(&self, path: &str) -> Result<String, Errno> {
        self.ask(path, &self.creds).0.map(|found| self.show(&found))
    }
}

#[test]
fn remembered_paths_follow_every_change() {
    let world = World::new();
    for dir in ["/a", "/a/b", "/c"] {
        world.mkdir(dir).unwrap();
    }
    world.write("/a/b/f", "x").unwrap();
    world.symlink("/a/b", "/l").unwrap();
    let paths = ["/a/b/f", "/l/f", "/a/b", "/a/b/../../c", "/a/b/none"];
    for path in paths {
        world.warm(path);
    }
    // A name that appears, and goes again.
    world.write("/a/b/none", "x").unwrap();
    assert_eq!(world.shown("/a/b/none").unwrap(), "/a/b/none");
    let at = world.at("/a/b/none").unwrap();
    world.vfs.unlink(&world.creds, &at).unwrap();
    assert_eq!(world.shown("/a/b/none").unwrap_err(), Errno::ENOENT);
    // A file that moves: its old name leads nowhere.
    world
        .rename("/a/b/f", "/c/g", RenameFlags::empty())
        .unwrap();
    for path in ["/a/b/f", "/l/f"] {
        assert_eq!(world.shown(path).unwrap_err(), Errno::ENOENT, "{path}");
    }
    world
        .rename("/c/g", "/a/b/f", RenameFlags::empty())
        .unwrap();
    for path in paths {
        world.warm(path);
    }
    // A directory on the way that moves.
    world.rename("/a", "/d", RenameFlags::empty()).unwrap();
    for path in ["/a/b/f", "/l/f", "/a/b"] {
        assert_eq!(world.shown(path).unwrap_err(), Errno::ENOENT, "{path}");
    }
    world.rename("/d", "/a", RenameFlags::empty()).unwrap();
    world.warm("/l/f");
    // A link that is replaced by another.
    let at = world.at("/l").unwrap();
    world.vfs.unlink(&world.creds, &at).unwrap();
    world.symlink("/c", "/l").unwrap();
    assert_eq!(world.shown("/l/f").unwrap_err(), Errno::ENOENT);
    // A link made where nothing was is followed.
    world.warm("/m");
    world.symlink("/a/b/f", "/m").unwrap();
    assert_eq!(world.shown("/m").unwrap(), "/a/b/f");
    // A mount that hides what was there.
    world.warm("/a/b/f");
    let place = world.get("/a").unwrap();
    let sb = new_tmpfs(&world.vfs);
    world.vfs.mount(&sb, &place, MountFlags::empty()).unwrap();
    assert_eq!(world.shown("/a/b/f").unwrap_err(), Errno::ENOENT);
}

#[test]
fn remembered_paths_are_for_equal_rights_only() {
    let world = World::new();
    world.mkdir("/a").unwrap();
    world.write("/a/f", "x").unwrap();
    let dir = world.get("/a").unwrap();
    dir.inode()
        .unwrap()
        .set_attr(&SetAttr {
            perm: Some(0o700),
            ..SetAttr::default()
        })
        .unwrap();
    world.warm("/a/f");
    let (answer, remembered) = world.ask("/a/f", &user(1000));
    assert_eq!((errno(answer), remembered), (Errno::EACCES, false));
    // Another process of the same user with credentials of its own.
    world.warm("/a/f");
    assert!(world.ask("/a/f", &Creds::root()).1);
}

#[test]
fn remembered_paths_keep_no_file_alive() {
    let world = World::new();
    world.write("/f", "x").unwrap();
    world.warm("/f");
    let inode = Arc::downgrade(&world.get("/f").unwrap().inode().unwrap());
    let at = world.at("/f").unwrap();
    drop(world.vfs.unlink(&world.creds, &at).unwrap());
    drop(at);
    assert!(inode.upgrade().is_none());
}
