//! A PostgreSQL server of one's own: made, started, asked and stopped with its own programs.
//!
//! It listens on a socket in its directory and nowhere else. PostgreSQL refuses to run as root;
//! started by root it runs as `postgres`, or as `nobody` where there is no such user.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tempfile::TempDir;

/// Where PostgreSQL's programs are.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

/// A server on a data directory. It is stopped when this drops.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    data: PathBuf,
    /// The directory of its socket, and of its log.
    home: PathBuf,
    /// Removed with the server, if it is its own.
    _own: Option<(TempDir, Arc<TempDir>)>,
}

impl Programs {
    /// Finds the server's programs.
    pub fn find() -> Option<Self> {
        let of_path = std::env::var_os("PATH").unwrap_or_default();
        let of_debian = fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten();
        let of_debian = of_debian.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
        // All in one place: a path may have some of them, of another version.
        let needed = ["initdb", "pg_ctl", "postgres", "psql"];
        let found = std::env::split_paths(&of_path)
            .chain(of_debian)
            .find(|directory| needed.iter().all(|name| directory.join(name).is_file()))?;
        Some(Programs(found))
    }

    /// Finds them, or says that a test or an example is left out. Where servers are required
    /// (`MERCURY_REQUIRE_SERVERS=1`) that is a failure.
    pub fn or_skip(what: &str) -> Option<Self> {
        let found = Programs::find();
        if found.is_none() {
            let required =
                std::env::var_os("MERCURY_REQUIRE_SERVERS").is_some_and(|one| one == "1");
            assert!(!required, "{what} needs PostgreSQL's server programs (postgresql-15)");
            eprintln!("SKIPPED {what}: PostgreSQL's server programs (postgresql-15) are missing");
        }
        found
    }

    /// A program, to be run as the user whom the server's files belong to.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.0.join(name));
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
        // Wherever the caller is, this user may not be let in.
        command.current_dir("/");
        if let Some((user, group)) = server_user() {
            command.uid(user).gid(group);
        }
        command
    }

    /// A data directory in which nothing has happened yet; made once for as long as somebody has a
    /// cluster that is a copy of it.
    fn template(&self) -> Arc<TempDir> {
        static TEMPLATE: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
        let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = template.upgrade() {
            return made;
        }
        let root = Arc::new(directory("mercury-initdb-"));
        let mut initdb = self.command("initdb");
        // Small segments, so that little has to be written for one to be full.
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]);
        run(initdb.arg("--wal-segsize=1").arg("-D").arg(root.path().join("data")));
        *template = Arc::downgrade(&root);
        root
    }
}

impl Cluster {
    /// Makes a cluster in a directory of its own, and starts its server.
    pub fn start(programs: &Programs) -> Self {
        let own = directory("mercury-postgres-");
        let (data, home) = (own.path().join("data"), own.path().to_owned());
        let template = programs.template();
        run(Command::new("cp").arg("-a").arg(template.path().join("data")).arg(&data));
        let _own = Some((own, template));
        let cluster = Cluster { programs: programs.clone(), data, home, _own };
        cluster.go_on();
        cluster
    }

    /// Starts a server on a data directory that was restored, and waits until it takes writes.
    pub fn start_restored(programs: &Programs, data: &Path) -> Result<Self, String> {
        let home = data.parent().expect("a data directory is in another").to_owned();
        let restored =
            Cluster { programs: programs.clone(), data: data.to_owned(), home, _own: None };
        restored.try_start()?;
        for _ in 0..600 {
            if restored.ask("SELECT pg_is_in_recovery()") == "f" {
                return Ok(restored);
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Err("the server replays for a minute, and has not come to the end".to_owned())
    }

    /// Starts it again.
    pub fn go_on(&self) {
        self.try_start().expect("the server starts");
    }

    fn try_start(&self) -> Result<(), String> {
        let log = self.home.join("server.log");
        let options = format!(
            "-c listen_addresses='' -k '{}' -c fsync=off -c shared_buffers=16MB \
             -c max_wal_size=64MB -c min_wal_size=2MB -c timezone=UTC -c archive_mode=off",
            self.home.display()
        );
        let mut start = self.programs.command("pg_ctl");
        start.args(["-w", "-t", "60", "-D"]).arg(&self.data).arg("-l").arg(&log);
        let status = start.args(["-o", &options, "start"]).stderr(Stdio::null()).status();
        if status.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        Err(format!("the server on {} does not start:\n{said}", self.data.display()))
    }

    /// Stops it; what it was told survives.
    pub fn stop(&self) {
        let mut stop = self.programs.command("pg_ctl");
        run(stop.args(["-w", "-m", "fast", "-D"]).arg(&self.data).arg("stop"));
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        &self.home
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Runs SQL; answers with what it returned, fields apart by `|`, rows by line ends.
    pub fn ask(&self, sql: &str) -> String {
        let mut psql = Command::new(self.programs.0.join("psql"));
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"]);
        psql.arg(&self.home).args(["-c", sql]).stdin(Stdio::null()).env("LC_ALL", "C");
        let answered = psql.output().expect("psql runs");
        let said = String::from_utf8_lossy(&answered.stderr);
        assert!(answered.status.success(), "{sql}: {said}");
        String::from_utf8_lossy(&answered.stdout).trim_end().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = self.programs.command("pg_ctl");
        stop.args(["-w", "-m", "immediate", "-D"]).arg(&self.data).arg("stop");
        // It may be stopped already.
        let _ = stop.stderr(Stdio::null()).status();
    }
}

/// A directory that the server's user can reach, and write to.
pub fn directory(prefix: &str) -> TempDir {
    let made = tempfile::Builder::new().prefix(prefix).tempdir().expect("a directory can be made");
    fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    if let Some((user, group)) = server_user() {
        chown(made.path(), Some(user), Some(group)).expect("root may");
    }
    made
}

/// Makes such a directory at `path`.
pub fn own_directory(path: &Path) {
    fs::create_dir(path).expect("a directory can be made");
    if let Some((user, group)) = server_user() {
        chown(path, Some(user), Some(group)).expect("root may");
    }
}

/// Whom the server runs as, if not as we do.
fn server_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self").expect("Linux has it").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("users are listed");
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let fields: Vec<&str> = line.split(':').collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody"))
}

fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
