//! `/proc/PID/stat`.

use std::time::Duration;

use syscall_tables::Errno;
use syscall_tables::abi::{RLIMIT_RSS, SCHED_FIFO, SCHED_RR};

use super::{Query, Scope};
use crate::mm::Usage;
use crate::task::{RunState, Task};

/// `PF_EXITING`, `PF_FORKNOEXEC`, `PF_RANDOMIZE`.
const EXITING: u64 = 4;
const FORKNOEXEC: u64 = 0x40;
const RANDOMIZE: u64 = 0x40_0000;

/// A time in clock ticks of `sysconf(_SC_CLK_TCK)`.
pub(in crate::fs::proc) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / 10).unwrap_or(u64::MAX)
}

/// Priority as `stat` shows it.
pub(super) fn priority(task: &Task) -> i64 {
    let sched = task.sched.lock();
    if matches!(sched.policy, SCHED_FIFO | SCHED_RR) {
        -1 - i64::from(sched.rt_priority)
    } else {
        20 + i64::from(sched.nice)
    }
}

pub(super) fn stat(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let task = &query.task;
    let group = &task.group;
    let ns = query.subject.shared.ns()?;
    let whole = query.subject.scope == Scope::Process;
    let permitted = query.is_permitted();
    let state = task.run_state();
    let process_group = group.process_group();
    let session = group.session();
    let terminal = session.as_ref().and_then(|session| session.terminal());
    let tty = terminal.as_ref().map_or(0, |terminal| terminal.device());
    let foreground = terminal.as_ref().map_or(-1, |terminal| {
        let group = terminal.foreground();
        group.map_or(-1, |group| i64::from(group.id_in(&ns)))
    });
    let mut flags = RANDOMIZE;
    if !group.did_exec.load(std::sync::atomic::Ordering::Relaxed) {
        flags |= FORKNOEXEC;
    }
    if state == RunState::Zombie {
        flags |= EXITING;
    }
    let usage = if whole { group.usage() } else { task.usage() };
    let reaped = group.children_usage();
    let mm = task.mm();
    let memory = mm.usage();
    let layout = if permitted {
        mm.layout()
    } else {
        Default::default()
    };
    let (policy, rt_priority, nice) = {
        let sched = task.sched.lock();
        (sched.policy, sched.rt_priority, sched.nice)
    };
    let (pending, blocked) = {
        let own = task.signals.lock();
        (own.pending.set(), own.blocked)
    };
    let shared_pending = group.signals.lock().pending.set();
    let (ignored, caught) = group.sighand().sets();
    // Only the old signals fit this file.
    let low = |set: u64| set & 0x7fff_ffff;
    let exit_signal = if task.is_leader() {
        group.exit_signal().map_or(0, |signal| signal.raw())
    } else {
        -1
    };
    let exit_code = match group.exit_status() {
        Some(status) if permitted => status.wait_status(),
        _ => 0,
    };
    // Device numbers here are in the old encoding, widened.
    let (major, minor) = (crate::vfs::dev_major(tty), crate::vfs::dev_minor(tty));
    let tty = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    let fields: [i128; 49] = [
        group.parent_id_in(&ns).into(),
        process_group.map_or(0, |group| group.id_in(&ns)).into(),
        session.map_or(0, |session| session.id_in(&ns)).into(),
        tty.into(),
        foreground.into(),
        flags.into(),
        usage.minor_faults.into(),
        reaped.minor_faults.into(),
        usage.major_faults.into(),
        reaped.major_faults.into(),
        ticks(usage.user).into(),
        ticks(usage.system).into(),
        ticks(reaped.user).into(),
        ticks(reaped.system).into(),
        priority(task).into(),
        nice.into(),
        group.thread_count().max(1) as i128,
        0,
        ticks(task.start_time).into(),
        memory.total.into(),
        Usage::pages(memory.resident).into(),
        group.limit(RLIMIT_RSS).into(),
        layout.code.start.into(),
        layout.code.end.into(),
        layout.stack_start.into(),
        // Stack and instruction pointer are shown of tasks that dump core.
        0,
        0,
        low(pending.union(shared_pending).0).into(),
        low(blocked.0).into(),
        low(ignored.0).into(),
        low(caught.0).into(),
        i128::from(permitted && state == RunState::Sleeping),
        0,
        0,
        exit_signal.into(),
        0,
        rt_priority.into(),
        policy.into(),
        0,
        0,
        0,
        layout.data.start.into(),
        layout.data.end.into(),
        layout.brk_start.into(),
        layout.args.start.into(),
        layout.args.end.into(),
        layout.env.start.into(),
        layout.env.end.into(),
        exit_code.into(),
    ];
    let mut line = format!("{} (", query.subject.pid.number_in(&ns)).into_bytes();
    line.extend_from_slice(&task.comm());
    line.extend_from_slice(format!(") {}", state.letter()).as_bytes());
    for field in fields {
        line.extend_from_slice(format!(" {field}").as_bytes());
    }
    line.push(b'\n');
    Ok(line)
}
