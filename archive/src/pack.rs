//! Packs: where the chunks of an item lie, many in one object.
//!
//! `magic | 32-byte salt | frames | footer | footer length (u32, little-endian) | magic`. A frame
//! is a sealed box of up to 512 KiB of consecutive chunks; the footer is a sealed box that lists
//! the frames and the chunks in them. A pack's name is the BLAKE3 hash of all its bytes, so that
//! it can be checked without any key, and a retried put is the same put.
//!
//! A place in a pack is an offset into the concatenation of its frames' plain bytes.

use bytes::Bytes;
use object_store::PutPayload;

use crate::crypto::{BoxKey, SALT_BYTES, Salt, Secret, TAG_BYTES, random};
use crate::error::{Error, Result};
use crate::squeeze::{Squeezer, expanded};
use crate::wire::{Reader, Writer};

const MAGIC: &[u8; 8] = b"MRCYPAK1";
const CONTEXT: &str = "mercury archive v1 pack";
const FRAME_LABEL: &[u8] = b"frame";
const FOOTER_LABEL: &[u8] = b"footer";
/// Frames are numbered from 0; the footer has the last number there is.
const FOOTER_NUMBER: u64 = u64::MAX;
const HEAD_BYTES: u64 = (MAGIC.len() + SALT_BYTES) as u64;
const TAIL_BYTES: u64 = 4 + MAGIC.len() as u64;
const VERSION: u64 = 1;

/// Plain bytes in one frame, at most.
pub(crate) const FRAME_BYTES_MAX: usize = 512 << 10;
/// Plain bytes in one pack, at most.
pub(crate) const PACK_RAW_BYTES_MAX: u64 = 128 << 20;
/// Bytes of one pack as stored, at most.
pub(crate) const PACK_BYTES_MAX: u64 = 32 << 20;

/// The keyed hash that a chunk is found by.
pub(crate) type ChunkId = [u8; 16];

/// A pack as others refer to it. The salt is part of it, so that another pack put in its place
/// does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackRef {
    pub(crate) name: blake3::Hash,
    pub(crate) salt: Salt,
    pub(crate) length: u64,
    pub(crate) footer_length: u32,
}

impl PackRef {
    /// What one takes in a list, at least.
    pub(crate) const WIRE_BYTES_MIN: usize = 66;

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.fixed(self.name.as_bytes()).fixed(&self.salt);
        writer.number(self.length).number(self.footer_length.into());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let pack = Self {
            name: blake3::Hash::from_bytes(reader.array()?),
            salt: reader.array()?,
            length: reader.number()?,
            footer_length: reader.number_u32()?,
        };
        if pack.length > PACK_BYTES_MAX || pack.footer_start().is_none() {
            return Err(reader.damaged("a pack has an impossible length"));
        }
        Ok(pack)
    }

    fn footer_start(&self) -> Option<u64> {
        let before = self.length.checked_sub(TAIL_BYTES)?.checked_sub(self.footer_length.into())?;
        (before >= HEAD_BYTES).then_some(before)
    }

    /// Where in the object the footer lies.
    pub(crate) fn footer_range(&self) -> std::ops::Range<u64> {
        let start = self.footer_start().unwrap_or(HEAD_BYTES);
        start..start + u64::from(self.footer_length)
    }

    pub(crate) fn key(&self, data: &Secret) -> BoxKey {
        BoxKey::new(data, CONTEXT, &self.salt)
    }
}

/// A frame as the footer lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) number: u64,
    /// Where it lies in the object.
    pub(crate) start: u64,
    pub(crate) length: u64,
    /// Where its plain bytes begin in the pack's.
    pub(crate) raw_start: u64,
    pub(crate) raw_length: u64,
}

/// A chunk as the footer lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) id: ChunkId,
    pub(crate) raw_start: u64,
    pub(crate) length: u32,
}

/// What the footer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) frames: Vec<Frame>,
    pub(crate) chunks: Vec<Chunk>,
}

impl Footer {
    /// Opens the footer that [`PackRef::footer_range`] holds.
    pub(crate) fn open(pack: &PackRef, data: &Secret, path: &str, sealed: &[u8]) -> Result<Self> {
        let mut content = sealed.to_vec();
        let plain = pack
            .key(data)
            .open(FOOTER_NUMBER, FOOTER_LABEL, &mut content)
            .map(|plain| plain.len())
            .ok_or_else(|| Error::damaged(path, "the seal of its footer is broken"))?;
        content.truncate(plain);
        let payload = expanded(content, PACK_BYTES_MAX as usize)
            .ok_or_else(|| Error::damaged(path, "its footer cannot be unpacked"))?;
        Self::parse(pack, path, &payload)
    }

    fn parse(pack: &PackRef, path: &str, payload: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(payload, path);
        reader.version(VERSION)?;
        let count = reader.count(3)?;
        let (mut start, mut raw_start) = (HEAD_BYTES, 0);
        let mut footer = Self { frames: Vec::with_capacity(count), chunks: Vec::new() };
        for number in 0..count as u64 {
            let length = u64::from(reader.number_u32()?);
            let chunks = reader.count(ID_BYTES + 1)?;
            let mut raw_length = 0;
            for _ in 0..chunks {
                let id = reader.array()?;
                let length = reader.number_u32()?;
                let raw_start = raw_start + raw_length;
                footer.chunks.push(Chunk { id, raw_start, length });
                raw_length += u64::from(length);
            }
            if raw_length > FRAME_BYTES_MAX as u64 {
                return Err(reader.damaged("a frame is too long"));
            }
            footer.frames.push(Frame { number, start, length, raw_start, raw_length });
            start += length;
            raw_start += raw_length;
        }
        if Some(start) != pack.footer_start() || raw_start > PACK_RAW_BYTES_MAX {
            return Err(reader.damaged("its frames do not fill it"));
        }
        Ok(footer)
    }
}

