//! The seccomp filter of all stubs, as classic BPF.
//!
//! It is installed in the zygote and inherited by all. It traps everything it
//! does not allow, whatever the architecture, and allows a call only from stub
//! text: the control thread's calls from [`l::CONTROL_TEXT`], those of app
//! threads from [`l::APP_TEXT`].
//!
//! An app thread, before it runs guest code, has the host deny it all calls
//! from elsewhere than [`l::APP_TEXT`] (syscall user dispatch without a
//! selector, `prctl(2)`; no call that could undo it is allowed from there). So
//! it can't use the control thread's calls by a jump into their text. A filter
//! of its own would do the same, but each thread would spend 35 to 75 µs on
//! its installation, where this takes less than one.
//!
//! Every argument is checked to its full 64 bits. Address ranges are sums of
//! 64-bit numbers that must not exceed [`l::STUB_BASE`], of which the lower 32
//! bits are 0.
//!
//! The host exempts `uretprobe` (335, from Linux 6.11) and `uprobe` (336, from
//! 6.18) from every filter. Outside a trampoline that the host's own tracing
//! has put there they do nothing: `SIGILL`, `ENXIO`.

use super::layout as l;

const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ST: u16 = 0x02;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const MISC: u16 = 0x07;
const W_ABS: u16 = 0x20;
const MEM: u16 = 0x60;
const X: u16 = 0x08;
const JA: u16 = 0x00;
const JEQ: u16 = 0x10;
const JGT: u16 = 0x20;
const JGE: u16 = 0x30;
const JSET: u16 = 0x40;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_TRAP: u32 = 0x0003_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const PR_SET_SYSCALL_USER_DISPATCH: u64 = 59;
const PR_SYS_DISPATCH_ON: u64 = 1;

/// One instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug)]
struct Op {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

const fn op(code: u16, k: u32) -> Op {
    Op {
        code,
        jump_true: 0,
        jump_false: 0,
        k,
    }
}

const fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

const fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP: u32 = 8;
const fn arg_low(index: u32) -> u32 {
    16 + 8 * index
}
const fn arg_high(index: u32) -> u32 {
    20 + 8 * index
}

/// A straight run of checks: each falls through if it holds and traps if not.
#[derive(Clone, Default)]
struct Rule(Vec<Op>);

impl Rule {
    fn load(&mut self, offset: u32) {
        self.0.push(op(LD | W_ABS, offset));
    }

    /// Goes on if the comparison has the wanted outcome, else traps.
    fn require(&mut self, comparison: u16, k: u32, outcome: bool) {
        self.0.push(Op {
            code: JMP | comparison,
            jump_true: u8::from(outcome),
            jump_false: u8::from(!outcome),
            k,
        });
        self.0.push(op(RET, RET_TRAP));
    }

    fn word(mut self, offset: u32, value: u32) -> Self {
        self.load(offset);
        self.require(JEQ, value, true);
        self
    }

    /// The argument is exactly `value`.
    fn arg(self, index: u32, value: u64) -> Self {
        self.word(arg_low(index), low(value))
            .word(arg_high(index), high(value))
    }

    /// The argument has no bits but those of `mask` (below 2^32).
    fn bits(mut self, index: u32, mask: u32) -> Self {
        self = self.word(arg_high(index), 0);
        self.load(arg_low(index));
        self.require(JSET, !mask, false);
        self
    }

    /// The argument is one of `values` (below 2^32).
    fn one_of(mut self, index: u32, values: &[u32]) -> Self {
        self = self.word(arg_high(index), 0);
        self.load(arg_low(index));
        for (position, &value) in values.iter().enumerate() {
            let to_end = u8::try_from(values.len() - position).unwrap_or(u8::MAX);
            self.0.push(Op {
                code: JMP | JEQ,
                jump_true: to_end,
                jump_false: 0,
                k: value,
            });
        }
        self.0.push(op(RET, RET_TRAP));
        self
    }

