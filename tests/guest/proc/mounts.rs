//! mount(2), umount2(2), pivot_root(2).

use crate::util::{self, *};

cases![
    mount_tmpfs_basics,
    mount_flags_enforced,
    mount_bind_file_and_dir,
    mount_recursive_and_move,
    mount_proc_and_sysfs,
    mount_errors,
    umount_flags,
    pivot_root_call,
    mount_overlay_or_refusal,
    mount_shared_propagation_or_private,
    new_mount_api_or_enosys,
    tmpfs_size_limit,
];

unsafe fn mount(source: &str, target: &str, fs: &str, flags: u64, data: &str) -> i32 {
    libc::mount(
        c(source).as_ptr(),
        c(target).as_ptr(),
        c(fs).as_ptr(),
        flags,
        c(data).as_ptr().cast(),
    )
}

/// Runs `f` in a mount namespace of its own.
unsafe fn in_mount_ns(f: impl FnOnce()) {
    need_cap(CAP_SYS_ADMIN, "CAP_SYS_ADMIN");
    in_child(|| {
        if libc::unshare(libc::CLONE_NEWNS) == -1 {
            skip(format_args!("no mount namespaces here: {}", errno_text()));
        }
        ok!(mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, ""));
        f();
    });
}

unsafe fn mkdir(name: &str) {
    ok!(libc::mkdir(c(name).as_ptr(), 0o755));
}

unsafe fn exists(name: &str) -> bool {
    libc::access(c(name).as_ptr(), libc::F_OK) == 0
}

unsafe fn umount(name: &str, flags: i32) -> i32 {
    libc::umount2(c(name).as_ptr(), flags)
}

unsafe fn mount_tmpfs_basics() {
    mkdir("m");
    write_file("m/hidden", b"");
    in_mount_ns(|| {
        ok!(mount("src", "m", "tmpfs", 0, "mode=0711,uid=5,size=1m"));
        check!(!exists("m/hidden"));
        let mut st: libc::stat = std::mem::zeroed();
        ok!(libc::stat(c("m").as_ptr(), &mut st));
        eq!((st.st_mode & 0o7777, st.st_uid), (0o711, 5));
        write_file("m/f", b"x");
        check!(
            util::read_text("/proc/self/mounts")
                .lines()
                .any(|l| l.starts_with("src ") && l.contains("/m tmpfs "))
        );
        err!(
            libc::EXDEV,
            libc::rename(c("m/f").as_ptr(), c("f").as_ptr())
        );
        let fd = open("m/f", libc::O_RDONLY);
        err!(libc::EBUSY, umount("m", 0));
        err!(libc::EBUSY, libc::rmdir(c("m").as_ptr()));
        libc::close(fd);
        ok!(umount("m", 0));
        check!(exists("m/hidden"));
        err!(libc::EINVAL, umount("m", 0));
    });
}

unsafe fn mount_flags_enforced() {
    mkdir("m");
    in_mount_ns(|| {
        ok!(mount("t", "m", "tmpfs", 0, ""));
        write_file("m/f", b"#!/bin/sh\n");
        ok!(libc::chmod(c("m/f").as_ptr(), 0o755));
        ok!(mount(
            "t",
            "m",
            "tmpfs",
            libc::MS_REMOUNT | libc::MS_RDONLY,
            ""
        ));
        err!(
            libc::EROFS,
            libc::open(c("m/new").as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o644)
        );
        err!(libc::EROFS, libc::open(c("m/f").as_ptr(), libc::O_RDWR));
        err!(libc::EROFS, libc::unlink(c("m/f").as_ptr()));
        err!(libc::EROFS, libc::mkdir(c("m/d").as_ptr(), 0o755));
        err!(libc::EROFS, libc::access(c("m/f").as_ptr(), libc::W_OK));
        ok!(mount(
            "t",
            "m",
            "tmpfs",
            libc::MS_REMOUNT | libc::MS_NOEXEC | libc::MS_NODEV | libc::MS_NOSUID,
            ""
        ));
        let argv = [c"f".as_ptr(), std::ptr::null()];
        err!(libc::EACCES, libc::execv(c("m/f").as_ptr(), argv.as_ptr()));
        let opts = util::read_text("/proc/self/mounts");
        check!(
            opts.lines()
                .any(|l| l.contains("/m tmpfs ") && l.contains("nosuid,nodev,noexec")),
            "{opts}"
        );
        let fd = open("m/f", libc::O_RDONLY);
        err!(
            libc::EPERM,
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_EXEC,
                libc::MAP_PRIVATE,
                fd,
                0
            )
        );
        if libc::mknod(
            c("m/null").as_ptr(),
            libc::S_IFCHR | 0o666,
            libc::makedev(1, 3),
        ) == 0
        {
            err!(
                libc::EACCES,
                libc::open(c("m/null").as_ptr(), libc::O_RDONLY)
            );
        }
    });
}

