//! Whose code may run in this process.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::{LoadError, LoadErrorKind};
use super::expected::Expected;
use super::image::Image;
use super::lock::{Pin, PluginLock, Unpinned, target};
use super::place::{self, Owners, Place};
use super::sidecar::Sidecar;
use super::signature::{self, SigningKey};

/// The version of the SDK that this host is built with.
const SDK: &str = env!("CARGO_PKG_VERSION");
/// No lock file, sidecar or signature is as long as this.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// The policy that a file must satisfy before any of it is run.
///
/// It begins with who may have put the file there, and can ask for more:
///
/// ```
/// use plugin_sdk::host::{SigningKey, Trust};
///
/// let vendor = SigningKey::parse("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3")?;
/// let trust = Trust::root_owned().pinned("/etc/mercury/plugins.lock").signed_by(vendor);
/// # Ok::<(), plugin_sdk::host::InvalidKey>(())
/// ```
///
/// A sidecar manifest ([`Sidecar`]) is compared whenever there is one.
#[derive(Clone, Debug)]
pub struct Trust {
    owners: Allowed,
    lock: Option<PathBuf>,
    keys: Vec<SigningKey>,
    needs_sidecar: bool,
    in_place: bool,
}

#[derive(Clone, Debug)]
enum Allowed {
    Development { reason: String },
    Root,
    RootOrAgent,
}

impl Trust {
    /// Trusts whoever put the file there. For development and tests only; `reason` goes into the
    /// log with each file. Links are followed, and a relative path is one from the working
    /// directory.
    #[must_use]
    pub fn development(reason: impl Into<String>) -> Self {
        Self::new(Allowed::Development { reason: reason.into() })
    }

    /// Trusts files that only the system's administrator can have put there: the file and every
    /// directory above it belong to root and are writable by nobody else. The path is absolute; no
    /// symbolic link is followed, but one from the file's name to another file of its directory.
    #[must_use]
    pub fn root_owned() -> Self {
        Self::new(Allowed::Root)
    }

    /// As [`root_owned`](Self::root_owned), but files and directories may also belong to the user
    /// that this process runs as: for an agent that is installed by its own user.
    #[must_use]
    pub fn agent_owned() -> Self {
        Self::new(Allowed::RootOrAgent)
    }

    fn new(owners: Allowed) -> Self {
        Self { owners, lock: None, keys: Vec::new(), needs_sidecar: false, in_place: false }
    }

    /// Asks, besides, that the lock file at this absolute path pin the library's hash for this
    /// platform ([`PluginLock`]). The lock file must satisfy the same policy of owners, and is read
    /// again for each library.
    #[must_use]
    pub fn pinned(mut self, lock: impl Into<PathBuf>) -> Self {
        self.lock = Some(lock.into());
        self
    }

    /// Asks, besides, for a signature beside the library (`libacme.so.minisig`) by this key, or by
    /// another one that was given the same way.
    ///
    /// A signature says who built a library, not that it is the newest: an old version, with its
    /// flaws, stays signed. A lock file says which one may run.
    #[must_use]
    pub fn signed_by(mut self, key: SigningKey) -> Self {
        self.keys.push(key);
        self
    }

    /// Asks, besides, for a sidecar manifest beside the library.
    #[must_use]
    pub fn with_sidecar(mut self) -> Self {
        self.needs_sidecar = true;
        self
    }

    /// Loads the file where it is, instead of a copy in sealed memory.
    ///
    /// A copy has no directory: a library that finds others by `$ORIGIN` does not find them. Nor
    /// can it be loaded where the system forbids code in such memory (`vm.memfd_noexec = 2`, some
    /// rules of SELinux). Then this is the way, at a price: that the bytes that were checked are
    /// the ones that run rests on the owners alone, who could change the file meanwhile.
    #[must_use]
    pub fn in_place(mut self) -> Self {
        self.in_place = true;
        self
    }

    /// Finds and checks the library at `path`, and logs what was trusted and why.
    pub(super) fn admit(&self, path: &Path) -> Result<Image, LoadError> {
        let place = place::find(path, self.owners())?;
        let copied = |file: &File| file.try_clone().map_err(|e| place::unreadable(path, e));
        let file = copied(&place.file)?;
        let image = match self.in_place {
            true => Image::in_place(&place.path, file),
            false => Image::sealed(&place.path, file)?,
        };
        let pin = self.lock.as_ref().map(|lock| self.pin(lock, &image)).transpose()?;
        let sidecar = self.sidecar(&place, &image)?;
        if !self.keys.is_empty() {
            self.signature(&place, &image)?;
        }
        let shown = image.path().display();
        match &self.owners {
            Allowed::Development { reason } => {
                tracing::warn!(path = %shown, reason, "trusting a plugin for development");
            }
            Allowed::Root | Allowed::RootOrAgent => {
                let (digest, pinned) = (image.digest()?, pin.is_some());
                let signed = !self.keys.is_empty();
                tracing::info!(path = %shown, %digest, pinned, signed, "trusting a plugin");
            }
        }
        Ok(image.expecting(Expected { sidecar, pin }))
    }

    fn owners(&self) -> Owners {
        match self.owners {
            Allowed::Development { .. } => Owners::Anybody,
            Allowed::Root => Owners::Root,
            Allowed::RootOrAgent => Owners::RootOr(rustix::process::geteuid().as_raw()),
        }
    }

