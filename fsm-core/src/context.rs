//! What a step sees of the runtime.

use std::{fmt, future::Future};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Cancellation, Data, Effect, EffectLog, Fault, Machine, RunId, StepCall, Timestamp};

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
}

impl<'c, M: Machine> Context<'c, M> {
    pub(crate) fn new(call: StepCall, host: &'c M::Host, port: &'c dyn Port) -> Self {
        Context { call, host, port, results: Vec::new(), intents: Vec::new() }
    }

    pub(crate) fn into_results(self) -> Vec<EffectLog> {
        self.results
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

    /// The key of the effect `name` of this entry: `run/entry/name`.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.call.run, self.call.entry)
    }

    /// Runs an effect that is idempotent by its key: at least once.
    ///
    /// Its result is journaled with the step's next record, at no cost of its own. If the journal
    /// has the result already, it is returned and `f` does not run. Names are unique in a state.
    ///
    /// # Errors
    ///
    /// What `f` returns; a fault if the result has no serde form.
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
        if let Some(result) = self.recorded(name) {
            return result.decode();
        }
        let value = f(Effect { key: self.key(name), maybe_ran: false }).await?;
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
        if let Some(result) = self.recorded(name) {
            return result.decode();
        }
        let maybe_ran = self.call.effects.iter().any(|effect| effect.name == name)
            || self.intents.iter().any(|intent| intent == name);
        if !maybe_ran {
            self.port.intent(name).await?;
            self.intents.push(name.to_owned());
        }
        let value = f(Effect { key: self.key(name), maybe_ran }).await?;
        self.record(name, &value)?;
        Ok(value)
    }

    fn recorded(&self, name: &str) -> Option<&Data> {
        let mut known = self.call.effects.iter().chain(&self.results);
        known.find_map(|effect| effect.result.as_ref().filter(|_| effect.name == name))
    }

    fn record<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), Fault> {
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
