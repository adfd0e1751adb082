//! `/proc/PID/status`.

use std::fmt::Write;

use syscall_tables::Errno;
use syscall_tables::abi::RLIMIT_SIGPENDING;

use super::Query;
use crate::task::{OVERFLOW_ID, RunState, Task};

fn state_name(state: RunState) -> &'static str {
    match state {
        RunState::Running => "R (running)",
        RunState::Sleeping => "S (sleeping)",
        RunState::Stopped => "T (stopped)",
        RunState::Traced => "t (tracing stop)",
        RunState::Zombie => "Z (zombie)",
    }
}

/// A command name with what would break a line escaped.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'\n' => shown.extend_from_slice(b"\\n"),
            b'\\' => shown.extend_from_slice(b"\\\\"),
            byte => shown.push(*byte),
        }
    }
    shown
}

/// A CPU mask as comma-separated words of 32 bits, highest first.
pub(super) fn mask_text(mask: &[u64], cpus: usize) -> String {
    let words: Vec<u32> = mask
        .iter()
        .flat_map(|word| [*word as u32, (*word >> 32) as u32])
        .take(cpus.div_ceil(32).max(1))
        .collect();
    let mut text = String::new();
    for (at, word) in words.iter().rev().enumerate() {
        if at > 0 {
            text.push(',');
        }
        // The first word has no more digits than there are CPUs.
        let digits = if at == 0 {
            ((cpus - 1) % 32) / 4 + 1
        } else {
            8
        };
        let _ = write!(text, "{word:0digits$x}");
    }
    text
}

/// A CPU mask as ranges: `0-3,7`.
pub(super) fn mask_list(mask: &[u64]) -> String {
    let is_set = |cpu: usize| {
        let word = mask.get(cpu / 64).copied().unwrap_or(0);
        word >> (cpu % 64) & 1 != 0
    };
    let end = mask.len() * 64;
    let mut text = String::new();
    let mut cpu = 0;
    while cpu < end {
        if !is_set(cpu) {
            cpu += 1;
            continue;
        }
        let first = cpu;
        while cpu < end && is_set(cpu) {
            cpu += 1;
        }
        if !text.is_empty() {
            text.push(',');
        }
        let last = cpu - 1;
        if first == last {
            let _ = write!(text, "{first}");
        } else {
            let _ = write!(text, "{first}-{last}");
        }
    }
    text
}

pub(super) fn status(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let mut text = b"Name:\t".to_vec();
    text.extend_from_slice(&escaped(&query.task.comm()));
    let mut rest = String::new();
    identity(query, &mut rest)?;
    let exited = query.task.has_exited();
    if !exited {
        memory(&query.task, &mut rest);
    }
    threads(query, &mut rest);
    text.extend_from_slice(rest.as_bytes());
    Ok(text)
}

/// Joins numbers, a tab before each.
fn tabbed(numbers: impl IntoIterator<Item = i32>) -> String {
    let mut text = String::new();
    for number in numbers {
        let _ = write!(text, "\t{number}");
    }
    text
}

fn identity(query: &Query<'_>, out: &mut String) -> Result<(), Errno> {
    let task = &query.task;
    let group = &task.group;
    let ns = query.subject.shared.ns()?;
    let creds = task.creds();
    // Ids are shown as the viewer's user namespace has them.
    let user_ns = match &query.viewer.creds {
        Some(creds) => creds.user_ns.clone(),
        None => creds.user_ns.clone(),
    };
    let uid = |uid| user_ns.uid_from_kernel(uid).unwrap_or(OVERFLOW_ID);
    let gid = |gid| user_ns.gid_from_kernel(gid).unwrap_or(OVERFLOW_ID);
    let umask = task.fs().state.read().umask;
    let mut fd_slots = 64;
    if let Some((last, ..)) = task.files().list().last() {
        let wanted = u64::from(last.0.unsigned_abs()) + 1;
        fd_slots = wanted.next_power_of_two().max(64);
    }
    let mut groups = String::new();
    for id in creds.groups.iter() {
        let _ = write!(groups, "{} ", gid(*id));
    }
    let tgid = group.id_in(&ns);
    let parent = group.parent_id_in(&ns);
    let tracer = task.tracer().map_or(0, |tracer| tracer.tid_in(&ns));
    let _ = write!(
        out,
        "\nUmask:\t{umask:04o}\nState:\t{}\nTgid:\t{tgid}\nNgid:\t0\nPid:\t{}\nPPid:\t{parent}\n\
         TracerPid:\t{tracer}\nUid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\nFDSize:\t{fd_slots}\n\
         Groups:\t{groups}\n",
        state_name(task.run_state()),
        query.subject.pid.number_in(&ns),
        uid(creds.uid),
        uid(creds.euid),
        uid(creds.suid),
        uid(creds.fsuid),
        gid(creds.gid),
        gid(creds.egid),
        gid(creds.sgid),
        gid(creds.fsgid),
    );
    let process_group = group.process_group();
    let session = group.session();
    let _ = write!(
        out,
        "NStgid:{}\nNSpid:{}\nNSpgid:{}\nNSsid:{}\nKthread:\t0\n",
        tabbed(group.pid().numbers_from(&ns)),
        tabbed(query.subject.pid.numbers_from(&ns)),
        tabbed(process_group.map_or_else(Vec::new, |group| group.pid().numbers_from(&ns))),
        tabbed(session.map_or_else(Vec::new, |session| session.pid().numbers_from(&ns))),
    );
    Ok(())
}

