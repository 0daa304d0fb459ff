//! Where plays take place: the plugin, the fixture, and what both do undisturbed.

use std::{
    cell::{RefCell, RefMut},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fsm_core::{Ending, Fault, Graph};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    archive::{MemoryArchive, StoredPoint},
    desk::Crossing,
    fixture::Fixture,
    kit::Kit,
    patience::within,
    play::{Disturbance, Meanwhile, Play, Played, Script, faults},
    report::{Check, Grade, Group, Report, Verdict},
    streams::Shape,
    subject::{Mode, Subject},
    watch_log::LogWatch,
};
use crate::{
    Decision, ItemId, Manifest, Operation, OperationId, Overwrite, PluginManifest, PointId,
    PointKind, RestoreRequest, RunPlan, Wanted,
    abi::TaskFault,
    host::{InitError, Library, NoCalls, PluginInstance},
    message::{self, Request},
};

/// What a check has found out.
pub(super) enum Finding {
    Holds(String),
    Broken(String),
    NotTried(String),
}

impl From<Result<String, String>> for Finding {
    fn from(found: Result<String, String>) -> Self {
        match found {
            Ok(tried) => Finding::Holds(tried),
            Err(why) => Finding::Broken(why),
        }
    }
}

/// What a run does when nothing disturbs it.
#[derive(Clone, Debug)]
pub(super) struct Rehearsal {
    pub(super) crossings: Vec<Crossing>,
    pub(super) writes: usize,
    pub(super) state: String,
}

impl From<&Played> for Rehearsal {
    fn from(played: &Played) -> Self {
        Rehearsal {
            crossings: played.crossings.clone(),
            writes: played.writes,
            state: played.end.as_ref().map_or_else(|_| String::new(), |end| end.state.clone()),
        }
    }
}

/// What the plugin and the fixture do when nothing disturbs them.
pub(super) struct Baseline {
    /// The digest of the item as it was seeded.
    pub(super) seeded: String,
    /// With one full point of it.
    pub(super) archive: MemoryArchive,
    pub(super) point: StoredPoint,
    pub(super) backup: Rehearsal,
    /// `None` if restores are not offered.
    pub(super) restore: Option<Rehearsal>,
}

/// A run to be played.
pub(super) struct Task<'t> {
    pub(super) operation: &'t str,
    pub(super) disturbance: Disturbance,
    pub(super) shape: Shape,
    pub(super) meanwhile: Option<Meanwhile<'t>>,
    /// The instance that does it; a new one for each process by default.
    pub(super) plugin: Option<PluginInstance>,
}

impl<'t> Task<'t> {
    pub(super) fn new(operation: &'t str, disturbance: Disturbance) -> Self {
        Task { operation, disturbance, shape: Shape::default(), meanwhile: None, plugin: None }
    }

    /// Undisturbed, by an instance that is at work on something else.
    pub(super) fn beside(operation: &'t str, plugin: &PluginInstance) -> Self {
        Task { plugin: Some(plugin.clone()), ..Task::new(operation, Disturbance::Nothing) }
    }
}

/// A plugin that could be loaded.
pub(super) struct Plugin {
    pub(super) library: Library,
    pub(super) manifest: PluginManifest,
    /// Of the workload that is checked, or the first one.
    pub(super) workload: Manifest,
    pub(super) graphs: Vec<Graph>,
}

pub(super) struct Bench {
    pub(super) subject: Subject,
    pub(super) groups: Vec<Group>,
    pub(super) plays_max: usize,
    pub(super) grace: Duration,
    pub(super) patience: Duration,
    pub(super) owns_process: bool,
    pub(super) log: LogWatch,
    pub(super) plugin: Option<Plugin>,
    fixture: Option<RefCell<Box<dyn Fixture>>>,
    baseline: RefCell<Option<Result<Rc<Baseline>, String>>>,
    checks: Vec<Check>,
    group: Group,
    /// What each process of an isolated plugin begins with, and the configuration that it has.
    started: RefCell<Option<(Bytes, PluginInstance)>>,
    /// What the plugin must never do, and did.
    panics: RefCell<Vec<String>>,
    /// Everything that a host would write down: faults, records, notes.
    written: RefCell<Vec<String>>,
}