    /// The argument is not below `value` (below 2^32).
    fn at_least(mut self, index: u32, value: u32) -> Self {
        self = self.word(arg_high(index), 0);
        self.load(arg_low(index));
        self.require(JGE, value, true);
        self
    }

    /// `start <= argument < end`, where both have the same upper half.
    fn between(mut self, index: u32, start: u64, end: u64) -> Self {
        assert_eq!(high(start), high(end - 1));
        self = self.word(arg_high(index), high(start));
        self.load(arg_low(index));
        self.require(JGE, low(start), true);
        self.require(JGT, low(end - 1), false);
        self
    }

    /// Address plus length, as 64-bit numbers, do not exceed the stub base.
    fn guest_range(mut self, addr: u32, len: u32) -> Self {
        let limit = high(l::STUB_BASE);
        assert_eq!(low(l::STUB_BASE), 0);
        // M[0] = lower half of the sum, M[1] = carry.
        self.load(arg_low(len));
        self.0.push(op(MISC, 0)); // tax
        self.load(arg_low(addr));
        self.0.push(op(ALU | X, 0)); // A += X
        self.0.push(op(ST, 0));
        self.0.push(Op {
            code: JMP | JGE | X,
            jump_true: 2,
            jump_false: 0,
            k: 0,
        });
        self.0.push(op(LD, 1)); // carry
        self.0.push(op(JMP | JA, 1));
        self.0.push(op(LD, 0));
        self.0.push(op(ST, 1));
        // Upper halves, each bounded so that their sum can't wrap.
        self.load(arg_high(len));
        self.require(JGT, limit, false);
        self.0.push(op(MISC, 0));
        self.load(arg_high(addr));
        self.require(JGT, limit, false);
        self.0.push(op(ALU | X, 0));
        self.0.push(op(LDX | MEM, 1));
        self.0.push(op(ALU | X, 0));
        self.require(JGT, limit, false);
        self.0.push(Op {
            code: JMP | JEQ,
            jump_true: 0,
            jump_false: 3,
            k: limit,
        });
        self.0.push(op(LD | MEM, 0));
        self.require(JEQ, 0, true);
        self
    }
}

/// Calls allowed from one text range: alternatives for each call number.
type Calls = Vec<(i64, Vec<Rule>)>;

fn rule() -> Rule {
    Rule::default()
}

/// `PRIVATE | ANONYMOUS | FIXED | NORESERVE`.
pub(super) const MAP_ANONYMOUS_FLAGS: u32 = 0x4032;
/// `PRIVATE | FIXED | NORESERVE`, `SHARED | FIXED | NORESERVE`.
pub(super) const MAP_PRIVATE_FLAGS: u32 = 0x4012;
/// `PRIVATE | FIXED_NOREPLACE | NORESERVE`.
pub(super) const MAP_PRIVATE_NEW_FLAGS: u32 = 0x10_4002;
pub(super) const MAP_SHARED_FLAGS: u32 = 0x4011;
/// `MAYMOVE | FIXED`, and with `DONTUNMAP`.
pub(super) const REMAP_FLAGS: u32 = 3;
pub(super) const REMAP_KEEP_FLAGS: u32 = 7;

/// Whether app threads make the memory calls for anonymous private memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryCalls {
    /// The thread that has trapped makes them (faster).
    AppThread,
    /// Only the control thread makes them (smaller surface).
    Control,
}

/// What an app thread may call (DESIGN section 2).
fn app_calls(memory: MemoryCalls) -> Calls {
    let contexts_end = l::CONTEXTS + l::CONTEXTS_LEN;
    let mut calls: Calls = vec![
        (
            libc::SYS_futex,
            vec![
                // WAIT or WAKE, without a time limit, on a word of a context.
                rule()
                    .between(0, l::CONTEXTS, contexts_end)
                    .one_of(1, &[0, 1])
                    .arg(3, 0),
            ],
        ),
        (libc::SYS_sched_yield, vec![rule()]),
        (libc::SYS_exit, vec![rule()]),
    ];
    if memory == MemoryCalls::AppThread {
        calls.extend([
            (
                libc::SYS_mmap,
                vec![
                    rule()
                        .bits(2, 7)
                        .arg(3, u64::from(MAP_ANONYMOUS_FLAGS))
                        .arg(4, u64::MAX)
                        .guest_range(0, 1),
                ],
            ),
            (libc::SYS_munmap, vec![rule().guest_range(0, 1)]),
            (
                libc::SYS_mprotect,
                vec![rule().bits(2, 7).guest_range(0, 1)],
            ),
            (
                libc::SYS_madvise,
                vec![
                    rule()
                        .one_of(2, &[libc::MADV_DONTNEED as u32, libc::MADV_FREE as u32])
                        .guest_range(0, 1),
                ],
            ),
        ]);
    }
    calls
}

