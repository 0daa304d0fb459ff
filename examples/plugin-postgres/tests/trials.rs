//! The machines on trial: their process dies at writes of its journal, twice in a row; their steps
//! run again, fail and are cancelled.
//!
//! The backups' outside world is a real server, so a play takes a second, and a sample of all plays
//! is drawn. A play begins with a server on the same files. A restore needs no server, and is tried
//! with everything that can go wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../plugin-sqlite/tests/common/archive.rs"]
#[allow(dead_code, reason = "shared with the trials of another plugin")]
mod archive;
#[path = "../../support/cluster.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses its own part")]
mod cluster;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
};

use archive::{Archive, Point};
use cluster::{Cluster, Programs, directory};
use fsm_core::{
    Ending, Hosted,
    testing::{Trial, TrialError, TrialReport},
};
use plugin_postgres::{
    Full, Inspect, InspectLog, Lineage, Log, Lsn, Notes, Postgres, ReplayTo, Restore, SegmentSize,
    Unpack, Wal, Wish,
};
use plugin_sdk::{Config, Machine, Overwrite, PointId, Timestamp, Workload};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How many plays of each kind are drawn where a play takes a server.
const SAMPLE: usize = 4;

/// A tool of the kit.
type Tool<W> = fn(&Trial<W>) -> Result<TrialReport, TrialError>;

#[track_caller]
fn check<W: 'static>(trial: &Trial<W>, end: (Ending, &str)) {
    let tools: [(&str, Tool<W>); 4] = [
        ("deaths", Trial::crash_everywhere),
        ("steps again", Trial::repeat_every_effect),
        ("failures", Trial::fail_every_step),
        ("cancels", Trial::cancel_every_step),
    ];
    for (what, tool) in tools {
        let report = tool(trial).unwrap();
        println!("{what}: {report}");
        assert_eq!((report.end().ending, report.end().state.as_str()), end, "{what}");
        assert!(report.schedules() > 0, "{what}: {report}");
    }
}

/// A server's files, and where a server is started on them.
struct Stage {
    programs: Programs,
    root: TempDir,
    lineage: Lineage,
    from: Lsn,
}

impl Stage {
    /// A server that has a slot, and has written since.
    fn new(programs: Programs) -> Self {
        let root = directory("mercury-trial-");
        let prepared = Cluster::start(&programs);
        prepared.ask("CREATE TABLE t (n int)");
        prepared.ask("SELECT pg_switch_wal()");
        prepared.ask("SELECT pg_create_physical_replication_slot('mercury_main', true)");
        let seen = prepared.ask(
            "SELECT system_identifier, pg_current_wal_insert_lsn() - '0/0'::pg_lsn
             FROM pg_control_system()",
        );
        let (system_id, at) = seen.split_once('|').unwrap();
        let segment_bytes = SegmentSize::try_from(1 << 20).unwrap();
        let from = segment_bytes.floor(Lsn::new(at.parse().unwrap()));
        let lineage = Lineage { system_id: system_id.to_owned(), timeline: 1, segment_bytes };
        prepared.ask("INSERT INTO t SELECT generate_series(1, 20000)");
        prepared.stop();
        copy(prepared.data(), &root.path().join("prepared"));
        Stage { programs, root, lineage, from }
    }

    /// Starts a server on the files as they were.
    fn begin(&self, archive: Archive) -> Live {
        let data = self.root.path().join("data");
        let _ = fs::remove_dir_all(&data);
        copy(&self.root.path().join("prepared"), &data);
        let server = Cluster::start_restored(&self.programs, &data).unwrap();
        Live { archive, server, from: self.from }
    }