const ID_BYTES: usize = std::mem::size_of::<ChunkId>();

/// Opens one frame of the pack that `key` belongs to.
pub(crate) fn open_frame(
    key: &BoxKey,
    frame: &Frame,
    path: &str,
    mut sealed: Vec<u8>,
) -> Result<Bytes> {
    let plain = key
        .open(frame.number, FRAME_LABEL, &mut sealed)
        .map(|plain| plain.len())
        .ok_or_else(|| Error::damaged(path, "the seal of a frame is broken"))?;
    sealed.truncate(plain);
    expanded(sealed, FRAME_BYTES_MAX)
        .filter(|bytes| bytes.len() as u64 == frame.raw_length)
        .ok_or_else(|| Error::damaged(path, "a frame cannot be unpacked"))
}

/// A pack that is ready to be stored.
pub(crate) struct Pack {
    pub(crate) reference: PackRef,
    pub(crate) payload: PutPayload,
    pub(crate) chunks: Vec<Chunk>,
}

/// Fills one pack, frame after frame.
pub(crate) struct PackBuilder {
    key: BoxKey,
    salt: Salt,
    parts: Vec<Bytes>,
    length: u64,
    raw_length: u64,
    name: blake3::Hasher,
    /// The content of the frame that is being filled.
    frame: Vec<u8>,
    frame_chunks: usize,
    footer: Writer,
    frames: u32,
    chunks: Vec<Chunk>,
}

impl PackBuilder {
    pub(crate) fn new(data: &Secret) -> Result<Self> {
        let salt = random()?;
        let mut builder = Self {
            key: BoxKey::new(data, CONTEXT, &salt),
            salt,
            parts: Vec::new(),
            length: 0,
            raw_length: 0,
            name: blake3::Hasher::new(),
            frame: Squeezer::start(FRAME_BYTES_MAX),
            frame_chunks: 0,
            footer: Writer::default(),
            frames: 0,
            chunks: Vec::new(),
        };
        builder.append([&MAGIC[..], &builder.salt].concat());
        Ok(builder)
    }

    /// Whether a chunk of `length` bytes still fits in a pack of `bytes_max`.
    pub(crate) fn has_room(&self, length: usize, bytes_max: u64) -> bool {
        const BYTES_A_CHUNK: u64 = ID_BYTES as u64 + 3;
        const BYTES_A_FRAME: u64 = TAG_BYTES as u64 + 8;
        let footer = (self.chunks.len() as u64 + 1) * BYTES_A_CHUNK
            + (u64::from(self.frames) + 2) * BYTES_A_FRAME;
        let stored = self.length + (self.frame.len() + length) as u64 + footer + 64;
        stored <= bytes_max && self.raw_length + length as u64 <= PACK_RAW_BYTES_MAX
    }

    /// Adds a chunk, which may lie in two pieces. Returns where it begins in the pack.
    pub(crate) fn push(
        &mut self,
        id: ChunkId,
        pieces: [&[u8]; 2],
        squeezer: &mut Squeezer,
    ) -> Result<u64> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.frame.len() - 1 + length > FRAME_BYTES_MAX {
            self.end_frame(squeezer)?;
        }
        for piece in pieces {
            self.frame.extend_from_slice(piece);
        }
        let raw_start = self.raw_length;
        self.raw_length += length as u64;
        self.frame_chunks += 1;
        self.chunks.push(Chunk { id, raw_start, length: length as u32 });
        Ok(raw_start)
    }

    fn end_frame(&mut self, squeezer: &mut Squeezer) -> Result<()> {
        let mut sealed = match squeezer.squeeze(&self.frame) {
            Some(sealed) => {
                self.frame.truncate(1);
                sealed
            }
            None => std::mem::replace(&mut self.frame, Squeezer::start(FRAME_BYTES_MAX)),
        };
        self.key.seal(self.frames.into(), FRAME_LABEL, &mut sealed)?;
        self.footer.count(sealed.len()).count(self.frame_chunks);
        for chunk in &self.chunks[self.chunks.len() - self.frame_chunks..] {
            self.footer.fixed(&chunk.id).number(chunk.length.into());
        }
        self.frames += 1;
        self.frame_chunks = 0;
        self.append(sealed);
        Ok(())
    }

    pub(crate) fn finish(mut self, squeezer: &mut Squeezer) -> Result<Pack> {
        if self.frame_chunks > 0 {
            self.end_frame(squeezer)?;
        }
        let mut payload = Writer::default();
        payload.number(VERSION).number(self.frames.into());
        payload.fixed(&std::mem::take(&mut self.footer).finish());
        let mut footer = crate::squeeze::squeezed(&payload.finish())?;
        self.key.seal(FOOTER_NUMBER, FOOTER_LABEL, &mut footer)?;
        let footer_length = footer.len() as u32;
        self.append(footer);
        self.append([&footer_length.to_le_bytes()[..], MAGIC].concat());
        let reference = PackRef {
            name: self.name.finalize(),
            salt: self.salt,
            length: self.length,
            footer_length,
        };
        Ok(Pack { reference, payload: self.parts.into_iter().collect(), chunks: self.chunks })
    }

    fn append(&mut self, part: Vec<u8>) {
        self.name.update(&part);
        self.length += part.len() as u64;
        self.parts.push(part.into());
    }
}
