//! The new image: auxiliary vector, mappings, names.

use super::*;
use crate::helpers::exe;
use crate::util::{self, *};

cases![
    auxv_contents,
    auxv_in_proc,
    comm_and_cmdline,
    proc_exe_link,
    deleted_exe_link,
    mappings_replaced,
    brk_starts_after_image,
    stack_holds_big_arguments,
    aslr_moves,
];

unsafe fn auxv_contents() {
    eq!(libc::getauxval(libc::AT_PAGESZ), 4096);
    eq!(libc::getauxval(libc::AT_UID), u64::from(libc::getuid()));
    eq!(libc::getauxval(libc::AT_EGID), u64::from(libc::getegid()));
    eq!(libc::getauxval(libc::AT_SECURE), 0);
    eq!(libc::getauxval(libc::AT_CLKTCK), 100);
    check!(libc::getauxval(libc::AT_PHNUM) > 3);
    eq!(libc::getauxval(libc::AT_PHENT), 56);
    check!(libc::getauxval(libc::AT_ENTRY) != 0);
    let platform = libc::getauxval(libc::AT_PLATFORM) as *const libc::c_char;
    eq!(std::ffi::CStr::from_ptr(platform), c"x86_64");
    let execfn = libc::getauxval(libc::AT_EXECFN) as *const libc::c_char;
    check!(!execfn.is_null());
    // 16 random bytes, not constant over execs.
    let random = libc::getauxval(libc::AT_RANDOM) as *const [u8; 16];
    check!(!random.is_null() && *random != [0; 16]);
    // The program headers are readable at AT_PHDR and start with what the
    // file says.
    let phdr = libc::getauxval(libc::AT_PHDR) as *const u32;
    check!(*phdr <= 10 || *phdr > 0x6000_0000);
    let vdso = libc::getauxval(libc::AT_SYSINFO_EHDR) as *const [u8; 4];
    if !vdso.is_null() {
        eq!(*vdso, *b"\x7fELF");
    }
}

unsafe fn auxv_in_proc() {
    let bytes = read_file("/proc/self/auxv");
    check!(bytes.len() >= 32 && bytes.len().is_multiple_of(16));
    let words: Vec<u64> = bytes
        .chunks(8)
        .map(|b| u64::from_ne_bytes(b.try_into().unwrap_or([0; 8])))
        .collect();
    let mut seen = 0;
    for pair in words.chunks(2) {
        if pair[0] == libc::AT_PAGESZ || pair[0] == libc::AT_ENTRY || pair[0] == libc::AT_RANDOM {
            eq!(pair[1], libc::getauxval(pair[0]));
            seen += 1;
        }
    }
    eq!(seen, 3);
}

unsafe fn comm_and_cmdline() {
    ok!(libc::symlink(
        exe().as_ptr(),
        c("a-very-long-program-name").as_ptr()
    ));
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let pid = fork(|| {
        let argv = [
            c"zero".as_ptr(),
            c"pause".as_ptr(),
            c"".as_ptr(),
            c"two".as_ptr(),
            std::ptr::null(),
        ];
        libc::execv(c"./a-very-long-program-name".as_ptr(), argv.as_ptr());
    });
    libc::close(w);
    read_some(r, 1);
    eq!(read_text(&format!("/proc/{pid}/comm")), "a-very-long-pro\n");
    eq!(
        read_file(&format!("/proc/{pid}/cmdline")),
        b"zero\0pause\0\0two\0"
    );
    let stat = read_text(&format!("/proc/{pid}/stat"));
    check!(
        stat.starts_with(&format!("{pid} (a-very-long-pro) ")),
        "{stat}"
    );
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn proc_exe_link() {
    let link = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    check!(link.is_absolute());
    let a = std::fs::metadata(&link)
        .map(|m| std::os::unix::fs::MetadataExt::ino(&m))
        .unwrap_or(1);
    let b = std::fs::metadata("/proc/self/exe")
        .map(|m| std::os::unix::fs::MetadataExt::ino(&m))
        .unwrap_or(2);
    eq!(a, b);
}

unsafe fn deleted_exe_link() {
    make_exec("prog", &read_file(&me()));
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let pid = fork(|| {
        let argv = [c"prog".as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(c"./prog".as_ptr(), argv.as_ptr());
    });
    libc::close(w);
    read_some(r, 1);
    ok!(libc::unlink(c"prog".as_ptr()));
    let link = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    check!(
        link.to_string_lossy().ends_with("/prog (deleted)"),
        "{link:?}"
    );
    // It still opens.
    let fd = open(&format!("/proc/{pid}/exe"), libc::O_RDONLY);
    eq!(read_some(fd, 4), b"\x7fELF");
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn mappings_replaced() {
    // A fixed mapping of the old image is not there after the exec.
    let p = libc::mmap(
        0x1234_5000 as *mut _,
        4096,
        libc::PROT_READ,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
        -1,
        0,
    );
    eq!(p as usize, 0x1234_5000);
    let out = run(&["/bin/cat", "/proc/self/maps"]);
    check!(!out.contains("12345000-"), "{out}");
    check!(out.contains("[stack]"), "{out}");
    check!(out.contains("cat"), "{out}");
}

unsafe fn brk_starts_after_image() {
    let out = run(&["/bin/cat", "/proc/self/maps"]);
    let heap = out.lines().find(|l| l.ends_with("[heap]"));
    check!(heap.is_some(), "{out}");
}

unsafe fn stack_holds_big_arguments() {
    let arg = "x".repeat(100_000);
    let out = run(&[&me(), "print-args", &arg, &arg, &arg, &arg]);
    eq!(out.lines().filter(|l| l.len() == 100_004).count(), 4);
}

unsafe fn aslr_moves() {
    let mut stacks = std::collections::HashSet::new();
    let mut heaps = std::collections::HashSet::new();
    for _ in 0..4 {
        let out = run(&["/bin/cat", "/proc/self/maps"]);
        stacks.insert(
            out.lines()
                .find(|l| l.ends_with("[stack]"))
                .unwrap_or("")
                .to_owned(),
        );
        heaps.insert(
            out.lines()
                .find(|l| l.ends_with("[heap]"))
                .unwrap_or("")
                .to_owned(),
        );
    }
    check!(stacks.len() > 1, "{stacks:?}");
    check!(heaps.len() > 1, "{heaps:?}");
}
