//! Cutting a stream by its content, so that an insertion moves only the cuts beside it.
//!
//! **Promise.** Where a stream is cut depends on its bytes alone, not on the pieces that they
//! arrive in.
//!
//! **How.** FastCDC (2020) with normalisation level 1 and the gear table of the `fastcdc` crate.
//! The crate wants a whole chunk in one slice; this cutter carries its state from piece to piece
//! instead, so that no byte has to be copied to be looked at.

use std::borrow::Cow;

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};

use crate::error::{Error, Result};

/// How large the chunks of an item are on average, fixed when the item is created.
///
/// Smaller chunks store less of a stream that changed here and there; larger ones need less memory
/// for finding what is already stored (about 50 bytes a chunk while a backup runs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSize {
    bytes_avg: u32,
}

impl ChunkSize {
    /// The smallest average.
    pub const BYTES_MIN: u32 = 4 << 10;
    /// The largest average.
    pub const BYTES_MAX: u32 = 256 << 10;
    /// No chunk of any item is longer.
    pub(crate) const CHUNK_BYTES_MAX: u32 = 512 << 10;

    /// Chunks of `bytes_avg` bytes on average, at least a quarter of it and at most four times as
    /// long (but never longer than 512 KiB).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) unless `bytes_avg` is a power of two between
    /// [`ChunkSize::BYTES_MIN`] and [`ChunkSize::BYTES_MAX`].
    ///
    /// # Examples
    ///
    /// ```
    /// use archive::ChunkSize;
    ///
    /// assert_eq!(ChunkSize::new(64 << 10)?.bytes_avg(), 65_536);
    /// assert!(ChunkSize::new(5_000).is_err());
    /// # Ok::<(), archive::Error>(())
    /// ```
    pub fn new(bytes_avg: u32) -> Result<Self> {
        let fits = (Self::BYTES_MIN..=Self::BYTES_MAX).contains(&bytes_avg);
        if !fits || !bytes_avg.is_power_of_two() {
            return Err(Error::input("chunk size", "it is a power of two, 4 KiB to 256 KiB"));
        }
        Ok(Self { bytes_avg })
    }

    /// The average.
    #[must_use]
    pub fn bytes_avg(self) -> u32 {
        self.bytes_avg
    }

    fn bytes_min(self) -> usize {
        self.bytes_avg as usize / 4
    }

    fn bytes_max(self) -> usize {
        self.bytes_avg.saturating_mul(4).min(Self::CHUNK_BYTES_MAX) as usize
    }
}

impl Default for ChunkSize {
    /// 16 KiB: four pages of most databases.
    fn default() -> Self {
        Self { bytes_avg: 16 << 10 }
    }
}

/// Finds the ends of chunks in a stream that arrives piece by piece.
pub(crate) struct Cutter {
    size: ChunkSize,
    gear: Cow<'static, [u64]>,
    mask_before_avg: u64,
    mask_after_avg: u64,
    /// Bytes of the current chunk seen so far.
    seen: usize,
    hash: u64,
}

impl Cutter {
    pub(crate) fn new(size: ChunkSize) -> Self {
        let (before, after) = select_masks(size.bytes_avg as usize, Normalization::Level1);
        let (gear, _) = get_gear_with_seed(0);
        Self { size, gear, mask_before_avg: before, mask_after_avg: after, seen: 0, hash: 0 }
    }

    /// Looks at the next `piece`. `Some(n)`: the chunk ends after its first `n` bytes (maybe none),
    /// and the rest must be given again. `None`: all of it belongs to the chunk, which goes on.
    pub(crate) fn find(&mut self, piece: &[u8]) -> Option<usize> {
        let (bytes_min, bytes_max) = (self.size.bytes_min(), self.size.bytes_max());
        let mut at = bytes_min.saturating_sub(self.seen).min(piece.len());
        let avg = (self.size.bytes_avg as usize).saturating_sub(self.seen);
        let max = bytes_max - self.seen;
        for (mask, limit) in [(self.mask_before_avg, avg), (self.mask_after_avg, max)] {
            let limit = limit.min(piece.len());
            if at < limit {
                match self.scan(&piece[at..limit], mask) {
                    Some(n) => return self.end(at + n),
                    None => at = limit,
                }
            }
        }
        if max <= piece.len() {
            return self.end(max);
        }
        self.seen += piece.len();
        None
    }

    fn end(&mut self, at: usize) -> Option<usize> {
        self.seen = 0;
        self.hash = 0;
        Some(at)
    }

    /// The first byte at which the hash has no bit of `mask`: it begins the next chunk.
    fn scan(&mut self, bytes: &[u8], mask: u64) -> Option<usize> {
        // A fixed-size table lets the compiler drop the bounds check for a byte-sized index.
        let gear: &[u64; 256] =
            self.gear.as_ref().try_into().expect("the gear table has one entry a byte value");
        let mut hash = self.hash;
        for (at, byte) in bytes.iter().enumerate() {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
            if hash & mask == 0 {
                return Some(at);
            }
        }
        self.hash = hash;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastcdc::v2020::FastCDC;
    use proptest::prelude::*;

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(bytes: &[u8], size: ChunkSize, piece_bytes: usize) -> Vec<usize> {
        let mut cutter = Cutter::new(size);
        let (mut cuts, mut start) = (Vec::new(), 0);
        for piece in bytes.chunks(piece_bytes) {
            let mut rest = piece;
            while let Some(n) = cutter.find(rest) {
                cuts.push(start + n);
                start += n;
                rest = &rest[n..];
            }
            start += rest.len();
        }
        if cuts.last() != Some(&bytes.len()) {
            cuts.push(bytes.len());
        }
        cuts
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_cuts_are_those_of_fastcdc_whatever_the_pieces(
            seed: u8, zeros in 0_usize..200_000, piece_bytes in 1_usize..70_000,
        ) {
            let size = ChunkSize::new(16 << 10).unwrap();
            let mut bytes = noise(seed, 300_000);
            bytes.splice(100_000..100_000, std::iter::repeat_n(0, zeros));
            let expected: Vec<usize> =
                FastCDC::new(&bytes, size.bytes_min(), 16 << 10, size.bytes_max())
                    .map(|chunk| chunk.offset + chunk.length)
                    .collect();
            prop_assert_eq!(cuts(&bytes, size, piece_bytes), expected);
        }
    }
}
