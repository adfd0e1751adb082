//! What a socket has received: bytes, cut into segments that carry what
//! belongs to them.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::UnixSocket;
use super::collect::count_sockets;
use crate::net::{Net, Sender, ring};
use crate::task::Uid;
use crate::vfs::File;

/// Bytes a record is charged for beyond its data, about what Linux charges.
pub const RECORD_OVERHEAD: usize = 576;
/// Byte rings that have grown beyond this are given back when empty.
const KEEP_BYTES: usize = 64 << 10;

/// Files under way, counted against their sender.
pub struct InFlight {
    files: Vec<Arc<File>>,
    /// How many of them are unix sockets.
    sockets: usize,
    uid: Uid,
    net: Arc<Net>,
}

impl InFlight {
    /// Takes over files already counted by [`Net::add_in_flight`].
    pub fn new(files: Vec<Arc<File>>, uid: Uid, net: Arc<Net>) -> Self {
        let sockets = count_sockets(&files);
        net.add_sockets_in_flight(sockets);
        Self {
            files,
            sockets,
            uid,
            net,
        }
    }

    fn landed(&self) {
        self.net.sub_in_flight(self.uid, self.files.len());
        self.net.sub_sockets_in_flight(self.sockets);
    }

    /// Takes the files to the receiver.
    pub fn take(mut self) -> Vec<Arc<File>> {
        self.landed();
        std::mem::take(&mut self.files)
    }

    pub fn files(&self) -> &[Arc<File>] {
        &self.files
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.files.is_empty() {
            self.landed();
            self.net.close_files(std::mem::take(&mut self.files));
        }
    }
}

/// A record, or bytes of a stream that were sent alike.
#[derive(Default)]
pub struct Segment {
    pub len: usize,
    /// Address of the sender of a datagram.
    pub from: Option<Vec<u8>>,
    pub sender: Option<Sender>,
    pub files: Option<InFlight>,
}

/// The receive queue.
#[derive(Default)]
pub struct ReceiveQueue {
    bytes: VecDeque<u8>,
    pub segments: VecDeque<Segment>,
    /// What counts against the senders' buffers.
    pub charged: usize,
    /// Senders that found it full.
    pub waiting: Vec<Weak<UnixSocket>>,
    /// The socket is released: nothing may be added.
    pub closed: bool,
}

impl ReceiveQueue {
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes of all segments.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes to a stream.
    pub fn append(&mut self, data: &[u8], sender: Option<Sender>, files: Option<InFlight>) {
        self.bytes.extend(data);
        self.charged += data.len();
        if files.is_none()
            && let Some(last) = self.segments.back_mut()
            && last.files.is_none()
            && same_sender(last.sender.as_ref(), sender.as_ref())
        {
            last.len += data.len();
            return;
        }
        self.segments.push_back(Segment {
            len: data.len(),
            from: None,
            sender,
            files,
        });
    }

    /// Adds a record, whose length is set to that of `data`.
    pub fn push(&mut self, data: &[u8], mut segment: Segment) {
        segment.len = data.len();
        self.bytes.extend(data);
        self.charged += data.len() + RECORD_OVERHEAD;
        self.segments.push_back(segment);
    }

    /// Takes the first record, copying what fits of it.
    pub fn pop(&mut self, buf: &mut [u8]) -> Option<Segment> {
        let segment = self.segments.pop_front()?;
        self.copy(0, buf, segment.len);
        self.consume(segment.len);
        self.charged = self.charged.saturating_sub(RECORD_OVERHEAD);
        Some(segment)
    }

    /// Copies up to `len` bytes from `skip` on.
    pub fn copy(&self, skip: usize, buf: &mut [u8], len: usize) -> usize {
        let len = len.min(buf.len());
        ring::copy_from(&self.bytes, skip, buf.get_mut(..len).unwrap_or_default())
    }

    /// Forgets the first bytes.
    pub fn consume(&mut self, len: usize) {
        let len = len.min(self.bytes.len());
        self.bytes.drain(..len);
        self.charged = self.charged.saturating_sub(len);
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_BYTES {
            self.bytes = VecDeque::new();
        }
    }

    /// Puts bytes of a stream back.
    pub fn unread(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        ring::unread(&mut self.bytes, bytes);
        self.charged += bytes.len();
        match self.segments.front_mut() {
            Some(first) if first.files.is_none() => first.len += bytes.len(),
            _ => self.segments.push_front(Segment {
                len: bytes.len(),
                ..Segment::default()
            }),
        }
    }

    /// Remembers a sender to be told when there is room.
    pub fn wait_for_room(&mut self, sender: &Weak<UnixSocket>) {
        if !self.waiting.iter().any(|known| known.ptr_eq(sender)) {
            self.waiting.push(sender.clone());
        }
    }

    /// Takes the waiting senders that have room now.
    pub fn take_ready(&mut self) -> Vec<Arc<UnixSocket>> {
        let mut ready = Vec::new();
        if self.waiting.is_empty() {
            return ready;
        }
        let charged = self.charged;
        self.waiting.retain(|sender| match sender.upgrade() {
            Some(sender) if charged * 2 <= sender.base.send_buffer() => {
                ready.push(sender);
                false
            }
            Some(_) => true,
            None => false,
        });
        ready
    }

    /// Everything in it, for release outside the lock.
    pub fn close(&mut self) -> (VecDeque<Segment>, Vec<Weak<UnixSocket>>) {
        self.closed = true;
        self.charged = 0;
        self.bytes = VecDeque::new();
        (
            std::mem::take(&mut self.segments),
            std::mem::take(&mut self.waiting),
        )
    }
}

fn same_sender(a: Option<&Sender>, b: Option<&Sender>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.is(b),
        _ => false,
    }
}
