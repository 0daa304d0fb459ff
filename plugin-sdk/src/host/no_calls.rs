//! The host of requests that are not steps.

use bytes::Bytes;
use fsm_core::Fault;

use crate::{
    abi::{BoxFuture, HostCalls, Reply},
    message,
};

/// Refuses every call: what a request that is not a step gets of its host. Deciding and planning
/// change nothing, so they are served nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCalls;

impl HostCalls for NoCalls {
    fn call(&self, op: &str, _: Bytes) -> BoxFuture<Reply> {
        let message = format!("`{op}` is served to steps only");
        let fault = message::encode_fault(&Fault::bug("host.not_a_step", message));
        Box::pin(std::future::ready(Reply::error(fault)))
    }
}
