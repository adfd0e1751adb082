//! A connection of the daemon: one request line with descriptors, then events.

use std::collections::VecDeque;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::protocol::{Event, MAX_LINE, Request};

#[derive(Debug)]
pub struct Connection {
    pub stream: UnixStream,
    input: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    output: VecDeque<u8>,
    /// A request was taken; only a hang-up is expected from here on.
    pub busy: bool,
}

pub enum Input {
    Nothing,
    Request(Box<Request>, Vec<OwnedFd>),
    Closed,
}

/// Descriptors that one request may carry.
const MAX_FDS: usize = 4;

impl Connection {
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            fds: VecDeque::new(),
            output: VecDeque::new(),
            busy: false,
        })
    }

    /// Reads what is there.
    pub fn receive(&mut self) -> Input {
        let mut chunk = vec![0u8; 64 << 10];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let got = rustix::net::recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(&mut chunk)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
            match got {
                Ok(message) if message.bytes == 0 => return Input::Closed,
                Ok(message) => {
                    self.input
                        .extend_from_slice(chunk.get(..message.bytes).unwrap_or_default());
                    if self.input.len() > MAX_LINE || self.fds.len() > MAX_FDS {
                        return Input::Closed;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Input::Closed,
            }
        }
        if self.busy {
            return Input::Nothing;
        }
        let Some(end) = self.input.iter().position(|b| *b == b'\n') else {
            return Input::Nothing;
        };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        match serde_json::from_slice(&line) {
            Ok(request) => {
                self.busy = true;
                self.input = Vec::new();
                Input::Request(Box::new(request), self.fds.drain(..).collect())
            }
            Err(_) => Input::Closed,
        }
    }

    pub fn send(&mut self, event: &Event) {
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            self.output.extend(line);
            self.flush();
        }
    }

    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    pub fn flush(&mut self) {
        while !self.output.is_empty() {
            let (head, _) = self.output.as_slices();
            match self.stream.write(head) {
                Ok(0) => break,
                Ok(n) => drop(self.output.drain(..n)),
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => self.output.clear(),
            }
        }
    }
}
