//! Where the archive's key comes from.

use std::{
    fmt,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use archive::Key;
use fsm_core::Fault;

use crate::{Error, ErrorKind};

/// Where the archive's key is kept: 64 hexadecimal digits in a file or an environment variable.
///
/// **Without the key no recovery point can ever be read again, by anybody.** Keep a copy of it
/// away from this computer and away from the archive.
#[derive(Clone, Debug)]
pub struct KeySource(Place);

#[derive(Clone)]
enum Place {
    File(PathBuf),
    Environment(String),
    Given(Key),
}

impl KeySource {
    /// A file that nobody but its owner can read (mode 0600 or stricter).
    pub fn file(path: impl Into<PathBuf>) -> Self {
        KeySource(Place::File(path.into()))
    }

    /// An environment variable.
    pub fn environment(variable: impl Into<String>) -> Self {
        KeySource(Place::Environment(variable.into()))
    }

    /// A key that the embedding program has fetched by itself (from a key management service).
    pub fn given(key: Key) -> Self {
        KeySource(Place::Given(key))
    }

    /// Draws a new key and writes it to a new file of mode 0600, durably.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] if the file exists already (its key may be the only one that opens an
    /// archive, so it is never replaced) or cannot be written.
    pub fn create_file(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        write_new(&path, &Key::generate()?).map_err(|error| {
            let fault = Fault::user("key.create", format!("cannot create key {}", path.display()));
            let advice = match error.kind() {
                io::ErrorKind::AlreadyExists => "use the key that is there, or name another file",
                _ => "name a file in a directory that can be written",
            };
            Error::new(ErrorKind::Key, fault.advise(advice)).caused_by(error)
        })?;
        tracing::warn!(
            path = %path.display(),
            "a new archive key was created: without it no recovery point can be read again; \
             keep a copy away from this computer and from the archive"
        );
        Ok(KeySource::file(path))
    }

    /// Reads the key.
    pub(crate) fn read(&self) -> Result<Key, Error> {
        let text = match &self.0 {
            Place::Given(key) => return Ok(key.clone()),
            Place::File(path) => read_private(path)?,
            Place::Environment(variable) => std::env::var(variable).map_err(|error| {
                let message = format!("no key in the environment variable {variable}");
                let advice = "set it to the 64 hexadecimal digits of the archive's key";
                Error::new(ErrorKind::Key, Fault::user("key.missing", message).advise(advice))
                    .caused_by(error)
            })?,
        };
        text.parse().map_err(|_| {
            // The parser's own error is left out: it must never quote the key.
            let message = format!("the key in {self} is malformed");
            let fault = Fault::user("key.malformed", message);
            Error::new(ErrorKind::Key, fault.advise("a key is 64 hexadecimal digits"))
        })
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Environment(variable) => write!(f, "the environment variable {variable}"),
            Place::Given(_) => f.write_str("the embedding program"),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => f.debug_tuple("File").field(path).finish(),
            Place::Environment(variable) => f.debug_tuple("Environment").field(variable).finish(),
            Place::Given(_) => f.write_str("Given"),
        }
    }
}

fn write_new(path: &Path, key: &Key) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(key.to_hex().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn read_private(path: &Path) -> Result<String, Error> {
    let unreadable = |error: io::Error| {
        let message = format!("cannot read the key file {}", path.display());
        let advice = "bring the file back from where you keep a copy of the key";
        Error::new(ErrorKind::Key, Fault::user("key.missing", message).advise(advice))
            .caused_by(error)
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let mode = file.metadata().map_err(unreadable)?.mode();
        if mode & 0o077 != 0 {
            let message = format!("others can read the key file {}", path.display());
            let advice = format!("run `chmod 600 {}`", path.display());
            let fault = Fault::user("key.exposed", message).advise(advice);
            return Err(Error::new(ErrorKind::Key, fault));
        }
    }
    let mut text = String::new();
    // A key is short; whatever is longer is something else.
    file.take(4_096).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}
