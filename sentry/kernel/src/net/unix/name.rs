//! Addresses of unix sockets.

use syscall_tables::Errno;
use syscall_tables::abi::AF_UNIX;

/// Longest `sun_path`.
const PATH_MAX: usize = 108;

/// The name of a bound socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixName {
    /// A path, without NUL.
    Path(Vec<u8>),
    /// An abstract name, without the leading NUL.
    Abstract(Vec<u8>),
}

/// What a guest gave for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenName {
    Name(UnixName),
    /// Nothing but a family (`unix(7)`: autobind).
    Nothing,
}

impl GivenName {
    /// Decodes a `struct sockaddr_un`.
    pub fn parse(addr: &[u8]) -> Result<Self, Errno> {
        let (family, path) = addr.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
        if path.len() > PATH_MAX || u16::from_ne_bytes(*family) != AF_UNIX {
            return Err(Errno::EINVAL);
        }
        Ok(match path.split_first() {
            None => Self::Nothing,
            Some((0, name)) => Self::Name(UnixName::Abstract(name.to_vec())),
            Some(_) => {
                let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
                Self::Name(UnixName::Path(path.to_vec()))
            }
        })
    }

    /// The name; `EINVAL` without one.
    pub fn name(self) -> Result<UnixName, Errno> {
        match self {
            Self::Name(name) => Ok(name),
            Self::Nothing => Err(Errno::EINVAL),
        }
    }
}

impl UnixName {
    /// As a `struct sockaddr_un`.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = AF_UNIX.to_ne_bytes().to_vec();
        match self {
            Self::Path(path) => {
                wire.extend_from_slice(path);
                wire.push(0);
            }
            Self::Abstract(name) => {
                wire.push(0);
                wire.extend_from_slice(name);
            }
        }
        wire
    }

    /// As `/proc/net/unix` shows it.
    pub fn display(&self) -> String {
        match self {
            Self::Path(path) => String::from_utf8_lossy(path).into_owned(),
            Self::Abstract(name) => {
                let text = String::from_utf8_lossy(name);
                format!("@{}", text.replace('\0', "@"))
            }
        }
    }
}

/// The address of a socket without a name.
pub fn unnamed() -> Vec<u8> {
    AF_UNIX.to_ne_bytes().to_vec()
}
