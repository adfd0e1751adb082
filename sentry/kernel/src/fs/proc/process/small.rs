//! Files of a line or two, and the links.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscall_tables::Errno;
use syscall_tables::abi::RLIM_INFINITY;

use super::Query;
use super::stat::priority;
use crate::task::access::AccessCreds;
use crate::task::{CapSet, IdMap, RunState, Task, UserNamespace};
use crate::vfs::VfsPath;

type Text = Result<Vec<u8>, Errno>;

/// The number a guest has written, in C notation.
pub(in crate::fs::proc) fn parse_number(data: &[u8]) -> Result<i64, Errno> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let text = text.trim_matches(|letter: char| letter.is_ascii_whitespace() || letter == '\0');
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = if let Some(digits) = digits.strip_prefix("0x") {
        (16, digits)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, digits)
    } else {
        (10, digits)
    };
    if digits.starts_with(['+', '-']) {
        return Err(Errno::EINVAL);
    }
    let value = i64::from_str_radix(digits, radix).map_err(|_| Errno::EINVAL)?;
    Ok(if negative { -value } else { value })
}

fn live(task: &Task) -> Result<(), Errno> {
    if task.has_exited() {
        return Err(Errno::ENOENT);
    }
    Ok(())
}

pub(super) fn cwd(task: &Task) -> Result<VfsPath, Errno> {
    live(task)?;
    Ok(task.fs().state.read().cwd.clone())
}

pub(super) fn root(task: &Task) -> Result<VfsPath, Errno> {
    live(task)?;
    Ok(task.fs().state.read().root.clone())
}

pub(super) fn exe(task: &Task) -> Result<VfsPath, Errno> {
    let exe = task.mm().exe().ok_or(Errno::ENOENT)?;
    Ok(exe.path.clone())
}

pub(super) fn comm(query: &Query<'_>) -> Text {
    let mut name = query.task.comm();
    name.push(b'\n');
    Ok(name)
}

pub(super) fn set_comm(query: &Query<'_>, data: &[u8], _offset: u64) -> Result<(), Errno> {
    if !Arc::ptr_eq(&query.viewer.task()?.group, &query.task.group) {
        return Err(Errno::EINVAL);
    }
    query
        .task
        .set_comm(data.strip_suffix(b"\n").unwrap_or(data));
    Ok(())
}

pub(super) fn personality(query: &Query<'_>) -> Text {
    let personality = query.task.personality.load(Ordering::Relaxed);
    Ok(format!("{personality:08x}\n").into_bytes())
}

pub(super) fn limits(query: &Query<'_>) -> Text {
    const NAMES: [(&str, &str); 16] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let limits = query.task.group.limits();
    let shown = |value: u64| match value {
        RLIM_INFINITY => "unlimited".to_owned(),
        value => value.to_string(),
    };
    let mut text = format!(
        "{:<25} {:<20} {:<20} {:<10}\n",
        "Limit", "Soft Limit", "Hard Limit", "Units"
    );
    for (resource, (name, unit)) in (0..).zip(NAMES) {
        let Some(limit) = limits.get(resource) else {
            continue;
        };
        let (soft, hard) = (shown(limit.rlim_cur), shown(limit.rlim_max));
        let _ = writeln!(text, "{name:<25} {soft:<20} {hard:<20} {unit:<10}");
    }
    Ok(text.into_bytes())
}

