//! A plugin's library: loaded from a file, or linked into this program.

use std::any::type_name;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::{InitError, LoadError, LoadErrorKind};
use super::image::{self, Image};
use super::instance::PluginInstance;
use super::local::Local;
use super::log::HostLog;
#[cfg(target_os = "linux")]
use super::process::{Process, Template};
use super::trust::Trust;
use super::{
    elf::{self, PluginSymbol},
    open,
};
use crate::abi::{
    self, AbiBytes, AbiCHost, AbiCPlugin, AbiInstance, AbiOutcome, Entry, HostTable_Ref,
    PluginRoot_Ref, Start,
};

/// A plugin's library. Clones are the same library.
///
/// Its code is in this process ([`load`](Self::load), [`linked`](Self::linked)), where it is never
/// unloaded, or in processes of its own ([`isolated`](Self::isolated)).
#[derive(Clone)]
pub struct Library(Arc<Inner>);

struct Inner {
    path: PathBuf,
    code: Code,
}

/// Where the library's code is.
enum Code {
    Here {
        root: Root,
        log: &'static HostLog,
    },
    #[cfg(target_os = "linux")]
    Apart(Arc<Template>),
}

/// A plugin's functions, however it exports them.
struct Root {
    manifest: extern "C" fn() -> AbiOutcome<AbiBytes>,
    init: Init,
    start: Start,
}

/// The one function that differs: a host shows each kind of plugin a table that it can read.
enum Init {
    Described(extern "C" fn(HostTable_Ref, AbiBytes) -> AbiOutcome<AbiInstance>),
    Plain(unsafe extern "C" fn(*const AbiCHost, AbiBytes) -> AbiOutcome<AbiInstance>),
}

impl From<PluginRoot_Ref> for Root {
    fn from(root: PluginRoot_Ref) -> Self {
        Self { manifest: root.manifest(), init: Init::Described(root.init()), start: root.start() }
    }
}

impl From<AbiCPlugin> for Root {
    fn from(root: AbiCPlugin) -> Self {
        Self { manifest: root.manifest, init: Init::Plain(root.init), start: root.start }
    }
}

impl Library {
    /// Loads the library at `path` into this process: [`Image::open`], then [`map`](Self::map).
    ///
    /// # Errors
    ///
    /// A [`LoadError`]; see [`LoadErrorKind::code_may_have_run`].
    pub fn load(path: &Path, trust: &Trust) -> Result<Self, LoadError> {
        Self::map(Image::open(path, trust)?)
    }

    /// Loads what was checked into this process.
    ///
    /// In this order: the bytes are examined as data, and only then are they mapped, header and
    /// layout compared, and the manifest compared with what was said of it before. System
    /// directories are never searched for the library itself. Blocks on file access.
    ///
    /// The same bytes from the same path are one library, however often they are loaded. Bytes of
    /// another path, and other bytes of the same path, are another one.
    ///
    /// # Errors
    ///
    /// A [`LoadError`]; see [`LoadErrorKind::code_may_have_run`].
    pub fn map(image: Image) -> Result<Self, LoadError> {
        let expected = image.expected().clone();
        let (path, root) = map(image)?;
        let code = Code::Here { root, log: HostLog::of(path) };
        let library = Self(Arc::new(Inner { path: path.to_owned(), code }));
        expected.check(path, || library.manifest())?;
        Ok(library)
    }

    /// What was checked, to be loaded in children of this process and never in this one.
    ///
    /// Each child gets the checked bytes, and does the rest of what [`map`](Self::map) does.
    /// Blocks on file access, and on a first child if something was said of the manifest before.
    ///
    /// # Errors
    ///
    /// A [`LoadError`]; no code of the library has run in this process. Of kind
    /// [`LoadErrorKind::Runner`] if there is no program that could be the child.
    #[cfg(target_os = "linux")]
    pub fn isolated(image: Image, process: Process) -> Result<Self, LoadError> {
        elf::plugin_symbol(image.path(), image.reader()?)?;
        let (path, expected) = (image.path().to_owned(), image.expected().clone());
        let template = Arc::new(Template::new(image, process)?);
        expected.check(&path, || template.manifest())?;
        Ok(Self(Arc::new(Inner { path, code: Code::Apart(template) })))
    }

    /// In a child: loads what the parent has checked. Its records go to `log`.
    #[cfg(all(feature = "runner", target_os = "linux"))]
    pub(crate) fn mapped(image: Image, log: impl super::log::Elsewhere) -> Result<Self, LoadError> {
        let (path, root) = map(image)?;
        let code = Code::Here { root, log: HostLog::elsewhere(path, log) };
        Ok(Self(Arc::new(Inner { path: path.to_owned(), code })))
    }

