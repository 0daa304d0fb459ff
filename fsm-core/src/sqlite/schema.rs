//! The journal's tables.
//!
//! **How.** A record is appended to the right end of one B-tree, whatever run it belongs to, so
//! that a commit of many runs writes few pages. It has no other index: a record names the one
//! before it of the same run, and the run's row the last one, and so a run is read backwards along
//! this chain.
//!
//! A run's row says the rest: which number comes next (the guard of every append), where the chain
//! ends (`first_seq`: what is before it was pruned, though its rows may still wait in
//! `fsm_garbage` for their deletion), and what a list shows. The two indexes are partial over
//! `ended_ms`, which only a run's first record, its end and its redrive write; other statements do
//! not name that column and so touch no index.

/// `tried` says that `wake_ms` is the time of another attempt: a run that an operator lets go on
/// does not wait for that. What `fsm_run` says of a run that has not entered a state yet is a default of its column.
pub(super) const SCHEMA: &[&str] = &["
    CREATE TABLE fsm_run (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run TEXT NOT NULL UNIQUE,
        parent TEXT,
        machine TEXT NOT NULL DEFAULT '', version INTEGER NOT NULL DEFAULT 0,
        origin TEXT NOT NULL DEFAULT '',
        status TEXT NOT NULL DEFAULT 'active',
        state TEXT NOT NULL DEFAULT '', entry INTEGER NOT NULL DEFAULT 0,
        wake_ms INTEGER, tried INTEGER NOT NULL DEFAULT 0, fault TEXT,
        first_seq INTEGER NOT NULL DEFAULT 1,
        enter_seq INTEGER NOT NULL DEFAULT 1, enter_id INTEGER,
        last_seq INTEGER NOT NULL DEFAULT 0, last_id INTEGER,
        updated_ms INTEGER NOT NULL DEFAULT 0,
        ended_ms INTEGER
    ) STRICT;
    CREATE INDEX fsm_run_unfinished ON fsm_run (run) WHERE ended_ms IS NULL;
    CREATE INDEX fsm_run_finished ON fsm_run (ended_ms, run) WHERE ended_ms IS NOT NULL;
    CREATE TABLE fsm_record (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL, seq INTEGER NOT NULL, prev INTEGER,
        at_ms INTEGER NOT NULL, checksum INTEGER NOT NULL,
        kind TEXT NOT NULL, state TEXT, body TEXT NOT NULL
    ) STRICT;
    CREATE TABLE fsm_garbage (
        last_id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL
    ) STRICT;
    CREATE VIEW runs AS SELECT
        run, machine, version, origin, status, fsm_run.state AS state, entry,
        CASE WHEN json_valid(body) THEN json_extract(body, '$.enter.data') END AS data, fault,
        strftime('%Y-%m-%d %H:%M:%f', updated_ms / 1000.0, 'unixepoch') AS updated,
        parent, strftime('%Y-%m-%d %H:%M:%f', wake_ms / 1000.0, 'unixepoch') AS wake
        FROM fsm_run LEFT JOIN fsm_record ON fsm_record.id = enter_id;
    CREATE VIEW history AS SELECT
        run, seq, strftime('%Y-%m-%d %H:%M:%f', at_ms / 1000.0, 'unixepoch') AS at,
        kind, fsm_record.state AS state, body
        FROM fsm_record JOIN fsm_run ON fsm_run.id = run_id
        WHERE seq BETWEEN first_seq AND last_seq;
"];
