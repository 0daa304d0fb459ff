//! The move from a state to the next one.

use std::{any::Any, fmt, marker::PhantomData};

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
    next: Box<dyn Successor>,
    wake_at: Option<Timestamp>,
    from: PhantomData<fn() -> S>,
}

/// A state whose type is forgotten.
trait Successor: Any + Send {
    fn encode(&self) -> Result<Data, Fault>;
}

/// Of which machine a state is a state makes no difference to its data.
impl<T: serde::Serialize + Send + 'static> Successor for T {
    fn encode(&self) -> Result<Data, Fault> {
        Data::encode(self)
    }
}

/// Moves to `next` at once.
///
/// Compiles only if `next`'s type is in the `type Next` of the state whose step returns it.
///
/// # Errors
///
/// None: the form is that of a step, so that a step can end with it.
pub fn go<M, S, T, I>(next: T) -> Step<S>
where
    M: Machine,
    S: State<M>,
    T: State<M>,
    S::Next: Has<T, I, S>,
{
    Ok(Go { state: T::NAME, next: Box::new(next), wake_at: None, from: PhantomData })
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
        if !(&*self.next as &dyn Any).is::<T>() {
            return Err(self);
        }
        let next: Box<dyn Any> = self.next;
        Ok(*next.downcast().unwrap_or_else(|_| unreachable!("its type was looked at above")))
    }

    pub(crate) fn into_verdict(self) -> Verdict {
        match self.next.encode() {
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
