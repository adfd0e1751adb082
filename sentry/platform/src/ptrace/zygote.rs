//! The first stub process, made while the sentry may still fork. All others
//! are clones of it or of each other.

use std::arch::asm;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use super::stub::{
    ACTION, FILTER, NAME, NO_LIMIT, NO_SIGNAL_STACK, PAGE, ROOT, SCRATCH, SCRATCH_LEN, STUB_BASE,
    STUB_END, USER_END,
};
use super::tracee::{RoutineEnd, Tracee, kill_child};
use crate::xstate;

/// Number of the socket on which stubs receive descriptors.
pub(super) const SOCKET_FD: i32 = 0;

/// Larger than any XSAVE area the host may have.
const MAX_VECTOR_STATE_LEN_BYTES: usize = 64 * 1024;

/// The host's XSAVE area.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostVectorState {
    /// Size that `PTRACE_SETREGSET` wants.
    pub(super) len_bytes: usize,
    /// `XCR0` as the host reports it.
    pub(super) features: u64,
    /// `MXCSR` bits that the CPU has.
    pub(super) mxcsr_bits: u32,
}

/// Forks the calling process and strips the child of everything: memory,
/// descriptors, signal state. The calling thread becomes its tracer.
pub(super) fn create(
    code_page: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
) -> Result<(Tracee, HostVectorState), Errno> {
    let (pid, gadget) = fork_raw()?;
    let mut zygote = seize_new_child(pid).inspect_err(|_| kill_child(pid))?;
    let stripped = strip(&mut zygote, gadget, code_page, socket);
    match stripped.and_then(|()| reset_vector_state(&mut zygote)) {
        Ok(vector_state) => Ok((zygote, vector_state)),
        Err(err) => {
            zygote.kill();
            Err(err)
        }
    }
}

/// Forks with all signals blocked in the child. Returns the child's pid and
/// the address of a `syscall; int3` in it.
fn fork_raw() -> Result<(i32, u64), Errno> {
    let args = libc::clone_args {
        // Handlers of this process must never run in the child.
        flags: 0x1_0000_0000, // CLONE_CLEAR_SIGHAND
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    let result: i64;
    let gadget: u64;
    // SAFETY: `args` lives across the call. The parent only loses the named
    // registers. The child, a copy of this thread in a process of its own,
    // never leaves the loop: it touches no memory, so locks held by other
    // threads at the time of the fork don't matter.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 3f",
            "mov eax, 157",         // prctl
            "mov edi, 4",           // PR_SET_DUMPABLE
            "mov esi, 1",
            "syscall",
            "2: mov eax, 34",       // pause
            "syscall",
            "jmp 2b",
            "4: syscall",
            "int3",
            "3: lea {gadget}, [rip + 4b]",
            gadget = out(reg) gadget,
            inlateout("rax") libc::SYS_clone3 => result,
            inlateout("rdi") &raw const args => _,
            inlateout("rsi") std::mem::size_of_val(&args) => _,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 {
        let number = i32::try_from(-result).unwrap_or(0);
        return Err(Errno::from_raw(number));
    }
    let pid = i32::try_from(result).map_err(|_| Errno::EIO)?;
    Ok((pid, gadget))
}

fn seize_new_child(pid: i32) -> Result<Tracee, Errno> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match Tracee::seize(pid, pid) {
            // The child may not have made itself traceable yet.
            Err(Errno::EPERM) if Instant::now() < end => std::thread::yield_now(),
            result => return result,
        }
    }
}