    fn workload(&self) -> Postgres {
        let config = json!({ "clusters": [{ "name": "main", "host": self.root.path() }] });
        Postgres::open(Config::new(config)).unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A server, and the archive that it is backed up into.
struct Live {
    archive: Archive,
    server: Cluster,
    from: Lsn,
}

impl Live {
    fn notes(&self) -> Vec<(Notes, Point)> {
        let points = self.archive.points().into_values();
        let read =
            |point: Point| (serde_json::from_value(point.notes.details.clone()).unwrap(), point);
        points.map(read).collect()
    }

    /// From where on the server keeps its log.
    fn kept(&self) -> Lsn {
        let slot = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'mercury_main'";
        self.server.ask(slot).parse().unwrap()
    }

    /// What is in no point is kept by the server.
    fn has_lost_nothing(&self) -> Result<(), String> {
        let notes = self.notes();
        let sealed = notes.iter().map(|(notes, _)| match notes {
            Notes::Wal(wal) => wal.to,
            Notes::Base(base) => base.lineage.segment_bytes.ceiling(base.stop),
        });
        let (kept, sealed) = (self.kept(), sealed.max().unwrap_or(self.from));
        // The slot was made within the segment.
        match kept.bytes() >> 20 <= sealed.bytes() >> 20 {
            true => Ok(()),
            false => Err(format!("the server keeps {kept} on, and {sealed} is the end of points")),
        }
    }

    /// There is one point at most, and it is whole.
    fn is_well_kept(&self) -> Result<(), String> {
        let notes = self.notes();
        if notes.len() > 1 {
            return Err(format!("{} points", notes.len()));
        }
        for (notes, point) in notes {
            match notes {
                Notes::Wal(wal) => self.is_log(&wal, &point.streams["wal"])?,
                Notes::Base(_) => is_base(&point.streams["base.tar"])?,
            }
        }
        Ok(())
    }

    /// The stream holds what is in the server's own files.
    fn is_log(&self, wal: &Wal, stream: &[u8]) -> Result<(), String> {
        let size = wal.lineage.segment_bytes;
        let (mut at, mut own) = (wal.from, Vec::new());
        while at < wal.to {
            let name = size.file_name(1, at);
            let segment = fs::read(self.server.data().join("pg_wal").join(&name));
            match segment {
                Ok(segment) => own.push((at, segment)),
                // It was let go, and is another segment's file by now.
                Err(_) if at < self.kept() => {}
                Err(error) => return Err(format!("{name}: {error}")),
            }
            at = Lsn::new(at.bytes() + size.bytes());
        }
        if stream.len() as u64 != wal.to.bytes() - wal.from.bytes() {
            return Err(format!("{} bytes from {} to {}", stream.len(), wal.from, wal.to));
        }
        for (at, segment) in own {
            let offset = (at.bytes() - wal.from.bytes()) as usize;
            if stream[offset..offset + segment.len()] != segment {
                return Err(format!("the segment at {at} is another one"));
            }
        }
        Ok(())
    }

    /// How many points there are, and what is kept for no point.
    fn kept_for_points(&self) -> (usize, Vec<String>) {
        (self.archive.points().len(), self.archive.held())
    }
}

fn is_base(stream: &[u8]) -> Result<(), String> {
    let mut archive = tar::Archive::new(stream);
    let entries = archive.entries().map_err(|error| error.to_string())?;
    let paths = entries.map(|entry| {
        let entry = entry.map_err(|error| error.to_string())?;
        Ok(entry.path().map_err(|error| error.to_string())?.display().to_string())
    });
    let paths: Vec<String> = paths.collect::<Result<_, String>>()?;
    let needed = ["backup_label", "global/pg_control", "backup_manifest"];
    match needed.iter().find(|needed| !paths.iter().any(|path| path == *needed)) {
        Some(missing) => Err(format!("{missing} is not in the base backup")),
        None => Ok(()),
    }
}

fn backup<M: Machine<Host = plugin_sdk::Host>>(
    stage: &Rc<Stage>,
    input: &impl serde::Serialize,
    machine: fn(&Postgres) -> M,
) -> Trial<Live> {
    let (world, workload) = (Rc::clone(stage), stage.workload());
    Trial::new(M::NAME, input)
        .world(move || world.begin(Archive::default()))
        .machine(move |live: &Live| Hosted::new(machine(&workload), live.archive.host()))
        .observe(Live::kept_for_points)
        .throughout(Live::has_lost_nothing)
        .always(Live::has_lost_nothing)
        .always(Live::is_well_kept)
        .at_most(SAMPLE)
}

fn log_of(stage: &Stage, from: Lsn) -> Value {
    let base = PointId::new("full");
    let (lineage, cluster) = (stage.lineage.clone(), "main".to_owned());
    serde_json::to_value(InspectLog { cluster, lineage, from, base }).unwrap()
}

#[test]
fn a_log_backup_loses_nothing_whatever_disturbs_it() {
    let Some(programs) = Programs::or_skip("the trial of log backups") else { return };
    let stage = Rc::new(Stage::new(programs));
    let trial = backup(&stage, &log_of(&stage, stage.from), Log::of);
    check(&trial, (Ending::Completed, "sealed"));
}

#[test]
fn a_log_that_the_server_has_let_go_asks_for_a_full_backup() {
    let Some(programs) = Programs::or_skip("the trial of a lost log") else { return };
    let stage = Rc::new(Stage::new(programs));
    // As if the decision had been made before somebody let the server forget.
    let beginning = Lsn::new(1 << 20);
    let trial = backup(&stage, &log_of(&stage, beginning), Log::of);
    let report = trial.undisturbed().unwrap();
    assert_eq!(
        (report.end().ending, report.end().state.as_str()),
        (Ending::Redirected, "redirect")
    );
}

#[test]
fn a_full_backup_is_one_whole_point_whatever_disturbs_it() {
    let Some(programs) = Programs::or_skip("the trial of full backups") else { return };
    let stage = Rc::new(Stage::new(programs));
    let input = Inspect { cluster: "main".to_owned(), begins_anew: true };
    let trial = backup(&stage, &input, Full::of);
    check(&trial, (Ending::Completed, "sealed"));
}

/// A directory to restore into, and the archive that holds the points.
struct Target {
    archive: Archive,
    path: PathBuf,
    before: Option<&'static str>,
}

const SEGMENT: usize = 1 << 20;

impl Target {
    /// What is in the target's place: `old`, `new` or nothing.
    fn found(&self) -> Result<Option<&'static str>, String> {
        if !self.path.exists() {
            return match self.before {
                // Between two moves of directories nothing has its name; the next attempt, or
                // giving up, makes good for it.
                Some(_) if self.beside().iter().any(|name| name.ends_with(".old")) => Ok(None),
                Some(_) => Err("the old directory is gone".to_owned()),
                None => Ok(None),
            };
        }
        if self.path.join("old").exists() {
            return Ok(Some("old"));
        }
        let read = |name: &str| fs::read(self.path.join(name)).unwrap_or_default();
        let mut segments: Vec<_> = fs::read_dir(self.path.join("mercury_wal"))
            .map_err(|error| format!("the log is missing: {error}"))?
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        segments.sort();
        let log = |n: u8| vec![n; SEGMENT];
        let whole = read("PG_VERSION") == b"15\n"
            && read("base/1") == vec![7; 5000]
            && segments == ["000000010000000000000003", "000000010000000000000004"]
            && read("mercury_wal/000000010000000000000003") == log(3)
            && read("mercury_wal/000000010000000000000004") == log(4)
            && self.path.join("recovery.signal").exists()
            && String::from_utf8(read("postgresql.auto.conf")).unwrap().contains("restore_command");
        if whole { Ok(Some("new")) } else { Err(format!("not whole, with log {segments:?}")) }
    }

    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path.parent().unwrap()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| *name != "target").collect()
    }

    fn is_tidy(&self) -> Result<(), String> {
        if self.before.is_some() && self.found()?.is_none() {
            return Err("nothing has the target's name".to_owned());
        }
        let beside = self.beside();
        if beside.is_empty() { Ok(()) } else { Err(format!("{beside:?} are left")) }
    }
}