unsafe fn mount_bind_file_and_dir() {
    mkdir("src");
    mkdir("dst");
    write_file("src/f", b"1");
    write_file("a", b"a");
    write_file("b", b"b");
    in_mount_ns(|| {
        ok!(mount("src", "dst", "", libc::MS_BIND, ""));
        eq!(util::read_file("dst/f"), b"1");
        write_file("dst/g", b"2");
        eq!(util::read_file("src/g"), b"2");
        err!(
            libc::EXDEV,
            libc::link(c("src/f").as_ptr(), c("dst/l").as_ptr())
        );
        // Read-only for this mount only.
        ok!(mount(
            "",
            "dst",
            "",
            libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY,
            ""
        ));
        err!(
            libc::EROFS,
            libc::open(c("dst/h").as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o644)
        );
        write_file("src/h", b"");
        ok!(mount("a", "b", "", libc::MS_BIND, ""));
        eq!(util::read_file("b"), b"a");
        err!(libc::EBUSY, libc::unlink(c("b").as_ptr()));
        err!(libc::ENOTDIR, mount("src", "b", "", libc::MS_BIND, ""));
        err!(libc::ENOTDIR, mount("a", "dst", "", libc::MS_BIND, ""));
        ok!(umount("b", 0));
        eq!(util::read_file("b"), b"b");
    });
}

unsafe fn mount_recursive_and_move() {
    mkdir("src");
    mkdir("dst");
    mkdir("to");
    in_mount_ns(|| {
        ok!(mount("t1", "src", "tmpfs", 0, ""));
        mkdir("src/sub");
        ok!(mount("t2", "src/sub", "tmpfs", 0, ""));
        write_file("src/sub/deep", b"");
        ok!(mount("src", "dst", "", libc::MS_BIND, ""));
        check!(!exists("dst/sub/deep"));
        ok!(umount("dst", 0));
        ok!(mount("src", "dst", "", libc::MS_BIND | libc::MS_REC, ""));
        check!(exists("dst/sub/deep"));
        err!(libc::EBUSY, umount("dst", 0));
        ok!(umount("dst", libc::MNT_DETACH));
        check!(!exists("dst/sub"));
        ok!(mount("src", "to", "", libc::MS_MOVE, ""));
        check!(exists("to/sub/deep") && !exists("src/sub"));
    });
}

unsafe fn mount_proc_and_sysfs() {
    mkdir("p");
    mkdir("s");
    in_mount_ns(|| {
        ok!(mount("proc", "p", "proc", 0, ""));
        check!(exists("p/self/stat"));
        ok!(mount("sysfs", "s", "sysfs", libc::MS_RDONLY, ""));
        check!(exists("s/class"));
    });
}

unsafe fn mount_errors() {
    mkdir("m");
    write_file("f", b"");
    in_mount_ns(|| {
        err!(libc::ENODEV, mount("x", "m", "nosuchfs", 0, ""));
        err!(libc::ENOENT, mount("x", "none", "tmpfs", 0, ""));
        err!(libc::ENOTDIR, mount("x", "f", "tmpfs", 0, ""));
        err!(libc::ENOENT, mount("none", "m", "", libc::MS_BIND, ""));
        err!(libc::EINVAL, mount("t", "m", "tmpfs", libc::MS_REMOUNT, ""));
        err!(libc::EINVAL, mount("t", "m", "tmpfs", 0, "nonsense=1"));
        err!(libc::EINVAL, umount("f", 0));
        err!(libc::ENOENT, umount("none", 0));
        err!(libc::EINVAL, umount("m", 0x100));
    });
    in_child(|| {
        ok!(libc::setuid(1000));
        err!(libc::EPERM, mount("t", "m", "tmpfs", 0, ""));
        err!(libc::EPERM, umount("/proc", 0));
    });
}

