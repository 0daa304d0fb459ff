//! The kit: what is checked, with what, and how patiently.

use std::{fmt, time::Duration};

use super::{
    bench::Bench,
    fixture::Fixture,
    groups,
    report::{Group, Report},
    subject::Subject,
};

/// The conformance kit for one plugin; see the [module](super).
#[must_use = "the kit does nothing until it is run"]
pub struct Kit {
    pub(super) subject: Subject,
    pub(super) fixture: Option<Box<dyn Fixture>>,
    pub(super) groups: Vec<Group>,
    pub(super) plays_max: usize,
    pub(super) grace: Duration,
    pub(super) patience: Duration,
    pub(super) owns_process: bool,
}

impl Kit {
    /// A kit for `subject`. Without a [fixture](Kit::fixture) it checks what needs none: the
    /// library, its manifest, its graphs, and how it takes requests that make no sense.
    pub fn new(subject: Subject) -> Self {
        Kit {
            subject,
            fixture: None,
            groups: Group::ALL.to_vec(),
            plays_max: 64,
            grace: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            owns_process: false,
        }
    }

    /// The item that is backed up and restored.
    pub fn fixture(mut self, fixture: impl Fixture + 'static) -> Self {
        self.fixture = Some(Box::new(fixture));
        self
    }

    /// Checks these groups and no others, in their own order.
    pub fn only(mut self, groups: &[Group]) -> Self {
        self.groups = Group::ALL.into_iter().filter(|group| groups.contains(group)).collect();
        self
    }

    /// Plays a run at most so many times for each check, 64 by default. If there are more places
    /// where it can be disturbed, each kind of place is tried, and of the others an even sample.
    pub fn plays_at_most(mut self, plays: usize) -> Self {
        self.plays_max = plays.max(1);
        self
    }

    /// How long a step may go on after it was asked to stop or was given up, by the clock on the
    /// wall. 5 seconds by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long a step or a request may be silent, by the clock on the wall. 30 seconds by
    /// default.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Nobody else writes to this process's standard output, or starts threads in it, while the
    /// kit is at work: so that it can tell whether the plugin does. Standard output goes to a file
    /// meanwhile.
    pub fn owning_the_process(mut self) -> Self {
        self.owns_process = true;
        self
    }

    /// Runs the checks. Blocks until they are done.
    ///
    /// To hear what the plugin logs the kit installs a subscriber of `tracing` for the whole
    /// process, unless there is one.
    #[must_use]
    pub fn run(self) -> Report {
        groups::run(Bench::new(self))
    }
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").field("subject", &self.subject).finish_non_exhaustive()
    }
}
