//! The socket over which `runsc` hands the master of a new terminal.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};

/// A console socket; its directory goes when dropped.
pub struct ConsoleSocket {
    listener: UnixListener,
    dir: PathBuf,
}

impl ConsoleSocket {
    /// Bundles lie too deep for the 108 bytes of a socket's path.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("runsc-pty-{}-{number}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("{} can't be made", dir.display()))?;
        let listener = UnixListener::bind(dir.join("console"))
            .with_context(|| format!("a socket in {} can't be made", dir.display()))?;
        Ok(Self { listener, dir })
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join("console")
    }

    /// The master, once `runsc` has succeeded: it has been sent by then.
    pub fn receive(&self) -> Result<Arc<File>> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self
            .listener
            .accept()
            .context("no terminal came over the console socket")?;
        stream.set_nonblocking(false)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 256];
        recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(&mut name)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .context("the console socket can't be read")?;
        let master = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let master = master.context("no descriptor came over the console socket")?;
        Ok(Arc::new(File::from(master)))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Sets the size of a terminal.
pub fn resize(master: &File, columns: u32, rows: u32) -> Result<()> {
    let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let size = Winsize {
        ws_row: clamp(rows),
        ws_col: clamp(columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).context("the terminal can't be resized")
}

/// Whether `path` is short enough for a socket.
pub fn fits(path: &Path) -> bool {
    path.as_os_str().len() < 108
}
