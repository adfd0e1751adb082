//! The memory layout that the sentry and its stubs agree on.
//!
//! Compiled into both: into the stub binary, whose assembly uses the constants
//! as immediates, and into the sentry.
//!
//! The *stub region* is the top 4 GiB of the 47-bit address space, so that
//! "below the stub region" is a test of the upper 32 bits (see `filter.rs`).
//! The host's vDSO lies in it too and stays where the host has put it.
//!
//! | region | in the stub | shared with |
//! |---|---|---|
//! | text | r-x, private mapping of a sealed memfd | all stubs |
//! | global | r--, sealed memfd | all stubs |
//! | command | r--, sealed memfd, one per stub | – |
//! | contexts | rw-, memfd of fixed size, one per stub | – |
//! | views | r--, files that the guest reads | – |

/// Start of the stub region; guest addresses lie below.
pub const STUB_BASE: u64 = 0x7fff_0000_0000;
/// First byte that user mode can't address (4-level page tables).
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Stub text: ELF header and boot code, then the two pages below.
pub const TEXT: u64 = STUB_BASE + 0x1_0000;
pub const TEXT_LEN: u64 = 0x6000;
/// Host call sites of the control thread.
pub const CONTROL_TEXT: u64 = TEXT + 0x4000;
/// Handlers and host call sites of app threads.
pub const APP_TEXT: u64 = TEXT + 0x5000;
/// Where trampolines go, and how long nothing but `rcx` and `r11` has changed.
pub const CALL_ENTRY: u64 = APP_TEXT;
pub const CALL_ENTRY_LEN: u64 = 0x20;
pub const SITES_LEN: u64 = 0x1000;

/// Read-only data that is the same for all stubs.
pub const GLOBAL: u64 = STUB_BASE + 0x10_0000;
pub const GLOBAL_LEN: u64 = 0x8000;
/// Not 0 while some sentry worker polls contexts (u32).
pub const G_POLLING: u64 = 0x0;
/// How long app threads spin at most and at least, how long a wait may be for
/// spinning to be worth it, and how long control threads spin; in TSC ticks
/// (u64).
pub const G_APP_SPIN_MAX: u64 = 0x40;
pub const G_APP_SPIN_MIN: u64 = 0x48;
pub const G_APP_SPIN_WORTH: u64 = 0x50;
pub const G_CONTROL_SPIN: u64 = 0x58;
/// A gap this long in spinning means that the CPU is wanted by others, and for
/// how long nobody spins then; in TSC ticks (u64).
pub const G_SPIN_GAP: u64 = 0x70;
pub const G_SPIN_PAUSE: u64 = 0x78;
/// Vector state components that are restored (u64, as `XCR0`).
pub const G_XFEATURES: u64 = 0x60;
/// An empty signal mask (u64).
pub const G_EMPTY_MASK: u64 = 0x68;
/// Addresses of host vDSO functions (u64 each), in the order of `vdso.rs`.
pub const G_VDSO_TABLE: u64 = 0xc0;
/// Paths below `/proc`, NUL-terminated, that a control thread may open.
pub const G_STATUS_PATH: u64 = 0x140;
pub const G_FILE_PATH: u64 = 0x150;
/// `struct msghdr`, one for each of them, with which it sends what it has
/// opened; their `struct iovec`; their control data (24 bytes each).
pub const G_SEND_STATUS: u64 = 0x180;
pub const G_SEND_FILE: u64 = 0x1c0;
pub const G_SEND_IOVEC: u64 = 0x200;
pub const G_STATUS_CONTROL: u64 = 0x220;
pub const G_FILE_CONTROL: u64 = 0x240;
/// `struct sock_fprog` of the seccomp filter.
pub const G_CONTROL_FPROG: u64 = 0x100;
/// Its program.
pub const G_CONTROL_FILTER: u64 = 0x1000;
/// What calls read and write, by number, 0 for those that are not concerned
/// (u64 each). From the lowest bits on, first for what is read and then for
/// what is written: which argument points to it, from 1 (8 bits); which
/// argument counts it, 0 for none (8 bits); the size of one, 0 for a string
/// (16 bits).
pub const G_HINTS: u64 = 0x7000;
pub const HINTS: u64 = 512;

