//! Text of structs behind an address.

use zerocopy::FromBytes;

use super::args::{device, fd_set, mode, struct_len};
use super::signals::{sigaction, siginfo, signal, sigset, wait_status};
use super::text::{addr, flags, hex, list, name, octal, quote, read_exact};
use super::{Memory, Options};
use crate::abi;
use crate::table::Struct;

/// A struct at an address.
pub fn one(what: Struct, at: u64, args: &[u64; 6], memory: &mut dyn Memory) -> String {
    if at == 0 {
        return "NULL".to_owned();
    }
    read_exact(memory, at, struct_len(what, args))
        .and_then(|bytes| decode(what, &bytes, args, Moment::Before))
        .unwrap_or_else(|| addr(at))
}

/// `count` structs at an address, before the call.
pub fn array(
    what: Struct,
    at: u64,
    count: u64,
    args: &[u64; 6],
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    elements(what, at, count, args, Moment::Before, memory, options)
}

/// `count` structs at an address that the call has changed.
pub fn array_after(
    what: Struct,
    at: u64,
    count: u64,
    args: &[u64; 6],
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    elements(what, at, count, args, Moment::After, memory, options)
}

/// A 32-bit number at an address.
pub fn uint_at(at: u64, memory: &mut dyn Memory) -> Option<u32> {
    get(&read_exact(memory, at, 4)?)
}

/// Whether the call has filled the struct in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

fn elements(
    what: Struct,
    at: u64,
    count: u64,
    args: &[u64; 6],
    moment: Moment,
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    if at == 0 {
        return "NULL".to_owned();
    }
    let shown = usize::try_from(count).map_or(options.max_array, |n| n.min(options.max_array));
    let size = what.size_bytes();
    if shown == 0 {
        return list(&[], count > 0);
    }
    let Some(bytes) = read_exact(memory, at, shown * size) else {
        return addr(at);
    };
    let items: Vec<_> = bytes
        .chunks_exact(size)
        .map(|bytes| match what {
            // Brackets mark a single number behind an address; here the list
            // has its own.
            Struct::Uint => get::<u32>(bytes).map(|n| n.to_string()),
            Struct::Long => get::<i64>(bytes).map(|n| n.to_string()),
            what => decode(what, bytes, args, moment),
        })
        .map(|text| text.unwrap_or_else(|| "?".to_owned()))
        .collect();
    list(&items, count > shown as u64)
}

fn get<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(value, _)| value)
}

