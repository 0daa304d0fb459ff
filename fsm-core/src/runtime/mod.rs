//! Runs machines over a journal.
//!
//! **How.** Each run that this process has taken up has an entry in one table ([`table`]). A run
//! whose step is at work has a task, which owns the sequence of the run's records: it calls the
//! step, makes the outcome durable, and only then goes on. A run that waits, for a time, a signal,
//! a child or an operator, has no task: one clock wakes those that wait for time, and whoever
//! asks something of a run gives it a task, which reads from the journal where the run stands.
//! The decision what is next for a run is pure ([`due`]).

mod attend;
mod builder;
mod clock;
mod command;
mod cue;
mod deadline;
mod drive;
mod due;
mod error;
mod event;
mod family;
mod handle;
mod inner;
mod open;
mod operate;
mod outcome;
mod permit;
mod port;
mod recover;
mod serve;
mod table;
mod watch;
mod work;

use std::{fmt, sync::Arc};

pub use self::{
    builder::RuntimeBuilder,
    error::{RuntimeError, RuntimeErrorKind},
    event::{End, Observer, RunEvent},
    handle::RunHandle,
    recover::Recovered,
    watch::{Watch, Watched},
};
use self::{
    command::Command,
    inner::{Inner, Registered},
    open::Opening,
    table::Slot,
};
use crate::{
    AnyMachine, Carried, Data, Environment, Graph, Journal, Machine, Page, Pruned, Record,
    Retention, RunId, RunSnapshot, RunSummary, Timestamp,
};

/// Executes runs of the machines that are registered with it. Clones are the same runtime.
///
/// ```
/// use std::sync::Arc;
/// use fsm_core::{End, Hosted, MemoryJournal, RunId, Runtime, testing::ManualEnvironment};
/// # use fsm_core::{Context, Machine, State, Step, check, go};
/// # use serde::{Deserialize, Serialize};
/// # struct Turnstile;
/// # #[derive(Serialize, Deserialize)] struct Locked { coins: u32 }
/// # #[derive(Serialize, Deserialize)] struct Open { coins: u32 }
/// # impl Machine for Turnstile {
/// #     const NAME: &'static str = "turnstile";
/// #     type Host = (); type Initial = Locked; type States = (Locked, Open);
/// # }
/// # check!(Turnstile);
/// # impl State<Turnstile> for Locked {
/// #     const NAME: &'static str = "locked"; type Next = (Open,);
/// #     async fn run(self, _: &Turnstile, _: &mut Context<'_, Turnstile>) -> Step<Self> {
/// #         go(Open { coins: self.coins + 1 })
/// #     }
/// # }
/// # impl State<Turnstile> for Open { const NAME: &'static str = "open"; type Next = (); }
///
/// let environment = ManualEnvironment::default();
/// let runtime = Runtime::builder(MemoryJournal::new(), environment.clone()).build();
/// runtime.register(Hosted::new(Turnstile, ()), "example")?;
///
/// let end: End = environment.block_on(async {
///     let id: RunId = "first".parse()?;
///     let run = runtime.begin::<Turnstile>(id, &Locked { coins: 0 }).await?;
///     Ok::<_, Box<dyn std::error::Error>>(run.end().await?)
/// })?;
/// assert_eq!(end.data.as_text(), Some(r#"{"coins":1}"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

impl Runtime {
    /// A runtime that keeps its runs in `journal`.
    pub fn builder(journal: impl Journal, environment: impl Environment) -> RuntimeBuilder {
        RuntimeBuilder::new(journal, environment)
    }

