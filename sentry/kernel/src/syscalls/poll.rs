//! `poll`, `ppoll`, `select`, `pselect6`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use syscall_tables::Errno;
use syscall_tables::abi::{
    FD_SETSIZE, PollEvents, PollFd, PselectSigmask, RLIMIT_NOFILE, SigSet, Timespec, Timeval,
};

use crate::ctx::{Ctx, SysResult};
use crate::sync::{Events, WaitQueue};
use crate::user::{Args, UserPtr};
use crate::vfs::{Fd, File};

/// Size of a signal set argument.
const SIGSET_SIZE: u64 = 8;

pub async fn poll(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let deadline = match ctx.task.restarted_deadline() {
        Some(deadline) => deadline,
        None => match args.i32(2) {
            millis if millis < 0 => None,
            millis => deadline_in(Duration::from_millis(u64::from(millis.unsigned_abs()))),
        },
    };
    match poll_until(ctx, args, deadline).await {
        Err(Errno::ERESTARTNOHAND) => Err(ctx.task.restart_at(deadline)),
        result => result,
    }
}

pub async fn ppoll(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let timeout = read_timespec(ctx, args.raw(2)).await?;
    let started = Instant::now();
    set_mask(ctx, args.raw(3), args.raw(4)).await?;
    let deadline = timeout.and_then(deadline_in);
    let result = poll_until(ctx, args, deadline).await;
    write_rest(ctx, args.raw(2), timeout, started).await;
    result
}

/// Waits for the `pollfd` array of `args` 0 and 1.
async fn poll_until(ctx: &mut Ctx<'_>, args: Args, deadline: Option<Instant>) -> SysResult {
    let count = args.u32(1);
    if u64::from(count) > ctx.task.group.limit(RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    let array = args.ptr::<PollFd>(0);
    let mut entries = ctx.read_array(array, count as usize).await?;
    let table = ctx.task.files();
    let files: Vec<Option<Result<Arc<File>, Errno>>> = entries
        .iter()
        .map(|entry| (entry.fd >= 0).then(|| table.get(Fd(entry.fd))))
        .collect();
    let mut interest = Events::empty();
    for entry in &entries {
        interest |= Events::from_bits_truncate(u32::from(entry.events));
    }
    let mut attempt = || {
        let mut ready = 0_u64;
        for (entry, file) in entries.iter_mut().zip(&files) {
            entry.revents = match file {
                None => 0,
                Some(Err(_)) => PollEvents::POLLNVAL.as_poll(),
                Some(Ok(file)) => {
                    let wanted = PollEvents::from_poll(entry.events) | PollEvents::ALWAYS;
                    let now = PollEvents::from_bits_truncate(file.ops.poll(file).bits());
                    (now & wanted).as_poll()
                }
            };
            ready += u64::from(entry.revents != 0);
        }
        if ready > 0 {
            Ok(ready)
        } else {
            Err(Errno::EAGAIN)
        }
    };
    let queues = queues(files.iter().filter_map(|file| file.as_ref()?.as_ref().ok()));
    let ready = wait(ctx, &queues, interest, deadline, &mut attempt).await?;
    for (index, entry) in entries.iter().enumerate() {
        let revents = array.element(index)?.addr.saturating_add(6);
        ctx.write(UserPtr::new(revents), &entry.revents).await?;
    }
    Ok(ready)
}

fn queues<'a>(files: impl Iterator<Item = &'a Arc<File>>) -> Vec<&'a WaitQueue> {
    files.filter_map(|file| file.ops.wait_queue()).collect()
}

/// Waits for `attempt`; 0 after `deadline`, `ERESTARTNOHAND` on a signal.
async fn wait(
    ctx: &Ctx<'_>,
    queues: &[&WaitQueue],
    interest: Events,
    deadline: Option<Instant>,
    mut attempt: impl FnMut() -> Result<u64, Errno>,
) -> SysResult {
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return match attempt() {
            Err(Errno::EAGAIN) => Ok(0),
            done => done,
        };
    }
    let waited = ctx.wait_on(queues, interest, deadline, Errno::ETIMEDOUT, attempt);
    match waited.await {
        Err(Errno::ETIMEDOUT) => Ok(0),
        Err(Errno::ERESTARTSYS) => Err(Errno::ERESTARTNOHAND),
        done => done,
    }
}

