//! `doctor`: whether this host, or one bundle, can be run, and what to change.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::Global;
use crate::oci;
use crate::sys::{PidNamespace, spawn};

#[derive(Args)]
pub struct Doctor {
    /// Say whether this bundle would run, and why not.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Look for the host's files below this directory.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root_dir: PathBuf,
}

/// What a check has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Nothing runs before this is changed.
    Fails,
    /// Something is lost.
    Lacks,
    Good,
}

struct Finding {
    verdict: Verdict,
    what: &'static str,
    /// What there is, or what to change.
    detail: String,
}

/// The host as its files tell of it.
struct Host {
    root: PathBuf,
}

impl Host {
    fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }
}

fn good(what: &'static str, detail: impl Into<String>) -> Finding {
    found(Verdict::Good, what, detail)
}

fn fails(what: &'static str, detail: impl Into<String>) -> Finding {
    found(Verdict::Fails, what, detail)
}

fn lacks(what: &'static str, detail: impl Into<String>) -> Finding {
    found(Verdict::Lacks, what, detail)
}

fn found(verdict: Verdict, what: &'static str, detail: impl Into<String>) -> Finding {
    Finding {
        verdict,
        what,
        detail: detail.into(),
    }
}

impl Doctor {
    pub fn run(self, global: &Global) -> Result<u8> {
        let host = Host {
            root: self.root_dir,
        };
        let mut findings = vec![
            kernel(&host),
            processor(&host),
            user_namespaces(&host),
            seccomp(&host),
            yama(&host),
            cgroups(&host),
            memory(&host),
        ];
        if host.root.as_os_str() == "/" {
            findings.push(own_namespace());
        }
        findings.extend(engines(&host));
        if let Some(bundle) = &self.bundle {
            findings.extend(check_bundle(global, bundle));
        }
        // The first thing to change comes first.
        findings.sort_by_key(|finding| finding.verdict);
        for finding in &findings {
            let word = match finding.verdict {
                Verdict::Fails => "FAIL",
                Verdict::Lacks => "warn",
                Verdict::Good => "ok  ",
            };
            println!("{word} {}: {}", finding.what, finding.detail);
        }
        let failed = findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Fails);
        Ok(u8::from(failed))
    }
}

fn kernel(host: &Host) -> Finding {
    const WHAT: &str = "kernel";
    let release = host.read("proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) >= (6, 1) => good(WHAT, release),
        (Some(_), Some(_)) => fails(
            WHAT,
            format!("{release} is too old; 6.1 or newer is needed"),
        ),
        _ => fails(
            WHAT,
            "/proc/sys/kernel/osrelease can't be read; mount /proc",
        ),
    }
}

fn processor(host: &Host) -> Finding {
    const WHAT: &str = "processor";
    let info = host.read("proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags"));
    let has = |name: &str| flags.is_some_and(|flags| flags.split(' ').any(|flag| flag == name));
    if has("fsgsbase") && has("xsave") {
        good(WHAT, "x86-64 with FSGSBASE and XSAVE")
    } else {
        lacks(
            WHAT,
            "no FSGSBASE or no XSAVE: systrap can't be used; add --platform=ptrace",
        )
    }
}

fn user_namespaces(host: &Host) -> Finding {
    const WHAT: &str = "user namespaces";
    if host.number("proc/sys/user/max_user_namespaces") == Some(0) {
        return fails(
            WHAT,
            "none may be made: sysctl user.max_user_namespaces=15000",
        );
    }
    if host.number("proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return fails(
            WHAT,
            "sandboxes may not make them: sysctl kernel.unprivileged_userns_clone=1",
        );
    }
    let restricted = "proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    if host.number(restricted) == Some(1) {
        return fails(
            WHAT,
            "AppArmor restricts them: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or \
             give this program a profile with userns",
        );
    }
    good(WHAT, "allowed")
}

