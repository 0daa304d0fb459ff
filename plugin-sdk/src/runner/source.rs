//! A source of the parent's, as the plugin reads it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::connection::Connection;
use crate::abi::{BoxFuture, CallError, HostSource};
use crate::wire::{READ_BYTES_MAX, ToHost};

pub(super) struct ChildSource {
    pub(super) connection: Arc<Connection>,
    pub(super) request: u64,
    pub(super) source: u64,
    pub(super) len: u64,
}

/// Reads one piece.
fn read(
    connection: &Arc<Connection>,
    (request, source): (u64, u64),
    offset: u64,
    len: u64,
) -> BoxFuture<Result<Bytes, CallError>> {
    let message = |call| ToHost::Read { request, call, source, offset, len };
    let asked = connection.ask(request, message, Bytes::new());
    Box::pin(async move { asked.answer().await.into_bytes() })
}

impl HostSource for ChildSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, len: u64) -> BoxFuture<Result<Bytes, CallError>> {
        let (connection, of) = (self.connection.clone(), (self.request, self.source));
        let first = read(&connection, of, offset, len.min(READ_BYTES_MAX));
        // Nothing is past the end, so a read that goes there is a shorter one.
        let len = len.min(self.len.saturating_sub(offset));
        if len <= READ_BYTES_MAX {
            return first;
        }
        Box::pin(async move {
            let mut all = BytesMut::from(first.await?);
            while (all.len() as u64) < len {
                let at = all.len() as u64;
                let piece =
                    read(&connection, of, offset + at, (len - at).min(READ_BYTES_MAX)).await?;
                if piece.is_empty() {
                    break;
                }
                all.extend_from_slice(&piece);
            }
            Ok(all.freeze())
        })
    }
}

impl Drop for ChildSource {
    fn drop(&mut self) {
        let message = ToHost::DropSource { request: self.request, source: self.source };
        // A parent that is gone has no source either.
        let _ = self.connection.say(&message, Bytes::new(), None);
    }
}
