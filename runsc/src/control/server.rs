//! The sentry's side.

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Reply, Request, wire};

/// Carries out requests; called on a thread of its own per connection, so
/// that it may wait.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request, fds: Vec<OwnedFd>) -> Reply;

    /// The connection of an `Attend` request has ended before the process.
    fn abandoned(&self, container: &str, pid: i32);

    /// Nobody is there any more for whom this container was created.
    fn unwanted(&self, container: &str);

    /// A connection is about to be served.
    fn begin(&self);

    /// A connection has its reply.
    fn end(&self);
}

/// Accepts connections until the listener fails.
pub fn serve(listener: &UnixListener, handler: &Arc<impl Handler>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { break };
        let handler = handler.clone();
        handler.begin();
        // A connection that can't get a thread is dropped, which its client
        // reports.
        let talker = handler.clone();
        let spawned = std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                converse(stream, &talker);
                talker.end();
            });
        if spawned.is_err() {
            handler.end();
        }
    }
}

fn converse(mut stream: UnixStream, handler: &Arc<impl Handler>) {
    let mut created = None;
    let reply = match wire::receive(&mut stream) {
        Ok(Some((request, fds))) => {
            let watch = match &request {
                Request::Attend { container, pid } => {
                    Watch::start(&stream, handler, container, *pid)
                }
                _ => None,
            };
            if let Request::Create { plan, .. } = &request {
                created = Some(plan.id.clone());
            }
            let reply = handler.handle(request, fds);
            drop(watch);
            reply
        }
        Ok(None) => return,
        Err(err) => Reply::Error {
            message: format!("{err:#}"),
        },
    };
    let done = matches!(reply, Reply::Done);
    // The client may be gone; there is nobody else to tell.
    let sent = wire::send(&mut stream, &reply, &[]);
    if let (true, Err(_), Some(container)) = (done, sent, created) {
        handler.unwanted(&container);
    }
}

/// Looks out for the end of a connection while its request is handled.
struct Watch {
    stream: UnixStream,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn start(
        stream: &UnixStream,
        handler: &Arc<impl Handler>,
        container: &str,
        pid: i32,
    ) -> Option<Self> {
        let mut watched = stream.try_clone().ok()?;
        let over = Arc::new(AtomicBool::new(false));
        let (known, handler, container) = (over.clone(), handler.clone(), container.to_owned());
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                // Clients have nothing to say after their request.
                let _ = watched.read(&mut [0]);
                if !known.load(Ordering::SeqCst) {
                    handler.abandoned(&container, pid);
                }
            });
        thread.ok()?;
        Some(Self {
            stream: stream.try_clone().ok()?,
            over,
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread; the reply can still be written.
        let _ = self.stream.shutdown(Shutdown::Read);
    }
}
