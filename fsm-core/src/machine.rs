//! What an author writes: a machine and its states.

use std::future::Future;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Context, Data, Fault, Retry, States, Step, Wait};

/// A finite state machine: its states, and what they share.
///
/// The value of the type is what all steps of all runs share (configuration, a connection pool);
/// what one run needs goes into its states. Write [`check!`](crate::check!) beside the
/// implementation, so that `cargo check` reports an unreachable state, a dead end or a duplicate
/// name.
pub trait Machine: Send + Sync + Sized + 'static {
    /// The machine's name, unique within whoever registers it. Persisted: never derived from the
    /// type, so that renaming the type does not lose its runs.
    const NAME: &'static str;
    /// What the machine does, for people.
    const DOC: &'static str = "";
    /// The version of the states' names and data. Raise it when they change, and write
    /// [`migrate`](Machine::migrate).
    const VERSION: u32 = 1;
    /// The services that a step finds in [`Context::host`]; `()` if none.
    type Host: Send + Sync + 'static;
    /// The state that a run starts in; its data is the run's input.
    type Initial: State<Self>;
    /// All states, as a tuple of up to 64.
    type States: States<Self>;

    /// Translates a state that version `from` of this machine wrote.
    ///
    /// The default keeps name and data, which is right as long as serde can still read them, and
    /// refuses what a newer version wrote: this one does not know what it would lose of it.
    ///
    /// # Errors
    ///
    /// A fault quarantines the run: it stays visible and is tried again after the next upgrade.
    fn migrate(from: u32, state: &str, data: Data) -> Result<(String, Data), Fault> {
        if from > Self::VERSION {
            let message =
                format!("version {from} of machine `{}` is newer than this one", Self::NAME);
            return Err(Fault::permanent("machine.newer", message)
                .advise("run the program that has that version, or a newer one"));
        }
        Ok((state.to_owned(), data))
    }
}

/// One state of machine `M`: its data is `Self`, its code is [`run`](State::run).
///
/// **The runtime guarantees** that the state is durable before `run` is called, that `run` is
/// called for one state of a run at a time, and that it is called again, with the same data and
/// the same effect keys, after a retryable fault or the death of the process.
///
/// **The author guarantees** that running again is safe: what the step does to the world goes
/// through [`Context::effect`] or [`Context::once`].
///
/// A state whose `Next` is `()` is terminal: the run ends there with [`ENDING`](State::ENDING),
/// and the state's data is the run's result.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state of machine `{M}`",
    label = "`{Self}` has no `impl State<{M}>`",
    note = "a state of `{M}` is a type with `impl State<{M}> for {Self}`"
)]
pub trait State<M: Machine>: Serialize + DeserializeOwned + Send + 'static {
    /// The state's name, unique in its machine. Persisted: renaming the type is safe.
    const NAME: &'static str;
    /// What the state does, for people: shown in the graph.
    const DOC: &'static str = "";
    /// How often the state is tried. Not for terminal states: no step runs there.
    const RETRY: Retry = Retry::times(5);
    /// What the run waits for here before the step runs. Not for terminal states.
    const WAIT: Wait = Wait::NONE;
    /// What a request to cancel does while the run is here.
    const CANCEL: Cancel = Cancel::Deliver;
    /// How the run has ended when it is here. For terminal states alone.
    const ENDING: Ending = Ending::Completed;
    /// The states that may follow, as a tuple of up to 12; `()` for a terminal state.
    type Next: States<M>;

    /// Does the state's work and names the state that follows, with [`go`](crate::go) or
    /// [`go_at`](crate::go_at).
    ///
    /// A panic is a fault of class [`Bug`](crate::Class::Bug) of this run alone. A state with
    /// successors that has no `run` compiles, as a terminal one needs none, and fails when it is
    /// entered (`state.no_step`).
    ///
    /// # Errors
    ///
    /// A [`Fault`] whose class decides what follows: [`RETRY`](State::RETRY) while it is
    /// retryable and attempts are left, else [`on_exhausted`](State::on_exhausted).
    fn run(self, machine: &M, cx: &mut Context<'_, M>) -> impl Future<Output = Step<Self>> + Send {
        let _ = (machine, cx);
        async {
            Err(Fault::bug(
                "state.no_step",
                format!("state `{}` has successors but no `run`", Self::NAME),
            ))
        }
    }

    /// The edge that is taken when the state will not be tried again: no attempt is left, or the
    /// fault is not retryable. The default ends the run as [`Ending::Failed`].
    ///
    /// # Errors
    ///
    /// A fault ends the run as failed, with that fault.
    fn on_exhausted(self, fault: Fault) -> Step<Self> {
        Err(fault)
    }

    /// The edge that is taken when the run is cancelled here: before the state ran, or when its
    /// step stopped because it was asked to. The default ends the run as [`Ending::Cancelled`].
    /// A request is delivered once: the states that follow run as usual, and those that undo
    /// something declare [`Cancel::Defer`] so that a second request does not stop them.
    ///
    /// # Errors
    ///
    /// A fault ends the run as cancelled, with that fault.
    fn on_cancel(self) -> Step<Self> {
        Err(Fault::cancelled())
    }

    /// The edge that is taken when whoever ran the step died in it, or may have: to a state that
    /// looks at the outside world first. `None`, the default, runs the state again. It does not
    /// use up an attempt.
    fn on_interrupted(self) -> Option<Step<Self>> {
        None
    }
}

/// What a request to cancel does while a run is in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancel {
    /// The step is asked to stop, and [`State::on_cancel`] names what follows.
    #[default]
    Deliver,
    /// The request waits until the run has left the state: for states that undo what others did.
    Defer,
}

/// How a run has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ending {
    /// It did its work.
    #[default]
    Completed,
    /// It did not do its work, and cleaned up as far as it could.
    Failed,
    /// It was asked to stop, and did.
    Cancelled,
    /// It found that other work is needed instead; its result says which.
    Redirected,
    /// An operator gave it up, without asking its graph.
    Abandoned,
}

impl Ending {
    /// The ending as one lower-case word, as the journal writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ending::Completed => "completed",
            Ending::Failed => "failed",
            Ending::Cancelled => "cancelled",
            Ending::Redirected => "redirected",
            Ending::Abandoned => "abandoned",
        }
    }
}
