//! Guest code that tries other ways into the kernel, and to disturb what runs
//! beside it. Natively these are harmless; inside they must be as well.

pub mod entry;
pub mod memory;
pub mod state;

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use crate::util::{self, *};

static SIGNO: AtomicI32 = AtomicI32::new(0);

extern "C" fn skip_instruction(signo: i32, _: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        SIGNO.store(signo, SeqCst);
        let uc = &mut *uc.cast::<libc::ucontext_t>();
        uc.uc_mcontext.gregs[libc::REG_RIP as usize] = uc.uc_mcontext.gregs[libc::REG_R12 as usize];
    }
}

unsafe fn catch() {
    for s in [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGSYS,
        libc::SIGTRAP,
    ] {
        handle(
            s,
            skip_instruction as *const () as usize,
            libc::SA_SIGINFO | libc::SA_NODEFER,
        );
    }
}

/// Runs `f` in a child that may die of any signal, but must end.
unsafe fn may_die(f: impl FnOnce()) {
    let pid = fork(|| {
        let zero = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &zero);
        let value = libc::itimerval {
            it_interval: libc::timeval {
                tv_sec: 0,
                tv_usec: 0,
            },
            it_value: libc::timeval {
                tv_sec: 0,
                tv_usec: 300_000,
            },
        };
        sys!(
            libc::SYS_setitimer,
            libc::ITIMER_REAL,
            &value as *const _,
            0
        );
        f();
    });
    util::wait(pid);
    check!(sys!(libc::SYS_getpid) > 0);
}

unsafe fn faulting_load(p: usize) -> bool {
    SIGNO.store(0, SeqCst);
    std::arch::asm!("lea r12, [rip + 2f]", "mov al, [{p}]", "2:", p = in(reg) p, out("rax") _, out("r12") _);
    SIGNO.load(SeqCst) != 0
}

const PLANTED: u64 = 0x5eed_0bad_5eed_0bad;

/// Words in what the runtime keeps beside a guest's memory: of the parts for
/// the thread itself those that it does not use all the time.
fn plantable() -> impl Iterator<Item = usize> {
    const CONTEXTS: usize = 0x7fff_1000_0000;
    const SLOT: usize = 0x2_0000;
    let own = [0x3000, 0x1_0f00, 0x1_8000];
    let first = [0x1f00, 0x2800, 0x6000, 0x1_0000, 0x1_f000].map(|at| SLOT + at);
    let others = [2, 7, 100, 16_383].map(|slot| slot * SLOT);
    own.into_iter()
        .chain(first)
        .chain(others)
        .map(|at| CONTEXTS + at)
}

/// How many of [`plantable`] hold what was planted.
pub unsafe fn scan_planted() -> i32 {
    catch();
    let mut found = 0;
    for at in plantable() {
        if !faulting_load(at) && (at as *const u64).read_volatile() == PLANTED {
            found += 1;
        }
    }
    found
}
