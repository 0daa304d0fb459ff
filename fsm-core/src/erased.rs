//! Machines without their types: what a runtime, or a boundary, sees.
//!
//! A step is called with a [`StepCall`] and answers with an [`Outcome`]; both are serde messages.
//! [`Erased`] is every machine whose steps get the host services `H`; [`AnyMachine`] is what a
//! [`Runtime`](crate::Runtime) runs, be it typed and here ([`Hosted`]) or behind a boundary.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{
    Cancel, Child, Context, Data, Ending, Fault, Graph, Machine, Pending, Port, Retry, RunId,
    Spawn, State, States, Step, Timestamp, Wait,
};

/// What a runtime asks of a state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCall {
    /// The run that the step belongs to.
    pub run: RunId,
    /// The machine's name.
    pub machine: String,
    /// The state's name.
    pub state: String,
    /// The state's data.
    pub data: Data,
    /// Which entry into a state this is, counted over the run from 1. Effect keys hold it.
    pub entry: u64,
    /// Which attempt this is, counted over the entry from 1.
    pub attempt: u32,
    /// What is asked: the step itself, or one of its failure edges.
    pub kind: StepKind,
    /// The effects that this entry has recorded so far.
    #[serde(default)]
    pub effects: Vec<EffectLog>,
    /// The signals that no state has taken yet, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Pending>,
    /// The run's children.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Child>,
    /// When the run is asked to stop, unless it has ended by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

/// What is asked of a state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepKind {
    /// [`State::run`].
    Run,
    /// [`State::on_exhausted`], with the fault of the last attempt.
    Exhausted(Fault),
    /// [`State::on_cancel`].
    Cancel,
    /// [`State::on_interrupted`].
    Interrupted,
}

/// What the journal knows of one effect of the current entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectLog {
    /// The name that the step gave the effect.
    pub name: String,
    /// Its result; `None` if only the intent was recorded, so that it may or may not have run.
    pub result: Option<Data>,
}

/// What a state answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Results of effects that are not in the journal yet; they ride with the next record.
    #[serde(default)]
    pub effects: Vec<EffectLog>,
    /// The ids of the signals that the step took. They are gone once it moves on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<String>,
    /// The children that are born when it moves on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spawned: Vec<Spawn>,
    /// What follows.
    pub verdict: Verdict,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        Outcome { effects: Vec::new(), taken: Vec::new(), spawned: Vec::new(), verdict }
    }
}

/// What follows a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// The run moves to a state.
    Go {
        /// The state's name.
        state: String,
        /// Its data.
        data: Data,
        /// Its step runs no sooner than this.
        #[serde(default)]
        wake_at: Option<Timestamp>,
    },
    /// The state runs again: the answer to [`StepKind::Interrupted`] of a state that names no
    /// edge for it.
    Again,
    /// The step did not do its work.
    Fault(Fault),
    /// The machine cannot read the state: its data are of another form, or it has no such state.
    /// Nothing was done; the run is quarantined.
    Unreadable(Fault),
    /// Whoever runs the machine's steps does so no more, for this run: what ran them has died of
    /// it again and again, say. The run is quarantined.
    Quarantine(Fault),
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        Verdict::Fault(fault).into()
    }
}

/// Every machine whose steps get host services of type `H`.
///
/// Implemented for each [`Machine`]; a caller keeps machines of several types in one list of
/// `Box<dyn Erased<H>>`.
pub trait Erased<H>: Send + Sync {
    /// The machine's graph.
    fn graph(&self) -> Graph;

    /// Performs `call`. A state that the machine does not have, and data that it cannot read, are
    /// [`Verdict::Unreadable`]; a panic is the caller's to contain.
    fn step<'a>(
        &'a self,
        call: StepCall,
        host: &'a H,
        port: &'a dyn Port,
    ) -> BoxFuture<'a, Outcome>;

    /// Translates a state of another version; see [`Machine::migrate`].
    ///
    /// # Errors
    ///
    /// The machine's own fault.
    fn migrate(&self, from: u32, state: &str, data: Data) -> Result<(String, Data), Fault>;
}

impl<M: Machine> Erased<M::Host> for M {
    fn graph(&self) -> Graph {
        Graph::of::<M>()
    }

