//! The stub region of a traced process: one read-only code page and
//! some scratch pages.
//!
//! The code page is a sealed memfd shared by all stub processes. It holds a
//! few routines that end in `int3`, which hands control back to the tracer,
//! and the constant arguments of host calls. Nothing in it can be changed by
//! a guest. The scratch pages receive what the host insists on writing:
//! control data that nobody reads, and signal frames of which the number of
//! the exception is read, which is the guest's own business.
//!
//! Guest code may jump here: its `syscall` instructions are emulated wherever
//! they stand, so it gains nothing.

use std::arch::global_asm;
use std::mem::offset_of;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use syscall_tables::Errno;

use crate::host::errno;
use crate::traits::AtomicOp;

pub(super) const PAGE: u64 = 4096;
/// Start of the stub region, on a 4 GiB border as in systrap.
pub(super) const STUB_BASE: u64 = 0x7fff_0000_0000;
/// What guests may use: from `vm.mmap_min_addr`'s default on.
pub(super) const GUEST_RANGE: Range<u64> = 0x1_0000..STUB_BASE;
/// End of user addresses with four-level page tables (`TASK_SIZE_MAX`).
pub(super) const USER_END: u64 = 0x7fff_ffff_f000;
/// The private pages behind the code.
pub(super) const SCRATCH: u64 = STUB_BASE + PAGE;
/// Room for control data and one signal frame, whatever the vector state.
pub(super) const SCRATCH_LEN: u64 = 8 * PAGE;
pub(super) const STUB_END: u64 = SCRATCH + SCRATCH_LEN;
/// Where a signal frame ends.
pub(super) const FRAME_TOP: u64 = STUB_END - 256;

/// Host calls of a stub; the seccomp filter allows no other.
pub(super) const STUB_CALLS: [libc::c_long; 13] = [
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_clone,
    libc::SYS_recvmsg,
    libc::SYS_close_range,
    libc::SYS_pause,
    libc::SYS_prctl,
    libc::SYS_getrusage,
    libc::SYS_exit,
    libc::SYS_restart_syscall,
];

// The symbols are global because code that names them may be compiled into
// another object than this one.
global_asm!(
    ".pushsection .rodata.ptrace_stub, \"a\", @progbits",
    // Global: with link-time optimisation the references lie in other units.
    ".globl ptrace_stub_start",
    ".hidden ptrace_stub_start",
    ".globl ptrace_stub_call",
    ".hidden ptrace_stub_call",
    ".globl ptrace_stub_clone",
    ".hidden ptrace_stub_clone",
    ".globl ptrace_stub_load",
    ".hidden ptrace_stub_load",
    ".globl ptrace_stub_exchange",
    ".hidden ptrace_stub_exchange",
    ".globl ptrace_stub_compare_exchange",
    ".hidden ptrace_stub_compare_exchange",
    ".globl ptrace_stub_add",
    ".hidden ptrace_stub_add",
    ".globl ptrace_stub_or",
    ".hidden ptrace_stub_or",
    ".globl ptrace_stub_and",
    ".hidden ptrace_stub_and",
    ".globl ptrace_stub_xor",
    ".hidden ptrace_stub_xor",
    ".globl ptrace_stub_handler",
    ".hidden ptrace_stub_handler",
    ".globl ptrace_stub_end",
    ".hidden ptrace_stub_end",
    ".balign 64",
    ".globl ptrace_stub_start",
    ".hidden ptrace_stub_start",
    "ptrace_stub_start:",
    // One host call with arguments in the registers of the call.
    ".globl ptrace_stub_call",
    ".hidden ptrace_stub_call",
    "ptrace_stub_call:",
    "    syscall",
    "    int3",
    // `clone` without a stack: the child waits for its tracer. Should that
    // never come, it dies with the thread that has made the zygote.
    ".balign 16, 0xcc",
    ".globl ptrace_stub_clone",
    ".hidden ptrace_stub_clone",
    "ptrace_stub_clone:",
    "    syscall",
    "    test eax, eax",
    "    jz 2f",
    "    int3",
    "2:  mov eax, 157", // prctl
    "    mov edi, 1",   // PR_SET_PDEATHSIG
    "    mov esi, 9",   // SIGKILL
    "    syscall",
    "3:  mov eax, 34", // pause
    "    syscall",
    "    jmp 3b",
    // Atomic operations on [rdi] with operand esi; previous value in eax.
    ".balign 16, 0xcc",
    ".globl ptrace_stub_load",
    ".hidden ptrace_stub_load",
    "ptrace_stub_load:",
    "    mov eax, [rdi]",
    "    int3",
    ".balign 16, 0xcc",
    ".globl ptrace_stub_exchange",
    ".hidden ptrace_stub_exchange",
    "ptrace_stub_exchange:",
    "    mov eax, esi",
    "    xchg [rdi], eax",
    "    int3",
    ".balign 16, 0xcc",
    ".globl ptrace_stub_compare_exchange",
    ".hidden ptrace_stub_compare_exchange",
    "ptrace_stub_compare_exchange:", // expected in edx
    "    mov eax, edx",
    "    lock cmpxchg [rdi], esi",
    "    int3",
    ".balign 16, 0xcc",
    ".globl ptrace_stub_add",
    ".hidden ptrace_stub_add",
    "ptrace_stub_add:",
    "    mov eax, esi",
    "    lock xadd [rdi], eax",
    "    int3",
    ".balign 16, 0xcc",
    ".globl ptrace_stub_or",
    ".hidden ptrace_stub_or",
    "ptrace_stub_or:",
    "    mov eax, [rdi]",
    "2:  mov edx, eax",
    "    or edx, esi",
    "    lock cmpxchg [rdi], edx",
    "    jnz 2b",
    "    int3",
    ".balign 16, 0xcc",
    ".globl ptrace_stub_and",
    ".hidden ptrace_stub_and",
    "ptrace_stub_and:",
    "    mov eax, [rdi]",
    "2:  mov edx, eax",
    "    and edx, esi",
    "    lock cmpxchg [rdi], edx",
    "    jnz 2b",
    "    int3",
    ".balign 16, 0xcc",
    ".globl ptrace_stub_xor",
    ".hidden ptrace_stub_xor",
    "ptrace_stub_xor:",
    "    mov eax, [rdi]",
    "2:  mov edx, eax",
    "    xor edx, esi",
    "    lock cmpxchg [rdi], edx",
    "    jnz 2b",
    "    int3",
    // Handler of exceptions: the tracer looks at the frame.
    ".balign 16, 0xcc",
    ".globl ptrace_stub_handler",
    ".hidden ptrace_stub_handler",
    "ptrace_stub_handler:",
    "    int3",
    ".globl ptrace_stub_end",
    ".hidden ptrace_stub_end",
    "ptrace_stub_end:",
    ".popsection",
);

