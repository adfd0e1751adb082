//! Memory that arrives later.

use super::Memory;

/// Longest single piece a formatter asks for.
pub const PIECE_MAX: usize = 4096;

/// A [`Memory`] of pieces fetched so far, which notes what else was wanted.
///
/// Format with it; while [`Gather::take_wanted`] has something, fetch that,
/// [`Gather::supply`] it and format again. As many rounds as pointers are
/// nested, plus one.
#[derive(Debug, Default)]
pub struct Gather {
    pieces: Vec<Piece>,
    wanted: Vec<(u64, usize)>,
}

#[derive(Debug)]
struct Piece {
    addr: u64,
    len: usize,
    data: Option<Vec<u8>>,
}

impl Gather {
    pub fn new() -> Self {
        Self::default()
    }

    /// Address and length of the pieces that were wanted and missing since
    /// the last call.
    pub fn take_wanted(&mut self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.wanted)
    }

    /// The bytes from `addr` on for a request of `len`: fewer if the rest is
    /// not accessible, `None` if nothing is.
    pub fn supply(&mut self, addr: u64, len: usize, data: Option<Vec<u8>>) {
        self.pieces.push(Piece { addr, len, data });
    }
}

impl Memory for Gather {
    fn read(&mut self, addr: u64, len: usize) -> Option<Vec<u8>> {
        let len = len.min(PIECE_MAX);
        let known = self
            .pieces
            .iter()
            .find(|piece| piece.addr == addr && piece.len == len);
        match known {
            Some(piece) => piece.data.clone(),
            None => {
                if !self.wanted.contains(&(addr, len)) {
                    self.wanted.push((addr, len));
                }
                None
            }
        }
    }
}
