//! What a step sees of the runtime.

use std::{
    fmt,
    future::{Future, ready},
};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::Instrument;

use crate::{
    Cancellation, Child, Data, Effect, EffectLog, Fault, Machine, Outcome, Pending, RunId, Signal,
    Spawn, State, StepCall, StepKind, Timestamp, Verdict,
};

/// What a runtime does for one step, wherever the step runs.
///
/// **The implementer guarantees** that [`intent`](Port::intent) is durable when it returns `Ok`,
/// and that calls of a step that is no longer current are refused.
pub trait Port: Send + Sync {
    /// Records that the effect `name` is about to run.
    fn intent<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Fault>>;

    /// Reports progress. Never durable; the newest report replaces those before it.
    fn progress(&self, progress: Progress);

    /// The wall time.
    fn now(&self) -> Timestamp;

    /// The request to stop.
    fn cancellation(&self) -> Cancellation;
}

/// How far a step has come, in units of its own choice (bytes, as a rule).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, if known.
    pub total: Option<u64>,
}

/// What a step of machine `M` sees of the runtime: host services, effects, time, cancellation.
pub struct Context<'c, M: Machine> {
    call: StepCall,
    host: &'c M::Host,
    port: &'c dyn Port,
    /// The results that this call has added.
    results: Vec<EffectLog>,
    /// The intents that this call has added.
    intents: Vec<String>,
    taken: Vec<String>,
    spawned: Vec<Spawn>,
    /// The effects whose results this call has had.
    had: Vec<String>,
}

/// No runtime: intents are accepted, progress is dropped, the time is the Unix epoch, and nobody
/// asks to stop. For [`Context::alone`].
impl Port for () {
    fn intent<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(ready(Ok(())))
    }

    fn progress(&self, _: Progress) {}

    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn cancellation(&self) -> Cancellation {
        Cancellation::new()
    }
}

