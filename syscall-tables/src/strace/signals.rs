//! Text of signals, their structs, and wait statuses.

use super::text::{addr, flags, hex, name};
use crate::abi;

/// Text of a signal number; 0 only probes.
pub fn signal(number: i32) -> String {
    match abi::Signal::from_raw(number) {
        Some(signal) => signal.to_string(),
        None => number.to_string(),
    }
}

/// Text of a signal set: `[INT CHLD]`, or `~[KILL STOP]` if most are in it.
pub fn sigset(set: abi::SigSet) -> String {
    let inverted = set.0.count_ones() > 32;
    let shown = if inverted { set.complement() } else { set };
    let names: Vec<_> = shown
        .iter()
        .map(|signal| {
            let name = signal.to_string();
            name.strip_prefix("SIG").unwrap_or(&name).to_owned()
        })
        .collect();
    format!("{}[{}]", if inverted { "~" } else { "" }, names.join(" "))
}

/// Text of a `struct sigaction`.
pub fn sigaction(a: &abi::SigAction) -> String {
    let handler = match a.handler {
        abi::SIG_DFL => "SIG_DFL".to_owned(),
        abi::SIG_IGN => "SIG_IGN".to_owned(),
        handler => hex(handler),
    };
    let mut out = format!(
        "{{sa_handler={handler}, sa_mask={}, sa_flags={}",
        sigset(a.mask),
        flags(&abi::SA_FLAGS, a.flags)
    );
    if a.flags & abi::SaFlags::SA_RESTORER.bits() != 0 {
        out.push_str(", sa_restorer=");
        out.push_str(&addr(a.restorer));
    }
    out.push('}');
    out
}

/// Text of a `siginfo_t`, by signal and code.
pub fn siginfo(info: &abi::SigInfo) -> String {
    let codes = match abi::Signal::from_raw(info.si_signo) {
        _ if info.si_code <= 0 || info.si_code == abi::SI_KERNEL => &abi::SI_CODES,
        Some(abi::Signal::SIGILL) => &abi::ILL_CODES,
        Some(abi::Signal::SIGFPE) => &abi::FPE_CODES,
        Some(abi::Signal::SIGSEGV) => &abi::SEGV_CODES,
        Some(abi::Signal::SIGBUS) => &abi::BUS_CODES,
        Some(abi::Signal::SIGTRAP) => &abi::TRAP_CODES,
        Some(abi::Signal::SIGCHLD) => &abi::CLD_CODES,
        Some(abi::Signal::SIGSYS) => &abi::SYS_CODES,
        _ => &abi::POLL_CODES,
    };
    let mut out = format!(
        "{{si_signo={}, si_code={}",
        signal(info.si_signo),
        name(codes, info.si_code as u64)
    );
    let rest = match info.si_code {
        abi::SI_TIMER => format!(
            ", si_timerid={}, si_overrun={}, si_value={}",
            info.timer_id(),
            info.overrun(),
            hex(info.value())
        ),
        abi::SI_USER | abi::SI_TKILL => {
            format!(", si_pid={}, si_uid={}", info.pid(), info.uid())
        }
        abi::SI_KERNEL => String::new(),
        code if code < 0 => format!(
            ", si_pid={}, si_uid={}, si_value={}",
            info.pid(),
            info.uid(),
            hex(info.value())
        ),
        _ => match abi::Signal::from_raw(info.si_signo) {
            Some(abi::Signal::SIGCHLD) => format!(
                ", si_pid={}, si_uid={}, si_status={}",
                info.pid(),
                info.uid(),
                if info.si_code == abi::CLD_EXITED {
                    info.status().to_string()
                } else {
                    signal(info.status())
                }
            ),
            Some(abi::Signal::SIGSYS) => format!(
                ", si_call_addr={}, si_syscall={}",
                hex(info.addr()),
                info.syscall_number()
            ),
            _ => format!(", si_addr={}", addr(info.addr())),
        },
    };
    out.push_str(&rest);
    out.push('}');
    out
}

/// Text of a wait status, as the macros would take it apart.
pub fn wait_status(status: i32) -> String {
    let signo = status & 0x7f;
    if status == abi::W_CONTINUED {
        "{WIFCONTINUED(s)}".to_owned()
    } else if status & 0xff == 0x7f {
        let event = match status >> 16 {
            0 => String::new(),
            event => format!(" | {} << 16", name(&abi::PTRACE_EVENTS, event as u64)),
        };
        format!(
            "{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}{event}",
            signal(status >> 8 & 0xff)
        )
    } else if signo == 0 {
        format!(
            "{{WIFEXITED(s) && WEXITSTATUS(s) == {}}}",
            status >> 8 & 0xff
        )
    } else {
        let core = if status & 0x80 != 0 {
            " && WCOREDUMP(s)"
        } else {
            ""
        };
        format!(
            "{{WIFSIGNALED(s) && WTERMSIG(s) == {}{core}}}",
            signal(signo)
        )
    }
}