impl Bench {
    pub(super) fn new(kit: Kit) -> Self {
        let Kit { subject, fixture, groups, plays_max, grace, patience, owns_process } = kit;
        let secrets = fixture.as_ref().map(|fixture| fixture.secrets()).unwrap_or_default();
        Bench {
            subject,
            groups,
            plays_max,
            grace,
            patience,
            owns_process,
            log: LogWatch::begin(secrets),
            plugin: None,
            fixture: fixture.map(RefCell::new),
            baseline: RefCell::default(),
            checks: Vec::new(),
            group: Group::Load,
            started: RefCell::default(),
            panics: RefCell::default(),
            written: RefCell::default(),
        }
    }

    pub(super) fn report(self) -> Report {
        Report {
            subject: self.subject.to_string(),
            mode: self.subject.mode().to_string(),
            checks: self.checks,
        }
    }

    pub(super) fn enter(&mut self, group: Group) {
        self.group = group;
    }

    pub(super) fn must(&mut self, name: &str, finding: impl Into<Finding>) {
        self.note(name, Grade::Must, finding.into());
    }

    pub(super) fn should(&mut self, name: &str, finding: impl Into<Finding>) {
        self.note(name, Grade::Should, finding.into());
    }

    fn note(&mut self, name: &str, grade: Grade, finding: Finding) {
        let (verdict, detail) = match finding {
            Finding::Holds(detail) => (Verdict::Passed, detail),
            Finding::Broken(detail) => (Verdict::Failed, detail),
            Finding::NotTried(detail) => (Verdict::Skipped, detail),
        };
        let (group, name) = (self.group, name.to_owned());
        self.checks.push(Check { group, name, grade, verdict, detail });
    }