fn base() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let owner = fs::metadata("/proc/self").unwrap();
    for (path, content) in [("PG_VERSION", &b"15\n"[..]), ("base/1", &[7; 5000])] {
        use std::os::unix::fs::MetadataExt;
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_uid(u64::from(owner.uid()));
        header.set_gid(u64::from(owner.gid()));
        archive.append_data(&mut header, path, content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn restore(before: Option<&'static str>, overwrite: Overwrite) -> Trial<Target> {
    let root = TempDir::new().unwrap();
    let target = root.path().join("play/target");
    let at = |segment: usize| Lsn::new((segment * SEGMENT) as u64);
    let segment_bytes = SegmentSize::try_from(SEGMENT as u64).unwrap();
    let lineage = Lineage { system_id: "7".to_owned(), timeline: 1, segment_bytes };
    let covered_at = Timestamp::from_unix_ms(9_000);
    let wal = |from, to| Wal { lineage: lineage.clone(), from: at(from), to: at(to), covered_at };
    let wish = Wish {
        target: target.clone(),
        key: "trial".to_owned(),
        overwrite,
        base: PointId::new("full"),
        start: Lsn::new(at(3).bytes() + 40),
        // The first begins before the full point, and the second repeats what the first has.
        logs: vec![(PointId::new("one"), wal(2, 4)), (PointId::new("two"), wal(3, 5))],
        replay_to: ReplayTo::Time(covered_at),
    };
    Trial::new("restore", &Unpack { wish })
        .world(move || {
            let play = root.path().join("play");
            let _ = fs::remove_dir_all(&play);
            fs::create_dir(&play).unwrap();
            if before.is_some() {
                fs::create_dir(&target).unwrap();
                fs::write(target.join("old"), "kept until it is replaced").unwrap();
            }
            let archive = Archive::default();
            let log = |segments: [u8; 2]| segments.map(|n| vec![n; SEGMENT]).concat();
            archive.put(&PointId::new("full"), Point::of("base.tar", base()));
            archive.put(&PointId::new("one"), Point::of("wal", log([2, 3])));
            archive.put(&PointId::new("two"), Point::of("wal", log([3, 4])));
            Target { archive, path: target.clone(), before }
        })
        .machine(|target| Hosted::new(Restore, target.archive.host()))
        .observe(Target::found)
        .throughout(|target| target.found().map(drop))
        .always(Target::is_tidy)
}

#[test]
fn a_restore_to_a_free_name_is_whole_or_absent() {
    check(&restore(None, Overwrite::Refuse), (Ending::Completed, "restored"));
}

#[test]
fn a_restore_over_an_old_directory_leaves_the_old_or_the_new() {
    check(&restore(Some("old"), Overwrite::Replace), (Ending::Completed, "restored"));
}

#[test]
fn a_restore_that_must_not_replace_leaves_the_old() {
    check(&restore(Some("old"), Overwrite::Refuse).may_fail(), (Ending::Failed, "failed"));
}