fn memory(task: &Task, out: &mut String) {
    let mm = task.mm();
    let usage = mm.usage();
    let layout = mm.layout();
    let exe = layout.code.end.saturating_sub(layout.code.start);
    let lines = [
        ("VmPeak", usage.total),
        ("VmSize", usage.total),
        ("VmLck", usage.locked),
        ("VmPin", 0),
        ("VmHWM", usage.peak),
        ("VmRSS", usage.resident),
        ("RssAnon", usage.resident.saturating_sub(usage.shared)),
        ("RssFile", usage.shared),
        ("RssShmem", 0),
        ("VmData", usage.data),
        ("VmStk", usage.stack),
        ("VmExe", exe.next_multiple_of(4096)),
        ("VmLib", usage.code.saturating_sub(exe)),
        ("VmPTE", page_table_bytes(usage.resident)),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ];
    for (name, bytes) in lines {
        let _ = writeln!(out, "{name}:\t{:8} kB", bytes / 1024);
    }
    out.push_str("CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n");
}

/// What the page tables of so much resident memory take, roughly.
fn page_table_bytes(resident: u64) -> u64 {
    (resident / 512).next_multiple_of(4096) + (9 << 12)
}

fn threads(query: &Query<'_>, out: &mut String) {
    let task = &query.task;
    let group = &task.group;
    let creds = task.creds();
    let queued = query.viewer.kernel.users.queued_signals(creds.uid);
    let (pending, blocked) = {
        let own = task.signals.lock();
        (own.pending.set(), own.blocked)
    };
    let shared_pending = group.signals.lock().pending.set();
    let (ignored, caught) = group.sighand().sets();
    let _ = write!(
        out,
        "Threads:\t{}\nSigQ:\t{}/{}\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\n\
         SigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
        group.thread_count().max(1),
        queued.load(std::sync::atomic::Ordering::Relaxed),
        group.limit(RLIMIT_SIGPENDING),
        pending.0,
        shared_pending.0,
        blocked.0,
        ignored.0,
        caught.0,
    );
    let _ = write!(
        out,
        "CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\nCapBnd:\t{:016x}\n\
         CapAmb:\t{:016x}\nNoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\n",
        creds.inheritable.bits(),
        creds.permitted.bits(),
        creds.effective.bits(),
        creds.bounding.bits(),
        creds.ambient.bits(),
        u8::from(creds.no_new_privs),
        task.seccomp.mode(),
        task.seccomp.filter_count(),
    );
    let affinity = task.sched.lock().affinity.clone();
    let usage = task.usage();
    let _ = write!(
        out,
        "Speculation_Store_Bypass:\tunknown\nSpeculationIndirectBranch:\tunknown\n\
         Cpus_allowed:\t{}\nCpus_allowed_list:\t{}\nMems_allowed:\t00000000,00000001\n\
         Mems_allowed_list:\t0\nvoluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
        mask_text(&affinity, query.viewer.kernel.cpus),
        mask_list(&affinity),
        usage.voluntary_switches,
        usage.involuntary_switches,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_look_like_linux() {
        assert_eq!(mask_text(&[0xf], 4), "f");
        assert_eq!(mask_text(&[0xff], 12), "0ff");
        assert_eq!(mask_text(&[0x3_ffff_ffff], 34), "3,ffffffff");
        assert_eq!(mask_list(&[0b1000_1111]), "0-3,7");
        assert_eq!(mask_list(&[0, 1]), "64");
    }
}
