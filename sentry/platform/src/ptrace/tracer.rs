//! The host thread that traces one guest thread.
//!
//! `ptrace` binds a tracee to one host thread, and a blocking `waitpid` for
//! one tracee is the cheapest way to learn of its stops. So each guest thread
//! has a tracer thread, which takes requests, and after a stop also runs the
//! guest's task itself: the trap is handled, and the guest resumed, without a
//! further thread being woken.
//!
//! Interrupts are a signal to the tracee, which any thread may send:
//! [`Guest::interrupt`] sets its flag, then reads `is_running`; the tracer
//! sets `is_running`, then reads the flag. Either the signal is sent or the
//! guest does not run.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use super::promise::{Promise, promise};
use super::tracee::{Gone, INTERRUPT_SIGNAL, Resume, Stop, Tracee, send_interrupt};
use super::{Process, fault};
use crate::executor::run_woken;
use crate::host::system::cpu_time_of;
use crate::traits::{Fault, Trap};

/// Something to do with the stopped tracee; returns whom to wake for it.
type Job = Box<dyn FnOnce(&mut Tracee) -> Option<Waker> + Send>;

enum Request {
    Run(Regs),
    Job(Job),
    Exit,
}

#[derive(Default)]
struct Slot {
    requests: VecDeque<Request>,
    is_run_requested: bool,
    outcome: Option<(Trap, Regs)>,
    waker: Option<Waker>,
}

/// What tracer, task and handles share about one guest thread.
pub(super) struct Guest {
    pub(super) process: Arc<Process>,
    tid: i32,
    slot: Mutex<Slot>,
    changed: Condvar,
    interrupt: AtomicBool,
    is_running: AtomicBool,
    is_dying: AtomicBool,
    /// When `ran_ns` was 0.
    epoch: Instant,
    /// Time that guest code has been running, without the current run.
    ran_ns: AtomicU64,
    /// Start of the current run, in nanoseconds from `epoch`; 0 if none.
    run_start_ns: AtomicU64,
    /// The most that [`Guest::cpu_time`] has answered.
    reported_ns: AtomicU64,
}

/// The guest that a thread traces, and its tracee.
type Own = (Arc<Guest>, Rc<RefCell<Tracee>>);

thread_local! {
    /// The guest this thread traces, while its task may run here.
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// Vector state of a new thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vectors {
    /// That of the thread it was cloned from.
    Inherited,
    Initial,
}

impl Guest {
    /// Starts to trace thread `tid` of `process`, which waits in stub code.
    pub(super) fn launch(
        process: &Arc<Process>,
        tid: i32,
        vectors: Vectors,
    ) -> Result<Launch, Errno> {
        process.guest_count.fetch_add(1, Ordering::Relaxed);
        let guest = Arc::new(Self {
            process: process.clone(),
            tid,
            slot: Mutex::default(),
            changed: Condvar::new(),
            interrupt: AtomicBool::new(false),
            is_running: AtomicBool::new(false),
            is_dying: AtomicBool::new(false),
            epoch: Instant::now(),
            ran_ns: AtomicU64::new(0),
            run_start_ns: AtomicU64::new(0),
            reported_ns: AtomicU64::new(0),
        });
        let (setter, started) = promise();
        let own = guest.clone();
        let on_its_way = process.shared.spares.run(Box::new(move || {
            let result = own.seize(vectors);
            let (tracee, result) = match result {
                Ok(tracee) => (Some(tracee), Ok(())),
                Err(err) => (None, Err(err)),
            };
            run_woken(|| {
                if let Some(waker) = setter.set(result) {
                    waker.wake();
                }
            });
            match tracee {
                Some(tracee) => own.serve(tracee),
                // Not traced, it would wait in stub code forever.
                None => own.process.kill(),
            }
        }));
        if let Err(err) = on_its_way {
            process.kill();
            return Err(err);
        }
        Ok(Launch {
            guest: ExitOnDrop(Some(guest)),
            started,
        })
    }

    fn seize(&self, vectors: Vectors) -> Result<Tracee, Errno> {
        let mut tracee = Tracee::seize(self.process.pid, self.tid)?;
        if vectors == Vectors::Initial {
            let area = self.process.shared.initial_vector_state();
            tracee.set_vector_state(&area)?;
        }
        Ok(tracee)
    }

