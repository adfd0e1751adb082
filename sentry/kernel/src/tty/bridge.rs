//! A terminal of the host as the user's side of a terminal in the sandbox.
//!
//! The host's terminal is in raw mode: echo, editing and signals are the
//! sandbox's own line discipline's business.

use std::fs::File as HostHandle;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use sentry_platform::executor::host_poll::{Readiness, readiness};
use sentry_platform::executor::{Executor, blocking};
use syscall_tables::abi::Winsize;

use super::Terminal;
use crate::sync::{Events, Observer, WaitQueue};

/// Bytes moved at once.
const CHUNK: usize = 4096;

/// Moves bytes between a host terminal and a terminal of the sandbox.
pub struct Bridge {
    pub terminal: Arc<Terminal>,
    /// Output taken from the terminal that the host has not got yet.
    busy: Arc<AtomicBool>,
}

impl Bridge {
    /// Starts moving; `host` is the user's terminal.
    pub fn start(executor: &Executor, terminal: Arc<Terminal>, host: OwnedFd) -> Self {
        let host = Arc::new(HostHandle::from(host));
        let busy = Arc::new(AtomicBool::new(false));
        executor.spawn(move_input(terminal.clone(), host.clone()));
        executor.spawn(move_output(terminal.clone(), host, busy.clone()));
        Self { terminal, busy }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        self.terminal.set_size(Winsize {
            ws_row: rows,
            ws_col: columns,
            ..Winsize::default()
        });
    }

    /// Waits until all output has reached the host, at most `timeout`.
    /// Blocks the calling thread, which must not be a worker.
    pub fn flush(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        while (self.terminal.has_output() || self.busy.load(Ordering::SeqCst))
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits until `ready` is true, looking again after each event.
async fn wait_until(queue: &WaitQueue, mut ready: impl FnMut() -> bool) {
    let mut subscription = None;
    poll_fn(|cx| {
        let observer: Arc<dyn Observer> = Arc::new(cx.waker().clone());
        subscription = Some(queue.subscribe(Events::all(), observer));
        if ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

async fn move_input(terminal: Arc<Terminal>, host: Arc<HostHandle>) {
    let mut buf = [0; CHUNK];
    loop {
        if readiness(host.as_fd(), Readiness::READ).await.is_err() {
            break;
        }
        let len = match blocking(|| (&*host).read(&mut buf)) {
            Ok(0) | Err(_) => break,
            Ok(len) => len,
        };
        let mut bytes = buf.get(..len).unwrap_or_default();
        while !bytes.is_empty() {
            wait_until(&terminal.master_queue, || {
                terminal.discipline.lock().has_input_room()
            })
            .await;
            let typed = terminal.type_in(bytes);
            bytes = bytes.get(typed..).unwrap_or_default();
        }
    }
    // The user is gone: that hangs up.
    terminal.master_closed();
}

async fn move_output(terminal: Arc<Terminal>, host: Arc<HostHandle>, busy: Arc<AtomicBool>) {
    let mut buf = [0; CHUNK];
    loop {
        wait_until(&terminal.master_queue, || terminal.has_output()).await;
        busy.store(true, Ordering::SeqCst);
        let len = terminal.take_output(&mut buf);
        let bytes = buf.get(..len).unwrap_or_default();
        if readiness(host.as_fd(), Readiness::WRITE).await.is_err()
            || blocking(|| (&*host).write_all(bytes)).is_err()
        {
            break;
        }
        busy.store(false, Ordering::SeqCst);
    }
    busy.store(false, Ordering::SeqCst);
}
