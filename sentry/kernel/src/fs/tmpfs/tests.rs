//! Inodes of tmpfs without a VFS around them.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{FallocFlags, Seals};

use super::*;
use crate::vfs::{
    DirEntry, File, FileKind, FileOps, OpenMode, RenameFlags, SetAttr, StatusFlags, VfsPath,
    XattrFlags,
};

fn fs(size_bytes: Option<u64>, inodes: Option<u64>) -> Arc<TmpFs> {
    TmpFs::new(
        77,
        &TmpFsOptions {
            size_bytes,
            inodes,
            ..TmpFsOptions::default()
        },
    )
}

fn create(fs: &TmpFs, name: &str) -> InodeRef {
    let root = fs.root();
    root.create(name.as_bytes(), FileKind::Regular, 0o644, 0, &Creds::root())
        .expect("the name is free")
}

fn open(inode: &InodeRef) -> Arc<File> {
    let any: Arc<dyn std::any::Any + Send + Sync> = inode.clone();
    let ops: Arc<TmpInode> = any.downcast().expect("an inode of tmpfs");
    let path = VfsPath::anonymous(inode.clone(), "test".to_owned());
    File::new(
        ops,
        path,
        OpenMode::READ | OpenMode::WRITE,
        StatusFlags::empty(),
    )
}

fn list(file: &File, from: u64) -> Vec<DirEntry> {
    let mut entries = Vec::new();
    file.ops
        .read_dir(file, from, &mut |entry| {
            entries.push(entry);
            true
        })
        .expect("a directory");
    entries
}

#[test]
fn content_grows_from_vector_to_memfd() {
    let fs = fs(None, None);
    let inode = create(&fs, "f");
    let file = open(&inode);
    let ops = &file.ops;
    assert_eq!(ops.write_at(&file, b"hello", 3, false), Ok((5, 8)));
    let mut buf = [1; 10];
    assert_eq!(ops.read_at(&file, &mut buf, 0), Ok(8));
    assert_eq!(&buf[..8], b"\0\0\0hello");
    assert_eq!(ops.read_at(&file, &mut buf, 8), Ok(0));
    assert_eq!(ops.write_at(&file, b"!", 0, true), Ok((1, 9)));
    let far = 1 << 30;
    assert_eq!(ops.write_at(&file, b"far", far, false), Ok((3, far + 3)));
    assert_eq!(ops.read_at(&file, &mut buf, far - 2), Ok(5));
    assert_eq!(&buf[..5], b"\0\0far");
    assert_eq!(ops.read_at(&file, &mut buf, 4), Ok(10));
    assert_eq!(&buf[..6], b"ello!\0");
    let attr = inode.attr().unwrap();
    assert_eq!((attr.size_bytes, attr.blocks), (far + 3, 16));
    assert_eq!(ops.seek_sparse(&file, 100, false), Ok(4096));
    assert_eq!(ops.seek_sparse(&file, 4096, true), Ok(far));
}

#[test]
fn truncation_zeroes_what_it_cut() {
    let fs = fs(None, None);
    let inode = create(&fs, "f");
    let file = open(&inode);
    for big in [b"x".repeat(100), b"x".repeat(200_000)] {
        file.ops.write_at(&file, &big, 0, false).unwrap();
        let size = |size_bytes| SetAttr {
            size_bytes: Some(size_bytes),
            ..SetAttr::default()
        };
        inode.set_attr(&size(10)).unwrap();
        inode.set_attr(&size(20)).unwrap();
        let mut buf = [1; 30];
        assert_eq!(file.ops.read_at(&file, &mut buf, 0), Ok(20));
        assert_eq!(&buf[..20], b"xxxxxxxxxx\0\0\0\0\0\0\0\0\0\0");
    }
}

