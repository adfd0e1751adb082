//! Orders to the control thread of a stub.
//!
//! One batch at a time: [`Control::lock`] waits for one's turn. A guard that is
//! dropped while its batch runs leaves it running; the next owner waits for
//! its end first.
//!
//! What comes back (results, how many) lies in guest-writable memory. A guest
//! that forges it deceives itself about its own memory: every call a batch
//! makes is bounded by the control filter, whatever mixture of old and new
//! operations the control thread may see if "finished" was a lie.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use smallvec::SmallVec;
use syscall_tables::Errno;

use super::hub::{Bell, Cell, Dead, Hub};
use super::layout as l;
use super::shared::{self, Executable, SharedMap};
use super::sys;
use crate::futex::{self, Scope};

/// How often the sentry looks for the end of a batch before it waits.
const SPINS: u32 = 300;

/// Calls in one batch.
pub(super) const MAX_CALLS: usize = 128;
const _: () = assert!(MAX_CALLS as u64 <= l::MAX_OPS);

/// One host call.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostCall {
    pub(super) nr: i64,
    pub(super) args: [u64; 6],
    /// `OP_*` of the layout.
    pub(super) flags: u64,
}

impl HostCall {
    pub(super) fn new(nr: i64, args: &[u64]) -> Self {
        let mut all = [0; 6];
        for (to, from) in all.iter_mut().zip(args) {
            *to = *from;
        }
        Self {
            nr,
            args: all,
            flags: 0,
        }
    }

    /// Go on with the batch whatever the result.
    pub(super) fn ignoring_errors(self) -> Self {
        let flags = self.flags | l::OP_IGNORE_ERROR;
        Self { flags, ..self }
    }

    /// The thread that this clones goes on with the batch, and the one that
    /// carries it out becomes the app thread.
    pub(super) fn changing_places(self) -> Self {
        let flags = self.flags | l::OP_CHANGE_PLACES;
        Self { flags, ..self }
    }

    pub(super) fn ignores_errors(&self) -> bool {
        self.flags & l::OP_IGNORE_ERROR != 0
    }

    /// Receives what [`Control::send_fds`] sends. The message header is
    /// read-only, so the host answers `EFAULT` after it has installed the
    /// descriptors as the lowest free ones, from [`l::FD_RECEIVED`] on.
    pub(super) fn receive_fds() -> Self {
        let header = l::COMMAND + l::K_MSGHDR;
        Self::new(libc::SYS_recvmsg, &[l::FD_SOCKET, header, l::RECVMSG_FLAGS]).ignoring_errors()
    }

    /// Closes all descriptors but those a stub keeps.
    pub(super) fn close_received() -> Self {
        let all = u64::from(u32::MAX);
        Self::new(libc::SYS_close_range, &[l::FD_RECEIVED, all]).ignoring_errors()
    }
}

/// Results of the operations that were carried out.
pub(super) type Results = SmallVec<[Result<u64, Errno>; 8]>;

/// The sentry's end of a control thread, and the memory shared with a stub.
pub(super) struct Control {
    command: SharedMap,
    pub(super) contexts: Arc<SharedMap>,
    pub(super) contexts_fd: OwnedFd,
    pub(super) socket: OwnedFd,
    pub(super) bell: Arc<Bell>,
    cell: Arc<Cell>,
    turn: Mutex<Turn>,
}

#[derive(Default)]
struct Turn {
    taken: bool,
    waiting: VecDeque<Waker>,
    /// Number of the latest batch.
    seq: u32,
}

/// What a stub is sent of a [`Control`], with its contexts.
pub(super) struct StubEnds {
    pub(super) socket: OwnedFd,
    pub(super) command: OwnedFd,
}

/// The right to order batches.
pub(super) struct ControlGuard<'a>(&'a Control);

impl Control {
    /// Shared memory and a socket for a stub that is to be made.
    pub(super) fn new(hub: &Arc<Hub>) -> Result<(Self, StubEnds), Errno> {
        let (ours, theirs) = sys::stub_socket()?;
        let command_fd = shared::memfd(c"stub-command", l::COMMAND_LEN, Executable::No)?;
        let len = l::ZEROS + l::ZEROS_LEN;
        let contexts_fd = shared::memfd(c"stub-contexts", len, Executable::No)?;
        let command = SharedMap::new(command_fd.as_fd(), l::COMMAND_LEN, shared::SEAL_CONTENT)?;
        let contexts = SharedMap::new(contexts_fd.as_fd(), l::CONTEXTS_LEN, shared::SEAL_SIZE)?;
        let contexts = Arc::new(contexts);
        let bell = Bell::new(contexts.clone());
        let cell = Cell::new(hub, &bell, l::R_DONE)?;

        let slot = l::CONTEXTS;
        // struct msghdr: name, its length, iov, its count, control, its length.
        command.store(l::K_MSGHDR + 16, l::COMMAND + l::K_IOVEC);
        command.store(l::K_MSGHDR + 24, 1);
        command.store(l::K_MSGHDR + 32, slot + l::R_MESSAGE_CONTROL);
        command.store(l::K_MSGHDR + 40, l::R_MESSAGE_CONTROL_LEN);
        command.store(l::K_IOVEC, slot + l::R_MESSAGE);
        command.store(l::K_IOVEC + 8, 1);

        let ends = StubEnds {
            socket: theirs,
            command: command_fd,
        };
        let control = Self {
            command,
            contexts,
            contexts_fd,
            socket: ours,
            bell,
            cell,
            turn: Mutex::default(),
        };
        Ok((control, ends))
    }

