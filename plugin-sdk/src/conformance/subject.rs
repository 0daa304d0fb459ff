//! The plugin that is checked, and how it is brought into play.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use crate::{
    Bundle, Workload, Workloads,
    host::{Image, Library, LoadError, Process, Trust},
};

/// A plugin to be checked: linked into this program, or a library.
pub struct Subject(Source);

enum Source {
    Linked { name: &'static str, link: fn() -> Library },
    InProcess { path: PathBuf },
    Isolated { path: PathBuf, process: Process },
}

/// How a plugin is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Linked into this program.
    Linked,
    /// A library, loaded into this process.
    InProcess,
    /// A library in processes of its own.
    Isolated,
}

impl Mode {
    /// The mode as one lower-case word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Linked => "linked",
            Mode::InProcess => "in-process",
            Mode::Isolated => "isolated",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "linked" => Ok(Mode::Linked),
            "in-process" => Ok(Mode::InProcess),
            "isolated" => Ok(Mode::Isolated),
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

    /// A library, of which each instance has a process of its own: one that the kit can kill.
    ///
    /// `process` says which program becomes that process, and what it may use. How long a step
    /// may go on after it was asked to stop is the kit's own affair
    /// ([`Kit::grace`](super::Kit::grace)).
    #[must_use]
    pub fn isolated(path: impl Into<PathBuf>, process: Process) -> Self {
        Subject(Source::Isolated { path: path.into(), process })
    }

    /// How it is run.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &self.0 {
            Source::Linked { .. } => Mode::Linked,
            Source::InProcess { .. } => Mode::InProcess,
            Source::Isolated { .. } => Mode::Isolated,
        }
    }

    /// The library's file; `None` if it is linked.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.0 {
            Source::Linked { .. } => None,
            Source::InProcess { path } | Source::Isolated { path, .. } => Some(path),
        }
    }

    /// The plugin, whose steps may go on for `grace` after they were asked to stop.
    pub(super) fn load(&self, grace: Duration) -> Result<Library, LoadError> {
        match &self.0 {
            Source::Linked { link, .. } => Ok(link()),
            Source::InProcess { path } | Source::Isolated { path, .. } => {
                self.load_copy(path, grace)
            }
        }
    }

    /// The library at `path`, which has the same bytes, in the same way.
    pub(super) fn load_copy(&self, path: &Path, grace: Duration) -> Result<Library, LoadError> {
        // Whoever calls the kit wants the library to run.
        let trust = Trust::development("named to the conformance kit");
        match &self.0 {
            Source::Linked { link, .. } => Ok(link()),
            Source::InProcess { .. } => Library::load(path, &trust),
            Source::Isolated { process, .. } => {
                // The host's own limits are not to end what the kit is about to find.
                let longer = grace.saturating_mul(3);
                let process = process.clone().cancel_grace(longer).abandon_grace(longer);
                Library::isolated(Image::open(path, &trust)?, process)
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Linked { name, .. } => f.write_str(name),
            Source::InProcess { path } | Source::Isolated { path, .. } => {
                write!(f, "{}", path.display())
            }
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({self}, {})", self.mode())
    }
}
