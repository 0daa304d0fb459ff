//! The first 100 bytes of a database file (<https://sqlite.org/fileformat2.html>, section 1.3).

use serde::{Deserialize, Serialize};

/// How a database keeps a transaction atomic, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalMode {
    /// Old pages are saved in `-journal`; writers wait for readers.
    Rollback,
    /// New pages are appended to `-wal`; writers and readers do not wait for each other.
    Wal,
}

/// The header fields that tell one state of a database from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) page_size: u32,
    pub(crate) journal_mode: JournalMode,
    pub(crate) change_counter: u32,
    pub(crate) page_count: u32,
    pub(crate) schema_cookie: u32,
    pub(crate) version_valid_for: u32,
}

impl Header {
    pub(crate) const BYTES: usize = 100;
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";

    /// Reads a header, or `None` if these bytes do not begin a database.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<{ Self::BYTES }>()?;
        let page_size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65_536,
            size => u32::from(size),
        };
        if !bytes.starts_with(Self::MAGIC) || !is_page_size(page_size) {
            return None;
        }
        Some(Self {
            page_size,
            journal_mode: if bytes[19] == 2 { JournalMode::Wal } else { JournalMode::Rollback },
            change_counter: be32(bytes, 24),
            page_count: be32(bytes, 28),
            schema_cookie: be32(bytes, 40),
            version_valid_for: be32(bytes, 92),
        })
    }

    /// The file's length in bytes, where the header vouches for it.
    ///
    /// Software older than SQLite 3.7.0 left a stale page count behind, which
    /// shows in the two counters.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        (self.page_count > 0 && self.change_counter == self.version_valid_for)
            .then(|| u64::from(self.page_count) * u64::from(self.page_size))
    }
}

/// Whether `size` is one of the page sizes that SQLite allows.
pub(crate) fn is_page_size(size: u32) -> bool {
    (512..=65_536).contains(&size) && size.is_power_of_two()
}

/// The big-endian word at `offset`; the caller's slice reaches that far.
pub(crate) fn be32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(page_size: [u8; 2]) -> Vec<u8> {
        let mut bytes = vec![0; Header::BYTES];
        bytes[..16].copy_from_slice(Header::MAGIC);
        bytes[16..18].copy_from_slice(&page_size);
        bytes
    }

    #[track_caller]
    fn check(bytes: &[u8], page_size: Option<u32>) {
        assert_eq!(Header::parse(bytes).map(|header| header.page_size), page_size);
    }

    #[test]
    fn the_largest_page_size_is_written_as_one() {
        check(&sample([0, 1]), Some(65_536));
        check(&sample([2, 0]), Some(512));
        check(&sample([0x10, 0]), Some(4096));
    }

    #[test]
    fn other_bytes_are_no_header() {
        check(&sample([0, 0]), None);
        check(&sample([1, 0]), None);
        check(&sample([0x10, 1]), None);
        check(&sample([0x10, 0])[..99], None);
        check(&[0; 100], None);
    }
}
