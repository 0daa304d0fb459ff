//! Where the secrets of plugins are kept.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fsm_core::Fault;
use plugin_sdk::{Secret, async_trait};

/// Keeps the secrets that plugins ask for by name, and gives them out one at a time.
///
/// **The engine guarantees** that it asks only for names that the workload's manifest declares, on
/// its own tokio runtime, several at a time, and that it neither writes an answer down nor logs it.
/// It asks each time a plugin does: a secret that has been changed is the new one at once.
///
/// **The implementer guarantees** that its faults hold no secret: they are journaled and logged.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// The secret `name` of the workload `workload`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// A fault that says what could not be read, and whether a later try may help.
    async fn secret(&self, workload: &str, name: &str) -> Result<Option<Secret>, Fault>;
}

/// Secrets in memory, put there by the embedding program.
///
/// ```
/// use mercury::{MemorySecrets, Secret};
///
/// let secrets = MemorySecrets::new().with("sqlserver", "password", Secret::new("hunter2"));
/// ```
#[derive(Debug, Default)]
pub struct MemorySecrets(BTreeMap<(String, String), Secret>);

impl MemorySecrets {
    /// No secrets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the secret `name` of the workload `workload`, or replaces it.
    #[must_use]
    pub fn with(
        mut self,
        workload: impl Into<String>,
        name: impl Into<String>,
        secret: Secret,
    ) -> Self {
        self.0.insert((workload.into(), name.into()), secret);
        self
    }
}

#[async_trait]
impl SecretStore for MemorySecrets {
    async fn secret(&self, workload: &str, name: &str) -> Result<Option<Secret>, Fault> {
        let found = self.0.get(&(workload.to_owned(), name.to_owned()));
        Ok(found.map(|secret| Secret::new(secret.expose())))
    }
}

/// Secrets as files of one directory, as systemd's `LoadCredential=` provides them: the secret
/// `password` of the workload `sqlserver` is the file `sqlserver.password`, byte for byte.
///
/// A file, or the directory, that others can read or write is refused.
#[derive(Clone, Debug)]
pub struct SecretDirectory(PathBuf);

/// No secret is as long as this; nor is a credential of systemd's.
const BYTES_MAX: u64 = 1 << 20;

impl SecretDirectory {
    /// The files in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        SecretDirectory(directory.into())
    }

    /// The directory that systemd made for this service: `$CREDENTIALS_DIRECTORY`. `None` if there
    /// is none.
    pub fn from_systemd() -> Option<Self> {
        let directory: OsString = std::env::var_os("CREDENTIALS_DIRECTORY")?;
        Some(SecretDirectory(directory.into()))
    }

    fn read(&self, file: &str) -> Result<Option<Secret>, Fault> {
        // Names come from manifests. One that would lead elsewhere is nobody's.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if file.starts_with('.') || !file.chars().all(plain) {
            let message = format!("`{file}` cannot be the name of a secret's file");
            return Err(Fault::bug("secret.name", message)
                .advise("name workloads and secrets in letters, digits, `.`, `_` and `-`"));
        }
        let path = self.0.join(file);
        let unreadable = |error: io::Error| {
            Fault::user("secret.unreadable", format!("cannot read {}", path.display()))
                .caused_by(&error)
                .advise("let the agent's user, and nobody else, read it")
        };
        private(&self.0, &std::fs::metadata(&self.0).map_err(unreadable)?)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > BYTES_MAX {
            let message = format!("{} is no file of at most 1 MiB", path.display());
            return Err(Fault::user("secret.unreadable", message).advise("store the secret alone"));
        }
        private(&path, &metadata)?;
        // Room for all of it from the start: what a vector outgrows is not overwritten.
        let mut bytes = Vec::with_capacity(BYTES_MAX.min(metadata.len() + 1) as usize);
        let read = file.take(bytes.capacity() as u64).read_to_end(&mut bytes);
        let secret = Secret::new(bytes);
        read.map_err(unreadable)?;
        Ok(Some(secret))
    }
}

#[async_trait]
impl SecretStore for SecretDirectory {
    async fn secret(&self, workload: &str, name: &str) -> Result<Option<Secret>, Fault> {
        let (directory, file) = (self.clone(), format!("{workload}.{name}"));
        let read = tokio::task::spawn_blocking(move || directory.read(&file)).await;
        read.unwrap_or_else(|_| Err(Fault::interrupted("the engine's runtime is going down")))
    }
}

/// Refuses what somebody besides its owner can read or write.
#[cfg(unix)]
fn private(path: &Path, metadata: &std::fs::Metadata) -> Result<(), Fault> {
    use std::os::unix::fs::MetadataExt;

    // Where systemd grants a service's user access by an access list, the list's mask shows as the
    // right of root's own group to read.
    let allowed = if metadata.gid() == 0 { 0o050 } else { 0 };
    if metadata.mode() & 0o077 & !allowed != 0 {
        let message = format!("others than its owner can use {}", path.display());
        let advice = format!("run `chmod go= {}`", path.display());
        return Err(Fault::user("secret.exposed", message).advise(advice));
    }
    Ok(())
}

#[cfg(not(unix))]
fn private(path: &Path, _: &std::fs::Metadata) -> Result<(), Fault> {
    let message = format!("who can read {} cannot be checked on this platform yet", path.display());
    Err(Fault::user("secret.exposed", message).advise("use another store"))
}
