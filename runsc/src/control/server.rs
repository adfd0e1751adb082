//! The sentry's side.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use super::{Reply, Request, wire};

/// Carries out requests; called on a thread of its own per connection, so
/// that it may wait.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request, fds: Vec<OwnedFd>) -> Reply;

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
                converse(stream, &*talker);
                talker.end();
            });
        if spawned.is_err() {
            handler.end();
        }
    }
}

fn converse(mut stream: UnixStream, handler: &impl Handler) {
    let reply = match wire::receive(&mut stream) {
        Ok(Some((request, fds))) => handler.handle(request, fds),
        Ok(None) => return,
        Err(err) => Reply::Error {
            message: format!("{err:#}"),
        },
    };
    // The client may be gone; there is nobody else to tell.
    let _ = wire::send(&mut stream, &reply, &[]);
}
