//! The cgroup v2 view of a container: its own cgroup as the root, without
//! children. Limits act on the host: what the container's cgroup there holds
//! at the moment shows here, also on hosts of version 1. Tasks are the guest's
//! own. Without a cgroup on the host, the sentry tells what it knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syscall_tables::Errno;

use super::kernfs::{Builder, Instance, KernFs, Knob, Measured, Viewer};
use crate::kernel::Kernel;
use crate::limits::{HostCgroup, Limits};
use crate::task::Task;
use crate::vfs::{FileSystem, MountRequest};

/// `CGROUP2_SUPER_MAGIC`.
const MAGIC: u64 = 0x6367_7270;

/// Mounts cgroup2; its options have nothing to act on.
pub fn mount(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>, Errno> {
    Ok(new(request.kernel.ok_or(Errno::ENODEV)?))
}

/// An instance of the view.
pub fn new(kernel: &Arc<Kernel>) -> Arc<KernFs> {
    let instance = Instance::new(kernel);
    let mut root = Builder::root(&instance);
    core_files(&mut root);
    memory_files(&mut root);
    cpu_files(&mut root, kernel);
    pids_files(&mut root);
    passed(&mut root, "io.stat", "", |host| host.text("io.stat"));
    passed(&mut root, "io.max", "", |host| host.text("io.max"));
    Arc::new(KernFs {
        type_name: "cgroup2",
        magic: MAGIC,
        instance,
        root: root.build(),
    })
}

/// Tasks of the container that the viewer belongs to, with their ids in its
/// pid namespace.
fn tasks(viewer: &Viewer) -> Vec<(i32, Arc<Task>)> {
    let Some(own) = &viewer.task else {
        return viewer.kernel.root_pid_ns.tasks();
    };
    let container = own.group.container.clone();
    let mut tasks = own.pid_ns().tasks();
    tasks.retain(|(_, task)| task.group.container == container && !task.has_exited());
    tasks
}

fn lines(numbers: impl Iterator<Item = i32>) -> Vec<u8> {
    let mut text = String::new();
    for number in numbers {
        text.push_str(&format!("{number}\n"));
    }
    text.into_bytes()
}

fn core_files(dir: &mut Builder) {
    dir.text("cgroup.controllers", "cpuset cpu io memory pids\n");
    dir.text("cgroup.subtree_control", "\n");
    dir.text("cgroup.type", "domain\n");
    dir.text("cgroup.events", "populated 1\nfrozen 0\n");
    dir.text("cgroup.max.depth", "max\n");
    dir.text("cgroup.max.descendants", "max\n");
    dir.text("cgroup.stat", "nr_descendants 0\nnr_dying_descendants 0\n");
    dir.text("cgroup.freeze", "0\n");
    let procs = |viewer: &Viewer| {
        let tasks = tasks(viewer).into_iter();
        let leaders = tasks.filter(|(_, task)| task.is_leader());
        Ok(lines(leaders.map(|(id, _)| id)))
    };
    let threads = |viewer: &Viewer| Ok(lines(tasks(viewer).into_iter().map(|(id, _)| id)));
    // All processes are here already: to move one here changes nothing.
    let join = |viewer: &Viewer, data: &[u8]| {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let id: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
        let known = id == 0 || tasks(viewer).iter().any(|(known, _)| *known == id);
        if known { Ok(()) } else { Err(Errno::ESRCH) }
    };
    let knob = Knob {
        read: procs,
        write: join,
    };
    dir.file("cgroup.procs", 0o644, knob);
    let knob = Knob {
        read: threads,
        write: join,
    };
    dir.file("cgroup.threads", 0o644, knob);
}

/// What limits the viewer's container.
fn limits(viewer: &Viewer) -> Limits {
    match &viewer.task {
        Some(task) => viewer.kernel.limits.of(&task.group.container),
        None => Limits::default(),
    }
}

/// The host's cgroup of the viewer's container.
fn host(viewer: &Viewer) -> Option<Arc<HostCgroup>> {
    let task = viewer.task.as_ref()?;
    viewer.kernel.limits.host(&task.group.container)
}

/// A file as the host has it; `otherwise` if it has none.
fn passed(
    dir: &mut Builder,
    name: &str,
    otherwise: &'static str,
    read: fn(&HostCgroup) -> Option<String>,
) {
    dir.file(name, 0o444, move |viewer: &Viewer| {
        let text = host(viewer).and_then(|host| read(&host));
        Ok(text.map_or_else(|| otherwise.as_bytes().to_vec(), String::into_bytes))
    });
}

/// A file with a number from the limits, or `max`.
fn limit(dir: &mut Builder, name: &str, number: fn(Limits) -> Option<u64>) {
    dir.file(name, 0o444, move |viewer: &Viewer| {
        let number = number(limits(viewer));
        let text = number.map_or_else(|| "max".to_owned(), |number| number.to_string());
        Ok(format!("{text}\n").into_bytes())
    });
}

fn memory_files(dir: &mut Builder) {
    limit(dir, "memory.max", |limits| limits.memory_bytes);
    passed(dir, "memory.high", "max\n", |host| host.text("memory.high"));
    passed(dir, "memory.low", "0\n", HostCgroup::memory_low);
    passed(dir, "memory.min", "0\n", |host| host.text("memory.min"));
    dir.text("memory.oom.group", "0\n");
    passed(dir, "memory.swap.current", "0\n", |host| {
        host.text("memory.swap.current")
    });
    limit(dir, "memory.swap.max", |limits| limits.swap_bytes);
    dir.text("memory.swap.high", "max\n");
    dir.text("memory.swap.events", "high 0\nmax 0\nfail 0\n");
    passed(
        dir,
        "memory.events",
        "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
        HostCgroup::memory_events,
    );
    let peak = Arc::new(AtomicU64::new(0));
    let known = peak.clone();
    dir.file(
        "memory.current",
        0o444,
        Measured(move |viewer: &Viewer| {
            let on_host = host(viewer).and_then(|host| host.memory_current());
            let used = on_host.unwrap_or_else(|| viewer.kernel.memory_used_bytes());
            known.fetch_max(used, Ordering::Relaxed);
            Ok(format!("{used}\n").into_bytes())
        }),
    );
    // Without the host's, the peak of what has been looked at.
    dir.file(
        "memory.peak",
        0o444,
        Measured(move |viewer: &Viewer| {
            let on_host = host(viewer).and_then(|host| host.memory_peak());
            let most = on_host.unwrap_or_else(|| {
                let used = viewer.kernel.memory_used_bytes();
                peak.fetch_max(used, Ordering::Relaxed).max(used)
            });
            Ok(format!("{most}\n").into_bytes())
        }),
    );
    dir.file(
        "memory.stat",
        0o444,
        Measured(|viewer: &Viewer| {
            if let Some(text) = host(viewer).and_then(|host| host.memory_stat()) {
                return Ok(text.into_bytes());
            }
            let used = viewer.kernel.memory_used_bytes();
            let zero = [
                "file",
                "kernel",
                "kernel_stack",
                "pagetables",
                "sock",
                "shmem",
                "file_mapped",
                "file_dirty",
                "file_writeback",
                "inactive_anon",
                "inactive_file",
                "active_file",
                "unevictable",
                "slab_reclaimable",
                "slab_unreclaimable",
                "slab",
                "pgfault",
                "pgmajfault",
            ];
            let mut text = format!("anon {used}\nactive_anon {used}\n");
            for name in zero {
                text.push_str(&format!("{name} 0\n"));
            }
            Ok(text.into_bytes())
        }),
    );
}

fn cpu_files(dir: &mut Builder, kernel: &Arc<Kernel>) {
    dir.file("cpu.max", 0o444, |viewer: &Viewer| {
        let text = match limits(viewer).cpu {
            Some((quota, period)) => format!("{quota} {period}\n"),
            None => "max 100000\n".to_owned(),
        };
        Ok(text.into_bytes())
    });
    dir.text("cpu.max.burst", "0\n");
    dir.file("cpu.weight", 0o444, |viewer: &Viewer| {
        let weight = limits(viewer).cpu_weight.unwrap_or(100);
        Ok(format!("{weight}\n").into_bytes())
    });
    dir.text("cpu.weight.nice", "0\n");
    passed(dir, "cpu.idle", "0\n", |host| host.text("cpu.idle"));
    dir.file("cpu.stat", 0o444, |viewer: &Viewer| {
        if let Some(text) = host(viewer).and_then(|host| host.cpu_stat()) {
            return Ok(text.into_bytes());
        }
        let mut user = 0;
        for (_, task) in tasks(viewer) {
            if task.is_leader() {
                let time = task.group.usage().user + task.group.children_usage().user;
                user += time.as_micros();
            }
        }
        Ok(format!(
            "usage_usec {user}\nuser_usec {user}\nsystem_usec 0\nnr_periods 0\nnr_throttled 0\n\
             throttled_usec 0\n"
        )
        .into_bytes())
    });
    let last = kernel.cpus.saturating_sub(1);
    let all = if last == 0 {
        "0\n".to_owned()
    } else {
        format!("0-{last}\n")
    };
    dir.file("cpuset.cpus", 0o444, |viewer: &Viewer| {
        let cpus = limits(viewer).cpus.unwrap_or_default();
        Ok(format!("{cpus}\n").into_bytes())
    });
    dir.file("cpuset.cpus.effective", 0o444, move |viewer: &Viewer| {
        let on_host = host(viewer).and_then(|host| host.effective_cpus());
        let own = on_host.or_else(|| limits(viewer).cpus);
        let text = own.map_or_else(|| all.clone(), |cpus| format!("{cpus}\n"));
        Ok(text.into_bytes())
    });
    dir.text("cpuset.mems", "\n");
    passed(dir, "cpuset.mems.effective", "0\n", |host| {
        Some(host.effective_mems()? + "\n")
    });
}

fn pids_files(dir: &mut Builder) {
    limit(dir, "pids.max", |limits| limits.tasks);
    dir.file("pids.events", 0o444, |viewer: &Viewer| {
        let refused = viewer.task.as_ref().map_or(0, |task| {
            let table = &viewer.kernel.limits;
            table.refused(&task.group.container)
        });
        let by_host = host(viewer).map_or(0, |host| host.tasks_refused());
        let refused = refused.saturating_add(by_host);
        Ok(format!("max {refused}\n").into_bytes())
    });
    dir.file("pids.current", 0o444, |viewer: &Viewer| {
        Ok(format!("{}\n", tasks(viewer).len()).into_bytes())
    });
}
