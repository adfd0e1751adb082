//! System V message queues.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::MsqidDs;

use super::{IpcNamespace, Object, Perm, now};
use crate::sync::{Events, WaitQueue};
use crate::task::{CapSet, Creds, Pid, PidNamespace, UserNamespace};

/// A message with its type, which is positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: i64,
    pub text: Vec<u8>,
}

struct State {
    perm: Perm,
    messages: VecDeque<Message>,
    bytes: u64,
    /// Most bytes in the queue.
    capacity: u64,
    send_time: i64,
    receive_time: i64,
    change_time: i64,
    last_sender: Option<Arc<Pid>>,
    last_receiver: Option<Arc<Pid>>,
    is_removed: bool,
}

/// A message queue.
pub struct MsgQueue {
    state: Mutex<State>,
    /// `IN`: a message came; `OUT`: there is room.
    changed: WaitQueue,
}

impl Object for MsgQueue {
    fn with_perm<T>(&self, look: impl FnOnce(&mut Perm) -> T) -> T {
        look(&mut self.state.lock().perm)
    }
}

/// Which message a receiver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    First,
    /// The first of this type.
    Kind(i64),
    /// The first of any other type (`MSG_EXCEPT`).
    Except(i64),
    /// The first with the lowest type up to this one.
    UpTo(i64),
    /// The message at this position, left where it is (`MSG_COPY`).
    Copy(u64),
}

/// What becomes of a message longer than the receiver's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLong {
    /// `E2BIG`; it stays in the queue.
    Refuse,
    /// `MSG_NOERROR`.
    Cut,
}

impl IpcNamespace {
    /// `msgget(2)`.
    pub fn msgget(&self, key: i32, flags: u32, creds: &Creds) -> Result<i32, Errno> {
        let make = |perm| {
            Ok(Arc::new(MsgQueue {
                state: Mutex::new(State {
                    perm,
                    messages: VecDeque::new(),
                    bytes: 0,
                    capacity: self.settings.msgmnb.get(),
                    send_time: 0,
                    receive_time: 0,
                    change_time: now(),
                    last_sender: None,
                    last_receiver: None,
                    is_removed: false,
                }),
                changed: WaitQueue::new(),
            }))
        };
        let most = self.settings.msgmni.get();
        self.msg
            .get_or_make(key, flags, creds, &self.user_ns, most, |_| Ok(()), make)
    }
}

impl MsgQueue {
    pub fn changed(&self) -> &WaitQueue {
        &self.changed
    }

    /// Adds a message; `EAGAIN` if there is no room.
    pub fn send(&self, message: &Message, pid: &Arc<Pid>) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.is_removed {
            return Err(Errno::EIDRM);
        }
        let len = message.text.len() as u64;
        let count = state.messages.len() as u64;
        if state.bytes + len > state.capacity || count + 1 > state.capacity {
            return Err(Errno::EAGAIN);
        }
        state.bytes += len;
        state.messages.push_back(message.clone());
        state.last_sender = Some(pid.clone());
        state.send_time = now();
        drop(state);
        self.changed.notify(Events::IN);
        Ok(())
    }

    /// Takes a message; `EAGAIN` if there is none that is wanted.
    pub fn receive(
        &self,
        choice: Choice,
        room: usize,
        too_long: TooLong,
        pid: &Arc<Pid>,
    ) -> Result<Message, Errno> {
        let mut state = self.state.lock();
        if state.is_removed {
            return Err(Errno::EIDRM);
        }
        let messages = &state.messages;
        let found = match choice {
            Choice::First => (!messages.is_empty()).then_some(0),
            Choice::Kind(kind) => messages.iter().position(|message| message.kind == kind),
            Choice::Except(kind) => messages.iter().position(|message| message.kind != kind),
            Choice::UpTo(highest) => messages
                .iter()
                .enumerate()
                .filter(|(_, message)| message.kind <= highest)
                .min_by_key(|(index, message)| (message.kind, *index))
                .map(|(index, _)| index),
            Choice::Copy(index) => usize::try_from(index)
                .ok()
                .filter(|index| *index < messages.len()),
        };
        let index = found.ok_or(Errno::EAGAIN)?;
        let message = messages.get(index).ok_or(Errno::EAGAIN)?;
        if message.text.len() > room && too_long == TooLong::Refuse {
            return Err(Errno::E2BIG);
        }
        if let Choice::Copy(_) = choice {
            return Ok(message.clone());
        }
        let message = state.messages.remove(index).ok_or(Errno::EAGAIN)?;
        state.bytes -= message.text.len() as u64;
        state.last_receiver = Some(pid.clone());
        state.receive_time = now();
        drop(state);
        self.changed.notify(Events::OUT);
        Ok(message)
    }

    /// `IPC_RMID`: waiters get `EIDRM`.
    pub fn remove(&self) {
        let mut state = self.state.lock();
        state.is_removed = true;
        let messages = std::mem::take(&mut state.messages);
        drop(state);
        drop(messages);
        self.changed.notify(Events::IN | Events::OUT);
    }

    /// `IPC_SET`: raising the capacity above `most`
    /// takes a privilege.
    pub fn set(
        &self,
        new: &MsqidDs,
        creds: &Creds,
        ns: &Arc<UserNamespace>,
        most: u64,
    ) -> Result<(), Errno> {
        if new.msg_qbytes > most && !creds.has_in(ns, CapSet::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        let mut state = self.state.lock();
        state.perm.set(&new.msg_perm, creds)?;
        state.capacity = new.msg_qbytes;
        state.change_time = now();
        drop(state);
        self.changed.notify(Events::IN | Events::OUT);
        Ok(())
    }

    /// `IPC_STAT`, with process ids as `pids` sees them.
    pub fn stat(&self, creds: &Creds, pids: &Arc<PidNamespace>) -> MsqidDs {
        let state = self.state.lock();
        MsqidDs {
            msg_perm: state.perm.abi(creds),
            msg_stime: state.send_time,
            msg_rtime: state.receive_time,
            msg_ctime: state.change_time,
            msg_cbytes: state.bytes,
            msg_qnum: state.messages.len() as u64,
            msg_qbytes: state.capacity,
            msg_lspid: super::number(state.last_sender.as_ref(), pids),
            msg_lrpid: super::number(state.last_receiver.as_ref(), pids),
            ..MsqidDs::default()
        }
    }

    /// Messages and bytes queued.
    pub fn content(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.messages.len() as u64, state.bytes)
    }
}
