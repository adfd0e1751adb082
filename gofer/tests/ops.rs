//! Every request does what its host call does.

mod common;

use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use common::{Gofer, OWNER, TempDir};
use gofer_proto::request::{Detail, Ownership, Removed};
use gofer_proto::{
    FsStat, NodeId, OpenFlags, RenameFlags, Request, SetAttr, SetMask, Time, reply::decode_value,
};
use syscall_tables::Errno;

#[test]
fn walk_tells_all_steps_in_one_trip() {
    let dir = TempDir::new();
    std::fs::create_dir_all(dir.join("a/b/c")).expect("dirs");
    std::fs::write(dir.join("a/b/c/file"), b"hello").expect("file");
    std::os::unix::fs::symlink("../x", dir.join("a/link")).expect("link");
    let gofer = Gofer::on(&dir);
    let root = gofer.root();

    let all = gofer.walk(root, "a/b/c/file");
    assert_eq!((all.steps.len(), all.errno), (4, 0));
    let last = all.steps[3].attr;
    let meta = std::fs::metadata(dir.join("a/b/c/file")).expect("meta");
    assert_eq!(last.size, 5);
    assert_eq!((last.ino, last.dev), (meta.ino(), meta.dev()));
    assert_eq!(last.mode, meta.mode());
    assert_eq!(last.mtime.sec, meta.mtime());
    assert_eq!(i64::from(last.mtime.nsec), meta.mtime_nsec());

    let missing = gofer.walk(root, "a/nothing/more");
    assert_eq!((missing.steps.len(), missing.errno), (1, 2));
    let not_dir = gofer.walk(root, "a/b/c/file/x");
    assert_eq!((not_dir.steps.len(), not_dir.errno), (4, 20));
    let link = gofer.walk(root, "a/link/more");
    assert_eq!((link.steps.len(), link.errno), (2, 0));
    assert_eq!(link.target.as_deref(), Some(b"../x".as_slice()));

    // The same file is the same node.
    assert_eq!(gofer.walk(root, "a/b").steps[1].node, all.steps[1].node);
}

#[test]
fn files_are_made_read_and_written_by_the_donated_fd() {
    let dir = TempDir::new();
    let gofer = Gofer::on(&dir);
    let root = gofer.root();
    let (node, mut file) = gofer.create(root, "new").expect("create");
    assert_eq!(node.attr.mode, 0o100_644);
    file.write_all(b"data").expect("write");
    assert_eq!(std::fs::read(dir.join("new")).expect("read"), b"data");
    assert_eq!(gofer.create(root, "new").err(), Some(Errno::EEXIST));

    let mut text = String::new();
    let mut again = gofer.open(node.id(), OpenFlags::READ).expect("open");
    again.read_to_string(&mut text).expect("read");
    assert_eq!(text, "data");
    assert!(again.write_all(b"x").is_err());
    gofer
        .open(node.id(), OpenFlags::WRITE | OpenFlags::TRUNCATE)
        .expect("truncate");
    assert_eq!(gofer.getattr(node.id()).expect("attr").size, 0);
    assert_eq!(gofer.open(root, OpenFlags::READ).err(), Some(Errno::EISDIR));
}

#[test]
fn new_files_belong_to_whom_they_should() {
    let dir = TempDir::new();
    let gofer = Gofer::on(&dir);
    let root = gofer.root();
    let owner = Ownership {
        mode: 0o6755,
        uid: 1234,
        gid: 4321,
    };
    let (reply, _) = gofer
        .call(&Request::Create {
            parent: root,
            name: b"setid",
            flags: OpenFlags::WRITE,
            owner,
        })
        .expect("create");
    let made: gofer_proto::reply::NodeReply = decode_value(&reply).expect("node");
    assert_eq!(made.attr.mode, 0o106_755);
    let meta = std::fs::metadata(dir.join("setid")).expect("meta");
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode()),
        (1234, 4321, 0o106_755)
    );

    gofer
        .node_call(&Request::Mkdir {
            parent: root,
            name: b"dir",
            owner: Ownership {
                mode: 0o1777,
                ..owner
            },
        })
        .expect("mkdir");
    let meta = std::fs::metadata(dir.join("dir")).expect("meta");
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode()),
        (1234, 4321, 0o041_777)
    );

    gofer
        .node_call(&Request::Symlink {
            parent: root,
            name: b"link",
            target: b"/etc/passwd",
            uid: 1234,
            gid: 4321,
        })
        .expect("symlink");
    let meta = std::fs::symlink_metadata(dir.join("link")).expect("meta");
    assert_eq!((meta.uid(), meta.gid()), (1234, 4321));
    let (target, _) = gofer
        .call(&Request::Readlink {
            node: gofer.node("link"),
        })
        .expect("readlink");
    assert_eq!(target, b"/etc/passwd");
    assert_eq!(
        gofer
            .call(&Request::Readlink {
                node: gofer.node("dir")
            })
            .err(),
        Some(Errno::EINVAL)
    );
}

