//! POSIX message queues (mq_overview(7)): the queues of a namespace.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{MQ_PRIO_MAX, SI_MESGQ, SigInfo, Signal};

use crate::signal::Origin;
use crate::sync::{Events, WaitQueue};
use crate::task::{CapSet, Creds, Gid, ThreadGroup, Uid};
use crate::vfs::{Attr, FileKind, SetAttr, SetTime, Timestamp};

/// Most queues without a privilege (`/proc/sys/fs/mqueue/queues_max`).
pub const QUEUES_MAX: usize = 256;
/// Most messages in a queue without a privilege (`msg_max`).
pub const MSG_MAX: i64 = 10;
/// Longest message without a privilege (`msgsize_max`).
pub const MSG_SIZE_MAX: i64 = 8192;
/// Limits that hold even for the privileged.
const HARD_MSG_MAX: i64 = 65_536;
const HARD_MSG_SIZE_MAX: i64 = 16 << 20;
/// Longest name.
const NAME_MAX: usize = 255;

/// What a process asked to be told when a message arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    Nothing,
    Signal { signal: Signal, value: u64 },
}

struct Registration {
    group: Weak<ThreadGroup>,
    notice: Notice,
}

struct State {
    /// By priority; within one in the order of sending.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: i64,
    bytes: u64,
    /// Receivers that wait: notices are not for them.
    receivers: usize,
    registered: Option<Registration>,
    perm: u32,
    uid: Uid,
    gid: Gid,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    nlink: u64,
}

/// A queue.
pub struct Queue {
    pub max_messages: i64,
    pub message_size: i64,
    pub ino: u64,
    dev: u64,
    state: Mutex<State>,
    changed: WaitQueue,
    /// Gives back what `RLIMIT_MSGQUEUE` counts.
    charge: Charge,
}

/// Bytes of queues by user.
type Charges = Arc<Mutex<HashMap<Uid, u64>>>;

struct Charge {
    charges: Charges,
    uid: Uid,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut charges = self.charges.lock();
        if let Some(bytes) = charges.get_mut(&self.uid) {
            *bytes = bytes.saturating_sub(self.bytes);
            if *bytes == 0 {
                charges.remove(&self.uid);
            }
        }
    }
}

struct Names {
    queues: BTreeMap<Vec<u8>, Arc<Queue>>,
    next_ino: u64,
}

/// The queues of a namespace by name.
pub struct Queues {
    names: Mutex<Names>,
    charges: Charges,
    pub dev: u64,
}

/// `mq_maxmsg` and `mq_msgsize` of a new queue.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub max_messages: i64,
    pub message_size: i64,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            max_messages: MSG_MAX,
            message_size: MSG_SIZE_MAX,
        }
    }
}

impl Size {
    fn check(self, creds: &Creds) -> Result<(), Errno> {
        let (most, longest) = if creds.has_own(CapSet::SYS_RESOURCE) {
            (HARD_MSG_MAX, HARD_MSG_SIZE_MAX)
        } else {
            (MSG_MAX, MSG_SIZE_MAX)
        };
        if !(1..=most).contains(&self.max_messages) || !(1..=longest).contains(&self.message_size) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// What `RLIMIT_MSGQUEUE` counts.
    fn charged_bytes(self) -> u64 {
        /// Sizes of Linux's `struct msg_msg` and of its tree's nodes.
        const MESSAGE: i64 = 48;
        const NODE: i64 = 56;
        let nodes = self.max_messages.min(i64::from(MQ_PRIO_MAX));
        let bytes = self.max_messages * (MESSAGE + self.message_size) + nodes * NODE;
        bytes.unsigned_abs()
    }
}

/// Checks a queue's name without the leading slash that libraries remove.
pub fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name.contains(&b'/') || name == b"." || name == b".." {
        return Err(Errno::EACCES);
    }
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(())
}

impl Queues {
    pub fn new(dev: u64) -> Self {
        Self {
            names: Mutex::new(Names {
                queues: BTreeMap::new(),
                next_ino: 2,
            }),
            charges: Charges::default(),
            dev,
        }
    }

