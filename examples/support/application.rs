//! The application whose database is backed up: a process of its own.
//!
//! **Why a process.** The plugin has its own copy of SQLite inside. If two copies of SQLite in one
//! process open the same file, closing it in one drops the locks of the other
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2.1). So the process with the engine never
//! opens a database by itself; whatever it wants from one, it asks an [`Application`].
//!
//! **How.** The example starts itself once more with `--application DATABASE`; [`serve`] is what
//! that process does. Orders and answers are lines of JSON on its standard input and output. It
//! keeps a connection open until its input ends, as applications do: a database that nobody has
//! open folds its log into its file.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::content;
use super::dataset::{self, Scattered};
use super::report::Report;
use super::watch;

const ROLE: &str = "--application";
/// Between two transactions of the application.
const PAUSE: Duration = Duration::from_millis(2);

/// A handle to the application's process, which ends when the handle drops.
#[derive(Debug)]
pub struct Application {
    path: PathBuf,
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What the application is told to do.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Create { bytes: u64 },
    CreateScattered { bytes: u64, layout: Scattered },
    Change { fraction: f64 },
    ChangeScattered { fraction: f64 },
    Trade,
    Rest,
    TableHashes,
    CheckIntegrity,
}

/// What it says to that. `Progress` is followed by another answer.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Progress { done: u64, total: u64 },
    Done,
    Committed(u64),
    Hashes(BTreeMap<String, String>),
    Integrity(String),
    Failed(String),
}

/// Whether this process was started to be the application.
pub fn is_this_process() -> bool {
    std::env::args_os().nth(1).is_some_and(|role| role == ROLE)
}

impl Application {
    /// Starts the application of the database at `path`, which need not exist yet.
    pub fn start(path: &Path) -> Result<Self, Report> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ROLE)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.ok_or_else(|| Report::new("the application has no pipes"))?;
        let answers = BufReader::new(answers).lines();
        Ok(Application { path: path.to_owned(), child, orders, answers })
    }

    /// The database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the shop's database, of about `bytes`; returns its real size.
    pub async fn create(&mut self, bytes: u64) -> Result<u64, Report> {
        self.ask(Order::Create { bytes }, "creating the database").await?;
        Ok(std::fs::metadata(&self.path)?.len())
    }

    /// Creates a database whose keys are random; returns its real size.
    pub async fn create_scattered(&mut self, bytes: u64, layout: Scattered) -> Result<u64, Report> {
        self.ask(Order::CreateScattered { bytes, layout }, "creating the database").await?;
        Ok(std::fs::metadata(&self.path)?.len())
    }

    /// Changes the newest `fraction` of the shop's rows and appends as much again.
    pub async fn change(&mut self, fraction: f64) -> Result<(), Report> {
        self.ask(Order::Change { fraction }, "changing the database").await.map(drop)
    }

    /// The same for a database from [`create_scattered`](Self::create_scattered).
    pub async fn change_scattered(&mut self, fraction: f64) -> Result<(), Report> {
        self.ask(Order::ChangeScattered { fraction }, "changing the database").await.map(drop)
    }

    /// Has it commit small transactions, one after the other, until it is told to
    /// [`rest`](Self::rest).
    pub async fn trade(&mut self) -> Result<(), Report> {
        self.ask(Order::Trade, "").await.map(drop)
    }

    /// Has it commit nothing more; returns how many transactions there were. It keeps the
    /// database open.
    pub async fn rest(&mut self) -> Result<u64, Report> {
        match self.ask(Order::Rest, "").await? {
            Answer::Committed(count) => Ok(count),
            answer => Err(unexpected(&answer)),
        }
    }

    /// The hash of every table's rows.
    pub async fn table_hashes(&mut self) -> Result<BTreeMap<String, String>, Report> {
        match self.ask(Order::TableHashes, "").await? {
            Answer::Hashes(hashes) => Ok(hashes),
            answer => Err(unexpected(&answer)),
        }
    }

    /// What `PRAGMA integrity_check` says: `ok`, or what is wrong.
    pub async fn check_integrity(&mut self) -> Result<String, Report> {
        match self.ask(Order::CheckIntegrity, "").await? {
            Answer::Integrity(verdict) => Ok(verdict),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Closes the database and ends the process.
    pub async fn close(self) -> Result<(), Report> {
        let Application { mut child, orders, .. } = self;
        drop(orders);
        child.wait().await?;
        Ok(())
    }

    async fn ask(&mut self, order: Order, title: &str) -> Result<Answer, Report> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await?;
        let bar = watch::bar(title);
        while let Some(line) = self.answers.next_line().await? {
            match serde_json::from_str(&line)? {
                Answer::Progress { done, total } => watch::show(&bar, done, Some(total)),
                Answer::Failed(why) => {
                    return Err(Report::new(format!("{}: {why}", self.path.display())));
                }
                answer => {
                    bar.finish_and_clear();
                    return Ok(answer);
                }
            }
        }
        Err(Report::new("the application's process has ended"))
    }
}

