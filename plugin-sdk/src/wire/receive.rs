//! Messages from a socket, each with its payload and the descriptor that belongs to it.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;

use super::frame::{Decoder, Descriptors, WireError};
use super::message::Message;
use super::socket::{self, Flow};

/// A message that came in.
#[derive(Debug)]
pub(crate) struct Incoming<M> {
    pub(crate) message: M,
    pub(crate) payload: Bytes,
    pub(crate) descriptor: Option<OwnedFd>,
}

/// The receiving end of a connection.
#[derive(Debug)]
pub(crate) struct Receiver<M> {
    decoder: Decoder,
    descriptors: Descriptors,
    messages: PhantomData<fn() -> M>,
}

impl<M> Default for Receiver<M> {
    fn default() -> Self {
        Self { decoder: Decoder::default(), descriptors: Descriptors::new(), messages: PhantomData }
    }
}

#[allow(private_bounds, reason = "the trait is for the two enums of this module")]
impl<M: Message> Receiver<M> {
    /// Reads once from `socket`.
    ///
    /// # Errors
    ///
    /// The socket's error; of kind [`io::ErrorKind::InvalidData`], around a [`WireError`], if more
    /// descriptors came than messages carry.
    pub(crate) fn fill(&mut self, socket: impl AsFd) -> io::Result<Flow> {
        socket::receive(socket, &mut self.decoder, &mut self.descriptors)
    }

    /// The next message, if all of it is there.
    ///
    /// # Errors
    ///
    /// A [`WireError`]; nothing more can be read then.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming<M>>, WireError> {
        let Some(frame) = self.decoder.next()? else {
            // A descriptor comes with the first byte of its frame at the latest.
            return match self.descriptors.is_empty() || self.decoder.is_amid() {
                true => Ok(None),
                false => Err(WireError::Descriptors),
            };
        };
        let message: M = frame.message()?;
        let descriptor = match message.carries_descriptor() {
            true => Some(self.descriptors.pop_front().ok_or(WireError::NoDescriptor)?),
            false => None,
        };
        Ok(Some(Incoming { message, payload: frame.payload, descriptor }))
    }
}
