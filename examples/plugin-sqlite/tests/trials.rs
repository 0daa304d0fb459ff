//! Both machines on trial: their process dies at each write of its journal, twice in a row; their
//! steps run again, fail and are cancelled; their host stumbles at each of its calls.
//!
//! A play has a world of its own, but its paths are those of the play before: they are part of the
//! machines' input and results, which have to be equal.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/archive.rs"]
mod archive;
mod common;
#[path = "common/stage.rs"]
mod stage;

use std::{
    cell::Cell,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use archive::{Archive, Moment, Point};
use common::{back_up, make};
use fsm_core::{
    Ending, Hosted,
    testing::{Trial, TrialError, TrialReport},
};
use plugin_sdk::{Overwrite, PointId};
use plugin_sqlite::{Backup, Inspect, Receive, Restore, restore::FileMeta};
use rusqlite::Connection;
use serde_json::Value;
use stage::{
    Content, Look, SIDECARS, Stage, beside, content, content_of_bytes, content_of_copy, look,
};

const OLD: &str = "CREATE TABLE old (body); INSERT INTO old VALUES ('kept until it is replaced')";
const NEW: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, body UNIQUE);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
    INSERT INTO t SELECT i, printf('row %050d', i * 7919) FROM n;";
const STREAM: &str = "database";

/// A tool of the kit.
type Tool<W> = fn(&Trial<W>) -> Result<TrialReport, TrialError>;

/// `tool` plays `trial`, whose run ends in `state` when nothing disturbs it.
#[track_caller]
fn check<W: 'static>(
    what: &str,
    trial: &Trial<W>,
    tool: Tool<W>,
    (ending, state): (Ending, &str),
) -> TrialReport {
    let report = tool(trial).unwrap();
    println!("{what}: {report}");
    assert_eq!((report.end().ending, report.end().state.as_str()), (ending, state), "{what}");
    assert!(report.schedules() > 0 && report.schedules() == report.possible(), "{what}: {report}");
    report
}

/// Plays what `trial` makes of an archive whose first call fails, then its second, until none is
/// left to fail; `calls` says how many there were. The run ends in `state` all the same.
#[track_caller]
fn check_stumbles<W: 'static>(
    state: &str,
    trial: impl Fn(Box<dyn Fn() -> Archive>) -> Trial<W>,
    calls: fn(&W) -> usize,
) {
    for moment in [Moment::Before, Moment::After] {
        for call in 1.. {
            let made = Rc::new(Cell::new(0));
            let tally = Rc::clone(&made);
            let trial = trial(Box::new(move || Archive::stumbling(call, moment)));
            let trial = trial.always(move |world| {
                tally.set(calls(world));
                Ok(())
            });
            let report = trial.undisturbed().unwrap();
            assert_eq!(report.end().state, state, "call {call} fails, {moment} its work");
            if made.get() < call {
                let calls = call - 1;
                println!("{state}: {calls} calls of the host, each failed, {moment} its work");
                assert!(call > 1, "it does not call its host");
                break;
            }
        }
    }
}

/// A database that an application has open, and the archive that it is backed up into.
struct Live {
    archive: Archive,
    application: Connection,
    path: PathBuf,
    content: Content,
    look: Look,
}

impl Live {
    fn new(archive: Archive, path: &Path, journal_mode: &str) -> Self {
        let sql = format!("PRAGMA synchronous = OFF; {NEW}");
        let application = make(path, journal_mode, &sql);
        application.busy_timeout(Duration::ZERO).unwrap();
        let (content, look) = (content(path).unwrap(), look(path));
        Live { archive, application, path: path.to_owned(), content, look }
    }

    /// Of each point its id, the notes for its restore, and its content.
    fn points(&self) -> Vec<(PointId, Value, Result<Content, String>)> {
        let points = self.archive.points().into_iter();
        let read = points
            .map(|(id, point)| (id, point.notes.details, content_of_bytes(&point.streams[STREAM])));
        read.collect()
    }

    /// There is no second point, and none that is not whole.
    fn is_well_kept(&self) -> Result<(), String> {
        match &self.points()[..] {
            [] => Ok(()),
            [(.., found)] if *found == Ok(self.content.clone()) => Ok(()),
            others => Err(format!("{} points, the first with {:?}", others.len(), others[0].2)),
        }
    }

