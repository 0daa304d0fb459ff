//! The header of a segment of the log.

use plugin_sdk::Fault;

use crate::{lsn::Lsn, notes::Lineage};

/// `XLogLongPageHeaderData` (`src/include/access/xlog_internal.h`), in the server's own byte order,
/// which is ours: the server runs on this node or on one like it.
const HEADER_BYTES: usize = 36;
/// The first page of a segment has the long form of the header.
const LONG_HEADER: u16 = 2;

/// Checks that `bytes` begin the segment of `lineage` that begins at `at`.
///
/// # Errors
///
/// A permanent fault that says of whom the segment is instead.
pub(crate) fn check_header(bytes: &[u8], lineage: &Lineage, at: Lsn) -> Result<(), Fault> {
    let refused = |why: String| {
        let message = format!("what the server sent as its log at {at} is none: {why}");
        Fault::permanent("postgres.segment", message).advise("look into the server's log")
    };
    let header = bytes.get(..HEADER_BYTES).ok_or_else(|| refused("it is too short".to_owned()))?;
    let two = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let four = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| header[at + i]));
    let eight = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| header[at + i]));
    let (info, timeline, address) = (two(2), four(4), Lsn::new(eight(8)));
    let (system_id, size) = (eight(24), u64::from(four(32)));
    if info & LONG_HEADER == 0 {
        return Err(refused("it has no header".to_owned()));
    }
    if system_id.to_string() != lineage.system_id {
        return Err(refused(format!("it is of cluster {system_id}")));
    }
    // A segment in which the server went on from another timeline begins on that one.
    if timeline > lineage.timeline || address != at || size != lineage.segment_bytes.bytes() {
        return Err(refused(format!("it is of {address}, timeline {timeline}, {size} bytes")));
    }
    Ok(())
}
