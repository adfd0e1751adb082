//! `binary://` loggers: programs that take the output of a container
//! (`runtime/v2/README.md` of containerd, "Logging").

use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::reaper::Reaper;

/// Whose output a logger takes.
#[derive(Clone, Copy, Debug)]
pub struct LoggerFor<'a> {
    pub container: &'a str,
    pub namespace: &'a str,
}

/// Gives the program its descriptors 3, 4 and 5: a child of Rust's standard
/// library inherits three, whatever they are.
const MOVE_DESCRIPTORS: &str = "exec 3<&0 4<&1 5>&2 </dev/null >/dev/null 2>/dev/null; exec \"$@\"";

/// Starts the logger of `uri`; answers the pipes for stdout and stderr.
///
/// The program gets the other ends as descriptors 3 and 4, and closes
/// descriptor 5 when it is ready.
pub fn start(uri: &str, whose: LoggerFor<'_>, reaper: &Reaper) -> Result<(OwnedFd, OwnedFd)> {
    let (program, args) = parse(uri)?;
    let pipe = || std::io::pipe().context("a pipe can't be made");
    let ((stdout, stdout_writer), (stderr, stderr_writer)) = (pipe()?, pipe()?);
    let (ready, ready_writer) = pipe()?;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", MOVE_DESCRIPTORS, "sh", &program])
        .args(&args)
        .env("CONTAINER_ID", whose.container)
        .env("CONTAINER_NAMESPACE", whose.namespace)
        .stdin(OwnedFd::from(stdout))
        .stdout(OwnedFd::from(stderr))
        .stderr(Stdio::from(ready_writer));
    let child = command
        .spawn()
        .with_context(|| format!("logger {program} can't be started"))?;
    let pid = i32::try_from(child.id()).context("pid out of range")?;
    drop((child, command));
    wait_until_ready(ready).with_context(|| format!("logger {program} does not become ready"))?;
    let reaper = reaper.clone();
    // So that the status is not kept for nobody.
    let _ = std::thread::Builder::new()
        .name("logger".to_owned())
        .spawn(move || reaper.wait(pid));
    Ok((stdout_writer.into(), stderr_writer.into()))
}

/// The program writes nothing, but closes its end.
fn wait_until_ready(mut ready: PipeReader) -> Result<()> {
    ready
        .read_to_end(&mut Vec::new())
        .context("its pipe can't be read")?;
    Ok(())
}

/// Program and arguments of `binary:///path?key=value&…`: each key and each
/// value that is not empty is an argument.
fn parse(uri: &str) -> Result<(String, Vec<String>)> {
    let rest = uri
        .strip_prefix("binary://")
        .context("not a binary:// address")?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    ensure!(
        path.starts_with('/'),
        "logger {path:?} is not an absolute path"
    );
    let mut args = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        args.push(decode(key)?);
        if !value.is_empty() {
            args.push(decode(value)?);
        }
    }
    Ok((decode(path)?, args))
}

/// Undoes percent encoding.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = digit().zip(digit()).context("bad percent encoding")?;
                u8::try_from(value.0 * 16 + value.1).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8(bytes).context("not valid UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_loggers() {
        let (program, args) = parse("binary:///usr/bin/log?a=1%2F2&flag").expect("valid");
        assert_eq!(program, "/usr/bin/log");
        assert_eq!(args, ["a", "1/2", "flag"]);
        assert!(parse("binary://relative").is_err());
        assert!(parse("binary:///x?a=%zz").is_err());
    }
}
