//! Helpers for byte rings.

use std::collections::VecDeque;

/// Copies bytes from `skip` on; answers how many there were.
pub fn copy_from(ring: &VecDeque<u8>, skip: usize, buf: &mut [u8]) -> usize {
    let len = buf.len().min(ring.len().saturating_sub(skip));
    let (first, second) = ring.as_slices();
    let (part, second_skip) = match first.get(skip..) {
        Some(part) => (part, 0),
        None => (&[][..], skip - first.len()),
    };
    let split = part.len().min(len);
    let (head, tail) = buf.split_at_mut(split);
    head.copy_from_slice(part.get(..split).unwrap_or_default());
    let rest = len - split;
    let from = second.get(second_skip..).and_then(|from| from.get(..rest));
    if let (Some(to), Some(from)) = (tail.get_mut(..rest), from) {
        to.copy_from_slice(from);
    }
    len
}

/// Puts bytes back to the front.
pub fn unread(ring: &mut VecDeque<u8>, bytes: &[u8]) {
    ring.reserve(bytes.len());
    for byte in bytes.iter().rev() {
        ring.push_front(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_across_the_seam() {
        let mut ring: VecDeque<u8> = VecDeque::with_capacity(8);
        ring.extend([1, 2, 3, 4, 5, 6]);
        ring.drain(..5);
        ring.extend([7, 8, 9, 10]);
        let mut buf = [0; 9];
        assert_eq!(copy_from(&ring, 0, &mut buf), 5);
        assert_eq!(buf[..5], [6, 7, 8, 9, 10]);
        assert_eq!(copy_from(&ring, 4, &mut buf), 1);
        assert_eq!(buf[0], 10);
        assert_eq!(copy_from(&ring, 9, &mut buf), 0);
        unread(&mut ring, &[4, 5]);
        assert_eq!(ring.front(), Some(&4));
    }
}