/// Orders for the control thread.
pub const COMMAND: u64 = STUB_BASE + 0x20_0000;
pub const COMMAND_LEN: u64 = 0x4000;
/// Number of the latest batch (u32, futex).
pub const K_SEQ: u64 = 0x0;
/// Operations in it (u32).
pub const K_COUNT: u64 = 0x4;
/// Not 0: do not spin after this batch (u32).
pub const K_REST: u64 = 0x8;
/// `stack_t` of the thread being created.
pub const K_SIGNAL_STACK: u64 = 0x40;
/// `struct msghdr` and `struct iovec` for receiving descriptors.
pub const K_MSGHDR: u64 = 0x80;
pub const K_IOVEC: u64 = 0xc0;
/// Operations: number, six arguments, flags (u64 each).
pub const K_OPS: u64 = 0x400;
pub const K_OP_LEN: u64 = 64;
pub const MAX_OPS: u64 = (COMMAND_LEN - K_OPS) / K_OP_LEN;
/// Flag of an operation: an error does not end the batch.
pub const OP_IGNORE_ERROR: u64 = 1;
/// Flag of an operation that clones a thread: the new one goes on with the
/// batch, and the one that has cloned it becomes the app thread.
pub const OP_CHANGE_PLACES: u64 = 2;

/// Contexts: slot 0 belongs to the control thread, the others to app threads.
pub const CONTEXTS: u64 = STUB_BASE + 0x1000_0000;
pub const SLOT_LEN: u64 = 0x2_0000;
pub const SLOTS: u64 = 16384;
pub const CONTEXTS_LEN: u64 = SLOT_LEN * SLOTS;
/// Zeros: behind what is mapped, where nobody can write.
pub const ZEROS: u64 = CONTEXTS_LEN;
pub const ZEROS_LEN: u64 = 0x1000;

/// Views: pages of files (see `views.rs`).
pub const VIEW_REGION: u64 = STUB_BASE + 0xa000_0000;
pub const VIEW_LEN: u64 = 0x20_0000;
pub const VIEWS: usize = 64;
pub const VIEW_REGION_LEN: u64 = VIEW_LEN * VIEWS as u64;

/// Slot 0: number of the latest finished batch (u32).
pub const R_DONE: u64 = 0x0;
/// Rung (incremented, woken) by all threads of the stub (u32, futex).
pub const R_BELL: u64 = 0x40;
/// Not 0 while the control thread sleeps (u32).
pub const R_SLEEPING: u64 = 0x80;
/// Operations carried out of the latest batch (u32).
pub const R_EXECUTED: u64 = 0xc0;
/// Until when the threads of the stub don't spin (u64, TSC).
pub const R_NO_SPIN: u64 = 0xd0;
/// Where received messages and their control data go.
pub const R_MESSAGE: u64 = 0x100;
pub const R_MESSAGE_CONTROL: u64 = 0x140;
pub const R_MESSAGE_CONTROL_LEN: u64 = 0xc0;
/// Results of operations (i64 each).
pub const R_RESULTS: u64 = 0x400;
/// Bytes on their way from or to guest memory.
pub const R_TRANSFER: u64 = 0x1_0000;
pub const TRANSFER_LEN: u64 = 0x1_0000;

