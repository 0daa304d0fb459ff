//! What an engine is made with.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use archive::{Archive, Epoch};
use fsm_core::{
    Environment, Fault, RunEvent, RunId, Runtime, Timestamp, TokioEnvironment,
    sqlite::{SqliteJournal, Store},
};
use futures::future::BoxFuture;
use plugin_sdk::host::Watch;
use throttle::{ByteRate, Rate, Scope, SystemClock};
use tokio::{
    runtime::Handle,
    sync::{Notify, broadcast},
};

use super::{
    handle::{Engine, Inner, Parts},
    reception::Desk,
    recover,
    sleep::TokioSleep,
    state_dir::StateDir,
};
use crate::{
    Error, ErrorKind, KeySource, Plugin, SecretStore,
    admission::{Door, Lanes, Policies, Ticking, Time},
    catalog::Catalog,
    events::Event,
    ingress::{self, Callers, Ingress, Reception},
    plugins::{calls::Services, watchdog::Watchdog},
};

/// Events that a slow subscriber may be behind before it misses some.
const EVENTS: usize = 1_024;

/// What an [`Engine`] is made with: a state directory, an archive and its key, plugins, limits.
#[must_use = "nothing happens before `start`"]
pub struct EngineBuilder {
    state_dir: Option<PathBuf>,
    archive: Option<ArchiveFrom>,
    plugins: Vec<Plugin>,
    lanes: Lanes,
    bytes_per_second: Option<NonZeroU64>,
    secrets: Option<Arc<dyn SecretStore>>,
    ingress_dir: Option<PathBuf>,
    environment: Option<Shared>,
}

enum ArchiveFrom {
    Directory(PathBuf, KeySource),
    Opened(Archive),
}

impl EngineBuilder {
    pub(super) fn new() -> Self {
        EngineBuilder {
            state_dir: None,
            archive: None,
            plugins: Vec::new(),
            lanes: Lanes::default(),
            bytes_per_second: None,
            secrets: None,
            ingress_dir: None,
            environment: None,
        }
    }

