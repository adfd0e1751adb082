//! Processes and signals, with the test playing guest code.

use sentry_platform::executor::block_on;
use sentry_platform::{Fault, Trap};
use syscall_tables::Errno;
use syscall_tables::abi::{
    RtSigFrame, SaFlags, SigAction, SigSet, Signal, WaitOptions, w_exitcode, w_stopcode, w_termsig,
};
use syscall_tables::table::nr;
use zerocopy::IntoBytes;

use super::{ExitStatus, RunState};
use crate::testing::{DATA, World};

fn error(errno: Errno) -> i64 {
    -i64::from(errno.raw())
}

const HANDLER: u64 = DATA + 0x800;
const RESTORER: u64 = DATA + 0x900;

fn handle(
    world: &World,
    tid: i32,
    guest: &sentry_platform::fake::FakeGuest,
    signal: Signal,
    flags: SaFlags,
) {
    let action = SigAction {
        handler: HANDLER,
        flags: (flags | SaFlags::SA_RESTORER | SaFlags::SA_SIGINFO).bits(),
        restorer: RESTORER,
        mask: SigSet::EMPTY,
    };
    world.poke(tid, DATA, action.as_bytes());
    let signal = signal.raw().unsigned_abs().into();
    assert_eq!(
        world.call(guest, nr::RT_SIGACTION, &[signal, DATA, 0, 8]),
        0
    );
}

#[test]
fn init_exits_with_its_code() {
    let world = World::new();
    assert_eq!(world.call(&world.init, nr::GETPID, &[]), 1);
    assert_eq!(world.call(&world.init, nr::GETPPID, &[]), 0);
    assert_eq!(world.try_call(&world.init, nr::EXIT_GROUP, &[7]), None);
    let status = block_on(world.sandbox.wait("c")).expect("status");
    assert_eq!(status, ExitStatus::Code(7));
    world.until("the stub is gone", || world.init.has_ended());
}

#[test]
fn a_child_is_waited_for() {
    let world = World::new();
    assert_eq!(world.call(&world.init, nr::FORK, &[]), 2);
    let child = world.next_guest();
    assert_eq!(world.call(&child, nr::GETPID, &[]), 2);
    assert_eq!(world.call(&child, nr::GETPPID, &[]), 1);
    let nohang = u64::from(WaitOptions::WNOHANG.bits());
    let any = u64::MAX;
    assert_eq!(world.call(&world.init, nr::WAIT4, &[any, 0, nohang, 0]), 0);
    let waiting = world
        .init
        .queue_syscall(nr::WAIT4.into(), [any, DATA, 0, 0, 0, 0]);
    assert_eq!(world.try_call(&child, nr::EXIT, &[3]), None);
    assert_eq!(block_on(waiting).expect("woken").rax, 2);
    assert_eq!(world.peek(1, DATA) as i32, w_exitcode(3));
    let none = world.call(&world.init, nr::WAIT4, &[any, 0, 0, 0]);
    assert_eq!(none, error(Errno::ECHILD));
}

#[test]
fn orphans_go_to_init() {
    let world = World::new();
    assert_eq!(world.call(&world.init, nr::FORK, &[]), 2);
    let child = world.next_guest();
    assert_eq!(world.call(&child, nr::FORK, &[]), 3);
    let grandchild = world.next_guest();
    assert_eq!(world.try_call(&child, nr::EXIT_GROUP, &[0]), None);
    world.until("a new parent", || {
        world.call(&grandchild, nr::GETPPID, &[]) == 1
    });
}

#[test]
fn a_handler_runs_and_returns() {
    let world = World::new();
    handle(&world, 1, &world.init, Signal::SIGUSR1, SaFlags::empty());
    let signal = Signal::SIGUSR1.raw() as u64;
    let regs = block_on(
        world
            .init
            .queue_syscall(nr::KILL.into(), [1, signal, 0, 0, 0, 0]),
    )
    .expect("into the handler");
    assert_eq!(regs.rip, HANDLER);
    assert_eq!(regs.rdi, signal);
    assert_eq!(regs.rsp % 16, 8);
    assert_eq!(world.peek(1, regs.rsp), RESTORER);
    assert!(world.task(1).blocked().contains(Signal::SIGUSR1));
    let frame = regs.rsp;
    // The handler returns through the restorer, which pops its address.
    let back = world.init.queue_trap(Trap::Syscall, move |regs| {
        regs.rsp = frame + 8;
        regs.orig_rax = nr::RT_SIGRETURN.into();
    });
    let regs = block_on(back).expect("back");
    assert_eq!(regs.rax, 0, "what kill(2) answered");
    assert_ne!(regs.rip, HANDLER);
    assert!(!world.task(1).blocked().contains(Signal::SIGUSR1));
    assert!(size_of::<RtSigFrame>() > 400);
}

