//! Tuples of states: a machine's states, and a state's successors.

use crate::{Machine, State, erased::Described};

/// A tuple of states of machine `M`: up to 12 as a state's `Next`, up to 64 as a machine's
/// `States`. Implemented for tuples here, and by nobody else.
#[diagnostic::on_unimplemented(
    message = "this is not a tuple of states of machine `{M}`",
    label = "not a tuple of at most 64 states",
    note = "states are listed as `(Freeze, Copy, Done)`, one alone as `(Done,)`, none as `()`",
    note = "a machine has at most 64 states, and a state at most 12 successors"
)]
pub trait States<M: Machine>: sealed::Tuple {
    /// The states' names, in order.
    const NAMES: &'static [&'static str];
    #[doc(hidden)]
    const DESCRIBED: &'static [Described<M>];
}

/// State `T` is in this tuple, at `Place`; `S` is the state whose successors these are.
#[diagnostic::on_unimplemented(
    message = "undeclared transition from state `{S}` to state `{T}`",
    label = "`{T}` is not in the `type Next` of `{S}`",
    note = "the declared successors are `{Self}`; add `{T}` to `type Next` (12 at most) or go elsewhere"
)]
pub trait Has<T, Place, S>: sealed::Tuple {}

/// The index of a state in a tuple.
#[derive(Debug)]
pub struct At<const INDEX: usize>;

mod sealed {
    pub trait Tuple {}
}

impl sealed::Tuple for () {}
impl<M: Machine> States<M> for () {
    const NAMES: &'static [&'static str] = &[];
    const DESCRIBED: &'static [Described<M>] = &[];
}

macro_rules! tuple {
    ($($State:ident)+) => {
        impl<$($State),+> sealed::Tuple for ($($State,)+) {}
        impl<M: Machine, $($State: State<M>),+> States<M> for ($($State,)+) {
            const NAMES: &'static [&'static str] = &[$($State::NAME),+];
            const DESCRIBED: &'static [Described<M>] = &[$(Described::of::<$State>()),+];
        }
    };
}

/// One `tuple!` for each length from 1 to that of the list.
macro_rules! tuples {
    ([$($Done:ident)*]) => { tuple! { $($Done)* } };
    ([] $First:ident $($Rest:ident)*) => { tuples! { [$First] $($Rest)* } };
    ([$($Done:ident)+] $Next:ident $($Rest:ident)*) => {
        tuple! { $($Done)+ }
        tuples! { [$($Done)+ $Next] $($Rest)* }
    };
}
tuples! { [] S0 S1 S2 S3 S4 S5 S6 S7 S8 S9 S10 S11 S12 S13 S14 S15 S16 S17 S18 S19 S20 S21 S22 S23
S24 S25 S26 S27 S28 S29 S30 S31 S32 S33 S34 S35 S36 S37 S38 S39 S40 S41 S42 S43 S44 S45 S46 S47
S48 S49 S50 S51 S52 S53 S54 S55 S56 S57 S58 S59 S60 S61 S62 S63 }

/// `Has` for each member of each tuple: the compiler finds a successor by its type.
macro_rules! members {
    ($( [$($All:ident)+] )+) => { $( members! { @each [$($All)+] 0 ; $($All)+ } )+ };
    (@each $all:tt $index:expr ; ) => {};
    (@each [$($All:ident)+] $index:expr ; $Member:ident $($Rest:ident)*) => {
        // Else the compiler lists all of these when a successor is missing.
        #[diagnostic::do_not_recommend]
        impl<Current, $($All),+> Has<$Member, At<{ $index }>, Current> for ($($All,)+) {}
        members! { @each [$($All)+] $index + 1 ; $($Rest)* }
    };
}
members! {
    [S0]
    [S0 S1]
    [S0 S1 S2]
    [S0 S1 S2 S3]
    [S0 S1 S2 S3 S4]
    [S0 S1 S2 S3 S4 S5]
    [S0 S1 S2 S3 S4 S5 S6]
    [S0 S1 S2 S3 S4 S5 S6 S7]
    [S0 S1 S2 S3 S4 S5 S6 S7 S8]
    [S0 S1 S2 S3 S4 S5 S6 S7 S8 S9]
    [S0 S1 S2 S3 S4 S5 S6 S7 S8 S9 S10]
    [S0 S1 S2 S3 S4 S5 S6 S7 S8 S9 S10 S11]
}
