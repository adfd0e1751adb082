//! Guest code and a single-threaded driver for the platform tests.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::future::poll_fn;
use std::sync::Arc;

use sentry_platform::executor::block_on;
use sentry_platform::systrap::{Options, Systrap};
use sentry_platform::{
    AddressSpace, AtomicOp, CopyFault, GuestThread, MemOp, Platform, Protection, Trap,
};

/// Where tests map code, data and stack.
pub const CODE: u64 = 0x40_0000;
pub const DATA: u64 = 0x80_0000;
pub const DATA_LEN: u64 = 0x10_0000;
pub const STACK_TOP: u64 = DATA + DATA_LEN;

pub const RW: Protection = Protection::READ.union(Protection::WRITE);
pub const RX: Protection = Protection::READ.union(Protection::EXEC);
pub const RWX: Protection = Protection::all();

/// Declares a blob of position-independent guest code.
#[macro_export]
macro_rules! guest_code {
    ($name:ident, $($line:literal),+ $(,)?) => {
        std::arch::global_asm!(
            concat!(".pushsection .rodata\n.global ", stringify!($name), "_start\n",
                    stringify!($name), "_start:"),
            $($line,)+
            concat!(".global ", stringify!($name), "_end\n",
                    stringify!($name), "_end:\n.popsection"),
        );
        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!(stringify!($name), "_start")]
                static START: u8;
                #[link_name = concat!(stringify!($name), "_end")]
                static END: u8;
            }
            // SAFETY: both symbols delimit the bytes emitted above.
            unsafe {
                let start = &raw const START;
                let len = (&raw const END).offset_from_unsigned(start);
                std::slice::from_raw_parts(start, len)
            }
        }
    };
}

pub fn platform() -> Arc<Systrap> {
    Systrap::new(Options {
        proc: std::fs::File::open("/proc").map(Into::into).ok(),
        ..Options::default()
    })
    .expect("a host that can run systrap")
}

/// A space with `code` mapped, and a thread at its start.
pub fn load(platform: &Systrap, code: &[u8]) -> (Arc<dyn AddressSpace>, Box<dyn GuestThread>) {
    let space = block_on(platform.new_space()).expect("a space");
    let end = CODE + (code.len() as u64).next_multiple_of(4096);
    block_on(space.apply(&[
        MemOp::MapAnonymous {
            range: CODE..end,
            protection: RWX,
        },
        MemOp::MapAnonymous {
            range: DATA..DATA + DATA_LEN,
            protection: RW,
        },
    ]))
    .expect("memory");
    block_on(space.write(CODE, code)).expect("code written");
    let mut thread = block_on(space.new_thread()).expect("a thread");
    thread.regs_mut().rip = CODE;
    thread.regs_mut().rsp = STACK_TOP;
    (space, thread)
}

pub fn run(thread: &mut dyn GuestThread) -> Trap {
    block_on(poll_fn(|cx| thread.poll_run(cx)))
}

pub fn copy_in(thread: &mut dyn GuestThread, addr: u64, dst: &mut [u8]) -> Result<(), CopyFault> {
    block_on(poll_fn(|cx| thread.poll_copy_in(cx, addr, dst)))
}

pub fn copy_out(thread: &mut dyn GuestThread, addr: u64, src: &[u8]) -> Result<(), CopyFault> {
    block_on(poll_fn(|cx| thread.poll_copy_out(cx, addr, src)))
}

pub fn copy_in_str(
    thread: &mut dyn GuestThread,
    addr: u64,
    dst: &mut [u8],
) -> Result<usize, CopyFault> {
    block_on(poll_fn(|cx| thread.poll_copy_in_str(cx, addr, dst)))
}

pub fn atomic(thread: &mut dyn GuestThread, addr: u64, op: AtomicOp) -> Result<u32, CopyFault> {
    block_on(poll_fn(|cx| thread.poll_atomic(cx, addr, op)))
}

pub fn vector_state(platform: &Systrap, thread: &mut dyn GuestThread) -> Vec<u8> {
    let mut area = vec![0; platform.vector_state_len_bytes()];
    block_on(poll_fn(|cx| thread.poll_get_vector_state(cx, &mut area))).expect("vector state");
    area
}

pub fn set_vector_state(thread: &mut dyn GuestThread, area: &[u8]) {
    block_on(poll_fn(|cx| thread.poll_set_vector_state(cx, area))).expect("vector state set");
}