/// Address and length of a view.
fn view() -> Rule {
    let last = l::VIEW_REGION + l::VIEW_REGION_LEN - l::VIEW_LEN;
    rule()
        .between(0, l::VIEW_REGION, last + 1)
        .arg(1, l::VIEW_LEN)
}

/// Advice that the control thread passes on.
const CONTROL_ADVICE: [u32; 13] = [
    libc::MADV_DONTNEED as u32,
    libc::MADV_FREE as u32,
    libc::MADV_HUGEPAGE as u32,
    libc::MADV_NOHUGEPAGE as u32,
    libc::MADV_REMOVE as u32,
    libc::MADV_WILLNEED as u32,
    libc::MADV_POPULATE_READ as u32,
    libc::MADV_POPULATE_WRITE as u32,
    libc::MADV_DONTFORK as u32,
    libc::MADV_DOFORK as u32,
    libc::MADV_WIPEONFORK as u32,
    libc::MADV_KEEPONFORK as u32,
    libc::MADV_NORMAL as u32,
];

/// What a control thread may call.
fn control_calls() -> Calls {
    let file_fd = low(l::FD_RECEIVED);
    vec![
        (
            libc::SYS_futex,
            vec![
                // Sleeping on the batch number.
                rule().arg(0, l::COMMAND + l::K_SEQ).arg(1, 0).arg(3, 0),
                // Ringing the bell.
                rule().arg(0, l::CONTEXTS + l::R_BELL).arg(1, 1).arg(3, 0),
            ],
        ),
        (
            libc::SYS_mmap,
            vec![
                // Guest memory: anonymous, file private, file shared.
                rule()
                    .bits(2, 7)
                    .arg(3, u64::from(MAP_ANONYMOUS_FLAGS))
                    .arg(4, u64::MAX)
                    .guest_range(0, 1),
                rule()
                    .bits(2, 7)
                    .one_of(
                        3,
                        &[MAP_PRIVATE_FLAGS, MAP_PRIVATE_NEW_FLAGS, MAP_SHARED_FLAGS],
                    )
                    .at_least(4, file_fd)
                    .guest_range(0, 1),
                // A view: a file, read-only.
                view()
                    .arg(2, 1)
                    .arg(3, u64::from(MAP_SHARED_FLAGS))
                    .at_least(4, file_fd),
                // A new process' own command page and contexts.
                rule()
                    .arg(0, l::COMMAND)
                    .arg(1, l::COMMAND_LEN)
                    .arg(2, 1)
                    .arg(3, u64::from(MAP_SHARED_FLAGS))
                    .arg(4, l::FD_RECEIVED + 2)
                    .arg(5, 0),
                rule()
                    .arg(0, l::CONTEXTS)
                    .arg(1, l::CONTEXTS_LEN)
                    .arg(2, 3)
                    .arg(3, u64::from(MAP_SHARED_FLAGS))
                    .arg(4, l::FD_CONTEXTS)
                    .arg(5, 0),
            ],
        ),
        (
            libc::SYS_munmap,
            vec![
                rule().guest_range(0, 1),
                view(),
                rule().arg(0, l::VIEW_REGION).arg(1, l::VIEW_REGION_LEN),
            ],
        ),
        (
            libc::SYS_mprotect,
            vec![rule().bits(2, 7).guest_range(0, 1)],
        ),
        (
            libc::SYS_madvise,
            vec![
                rule().one_of(2, &CONTROL_ADVICE).guest_range(0, 1),
                view().arg(2, libc::MADV_DONTFORK as u64),
                rule()
                    .arg(0, l::COMMAND)
                    .arg(1, l::COMMAND_LEN)
                    .arg(2, libc::MADV_DONTFORK as u64),
                rule()
                    .arg(0, l::CONTEXTS)
                    .arg(1, l::CONTEXTS_LEN)
                    .arg(2, libc::MADV_DONTFORK as u64),
            ],
        ),
        (
            libc::SYS_mremap,
            vec![
                // In place, or to a given address; never where the host likes.
                rule().arg(3, 0).guest_range(0, 1).guest_range(0, 2),
                rule()
                    .one_of(3, &[REMAP_FLAGS, REMAP_KEEP_FLAGS])
                    .guest_range(0, 1)
                    .guest_range(4, 2),
            ],
        ),
        // Guest memory from and to the transfer window.
        (libc::SYS_pread64, vec![transfer(), zeros()]),
        (libc::SYS_pwrite64, vec![transfer()]),
        (
            libc::SYS_recvmsg,
            vec![
                rule()
                    .arg(0, l::FD_SOCKET)
                    .arg(1, l::COMMAND + l::K_MSGHDR)
                    .arg(2, l::RECVMSG_FLAGS),
            ],
        ),
        (
            libc::SYS_sendto,
            vec![
                // A new process shows its credentials.
                rule()
                    .arg(0, l::FD_SOCKET)
                    .arg(1, l::COMMAND)
                    .arg(2, 1)
                    .arg(3, libc::MSG_NOSIGNAL as u64)
                    .arg(4, 0)
                    .arg(5, 0),
            ],
        ),
        // For reading, below the directory that was received first: its own
        // status, and the file that was received with it.
        (
            libc::SYS_openat,
            [l::G_STATUS_PATH, l::G_FILE_PATH]
                .map(|path| {
                    rule()
                        .arg(0, l::FD_RECEIVED)
                        .arg(1, l::GLOBAL + path)
                        .arg(2, l::OPEN_FLAGS)
                        .arg(3, 0)
                })
                .into(),
        ),
        (
            libc::SYS_sendmsg,
            [l::G_SEND_STATUS, l::G_SEND_FILE]
                .map(|header| {
                    rule()
                        .arg(0, l::FD_SOCKET)
                        .arg(1, l::GLOBAL + header)
                        .arg(2, l::SENDMSG_FLAGS)
                })
                .into(),
        ),
        (libc::SYS_close, vec![rule().at_least(0, file_fd)]),
        (
            libc::SYS_close_range,
            vec![rule().arg(0, l::FD_RECEIVED).arg(1, 0xffff_ffff).arg(2, 0)],
        ),
        (
            libc::SYS_dup3,
            vec![
                rule().arg(0, l::FD_RECEIVED).arg(1, l::FD_SOCKET).arg(2, 0),
                rule()
                    .arg(0, l::FD_RECEIVED + 1)
                    .arg(1, l::FD_CONTEXTS)
                    .arg(2, 0),
            ],
        ),
        (
            libc::SYS_clone,
            vec![
                rule().arg(0, l::CLONE_THREAD_FLAGS).between(
                    1,
                    l::CONTEXTS,
                    l::CONTEXTS + l::CONTEXTS_LEN,
                ),
                rule().arg(0, l::CLONE_FORK_FLAGS).arg(1, 0),
            ],
        ),
        // A new process dies with the sentry.
        (
            libc::SYS_prctl,
            vec![
                rule()
                    .arg(0, libc::PR_SET_PDEATHSIG as u64)
                    .arg(1, libc::SIGKILL as u64),
                // A new app thread gives up the calls of control threads.
                rule()
                    .arg(0, PR_SET_SYSCALL_USER_DISPATCH)
                    .arg(1, PR_SYS_DISPATCH_ON)
                    .arg(2, l::APP_TEXT)
                    .arg(3, l::SITES_LEN)
                    .arg(4, 0),
            ],
        ),
        // A new thread prepares for guest code.
        (
            libc::SYS_sigaltstack,
            vec![rule().arg(0, l::COMMAND + l::K_SIGNAL_STACK).arg(1, 0)],
        ),
        (
            libc::SYS_rt_sigprocmask,
            vec![
                rule()
                    .arg(0, libc::SIG_SETMASK as u64)
                    .arg(1, l::GLOBAL + l::G_EMPTY_MASK)
                    .arg(2, 0)
                    .arg(3, 8),
            ],
        ),
        (libc::SYS_exit_group, vec![rule()]),
    ]
}

