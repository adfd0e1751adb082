//! Process plans as the kernel wants them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sentry_kernel::fs::host_file::HostFile;
use sentry_kernel::kernel::Kernel;
use sentry_kernel::sandbox::ProcessConfig;
use sentry_kernel::task::{CapSet, Creds, Gid, Rlimits, Uid};
use sentry_kernel::vfs::{Fd, File, OpenMode};
use syscall_tables::abi::Rlimit;

use crate::plan::ProcessPlan;

/// Default file mode creation mask.
const UMASK: u32 = 0o022;

/// `plan` with `stdio` as its descriptors: three, or one terminal.
pub fn config(
    _kernel: &Arc<Kernel>,
    plan: &ProcessPlan,
    stdio: Vec<OwnedFd>,
) -> Result<ProcessConfig> {
    let bytes = |list: &[String]| {
        let strings = list.iter().map(|string| string.clone().into_bytes());
        strings.collect::<Vec<_>>()
    };
    let mut rlimits = Rlimits::default();
    for limit in &plan.rlimits {
        rlimits.set(
            limit.resource,
            Rlimit {
                rlim_cur: limit.soft,
                rlim_max: limit.hard,
            },
        );
    }
    let files = match (plan.terminal, stdio.len()) {
        (false, 3) => host_stdio(stdio)?,
        (true, 1) => bail!("terminals are not supported yet"),
        (terminal, count) => {
            bail!("{count} descriptors are not what a process wants (terminal: {terminal})")
        }
    };
    Ok(ProcessConfig {
        argv: bytes(&plan.args),
        envp: bytes(&plan.env),
        cwd: plan.cwd.clone().into_bytes(),
        creds: creds(plan),
        rlimits,
        umask: plan.umask.unwrap_or(UMASK),
        files,
        terminal: None,
    })
}

fn creds(plan: &ProcessPlan) -> Creds {
    let (uid, gid) = (Uid(plan.uid), Gid(plan.gid));
    let caps = CapSet::from_bits_truncate;
    Creds {
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        groups: plan.additional_gids.iter().copied().map(Gid).collect(),
        permitted: caps(plan.capabilities.permitted),
        effective: caps(plan.capabilities.effective),
        inheritable: caps(plan.capabilities.inheritable),
        bounding: caps(plan.capabilities.bounding),
        ambient: caps(plan.capabilities.ambient),
        no_new_privs: plan.no_new_privileges,
        ..Creds::root()
    }
}

fn host_stdio(stdio: Vec<OwnedFd>) -> Result<Vec<(Fd, Arc<File>)>> {
    let modes = [OpenMode::READ, OpenMode::WRITE, OpenMode::WRITE];
    let names = ["stdin", "stdout", "stderr"];
    let mut files = Vec::new();
    for ((number, fd), (mode, name)) in (0..).zip(stdio).zip(modes.into_iter().zip(names)) {
        let file = HostFile::open(fd, mode).with_context(|| format!("{name} can't be used"))?;
        files.push((Fd(number), file));
    }
    Ok(files)
}