fn decode(what: Struct, bytes: &[u8], args: &[u64; 6], moment: Moment) -> Option<String> {
    Some(match what {
        Struct::Int => format!("[{}]", get::<i32>(bytes)?),
        Struct::Uint => format!("[{}]", get::<u32>(bytes)?),
        Struct::IntPair => {
            let [a, b] = get::<[i32; 2]>(bytes)?;
            format!("[{a}, {b}]")
        }
        Struct::Long => format!("[{}]", get::<i64>(bytes)?),
        Struct::Word => format!("[{}]", hex(get(bytes)?)),
        Struct::WaitStatus => format!("[{}]", wait_status(get(bytes)?)),
        Struct::FdSet => fd_set(bytes, args),
        Struct::SigSet => sigset(get(bytes)?),
        Struct::Stat => stat(&get(bytes)?),
        Struct::Statx => statx(&get(bytes)?),
        Struct::Statfs => statfs(&get(bytes)?),
        Struct::FileAttr => {
            let a: abi::FileAttr = get(bytes)?;
            format!(
                "{{fa_xflags={}, fa_extsize={}, fa_projid={}}}",
                hex(a.fa_xflags),
                a.fa_extsize,
                a.fa_projid
            )
        }
        Struct::Timespec => timespec(get(bytes)?),
        Struct::TimespecPair => {
            let [a, b] = get::<[abi::Timespec; 2]>(bytes)?;
            format!("[{}, {}]", utime(a), utime(b))
        }
        Struct::Timeval => timeval(get(bytes)?),
        Struct::TimevalPair => {
            let [a, b] = get::<[abi::Timeval; 2]>(bytes)?;
            format!("[{}, {}]", timeval(a), timeval(b))
        }
        Struct::Timezone => {
            let t: abi::Timezone = get(bytes)?;
            format!(
                "{{tz_minuteswest={}, tz_dsttime={}}}",
                t.tz_minuteswest, t.tz_dsttime
            )
        }
        Struct::Utimbuf => {
            let t: abi::Utimbuf = get(bytes)?;
            format!("{{actime={}, modtime={}}}", t.actime, t.modtime)
        }
        Struct::Itimerval => {
            let t: abi::Itimerval = get(bytes)?;
            format!(
                "{{it_interval={}, it_value={}}}",
                timeval(t.it_interval),
                timeval(t.it_value)
            )
        }
        Struct::Itimerspec => {
            let t: abi::Itimerspec = get(bytes)?;
            format!(
                "{{it_interval={}, it_value={}}}",
                timespec(t.it_interval),
                timespec(t.it_value)
            )
        }
        Struct::Timex => {
            let t: abi::Timex = get(bytes)?;
            format!(
                "{{modes={}, offset={}, freq={}, status={}, ...}}",
                hex(t.modes.into()),
                t.offset,
                t.freq,
                hex(t.status as u32 as u64)
            )
        }
        Struct::Tms => {
            let t: abi::Tms = get(bytes)?;
            format!(
                "{{tms_utime={}, tms_stime={}, tms_cutime={}, tms_cstime={}}}",
                t.tms_utime, t.tms_stime, t.tms_cutime, t.tms_cstime
            )
        }
        Struct::Rusage => {
            let r: abi::Rusage = get(bytes)?;
            format!(
                "{{ru_utime={}, ru_stime={}, ...}}",
                timeval(r.ru_utime),
                timeval(r.ru_stime)
            )
        }
        Struct::Rlimit => {
            let r: abi::Rlimit = get(bytes)?;
            format!(
                "{{rlim_cur={}, rlim_max={}}}",
                rlim(r.rlim_cur),
                rlim(r.rlim_max)
            )
        }
        Struct::Utsname => {
            let u: abi::Utsname = get(bytes)?;
            format!(
                "{{sysname={}, nodename={}, release={}, ...}}",
                c_string(&u.sysname),
                c_string(&u.nodename),
                c_string(&u.release)
            )
        }
        Struct::Sysinfo => {
            let s: abi::Sysinfo = get(bytes)?;
            format!(
                "{{uptime={}, totalram={}, freeram={}, procs={}, mem_unit={}, ...}}",
                s.uptime, s.totalram, s.freeram, s.procs, s.mem_unit
            )
        }
        Struct::SigAction => sigaction(&get(bytes)?),
        Struct::SigInfo => siginfo(&get(bytes)?),
        Struct::SigEvent => {
            let e: abi::SigEvent = get(bytes)?;
            format!(
                "{{sigev_value={}, sigev_signo={}, sigev_notify={}}}",
                hex(e.sigev_value),
                signal(e.sigev_signo),
                name(&abi::SIGEV, e.sigev_notify as u64)
            )
        }
        Struct::StackT => {
            let s: abi::StackT = get(bytes)?;
            format!(
                "{{ss_sp={}, ss_flags={}, ss_size={}}}",
                addr(s.ss_sp),
                flags(&abi::SS_FLAGS, s.ss_flags.into()),
                s.ss_size
            )
        }
        Struct::SignalMaskArg => {
            let p: abi::PselectSigmask = get(bytes)?;
            format!("{{ss={}, ss_len={}}}", addr(p.mask), p.size)
        }
        Struct::PollFd => pollfd(&get(bytes)?, moment),
        Struct::EpollEvent => {
            let e: abi::EpollEvent = get(bytes)?;
            let (events, data) = (e.events, e.data);
            format!("{{events={}, data={}}}", epoll_events(events), hex(data))
        }
        Struct::CloneArgs => {
            // Only the first version is read; later fields are rare.
            let word = |index: usize| get::<u64>(bytes.get(index * 8..)?);
            format!(
                "{{flags={}, exit_signal={}, stack={}, stack_size={}, tls={}}}",
                flags(&abi::CLONE_FLAGS, word(0)?),
                signal(word(4)? as i32),
                addr(word(5)?),
                hex(word(6)?),
                addr(word(7)?)
            )
        }
        Struct::SchedParam => format!("[{}]", get::<i32>(bytes)?),
        Struct::SchedAttr => {
            let s: abi::SchedAttr = get(bytes)?;
            format!(
                "{{size={}, sched_policy={}, sched_flags={}, sched_nice={}, sched_priority={}, ...}}",
                s.size,
                name(&abi::SCHED_POLICIES, s.sched_policy.into()),
                flags(&abi::SCHED_FLAGS, s.sched_flags),
                s.sched_nice,
                s.sched_priority
            )
        }
        Struct::RobustListHead => {
            let r: abi::RobustListHead = get(bytes)?;
            format!(
                "{{list={}, futex_offset={}, list_op_pending={}}}",
                addr(r.list),
                r.futex_offset,
                addr(r.list_op_pending)
            )
        }
        Struct::FutexWaitv => {
            let f: abi::FutexWaitv = get(bytes)?;
            format!(
                "{{val={}, uaddr={}, flags={}}}",
                hex(f.val),
                addr(f.uaddr),
                flags(&abi::FUTEX2_FLAGS, f.flags.into())
            )
        }
        Struct::OpenHow => {
            let h: abi::OpenHow = get(bytes)?;
            format!(
                "{{flags={}, mode={}, resolve={}}}",
                flags(&abi::OPEN_FLAGS, h.flags),
                octal(h.mode),
                flags(&abi::RESOLVE_FLAGS, h.resolve)
            )
        }
        Struct::XattrArgs => {
            let a: abi::XattrArgs = get(bytes)?;
            format!(
                "{{value={}, size={}, flags={}}}",
                addr(a.value),
                a.size,
                flags(&abi::XATTR_FLAGS, a.flags.into())
            )
        }
        Struct::MountAttr => {
            let a: abi::MountAttr = get(bytes)?;
            format!(
                "{{attr_set={}, attr_clr={}, propagation={}, userns_fd={}}}",
                flags(&abi::MOUNT_ATTR_FLAGS, a.attr_set),
                flags(&abi::MOUNT_ATTR_FLAGS, a.attr_clr),
                flags(&abi::MOUNT_FLAGS, a.propagation),
                a.userns_fd
            )
        }
        Struct::MntIdReq => {
            let r: abi::MntIdReq = get(bytes)?;
            format!(
                "{{size={}, mnt_id={}, param={}}}",
                r.size,
                hex(r.mnt_id),
                hex(r.param)
            )
        }
        Struct::CapHeader => {
            let h: abi::CapUserHeader = get(bytes)?;
            format!("{{version={}, pid={}}}", hex(h.version.into()), h.pid)
        }
        Struct::CapData => {
            let [a, b] = get::<[abi::CapUserData; 2]>(bytes)?;
            let set =
                |low: u32, high: u32| flags(&abi::CAP_SET, u64::from(low) | u64::from(high) << 32);
            format!(
                "{{effective={}, permitted={}, inheritable={}}}",
                set(a.effective, b.effective),
                set(a.permitted, b.permitted),
                set(a.inheritable, b.inheritable)
            )
        }
        Struct::Sembuf => {
            let s: abi::Sembuf = get(bytes)?;
            let flg = match u32::from(s.sem_flg) {
                0 => "0".to_owned(),
                bits => {
                    let undo = bits & u32::from(abi::SEM_UNDO) != 0;
                    let nowait = bits & abi::IPC_NOWAIT != 0;
                    match (undo, nowait) {
                        (true, true) => "SEM_UNDO|IPC_NOWAIT".to_owned(),
                        (true, false) => "SEM_UNDO".to_owned(),
                        (false, true) => "IPC_NOWAIT".to_owned(),
                        (false, false) => hex(bits.into()),
                    }
                }
            };
            format!("{{{}, {}, {flg}}}", s.sem_num, s.sem_op)
        }
        Struct::ShmidDs => {
            let s: abi::ShmidDs = get(bytes)?;
            format!(
                "{{shm_perm={}, shm_segsz={}, shm_cpid={}, shm_nattch={}, ...}}",
                ipc_perm(&s.shm_perm),
                s.shm_segsz,
                s.shm_cpid,
                s.shm_nattch
            )
        }
        Struct::MsqidDs => {
            let m: abi::MsqidDs = get(bytes)?;
            format!(
                "{{msg_perm={}, msg_qnum={}, msg_qbytes={}, ...}}",
                ipc_perm(&m.msg_perm),
                m.msg_qnum,
                m.msg_qbytes
            )
        }
        Struct::MqAttr => {
            let m: abi::MqAttr = get(bytes)?;
            format!(
                "{{mq_flags={}, mq_maxmsg={}, mq_msgsize={}, mq_curmsgs={}}}",
                flags(&abi::OPEN_FLAGS, m.mq_flags as u64 & !3),
                m.mq_maxmsg,
                m.mq_msgsize,
                m.mq_curmsgs
            )
        }
        Struct::SockFprog => {
            let p: abi::SockFprog = get(bytes)?;
            format!("{{len={}, filter={}}}", p.len, addr(p.filter))
        }
        Struct::Termios => {
            let t: abi::Termios = get(bytes)?;
            format!(
                "{{c_iflag={}, c_oflag={}, c_cflag={}, c_lflag={}, ...}}",
                flags(&abi::INPUT_FLAGS, t.c_iflag.into()),
                flags(&abi::OUTPUT_FLAGS, t.c_oflag.into()),
                flags(&abi::CONTROL_FLAGS, t.c_cflag.into()),
                flags(&abi::LOCAL_FLAGS, t.c_lflag.into())
            )
        }
        Struct::Winsize => {
            let w: abi::Winsize = get(bytes)?;
            format!(
                "{{ws_row={}, ws_col={}, ws_xpixel={}, ws_ypixel={}}}",
                w.ws_row, w.ws_col, w.ws_xpixel, w.ws_ypixel
            )
        }
        Struct::Flock => {
            let f: abi::Flock = get(bytes)?;
            format!(
                "{{l_type={}, l_whence={}, l_start={}, l_len={}, l_pid={}}}",
                name(&abi::LOCK_TYPES, f.l_type as u64),
                name(&abi::SEEK_WHENCE, f.l_whence as u64),
                f.l_start,
                f.l_len,
                f.l_pid
            )
        }
        Struct::Iovec => {
            let v: abi::Iovec = get(bytes)?;
            format!("{{iov_base={}, iov_len={}}}", addr(v.iov_base), v.iov_len)
        }
        Struct::FileHandle => {
            let h: abi::FileHandleHeader = get(bytes)?;
            format!(
                "{{handle_bytes={}, handle_type={}, ...}}",
                h.handle_bytes, h.handle_type
            )
        }
    })
}