    pub fn get(&self, name: &[u8]) -> Option<Arc<Queue>> {
        self.names.lock().queues.get(name).cloned()
    }

    pub fn list(&self) -> Vec<(Vec<u8>, Arc<Queue>)> {
        let names = self.names.lock();
        let pairs = names.queues.iter();
        pairs
            .map(|(name, queue)| (name.clone(), queue.clone()))
            .collect()
    }

    /// Makes a queue; `EEXIST` if the name is taken.
    pub fn create(
        &self,
        name: &[u8],
        perm: u32,
        size: Size,
        creds: &Creds,
        limit: u64,
    ) -> Result<Arc<Queue>, Errno> {
        check_name(name)?;
        size.check(creds)?;
        let mut names = self.names.lock();
        if names.queues.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if names.queues.len() >= QUEUES_MAX && !creds.has_own(CapSet::SYS_RESOURCE) {
            return Err(Errno::ENOSPC);
        }
        let bytes = size.charged_bytes();
        {
            let mut charges = self.charges.lock();
            let used = charges.entry(creds.uid).or_default();
            if used.saturating_add(bytes) > limit {
                return Err(Errno::EMFILE);
            }
            *used += bytes;
        }
        let now = Timestamp::now();
        let ino = names.next_ino;
        names.next_ino += 1;
        let queue = Arc::new(Queue {
            max_messages: size.max_messages,
            message_size: size.message_size,
            ino,
            dev: self.dev,
            state: Mutex::new(State {
                messages: BTreeMap::new(),
                count: 0,
                bytes: 0,
                receivers: 0,
                registered: None,
                perm: perm & 0o777,
                uid: creds.fsuid,
                gid: creds.fsgid,
                atime: now,
                mtime: now,
                ctime: now,
                nlink: 1,
            }),
            changed: WaitQueue::new(),
            charge: Charge {
                charges: self.charges.clone(),
                uid: creds.uid,
                bytes,
            },
        });
        names.queues.insert(name.to_vec(), queue.clone());
        Ok(queue)
    }

    /// Removes the name; who has the queue open keeps it.
    pub fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        let removed = self.names.lock().queues.remove(name);
        let queue = removed.ok_or(Errno::ENOENT)?;
        queue.state.lock().nlink = 0;
        Ok(())
    }
}

impl Queue {
    pub fn changed(&self) -> &WaitQueue {
        &self.changed
    }

    /// Bytes that `RLIMIT_MSGQUEUE` counts for it.
    pub fn charged_bytes(&self) -> u64 {
        self.charge.bytes
    }

    /// Messages queued.
    pub fn count(&self) -> i64 {
        self.state.lock().count
    }

    pub fn events(&self) -> Events {
        let state = self.state.lock();
        let mut events = Events::empty();
        if state.count > 0 {
            events |= Events::READABLE;
        }
        if state.count < self.max_messages {
            events |= Events::WRITABLE;
        }
        events
    }