    /// Makes `machine` known under its graph's name. `origin` says whose it is (a plugin and its
    /// version, say) and is written beside each of its runs.
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::Graph`] if the graph is not sound or the name is taken.
    pub fn register(
        &self,
        machine: impl AnyMachine + 'static,
        origin: impl Into<String>,
    ) -> Result<(), RuntimeError> {
        let (name, origin) = (machine.graph().machine.clone(), origin.into());
        machine
            .graph()
            .validate()
            .map_err(|error| RuntimeError::new(RuntimeErrorKind::Graph, &name).caused_by(error))?;
        let registered = Registered {
            fingerprint: machine.graph().fingerprint(),
            machine: Arc::new(machine),
            lane: self.inner.table().lane(&origin),
            origin,
        };
        let mut machines = self.inner.machines();
        if machines.contains_key(&name) {
            return Err(RuntimeError::new(
                RuntimeErrorKind::Graph,
                format!("a machine `{name}` is registered already"),
            ));
        }
        machines.insert(name, registered);
        Ok(())
    }

    /// The graph of the machine `name`.
    pub fn graph(&self, name: &str) -> Option<Graph> {
        self.inner.machines().get(name).map(|registered| registered.machine.graph().clone())
    }

    /// The graphs of all machines, by name.
    pub fn graphs(&self) -> Vec<Graph> {
        let machines = self.inner.machines();
        machines.values().map(|registered| registered.machine.graph().clone()).collect()
    }

    /// The record with which a run of `machine` begins: for an embedder that makes it durable
    /// together with something of its own, and then calls [`launch`](Runtime::launch).
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::UnknownMachine`].
    pub fn first_record(
        &self,
        run: RunId,
        machine: &str,
        input: Data,
    ) -> Result<Record, RuntimeError> {
        self.first(run, machine, input, Carried::default())
    }

    fn first(
        &self,
        run: RunId,
        machine: &str,
        input: Data,
        carried: Carried,
    ) -> Result<Record, RuntimeError> {
        let unknown = || RuntimeError::new(RuntimeErrorKind::UnknownMachine, machine);
        let registered = self.inner.registered(machine).ok_or_else(unknown)?;
        Ok(registered.first_record(run, input, carried, self.inner.environment.now()))
    }

    /// Starts a run, durably: the run exists when this returns. Starting a run that exists
    /// already finds it, whatever the input.
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::UnknownMachine`], [`RuntimeErrorKind::Stopped`], or the journal's error.
    ///
    /// # Cancel safety
    ///
    /// The run may exist although the future was dropped; start it again with the same id.
    pub async fn start(
        &self,
        run: RunId,
        machine: &str,
        input: Data,
    ) -> Result<RunHandle, RuntimeError> {
        self.start_with(run, machine, input, Carried::default()).await
    }

    /// As [`start`](Runtime::start), by type.
    ///
    /// # Errors
    ///
    /// As [`start`](Runtime::start), and [`RuntimeErrorKind::Input`] if serde cannot write
    /// `initial`.
    ///
    /// # Cancel safety
    ///
    /// As [`start`](Runtime::start).
    pub async fn begin<M: Machine>(
        &self,
        run: RunId,
        initial: &M::Initial,
    ) -> Result<RunHandle, RuntimeError> {
        let input = Data::encode(initial).map_err(|fault| {
            RuntimeError::new(RuntimeErrorKind::Input, M::NAME).caused_by(fault)
        })?;
        self.start(run, M::NAME, input).await
    }

    /// As [`start`](Runtime::start), for a run that is asked to stop when it has not ended at
    /// `deadline`. Its states' edges for that say what follows. A run that is in line for a place among
    /// those at work ([`concurrency`](RuntimeBuilder::concurrency)) hears of it in its turn.
    ///
    /// # Errors
    ///
    /// As [`start`](Runtime::start).
    ///
    /// # Cancel safety
    ///
    /// As [`start`](Runtime::start).
    pub async fn start_by(
        &self,
        run: RunId,
        machine: &str,
        input: Data,
        deadline: Timestamp,
    ) -> Result<RunHandle, RuntimeError> {
        let carried = Carried { deadline: Some(deadline), ..Carried::default() };
        self.start_with(run, machine, input, carried).await
    }

    async fn start_with(
        &self,
        run: RunId,
        machine: &str,
        input: Data,
        carried: Carried,
    ) -> Result<RunHandle, RuntimeError> {
        // A run that exists is found, if it is what is asked for.
        if let Some(found) = self.inner.journal.load(&run).await.ok().flatten()
            && found.machine != machine
        {
            let subject = format!("{run}: of `{}`, not of `{machine}`", found.machine);
            return Err(RuntimeError::new(RuntimeErrorKind::OtherMachine, subject));
        }
        let opening = match self.first(run.clone(), machine, input, carried) {
            Ok(record) => Opening::New(Box::new(record)),
            // It may exist all the same.
            Err(_) if self.inner.journal.head(&run).await?.is_some() => Opening::Known,
            Err(error) => return Err(error),
        };
        self.find(&run, opening).await
    }

    /// Finds a run that is here, or continues one that is in the journal. One that has ended
    /// answers with its end. The state that it was in counts as interrupted unless it was waiting.
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::UnknownRun`]; [`RuntimeErrorKind::Quarantined`] if its machine is not
    /// registered, cannot read its state, or its records are damaged; the journal's error.
    ///
    /// # Cancel safety
    ///
    /// The run goes on although the future was dropped.
    pub async fn attach(&self, run: &RunId) -> Result<RunHandle, RuntimeError> {
        self.find(run, Opening::Known).await
    }

    /// Begins a run whose [first record](Runtime::first_record) somebody else has just made
    /// durable; no step of it has run yet.
    ///
    /// # Errors
    ///
    /// As [`attach`](Runtime::attach).
    ///
    /// # Cancel safety
    ///
    /// As [`attach`](Runtime::attach).
    pub async fn launch(&self, run: &RunId) -> Result<RunHandle, RuntimeError> {
        self.find(run, Opening::Fresh).await
    }

    async fn find(&self, run: &RunId, opening: Opening) -> Result<RunHandle, RuntimeError> {
        // One that waits is known to be in the journal, and is left to wait, unless it waits for
        // the journal.
        let waits = match self.inner.table().runs.get(run) {
            Some(Slot::Parked { cue, .. }) => !cue.as_ref().is_some_and(|cue| cue.stalled),
            Some(Slot::Queued { .. }) => true,
            Some(Slot::Working(_)) | None => false,
        };
        if waits {
            return self.inner.take_up(run, opening, None);
        }
        let (done, answer) = futures::channel::oneshot::channel();
        let handle = self.inner.take_up(run, opening, Some(Command::Attach { done }))?;
        match answer.await {
            Ok(answer) => answer?,
            // It has ended, or cannot be continued.
            Err(_) => {
                if let Err(error) = handle.end().await {
                    return Err(RuntimeError::shared(error));
                }
            }
        }
        Ok(handle)
    }

    /// Continues every run that has not ended, each where it was: those that wait go on waiting,
    /// the others get in line. Those that cannot be continued here stay in the journal.
    ///
    /// Reads the journal once, a page at a time; no run has a task before there is a place for it
    /// to work.
    ///
    /// # Errors
    ///
    /// The journal's error, if it cannot be read at all; [`RuntimeErrorKind::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Runs that have been read go on; call it again for the others.
    pub async fn recover(&self) -> Result<Recovered, RuntimeError> {
        self.inner.recover().await
    }

    /// The runs that could not be continued here when they were last tried, and why.
    pub fn quarantined(&self) -> Vec<(RunId, String)> {
        let table = self.inner.table();
        table.quarantined.iter().map(|(run, why)| (run.clone(), why.clone())).collect()
    }

    /// Where `run` stands, from the journal; `None` if there is no such run.
    ///
    /// # Errors
    ///
    /// The journal's error.
    pub async fn inspect(&self, run: &RunId) -> Result<Option<RunSnapshot>, RuntimeError> {
        Ok(self.inner.journal.load(run).await?)
    }

    /// A page of the runs, by id, from the journal.
    ///
    /// # Errors
    ///
    /// The journal's error.
    pub async fn list(&self, page: Page) -> Result<Vec<RunSummary>, RuntimeError> {
        Ok(self.inner.journal.list(page).await?)
    }

    /// The records of `run` that are still kept, in order.
    ///
    /// # Errors
    ///
    /// The journal's error.
    pub async fn history(&self, run: &RunId) -> Result<Vec<Record>, RuntimeError> {
        Ok(self.inner.journal.history(run).await?)
    }

    /// The events of all runs from now on.
    pub fn watch(&self) -> Watch {
        self.inner.watchers.add(None)
    }

    /// The events of `run` from now on, whether or not there is such a run yet.
    pub fn watch_run(&self, run: &RunId) -> Watch {
        self.inner.watchers.add(Some(run.clone()))
    }

    /// Forgets what `retention` lets the journal forget. Runs go on meanwhile.
    ///
    /// # Errors
    ///
    /// The journal's error.
    pub async fn prune(&self, retention: Retention) -> Result<Pruned, RuntimeError> {
        Ok(self.inner.journal.prune(retention, self.inner.environment.now()).await?)
    }

    /// Stops every run where it is, without a trace in the journal: the next process continues
    /// them as after a crash. Completes when no step runs any more; from then on this runtime
    /// refuses to run anything ([`RuntimeErrorKind::Stopped`]).
    pub async fn stop(&self) {
        let handles = self.inner.begin_to_stop();
        for handle in handles {
            let _ = handle.end().await;
        }
        self.inner.watchers.close();
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machines: Vec<_> = self.inner.machines().keys().cloned().collect();
        let runs = self.inner.table().runs.len();
        f.debug_struct("Runtime").field("machines", &machines).field("runs", &runs).finish()
    }
}
