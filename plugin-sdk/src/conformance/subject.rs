//! The plugin that is checked, and how it is brought into play.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{
    Bundle, Workload, Workloads,
    host::{Library, LoadError, Trust},
};

/// A plugin to be checked: linked into this program, or a library.
pub struct Subject(Source);

enum Source {
    Linked { name: &'static str, link: fn() -> Library },
    InProcess { path: PathBuf },
}

/// How a plugin is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Linked into this program.
    Linked,
    /// A library, loaded into this process.
    InProcess,
}

impl Mode {
    /// The mode as one lower-case word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Linked => "linked",
            Mode::InProcess => "in-process",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "linked" => Ok(Mode::Linked),
            "in-process" => Ok(Mode::InProcess),
            other => Err(format!("`{other}` is no mode")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Subject {
    /// A workload that is linked into this program.
    #[must_use]
    pub fn linked<W: Workload>() -> Self {
        Subject::linked_bundle::<(W,)>()
    }

    /// Several workloads that are linked into this program.
    #[must_use]
    pub fn linked_bundle<W: Workloads>() -> Self {
        let name = std::any::type_name::<W>();
        Subject(Source::Linked { name, link: Library::linked::<Bundle<W>> })
    }

    /// A library, loaded into this process. It is trusted: check what you have built, or would
    /// load.
    #[must_use]
    pub fn library(path: impl Into<PathBuf>) -> Self {
        Subject(Source::InProcess { path: path.into() })
    }

    /// How it is run.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &self.0 {
            Source::Linked { .. } => Mode::Linked,
            Source::InProcess { .. } => Mode::InProcess,
        }
    }

    /// The library's file; `None` if it is linked.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.0 {
            Source::Linked { .. } => None,
            Source::InProcess { path } => Some(path),
        }
    }

    pub(super) fn load(&self) -> Result<Library, LoadError> {
        match &self.0 {
            Source::Linked { link, .. } => Ok(link()),
            Source::InProcess { path } => Library::load(path, &trust()),
        }
    }
}

/// Whoever calls the kit wants the library to run.
pub(super) fn trust() -> Trust {
    Trust::development("named to the conformance kit")
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Linked { name, .. } => f.write_str(name),
            Source::InProcess { path } => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({self}, {})", self.mode())
    }
}
