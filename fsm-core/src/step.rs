//! The move from a state to the next one.

use std::{any::Any, fmt, marker::PhantomData};

use serde::Serialize;

use crate::{Data, Fault, Has, Machine, State, Timestamp, Verdict};

/// What a step of state `S` returns: the move to a declared successor, or a fault.
pub type Step<S> = Result<Go<S>, Fault>;

/// A move from state `S` to one of its declared successors. Made by [`go`] and [`go_at`] only.
///
/// It holds the successor itself: a test of one state calls [`State::run`] and looks at what it
/// [`take`](Go::take)s out; a runtime writes it as data.
#[must_use = "a move does nothing unless the step returns it"]
pub struct Go<S> {
    state: &'static str,
    next: Box<dyn Any + Send>,
    /// Writes `next`, whose type it knows, as data.
    encode: fn(&dyn Any) -> Result<Data, Fault>,
    wake_at: Option<Timestamp>,
    from: PhantomData<fn() -> S>,
}

fn encode<T: Serialize + 'static>(next: &dyn Any) -> Result<Data, Fault> {
    match next.downcast_ref::<T>() {
        Some(next) => Data::encode(next),
        None => unreachable!("a move keeps its successor and that type's encoder together"),
    }
}

/// Moves to `next` at once.
///
/// Compiles only if `next`'s type is in the `type Next` of the state whose step returns it, once.
/// A state that several machines share (`impl<M: Machine> State<M> for Upload`) says which of
/// them it means when it moves to another such state: `go::<M, _, _, _>(next)`.
///
/// # Errors
///
/// None: the form is that of a step, so that a step can end with it.
pub fn go<M, S, T, Place>(next: T) -> Step<S>
where
    M: Machine,
    S: State<M>,
    T: State<M>,
    S::Next: Has<T, Place, S>,
{
    let next: Box<dyn Any + Send> = Box::new(next);
    Ok(Go { state: T::NAME, next, encode: encode::<T>, wake_at: None, from: PhantomData })
}

/// Moves to `next`, whose step runs no sooner than `at`. The move is durable at once; nothing
/// but a row waits meanwhile, across restarts too.
///
/// # Errors
///
/// As [`go`].
pub fn go_at<M, S, T, Place>(at: Timestamp, next: T) -> Step<S>
where
    M: Machine,
    S: State<M>,
    T: State<M>,
    S::Next: Has<T, Place, S>,
{
    go(next).map(|moved| Go { wake_at: Some(at), ..moved })
}

impl<S> Go<S> {
    /// The name of the state that follows.
    pub fn state(&self) -> &'static str {
        self.state
    }

    /// When its step runs at the soonest.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// The state that follows, if it is a `T`.
    ///
    /// # Errors
    ///
    /// The move itself, if it goes to another state.
    pub fn take<T: 'static>(self) -> Result<T, Self> {
        match self.next.downcast() {
            Ok(next) => Ok(*next),
            Err(next) => Err(Go { next, ..self }),
        }
    }

    pub(crate) fn into_verdict(self) -> Verdict {
        match (self.encode)(&*self.next) {
            Ok(data) => Verdict::Go { state: self.state.to_owned(), data, wake_at: self.wake_at },
            Err(fault) => Verdict::Fault(fault),
        }
    }
}

impl<S> fmt::Debug for Go<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Go({})", self.state)
    }
}