#[test]
fn interrupted_calls_restart_or_fail() {
    for (flags, restarts) in [(SaFlags::empty(), false), (SaFlags::SA_RESTART, true)] {
        let world = World::new();
        handle(&world, 1, &world.init, Signal::SIGUSR1, flags);
        assert_eq!(world.call(&world.init, nr::FORK, &[]), 2);
        let waiting = world
            .init
            .queue_syscall(nr::WAIT4.into(), [u64::MAX, 0, 0, 0, 0, 0]);
        world.until("asleep", || world.task(1).run_state() == RunState::Sleeping);
        world
            .sandbox
            .signal("c", Signal::SIGUSR1, false)
            .expect("sent");
        let regs = block_on(waiting).expect("into the handler");
        assert_eq!(regs.rip, HANDLER);
        let uc_rax = regs.rdx
            + std::mem::offset_of!(syscall_tables::abi::UContext, uc_mcontext) as u64
            + std::mem::offset_of!(syscall_tables::abi::SigContext, rax) as u64;
        let saved = world.peek(1, uc_rax).cast_signed();
        if restarts {
            assert_eq!(saved, i64::from(nr::WAIT4));
        } else {
            assert_eq!(saved, error(Errno::EINTR));
        }
    }
}

#[test]
fn a_blocked_signal_waits() {
    let world = World::new();
    handle(&world, 1, &world.init, Signal::SIGUSR2, SaFlags::empty());
    world.poke(1, DATA, SigSet::of(Signal::SIGUSR2).as_bytes());
    assert_eq!(
        world.call(&world.init, nr::RT_SIGPROCMASK, &[0, DATA, 0, 8]),
        0
    );
    let signal = Signal::SIGUSR2.raw() as u64;
    let tgkill = world.call(&world.init, nr::TGKILL, &[1, 1, signal]);
    assert_eq!(tgkill, 0);
    assert_eq!(
        world.call(&world.init, nr::RT_SIGPENDING, &[DATA + 64, 8]),
        0
    );
    assert_eq!(world.peek(1, DATA + 64), SigSet::of(Signal::SIGUSR2).0);
    // sigtimedwait takes it without a handler.
    let taken = world.call(&world.init, nr::RT_SIGTIMEDWAIT, &[DATA, DATA + 128, 0, 8]);
    assert_eq!(taken, i64::from(Signal::SIGUSR2.raw()));
}

#[test]
fn stopping_and_continuing_are_reported() {
    let world = World::new();
    assert_eq!(world.call(&world.init, nr::FORK, &[]), 2);
    let _child = world.next_guest();
    let stop = Signal::SIGSTOP.raw() as u64;
    let options = WaitOptions::WUNTRACED | WaitOptions::WCONTINUED;
    let wait = [u64::MAX, DATA, options.bits().into(), 0];
    assert_eq!(world.call(&world.init, nr::KILL, &[2, stop]), 0);
    assert_eq!(world.call(&world.init, nr::WAIT4, &wait), 2);
    assert_eq!(
        world.peek(1, DATA) as i32,
        w_stopcode(Signal::SIGSTOP.raw())
    );
    assert_eq!(world.task(2).run_state(), RunState::Stopped);
    let cont = Signal::SIGCONT.raw() as u64;
    assert_eq!(world.call(&world.init, nr::KILL, &[2, cont]), 0);
    assert_eq!(world.call(&world.init, nr::WAIT4, &wait), 2);
    assert_eq!(world.peek(1, DATA) as i32, 0xffff);
    let kill = Signal::SIGKILL.raw() as u64;
    assert_eq!(world.call(&world.init, nr::KILL, &[2, stop]), 0);
    assert_eq!(world.call(&world.init, nr::KILL, &[2, kill]), 0);
    loop {
        assert_eq!(world.call(&world.init, nr::WAIT4, &wait), 2);
        let status = world.peek(1, DATA) as i32;
        if status == w_termsig(Signal::SIGKILL.raw(), false) {
            break;
        }
        assert_eq!(status, w_stopcode(Signal::SIGSTOP.raw()));
    }
}

#[test]
fn a_fault_kills_even_init() {
    let world = World::new();
    let fault = Fault {
        signo: Signal::SIGSEGV.raw(),
        code: 1,
        addr: 0,
        trap_no: 14,
        error_code: 4,
    };
    assert_eq!(block_on(world.init.queue_fault(fault)), None);
    let status = block_on(world.sandbox.wait("c")).expect("status");
    let expected = ExitStatus::Signal {
        signal: Signal::SIGSEGV,
        core: false,
    };
    assert_eq!(status, expected);
}

#[test]
fn init_ignores_what_it_has_no_handler_for() {
    let world = World::new();
    let term = Signal::SIGTERM.raw() as u64;
    assert_eq!(world.call(&world.init, nr::KILL, &[1, term]), 0);
    let kill = Signal::SIGKILL.raw() as u64;
    assert_eq!(world.call(&world.init, nr::KILL, &[1, kill]), 0);
    world
        .sandbox
        .signal("c", Signal::SIGTERM, false)
        .expect("sent");
    assert_eq!(world.call(&world.init, nr::GETPID, &[]), 1);
    world
        .sandbox
        .signal("c", Signal::SIGKILL, false)
        .expect("sent");
    let status = block_on(world.sandbox.wait("c")).expect("status");
    assert_eq!(status.wait_status(), Signal::SIGKILL.raw());
}

