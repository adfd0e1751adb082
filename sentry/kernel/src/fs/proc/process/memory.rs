//! What there is in an address space: `maps`, `smaps`, `statm`, `auxv`.
//!
//! The host says how much of an address space is resident, not which parts.
//! Files that break it down by mapping share it out by the mappings' sizes.

use std::fmt::Write;

use sentry_platform::Protection;
use syscall_tables::Errno;

use super::Query;
use crate::mm::{MapLine, Usage, VmaFlags};
use crate::vfs::{dev_major, dev_minor};

/// Column where names start in `maps`.
const NAME_COLUMN: usize = 72;

pub(super) fn auxv(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    Ok(query.task.mm().layout().auxv)
}

pub(super) fn statm(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let mm = query.task.mm();
    let usage = mm.usage();
    let code = mm.layout().code;
    let text = code.end.saturating_sub(code.start).next_multiple_of(4096);
    Ok(format!(
        "{} {} {} {} 0 {} 0\n",
        Usage::pages(usage.total),
        Usage::pages(usage.resident),
        Usage::pages(usage.shared),
        Usage::pages(text),
        Usage::pages(usage.data.saturating_add(usage.stack)),
    )
    .into_bytes())
}

/// One line of `maps`.
fn map_line(query: &Query<'_>, line: &MapLine, out: &mut Vec<u8>) {
    let (mut dev, mut ino) = (0, line.ino);
    let mut name = line.name.clone().into_bytes();
    if let Some(file) = &line.file {
        if let Ok(attr) = file.attr() {
            (dev, ino) = (attr.dev, attr.ino);
        }
        name = query.path(&file.path);
    }
    let start = out.len();
    let head = format!(
        "{:08x}-{:08x} {} {:08x} {:02x}:{:02x} {ino} ",
        line.start,
        line.end,
        line.permissions(),
        line.offset,
        dev_major(dev),
        dev_minor(dev),
    );
    out.extend_from_slice(head.as_bytes());
    if !name.is_empty() {
        while out.len() - start < NAME_COLUMN {
            out.push(b' ');
        }
        out.push(b' ');
        for byte in name {
            match byte {
                b'\n' => out.extend_from_slice(b"\\012"),
                byte => out.push(byte),
            }
        }
    }
    out.push(b'\n');
}

pub(super) fn maps(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    for line in query.task.mm().map_lines() {
        map_line(query, &line, &mut out);
    }
    Ok(out)
}

/// Resident parts of one or all mappings, in bytes.
#[derive(Default)]
struct Resident {
    size: u64,
    rss: u64,
    /// Of those, shared with the file.
    file: u64,
    locked: u64,
}

impl Resident {
    fn add(&mut self, other: &Self) {
        self.size += other.size;
        self.rss += other.rss;
        self.file += other.file;
        self.locked += other.locked;
    }

    /// The block of lines from `Rss` to `Locked`; `smaps_rollup` has a few
    /// more.
    fn lines(&self, rollup: bool) -> String {
        let anonymous = self.rss.saturating_sub(self.file);
        let mut lines = vec![
            ("Rss", self.rss),
            ("Pss", self.rss),
            ("Pss_Dirty", anonymous),
        ];
        if rollup {
            lines.extend([
                ("Pss_Anon", anonymous),
                ("Pss_File", self.file),
                ("Pss_Shmem", 0),
            ]);
        }
        lines.extend([
            ("Shared_Clean", 0),
            ("Shared_Dirty", 0),
            ("Private_Clean", self.file),
            ("Private_Dirty", anonymous),
            ("Referenced", self.rss),
            ("Anonymous", anonymous),
            ("KSM", 0),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", self.locked),
        ]);
        let mut text = String::new();
        for (name, bytes) in lines {
            line(&mut text, name, bytes);
        }
        text
    }
}

fn line(text: &mut String, name: &str, bytes: u64) {
    let _ = writeln!(text, "{:<16}{:>8} kB", format!("{name}:"), bytes / 1024);
}

/// The share of a mapping in what is resident.
fn share(line: &MapLine, usage: &Usage) -> Resident {
    let size = line.end - line.start;
    let product = u128::from(size) * u128::from(usage.resident);
    let rss = product.checked_div(usage.total.into()).unwrap_or(0);
    let rss = u64::try_from(rss).unwrap_or(u64::MAX).min(size) & !4095;
    let from_file = line.file.is_some() && !line.protection.contains(Protection::WRITE);
    Resident {
        size,
        rss,
        file: if from_file { rss } else { 0 },
        locked: if line.flags.contains(VmaFlags::LOCKED) {
            rss
        } else {
            0
        },
    }
}

fn vm_flags(line: &MapLine) -> String {
    let shared = line.flags.contains(VmaFlags::SHARED);
    let names = [
        ("rd", line.protection.contains(Protection::READ)),
        ("wr", line.protection.contains(Protection::WRITE)),
        ("ex", line.protection.contains(Protection::EXEC)),
        ("sh", shared),
        ("mr", true),
        ("mw", true),
        ("me", true),
        ("ms", shared),
        ("gd", line.flags.contains(VmaFlags::GROWSDOWN)),
        ("lo", line.flags.contains(VmaFlags::LOCKED)),
        ("sr", line.flags.contains(VmaFlags::SEQUENTIAL)),
        ("rr", line.flags.contains(VmaFlags::RANDOM)),
        ("dc", line.flags.contains(VmaFlags::DONTFORK)),
        ("nr", line.flags.contains(VmaFlags::NORESERVE)),
        ("wf", line.flags.contains(VmaFlags::WIPEONFORK)),
        ("dd", line.flags.contains(VmaFlags::DONTDUMP)),
        ("hg", line.flags.contains(VmaFlags::HUGEPAGE)),
        ("nh", line.flags.contains(VmaFlags::NOHUGEPAGE)),
        ("mg", line.flags.contains(VmaFlags::MERGEABLE)),
        ("sl", line.flags.contains(VmaFlags::SEALED)),
    ];
    let mut text = "VmFlags: ".to_owned();
    for (name, _) in names.iter().filter(|(_, is_set)| *is_set) {
        text.push_str(name);
        text.push(' ');
    }
    text.push('\n');
    text
}

pub(super) fn smaps(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let mm = query.task.mm();
    let usage = mm.usage();
    let mut out = Vec::new();
    for mapping in mm.map_lines() {
        map_line(query, &mapping, &mut out);
        let resident = share(&mapping, &usage);
        let mut text = String::new();
        line(&mut text, "Size", resident.size);
        line(&mut text, "KernelPageSize", 4096);
        line(&mut text, "MMUPageSize", 4096);
        text.push_str(&resident.lines(false));
        text.push_str("THPeligible:           0\nProtectionKey:         0\n");
        text.push_str(&vm_flags(&mapping));
        out.extend_from_slice(text.as_bytes());
    }
    Ok(out)
}

pub(super) fn smaps_rollup(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let mm = query.task.mm();
    let usage = mm.usage();
    let lines = mm.map_lines();
    let start = lines.first().map_or(0, |first| first.start);
    let end = lines.last().map_or(0, |last| last.end);
    let mut total = Resident::default();
    for mapping in &lines {
        total.add(&share(mapping, &usage));
    }
    let head = format!("{start:08x}-{end:08x} ---p 00000000 00:00 0 ");
    let text = format!("{head:<73}[rollup]\n{}", total.lines(true));
    Ok(text.into_bytes())
}
