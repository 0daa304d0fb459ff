//! What a plugin author implements.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use fsm_core::{Erased, Fault, Graph, Machine, validate};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Decision, Endpoint, Host, IncomingCall, Item, ItemId, Manifest, PointId, PointMeta,
    RestoreRequest, Route, RunPlan, Secrets, Until, Wanted, abi::Place, message::Terms,
    plan::base_links,
};

/// One kind of system that a plugin backs up and restores.
///
/// **The host guarantees** that [`open`](Workload::open) is called once per engine and
/// configuration, and that everything else is called on threads that belong to the plugin, several
/// at a time, so that blocking there blocks nobody else.
///
/// **The author guarantees** that [`manifest`](Workload::manifest) is constant, and that
/// [`decide`](Workload::decide) and [`restore`](Workload::restore) change nothing: what changes
/// the world is done by the machines, whose steps are durable.
#[async_trait]
pub trait Workload: Sized + Send + Sync + 'static {
    /// What the workload says of itself. Called before, and without, [`open`](Workload::open).
    fn manifest() -> Manifest;

    /// Makes the workload with its part of the plugin's configuration.
    ///
    /// # Errors
    ///
    /// A fault that names the setting that cannot be used.
    fn open(config: Config) -> Result<Self, Fault>;

    /// Lists the items that can be protected.
    ///
    /// # Errors
    ///
    /// A fault that says what could not be listed.
    async fn discover(&self) -> Result<Vec<Item>, Fault>;

    /// Decides what a wanted backup of `item` needs, quickly and without side effects. `points`
    /// are the item's newest points, oldest first.
    ///
    /// # Errors
    ///
    /// A fault that says why the item cannot be backed up.
    async fn decide(
        &self,
        item: &ItemId,
        wanted: &Wanted,
        points: &[PointMeta],
    ) -> Result<Decision, Fault>;

    /// Decides how a restore is done. Nothing of the target is touched here.
    ///
    /// # Errors
    ///
    /// A fault that says why it cannot be done: the target exists, say.
    async fn restore(&self, request: &RestoreRequest) -> Result<RunPlan, Fault>;

    /// The points to apply, in order, to restore `target`: a pure function. The default follows
    /// the points' base links.
    ///
    /// # Errors
    ///
    /// A fault of class [`Chain`](fsm_core::Class::Chain) that names the point that is missing.
    fn plan(&self, points: &[PointMeta], target: &PointId) -> Result<Vec<PointId>, Fault> {
        base_links(points, target)
    }

    /// As [`plan`](Workload::plan), for a restore that stops at `until`, inside what `target`
    /// covers: a pure function, asked of workloads whose manifest says that they can. The default
    /// takes the points that a restore to the end of `target` would.
    ///
    /// # Errors
    ///
    /// As [`plan`](Workload::plan); also if `until` lies before everything that could be restored.
    fn plan_until(
        &self,
        points: &[PointMeta],
        target: &PointId,
        until: &Until,
    ) -> Result<Vec<PointId>, Fault> {
        let _ = until;
        self.plan(points, target)
    }

    /// Where programs of the workload call. Asked once, after [`open`](Workload::open), and only
    /// if the manifest says [`ingress`](Manifest::ingress).
    ///
    /// # Errors
    ///
    /// A fault that names the setting that cannot be used.
    fn endpoints(&self) -> Result<Vec<Endpoint>, Fault> {
        Ok(Vec::new())
    }

    /// Where a call belongs: a pure and quick function of who called and what was said first. It
    /// touches nothing, and the caller waits: after five seconds the host hangs up. Eight calls at
    /// most are asked about at once. The default refuses every call.
    fn route(&self, call: &IncomingCall) -> Route {
        let _ = call;
        Route::refuse("ingress.not_served", [])
    }

    /// Where the workload's code runs: asked once, after [`open`](Workload::open). By default each
    /// request has a thread of the plugin's own, and may block it. A workload whose code needs
    /// tokio keeps a [`TokioExecutor`](crate::TokioExecutor) (feature `tokio`) and answers
    /// [`Place::On`].
    fn place(&self) -> Place {
        Place::Own
    }

    /// The machines that runs of this workload execute.
    fn machines(self: &Arc<Self>) -> Machines;
}

/// A workload's part of the plugin's configuration, and what the host allows the plugin.
#[derive(Clone, Debug, Default)]
pub struct Config {
    value: Value,
    terms: Terms,
    secrets: Secrets,
}

impl Config {
    /// Wraps the configuration's JSON.
    pub fn new(value: Value) -> Self {
        Config { value, terms: Terms::default(), secrets: Secrets::default() }
    }

    /// The same, with what the host allows.
    #[must_use]
    pub fn terms(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self
    }

    /// How many threads the plugin should start for work that does not block: what the host has
    /// said, else two. Several plugins share the node with each other and with what they back up.
    pub fn workers(&self) -> NonZeroUsize {
        const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
        self.terms.workers.unwrap_or(TWO)
    }

    /// The same with these secrets: what the host does, and an author's test.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// The workload's way to its secrets, to be kept.
    pub fn secrets(&self) -> Secrets {
        self.secrets.clone()
    }

    /// Reads it as `T`. A configuration that was left out reads as an empty object.
    ///
    /// # Errors
    ///
    /// A [`User`](fsm_core::Class::User) fault that names what does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let value = match &self.value {
            Value::Null => Value::Object(serde_json::Map::new()),
            value => value.clone(),
        };
        serde_json::from_value(value).map_err(|error| {
            Fault::user("config.invalid", format!("the configuration does not fit: {error}"))
                .advise("compare it with the schema in the plugin's manifest")
        })
    }
}

/// The machines of a workload, by name.
#[derive(Default)]
pub struct Machines {
    machines: Vec<Box<dyn Erased<Host>>>,
}

impl Machines {
    /// No machines yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `machine`. Its graph is validated by the compiler at the latest here.
    #[must_use]
    pub fn with<M: Machine<Host = Host>>(mut self, machine: M) -> Self {
        const { validate::<M>() };
        self.machines.push(Box::new(machine));
        self
    }

    /// The machine `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&dyn Erased<Host>> {
        self.machines.iter().find(|machine| machine.graph().machine == name).map(|found| &**found)
    }

    /// All graphs.
    pub fn graphs(&self) -> Vec<Graph> {
        self.machines.iter().map(|machine| machine.graph()).collect()
    }
}

impl std::fmt::Debug for Machines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.machines.iter().map(|machine| machine.graph().machine);
        f.debug_list().entries(names).finish()
    }
}
