//! getdents(2).

use super::*;
use crate::util::*;

cases![
    getdents_lists_all,
    getdents_small_buffer,
    getdents_errors,
    getdents_seek_stable,
    getdents_while_deleting,
    getdents_types,
    getdents_rewind_sees_new,
    getdents_dot_inodes,
    readdir_big_directory,
];

/// One entry: inode, next offset, type, name.
type Entry = (u64, i64, u8, String);

unsafe fn getdents(fd: i32, size: usize) -> Vec<Entry> {
    let mut b = vec![0u8; size];
    let n = ok!(sys!(libc::SYS_getdents64, fd, b.as_mut_ptr(), size)) as usize;
    let mut at = 0;
    let mut out = Vec::new();
    while at < n {
        let ino = u64::from_ne_bytes(b[at..at + 8].try_into().unwrap_or_default());
        let off = i64::from_ne_bytes(b[at + 8..at + 16].try_into().unwrap_or_default());
        let len = u16::from_ne_bytes([b[at + 16], b[at + 17]]) as usize;
        check!(len >= 20 && len.is_multiple_of(8) && at + len <= n);
        let name = &b[at + 19..at + len];
        let end = name.iter().position(|x| *x == 0).unwrap_or(name.len());
        out.push((
            ino,
            off,
            b[at + 18],
            String::from_utf8_lossy(&name[..end]).into_owned(),
        ));
        at += len;
    }
    out
}

unsafe fn all_entries(fd: i32, size: usize) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let part = getdents(fd, size);
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

unsafe fn make_entries(n: usize) -> i32 {
    mkdir("d");
    for i in 0..n {
        write_file(&format!("d/file{i:04}"), b"");
    }
    open("d", libc::O_RDONLY | libc::O_DIRECTORY)
}

unsafe fn getdents_lists_all() {
    let fd = make_entries(100);
    let mut names: Vec<String> = all_entries(fd, 4096).into_iter().map(|e| e.3).collect();
    names.sort();
    eq!(names.len(), 102);
    eq!(
        (names[0].as_str(), names[1].as_str(), names[2].as_str()),
        (".", "..", "file0000")
    );
    names.dedup();
    eq!(names.len(), 102);
}

unsafe fn getdents_small_buffer() {
    let fd = make_entries(20);
    let names: Vec<String> = all_entries(fd, 64).into_iter().map(|e| e.3).collect();
    eq!(names.len(), 22);
    err!(libc::EINVAL, {
        libc::lseek(fd, 0, libc::SEEK_SET);
        sys!(libc::SYS_getdents64, fd, [0u8; 8].as_mut_ptr(), 8)
    });
}

unsafe fn getdents_errors() {
    let fd = make_entries(1);
    write_file("f", b"");
    err!(
        libc::ENOTDIR,
        sys!(
            libc::SYS_getdents64,
            open("f", libc::O_RDONLY),
            [0u8; 100].as_mut_ptr(),
            100
        )
    );
    err!(libc::EFAULT, sys!(libc::SYS_getdents64, fd, 8, 100));
    err!(libc::EBADF, sys!(libc::SYS_getdents64, 99, 8, 100));
    ok!(libc::unlink(c("d/file0000").as_ptr()));
    ok!(libc::rmdir(c("d").as_ptr()));
    err!(
        libc::ENOENT,
        sys!(libc::SYS_getdents64, fd, [0u8; 100].as_mut_ptr(), 100)
    );
}

unsafe fn getdents_seek_stable() {
    let fd = make_entries(50);
    let all = all_entries(fd, 4096);
    // Continue behind any entry.
    for i in [0, 1, 10, 30, 49] {
        ok!(libc::lseek(fd, all[i].1, libc::SEEK_SET));
        let rest: Vec<String> = all_entries(fd, 4096).into_iter().map(|e| e.3).collect();
        let expected: Vec<String> = all[i + 1..].iter().map(|e| e.3.clone()).collect();
        eq!(rest, expected, "after entry {i}");
    }
}

unsafe fn getdents_while_deleting() {
    // rm -r reads a part, deletes it and goes on.
    let fd = make_entries(300);
    let mut seen = 0;
    loop {
        let part = getdents(fd, 600);
        if part.is_empty() {
            break;
        }
        for (_, _, _, name) in part {
            if name.starts_with('.') {
                continue;
            }
            seen += 1;
            ok!(libc::unlinkat(fd, c(&name).as_ptr(), 0));
        }
    }
    eq!(seen, 300);
    ok!(libc::rmdir(c("d").as_ptr()));
}

unsafe fn getdents_types() {
    mkdir("d");
    mkdir("d/dir");
    write_file("d/reg", b"");
    ok!(libc::symlink(c("x").as_ptr(), c("d/lnk").as_ptr()));
    ok!(libc::mkfifo(c("d/fifo").as_ptr(), 0o600));
    let fd = open("d", libc::O_RDONLY);
    for (ino, _, kind, name) in all_entries(fd, 4096) {
        let expected = match name.as_str() {
            "." | ".." | "dir" => libc::DT_DIR,
            "reg" => libc::DT_REG,
            "lnk" => libc::DT_LNK,
            _ => libc::DT_FIFO,
        };
        check!(
            kind == expected || kind == libc::DT_UNKNOWN,
            "{name} has type {kind}"
        );
        if !name.starts_with('.') {
            let mut st: libc::stat = std::mem::zeroed();
            ok!(libc::lstat(c(&format!("d/{name}")).as_ptr(), &mut st));
            eq!(st.st_ino, ino);
        }
    }
}

unsafe fn getdents_rewind_sees_new() {
    let fd = make_entries(3);
    eq!(all_entries(fd, 4096).len(), 5);
    write_file("d/new", b"");
    eq!(ok!(libc::lseek(fd, 0, libc::SEEK_SET)), 0);
    check!(all_entries(fd, 4096).iter().any(|e| e.3 == "new"));
}

unsafe fn getdents_dot_inodes() {
    let fd = make_entries(0);
    for (ino, _, _, name) in all_entries(fd, 4096) {
        eq!(ino, stat(&format!("d/{name}")).st_ino, "{name}");
    }
}

unsafe fn readdir_big_directory() {
    let fd = make_entries(3000);
    let mut names: Vec<String> = all_entries(fd, 32768).into_iter().map(|e| e.3).collect();
    names.sort();
    names.dedup();
    eq!(names.len(), 3002);
}