    /// The tracer thread.
    fn serve(self: Arc<Self>, tracee: Tracee) {
        let tracee = Rc::new(RefCell::new(tracee));
        OWN.set(Some((self.clone(), tracee.clone())));
        loop {
            match self.next_request() {
                Request::Run(regs) => {
                    let outcome = self.run(&mut tracee.borrow_mut(), regs);
                    let waker = {
                        let mut slot = self.slot.lock();
                        slot.outcome = Some(outcome);
                        slot.waker.take()
                    };
                    wake(waker);
                }
                Request::Job(job) => {
                    let waker = job(&mut tracee.borrow_mut());
                    wake(waker);
                }
                Request::Exit => break,
            }
        }
        OWN.set(None);
        tracee.borrow_mut().exit();
        // Requests that nobody answers any more are dropped, and their
        // setters with them.
        let requests = std::mem::take(&mut self.slot.lock().requests);
        drop(requests);
    }

    fn next_request(&self) -> Request {
        let mut slot = self.slot.lock();
        loop {
            if let Some(request) = slot.requests.pop_front() {
                return request;
            }
            self.changed.wait(&mut slot);
        }
    }

    fn push(&self, request: Request) {
        self.slot.lock().requests.push_back(request);
        self.changed.notify_one();
    }

    /// As [`crate::GuestThread::poll_run`].
    pub(super) fn poll_run(&self, cx: &mut Context<'_>, regs: &mut Regs) -> Poll<Trap> {
        let mut slot = self.slot.lock();
        if let Some((trap, new_regs)) = slot.outcome.take() {
            slot.is_run_requested = false;
            *regs = new_regs;
            return Poll::Ready(trap);
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        if !slot.is_run_requested {
            slot.is_run_requested = true;
            slot.requests.push_back(Request::Run(*regs));
            drop(slot);
            // On the tracer thread itself nobody waits: this is cheap.
            self.changed.notify_one();
        }
        Poll::Pending
    }

    /// Calls `job` on the tracer thread, at once if this is it.
    pub(super) fn call<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&mut Tracee) -> T + Send + 'static,
    ) -> Promise<T> {
        let (setter, result) = promise();
        let own = OWN.with_borrow(|own| {
            own.as_ref()
                .filter(|(guest, _)| Arc::ptr_eq(guest, self))
                .map(|(_, tracee)| tracee.clone())
        });
        match own {
            Some(tracee) => {
                let value = job(&mut tracee.borrow_mut());
                // Nobody awaits it yet.
                let _ = setter.set(value);
            }
            None => self.push(Request::Job(Box::new(move |tracee| {
                setter.set(job(tracee))
            }))),
        }
        result
    }

    /// Runs guest code until the next trap.
    fn run(&self, tracee: &mut Tracee, regs: Regs) -> (Trap, Regs) {
        self.is_running.store(true, Ordering::SeqCst);
        let start_ns = self.now_ns();
        self.run_start_ns.store(start_ns, Ordering::Relaxed);
        let mut regs = regs;
        let trap = if self.take_interrupt() {
            Trap::Interrupted
        } else {
            self.run_to_trap(tracee, &mut regs).unwrap_or(Trap::Killed)
        };
        self.is_running.store(false, Ordering::SeqCst);
        self.run_start_ns.store(0, Ordering::Relaxed);
        let ran_ns = self.now_ns().saturating_sub(start_ns);
        self.ran_ns.fetch_add(ran_ns, Ordering::Relaxed);
        (trap, regs)
    }

    fn take_interrupt(&self) -> bool {
        self.interrupt.swap(false, Ordering::SeqCst) || self.is_dying.load(Ordering::SeqCst)
    }

    fn run_to_trap(&self, tracee: &mut Tracee, regs: &mut Regs) -> Result<Trap, Gone> {
        tracee.set_regs(regs)?;
        loop {
            tracee.resume(Resume::Emulate)?;
            match tracee.wait()? {
                Stop::Syscall => {
                    *regs = tracee.regs()?;
                    if tracee.is_native_call(regs)? {
                        return Ok(Trap::Syscall);
                    }
                    return Ok(fault::foreign_call(regs));
                }
                Stop::Signal(INTERRUPT_SIGNAL) => {
                    // Without the flag it is a late one: another trap came
                    // first and the interrupt was answered then.
                    if self.take_interrupt() {
                        *regs = tracee.regs()?;
                        regs.orig_rax = u64::MAX;
                        return Ok(Trap::Interrupted);
                    }
                }
                Stop::Signal(signo) => {
                    let info = tracee.signal_info()?;
                    *regs = tracee.regs()?;
                    regs.orig_rax = u64::MAX;
                    match fault::trap(signo, &info, regs) {
                        Some(Trap::Fault(fault)) if fault::needs_frame(&fault) => {
                            return self.complete(tracee, fault, regs).map(Trap::Fault);
                        }
                        Some(trap) => return Ok(trap),
                        None => {}
                    }
                }
                Stop::Event => {}
            }
        }
    }

    /// Fills in exception number and error code from the host.
    fn complete(&self, tracee: &mut Tracee, fault: Fault, regs: &Regs) -> Result<Fault, Gone> {
        // The frame has one place in each process, and costs the thread its
        // vector state.
        let _frame = self.process.frame.lock();
        let mut area = vec![0; self.process.shared.host_vectors.len_bytes];
        tracee.vector_state(&mut area)?;
        let exception = tracee.exception(fault.signo, regs)?;
        if tracee.set_vector_state(&area) == Err(Errno::ESRCH) {
            return Err(Gone);
        }
        Ok(match exception {
            Some((trap_no, error_code)) => Fault {
                trap_no,
                error_code,
                ..fault
            },
            None => fault,
        })
    }

    /// As [`crate::ThreadHandle::interrupt`].
    pub(super) fn interrupt(&self) {
        self.interrupt.store(true, Ordering::SeqCst);
        self.kick();
    }

    fn kick(&self) {
        if self.is_running.load(Ordering::SeqCst) {
            send_interrupt(self.process.pid, self.tid);
        }
    }

    /// Ends the thread, soon.
    pub(super) fn exit(&self) {
        self.is_dying.store(true, Ordering::SeqCst);
        self.push(Request::Exit);
        self.kick();
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// CPU time of guest code. The host tells it of processes alone: of the
    /// threads of a process with several it is the time that they have been
    /// running, which is more if CPUs are scarce.
    pub(super) fn cpu_time(&self) -> Duration {
        let alone = self.process.guest_count.load(Ordering::Relaxed) == 1;
        let time = match cpu_time_of(self.process.pid) {
            Ok(time) if alone => time,
            _ => self.run_time(),
        };
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let before_ns = self.reported_ns.fetch_max(time_ns, Ordering::Relaxed);
        Duration::from_nanos(time_ns.max(before_ns))
    }

    fn run_time(&self) -> Duration {
        let current_ns = match self.run_start_ns.load(Ordering::Relaxed) {
            0 => 0,
            start_ns => self.now_ns().saturating_sub(start_ns),
        };
        let ran_ns = self.ran_ns.load(Ordering::Relaxed);
        Duration::from_nanos(ran_ns.saturating_add(current_ns))
    }
}

