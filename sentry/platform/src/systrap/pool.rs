//! What is made ahead of its use, by a thread of its own: stubs that are copies
//! of the zygote, for new programs, and [`Blank`]s for forks.
//!
//! Lock: `state`, taken by workers and the filler for moments only.

use std::os::fd::AsFd;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use syscall_tables::Errno;

use super::control::{Control, StubEnds};
use super::hub::Hub;
use super::stub::{self, Stub};
use crate::executor::block_on;
use crate::executor::host_poll::{Readiness, Watch};

/// Blanks kept once somebody forks. The filler is woken when half are gone.
const BLANKS: usize = 8;

/// All that a child process shares with the sentry, before there is a child.
pub(super) struct Blank {
    pub(super) control: Control,
    pub(super) ends: StubEnds,
    /// Until the child's pid is known, its socket tells whether it lives.
    pub(super) watch: Watch,
}

impl Blank {
    pub(super) fn new(hub: &Arc<Hub>) -> Result<Self, Errno> {
        let (control, ends) = Control::new(hub)?;
        stub::prepare_first_slot(&control.contexts);
        let (hub, bell) = (hub.clone(), control.bell.clone());
        let watch = Watch::new(
            control.socket.as_fd(),
            Readiness::READ_HANG_UP,
            move |readiness| {
                if readiness.intersects(Readiness::HANG_UP | Readiness::READ_HANG_UP) {
                    hub.bury(&bell);
                }
            },
        )?;
        Ok(Self {
            control,
            ends,
            watch,
        })
    }
}

/// See the module documentation.
pub(super) struct Pool {
    state: Mutex<State>,
    wanted: Condvar,
    /// Stubs kept ready.
    stubs: usize,
}

#[derive(Default)]
struct State {
    stubs: Vec<Arc<Stub>>,
    blanks: Vec<Blank>,
    /// How many of each there should be now: none before the first use, and
    /// none after a failure until the next use, which reports its own.
    wanted_stubs: usize,
    wanted_blanks: usize,
    /// A stub has been taken or asked for.
    used: bool,
    closed: bool,
}

/// What the filler does next.
enum Job {
    Stub,
    Blank,
    End,
}

impl Pool {
    pub(super) fn new(stubs: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            wanted: Condvar::new(),
            stubs,
        })
    }

    /// A stub that is ready, if there is one. Many sandboxes take only one in
    /// their life: nothing is made ahead for the first.
    pub(super) fn take_stub(&self) -> Option<Arc<Stub>> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.used, true) {
            state.wanted_stubs = self.stubs;
            self.wanted.notify_one();
        }
        state.stubs.pop()
    }

    /// A blank that is ready, if there is one.
    pub(super) fn take_blank(&self) -> Option<Blank> {
        let mut state = self.state.lock();
        state.wanted_blanks = BLANKS;
        if state.blanks.len() <= BLANKS / 2 {
            self.wanted.notify_one();
        }
        state.blanks.pop()
    }

    /// Gives up all that is ready.
    pub(super) fn close(&self) {
        let (stubs, blanks) = {
            let mut state = self.state.lock();
            state.closed = true;
            let stubs = std::mem::take(&mut state.stubs);
            (stubs, std::mem::take(&mut state.blanks))
        };
        self.wanted.notify_one();
        drop((stubs, blanks));
    }

    fn next(&self) -> Job {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Job::End;
            }
            // A process is what takes long.
            if state.stubs.len() < state.wanted_stubs {
                return Job::Stub;
            }
            if state.blanks.len() < state.wanted_blanks {
                return Job::Blank;
            }
            self.wanted.wait(&mut state);
        }
    }

    /// Body of the filler.
    pub(super) fn fill(&self, zygote: &Stub) {
        loop {
            match self.next() {
                Job::End => return,
                Job::Stub => {
                    let made = block_on(fresh(zygote));
                    let mut state = self.state.lock();
                    match made {
                        Ok(stub) if !state.closed => state.stubs.push(stub),
                        Ok(_) => {}
                        // Out of processes or memory.
                        Err(_) => state.wanted_stubs = 0,
                    }
                }
                Job::Blank => {
                    let made = Blank::new(zygote.hub());
                    let mut state = self.state.lock();
                    match made {
                        Ok(blank) if !state.closed => state.blanks.push(blank),
                        Ok(_) => {}
                        Err(_) => state.wanted_blanks = 0,
                    }
                }
            }
        }
    }
}

/// A copy of the zygote with its first app thread.
pub(super) async fn fresh(zygote: &Stub) -> Result<Arc<Stub>, Errno> {
    let ((stub, thread), ()) = zygote.fork(|| ()).await?;
    stub.park(thread);
    Ok(stub)
}
