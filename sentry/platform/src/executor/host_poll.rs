//! Waiting for host file descriptors: terminals, pipes and sockets of the
//! host that the guest's stdio and network end in.
//!
//! One epoll thread for the whole process starts with the first [`Watch`].
//!
//! Semantics are those of `EPOLLET`: the callback runs on the epoll thread
//! once after registration if the descriptor is ready then, and again each
//! time new readiness arrives; it is not repeated while the descriptor stays
//! ready. A reader therefore reads until `EAGAIN`, or asks [`poll_now`] for
//! the level after it has registered. `ERROR` and `HANG_UP` are always
//! reported. Callbacks are short and never block: they wake tasks.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

use bitflags::bitflags;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use parking_lot::Mutex;
use syscall_tables::Errno;

use crate::host::errno;

bitflags! {
    /// What a descriptor is ready for, with the values of `POLLIN` and so on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Readiness: u32 {
        const READ = 0x1;
        const PRIORITY = 0x2;
        const WRITE = 0x4;
        const ERROR = 0x8;
        const HANG_UP = 0x10;
        const READ_HANG_UP = 0x2000;
    }
}

type Callback = Arc<dyn Fn(Readiness) + Send + Sync>;

struct Reactor {
    epoll: Epoll,
    callbacks: Mutex<HashMap<u64, Callback>>,
    next_id: AtomicU64,
}

/// A registration of a callback, ended when dropped; one call that has begun
/// may still be running then.
pub struct Watch {
    reactor: &'static Reactor,
    /// Stays open as long as it is watched. A descriptor can be in an epoll
    /// set but once.
    fd: Arc<OwnedFd>,
    id: u64,
}

impl Watch {
    /// Calls `callback` as the module documentation says.
    ///
    /// # Errors
    /// `EPERM` if the descriptor is always ready (regular files, directories);
    /// `EMFILE`, `ENOMEM`, `ENOSPC` of the host.
    pub fn new(
        fd: BorrowedFd<'_>,
        interest: Readiness,
        callback: impl Fn(Readiness) + Send + Sync + 'static,
    ) -> Result<Self, Errno> {
        let fd = fd
            .try_clone_to_owned()
            .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(0)))?;
        Self::shared(Arc::new(fd), interest, callback)
    }

    /// As [`Self::new`], without a duplicate: nobody else watches `fd`.
    ///
    /// # Errors
    /// As [`Self::new`]; `EEXIST` if it is watched.
    pub fn shared(
        fd: Arc<OwnedFd>,
        interest: Readiness,
        callback: impl Fn(Readiness) + Send + Sync + 'static,
    ) -> Result<Self, Errno> {
        let reactor = reactor()?;
        let id = reactor.next_id.fetch_add(1, Ordering::Relaxed);
        reactor.callbacks.lock().insert(id, Arc::new(callback));
        let watch = Self { reactor, fd, id };
        let flags =
            EpollFlags::from_bits_truncate(i32::from_ne_bytes(interest.bits().to_ne_bytes()));
        reactor
            .epoll
            .add(&*watch.fd, EpollEvent::new(flags | EpollFlags::EPOLLET, id))
            .map_err(errno)?;
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Fails only if `new` failed to add it.
        let _ = self.reactor.epoll.delete(&*self.fd);
        let callback = self.reactor.callbacks.lock().remove(&self.id);
        drop(callback);
    }
}

/// What `fd` is ready for now, of `interest` and the error states. Never
/// blocks.
///
/// # Errors
/// `EBADF` if the host does not know it.
pub fn poll_now(fd: BorrowedFd<'_>, interest: Readiness) -> Result<Readiness, Errno> {
    let wanted = PollFlags::from_bits_truncate(i16::try_from(interest.bits()).unwrap_or(0));
    let mut fds = [PollFd::new(fd, wanted)];
    loop {
        match nix::poll::poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => break,
            Err(nix::Error::EINTR) => {}
            Err(err) => return Err(errno(err)),
        }
    }
    let [fd] = &fds;
    let events = fd.revents().unwrap_or(PollFlags::empty());
    if events.contains(PollFlags::POLLNVAL) {
        return Err(Errno::EBADF);
    }
    Ok(Readiness::from_bits_truncate(u32::from(
        events.bits().unsigned_abs(),
    )))
}

/// Completes once `fd` is ready for one of `interest` or in an error state.
/// Descriptors that are always ready (regular files) are so here.
///
/// # Errors
/// As [`Watch::new`] and [`poll_now`], but not `EPERM`.
pub async fn readiness(fd: BorrowedFd<'_>, interest: Readiness) -> Result<Readiness, Errno> {
    let now = poll_now(fd, interest)?;
    if !now.is_empty() {
        return Ok(now);
    }
    let waiting: Arc<Mutex<Option<Waker>>> = Arc::default();
    let callback_waiting = waiting.clone();
    let watch = Watch::new(fd, interest, move |_| {
        let waker = callback_waiting.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    });
    let watch = match watch {
        Ok(watch) => watch,
        Err(Errno::EPERM) => return Ok(interest),
        Err(err) => return Err(err),
    };
    std::future::poll_fn(|cx| {
        *waiting.lock() = Some(cx.waker().clone());
        // After the waker is in place: an event before it is seen here.
        match poll_now(watch.fd.as_fd(), interest) {
            Ok(now) if now.is_empty() => Poll::Pending,
            result => Poll::Ready(result),
        }
    })
    .await
}

fn reactor() -> Result<&'static Reactor, Errno> {
    static REACTOR: OnceLock<Result<Reactor, Errno>> = OnceLock::new();
    static THREAD: OnceLock<Result<(), Errno>> = OnceLock::new();
    let reactor = REACTOR
        .get_or_init(|| {
            Ok(Reactor {
                epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(errno)?,
                callbacks: Mutex::default(),
                next_id: AtomicU64::new(0),
            })
        })
        .as_ref()
        .map_err(|err| *err)?;
    (*THREAD.get_or_init(|| {
        std::thread::Builder::new()
            .name("host-poll".to_owned())
            .spawn(|| run(reactor))
            .map(drop)
            .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(0)))
    }))?;
    Ok(reactor)
}

fn run(reactor: &Reactor) {
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = match reactor.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => continue,
            // The set is ours and never closed: nothing else can fail. Without
            // it no guest would ever see input again: end the sandbox.
            Err(_) => std::process::abort(),
        };
        for event in events.iter().take(count) {
            let callback = reactor.callbacks.lock().get(&event.data()).cloned();
            if let Some(callback) = callback {
                let bits = event.events().bits();
                callback(Readiness::from_bits_truncate(u32::from_ne_bytes(
                    bits.to_ne_bytes(),
                )));
            }
        }
    }
}