#[test]
fn limits_hold() {
    let fs = fs(Some(8 * 4096), Some(3));
    let inode = create(&fs, "f");
    let file = open(&inode);
    let data = vec![7; 100_000];
    assert_eq!(
        file.ops.write_at(&file, &data, 0, false),
        Ok((8 * 4096, 8 * 4096))
    );
    assert_eq!(
        file.ops.write_at(&file, b"x", 8 * 4096, false),
        Err(Errno::ENOSPC)
    );
    // What is there already can be written again.
    assert_eq!(file.ops.write_at(&file, b"x", 9, false), Ok((1, 10)));
    let other = create(&fs, "g");
    let full = fs
        .root()
        .mkdir(b"d", 0o755, &Creds::root())
        .map(drop)
        .unwrap_err();
    assert_eq!(full, Errno::ENOSPC);
    assert_eq!(fs.stat().unwrap().files_free, 0);
    fs.root().unlink(b"f").unwrap();
    assert_eq!(fs.stat().unwrap().blocks_free, 0);
    drop((inode, file));
    assert_eq!(fs.stat().unwrap().blocks_free, 8);
    assert_eq!(fs.stat().unwrap().files_free, 1);
    drop(other);
}

#[test]
fn holes_can_be_punched() {
    let fs = fs(None, None);
    let inode = create(&fs, "f");
    let file = open(&inode);
    file.ops.write_at(&file, &[1; 3 * 4096], 0, false).unwrap();
    let punch = FallocFlags::FALLOC_FL_PUNCH_HOLE | FallocFlags::FALLOC_FL_KEEP_SIZE;
    file.ops.allocate(&file, punch.bits(), 4096, 4096).unwrap();
    assert_eq!(inode.attr().unwrap().blocks, 16);
    let mut byte = [9];
    file.ops.read_at(&file, &mut byte, 5000).unwrap();
    assert_eq!(byte, [0]);
    file.ops.allocate(&file, 0, 0, 5 * 4096).unwrap();
    assert_eq!(inode.attr().unwrap().size_bytes, 5 * 4096);
    let insert = FallocFlags::FALLOC_FL_INSERT_RANGE;
    assert_eq!(
        file.ops.allocate(&file, insert.bits(), 0, 4096),
        Err(Errno::EOPNOTSUPP)
    );
}

#[test]
fn positions_of_entries_are_stable() {
    let fs = fs(None, None);
    for name in ["a", "b", "c"] {
        create(&fs, name);
    }
    let root = fs.root();
    let dir = open(&root);
    let entries = list(&dir, 0);
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_slice()).collect();
    assert_eq!(names, [b".".as_slice(), b"..", b"a", b"b", b"c"]);
    let after_a = entries[2].next_offset;
    root.unlink(b"a").unwrap();
    root.unlink(b"b").unwrap();
    create(&fs, "d");
    let names: Vec<_> = list(&dir, after_a)
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(
        names.iter().map(|name| name.as_slice()).collect::<Vec<_>>(),
        [b"c", b"d"]
    );
}

#[test]
fn link_counts_follow_directories() {
    let fs = fs(None, None);
    let root = fs.root();
    let creds = Creds::root();
    let a = root.mkdir(b"a", 0o755, &creds).unwrap();
    let b = root.mkdir(b"b", 0o755, &creds).unwrap();
    a.mkdir(b"sub", 0o755, &creds).unwrap();
    let nlink = |inode: &InodeRef| inode.attr().unwrap().nlink;
    assert_eq!((nlink(&root), nlink(&a), nlink(&b)), (4, 3, 2));
    a.rename(b"sub", &b, b"moved", RenameFlags::empty())
        .unwrap();
    assert_eq!((nlink(&a), nlink(&b)), (2, 3));
    assert_eq!(
        root.rename(
            b"b",
            &b.lookup(b"moved").unwrap(),
            b"x",
            RenameFlags::empty()
        ),
        Err(Errno::EINVAL)
    );
    assert_eq!(root.rmdir(b"b"), Err(Errno::ENOTEMPTY));
    let none = RenameFlags::empty();
    assert_eq!(root.rename(b"a", &root, b"b", none), Err(Errno::ENOTEMPTY));
    b.rmdir(b"moved").unwrap();
    root.rename(b"a", &root, b"b", none).unwrap();
    assert_eq!((nlink(&root), nlink(&b)), (3, 0));
}