    /// Waits for one's turn, and for the end of a batch left behind.
    pub(super) async fn lock(&self) -> Result<ControlGuard<'_>, Dead> {
        let guard = std::future::poll_fn(|cx| {
            let mut turn = self.turn.lock();
            if turn.taken {
                turn.waiting.push_back(cx.waker().clone());
                return Poll::Pending;
            }
            turn.taken = true;
            Poll::Ready(ControlGuard(self))
        })
        .await;
        guard.finished().await?;
        Ok(guard)
    }

    /// Queues descriptors for [`HostCall::receive_fds`].
    pub(super) fn send_fds(&self, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        sys::send_fds(self.socket.as_fd(), fds)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.cell.retire();
    }
}

impl Drop for ControlGuard<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut turn = self.0.turn.lock();
            turn.taken = false;
            std::mem::take(&mut turn.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }
}

impl ControlGuard<'_> {
    /// Stack of the thread that the next batch clones.
    pub(super) fn set_signal_stack(&self, base: u64, len: u64) {
        self.0.command.store(l::K_SIGNAL_STACK, base);
        self.0.command.store(l::K_SIGNAL_STACK + 8, 0);
        self.0.command.store(l::K_SIGNAL_STACK + 16, len);
    }

    /// Gives the order without waiting for its end.
    pub(super) fn start(&self, calls: &[HostCall]) {
        let control = self.0;
        let mut count = 0;
        // A new thread or process needs the CPU more than one that would spin.
        let rest = calls.iter().any(|call| call.nr == libc::SYS_clone);
        let word = control.command.u32(l::K_REST);
        word.store(rest.into(), Ordering::Relaxed);
        for (call, index) in calls.iter().zip(0..l::MAX_OPS) {
            let base = l::K_OPS + index * l::K_OP_LEN;
            control.command.store(base, call.nr.cast_unsigned());
            for (arg, word) in call.args.iter().zip(1..) {
                control.command.store(base + word * 8, *arg);
            }
            control.command.store(base + 56, call.flags);
            count += 1;
        }
        control
            .command
            .u32(l::K_COUNT)
            .store(count, Ordering::Relaxed);
        let mut turn = control.turn.lock();
        control.cell.expect_change_from(turn.seq);
        turn.seq = turn.seq.wrapping_add(1);
        let word = control.command.u32(l::K_SEQ);
        word.store(turn.seq, Ordering::SeqCst);
        drop(turn);
        // Always: whether it sleeps is known to guest-writable memory alone.
        futex::wake(word, u32::MAX, Scope::Shared);
    }

    /// Waits until the latest batch has ended.
    pub(super) async fn finished(&self) -> Result<(), Dead> {
        if self.0.turn.lock().seq == 0 {
            return Ok(());
        }
        std::future::poll_fn(|cx| self.poll_finished(cx, SPINS)).await
    }

    /// Whether the latest batch has ended; there must be one.
    pub(super) fn poll_finished(&self, cx: &mut Context<'_>, spins: u32) -> Poll<Result<(), Dead>> {
        self.0.cell.poll(cx, spins).map_ok(drop)
    }

    /// Carries out `calls` in order up to the first failure, which is the last
    /// result then. At most [`l::MAX_OPS`].
    pub(super) async fn run(&self, calls: &[HostCall]) -> Result<Results, Dead> {
        self.start(calls);
        self.finished().await?;
        Ok(self.results(calls.len()))
    }

    pub(super) fn results(&self, max: usize) -> Results {
        let contexts = &self.0.contexts;
        let executed = contexts.u32(l::R_EXECUTED).load(Ordering::Acquire);
        (0..u64::from(executed))
            .take(max)
            .map_while(|index| {
                let offset = l::R_RESULTS + index * 8;
                (index < l::MAX_OPS).then(|| result(contexts.load(offset)))
            })
            .collect()
    }
}

/// Decodes what a host call has returned.
pub(super) fn result(value: u64) -> Result<u64, Errno> {
    const MAX_ERRNO: i64 = 4095;
    let signed = value.cast_signed();
    if (-MAX_ERRNO..0).contains(&signed) {
        let number = i32::try_from(-signed).unwrap_or(0);
        Err(Errno::from_raw(number))
    } else {
        Ok(value)
    }
}
