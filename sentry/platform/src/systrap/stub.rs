//! One stub process: its life, and the app threads in it.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::context::{ParkedThread, ThreadCore, is_waiting, ticks, word};
use super::control::{Control, HostCall};
use super::hub::{Bell, Dead, Hub};
use super::layout as l;
use super::shared::{SharedMap, punch_hole};
use super::sys;
use super::watchdog::Watchdog;
use super::xstate::VectorLayout;
use crate::executor::host_poll::{Readiness, Watch};
use crate::futex::{self, Scope};

/// Threads that are kept for reuse in one stub.
const MAX_PARKED: usize = 8;

/// What all stubs of a platform share.
pub(super) struct Machine {
    pub(super) hub: Arc<Hub>,
    pub(super) vector: VectorLayout,
    /// Initial vector state.
    pub(super) initial_vector: Vec<u8>,
    pub(super) memory_calls: super::filter::MemoryCalls,
    pub(super) watchdog: Arc<Watchdog>,
    reaper: Arc<Reaper>,
}

impl Machine {
    pub(super) fn new(
        hub: Arc<Hub>,
        vector: VectorLayout,
        memory_calls: super::filter::MemoryCalls,
    ) -> Result<Arc<Self>, Errno> {
        Ok(Arc::new(Self {
            hub,
            initial_vector: vector.initial(),
            vector,
            memory_calls,
            watchdog: Watchdog::start()?,
            reaper: Arc::default(),
        }))
    }
}

/// Reaps stubs whoever has forgotten them.
#[derive(Default)]
struct Reaper {
    next_id: AtomicU64,
    watches: Mutex<HashMap<u64, Watch>>,
}

impl Reaper {
    /// Reaps the process when it ends, and tells those who wait for it.
    fn watch(
        self: &Arc<Self>,
        pidfd: &Arc<OwnedFd>,
        hub: &Arc<Hub>,
        bell: &Arc<Bell>,
    ) -> Result<(), Errno> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // Keeps itself alive until all are reaped.
        let (reaper, hub, bell) = (self.clone(), hub.clone(), bell.clone());
        let child = pidfd.clone();
        // Held until the watch is in the table, so that the callback finds it.
        let mut watches = self.watches.lock();
        let watch = Watch::new(pidfd.as_fd(), Readiness::READ, move |_| {
            hub.bury(&bell);
            if sys::reap(child.as_fd()) {
                let watch = reaper.watches.lock().remove(&id);
                drop(watch);
            }
        })?;
        watches.insert(id, watch);
        Ok(())
    }
}

#[derive(Default)]
struct Threads {
    /// Slots below were used before.
    next_slot: u64,
    free: Vec<u64>,
    parked: Vec<ParkedThread>,
    /// Given up while an order was outstanding.
    abandoned: Vec<ParkedThread>,
    /// Told to exit.
    exiting: Vec<ParkedThread>,
}

/// A stub process. Dropping it kills it.
pub(super) struct Stub {
    pub(super) machine: Arc<Machine>,
    pub(super) control: Control,
    pid: i32,
    pidfd: Arc<OwnedFd>,
    threads: Mutex<Threads>,
    pub(super) run_time: RunTime,
}

/// How long all app threads together have had the word, in TSC ticks.
///
/// The host tells another process only the CPU time of a stub as a whole. It
/// is divided among the threads by the time they were to run guest code.
#[derive(Default)]
pub(super) struct RunTime(Mutex<RunTimes>);

#[derive(Default)]
struct RunTimes {
    /// Of threads that are no more.
    past: u64,
    threads: Vec<Weak<ThreadCore>>,
}

impl RunTime {
    pub(super) fn add(&self, thread: &Arc<ThreadCore>) {
        self.0.lock().threads.push(Arc::downgrade(thread));
    }

    pub(super) fn remove(&self, thread: &Arc<ThreadCore>) {
        let mut times = self.0.lock();
        times.past = times.past.wrapping_add(thread.run_ticks(ticks()));
        times
            .threads
            .retain(|other| other.as_ptr() != Arc::as_ptr(thread));
    }

    fn total(&self, now: u64) -> u64 {
        let times = self.0.lock();
        let threads = times.threads.iter().filter_map(Weak::upgrade);
        threads.fold(times.past, |sum, thread| {
            sum.saturating_add(thread.run_ticks(now))
        })
    }
}

