//! sysfs: what programs read to find out about CPUs, memory nodes and
//! network interfaces.
//!
//! There are no devices to show but the CPUs and the loopback interface.

use std::sync::Arc;

use sentry_platform::host::system::CpuCache;
use syscall_tables::Errno;

use super::kernfs::{Builder, Instance, KernFs, Measured, Viewer};
use crate::kernel::Kernel;
use crate::vfs::{FileSystem, MountRequest};

/// `SYSFS_MAGIC`.
const MAGIC: u64 = 0x6265_6572;

/// Size of a huge page in bytes.
const HUGE_PAGE: u64 = 2 << 20;

/// Mounts sysfs.
pub fn mount(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>, Errno> {
    Ok(new(request.kernel.ok_or(Errno::ENODEV)?))
}

/// An instance of sysfs.
pub fn new(kernel: &Arc<Kernel>) -> Arc<KernFs> {
    let instance = Instance::new(kernel);
    let mut root = Builder::root(&instance);
    root.dir("block", |_| {});
    root.dir("bus", |bus| {
        bus.dir("cpu", |cpu| cpu.dir("devices", |_| {}));
    });
    root.dir("class", |class| {
        class.dir("net", |net| {
            net.link("lo", "../../devices/virtual/net/lo");
        });
        for name in [
            "block", "mem", "misc", "tty", "drm", "dmi", "thermal", "hwmon",
        ] {
            class.dir(name, |_| {});
        }
    });
    root.dir("dev", |dev| {
        dev.dir("block", |_| {});
        dev.dir("char", |_| {});
    });
    root.dir("devices", |devices| {
        devices.dir("system", |system| {
            system.dir("cpu", |cpu| cpu_dir(cpu, kernel));
            system.dir("node", |node| node_dir(node, kernel.cpus));
        });
        devices.dir("virtual", |devices| {
            devices.dir("net", |net| net.dir("lo", loopback));
        });
    });
    root.dir("firmware", |_| {});
    root.dir("fs", |fs| {
        // Mount points.
        for name in ["cgroup", "bpf", "fuse", "pstore"] {
            fs.dir(name, |_| {});
        }
    });
    root.dir("hypervisor", |_| {});
    root.dir("kernel", |kernel| {
        kernel.text("uevent_seqnum", "0\n");
        kernel.dir("debug", |_| {});
        kernel.dir("security", |_| {});
        kernel.dir("tracing", |_| {});
        kernel.dir("mm", |mm| {
            mm.dir("hugepages", |_| {});
            mm.dir("ksm", |ksm| ksm.text("run", "0\n"));
            mm.dir("transparent_hugepage", |huge| {
                huge.text("enabled", "always [madvise] never\n");
                huge.text("defrag", "always defer defer+madvise [madvise] never\n");
                huge.text(
                    "shmem_enabled",
                    "always within_size advise [never] deny force\n",
                );
                huge.text("use_zero_page", "1\n");
                huge.text("hpage_pmd_size", format!("{HUGE_PAGE}\n"));
            });
        });
    });
    root.dir("module", |_| {});
    root.dir("power", |_| {});
    Arc::new(KernFs {
        type_name: "sysfs",
        magic: MAGIC,
        instance,
        root: root.build(),
    })
}

/// `0-3` for four of something.
fn range(count: usize) -> String {
    match count {
        0 | 1 => "0".to_owned(),
        count => format!("0-{}", count - 1),
    }
}

/// A mask with bits `cpus` set, in words of 32 bits, of `count` CPUs.
fn mask(cpus: impl Iterator<Item = usize> + Clone, count: usize) -> String {
    let words = count.div_ceil(32).max(1);
    let mut text = String::new();
    for word in (0..words).rev() {
        let bits = cpus
            .clone()
            .filter(|cpu| cpu / 32 == word)
            .fold(0_u32, |bits, cpu| bits | 1 << (cpu % 32));
        let digits = if word + 1 == words {
            (count.max(1) - 1) % 32 / 4 + 1
        } else {
            text.push(',');
            8
        };
        text.push_str(&format!("{bits:0digits$x}"));
    }
    text
}

fn cpu_dir(dir: &mut Builder, kernel: &Arc<Kernel>) {
    let cpus = kernel.cpus;
    let all = range(cpus);
    for name in ["online", "possible", "present"] {
        dir.text(name, format!("{all}\n"));
    }
    dir.text("offline", "\n");
    dir.text("isolated", "\n");
    dir.text("kernel_max", format!("{}\n", cpus.max(256) - 1));
    dir.dir("smt", |smt| {
        smt.text("active", "0\n");
        smt.text("control", "notsupported\n");
    });
    for cpu in 0..cpus {
        dir.dir(&format!("cpu{cpu}"), |dir| {
            dir.dir("topology", |dir| topology(dir, cpu, cpus));
            dir.dir("cache", |dir| {
                for (index, cache) in kernel.host.caches().iter().enumerate() {
                    dir.dir(&format!("index{index}"), |dir| {
                        cache_dir(dir, cache, cpu, cpus);
                    });
                }
            });
            dir.link("subsystem", "../../../../bus/cpu");
            dir.link("node0", "../../node/node0");
        });
    }
}

fn topology(dir: &mut Builder, cpu: usize, cpus: usize) {
    let own = mask(std::iter::once(cpu), cpus);
    let all = mask(0..cpus, cpus);
    let line = |value: &dyn std::fmt::Display| format!("{value}\n");
    dir.text("core_id", line(&cpu));
    dir.text("physical_package_id", "0\n");
    dir.text("die_id", "0\n");
    dir.text("cluster_id", "0\n");
    for name in ["thread_siblings", "core_cpus"] {
        dir.text(name, line(&own));
        dir.text(&format!("{name}_list"), line(&cpu));
    }
    for name in ["core_siblings", "package_cpus", "die_cpus"] {
        dir.text(name, line(&all));
        dir.text(&format!("{name}_list"), line(&range(cpus)));
    }
}

fn cache_dir(dir: &mut Builder, cache: &CpuCache, cpu: usize, cpus: usize) {
    // The last level is shared by all, the others by nobody.
    let shared = cache.level >= 3;
    let line = |value: &dyn std::fmt::Display| format!("{value}\n");
    dir.text("level", line(&cache.level));
    dir.text("type", line(&cache.kind));
    dir.text("size", format!("{}K\n", cache.size_bytes / 1024));
    dir.text("coherency_line_size", line(&cache.line_bytes));
    dir.text("ways_of_associativity", line(&cache.ways));
    dir.text("number_of_sets", line(&cache.sets));
    dir.text("physical_line_partition", "1\n");
    if shared {
        dir.text("shared_cpu_list", line(&range(cpus)));
        dir.text("shared_cpu_map", line(&mask(0..cpus, cpus)));
    } else {
        dir.text("shared_cpu_list", line(&cpu));
        dir.text("shared_cpu_map", line(&mask(std::iter::once(cpu), cpus)));
    }
}

fn node_dir(dir: &mut Builder, cpus: usize) {
    for name in [
        "online",
        "possible",
        "has_cpu",
        "has_memory",
        "has_normal_memory",
    ] {
        dir.text(name, "0\n");
    }
    dir.dir("node0", |node| {
        node.text("cpulist", format!("{}\n", range(cpus)));
        node.text("cpumap", format!("{}\n", mask(0..cpus, cpus)));
        node.text("distance", "10\n");
        node.file("meminfo", 0o444, Measured(node_meminfo));
        node.text(
            "numastat",
            "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\n\
             other_node 0\n",
        );
        for cpu in 0..cpus {
            let name = format!("cpu{cpu}");
            node.link(&name, &format!("../../cpu/{name}"));
        }
    });
}

fn node_meminfo(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let total = viewer.kernel.memory_bytes;
    let used = viewer.kernel.memory_used_bytes().min(total);
    let lines = [
        ("MemTotal", total),
        ("MemFree", total - used),
        ("MemUsed", used),
    ];
    let mut text = String::new();
    for (name, bytes) in lines {
        let name = format!("{name}:");
        text.push_str(&format!("Node 0 {name:<16}{:>8} kB\n", bytes / 1024));
    }
    Ok(text.into_bytes())
}

fn loopback(dir: &mut Builder) {
    let values = [
        ("addr_assign_type", "0"),
        ("addr_len", "6"),
        ("address", "00:00:00:00:00:00"),
        ("broadcast", "00:00:00:00:00:00"),
        ("carrier", "1"),
        ("carrier_changes", "0"),
        ("dev_id", "0x0"),
        ("dev_port", "0"),
        ("dormant", "0"),
        ("flags", "0x9"),
        ("ifalias", ""),
        ("ifindex", "1"),
        ("iflink", "1"),
        ("link_mode", "0"),
        ("mtu", "65536"),
        ("name_assign_type", "2"),
        ("netdev_group", "0"),
        ("operstate", "unknown"),
        ("proto_down", "0"),
        ("tx_queue_len", "1000"),
        ("type", "772"),
        ("uevent", "INTERFACE=lo\nIFINDEX=1"),
    ];
    for (name, value) in values {
        dir.text(name, format!("{value}\n"));
    }
    // A loopback interface has neither.
    for name in ["speed", "duplex"] {
        dir.file(name, 0o444, |_: &Viewer| Err(Errno::EINVAL));
    }
    dir.link("subsystem", "../../../../class/net");
    dir.dir("statistics", |dir| {
        let names = [
            "collisions",
            "multicast",
            "rx_bytes",
            "rx_dropped",
            "rx_errors",
            "rx_packets",
            "tx_bytes",
            "tx_dropped",
            "tx_errors",
            "tx_packets",
        ];
        for name in names {
            dir.text(name, "0\n");
        }
    });
    dir.dir("queues", |dir| {
        dir.dir("rx-0", |_| {});
        dir.dir("tx-0", |_| {});
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_a_digit_for_four_cpus() {
        assert_eq!(mask(0..4, 4), "f");
        assert_eq!(mask(std::iter::once(1), 12), "002");
        assert_eq!(mask(0..34, 34), "3,ffffffff");
        assert_eq!((range(1), range(8)), ("0".to_owned(), "0-7".to_owned()));
    }
}
