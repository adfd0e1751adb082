//! Files below `/proc` that stubs open for the sentry, which opens none.
//!
//! A control thread receives the host's `/proc`, opens one of two constant
//! paths below it for reading, sends what it got to the sentry, and closes all
//! of it: its own status, which tells how much memory it uses, and
//! `self/fd/3`, which is the file that came with `/proc`, without the right to
//! write. Paths and message headers are on the sealed global page.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use syscall_tables::Errno;

use super::control::HostCall;
use super::layout as l;
use super::shared::SharedMap;
use super::stub::{Stub, no_process};
use super::sys;
use crate::host;

/// Puts paths and message headers in their place.
pub(super) fn put_orders(global: &SharedMap) {
    global.write(l::G_STATUS_PATH, b"self/status\0");
    // The number of the second descriptor in a message.
    global.write(l::G_FILE_PATH, b"self/fd/3\0");
    global.store(l::G_SEND_IOVEC, l::GLOBAL + l::G_STATUS_PATH);
    global.store(l::G_SEND_IOVEC + 8, 1);
    // What is opened gets the lowest free number: behind `/proc`, or behind
    // `/proc` and the file.
    for (header, control, fd) in [
        (l::G_SEND_STATUS, l::G_STATUS_CONTROL, l::FD_RECEIVED + 1),
        (l::G_SEND_FILE, l::G_FILE_CONTROL, l::FD_RECEIVED + 2),
    ] {
        // struct msghdr: name, its length, iov, its count, control, its length.
        global.store(header + 16, l::GLOBAL + l::G_SEND_IOVEC);
        global.store(header + 24, 1);
        global.store(header + 32, l::GLOBAL + control);
        global.store(header + 40, CONTROL_LEN);
        // struct cmsghdr: length, SOL_SOCKET and SCM_RIGHTS, then the number.
        global.store(control, 20);
        global.store(control + 8, 1 | 1 << 32);
        global.store(control + 16, fd);
    }
}

/// A control message with one descriptor, padded.
const CONTROL_LEN: u64 = 24;

/// What of `/proc/PID/status` is read: memory is in the middle.
const STATUS_MAX: usize = 4096;

impl Stub {
    /// Has the control thread open and send one of its files. `with` comes
    /// behind `/proc`.
    async fn open(
        &self,
        path: u64,
        header: u64,
        with: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd, Errno> {
        let proc = self.machine.proc.as_ref().ok_or(Errno::ENOENT)?;
        let control = self.control.lock().await.map_err(no_process)?;
        let fds: smallvec::SmallVec<[_; 2]> = std::iter::once(proc.as_fd()).chain(with).collect();
        self.control.send_fds(&fds)?;
        let (proc_fd, path, header) = (l::FD_RECEIVED, l::GLOBAL + path, l::GLOBAL + header);
        let open = HostCall::new(libc::SYS_openat, &[proc_fd, path, l::OPEN_FLAGS, 0]);
        let send = HostCall::new(libc::SYS_sendmsg, &[l::FD_SOCKET, header, l::SENDMSG_FLAGS]);
        let results = control
            .run(&[
                HostCall::receive_fds(),
                open.ignoring_errors(),
                send.ignoring_errors(),
                HostCall::close_received(),
            ])
            .await
            .map_err(no_process)?;
        for result in results.iter().skip(1).take(2) {
            (*result)?;
        }
        sys::receive_fd(self.control.socket.as_fd())
    }

    /// `fd` without the right to write.
    pub(super) async fn open_read_only(&self, fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        self.open(l::G_FILE_PATH, l::G_SEND_FILE, Some(fd)).await
    }

    /// Makes sizes known.
    pub(super) async fn open_status(&self) {
        if self.status.get().is_some() {
            return;
        }
        // Without it nothing is known, which is not worth an error.
        if let Ok(fd) = self.open(l::G_STATUS_PATH, l::G_SEND_STATUS, None).await {
            let _ = self.status.set(fd);
        }
    }

    /// A line of the status in bytes; 0 if it is not known.
    pub(super) fn status_bytes(&self, name: &str) -> u64 {
        let Some(status) = self.status.get() else {
            return 0;
        };
        let mut text = [0; STATUS_MAX];
        let read = host::file::pread(status, &mut text, 0).ok();
        read.and_then(|len| kibibytes(text.get(..len)?, name))
            .map_or(0, |kibibytes| kibibytes.saturating_mul(1024))
    }
}

/// The number in the line of `text` that starts with `name` and a colon.
fn kibibytes(text: &[u8], name: &str) -> Option<u64> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))?;
    let line = std::str::from_utf8(line).ok()?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_status_is_found() {
        let text = b"Name:\tVmRSS: 1 kB\nVmHWM:\t     980 kB\nVmRSS:\t     912 kB\n";
        assert_eq!(kibibytes(text, "VmRSS"), Some(912));
        assert_eq!(kibibytes(text, "VmHWM"), Some(980));
        assert_eq!(kibibytes(text, "VmSwap"), None);
    }
}
