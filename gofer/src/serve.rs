//! Takes requests from the ring until the sentry is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use gofer_proto::ring::{Server, Violation};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::host::ProcFd;
use crate::session::{Failure, Session};
use crate::shared::SharedPort;
use crate::{Config, Root};

/// Why serving ended other than by the sentry's end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot {what}: {error}")]
    SetUp { what: &'static str, error: Errno },
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("the sentry broke the gofer protocol: {0}")]
    Violation(&'static str),
}

struct Shared {
    server: Server<SharedPort>,
    session: Session,
    violation: Mutex<Option<&'static str>>,
}

/// Serves `roots` over a ring ([`crate::create_ring`]) and a socket
/// ([`crate::create_socket`]) until the sentry closes its end.
///
/// Sets the process's umask to 0: modes are the sentry's decision.
///
/// # Errors
/// [`ServeError::Violation`] if the sentry sent what it never should.
pub fn serve(
    config: Config,
    proc_fd: ProcFd,
    ring: OwnedFd,
    socket: OwnedFd,
    roots: Vec<Root>,
) -> Result<(), ServeError> {
    let set_up = |what| move |error| ServeError::SetUp { what, error };
    rustix::process::umask(Mode::empty());
    let port = SharedPort::new(&ring, socket).map_err(set_up("map the ring"))?;
    drop(ring);
    let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count());
    let server = Server::new(port, (cpus / 2).min(2))
        .map_err(|Violation(what)| ServeError::Violation(what))?;
    let session =
        Session::new(config, proc_fd, roots).map_err(set_up("read a mount's root directory"))?;
    let shared = Arc::new(Shared {
        server,
        session,
        violation: Mutex::new(None),
    });

    let mut threads = Vec::new();
    let mut failed = None;
    for number in 0..config.threads.max(1) {
        let shared = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("gofer-{number}"))
            .stack_size(512 << 10)
            .spawn(move || shared.work());
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => failed = Some(error),
        }
    }
    if failed.is_none() {
        shared.wait_for_end();
    }
    shared.server.port().shut_down();
    shared.server.stop();
    for thread in threads {
        // A panic has ended the process already.
        let _ = thread.join();
    }
    match (failed, *shared.violation.lock()) {
        (Some(error), _) => Err(ServeError::Thread(error)),
        (None, Some(what)) => Err(ServeError::Violation(what)),
        (None, None) => Ok(()),
    }
}

impl Shared {
    /// The sentry never sends anything over the socket, so whatever can be
    /// read is its end.
    fn wait_for_end(&self) {
        let socket = self.server.port().socket();
        let mut fds = [PollFd::from_borrowed_fd(
            socket.as_fd(),
            PollFlags::IN | PollFlags::RDHUP,
        )];
        while let Err(Errno::INTR | Errno::AGAIN) = rustix::event::poll(&mut fds, None) {}
    }

    fn work(&self) {
        if let Err(violation) = self.serve_requests() {
            self.violation.lock().get_or_insert(violation.0);
            // Wakes the thread in `wait_for_end`, and tells the sentry.
            self.server.port().shut_down();
            self.server.stop();
        }
    }

    fn serve_requests(&self) -> Result<(), Violation> {
        let (mut request, mut reply) = (Vec::new(), Vec::new());
        let mut budget = self.server.spin_budget();
        while let Some(claim) = self.server.next(&mut request, &mut budget)? {
            let mut outcome = self.session.handle(&request, &mut reply);
            if let Ok(Some(fd)) = &outcome
                && let Err(errno) = self.server.port().send_fd(claim.tag(), fd.as_fd())
            {
                outcome = Err(Failure::Errno(errno));
            }
            match outcome {
                Ok(fd) => self.server.answer(claim, None, &reply, fd.is_some())?,
                Err(Failure::Errno(errno)) => {
                    let errno = syscall_tables::Errno::from_raw(errno.raw_os_error());
                    self.server.answer(claim, Some(errno), &[], false)?;
                }
                Err(Failure::Malformed(malformed)) => return Err(Violation(malformed.0)),
            }
            // One huge value must not stay in every thread's buffer.
            reply.shrink_to(8 << 10);
            request.shrink_to(8 << 10);
        }
        Ok(())
    }
}
