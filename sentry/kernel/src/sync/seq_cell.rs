//! A few words that are read often and without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use parking_lot::Mutex;

/// Tries of a reader before it waits for the writer.
const TRIES: u32 = 64;

/// `N` words that change together. Readers copy them out and look at a
/// sequence number before and after, which is odd while a writer is at work.
pub struct SeqCell<const N: usize> {
    sequence: AtomicU32,
    words: [AtomicU64; N],
    writer: Mutex<()>,
}

impl<const N: usize> SeqCell<N> {
    pub fn new(words: [u64; N]) -> Self {
        Self {
            sequence: AtomicU32::new(0),
            words: words.map(AtomicU64::new),
            writer: Mutex::new(()),
        }
    }

    fn copy(&self) -> [u64; N] {
        std::array::from_fn(|at| {
            let word = self.words.get(at);
            word.map_or(0, |word| word.load(Ordering::Relaxed))
        })
    }

    /// All words, as one writer left them.
    pub fn read(&self) -> [u64; N] {
        for _ in 0..TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let words = self.copy();
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return words;
                }
            }
            std::hint::spin_loop();
        }
        let _writer = self.writer.lock();
        self.copy()
    }

    /// Changes the words; writers exclude each other.
    pub fn update(&self, change: impl FnOnce(&mut [u64; N])) {
        let _writer = self.writer.lock();
        let mut words = self.copy();
        change(&mut words);
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::SeqCell;

    #[test]
    fn readers_never_see_half_of_a_change() {
        let cell = SeqCell::new([0u64; 8]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for value in 1..20_000 {
                    cell.update(|words| *words = [value; 8]);
                }
            });
            let mut last = 0;
            while last < 19_999 {
                let words = cell.read();
                assert!(words.iter().all(|&word| word == words[0]), "{words:?}");
                assert!(words[0] >= last);
                last = words[0];
            }
        });
    }
}