unsafe fn umount_flags() {
    mkdir("m");
    in_mount_ns(|| {
        ok!(mount("t", "m", "tmpfs", 0, ""));
        write_file("m/f", b"kept");
        let fd = open("m/f", libc::O_RDONLY);
        ok!(umount("m", libc::MNT_DETACH));
        // Open files outlive a lazy unmount.
        eq!(read_some(fd, 10), b"kept");
        ok!(mount("t", "m", "tmpfs", 0, ""));
        err!(libc::EAGAIN, umount("m", libc::MNT_EXPIRE));
        ok!(umount("m", libc::MNT_EXPIRE));
        ok!(libc::symlink(c("m").as_ptr(), c("l").as_ptr()));
        ok!(mount("t", "m", "tmpfs", 0, ""));
        err!(libc::EINVAL, umount("l", libc::UMOUNT_NOFOLLOW));
        ok!(umount("l", 0));
    });
}

unsafe fn pivot_root_call() {
    mkdir("new");
    in_mount_ns(|| {
        ok!(mount("t", "new", "tmpfs", 0, ""));
        mkdir("new/old");
        write_file("new/marker", b"");
        let r = sys!(
            libc::SYS_pivot_root,
            c("new").as_ptr(),
            c("new/old").as_ptr()
        );
        // Refused on an initial ram file system.
        if r == -1 && errno() == libc::EINVAL {
            skip("the root can't be pivoted");
        }
        ok!(r);
        check!(exists("/marker") && exists("/old/proc"));
        ok!(libc::chdir(c"/".as_ptr()));
        ok!(umount("/old", libc::MNT_DETACH));
        check!(!exists("/old/proc"));
    });
}

unsafe fn mount_overlay_or_refusal() {
    for d in ["l", "u", "w", "m"] {
        mkdir(d);
    }
    in_mount_ns(|| {
        ok!(mount("t", "u", "tmpfs", 0, ""));
        mkdir("u/up");
        mkdir("u/work");
        write_file("l/low", b"low");
        let r = mount(
            "o",
            "m",
            "overlay",
            0,
            "lowerdir=l,upperdir=u/up,workdir=u/work",
        );
        if r == -1 {
            check!([libc::ENODEV, libc::EINVAL, libc::EPERM].contains(&errno()));
            return;
        }
        eq!(util::read_file("m/low"), b"low");
        write_file("m/low", b"changed");
        eq!(util::read_file("l/low"), b"low");
        ok!(libc::unlink(c("m/low").as_ptr()));
        check!(!exists("m/low") && exists("l/low"));
    });
}

unsafe fn mount_shared_propagation_or_private() {
    mkdir("a");
    in_mount_ns(|| {
        ok!(mount("t", "a", "tmpfs", 0, ""));
        for flag in [
            libc::MS_SHARED,
            libc::MS_SLAVE,
            libc::MS_UNBINDABLE,
            libc::MS_PRIVATE,
        ] {
            ok!(mount("", "a", "", flag, ""));
        }
        err!(
            libc::EINVAL,
            mount("", "a", "", libc::MS_SHARED | libc::MS_PRIVATE, "")
        );
    });
}

unsafe fn new_mount_api_or_enosys() {
    mkdir("m");
    in_mount_ns(|| {
        let fs = sys!(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1);
        if fs == -1 {
            check!([libc::ENOSYS, libc::EPERM].contains(&errno()));
            return;
        }
        ok!(sys!(libc::SYS_fsconfig, fs, 6, 0, 0, 0));
        let mnt = ok!(sys!(libc::SYS_fsmount, fs, 1, 0));
        ok!(sys!(
            libc::SYS_move_mount,
            mnt,
            c"".as_ptr(),
            libc::AT_FDCWD,
            c("m").as_ptr(),
            4
        ));
        write_file("m/f", b"");
    });
}

unsafe fn tmpfs_size_limit() {
    mkdir("m");
    in_mount_ns(|| {
        ok!(mount("t", "m", "tmpfs", 0, "size=64k,nr_inodes=10"));
        let fd = open("m/f", libc::O_CREAT | libc::O_RDWR);
        let mut total = 0;
        loop {
            let n = libc::write(fd, [1u8; 4096].as_ptr().cast(), 4096);
            if n < 0 {
                break;
            }
            total += n;
        }
        eq!((errno(), total), (libc::ENOSPC, 65536));
        ok!(libc::unlink(c("m/f").as_ptr()));
        libc::close(fd);
        let mut n = 0;
        while libc::mkdir(c(&format!("m/d{n}")).as_ptr(), 0o755) == 0 {
            n += 1;
            check!(n < 20);
        }
        eq!(errno(), libc::ENOSPC);
        let mut sf: libc::statfs = std::mem::zeroed();
        ok!(libc::statfs(c("m").as_ptr(), &mut sf));
        eq!((sf.f_blocks * sf.f_bsize as u64, sf.f_files), (65536, 10));
    });
}