fn timespec(t: abi::Timespec) -> String {
    format!("{{tv_sec={}, tv_nsec={}}}", t.tv_sec, t.tv_nsec)
}

fn utime(t: abi::Timespec) -> String {
    match t.tv_nsec {
        abi::UTIME_NOW => "UTIME_NOW".to_owned(),
        abi::UTIME_OMIT => "UTIME_OMIT".to_owned(),
        _ => timespec(t),
    }
}

fn timeval(t: abi::Timeval) -> String {
    format!("{{tv_sec={}, tv_usec={}}}", t.tv_sec, t.tv_usec)
}

fn rlim(value: u64) -> String {
    match value {
        abi::RLIM_INFINITY => "RLIM64_INFINITY".to_owned(),
        value => value.to_string(),
    }
}

fn c_string(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    quote(field.get(..end).unwrap_or(field), false)
}

fn stat(s: &abi::Stat) -> String {
    let kind = s.st_mode & abi::S_IFMT;
    let what = if kind == abi::S_IFCHR || kind == abi::S_IFBLK {
        format!("st_rdev={}", device(s.st_rdev))
    } else {
        format!("st_size={}", s.st_size)
    };
    format!("{{st_mode={}, {what}, ...}}", mode(s.st_mode))
}

fn statx(s: &abi::Statx) -> String {
    format!(
        "{{stx_mask={}, stx_attributes={}, stx_mode={}, stx_size={}, ...}}",
        flags(&abi::STATX_MASK, s.stx_mask.into()),
        flags(&abi::STATX_ATTR, s.stx_attributes),
        mode(s.stx_mode.into()),
        s.stx_size
    )
}

