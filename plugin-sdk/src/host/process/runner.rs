//! Which program becomes the child.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The argument by which a program knows that it is to be a runner. The parent's process id
/// follows, and the plugin's name, for whoever looks at a list of processes.
pub(crate) const ARGUMENT: &str = "--mercury-plugin-runner";

/// The name of the runner that is a program of its own.
const PROGRAM: &str = "plugin-runner";

/// Whether this program's `main` said that the program can be a runner.
static SERVES: AtomicBool = AtomicBool::new(false);

/// Notes that this program can be started again as a runner.
#[cfg(feature = "runner")]
pub(crate) fn this_program_serves() {
    SERVES.store(true, Ordering::Relaxed);
}

/// The program that becomes the process of an isolated plugin.
#[derive(Clone, Debug)]
pub struct Runner(Place);

#[derive(Clone, Debug)]
enum Place {
    Found,
    At(PathBuf),
}

impl Runner {
    /// This very program, if its `main` begins with `plugin_sdk::runner::serve_if_asked()`; else
    /// the program `plugin-runner` in the directory of this one.
    #[must_use]
    pub fn found() -> Self {
        Self(Place::Found)
    }

    /// The program at this path: `plugin-runner`, or any whose `main` begins with
    /// `plugin_sdk::runner::serve_if_asked()`.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(Place::At(path.into()))
    }

    /// The program's path.
    ///
    /// # Errors
    ///
    /// Why there is none, and what to do.
    pub(super) fn path(&self) -> Result<PathBuf, String> {
        match &self.0 {
            Place::At(path) => match path.metadata() {
                Ok(metadata) if metadata.is_file() => path.canonicalize().map_err(in_words(path)),
                Ok(_) => Err(format!("the runner {} is not a file", path.display())),
                Err(error) => Err(in_words(path)(error)),
            },
            // The link stays right when the file was replaced by a newer version.
            Place::Found if SERVES.load(Ordering::Relaxed) => Ok("/proc/self/exe".into()),
            Place::Found => {
                let beside = std::env::current_exe().map(|path| path.with_file_name(PROGRAM));
                match beside {
                    Ok(path) if path.is_file() => Ok(path),
                    _ => Err(format!(
                        "there is no program to isolate it with; begin `main` with \
                         `plugin_sdk::runner::serve_if_asked()`, or put `{PROGRAM}` beside this \
                         program, or name it with `Process::runner`, or load the plugin into this \
                         process"
                    )),
                }
            }
        }
    }
}

fn in_words(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("the runner {} cannot be used ({error})", path.display())
}