#[test]
fn whiteouts_replace_moved_names() {
    let fs = fs(None, None);
    create(&fs, "f");
    let root = fs.root();
    root.rename(b"f", &root, b"g", RenameFlags::WHITEOUT)
        .unwrap();
    let whiteout = root.lookup(b"f").unwrap();
    assert_eq!(whiteout.kind(), FileKind::CharDevice);
    assert_eq!(whiteout.attr().unwrap().rdev, 0);
}

#[test]
fn seals_hold() {
    let fs = fs(None, None);
    let file = fs.unnamed_file(0o777, &Creds::root()).unwrap();
    file.set_initial_seals(0);
    let inode: InodeRef = file.clone();
    let handle = open(&inode);
    file.write_at(&handle, b"data", 0, false).unwrap();
    file.add_seals(Seals::F_SEAL_GROW.bits()).unwrap();
    assert_eq!(file.write_at(&handle, b"12345", 2, false), Ok((2, 4)));
    assert_eq!(file.write_at(&handle, b"x", 4, false), Err(Errno::EPERM));
    assert_eq!(file.truncate(&handle, 9), Err(Errno::EPERM));
    file.add_seals((Seals::F_SEAL_WRITE | Seals::F_SEAL_SEAL).bits())
        .unwrap();
    assert_eq!(file.write_at(&handle, b"x", 0, false), Err(Errno::EPERM));
    assert_eq!(file.truncate(&handle, 1), Ok(()));
    assert_eq!(
        file.add_seals(Seals::F_SEAL_SHRINK.bits()),
        Err(Errno::EPERM)
    );
    // An ordinary file cannot be sealed.
    let any = create(&fs, "f");
    let any: &dyn std::any::Any = any.as_ref();
    let plain: &TmpInode = any.downcast_ref().unwrap();
    assert_eq!(plain.seals(), Ok(Seals::F_SEAL_SEAL.bits()));
}

#[test]
fn xattrs_are_kept() {
    let fs = fs(None, None);
    let inode = create(&fs, "f");
    let any = XattrFlags::empty();
    inode.set_xattr(b"user.a", b"1", any).unwrap();
    assert_eq!(
        inode.set_xattr(b"user.a", b"2", XattrFlags::CREATE),
        Err(Errno::EEXIST)
    );
    assert_eq!(
        inode.set_xattr(b"user.b", b"2", XattrFlags::REPLACE),
        Err(Errno::ENODATA)
    );
    assert_eq!(inode.get_xattr(b"user.a").unwrap(), b"1");
    assert_eq!(inode.list_xattr().unwrap(), [b"user.a"]);
    inode.remove_xattr(b"user.a").unwrap();
    assert_eq!(inode.get_xattr(b"user.a"), Err(Errno::ENODATA));
}

#[test]
fn options_are_parsed() {
    let mut options = TmpFsOptions::default();
    options
        .parse(b"size=1m,nr_inodes=5k,mode=0755,uid=7,gid=8", 0)
        .unwrap();
    assert_eq!(options.size_bytes, Some(1 << 20));
    assert_eq!(options.inodes, Some(5 << 10));
    assert_eq!((options.perm, options.uid.0, options.gid.0), (0o755, 7, 8));
    options.parse(b"size=50%", 1000).unwrap();
    assert_eq!(options.size_bytes, Some(500));
    assert_eq!(options.parse(b"bogus=1", 0), Err(Errno::EINVAL));
    assert_eq!(options.parse(b"size=x", 0), Err(Errno::EINVAL));
}

#[test]
fn memfds_are_limited_to_half_of_the_memory() {
    let vfs = crate::vfs::Vfs::new();
    vfs.set_memory_bytes(1 << 20);
    let inode = vfs.shm.unnamed_file(0o600, &Creds::root()).unwrap();
    let file = open(&(inode as InodeRef));
    let allocate = |len| file.ops.allocate(&file, 0, 4, len);
    assert_eq!(allocate(1 << 46), Err(Errno::ENOSPC));
    assert_eq!(allocate(1 << 19), Err(Errno::ENOSPC));
    assert_eq!(allocate(100_000), Ok(()));
}
