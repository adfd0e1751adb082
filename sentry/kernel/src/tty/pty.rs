//! The open ends of a pseudo terminal (`pty(7)`).

use std::any::Any;
use std::sync::Arc;

use sentry_platform::BoxFuture;
use syscall_tables::Errno;
use syscall_tables::abi::{LocalFlags, Signal};

use super::Terminal;
use super::ioctl::{self, End};
use crate::ctx::{Ctx, SysResult};
use crate::sync::{Events, WaitQueue};
use crate::task::Task;
use crate::vfs::{File, FileOps};

/// The user's end.
pub struct Master {
    pub terminal: Arc<Terminal>,
    /// Takes the terminal out of its file system when it closes.
    forget: Box<dyn Fn(u32) + Send + Sync>,
}

impl Master {
    /// `forget` is called with the index once the master is closed.
    pub fn new(terminal: Arc<Terminal>, forget: impl Fn(u32) + Send + Sync + 'static) -> Self {
        Self {
            terminal,
            forget: Box::new(forget),
        }
    }
}

impl FileOps for Master {
    fn read(&self, _file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        let Some((first, rest)) = buf.split_first_mut() else {
            return Ok(0);
        };
        let terminal = &self.terminal;
        if terminal.packet_mode() {
            let packet = terminal.discipline.lock().take_packet();
            if let Some(packet) = packet {
                *first = packet.bits();
                return Ok(1);
            }
            let taken = terminal.take_output(rest);
            if taken > 0 {
                *first = 0;
                return Ok(taken + 1);
            }
        } else {
            let taken = terminal.take_output(buf);
            if taken > 0 {
                return Ok(taken);
            }
        }
        Err(if terminal.slave_is_gone() {
            Errno::EIO
        } else {
            Errno::EAGAIN
        })
    }

    fn write(&self, _file: &File, buf: &[u8]) -> Result<usize, Errno> {
        match self.terminal.type_in(buf) {
            0 if !buf.is_empty() => Err(Errno::EAGAIN),
            typed => Ok(typed),
        }
    }

    fn poll(&self, _file: &File) -> Events {
        let terminal = &self.terminal;
        let packet_mode = terminal.packet_mode();
        let gone = terminal.slave_is_gone();
        let discipline = terminal.discipline.lock();
        let mut events = Events::empty();
        if discipline.output_len() > 0 {
            events |= Events::READABLE;
        }
        if packet_mode && discipline.has_packet() {
            events |= Events::READABLE | Events::PRI;
        }
        if discipline.has_input_room() {
            events |= Events::WRITABLE;
        }
        if gone {
            events |= Events::HUP;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.terminal.master_queue)
    }

    fn ioctl<'a>(
        &'a self,
        ctx: &'a mut Ctx<'_>,
        file: &'a File,
        command: u32,
        arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(ioctl::ioctl(
            &self.terminal,
            End::Master,
            ctx,
            file,
            command,
            arg,
        ))
    }

    fn release(&self, _file: &File) {
        self.terminal.master_closed();
        (self.forget)(self.terminal.index);
    }
}

/// The programs' end.
pub struct Slave {
    pub terminal: Arc<Terminal>,
}

impl Slave {
    /// Opens the slave: `EIO` while it is locked or after the master is gone.
    pub fn open(terminal: &Arc<Terminal>) -> Result<Arc<Self>, Errno> {
        if terminal.is_locked() || terminal.is_hung_up() {
            return Err(Errno::EIO);
        }
        terminal.slave_opened();
        Ok(Arc::new(Self {
            terminal: terminal.clone(),
        }))
    }

    /// As [`Self::open`] by `task`, which takes it for its session's terminal
    /// if it can (`tty(4)`).
    pub fn open_by(
        terminal: &Arc<Terminal>,
        task: &Arc<Task>,
        no_ctty: bool,
    ) -> Result<Arc<Self>, Errno> {
        if terminal.is_exclusive() && !task.creds().has(crate::task::CapSet::SYS_ADMIN) {
            return Err(Errno::EBUSY);
        }
        let slave = Self::open(terminal)?;
        if !no_ctty {
            // Whoever can't take it opens it all the same.
            let _ = terminal.take_by(task, false);
        }
        Ok(slave)
    }
}

/// Opens the caller's controlling terminal (`/dev/tty`).
pub fn open_current(task: &Arc<Task>) -> Result<Arc<Slave>, Errno> {
    let session = task.group.session().ok_or(Errno::ENXIO)?;
    let terminal: Arc<dyn Any + Send + Sync> = session.terminal().ok_or(Errno::ENXIO)?;
    let terminal = terminal.downcast::<Terminal>().map_err(|_| Errno::ENXIO)?;
    Slave::open(&terminal)
}

impl FileOps for Slave {
    fn read(&self, _file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        if buf.is_empty() {
            return Ok(0);
        }
        let read = self.terminal.discipline.lock().read(buf);
        match read {
            Some(len) => {
                self.terminal.clear_read_timeout();
                self.terminal.master_queue.notify(Events::WRITABLE);
                Ok(len)
            }
            None if self.terminal.is_hung_up() => Ok(0),
            None => Err(Errno::EAGAIN),
        }
    }

    fn read_as(&self, reader: &Arc<Task>, file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        self.terminal.check_job(reader, Signal::SIGTTIN)?;
        let result = self.read(file, buf);
        if result == Err(Errno::EAGAIN) && !file.is_nonblocking() {
            let (raw, minimum, tenths) = {
                let discipline = self.terminal.discipline.lock();
                let raw = !discipline.local(LocalFlags::ICANON);
                (raw, discipline.minimum(), discipline.timeout_tenths())
            };
            if raw && minimum == 0 && tenths > 0 && self.terminal.read_timed_out(reader, tenths) {
                return Ok(0);
            }
        }
        result
    }

    fn write(&self, _file: &File, buf: &[u8]) -> Result<usize, Errno> {
        if self.terminal.is_hung_up() {
            return Err(Errno::EIO);
        }
        let written = self.terminal.discipline.lock().write(buf);
        if written > 0 {
            self.terminal.master_queue.notify(Events::READABLE);
        } else if !buf.is_empty() {
            return Err(Errno::EAGAIN);
        }
        Ok(written)
    }

    fn write_as(&self, writer: &Arc<Task>, file: &File, buf: &[u8]) -> Result<usize, Errno> {
        if self.terminal.stops_writers() {
            self.terminal.check_job(writer, Signal::SIGTTOU)?;
        }
        self.write(file, buf)
    }

    fn poll(&self, _file: &File) -> Events {
        let hung_up = self.terminal.is_hung_up();
        let discipline = self.terminal.discipline.lock();
        let mut events = Events::empty();
        if discipline.is_readable() {
            events |= Events::READABLE;
        }
        if discipline.has_output_room() {
            events |= Events::WRITABLE;
        }
        if hung_up {
            events |= Events::READABLE | Events::WRITABLE | Events::HUP | Events::ERR;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.terminal.slave_queue)
    }

    fn ioctl<'a>(
        &'a self,
        ctx: &'a mut Ctx<'_>,
        file: &'a File,
        command: u32,
        arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(ioctl::ioctl(
            &self.terminal,
            End::Slave,
            ctx,
            file,
            command,
            arg,
        ))
    }

    fn release(&self, _file: &File) {
        self.terminal.slave_closed();
    }
}
