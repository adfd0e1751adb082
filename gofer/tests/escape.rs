//! Nothing leads out of the roots, or to what is no file.

mod common;

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Gofer, OWNER, TempDir, root};
use gofer::{Access, Config};
use gofer_proto::request::{Ownership, Removed};
use gofer_proto::{OpenFlags, RenameFlags, Request, SetAttr, SetMask};
use rustix::fs::{FileType, Mode};
use syscall_tables::Errno;

#[test]
fn symbolic_links_are_never_followed() {
    let dir = TempDir::new();
    symlink("/etc", dir.join("abs")).expect("link");
    symlink("..", dir.join("up")).expect("link");
    symlink("/proc/self/root", dir.join("magic")).expect("link");
    std::fs::create_dir(dir.join("real")).expect("dir");
    let gofer = Gofer::on(&dir);
    for name in ["abs", "up", "magic"] {
        let reply = gofer.walk(gofer.root(), &format!("{name}/passwd"));
        assert_eq!((reply.steps.len(), reply.errno), (1, 0));
        let link = reply.steps[0].id();
        // Nor used as directories, or opened.
        assert_eq!(gofer.walk(link, "passwd").errno, 20);
        assert_eq!(gofer.open(link, OpenFlags::READ).err(), Some(Errno::ELOOP));
        assert_eq!(gofer.create(link, "x").err(), Some(Errno::ENOTDIR));
    }
}

#[test]
fn directories_replaced_by_links_are_stale() {
    let dir = TempDir::new();
    let outside = TempDir::new();
    std::fs::write(outside.join("secret"), b"secret").expect("file");
    std::fs::create_dir_all(dir.join("a/b")).expect("dirs");
    std::fs::write(dir.join("a/b/secret"), b"own").expect("file");
    // No cached directories: each use walks again.
    let config = Config {
        limits: gofer::Limits {
            directories: 0,
            ..gofer::Limits::default()
        },
        ..Config::default()
    };
    let gofer = Gofer::start(config, vec![root(&dir.0, Access::ReadWrite)]);
    let (b, file) = (gofer.node("a/b"), gofer.node("a/b/secret"));
    std::fs::rename(dir.join("a/b"), dir.join("a/old")).expect("rename");
    symlink(&outside.0, dir.join("a/b")).expect("link");
    assert_eq!(gofer.getattr(b).err(), Some(Errno::ESTALE));
    assert_eq!(gofer.getattr(file).err(), Some(Errno::ESTALE));
    assert_eq!(gofer.open(file, OpenFlags::READ).err(), Some(Errno::ESTALE));
    // Another directory in its place is not the same either.
    std::fs::remove_file(dir.join("a/b")).expect("remove");
    std::fs::create_dir(dir.join("a/b")).expect("dir");
    std::fs::write(dir.join("a/b/secret"), b"other").expect("file");
    assert_eq!(gofer.getattr(b).err(), Some(Errno::ESTALE));
    assert_eq!(gofer.getattr(file).err(), Some(Errno::ESTALE));
    // And a new walk finds what is there now.
    let now = gofer.node("a/b/secret");
    assert_ne!(now, file);
    assert_eq!(gofer.getattr(now).expect("attr").size, 5);
}

#[test]
fn renames_of_parents_while_walking_never_show_the_outside() {
    let dir = TempDir::new();
    let outside = TempDir::new();
    std::fs::create_dir_all(dir.join("a/b/c")).expect("dirs");
    std::fs::write(dir.join("a/b/c/f"), b"in").expect("file");
    std::fs::create_dir_all(outside.join("b/c")).expect("dirs");
    std::fs::write(outside.join("b/c/f"), b"outside").expect("file");
    let config = Config {
        limits: gofer::Limits {
            directories: 2,
            ..gofer::Limits::default()
        },
        ..Config::default()
    };
    let gofer = Gofer::start(config, vec![root(&dir.0, Access::ReadWrite)]);
    let start = gofer.root();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(dir.join("a"), dir.join("saved")).expect("rename");
                symlink(&outside.0, dir.join("a")).expect("link");
                std::fs::remove_file(dir.join("a")).expect("remove");
                std::fs::rename(dir.join("saved"), dir.join("a")).expect("rename");
                // Long enough in place for some walks to arrive.
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let walkers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut hits = 0;
                    for _ in 0..3000 {
                        let reply = gofer.walk(start, "a/b/c/f");
                        let Some(last) = reply.steps.get(3) else {
                            continue;
                        };
                        assert_eq!(last.attr.size, 2);
                        if let Ok(file) = gofer.open(last.id(), OpenFlags::READ) {
                            assert_eq!(file.metadata().expect("meta").len(), 2);
                            hits += 1;
                        }
                    }
                    hits
                })
            })
            .collect();
        let hits: u32 = walkers.into_iter().map(|w| w.join().expect("walker")).sum();
        stop.store(true, Ordering::Relaxed);
        assert!(hits > 0);
    });
}