fn statfs(s: &abi::Statfs) -> String {
    format!(
        "{{f_type={}, f_bsize={}, f_blocks={}, f_bfree={}, f_flags={}, ...}}",
        name(&abi::FS_MAGIC, s.f_type as u64),
        s.f_bsize,
        s.f_blocks,
        s.f_bfree,
        flags(&abi::ST_FLAGS, s.f_flags as u64)
    )
}

fn pollfd(p: &abi::PollFd, moment: Moment) -> String {
    let mut out = format!(
        "{{fd={}, events={}",
        p.fd,
        flags(&abi::POLL_EVENTS, p.events.into())
    );
    if moment == Moment::After && p.revents != 0 {
        out.push_str(", revents=");
        out.push_str(&flags(&abi::POLL_EVENTS, p.revents.into()));
    }
    out.push('}');
    out
}

fn epoll_events(events: u32) -> String {
    flags(&abi::POLL_EVENTS, events.into())
        .split('|')
        .map(|name| match name.strip_prefix("POLL") {
            Some(_) => format!("E{name}"),
            None => name.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("|")
}

fn ipc_perm(p: &abi::IpcPerm) -> String {
    format!(
        "{{uid={}, gid={}, mode={}, key={}}}",
        p.uid,
        p.gid,
        octal(p.mode.into()),
        hex(p.key as u32 as u64)
    )
}
