//! `ioctl_tty(2)`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    FIONREAD, Signal, TCFLSH, TCGETS, TCGETS2, TCIFLUSH, TCIOFF, TCIOFLUSH, TCION, TCOFLUSH,
    TCOOFF, TCOON, TCSBRK, TCSBRKP, TCSETS, TCSETS2, TCSETSF, TCSETSF2, TCSETSW, TCSETSW2, TCXONC,
    TIOCEXCL, TIOCGEXCL, TIOCGPGRP, TIOCGPKT, TIOCGPTLCK, TIOCGPTN, TIOCGPTPEER, TIOCGSID,
    TIOCGWINSZ, TIOCNOTTY, TIOCNXCL, TIOCOUTQ, TIOCPKT, TIOCSCTTY, TIOCSIG, TIOCSPGRP, TIOCSPTLCK,
    TIOCSWINSZ, Termios, Termios2, Winsize,
};

use super::Terminal;
use super::pty::Slave;
use crate::ctx::{Ctx, SysResult};
use crate::task::{CapSet, ControllingTerminal};
use crate::user::UserPtr;
use crate::vfs::{FdFlags, File, OpenMode, StatusFlags};

/// Which end a call is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Master,
    Slave,
}

/// Line speed of a pseudo terminal, which has none.
const SPEED: u32 = 38_400;
/// `O_CLOEXEC`.
const CLOEXEC: u64 = 0o2000000;

