//! Memory in /proc: maps, smaps, status, statm.

use super::*;
use crate::util::*;

cases![
    maps_lists_mappings,
    maps_merges_neighbours,
    smaps_rollup_and_status,
    statm_fields,
];

unsafe fn maps_lists_mappings() {
    write_file("mapped-file", &[0; PAGE]);
    let fd = open("mapped-file", libc::O_RDWR);
    let a = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0)) as usize;
    let b = ok!(mmap(
        0x5000_0000,
        3 * PAGE,
        libc::PROT_NONE,
        ANON | libc::MAP_FIXED,
        -1,
        0
    )) as usize;
    let (start, end, mode, line) = vma(a).unwrap_or_default();
    eq!((start, end), (a, a + PAGE));
    eq!(mode, "r--s");
    check!(line.ends_with("/mapped-file"), "{line}");
    // Inode and device are the file's.
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    eq!(
        line.split_whitespace().nth(4),
        Some(st.st_ino.to_string().as_str())
    );
    let dev = format!(
        "{:02x}:{:02x}",
        libc::major(st.st_dev),
        libc::minor(st.st_dev)
    );
    eq!(line.split_whitespace().nth(3), Some(dev.as_str()));
    eq!(
        vma(b).map(|v| (v.0, v.1, v.2)),
        Some((b, b + 3 * PAGE, "---p".to_owned()))
    );
    let text = read_text("/proc/self/maps");
    check!(text.contains("[stack]\n"));
    check!(text.contains("[heap]\n"));
    check!(text.contains("/guest\n"), "{text}");
    // Ascending and disjoint.
    let mut last = 0;
    for line in text.lines() {
        let (a, b) = line
            .split(' ')
            .next()
            .and_then(|r| r.split_once('-'))
            .unwrap_or_default();
        let (a, b) = (
            u64::from_str_radix(a, 16).unwrap_or(0),
            u64::from_str_radix(b, 16).unwrap_or(0),
        );
        check!(last <= a && a < b, "{text}");
        last = b;
    }
}

unsafe fn maps_merges_neighbours() {
    for i in 0..4 {
        mmap(
            0x6000_0000 + i * PAGE,
            PAGE,
            RW,
            ANON | libc::MAP_FIXED,
            -1,
            0,
        );
    }
    eq!(
        vma(0x6000_0000).map(|v| (v.0, v.1)),
        Some((0x6000_0000, 0x6000_0000 + 4 * PAGE))
    );
}

unsafe fn smaps_rollup_and_status() {
    let before = status_kb("VmRSS");
    check!(before > 0);
    let size = status_kb("VmSize");
    let p = anon(16 << 20);
    check!(status_kb("VmSize") >= size + (16 << 10));
    for i in (0..16 << 20).step_by(PAGE) {
        *p.add(i) = 1;
    }
    let after = status_kb("VmRSS");
    check!(after - before > 12 << 10, "VmRSS {before} -> {after}");
    check!(status_kb("VmPeak") >= status_kb("VmSize"));
    check!(status_kb("VmHWM") >= after - 1024);
    check!(status_kb("VmStk") > 0);
}

unsafe fn statm_fields() {
    let fields: Vec<u64> = read_text("/proc/self/statm")
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    eq!(fields.len(), 7);
    check!(fields[0] >= fields[1] && fields[1] > 0, "{fields:?}");
    let p = anon(8 << 20);
    for i in 0..2048 {
        *p.add(i * PAGE) = 1;
    }
    let now: u64 = read_text("/proc/self/statm")
        .split_whitespace()
        .nth(1)
        .and_then(|f| f.parse().ok())
        .unwrap_or(0);
    let grown = now.saturating_sub(fields[1]);
    check!((2000..2300).contains(&grown), "{grown} pages more");
}
