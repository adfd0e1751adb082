//! Container logs in the CRI format: `TIME STREAM TAG CONTENT`, where the tag
//! is `F` for a full line and `P` for a part of one that was too long.
//!
//! Bytes are written as the container wrote them. Output without a newline
//! waits for its line to end, to grow too long, or for the end of the stream.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::time;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One container's log file and the unfinished lines of its two streams.
#[derive(Debug)]
pub struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    max_line: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Bytes that could not be written (a full disk).
    pub lost: u64,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

impl Log {
    pub fn new(path: Option<PathBuf>, max_line: usize) -> io::Result<Self> {
        let file = path.as_deref().map(open).transpose()?;
        Ok(Self {
            path,
            file,
            max_line: max_line.max(1),
            stdout: Vec::new(),
            stderr: Vec::new(),
            lost: 0,
        })
    }

    /// After the file was moved away: the next line goes to a new file.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = self.path.as_deref().map(open).transpose()?;
        Ok(())
    }

    pub fn add(&mut self, stream: Stream, mut bytes: &[u8]) {
        let mut out = Vec::with_capacity(bytes.len().saturating_add(128));
        let max_line = self.max_line;
        let pending = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let now = time::rfc3339(time::now_ns());
        while !bytes.is_empty() {
            let room = max_line.saturating_sub(pending.len());
            let (window, _) = bytes.split_at(room.min(bytes.len()));
            match window.iter().position(|b| *b == b'\n') {
                Some(at) => {
                    let (line, rest) = bytes.split_at(at);
                    pending.extend_from_slice(line);
                    line_out(&mut out, &now, stream, "F", pending);
                    bytes = rest.get(1..).unwrap_or_default();
                }
                None => {
                    pending.extend_from_slice(window);
                    bytes = bytes.get(window.len()..).unwrap_or_default();
                    // A newline right behind a line of exactly the limit ends
                    // it as a full line.
                    if pending.len() >= max_line {
                        if bytes.first() == Some(&b'\n') {
                            line_out(&mut out, &now, stream, "F", pending);
                            bytes = bytes.get(1..).unwrap_or_default();
                        } else if !bytes.is_empty() {
                            line_out(&mut out, &now, stream, "P", pending);
                        } else {
                            break;
                        }
                    }
                }
            }
        }
        self.write(&out);
    }

    /// The stream has ended: an unfinished line is written as it is.
    pub fn end(&mut self, stream: Stream) {
        let pending = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if pending.is_empty() {
            return;
        }
        let mut out = Vec::new();
        line_out(
            &mut out,
            &time::rfc3339(time::now_ns()),
            stream,
            "F",
            pending,
        );
        self.write(&out);
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_err()
        {
            self.lost = self.lost.saturating_add(bytes.len() as u64);
        }
    }
}

fn line_out(out: &mut Vec<u8>, now: &str, stream: Stream, tag: &str, line: &mut Vec<u8>) {
    out.extend_from_slice(now.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.push(b' ');
    out.extend_from_slice(tag.as_bytes());
    out.push(b' ');
    out.append(line);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(max: usize, chunks: &[&[u8]]) -> String {
        let dir =
            std::env::temp_dir().join(format!("crilog-{}-{}", std::process::id(), time::now_ns()));
        let mut log = Log::new(Some(dir.clone()), max).unwrap();
        for chunk in chunks {
            log.add(Stream::Stdout, chunk);
        }
        log.end(Stream::Stdout);
        let text = std::fs::read_to_string(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        text.lines()
            .map(|l| l.split_once(' ').unwrap().1.to_owned() + "|")
            .collect()
    }

    #[test]
    fn lines_and_parts() {
        assert_eq!(
            logged(8, &[b"a\nb", b"c\n", b"tail"]),
            "stdout F a|stdout F bc|stdout F tail|"
        );
        assert_eq!(logged(4, &[b"abcdefgh\n"]), "stdout P abcd|stdout F efgh|");
        assert_eq!(
            logged(4, &[b"abcd", b"\n", b"\n"]),
            "stdout F abcd|stdout F |"
        );
        assert_eq!(logged(4, &[b"abcd", b"e\n"]), "stdout P abcd|stdout F e|");
        assert_eq!(
            logged(4, &[b"abcdefghij"]),
            "stdout P abcd|stdout P efgh|stdout F ij|"
        );
    }
}
