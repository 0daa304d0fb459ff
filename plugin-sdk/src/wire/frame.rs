//! Frames: bytes in, messages out. No I/O.
//!
//! ```text
//! u32  bytes after this field        little endian
//! u32  bytes of the head
//! ...  head: a JSON document
//! ...  payload: the rest
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The lengths in front of a frame.
const HEADER_BYTES: usize = 8;
/// No head is longer: the longest is a record of the log.
pub(crate) const HEAD_BYTES_MAX: usize = 1 << 20;
/// No payload is longer: a document, or a piece of a stream.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 32 << 20;
/// How much room a read is given at a time.
const READ_BYTES: usize = 64 << 10;

/// What the other side did that it must not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// A length that no frame has.
    Length { head: u64, payload: u64 },
    /// A message that is not one, or of an unknown kind.
    Unreadable(String),
    /// A message without the descriptor that it should carry.
    NoDescriptor,
    /// More descriptors than messages carry.
    Descriptors,
    /// A message that does not fit to what was said before.
    Unexpected(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { head, payload } => {
                write!(f, "a frame of {head} and {payload} bytes")
            }
            Self::Unreadable(why) => write!(f, "a message that cannot be read ({why})"),
            Self::NoDescriptor => f.write_str("a message without its descriptor"),
            Self::Descriptors => f.write_str("descriptors that belong to no message"),
            Self::Unexpected(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for WireError {}

/// A frame on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) head: Bytes,
    pub(super) payload: Bytes,
    /// Closed as soon as the frame's first byte is out: by then the other side has its own.
    pub(super) descriptor: Option<OwnedFd>,
}

impl Outgoing {
    /// The frame of `message`.
    ///
    /// # Errors
    ///
    /// [`WireError::Length`] if it is longer than the other side takes.
    pub(crate) fn new<M: Serialize>(message: &M, payload: Bytes) -> Result<Self, WireError> {
        let mut head = vec![0; HEADER_BYTES];
        serde_json::to_writer(&mut head, message)
            .map_err(|error| WireError::Unreadable(error.to_string()))?;
        let lengths = lengths(head.len() - HEADER_BYTES, payload.len())?;
        head[..HEADER_BYTES].copy_from_slice(&lengths);
        Ok(Self { head: head.into(), payload, descriptor: None })
    }

    /// The same frame, carrying `descriptor`.
    pub(crate) fn with(mut self, descriptor: Option<OwnedFd>) -> Self {
        self.descriptor = descriptor;
        self
    }

    /// The bytes that are still to be sent.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Forgets the first `sent` bytes, and the descriptor, which went with them.
    pub(super) fn sent(&mut self, sent: usize) {
        self.descriptor = None;
        let of_head = sent.min(self.head.len());
        self.head.advance(of_head);
        self.payload.advance((sent - of_head).min(self.payload.len()));
    }
}

fn lengths(head: usize, payload: usize) -> Result<[u8; HEADER_BYTES], WireError> {
    if head > HEAD_BYTES_MAX || payload > PAYLOAD_BYTES_MAX {
        return Err(WireError::Length { head: head as u64, payload: payload as u64 });
    }
    let mut lengths = [0; HEADER_BYTES];
    // Both are far below 4 GiB: see above.
    lengths[..4].copy_from_slice(&((head + payload + 4) as u32).to_le_bytes());
    lengths[4..].copy_from_slice(&(head as u32).to_le_bytes());
    Ok(lengths)
}

/// A frame that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) head: Bytes,
    pub(super) payload: Bytes,
}

impl Frame {
    pub(super) fn message<M: DeserializeOwned>(&self) -> Result<M, WireError> {
        serde_json::from_slice(&self.head).map_err(|error| WireError::Unreadable(error.to_string()))
    }
}

/// Puts frames together from pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// What was received and is no frame yet.
    received: BytesMut,
}

impl Decoder {
    /// Room for the next bytes; [`filled`](Self::filled) says how many came.
    ///
    /// It grows with what has been received, not with what a length announces.
    pub(super) fn room(&mut self) -> Room<'_> {
        let begin = self.received.len();
        self.received.resize(begin + READ_BYTES.max(begin), 0);
        Room { received: &mut self.received, begin }
    }

    /// The next frame, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, WireError> {
        let Some((header, _)) = self.received.split_at_checked(HEADER_BYTES) else {
            return Ok(None);
        };
        let number = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&header[at..at + 4]);
            u64::from(u32::from_le_bytes(bytes))
        };
        let (all, head) = (number(0), number(4));
        let payload = all.checked_sub(head + 4);
        let payload = match payload {
            Some(payload)
                if head <= HEAD_BYTES_MAX as u64 && payload <= PAYLOAD_BYTES_MAX as u64 =>
            {
                payload as usize
            }
            _ => return Err(WireError::Length { head, payload: all.saturating_sub(4) }),
        };
        let head = head as usize;
        if self.received.len() < HEADER_BYTES + head + payload {
            return Ok(None);
        }
        let mut frame = self.received.split_to(HEADER_BYTES + head + payload).freeze();
        frame.advance(HEADER_BYTES);
        let head = frame.split_to(head);
        Ok(Some(Frame { head, payload: frame }))
    }

    /// Whether a frame has begun and is not complete.
    pub(super) fn is_amid(&self) -> bool {
        !self.received.is_empty()
    }
}