impl<'c, M: Machine> Context<'c, M> {
    /// The context of a first attempt at a first state, without a runtime: for a test or a
    /// benchmark of one state, which is called by its type.
    ///
    /// ```
    /// # use fsm_core::{Machine, State, Step, check, go};
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
    /// use fsm_core::Context;
    ///
    /// # futures::executor::block_on(async {
    /// let mut cx = Context::alone("test".parse()?, &(), &());
    /// let step = Locked { coins: 2 }.run(&Turnstile, &mut cx).await?;
    /// assert_eq!(step.take::<Open>().map(|open| open.coins).ok(), Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alone(run: RunId, host: &'c M::Host, port: &'c dyn Port) -> Self {
        let call = StepCall {
            run,
            machine: M::NAME.to_owned(),
            state: <M::Initial as State<M>>::NAME.to_owned(),
            data: Data::default(),
            entry: 1,
            attempt: 1,
            kind: StepKind::Run,
            effects: Vec::new(),
            signals: Vec::new(),
            children: Vec::new(),
            deadline: None,
        };
        Context::new(call, host, port)
    }

    pub(crate) fn new(call: StepCall, host: &'c M::Host, port: &'c dyn Port) -> Self {
        let (results, intents) = (Vec::new(), Vec::new());
        let (taken, spawned, had) = Default::default();
        Context { call, host, port, results, intents, taken, spawned, had }
    }

    pub(crate) fn into_outcome(self, verdict: Verdict) -> Outcome {
        let Context { results, taken, spawned, .. } = self;
        Outcome { effects: results, taken, spawned, verdict }
    }

    /// The host services that the machine asks for.
    pub fn host(&self) -> &'c M::Host {
        self.host
    }

    /// The run that this step belongs to.
    pub fn run(&self) -> &RunId {
        &self.call.run
    }

    /// Which attempt at this state this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.call.attempt
    }

    /// The wall time. Tests drive it.
    pub fn now(&self) -> Timestamp {
        self.port.now()
    }

    /// The request to stop: a step that takes long looks at it, or waits for it.
    pub fn cancellation(&self) -> Cancellation {
        self.port.cancellation()
    }

    /// Fails with [`Fault::cancelled`] if the step was asked to stop.
    ///
    /// # Errors
    ///
    /// A fault of class [`Cancelled`](crate::Class::Cancelled).
    pub fn check_cancelled(&self) -> Result<(), Fault> {
        if self.cancellation().is_requested() { Err(Fault::cancelled()) } else { Ok(()) }
    }

    /// Reports how far the step has come.
    pub fn progress(&self, done: u64, total: Option<u64>) {
        self.port.progress(Progress { done, total });
    }

    /// When the run is asked to stop, unless it has ended by then.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.call.deadline
    }

    /// Takes the oldest signal `G` that the run has been told and no state has taken.
    ///
    /// Taken for good once the step moves on: a step that fails, or dies, finds it again.
    ///
    /// # Errors
    ///
    /// A fault if the signal's data is no `G`. It is taken all the same: a step that catches the
    /// fault finds the next signal, and leaves this one behind when it moves on.
    pub fn take<G: Signal>(&mut self) -> Result<Option<G>, Fault> {
        let pending =
            |signal: &&Pending| signal.name == G::NAME && !self.taken.contains(&signal.id);
        let Some(signal) = self.call.signals.iter().find(pending) else { return Ok(None) };
        self.taken.push(signal.id.clone());
        signal.data.decode().map(Some).map_err(|fault| {
            let message = format!("signal `{}` (id `{}`) holds other data", signal.name, signal.id);
            Fault::new(fault.class(), "signal.decode", message).caused_by(&fault)
        })
    }

    /// Spawns a run of machine `C` that begins in `initial`, and answers with its id,
    /// `run/entry/key`.
    ///
    /// The child is born with this step's transition, in the same durable write: a step that
    /// fails has spawned nothing, and one that is run again spawns it once. A run that is asked to
    /// stop, or ends, asks its children to stop. Wait for them with
    /// [`Wait::for_children`](crate::Wait::for_children).
    ///
    /// # Errors
    ///
    /// A fault if `key` was used in this step, or is not 1 or more of `A-Z a-z 0-9 - _ . : @`.
    pub fn spawn<C: Machine>(&mut self, key: &str, initial: &C::Initial) -> Result<RunId, Fault> {
        if self.spawned.iter().any(|other| other.key == key) {
            let message = format!("two children of one step have the key `{key}`");
            return Err(Fault::bug("child.twice", message));
        }
        let unusable = || Fault::bug("child.key", format!("`{key}` cannot name a child"));
        // Without one in the key, the parent's id can be told from the child's.
        if key.is_empty() || key.contains('/') {
            return Err(unusable());
        }
        let run = RunId::new(self.key(key)).map_err(|error| unusable().caused_by(&error))?;
        let (key, machine) = (key.to_owned(), C::NAME.to_owned());
        let input = Data::encode(initial)?;
        self.spawned.push(Spawn { key, run: run.clone(), machine, input });
        Ok(run)
    }

    /// The children of this run: those that have ended say how.
    ///
    /// They are shown until a state that waited for children has moved on.
    pub fn children(&self) -> &[Child] {
        &self.call.children
    }

    /// The key of the effect `name` of this entry: `run/entry/name`.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.call.run, self.call.entry)
    }

    /// Runs an effect that is idempotent by its key: at least once.
    ///
    /// Its result is journaled with the step's next record, at no cost of its own, or by itself if
    /// the step fails for good. If the journal
    /// has the result already, it is returned and `f` does not run.
    ///
    /// # Errors
    ///
    /// What `f` returns; a fault if the result has no serde form, or if this step has had the
    /// result of another effect of this name.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped records nothing; the effect may have happened, and will be run
    /// again with the same key.
    pub async fn effect<T, F, Fut>(&mut self, name: &str, f: F) -> Result<T, Fault>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(Effect) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        if let Some(result) = self.earlier(name)? {
            return result;
        }
        let value = self.run_effect(name, false, f).await?;
        self.record(name, &value)?;
        Ok(value)
    }

    /// Runs an effect that must not happen twice unseen: its intent is durable before it runs.
    ///
    /// After a crash, or a fault of the step, `f` runs again with [`Effect::maybe_ran`] set, and
    /// looks at the outside world before it repeats anything. Costs one durable record more than
    /// [`effect`](Context::effect).
    ///
    /// # Errors
    ///
    /// What `f` returns; a fault if the intent could not be recorded.
    ///
    /// # Cancel safety
    ///
    /// As [`effect`](Context::effect); the intent stays.
    pub async fn once<T, F, Fut>(&mut self, name: &str, f: F) -> Result<T, Fault>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(Effect) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        if let Some(result) = self.earlier(name)? {
            return result;
        }
        let maybe_ran = self.call.effects.iter().any(|effect| effect.name == name)
            || self.intents.iter().any(|intent| intent == name);
        if !maybe_ran {
            self.port.intent(name).await?;
            self.intents.push(name.to_owned());
        }
        let value = self.run_effect(name, maybe_ran, f).await?;
        self.record(name, &value)?;
        Ok(value)
    }

    /// The result of an earlier attempt at the effect `name`, if it is journaled.
    fn earlier<T: DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<Result<T, Fault>>, Fault> {
        if self.had.iter().any(|had| had == name) {
            let state = &self.call.state;
            let message = format!("two effects of state `{state}` have the name `{name}`");
            return Err(Fault::bug("effect.twice", message)
                .advise("give each a name of its own: with a number, in a loop"));
        }
        let Some(result) = self.recorded(name) else { return Ok(None) };
        let result = result.decode().map_err(|fault| {
            let message = format!("the recorded result of effect `{name}` is of another type");
            Fault::new(fault.class(), "effect.decode", message)
                .caused_by(&fault)
                .advise("an effect whose result changes its type needs a new name")
        });
        self.had.push(name.to_owned());
        Ok(Some(result))
    }

    async fn run_effect<T, F, Fut>(&self, name: &str, maybe_ran: bool, f: F) -> Result<T, Fault>
    where
        F: FnOnce(Effect) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let key = self.key(name);
        let span = tracing::debug_span!("effect", name, key);
        // What `f` does before its future is first polled belongs to the effect too.
        async { f(Effect { key, maybe_ran }).await }.instrument(span).await
    }

    fn recorded(&self, name: &str) -> Option<&Data> {
        let mut known = self.call.effects.iter().chain(&self.results);
        known.find_map(|effect| effect.result.as_ref().filter(|_| effect.name == name))
    }

    fn record<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), Fault> {
        self.had.push(name.to_owned());
        let result = Some(Data::encode(value)?);
        self.results.push(EffectLog { name: name.to_owned(), result });
        Ok(())
    }
}

impl<M: Machine> fmt::Debug for Context<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Context({}, state {}, entry {})",
            self.call.run, self.call.state, self.call.entry
        )
    }
}