unsafe extern "C" {
    static ptrace_stub_start: u8;
    static ptrace_stub_call: u8;
    static ptrace_stub_clone: u8;
    static ptrace_stub_load: u8;
    static ptrace_stub_exchange: u8;
    static ptrace_stub_compare_exchange: u8;
    static ptrace_stub_add: u8;
    static ptrace_stub_or: u8;
    static ptrace_stub_and: u8;
    static ptrace_stub_xor: u8;
    static ptrace_stub_handler: u8;
    static ptrace_stub_end: u8;
}

/// A routine of the code page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Routine {
    Call,
    Clone,
    Atomic(AtomicOp),
}

impl Routine {
    /// Its address in every stub process.
    pub(super) fn address(self) -> u64 {
        let symbol = match self {
            Self::Call => &raw const ptrace_stub_call,
            Self::Clone => &raw const ptrace_stub_clone,
            Self::Atomic(AtomicOp::Load) => &raw const ptrace_stub_load,
            Self::Atomic(AtomicOp::Exchange(_)) => &raw const ptrace_stub_exchange,
            Self::Atomic(AtomicOp::CompareExchange { .. }) => {
                &raw const ptrace_stub_compare_exchange
            }
            Self::Atomic(AtomicOp::Add(_)) => &raw const ptrace_stub_add,
            Self::Atomic(AtomicOp::Or(_)) => &raw const ptrace_stub_or,
            Self::Atomic(AtomicOp::And(_)) => &raw const ptrace_stub_and,
            Self::Atomic(AtomicOp::Xor(_)) => &raw const ptrace_stub_xor,
        };
        let start = &raw const ptrace_stub_start;
        STUB_BASE + (symbol.addr() - start.addr()) as u64
    }
}

/// Address of the handler of exceptions.
pub(super) fn handler_address() -> u64 {
    let start = &raw const ptrace_stub_start;
    STUB_BASE + ((&raw const ptrace_stub_handler).addr() - start.addr()) as u64
}

/// Where the constants start; the code is shorter.
const DATA_OFFSET: u64 = 1024;

/// Constant arguments of host calls.
#[repr(C)]
struct Data {
    /// `struct msghdr` for `recvmsg` of one descriptor.
    message: [u64; 7],
    /// Its `struct iovec`: one byte of the scratch page.
    iovec: [u64; 2],
    /// `stack_t` that disables the alternate signal stack.
    no_signal_stack: [u64; 3],
    /// The host's `struct sigaction` of the handler.
    action: [u64; 4],
    /// `struct rlimit64` of zero.
    no_limit: [u64; 2],
    root: [u8; 8],
    name: [u8; 16],
    /// `struct sock_fprog`.
    filter: [u64; 2],
    instructions: [u64; FILTER_LEN],
}

const fn data_address(offset: usize) -> u64 {
    STUB_BASE + DATA_OFFSET + offset as u64
}