#[test]
fn a_namespace_dies_with_its_init() {
    let world = World::new();
    assert_eq!(world.call(&world.init, nr::FORK, &[]), 2);
    let child = world.next_guest();
    assert_eq!(world.call(&child, nr::FORK, &[]), 3);
    let grandchild = world.next_guest();
    assert_eq!(world.try_call(&world.init, nr::EXIT_GROUP, &[0]), None);
    block_on(world.sandbox.wait("c")).expect("status");
    assert!(child.has_ended());
    assert!(grandchild.has_ended());
}

#[test]
fn threads_share_the_process_and_end_with_it() {
    let world = World::new();
    // VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | CHILD_CLEARTID
    let flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000 | 0x20_0000;
    world.poke(1, DATA, &77_u64.to_le_bytes());
    let tid = world.call(&world.init, nr::CLONE, &[flags, DATA + 0x8000, 0, DATA, 0]);
    assert_eq!(tid, 2);
    let thread = world.next_guest();
    assert_eq!(world.call(&thread, nr::GETPID, &[]), 1);
    assert_eq!(world.call(&thread, nr::GETTID, &[]), 2);
    assert_eq!(world.try_call(&thread, nr::EXIT, &[9]), None);
    world.until("the cleared word", || world.peek(1, DATA) == 0);
    let tid = world.call(&world.init, nr::CLONE, &[flags, DATA + 0x8000, 0, DATA, 0]);
    let thread = world.next_guest();
    assert_eq!(world.call(&thread, nr::GETTID, &[]), tid);
    assert_eq!(world.try_call(&thread, nr::EXIT_GROUP, &[4]), None);
    let status = block_on(world.sandbox.wait("c")).expect("status");
    assert_eq!(status, ExitStatus::Code(4));
    world.until("all threads are gone", || world.init.has_ended());
}

#[test]
fn a_thread_that_execs_becomes_the_leader() {
    let world = World::new();
    let flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
    let tid = world.call(&world.init, nr::CLONE, &[flags, DATA + 0x8000, 0, 0, 0]);
    assert_eq!(tid, 2);
    let thread = world.next_guest();
    world.poke(1, DATA, b"/program\0");
    let call = thread.queue_syscall(nr::EXECVE.into(), [DATA, 0, 0, 0, 0, 0]);
    let program = world.next_guest();
    assert_eq!(block_on(call), None, "its old thread is gone");
    assert!(world.init.has_ended());
    assert_eq!(world.call(&program, nr::GETTID, &[]), 1);
    assert_eq!(world.task(1).group.thread_count(), 1);
}

#[test]
fn a_vfork_parent_waits() {
    let world = World::new();
    let call = world.init.queue_syscall(nr::VFORK.into(), [0; 6]);
    let child = world.next_guest();
    world.until("the parent sleeps", || {
        world.task(1).run_state() == RunState::Sleeping
    });
    world.poke(1, DATA, b"/program\0");
    let exec = child.queue_syscall(nr::EXECVE.into(), [DATA, 0, 0, 0, 0, 0]);
    assert_eq!(block_on(call).expect("goes on").rax, 2);
    assert_eq!(block_on(exec), None);
    let program = world.next_guest();
    assert_eq!(world.call(&program, nr::GETPID, &[]), 2);
}

#[test]
fn sessions_and_groups() {
    let world = World::new();
    assert_eq!(
        world.call(&world.init, nr::SETSID, &[]),
        error(Errno::EPERM)
    );
    assert_eq!(world.call(&world.init, nr::FORK, &[]), 2);
    let child = world.next_guest();
    assert_eq!(world.call(&child, nr::GETPGRP, &[]), 1);
    assert_eq!(world.call(&world.init, nr::SETPGID, &[2, 0]), 0);
    assert_eq!(world.call(&child, nr::GETPGRP, &[]), 2);
    assert_eq!(world.call(&child, nr::GETSID, &[0]), 1);
    assert_eq!(world.call(&child, nr::SETSID, &[]), error(Errno::EPERM));
    assert_eq!(world.call(&child, nr::FORK, &[]), 3);
    let grandchild = world.next_guest();
    assert_eq!(world.call(&grandchild, nr::SETSID, &[]), 3);
    assert_eq!(world.call(&grandchild, nr::GETSID, &[0]), 3);
    let denied = world.call(&child, nr::SETPGID, &[3, 2]);
    assert_eq!(denied, error(Errno::EPERM));
}

#[test]
fn a_task_is_small() {
    // Every task of the sandbox has this much memory for as long as it lives.
    let world = World::new();
    let task = world.task(1);
    let kernel = task.kernel().clone();
    let space = block_on(kernel.platform.new_space()).expect("space");
    let mut thread = block_on(space.new_thread()).expect("thread");
    let mut ctx = crate::ctx::Ctx {
        kernel: &kernel,
        task: &task,
        thread: &mut thread,
    };
    let size = size_of_val(&super::run::drive(&mut ctx));
    assert!(size <= 3072, "the state of a task's loop has {size} bytes");
}
