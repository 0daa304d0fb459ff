//! The graph's validation while the compiler runs.
//!
//! **How.** Everything about a graph is constant data, so a `const fn` can walk it; a panic in a
//! constant is a compile error. Reachability is a fixed point over bit sets of up to 64 states.

use crate::{Machine, State, States, erased::Described};

/// Validates machines' graphs at compile time: `check!(Backup);` or `check!(Backup, Restore);`.
///
/// `cargo check` then refuses a machine with a state that nothing leads to, a state that cannot
/// reach a terminal one, two states of one name, a successor that is missing from the machine's
/// `type States`, and more than 64 states; the message names the state.
#[macro_export]
macro_rules! check {
    ($($machine:ty),+ $(,)?) => { $( const _: () = $crate::validate::<$machine>(); )+ };
}

/// Panics unless the graph of `M` is sound; see [`check!`](crate::check!), which calls it in a
/// constant.
///
/// # Panics
///
/// If the graph is not sound.
pub const fn validate<M: Machine>() {
    let states = <M::States as States<M>>::DESCRIBED;
    if states.len() > 64 {
        fail(M::NAME, "", "a machine has at most 64 states");
    }
    let initial_name = <M::Initial as State<M>>::NAME;
    let initial = find(states, initial_name);
    if initial == states.len() {
        fail(M::NAME, initial_name, "the initial state is missing from `type States`");
    }
    let mut successors = [0u64; 64];
    let mut i = 0;
    while i < states.len() {
        let state = &states[i];
        if state.name.is_empty() {
            fail(M::NAME, "", "a state has an empty name");
        }
        if find(states, state.name) != i {
            fail(M::NAME, state.name, "two states have this name");
        }
        let mut k = 0;
        while k < state.next.len() {
            let successor = find(states, state.next[k]);
            if successor == states.len() {
                fail(M::NAME, state.next[k], "this successor is missing from `type States`");
            }
            if successors[i] >> successor & 1 == 1 {
                fail(M::NAME, state.next[k], "this state stands twice in one `type Next`");
            }
            successors[i] |= 1 << successor;
            k += 1;
        }
        i += 1;
    }
    let (reached, ends) = closure(&successors, states.len(), initial);
    let mut i = 0;
    while i < states.len() {
        if reached >> i & 1 == 0 {
            fail(M::NAME, states[i].name, "this state is unreachable from the initial state");
        }
        if ends >> i & 1 == 0 {
            fail(M::NAME, states[i].name, "this state is a dead end: it reaches no terminal state");
        }
        i += 1;
    }
}

/// The states reachable from `initial`, and those that reach a terminal state, as bit sets.
pub(crate) const fn closure(successors: &[u64; 64], count: usize, initial: usize) -> (u64, u64) {
    let (mut reached, mut ends) = (1u64 << initial, 0u64);
    let mut round = 0;
    while round < count {
        let mut i = 0;
        while i < count {
            if reached >> i & 1 == 1 {
                reached |= successors[i];
            }
            if successors[i] == 0 || successors[i] & ends != 0 {
                ends |= 1 << i;
            }
            i += 1;
        }
        round += 1;
    }
    (reached, ends)
}

/// The index of the state `name`, or the number of states.
const fn find<M: Machine>(states: &[Described<M>], name: &str) -> usize {
    let mut i = 0;
    while i < states.len() && !equal(states[i].name, name) {
        i += 1;
    }
    i
}

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Panics with a message that names machine and state. Formatting is not constant, so the text is
/// put together by hand.
const fn fail(machine: &str, state: &str, what: &str) -> ! {
    let mut text = [0u8; 256];
    let mut len = push(&mut text, 0, "machine `");
    len = push(&mut text, len, machine);
    if !state.is_empty() {
        len = push(&mut text, len, "`, state `");
        len = push(&mut text, len, state);
    }
    len = push(&mut text, len, "`: ");
    len = push(&mut text, len, what);
    match std::str::from_utf8(text.split_at(len).0) {
        Ok(text) => panic!("{}", text),
        // The text was cut inside a character.
        Err(_) => panic!("{}", what),
    }
}

const fn push(text: &mut [u8; 256], mut len: usize, part: &str) -> usize {
    let part = part.as_bytes();
    let mut i = 0;
    while i < part.len() && len < text.len() {
        text[len] = part[i];
        len += 1;
        i += 1;
    }
    len
}