impl Stub {
    /// A stub for a process that has just been started with `control`'s ends
    /// and has attested its pid.
    pub(super) fn adopt(
        machine: &Arc<Machine>,
        control: Control,
        pid: i32,
        first_slot: u64,
    ) -> Result<Arc<Self>, Errno> {
        let pidfd = Arc::new(sys::pidfd_open(pid)?);
        let stub = Arc::new(Self {
            machine: machine.clone(),
            control,
            pid,
            pidfd,
            threads: Mutex::new(Threads {
                next_slot: first_slot,
                ..Threads::default()
            }),
            run_time: RunTime::default(),
        });
        machine
            .reaper
            .watch(&stub.pidfd, &machine.hub, &stub.control.bell)?;
        Ok(stub)
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.machine.hub
    }

    pub(super) fn bell(&self) -> &Arc<Bell> {
        &self.control.bell
    }

    pub(super) fn contexts(&self) -> &SharedMap {
        &self.control.contexts
    }

    /// Ends the process; those who wait for it learn so when it is gone.
    pub(super) fn kill(&self) {
        if !self.bell().is_dead() {
            sys::pidfd_kill(self.pidfd.as_fd());
        }
    }

    /// CPU time of a thread that was to run for `own` ticks up to `now`.
    pub(super) fn cpu_time(&self, own: u64, now: u64) -> Duration {
        use nix::time::ClockId;
        use nix::unistd::Pid;
        let process = ClockId::pid_cpu_clock_id(Pid::from_raw(self.pid))
            .and_then(ClockId::now)
            .map_or(Duration::ZERO, Duration::from);
        let total = self.run_time.total(now).max(own).max(1);
        let share = process.as_nanos() * u128::from(own) / u128::from(total);
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// A copy of this process, with one app thread that waits for orders.
    pub(super) async fn fork(&self) -> Result<(Arc<Self>, ParkedThread), Errno> {
        let machine = &self.machine;
        let (control, ends) = Control::new(&machine.hub)?;
        let thread = ParkedThread {
            slot: 1,
            tid: 0,
            generation: 1,
            starting: true,
        };
        prepare_slot(&control.contexts, thread);
        let child = control.lock().await.map_err(no_process)?;
        child.set_signal_stack(stack_base(thread.slot), l::C_STACK_LEN);
        let dont_fork = libc::MADV_DONTFORK.cast_unsigned().into();
        let death = [
            libc::PR_SET_PDEATHSIG.cast_unsigned().into(),
            libc::SIGKILL.cast_unsigned().into(),
        ];
        let no_signal = libc::MSG_NOSIGNAL.cast_unsigned().into();
        let hello = [l::FD_SOCKET, l::COMMAND, 1, no_signal];
        let first = [
            HostCall::new(libc::SYS_madvise, &[l::COMMAND, l::COMMAND_LEN, dont_fork]),
            HostCall::new(
                libc::SYS_madvise,
                &[l::CONTEXTS, l::CONTEXTS_LEN, dont_fork],
            ),
            HostCall::new(libc::SYS_prctl, &death),
            HostCall::new(libc::SYS_sendto, &hello),
            clone_thread(thread.slot),
        ];
        child.start(&first);

        // Until its pid is known, the socket tells whether it lives.
        let (hub, bell) = (machine.hub.clone(), control.bell.clone());
        let _watch = Watch::new(
            control.socket.as_fd(),
            Readiness::READ_HANG_UP,
            move |readiness| {
                if readiness.intersects(Readiness::HANG_UP | Readiness::READ_HANG_UP) {
                    hub.bury(&bell);
                }
            },
        )?;

        {
            let parent = self.control.lock().await.map_err(no_process)?;
            self.control.send_fds(&[
                ends.socket.as_fd(),
                ends.contexts.as_fd(),
                ends.command.as_fd(),
            ])?;
            drop(ends);
            let results = parent
                .run(&[
                    HostCall::receive_fds(),
                    HostCall::new(libc::SYS_clone, &[l::CLONE_FORK_FLAGS]).ignoring_errors(),
                    HostCall::close_received(),
                ])
                .await
                .map_err(no_process)?;
            (*results.get(1).ok_or(Errno::EAGAIN)?)?;
        }
        child.finished().await.map_err(no_process)?;
        let results = child.results(first.len());
        drop(child);
        let (_, pid) = sys::receive(control.socket.as_fd(), &mut [0; 8])?;
        let stub = Self::adopt(machine, control, pid, 2)?;
        for result in &results {
            (*result)?;
        }
        let tid = results.get(4).copied().unwrap_or(Err(Errno::EAGAIN))?;
        let tid = i32::try_from(tid).map_err(|_| Errno::EAGAIN)?;
        Ok((stub, ParkedThread { tid, ..thread }))
    }

    /// An app thread that waits for orders.
    pub(super) async fn take_thread(self: &Arc<Self>) -> Result<ParkedThread, Errno> {
        if let Some(thread) = self.parked() {
            return Ok(thread);
        }
        let control = self.control.lock().await.map_err(no_process)?;
        let slot = self.take_slot().ok_or(Errno::EAGAIN)?;
        let thread = ParkedThread {
            slot,
            tid: 0,
            generation: 1,
            starting: true,
        };
        prepare_slot(self.contexts(), thread);
        control.set_signal_stack(stack_base(slot), l::C_STACK_LEN);
        let results = control
            .run(&[clone_thread(slot)])
            .await
            .map_err(no_process)?;
        let tid = match results.first() {
            Some(Ok(tid)) => i32::try_from(*tid).unwrap_or(0),
            Some(Err(err)) => {
                self.threads.lock().free.push(slot);
                return Err(*err);
            }
            None => 0,
        };
        // The guest could have forged it; then the claim must at least be one
        // of its own threads.
        if sys::tgkill(self.pid, tid, 0).is_err() {
            self.kill();
            return Err(Errno::EAGAIN);
        }
        // The signal stack is read from the command page by the new thread:
        // the next batch has to wait for it.
        let mut turn = super::context::Turn::new(self.clone(), ParkedThread { tid, ..thread })?;
        std::future::poll_fn(|cx| turn.poll_answer(cx))
            .await
            .map_err(no_process)?;
        drop(control);
        // Parks it, and takes it or another one.
        drop(turn);
        self.parked().ok_or(Errno::EAGAIN)
    }

    fn take_slot(&self) -> Option<u64> {
        let mut threads = self.threads.lock();
        threads.free.pop().or_else(|| {
            let slot = threads.next_slot;
            (slot < l::SLOTS).then(|| {
                threads.next_slot += 1;
                slot
            })
        })
    }

    /// Looks after threads given up, and takes a parked one.
    fn parked(&self) -> Option<ParkedThread> {
        let mut guard = self.threads.lock();
        let threads = &mut *guard;
        let contexts = self.contexts();
        let waits = |thread: &ParkedThread| {
            let state = contexts.u32(thread.slot * l::SLOT_LEN + l::C_STATE);
            is_waiting(state.load(Ordering::SeqCst), thread.generation)
        };
        for thread in threads.abandoned.extract_if(.., |thread| waits(thread)) {
            threads.parked.push(ParkedThread {
                starting: false,
                ..thread
            });
        }
        let exited: Vec<_> = threads
            .exiting
            .extract_if(.., |thread| {
                sys::tgkill(self.pid, thread.tid, 0) == Err(Errno::ESRCH)
            })
            .collect();
        for thread in exited {
            let offset = thread.slot * l::SLOT_LEN;
            punch_hole(self.control.contexts_fd.as_fd(), offset, l::SLOT_LEN);
            threads.free.push(thread.slot);
        }
        threads.parked.pop()
    }

    /// Keeps a thread that waits for orders, or ends it.
    pub(super) fn park(&self, thread: ParkedThread) {
        let mut threads = self.threads.lock();
        if threads.parked.len() < MAX_PARKED {
            threads.parked.push(thread);
            return;
        }
        let state = self.contexts().u32(thread.slot * l::SLOT_LEN + l::C_STATE);
        let order = word(l::OP_EXIT, thread.generation.wrapping_add(1));
        if state.swap(order, Ordering::SeqCst) & l::STATE_SLEEP != 0 {
            futex::wake(state, u32::MAX, Scope::Shared);
        }
        threads.exiting.push(thread);
    }

    /// Remembers a thread that has yet to answer.
    pub(super) fn abandon(&self, thread: ParkedThread) {
        self.threads.lock().abandoned.push(thread);
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The process has gone before it could do what was asked.
pub(super) fn no_process(_: Dead) -> Errno {
    Errno::ESRCH
}

fn stack_base(slot: u64) -> u64 {
    l::CONTEXTS + slot * l::SLOT_LEN + l::C_STACK
}

fn clone_thread(slot: u64) -> HostCall {
    let stack_top = stack_base(slot) + l::C_STACK_LEN;
    HostCall::new(libc::SYS_clone, &[l::CLONE_THREAD_FLAGS, stack_top])
}

fn prepare_slot(contexts: &SharedMap, thread: ParkedThread) {
    let base = thread.slot * l::SLOT_LEN;
    contexts
        .u32(base + l::C_INTERRUPT)
        .store(0, Ordering::Relaxed);
    contexts.store(base + l::C_COOKIE, l::COOKIE);
    contexts.store(base + l::C_SELF, l::CONTEXTS + base);
    contexts
        .u32(base + l::C_STATE)
        .store(word(l::OP_START, thread.generation), Ordering::SeqCst);
}
