//! A socket as an open file.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sentry_platform::BoxFuture;
use syscall_tables::Errno;
use syscall_tables::abi::{FIONREAD, MsgFlags, SIOCATMARK, SIOCOUTQ};

use super::{SendRequest, Socket};
use crate::ctx::{Ctx, SysResult};
use crate::fs::SOCKFS_DEV;
use crate::fs::anon::Attributes;
use crate::sync::{Events, WaitQueue};
use crate::task::{Gid, Task};
use crate::user::UserPtr;
use crate::vfs::{
    Attr, File, FileKind, FileOps, Inode, OpenMode, OpenRequest, SetAttr, StatusFlags, VfsPath,
};

/// An open socket.
pub struct SocketFile {
    socket: Arc<dyn Socket>,
}

impl SocketFile {
    /// Opens a socket, readable and writable.
    pub fn open(socket: Arc<dyn Socket>, status: StatusFlags) -> Arc<File> {
        let (ino, owner) = (socket.base().ino, socket.base().owner);
        let inode = SocketInode {
            ino,
            attributes: Mutex::new(Attributes::new(0o777, owner, Gid::ROOT)),
        };
        let path = VfsPath::anonymous(Arc::new(inode), format!("socket:[{ino}]"));
        File::new(
            Arc::new(Self { socket }),
            path,
            OpenMode::READ | OpenMode::WRITE,
            status,
        )
    }

    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.socket
    }

    fn send(&self, sender: Option<&Arc<Task>>, data: &[u8]) -> Result<usize, Errno> {
        self.socket.send(SendRequest {
            sender,
            data,
            to: None,
            flags: MsgFlags::empty(),
            files: &mut Vec::new(),
            credentials: None,
            control: &[],
        })
    }
}

impl FileOps for SocketFile {
    fn takes_nowait(&self, _mode: OpenMode) -> bool {
        true
    }

    fn read(&self, file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut flags = MsgFlags::empty();
        flags.set(MsgFlags::MSG_DONTWAIT, file.is_nonblocking());
        let received = self.socket.recv(buf, flags)?;
        Ok(received.len)
    }

    fn write(&self, _file: &File, buf: &[u8]) -> Result<usize, Errno> {
        self.send(None, buf)
    }

    fn write_as(&self, writer: &Arc<Task>, _file: &File, buf: &[u8]) -> Result<usize, Errno> {
        self.send(Some(writer), buf)
    }

    fn unread(&self, _file: &File, bytes: &[u8]) {
        self.socket.unread(bytes);
    }

    fn io_timeout(&self, mode: OpenMode) -> Option<Duration> {
        let options = self.socket.base().options.lock();
        if mode == OpenMode::READ {
            options.recv_timeout
        } else {
            options.send_timeout
        }
    }

    fn poll(&self, _file: &File) -> Events {
        self.socket.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.socket.base().queue)
    }

    fn ioctl<'a>(
        &'a self,
        ctx: &'a mut Ctx<'_>,
        _file: &'a File,
        command: u32,
        arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async move {
            let value = match command {
                FIONREAD => self.socket.readable_bytes()?,
                SIOCOUTQ => self.socket.unsent_bytes()?,
                SIOCATMARK => usize::from(self.socket.at_mark()?),
                _ => {
                    let net = ctx.kernel.net.clone();
                    return match net.host_of(ctx.task) {
                        Some(host) => super::host::interface::ioctl(ctx, host, command, arg).await,
                        None => super::interface::ioctl(ctx, command, arg).await,
                    };
                }
            };
            let value = i32::try_from(value).unwrap_or(i32::MAX);
            ctx.write(UserPtr::new(arg), &value).await?;
            Ok(0)
        })
    }

    fn release(&self, _file: &File) {
        self.socket.release();
    }

    fn as_socket(&self) -> Option<&dyn Socket> {
        Some(self.socket.as_ref())
    }
}

/// The inode of a socket.
struct SocketInode {
    ino: u64,
    attributes: Mutex<Attributes>,
}

impl Inode for SocketInode {
    fn kind(&self) -> FileKind {
        FileKind::Socket
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let attributes = self.attributes.lock();
        Ok(attributes.attr(FileKind::Socket, SOCKFS_DEV, self.ino))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        self.attributes.lock().change(changes)
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }
}
