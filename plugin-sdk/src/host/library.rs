//! A plugin's library: loaded from a file, or linked into this program.

use std::any::type_name;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::{InitError, LoadError, LoadErrorKind};
use super::instance::PluginInstance;
use super::local::Local;
use super::log::HostLog;
#[cfg(target_os = "linux")]
use super::process::{Process, Template};
use super::trust::Trust;
use super::{elf, open};
use crate::abi::{self, AbiOutcome, Entry, PluginRoot_Ref};

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
        root: PluginRoot_Ref,
        log: &'static HostLog,
    },
    #[cfg(target_os = "linux")]
    Apart(Arc<Template>),
}

impl Library {
    /// Loads the library at `path` into this process.
    ///
    /// A relative path is relative to the working directory; system directories are never
    /// searched. In this order: the path is made canonical, the policy is asked, the file is
    /// examined as data, and only then is it mapped and its header and layout compared. Blocks on
    /// file access.
    ///
    /// # Errors
    ///
    /// A [`LoadError`]; of the kinds up to [`LoadErrorKind::Untrusted`] none of the file's code
    /// has run.
    pub fn load(path: &Path, trust: &Trust) -> Result<Self, LoadError> {
        let (path, symbol) = examine(path, trust)?;
        let root = map(&path, &path, &symbol)?;
        let log = HostLog::of(&path);
        Ok(Self(Arc::new(Inner { path, code: Code::Here { root, log } })))
    }

    /// The library at `path`, whose code is never in this process: each instance runs in a child.
    ///
    /// The checks are those of [`load`](Self::load) up to the mapping, which a child does. Blocks
    /// on file access.
    ///
    /// # Errors
    ///
    /// A [`LoadError`]; none of the file's code has run. Of kind [`LoadErrorKind::Runner`] if
    /// there is no program that could be the child.
    #[cfg(target_os = "linux")]
    pub fn isolated(path: &Path, trust: &Trust, process: Process) -> Result<Self, LoadError> {
        let (path, _) = examine(path, trust)?;
        let template = Template::new(&path, process)?;
        Ok(Self(Arc::new(Inner { path, code: Code::Apart(Arc::new(template)) })))
    }

    /// In a child: the library that the parent has trusted, mapped from `image`. Its records go
    /// to `log`.
    #[cfg(all(feature = "runner", target_os = "linux"))]
    pub(crate) fn mapped(
        path: &Path,
        image: &Path,
        log: impl super::log::Elsewhere,
    ) -> Result<Self, LoadError> {
        let symbol = symbol(path, image)?;
        let root = map(path, image, &symbol)?;
        let log = HostLog::elsewhere(path, log);
        Ok(Self(Arc::new(Inner { path: path.to_owned(), code: Code::Here { root, log } })))
    }

    /// The plugin `E`, which is linked into this program.
    #[must_use]
    pub fn linked<E: Entry>() -> Self {
        let path = PathBuf::from(type_name::<E>());
        let code = Code::Here { root: abi::root::<E>(), log: HostLog::of(&path) };
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
        match (root.manifest())() {
            AbiOutcome::Ok(manifest) => Ok(manifest.into_bytes()),
            AbiOutcome::Error(text) | AbiOutcome::Panicked(text) => {
                let what = format!("gave no manifest, it panicked: {}", text.to_text());
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
        match &self.0.code {
            Code::Here { root, log } => {
                init_here(*root, log, config.into()).map(PluginInstance::new)
            }
            #[cfg(target_os = "linux")]
            Code::Apart(template) => template.init(config.into()).map(PluginInstance::new),
        }
    }

    /// In a child: an instance whose requests keep the parent's numbers.
    #[cfg(all(feature = "runner", target_os = "linux"))]
    pub(crate) fn init_mapped(&self, config: Bytes) -> Result<Local, InitError> {
        match &self.0.code {
            Code::Here { root, log } => init_here(*root, log, config),
            Code::Apart(_) => unreachable!("a child maps its library"),
        }
    }
}

fn init_here(
    root: PluginRoot_Ref,
    log: &'static HostLog,
    config: Bytes,
) -> Result<Local, InitError> {
    match (root.init())(log.table(), config.into()) {
        AbiOutcome::Ok(instance) => Ok(Local::new(root, instance)),
        AbiOutcome::Error(error) => Err(InitError::Refused(error.into_bytes())),
        AbiOutcome::Panicked(text) => Err(InitError::Panicked(text.to_text())),
    }
}

/// Looks at the file as data; its canonical path and the symbol that it exports.
fn examine(path: &Path, trust: &Trust) -> Result<(PathBuf, String), LoadError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            LoadError::new(LoadErrorKind::Missing, path, "there is no such file")
        }
        _ => unreadable(path, error),
    };
    let canonical = path.canonicalize().map_err(unreadable)?;
    // Before opening: opening a pipe or a device can block or have effects.
    if !canonical.metadata().map_err(unreadable)?.is_file() {
        let what = "is not a file; name the library itself";
        return Err(LoadError::new(LoadErrorKind::NotAFile, &canonical, what));
    }
    trust.check(&canonical)?;
    let symbol = symbol(&canonical, &canonical)?;
    Ok((canonical, symbol))
}

/// The symbol that the library at `path` exports, read from `image`.
fn symbol(path: &Path, image: &Path) -> Result<String, LoadError> {
    elf::plugin_symbol(path, File::open(image).map_err(|error| unreadable(path, error))?)
}

fn unreadable(path: &Path, error: io::Error) -> LoadError {
    LoadError::new(LoadErrorKind::Unreadable, path, "cannot be read; check access").caused_by(error)
}

/// Maps `image`, the library at `path`, and proves that its tables have our shape.
fn map(path: &Path, image: &Path, symbol: &str) -> Result<PluginRoot_Ref, LoadError> {
    let header = open::open(image, symbol)?;
    let root = open::root::<PluginRoot_Ref>(path, header)?;
    tracing::info!(path = %path.display(), symbol, "loaded a plugin");
    Ok(root)
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("path", &self.0.path).finish_non_exhaustive()
    }
}
