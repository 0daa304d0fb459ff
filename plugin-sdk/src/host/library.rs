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
use super::trust::Trust;
use super::{elf, open};
use crate::abi::{self, AbiOutcome, Entry, PluginRoot_Ref};

/// A plugin whose code is in this process. Clones are the same library; it is never unloaded.
#[derive(Clone)]
pub struct Library(Arc<Inner>);

struct Inner {
    path: PathBuf,
    root: PluginRoot_Ref,
    log: &'static HostLog,
}

impl Library {
    /// Loads the library at `path`.
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
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                LoadError::new(LoadErrorKind::Missing, path, "there is no such file")
            }
            _ => LoadError::new(LoadErrorKind::Unreadable, path, "cannot be read; check access")
                .caused_by(error),
        };
        let canonical = path.canonicalize().map_err(unreadable)?;
        let path = canonical.as_path();
        // Before opening: opening a pipe or a device can block or have effects.
        if !path.metadata().map_err(unreadable)?.is_file() {
            let what = "is not a file; name the library itself";
            return Err(LoadError::new(LoadErrorKind::NotAFile, path, what));
        }
        trust.check(path)?;
        let symbol = elf::plugin_symbol(path, File::open(path).map_err(unreadable)?)?;
        let header = open::open(path, &symbol)?;
        let root = open::root::<PluginRoot_Ref>(path, header)?;
        tracing::info!(path = %path.display(), symbol, "loaded a plugin");
        Ok(Self::new(canonical, root))
    }

    /// The plugin `E`, which is linked into this program.
    #[must_use]
    pub fn linked<E: Entry>() -> Self {
        Self::new(PathBuf::from(type_name::<E>()), abi::root::<E>())
    }

    fn new(path: PathBuf, root: PluginRoot_Ref) -> Self {
        let log = HostLog::of(&path);
        Self(Arc::new(Inner { path, root, log }))
    }

    /// The library's canonical path, or the name of the linked plugin's type.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Asks the plugin for its manifest, a document.
    ///
    /// # Errors
    ///
    /// [`LoadErrorKind::Manifest`] if the plugin panics.
    pub fn manifest(&self) -> Result<Bytes, LoadError> {
        match (self.0.root.manifest())() {
            AbiOutcome::Ok(manifest) => Ok(manifest.into_bytes()),
            AbiOutcome::Error(text) | AbiOutcome::Panicked(text) => {
                let what = format!("gave no manifest, it panicked: {}", text.to_text());
                Err(LoadError::new(LoadErrorKind::Manifest, self.path(), what))
            }
        }
    }

    /// Makes an instance of the plugin; each is independent of the others.
    ///
    /// # Errors
    ///
    /// [`InitError::Refused`] with the plugin's error document, or [`InitError::Panicked`].
    pub fn init(&self, config: impl Into<Bytes>) -> Result<PluginInstance, InitError> {
        match (self.0.root.init())(self.0.log.table(), config.into().into()) {
            AbiOutcome::Ok(instance) => Ok(PluginInstance::new(Local::new(self.0.root, instance))),
            AbiOutcome::Error(error) => Err(InitError::Refused(error.into_bytes())),
            AbiOutcome::Panicked(text) => Err(InitError::Panicked(text.to_text())),
        }
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("path", &self.0.path).finish_non_exhaustive()
    }
}
