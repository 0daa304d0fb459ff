//! A plugin's library: loaded from a file, or linked into this program.

use std::any::type_name;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::{InitError, LoadError, LoadErrorKind};
use super::image::{self, Image};
use super::instance::PluginInstance;
use super::log::HostLog;
use super::trust::Trust;
use super::{
    elf::{self, PluginSymbol},
    open,
};
use crate::abi::{
    self, AbiBytes, AbiCHost, AbiCPlugin, AbiInstance, AbiOutcome, Entry, HostTable_Ref,
    PluginRoot_Ref, Start,
};

/// A plugin whose code is in this process. Clones are the same library; it is never unloaded.
#[derive(Clone)]
pub struct Library(Arc<Inner>);

struct Inner {
    path: PathBuf,
    root: Root,
    log: &'static HostLog,
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
    /// Loads the library at `path`: [`Image::open`], then [`map`](Self::map).
    ///
    /// # Errors
    ///
    /// A [`LoadError`]; see [`LoadErrorKind::code_may_have_run`].
    pub fn load(path: &Path, trust: &Trust) -> Result<Self, LoadError> {
        Self::map(Image::open(path, trust)?)
    }

    /// Loads what was checked.
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
        let symbol = elf::plugin_symbol(image.path(), image.reader()?)?;
        let expected = image.expected().clone();
        let image = image::keep(image)?;
        let path = image.path();
        let file = image.load_path();
        let root = match &symbol {
            PluginSymbol::Described(name) => {
                open::root::<PluginRoot_Ref>(path, open::header(path, &file, name)?)?.into()
            }
            PluginSymbol::Plain(name) => open::plain(path, &file, name)?.into(),
        };
        let library = Self::new(path.to_owned(), root);
        expected.check(path, || library.manifest())?;
        tracing::info!(path = %path.display(), symbol = symbol.as_str(), "loaded a plugin");
        Ok(library)
    }

    /// The plugin `E`, which is linked into this program.
    #[must_use]
    pub fn linked<E: Entry>() -> Self {
        Self::new(PathBuf::from(type_name::<E>()), abi::root::<E>().into())
    }

    fn new(path: PathBuf, root: Root) -> Self {
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
        match (self.0.root.manifest)() {
            AbiOutcome::Ok(manifest) => Ok(manifest.into_bytes()),
            AbiOutcome::Error(text) | AbiOutcome::Panicked(text) => {
                let what = format!("gave no manifest, it said: {}", one_line(&text.to_text()));
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
        let redactor = self.0.log.redactor();
        let (log, config) = (self.0.log, config.into().into());
        let made = match self.0.root.init {
            Init::Described(init) => init(log.table(), config),
            // SAFETY: the table lives for ever.
            Init::Plain(init) => unsafe { init(log.c_table(), config) },
        };
        match made {
            AbiOutcome::Ok(instance) => {
                Ok(PluginInstance::new(self.0.root.start, instance, Arc::clone(redactor)))
            }
            AbiOutcome::Error(error) => Err(InitError::Refused(redactor.fault(error.into_bytes()))),
            AbiOutcome::Panicked(text) => {
                Err(InitError::Panicked(redactor.clean(&text.to_text()).into_owned()))
            }
        }
    }
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
