//! What the system is and calls that fit nowhere else.

use std::cmp::Ordering;
use std::sync::Arc;

use sentry_platform::host::random;
use syscall_tables::Errno;
use syscall_tables::abi::*;

use crate::ctx::{Ctx, SysResult};
use crate::kernel::{RELEASE, VERSION};
use crate::task::access::AccessCreds;
use crate::task::{CapSet, ExitStatus, Task};
use crate::user::Args;
use crate::vfs::Fd;

/// Longest host or domain name.
const NAME_MAX: usize = 64;

pub async fn uname(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let names = ctx.task.namespaces().uts.names.read().clone();
    let name = Utsname {
        sysname: Utsname::field(b"Linux"),
        nodename: Utsname::field(&names.host),
        release: Utsname::field(RELEASE.as_bytes()),
        version: Utsname::field(VERSION.as_bytes()),
        machine: Utsname::field(b"x86_64"),
        domainname: Utsname::field(&names.domain),
    };
    ctx.write(args.ptr(0), &name).await?;
    Ok(0)
}

async fn read_name(ctx: &mut Ctx<'_>, args: Args) -> Result<Vec<u8>, Errno> {
    let uts = ctx.task.namespaces().uts.clone();
    if !ctx.task.creds().has_in(&uts.user_ns, CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(args.i32(1)).map_err(|_| Errno::EINVAL)?;
    if len > NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let mut name = vec![0; len];
    ctx.read_bytes(args.raw(0), &mut name).await?;
    let end = name.iter().position(|byte| *byte == 0);
    name.truncate(end.unwrap_or(len));
    Ok(name)
}

pub async fn sethostname(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let name = read_name(ctx, args).await?;
    ctx.task.namespaces().uts.names.write().host = name;
    Ok(0)
}

pub async fn setdomainname(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let name = read_name(ctx, args).await?;
    ctx.task.namespaces().uts.names.write().domain = name;
    Ok(0)
}

pub async fn sysinfo(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let kernel = ctx.kernel;
    kernel.measure_all().await;
    let total = kernel.memory_bytes;
    let tasks = kernel.root_pid_ns.tasks().len();
    let info = Sysinfo {
        uptime: i64::try_from(kernel.clock.boottime().as_secs()).unwrap_or(i64::MAX),
        totalram: total,
        freeram: total.saturating_sub(kernel.memory_used_bytes()),
        procs: u16::try_from(tasks).unwrap_or(u16::MAX),
        mem_unit: 1,
        ..Sysinfo::default()
    };
    ctx.write(args.ptr(0), &info).await?;
    Ok(0)
}

pub async fn getcpu(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    for index in 0..2 {
        if let Some(ptr) = args.ptr::<u32>(index).non_null() {
            ctx.write(ptr, &0).await?;
        }
    }
    Ok(0)
}

pub async fn getrandom(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    const WINDOW: usize = 4096;
    let flags = GetrandomFlags::from_bits(args.u32(2)).ok_or(Errno::EINVAL)?;
    if flags.contains(GetrandomFlags::GRND_RANDOM | GetrandomFlags::GRND_INSECURE) {
        return Err(Errno::EINVAL);
    }
    let len = args.usize(1).min(i32::MAX.unsigned_abs() as usize);
    let mut bytes = vec![0; WINDOW.min(len)];
    let mut done = 0;
    while done < len {
        let window = bytes.get_mut(..WINDOW.min(len - done)).unwrap_or_default();
        random::fill(window)?;
        let at = args.raw(0).checked_add(done as u64).ok_or(Errno::EFAULT)?;
        let stored = ctx.write_partial(at, window).await;
        done += stored;
        if stored < window.len() {
            return if done == 0 {
                Err(Errno::EFAULT)
            } else {
                Ok(done as u64)
            };
        }
        if ctx.task.is_killed() {
            break;
        }
    }
    Ok(done as u64)
}

pub async fn membarrier(_ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    // A query answers which commands there are: none yet.
    if args.u32(0) == 0 && args.u32(1) == 0 {
        Ok(0)
    } else {
        Err(Errno::EINVAL)
    }
}

pub async fn kcmp(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let ns = ctx.task.pid_ns();
    let first = ns.task(args.i32(0)).ok_or(Errno::ESRCH)?;
    let second = ns.task(args.i32(1)).ok_or(Errno::ESRCH)?;
    for task in [&first, &second] {
        if !task.may_be_accessed_by(ctx.task, AccessCreds::Real) {
            return Err(Errno::EPERM);
        }
    }
    let address = |task: &Arc<Task>| match args.u32(2) {
        KCMP_VM => Ok(Arc::as_ptr(&task.mm()).addr()),
        KCMP_FILES => Ok(Arc::as_ptr(&task.files()).addr()),
        KCMP_FS => Ok(Arc::as_ptr(&task.fs()).addr()),
        KCMP_SIGHAND => Ok(Arc::as_ptr(&task.group.sighand()).addr()),
        KCMP_IO | KCMP_SYSVSEM => Ok(Arc::as_ptr(&task.group).addr()),
        _ => Err(Errno::EINVAL),
    };
    let (left, right) = if args.u32(2) == KCMP_FILE {
        let fd = |index: usize| {
            i32::try_from(args.raw(index))
                .map(Fd)
                .map_err(|_| Errno::EBADF)
        };
        let left = first.files().get(fd(3)?)?;
        let right = second.files().get(fd(4)?)?;
        (Arc::as_ptr(&left).addr(), Arc::as_ptr(&right).addr())
    } else {
        (address(&first)?, address(&second)?)
    };
    Ok(match left.cmp(&right) {
        Ordering::Equal => 0,
        Ordering::Less => 1,
        Ordering::Greater => 2,
    })
}

/// Actions of `syslog(2)`.
const SYSLOG_READ_ALL: u32 = 3;
const SYSLOG_CONSOLE_LEVEL: u32 = 8;
const SYSLOG_SIZE_BUFFER: u32 = 10;
/// Size of the kernel's log, which has nothing in it.
const LOG_SIZE: u64 = 1 << 17;

pub async fn syslog(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (action, len) = (args.u32(0), args.i32(2));
    if action > SYSLOG_SIZE_BUFFER {
        return Err(Errno::EINVAL);
    }
    let open_to_all = matches!(action, SYSLOG_READ_ALL | SYSLOG_SIZE_BUFFER);
    if !open_to_all && !ctx.task.creds().has(CapSet::SYSLOG) {
        return Err(Errno::EPERM);
    }
    match action {
        2..=4 if args.raw(1) == 0 || len < 0 => Err(Errno::EINVAL),
        SYSLOG_CONSOLE_LEVEL if !(1..=8).contains(&len) => Err(Errno::EINVAL),
        SYSLOG_SIZE_BUFFER => Ok(LOG_SIZE),
        _ => Ok(0),
    }
}

/// Magic numbers and commands of `reboot(2)`.
const REBOOT_MAGIC: u32 = 0xfee1_dead;
const REBOOT_MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
const REBOOT_RESTART: u32 = 0x0123_4567;
const REBOOT_RESTART2: u32 = 0xa1b2_c3d4;
const REBOOT_HALT: u32 = 0xcdef_0123;
const REBOOT_POWER_OFF: u32 = 0x4321_fedc;

/// In a pid namespace this ends its init, as if by a signal that says which
/// of the two it was.
pub async fn reboot(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let creds = ctx.task.creds();
    let ns = ctx.task.pid_ns();
    if !creds.has_in(&ns.user_ns, CapSet::SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    if args.u32(0) != REBOOT_MAGIC || !REBOOT_MAGIC2.contains(&args.u32(1)) {
        return Err(Errno::EINVAL);
    }
    let signal = match args.u32(2) {
        REBOOT_RESTART | REBOOT_RESTART2 => Signal::SIGHUP,
        REBOOT_HALT | REBOOT_POWER_OFF => Signal::SIGINT,
        _ => return Err(Errno::EINVAL),
    };
    if let Some(init) = ns.init() {
        init.begin_exit(ExitStatus::Signal {
            signal,
            core: false,
        });
    }
    Ok(0)
}
