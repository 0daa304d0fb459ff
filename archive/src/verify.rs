//! Checking a point without restoring it.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::item::ItemInner;
use crate::point::PointEntry;
use crate::read::PointReader;

/// How thoroughly a point is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// Every object that is needed is there in its full length.
    Present,
    /// Every stream is read, decrypted, unpacked and hashed.
    Full,
}

/// What a check found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Packs that the point needs.
    pub packs: u64,
    /// What they take in the store.
    pub stored_bytes: u64,
    /// Bytes that were read and hashed.
    pub read_bytes: u64,
    /// One error for each problem; the subject is the object.
    pub problems: Vec<Error>,
}

impl VerifyReport {
    /// Whether no problem was found.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

pub(crate) async fn verify(
    item: &Arc<ItemInner>,
    point: &PointEntry,
    level: Level,
) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let reader = match PointReader::open(Arc::clone(item), point).await {
        Ok(reader) => reader,
        Err(error) if error.kind() == ErrorKind::Damaged => {
            report.problems.push(error);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    report.packs = reader.packs().len() as u64;
    report.stored_bytes = reader.packs().iter().map(|pack| pack.length).sum();
    report.problems = reader.presence_problems().await?;
    if level == Level::Full {
        for stream in &point.streams {
            read_through(&reader, &stream.name, &mut report).await?;
        }
    }
    Ok(report)
}

async fn read_through(reader: &PointReader, stream: &str, report: &mut VerifyReport) -> Result<()> {
    let mut sequential = reader.stream(stream)?.sequential();
    loop {
        match sequential.next_chunk().await {
            Ok(Some(chunk)) => report.read_bytes += chunk.len() as u64,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                let known = report.problems.iter().any(|other| other.subject() == error.subject());
                if !known {
                    report.problems.push(error);
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}
