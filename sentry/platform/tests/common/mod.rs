//! Raw guest programs for tests of platforms.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::future::poll_fn;
use std::sync::Arc;

use sentry_platform::executor::block_on;
use sentry_platform::{
    AddressSpace, AtomicOp, CopyFault, GuestThread, MemOp, Platform, Protection, Trap,
};
use syscall_tables::Errno;

pub const CODE: u64 = 0x40_0000;
pub const DATA: u64 = 0x60_0000;
pub const STACK_TOP: u64 = 0x80_0000;
pub const RW: Protection = Protection::READ.union(Protection::WRITE);
pub const RWX: Protection = RW.union(Protection::EXEC);

/// Assembles guest code: `code!(name, "instruction", …)` is a function that
/// returns the bytes.
#[macro_export]
macro_rules! code {
    ($name:ident, $($line:literal),+ $(,)?) => {
        std::arch::global_asm!(
            ".pushsection .rodata",
            concat!(".globl guest_", stringify!($name), ", guest_", stringify!($name), "_end"),
            concat!("guest_", stringify!($name), ":"),
            $($line),+,
            concat!("guest_", stringify!($name), "_end:"),
            ".popsection",
        );
        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("guest_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("guest_", stringify!($name), "_end")]
                static END: u8;
            }
            let start = &raw const START;
            let len = (&raw const END).addr() - start.addr();
            // SAFETY: the symbols enclose read-only data, above.
            unsafe { std::slice::from_raw_parts(start, len) }
        }
    };
}

pub fn anonymous(range: std::ops::Range<u64>, protection: Protection) -> MemOp<'static> {
    MemOp::MapAnonymous { range, protection }
}

/// A space with `code` at `CODE`, two pages of data and a stack.
pub fn load(platform: &dyn Platform, code: &[u8]) -> Arc<dyn AddressSpace> {
    let space = block_on(platform.new_space()).expect("new space");
    let ops = [
        anonymous(CODE..CODE + 0x1_0000, RWX),
        anonymous(DATA..DATA + 0x2000, RW),
        anonymous(STACK_TOP - 0x1_0000..STACK_TOP, RW),
    ];
    block_on(space.apply(&ops)).expect("map");
    block_on(space.write(CODE, code)).expect("write code");
    space
}

/// A thread of `space` about to run at `CODE`.
pub fn thread(space: &Arc<dyn AddressSpace>) -> Box<dyn GuestThread> {
    let mut thread = block_on(space.new_thread()).expect("new thread");
    thread.regs_mut().rip = CODE;
    thread.regs_mut().rsp = STACK_TOP - 64;
    thread
}

pub fn start(platform: &dyn Platform, code: &[u8]) -> Box<dyn GuestThread> {
    thread(&load(platform, code))
}

pub fn run(thread: &mut Box<dyn GuestThread>) -> Trap {
    block_on(poll_fn(|cx| thread.poll_run(cx)))
}

pub fn copy_in(
    thread: &mut Box<dyn GuestThread>,
    addr: u64,
    dst: &mut [u8],
) -> Result<(), CopyFault> {
    block_on(poll_fn(|cx| thread.poll_copy_in(cx, addr, dst)))
}

pub fn copy_out(thread: &mut Box<dyn GuestThread>, addr: u64, src: &[u8]) -> Result<(), CopyFault> {
    block_on(poll_fn(|cx| thread.poll_copy_out(cx, addr, src)))
}

pub fn copy_in_str(
    thread: &mut Box<dyn GuestThread>,
    addr: u64,
    dst: &mut [u8],
) -> Result<usize, CopyFault> {
    block_on(poll_fn(|cx| thread.poll_copy_in_str(cx, addr, dst)))
}

pub fn atomic(
    thread: &mut Box<dyn GuestThread>,
    addr: u64,
    op: AtomicOp,
) -> Result<u32, CopyFault> {
    block_on(poll_fn(|cx| thread.poll_atomic(cx, addr, op)))
}

pub fn get_vectors(thread: &mut Box<dyn GuestThread>, dst: &mut [u8]) -> Result<(), Errno> {
    block_on(poll_fn(|cx| thread.poll_get_vector_state(cx, dst)))
}

pub fn set_vectors(thread: &mut Box<dyn GuestThread>, src: &[u8]) -> Result<(), Errno> {
    block_on(poll_fn(|cx| thread.poll_set_vector_state(cx, src)))
}

/// The host processes that are children of this one, by pid.
pub fn children() -> Vec<u32> {
    let mut children = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")
        .expect("own tasks")
        .flatten()
    {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(
            list.split_whitespace()
                .map(|pid| pid.parse::<u32>().expect("a pid")),
        );
    }
    children
}