#[test]
fn host_devices_fifos_and_sockets_are_never_opened() {
    let dir = TempDir::new();
    let at = rustix::fs::CWD;
    let mode = Mode::from_raw_mode(0o666);
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(at, dir.join("fifo"), FileType::Fifo, mode, 0).expect("fifo");
    rustix::fs::mknodat(at, dir.join("null"), FileType::CharacterDevice, mode, null)
        .expect("device");
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("sock")).expect("socket");
    let gofer = Gofer::on(&dir);
    for name in ["fifo", "null", "sock"] {
        let node = gofer.node(name);
        for flags in [OpenFlags::READ, OpenFlags::WRITE] {
            assert_eq!(gofer.open(node, flags).err(), Some(Errno::ENXIO), "{name}");
        }
        let size = SetAttr {
            mask: SetMask::SIZE.bits(),
            ..SetAttr::default()
        };
        assert_eq!(gofer.setattr(node, size).err(), Some(Errno::EINVAL));
        assert_eq!(
            gofer
                .call(&Request::Fsync {
                    node,
                    data_only: false
                })
                .err(),
            Some(Errno::ENXIO)
        );
        assert_eq!(gofer.create(gofer.root(), name).err(), Some(Errno::EEXIST));
        // Attributes are no secret, and the names can be removed.
        gofer.getattr(node).expect("attr");
        gofer
            .unlink(gofer.root(), name, Removed::Keep)
            .expect("unlink");
    }
}

#[test]
fn a_file_swapped_for_a_fifo_is_never_opened() {
    let dir = TempDir::new();
    let fifo = dir.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .expect("fifo");
    std::fs::write(dir.join("f"), b"file").expect("file");
    let gofer = Gofer::on(&dir);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (from, to) = (dir.join("f"), dir.join("fifo"));
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &from,
                    rustix::fs::CWD,
                    &to,
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .expect("exchange");
            }
        });
        for _ in 0..3000 {
            // Opening a FIFO to read would hang: none is its writer.
            if let Ok(found) = gofer.find("f")
                && let Ok(file) = gofer.open(found.id(), OpenFlags::READ)
            {
                assert!(file.metadata().expect("meta").is_file());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn read_only_roots_refuse_every_change() {
    let dir = TempDir::new();
    std::fs::create_dir(dir.join("d")).expect("dir");
    std::fs::write(dir.join("f"), b"kept").expect("file");
    let gofer = Gofer::start(Config::default(), vec![root(&dir.0, Access::ReadOnly)]);
    let (parent, node) = (gofer.root(), gofer.node("f"));
    let name = b"new".as_slice();
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    let removed = Removed::Drop;
    let changes = [
        Request::Open { node, flags },
        Request::Open {
            node,
            flags: OpenFlags::READ | OpenFlags::TRUNCATE,
        },
        Request::Create {
            parent,
            name,
            flags,
            owner: OWNER,
        },
        Request::Tmpfile {
            parent,
            flags,
            owner: OWNER,
        },
        Request::Mkdir {
            parent,
            name,
            owner: OWNER,
        },
        Request::Symlink {
            parent,
            name,
            target: b"x",
            uid: 0,
            gid: 0,
        },
        Request::Mknod {
            parent,
            name,
            owner: Ownership {
                mode: 0o100_600,
                ..OWNER
            },
        },
        Request::Link { node, parent, name },
        Request::Unlink {
            parent,
            name: b"f",
            removed,
        },
        Request::Rmdir {
            parent,
            name: b"d",
            removed,
        },
        Request::Rename {
            parent,
            name: b"f",
            new_parent: parent,
            new_name: name,
            flags: RenameFlags::empty(),
            removed,
        },
        Request::SetAttr {
            node,
            set: SetAttr {
                mask: SetMask::MODE.bits(),
                ..SetAttr::default()
            },
        },
        Request::SetXattr {
            node,
            name: b"user.x",
            value: b"",
            flags: 0,
        },
        Request::RemoveXattr {
            node,
            name: b"user.x",
        },
    ];
    for change in changes {
        assert_eq!(gofer.call(&change).err(), Some(Errno::EROFS), "{change:?}");
    }
    assert_eq!(std::fs::read(dir.join("f")).expect("read"), b"kept");
    gofer.open(node, OpenFlags::READ).expect("still readable");
}

#[test]
fn the_hosts_proc_is_not_handed_out_with_its_root() {
    let gofer = Gofer::start(
        Config::default(),
        vec![root(std::path::Path::new("/"), Access::ReadOnly)],
    );
    gofer.find("etc/passwd").expect("a file of the host");
    for kernel_view in ["proc", "sys"] {
        let node = gofer.find(kernel_view).expect("a mount point");
        assert_eq!(gofer.walk(node.id(), "self").errno, 13);
        assert_eq!(
            gofer.find(&format!("{kernel_view}/kernel")).err(),
            Some(Errno::EACCES)
        );
    }
    // As a mount of its own it is what was asked for.
    let gofer = Gofer::start(
        Config::default(),
        vec![root(std::path::Path::new("/proc"), Access::ReadOnly)],
    );
    gofer.find("version").expect("a file of proc");
}
