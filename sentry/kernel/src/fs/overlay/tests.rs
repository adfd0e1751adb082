//! Overlays over tmpfs layers.

use std::sync::Arc;

use syscall_tables::Errno;

use super::*;
use crate::vfs::{
    File, OpenMode, OpenRequest, RenameFlags, SetAttr, StatusFlags, VfsPath, XattrFlags,
};

struct World {
    lower: Arc<TmpFs>,
    overlay: Arc<OverlayFs>,
    upper: InodeRef,
    work: InodeRef,
}

fn tmpfs(dev: u64) -> Arc<TmpFs> {
    TmpFs::new(dev, &TmpFsOptions::default())
}

fn dir(parent: &InodeRef, name: &str) -> InodeRef {
    let made = parent.mkdir(name.as_bytes(), 0o755, &Creds::root());
    made.expect("the name is free")
}

fn open(inode: &InodeRef, write: bool) -> Result<Arc<File>, Errno> {
    let request = OpenRequest {
        read: true,
        write,
        truncate: false,
        append: false,
        direct: false,
        nonblock: false,
    };
    let ops = inode.clone().open(&request)?;
    let path = VfsPath::anonymous(inode.clone(), String::new());
    Ok(File::new(ops, path, OpenMode::READ, StatusFlags::empty()))
}

fn write(inode: &InodeRef, text: &str) {
    let file = open(inode, true).expect("writable");
    let done = file.ops.write_at(&file, text.as_bytes(), 0, false);
    assert_eq!(done.map(|(count, _)| count), Ok(text.len()));
}

fn read(inode: &InodeRef) -> String {
    let file = open(inode, false).expect("readable");
    read_file(&file)
}

fn read_file(file: &File) -> String {
    let mut buf = vec![0; 4096];
    let count = file.ops.read_at(file, &mut buf, 0).expect("readable");
    buf.truncate(count);
    String::from_utf8(buf).expect("tests write text")
}

fn file(parent: &InodeRef, name: &str, text: &str) -> InodeRef {
    let creds = Creds::root();
    let made = parent.create(name.as_bytes(), FileKind::Regular, 0o644, 0, &creds);
    let made = made.expect("the name is free");
    write(&made, text);
    made
}

