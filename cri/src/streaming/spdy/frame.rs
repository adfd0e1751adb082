//! Frames of SPDY/3.1 on the wire (draft 3.1, section 2.2).
//!
//! Flow control is not used: the clients of this field neither send nor heed
//! WINDOW_UPDATE and rely on the TCP connection to slow the other side down.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::{Deflater, Headers, Inflater};

/// Largest frame taken from a client.
const MAX_FRAME_BYTES: usize = 4 << 20;

const CONTROL: u32 = 0x8000_0000;
const VERSION: u32 = 3;
const STREAM_ID: u32 = 0x7fff_ffff;
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// Whether this frame is the last of its direction of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    Fin,
}

/// A frame that means something to us.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        end: End,
        headers: Headers,
    },
    Reset {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Data {
        id: u32,
        end: End,
        bytes: Bytes,
    },
    /// Settings, window updates, late headers.
    Other,
}

/// Reads the next frame; `None` at the end of the connection.
pub async fn read(
    from: &mut (impl AsyncRead + Unpin),
    inflater: &mut Inflater,
) -> io::Result<Option<Frame>> {
    let mut head = [0; 8];
    match from.read_exact(&mut head).await {
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let [a, b, c, d, flags, l2, l1, l0] = head;
    let word = u32::from_be_bytes([a, b, c, d]);
    let len = usize::try_from(u32::from_be_bytes([0, l2, l1, l0])).unwrap_or(usize::MAX);
    if len > MAX_FRAME_BYTES {
        return Err(invalid("a frame is too large"));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body).await?;
    let end = if flags & FLAG_FIN != 0 {
        End::Fin
    } else {
        End::Open
    };
    if word & CONTROL == 0 {
        return Ok(Some(Frame::Data {
            id: word,
            end,
            bytes: Bytes::from(body),
        }));
    }
    if word >> 16 & 0x7fff != VERSION {
        return Err(invalid("the client speaks another version of SPDY"));
    }
    control(u16::from_be_bytes([c, d]), end, &body, inflater).map(Some)
}

fn control(kind: u16, end: End, body: &[u8], inflater: &mut Inflater) -> io::Result<Frame> {
    let short = || invalid("a control frame is too short");
    let first = body
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes));
    Ok(match kind {
        SYN_STREAM => Frame::SynStream {
            id: first.ok_or_else(short)? & STREAM_ID,
            end,
            // Behind the ids come priority and slot.
            headers: inflater.read(body.get(10..).ok_or_else(short)?)?,
        },
        RST_STREAM => Frame::Reset {
            id: first.ok_or_else(short)? & STREAM_ID,
        },
        PING => Frame::Ping {
            id: first.ok_or_else(short)?,
        },
        GOAWAY => Frame::GoAway,
        _ => Frame::Other,
    })
}

/// Appends a SYN_REPLY without headers.
pub fn put_reply(out: &mut Vec<u8>, id: u32, deflater: &mut Deflater) -> io::Result<()> {
    let block = deflater.write(&Headers::default())?;
    put_head(
        out,
        CONTROL | VERSION << 16 | u32::from(SYN_REPLY),
        0,
        4 + block.len(),
    )?;
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&block);
    Ok(())
}

/// Appends a RST_STREAM with a status of section 2.6.3.
pub fn put_reset(out: &mut Vec<u8>, id: u32, status: u32) -> io::Result<()> {
    put_head(out, CONTROL | VERSION << 16 | u32::from(RST_STREAM), 0, 8)?;
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&status.to_be_bytes());
    Ok(())
}

pub fn put_ping(out: &mut Vec<u8>, id: u32) -> io::Result<()> {
    put_head(out, CONTROL | VERSION << 16 | u32::from(PING), 0, 4)?;
    out.extend_from_slice(&id.to_be_bytes());
    Ok(())
}

/// Appends the head of a data frame; its `len` bytes follow.
pub fn put_data_head(out: &mut Vec<u8>, id: u32, end: End, len: usize) -> io::Result<()> {
    let flags = if end == End::Fin { FLAG_FIN } else { 0 };
    put_head(out, id & STREAM_ID, flags, len)
}

#[cfg(test)]
pub fn put_syn_stream(out: &mut Vec<u8>, id: u32, headers: &Headers, deflater: &mut Deflater) {
    let block = deflater.write(headers).expect("headers");
    put_head(
        out,
        CONTROL | VERSION << 16 | u32::from(SYN_STREAM),
        0,
        10 + block.len(),
    )
    .expect("length");
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&block);
}

fn put_head(out: &mut Vec<u8>, word: u32, flags: u8, len: usize) -> io::Result<()> {
    let len = u32::try_from(len)
        .ok()
        .filter(|len| len >> 24 == 0)
        .ok_or_else(|| invalid("a frame is too large"))?;
    out.extend_from_slice(&word.to_be_bytes());
    out.extend_from_slice(&(u32::from(flags) << 24 | len).to_be_bytes());
    Ok(())
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(mut bytes: &[u8]) -> io::Result<Vec<Frame>> {
        let mut inflater = Inflater::new();
        let mut frames = Vec::new();
        while let Some(frame) = read(&mut bytes, &mut inflater).await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[tokio::test]
    async fn frames_come_back_as_written() {
        let headers = Headers::of(&[("streamType", "stdin")]);
        let mut wire = Vec::new();
        put_syn_stream(
            &mut wire,
            1,
            &headers,
            &mut Deflater::new().expect("deflater"),
        );
        put_data_head(&mut wire, 1, End::Fin, 3).expect("head");
        wire.extend_from_slice(b"abc");
        put_ping(&mut wire, 7).expect("ping");
        put_reset(&mut wire, 1, 5).expect("reset");
        let end = End::Open;
        let data = Frame::Data {
            id: 1,
            end: End::Fin,
            bytes: Bytes::from_static(b"abc"),
        };
        let expected = [
            Frame::SynStream {
                id: 1,
                end,
                headers,
            },
            data,
            Frame::Ping { id: 7 },
            Frame::Reset { id: 1 },
        ];
        assert_eq!(read_all(&wire).await.expect("frames"), expected);
    }

    #[tokio::test]
    async fn wrong_versions_sizes_and_cuts_are_refused() {
        for wire in [
            &b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x01"[..],
            b"\0\0\0\x01\0\xff\xff\xff",
            b"\0\0\0\x01\0\0\0\x04ab",
            b"\x80\x03\0\x06\0\0\0\x02\0\0",
            b"\x80\x03\0\x01\0\0\0\x06\0\0\0\x01\0\0",
        ] {
            assert!(read_all(wire).await.is_err(), "{wire:?}");
        }
        assert_eq!(read_all(b"\x80\x03\0").await.expect("end"), []);
    }
}
