//! Ids of pods, containers and sessions: 64 hexadecimal digits.

use std::io::Read;

/// 256 random bits.
pub fn random() -> String {
    let mut bytes = [0u8; 32];
    // The device can't fail on a running system; without it no id is safe.
    if let Err(err) = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes))
    {
        panic!("/dev/urandom can't be read: {err}");
    }
    hex(&bytes)
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// First digits, where a path must stay short.
pub fn short(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}
