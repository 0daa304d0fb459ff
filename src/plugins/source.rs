//! Where a plugin comes from.

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, path::PathBuf, sync::Arc};

use plugin_sdk::{
    Bundle, PluginManifest, Workload, Workloads,
    host::{Image, Library, Process, Trust, Watch},
    message::{self, Terms},
};
use serde_json::Value;

use super::workload::Hosted;
use crate::{Error, ErrorKind, SecretStore};

/// A plugin to start an engine with, and its configuration.
///
/// ```no_run
/// use mercury::{Plugin, Trust};
/// use serde_json::json;
///
/// let trust = Trust::root_owned().pinned("/etc/mercury/plugins.lock");
/// let plugin = Plugin::library("/opt/mercury/libplugin_sqlite.so", trust)
///     .config("sqlite", json!({ "directories": ["/srv/databases"] }));
/// ```
#[must_use = "a plugin does nothing until an engine is started with it"]
pub struct Plugin {
    from: From,
    config: BTreeMap<String, Value>,
}

enum From {
    Library { path: PathBuf, trust: Trust, isolation: Box<Isolation> },
    Linked(fn() -> Library),
}

/// Where a plugin's code runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Isolation {
    /// In processes of its own: one for each run, and one for questions that belong to no run.
    /// Whatever the plugin does to its process, the agent goes on, and the run in another process.
    Process(Process),
    /// In the agent's process. What its code does to the process, it does to the agent.
    InProcess,
}

impl Plugin {
    /// A dynamic library, used if `trust` allows it. The path is absolute, and free of links.
    ///
    /// Its code runs in processes of its own, unless [`isolation`](Self::isolation) says
    /// otherwise. That takes a program to be those processes: this one, if its `main` begins with
    /// [`runner::serve_if_asked`](crate::runner::serve_if_asked), or `plugin-runner` beside it.
    ///
    /// [`Trust::root_owned`] is the policy to begin with, pinned or signed as the host prefers.
    /// [`Trust::development`] is for a plugin that was built where it lies.
    pub fn library(path: impl Into<PathBuf>, trust: Trust) -> Self {
        let isolation = Box::new(Isolation::Process(Process::new()));
        let from = From::Library { path: path.into(), trust, isolation };
        Plugin { from, config: BTreeMap::new() }
    }

    /// Where its code runs. One that is linked in has no other place than this process.
    pub fn isolation(mut self, wanted: Isolation) -> Self {
        if let From::Library { isolation, .. } = &mut self.from {
            **isolation = wanted;
        }
        self
    }

    /// Loads it into this process: [`Isolation::InProcess`]. For a plugin that is trusted as this
    /// program is.
    pub fn in_process(self) -> Self {
        self.isolation(Isolation::InProcess)
    }

    /// One workload that is linked into this program.
    pub fn linked<W: Workload>() -> Self {
        Plugin::linked_bundle::<(W,)>()
    }

    /// Several workloads that are linked into this program.
    pub fn linked_bundle<W: Workloads>() -> Self {
        Plugin { from: From::Linked(Library::linked::<Bundle<W>>), config: BTreeMap::new() }
    }

    /// Configures one of its workloads.
    pub fn config(mut self, workload: impl Into<String>, config: Value) -> Self {
        self.config.insert(workload.into(), config);
        self
    }

    /// Loads and opens it. Its workloads get their secrets from `store`; what is called of its code
    /// is listed in `watch`.
    pub(crate) fn open(
        self,
        store: Option<&Arc<dyn SecretStore>>,
        watch: &Watch,
    ) -> Result<Vec<Hosted>, Error> {
        let library = match &self.from {
            From::Library { path, trust, isolation } => {
                let image = Image::open(path, trust)?;
                match &**isolation {
                    Isolation::Process(process) => Library::isolated(image, process.clone())?,
                    Isolation::InProcess => Library::map(image)?,
                }
            }
            From::Linked(link) => link(),
        };
        let document = library.manifest()?;
        let manifest: PluginManifest = serde_json::from_slice(&document).map_err(|error| {
            let message = format!("the manifest of {} cannot be read", library.path().display());
            let fault = fsm_core::Fault::bug("plugin.manifest", message);
            Error::new(ErrorKind::Plugin, fault).caused_by(error)
        })?;
        if manifest.schema > message::SCHEMA {
            let (path, theirs) = (library.path().display(), manifest.schema);
            let message = format!(
                "{path} speaks message schema {theirs}, this agent {} at most",
                message::SCHEMA
            );
            let fault = fsm_core::Fault::user("plugin.other_abi", message);
            return Err(Error::new(ErrorKind::Plugin, fault.advise("upgrade this agent")));
        }
        let instance = library.init(message::encode_config(&self.config, terms())?)?;
        let name = manifest.workloads.first().map_or("", |workload| &workload.plugin);
        let instance = instance.watched(watch.clone(), name);
        let workloads = manifest.workloads.into_iter();
        Ok(workloads
            .map(|manifest| Hosted::new(manifest, instance.clone(), store.cloned()))
            .collect())
    }
}

/// What every plugin is told: as many threads as the node has processors, and no more than four.
/// What does not block needs few, and each plugin starts its own.
fn terms() -> Terms {
    const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
    let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Terms::new().workers(processors.min(MOST))
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            From::Library { path, .. } => write!(f, "Plugin({})", path.display()),
            From::Linked(_) => f.write_str("Plugin(linked)"),
        }
    }
}
