//! PostgreSQL's own programs, as children of this process.
//!
//! **Promise.** A program that is dropped is killed and waited for; one that is told to stop while
//! it is silent is killed, too. Its password is in its environment, never among its arguments.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use plugin_sdk::{Cancellation, Fault};

use crate::settings::{Cluster, Settings};

/// How much of what a program complains about is kept.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// How often a silent program is looked after.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Program {
    name: &'static str,
    child: Arc<Mutex<Child>>,
    stdout: Option<ChildStdout>,
    complaint: Option<JoinHandle<String>>,
    /// Dropped when nobody need look after the program any more.
    watched: Option<mpsc::Sender<()>>,
    watch: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts `name` with the connection of `cluster`. Requesting `cancel` kills it.
    pub(crate) fn start(
        settings: &Settings,
        cluster: &Cluster,
        name: &'static str,
        arguments: &[&str],
        cancel: Cancellation,
    ) -> Result<Self, Fault> {
        let mut command = Command::new(find(settings, name)?);
        command
            .args(arguments)
            .arg("--no-password")
            // What it complains about is for us, and in one language.
            .env("LC_ALL", "C")
            .env("PGHOST", &cluster.host)
            .env("PGPORT", cluster.port.to_string())
            .env("PGUSER", &cluster.user)
            .env("PGAPPNAME", "mercury")
            .env("PGCONNECT_TIMEOUT", Cluster::CONNECT_TIMEOUT.as_secs().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(password) = cluster.password()? {
            command.env("PGPASSWORD", password.reveal());
        }
        let mut child = command.spawn().map_err(|error| missing(name).caused_by(&error))?;
        let stdout = child.stdout.take();
        let complaint = child.stderr.take().map(|stderr| {
            thread::spawn(move || {
                let mut said = Vec::new();
                let mut first = stderr.take(COMPLAINT_BYTES_MAX);
                // What cannot be read is not said; the rest is read so that it can be written.
                let _ = first.read_to_end(&mut said);
                let _ = io::copy(&mut first.into_inner(), &mut io::sink());
                String::from_utf8_lossy(&said).trim().to_owned()
            })
        });
        let child = Arc::new(Mutex::new(child));
        let (watched, over) = mpsc::channel();
        let watch = thread::spawn({
            let child = Arc::clone(&child);
            move || look_after(&child, &cancel, &over)
        });
        Ok(Program { name, child, stdout, complaint, watched: Some(watched), watch: Some(watch) })
    }

    /// Reads from its standard output until `buffer` is full or the output ends.
    pub(crate) fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(stdout) = &mut self.stdout else { return Ok(0) };
        let mut length = 0;
        while length < buffer.len() {
            match stdout.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let message = format!("cannot read what `{}` writes", self.name);
                    return Err(Fault::retryable("postgres.program", message).caused_by(&error));
                }
            }
        }
        Ok(length)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// A retryable fault with what it complained about: the server is asked first, by SQL, whether
    /// it can be backed up at all, so that what is left is what may pass.
    pub(crate) fn finish(mut self) -> Result<(), Fault> {
        drop(self.stdout.take());
        let complaint = self.complaint.take().and_then(|thread| thread.join().ok());
        let status = self.wait().map_err(|error| {
            let message = format!("cannot wait for `{}`", self.name);
            Fault::retryable("postgres.program", message).caused_by(&error)
        })?;
        if status.success() {
            return Ok(());
        }
        let said = complaint.unwrap_or_default();
        let message = format!("`{}` ended with {status}: {said}", self.name);
        Err(Fault::retryable("postgres.program", message)
            .advise("look into the server's log for the same moment"))
    }

    /// Waits, but lets others at the child meanwhile.
    fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            // Its standard error has ended, so it is about to.
            if let Some(status) = lock(&self.child).try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.watched.take());
        if let Some(watch) = self.watch.take() {
            // It does nothing that could panic.
            let _ = watch.join();
        }
        let mut child = lock(&self.child);
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn look_after(child: &Mutex<Child>, cancel: &Cancellation, over: &mpsc::Receiver<()>) {
    while over.recv_timeout(LOOK_AFTER) == Err(RecvTimeoutError::Timeout) {
        if cancel.is_requested() {
            // It may have ended by itself.
            let _ = lock(child).kill();
            return;
        }
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(settings: &Settings, name: &str) -> Result<PathBuf, Fault> {
    let of_path = || std::env::var_os("PATH").unwrap_or_default();
    let found = match &settings.programs {
        Some(directory) => Some(directory.join(name)).filter(|path| path.is_file()),
        None => std::env::split_paths(&of_path())
            .chain(of_debian())
            .map(|directory| directory.join(name))
            .find(|path| path.is_file()),
    };
    found.ok_or_else(|| missing(name))
}

/// Debian and its kin keep the programs of each version apart, the newest last.
fn of_debian() -> Vec<PathBuf> {
    let Ok(versions) = Path::new("/usr/lib/postgresql").read_dir() else { return Vec::new() };
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut versions: Vec<_> = versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((version(&path)?, path.join("bin"))))
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, path)| path).collect()
}

fn missing(name: &str) -> Fault {
    Fault::user("postgres.no_program", format!("there is no program `{name}`"))
        .advise("install PostgreSQL's client programs, or say in `programs` where they are")
}
