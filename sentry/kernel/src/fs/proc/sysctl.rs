//! `/proc/sys`.
//!
//! Settings that something in the sentry obeys can be written by root; the
//! others have Linux's default values and can't (`EPERM`), so that nobody is
//! told that a change took effect when it did not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use sentry_platform::host::random;
use syscall_tables::Errno;

use crate::fs::kernfs::{Builder, Knob, Source, Viewer};
use crate::ipc::Settings;
use crate::kernel::{Kernel, RELEASE, VERSION};
use crate::mm::{MAX_MAP_COUNT, MIN_ADDR};
use crate::task::{CapSet, OVERFLOW_ID, PID_MAX, UtsNames};

/// Longest host or domain name.
const NAME_MAX: usize = 64;

/// A value that stays.
struct Constant(Vec<u8>);

impl Source for Constant {
    fn text(&self, _viewer: &Viewer) -> Result<Vec<u8>, Errno> {
        Ok(self.0.clone())
    }

    fn write(&self, viewer: &Viewer, data: &[u8], _offset: u64) -> Result<(), Errno> {
        // Who makes the sandbox may ask for what is so anyway.
        if viewer.task.is_none() && data.trim_ascii() == self.0.trim_ascii() {
            return Ok(());
        }
        Err(Errno::EPERM)
    }
}

fn constant(dir: &mut Builder, name: &str, value: impl std::fmt::Display) {
    dir.file(name, 0o644, Constant(format!("{value}\n").into_bytes()));
}

/// A setting of the network, which acts on the host where it acts at all.
/// Whoever makes the sandbox sets it there and tells it here; guests can't.
struct OfNetwork(RwLock<Vec<u8>>);

impl Source for OfNetwork {
    fn text(&self, _viewer: &Viewer) -> Result<Vec<u8>, Errno> {
        Ok(self.0.read().clone())
    }

    fn write(&self, viewer: &Viewer, data: &[u8], _offset: u64) -> Result<(), Errno> {
        if viewer.task.is_some() {
            return Err(Errno::EPERM);
        }
        let mut value = data.trim_ascii().to_vec();
        value.push(b'\n');
        *self.0.write() = value;
        Ok(())
    }
}

fn of_network(dir: &mut Builder, name: &str, value: impl std::fmt::Display) {
    let value = RwLock::new(format!("{value}\n").into_bytes());
    dir.file(name, 0o644, OfNetwork(value));
}

/// A value that nobody can set in Linux either.
fn fact(dir: &mut Builder, name: &str, value: impl std::fmt::Display) {
    dir.text(name, format!("{value}\n"));
}

/// Adds the tree below `/proc/sys`.
pub(super) fn fill(dir: &mut Builder, kernel: &Arc<Kernel>) {
    dir.dir("kernel", |dir| kernel_dir(dir, kernel));
    dir.dir("vm", vm_dir);
    dir.dir("fs", fs_dir);
    dir.dir("net", net_dir);
    dir.dir("user", |dir| {
        for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
            constant(dir, &format!("max_{name}_namespaces"), 63_000);
        }
        constant(dir, "max_inotify_instances", 128);
        constant(dir, "max_inotify_watches", 65_536);
    });
    dir.dir("abi", |_| {});
    dir.dir("debug", |_| {});
    dir.dir("dev", |_| {});
}

