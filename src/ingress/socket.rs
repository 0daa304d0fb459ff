//! The sockets: one for each endpoint, in a directory for each workload.
//!
//! **How.** A lock in the workload's directory says whether the sockets there are somebody's; it
//! goes with the process. So a socket that is found under the lock is a dead process's, unless a
//! program that knows nothing of the lock answers at it. Who may connect is decided by the kernel's
//! word on the caller, not by the modes of files, which only keep the rest away from the door.

use std::{
    fs::{self, DirBuilder, File, Metadata, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use fsm_core::Fault;
use plugin_sdk::Endpoint;
use tokio::net::{UnixListener, UnixStream};

use super::endpoint::Checked;
use crate::{Error, ErrorKind};

/// Others may write there.
const WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Sockets at which nobody listens yet: callers queue.
#[derive(Debug)]
pub(crate) struct Bound(pub(super) Vec<(Socket, UnixListener, Checked)>);

/// A socket's file. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    _lock: Arc<File>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a socket stays behind");
        }
    }
}

/// Makes the sockets of `declared` workloads in `directory`.
pub(crate) async fn bind(
    directory: &Path,
    declared: Vec<(String, Vec<Endpoint>)>,
) -> Result<Bound, Error> {
    let mut workloads = Vec::new();
    for (workload, endpoints) in declared {
        let checked = Checked::all(&workload, endpoints)?;
        workloads.push((workload, checked));
    }
    let is_for_others =
        |(_, endpoints): &(String, Vec<Checked>)| endpoints.iter().any(Checked::is_for_others);
    let mode = if workloads.iter().any(is_for_others) { 0o711 } else { 0o700 };
    top(directory, mode).map_err(|error| unusable(directory, error))?;
    let mut bound = Vec::new();
    for (workload, endpoints) in workloads {
        let below = directory.join(workload);
        let mode = if endpoints.iter().any(Checked::is_for_others) { 0o711 } else { 0o700 };
        own(&below, mode).map_err(|error| unusable(&below, error))?;
        let lock = Arc::new(lock(&below)?);
        for endpoint in endpoints {
            let path = below.join(format!("{}.sock", endpoint.name));
            let listener = listen(&path).await?;
            let socket = Socket { path, _lock: Arc::clone(&lock) };
            let mode = if endpoint.is_for_others() { 0o666 } else { 0o600 };
            let permissions = Permissions::from_mode(mode);
            fs::set_permissions(&socket.path, permissions)
                .map_err(|error| unusable(&socket.path, error))?;
            tracing::info!(path = %socket.path.display(), "programs of the workload may call");
            bound.push((socket, listener, endpoint));
        }
    }
    Ok(Bound(bound))
}

fn unusable(path: &Path, error: io::Error) -> Error {
    let message = format!("{} cannot be used for calls", path.display());
    let advice = "name a directory that this agent may write, and nobody else";
    let fault = Fault::user("ingress.directory", message).advise(advice);
    Error::new(ErrorKind::Ingress, fault).caused_by(error)
}

/// The directory that the embedder named: made if need be, else as it is.
fn top(path: &Path, mode: u32) -> io::Result<()> {
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(mode).create(path)?;
        return fs::set_permissions(path, Permissions::from_mode(mode));
    }
    let found = fs::metadata(path)?;
    let others_write = found.mode() & WRITABLE != 0 && found.mode() & STICKY == 0;
    if others_write || !(is_own(&found) || found.uid() == 0) {
        return Err(io::Error::other("others could put their own sockets there"));
    }
    Ok(())
}

/// A directory that is this agent's alone.
fn own(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || !is_own(&found) {
        return Err(io::Error::other("it is not a directory of this agent's user"));
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn is_own(found: &Metadata) -> bool {
    found.uid() == nix::unistd::geteuid().as_raw()
}

fn lock(directory: &Path) -> Result<File, Error> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true);
    let file = options.open(directory.join("lock")).map_err(|error| unusable(directory, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use(directory)),
        Err(TryLockError::Error(error)) => Err(unusable(directory, error)),
    }
}

fn in_use(path: &Path) -> Error {
    let message = format!("another program listens at {}", path.display());
    let advice = "stop that one first, or name another directory";
    Error::new(ErrorKind::InUse, Fault::user("ingress.in_use", message).advise(advice))
}

/// Listens at `path`, in the place of a socket at which nobody does.
async fn listen(path: &Path) -> Result<UnixListener, Error> {
    if path.symlink_metadata().is_ok() {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| unusable(path, error))?;
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(unusable(path, error));
            }
            // It answers, or would if it were not busy.
            _ => return Err(in_use(path)),
        }
    }
    UnixListener::bind(path).map_err(|error| unusable(path, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use plugin_sdk::Caller;
    use tempfile::TempDir;

    use super::*;

    fn declared(caller: Caller) -> Vec<(String, Vec<Endpoint>)> {
        vec![("pipes".to_owned(), vec![Endpoint::new("door").caller(caller)])]
    }

    fn own_user() -> Caller {
        Caller::Uid(nix::unistd::geteuid().as_raw())
    }

    fn mode(path: PathBuf) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn others_get_as_far_as_the_door_only_if_one_of_them_may_call() {
        let place = TempDir::new().unwrap();
        for (caller, top, below, socket) in
            [(own_user(), 0o700, 0o700, 0o600), (Caller::Uid(12_345), 0o711, 0o711, 0o666)]
        {
            let directory = place.path().join(format!("for-{socket:o}/run"));
            let bound = bind(&directory, declared(caller)).await.unwrap();
            assert_eq!(mode(directory.clone()), top);
            assert_eq!(mode(directory.join("pipes")), below);
            assert_eq!(mode(directory.join("pipes/door.sock")), socket);
            drop(bound);
            assert!(!directory.join("pipes/door.sock").exists(), "it goes with its engine");
        }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let place = TempDir::new().unwrap();
        let path = place.path().join("pipes/door.sock");
        fs::create_dir(place.path().join("pipes")).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = bind(place.path(), declared(own_user())).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::InUse, "ingress.in_use"));
        drop(other);
        assert!(path.exists(), "std leaves it there, as a killed process does");
        let bound = bind(place.path(), declared(own_user())).await.unwrap();
        let error = bind(place.path(), declared(own_user())).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::InUse, "ingress.in_use"));
        UnixStream::connect(&path).await.unwrap();
        drop(bound);
        fs::write(&path, "no socket").unwrap();
        let error = bind(place.path(), declared(own_user())).await.err();
        assert!(error.is_none(), "a file at which nobody listens goes, too: {error:?}");
    }

    #[tokio::test]
    async fn a_directory_that_others_may_write_is_refused() {
        let place = TempDir::new().unwrap();
        for (given, expected) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
            let directory = place.path().join(format!("{given:o}"));
            fs::create_dir(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(given)).unwrap();
            let bound = bind(&directory, declared(own_user())).await;
            assert_eq!(bound.is_ok(), expected, "{given:o}");
            assert_eq!(mode(directory), given & 0o777, "it is left as it is");
            if let Err(error) = bound {
                assert_eq!((error.kind(), error.code()), (ErrorKind::Ingress, "ingress.directory"));
            }
        }
        let elsewhere = place.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let directory = place.path().join("link");
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink(&elsewhere, directory.join("pipes")).unwrap();
        let error = bind(&directory, declared(own_user())).await.unwrap_err();
        assert_eq!(error.code(), "ingress.directory", "a link may lead anywhere");
    }
}