fn names(inode: &InodeRef) -> Vec<String> {
    let file = open(inode, false).expect("a directory");
    let mut names = Vec::new();
    let mut position = 0;
    // In steps, as getdents does.
    loop {
        let before = position;
        let mut room = 2;
        file.ops
            .read_dir(&file, position, &mut |entry| {
                if room == 0 {
                    return false;
                }
                room -= 1;
                position = entry.next_offset;
                names.push(String::from_utf8(entry.name.into_vec()).expect("tests name in text"));
                true
            })
            .expect("a directory");
        if position == before {
            break;
        }
    }
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

impl World {
    fn new(fill: impl FnOnce(&InodeRef)) -> Self {
        let lower = tmpfs(1);
        fill(&lower.root());
        let fs = tmpfs(2);
        let (upper, work) = (dir(&fs.root(), "upper"), dir(&fs.root(), "work"));
        let layers = OverlayLayers {
            upper: Some(UpperLayer {
                root: upper.clone(),
                work: work.clone(),
                fs,
            }),
            lowers: vec![(lower.root(), lower.clone())],
        };
        let overlay = OverlayFs::new(3, layers, String::new()).expect("layers fit");
        Self {
            lower,
            overlay,
            upper,
            work,
        }
    }

    fn get(&self, path: &str) -> Result<InodeRef, Errno> {
        let mut at = self.overlay.root();
        for name in path.split('/') {
            at = at.lookup(name.as_bytes())?;
        }
        Ok(at)
    }

    fn root(&self) -> InodeRef {
        self.overlay.root()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Nothing is left lying about in the work directory.
        assert!(names(&self.work).is_empty());
    }
}

#[test]
fn files_are_copied_up_on_write() {
    let world = World::new(|root| {
        let deep = dir(&dir(root, "a"), "b");
        let made = file(&deep, "f", "lower");
        made.set_xattr(b"user.x", b"1", XattrFlags::empty())
            .unwrap();
        made.set_attr(&SetAttr {
            perm: Some(0o640),
            ..SetAttr::default()
        })
        .unwrap();
    });
    let inode = world.get("a/b/f").unwrap();
    let before = inode.attr().unwrap();
    let early = open(&inode, false).unwrap();
    assert_eq!(read_file(&early), "lower");
    assert!(names(&world.upper).is_empty());
    write(&inode, "UPPER");
    assert_eq!(read(&inode), "UPPER");
    // Who had it open sees the new data.
    assert_eq!(read_file(&early), "UPPER");
    assert_eq!(
        read(
            &world
                .lower
                .root()
                .lookup(b"a")
                .unwrap()
                .lookup(b"b")
                .unwrap()
                .lookup(b"f")
                .unwrap()
        ),
        "lower"
    );
    let after = inode.attr().unwrap();
    assert_eq!((after.dev, after.ino), (before.dev, before.ino));
    assert_eq!(after.perm, 0o640);
    assert_eq!(inode.get_xattr(b"user.x").unwrap(), b"1");
    drop(inode);
    drop(early);
    let again = world.get("a/b/f").unwrap();
    assert_eq!(again.attr().unwrap().ino, before.ino);
    assert_eq!(read(&again), "UPPER");
}

#[test]
fn removal_leaves_whiteouts() {
    let world = World::new(|root| {
        file(root, "f", "1");
        file(&dir(root, "d"), "g", "2");
    });
    let root = world.root();
    root.unlink(b"f").unwrap();
    assert_eq!(world.get("f").map(drop), Err(Errno::ENOENT));
    assert_eq!(names(&root), ["d"]);
    assert_eq!(root.rmdir(b"d"), Err(Errno::ENOTEMPTY));
    world.get("d").unwrap().unlink(b"g").unwrap();
    root.rmdir(b"d").unwrap();
    assert!(names(&root).is_empty());
    assert_eq!(names(&world.upper), ["d", "f"]);
    // New ones hide what was there.
    let made = dir(&root, "d");
    assert!(names(&made).is_empty());
    file(&root, "f", "new");
    assert_eq!(read(&world.get("f").unwrap()), "new");
    assert!(names(&world.get("d").unwrap()).is_empty());
    root.rmdir(b"d").unwrap();
    assert_eq!(world.get("d").map(drop), Err(Errno::ENOENT));
}

#[test]
fn listings_merge() {
    let world = World::new(|root| {
        let d = dir(root, "d");
        for name in ["a", "b", "c"] {
            file(&d, name, "x");
        }
    });
    let d = world.get("d").unwrap();
    assert_eq!(names(&d), ["a", "b", "c"]);
    file(&d, "new", "y");
    d.unlink(b"b").unwrap();
    write(&d.lookup(b"a").unwrap(), "z");
    assert_eq!(names(&d), ["a", "c", "new"]);
    assert_eq!(d.attr().unwrap().nlink, 1);
    // Numbers agree with stat.
    let listing = open(&d, false).unwrap();
    listing
        .ops
        .read_dir(&listing, 0, &mut |entry| {
            if !entry.name.starts_with(b".") {
                let child = d.lookup(&entry.name).unwrap();
                assert_eq!(child.attr().unwrap().ino, entry.ino);
            }
            true
        })
        .unwrap();
}

#[test]
fn files_move_and_directories_with_lower_parts_do_not() {
    let world = World::new(|root| {
        file(root, "f", "f");
        file(root, "g", "g");
        file(&dir(root, "d"), "x", "x");
        dir(root, "empty");
    });
    let root = world.root();
    let none = RenameFlags::empty();
    assert_eq!(root.rename(b"d", &root, b"e", none), Err(Errno::EXDEV));
    root.rename(b"f", &root, b"h", none).unwrap();
    assert_eq!(names(&root), ["d", "empty", "g", "h"]);
    root.rename(b"h", &root, b"g", none).unwrap();
    assert_eq!(read(&world.get("g").unwrap()), "f");
    let d = world.get("d").unwrap();
    root.rename(b"g", &d, b"x", none).unwrap();
    assert_eq!(names(&root), ["d", "empty"]);
    assert_eq!(read(&world.get("d/x").unwrap()), "f");
    // A new directory may take the place of an empty lower one.
    file(&dir(&root, "mine"), "inside", "i");
    root.rename(b"mine", &root, b"empty", none).unwrap();
    assert_eq!(names(&root), ["d", "empty"]);
    assert_eq!(names(&world.get("empty").unwrap()), ["inside"]);
    // And of one that was removed.
    world.get("empty").unwrap().unlink(b"inside").unwrap();
    root.rmdir(b"empty").unwrap();
    file(&dir(&root, "mine"), "again", "i");
    root.rename(b"mine", &root, b"empty", none).unwrap();
    assert_eq!(names(&world.get("empty").unwrap()), ["again"]);
    assert_eq!(names(&root), ["d", "empty"]);
}

#[test]
fn exchanges_keep_both() {
    let world = World::new(|root| {
        file(root, "f", "f");
        file(root, "g", "g");
    });
    let root = world.root();
    root.rename(b"f", &root, b"g", RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!(read(&world.get("f").unwrap()), "g");
    assert_eq!(read(&world.get("g").unwrap()), "f");
}

#[test]
fn hard_links_are_made_in_the_upper_layer() {
    let world = World::new(|root| {
        let f = file(root, "f", "f");
        root.link(b"same", &f).unwrap();
    });
    let root = world.root();
    let inode = world.get("f").unwrap();
    root.link(b"l", &inode).unwrap();
    write(&inode, "F");
    assert_eq!(read(&world.get("l").unwrap()), "F");
    assert_eq!(inode.attr().unwrap().nlink, 2);
    // Lower links part ways.
    let same = world.get("same").unwrap();
    assert_eq!(read(&same), "f");
    assert_ne!(same.attr().unwrap().ino, inode.attr().unwrap().ino);
    // Over a whiteout.
    root.unlink(b"same").unwrap();
    root.link(b"same", &inode).unwrap();
    assert_eq!(read(&world.get("same").unwrap()), "F");
}

#[test]
fn removed_files_stay_open() {
    let world = World::new(|root| {
        file(root, "f", "data");
    });
    let inode = world.get("f").unwrap();
    let held = open(&inode, false).unwrap();
    world.root().unlink(b"f").unwrap();
    assert_eq!(read_file(&held), "data");
    // Even a change of attributes finds no name to appear under.
    inode
        .set_attr(&SetAttr {
            perm: Some(0o600),
            ..SetAttr::default()
        })
        .unwrap();
    assert_eq!(inode.attr().unwrap().perm, 0o600);
    assert_eq!(world.get("f").map(drop), Err(Errno::ENOENT));
    assert_eq!(read_file(&held), "data");
}

#[test]
fn sparse_files_stay_sparse() {
    let world = World::new(|root| {
        let f = file(root, "f", "start");
        let opened = open(&f, true).unwrap();
        let far = 64 << 20;
        opened.ops.write_at(&opened, b"end", far, false).unwrap();
    });
    let inode = world.get("f").unwrap();
    let opened = open(&inode, true).unwrap();
    let attr = inode.attr().unwrap();
    assert_eq!(attr.size_bytes, (64 << 20) + 3);
    assert_eq!(attr.blocks, 16);
    assert_eq!(read_file(&opened).len(), 4096);
}

#[test]
fn lower_layers_stack() {
    let (top, bottom) = (tmpfs(1), tmpfs(2));
    file(&top.root(), "f", "top");
    file(&bottom.root(), "f", "bottom");
    file(&bottom.root(), "gone", "x");
    let creds = Creds::root();
    top.root()
        .create(b"gone", FileKind::CharDevice, 0, 0, &creds)
        .unwrap();
    let opaque = dir(&top.root(), "o");
    opaque.set_xattr(OPAQUE, b"y", XattrFlags::empty()).unwrap();
    file(&dir(&bottom.root(), "o"), "hidden", "x");
    file(&dir(&top.root(), "m"), "a", "x");
    file(&dir(&bottom.root(), "m"), "b", "x");
    let layers = OverlayLayers {
        upper: None,
        lowers: vec![(top.root(), top), (bottom.root(), bottom)],
    };
    let overlay = OverlayFs::new(3, layers, String::new()).unwrap();
    let root = overlay.root();
    assert_eq!(names(&root), ["f", "m", "o"]);
    assert_eq!(read(&root.lookup(b"f").unwrap()), "top");
    assert!(names(&root.lookup(b"o").unwrap()).is_empty());
    assert_eq!(names(&root.lookup(b"m").unwrap()), ["a", "b"]);
    assert_eq!(
        open(&root.lookup(b"f").unwrap(), true).map(drop),
        Err(Errno::EROFS)
    );
}