    /// Where the engine remembers operations and runs. Made if need be; used by one engine at a
    /// time. If it is lost, every recovery point is still in the archive.
    pub fn state_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.state_dir = Some(path.as_ref().to_owned());
        self
    }

    /// The archive: a directory, made if need be, and where its key is kept.
    pub fn archive_dir(mut self, path: impl AsRef<Path>, key: KeySource) -> Self {
        self.archive = Some(ArchiveFrom::Directory(path.as_ref().to_owned(), key));
        self
    }

    /// An archive that the embedder has opened by itself.
    pub fn archive(mut self, archive: Archive) -> Self {
        self.archive = Some(ArchiveFrom::Opened(archive));
        self
    }

    /// Adds a plugin.
    pub fn plugin(mut self, plugin: Plugin) -> Self {
        self.plugins.push(plugin);
        self
    }

    /// Where the secrets of plugins are kept. Without it a plugin that asks for one is told that
    /// there is none.
    pub fn secrets(mut self, store: impl SecretStore) -> Self {
        self.secrets = Some(Arc::new(store));
        self
    }

    /// Where programs of the workloads call: the directory of the sockets, each of which is
    /// `WORKLOAD/ENDPOINT.sock` there. Made if need be, with no more access than the declared
    /// callers need; one that exists must not be writable by others. A socket that a dead process
    /// left is replaced. Without it no program can call.
    ///
    /// On Linux the path of a socket has at most 107 bytes.
    pub fn ingress_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.ingress_dir = Some(path.as_ref().to_owned());
        self
    }

    /// How many streams may be open at once on this node, those of [lanes](Self::lane) included. 4
    /// by default.
    ///
    /// An operation counts with the streams that its plan claims, from when it is admitted until
    /// it ends or waits for long.
    pub fn streams(mut self, streams: u32) -> Self {
        self.lanes.node = streams.max(1);
        self
    }

    /// Reserves some of the node's streams for work of one class (`log`), whichever workload
    /// declares it. Such work uses these alone, so it never waits for other work's streams, and
    /// other work never for its.
    ///
    /// A class is what a plugin's manifest calls a kind of work. The lanes together must be fewer
    /// than the node's streams.
    pub fn lane(mut self, class: impl Into<String>, streams: u32) -> Self {
        self.lanes.lanes.insert(class.into(), streams.max(1));
        self
    }

    /// How many streams the workload `workload` may have open at once. A plugin's own limits count
    /// where they are smaller.
    pub fn streams_of(mut self, workload: impl Into<String>, streams: u32) -> Self {
        self.lanes.workloads.insert(workload.into(), streams.max(1));
        self
    }

    /// How many streams each resource of `scope` may have open at once: each
    /// [item](Scope::Item), instance or workload. No limit by default; [`Scope::Node`] is what
    /// [`streams`](Self::streams) sets.
    pub fn streams_each(mut self, scope: Scope, streams: u32) -> Self {
        match scope {
            Scope::Node => self.streams(streams),
            _ => {
                self.lanes.each.insert(scope, streams.max(1));
                self
            }
        }
    }

    /// Time, timers and chance, for a test that drives them. The system's by default.
    ///
    /// Deadlines, retries and the patience with steps that do not stop go by it. What a byte rate
    /// waits for is always real time.
    pub fn environment(mut self, environment: impl Environment) -> Self {
        self.environment = Some(Shared(Arc::new(environment)));
        self
    }

    /// How fast bytes may move between plugins and the archive, all streams together. Unlimited
    /// by default.
    pub fn bytes_per_second(mut self, bytes: NonZeroU64) -> Self {
        self.bytes_per_second = Some(bytes);
        self
    }

    /// Starts the engine: locks the state directory, opens the archive, loads the plugins, and
    /// continues every operation that has not ended.
    ///
    /// # Errors
    ///
    /// An [`Error`] that names what cannot be used: by its kind the state directory
    /// ([`ErrorKind::InUse`], [`ErrorKind::State`]), the key ([`ErrorKind::Key`]), the archive,
    /// a plugin, the directory for calls ([`ErrorKind::Ingress`], [`ErrorKind::InUse`]), or a
    /// setting that is missing ([`ErrorKind::Request`]).
    ///
    /// # Panics
    ///
    /// If it is not called inside a tokio runtime; with [`ingress_dir`](Self::ingress_dir), if
    /// that runtime has no I/O.
    pub async fn start(self) -> Result<Engine, Error> {
        let state_dir = self.state_dir.ok_or_else(|| missing("state_dir"))?;
        let archive = self.archive.ok_or_else(|| missing("archive_dir"))?;
        let state_dir = StateDir::lock(&state_dir)?;
        let archive = match archive {
            ArchiveFrom::Opened(archive) => archive,
            ArchiveFrom::Directory(path, key) => {
                let key = key.read()?;
                Archive::open_or_create_dir(path, &key).await?
            }
        };
        let tokio = Handle::current();
        let limits = self.lanes.limits()?;
        let (environment, time) = match self.environment {
            Some(given) => (given.clone(), Time::given(given.0)),
            None => {
                let system = Shared(Arc::new(TokioEnvironment::new(tokio.clone())));
                (system.clone(), Time::system(system.0))
            }
        };
        let store = Store::open(&state_dir.store())?;
        let journal = SqliteJournal::new(store.clone())?;
        let catalog = Catalog::new(store)?;
        // A state directory takes its epoch from the time at which it was made: one that replaces
        // a lost one writes under a higher epoch, which fences the other off should it come back.
        let epoch = Epoch(catalog.epoch(environment.now().as_unix_ms()).await?);
        let rate = ByteRate::new(SystemClock::new(), TokioSleep);
        rate.set_rate(self.bytes_per_second.map(Rate::bytes_per_second));
        let services = Arc::new(Services {
            catalog,
            archive,
            epoch,
            rate,
            environment: Arc::clone(&environment.0),
            events: broadcast::Sender::new(EVENTS),
            tokio: tokio.clone(),
            vaults: Mutex::default(),
            runs: Mutex::default(),
            steps: Arc::default(),
            jobs: Mutex::default(),
            jobs_ended: Notify::new(),
            stuck: Mutex::default(),
            callers: Callers::default(),
        });
        // Opened once the unfinished operations have their exclusions back.
        let door = Door::new(limits, time);
        let policies = Policies::default();
        let observer = Arc::clone(&services);
        let runtime = Runtime::builder(journal, environment).observer(Observe(observer)).build();
        let watch = Watch::new(Arc::clone(&services.environment));
        let watchdog = Watchdog::begin(watch.clone(), &services)?;
        let mut workloads = BTreeMap::new();
        let mut called = Vec::new();
        for plugin in self.plugins {
            let opened = plugin.open(self.secrets.as_ref(), &watch)?;
            for workload in opened {
                let name = workload.name().to_owned();
                services.confide(&name, Arc::clone(workload.vault()));
                let engine = services.catalog.engine_version(name.clone()).await?;
                let declared = &workload.manifest().throttle;
                policies.register(&door.admission, &name, declared, engine)?;
                for machine in workload.machines(&services).await? {
                    runtime.register(machine, workload.origin())?;
                }
                if workload.manifest().ingress {
                    called.push((name.clone(), workload.endpoints().await?));
                }
                tracing::info!(workload = name, origin = workload.origin(), "workload is ready");
                if workloads.insert(name.clone(), workload).is_some() {
                    let message = format!("two plugins implement the workload `{name}`");
                    let fault = Fault::user("plugin.duplicate", message)
                        .advise("give the engine one of them");
                    return Err(Error::new(ErrorKind::Plugin, fault));
                }
            }
        }
        let bound = match self.ingress_dir {
            Some(directory) => Some(ingress::bind(&directory, called).await?),
            None => {
                for (workload, _) in called {
                    tracing::warn!(workload, "its programs cannot call: there is no `ingress_dir`");
                }
                None
            }
        };
        let ticking = Ticking::begin(door.clone(), &tokio);
        let lanes = self.lanes;
        let parts =
            Parts { services, runtime, door, lanes, policies, ticking, watchdog, workloads };
        let inner = Inner::new(state_dir, parts);
        let engine = Engine::new(inner);
        recover::unfinished(&engine.inner).await?;
        // Whoever calls now finds every operation that there is.
        if let Some(bound) = bound {
            let inner = &engine.inner;
            let (engine, services) = (Arc::downgrade(inner), Arc::clone(&inner.services));
            let desk: Arc<dyn Reception> = Arc::new(Desk { engine, services });
            let environment = &inner.services.environment;
            let listening = Ingress::begin(bound, &desk, environment, &inner.services.tokio);
            // Nobody else begins to.
            let _ = inner.ingress.set(listening);
        }
        Ok(engine)
    }
}

