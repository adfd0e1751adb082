//! Calls handed to a supervisor (`SECCOMP_RET_USER_NOTIF`,
//! seccomp_unotify(2)).
//!
//! Lock: the listener's `state`, a leaf.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sentry_platform::BoxFuture;
use syscall_tables::Errno;
use syscall_tables::abi::{RLIMIT_NOFILE, SeccompData};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Verdict;
use crate::ctx::{Ctx, SysResult};
use crate::fs::anon_inode;
use crate::sync::{Events, WaitQueue};
use crate::task::Task;
use crate::user::UserPtr;
use crate::vfs::{Fd, FdFlags, File, FileOps, StatusFlags};

const IOCTL_RECV: u32 = 0xc050_2100;
const IOCTL_SEND: u32 = 0xc018_2101;
const IOCTL_ID_VALID: u32 = 0x4008_2102;
const IOCTL_ADDFD: u32 = 0x4018_2103;
const IOCTL_SET_FLAGS: u32 = 0x4008_2104;
/// As an older header spells `ID_VALID`.
const IOCTL_ID_VALID_OLD: u32 = 0x8008_2102;

/// Let the call run after all.
const RESP_CONTINUE: u32 = 1;
/// Put the file at the number in `newfd`.
const ADDFD_SETFD: u32 = 1;
/// Add the file and answer the call with its number, in one step.
const ADDFD_SEND: u32 = 2;
const O_CLOEXEC: u32 = 0o2000000;

/// `struct seccomp_notif`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    data: SeccompData,
}

/// `struct seccomp_notif_resp`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

/// Sizes that `SECCOMP_GET_NOTIF_SIZES` answers: notification and response.
pub const SIZES: (usize, usize) = (size_of::<Notification>(), size_of::<Response>());

struct Request {
    task: Arc<Task>,
    data: SeccompData,
    received: bool,
    answer: Option<Response>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    requests: BTreeMap<u64, Request>,
    /// The supervisor's descriptor is closed.
    closed: bool,
    /// Filters that send here.
    filters: usize,
}

/// The supervisor's end.
#[derive(Default)]
pub struct Listener {
    state: Mutex<State>,
    /// Tells the supervisor of requests, and askers of answers.
    queue: WaitQueue,
    answers: WaitQueue,
}

impl Listener {
    /// Opens the supervisor's descriptor.
    pub fn open(self: &Arc<Self>) -> Arc<File> {
        let ops = Arc::new(ListenerFile(self.clone()));
        anon_inode::open(ops, "seccomp notify", StatusFlags::empty())
    }

    pub(super) fn attach(&self) {
        self.state.lock().filters += 1;
    }

    pub(super) fn detach(&self) {
        let mut state = self.state.lock();
        state.filters = state.filters.saturating_sub(1);
        drop(state);
        self.queue.notify(Events::HUP);
    }

    /// Adds a request; `ENOSYS` without a supervisor.
    fn add(&self, task: &Arc<Task>, data: SeccompData) -> Result<u64, Errno> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Errno::ENOSYS);
        }
        state.next_id += 1;
        let id = state.next_id;
        let request = Request {
            task: task.clone(),
            data,
            received: false,
            answer: None,
        };
        state.requests.insert(id, request);
        drop(state);
        self.queue.notify(Events::READABLE);
        Ok(id)
    }

    fn answer(&self, id: u64) -> Result<Response, Errno> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Errno::ENOSYS);
        }
        let request = state.requests.get(&id).ok_or(Errno::ENOSYS)?;
        let answer = request.answer.ok_or(Errno::EAGAIN)?;
        state.requests.remove(&id);
        Ok(answer)
    }

    fn remove(&self, id: u64) {
        let removed = self.state.lock().requests.remove(&id);
        drop(removed);
    }

    /// The next request that nobody has received.
    fn receive(&self, supervisor: &Task) -> Result<Notification, Errno> {
        let mut state = self.state.lock();
        let ns = supervisor.pid_ns();
        let next = state
            .requests
            .iter_mut()
            .find(|(_, request)| !request.received);
        let Some((id, request)) = next else {
            return Err(if state.filters == 0 {
                Errno::ENOENT
            } else {
                Errno::EAGAIN
            });
        };
        request.received = true;
        Ok(Notification {
            id: *id,
            pid: request.task.tid_in(&ns).unsigned_abs(),
            flags: 0,
            data: request.data,
        })
    }

    fn unreceive(&self, id: u64) {
        if let Some(request) = self.state.lock().requests.get_mut(&id) {
            request.received = false;
        }
    }

    fn send(&self, response: Response) -> Result<(), Errno> {
        let mut state = self.state.lock();
        let request = state.requests.get_mut(&response.id).ok_or(Errno::ENOENT)?;
        if !request.received || request.answer.is_some() {
            return Err(Errno::EINPROGRESS);
        }
        request.answer = Some(response);
        drop(state);
        self.answers.notify(Events::READABLE);
        Ok(())
    }

    fn target(&self, id: u64) -> Result<Arc<Task>, Errno> {
        let state = self.state.lock();
        let request = state.requests.get(&id).ok_or(Errno::ENOENT)?;
        if !request.received || request.answer.is_some() {
            return Err(Errno::EINPROGRESS);
        }
        Ok(request.task.clone())
    }
}

