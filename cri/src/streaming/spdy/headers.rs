//! Name/value blocks of SPDY/3 (draft 3, section 2.6.10): compressed with
//! zlib, one state per direction for the whole connection, started with a
//! dictionary that both sides know.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a block may take uncompressed; those of remote commands have a few
/// hundred bytes.
const MAX_BLOCK_BYTES: usize = 16 << 10;
const MAX_PAIRS: usize = 64;

/// The words of the dictionary that have their length before them.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// The rest of the dictionary, as it stands.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415\
416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad \
Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not \
Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 \
Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,\
deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1500);
    for word in WORDS {
        put(&mut bytes, word);
    }
    bytes.extend_from_slice(TAIL.as_bytes());
    bytes
}

/// A length and the bytes. Only for text far below 4 GiB: words of the
/// dictionary, header names and values of our own.
fn put(out: &mut Vec<u8>, text: &str) {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Headers of a stream, names in lower case.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    #[cfg(test)]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| (name.to_lowercase(), (*value).to_owned());
        Self(pairs.iter().map(own).collect())
    }

    /// The value of a header, by its name in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    fn parse(block: &[u8]) -> io::Result<Self> {
        let mut rest = block;
        let count = usize::try_from(take_u32(&mut rest)?).unwrap_or(usize::MAX);
        if count > MAX_PAIRS {
            return Err(invalid("a stream has too many headers"));
        }
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            let name = take_text(&mut rest)?.to_ascii_lowercase();
            pairs.push((name, take_text(&mut rest)?));
        }
        Ok(Self(pairs))
    }
}

fn take_u32(rest: &mut &[u8]) -> io::Result<u32> {
    let (head, tail) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| invalid("a header block ends too early"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn take_text(rest: &mut &[u8]) -> io::Result<String> {
    let len = usize::try_from(take_u32(rest)?).unwrap_or(usize::MAX);
    let (text, tail) = rest
        .split_at_checked(len)
        .ok_or_else(|| invalid("a header block ends too early"))?;
    *rest = tail;
    String::from_utf8(text.to_vec()).map_err(|_| invalid("a header is not UTF-8"))
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Reads the header blocks that come in on a connection, in their order.
pub struct Inflater(Decompress);

impl Inflater {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub fn read(&mut self, compressed: &[u8]) -> io::Result<Headers> {
        let mut block = Vec::with_capacity(1024);
        let mut rest = compressed;
        loop {
            let before = self.0.total_in();
            let outcome = self
                .0
                .decompress_vec(rest, &mut block, FlushDecompress::Sync);
            let used = usize::try_from(self.0.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(used..).unwrap_or_default();
            match outcome {
                Ok(Status::StreamEnd) => return Err(invalid("header compression has ended")),
                Ok(Status::Ok | Status::BufError)
                    if rest.is_empty() && block.len() < block.capacity() =>
                {
                    return Headers::parse(&block);
                }
                Ok(Status::BufError) if block.len() < block.capacity() => {
                    return Err(invalid("a header block ends too early"));
                }
                Ok(_) => {
                    if block.len() >= MAX_BLOCK_BYTES {
                        return Err(invalid("a header block is too large"));
                    }
                    block.reserve(1024);
                }
                Err(err) if err.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary())
                        .map_err(|_| invalid("headers are compressed with another dictionary"))?;
                }
                Err(_) => return Err(invalid("a header block can't be decompressed")),
            }
        }
    }
}

/// Writes the header blocks that go out on a connection, in their order.
pub struct Deflater(Compress);

impl Deflater {
    pub fn new() -> io::Result<Self> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress
            .set_dictionary(&dictionary())
            .map_err(|_| invalid("the header dictionary is refused"))?;
        Ok(Self(compress))
    }

    pub fn write(&mut self, headers: &Headers) -> io::Result<Vec<u8>> {
        let mut block = Vec::new();
        let count = u32::try_from(headers.0.len()).unwrap_or(u32::MAX);
        block.extend_from_slice(&count.to_be_bytes());
        for (name, value) in &headers.0 {
            put(&mut block, name);
            put(&mut block, value);
        }
        let mut out = Vec::with_capacity(block.len() + 64);
        let mut rest = block.as_slice();
        loop {
            let before = self.0.total_in();
            self.0
                .compress_vec(rest, &mut out, FlushCompress::Sync)
                .map_err(|_| invalid("headers can't be compressed"))?;
            let used = usize::try_from(self.0.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(used..).unwrap_or_default();
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(256);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// zlib names a dictionary by its Adler-32; that of SPDY/3 is published.
    #[test]
    fn dictionary_is_that_of_spdy_3() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_of_one_connection_share_their_state() {
        let (mut deflate, mut inflate) = (Deflater::new().expect("deflater"), Inflater::new());
        for port in ["80", "8080", "443"] {
            let headers = Headers::of(&[("streamType", "data"), ("port", port)]);
            let block = deflate.write(&headers).expect("compressed");
            let back = inflate.read(&block).expect("decompressed");
            assert_eq!(back, headers);
            assert_eq!(back.get("port"), Some(port));
        }
    }

    #[test]
    fn large_blocks_arrive_whole_and_bombs_are_refused() {
        let noise: String = (0u32..6000)
            .map(|i| char::from(b'a' + (i * i % 23) as u8))
            .collect();
        let (mut deflate, mut inflate) = (Deflater::new().expect("deflater"), Inflater::new());
        let headers = Headers::of(&[("x", &noise)]);
        let block = deflate.write(&headers).expect("compressed");
        assert_eq!(inflate.read(&block).expect("decompressed"), headers);

        let bomb = Headers::of(&[("x", &"0".repeat(1 << 20))]);
        let block = deflate.write(&bomb).expect("compressed");
        assert!(inflate.read(&block).is_err());
    }

    #[test]
    fn damaged_blocks_are_refused() {
        for block in [&b""[..], b"\x78\xbb\0\0\0\0", b"garbage that is no zlib"] {
            assert!(Inflater::new().read(block).is_err());
        }
        let mut deflate = Deflater::new().expect("deflater");
        let block = deflate
            .write(&Headers::of(&[("a", "b")]))
            .expect("compressed");
        let cut = block.get(..block.len() - 6).expect("cut");
        assert!(Inflater::new().read(cut).is_err());
    }
}
