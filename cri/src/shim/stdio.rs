//! Standard streams of a process: pipes or a terminal on its side, FIFOs,
//! files or a logger on containerd's.
//!
//! The shim copies between the two, so that a container outlives its reader,
//! and keeps both ends of FIFOs open, so that readers come and go.

use std::fs::File;
use std::io::{Read, Write, copy};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use rustix::fs::OFlags;

use crate::logger::{self, LoggerFor};
use crate::reaper::Reaper;

/// How long output may take to be read after a process has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a request wants the streams of a process.
#[derive(Clone, Debug, Default)]
pub struct StreamPaths {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// The process's ends.
pub struct ChildStreams {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

impl ChildStreams {
    /// For processes with a terminal.
    pub fn null() -> Self {
        Self {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        }
    }
}

/// The shim's ends.
#[derive(Default)]
pub struct Streams {
    /// Holds the write end of stdin's FIFO until `CloseIO`.
    stdin: Mutex<Option<File>>,
    copies: Mutex<Vec<JoinHandle<()>>>,
}

/// Where output goes.
enum Sink {
    Nowhere,
    Fifo(PathBuf),
    File(PathBuf),
    /// A logger, whose end of the pipe is the given one.
    Logger(OwnedFd),
}

fn parse(path: &str) -> Result<Sink> {
    match path.split_once("://") {
        _ if path.is_empty() => Ok(Sink::Nowhere),
        None => Ok(Sink::Fifo(path.into())),
        Some(("fifo", path)) => Ok(Sink::Fifo(path.into())),
        Some(("file", path)) => Ok(Sink::File(path.into())),
        Some((scheme, _)) => bail!("{scheme}:// is not supported for this stream"),
    }
}

/// A FIFO opened so that neither opening nor writing depends on a reader.
fn open_sink_fifo(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("{} can't be opened", path.display()))
}

/// Both ends of stdin's FIFO.
fn open_source_fifo(path: &Path) -> Result<(File, File)> {
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let open = || -> std::io::Result<(File, File)> {
        // Without a writer this does not wait, and then there is a reader
        // for the writer not to wait for.
        let reader = File::options()
            .read(true)
            .custom_flags(nonblock)
            .open(path)?;
        let writer = File::options().write(true).open(path)?;
        rustix::fs::fcntl_setfl(&reader, OFlags::empty())?;
        Ok((reader, writer))
    };
    open().with_context(|| format!("{} can't be opened", path.display()))
}

fn open_file(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("{} can't be made", dir.display()))?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{} can't be opened", path.display()))
}

/// Output in the making: the sink for each stream.
struct Sinks {
    stdout: Sink,
    stderr: Sink,
}

fn sinks(paths: &StreamPaths, logger: LoggerFor<'_>, reaper: &Reaper) -> Result<Sinks> {
    if paths.stdout.starts_with("binary://") {
        let (stdout, stderr) = logger::start(&paths.stdout, logger, reaper)?;
        return Ok(Sinks {
            stdout: Sink::Logger(stdout),
            stderr: Sink::Logger(stderr),
        });
    }
    Ok(Sinks {
        stdout: parse(&paths.stdout)?,
        stderr: parse(&paths.stderr)?,
    })
}

impl Streams {
    /// Pipes for a process without a terminal.
    pub fn pipes(
        paths: &StreamPaths,
        logger: LoggerFor<'_>,
        reaper: &Reaper,
    ) -> Result<(Self, ChildStreams)> {
        let streams = Self::default();
        let sinks = sinks(paths, logger, reaper)?;
        let stdout = streams.output(sinks.stdout)?;
        let stderr = streams.output(sinks.stderr)?;
        let stdin = if paths.stdin.is_empty() {
            Stdio::null()
        } else {
            let (mut from, keeper) = open_source_fifo(Path::new(&paths.stdin))?;
            let (reader, mut writer) = std::io::pipe().context("a pipe can't be made")?;
            *streams.stdin.lock() = Some(keeper);
            // Ends when nobody writes any more, or nobody reads.
            spawn("stdin", move || pump(&mut from, &mut writer))?;
            Stdio::from(reader)
        };
        let child = ChildStreams {
            stdin,
            stdout,
            stderr,
        };
        Ok((streams, child))
    }

    /// The child's end of an output stream.
    fn output(&self, sink: Sink) -> Result<Stdio> {
        Ok(match sink {
            Sink::Nowhere => Stdio::null(),
            Sink::File(path) => Stdio::from(open_file(&path)?),
            Sink::Logger(pipe) => Stdio::from(pipe),
            Sink::Fifo(path) => {
                let mut to = open_sink_fifo(&path)?;
                let (mut reader, writer) = std::io::pipe().context("a pipe can't be made")?;
                let copy = spawn("output", move || pump(&mut reader, &mut to))?;
                self.copies.lock().push(copy);
                Stdio::from(writer)
            }
        })
    }

    /// Copies between a terminal's master and the streams of a request.
    pub fn terminal(
        paths: &StreamPaths,
        master: &Arc<File>,
        logger: LoggerFor<'_>,
        reaper: &Reaper,
    ) -> Result<Self> {
        let streams = Self::default();
        let mut to = match sinks(paths, logger, reaper)?.stdout {
            Sink::Nowhere => File::options()
                .write(true)
                .open("/dev/null")
                .context("/dev/null can't be opened")?,
            Sink::Fifo(path) => open_sink_fifo(&path)?,
            Sink::File(path) => open_file(&path)?,
            Sink::Logger(pipe) => File::from(pipe),
        };
        let from = master.clone();
        let copy = spawn("terminal output", move || pump(&mut &*from, &mut to))?;
        streams.copies.lock().push(copy);
        if !paths.stdin.is_empty() {
            let (mut from, keeper) = open_source_fifo(Path::new(&paths.stdin))?;
            *streams.stdin.lock() = Some(keeper);
            let to = master.clone();
            spawn("terminal input", move || pump(&mut from, &mut &*to))?;
        }
        Ok(streams)
    }

    /// `CloseIO`: stdin ends when its writers have closed it too.
    pub fn close_stdin(&self) {
        drop(self.stdin.lock().take());
    }

    /// Waits until all output has been passed on, within bounds: somebody
    /// else may hold the pipe.
    pub fn drain(&self) {
        self.close_stdin();
        let end = Instant::now() + DRAIN_TIMEOUT;
        let copies = std::mem::take(&mut *self.copies.lock());
        for copy in copies {
            while !copy.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .context("a thread can't be made")
}

/// Copies until one side is gone.
fn pump(from: &mut impl Read, to: &mut impl Write) {
    // A terminal whose last slave is closed says EIO at its end.
    let _ = copy(from, to);
}