pub(super) async fn ioctl(
    terminal: &Arc<Terminal>,
    end: End,
    ctx: &mut Ctx<'_>,
    file: &File,
    command: u32,
    arg: u64,
) -> SysResult {
    match command {
        TCGETS => {
            let termios = terminal.discipline.lock().termios();
            ctx.write(UserPtr::new(arg), &termios).await?;
        }
        TCGETS2 => {
            let termios = extended(terminal.discipline.lock().termios());
            ctx.write(UserPtr::new(arg), &termios).await?;
        }
        TCSETS | TCSETSW | TCSETSF => {
            let termios: Termios = ctx.read(UserPtr::new(arg)).await?;
            set_termios(terminal, end, ctx, termios, command == TCSETSF)?;
        }
        TCSETS2 | TCSETSW2 | TCSETSF2 => {
            let termios: Termios2 = ctx.read(UserPtr::new(arg)).await?;
            set_termios(terminal, end, ctx, plain(termios), command == TCSETSF2)?;
        }
        TCSBRK | TCSBRKP => {}
        TCXONC => flow(terminal, arg)?,
        TCFLSH => flush(terminal, end, arg)?,
        FIONREAD => {
            let count = waiting_bytes(terminal, end);
            write_int(ctx, arg, i32::try_from(count).unwrap_or(i32::MAX)).await?;
        }
        TIOCOUTQ => {
            let count = terminal.discipline.lock().output_len();
            write_int(ctx, arg, i32::try_from(count).unwrap_or(i32::MAX)).await?;
        }
        TIOCGWINSZ => ctx.write(UserPtr::new(arg), &terminal.size()).await?,
        TIOCSWINSZ => {
            let size: Winsize = ctx.read(UserPtr::new(arg)).await?;
            terminal.set_size(size);
        }
        TIOCSCTTY => {
            let steal = arg == 1 && ctx.task.creds().has(CapSet::SYS_ADMIN);
            terminal.take_by(ctx.task, steal)?;
        }
        TIOCNOTTY => give_up(terminal, ctx)?,
        TIOCGPGRP => {
            check_is_controlling(terminal, end, ctx)?;
            let foreground = terminal.foreground();
            let id = foreground.map_or(0, |group| group.id_in(&ctx.task.pid_ns()));
            write_int(ctx, arg, id).await?;
        }
        TIOCSPGRP => {
            let id: i32 = ctx.read(UserPtr::new(arg)).await?;
            set_foreground(terminal, end, ctx, id)?;
        }
        TIOCGSID => {
            check_is_controlling(terminal, end, ctx)?;
            let session = terminal.session().ok_or(Errno::ENOTTY)?;
            write_int(ctx, arg, session.id_in(&ctx.task.pid_ns())).await?;
        }
        TIOCEXCL => terminal.set_exclusive(true),
        TIOCNXCL => terminal.set_exclusive(false),
        TIOCGEXCL => write_int(ctx, arg, i32::from(terminal.is_exclusive())).await?,
        _ if end == End::Master => return master_ioctl(terminal, ctx, file, command, arg).await,
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

async fn master_ioctl(
    terminal: &Arc<Terminal>,
    ctx: &mut Ctx<'_>,
    file: &File,
    command: u32,
    arg: u64,
) -> SysResult {
    match command {
        TIOCGPTN => ctx.write(UserPtr::new(arg), &terminal.index).await?,
        TIOCSPTLCK => {
            let locked: i32 = ctx.read(UserPtr::new(arg)).await?;
            terminal.set_locked(locked != 0);
        }
        TIOCGPTLCK => write_int(ctx, arg, i32::from(terminal.is_locked())).await?,
        TIOCPKT => {
            let on: i32 = ctx.read(UserPtr::new(arg)).await?;
            terminal.set_packet_mode(on != 0);
        }
        TIOCGPKT => write_int(ctx, arg, i32::from(terminal.packet_mode())).await?,
        TIOCSIG => {
            let number = i32::try_from(arg).map_err(|_| Errno::EINVAL)?;
            match Signal::from_raw(number) {
                Some(signal @ (Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP)) => {
                    terminal.signal_foreground(signal);
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        TIOCGPTPEER => return open_peer(terminal, ctx, file, arg),
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

/// The slave of a master, wherever its file system is mounted.
fn open_peer(terminal: &Arc<Terminal>, ctx: &Ctx<'_>, file: &File, flags: u64) -> SysResult {
    let slave = Slave::open(terminal)?;
    let bits = u32::try_from(flags & 0xffff_ffff).map_err(|_| Errno::EINVAL)?;
    let status = StatusFlags::from_bits_truncate(bits) & StatusFlags::NONBLOCK;
    let fd_flags = if flags & CLOEXEC != 0 {
        FdFlags::CLOEXEC
    } else {
        FdFlags::empty()
    };
    let path = crate::fs::devpts::slave_path(&file.path, terminal.index)?;
    let mode = OpenMode::READ | OpenMode::WRITE;
    ctx.add_fd(File::new(slave, path, mode, status), fd_flags)
}

/// Bytes that a read at `end` could have.
fn waiting_bytes(terminal: &Terminal, end: End) -> usize {
    let discipline = terminal.discipline.lock();
    match end {
        End::Master => discipline.output_len(),
        End::Slave => discipline.readable(),
    }
}

async fn write_int(ctx: &mut Ctx<'_>, arg: u64, value: i32) -> Result<(), Errno> {
    ctx.write(UserPtr::new(arg), &value).await
}

fn extended(termios: Termios) -> Termios2 {
    Termios2 {
        c_iflag: termios.c_iflag,
        c_oflag: termios.c_oflag,
        c_cflag: termios.c_cflag,
        c_lflag: termios.c_lflag,
        c_line: termios.c_line,
        c_cc: termios.c_cc,
        c_ispeed: SPEED,
        c_ospeed: SPEED,
    }
}

fn plain(termios: Termios2) -> Termios {
    Termios {
        c_iflag: termios.c_iflag,
        c_oflag: termios.c_oflag,
        c_cflag: termios.c_cflag,
        c_lflag: termios.c_lflag,
        c_line: termios.c_line,
        c_cc: termios.c_cc,
    }
}

fn set_termios(
    terminal: &Arc<Terminal>,
    end: End,
    ctx: &Ctx<'_>,
    termios: Termios,
    flush: bool,
) -> Result<(), Errno> {
    if end == End::Slave {
        terminal.check_job(ctx.task, Signal::SIGTTOU)?;
    }
    let mut discipline = terminal.discipline.lock();
    if flush {
        discipline.flush_input();
    }
    discipline.set_termios(termios);
    drop(discipline);
    terminal.settings_changed();
    Ok(())
}

fn flow(terminal: &Arc<Terminal>, action: u64) -> Result<(), Errno> {
    match u32::try_from(action) {
        Ok(TCOOFF) => terminal.discipline.lock().stop(),
        Ok(TCOON) => terminal.discipline.lock().start(),
        Ok(TCIOFF | TCION) => {}
        _ => return Err(Errno::EINVAL),
    }
    terminal.settings_changed();
    Ok(())
}

fn flush(terminal: &Arc<Terminal>, end: End, queue: u64) -> Result<(), Errno> {
    let (input, output) = match u32::try_from(queue) {
        Ok(TCIFLUSH) => (true, false),
        Ok(TCOFLUSH) => (false, true),
        Ok(TCIOFLUSH) => (true, true),
        _ => return Err(Errno::EINVAL),
    };
    // The master's input is the slave's output.
    let (input, output) = match end {
        End::Slave => (input, output),
        End::Master => (output, input),
    };
    let mut discipline = terminal.discipline.lock();
    if input {
        discipline.flush_input();
    }
    if output {
        discipline.flush_output();
    }
    drop(discipline);
    terminal.settings_changed();
    Ok(())
}

/// Calls of job control work on the caller's own terminal, or on any by its
/// master.
fn check_is_controlling(terminal: &Arc<Terminal>, end: End, ctx: &Ctx<'_>) -> Result<(), Errno> {
    if end == End::Master {
        return Ok(());
    }
    let session = ctx.task.group.session().ok_or(Errno::ENOTTY)?;
    match terminal.session() {
        Some(own) if Arc::ptr_eq(&own, &session) => Ok(()),
        _ => Err(Errno::ENOTTY),
    }
}

fn set_foreground(terminal: &Arc<Terminal>, end: End, ctx: &Ctx<'_>, id: i32) -> Result<(), Errno> {
    check_is_controlling(terminal, end, ctx)?;
    if end == End::Slave {
        terminal.check_job(ctx.task, Signal::SIGTTOU)?;
    }
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let group = ctx.task.pid_ns().process_group(id).ok_or(Errno::ESRCH)?;
    let session = terminal.session().ok_or(Errno::ENOTTY)?;
    if !Arc::ptr_eq(group.session(), &session) {
        return Err(Errno::EPERM);
    }
    terminal.set_foreground(&group);
    Ok(())
}

/// `TIOCNOTTY`: a session leader takes the terminal from its whole session.
fn give_up(terminal: &Arc<Terminal>, ctx: &Ctx<'_>) -> Result<(), Errno> {
    check_is_controlling(terminal, End::Slave, ctx)?;
    if ctx.task.group.is_session_leader()
        && let Some(session) = terminal.session()
    {
        if let Some(foreground) = terminal.foreground() {
            foreground.signal_from_kernel(Signal::SIGHUP);
            foreground.signal_from_kernel(Signal::SIGCONT);
        }
        session.set_terminal(None);
        terminal.session_ended();
    }
    Ok(())
}
