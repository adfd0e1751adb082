//! What any socket has: its wait queue, pending error and the options at
//! `SOL_SOCKET` (`socket(7)`).

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{
    Linger, SO_ACCEPTCONN, SO_BROADCAST, SO_BSDCOMPAT, SO_BUF_LOCK, SO_BUSY_POLL, SO_COOKIE,
    SO_DEBUG, SO_DOMAIN, SO_DONTROUTE, SO_ERROR, SO_INCOMING_CPU, SO_KEEPALIVE, SO_LINGER, SO_MARK,
    SO_MAX_PACING_RATE, SO_NO_CHECK, SO_OOBINLINE, SO_PASSCRED, SO_PASSPIDFD, SO_PASSSEC,
    SO_PEEK_OFF, SO_PRIORITY, SO_PROTOCOL, SO_RCVBUF, SO_RCVBUFFORCE, SO_RCVLOWAT, SO_RCVTIMEO,
    SO_RCVTIMEO_NEW, SO_REUSEADDR, SO_REUSEPORT, SO_RXQ_OVFL, SO_SELECT_ERR_QUEUE, SO_SNDBUF,
    SO_SNDBUFFORCE, SO_SNDLOWAT, SO_SNDTIMEO, SO_SNDTIMEO_NEW, SO_TIMESTAMP, SO_TIMESTAMP_NEW,
    SO_TIMESTAMPING, SO_TIMESTAMPNS, SO_TIMESTAMPNS_NEW, SO_TYPE, SO_ZEROCOPY, Timeval,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::ctx::Ctx;
use crate::sync::{Events, WaitQueue};
use crate::task::{CapSet, Uid};

/// `/proc/sys/net/core/wmem_max` and `rmem_max`.
const BUFFER_MAX: u32 = 212_992;
/// Least send buffer.
const SEND_BUFFER_MIN: u32 = 4608;
/// Least receive buffer.
const RECV_BUFFER_MIN: u32 = 2304;
/// Largest buffer the privileged can set.
const BUFFER_FORCE_MAX: u32 = 1 << 30;

/// Options at `SOL_SOCKET`.
#[derive(Clone)]
pub struct CommonOptions {
    /// Bit N: boolean option number N is on.
    switches: u128,
    pub send_buffer: usize,
    pub recv_buffer: usize,
    pub linger: Linger,
    pub recv_timeout: Option<Duration>,
    pub send_timeout: Option<Duration>,
    recv_low: i32,
    priority: i32,
    mark: i32,
    peek_offset: i32,
    busy_poll: i32,
    incoming_cpu: i32,
    timestamping: i32,
    buffer_lock: i32,
    pacing_rate: u64,
}

/// Options that are on or off.
const SWITCHES: [u32; 21] = [
    SO_DEBUG,
    SO_REUSEADDR,
    SO_DONTROUTE,
    SO_BROADCAST,
    SO_KEEPALIVE,
    SO_OOBINLINE,
    SO_NO_CHECK,
    SO_REUSEPORT,
    SO_PASSCRED,
    SO_TIMESTAMP,
    SO_PASSSEC,
    SO_TIMESTAMPNS,
    SO_RXQ_OVFL,
    SO_SELECT_ERR_QUEUE,
    SO_ZEROCOPY,
    SO_TIMESTAMP_NEW,
    SO_TIMESTAMPNS_NEW,
    SO_PASSPIDFD,
    SO_WIFI_STATUS_OPTION,
    SO_NOFCS_OPTION,
    SO_RCVMARK_OPTION,
];
const SO_WIFI_STATUS_OPTION: u32 = 41;
const SO_NOFCS_OPTION: u32 = 43;
const SO_RCVMARK_OPTION: u32 = 75;

impl CommonOptions {
    fn new() -> Self {
        Self {
            switches: 0,
            send_buffer: BUFFER_MAX as usize,
            recv_buffer: BUFFER_MAX as usize,
            linger: Linger::default(),
            recv_timeout: None,
            send_timeout: None,
            recv_low: 1,
            priority: 0,
            mark: 0,
            peek_offset: -1,
            busy_poll: 0,
            incoming_cpu: -1,
            timestamping: 0,
            buffer_lock: 0,
            pacing_rate: u64::MAX,
        }
    }

    /// The send buffer if the guest has set it.
    pub fn set_send_buffer(&self) -> Option<usize> {
        (self.buffer_lock & 1 != 0).then_some(self.send_buffer)
    }

    /// The receive buffer if the guest has set it.
    pub fn set_recv_buffer(&self) -> Option<usize> {
        (self.buffer_lock & 2 != 0).then_some(self.recv_buffer)
    }

    /// Whether a boolean option is on.
    pub fn is_on(&self, name: u32) -> bool {
        name < 128 && self.switches & (1 << name) != 0
    }

    fn switch(&mut self, name: u32, on: bool) {
        let bit = 1 << (name % 128);
        self.switches = if on {
            self.switches | bit
        } else {
            self.switches & !bit
        };
    }
}

/// The part that all sockets have.
pub struct SocketBase {
    pub domain: u16,
    pub kind: u32,
    pub protocol: u32,
    /// Inode number, shown in `/proc/net` and as `socket:[N]`.
    pub ino: u64,
    pub queue: WaitQueue,
    /// Who made it (fs uid).
    pub owner: Uid,
    pub options: Mutex<CommonOptions>,
    /// `SO_PASSCRED`, apart for quick looks.
    pass_credentials: AtomicBool,
    /// Pending error number, 0 for none.
    error: AtomicI32,
}

impl SocketBase {
    pub fn new(domain: u16, kind: u32, protocol: u32, ino: u64, owner: Uid) -> Self {
        Self {
            domain,
            kind,
            protocol,
            ino,
            queue: WaitQueue::new(),
            owner,
            options: Mutex::new(CommonOptions::new()),
            pass_credentials: AtomicBool::new(false),
            error: AtomicI32::new(0),
        }
    }

    /// A socket that a listener of these properties accepts.
    pub fn accepted(&self, ino: u64) -> Self {
        let options = self.options.lock().clone();
        Self {
            options: Mutex::new(options),
            pass_credentials: AtomicBool::new(self.passes_credentials()),
            ..Self::new(self.domain, self.kind, self.protocol, ino, self.owner)
        }
    }

    /// Sets the buffer sizes a kind of socket starts with.
    pub fn set_buffers(&self, send: usize, recv: usize) {
        let mut options = self.options.lock();
        options.send_buffer = send;
        options.recv_buffer = recv;
    }

    pub fn passes_credentials(&self) -> bool {
        self.pass_credentials.load(Ordering::Relaxed)
    }

    pub fn is_on(&self, name: u32) -> bool {
        self.options.lock().is_on(name)
    }

    pub fn send_buffer(&self) -> usize {
        self.options.lock().send_buffer
    }

    pub fn recv_buffer(&self) -> usize {
        self.options.lock().recv_buffer
    }

    /// Sets the error that the next call, or `SO_ERROR`, reports.
    pub fn set_error(&self, errno: Errno) {
        self.error.store(errno.raw(), Ordering::Release);
    }

    pub fn has_error(&self) -> bool {
        self.error.load(Ordering::Acquire) != 0
    }

    /// Takes the pending error.
    pub fn take_error(&self) -> Result<(), Errno> {
        if !self.has_error() {
            return Ok(());
        }
        match self.error.swap(0, Ordering::AcqRel) {
            0 => Ok(()),
            number => Err(Errno::from_raw(number)),
        }
    }

    /// Tells waiters that everything about this socket has changed.
    pub fn notify_all(&self) {
        self.queue.notify(
            Events::READABLE | Events::WRITABLE | Events::RDHUP | Events::HUP | Events::ERR,
        );
    }

    /// `setsockopt` at `SOL_SOCKET`; `ENOPROTOOPT` for what is not common.
    pub fn set_option(&self, ctx: &Ctx<'_>, name: u32, value: &[u8]) -> Result<(), Errno> {
        let number = int_option(value)?;
        let creds = ctx.task.creds();
        let mut options = self.options.lock();
        if SWITCHES.contains(&name) {
            options.switch(name, number != 0);
            if name == SO_PASSCRED {
                self.pass_credentials.store(number != 0, Ordering::Relaxed);
            }
            return Ok(());
        }
        match name {
            SO_SNDBUF => {
                let bytes = number.unsigned_abs().min(BUFFER_MAX);
                options.send_buffer = (bytes * 2).max(SEND_BUFFER_MIN) as usize;
                options.buffer_lock |= 1;
            }
            SO_RCVBUF => {
                let bytes = number.unsigned_abs().min(BUFFER_MAX);
                options.recv_buffer = (bytes * 2).max(RECV_BUFFER_MIN) as usize;
                options.buffer_lock |= 2;
            }
            SO_SNDBUFFORCE | SO_RCVBUFFORCE => {
                if !creds.has_own(CapSet::NET_ADMIN) {
                    return Err(Errno::EPERM);
                }
                let bytes = number.max(0).unsigned_abs().min(BUFFER_FORCE_MAX / 2) * 2;
                if name == SO_SNDBUFFORCE {
                    options.send_buffer = bytes.max(SEND_BUFFER_MIN) as usize;
                } else {
                    options.recv_buffer = bytes.max(RECV_BUFFER_MIN) as usize;
                }
            }
            SO_LINGER => {
                let (linger, _) = Linger::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
                options.linger = Linger {
                    l_onoff: i32::from(linger.l_onoff != 0),
                    l_linger: linger.l_linger.max(0),
                };
            }
            SO_RCVTIMEO | SO_RCVTIMEO_NEW => options.recv_timeout = timeout(value)?,
            SO_SNDTIMEO | SO_SNDTIMEO_NEW => options.send_timeout = timeout(value)?,
            SO_RCVLOWAT => options.recv_low = if number < 0 { i32::MAX } else { number.max(1) },
            SO_PRIORITY => {
                if !(0..=6).contains(&number) && !creds.has_own(CapSet::NET_ADMIN) {
                    return Err(Errno::EPERM);
                }
                options.priority = number;
            }
            SO_MARK => {
                if !creds.has_own(CapSet::NET_ADMIN) && !creds.has_own(CapSet::NET_RAW) {
                    return Err(Errno::EPERM);
                }
                options.mark = number;
            }
            SO_PEEK_OFF => options.peek_offset = number,
            SO_BUSY_POLL => {
                if number < 0 {
                    return Err(Errno::EINVAL);
                }
                if number > options.busy_poll && !creds.has_own(CapSet::NET_ADMIN) {
                    return Err(Errno::EPERM);
                }
                options.busy_poll = number;
            }
            SO_INCOMING_CPU => options.incoming_cpu = number,
            SO_TIMESTAMPING => options.timestamping = number,
            SO_BUF_LOCK => options.buffer_lock = number & 3,
            SO_MAX_PACING_RATE => {
                options.pacing_rate = match u64::read_from_prefix(value) {
                    Ok((rate, _)) => rate,
                    Err(_) => u64::from(number.cast_unsigned()),
                };
            }
            SO_BSDCOMPAT => {}
            // Read-only ones.
            SO_TYPE | SO_PROTOCOL | SO_DOMAIN | SO_ERROR | SO_SNDLOWAT => {
                return Err(Errno::ENOPROTOOPT);
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// `getsockopt` at `SOL_SOCKET`; `ENOPROTOOPT` for what is not common.
    /// `listening` is what `SO_ACCEPTCONN` says.
    pub fn get_option(&self, name: u32, listening: bool, max_len: usize) -> Result<Vec<u8>, Errno> {
        let options = self.options.lock();
        let number = match name {
            _ if SWITCHES.contains(&name) => i32::from(options.is_on(name)),
            SO_TYPE => self.kind.cast_signed(),
            SO_PROTOCOL => self.protocol.cast_signed(),
            SO_DOMAIN => i32::from(self.domain),
            SO_ERROR => match self.take_error() {
                Ok(()) => 0,
                Err(errno) => errno.raw(),
            },
            SO_ACCEPTCONN => i32::from(listening),
            SO_SNDBUF => i32::try_from(options.send_buffer).unwrap_or(i32::MAX),
            SO_RCVBUF => i32::try_from(options.recv_buffer).unwrap_or(i32::MAX),
            SO_LINGER => return Ok(options.linger.as_bytes().to_vec()),
            SO_RCVTIMEO | SO_RCVTIMEO_NEW => return Ok(timeval(options.recv_timeout)),
            SO_SNDTIMEO | SO_SNDTIMEO_NEW => return Ok(timeval(options.send_timeout)),
            SO_RCVLOWAT => options.recv_low,
            SO_SNDLOWAT => 1,
            SO_PRIORITY => options.priority,
            SO_MARK => options.mark,
            SO_PEEK_OFF => options.peek_offset,
            SO_BUSY_POLL => options.busy_poll,
            SO_INCOMING_CPU => options.incoming_cpu,
            SO_TIMESTAMPING => options.timestamping,
            SO_BUF_LOCK => options.buffer_lock,
            SO_BSDCOMPAT => 0,
            SO_MAX_PACING_RATE => {
                if max_len < 8 {
                    return Ok(u32::MAX.to_ne_bytes().to_vec());
                }
                return Ok(options.pacing_rate.to_ne_bytes().to_vec());
            }
            SO_COOKIE => {
                if max_len < 8 {
                    return Err(Errno::EINVAL);
                }
                return Ok(self.ino.to_ne_bytes().to_vec());
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(number.to_ne_bytes().to_vec())
    }
}

/// The `int` an option value starts with.
pub fn int_option(value: &[u8]) -> Result<i32, Errno> {
    let bytes = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(*bytes))
}

/// A time-out as `SO_RCVTIMEO` takes it: 0 is none.
fn timeout(value: &[u8]) -> Result<Option<Duration>, Errno> {
    let (time, _) = Timeval::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
    let micros = u64::try_from(time.tv_usec).map_err(|_| Errno::EDOM)?;
    if micros >= 1_000_000 {
        return Err(Errno::EDOM);
    }
    // A negative time means not to wait at all.
    let Ok(secs) = u64::try_from(time.tv_sec) else {
        return Ok(Some(Duration::ZERO));
    };
    let timeout = Duration::from_secs(secs).saturating_add(Duration::from_micros(micros));
    Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
}

fn timeval(timeout: Option<Duration>) -> Vec<u8> {
    let timeout = timeout.unwrap_or_default();
    let time = Timeval {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_usec: i64::from(timeout.subsec_micros()),
    };
    time.as_bytes().to_vec()
}
