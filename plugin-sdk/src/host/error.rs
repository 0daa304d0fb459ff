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
    /// The path is relative, or leads upwards, and the policy wants the file's own path.
    RelativePath,
    /// The path leads out of its directory by a symbolic link, and the policy follows none.
    SymbolicLink,
    /// Somebody whom the policy does not trust owns the file or a directory above it, or may write
    /// to one of them.
    Untrusted,
    /// The file could not be copied to sealed memory.
    NotSealed,
    /// The lock file is not there, or cannot be read.
    LockMissing,
    /// The lock file is damaged, or of a later form.
    LockDamaged,
    /// The lock file has no entry for the library.
    NotPinned,
    /// The lock file pins the library for other platforms only.
    NotPinnedHere,
    /// The file's bytes are not the ones that the lock file or the sidecar names.
    DigestMismatch,
    /// There is no signature beside the library.
    SignatureMissing,
    /// The signature is damaged, or was not made of these bytes by a trusted key.
    BadSignature,
    /// There is no sidecar manifest beside the library, and the policy asks for one.
    SidecarMissing,
    /// The sidecar manifest is damaged, or of a later form.
    SidecarDamaged,
    /// The plugin is for another range of versions of the SDK than this host's.
    OtherSdk,
    /// An earlier version of this very file is loaded already, and its place is taken.
    Replaced,
    /// The system's loader refused the library (a dependency of it is missing, say).
    Refused,
    /// The plugin's tables do not have the shape that their version says they have.
    Layout,
    /// The plugin panicked when it was asked for its manifest, or the manifest cannot be read.
    Manifest,
    /// The plugin says other things of itself than its sidecar or its lock entry.
    ManifestMismatch,
    /// There is no program that could run the plugin in a process of its own.
    Runner,
    /// The process that loaded the library ended before the plugin was there.
    Crashed,
}

impl LoadErrorKind {
    /// Whether some of the file's code may have run: its constructors, or more.
    #[must_use]
    pub fn code_may_have_run(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Layout | Self::Manifest | Self::ManifestMismatch | Self::Crashed
        )
    }
}

/// The kinds by which a child refuses a library, by name. Whatever is to be checked before, the
/// parent has checked.
#[cfg(target_os = "linux")]
const NAMES: [(LoadErrorKind, &str); 10] = [
    (LoadErrorKind::Unreadable, "unreadable"),
    (LoadErrorKind::NotALibrary, "not_a_library"),
    (LoadErrorKind::OtherPlatform, "other_platform"),
    (LoadErrorKind::Damaged, "damaged"),
    (LoadErrorKind::NotAPlugin, "not_a_plugin"),
    (LoadErrorKind::OtherAbi, "other_abi"),
    (LoadErrorKind::NotSealed, "not_sealed"),
    (LoadErrorKind::Refused, "refused"),
    (LoadErrorKind::Layout, "layout"),
    (LoadErrorKind::Runner, "runner"),
];

#[cfg(target_os = "linux")]
impl LoadErrorKind {
    /// The kind of this name; what a runner calls otherwise was refused all the same.
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