fn missing(setting: &str) -> Error {
    let message = format!("the engine's builder was given no `{setting}`");
    Error::request("engine.setting", message, "call the builder's method of that name")
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("state_dir", &self.state_dir)
            .field("plugins", &self.plugins)
            .finish_non_exhaustive()
    }
}

/// An environment that several parts use.
#[derive(Clone, Debug)]
struct Shared(Arc<dyn Environment>);

impl Environment for Shared {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        self.0.sleep_until(at)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn random(&self) -> u64 {
        self.0.random()
    }
}

/// Tells subscribers, in the words of operations, what happens to runs.
struct Observe(Arc<Services>);

impl fsm_core::Observer for Observe {
    fn observe(&self, run: &RunId, event: RunEvent) {
        let Some(scope) = self.0.root_scope(run) else { return };
        let operation = scope.operation.clone();
        self.0.tell(match event {
            RunEvent::Entered { state, .. } => Event::State { operation, state },
            RunEvent::Progressed(progress) => Event::Progress { operation, progress },
            RunEvent::AttemptFailed { attempt, fault } => {
                Event::AttemptFailed { operation, attempt, fault }
            }
            RunEvent::Paused(fault) => {
                self.0.is_stuck(&operation, fault.to_string());
                self.0.give_back(&scope.pass, "it waits for an operator");
                return;
            }
            RunEvent::Resumed | RunEvent::CancelRequested(_) => {
                self.0.goes_on(&operation);
                return;
            }
            // The operation's own end is told when it is durable, and its stand-still by its task.
            _ => return,
        });
    }
}