/// Slots from 1. All that a small copy takes is in the first cache line: the
/// hand-over word (u32, futex, see `OP_*`), whether the latest command faulted
/// (u32, `STATUS_*`; with a call `HINT_*`), its arguments (7 u64), the first of
/// which its result replaces, and in the place of the last four up to 32 bytes
/// of data. What goes with a result leaves room for 24.
pub const C_STATE: u64 = 0x0;
pub const C_STATUS: u64 = 0x4;
pub const C_ARGS: u64 = 0x8;
pub const C_RESULT: u64 = 0x8;
pub const C_INLINE_WINDOW: u64 = 0x20;
pub const INLINE_WINDOW_LEN: u64 = 0x20;
pub const C_RETURN_WINDOW: u64 = 0x28;
pub const RETURN_WINDOW_LEN: u64 = 0x18;
/// Short things that come with a call or go with its result.
pub const C_HINT: u64 = 0x40;
pub const HINT_LEN: u64 = 0xc0;
/// Not 0: do not run guest code (u32).
pub const C_INTERRUPT: u64 = 0x100;
/// Not 0: the stub may answer calls itself that change nothing (u32).
pub const C_LOCAL_CALLS: u64 = 0x104;
/// How long the thread spins next time, in TSC ticks (u64). Its own.
pub const C_SPIN: u64 = 0x140;
/// General registers in the order of `struct sigcontext`, then its pointer to
/// the vector state.
pub const C_REGS: u64 = 0x180;
pub const C_REGS_WORDS: u64 = 24;
pub const C_XSAVE: u64 = C_REGS + 23 * 8;
pub const C_FS_BASE: u64 = 0x240;
pub const C_GS_BASE: u64 = 0x248;
/// The handler's stack pointer.
pub const C_FRAME_SP: u64 = 0x250;
/// What tells a context from other memory that `%gs` may point to: a constant,
/// and its own address in the stub.
pub const C_COOKIE: u64 = 0x258;
pub const COOKIE: u64 = 0x5afe_c0de;
pub const C_SELF: u64 = 0x260;
/// Where a thread that has come by a trampoline goes on.
pub const C_CONTINUE: u64 = 0x268;
/// Why the thread has stopped: signal number, `si_code`, `si_arch` (u32 each),
/// `si_addr` (u64).
pub const C_SIGNO: u64 = 0x270;
pub const C_CODE: u64 = 0x274;
pub const C_ARCH: u64 = 0x278;
pub const C_ADDR: u64 = 0x280;
/// What lies between the registers of such a thread and its signal stack's top.
pub const C_STACK_SPARE: u64 = 0x400;
/// Window for small copies, in the page of the registers.
pub const C_SMALL_WINDOW: u64 = 0x400;
pub const SMALL_WINDOW_LEN: u64 = 0xc00;
/// Vector state put there by the sentry.
pub const C_XSAVE_AREA: u64 = 0x1000;
pub const XSAVE_AREA_LEN: u64 = 0x4000;
/// Signal stack: three nested frames, each at most 12 KiB.
pub const C_STACK: u64 = 0x6000;
pub const C_STACK_LEN: u64 = 0xa000;
/// Window for large copies.
pub const C_WINDOW: u64 = 0x1_0000;
pub const WINDOW_LEN: u64 = 0x1_0000;

/// Word offsets within `C_REGS`.
pub const REG_R8: u64 = 0;
pub const REG_R9: u64 = 1;
pub const REG_R10: u64 = 2;
pub const REG_R11: u64 = 3;
pub const REG_R12: u64 = 4;
pub const REG_R13: u64 = 5;
pub const REG_R14: u64 = 6;
pub const REG_R15: u64 = 7;
pub const REG_RDI: u64 = 8;
pub const REG_RSI: u64 = 9;
pub const REG_RBP: u64 = 10;
pub const REG_RBX: u64 = 11;
pub const REG_RDX: u64 = 12;
pub const REG_RAX: u64 = 13;
pub const REG_RCX: u64 = 14;
pub const REG_RSP: u64 = 15;
pub const REG_RIP: u64 = 16;
pub const REG_EFLAGS: u64 = 17;
pub const REG_ERR: u64 = 19;
pub const REG_TRAPNO: u64 = 20;
pub const REG_CR2: u64 = 22;