    /// The plugin `E`, which is linked into this program.
    #[must_use]
    pub fn linked<E: Entry>() -> Self {
        let path = PathBuf::from(type_name::<E>());
        let code = Code::Here { root: abi::root::<E>().into(), log: HostLog::of(&path) };
        Self(Arc::new(Inner { path, code }))
    }

    /// The library's canonical path, or the name of the linked plugin's type.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Asks the plugin for its manifest, a document. Blocks until it is there: an isolated plugin
    /// is started for that.
    ///
    /// # Errors
    ///
    /// [`LoadErrorKind::Manifest`] if the plugin panics; if it is isolated, also what
    /// [`load`](Self::load) gives, and [`LoadErrorKind::Crashed`] if its process ended.
    pub fn manifest(&self) -> Result<Bytes, LoadError> {
        let root = match &self.0.code {
            Code::Here { root, .. } => root,
            #[cfg(target_os = "linux")]
            Code::Apart(template) => return template.manifest(),
        };
        match (root.manifest)() {
            AbiOutcome::Ok(manifest) => Ok(manifest.into_bytes()),
            AbiOutcome::Error(text) | AbiOutcome::Panicked(text) => {
                let what = format!("gave no manifest, it said: {}", one_line(&text.to_text()));
                Err(LoadError::new(LoadErrorKind::Manifest, self.path(), what))
            }
        }
    }

    /// Makes an instance of the plugin; each is independent of the others. Blocks until it is
    /// made.
    ///
    /// # Errors
    ///
    /// [`InitError::Refused`] with the plugin's error document, or [`InitError::Panicked`]; of an
    /// isolated plugin also [`InitError::Crashed`].
    pub fn init(&self, config: impl Into<Bytes>) -> Result<PluginInstance, InitError> {
        let (made, redactor) = match &self.0.code {
            Code::Here { root, log } => {
                let redactor = Arc::clone(log.redactor());
                let made = init_here(root, log, config.into());
                (made.map(|made| PluginInstance::new(made, redactor)), log.redactor())
            }
            #[cfg(target_os = "linux")]
            Code::Apart(template) => {
                let redactor = Arc::clone(template.redactor());
                let made = template.init(config.into());
                (made.map(|made| PluginInstance::new(made, redactor)), template.redactor())
            }
        };
        made.map_err(|error| match error {
            InitError::Refused(document) => InitError::Refused(redactor.fault(document)),
            InitError::Panicked(text) => InitError::Panicked(redactor.clean(&text).into_owned()),
            crashed @ InitError::Crashed(_) => crashed,
        })
    }

    /// In a child: an instance whose requests keep the parent's numbers.
    #[cfg(all(feature = "runner", target_os = "linux"))]
    pub(crate) fn init_mapped(&self, config: Bytes) -> Result<Local, InitError> {
        match &self.0.code {
            Code::Here { root, log } => init_here(root, log, config),
            Code::Apart(_) => unreachable!("a child maps its library"),
        }
    }
}

fn init_here(root: &Root, log: &'static HostLog, config: Bytes) -> Result<Local, InitError> {
    let made = match root.init {
        Init::Described(init) => init(log.table(), config.into()),
        // SAFETY: the table lives for ever.
        Init::Plain(init) => unsafe { init(log.c_table(), config.into()) },
    };
    match made {
        AbiOutcome::Ok(instance) => Ok(Local::new(root.start, instance)),
        AbiOutcome::Error(error) => Err(InitError::Refused(error.into_bytes())),
        AbiOutcome::Panicked(text) => Err(InitError::Panicked(text.to_text())),
    }
}

/// Maps the library's bytes, and proves that its tables have our shape.
fn map(image: Image) -> Result<(&'static Path, Root), LoadError> {
    let symbol = elf::plugin_symbol(image.path(), image.reader()?)?;
    let image = image::keep(image)?;
    let path = image.path();
    let file = image.load_path();
    let root = match &symbol {
        PluginSymbol::Described(name) => {
            open::root::<PluginRoot_Ref>(path, open::header(path, &file, name)?)?.into()
        }
        PluginSymbol::Plain(name) => open::plain(path, &file, name)?.into(),
    };
    tracing::info!(path = %path.display(), symbol = symbol.as_str(), "loaded a plugin");
    Ok((path, root))
}

/// The first line of a text, and not much of it.
fn one_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    &line[..line.floor_char_boundary(200)]
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("path", &self.0.path).finish_non_exhaustive()
    }
}
