//! Runs machines over a journal.
//!
//! **How.** Each active run has one task, which owns the sequence of the run's records: it calls
//! the step, makes the outcome durable, and only then goes on. Everybody else talks to the run by
//! sending its task a command.

mod attend;
mod builder;
mod deadline;
mod drive;
mod error;
mod event;
mod gate;
mod handle;
mod launch;
mod place;
mod port;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use self::{
    builder::RuntimeBuilder,
    error::{RuntimeError, RuntimeErrorKind},
    event::{End, Observer, RunEvent},
    handle::RunHandle,
};
use self::{drive::Command, gate::Gates, place::Tasks};
use crate::{
    AnyMachine, Body, Data, Ending, Environment, Fault, Graph, Journal, JournalErrorKind, Record,
    RunId, RunSnapshot,
};

/// Executes runs of the machines that are registered with it. Clones are the same runtime.
///
/// ```
/// use std::sync::Arc;
/// use fsm_core::{Data, End, Hosted, MemoryJournal, RunId, Runtime, testing::ManualEnvironment};
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
///     let run = runtime.start(id, "turnstile", Data::encode(&Locked { coins: 0 })?).await?;
///     Ok::<_, Box<dyn std::error::Error>>(run.end().await?)
/// })?;
/// assert_eq!(end.data.as_text(), Some(r#"{"coins":1}"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Arc<dyn Journal>,
    environment: Arc<dyn Environment>,
    observer: Arc<dyn Observer>,
    cancel_grace: Duration,
    machines: Mutex<BTreeMap<String, Registered>>,
    tasks: Mutex<Tasks>,
    gates: Gates,
}