/// Room at the end of what was received. What is not filled goes when this drops.
pub(super) struct Room<'a> {
    received: &'a mut BytesMut,
    begin: usize,
}

impl Room<'_> {
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.received[self.begin..]
    }

    /// Keeps the first `count` bytes of the room.
    pub(super) fn filled(mut self, count: usize) {
        self.begin = (self.begin + count).min(self.received.len());
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.received.truncate(self.begin);
    }
}

/// Descriptors that came in, in order.
pub(super) type Descriptors = VecDeque<OwnedFd>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(decoder: &mut Decoder, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut room = decoder.room();
            let count = bytes.len().min(room.bytes().len());
            room.bytes()[..count].copy_from_slice(&bytes[..count]);
            room.filled(count);
            bytes = &bytes[count..];
        }
    }

    fn frame(head: &[u8], payload: &[u8]) -> Vec<u8> {
        let lengths = lengths(head.len(), payload.len()).expect("a short frame");
        [&lengths, head, payload].concat()
    }

    /// All frames in `bytes`, pushed in pieces; the error that ended it, if one did.
    fn decoded(bytes: &[u8], pieces: &[usize]) -> (Vec<Frame>, Option<WireError>) {
        let (mut decoder, mut frames, mut at) = (Decoder::default(), Vec::new(), 0);
        let mut pieces = pieces.iter().copied().cycle();
        while at < bytes.len() {
            let piece = pieces.next().unwrap_or(bytes.len()).clamp(1, bytes.len() - at);
            push(&mut decoder, &bytes[at..at + piece]);
            at += piece;
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            // Not more memory than what came in, times a constant.
            assert!(decoder.received.capacity() <= 4 * (at + READ_BYTES), "{at}");
        }
        (frames, None)
    }

    #[test]
    fn a_header_that_announces_four_gibibytes_is_refused_at_once() {
        for header in [
            [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            [4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [3, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let (frames, error) = decoded(&header, &[1]);
            assert!(frames.is_empty());
            assert!(matches!(error, Some(WireError::Length { .. })), "{header:?}: {error:?}");
        }
    }

    #[test]
    fn an_announced_length_takes_no_memory_before_it_is_there() {
        let mut decoder = Decoder::default();
        push(&mut decoder, &((PAYLOAD_BYTES_MAX + 4) as u32).to_le_bytes());
        push(&mut decoder, &[0; 4]);
        assert_eq!(decoder.next(), Ok(None));
        drop(decoder.room());
        assert!(decoder.received.capacity() <= 4 * READ_BYTES);
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_were_cut(
            frames in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..200), prop::collection::vec(any::<u8>(), 0..5000)),
                0..8,
            ),
            pieces in prop::collection::vec(1_usize..3000, 1..10),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(h, p)| frame(h, p)).collect();
            let (decoded, error) = decoded(&bytes, &pieces);
            prop_assert_eq!(error, None);
            prop_assert_eq!(decoded.len(), frames.len());
            for (frame, (head, payload)) in decoded.iter().zip(&frames) {
                prop_assert_eq!(&frame.head[..], &head[..]);
                prop_assert_eq!(&frame.payload[..], &payload[..]);
            }
        }

        #[test]
        fn rubbish_is_frames_or_an_error_and_never_more_memory_than_it_has(
            bytes in prop::collection::vec(any::<u8>(), 0..20_000),
            pieces in prop::collection::vec(1_usize..3000, 1..10),
        ) {
            let (frames, _) = decoded(&bytes, &pieces);
            let out: usize = frames.iter().map(|f| f.head.len() + f.payload.len() + 8).sum();
            prop_assert!(out <= bytes.len());
        }

        #[test]
        fn a_damaged_frame_is_a_frame_or_an_error(
            payload in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut bytes = frame(br#"{"m":"gone","request":7}"#, &payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (frames, _) = decoded(&bytes, &[64]);
            for frame in frames {
                let _ = frame.message::<crate::wire::ToHost>();
            }
        }
    }
}