fn transfer() -> Rule {
    rule()
        .arg(0, l::FD_CONTEXTS)
        .between(3, l::R_TRANSFER, l::R_TRANSFER + l::TRANSFER_LEN)
        .guest_range(1, 2)
}

/// Zeros for guest memory.
fn zeros() -> Rule {
    rule()
        .arg(0, l::FD_CONTEXTS)
        .arg(3, l::ZEROS)
        .guest_range(1, 2)
}

/// Blocks are joined by unconditional jumps, which reach any distance.
fn skip(len: usize) -> Op {
    op(JMP | JA, u32::try_from(len).unwrap_or(u32::MAX))
}

/// The rule with its traps turned into a jump over it, then "allow".
///
/// Alternatives of a call are tried in order, so a failed check must go to the
/// next one: each `RET TRAP` of the rule becomes a jump behind it.
fn alternative(rule: &Rule) -> Vec<Op> {
    let len = rule.0.len();
    let mut ops: Vec<Op> = rule
        .0
        .iter()
        .enumerate()
        .map(|(position, &o)| {
            if o.code == RET {
                skip(len - position)
            } else {
                o
            }
        })
        .collect();
    ops.push(op(RET, RET_ALLOW));
    ops
}

fn calls_block(calls: &Calls) -> Vec<Op> {
    let mut block = vec![op(LD | W_ABS, NR)];
    for (nr, rules) in calls {
        let mut body: Vec<Op> = rules.iter().flat_map(alternative).collect();
        body.push(op(RET, RET_TRAP));
        block.push(Op {
            code: JMP | JEQ,
            jump_true: 1,
            jump_false: 0,
            k: u32::try_from(*nr).unwrap_or(u32::MAX),
        });
        block.push(skip(body.len()));
        block.extend(body);
    }
    block.push(op(RET, RET_TRAP));
    block
}