    /// Adds a message; `EAGAIN` if the queue is full. The first message of an
    /// empty queue nobody waits for is told to who registered for it.
    pub fn send(&self, text: &[u8], priority: u32, sender: &Arc<ThreadGroup>) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.count >= self.max_messages {
            return Err(Errno::EAGAIN);
        }
        let was_empty = state.count == 0;
        state.count += 1;
        state.bytes += text.len() as u64;
        let same = state.messages.entry(priority).or_default();
        same.push_back(text.to_vec());
        state.mtime = Timestamp::now();
        state.ctime = state.mtime;
        let told = if was_empty && state.receivers == 0 {
            state.registered.take()
        } else {
            None
        };
        drop(state);
        self.changed.notify(Events::READABLE);
        if let Some(told) = told {
            told.tell(sender);
        }
        Ok(())
    }

    /// Takes the oldest message of the highest priority, with that; `EAGAIN`
    /// if there is none.
    pub fn receive(&self) -> Result<(Vec<u8>, u32), Errno> {
        let mut state = self.state.lock();
        let mut highest = state.messages.last_entry().ok_or(Errno::EAGAIN)?;
        let priority = *highest.key();
        let message = highest.get_mut().pop_front();
        if highest.get().is_empty() {
            highest.remove();
        }
        let message = message.ok_or(Errno::EAGAIN)?;
        state.count -= 1;
        state.bytes -= message.len() as u64;
        state.atime = Timestamp::now();
        drop(state);
        self.changed.notify(Events::WRITABLE);
        Ok((message, priority))
    }

    /// Counts a waiting receiver until the guard is dropped.
    pub fn receiving(self: &Arc<Self>) -> Receiving {
        self.state.lock().receivers += 1;
        Receiving(self.clone())
    }

    /// `mq_notify(2)`: `EBUSY` if another registration is there.
    pub fn register(&self, group: &Arc<ThreadGroup>, notice: Notice) -> Result<(), Errno> {
        let mut state = self.state.lock();
        let taken = state.registered.as_ref().is_some_and(|registered| {
            registered
                .group
                .upgrade()
                .is_some_and(|group| !group.is_zombie())
        });
        if taken {
            return Err(Errno::EBUSY);
        }
        state.registered = Some(Registration {
            group: Arc::downgrade(group),
            notice,
        });
        Ok(())
    }

    /// Takes back the registration of `group`.
    pub fn unregister(&self, group: &Arc<ThreadGroup>) {
        let mut state = self.state.lock();
        let is_own = state
            .registered
            .as_ref()
            .is_some_and(|registered| std::ptr::eq(registered.group.as_ptr(), Arc::as_ptr(group)));
        if is_own {
            state.registered = None;
        }
    }

    /// What reading the file in the mqueue file system gives.
    pub fn status_line(&self) -> String {
        let state = self.state.lock();
        let (kind, signal, pid) = match &state.registered {
            None => (0, 0, 0),
            Some(registered) => {
                let pid = registered.group.upgrade().map_or(0, |group| group.tgid().0);
                match registered.notice {
                    Notice::Nothing => (1, 0, pid),
                    Notice::Signal { signal, .. } => (0, signal.raw(), pid),
                }
            }
        };
        format!(
            "QSIZE:{:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n",
            state.bytes
        )
    }

    /// Size of [`Self::status_line`], as `stat` shows it.
    const STATUS_LEN: u64 = 80;

    pub fn attr(&self) -> Attr {
        let state = self.state.lock();
        Attr {
            kind: FileKind::Regular,
            perm: state.perm,
            dev: self.dev,
            ino: self.ino,
            nlink: state.nlink,
            uid: state.uid,
            gid: state.gid,
            size_bytes: Self::STATUS_LEN,
            blocks: 0,
            block_size: 4096,
            rdev: 0,
            atime: state.atime,
            mtime: state.mtime,
            ctime: state.ctime,
            btime: None,
        }
    }

    pub fn set_attr(&self, changes: &SetAttr) {
        let now = Timestamp::now();
        let time = |set| match set {
            SetTime::Now => now,
            SetTime::To(time) => time,
        };
        let mut state = self.state.lock();
        state.perm = changes.perm.map_or(state.perm, |perm| perm & 0o777);
        state.uid = changes.uid.unwrap_or(state.uid);
        state.gid = changes.gid.unwrap_or(state.gid);
        state.atime = changes.atime.map_or(state.atime, time);
        state.mtime = changes.mtime.map_or(state.mtime, time);
        state.ctime = now;
    }
}

impl Registration {
    fn tell(&self, sender: &Arc<ThreadGroup>) {
        let Some(group) = self.group.upgrade() else {
            return;
        };
        if let Notice::Signal { signal, value } = self.notice {
            let pid = sender.id_in(group.pid_ns());
            let uid = sender.leader().zip(group.leader()).map_or(0, |(from, to)| {
                to.creds().user_ns.uid_or_overflow(from.creds().uid)
            });
            let info = SigInfo::queue(signal, SI_MESGQ, pid, uid, value);
            // A full queue of signals loses this one, as in Linux.
            let _ = group.signal(info, Origin::Kernel);
        }
    }
}

/// A waiting receiver.
pub struct Receiving(Arc<Queue>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.state.lock().receivers -= 1;
    }
}
