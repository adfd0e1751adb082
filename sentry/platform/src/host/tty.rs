//! Terminals of the host that the container's stdio was given.

use std::os::fd::{AsFd, AsRawFd};

use syscall_tables::Errno;
use syscall_tables::abi::{Termios, Winsize};

/// When changed settings take effect (`TCSETS`, `TCSETSW`, `TCSETSF`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    Now,
    AfterOutput,
    AfterOutputDropInput,
}

fn ioctl<T>(fd: impl AsFd, request: libc::Ioctl, argument: *mut T) -> Result<(), Errno> {
    // SAFETY: the callers pass a structure of the size that `request` reads
    // or writes.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, argument) };
    if result < 0 {
        return Err(Errno::from(std::io::Error::last_os_error()));
    }
    Ok(())
}

/// Whether `fd` is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    get_attributes(fd).is_ok()
}

/// `TCGETS`.
pub fn get_attributes(fd: impl AsFd) -> Result<Termios, Errno> {
    let mut termios = Termios::default();
    ioctl(fd, libc::TCGETS, &raw mut termios)?;
    Ok(termios)
}

/// `TCSETS` and its variants.
pub fn set_attributes(fd: impl AsFd, apply: Apply, termios: &Termios) -> Result<(), Errno> {
    let request = match apply {
        Apply::Now => libc::TCSETS,
        Apply::AfterOutput => libc::TCSETSW,
        Apply::AfterOutputDropInput => libc::TCSETSF,
    };
    ioctl(fd, request, std::ptr::from_ref(termios).cast_mut())
}

/// `TIOCGWINSZ`.
pub fn window_size(fd: impl AsFd) -> Result<Winsize, Errno> {
    let mut size = Winsize::default();
    ioctl(fd, libc::TIOCGWINSZ, &raw mut size)?;
    Ok(size)
}

/// `TIOCSWINSZ`.
pub fn set_window_size(fd: impl AsFd, size: &Winsize) -> Result<(), Errno> {
    ioctl(fd, libc::TIOCSWINSZ, std::ptr::from_ref(size).cast_mut())
}

/// Bytes that a read would find (`FIONREAD`).
pub fn readable_bytes(fd: impl AsFd) -> Result<usize, Errno> {
    let mut count: libc::c_int = 0;
    ioctl(fd, libc::FIONREAD, &raw mut count)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_pseudo_terminal() {
        let pty = nix::pty::openpty(None, None).expect("a pseudo terminal");
        assert!(is_terminal(&pty.slave));
        let mut termios = get_attributes(&pty.slave).expect("settings");
        termios.c_lflag = 0;
        set_attributes(&pty.slave, Apply::AfterOutput, &termios).expect("settable");
        assert_eq!(get_attributes(&pty.slave), Ok(termios));
        let size = Winsize {
            ws_row: 30,
            ws_col: 100,
            ..Winsize::default()
        };
        set_window_size(&pty.master, &size).expect("settable");
        assert_eq!(window_size(&pty.slave), Ok(size));
        let file = std::fs::File::open("/proc/self/exe").expect("open");
        assert_eq!(get_attributes(&file), Err(Errno::ENOTTY));
    }
}
