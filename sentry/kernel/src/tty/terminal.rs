//! What both ends of a pseudo terminal share.
//!
//! Locks, in order: the kernel's process tree, `job`, `ends`, `discipline`,
//! wait queues. None is held while signals are sent.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sentry_platform::executor::TimerGuard;
use syscall_tables::Errno;
use syscall_tables::abi::{LocalFlags, Signal, Winsize};

use super::discipline::Discipline;
use crate::sync::{Events, WaitQueue};
use crate::task::{ControllingTerminal, ProcessGroup, Session, Task};
use crate::vfs::makedev;

/// Major number of slaves.
pub const SLAVE_MAJOR: u32 = 136;
/// Length of one unit of `VTIME`.
const VTIME_UNIT: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Job {
    session: Weak<Session>,
    foreground: Weak<ProcessGroup>,
}

/// Which ends are open.
struct Ends {
    master: bool,
    slaves: usize,
    slave_was_open: bool,
    locked: bool,
    packet_mode: bool,
    exclusive: bool,
}

/// A pseudo terminal.
pub struct Terminal {
    pub index: u32,
    pub(super) discipline: Mutex<Discipline>,
    size: Mutex<Winsize>,
    job: Mutex<Job>,
    ends: Mutex<Ends>,
    /// The end of a read with `VTIME`, and the timer that wakes it.
    read_timeout: Mutex<Option<(Instant, Option<TimerGuard>)>>,
    pub(super) master_queue: WaitQueue,
    pub(super) slave_queue: WaitQueue,
}

impl Terminal {
    /// A terminal whose master is open and whose slave is locked.
    pub fn new(index: u32) -> Arc<Self> {
        Arc::new(Self {
            index,
            discipline: Mutex::new(Discipline::new()),
            size: Mutex::default(),
            job: Mutex::default(),
            ends: Mutex::new(Ends {
                master: true,
                slaves: 0,
                slave_was_open: false,
                locked: true,
                packet_mode: false,
                exclusive: false,
            }),
            read_timeout: Mutex::default(),
            master_queue: WaitQueue::new(),
            slave_queue: WaitQueue::new(),
        })
    }

    pub fn size(&self) -> Winsize {
        *self.size.lock()
    }

    /// Changes the window size; the foreground group hears of it.
    pub fn set_size(&self, size: Winsize) {
        let changed = std::mem::replace(&mut *self.size.lock(), size) != size;
        if changed && let Some(group) = self.foreground() {
            group.signal_from_kernel(Signal::SIGWINCH);
        }
    }

    pub fn is_locked(&self) -> bool {
        self.ends.lock().locked
    }

    pub fn set_locked(&self, locked: bool) {
        self.ends.lock().locked = locked;
    }

    pub fn packet_mode(&self) -> bool {
        self.ends.lock().packet_mode
    }

    pub fn set_packet_mode(&self, on: bool) {
        self.ends.lock().packet_mode = on;
    }

    pub fn is_exclusive(&self) -> bool {
        self.ends.lock().exclusive
    }

    pub fn set_exclusive(&self, on: bool) {
        self.ends.lock().exclusive = on;
    }

    /// Whether the master has been closed.
    pub fn is_hung_up(&self) -> bool {
        !self.ends.lock().master
    }

    /// Whether the slave was open once and is not any more.
    pub fn slave_is_gone(&self) -> bool {
        let ends = self.ends.lock();
        ends.slave_was_open && ends.slaves == 0
    }

    pub(super) fn slave_opened(&self) {
        let mut ends = self.ends.lock();
        ends.slaves += 1;
        ends.slave_was_open = true;
    }

    pub(super) fn slave_closed(&self) {
        let mut ends = self.ends.lock();
        ends.slaves = ends.slaves.saturating_sub(1);
        let last = ends.slaves == 0;
        drop(ends);
        if last {
            self.master_queue.notify(Events::READABLE | Events::HUP);
        }
    }

    /// The master is gone: readers see the end, the session is told.
    pub(super) fn master_closed(&self) {
        self.ends.lock().master = false;
        let (session, foreground) = {
            let job = self.job.lock();
            (job.session.upgrade(), job.foreground.upgrade())
        };
        self.slave_queue
            .notify(Events::READABLE | Events::WRITABLE | Events::HUP | Events::ERR);
        let leader = session
            .as_ref()
            .and_then(|session| session.pid().task())
            .map(|task| task.group.clone());
        if let Some(leader) = leader {
            leader.signal_from_kernel(Signal::SIGHUP);
            leader.signal_from_kernel(Signal::SIGCONT);
        }
        if let Some(group) = foreground {
            group.signal_from_kernel(Signal::SIGHUP);
            group.signal_from_kernel(Signal::SIGCONT);
        }
        if let Some(session) = session {
            session.set_terminal(None);
        }
        self.session_ended();
    }

    pub fn session(&self) -> Option<Arc<Session>> {
        self.job.lock().session.upgrade()
    }

    pub(super) fn set_foreground(&self, group: &Arc<ProcessGroup>) {
        self.job.lock().foreground = Arc::downgrade(group);
    }