fn unexpected(answer: &Answer) -> Report {
    Report::new(format!("the application answered {answer:?}"))
}

/// What the database at `path` holds, once SQLite has found it sound.
pub async fn hashes_of_sound(path: &Path) -> Result<BTreeMap<String, String>, Report> {
    let mut reader = Application::start(path)?;
    let integrity = reader.check_integrity().await?;
    println!("  PRAGMA integrity_check: {integrity}");
    if integrity != "ok" {
        return Err(Report::new("the restored database is damaged"));
    }
    let hashes = reader.table_hashes().await?;
    let tables: Vec<&str> = hashes.keys().map(String::as_str).collect();
    println!("  compared by hash: {}\n", tables.join(", "));
    reader.close().await?;
    Ok(hashes)
}

/// What the application's process does, until its input ends.
pub fn serve() -> Result<(), Report> {
    let path = std::env::args_os().nth(2).map(PathBuf::from);
    let path = path.ok_or_else(|| Report::new("an application has a database"))?;
    let mut served = Served { path, open: None, trading: None };
    for line in io::stdin().lock().lines() {
        let answer = served.obey(serde_json::from_str(&line?)?);
        say(&answer.unwrap_or_else(|error| Answer::Failed(error.to_string())))?;
    }
    Ok(())
}

/// The application itself.
struct Served {
    path: PathBuf,
    /// Open while the application has work to do with its database.
    open: Option<Connection>,
    trading: Option<Trading>,
}

struct Trading {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<rusqlite::Result<u64>>,
}

impl Served {
    fn obey(&mut self, order: Order) -> Result<Answer, Box<dyn Error>> {
        let path = &self.path;
        let progress = |done, total| {
            // Whoever asked may have gone; then the next read of the input says so.
            let _ = say(&Answer::Progress { done, total });
        };
        match order {
            Order::Create { bytes } => dataset::create(path, bytes, progress)?,
            Order::CreateScattered { bytes, layout } => {
                dataset::create_scattered_as(path, layout, bytes, progress)?;
            }
            Order::Change { fraction } => {
                dataset::change_newest(path, fraction)?;
                dataset::append(path, fraction)?;
            }
            Order::ChangeScattered { fraction } => {
                dataset::change_newest_scattered(path, fraction)?;
                dataset::append_scattered(path, fraction)?;
            }
            Order::Trade => self.trade()?,
            Order::Rest => return Ok(Answer::Committed(self.rest()?)),
            Order::TableHashes => return Ok(Answer::Hashes(content::table_hashes(path)?)),
            Order::CheckIntegrity => {
                return Ok(Answer::Integrity(content::check_integrity(path)?));
            }
        }
        Ok(Answer::Done)
    }

    fn trade(&mut self) -> Result<(), Box<dyn Error>> {
        let connection = Connection::open(&self.path)?;
        // A connection has its file open from the first statement on.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        self.open = Some(connection);
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, path) = (Arc::clone(&stop), self.path.clone());
        let thread = thread::spawn(move || {
            dataset::write_until(&path, || {
                thread::sleep(PAUSE);
                asked.load(Ordering::Relaxed)
            })
        });
        self.trading = Some(Trading { stop, thread });
        Ok(())
    }

    fn rest(&mut self) -> Result<u64, Box<dyn Error>> {
        let trading = self.trading.take().ok_or("the application does not trade")?;
        trading.stop.store(true, Ordering::Relaxed);
        let commits = trading.thread.join().map_err(|_| "the application's thread panicked")?;
        Ok(commits?)
    }
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}