pub(super) fn sched(query: &Query<'_>) -> Text {
    let task = &query.task;
    let policy = task.sched.lock().policy;
    let usage = task.usage();
    let head = format!(
        "{} ({}, #threads: {})\n",
        String::from_utf8_lossy(&task.comm()),
        query.subject.pid.number_in(&query.subject.shared.ns()?),
        task.group.thread_count().max(1),
    );
    let runtime = usage.user + usage.system;
    let switches = usage.voluntary_switches + usage.involuntary_switches;
    let lines = [
        (
            "se.sum_exec_runtime",
            format!(
                "{}.{:06}",
                runtime.as_millis(),
                runtime.subsec_nanos() % 1_000_000
            ),
        ),
        ("nr_switches", switches.to_string()),
        (
            "nr_voluntary_switches",
            usage.voluntary_switches.to_string(),
        ),
        (
            "nr_involuntary_switches",
            usage.involuntary_switches.to_string(),
        ),
        ("policy", policy.to_string()),
        ("prio", (100 + priority(task)).to_string()),
    ];
    let mut text = head;
    text.push_str("-------------------------------------------------------------------\n");
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<45}:{value:>21}");
    }
    Ok(text.into_bytes())
}

/// Linux resets statistics here; there are none to reset.
pub(super) fn set_sched(_query: &Query<'_>, _data: &[u8], _offset: u64) -> Result<(), Errno> {
    Ok(())
}

pub(super) fn schedstat(query: &Query<'_>) -> Text {
    let usage = query.task.usage();
    let nanos = (usage.user + usage.system).as_nanos();
    let slices = usage.voluntary_switches + usage.involuntary_switches;
    Ok(format!("{nanos} 0 {slices}\n").into_bytes())
}

/// The call a sleeping task is in, or that it runs.
pub(super) fn syscall(query: &Query<'_>) -> Text {
    let task = &query.task;
    Ok(match (task.run_state(), task.current_call()) {
        (RunState::Sleeping, Some(number)) => {
            // Arguments and registers belong to the task's own future.
            format!("{number} 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0\n").into_bytes()
        }
        _ => b"running\n".to_vec(),
    })
}

pub(super) fn wchan(query: &Query<'_>) -> Text {
    let task = &query.task;
    let call = match (task.run_state(), task.current_call()) {
        (RunState::Sleeping, Some(number)) if query.is_permitted() => number,
        _ => return Ok(b"0".to_vec()),
    };
    let row = syscall_tables::table::by_number(call);
    Ok(row.map_or_else(
        || b"0".to_vec(),
        |row| format!("__x64_sys_{}", row.name).into_bytes(),
    ))
}

/// Frames belong to the host.
pub(super) fn pagemap(_query: &Query<'_>) -> Text {
    Err(Errno::EPERM)
}

