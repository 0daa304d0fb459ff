//! A machine's graph as data: what a host validates, draws and pins runs to.

mod render;

use serde::{Deserialize, Serialize};

use crate::{
    Cancel, Ending, Machine, Retry, State, States, WaitInfo,
    check::{closure, name_mistake},
};

/// A machine's graph: names, docs, edges and policies.
///
/// Equal for the same machine on both sides of a boundary. [`Graph::to_json`] is its exact form.
///
/// ```
/// # use fsm_core::{Machine, State, Graph};
/// # use serde::{Deserialize, Serialize};
/// # struct Lamp;
/// # #[derive(Serialize, Deserialize)] struct Off;
/// # #[derive(Serialize, Deserialize)] struct Broken;
/// # impl Machine for Lamp {
/// #     const NAME: &'static str = "lamp";
/// #     type Host = (); type Initial = Off; type States = (Off, Broken);
/// # }
/// # impl State<Lamp> for Off { const NAME: &'static str = "off"; type Next = (Broken,); }
/// # impl State<Lamp> for Broken { const NAME: &'static str = "broken"; type Next = (); }
/// let graph = Graph::of::<Lamp>();
/// graph.validate()?;
/// assert!(graph.allows("off", "broken"));
/// println!("{}", graph.to_mermaid(Some("off")));
/// # Ok::<(), fsm_core::GraphError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// The machine's name.
    pub machine: String,
    /// What it does.
    #[serde(default)]
    pub doc: String,
    /// The version of its states.
    pub version: u32,
    /// The name of the state that runs start in.
    pub initial: String,
    /// The states, in the author's order.
    pub states: Vec<StateInfo>,
}

/// One state of a [`Graph`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateInfo {
    /// The state's name.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub doc: String,
    /// The names of the states that may follow.
    pub next: Vec<String>,
    /// How often it is tried.
    pub retry: Retry,
    /// What a run waits for here before the step runs; `None` if for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitInfo>,
    /// What a request to cancel does here.
    #[serde(default)]
    pub cancel: Cancel,
    /// How a run that is here has ended; `None` unless the state is terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

/// A graph that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("machine `{machine}`, state `{state}`: {what}")]
pub struct GraphError {
    machine: String,
    state: String,
    what: &'static str,
}

impl Graph {
    /// The graph of `M`.
    pub fn of<M: Machine>() -> Self {
        let described = <M::States as States<M>>::DESCRIBED.iter();
        let states = described.map(|state| StateInfo {
            name: state.name.to_owned(),
            doc: state.doc.to_owned(),
            next: state.next.iter().map(|&name| name.to_owned()).collect(),
            retry: state.retry,
            wait: state.wait.info(),
            cancel: state.cancel,
            ending: state.next.is_empty().then_some(state.ending),
        });
        Graph {
            machine: M::NAME.to_owned(),
            doc: M::DOC.to_owned(),
            version: M::VERSION,
            initial: <M::Initial as State<M>>::NAME.to_owned(),
            states: states.collect(),
        }
    }

    /// The state `name`.
    pub fn state(&self, name: &str) -> Option<&StateInfo> {
        self.states.iter().find(|state| state.name == name)
    }

    /// Whether a step of state `from` may move to state `to`.
    pub fn allows(&self, from: &str, to: &str) -> bool {
        self.state(from).is_some_and(|state| state.next.iter().any(|next| next == to))
            && self.state(to).is_some()
    }

    /// A short text that differs when the graph does (FNV-1a over [`Graph::to_json`]): what a
    /// journal keeps of the graph that a run began with.
    pub fn fingerprint(&self) -> String {
        let hash = self.to_json().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    /// Checks what [`check!`](crate::check!) checks at compile time, for a graph that came over a
    /// boundary from code that no Rust compiler has seen. A state may have more than 12
    /// successors there: that limit is one of Rust's tuples.
    ///
    /// # Errors
    ///
    /// [`GraphError`] names the machine, the state and what is wrong with it.
    pub fn validate(&self) -> Result<(), GraphError> {
        let wrong = |state: &str, what| {
            Err(GraphError { machine: self.machine.clone(), state: state.to_owned(), what })
        };
        if name_mistake(&self.machine).is_some() {
            return wrong("", "the machine's name is empty or holds a control character");
        }
        if self.states.len() > 64 {
            return wrong("", "a machine has at most 64 states");
        }
        let find = |name: &str| self.states.iter().position(|state| state.name == name);
        let Some(initial) = find(&self.initial) else {
            return wrong(&self.initial, "the initial state is not among the states");
        };
        let mut successors = [0u64; 64];
        for (index, state) in self.states.iter().enumerate() {
            if name_mistake(&state.name).is_some() {
                return wrong(
                    &state.name,
                    "a state has an empty name or one with a control character",
                );
            }
            if find(&state.name) != Some(index) {
                return wrong(&state.name, "two states have this name");
            }
            if state.next.is_empty() != state.ending.is_some() {
                return wrong(&state.name, "a terminal state, and no other, has an ending");
            }
            if state.next.is_empty() && state.wait.is_some() {
                return wrong(&state.name, "a terminal state waits, but no step runs there");
            }
            let wait_mistake = state.wait.as_ref().and_then(WaitInfo::mistake);
            if let Some(mistake) = wait_mistake.or(state.retry.mistake()) {
                return wrong(&state.name, mistake);
            }
            for next in &state.next {
                match find(next) {
                    Some(successor) if successors[index] >> successor & 1 == 0 => {
                        successors[index] |= 1 << successor;
                    }
                    Some(_) => return wrong(next, "this state stands twice among the successors"),
                    None => return wrong(next, "this successor is not among the states"),
                }
            }
        }
        let (reached, ends) = closure(&successors, self.states.len(), initial);
        for (index, state) in self.states.iter().enumerate() {
            if reached >> index & 1 == 0 {
                return wrong(&state.name, "this state is unreachable from the initial state");
            }
            if ends >> index & 1 == 0 {
                return wrong(&state.name, "this state reaches no terminal state");
            }
        }
        Ok(())
    }
}