#[derive(Clone)]
struct Registered {
    machine: Arc<dyn AnyMachine>,
    origin: String,
    fingerprint: String,
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
        let name = machine.graph().machine.clone();
        machine
            .graph()
            .validate()
            .map_err(|error| RuntimeError::new(RuntimeErrorKind::Graph, &name).caused_by(error))?;
        let registered = Registered {
            fingerprint: machine.graph().fingerprint(),
            machine: Arc::new(machine),
            origin: origin.into(),
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
    /// together with something of its own, and then calls [`resume`](Runtime::resume).
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
        let registered = self
            .inner
            .machines()
            .get(machine)
            .cloned()
            .ok_or_else(|| RuntimeError::new(RuntimeErrorKind::UnknownMachine, machine))?;
        let graph = registered.machine.graph();
        let body = Body::Enter {
            entry: 1,
            machine: graph.machine.clone(),
            version: graph.version,
            origin: registered.origin.clone(),
            graph: registered.fingerprint.clone(),
            state: graph.initial.clone(),
            data: input,
            wake_at: None,
            carried: Box::default(),
        };
        Ok(Record { run, seq: 1, at: self.inner.environment.now(), body })
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
        if self.inner.tasks().stopping {
            return Err(RuntimeError::new(RuntimeErrorKind::Stopped, run.as_str()));
        }
        let _gate = self.inner.gates.pass(&run).await;
        if let Some(handle) = self.active(&run) {
            return Ok(handle);
        }
        if let Some(snapshot) = self.inner.journal.load(&run).await? {
            return self.resume_from(snapshot, Entry::Interrupted).await;
        }
        let record = self.first_record(run.clone(), machine, input)?;
        let snapshot = RunSnapshot::fold([record.clone()])
            .map_err(|why| RuntimeError::new(RuntimeErrorKind::Quarantined, why))?;
        match self.inner.journal.append(vec![record]).await {
            Ok(()) => self.launch(snapshot, Entry::Fresh),
            // An earlier start whose future was dropped: its record has landed just now.
            Err(error) if error.kind() == JournalErrorKind::Conflict => {
                self.load_and_launch(&run, Entry::Fresh).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Continues a run that is in the journal. A run that is active already is found; one that
    /// has ended answers with its end. The state that it was in counts as interrupted unless it
    /// was waiting for a time.
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::UnknownRun`]; [`RuntimeErrorKind::Quarantined`] if its machine is not
    /// registered or cannot read its state; the journal's error.
    pub async fn resume(&self, run: &RunId) -> Result<RunHandle, RuntimeError> {
        self.resume_as(run, Entry::Interrupted).await
    }

    /// Continues a run whose first record somebody else has just made durable; no step of it has
    /// run yet.
    ///
    /// # Errors
    ///
    /// As [`resume`](Runtime::resume).
    pub async fn launch_fresh(&self, run: &RunId) -> Result<RunHandle, RuntimeError> {
        self.resume_as(run, Entry::Fresh).await
    }

    /// Continues every run that has not ended. Answers with the runs that cannot be continued
    /// here and why; they stay in the journal.
    ///
    /// # Errors
    ///
    /// The journal's error, if it cannot be read at all.
    pub async fn resume_all(&self) -> Result<Vec<(RunId, String)>, RuntimeError> {
        self.resume_unfinished().await
    }

    /// Asks a run to stop: the request is durable when this returns. What follows is the graph's
    /// matter ([`State::on_cancel`](crate::State::on_cancel)). A run that has ended stays ended.
    ///
    /// # Errors
    ///
    /// As [`resume`](Runtime::resume).
    pub async fn cancel(&self, run: &RunId, reason: &str) -> Result<RunHandle, RuntimeError> {
        let handle = self.resume_as(run, Entry::Interrupted).await?;
        handle.ask(|done| Command::Cancel { reason: reason.to_owned(), done }).await?;
        Ok(handle)
    }

    /// Ends a run of which no step has begun, without asking its graph: for an embedder that wrote
    /// its first record and then did not let it begin. `None` if a step of it may have begun; then
    /// [`cancel`](Runtime::cancel) it.
    ///
    /// **The caller guarantees** that nobody has launched the run, in this process or before.
    ///
    /// # Errors
    ///
    /// [`RuntimeErrorKind::UnknownRun`], or the journal's error.
    pub async fn revoke(
        &self,
        run: &RunId,
        ending: Ending,
        fault: Fault,
    ) -> Result<Option<End>, RuntimeError> {
        self.end_unbegun(run, ending, fault).await
    }

    /// Lets a paused run continue, with all its attempts: durable when this returns. A run that
    /// is not paused goes on as it does.
    ///
    /// # Errors
    ///
    /// As [`resume`](Runtime::resume).
    pub async fn unpause(&self, run: &RunId) -> Result<RunHandle, RuntimeError> {
        let handle = self.resume_as(run, Entry::Interrupted).await?;
        handle.ask(|done| Command::Unpause { done }).await?;
        Ok(handle)
    }

    /// Where `run` stands, from the journal; `None` if there is no such run.
    ///
    /// # Errors
    ///
    /// The journal's error.
    pub async fn inspect(&self, run: &RunId) -> Result<Option<RunSnapshot>, RuntimeError> {
        Ok(self.inner.journal.load(run).await?)
    }

    /// The records of `run`, in order.
    ///
    /// # Errors
    ///
    /// The journal's error.
    pub async fn history(&self, run: &RunId) -> Result<Vec<Record>, RuntimeError> {
        Ok(self.inner.journal.history(run).await?)
    }

    /// Stops every run where it is, without a trace in the journal: the next process continues
    /// them as after a crash. Completes when no step runs any more; from then on this runtime
    /// refuses to run anything ([`RuntimeErrorKind::Stopped`]).
    pub async fn stop(&self) {
        let handles: Vec<_> = {
            let mut tasks = self.inner.tasks();
            tasks.stopping = true;
            tasks.runs.values().cloned().collect()
        };
        for handle in &handles {
            handle.send(Command::Stop);
        }
        for handle in handles {
            let _ = handle.end().await;
        }
    }
}

/// How a task comes to the state that its run is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// No step has run in this state yet.
    Fresh,
    /// A step may have run, in a process that is gone.
    Interrupted,
}

impl Inner {
    fn machines(&self) -> MutexGuard<'_, BTreeMap<String, Registered>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machines: Vec<_> = self.inner.machines().keys().cloned().collect();
        let active: Vec<_> = self.inner.tasks().runs.keys().cloned().collect();
        f.debug_struct("Runtime").field("machines", &machines).field("active", &active).finish()
    }
}
