//! Places in the write-ahead log, and the segment files that it is kept in.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A place in the log: a log sequence number, written `16/B374D848`.
///
/// ```
/// use plugin_postgres::Lsn;
///
/// let lsn: Lsn = "16/B374D848".parse()?;
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// # Ok::<(), plugin_postgres::InvalidLsn>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(u64);

/// The text is no place in a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log sequence number reads `16/B374D848`, not {0:?}")]
pub struct InvalidLsn(String);

impl Lsn {
    /// The place `bytes` after the beginning of the log.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Lsn(bytes)
    }

    /// Bytes since the beginning of the log.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let half = |digits: &str| {
            // `from_str_radix` takes a sign.
            let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten().map(u64::from)
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| InvalidLsn(text.to_owned()))
    }
}

impl TryFrom<String> for Lsn {
    type Error = InvalidLsn;

    fn try_from(text: String) -> Result<Self, InvalidLsn> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How large the segments of a cluster's log are; chosen when the cluster was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u64);

/// The number is no size of a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a segment of the log has 1 MiB to 1 GiB, a power of two, not {0} bytes")]
pub struct InvalidSegmentSize(u64);

impl SegmentSize {
    /// Bytes in a segment.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The beginning of the segment that `lsn` lies in.
    #[must_use]
    pub const fn floor(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 & !(self.0 - 1))
    }

    /// The beginning of the first segment that does not begin before `lsn`.
    #[must_use]
    pub const fn ceiling(self, lsn: Lsn) -> Lsn {
        Lsn((lsn.0 + (self.0 - 1)) & !(self.0 - 1))
    }

    /// The name of the file of the segment that `lsn` lies in, on `timeline`.
    #[must_use]
    pub fn file_name(self, timeline: u32, lsn: Lsn) -> String {
        let number = lsn.0 / self.0;
        let in_one_id = 0x1_0000_0000 / self.0;
        format!("{timeline:08X}{:08X}{:08X}", number / in_one_id, number % in_one_id)
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = InvalidSegmentSize;

    fn try_from(bytes: u64) -> Result<Self, InvalidSegmentSize> {
        let valid = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        if valid { Ok(SegmentSize(bytes)) } else { Err(InvalidSegmentSize(bytes)) }
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> u64 {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(text: &str) -> Lsn {
        text.parse().expect("a fixed number is valid")
    }

    #[test]
    fn only_a_log_sequence_number_is_read_as_one() {
        for text in ["0/0", "0/3000028", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(lsn(text).to_string(), text);
        }
        for text in ["", "3000028", "/", "1/", "/1", "0/+1", "0/1/2", "0/G", "100000000/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn segments_are_named_as_the_server_names_them() {
        // As `pg_walfile_name` of PostgreSQL 15 answers.
        let mib16 = SegmentSize::try_from(16 << 20).expect("valid");
        let gib1 = SegmentSize::try_from(1 << 30).expect("valid");
        for (size, timeline, at, name) in [
            (mib16, 1, "0/3000028", "000000010000000000000003"),
            (mib16, 0x1F, "16/B374D848", "0000001F00000016000000B3"),
            (mib16, 1, "1/0", "000000010000000100000000"),
            (gib1, 2, "1/C0000000", "000000020000000100000003"),
        ] {
            assert_eq!(size.file_name(timeline, lsn(at)), name);
        }
    }

    #[test]
    fn a_boundary_is_its_own_floor_and_ceiling() {
        let size = SegmentSize::try_from(16 << 20).expect("valid");
        for (at, floor, ceiling) in [
            ("0/3000000", "0/3000000", "0/3000000"),
            ("0/3000001", "0/3000000", "0/4000000"),
            ("0/3FFFFFF", "0/3000000", "0/4000000"),
        ] {
            assert_eq!((size.floor(lsn(at)), size.ceiling(lsn(at))), (lsn(floor), lsn(ceiling)));
        }
        for bytes in [0, 1, 3 << 20, 1 << 19, 1 << 31] {
            assert!(SegmentSize::try_from(bytes).is_err(), "{bytes}");
        }
    }
}
