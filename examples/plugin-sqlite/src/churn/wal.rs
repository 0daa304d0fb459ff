//! What a write-ahead log holds, from its bytes alone.
//!
//! Follows <https://sqlite.org/fileformat2.html>, section 4: a frame counts if
//! its salts are the header's and its checksum continues the chain from the
//! header; frames after the last valid commit frame do not count.

use serde::{Deserialize, Serialize};

use crate::header::{be32, is_page_size};

/// One generation of a log: everything between two restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) salts: (u32, u32),
    pub(crate) checkpoint_sequence: u32,
}

/// The last transaction that is complete in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    /// Number of frames up to and including the commit frame.
    pub(crate) frames: u64,
    /// Size of the database in pages after the transaction.
    pub(crate) pages_after: u32,
    /// Cumulative over all frames, so that it stands for the whole log so far.
    pub(crate) checksum: (u32, u32),
}

/// Walks the frames of one log.
#[derive(Debug)]
pub(crate) struct Scan {
    generation: Generation,
    page_size: u32,
    order: WordOrder,
    running: (u32, u32),
    frames: u64,
    commit: Option<Commit>,
}

#[derive(Clone, Copy, Debug)]
enum WordOrder {
    Little,
    Big,
}

impl Scan {
    pub(crate) const HEADER_BYTES: usize = 32;
    const FRAME_HEADER_BYTES: usize = 24;

    /// Starts from the log's header, or `None` if SQLite would not accept it.
    pub(crate) fn start(header: &[u8]) -> Option<Self> {
        let header = header.first_chunk::<{ Self::HEADER_BYTES }>()?;
        let order = match be32(header, 0) {
            0x377f_0682 => WordOrder::Little,
            0x377f_0683 => WordOrder::Big,
            _ => return None,
        };
        let running = checksum(order, (0, 0), &header[..24]);
        let page_size = be32(header, 8);
        let is_valid = be32(header, 4) == 3_007_000
            && is_page_size(page_size)
            && running == (be32(header, 24), be32(header, 28));
        is_valid.then(|| Self {
            generation: Generation {
                salts: (be32(header, 16), be32(header, 20)),
                checkpoint_sequence: be32(header, 12),
            },
            page_size,
            order,
            running,
            frames: 0,
            commit: None,
        })
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        Self::FRAME_HEADER_BYTES + self.page_size as usize
    }

    /// Takes the next frame and says whether it is valid; after `false` the walk is over.
    pub(crate) fn push(&mut self, frame: &[u8]) -> bool {
        if frame.len() != self.frame_bytes()
            || be32(frame, 0) == 0
            || (be32(frame, 8), be32(frame, 12)) != self.generation.salts
        {
            return false;
        }
        let running = checksum(self.order, self.running, &frame[..8]);
        let running = checksum(self.order, running, &frame[Self::FRAME_HEADER_BYTES..]);
        if running != (be32(frame, 16), be32(frame, 20)) {
            return false;
        }
        self.running = running;
        self.frames += 1;
        let pages_after = be32(frame, 4);
        if pages_after != 0 {
            self.commit = Some(Commit { frames: self.frames, pages_after, checksum: running });
        }
        true
    }

    pub(crate) fn finish(self) -> (Generation, Option<Commit>) {
        (self.generation, self.commit)
    }
}

/// The log's own checksum, section 4.2; `bytes` is a multiple of 8 long.
fn checksum(order: WordOrder, start: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let (mut first, mut second) = start;
    let (pairs, _) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in pairs {
        let (left, right) = match order {
            WordOrder::Little => {
                (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
            }
            WordOrder::Big => (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])),
        };
        first = first.wrapping_add(left).wrapping_add(second);
        second = second.wrapping_add(right).wrapping_add(first);
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log written by the rules, as an oracle that shares only the checksum.
    fn log(salts: (u32, u32), order: WordOrder, commits: &[bool]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let magic = match order {
            WordOrder::Little => 0x377f_0682_u32,
            WordOrder::Big => 0x377f_0683,
        };
        let mut header: Vec<u8> = [magic, 3_007_000, 512, 7, salts.0, salts.1]
            .iter()
            .flat_map(|w| w.to_be_bytes())
            .collect();
        let mut sum = checksum(order, (0, 0), &header);
        header.extend([sum.0, sum.1].iter().flat_map(|word| word.to_be_bytes()));
        let frames = commits.iter().enumerate().map(|(index, &is_commit)| {
            let page = vec![index as u8 + 1; 512];
            let pages_after = if is_commit { 9 } else { 0 };
            let mut frame: Vec<u8> =
                [index as u32 + 1, pages_after].iter().flat_map(|w| w.to_be_bytes()).collect();
            sum = checksum(order, checksum(order, sum, &frame), &page);
            frame.extend(
                [salts.0, salts.1, sum.0, sum.1].iter().flat_map(|word| word.to_be_bytes()),
            );
            frame.extend(page);
            frame
        });
        let frames = frames.collect();
        (header, frames)
    }

    #[track_caller]
    fn check(header: &[u8], frames: &[Vec<u8>], expected: Option<u64>) {
        let mut scan = Scan::start(header).unwrap();
        for frame in frames {
            if !scan.push(frame) {
                break;
            }
        }
        assert_eq!(scan.finish().1.map(|commit| commit.frames), expected);
    }

    #[test]
    fn the_last_commit_frame_ends_what_counts() {
        for order in [WordOrder::Little, WordOrder::Big] {
            let (header, frames) = log((1, 2), order, &[false, true, true, false]);
            check(&header, &frames, Some(3));
            check(&header, &frames[..1], None);
        }
    }

    #[test]
    fn frames_of_an_earlier_generation_do_not_count() {
        let (header, mut frames) = log((1, 2), WordOrder::Little, &[true]);
        frames.extend(log((0, 2), WordOrder::Little, &[true, true]).1.split_off(1));
        check(&header, &frames, Some(1));
    }

    #[test]
    fn a_flipped_bit_anywhere_ends_the_walk_before_its_frame() {
        let (header, frames) = log((1, 2), WordOrder::Little, &[true, true, true]);
        for byte in 0..frames[1].len() {
            let mut damaged = frames.clone();
            damaged[1][byte] ^= 1;
            check(&header, &damaged, Some(1));
        }
        for byte in 0..header.len() {
            let mut damaged = header.clone();
            damaged[byte] ^= 4;
            assert!(Scan::start(&damaged).is_none(), "byte {byte}");
        }
    }
}