/// Hands the call to the supervisor and waits for what it says.
pub(super) async fn ask(ctx: &mut Ctx<'_>, listener: &Arc<Listener>, data: SeccompData) -> Verdict {
    let id = match listener.add(ctx.task, data) {
        Ok(id) => id,
        Err(error) => return Verdict::Fail(error),
    };
    let answered = ctx
        .wait_on(
            &[&listener.answers],
            Events::READABLE,
            None,
            Errno::EAGAIN,
            || listener.answer(id),
        )
        .await;
    listener.remove(id);
    match answered {
        Ok(answer) if answer.flags & RESP_CONTINUE != 0 => Verdict::Run,
        Ok(answer) if answer.error < 0 => {
            Verdict::Fail(Errno::from_raw(answer.error.saturating_neg()))
        }
        Ok(answer) => Verdict::Answer(answer.value.cast_unsigned()),
        Err(error) => Verdict::Fail(error),
    }
}

struct ListenerFile(Arc<Listener>);

impl ListenerFile {
    async fn receive(&self, ctx: &mut Ctx<'_>, arg: u64) -> SysResult {
        let zero = ctx.read(UserPtr::<Notification>::new(arg)).await?;
        if zero.as_bytes().iter().any(|byte| *byte != 0) {
            return Err(Errno::EINVAL);
        }
        let listener = &self.0;
        let supervisor = ctx.task.clone();
        let notification = ctx
            .wait_on(
                &[&listener.queue],
                Events::READABLE,
                None,
                Errno::EAGAIN,
                || listener.receive(&supervisor),
            )
            .await
            .map_err(|error| match error {
                Errno::ERESTARTSYS => Errno::EINTR,
                other => other,
            })?;
        if let Err(error) = ctx.write(UserPtr::new(arg), &notification).await {
            listener.unreceive(notification.id);
            return Err(error);
        }
        Ok(0)
    }

    async fn add_fd(&self, ctx: &mut Ctx<'_>, arg: u64) -> SysResult {
        let add = ctx.read(UserPtr::<AddFd>::new(arg)).await?;
        if add.flags & !(ADDFD_SETFD | ADDFD_SEND) != 0
            || add.target_flags & !O_CLOEXEC != 0
            || (add.target != 0 && add.flags & ADDFD_SETFD == 0)
        {
            return Err(Errno::EINVAL);
        }
        let number = |raw: u32| i32::try_from(raw).map(Fd).map_err(|_| Errno::EBADF);
        let file = ctx.task.files().get(number(add.source)?)?;
        let target = self.0.target(add.id)?;
        let flags = if add.target_flags & O_CLOEXEC != 0 {
            FdFlags::CLOEXEC
        } else {
            FdFlags::empty()
        };
        let limit = target.group.limit(RLIMIT_NOFILE);
        let files = target.files();
        let fd = if add.flags & ADDFD_SETFD != 0 {
            let fd = number(add.target)?;
            drop(files.replace(fd, file, flags, limit)?);
            fd
        } else {
            files.insert(file, flags, 0, limit)?
        };
        if add.flags & ADDFD_SEND != 0 {
            self.0.send(Response {
                id: add.id,
                value: fd.0.into(),
                error: 0,
                flags: 0,
            })?;
        }
        Ok(u64::from(fd.0.unsigned_abs()))
    }
}

impl FileOps for ListenerFile {
    fn poll(&self, _file: &File) -> Events {
        let state = self.0.state.lock();
        let mut events = Events::empty();
        for request in state.requests.values() {
            if !request.received {
                events |= Events::READABLE;
            } else if request.answer.is_none() {
                events |= Events::WRITABLE;
            }
        }
        if state.filters == 0 {
            events |= Events::HUP;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn ioctl<'a>(
        &'a self,
        ctx: &'a mut Ctx<'_>,
        _file: &'a File,
        command: u32,
        arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async move {
            match command {
                IOCTL_RECV => self.receive(ctx, arg).await,
                IOCTL_SEND => {
                    let response = ctx.read(UserPtr::<Response>::new(arg)).await?;
                    let continues = response.flags & RESP_CONTINUE != 0;
                    if response.flags & !RESP_CONTINUE != 0
                        || (continues && (response.error != 0 || response.value != 0))
                    {
                        return Err(Errno::EINVAL);
                    }
                    self.0.send(response)?;
                    Ok(0)
                }
                IOCTL_ID_VALID | IOCTL_ID_VALID_OLD => {
                    let id = ctx.read(UserPtr::<u64>::new(arg)).await?;
                    match self.0.target(id) {
                        Ok(_) => Ok(0),
                        Err(_) => Err(Errno::ENOENT),
                    }
                }
                IOCTL_ADDFD => self.add_fd(ctx, arg).await,
                // The only flag is a hint to the scheduler.
                IOCTL_SET_FLAGS if arg <= 1 => Ok(0),
                _ => Err(Errno::EINVAL),
            }
        })
    }

    fn release(&self, _file: &File) {
        let requests = {
            let mut state = self.0.state.lock();
            state.closed = true;
            std::mem::take(&mut state.requests)
        };
        drop(requests);
        self.0.answers.notify(Events::READABLE);
    }
}
