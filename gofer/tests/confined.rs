//! A gofer process under its full confinement serves every kind of request,
//! and can do nothing else.
//!
//! The program starts itself again with `serve` as its argument; needs root.

mod common;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};

use common::{Gofer, OWNER, TempDir, root};
use gofer::shared::SharedPort;
use gofer::{Access, Config, Root, create_ring, create_socket};
use gofer_proto::request::{Detail, Ownership, Removed};
use gofer_proto::ring::Client;
use gofer_proto::{OpenFlags, RenameFlags, Request, SetAttr, SetMask, Time};
use rustix::io::{FdFlags, fcntl_setfd};

const RING: RawFd = 100;
const SOCKET: RawFd = 101;
const ROOT: RawFd = 102;
const READ_ONLY_ROOT: RawFd = 103;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve(std::env::args().nth(2).as_deref());
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: confinement needs root");
        return;
    }
    serves_every_request();
    shows_its_confinement();
    for attempt in ["open", "exec", "mount", "socket", "fork"] {
        kills_for(attempt);
    }
    println!("confined: ok");
}

/// The other end: a gofer process.
fn serve(attempt: Option<&str>) {
    let take = |fd: RawFd| {
        // SAFETY: inherited for this very purpose, and owned by nobody else.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    let mut roots = vec![
        Root {
            fd: take(ROOT),
            access: Access::ReadWrite,
        },
        Root {
            fd: take(READ_ONLY_ROOT),
            access: Access::ReadOnly,
        },
    ];
    let proc_fd = gofer::confine(&mut roots).expect("confinement");
    match attempt {
        Some("open") => drop(std::fs::File::open("/etc/passwd")),
        Some("exec") => drop(Command::new("/bin/true").spawn()),
        Some("mount") => drop(rustix::mount::unmount(
            "/",
            rustix::mount::UnmountFlags::DETACH,
        )),
        Some("socket") => drop(std::net::TcpListener::bind("127.0.0.1:0")),
        Some("fork") => {
            // SAFETY: the child, if there should be one, exits at once.
            unsafe {
                if libc::fork() == 0 {
                    libc::_exit(0);
                }
            }
        }
        _ => {
            gofer::serve(Config::default(), proc_fd, take(RING), take(SOCKET), roots)
                .expect("served");
            return;
        }
    }
    eprintln!("still alive after {attempt:?}");
}

fn inherit(fd: &impl AsFd, number: RawFd) {
    // SAFETY: replaces nothing: the numbers are this test's own; the result
    // is closed by `spawn`.
    let copy = unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) };
    assert_eq!(copy, number);
    // SAFETY: open as of the line above.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    fcntl_setfd(fd, FdFlags::empty()).expect("inheritable");
}

