//! The sentry's log: lines to a descriptor that `runsc` opened.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sentry_kernel::kernel::{LogLevel, LogSink};

/// Writes whole lines, each with one call.
pub struct Log {
    file: File,
    least: LogLevel,
}

impl Log {
    pub fn new(fd: OwnedFd, debug: bool) -> Arc<Self> {
        Arc::new(Self {
            file: File::from(fd),
            least: if debug {
                LogLevel::Debug
            } else {
                LogLevel::Info
            },
        })
    }
}

impl LogSink for Log {
    fn enabled(&self, level: LogLevel) -> bool {
        level >= self.least
    }

    fn log(&self, _level: LogLevel, line: fmt::Arguments<'_>) {
        // Nobody is left to tell that the log is full or gone.
        let _ = (&self.file).write_all(format!("{line}\n").as_bytes());
    }
}