/// Tries what the jail of a sandbox does first.
fn own_namespace() -> Finding {
    const WHAT: &str = "a user namespace of one's own";
    let child = spawn(
        PidNamespace::Shared,
        |_| Ok(()),
        || {
            let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
            i32::from(made.is_err())
        },
    );
    let ended = child.and_then(|pid| Ok(nix::sys::wait::waitpid(pid, None)?));
    match ended {
        Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) => good(WHAT, "can be made"),
        _ => fails(
            WHAT,
            "can't be made; look at user.max_user_namespaces and at what confines this program",
        ),
    }
}

fn seccomp(host: &Host) -> Finding {
    const WHAT: &str = "seccomp";
    match host.read("proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) if actions.split(' ').any(|action| action == "trap") => good(WHAT, "traps"),
        _ => fails(
            WHAT,
            "no filters with traps; a kernel with CONFIG_SECCOMP_FILTER is needed",
        ),
    }
}

fn yama(host: &Host) -> Finding {
    const WHAT: &str = "Yama";
    match host.number("proc/sys/kernel/yama/ptrace_scope") {
        Some(scope) if scope >= 2 => lacks(
            WHAT,
            format!("kernel.yama.ptrace_scope={scope}: --platform=ptrace can't be used"),
        ),
        _ => good(WHAT, "lets sandboxes trace their own"),
    }
}

fn cgroups(host: &Host) -> Finding {
    const WHAT: &str = "cgroups";
    let mounts = host.read("proc/self/mountinfo").unwrap_or_default();
    let kind = |name: &str| {
        let mut lines = mounts.lines();
        lines.any(|line| line.contains(&format!(" - {name} ")))
    };
    match (kind("cgroup"), kind("cgroup2")) {
        (true, true) => good(WHAT, "version 1, with version 2 beside it"),
        (true, false) => good(WHAT, "version 1"),
        (false, true) => good(WHAT, "version 2"),
        (false, false) => lacks(WHAT, "not mounted: containers can't be limited"),
    }
}

fn memory(host: &Host) -> Finding {
    const WHAT: &str = "memory settings";
    if host.number("proc/sys/vm/overcommit_memory") == Some(2) {
        return lacks(
            WHAT,
            "vm.overcommit_memory=2 counts address space that guests only reserve: set 0 or 1",
        );
    }
    match host.number("proc/sys/vm/max_map_count") {
        Some(count) if count < 65_530 => lacks(
            WHAT,
            format!("vm.max_map_count={count} is low for large guests: set 65530 or more"),
        ),
        _ => good(WHAT, "no limits in the way"),
    }
}

/// Engines whose configuration is there.
fn engines(host: &Host) -> Vec<Finding> {
    let files = [
        ("docker", "etc/docker/daemon.json"),
        ("containerd", "etc/containerd/config.toml"),
        ("cri-o", "etc/crio/crio.conf.d/99-runsc.conf"),
        ("podman", "etc/containers/containers.conf.d/99-runsc.conf"),
    ];
    let there = files
        .into_iter()
        .filter_map(|(name, file)| Some((name, host.read(file)?)));
    there
        .map(|(name, text)| {
            if text.contains("runsc") {
                good(name, "knows runsc")
            } else {
                good(
                    name,
                    format!("does not know runsc: runsc install --engine {name}"),
                )
            }
        })
        .collect()
}

fn check_bundle(global: &Global, bundle: &std::path::Path) -> Vec<Finding> {
    const WHAT: &str = "bundle";
    let loaded = global
        .overlay()
        .and_then(|overlay| oci::load_bundle("doctor", bundle, overlay));
    match loaded {
        Ok(plan) => {
            let mut findings = vec![good(WHAT, format!("{} can be run", bundle.display()))];
            let warnings = plan.host.warnings.into_iter();
            findings.extend(warnings.map(|warning| lacks(WHAT, warning)));
            findings
        }
        Err(err) => vec![fails(WHAT, format!("{err:#}"))],
    }
}