    /// Bytes typed at the master; as many as there is room for.
    pub fn type_in(&self, bytes: &[u8]) -> usize {
        let mut typed = 0;
        let mut signals = Vec::new();
        {
            let mut discipline = self.discipline.lock();
            for &byte in bytes {
                if !discipline.has_input_room() {
                    break;
                }
                signals.extend(discipline.input(byte));
                typed += 1;
            }
        }
        for signal in signals {
            self.signal_foreground(signal);
        }
        self.slave_queue.notify(Events::READABLE | Events::WRITABLE);
        self.master_queue.notify(Events::READABLE);
        typed
    }

    /// Output for the master's reader.
    pub fn take_output(&self, buf: &mut [u8]) -> usize {
        let taken = self.discipline.lock().take_output(buf);
        if taken > 0 {
            self.slave_queue.notify(Events::WRITABLE);
        }
        taken
    }

    /// Whether output waits for the master's reader.
    pub fn has_output(&self) -> bool {
        self.discipline.lock().output_len() > 0
    }

    pub(super) fn signal_foreground(&self, signal: Signal) {
        if let Some(group) = self.foreground() {
            group.signal_from_kernel(signal);
        }
    }

    /// Whether `task` may read (`SIGTTIN`), write (`SIGTTOU` with `TOSTOP`)
    /// or change settings (`SIGTTOU`); background groups are stopped.
    pub(super) fn check_job(&self, task: &Arc<Task>, signal: Signal) -> Result<(), Errno> {
        let Some(own) = task.group.process_group() else {
            return Ok(());
        };
        let foreground = {
            let job = self.job.lock();
            let same = job.session.upgrade().is_some_and(|session| {
                std::ptr::eq(Arc::as_ptr(&session), Arc::as_ptr(own.session()))
            });
            if !same {
                // Not this process's controlling terminal.
                return Ok(());
            }
            if Weak::ptr_eq(&job.foreground, &Weak::new()) {
                return Ok(());
            }
            job.foreground.upgrade()
        };
        // A foreground group without members stays the foreground one.
        if foreground.is_some_and(|foreground| Arc::ptr_eq(&foreground, &own)) {
            return Ok(());
        }
        let unheard = task.blocked().contains(signal) || task.group.sighand().ignores(signal);
        if signal == Signal::SIGTTOU && unheard {
            return Ok(());
        }
        let orphaned = {
            let tree = task.kernel().tree.lock();
            own.is_orphaned(&tree, None)
        };
        if unheard || orphaned {
            return Err(Errno::EIO);
        }
        own.signal_from_kernel(signal);
        Err(Errno::ERESTARTSYS)
    }

    /// Whether a write by `task` has to be checked.
    pub(super) fn stops_writers(&self) -> bool {
        self.discipline.lock().local(LocalFlags::TOSTOP)
    }

    /// A read found nothing: `true` once `VTIME` is over.
    pub(super) fn read_timed_out(self: &Arc<Self>, task: &Arc<Task>, tenths: u8) -> bool {
        let mut timeout = self.read_timeout.lock();
        let now = Instant::now();
        match &*timeout {
            Some((end, _)) if *end <= now => {
                *timeout = None;
                true
            }
            Some(_) => false,
            None => {
                let end = now + VTIME_UNIT * u32::from(tenths);
                let queue = self.slave_queue.clone();
                let wake = move || queue.notify(Events::READABLE);
                let guard = task.kernel().executor.call_at(end, wake);
                *timeout = Some((end, Some(guard)));
                false
            }
        }
    }

    pub(super) fn clear_read_timeout(&self) {
        self.read_timeout.lock().take();
    }

    /// Makes this the controlling terminal of the caller's session
    /// (`TIOCSCTTY`).
    pub(super) fn take_by(self: &Arc<Self>, task: &Arc<Task>, steal: bool) -> Result<(), Errno> {
        let group = task.group.process_group().ok_or(Errno::EPERM)?;
        let session = group.session().clone();
        if !task.group.is_session_leader() {
            return Err(Errno::EPERM);
        }
        if let Some(own) = session.terminal() {
            let own: &dyn std::any::Any = &*own;
            let is_this = own
                .downcast_ref::<Self>()
                .is_some_and(|own| std::ptr::eq(own, Arc::as_ptr(self)));
            return if is_this { Ok(()) } else { Err(Errno::EPERM) };
        }
        if let Some(other) = self.session() {
            if !steal {
                return Err(Errno::EPERM);
            }
            other.set_terminal(None);
        }
        self.session_started(&session, &group);
        session.set_terminal(Some(self.clone()));
        Ok(())
    }

    /// Wakes everybody after a change of settings.
    pub(super) fn settings_changed(&self) {
        self.slave_queue.notify(Events::READABLE | Events::WRITABLE);
        self.master_queue.notify(Events::READABLE | Events::PRI);
    }
}

impl ControllingTerminal for Terminal {
    fn device(&self) -> u64 {
        makedev(SLAVE_MAJOR, self.index)
    }

    fn session_started(&self, session: &Arc<Session>, group: &Arc<ProcessGroup>) {
        let mut job = self.job.lock();
        job.session = Arc::downgrade(session);
        job.foreground = Arc::downgrade(group);
    }

    fn foreground(&self) -> Option<Arc<ProcessGroup>> {
        self.job.lock().foreground.upgrade()
    }

    fn session_ended(&self) {
        *self.job.lock() = Job::default();
    }
}