pub(super) const MESSAGE: u64 = data_address(offset_of!(Data, message));
pub(super) const NO_SIGNAL_STACK: u64 = data_address(offset_of!(Data, no_signal_stack));
pub(super) const ACTION: u64 = data_address(offset_of!(Data, action));
pub(super) const NO_LIMIT: u64 = data_address(offset_of!(Data, no_limit));
pub(super) const ROOT: u64 = data_address(offset_of!(Data, root));
pub(super) const NAME: u64 = data_address(offset_of!(Data, name));
pub(super) const FILTER: u64 = data_address(offset_of!(Data, filter));

/// Without a restorer the host refuses to make a frame.
const SA_RESTORER: libc::c_int = 0x0400_0000;

const FILTER_LEN: usize = 10 + STUB_CALLS.len();

/// A second wall behind SYSEMU: whatever is called from elsewhere than the
/// code page (also through the vsyscall page, which ptrace doesn't see), by
/// another entry, or by another number, traps.
fn filter() -> [u64; FILTER_LEN] {
    use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const OFFSET_NR: u32 = 0;
    const OFFSET_ARCH: u32 = 4;
    const OFFSET_IP_LOW: u32 = 8;
    const OFFSET_IP_HIGH: u32 = 12;
    // `struct sock_filter`: u16 code, u8 jump if true, u8 jump if false, u32 k.
    let instruction = |code: u32, on_true: usize, on_false: usize, k: u32| {
        u64::from(code as u16)
            | (on_true as u64 & 0xff) << 16
            | (on_false as u64 & 0xff) << 24
            | u64::from(k) << 32
    };
    let load = |offset| instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset);
    let jump_unless = |k, target| instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, target, k);
    let trap = FILTER_LEN - 2;
    let mut program = vec![
        load(OFFSET_ARCH),
        jump_unless(AUDIT_ARCH_X86_64, trap - 2),
        load(OFFSET_IP_HIGH),
        jump_unless((STUB_BASE >> 32) as u32, trap - 4),
        load(OFFSET_IP_LOW),
        instruction(BPF_ALU | BPF_AND | BPF_K, 0, 0, !(PAGE as u32 - 1)),
        jump_unless(STUB_BASE as u32, trap - 7),
    ];
    program.push(load(OFFSET_NR));
    // Jumps over the remaining comparisons and the trap.
    for (index, number) in STUB_CALLS.iter().enumerate() {
        let number = u32::try_from(*number).unwrap_or(u32::MAX);
        let to_allow = STUB_CALLS.len() - index;
        program.push(instruction(BPF_JMP | BPF_JEQ | BPF_K, to_allow, 0, number));
    }
    program.push(instruction(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_TRAP));
    program.push(instruction(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let mut array = [0; FILTER_LEN];
    for (slot, value) in array.iter_mut().zip(program) {
        *slot = value;
    }
    array
}

/// The sealed memfd with the code page.
pub(super) fn code_page() -> Result<OwnedFd, Errno> {
    let start = &raw const ptrace_stub_start;
    let len = (&raw const ptrace_stub_end).addr() - start.addr();
    // SAFETY: the two symbols enclose initialised read-only data, above.
    let code = unsafe { std::slice::from_raw_parts(start, len) };
    let mut name = [0; 16];
    name[..4].copy_from_slice(b"stub");
    let mut root = [0; 8];
    root[0] = b'/';
    let iovec = data_address(offset_of!(Data, iovec));
    let control_len = 24; // CMSG_SPACE(sizeof(int))
    let data = Data {
        message: [0, 0, iovec, 1, SCRATCH, control_len, 0],
        iovec: [SCRATCH + 64, 1],
        no_signal_stack: [0, libc::SS_DISABLE as u64, 0],
        action: [
            handler_address(),
            (libc::SA_SIGINFO | libc::SA_NODEFER | SA_RESTORER) as u64,
            handler_address(),
            0,
        ],
        no_limit: [0, 0],
        root,
        name,
        filter: [
            FILTER_LEN as u64,
            data_address(offset_of!(Data, instructions)),
        ],
        instructions: filter(),
    };
    // SAFETY: `Data` is made of u64 and u8 arrays whose sizes are multiples
    // of 8, so it has no padding.
    let data = unsafe {
        std::slice::from_raw_parts((&raw const data).cast::<u8>(), std::mem::size_of::<Data>())
    };
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = std::fs::File::from(memfd_create(c"stub", flags).map_err(errno)?);
    let io_errno = |err: std::io::Error| Errno::from_raw(err.raw_os_error().unwrap_or(0));
    file.set_len(PAGE).map_err(io_errno)?;
    file.write_all_at(code, 0).map_err(io_errno)?;
    file.write_all_at(data, DATA_OFFSET).map_err(io_errno)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(errno)?;
    Ok(file.into())
}

const _: () = assert!(std::mem::size_of::<Data>() as u64 + DATA_OFFSET <= PAGE);