/// The sentry has no kernel stack to show.
pub(super) fn stack(query: &Query<'_>) -> Text {
    let viewer = query.viewer.task()?;
    if !viewer.creds().has(CapSet::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    Ok(Vec::new())
}

pub(super) fn cpuset(_query: &Query<'_>) -> Text {
    Ok(b"/\n".to_vec())
}

pub(super) fn cgroup(_query: &Query<'_>) -> Text {
    Ok(b"0::/\n".to_vec())
}

/// Badness as Linux counts it, 0 to 2000: memory in thousandths of the
/// whole, doubled by a third, moved by the adjustment.
pub(super) fn oom_score(query: &Query<'_>) -> Text {
    let total = i64::try_from(query.viewer.kernel.memory_bytes.max(1)).unwrap_or(i64::MAX);
    let used = i64::try_from(query.task.mm().space.resident_bytes()).unwrap_or(0);
    let adjust = i64::from(query.task.group.oom_score_adj.load(Ordering::Relaxed));
    let points = used.saturating_mul(1000) / total + adjust;
    let score = if adjust == -1000 {
        0
    } else {
        ((1000 + points) * 2 / 3).max(0)
    };
    Ok(format!("{score}\n").into_bytes())
}

pub(super) fn oom_score_adj(query: &Query<'_>) -> Text {
    let adjust = query.task.group.oom_score_adj.load(Ordering::Relaxed);
    Ok(format!("{adjust}\n").into_bytes())
}

fn change_oom(query: &Query<'_>, adjust: i64) -> Result<(), Errno> {
    let adjust = i32::try_from(adjust).map_err(|_| Errno::EINVAL)?;
    if !(-1000..=1000).contains(&adjust) {
        return Err(Errno::EINVAL);
    }
    let group = &query.task.group;
    let creds = query.viewer.task()?.creds();
    if adjust < group.oom_score_adj.load(Ordering::Relaxed) && !creds.has(CapSet::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    group.oom_score_adj.store(adjust, Ordering::Relaxed);
    Ok(())
}

pub(super) fn set_oom_score_adj(query: &Query<'_>, data: &[u8], _at: u64) -> Result<(), Errno> {
    change_oom(query, parse_number(data)?)
}

/// The old scale from -17 to 15.
pub(super) fn oom_adj(query: &Query<'_>) -> Text {
    let adjust = query.task.group.oom_score_adj.load(Ordering::Relaxed);
    let old = if adjust == 1000 {
        15
    } else {
        adjust * 17 / 1000
    };
    Ok(format!("{old}\n").into_bytes())
}

pub(super) fn set_oom_adj(query: &Query<'_>, data: &[u8], _at: u64) -> Result<(), Errno> {
    let old = parse_number(data)?;
    if !(-17..=15).contains(&old) {
        return Err(Errno::EINVAL);
    }
    change_oom(query, if old == 15 { 1000 } else { old * 1000 / 17 })
}

/// What stands for no login uid and no session.
const NO_LOGIN: u32 = u32::MAX;

pub(super) fn loginuid(query: &Query<'_>) -> Text {
    let uid = query.task.login.lock().uid;
    let seen = match (uid, &query.viewer.creds) {
        (Some(uid), Some(creds)) => creds.user_ns.uid_or_overflow(uid),
        (Some(uid), None) => uid.0,
        (None, _) => NO_LOGIN,
    };
    Ok(seen.to_string().into_bytes())
}

/// A task sets its own only.
pub(super) fn set_loginuid(query: &Query<'_>, data: &[u8], at: u64) -> Result<(), Errno> {
    let task = query.viewer.task()?;
    if !Arc::ptr_eq(task, &query.task) {
        return Err(Errno::EPERM);
    }
    if at != 0 {
        return Err(Errno::EINVAL);
    }
    let number = u32::try_from(parse_number(data)?).map_err(|_| Errno::EINVAL)?;
    let uid = match number {
        NO_LOGIN => None,
        uid => {
            let creds = task.creds();
            Some(creds.user_ns.uid_to_kernel(uid).ok_or(Errno::EINVAL)?)
        }
    };
    task.set_login(&query.viewer.kernel, uid)
}

pub(super) fn sessionid(query: &Query<'_>) -> Text {
    let session = query.task.login.lock().session;
    Ok(session.unwrap_or(NO_LOGIN).to_string().into_bytes())
}

pub(super) fn coredump_filter(query: &Query<'_>) -> Text {
    live(&query.task).map_err(|_| Errno::ESRCH)?;
    let filter = query.task.group.coredump_filter.load(Ordering::Relaxed);
    Ok(format!("{filter:08x}\n").into_bytes())
}

pub(super) fn set_coredump_filter(query: &Query<'_>, data: &[u8], _at: u64) -> Result<(), Errno> {
    let filter = u64::try_from(parse_number(data)?).map_err(|_| Errno::EINVAL)?;
    let known = filter & 0x1ff;
    query
        .task
        .group
        .coredump_filter
        .store(known, Ordering::Relaxed);
    Ok(())
}

/// What goes to and from the host is not counted by process.
pub(super) fn io(_query: &Query<'_>) -> Text {
    let names = [
        "rchar",
        "wchar",
        "syscr",
        "syscw",
        "read_bytes",
        "write_bytes",
        "cancelled_write_bytes",
    ];
    let mut text = String::new();
    for name in names {
        let _ = writeln!(text, "{name}: 0");
    }
    Ok(text.into_bytes())
}

fn show_map(
    query: &Query<'_>,
    map: &IdMap,
    lower: impl Fn(&UserNamespace, u32) -> Option<u32>,
) -> Text {
    let own = query.task.creds().user_ns.clone();
    let viewer = match &query.viewer.creds {
        Some(creds) => creds.user_ns.clone(),
        None => own.clone(),
    };
    let viewer = match &own.parent {
        Some(parent) if Arc::ptr_eq(&viewer, &own) => parent.clone(),
        _ => viewer,
    };
    let mut text = String::new();
    for extent in map {
        let outer = lower(&viewer, extent.outer).unwrap_or(u32::MAX);
        let _ = writeln!(
            text,
            "{:>10} {outer:>10} {:>10}",
            extent.inner, extent.count
        );
    }
    Ok(text.into_bytes())
}

pub(super) fn uid_map(query: &Query<'_>) -> Text {
    let map = query.task.creds().user_ns.uid_map();
    show_map(query, &map, |ns, id| {
        ns.uid_from_kernel(crate::task::Uid(id))
    })
}

pub(super) fn gid_map(query: &Query<'_>) -> Text {
    let map = query.task.creds().user_ns.gid_map();
    show_map(query, &map, |ns, id| {
        ns.gid_from_kernel(crate::task::Gid(id))
    })
}

pub(super) fn projid_map(_query: &Query<'_>) -> Text {
    Ok(format!("{:>10} {:>10} {:>10}\n", 0, 0, u32::MAX).into_bytes())
}

/// Maps are written in one piece.
fn at_start(offset: u64) -> Result<(), Errno> {
    if offset == 0 {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

pub(super) fn set_uid_map(query: &Query<'_>, data: &[u8], offset: u64) -> Result<(), Errno> {
    at_start(offset)?;
    let ns = query.task.creds().user_ns.clone();
    ns.write_uid_map(query.viewer.creds()?, data)
}

pub(super) fn set_gid_map(query: &Query<'_>, data: &[u8], offset: u64) -> Result<(), Errno> {
    at_start(offset)?;
    let ns = query.task.creds().user_ns.clone();
    ns.write_gid_map(query.viewer.creds()?, data)
}

pub(super) fn setgroups(query: &Query<'_>) -> Text {
    Ok(if query.task.creds().user_ns.setgroups_allowed() {
        b"allow\n".to_vec()
    } else {
        b"deny\n".to_vec()
    })
}

pub(super) fn set_setgroups(query: &Query<'_>, data: &[u8], offset: u64) -> Result<(), Errno> {
    at_start(offset)?;
    let ns = query.task.creds().user_ns.clone();
    if !query.viewer.creds()?.has_in(&ns, CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    match data.trim_ascii_end() {
        b"allow" => ns.set_setgroups(true),
        b"deny" => ns.set_setgroups(false),
        _ => Err(Errno::EINVAL),
    }
}

/// POSIX timers belong to `time`, which does not list them.
pub(super) fn timers(_query: &Query<'_>) -> Text {
    Ok(Vec::new())
}

fn may_set_slack(query: &Query<'_>) -> Result<(), Errno> {
    let viewer = query.viewer.task()?;
    if !query
        .task
        .may_be_accessed_by(viewer, AccessCreds::FileSystem)
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

pub(super) fn timerslack_ns(query: &Query<'_>) -> Text {
    may_set_slack(query)?;
    let slack = query.task.timer_slack_ns.load(Ordering::Relaxed);
    Ok(format!("{slack}\n").into_bytes())
}

pub(super) fn set_timerslack_ns(query: &Query<'_>, data: &[u8], _at: u64) -> Result<(), Errno> {
    /// What 0 goes back to.
    const DEFAULT_NS: u64 = 50_000;
    let slack = u64::try_from(parse_number(data)?).map_err(|_| Errno::EINVAL)?;
    may_set_slack(query)?;
    let slack = if slack == 0 { DEFAULT_NS } else { slack };
    query.task.timer_slack_ns.store(slack, Ordering::Relaxed);
    Ok(())
}
