//! Whose code may run in this process.

use std::path::Path;

use super::error::{LoadError, LoadErrorKind};

/// The policy that a file must satisfy before any of it is run.
#[derive(Clone, Debug)]
pub struct Trust(Policy);

#[derive(Clone, Debug)]
enum Policy {
    Development { reason: String },
    RootOwned,
}

impl Trust {
    /// Trusts any file. For development and tests only; `reason` goes into the log with each file.
    #[must_use]
    pub fn development(reason: impl Into<String>) -> Self {
        Self(Policy::Development { reason: reason.into() })
    }

    /// Trusts files that only the system's administrator can have put there: the file and every
    /// directory above it belong to root and are writable by nobody else.
    #[must_use]
    pub fn root_owned() -> Self {
        Self(Policy::RootOwned)
    }

    /// Checks the file, given by its canonical path, and logs what was trusted and why.
    pub(super) fn check(&self, path: &Path) -> Result<(), LoadError> {
        match &self.0 {
            Policy::Development { reason } => {
                tracing::warn!(path = %path.display(), reason, "trusting a plugin unchecked");
                Ok(())
            }
            Policy::RootOwned => {
                root_owned(path)?;
                tracing::info!(path = %path.display(), "trusting a plugin of the administrator's");
                Ok(())
            }
        }
    }
}

#[cfg(unix)]
fn root_owned(path: &Path) -> Result<(), LoadError> {
    use std::os::unix::fs::MetadataExt;

    for part in path.ancestors() {
        let untrusted = |why: &str| {
            let what = format!("is not trusted: {} {why}", part.display());
            Err(LoadError::new(LoadErrorKind::Untrusted, path, what))
        };
        let metadata = match part.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) => return untrusted(&format!("cannot be examined ({error})")),
        };
        if metadata.uid() != 0 {
            return untrusted("does not belong to root; have an administrator install it");
        }
        let others_write = metadata.mode() & 0o022 != 0;
        if others_write {
            return untrusted("is writable by others than root; remove that permission");
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn root_owned(path: &Path) -> Result<(), LoadError> {
    let what = "is not trusted: ownership cannot be checked on this platform yet";
    Err(LoadError::new(LoadErrorKind::Untrusted, path, what))
}