    fn has_a_point(&self) -> Result<(), String> {
        if self.points().is_empty() { Err("there is no point".to_owned()) } else { Ok(()) }
    }

    /// The source is as it was, and its application can go on: no lock is left, nor a snapshot,
    /// which would keep the log from being folded in.
    fn is_unharmed(&self) -> Result<(), String> {
        if look(&self.path) != self.look {
            return Err("the source's files were written to".to_owned());
        }
        if content(&self.path)? != self.content {
            return Err("the source's content has changed".to_owned());
        }
        let go_on = || {
            self.application.execute("UPDATE t SET body = 'later' WHERE id = 1", [])?;
            self.application.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        };
        match go_on() {
            Ok(false) => Ok(()),
            Ok(true) => Err("a snapshot is left open".to_owned()),
            Err(error) => Err(format!("a lock is left: {error}")),
        }
    }
}

fn backup(journal_mode: &'static str, archive: impl Fn() -> Archive + 'static) -> Trial<Live> {
    let stage = Stage::new();
    let path = stage.directory().join("source.db");
    let inspect = Inspect { path: path.clone(), busy_timeout_ms: 0 };
    Trial::new("backup", &inspect)
        .world(move || {
            stage.clear();
            Live::new(archive(), &path, journal_mode)
        })
        .machine(|live| Hosted::new(Backup, live.archive.host()))
        .observe(Live::points)
        .observe(|live| live.archive.held())
        .always(Live::is_well_kept)
        .always(Live::is_unharmed)
}

#[test]
fn a_backup_is_one_whole_point_whatever_disturbs_it() {
    let tools: [(&str, Tool<Live>); 4] = [
        ("deaths", Trial::crash_everywhere),
        ("steps again", Trial::repeat_every_effect),
        ("failures", Trial::fail_every_step),
        ("cancels", Trial::cancel_every_step),
    ];
    for journal_mode in ["WAL", "DELETE"] {
        let undisturbed = backup(journal_mode, Archive::default).always(Live::has_a_point);
        undisturbed.undisturbed().unwrap();
        for (what, tool) in tools {
            let found_again = Rc::new(Cell::new(0));
            let tally = Rc::clone(&found_again);
            let trial = backup(journal_mode, Archive::default).always(move |live| {
                tally.set(tally.get() + live.archive.found_again());
                Ok(())
            });
            let end = (Ending::Completed, "sealed");
            let what = format!("{journal_mode}, {what}");
            check(&what, &trial, tool, end);
            println!("{what}: {} takes and points found again", found_again.get());
            assert!(found_again.get() > 0 || what.ends_with("cancels"), "{what}");
        }
    }
}

#[test]
fn a_backup_stands_a_host_that_stumbles() {
    let trial = |archive| backup("WAL", archive).always(Live::has_a_point);
    check_stumbles("sealed", trial, |live| live.archive.calls());
}

/// What a restore finds in its target's place.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// A database whose application has died: what was committed last is in its log.
    Old,
}

/// A directory to restore into, and the archive that holds the point.
struct Target {
    archive: Archive,
    path: PathBuf,
    old: Option<Content>,
    new: Content,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Found {
    Nothing,
    Old,
    New,
}

impl Target {
    /// Which database has the target's name.
    fn found(&self) -> Result<Found, String> {
        if !self.path.exists() {
            let gone = "the old database is gone, and there is no new one";
            return if self.old.is_none() { Ok(Found::Nothing) } else { Err(gone.to_owned()) };
        }
        let found = content_of_copy(&self.path)?;
        match &self.old {
            _ if found == self.new => Ok(Found::New),
            Some(old) if found == *old => Ok(Found::Old),
            _ => Err(format!("neither the old database nor the new one: {found:?}")),
        }
    }

    /// What else is in the directory.
    fn others(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path.parent().unwrap()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut others: Vec<_> = paths.filter(|path| *path != self.path).collect();
        others.sort();
        others
    }

    /// Nothing is beside the target but what belongs to the old database, if that is still there.
    fn is_tidy(&self) -> Result<(), String> {
        let is_old = self.found()? == Found::Old;
        let own = SIDECARS.map(|suffix| beside(&self.path, suffix));
        match self.others().into_iter().find(|other| !is_old || !own.contains(other)) {
            Some(left) => Err(format!("{} is left", left.display())),
            None => Ok(()),
        }
    }

