//! What a stream is made of: ranges of packs, or its bytes themselves when it is small.

use bytes::Bytes;

use crate::error::Result;
use crate::index::Place;
use crate::pack::PackRef;
use crate::wire::{Reader, Writer};

/// Streams up to this length are kept inside the hold and the point.
pub(crate) const INLINE_BYTES_MAX: usize = 64 << 10;

const INLINE: u64 = 0;
const EXTENTS: u64 = 1;
/// What one extent takes in a list, at least.
const EXTENT_WIRE_BYTES_MIN: usize = 3;

/// A range of the plain bytes of one pack; the pack is a number in the list that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) pack: u32,
    pub(crate) raw_start: u64,
    pub(crate) length: u64,
}

/// The bytes of a stream, or where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Inline(Bytes),
    Extents(Vec<Extent>),
}

/// Adds a chunk to a stream; one that continues the last extent makes it longer.
pub(crate) fn push(extents: &mut Vec<Extent>, place: Place) {
    let Place { pack, raw_start, length } = place;
    let (raw_start, length) = (u64::from(raw_start), u64::from(length));
    match extents.last_mut() {
        Some(last) if last.pack == pack && last.raw_start + last.length == raw_start => {
            last.length += length;
        }
        _ => extents.push(Extent { pack, raw_start, length }),
    }
}

impl Content {
    pub(crate) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Inline(bytes) => {
                writer.number(INLINE).bytes(bytes);
            }
            Self::Extents(extents) => {
                writer.number(EXTENTS).count(extents.len());
                for extent in extents {
                    writer.number(extent.pack.into());
                    writer.number(extent.raw_start).number(extent.length);
                }
            }
        }
    }

    /// Reads what a stream of `length` bytes is made of, out of `packs` packs.
    pub(crate) fn read(reader: &mut Reader<'_>, packs: usize, length: u64) -> Result<Self> {
        let (content, found) = match reader.number()? {
            INLINE => {
                let bytes = Bytes::copy_from_slice(reader.bytes()?);
                let found = bytes.len() as u64;
                (Self::Inline(bytes), Some(found))
            }
            EXTENTS => {
                let count = reader.count(EXTENT_WIRE_BYTES_MIN)?;
                let mut extents = Vec::with_capacity(count);
                let mut found = Some(0_u64);
                for _ in 0..count {
                    let extent = Extent {
                        pack: reader.number_u32()?,
                        raw_start: reader.number()?,
                        length: reader.number()?,
                    };
                    let end = extent.raw_start.checked_add(extent.length);
                    if extent.pack as usize >= packs || end.is_none() || extent.length == 0 {
                        return Err(reader.damaged("an extent points nowhere"));
                    }
                    found = found.and_then(|sum| sum.checked_add(extent.length));
                    extents.push(extent);
                }
                (Self::Extents(extents), found)
            }
            _ => return Err(reader.damaged("a stream is of an unknown form")),
        };
        match found {
            Some(found) if found == length => Ok(content),
            _ => Err(reader.damaged("a stream is not as long as it says")),
        }
    }

    /// Calls `renumber` for the pack of each extent.
    pub(crate) fn renumber(&mut self, mut renumber: impl FnMut(u32) -> u32) {
        if let Self::Extents(extents) = self {
            for extent in extents {
                extent.pack = renumber(extent.pack);
            }
        }
    }
}

/// Packs that a hold or a point needs, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackList {
    pub(crate) packs: Vec<PackRef>,
    numbers: std::collections::HashMap<blake3::Hash, u32>,
}

impl PackList {
    /// The number of `pack` in this list, at the end of which it is put if it is new.
    pub(crate) fn number(&mut self, pack: &PackRef) -> u32 {
        let next = self.packs.len() as u32;
        let number = *self.numbers.entry(pack.name).or_insert(next);
        if number == next {
            self.packs.push(pack.clone());
        }
        number
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.count(self.packs.len());
        for pack in &self.packs {
            pack.write(writer);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Vec<PackRef>> {
        let count = reader.count(PackRef::WIRE_BYTES_MIN)?;
        (0..count).map(|_| PackRef::read(reader)).collect()
    }
}
