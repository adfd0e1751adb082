//! Reader and writer over plain byte buffers.
//!
//! All numbers are in host byte order: both sides run on one machine.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A message that breaks the protocol. The side that sees one ends the
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

impl core::error::Error for Malformed {}

/// Takes values off the front of a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next fixed-size value.
    pub fn value<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Malformed> {
        let (value, rest) =
            T::read_from_prefix(self.0).map_err(|_| Malformed("message too short"))?;
        self.0 = rest;
        Ok(value)
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(Malformed("message too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Bytes behind a 16-bit length.
    pub fn short_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len: u16 = self.value()?;
        self.bytes(usize::from(len))
    }

    /// Bytes behind a 32-bit length.
    pub fn long_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len: u32 = self.value()?;
        self.bytes(usize::try_from(len).map_err(|_| Malformed("length too large"))?)
    }

    /// A flag that must be 0 or 1.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.value::<u8>()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("flag is neither 0 nor 1")),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Fails unless everything was read.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("bytes behind the end"))
        }
    }
}

/// Appends values to a message.
pub trait Write {
    fn value<T: IntoBytes + Immutable>(&mut self, value: &T);
    /// Bytes behind a 16-bit length; a longer slice is cut, which only an
    /// over-long name can cause, and callers check those first.
    fn short_bytes(&mut self, bytes: &[u8]);
    /// Bytes behind a 32-bit length.
    fn long_bytes(&mut self, bytes: &[u8]);
    fn flag(&mut self, flag: bool);
}

impl Write for Vec<u8> {
    fn value<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.extend_from_slice(value.as_bytes());
    }

    fn short_bytes(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.value(&len);
        self.extend_from_slice(bytes.get(..usize::from(len)).unwrap_or_default());
    }

    fn long_bytes(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.value(&len);
        self.extend_from_slice(bytes);
    }

    fn flag(&mut self, flag: bool) {
        self.push(u8::from(flag));
    }
}
