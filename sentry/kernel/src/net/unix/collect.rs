//! Unix sockets that only messages refer to, and those messages wait at such
//! sockets: nobody can ever receive them. They are found and closed.
//!
//! A socket's open file is *stranded* if it is referred to from messages
//! alone. Whatever can be received from a socket that is not stranded is
//! alive, and so on from there; what then is left is garbage. Counts are read
//! while guests go on: a file that comes or goes meanwhile makes its socket
//! look alive, never dead, since a socket that can be received from is alive
//! itself.

use std::collections::HashMap;
use std::sync::Arc;

use syscall_tables::abi::AF_UNIX;

use super::{Stage, UnixSocket};
use crate::net::{Net, Socket, SocketFile};
use crate::vfs::File;

/// The inode number of the unix socket behind a file.
fn socket_of(file: &File) -> Option<u64> {
    let base = file.downcast::<SocketFile>()?.socket().base();
    (base.domain == AF_UNIX).then_some(base.ino)
}

/// How many of `files` are unix sockets.
pub(super) fn count_sockets(files: &[Arc<File>]) -> usize {
    files
        .iter()
        .filter(|file| socket_of(file).is_some())
        .count()
}

/// References to a socket's file.
#[derive(Default)]
struct Refs {
    from_messages: usize,
    all: usize,
}

impl UnixSocket {
    /// What is reached from this socket: sockets in its messages (counted in
    /// `refs`) and connections that wait at it (put into `waiting`).
    fn reaches(&self, refs: &mut HashMap<u64, Refs>, waiting: &mut Vec<u64>) -> Vec<u64> {
        let mut reached = Vec::new();
        {
            let rx = self.rx.lock();
            for in_flight in rx.segments.iter().filter_map(|s| s.files.as_ref()) {
                for file in in_flight.files() {
                    if let Some(ino) = socket_of(file) {
                        let refs = refs.entry(ino).or_default();
                        refs.from_messages += 1;
                        refs.all = Arc::strong_count(file);
                        reached.push(ino);
                    }
                }
            }
        }
        if let Stage::Listening(listener) = &self.state.lock().stage {
            for child in &listener.pending {
                waiting.push(child.base().ino);
                reached.push(child.base().ino);
            }
        }
        reached
    }
}

/// Closes stranded sockets that nothing alive leads to.
pub(super) fn collect(net: &Net) {
    let sockets = net.all_unix_sockets();
    let mut refs: HashMap<u64, Refs> = HashMap::new();
    let mut waiting = Vec::new();
    let mut edges: HashMap<u64, Vec<u64>> = HashMap::new();
    for socket in &sockets {
        let reached = socket.reaches(&mut refs, &mut waiting);
        if !reached.is_empty() {
            edges.insert(socket.base().ino, reached);
        }
    }
    let mut suspects: HashMap<u64, bool> = refs
        .iter()
        .filter(|(_, refs)| refs.all <= refs.from_messages)
        .map(|(ino, _)| (*ino, false))
        .chain(waiting.into_iter().map(|ino| (ino, false)))
        .collect();
    if suspects.is_empty() {
        return;
    }
    let roots = sockets.iter().map(|socket| socket.base().ino);
    let mut todo: Vec<u64> = roots.filter(|ino| !suspects.contains_key(ino)).collect();
    while let Some(ino) = todo.pop() {
        for reached in edges.remove(&ino).unwrap_or_default() {
            // Roots are on the list already.
            if let Some(alive) = suspects.get_mut(&reached)
                && !std::mem::replace(alive, true)
            {
                todo.push(reached);
            }
        }
    }
    let mut garbage = Vec::new();
    for socket in sockets {
        if suspects.get(&socket.base().ino) == Some(&false) {
            let mut rx = socket.rx.lock();
            garbage.push(rx.close());
        }
    }
    // Closing the files of the messages closes their sockets in turn.
    drop(garbage);
}