    pub(super) fn fixture(&self) -> Option<RefMut<'_, Box<dyn Fixture>>> {
        self.fixture.as_ref().map(RefCell::borrow_mut)
    }

    /// The fixture, or why there is none.
    pub(super) fn stage(&self) -> Result<RefMut<'_, Box<dyn Fixture>>, String> {
        self.fixture().ok_or_else(|| "there is no fixture".to_owned())
    }

    pub(super) fn plugin(&self) -> Result<&Plugin, String> {
        self.plugin.as_ref().ok_or_else(|| "there is no plugin".to_owned())
    }

    /// Lets the process go that an isolated plugin has without a request.
    pub(super) fn rest(&self) {
        self.started.borrow_mut().take();
    }

    pub(super) fn panics(&self) -> Vec<String> {
        self.panics.borrow().clone()
    }

    pub(super) fn write_down(&self, text: impl Into<String>) {
        self.written.borrow_mut().push(text.into());
    }

    /// Which of `texts` is found in what was written down.
    pub(super) fn written_down(&self, texts: &[String]) -> Option<String> {
        let written = self.written.borrow();
        let found = |text: &&String| written.iter().any(|line| line.contains(text.as_str()));
        texts.iter().find(found).cloned()
    }

    pub(super) fn offers(&self, operation: Operation) -> bool {
        self.plugin.as_ref().is_some_and(|plugin| {
            let operations = &plugin.workload.operations;
            operations.is_empty() || operations.contains(&operation)
        })
    }

    /// A new instance of the plugin, with the fixture's configuration.
    pub(super) fn instance(&self) -> Result<PluginInstance, String> {
        let plugin = self.plugin()?;
        let mut config = BTreeMap::new();
        if let Some(fixture) = self.fixture() {
            let value = fixture.config();
            if value != Value::Null {
                config.insert(plugin.workload.workload.clone(), value);
            }
        }
        let config = message::encode(&config).map_err(|fault| fault.to_string())?;
        if self.subject.mode() != Mode::Isolated {
            return self.init(&plugin.library, config);
        }
        let mut started = self.started.borrow_mut();
        let instance = match started.take() {
            Some((known, instance)) if known == config => instance,
            _ => self.init(&plugin.library, config.clone())?,
        };
        // Its process begins with its first request.
        let apart = instance.apart();
        *started = Some((config, instance));
        Ok(apart)
    }

    fn init(&self, library: &Library, config: Bytes) -> Result<PluginInstance, String> {
        library.init(config).map_err(|error| match &error {
            InitError::Refused(document) => {
                let fault = message::decode_fault(document);
                self.write_down(format!("{fault:?}"));
                format!("it refuses its configuration: {fault}")
            }
            InitError::Panicked(_) | InitError::Crashed(_) => {
                self.panics.borrow_mut().push(error.to_string());
                error.to_string()
            }
        })
    }

    /// Asks `plugin` for something that is not a step.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        plugin: &PluginInstance,
        request: &Request,
    ) -> Result<T, Fault> {
        let task = plugin.start(message::encode(request)?, Arc::new(NoCalls));
        let silent =
            || Fault::permanent("conformance.silent", format!("silent for {:?}", self.patience));
        let answer = within(self.patience, task).ok_or_else(silent)?;
        let reply = answer.map_err(|fault| {
            if let TaskFault::Panicked(_) | TaskFault::Crashed(_) = &fault {
                self.panics.borrow_mut().push(fault.to_string());
            }
            Fault::from(fault)
        })?;
        match reply.result {
            Ok(reply) => {
                self.write_down(String::from_utf8_lossy(&reply));
                message::decode(&reply)
            }
            Err(document) => {
                let fault = message::decode_fault(&document);
                self.write_down(format!("{fault:?}"));
                Err(fault)
            }
        }
    }

    pub(super) fn item(&self) -> Result<ItemId, String> {
        Ok(self.stage()?.item())
    }

    pub(super) fn seed(&self) -> Result<(), String> {
        self.stage()?.seed().map_err(|error| format!("the fixture cannot seed: {error}"))
    }

    pub(super) fn settle(&self) -> Result<(), String> {
        self.stage()?.settle().map_err(|error| format!("the fixture cannot settle: {error}"))
    }

    pub(super) fn mutate(&self) -> Result<(), String> {
        self.stage()?.mutate().map_err(|error| format!("the fixture cannot mutate: {error}"))
    }

    pub(super) fn wipe(&self) -> Result<(), String> {
        self.stage()?.wipe().map_err(|error| format!("the fixture cannot wipe: {error}"))
    }

    pub(super) fn digest(&self) -> Result<Option<String>, String> {
        self.stage()?.digest().map_err(|error| format!("the item cannot be read: {error}"))
    }

    /// What the plugin decides about a backup.
    pub(super) fn decide(
        &self,
        item: &ItemId,
        kind: PointKind,
        archive: &MemoryArchive,
        operation: &str,
    ) -> Result<Decision, String> {
        let wanted = Wanted::new(OperationId::from(operation), kind);
        let request = Request::Decide { item: item.clone(), wanted, points: archive.metas() };
        let decided = self.ask(&self.instance()?, &request);
        decided.map_err(|fault| format!("it does not decide: {fault}"))
    }

    /// Plays a backup of the fixture's item.
    pub(super) fn back_up(
        &self,
        kind: PointKind,
        archive: &MemoryArchive,
        task: Task<'_>,
    ) -> Result<Played, String> {
        let item = self.item()?;
        self.back_up_item(item, kind, archive, task)
    }

    pub(super) fn back_up_item(
        &self,
        item: ItemId,
        kind: PointKind,
        archive: &MemoryArchive,
        task: Task<'_>,
    ) -> Result<Played, String> {
        match self.decide(&item, kind, archive, task.operation)? {
            Decision::Run(plan) => self.play(item, plan, archive, &[], task),
            Decision::Skip { reason, .. } => {
                Err(format!("it skips a {kind} backup although it is needed: {reason}"))
            }
        }
    }

    /// Plays a restore of `point` of the fixture's item.
    pub(super) fn restore(
        &self,
        point: &PointId,
        target: Option<String>,
        overwrite: Overwrite,
        archive: &MemoryArchive,
        task: Task<'_>,
    ) -> Result<Played, String> {
        let item = self.item()?;
        let (points, plugin) = (archive.metas(), self.instance()?);
        let plan = Request::Plan {
            item: item.clone(),
            points: points.clone(),
            target: point.clone(),
            until: None,
        };
        let ids: Vec<PointId> =
            self.ask(&plugin, &plan).map_err(|fault| format!("it does not plan: {fault}"))?;
        let chain = ids.iter().map(|id| {
            let known = points.iter().find(|point| point.id == *id).cloned();
            known.ok_or_else(|| format!("it plans with the unknown point {id}"))
        });
        let chain: Vec<_> = chain.collect::<Result<_, _>>()?;
        let operation = OperationId::from(task.operation);
        let mut restore = RestoreRequest::new(operation, item.clone(), chain);
        (restore.target, restore.overwrite) = (target, overwrite);
        let plan: RunPlan = self
            .ask(&plugin, &Request::Restore { restore })
            .map_err(|fault| format!("it refuses to restore: {fault}"))?;
        self.play(item, plan, archive, &ids, task)
    }

    fn play(
        &self,
        item: ItemId,
        plan: RunPlan,
        archive: &MemoryArchive,
        chain: &[PointId],
        task: Task<'_>,
    ) -> Result<Played, String> {
        let instance = || task.plugin.clone().map_or_else(|| self.instance(), Ok);
        let script = Script {
            graphs: &self.plugin()?.graphs,
            instance: &instance,
            item,
            operation: OperationId::from(task.operation),
            plan,
            chain: chain.iter().cloned().collect(),
            shape: task.shape,
            disturbance: task.disturbance,
            grace: self.grace,
            patience: self.patience,
            meanwhile: task.meanwhile,
        };
        let played = Play::play(script, archive)?;
        self.panics.borrow_mut().extend(played.panics.iter().cloned());
        for record in &played.records {
            self.write_down(format!("{record:?}"));
        }
        for fault in faults(&played.records) {
            self.write_down(format!("{fault:?}"));
        }
        Ok(played)
    }

    /// What the plugin does undisturbed; found out once.
    pub(super) fn baseline(&self) -> Result<Rc<Baseline>, String> {
        if self.baseline.borrow().is_none() {
            let found = self.rehearse().map(Rc::new);
            *self.baseline.borrow_mut() = Some(found);
        }
        let found = self.baseline.borrow();
        found.clone().unwrap_or_else(|| Err("it was not rehearsed".to_owned()))
    }

    fn rehearse(&self) -> Result<Baseline, String> {
        self.seed()?;
        let seeded = self.digest()?.ok_or("the fixture has no item after it was seeded")?;
        let archive = MemoryArchive::new();
        let task = Task::new("full", Disturbance::Nothing);
        let played = self.back_up(PointKind::Full, &archive, task)?;
        completed(&played)?;
        let point = archive.points().pop().ok_or("the backup completed without a point")?;
        self.write_down(format!("{:?}", point.meta));
        let backup = Rehearsal::from(&played);
        let restore = if self.offers(Operation::Restore) {
            self.wipe()?;
            let branch = archive.branch();
            let task = Task::new("back", Disturbance::Nothing);
            let id = &point.meta.id;
            let played = self.restore(id, None, Overwrite::Refuse, &branch, task)?;
            completed(&played)?;
            if self.digest()?.as_ref() != Some(&seeded) {
                return Err("what is restored is not what was backed up".to_owned());
            }
            Some(Rehearsal::from(&played))
        } else {
            None
        };
        Ok(Baseline { seeded, archive, point, backup, restore })
    }
}

/// Whether a run came to its end and did its work.
pub(super) fn completed(played: &Played) -> Result<(), String> {
    let end = played.end.as_ref().map_err(Clone::clone)?;
    if end.ending == Ending::Completed {
        return Ok(());
    }
    let why = played.fault().map_or_else(String::new, |fault| format!(": {fault}"));
    Err(format!("the run ended {} in `{}`{why}", end.ending.as_str(), end.state))
}
