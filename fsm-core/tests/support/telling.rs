//! What tests of signals and children ask of a process.

use fsm_core::{RunHandle, RuntimeError, RuntimeErrorKind, Signal};

use super::{
    desk::{Desk, Order},
    id,
    medium::Medium,
    parent::Parent,
    process::{Process, breathe},
    world::{Job, World},
};
use fsm_core::testing::ManualEnvironment;

impl Process {
    /// A process with every machine of the tests.
    pub(crate) fn full(medium: &Medium, world: &World) -> Self {
        Process::start(medium).with_all(world)
    }

    pub(crate) fn full_at(medium: &Medium, environment: ManualEnvironment, world: &World) -> Self {
        Process::start_at(medium, environment).with_all(world)
    }

    /// As `full_at`, which takes up every run of the processes before.
    pub(crate) fn again(medium: &Medium, environment: ManualEnvironment, world: &World) -> Self {
        let process = Process::full_at(medium, environment, world);
        process.block_on(process.runtime.recover()).unwrap();
        process
    }

    fn with_all(self, world: &World) -> Self {
        self.with(Job, world).with(Desk, world).with(Parent, world)
    }

    pub(crate) fn tell(
        &self,
        run: &str,
        signal: &str,
        what: &impl Signal,
    ) -> Result<RunHandle, RuntimeError> {
        self.block_on(self.runtime.tell(&id(run), signal, what))
    }

    pub(crate) fn order(&self, run: &str, number: u32) -> RunHandle {
        self.tell(run, &format!("order-{number}"), &Order(number)).unwrap()
    }

    /// Lets tasks run until `run` is in `state`, and a while longer.
    pub(crate) fn until_in(&self, run: &str, state: &str) {
        self.until(|| {
            let snapshot = self.block_on(self.runtime.inspect(&id(run))).unwrap();
            snapshot.is_some_and(|snapshot| snapshot.state == state)
        });
        self.rest();
    }

    /// Lets tasks run for a while.
    pub(crate) fn rest(&self) {
        for _ in 0..20 {
            self.block_on(breathe());
        }
    }

    /// The end of a run that comes without time passing, as `ending data`.
    pub(crate) fn ended(&self, run: &str) -> String {
        let end = self.end(&self.attach(run).unwrap());
        format!("{} {}", end.ending.as_str(), end.data.as_text().unwrap_or_default())
    }

    pub(crate) fn has_ended(&self, run: &str) -> bool {
        self.inspect(run).end().is_some()
    }
}

/// What kind of error an answer is.
pub(crate) fn kind<T>(answer: Result<T, RuntimeError>) -> Option<RuntimeErrorKind> {
    answer.err().map(|error| error.kind())
}
