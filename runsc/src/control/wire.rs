//! Framing: a 32-bit little-endian length, then JSON; descriptors ride on the
//! length.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::MAX_MESSAGE;

/// Most descriptors in one message (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// Sends `message` with `fds`.
pub fn send(stream: &mut UnixStream, message: &impl Serialize, fds: &[RawFd]) -> Result<()> {
    let body = serde_json::to_vec(message).context("message can't be encoded")?;
    ensure!(body.len() <= MAX_MESSAGE, "message is too long");
    let len = u32::try_from(body.len()).context("message is too long")?;
    let head = len.to_le_bytes();
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage] = if fds.is_empty() { &[] } else { &rights };
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&head)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .context("control socket can't be written")?;
    ensure!(sent == head.len(), "control socket took a part of a header");
    stream
        .write_all(&body)
        .context("control socket can't be written")
}

/// Receives a message; `None` if the peer closed the connection.
pub fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut head = [0; 4];
    let mut fds = Vec::new();
    let got = {
        let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
        let mut slices = [IoSliceMut::new(&mut head)];
        let received = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .context("control socket can't be read")?;
        for message in received.cmsgs().context("control message is cut off")? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made these descriptors for us;
                // nobody else knows them.
                fds.extend(
                    raw.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        received.bytes
    };
    if got == 0 {
        return Ok(None);
    }
    if let Some(rest) = head.get_mut(got..) {
        stream.read_exact(rest).context("message is cut off")?;
    }
    let len = u32::from_le_bytes(head) as usize;
    ensure!(len <= MAX_MESSAGE, "message of {len} bytes is too long");
    let mut body = vec![0; len];
    stream.read_exact(&mut body).context("message is cut off")?;
    let message = serde_json::from_slice(&body).context("message is not understood")?;
    Ok(Some((message, fds)))
}
