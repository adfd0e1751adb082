//! Control messages of `sendmsg` and `recvmsg` (`cmsg(3)`).

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    AF_UNIX, CmsgHdr, MsgFlags, RLIMIT_NOFILE, SCM_CREDENTIALS, SCM_MAX_FD, SCM_RIGHTS, SOL_SOCKET,
    Ucred,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::ctx::Ctx;
use crate::net::{Received, Sender};
use crate::vfs::{Fd, FdFlags, File};

/// Most control data of one message (`/proc/sys/net/core/optmem_max`).
const CONTROL_MAX: u64 = 131_072;
const HEADER: usize = size_of::<CmsgHdr>();

/// What control messages to send say.
#[derive(Default)]
pub(super) struct Control {
    pub files: Vec<Arc<File>>,
    pub credentials: Option<Sender>,
    /// Options for this packet: level, type, payload.
    pub packet: Vec<(i32, i32, Vec<u8>)>,
}

impl Control {
    /// Reads and checks the control buffer of a message for a socket of
    /// `domain`.
    pub async fn import(
        ctx: &mut Ctx<'_>,
        addr: u64,
        len: u64,
        domain: u16,
    ) -> Result<Self, Errno> {
        let mut control = Self::default();
        if len == 0 {
            return Ok(control);
        }
        if len > CONTROL_MAX {
            return Err(Errno::ENOBUFS);
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| Errno::ENOBUFS)?];
        ctx.read_bytes(addr, &mut bytes).await?;
        let mut rest: &[u8] = &bytes;
        while let Ok((header, _)) = CmsgHdr::read_from_prefix(rest) {
            let len = usize::try_from(header.cmsg_len).map_err(|_| Errno::EINVAL)?;
            if len < HEADER {
                return Err(Errno::EINVAL);
            }
            let data = rest.get(HEADER..len).ok_or(Errno::EINVAL)?;
            control.add(ctx, &header, data, domain)?;
            rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
        }
        Ok(control)
    }

    fn add(
        &mut self,
        ctx: &Ctx<'_>,
        header: &CmsgHdr,
        data: &[u8],
        domain: u16,
    ) -> Result<(), Errno> {
        let at_socket = header.cmsg_level.cast_unsigned() == SOL_SOCKET;
        if domain != AF_UNIX || !at_socket {
            if at_socket && domain != AF_UNIX && header.cmsg_type <= SCM_CREDENTIALS {
                return Err(Errno::EINVAL);
            }
            // Options for this packet (IP_TOS, IP_PKTINFO…).
            if !at_socket {
                let (level, kind) = (header.cmsg_level, header.cmsg_type);
                self.packet.push((level, kind, data.to_vec()));
            }
            return Ok(());
        }
        match header.cmsg_type {
            SCM_RIGHTS => {
                let table = ctx.task.files();
                let fds = data.chunks_exact(4);
                if self.files.len() + fds.len() > SCM_MAX_FD {
                    return Err(Errno::EINVAL);
                }
                for fd in fds {
                    let fd = fd.first_chunk().ok_or(Errno::EINVAL)?;
                    self.files.push(table.get_raw(Fd(i32::from_ne_bytes(*fd)))?);
                }
                Ok(())
            }
            SCM_CREDENTIALS => {
                let claim = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
                self.credentials = Some(Sender::claimed(ctx.task, claim)?);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

/// Control data being put together for a receiver.
pub(super) struct ControlBuffer {
    bytes: Vec<u8>,
    room: usize,
    pub flags: MsgFlags,
}

impl ControlBuffer {
    pub fn new(room: usize) -> Self {
        Self {
            bytes: Vec::new(),
            room: room.min(1 << 20),
            flags: MsgFlags::empty(),
        }
    }

    fn left(&self) -> usize {
        self.room.saturating_sub(self.bytes.len())
    }

    /// Adds a message, cut to what there is room for.
    pub fn put(&mut self, level: i32, kind: i32, data: &[u8]) {
        let left = self.left();
        if left < HEADER {
            self.flags |= MsgFlags::MSG_CTRUNC;
            return;
        }
        let data = match data.get(..left - HEADER) {
            Some(fits) if fits.len() < data.len() => {
                self.flags |= MsgFlags::MSG_CTRUNC;
                fits
            }
            _ => data,
        };
        let header = CmsgHdr {
            cmsg_len: CmsgHdr::len_of(data.len()) as u64,
            cmsg_level: level,
            cmsg_type: kind,
        };
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        let padded = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(padded.min(self.room), 0);
    }

    /// Opens received files in the caller and adds their descriptors.
    fn put_files(&mut self, ctx: &Ctx<'_>, files: Vec<Arc<File>>, fd_flags: FdFlags) {
        let fit = self.left().saturating_sub(HEADER) / 4;
        let limit = ctx.task.group.limit(RLIMIT_NOFILE);
        let table = ctx.task.files();
        let total = files.len();
        let mut fds = Vec::new();
        for file in files.into_iter().take(fit) {
            match table.insert(file, fd_flags, 0, limit) {
                Ok(fd) => fds.push(fd.0),
                Err(_) => break,
            }
        }
        if !fds.is_empty() {
            self.put(SOL_SOCKET.cast_signed(), SCM_RIGHTS, fds.as_bytes());
        }
        if fds.len() < total {
            self.flags |= MsgFlags::MSG_CTRUNC;
        }
    }

    /// Adds all that came with a message. `passes` says whether the receiver
    /// wants credentials.
    pub fn fill(&mut self, ctx: &Ctx<'_>, received: &mut Received, passes: bool, flags: MsgFlags) {
        if passes {
            let cred = match &received.credentials {
                Some(sender) => sender.seen_by(ctx.task),
                // Sent before anybody asked.
                None => Ucred {
                    pid: 0,
                    uid: 65_534,
                    gid: 65_534,
                },
            };
            self.put(SOL_SOCKET.cast_signed(), SCM_CREDENTIALS, cred.as_bytes());
        }
        let files = std::mem::take(&mut received.files);
        if !files.is_empty() {
            let mut fd_flags = FdFlags::empty();
            fd_flags.set(FdFlags::CLOEXEC, flags.contains(MsgFlags::MSG_CMSG_CLOEXEC));
            self.put_files(ctx, files, fd_flags);
        }
        for (level, kind, data) in std::mem::take(&mut received.control) {
            self.put(level, kind, &data);
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
