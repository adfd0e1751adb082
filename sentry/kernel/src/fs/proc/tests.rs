//! proc over a sandbox whose guest code the test plays.

use std::collections::BTreeSet;
use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::table::nr;

use super::ProcFs;
use crate::fs::kernfs::OpenText;
use crate::task::Task;
use crate::testing::World;
use crate::vfs::{
    File, FileKind, FileSystem, InodeRef, OpenMode, OpenRequest, StatusFlags, VfsPath,
};

const READ: OpenRequest = OpenRequest {
    read: true,
    write: false,
    truncate: false,
    append: false,
    direct: false,
    nonblock: false,
};

fn find(root: &InodeRef, path: &str) -> Result<InodeRef, Errno> {
    let mut at = root.clone();
    for name in path.split('/') {
        at = at.lookup(name.as_bytes())?;
    }
    Ok(at)
}

fn open(inode: InodeRef, task: Option<&Arc<Task>>) -> Result<Arc<File>, Errno> {
    let ops = inode.clone().open_by(&READ, task)?;
    let path = VfsPath::anonymous(inode, "test".to_owned());
    Ok(File::new(ops, path, OpenMode::READ, StatusFlags::empty()))
}

fn read(root: &InodeRef, path: &str, task: Option<&Arc<Task>>) -> Result<String, Errno> {
    let file = open(find(root, path)?, task)?;
    let mut text = Vec::new();
    let mut piece = [0; 100];
    loop {
        let count = file.ops.read_at(&file, &mut piece, text.len() as u64)?;
        if count == 0 {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        text.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn stat_has_all_fields_and_a_name_may_hold_anything() {
    let world = World::new();
    let root = ProcFs::new(world.sandbox.kernel(), None).root();
    let task = world.task(1);
    task.set_comm(b"a) b (c");
    let stat = read(&root, "1/stat", Some(&task)).expect("stat");
    let (head, rest) = stat.rsplit_once(") ").expect("name");
    assert_eq!(head, "1 (a) b (c");
    assert_eq!(rest.split_whitespace().count(), 50);
    assert!(stat.ends_with('\n'));
    let status = read(&root, "1/status", Some(&task)).expect("status");
    assert!(status.starts_with("Name:\ta) b (c\nUmask:\t0022\n"));
    assert!(status.contains("\nNSpid:\t1\t1\n"));
}

#[test]
fn every_file_of_a_process_reads_and_its_numbers_are_unique() {
    let world = World::new();
    let root = ProcFs::new(world.sandbox.kernel(), None).root();
    let task = world.task(1);
    let mut seen = BTreeSet::new();
    for dir in ["1", "1/task/1", "1/ns", "1/task"] {
        let listing = open(find(&root, dir).expect(dir), Some(&task)).expect(dir);
        let mut entries = Vec::new();
        let all = &mut |entry| {
            entries.push(entry);
            true
        };
        listing.ops.read_dir(&listing, 0, all).expect(dir);
        for entry in entries {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            if name == "." || name == ".." || name == "net" {
                continue;
            }
            let path = format!("{dir}/{name}");
            let inode = find(&root, &path).expect(&path);
            let attr = inode.attr().expect(&path);
            assert_eq!((attr.ino, attr.kind), (entry.ino, entry.kind), "{path}");
            assert!(seen.insert(entry.ino), "{path} has a number of another's");
            if entry.kind == FileKind::Regular && name != "mem" && name != "pagemap" {
                read(&root, &path, Some(&task)).expect(&path);
            }
            if entry.kind == FileKind::Symlink {
                assert!(inode.follow_magic_by(Some(&task)).is_some(), "{path}");
            }
        }
    }
}

#[test]
fn what_is_about_a_reaped_process_is_gone() {
    let world = World::new();
    let root = ProcFs::new(world.sandbox.kernel(), None).root();
    let parent = world.task(1);
    let child = world.call(&world.init, nr::FORK, &[]);
    let guest = world.next_guest();
    let name = child.to_string();
    let dir = find(&root, &name).expect("child");
    let stat = open(
        find(&root, &format!("{name}/stat")).expect("stat"),
        Some(&parent),
    );
    let stat = stat.expect("open");
    assert!(root.lookup_revalidate(name.as_bytes(), Some(&dir)));
    assert_eq!(world.try_call(&guest, nr::EXIT_GROUP, &[0]), None);
    assert_eq!(world.call(&world.init, nr::WAIT4, &[0, 0, 0, 0]), child);
    let mut buf = [0; 8];
    assert_eq!(stat.ops.read_at(&stat, &mut buf, 0), Err(Errno::ESRCH));
    assert_eq!(dir.lookup(b"stat").err(), Some(Errno::ESRCH));
    assert!(!root.lookup_revalidate(name.as_bytes(), Some(&dir)));
    assert_eq!(root.lookup(name.as_bytes()).err(), Some(Errno::ENOENT));
}

#[test]
fn text_read_in_pieces_is_of_one_moment() {
    let world = World::new();
    let root = ProcFs::new(world.sandbox.kernel(), None).root();
    let task = world.task(1);
    let file = open(find(&root, "1/comm").expect("comm"), Some(&task)).expect("open");
    let mut buf = [0; 4];
    task.set_comm(b"before");
    assert_eq!(file.ops.read_at(&file, &mut buf, 0), Ok(4));
    task.set_comm(b"after");
    assert_eq!(file.ops.read_at(&file, &mut buf, 4), Ok(3));
    assert_eq!(&buf[..3], b"re\n");
    assert_eq!(file.ops.read_at(&file, &mut buf, 0), Ok(4));
    assert_eq!(&buf, b"afte");
    assert!(file.downcast::<OpenText>().is_some());
}

#[test]
fn a_setting_without_effect_can_not_be_written() {
    let world = World::new();
    let root = ProcFs::new(world.sandbox.kernel(), None).root();
    let task = world.task(1);
    let pid_max = open(
        find(&root, "sys/kernel/pid_max").expect("file"),
        Some(&task),
    );
    let pid_max = pid_max.expect("open");
    assert_eq!(pid_max.ops.write(&pid_max, b"5"), Err(Errno::EPERM));
    let host = open(
        find(&root, "sys/kernel/hostname").expect("file"),
        Some(&task),
    );
    let host = host.expect("open");
    assert_eq!(host.ops.write_as(&task, &host, b"new\n"), Ok(4));
    assert_eq!(task.namespaces().uts.names.read().host, b"new");
}
