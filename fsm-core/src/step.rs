//! The move from a state to the next one.

use std::{fmt, marker::PhantomData};

use crate::{Data, Fault, Has, Machine, State, Timestamp, Verdict};

/// What a step of state `S` returns: the move to a declared successor, or a fault.
pub type Step<S> = Result<Go<S>, Fault>;

/// A move from state `S` to one of its declared successors. Made by [`go`] and [`go_at`] only.
#[must_use = "a move does nothing unless the step returns it"]
pub struct Go<S> {
    state: &'static str,
    data: Data,
    wake_at: Option<Timestamp>,
    from: PhantomData<fn() -> S>,
}

/// Moves to `next` at once.
///
/// Compiles only if `next`'s type is in the `type Next` of the state whose step returns it.
///
/// # Errors
///
/// A [`Bug`](crate::Class::Bug) fault if serde cannot write `next`.
pub fn go<M, S, T, I>(next: T) -> Step<S>
where
    M: Machine,
    S: State<M>,
    T: State<M>,
    S::Next: Has<T, I, S>,
{
    let data = Data::encode(&next)?;
    Ok(Go { state: T::NAME, data, wake_at: None, from: PhantomData })
}

/// Moves to `next`, whose step runs no sooner than `at`. The move is durable at once; nothing
/// but a row waits meanwhile, across restarts too.
///
/// # Errors
///
/// As [`go`].
pub fn go_at<M, S, T, I>(at: Timestamp, next: T) -> Step<S>
where
    M: Machine,
    S: State<M>,
    T: State<M>,
    S::Next: Has<T, I, S>,
{
    go(next).map(|moved| Go { wake_at: Some(at), ..moved })
}

impl<S> Go<S> {
    pub(crate) fn into_verdict(self) -> Verdict {
        Verdict::Go { state: self.state.to_owned(), data: self.data, wake_at: self.wake_at }
    }
}

impl<S> fmt::Debug for Go<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Go({})", self.state)
    }
}