/// Calls `job` if this thread traces a guest of `process`, which is stopped.
pub(super) fn with_own_tracee<T>(
    process: &Arc<Process>,
    job: impl FnOnce(&mut Tracee) -> T,
) -> Option<T> {
    let tracee = OWN.with_borrow(|own| {
        own.as_ref()
            .filter(|(guest, _)| Arc::ptr_eq(&guest.process, process))
            .map(|(_, tracee)| tracee.clone())
    })?;
    let mut tracee = tracee.try_borrow_mut().ok()?;
    Some(job(&mut tracee))
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        run_woken(|| waker.wake());
    }
}

/// A guest thread on its way. Dropping it ends the thread.
pub(super) struct Launch {
    guest: ExitOnDrop,
    started: Promise<Result<(), Errno>>,
}

impl Launch {
    /// The guest once it is traced.
    pub(super) async fn finish(self) -> Result<Arc<Guest>, Errno> {
        self.started.await??;
        self.guest.disarm().ok_or(Errno::ESRCH)
    }
}

/// Ends a guest whose start is not awaited to its end.
struct ExitOnDrop(Option<Arc<Guest>>);

impl ExitOnDrop {
    fn disarm(mut self) -> Option<Arc<Guest>> {
        self.0.take()
    }
}

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        if let Some(guest) = self.0.take() {
            guest.exit();
        }
    }
}