#[test]
fn attributes_can_be_set() {
    let dir = TempDir::new();
    std::fs::write(dir.join("f"), b"12345").expect("file");
    let gofer = Gofer::on(&dir);
    let node = gofer.node("f");
    let set = SetAttr {
        mask: (SetMask::MODE | SetMask::UID | SetMask::SIZE | SetMask::MTIME).bits(),
        mode: 0o4711,
        uid: 77,
        size: 3,
        mtime: Time::new(1_000_000, 123_456_789),
        ..SetAttr::default()
    };
    let attr = gofer.setattr(node, set).expect("setattr");
    assert_eq!((attr.mode, attr.uid, attr.size), (0o104_711, 77, 3));
    assert_eq!(attr.mtime, Time::new(1_000_000, 123_456_789));
    let meta = std::fs::metadata(dir.join("f")).expect("meta");
    assert_eq!((meta.mode(), meta.uid(), meta.len()), (0o104_711, 77, 3));

    let now = SetAttr {
        mask: (SetMask::ATIME_NOW | SetMask::MTIME_NOW).bits(),
        ..SetAttr::default()
    };
    assert!(gofer.setattr(node, now).expect("setattr").mtime.sec > 1_600_000_000);

    std::os::unix::fs::symlink("nowhere", dir.join("l")).expect("link");
    let link = gofer.node("l");
    let mode = SetAttr {
        mask: SetMask::MODE.bits(),
        mode: 0o600,
        ..SetAttr::default()
    };
    assert_eq!(gofer.setattr(link, mode).err(), Some(Errno::EOPNOTSUPP));
    let owner = SetAttr {
        mask: SetMask::GID.bits(),
        gid: 9,
        ..SetAttr::default()
    };
    assert_eq!(gofer.setattr(link, owner).expect("chown of a link").gid, 9);
    let size = SetAttr {
        mask: SetMask::SIZE.bits(),
        ..SetAttr::default()
    };
    assert_eq!(gofer.setattr(gofer.root(), size).err(), Some(Errno::EISDIR));
}

#[test]
fn names_are_linked_moved_and_removed() {
    let dir = TempDir::new();
    for sub in ["d1", "d2", "full/x"] {
        std::fs::create_dir_all(dir.join(sub)).expect("dir");
    }
    std::fs::write(dir.join("f"), b"f").expect("file");
    std::fs::write(dir.join("g"), b"g").expect("file");
    let gofer = Gofer::on(&dir);
    let root = gofer.root();
    let (d1, d2) = (gofer.node("d1"), gofer.node("d2"));

    let linked = gofer
        .node_call(&Request::Link {
            node: gofer.node("f"),
            parent: d1,
            name: b"hard",
        })
        .expect("link");
    assert_eq!(linked.attr.nlink, 2);
    assert_eq!(linked.attr.ino, gofer.find("f").expect("f").attr.ino);
    assert_eq!(
        gofer
            .node_call(&Request::Link {
                node: d1,
                parent: root,
                name: b"dirlink"
            })
            .err(),
        Some(Errno::EPERM)
    );

    let none = RenameFlags::empty();
    let moved = gofer.node("d1");
    let inside = gofer.node("d1/hard");
    gofer
        .rename((root, "d1"), (d2, "new"), none, Removed::Drop)
        .expect("rename");
    assert_eq!(gofer.find("d1").err(), Some(Errno::ENOENT));
    assert_eq!(gofer.node("d2/new"), moved);
    // Nodes below a renamed directory go along.
    assert_eq!(gofer.getattr(inside).expect("attr").nlink, 2);
    assert_eq!(
        gofer
            .rename(
                (root, "f"),
                (root, "g"),
                RenameFlags::NOREPLACE,
                Removed::Drop
            )
            .err(),
        Some(Errno::EEXIST)
    );
    let (f, g) = (gofer.node("f"), gofer.node("g"));
    gofer
        .rename(
            (root, "f"),
            (root, "g"),
            RenameFlags::EXCHANGE,
            Removed::Drop,
        )
        .expect("exchange");
    assert_eq!((gofer.node("g"), gofer.node("f")), (f, g));
    assert_eq!(
        gofer
            .rename((root, "d2"), (moved, "loop"), none, Removed::Drop)
            .err(),
        Some(Errno::EINVAL)
    );

    let rmdir = |name: &str| {
        gofer
            .call(&Request::Rmdir {
                parent: root,
                name: name.as_bytes(),
                removed: Removed::Drop,
            })
            .map(drop)
    };
    assert_eq!(rmdir("full"), Err(Errno::ENOTEMPTY));
    assert_eq!(rmdir("f"), Err(Errno::ENOTDIR));
    assert_eq!(
        gofer.unlink(root, "full", Removed::Drop),
        Err(Errno::EISDIR)
    );
    gofer.unlink(root, "f", Removed::Drop).expect("unlink");
    assert_eq!(gofer.getattr(g).err(), Some(Errno::ESTALE));
    assert_eq!(gofer.unlink(root, "f", Removed::Drop), Err(Errno::ENOENT));
}

