//! What the CPUs are and how busy.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use sentry_platform::host::system::own_cpu_time;
use syscall_tables::Errno;

use crate::fs::kernfs::{Builder, Viewer};
use crate::fs::proc::Shared;
use crate::kernel::Kernel;
use crate::task::RunState;

/// Clock ticks in a second.
const HZ: u128 = 100;

pub(super) fn fill(dir: &mut Builder, shared: &Arc<Shared>, kernel: &Arc<Kernel>) {
    dir.text("cpuinfo", cpuinfo(kernel.host.cpuinfo(), kernel.cpus));
    dir.file("stat", 0o444, stat);
    dir.file("uptime", 0o444, uptime);
    dir.file("loadavg", 0o444, {
        let shared = shared.clone();
        move |viewer: &Viewer| loadavg(viewer, &shared)
    });
    dir.file("interrupts", 0o444, |viewer: &Viewer| {
        Ok(format!("{}\n", cpu_header(viewer.kernel.cpus)).into_bytes())
    });
    dir.file("softirqs", 0o444, softirqs);
}

/// The host's description of its CPUs, cut to as many as guests see and
/// numbered from 0.
fn cpuinfo(host: &[u8], cpus: usize) -> Vec<u8> {
    let host = String::from_utf8_lossy(host);
    let blocks: Vec<&str> = host
        .split("\n\n")
        .filter(|block| block.starts_with("processor"))
        .collect();
    let mut text = String::new();
    for cpu in 0..cpus {
        let _ = writeln!(text, "processor\t: {cpu}");
        let block = blocks.get(cpu).or(blocks.first());
        let lines = block.map_or("vendor_id\t: unknown", |block| block);
        for line in lines.lines() {
            if line.starts_with("processor") {
                continue;
            }
            let name = line.split('\t').next().unwrap_or_default();
            match name {
                "physical id" => text.push_str("physical id\t: 0\n"),
                "siblings" | "cpu cores" => {
                    let _ = writeln!(text, "{name}\t: {cpus}");
                }
                "core id" => {
                    let _ = writeln!(text, "core id\t\t: {cpu}");
                }
                "apicid" => {
                    let _ = writeln!(text, "apicid\t\t: {cpu}");
                }
                "initial apicid" => {
                    let _ = writeln!(text, "initial apicid\t: {cpu}");
                }
                _ => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        text.push('\n');
    }
    text.into_bytes()
}

/// CPU time used in the sandbox: by guest code, and by the sentry for it.
struct Busy {
    user: Duration,
    system: Duration,
}

impl Busy {
    fn now(kernel: &Kernel) -> Self {
        let mut user = Duration::ZERO;
        for (_, group) in kernel.root_pid_ns.processes() {
            user += group.usage().user + group.children_usage().user;
        }
        Self {
            user,
            system: own_cpu_time(),
        }
    }
}

fn ticks(time: Duration) -> u128 {
    time.as_millis() * HZ / 1000
}

/// Time that CPUs were not busy, since boot.
fn idle(kernel: &Kernel, busy: &Busy) -> Duration {
    let cpus = u32::try_from(kernel.cpus).unwrap_or(1);
    let total = kernel.clock.boottime().saturating_mul(cpus);
    total.saturating_sub(busy.user + busy.system)
}

fn stat(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let kernel = &viewer.kernel;
    let busy = Busy::now(kernel);
    let idle = ticks(idle(kernel, &busy));
    let (user, system) = (ticks(busy.user), ticks(busy.system));
    let mut text = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    // Which CPU ran what is not known: each gets its share.
    let cpus = kernel.cpus as u128;
    for cpu in 0..cpus {
        let share = |all: u128| all / cpus + u128::from(cpu < all % cpus);
        let _ = writeln!(
            text,
            "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0",
            share(user),
            share(system),
            share(idle)
        );
    }
    let tasks = kernel.root_pid_ns.tasks();
    let mut switches = 0;
    for (_, task) in &tasks {
        let usage = task.usage();
        switches += usage.voluntary_switches + usage.involuntary_switches;
    }
    let running = tasks
        .iter()
        .filter(|(_, task)| task.run_state() == RunState::Running)
        .count();
    let boot = kernel
        .clock
        .realtime()
        .saturating_sub(kernel.clock.boottime());
    let _ = write!(
        text,
        "intr 0\nctxt {switches}\nbtime {}\nprocesses {}\nprocs_running {running}\n\
         procs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
        boot.as_secs(),
        kernel.root_pid_ns.last_pid(),
    );
    Ok(text.into_bytes())
}

fn uptime(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let kernel = &viewer.kernel;
    let up = kernel.clock.boottime();
    let idle = idle(kernel, &Busy::now(kernel));
    let shown = |time: Duration| format!("{}.{:02}", time.as_secs(), time.subsec_millis() / 10);
    Ok(format!("{} {}\n", shown(up), shown(idle)).into_bytes())
}

fn loadavg(viewer: &Viewer, shared: &Arc<Shared>) -> Result<Vec<u8>, Errno> {
    let kernel = &viewer.kernel;
    let ns = shared.ns()?;
    let [one, five, fifteen] = kernel.host.load().averages;
    let tasks = ns.tasks();
    let running = tasks
        .iter()
        .filter(|(_, task)| task.run_state() == RunState::Running)
        .count();
    Ok(format!(
        "{one:.2} {five:.2} {fifteen:.2} {running}/{} {}\n",
        tasks.len(),
        ns.last_pid()
    )
    .into_bytes())
}

fn cpu_header(cpus: usize) -> String {
    let mut text = "          ".to_owned();
    for cpu in 0..cpus {
        let _ = write!(text, " {:<10}", format!("CPU{cpu}"));
    }
    text
}

fn softirqs(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let cpus = viewer.kernel.cpus;
    let mut text = " ".repeat(20);
    for cpu in 0..cpus {
        let _ = write!(text, "{:<11}", format!("CPU{cpu}"));
    }
    text.push('\n');
    let names = [
        "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER",
        "RCU",
    ];
    for name in names {
        let _ = writeln!(text, "{name:>12}:{}", "          0".repeat(cpus));
    }
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_cpus_as_guests_see() {
        let host =
            b"processor\t: 7\nmodel name\t: X\nsiblings\t: 16\ncore id\t\t: 9\nflags\t\t: a b\n\n";
        assert_eq!(
            String::from_utf8_lossy(&cpuinfo(host, 2)),
            "processor\t: 0\nmodel name\t: X\nsiblings\t: 2\ncore id\t\t: 0\nflags\t\t: a b\n\n\
             processor\t: 1\nmodel name\t: X\nsiblings\t: 2\ncore id\t\t: 1\nflags\t\t: a b\n\n"
        );
    }
}