fn spawn(dir: &TempDir, more: &[&str]) -> (Child, Client<SharedPort>) {
    let ring = create_ring().expect("ring");
    let (ours, theirs) = create_socket().expect("socket");
    inherit(&ring, RING);
    inherit(&theirs, SOCKET);
    inherit(&root(&dir.0, Access::ReadWrite).fd, ROOT);
    inherit(&root(&dir.0, Access::ReadOnly).fd, READ_ONLY_ROOT);
    let child = Command::new(std::env::current_exe().expect("own path"))
        .arg("serve")
        .args(more)
        .stdin(Stdio::null())
        .spawn()
        .expect("child");
    for fd in [RING, SOCKET, ROOT, READ_ONLY_ROOT] {
        // SAFETY: made by `inherit`, and only the child uses them.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let client = Client::new(SharedPort::new(&ring, ours).expect("port")).expect("client");
    (child, client)
}

fn serves_every_request() {
    let dir = TempDir::new();
    std::fs::create_dir(dir.join("d")).expect("dir");
    std::fs::write(dir.join("d/f"), b"text").expect("file");
    let (mut child, client) = spawn(&dir, &[]);
    let gofer = Gofer::with_client(client);
    let top = gofer.root();
    let file = gofer.node("d/f");
    gofer.getattr(file).expect("getattr");
    gofer
        .open(file, OpenFlags::READ | OpenFlags::WRITE)
        .expect("open");
    let all = SetMask::MODE | SetMask::UID | SetMask::GID | SetMask::SIZE | SetMask::MTIME;
    let set = SetAttr {
        mask: all.bits(),
        mode: 0o640,
        uid: 5,
        gid: 6,
        size: 2,
        mtime: Time::new(1, 2),
        ..SetAttr::default()
    };
    let attr = gofer.setattr(file, set).expect("setattr");
    assert_eq!((attr.mode, attr.uid, attr.size), (0o100_640, 5, 2));

    let owner = Ownership {
        mode: 0o4755,
        uid: 7,
        gid: 8,
    };
    let (reply, _) = gofer
        .call(&Request::Create {
            parent: top,
            name: b"new",
            flags: OpenFlags::WRITE,
            owner,
        })
        .expect("create");
    let made: gofer_proto::reply::NodeReply =
        gofer_proto::reply::decode_value(&reply).expect("node");
    assert_eq!((made.attr.mode, made.attr.uid), (0o104_755, 7));
    let (tmpfile, _) = gofer
        .call(&Request::Tmpfile {
            parent: top,
            flags: OpenFlags::WRITE,
            owner,
        })
        .expect("tmpfile");
    let tmpfile: gofer_proto::reply::NodeReply =
        gofer_proto::reply::decode_value(&tmpfile).expect("node");
    for (node, name) in [(tmpfile.id(), b"shown"), (file, b"other")] {
        gofer
            .node_call(&Request::Link {
                node,
                parent: top,
                name,
            })
            .expect("link");
    }
    gofer
        .node_call(&Request::Mkdir {
            parent: top,
            name: b"dir",
            owner,
        })
        .expect("mkdir");
    gofer
        .node_call(&Request::Symlink {
            parent: top,
            name: b"link",
            target: b"x",
            uid: 1,
            gid: 1,
        })
        .expect("symlink");
    let node = gofer.node("link");
    gofer.call(&Request::Readlink { node }).expect("readlink");
    for (name, kind) in [("reg", 0o100_000), ("fifo", 0o010_000), ("sock", 0o140_000)] {
        gofer
            .node_call(&Request::Mknod {
                parent: top,
                name: name.as_bytes(),
                owner: Ownership {
                    mode: kind | 0o600,
                    ..OWNER
                },
            })
            .expect(name);
    }
    let none = RenameFlags::empty();
    gofer
        .rename((top, "reg"), (top, "moved"), none, Removed::Keep)
        .expect("rename");
    gofer.unlink(top, "moved", Removed::Keep).expect("unlink");
    gofer
        .call(&Request::Rmdir {
            parent: top,
            name: b"dir",
            removed: Removed::Keep,
        })
        .expect("rmdir");
    assert_eq!(gofer.list(top, Detail::Attributes, 1 << 16).len(), 9);
    gofer.call(&Request::Statfs { node: top }).expect("statfs");
    for data_only in [false, true] {
        gofer
            .call(&Request::Fsync {
                node: file,
                data_only,
            })
            .expect("fsync");
    }
    // Whether the file system has attributes is its own business.
    let (node, name) = (file, b"user.x".as_slice());
    let _ = gofer.call(&Request::SetXattr {
        node,
        name,
        value: b"y",
        flags: 0,
    });
    let _ = gofer.call(&Request::GetXattr { node, name });
    let _ = gofer.call(&Request::RemoveXattr { node, name });
    gofer.call(&Request::ListXattr { node }).expect("listxattr");
    gofer.forget(node, 1);

    // The read-only root is so for the host too.
    let read_only = gofer.attach(1).id();
    assert_eq!(
        gofer.create(read_only, "x").err(),
        Some(syscall_tables::Errno::EROFS)
    );
    assert!(
        gofer
            .client
            .as_ref()
            .is_some_and(|client| !client.is_gone())
    );
    drop(gofer);
    assert!(child.wait().expect("end").success());
}

fn shows_its_confinement() {
    let dir = TempDir::new();
    let (mut child, client) = spawn(&dir, &[]);
    let gofer = Gofer::with_client(client);
    // Answers only once it is confined.
    gofer.root();
    let proc = std::path::PathBuf::from(format!("/proc/{}", child.id()));
    let status = std::fs::read_to_string(proc.join("status")).expect("status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned()
    };
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID.
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(field(set), "000000000000001f", "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(
        (field("NoNewPrivs:"), field("Seccomp:")),
        ("1".into(), "2".into())
    );
    assert_eq!(field("Groups:"), "");
    let seen = std::fs::read_dir(proc.join("root")).expect("root");
    assert_eq!(seen.count(), 0);
    let mounts = std::fs::read_to_string(proc.join("mounts")).expect("mounts");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(std::fs::create_dir(proc.join("root/x")).is_err());
    drop(gofer);
    assert!(child.wait().expect("end").success());
}

fn kills_for(attempt: &str) {
    use std::os::unix::process::ExitStatusExt;
    let dir = TempDir::new();
    let (mut child, client) = spawn(&dir, &[attempt]);
    let status = child.wait().expect("end");
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{attempt}: {status}");
    // And its sentry learns of it.
    let start = std::time::Instant::now();
    assert!(client.call(b"x", &mut Vec::new()).is_err());
    assert!(start.elapsed().as_secs() < 2);
}