    fn pin(&self, lock: &Path, image: &Image) -> Result<Pin, LoadError> {
        let path = image.path();
        let at = lock.display();
        let missing = |error: LoadError| {
            let what = format!("cannot be compared with the lock file {at}; put it there");
            LoadError::new(LoadErrorKind::LockMissing, path, what).caused_by(error)
        };
        let untrusted = |error: LoadError| match error.kind() {
            LoadErrorKind::Missing | LoadErrorKind::Unreadable | LoadErrorKind::NotAFile => {
                missing(error)
            }
            // Who may write to the lock file is said in its own error.
            _ => error,
        };
        let text = text(path, place::find(lock, self.owners()).map_err(untrusted)?.file)
            .map_err(missing)?;
        let lock = PluginLock::parse(&text).map_err(|error| {
            let what = format!("has a damaged lock file {at} ({error}); restore it");
            LoadError::new(LoadErrorKind::LockDamaged, path, what)
        })?;
        let library = path.file_name().unwrap_or_default().to_string_lossy();
        let (target, digest) = (target(), image.digest()?);
        let pin = lock.find(&library, &target, digest).map_err(|unpinned| {
            let (kind, what) = match unpinned {
                Unpinned::NoEntry => {
                    let what = format!("is not in {at}; pin it there once it is known to be good");
                    (LoadErrorKind::NotPinned, what)
                }
                Unpinned::OtherTargets(targets) => {
                    let what = format!(
                        "is pinned in {at} for {} but not for {target}; install the build for \
                         {target} and pin that",
                        targets.join(", ")
                    );
                    (LoadErrorKind::NotPinnedHere, what)
                }
                Unpinned::OtherBytes => {
                    let what = format!(
                        "has the hash {digest}, which {at} does not allow; install the pinned \
                         build, or pin this one"
                    );
                    (LoadErrorKind::DigestMismatch, what)
                }
            };
            LoadError::new(kind, path, what)
        })?;
        Ok(pin.clone())
    }

    fn sidecar(&self, place: &Place, image: &Image) -> Result<Option<Sidecar>, LoadError> {
        let path = image.path();
        let name = Sidecar::file_name(path);
        let Some(file) = place.beside(&name)? else {
            if self.needs_sidecar {
                let what = format!("has no sidecar manifest {name} beside it; install both");
                return Err(LoadError::new(LoadErrorKind::SidecarMissing, path, what));
            }
            return Ok(None);
        };
        let sidecar = Sidecar::parse(&text(path, file)?).map_err(|error| {
            let what = format!("has a damaged sidecar manifest {name} ({error}); install it anew");
            LoadError::new(LoadErrorKind::SidecarDamaged, path, what)
        })?;
        if !sidecar.fits(SDK) {
            let what = format!(
                "is for SDK {}, this agent has {SDK}; install the plugin's build for this agent",
                sidecar.sdk
            );
            return Err(LoadError::new(LoadErrorKind::OtherSdk, path, what));
        }
        let digest = image.digest()?;
        if sidecar.digest != digest {
            let what = format!(
                "has the hash {digest}, {name} says {}; install both anew, together",
                sidecar.digest
            );
            return Err(LoadError::new(LoadErrorKind::DigestMismatch, path, what));
        }
        Ok(Some(sidecar))
    }

    fn signature(&self, place: &Place, image: &Image) -> Result<(), LoadError> {
        let path = image.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{name}.minisig");
        let Some(file) = place.beside(&name)? else {
            let what = format!("has no signature {name} beside it; install both");
            return Err(LoadError::new(LoadErrorKind::SignatureMissing, path, what));
        };
        signature::check(image, &text(path, file)?, &self.keys)
    }
}

/// The content of a small file that belongs to the library at `path`.
fn text(path: &Path, file: File) -> Result<String, LoadError> {
    let mut text = Vec::new();
    let read = file.take(TEXT_BYTES_MAX).read_to_end(&mut text);
    read.map_err(|error| place::unreadable(path, error))?;
    // What is not text is damaged, and its parser says so.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::host::Digest;

    #[test]
    fn however_a_file_changes_meanwhile_what_is_admitted_has_the_pinned_hash() {
        let dir = std::env::temp_dir().join(format!("mercury-admit-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (path, lock) = (dir.join("libacme.so"), dir.join("plugins.lock"));
        let contents = [vec![b'a'; 9_000], vec![b'b'; 9_000]];
        std::fs::write(&path, &contents[0]).expect("it is written");
        let mut pins = PluginLock::new();
        pins.pin("libacme.so", None, None, &target(), Digest::of(&contents[0]));
        pins.write(&lock).expect("it is written");
        let trust = Trust::development("a test").pinned(&lock);
        let (mut tries, mut admitted) = (0, 0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let beside = dir.join("new");
                for (turn, content) in contents.iter().cycle().enumerate() {
                    // By turns in place, which readers see half done, and in one move.
                    let to = if turn % 4 < 2 { &path } else { &beside };
                    std::fs::write(to, content).expect("it is written");
                    if to == &beside {
                        std::fs::rename(&beside, &path).expect("it is renamed");
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let begun = Instant::now();
            while (tries < 3_000 || admitted == 0 || admitted == tries)
                && begun.elapsed() < Duration::from_secs(120)
            {
                tries += 1;
                match trust.admit(&path) {
                    Ok(image) => {
                        admitted += 1;
                        let mut bytes = Vec::new();
                        image.pieces(|piece| bytes.extend_from_slice(piece)).expect("readable");
                        assert!(bytes == contents[0], "these bytes are not the pinned ones");
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), LoadErrorKind::DigestMismatch, "{error}")
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        std::fs::remove_dir_all(&dir).expect("it is removed");
        assert!(admitted > 0 && admitted < tries, "{admitted} of {tries} admitted");
    }
}