    fn mode(&self) -> Option<u32> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some(metadata.permissions().mode() & 0o7777)
    }
}

fn restore(
    before: Before,
    overwrite: Overwrite,
    archive: impl Fn() -> Archive + 'static,
) -> Trial<Target> {
    let stage = Stage::new();
    let target = stage.directory().join("target.db");
    let (source, copy) = (stage.behind("source.db"), stage.behind("copy.db"));
    drop(make(&source, "WAL", NEW));
    back_up(&source, &copy);
    let bytes = fs::read(&copy).unwrap();
    let new = content_of_copy(&copy).unwrap();
    // Its application is alive for as long as its files are copied.
    let abandoned = stage.behind("abandoned.db");
    let application = make(&abandoned, "WAL", OLD);
    let old = content_of_copy(&abandoned).unwrap();
    let files = ["", "-wal"].map(|suffix| fs::read(beside(&abandoned, suffix)).unwrap());
    drop(application);

    let meta = FileMeta { mode: 0o640, ..FileMeta::of(&copy).unwrap() };
    let (point, key) = (PointId::new("point"), "trial".to_owned());
    let receive =
        Receive { point: point.clone(), target: target.clone(), key, overwrite, meta: Some(meta) };
    Trial::new("restore", &receive)
        .world(move || {
            stage.clear();
            if before == Before::Old {
                fs::write(&target, &files[0]).unwrap();
                fs::write(beside(&target, "-wal"), &files[1]).unwrap();
            }
            let archive = archive();
            archive.put(&point, Point::of(STREAM, bytes.clone()));
            let old = (before == Before::Old).then(|| old.clone());
            Target { archive, path: target.clone(), old, new: new.clone() }
        })
        .machine(|target| Hosted::new(Restore, target.archive.host()))
        .observe(Target::found)
        .observe(Target::others)
        .observe(Target::mode)
        .throughout(|target| target.found().map(drop))
        .always(Target::is_tidy)
}

/// Plays all that can go wrong with a restore that ends in `state`, with `there` in the target's
/// place, when nothing does.
#[track_caller]
fn check_restore(
    what: &str,
    before: Before,
    overwrite: Overwrite,
    end: (Ending, &str),
    there: Found,
) {
    let trial = restore(before, overwrite, Archive::default);
    leaving(restore(before, overwrite, Archive::default), there).undisturbed().unwrap();
    check(&format!("{what}, deaths"), &trial, Trial::crash_everywhere, end);
    check(&format!("{what}, steps again"), &trial, Trial::repeat_every_effect, end);
    let failures = check(&format!("{what}, failures"), &trial, Trial::fail_every_step, end);
    assert!(failures.coverage()[0].taken("discard", "failed") > 0, "{}", failures.coverage()[0]);
    let cancels = check(&format!("{what}, cancels"), &trial, Trial::cancel_every_step, end);
    assert!(cancels.coverage()[0].taken("discard", "aborted") > 0, "{}", cancels.coverage()[0]);
}

/// `trial`, whose every play has to leave `there` in the target's place.
fn leaving(trial: Trial<Target>, there: Found) -> Trial<Target> {
    trial.always(move |target| match target.found()? {
        found if found == there => Ok(()),
        found => Err(format!("in the target's place is {found:?}")),
    })
}

const RESTORED: (Ending, &str) = (Ending::Completed, "restored");

#[test]
fn a_restore_to_a_free_name_is_whole_or_absent() {
    check_restore("free name", Before::Nothing, Overwrite::Refuse, RESTORED, Found::New);
}

#[test]
fn a_restore_over_an_old_database_leaves_the_old_or_the_new() {
    check_restore("replaced", Before::Old, Overwrite::Replace, RESTORED, Found::New);
}

#[test]
fn a_restore_that_must_not_replace_leaves_the_old() {
    let end = (Ending::Failed, "failed");
    check_restore("refused", Before::Old, Overwrite::Refuse, end, Found::Old);
}

#[test]
fn a_restore_stands_a_host_that_stumbles() {
    let trial = |archive| leaving(restore(Before::Old, Overwrite::Replace, archive), Found::New);
    check_stumbles("restored", trial, |target| target.archive.calls());
}