#[test]
fn removed_files_stay_usable_while_open() {
    let dir = TempDir::new();
    let gofer = Gofer::on(&dir);
    let root = gofer.root();
    let (node, mut file) = gofer.create(root, "f").expect("create");
    file.write_all(b"abc").expect("write");
    gofer.unlink(root, "f", Removed::Keep).expect("unlink");
    assert_eq!(gofer.find("f").err(), Some(Errno::ENOENT));
    let attr = gofer.getattr(node.id()).expect("attr");
    assert_eq!((attr.nlink, attr.size), (0, 3));
    let mode = SetAttr {
        mask: SetMask::MODE.bits(),
        mode: 0o600,
        ..SetAttr::default()
    };
    assert_eq!(
        gofer.setattr(node.id(), mode).expect("chmod").mode,
        0o100_600
    );
    gofer.open(node.id(), OpenFlags::READ).expect("reopened");
    gofer.forget(node.id(), 1);
    assert_eq!(gofer.getattr(node.id()).err(), Some(Errno::ESTALE));

    // The same for what a rename replaces.
    let (old, _) = gofer.create(root, "old").expect("create");
    gofer.create(root, "new").expect("create");
    let none = RenameFlags::empty();
    gofer
        .rename((root, "new"), (root, "old"), none, Removed::Keep)
        .expect("rename");
    assert_eq!(gofer.getattr(old.id()).expect("attr").nlink, 0);
}

#[test]
fn unnamed_files_can_be_named_later() {
    let dir = TempDir::new();
    let gofer = Gofer::on(&dir);
    let root = gofer.root();
    let (reply, fd) = gofer
        .call(&Request::Tmpfile {
            parent: root,
            flags: OpenFlags::READ | OpenFlags::WRITE,
            owner: OWNER,
        })
        .expect("tmpfile");
    let node: gofer_proto::reply::NodeReply = decode_value(&reply).expect("node");
    let mut file = std::fs::File::from(fd.expect("fd"));
    file.write_all(b"hidden").expect("write");
    assert_eq!(std::fs::read_dir(&dir.0).expect("list").count(), 0);
    gofer
        .node_call(&Request::Link {
            node: node.id(),
            parent: root,
            name: b"shown",
        })
        .expect("link");
    assert_eq!(std::fs::read(dir.join("shown")).expect("read"), b"hidden");
}

#[test]
fn special_nodes_are_names_only() {
    let dir = TempDir::new();
    let gofer = Gofer::on(&dir);
    let root = gofer.root();
    let mknod = |name: &str, mode: u32| {
        gofer.node_call(&Request::Mknod {
            parent: root,
            name: name.as_bytes(),
            owner: Ownership { mode, ..OWNER },
        })
    };
    mknod("fifo", 0o010_600).expect("fifo");
    mknod("sock", 0o140_600).expect("socket");
    mknod("reg", 0o100_600).expect("regular");
    let kind = |name| {
        std::fs::symlink_metadata(dir.join(name))
            .expect("meta")
            .file_type()
    };
    assert!(kind("fifo").is_fifo() && kind("sock").is_socket() && kind("reg").is_file());
    for device in [0o020_600, 0o060_600, 0] {
        assert_eq!(mknod("dev", device).err(), Some(Errno::EPERM));
    }
    for name in ["fifo", "sock"] {
        let node = gofer.node(name);
        let open = gofer.open(node, OpenFlags::READ | OpenFlags::WRITE);
        assert_eq!(open.err(), Some(Errno::ENXIO));
    }
}

#[test]
fn directories_are_listed_in_batches() {
    let dir = TempDir::new();
    std::fs::create_dir(dir.join("sub")).expect("dir");
    let mut expected = vec![".".to_owned(), "..".to_owned(), "sub".to_owned()];
    for i in 0..1500 {
        let name = format!("file-with-a-name-{i}");
        std::fs::write(dir.join(&name), b"").expect("file");
        expected.push(name);
    }
    expected.sort();
    let gofer = Gofer::on(&dir);
    let root = gofer.root();
    for (detail, limit) in [
        (Detail::Plain, 1 << 16),
        (Detail::Attributes, 1 << 16),
        (Detail::Plain, 100),
    ] {
        let mut listed = gofer.list(root, detail, limit);
        listed.sort();
        let names: Vec<_> = listed.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, expected);
        for (name, kind) in listed {
            let is_dir = [".", "..", "sub"].contains(&name.as_str());
            assert_eq!(kind, if is_dir { 4 } else { 8 }, "{name}");
        }
    }
    let too_small = gofer.call(&Request::Readdir {
        node: root,
        offset: 0,
        detail: Detail::Plain,
        limit: 8,
    });
    assert_eq!(too_small.err(), Some(Errno::EINVAL));
}

