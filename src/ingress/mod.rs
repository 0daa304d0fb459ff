//! Work that workloads start by themselves: their programs call, and the host answers.
//!
//! **Promise.** Nobody is heard who was not declared. A caller that says nothing, says too much or
//! hangs up costs a place in a bounded line for a bounded time, and no more. A connection has one
//! owner at any moment: a call that a step has taken leaves nothing behind in the host.
//!
//! **How.** The engine asks each workload for its endpoints. Their sockets are made ([`socket`])
//! and attended to by one task each ([`serve`]), with one more for each call: it reads the first
//! message ([`first`]), asks the [`Reception`] where the call belongs, and then watches it as it
//! waits ([`waiting`]) in its operation's line ([`callers`]), until a step takes it or it comes to
//! nothing ([`refusal`]). What is made of a call is the engine's affair
//! (`engine/reception.rs`).

mod callers;
mod endpoint;
mod first;
mod refusal;
mod serve;
mod socket;
mod waiting;

pub(crate) use self::{
    callers::Callers,
    refusal::Refusal,
    serve::{Ingress, Placed, Reception, Said, With},
    socket::bind,
    waiting::{Over, Waiting},
};