    fn step<'a>(
        &'a self,
        call: StepCall,
        host: &'a M::Host,
        port: &'a dyn Port,
    ) -> BoxFuture<'a, Outcome> {
        let states = <M::States as States<M>>::DESCRIBED;
        let Some(state) = states.iter().find(|state| state.name == call.state) else {
            let message = format!("machine `{}` has no state `{}`", M::NAME, call.state);
            let unknown = Verdict::Unreadable(Fault::permanent("state.unknown", message));
            return Box::pin(async { unknown.into() });
        };
        match call.kind {
            StepKind::Run => Box::pin(async move {
                let data = call.data.clone();
                let mut context = Context::new(call, host, port);
                let verdict = (state.run)(self, &data, &mut context).await;
                context.into_outcome(verdict)
            }),
            _ => {
                let verdict = (state.edge)(&call.data, &call.kind);
                Box::pin(async { verdict.into() })
            }
        }
    }

    fn migrate(&self, from: u32, state: &str, data: Data) -> Result<(String, Data), Fault> {
        M::migrate(from, state, data)
    }
}

/// What a [`Runtime`](crate::Runtime) runs.
///
/// **The runtime guarantees** one call at a time per run, and that it checks each successor
/// against the graph. **The implementer guarantees** that dropping the future stops the step as
/// soon as it can be stopped, and that a panic does not cross a foreign boundary.
pub trait AnyMachine: Send + Sync {
    /// The machine's graph; the same on every call.
    fn graph(&self) -> &Graph;

    /// Completes when a step of `run` may begin: the host may have to make room for it first. At
    /// once by default.
    ///
    /// No attempt's time is counted meanwhile, and no attempt is used up. Whenever something is
    /// asked of the run, the future is dropped, and called for anew if a step is still due. A panic
    /// quarantines the run.
    fn ready<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, ()> {
        let _ = run;
        Box::pin(std::future::ready(()))
    }

    /// Performs `call`; what the step needs of the runtime goes through `port`.
    fn step(&self, call: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome>;

    /// Translates a state of another version; see [`Machine::migrate`].
    fn migrate(
        &self,
        from: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>>;
}

/// A machine of this process, with the host services that its steps get.
pub struct Hosted<H> {
    graph: Graph,
    machine: Box<dyn Erased<H>>,
    host: H,
}

impl<H: Send + Sync + 'static> Hosted<H> {
    /// `machine`, whose steps find `host` in their context.
    pub fn new(machine: impl Erased<H> + 'static, host: H) -> Self {
        Hosted { graph: machine.graph(), machine: Box::new(machine), host }
    }
}

impl<H: Send + Sync + 'static> AnyMachine for Hosted<H> {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn step(&self, call: StepCall, port: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.machine.step(call, &self.host, &*port).await })
    }

    fn migrate(
        &self,
        from: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>> {
        let migrated = self.machine.migrate(from, &state, data);
        Box::pin(async { migrated })
    }
}

impl<H> fmt::Debug for Hosted<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hosted({})", self.graph.machine)
    }
}

type Run<M> = for<'a, 'c> fn(&'a M, &'a Data, &'a mut Context<'c, M>) -> BoxFuture<'a, Verdict>;

/// One state as constant data: what the graph shows, and how to call it.
#[doc(hidden)]
pub struct Described<M: Machine> {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) next: &'static [&'static str],
    pub(crate) retry: Retry,
    pub(crate) wait: Wait,
    pub(crate) cancel: Cancel,
    pub(crate) ending: Ending,
    run: Run<M>,
    edge: fn(&Data, &StepKind) -> Verdict,
}

impl<M: Machine> Described<M> {
    pub(crate) const fn of<S: State<M>>() -> Self {
        Described {
            name: S::NAME,
            doc: S::DOC,
            next: <S::Next as States<M>>::NAMES,
            retry: S::RETRY,
            wait: S::WAIT,
            cancel: S::CANCEL,
            ending: S::ENDING,
            run: |machine, data, context| {
                Box::pin(async move {
                    match data.decode::<S>() {
                        Ok(state) => verdict(state.run(machine, context).await),
                        Err(fault) => Verdict::Unreadable(fault),
                    }
                })
            },
            edge: |data, kind| {
                let state = match data.decode::<S>() {
                    Ok(state) => state,
                    Err(fault) => return Verdict::Unreadable(fault),
                };
                match kind {
                    StepKind::Run => Verdict::Again,
                    StepKind::Exhausted(fault) => verdict(state.on_exhausted(fault.clone())),
                    StepKind::Cancel => verdict(state.on_cancel()),
                    StepKind::Interrupted => state.on_interrupted().map_or(Verdict::Again, verdict),
                }
            },
        }
    }
}

fn verdict<S>(step: Step<S>) -> Verdict {
    step.map_or_else(Verdict::Fault, crate::Go::into_verdict)
}

impl<M: Machine> fmt::Debug for Described<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Described({})", self.name)
    }
}