fn strip(
    zygote: &mut Tracee,
    gadget: u64,
    code_page: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let first_calls = [
        (
            libc::SYS_mmap,
            [
                STUB_BASE,
                PAGE,
                (libc::PROT_READ | libc::PROT_EXEC) as u64,
                (libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE) as u64,
                fd_arg(code_page),
                0,
            ],
        ),
        (
            libc::SYS_mmap,
            [
                SCRATCH,
                SCRATCH_LEN,
                (libc::PROT_READ | libc::PROT_WRITE) as u64,
                (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64,
                u64::MAX,
                0,
            ],
        ),
    ];
    for (number, args) in first_calls {
        call_at(zygote, gadget, number, args)?;
    }
    if let Some((address, len_bytes, signature)) = zygote.rseq() {
        const RSEQ_FLAG_UNREGISTER: u64 = 1;
        let args = [
            address,
            u64::from(len_bytes),
            RSEQ_FLAG_UNREGISTER,
            u64::from(signature),
            0,
            0,
        ];
        zygote.call(libc::SYS_rseq, args)?;
    }
    // Fails only for the address the socket has already.
    let _ = zygote.call(
        libc::SYS_dup2,
        [fd_arg(socket), SOCKET_FD as u64, 0, 0, 0, 0],
    )?;
    unmap(zygote, STUB_END..USER_END)?;
    unmap(zygote, 0..STUB_BASE)?;
    // A jailed sentry may not enter its own root; it is there already.
    let _ = zygote.call(libc::SYS_chdir, [ROOT, 0, 0, 0, 0, 0]);
    let calls: [(libc::c_long, [u64; 6]); 13] = [
        (
            libc::SYS_close_range,
            [SOCKET_FD as u64 + 1, u64::from(u32::MAX), 0, 0, 0, 0],
        ),
        (libc::SYS_sigaltstack, [NO_SIGNAL_STACK, 0, 0, 0, 0, 0]),
        (libc::SYS_rt_sigaction, signal_args(libc::SIGSEGV)),
        (libc::SYS_rt_sigaction, signal_args(libc::SIGBUS)),
        (libc::SYS_rt_sigaction, signal_args(libc::SIGFPE)),
        (libc::SYS_set_robust_list, [0, 24, 0, 0, 0, 0]),
        (libc::SYS_set_tid_address, [0; 6]),
        // Away from the terminal's signals; a session of its own would also
        // be a scheduling group of its own on hosts with autogroups.
        (libc::SYS_setpgid, [0; 6]),
        (
            libc::SYS_prlimit64,
            [0, u64::from(libc::RLIMIT_CORE), NO_LIMIT, 0, 0, 0],
        ),
        (
            libc::SYS_prctl,
            [libc::PR_SET_NAME as u64, NAME, 0, 0, 0, 0],
        ),
        (
            libc::SYS_prctl,
            [libc::PR_SET_TIMERSLACK as u64, 1, 0, 0, 0, 0],
        ),
        (
            libc::SYS_prctl,
            [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0, 0],
        ),
        (
            libc::SYS_seccomp,
            [u64::from(libc::SECCOMP_SET_MODE_FILTER), 0, FILTER, 0, 0, 0],
        ),
    ];
    for (number, args) in calls {
        zygote.call(number, args)?;
    }
    zygote.unblock_signals()?;
    Ok(())
}

/// Unmaps what can be unmapped in `range`. Hosts may seal their own mappings
/// (vDSO and its data), and refuse any range that contains one: these stay.
fn unmap(zygote: &mut Tracee, range: Range<u64>) -> Result<(), Errno> {
    let mut pending = vec![range];
    while let Some(range) = pending.pop() {
        let len_bytes = range.end - range.start;
        let args = [range.start, len_bytes, 0, 0, 0, 0];
        match zygote.call(libc::SYS_munmap, args) {
            Ok(_) => {}
            Err(Errno::EPERM) if len_bytes == PAGE => {}
            Err(Errno::EPERM) => {
                let middle = range.start + (len_bytes / 2).next_multiple_of(PAGE);
                pending.push(range.start..middle);
                pending.push(middle..range.end);
            }
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Arguments of `rt_sigaction` for the handler of exceptions.
fn signal_args(signo: libc::c_int) -> [u64; 6] {
    const MASK_LEN_BYTES: u64 = 8;
    [signo as u64, ACTION, 0, MASK_LEN_BYTES, 0, 0]
}

fn fd_arg(fd: BorrowedFd<'_>) -> u64 {
    u64::from(fd.as_raw_fd().cast_unsigned())
}

/// A host call before the code page is there.
fn call_at(
    zygote: &mut Tracee,
    gadget: u64,
    number: libc::c_long,
    args: [u64; 6],
) -> Result<(), Errno> {
    let [rdi, rsi, rdx, r10, r8, r9] = args;
    let regs = Regs {
        rip: gadget,
        rax: number.cast_unsigned(),
        rdi,
        rsi,
        rdx,
        r10,
        r8,
        r9,
        ..Regs::default()
    };
    match zygote.run_to_breakpoint(&regs)? {
        RoutineEnd::Returned(value) if value.cast_signed() < 0 => {
            let number = i32::try_from(value.cast_signed().unsigned_abs()).unwrap_or(0);
            Err(Errno::from_raw(number))
        }
        RoutineEnd::Returned(_) => Ok(()),
        RoutineEnd::Faulted => Err(Errno::EFAULT),
    }
}

/// Clears what this process had in its vector registers and learns the shape
/// of the area.
fn reset_vector_state(zygote: &mut Tracee) -> Result<HostVectorState, Errno> {
    let mut area = vec![0; MAX_VECTOR_STATE_LEN_BYTES];
    let len_bytes = zygote.vector_state(&mut area)?;
    area.truncate(len_bytes);
    let field = |offset: usize| {
        area.get(offset..)
            .and_then(<[u8]>::first_chunk::<8>)
            .map(|bytes| u64::from_ne_bytes(*bytes))
            .ok_or(Errno::EIO)
    };
    // The host puts XCR0 into the bytes that software may use.
    const SOFTWARE_OFFSET: usize = 464;
    const MXCSR_OFFSET: usize = 24;
    let mask = (field(MXCSR_OFFSET)? >> 32) as u32;
    let vector_state = HostVectorState {
        len_bytes,
        features: field(SOFTWARE_OFFSET)?,
        // Zero stands for the mask of the first SSE CPUs.
        mxcsr_bits: if mask == 0 { 0xffbf } else { mask },
    };
    let mut fresh = xstate::initial(len_bytes);
    fresh.truncate(len_bytes);
    zygote.set_vector_state(&fresh)?;
    Ok(vector_state)
}
