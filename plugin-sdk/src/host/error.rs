//! Why a plugin could not be loaded.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::abi::Crash;

/// What went wrong, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadErrorKind {
    /// There is nothing at the path.
    Missing,
    /// The path is a directory, a device or something else that is no file.
    NotAFile,
    /// The file could not be read.
    Unreadable,
    /// The file is not a dynamic library.
    NotALibrary,
    /// The file is a library for another kind of computer.
    OtherPlatform,
    /// The file is a library that is cut short or otherwise damaged.
    Damaged,
    /// The library exports no plugin, or more than one.
    NotAPlugin,
    /// The plugin speaks another version of the boundary.
    OtherAbi,
    /// The policy does not trust the file.
    Untrusted,
    /// The system's loader refused the library (a dependency of it is missing, say).
    Refused,
    /// The plugin's tables do not have the shape that their version says they have.
    Layout,
    /// The plugin panicked when it was asked for its manifest.
    Manifest,
    /// There is no program that could run the plugin in a process of its own.
    Runner,
    /// The process that loaded the library ended before the plugin was there.
    Crashed,
}

/// The kinds by name, as a child reports them.
#[cfg(target_os = "linux")]
const NAMES: [(LoadErrorKind, &str); 14] = [
    (LoadErrorKind::Missing, "missing"),
    (LoadErrorKind::NotAFile, "not_a_file"),
    (LoadErrorKind::Unreadable, "unreadable"),
    (LoadErrorKind::NotALibrary, "not_a_library"),
    (LoadErrorKind::OtherPlatform, "other_platform"),
    (LoadErrorKind::Damaged, "damaged"),
    (LoadErrorKind::NotAPlugin, "not_a_plugin"),
    (LoadErrorKind::OtherAbi, "other_abi"),
    (LoadErrorKind::Untrusted, "untrusted"),
    (LoadErrorKind::Refused, "refused"),
    (LoadErrorKind::Layout, "layout"),
    (LoadErrorKind::Manifest, "manifest"),
    (LoadErrorKind::Runner, "runner"),
    (LoadErrorKind::Crashed, "crashed"),
];

#[cfg(target_os = "linux")]
impl LoadErrorKind {
    /// The kind of this name; what a newer runner calls otherwise was refused all the same.
    pub(super) fn named(name: &str) -> Self {
        let found = NAMES.iter().find(|(_, known)| *known == name);
        found.map_or(Self::Refused, |(kind, _)| *kind)
    }

    #[cfg(feature = "runner")]
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(kind, _)| *kind == self).map_or("refused", |(_, name)| *name)
    }
}

/// An error from the loader: one line that names the file and what to do.
#[derive(Debug)]
pub struct LoadError {
    kind: LoadErrorKind,
    path: PathBuf,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LoadError {
    pub(crate) fn new(kind: LoadErrorKind, path: &Path, what: impl Into<String>) -> Self {
        Self { kind, path: path.to_owned(), what: what.into(), source: None }
    }

    pub(super) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The class of the error; match on this, with a `_` arm.
    #[must_use]
    pub fn kind(&self) -> LoadErrorKind {
        self.kind
    }

    /// What is wrong with the file, without its name.
    #[cfg(all(feature = "runner", target_os = "linux"))]
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The file, or the name of the linked plugin's type.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {}: {}", self.path.display(), self.what)
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// Why a plugin gave no instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// The plugin refused; this is its error document.
    Refused(Bytes),
    /// The plugin panicked; the text of the panic.
    Panicked(String),
    /// The process that should make the instance ended, or could not be started.
    Crashed(Crash),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_) => f.write_str("the plugin refused its configuration"),
            Self::Panicked(text) => write!(f, "the plugin panicked in init: {text}"),
            Self::Crashed(crash) => write!(f, "the plugin crashed in init: {crash}"),
        }
    }
}

impl Error for InitError {}