#[test]
fn a_listing_begins_anew_after_one_that_was_resumed() {
    let dir = TempDir::new();
    for at in 0..40 {
        let sub = dir.join(&format!("d{at}"));
        std::fs::create_dir(&sub).expect("directory");
        std::fs::write(sub.join("f"), b"").expect("file");
    }
    let gofer = Gofer::on(&dir);
    let root = gofer.root();
    let first = gofer.list(root, Detail::Plain, 200);
    assert_eq!(first.len(), 42);
    // The stream of the root is not kept over so many others.
    for at in 0..40 {
        let sub = gofer.node(&format!("d{at}"));
        assert_eq!(gofer.list(sub, Detail::Plain, 1 << 16).len(), 3);
    }
    // What comes from here on depends on the file system: tmpfs counts down.
    gofer
        .call(&Request::Readdir {
            node: root,
            offset: i64::MAX,
            detail: Detail::Plain,
            limit: 1 << 16,
        })
        .expect("readdir");
    assert_eq!(gofer.list(root, Detail::Plain, 1 << 16), first);
}

#[test]
fn extended_attributes_work_on_files_and_directories() {
    let dir = TempDir::new();
    std::fs::write(dir.join("f"), b"").expect("file");
    std::os::unix::fs::symlink("f", dir.join("l")).expect("link");
    let gofer = Gofer::on(&dir);
    let get = |node: NodeId, name: &[u8]| {
        gofer
            .call(&Request::GetXattr { node, name })
            .map(|(value, _)| value)
    };
    for node in [gofer.node("f"), gofer.root()] {
        let set = |flags| {
            gofer.call(&Request::SetXattr {
                node,
                name: b"user.test",
                value: b"value",
                flags,
            })
        };
        if set(0).err() == Some(Errno::EOPNOTSUPP) {
            eprintln!("skipped: no user attributes on this file system");
            return;
        }
        assert_eq!(get(node, b"user.test"), Ok(b"value".to_vec()));
        assert_eq!(set(1).err(), Some(Errno::EEXIST));
        assert_eq!(get(node, b"user.none"), Err(Errno::ENODATA));
        let (list, _) = gofer.call(&Request::ListXattr { node }).expect("list");
        assert!(list.split(|&b| b == 0).any(|name| name == b"user.test"));
        gofer
            .call(&Request::RemoveXattr {
                node,
                name: b"user.test",
            })
            .expect("remove");
        assert_eq!(set(2).err(), Some(Errno::ENODATA));
    }
    let link = gofer.node("l");
    assert_eq!(get(link, b"user.test"), Err(Errno::EOPNOTSUPP));
    let (list, _) = gofer
        .call(&Request::ListXattr { node: link })
        .expect("list");
    assert_eq!(list, b"");
}

#[test]
fn figures_and_syncs() {
    let dir = TempDir::new();
    std::fs::write(dir.join("f"), b"x").expect("file");
    let gofer = Gofer::on(&dir);
    let (reply, _) = gofer
        .call(&Request::Statfs { node: gofer.root() })
        .expect("statfs");
    let figures: FsStat = decode_value(&reply).expect("figures");
    assert!(figures.blocks > 0 && figures.block_size >= 512 && figures.name_max >= 255);
    for node in [gofer.root(), gofer.node("f")] {
        for data_only in [false, true] {
            gofer
                .call(&Request::Fsync { node, data_only })
                .expect("sync");
        }
    }
}

#[test]
fn a_file_can_be_a_root() {
    let dir = TempDir::new();
    std::fs::write(dir.join("hosts"), b"127.0.0.1").expect("file");
    let root = common::root(&dir.join("hosts"), gofer::Access::ReadWrite);
    let gofer = Gofer::start(gofer::Config::default(), vec![root]);
    let node = gofer.attach(0);
    assert_eq!(node.attr.size, 9);
    let mut file = gofer
        .open(node.id(), OpenFlags::READ | OpenFlags::WRITE)
        .expect("open");
    file.seek(std::io::SeekFrom::End(0)).expect("seek");
    file.write_all(b" x").expect("write");
    assert_eq!(gofer.getattr(node.id()).expect("attr").size, 11);
    assert_eq!(gofer.walk(node.id(), "x").errno, 20);
    let meta = std::fs::metadata(dir.join("hosts")).expect("meta");
    assert_eq!(meta.permissions().mode() & 0o170_000, 0o100_000);
}
