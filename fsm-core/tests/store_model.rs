//! The SQLite journal says what the journal in memory says, whatever happens to the runs.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![cfg(feature = "sqlite")]

mod store_support;

use std::{collections::BTreeMap, time::Duration};

use fsm_core::{
    Body, Carried, Child, Data, End, Ending, Fault, Journal, MemoryJournal, Page, Pending, Record,
    Retention, RunId, Timestamp, sqlite::SqliteJournal,
};
use futures::executor::block_on;
use proptest::prelude::*;

use self::store_support::{enter, id, open, tool};

/// What a test does to both journals.
#[derive(Clone, Debug)]
enum Deed {
    /// Appends, each at an offset from the number that the run needs: 0 is right.
    Append(Vec<(u8, i8, Body)>),
    Prune(Retention),
    Reopen,
}

fn fault() -> Fault {
    Fault::retryable("test.transient", "it does not work just now")
}

fn end() -> End {
    serde_json::from_str(r#"{"ending":"completed","state":"done","data":"null"}"#).unwrap()
}

fn carried() -> impl Strategy<Value = Carried> {
    (any::<bool>(), prop::option::of(0..4u8), any::<bool>()).prop_map(
        |(paused, parent, children)| {
            let child = Child { key: "k".to_owned(), run: id("run-3"), end: None };
            Carried {
                paused: paused.then(fault),
                parent: parent.map(|parent| id(&format!("run-{parent}"))),
                children: children.then_some(child).into_iter().collect(),
                ..Carried::default()
            }
        },
    )
}

fn enters() -> impl Strategy<Value = Body> {
    let data = prop_oneof![
        Just(b"{\"a\":1}".to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
        Just("\u{1f980} \"quoted\" \0".as_bytes().to_vec()),
    ];
    let wake_at = prop::option::of(prop_oneof![Just(u64::MAX >> 1), 0..9_999u64]);
    ("[a-c]", data, wake_at, carried(), 1..3u32).prop_map(
        |(state, data, wake_at, carried, version)| Body::Enter {
            entry: 1,
            machine: format!("machine-{version}"),
            version,
            origin: "tests 1".to_owned(),
            graph: "graph".to_owned(),
            state,
            data: Data::from_bytes(data),
            wake_at: wake_at.map(Timestamp::from_unix_ms),
            carried: Box::new(carried),
        },
    )
}

fn bodies() -> impl Strategy<Value = Body> {
    let effect = || "effect".to_owned();
    let endings = [
        Ending::Completed,
        Ending::Failed,
        Ending::Cancelled,
        Ending::Redirected,
        Ending::Abandoned,
    ];
    prop_oneof![
        6 => enters(),
        1 => Just(Body::Intent { effect: effect() }),
        1 => Just(Body::Result { effect: effect(), data: Data::from_bytes(vec![b'1']) }),
        1 => (0..9_999u64).prop_map(|at| {
            let next_at = Timestamp::from_unix_ms(at);
            Body::Attempt { attempt: 1, fault: fault(), next_at }
        }),
        1 => Just(Body::Cancel { reason: "a test".to_owned() }),
        1 => Just(Body::Deadline),
        2 => Just(Body::Pause { fault: fault(), between_steps: true }),
        1 => Just(Body::Resume),
        1 => "[a-z]".prop_map(|id| {
            let data = Data::from_bytes(vec![b'1']);
            Body::Signal(Pending { id, name: "poke".to_owned(), data })
        }),
        1 => Just(Body::ChildEnded { run: id("run-3"), end: end() }),
        3 => (prop::sample::select(endings.to_vec()), any::<bool>())
            .prop_map(|(ending, faulty)| Body::End { ending, fault: faulty.then(fault) }),
        2 => Just(Body::Redrive),
    ]
}

fn deeds() -> impl Strategy<Value = Deed> {
    let offset = prop_oneof![12 => Just(0i8), 1 => Just(1), 1 => Just(-1)];
    let append = (0..6u8, offset, bodies());
    let retention =
        (prop::option::of(0..40u64), prop::option::of(0..4usize), prop::option::of(0..5u64));
    prop_oneof![
        12 => prop::collection::vec(append, 1..4).prop_map(Deed::Append),
        3 => retention.prop_map(|(age, count, records)| {
            let mut retention = Retention::default();
            if let Some(age) = age {
                retention = retention.finished_for(Duration::from_millis(age));
            }
            if let Some(count) = count {
                retention = retention.finished_count(count);
            }
            if let Some(records) = records {
                retention = retention.records_per_run(records);
            }
            Deed::Prune(retention)
        }),
        1 => Just(Deed::Reopen),
    ]
}

/// A record's body as the runtime would write it: runs begin with an entry, nothing but a redrive
/// of a failed run follows an end, and nothing but that is one.
fn fitting(body: Body, status: Option<&fsm_core::Status>) -> Body {
    use fsm_core::Status;
    let begin = || enter("any", 1).body;
    match (status, body) {
        (None, body @ Body::Enter { .. }) => body,
        (None, _) => begin(),
        (Some(Status::Ended(..)), _) => Body::Redrive,
        (Some(_), Body::Redrive) => begin(),
        (Some(_), body) => body,
    }
}

struct Both {
    directory: tempfile::TempDir,
    sqlite: Option<SqliteJournal>,
    memory: MemoryJournal,
    now: u64,
}

impl Both {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut both = Both { directory, sqlite: None, memory: MemoryJournal::new(), now: 1_000 };
        both.reopen();
        both
    }

    fn reopen(&mut self) {
        self.sqlite = None;
        self.sqlite = Some(open(&self.directory.path().join("state.db")).unwrap());
    }

    fn sqlite(&self) -> &SqliteJournal {
        self.sqlite.as_ref().unwrap()
    }

    fn run(&mut self, deed: Deed) {
        match deed {
            Deed::Append(records) => self.append(records),
            Deed::Prune(retention) => {
                let now = Timestamp::from_unix_ms(self.now);
                let expected = block_on(self.memory.prune(retention, now)).unwrap();
                assert_eq!(block_on(self.sqlite().prune(retention, now)).unwrap(), expected);
            }
            Deed::Reopen => self.reopen(),
        }
        self.compare();
    }

    fn append(&mut self, records: Vec<(u8, i8, Body)>) {
        // Where the runs will stand, as the batch goes on.
        let mut after = BTreeMap::new();
        let mut batch = Vec::new();
        for (run, offset, body) in records {
            self.now += 7;
            let run = id(&format!("run-{run}"));
            let snapshot = after
                .entry(run.clone())
                .or_insert_with(|| block_on(self.memory.load(&run)).unwrap());
            if let Some(fsm_core::Status::Ended(ending, _)) = snapshot.as_ref().map(|s| &s.status)
                && *ending != Ending::Failed
            {
                continue;
            }
            let body = fitting(body, snapshot.as_ref().map(|snapshot| &snapshot.status));
            let next = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq) + 1;
            let seq = next.checked_add_signed(offset.into()).unwrap();
            let at = Timestamp::from_unix_ms(self.now);
            let right = Record { run: run.clone(), seq: next, at, body };
            *snapshot = Some(match snapshot.take() {
                Some(mut snapshot) => {
                    snapshot.apply(right.clone()).unwrap();
                    snapshot
                }
                None => fsm_core::RunSnapshot::fold([right.clone()]).unwrap(),
            });
            batch.push(Record { seq, ..right });
        }
        let expected = block_on(self.memory.append(batch.clone())).map_err(|error| error.kind());
        let got = block_on(self.sqlite().append(batch)).map_err(|error| error.kind());
        assert_eq!(got, expected);
    }

    fn compare(&self) {
        let (sqlite, memory) = (self.sqlite(), &self.memory);
        for run in (0..7).map(|run| id(&format!("run-{run}"))) {
            assert_eq!(block_on(sqlite.load(&run)).unwrap(), block_on(memory.load(&run)).unwrap());
            assert_eq!(block_on(sqlite.head(&run)).unwrap(), block_on(memory.head(&run)).unwrap());
            let history = block_on(sqlite.history(&run)).unwrap();
            assert_eq!(history, block_on(memory.history(&run)).unwrap());
        }
        for page in [
            Page::default(),
            Page::default().unfinished(),
            Page::default().machine("machine-1").limit(2),
            Page::default().after(id("run-2")).limit(2),
            Page::default().after(id("run-1")).unfinished().machine("machine-2"),
        ] {
            let listed = block_on(sqlite.list(page.clone())).unwrap();
            assert_eq!(listed, block_on(memory.list(page.clone())).unwrap(), "{page:?}");
        }
        for (after, limit) in
            [(None, 10), (None, 2), (Some(id("run-1")), 1), (Some(id("run-9")), 9)]
        {
            let found = |journal: &dyn Journal| -> Vec<_> {
                let found = block_on(journal.unfinished(after.as_ref(), limit)).unwrap();
                found.into_iter().map(|found| (found.run, found.snapshot)).collect()
            };
            assert_eq!(found(sqlite), found(memory), "{limit} after {after:?}");
        }
        self.compare_views();
    }

    /// What people read says the same.
    fn compare_views(&self) {
        let tool = tool(&self.directory.path().join("state.db"));
        let mut select =
            tool.prepare("SELECT run, status, state, data FROM runs ORDER BY run").unwrap();
        let rows = select.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        });
        let shown: Vec<(String, String, String, String)> =
            rows.unwrap().collect::<Result<_, _>>().unwrap();
        let listed = block_on(self.memory.list(Page::default())).unwrap();
        let snapshot = |run: &RunId| block_on(self.memory.load(run)).unwrap().unwrap();
        let expected: Vec<_> = listed
            .iter()
            .map(|run| {
                let data = snapshot(&run.run).data;
                let data = data.as_text().map_or_else(
                    || serde_json::to_string(&data).unwrap(),
                    |text| text.split('\0').next().unwrap().to_owned(),
                );
                let status = run.standing.as_str().to_owned();
                (run.run.to_string(), status, run.state.clone(), data)
            })
            .collect();
        let cut = |(run, status, state, data): (String, String, String, String)| {
            (run, status, state, data.split('\0').next().unwrap().to_owned())
        };
        assert_eq!(shown.into_iter().map(cut).collect::<Vec<_>>(), expected);
        let history: i64 =
            tool.query_row("SELECT count(*) FROM history", [], |row| row.get(0)).unwrap();
        let kept = listed.iter().map(|run| block_on(self.memory.history(&run.run)).unwrap().len());
        assert_eq!(history, kept.sum::<usize>() as i64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_journals_say_the_same(deeds in prop::collection::vec(deeds(), 1..30)) {
        let mut both = Both::new();
        for deed in deeds {
            both.run(deed);
        }
    }
}