/// A name of the viewer's UTS namespace.
fn name_knob(dir: &mut Builder, file: &str, field: fn(&mut UtsNames) -> &mut Vec<u8>) {
    let read = move |viewer: &Viewer| {
        let uts = match &viewer.task {
            Some(task) => task.namespaces().uts.clone(),
            None => viewer.kernel.initial_uts.clone(),
        };
        let mut names = uts.names.read().clone();
        let mut name = std::mem::take(field(&mut names));
        name.push(b'\n');
        Ok(name)
    };
    let write = move |viewer: &Viewer, data: &[u8]| {
        let task = viewer.task()?;
        let uts = task.namespaces().uts.clone();
        if !task.creds().has_in(&uts.user_ns, CapSet::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let line = data.split(|byte| matches!(byte, b'\n' | 0)).next();
        let line = line.unwrap_or_default();
        let name = line.get(..NAME_MAX).unwrap_or(line).to_vec();
        *field(&mut uts.names.write()) = name;
        Ok(())
    };
    dir.file(file, 0o644, Knob { read, write });
}

/// A setting of the viewer's IPC namespace.
fn ipc_knob(dir: &mut Builder, name: &'static str) {
    let read = move |viewer: &Viewer| {
        let ipc = viewer.task()?.namespaces().ipc.clone();
        let mut text = ipc.settings.text(name).ok_or(Errno::ENOENT)?;
        text.push('\n');
        Ok(text.into_bytes())
    };
    let write = move |viewer: &Viewer, data: &[u8]| {
        let task = viewer.task()?;
        let ipc = task.namespaces().ipc.clone();
        if !task.creds().has_in(&ipc.user_ns, CapSet::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        ipc.settings.set(name, data)
    };
    dir.file(name, 0o644, Knob { read, write });
}

/// A random UUID as text.
fn uuid() -> Result<String, Errno> {
    let mut bytes = [0; 16];
    random::fill(&mut bytes)?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(37);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

fn kernel_dir(dir: &mut Builder, kernel: &Arc<Kernel>) {
    name_knob(dir, "hostname", |names| &mut names.host);
    name_knob(dir, "domainname", |names| &mut names.domain);
    fact(dir, "osrelease", RELEASE);
    fact(dir, "ostype", "Linux");
    fact(dir, "version", VERSION);
    fact(dir, "arch", "x86_64");
    constant(dir, "pid_max", PID_MAX);
    fact(dir, "cap_last_cap", 40);
    fact(dir, "ngroups_max", 65_536);
    constant(dir, "threads-max", 126_000);
    for name in Settings::NAMES {
        ipc_knob(dir, name);
    }
    constant(dir, "shm_rmid_forced", 0);
    constant(dir, "auto_msgmni", 0);
    constant(dir, "core_pattern", "core");
    constant(dir, "core_uses_pid", 0);
    constant(dir, "core_pipe_limit", 0);
    constant(dir, "overflowuid", OVERFLOW_ID);
    constant(dir, "overflowgid", OVERFLOW_ID);
    constant(dir, "randomize_va_space", 2);
    constant(dir, "perf_event_paranoid", 3);
    constant(dir, "kptr_restrict", 1);
    constant(dir, "dmesg_restrict", 1);
    constant(dir, "printk", "4\t4\t1\t7");
    constant(dir, "panic", 0);
    constant(dir, "sched_rr_timeslice_ms", 100);
    constant(dir, "sched_rt_period_us", 1_000_000);
    constant(dir, "sched_rt_runtime_us", 950_000);
    constant(dir, "sched_child_runs_first", 0);
    constant(dir, "sched_autogroup_enabled", 0);
    constant(dir, "numa_balancing", 0);
    constant(dir, "unprivileged_bpf_disabled", 2);
    constant(dir, "unprivileged_userns_clone", 1);
    constant(dir, "io_uring_disabled", 2);
    constant(dir, "modules_disabled", 1);
    constant(dir, "tainted", 0);
    constant(dir, "sysrq", 0);
    constant(dir, "hung_task_timeout_secs", 0);
    dir.file("ns_last_pid", 0o444, |viewer: &Viewer| {
        let ns = viewer.task()?.pid_ns();
        Ok(format!("{}\n", ns.last_pid()).into_bytes())
    });
    dir.dir("pty", |dir| {
        constant(dir, "max", 4096);
        constant(dir, "reserve", 1024);
        fact(dir, "nr", 0);
    });
    dir.dir("random", |dir| {
        dir.file("uuid", 0o444, |_: &Viewer| {
            Ok(format!("{}\n", uuid()?).into_bytes())
        });
        fact(dir, "boot_id", &kernel.boot_id);
        fact(dir, "entropy_avail", 256);
        fact(dir, "poolsize", 256);
        constant(dir, "urandom_min_reseed_secs", 60);
        constant(dir, "write_wakeup_threshold", 256);
    });
    dir.dir("keys", |dir| {
        constant(dir, "maxkeys", 200);
        constant(dir, "maxbytes", 20_000);
        constant(dir, "root_maxkeys", 1_000_000);
        constant(dir, "root_maxbytes", 25_000_000);
    });
    dir.dir("seccomp", |dir| {
        fact(
            dir,
            "actions_avail",
            "kill_process kill_thread trap errno user_notif trace log allow",
        );
        constant(
            dir,
            "actions_logged",
            "kill_process kill_thread trap errno user_notif trace log",
        );
    });
}

fn vm_dir(dir: &mut Builder) {
    constant(dir, "overcommit_memory", 1);
    constant(dir, "overcommit_ratio", 50);
    constant(dir, "overcommit_kbytes", 0);
    constant(dir, "max_map_count", MAX_MAP_COUNT);
    constant(dir, "mmap_min_addr", MIN_ADDR);
    constant(dir, "mmap_rnd_bits", 28);
    constant(dir, "swappiness", 60);
    constant(dir, "nr_hugepages", 0);
    constant(dir, "nr_overcommit_hugepages", 0);
    constant(dir, "hugetlb_shm_group", 0);
    constant(dir, "min_free_kbytes", 67_584);
    constant(dir, "dirty_ratio", 20);
    constant(dir, "dirty_background_ratio", 10);
    constant(dir, "dirty_bytes", 0);
    constant(dir, "dirty_background_bytes", 0);
    constant(dir, "dirty_expire_centisecs", 3000);
    constant(dir, "dirty_writeback_centisecs", 500);
    constant(dir, "vfs_cache_pressure", 100);
    constant(dir, "oom_kill_allocating_task", 0);
    constant(dir, "oom_dump_tasks", 1);
    constant(dir, "panic_on_oom", 0);
    constant(dir, "page-cluster", 3);
    constant(dir, "zone_reclaim_mode", 0);
    constant(dir, "unprivileged_userfaultfd", 0);
    constant(dir, "memfd_noexec", 0);
    constant(dir, "legacy_va_layout", 0);
}

/// A switch of the VFS.
fn switch(dir: &mut Builder, name: &str, pick: fn(&Kernel) -> &AtomicBool) {
    let read = move |viewer: &Viewer| {
        let on = pick(&viewer.kernel).load(Ordering::Relaxed);
        Ok(format!("{}\n", u8::from(on)).into_bytes())
    };
    let write = move |viewer: &Viewer, data: &[u8]| {
        let task = viewer.task()?;
        if !task.creds().has(CapSet::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let value = super::process::parse_number(data)?;
        if !(0..=2).contains(&value) {
            return Err(Errno::EINVAL);
        }
        pick(&viewer.kernel).store(value != 0, Ordering::Relaxed);
        viewer.kernel.vfs.dentries.paths_changed();
        Ok(())
    };
    dir.file(name, 0o644, Knob { read, write });
}

fn fs_dir(dir: &mut Builder) {
    constant(dir, "file-max", "9223372036854775807");
    dir.file("file-nr", 0o444, file_nr);
    constant(dir, "nr_open", 1_048_576);
    fact(dir, "inode-nr", "0\t0");
    fact(dir, "inode-state", "0\t0\t0\t0\t0\t0\t0");
    fact(dir, "dentry-state", "0\t0\t45\t0\t0\t0");
    constant(dir, "pipe-max-size", crate::fs::pipe::MAX_CAPACITY);
    constant(dir, "pipe-user-pages-hard", 0);
    constant(dir, "pipe-user-pages-soft", 16_384);
    constant(dir, "aio-max-nr", 65_536);
    fact(dir, "aio-nr", 0);
    constant(dir, "mount-max", 20_000);
    constant(dir, "lease-break-time", 45);
    constant(dir, "leases-enable", 1);
    constant(dir, "dir-notify-enable", 0);
    constant(dir, "suid_dumpable", 0);
    fact(dir, "overflowuid", OVERFLOW_ID);
    fact(dir, "overflowgid", OVERFLOW_ID);
    switch(dir, "protected_symlinks", |kernel| {
        &kernel.vfs.sysctl.protected_symlinks
    });
    switch(dir, "protected_hardlinks", |kernel| {
        &kernel.vfs.sysctl.protected_hardlinks
    });
    switch(dir, "protected_fifos", |kernel| {
        &kernel.vfs.sysctl.protected_fifos
    });
    switch(dir, "protected_regular", |kernel| {
        &kernel.vfs.sysctl.protected_fifos
    });
    dir.dir("inotify", |dir| {
        constant(dir, "max_queued_events", 16_384);
        constant(dir, "max_user_instances", 128);
        constant(dir, "max_user_watches", 65_536);
    });
    dir.dir("epoll", |dir| constant(dir, "max_user_watches", 4_000_000));
    dir.dir("mqueue", |dir| {
        constant(dir, "msg_default", 10);
        constant(dir, "msg_max", 10);
        constant(dir, "msgsize_default", 8192);
        constant(dir, "msgsize_max", 8192);
        constant(dir, "queues_max", 256);
    });
    dir.dir("binfmt_misc", |_| {});
}

/// Open file descriptions, counted over the tables of all processes.
fn file_nr(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let mut seen = std::collections::HashSet::new();
    for (_, task) in viewer.kernel.root_pid_ns.tasks() {
        for (_, file, _) in task.files().list() {
            seen.insert(Arc::as_ptr(&file).addr());
        }
    }
    Ok(format!("{}\t0\t9223372036854775807\n", seen.len()).into_bytes())
}

fn net_dir(dir: &mut Builder) {
    dir.dir("core", |dir| {
        of_network(dir, "somaxconn", 4096);
        of_network(dir, "rmem_default", 212_992);
        of_network(dir, "rmem_max", 212_992);
        of_network(dir, "wmem_default", 212_992);
        of_network(dir, "wmem_max", 212_992);
        of_network(dir, "optmem_max", 131_072);
        of_network(dir, "netdev_max_backlog", 1000);
        of_network(dir, "default_qdisc", "pfifo_fast");
        of_network(dir, "busy_poll", 0);
        of_network(dir, "busy_read", 0);
    });
    dir.dir("unix", |dir| of_network(dir, "max_dgram_qlen", 512));
    dir.dir("ipv4", |dir| {
        of_network(dir, "ip_forward", 0);
        of_network(dir, "ip_default_ttl", 64);
        of_network(dir, "ip_local_port_range", "32768\t60999");
        of_network(dir, "ip_local_reserved_ports", "");
        of_network(dir, "ip_unprivileged_port_start", 1024);
        of_network(dir, "ip_nonlocal_bind", 0);
        of_network(dir, "ping_group_range", "1\t0");
        of_network(dir, "icmp_echo_ignore_all", 0);
        of_network(dir, "tcp_rmem", "4096\t131072\t6291456");
        of_network(dir, "tcp_wmem", "4096\t16384\t4194304");
        of_network(dir, "tcp_mem", "188319\t251093\t376638");
        of_network(dir, "udp_mem", "376641\t502188\t753282");
        of_network(dir, "udp_rmem_min", 4096);
        of_network(dir, "udp_wmem_min", 4096);
        of_network(dir, "tcp_available_congestion_control", "reno");
        of_network(dir, "tcp_allowed_congestion_control", "reno");
        of_network(dir, "tcp_congestion_control", "reno");
        of_network(dir, "tcp_fastopen", 0);
        of_network(dir, "tcp_fin_timeout", 60);
        of_network(dir, "tcp_keepalive_intvl", 75);
        of_network(dir, "tcp_keepalive_probes", 9);
        of_network(dir, "tcp_keepalive_time", 7200);
        of_network(dir, "tcp_max_syn_backlog", 1024);
        of_network(dir, "tcp_max_tw_buckets", 65_536);
        of_network(dir, "tcp_no_metrics_save", 0);
        of_network(dir, "tcp_retries1", 3);
        of_network(dir, "tcp_retries2", 15);
        of_network(dir, "tcp_rfc1337", 0);
        of_network(dir, "tcp_sack", 1);
        of_network(dir, "tcp_slow_start_after_idle", 1);
        of_network(dir, "tcp_syn_retries", 6);
        of_network(dir, "tcp_synack_retries", 5);
        of_network(dir, "tcp_syncookies", 0);
        of_network(dir, "tcp_timestamps", 1);
        of_network(dir, "tcp_tw_reuse", 2);
        of_network(dir, "tcp_window_scaling", 1);
        of_network(dir, "tcp_abort_on_overflow", 0);
        dir.dir("conf", |dir| {
            for name in ["all", "default", "lo"] {
                dir.dir(name, |dir| {
                    of_network(dir, "forwarding", 0);
                    of_network(dir, "rp_filter", 0);
                    of_network(dir, "accept_redirects", 1);
                    of_network(dir, "send_redirects", 1);
                    of_network(dir, "accept_local", 0);
                    of_network(dir, "route_localnet", 0);
                    of_network(dir, "arp_ignore", 0);
                    of_network(dir, "arp_announce", 0);
                });
            }
        });
        dir.dir("neigh", |_| {});
    });
    dir.dir("ipv6", |dir| {
        of_network(dir, "bindv6only", 0);
        of_network(dir, "ip_nonlocal_bind", 0);
        dir.dir("conf", |dir| {
            for name in ["all", "default", "lo"] {
                dir.dir(name, |dir| {
                    of_network(dir, "disable_ipv6", 0);
                    of_network(dir, "forwarding", 0);
                    of_network(dir, "accept_ra", 1);
                    of_network(dir, "hop_limit", 64);
                    of_network(dir, "mtu", 65_536);
                });
            }
        });
    });
}

/// A fresh boot id.
pub(crate) fn new_boot_id() -> Result<String, Errno> {
    uuid()
}
