//! `meminfo`, `vmstat`, `swaps`.

use std::fmt::Write;

use syscall_tables::Errno;

use crate::fs::kernfs::{Builder, Measured, Viewer};
use crate::kernel::Kernel;

pub(super) fn fill(dir: &mut Builder) {
    dir.file("meminfo", 0o444, Measured(meminfo));
    dir.file("vmstat", 0o444, Measured(vmstat));
    dir.text(
        "swaps",
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
    );
    dir.text("buddyinfo", "");
    dir.text("zoneinfo", "");
}

/// Memory as the sandbox sees it, in bytes.
struct Memory {
    total: u64,
    /// Used by guests.
    used: u64,
    /// What guests can still have: no more than the host can give.
    available: u64,
    /// Files and shared memory that the sentry keeps for guests.
    shared: u64,
}

impl Memory {
    fn now(kernel: &Kernel) -> Self {
        let total = kernel.memory_bytes;
        let used = kernel.memory_used_bytes().min(total);
        let free = total.saturating_sub(used);
        let host = kernel.host.memory().available;
        let available = if host == 0 { free } else { free.min(host) };
        Self {
            total,
            used,
            available,
            shared: 0,
        }
    }
}

fn meminfo(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let memory = Memory::now(&viewer.kernel);
    // Guests' private memory is anonymous or of files; the host does not say
    // how much of each.
    let lines = [
        ("MemTotal", memory.total),
        ("MemFree", memory.available),
        ("MemAvailable", memory.available),
        ("Buffers", 0),
        ("Cached", memory.shared),
        ("SwapCached", 0),
        ("Active", memory.used),
        ("Inactive", 0),
        ("Active(anon)", memory.used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", memory.used),
        ("Mapped", 0),
        ("Shmem", memory.shared),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("SecPageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", memory.total / 2),
        ("Committed_AS", memory.used),
        ("VmallocTotal", 0x7fff_ffff_ffff),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FileHugePages", 0),
        ("FilePmdMapped", 0),
    ];
    let mut text = String::new();
    for (name, bytes) in lines {
        let _ = writeln!(text, "{:<16}{:>8} kB", format!("{name}:"), bytes / 1024);
    }
    text.push_str(
        "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\n\
         HugePages_Surp:        0\nHugepagesize:       2048 kB\nHugetlb:               0 kB\n",
    );
    Ok(text.into_bytes())
}

fn vmstat(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let memory = Memory::now(&viewer.kernel);
    let mut faults = (0, 0);
    for (_, task) in viewer.kernel.root_pid_ns.tasks() {
        let usage = task.usage();
        faults.0 += usage.minor_faults + usage.major_faults;
        faults.1 += usage.major_faults;
    }
    let lines = [
        ("nr_free_pages", memory.available / 4096),
        ("nr_inactive_anon", 0),
        ("nr_active_anon", memory.used / 4096),
        ("nr_inactive_file", 0),
        ("nr_active_file", 0),
        ("nr_anon_pages", memory.used / 4096),
        ("nr_mapped", 0),
        ("nr_file_pages", memory.shared / 4096),
        ("nr_dirty", 0),
        ("nr_writeback", 0),
        ("nr_slab_reclaimable", 0),
        ("nr_slab_unreclaimable", 0),
        ("nr_shmem", memory.shared / 4096),
        ("pgpgin", 0),
        ("pgpgout", 0),
        ("pswpin", 0),
        ("pswpout", 0),
        ("pgalloc_normal", 0),
        ("pgfree", 0),
        ("pgfault", faults.0),
        ("pgmajfault", faults.1),
        ("oom_kill", 0),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name} {value}");
    }
    Ok(text.into_bytes())
}