/// The moment `timeout` from now; `None` (for ever) if that is beyond the
/// clock.
pub(super) fn deadline_in(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// A relative time-out; `None` for a null pointer.
pub(super) async fn read_timespec(ctx: &mut Ctx<'_>, addr: u64) -> Result<Option<Duration>, Errno> {
    let Some(ptr) = UserPtr::<Timespec>::new(addr).non_null() else {
        return Ok(None);
    };
    let time = ctx.read(ptr).await?;
    duration(time.tv_sec, time.tv_nsec).map(Some)
}

fn duration(secs: i64, nanos: i64) -> Result<Duration, Errno> {
    let secs = u64::try_from(secs).map_err(|_| Errno::EINVAL)?;
    let nanos = u32::try_from(nanos).map_err(|_| Errno::EINVAL)?;
    if nanos >= 1_000_000_000 {
        return Err(Errno::EINVAL);
    }
    Ok(Duration::new(secs, nanos))
}

/// Stores what is left of a relative time-out, as the raw calls do; a fault
/// is ignored, as Linux does.
async fn write_rest(ctx: &mut Ctx<'_>, addr: u64, timeout: Option<Duration>, started: Instant) {
    if let Some(timeout) = timeout {
        let rest = timeout.saturating_sub(started.elapsed());
        let rest = Timespec {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(rest.subsec_nanos()),
        };
        let _ = ctx.write(UserPtr::new(addr), &rest).await;
    }
}

/// Sets the signal mask at `addr`, if any, for the duration of the call.
pub(super) async fn set_mask(ctx: &mut Ctx<'_>, addr: u64, size: u64) -> Result<(), Errno> {
    if let Some(ptr) = UserPtr::<u64>::new(addr).non_null() {
        if size != SIGSET_SIZE {
            return Err(Errno::EINVAL);
        }
        let mask = ctx.read(ptr).await?;
        ctx.task.set_temporary_mask(SigSet(mask));
    }
    Ok(())
}

pub async fn select(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let timeout = match args.ptr::<Timeval>(4).non_null() {
        None => None,
        Some(ptr) => {
            let time = ctx.read(ptr).await?;
            // select(2) normalises microseconds of a second and more.
            let micros = u64::try_from(time.tv_usec).map_err(|_| Errno::EINVAL)?;
            let secs = u64::try_from(time.tv_sec).map_err(|_| Errno::EINVAL)?;
            Some(Duration::from_secs(secs).saturating_add(Duration::from_micros(micros)))
        }
    };
    let started = Instant::now();
    let result = select_until(ctx, args, timeout.and_then(deadline_in)).await;
    if let Some(timeout) = timeout {
        let rest = timeout.saturating_sub(started.elapsed());
        let rest = Timeval {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            tv_usec: i64::from(rest.subsec_micros()),
        };
        let _ = ctx.write(args.ptr(4), &rest).await;
    }
    result
}

pub async fn pselect6(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let timeout = read_timespec(ctx, args.raw(4)).await?;
    let started = Instant::now();
    if let Some(ptr) = args.ptr::<PselectSigmask>(5).non_null() {
        let mask = ctx.read(ptr).await?;
        set_mask(ctx, mask.mask, mask.size).await?;
    }
    let result = select_until(ctx, args, timeout.and_then(deadline_in)).await;
    write_rest(ctx, args.raw(4), timeout, started).await;
    result
}

/// The three sets of a select call: bits per descriptor.
struct FdSets {
    sets: [Option<Vec<u64>>; 3],
}

/// What makes a descriptor a member of each result set.
const SELECT_EVENTS: [PollEvents; 3] = [
    PollEvents::SELECT_IN,
    PollEvents::SELECT_OUT,
    PollEvents::SELECT_EX,
];

impl FdSets {
    fn contains(&self, set: usize, fd: usize) -> bool {
        let words = self.sets.get(set).and_then(Option::as_ref);
        let word = words.and_then(|words| words.get(fd / 64));
        word.is_some_and(|word| word & (1 << (fd % 64)) != 0)
    }

    fn put(&mut self, set: usize, fd: usize, member: bool) {
        let words = self.sets.get_mut(set).and_then(Option::as_mut);
        if let Some(word) = words.and_then(|words| words.get_mut(fd / 64)) {
            let bit = 1 << (fd % 64);
            *word = if member { *word | bit } else { *word & !bit };
        }
    }
}

async fn select_until(ctx: &mut Ctx<'_>, args: Args, deadline: Option<Instant>) -> SysResult {
    let count = usize::try_from(args.i32(0)).map_err(|_| Errno::EINVAL)?;
    let table = ctx.task.files();
    // Descriptors beyond the table can't be open; Linux cuts the count too.
    let highest = table
        .list()
        .last()
        .map_or(0, |(fd, ..)| fd.0.unsigned_abs() as usize + 1);
    let count = count.min(highest.max(FD_SETSIZE));
    let words = count.div_ceil(64);
    let mut asked = FdSets {
        sets: [const { None }; 3],
    };
    for (set, slot) in asked.sets.iter_mut().enumerate() {
        if let Some(ptr) = args.ptr::<u64>(set + 1).non_null() {
            *slot = Some(ctx.read_array(ptr, words).await?);
        }
    }
    let mut watched = Vec::new();
    let mut interest = Events::empty();
    for fd in 0..count {
        let mut events = PollEvents::empty();
        for (set, kinds) in SELECT_EVENTS.iter().enumerate() {
            if asked.contains(set, fd) {
                events |= *kinds;
            }
        }
        if !events.is_empty() {
            let number = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
            watched.push((fd, table.get(Fd(number))?));
            interest |= Events::from_bits_truncate(events.bits());
        }
    }
    let mut results = FdSets {
        sets: asked
            .sets
            .each_ref()
            .map(|set| set.as_ref().map(|words| vec![0; words.len()])),
    };
    let attempt = || {
        let mut ready = 0;
        for (fd, file) in &watched {
            let now = PollEvents::from_bits_truncate(file.ops.poll(file).bits());
            for (set, kinds) in SELECT_EVENTS.iter().enumerate() {
                let member = asked.contains(set, *fd) && now.intersects(*kinds);
                results.put(set, *fd, member);
                ready += u64::from(member);
            }
        }
        if ready > 0 {
            Ok(ready)
        } else {
            Err(Errno::EAGAIN)
        }
    };
    let queues = queues(watched.iter().map(|(_, file)| file));
    let ready = wait(ctx, &queues, interest, deadline, attempt).await?;
    for (set, words) in results.sets.iter().enumerate() {
        if let Some(words) = words {
            ctx.write_array(args.ptr(set + 1), words).await?;
        }
    }
    Ok(ready)
}
