//! The graph's validation while the compiler runs.
//!
//! **How.** Everything about a graph is constant data, so a `const fn` can walk it; a panic in a
//! constant is a compile error. Reachability is a fixed point over bit sets of up to 64 states.

use crate::{Ending, Machine, Retry, State, States, erased::Described};

/// Validates machines' graphs at compile time: `check!(Backup);` or `check!(Backup, Restore);`.
///
/// `cargo check` then refuses, and names the state:
///
/// * a state that nothing leads to, and one that cannot reach a terminal state;
/// * two states of one name, an empty name, a name with a control character;
/// * a successor that is missing from the machine's `type States`, or stands twice in one
///   `type Next`; more than 12 successors, or 64 states;
/// * a wait for nothing, or for a signal with an empty name;
/// * a terminal state that waits or is tried again: no step runs there; and an `ENDING` of a
///   state where no run ends.
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
// The compiler leaves frames that track their caller out of its report: what is left is the
// message and the author's own line.
#[track_caller]
pub const fn validate<M: Machine>() {
    let states = <M::States as States<M>>::DESCRIBED;
    if let Some(mistake) = name_mistake(M::NAME) {
        fail(&["machine `", M::NAME, "`: the machine's name ", mistake]);
    }
    if states.len() > 64 {
        fail(&["machine `", M::NAME, "`: a machine has at most 64 states"]);
    }
    let initial_name = <M::Initial as State<M>>::NAME;
    let initial = find(states, initial_name);
    if initial == states.len() {
        let what = "the initial state is missing from `type States`";
        fail_at::<M>(initial_name, &[what]);
    }
    let mut successors = [0u64; 64];
    let mut i = 0;
    while i < states.len() {
        let state = &states[i];
        if let Some(mistake) = name_mistake(state.name) {
            fail_at::<M>(state.name, &["a state's name ", mistake]);
        }
        if find(states, state.name) != i {
            let what = "two states have this name, or one stands twice in `type States`";
            fail_at::<M>(state.name, &[what]);
        }
        i += 1;
    }
    let mut i = 0;
    while i < states.len() {
        let state = &states[i];
        if state.next.len() > 12 {
            fail_at::<M>(state.name, &["a state has at most 12 successors"]);
        }
        if let Some(mistake) = state.wait.mistake() {
            fail_at::<M>(state.name, &[mistake]);
        }
        if let Some(mistake) = ending_mistake(state) {
            fail_at::<M>(state.name, &[mistake]);
        }
        let mut k = 0;
        while k < state.next.len() {
            let next = state.next[k];
            let successor = find(states, next);
            if successor == states.len() {
                let what = "` is missing from `type States`";
                fail_at::<M>(state.name, &["its successor `", next, what]);
            }
            if successors[i] >> successor & 1 == 1 {
                let what = "` stands twice in its `type Next`; once is enough";
                fail_at::<M>(state.name, &["`", next, what]);
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
            let what = "this state is unreachable from the initial state";
            fail_at::<M>(states[i].name, &[what]);
        }
        if ends >> i & 1 == 0 {
            let what = "this state is a dead end: it reaches no terminal state";
            fail_at::<M>(states[i].name, &[what]);
        }
        i += 1;
    }
}

/// What is wrong with the name of a machine or a state, if anything is. Any text will do that
/// stays on its line in a log and in a drawing.
pub(crate) const fn name_mistake(name: &str) -> Option<&'static str> {
    let name = name.as_bytes();
    if name.is_empty() {
        return Some("is empty");
    }
    let mut i = 0;
    while i < name.len() {
        if name[i].is_ascii_control() {
            return Some("holds a control character");
        }
        i += 1;
    }
    None
}

/// What does not go together with a state's being terminal, or with its not being so.
const fn ending_mistake<M: Machine>(state: &Described<M>) -> Option<&'static str> {
    let terminal = state.next.is_empty();
    if terminal && !state.wait.is_none() {
        Some("a terminal state has a `WAIT`, but no step runs there that could wait")
    } else if terminal && !state.retry.is(&Retry::times(5)) {
        Some("a terminal state has a `RETRY`, but no step runs there that could be tried")
    } else if !terminal && !matches!(state.ending, Ending::Completed) {
        Some("it has an `ENDING`, but no run ends there: its `type Next` is not `()`")
    } else {
        None
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

#[track_caller]
const fn fail_at<M: Machine>(state: &str, what: &[&str]) -> ! {
    let mut parts = ["machine `", M::NAME, "`, state `", state, "`: ", "", "", ""];
    let mut i = 0;
    while i < what.len() {
        parts[5 + i] = what[i];
        i += 1;
    }
    fail(&parts)
}

/// Panics with `parts` as its message. Formatting is not constant, so they are joined by hand.
#[track_caller]
const fn fail(parts: &[&str]) -> ! {
    let mut text = [0u8; 512];
    let mut len = 0;
    let mut i = 0;
    while i < parts.len() {
        len = push(&mut text, len, parts[i]);
        i += 1;
    }
    match std::str::from_utf8(text.split_at(len).0) {
        Ok(text) => panic!("{}", text),
        // The text was cut inside a character.
        Err(_) => panic!("a name in a machine's graph is too long to be reported"),
    }
}

const fn push(text: &mut [u8; 512], mut len: usize, part: &str) -> usize {
    let part = part.as_bytes();
    let mut i = 0;
    while i < part.len() && len < text.len() {
        text[len] = part[i];
        len += 1;
        i += 1;
    }
    len
}
