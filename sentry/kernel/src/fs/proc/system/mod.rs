//! Files about the system as a whole.
//!
//! | file | holds |
//! |---|---|
//! | `cpu.rs` | `cpuinfo`, `stat`, `uptime`, `loadavg`, `interrupts`, `softirqs` |
//! | `ipc.rs` | `sysvipc/*` |
//! | `memory.rs` | `meminfo`, `vmstat`, `swaps` |
//! | `mod.rs` | the rest |

mod cpu;
mod ipc;
mod memory;

use std::fmt::Write;
use std::sync::Arc;

use syscall_tables::Errno;

use super::Shared;
use crate::fs::kernfs::{Builder, Viewer};
use crate::kernel::{Kernel, RELEASE, VERSION};
use crate::vfs::locks::LockKind;
use crate::vfs::{dev_major, dev_minor};

/// Adds the files to the root directory.
pub(super) fn fill(dir: &mut Builder, shared: &Arc<Shared>, kernel: &Arc<Kernel>) {
    cpu::fill(dir, shared, kernel);
    memory::fill(dir);
    dir.text(
        "version",
        format!("Linux version {RELEASE} (runsc@runsc) (rustc, runsc) {VERSION}\n"),
    );
    dir.text("cmdline", "BOOT_IMAGE=/vmlinuz-runsc quiet\n");
    dir.file("filesystems", 0o444, filesystems);
    dir.text(
        "devices",
        "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n 10 misc\n\
         136 pts\n\nBlock devices:\n",
    );
    dir.text("misc", "");
    dir.text("modules", "");
    dir.text("partitions", "major minor  #blocks  name\n\n");
    dir.text("diskstats", "");
    dir.text("consoles", "");
    dir.text("execdomains", "0-0\tLinux           \t[kernel]\n");
    dir.text("fb", "");
    dir.text("iomem", "");
    dir.text("ioports", "");
    dir.text(
        "cgroups",
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\ncpu\t0\t1\t1\n\
         cpuacct\t0\t1\t1\nblkio\t0\t1\t1\nmemory\t0\t1\t1\ndevices\t0\t1\t1\nfreezer\t0\t1\t1\n\
         pids\t0\t1\t1\n",
    );
    dir.file("locks", 0o444, {
        let shared = shared.clone();
        move |viewer: &Viewer| locks(viewer, &shared)
    });
    dir.dir("tty", |tty| {
        tty.text(
            "drivers",
            "/dev/tty             /dev/tty        5       0 system:/dev/tty\n\
             /dev/console         /dev/console    5       1 system:console\n\
             /dev/ptmx            /dev/ptmx       5       2 system\n\
             pty_slave            /dev/pts      136 0-1048575 pty:slave\n",
        );
    });
    dir.dir("fs", |_| {});
    dir.dir("bus", |_| {});
    dir.dir("driver", |_| {});
    dir.dir("irq", |_| {});
    dir.dir("sysvipc", ipc::fill);
}

fn filesystems(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let mut text = String::new();
    for name in viewer.kernel.vfs.type_names() {
        let _ = writeln!(text, "nodev\t{name}");
    }
    for name in ["pipefs", "sockfs"] {
        let _ = writeln!(text, "nodev\t{name}");
    }
    Ok(text.into_bytes())
}

fn locks(viewer: &Viewer, shared: &Arc<Shared>) -> Result<Vec<u8>, Errno> {
    let ns = shared.ns()?;
    let root = &viewer.kernel.root_pid_ns;
    let mut text = String::new();
    for (index, ((dev, ino), lock)) in (1..).zip(viewer.kernel.vfs.locks.list()) {
        let kind = match lock.kind {
            LockKind::Shared => "READ",
            LockKind::Exclusive => "WRITE",
        };
        let pid = root.pid(lock.pid).map_or(-1, |pid| pid.number_in(&ns));
        let end = match lock.last {
            last if last >= i64::MAX.unsigned_abs() => "EOF".to_owned(),
            last => last.to_string(),
        };
        let _ = writeln!(
            text,
            "{index}: POSIX  ADVISORY  {kind} {pid} {:02x}:{:02x}:{ino} {} {end}",
            dev_major(dev),
            dev_minor(dev),
            lock.first,
        );
    }
    Ok(text.into_bytes())
}
