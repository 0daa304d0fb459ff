//! Errors and the log, for people to read.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::Path;

use mercury::Error as EngineError;
use tracing_subscriber::filter::LevelFilter;

/// Why an example failed. `main` returns it, and it prints as text.
pub struct Report(Box<dyn Error>);

impl Report {
    /// A report in the example's own words.
    pub fn new(text: impl Into<String>) -> Self {
        Report(text.into().into())
    }

    /// A failed access to the file or directory at `path`.
    pub fn file(path: &Path, error: &io::Error) -> Self {
        Report::new(format!("{}: {error}", path.display()))
    }
}

impl<E: Error + 'static> From<E> for Report {
    fn from(error: E) -> Self {
        Report(Box::new(error))
    }
}

/// The error, what caused it, and, from the engine, what to do about it.
impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        write!(f, "{said}")?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // A cause in the very same words tells nothing.
            if text != said {
                write!(f, "\n  because: {text}")?;
            }
            (said, cause) = (text, error.source());
        }
        let Some(error) = self.0.downcast_ref::<EngineError>() else { return Ok(()) };
        write!(f, "\n  kind: {:?}, code: {}", error.kind(), error.code())?;
        match error.advice() {
            Some(advice) => write!(f, "\n  advice: {advice}"),
            None => Ok(()),
        }
    }
}

/// Sends the log to standard error. Mercury installs no subscriber by itself.
pub fn log_to_stderr(level: LevelFilter) {
    tracing_subscriber::fmt()
        .compact()
        .without_time()
        .with_target(false)
        .with_max_level(level)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}
