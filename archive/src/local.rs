//! A directory as the store: what it takes for "acknowledged" to mean "survives a power cut".
//!
//! `object_store`'s `LocalFileSystem` with `with_fsync(true)` syncs a new file, then links it into
//! place, then syncs the directory that it is in and every directory that *this call* made. Two
//! gaps remain, and this module closes them:
//!
//! - A directory made a moment ago by another call, or by a process that died before it could sync,
//!   is taken as durable because it is there. Here every directory is made, and its parent synced,
//!   before the first object goes into it; nobody else uses it before that.
//! - An object that "already exists" may have been linked by a process that died before its sync,
//!   or by a call that was given up before it. Here it is synced before the answer is trusted, and
//!   so are a point and a hold that were found before anybody is told of them as durable. Opening
//!   an archive syncs every directory in it once, so that whatever is visible then is durable too.
//!
//! Directories can be synced on Unix only. On Windows NTFS keeps directory entries in its own
//! journal, and nothing more can be done from here.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use crate::error::{Error, Result};

/// A staging file that nobody has touched for this long belongs to a process that died.
const STALE_AFTER: Duration = Duration::from_secs(60 * 60);

/// What to do when the directory is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Refuse,
}

/// The directories of one archive that are known to be durable.
#[derive(Debug)]
pub(crate) struct Directories {
    root: PathBuf,
    durable: Mutex<HashSet<PathBuf>>,
}

impl Directories {
    /// Makes `root` if it is missing and may be made, removes what dead writers left, and syncs what it finds.
    pub(crate) async fn open(root: PathBuf, missing: Missing) -> Result<Arc<Self>> {
        blocking(root.clone(), move || {
            if missing == Missing::Make {
                fs::create_dir_all(&root)?;
                for ancestor in root.canonicalize()?.ancestors().skip(1) {
                    match sync_directory(ancestor) {
                        // What we may not read was there before us.
                        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                        synced => synced?,
                    }
                }
            }
            let root = root.canonicalize()?;
            let mut durable = HashSet::new();
            sweep(&root, &mut durable)?;
            Ok(Arc::new(Self { root, durable: Mutex::new(durable) }))
        })
        .await
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directories of the object at `path` durable before it is written.
    pub(crate) async fn ensure(self: &Arc<Self>, path: &str) -> Result<()> {
        let file = self.root.join(path);
        let Some(directory) = file.parent().map(Path::to_owned) else { return Ok(()) };
        let is_durable =
            self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(&directory);
        if is_durable {
            return Ok(());
        }
        let this = Arc::clone(self);
        blocking(directory.clone(), move || this.make(&directory)).await
    }

    /// Makes an object durable that somebody else may have left half done.
    pub(crate) async fn sync(&self, path: &str) -> Result<()> {
        let file = self.root.join(path);
        blocking(file.clone(), move || {
            // Windows flushes only what was opened to be written.
            fs::File::options().read(true).write(cfg!(windows)).open(&file)?.sync_all()?;
            file.parent().map_or(Ok(()), sync_directory)
        })
        .await
    }

    fn make(&self, directory: &Path) -> io::Result<()> {
        // The lock is held across the sync: nobody may see the directory before it is durable.
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = Vec::new();
        for ancestor in directory.ancestors() {
            if durable.contains(ancestor) {
                break;
            }
            missing.push(ancestor);
        }
        for directory in missing.into_iter().rev() {
            fs::create_dir_all(directory)?;
            directory.parent().map_or(Ok(()), sync_directory)?;
            durable.insert(directory.to_owned());
        }
        Ok(())
    }
}

/// Visits every directory below `root`: syncs it and removes stale staging files.
fn sweep(root: &Path, durable: &mut HashSet<PathBuf>) -> io::Result<()> {
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() && is_staging(&entry.file_name()) && is_stale(&entry)? {
                // One that stays only takes room: the archive may be mounted to be read, or another
                // process may be sweeping too.
                if let Err(error) = fs::remove_file(entry.path()) {
                    tracing::warn!(path = %entry.path().display(), %error, "stale file stays");
                }
            }
        }
        sync_directory(&directory)?;
        durable.insert(directory);
    }
    Ok(())
}

/// Whether `LocalFileSystem` calls its unfinished files so: the object's name, `#`, a number.
fn is_staging(name: &OsStr) -> bool {
    name.to_str()
        .and_then(|name| name.rsplit_once('#'))
        .is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_stale(entry: &fs::DirEntry) -> io::Result<bool> {
    let modified = match entry.metadata() {
        Ok(metadata) => metadata.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(SystemTime::now().duration_since(modified).is_ok_and(|age| age > STALE_AFTER))
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

async fn blocking<T: Send + 'static>(
    subject: PathBuf,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Error::io(subject.display().to_string(), error)),
        Err(error) => Err(Error::task(subject.display().to_string(), error)),
    }
}