/// The hand-over word is `operation | generation << 16`. The stub writes
/// `OP_WAIT`, or `OP_CALL` for a call that came by a trampoline, with the
/// generation of the sentry's last word, and adds `STATE_SLEEP` before it
/// sleeps.
pub const OP_WAIT: u32 = 1;
pub const OP_START: u32 = 2;
pub const OP_RUN: u32 = 3;
pub const OP_COPY: u32 = 4;
pub const OP_COPY_STR: u32 = 5;
pub const OP_ATOMIC: u32 = 6;
pub const OP_SYSCALL: u32 = 7;
pub const OP_EXIT: u32 = 8;
pub const OP_CALL: u32 = 9;
/// Answers a call: all but the result is as the thread has left it.
pub const OP_RETURN: u32 = 10;
/// Saves vector state and segment bases of a thread that came by a trampoline.
pub const OP_SAVE: u32 = 11;
/// As `OP_RETURN` and `OP_RUN` after a copy to guest memory: from, to, length
/// in the second argument and those behind it.
pub const OP_RETURN_COPY: u32 = 12;
pub const OP_RUN_COPY: u32 = 13;
/// The stub waits, as by `OP_WAIT`: that copy has faulted, and the length says
/// how much of it is left.
pub const OP_FAULT: u32 = 14;
pub const STATE_SLEEP: u32 = 0x100;
pub const STATE_GENERATION: u32 = 0xffff_0000;

pub const STATUS_DONE: u32 = 0;
pub const STATUS_FAULT: u32 = 1;
pub const STATUS_FOUND_NUL: u32 = 2;

/// What comes with a call: how many bytes of what it reads (the lower half),
/// and whether what it writes, or its first `HINT_MAX` bytes, was writable. The
/// bytes lie in `C_HINT` if they fit or are a string, else in the small or the
/// large window.
pub const HINT_COUNT: u32 = 0xffff;
pub const HINT_WRITABLE: u32 = 0x1_0000;
pub const HINT_MAX: u64 = 0x1000;

/// `OP_ATOMIC`: address, one of these, operand, new value.
pub const ATOMIC_LOAD: u64 = 0;
pub const ATOMIC_EXCHANGE: u64 = 1;
pub const ATOMIC_COMPARE_EXCHANGE: u64 = 2;
pub const ATOMIC_ADD: u64 = 3;
pub const ATOMIC_OR: u64 = 4;
pub const ATOMIC_AND: u64 = 5;
pub const ATOMIC_XOR: u64 = 6;

/// The signal that stops a thread in guest code (`SIGURG`: ignored by default).
pub const INTERRUPT_SIGNAL: u32 = 23;

/// Descriptors of a stub: its socket to the sentry, its context memfd, and
/// those that are on their way.
pub const FD_SOCKET: u64 = 0;
pub const FD_CONTEXTS: u64 = 1;
pub const FD_RECEIVED: u64 = 2;
/// At boot: socket, contexts, commands, then the global page.
pub const FD_BOOT_GLOBAL: u64 = 5;
pub const FD_BOOT_IMAGE: u64 = 6;

/// The two flag words with which a control thread clones.
pub const CLONE_THREAD_FLAGS: u64 = 0x5_0f00; // VM|FS|FILES|SIGHAND|THREAD|SYSVSEM
pub const CLONE_FORK_FLAGS: u64 = 0x8011; // PARENT, SIGCHLD
pub const CLONE_VM: u64 = 0x100;
/// `MSG_DONTWAIT | MSG_CMSG_CLOEXEC`.
pub const RECVMSG_FLAGS: u64 = 0x4000_0040;
/// `MSG_DONTWAIT | MSG_NOSIGNAL`.
pub const SENDMSG_FLAGS: u64 = 0x4040;
/// `O_RDONLY | O_CLOEXEC`.
pub const OPEN_FLAGS: u64 = 0x8_0000;
