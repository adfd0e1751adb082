//! `runsc-cri doctor`: what this machine lacks for running pods, and what to do
//! about it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::cni::Cni;
use crate::config::{CgroupDriver, Config};
use crate::containers::resources;
use crate::images::idmap::IdMap;
use crate::runtime::{Runtime, find};

enum Verdict {
    Good(String),
    /// Pods run, but something will be missed.
    Weak(String),
    /// No pod runs.
    Bad(String),
}
use Verdict::{Bad, Good, Weak};

/// Prints a line per check; an error when one is bad.
pub fn run(config: &Config) -> Result<()> {
    let mut bad = 0;
    for (name, verdict) in checks(config) {
        let (mark, text) = match verdict {
            Good(text) => ("ok  ", text),
            Weak(text) => ("weak", text),
            Bad(text) => {
                bad += 1;
                ("BAD ", text)
            }
        };
        println!("{mark} {name}: {text}");
    }
    if bad > 0 {
        bail!("{bad} of the checks failed");
    }
    Ok(())
}

fn checks(config: &Config) -> Vec<(String, Verdict)> {
    let mut all = vec![
        ("configuration".to_owned(), settings(config)),
        ("user".to_owned(), user()),
        ("kernel".to_owned(), kernel()),
        ("overlayfs".to_owned(), overlay()),
        ("cgroups".to_owned(), cgroups(config)),
        ("forwarding".to_owned(), forwarding()),
        ("network".to_owned(), network(config)),
        ("root".to_owned(), space(&config.root)),
        ("socket".to_owned(), socket(&config.listen)),
    ];
    all.push(("user namespaces".to_owned(), user_namespaces(config)));
    for name in config.handlers.keys() {
        all.push((format!("handler {name}"), handler(config, name)));
    }
    all
}

fn settings(config: &Config) -> Verdict {
    match config.check() {
        Ok(()) => Good(format!("default handler {}", config.default_handler)),
        Err(err) => Bad(format!("{err:#}")),
    }
}

fn user() -> Verdict {
    if nix::unistd::geteuid().is_root() {
        Good("root".to_owned())
    } else {
        Bad("not root; start it as root".to_owned())
    }
}

fn kernel() -> Verdict {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text
        .trim()
        .split(['.', '-'])
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 14) {
        Good(text.trim().to_owned())
    } else {
        Bad(format!("{} is older than 5.14", text.trim()))
    }
}

fn overlay() -> Verdict {
    let known = || {
        std::fs::read_to_string("/proc/filesystems")
            .is_ok_and(|text| text.lines().any(|l| l.trim_end().ends_with("overlay")))
    };
    // Opening it loads the module.
    let opened = rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC);
    if opened.is_ok() || known() {
        Good("available".to_owned())
    } else {
        Bad("the kernel has none; `modprobe overlay`".to_owned())
    }
}

fn cgroups(config: &Config) -> Verdict {
    let systemd = Path::new("/run/systemd/system").exists();
    let driver = match config.cgroup_driver {
        CgroupDriver::Cgroupfs => "cgroupfs",
        CgroupDriver::Systemd if !systemd => {
            return Bad("cgroup_driver is systemd, but systemd does not run here".to_owned());
        }
        CgroupDriver::Systemd => "systemd",
    };
    if resources::unified_hierarchy() {
        let text = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let missing: Vec<&str> = ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|c| !text.split_whitespace().any(|have| have == *c))
            .collect();
        return if missing.is_empty() {
            Good(format!("version 2, driver {driver}"))
        } else {
            Bad(format!("version 2 without the controllers {missing:?}"))
        };
    }
    if Path::new("/sys/fs/cgroup/memory").exists() {
        Weak(format!(
            "version 1, driver {driver}; newer kubelets want version 2 (or failCgroupV1: false)"
        ))
    } else {
        Bad("no cgroups are mounted at /sys/fs/cgroup".to_owned())
    }
}

fn forwarding() -> Verdict {
    let on = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
        .is_ok_and(|text| text.trim() == "1");
    if on {
        Good("on".to_owned())
    } else {
        Weak("pods reach nothing beyond this machine; `sysctl -w net.ipv4.ip_forward=1`".to_owned())
    }
}

fn network(config: &Config) -> Verdict {
    let cni = Cni::new(config.cni.clone());
    match cni.installed() {
        Ok(list) => Good(format!("{} (version {})", list.name, list.version)),
        Err(err) => Weak(format!("only pods on the host's network run: {err:#}")),
    }
}

fn space(root: &Path) -> Verdict {
    let existing = root.ancestors().find(|dir| dir.exists()).unwrap_or(root);
    match rustix::fs::statvfs(existing) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize) >> 30;
            let text = format!("{}: {free} GiB free", root.display());
            if free < 5 { Weak(text) } else { Good(text) }
        }
        Err(err) => Bad(format!("{}: {err}", root.display())),
    }
}

fn socket(path: &Path) -> Verdict {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        Good(format!("{} is served", path.display()))
    } else {
        Weak(format!("nobody serves {} yet", path.display()))
    }
}

/// Of pods whose handler is not a sandbox.
fn user_namespaces(config: &Config) -> Verdict {
    let existing = config.root.ancestors().find(|dir| dir.exists());
    let try_with = |userns: &Path| {
        let settings = config.handlers.get("runsc");
        let path = settings.map_or("runsc".into(), |settings| settings.path.clone());
        let ids = IdMap {
            program: find(&path)?,
            userns: userns.to_owned(),
            root: (0, 0),
        };
        ids.check(existing.unwrap_or(&config.root))
    };
    match crate::supervisor::with_sample_user_namespace(try_with) {
        Ok(()) => Good("ids of files can be mapped".to_owned()),
        Err(err) => Weak(format!(
            "pods with one are refused, but in sandboxes: {err:#}"
        )),
    }
}

fn handler(config: &Config, name: &str) -> Verdict {
    let runtime = match Runtime::new(config, name) {
        Ok(runtime) => runtime,
        Err(err) if name == config.default_handler => return Bad(format!("{err:#}")),
        Err(err) => return Weak(format!("not offered: {err:#}")),
    };
    let output = std::process::Command::new(&runtime.path)
        .arg("--version")
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let first = text.lines().next().unwrap_or_default();
            Good(format!("{} ({first})", runtime.path.display()))
        }
        Ok(output) => Bad(format!("{}: {}", runtime.path.display(), output.status)),
        Err(err) => Bad(format!("{}: {err}", runtime.path.display())),
    }
}