/// The program: for each text range the calls allowed from it.
fn program(ranges: &[(u64, Calls)]) -> Vec<u8> {
    let mut ops = Rule::default()
        .word(ARCH, AUDIT_ARCH_X86_64)
        .word(IP + 4, high(l::TEXT))
        .0;
    ops.push(op(LD | W_ABS, IP));
    for (start, calls) in ranges {
        // The pointer is behind the `syscall` instruction.
        let block = calls_block(calls);
        ops.push(Op {
            code: JMP | JGT,
            jump_true: 1,
            jump_false: 0,
            k: low(*start),
        });
        ops.push(skip(block.len() + 2));
        ops.push(Op {
            code: JMP | JGT,
            jump_true: 0,
            jump_false: 1,
            k: low(*start + l::SITES_LEN),
        });
        ops.push(skip(block.len()));
        ops.extend(block);
    }
    ops.push(op(RET, RET_TRAP));
    ops.iter()
        .flat_map(|o| {
            let [c0, c1] = o.code.to_le_bytes();
            let [k0, k1, k2, k3] = o.k.to_le_bytes();
            [c0, c1, o.jump_true, o.jump_false, k0, k1, k2, k3]
        })
        .collect()
}

/// The filter of all threads of all stubs.
pub(super) fn stub(memory: MemoryCalls) -> Vec<u8> {
    program(&[
        (l::CONTROL_TEXT, control_calls()),
        (l::APP_TEXT, app_calls(memory)),
    ])
}

#[cfg(test)]
mod tests;
