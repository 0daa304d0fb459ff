//! What goes into a sealed box: a flag, then the bytes as they are or compressed.
//!
//! Flag 0: the rest is the bytes. Flag 1: a little-endian `u32` with the length of the bytes, then
//! one zstd frame. Compression is kept only when it saves at least 6 %: below that, restoring
//! would pay for nothing.

use bytes::Bytes;

use crate::error::{Error, Result};

const RAW: u8 = 0;
const ZSTD: u8 = 1;
const ZSTD_HEAD_BYTES: usize = 5;
const LEVEL: i32 = 1;

/// Compresses boxes one after the other, keeping its working memory.
pub(crate) struct Squeezer {
    zstd: zstd::bulk::Compressor<'static>,
    scratch: Vec<u8>,
}

impl Squeezer {
    pub(crate) fn new() -> Result<Self> {
        let zstd = zstd::bulk::Compressor::new(LEVEL)
            .map_err(|error| Error::io("memory for compression", error))?;
        Ok(Self { zstd, scratch: Vec::new() })
    }

    /// Starts the content of a box: the raw flag, to which the caller appends the bytes.
    pub(crate) fn start(capacity: usize) -> Vec<u8> {
        let mut content = Vec::with_capacity(1 + capacity + crate::crypto::TAG_BYTES);
        content.push(RAW);
        content
    }

    /// The compressed form of `content` (as begun by [`Squeezer::start`]), if it is worth keeping.
    /// The answer has room for the tag of its box.
    pub(crate) fn squeeze(&mut self, content: &[u8]) -> Option<Vec<u8>> {
        let raw = content.get(1..)?;
        let length = u32::try_from(raw.len()).ok()?;
        let most = raw.len() - raw.len() * 6 / 100;
        self.scratch.clear();
        self.scratch.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let packed = self.zstd.compress_to_buffer(raw, &mut self.scratch).ok()?;
        if packed + ZSTD_HEAD_BYTES > most {
            return None;
        }
        let room = ZSTD_HEAD_BYTES + packed + crate::crypto::TAG_BYTES;
        let mut squeezed = Vec::with_capacity(room);
        squeezed.push(ZSTD);
        squeezed.extend_from_slice(&length.to_le_bytes());
        squeezed.extend_from_slice(&self.scratch[..packed]);
        Some(squeezed)
    }
}

/// The content of a box that holds `payload`.
pub(crate) fn squeezed(payload: &[u8]) -> Result<Vec<u8>> {
    let mut content = Squeezer::start(payload.len());
    content.extend_from_slice(payload);
    Ok(Squeezer::new()?.squeeze(&content).unwrap_or(content))
}

/// The bytes that a box's content stands for; `None` if it is no such content, or more than
/// `bytes_max` long.
pub(crate) fn expanded(content: Vec<u8>, bytes_max: usize) -> Option<Bytes> {
    match *content.first()? {
        RAW if content.len() - 1 <= bytes_max => Some(Bytes::from(content).slice(1..)),
        ZSTD => {
            let length = content.get(1..ZSTD_HEAD_BYTES)?;
            let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
            if length > bytes_max {
                return None;
            }
            let bytes = zstd::bulk::decompress(&content[ZSTD_HEAD_BYTES..], length).ok()?;
            (bytes.len() == length).then(|| Bytes::from(bytes))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(payload: &[u8], flag: u8) {
        let content = squeezed(payload).unwrap();
        assert_eq!(content[0], flag);
        assert_eq!(expanded(content, payload.len()).unwrap(), payload);
    }

    #[test]
    fn what_compresses_is_compressed() {
        check(&[7; 10_000], ZSTD);
    }

    #[test]
    fn what_does_not_is_kept_as_it_is() {
        check(b"", RAW);
        check(b"short", RAW);
        check(&crate::crypto::random::<4096>().unwrap(), RAW);
    }

    #[test]
    fn content_that_claims_too_much_is_refused() {
        let content = squeezed(&[7; 10_000]).unwrap();
        assert!(expanded(content.clone(), 9_999).is_none());
        assert!(expanded(content[..4].to_vec(), 10_000).is_none());
        assert!(expanded(vec![], 10_000).is_none());
        assert!(expanded(vec![9, 9], 10_000).is_none());
    }
}
