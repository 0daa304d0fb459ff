//! The engine's tables, as steps that are only ever added to.

pub(super) const STEPS: &[&str] = &[
    "
    CREATE TABLE mercury_engine (
        one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE mercury_operation (
        id TEXT PRIMARY KEY, verb TEXT NOT NULL, item TEXT NOT NULL, phase TEXT NOT NULL,
        task TEXT NOT NULL, planned TEXT, run TEXT, outcome TEXT, fault TEXT,
        created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, cancel_ms INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX mercury_operation_unfinished ON mercury_operation (created_ms, id)
        WHERE phase IN ('accepted', 'queued', 'running');

    CREATE TABLE mercury_item (
        item TEXT PRIMARY KEY, workload TEXT NOT NULL, size_bytes INTEGER,
        attributes TEXT NOT NULL, seen_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE mercury_point (
        item TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL,
        taken_ms INTEGER NOT NULL, base TEXT NOT NULL, alias_of TEXT, bytes INTEGER NOT NULL,
        PRIMARY KEY (item, seq)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE mercury_take (
        id TEXT PRIMARY KEY, operation TEXT NOT NULL, run TEXT NOT NULL, name TEXT NOT NULL,
        status TEXT NOT NULL, receipts TEXT NOT NULL, begun_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX mercury_take_run ON mercury_take (run, name);

    CREATE VIEW operations AS SELECT
        id, verb, item, phase, run, outcome, fault,
        strftime('%Y-%m-%d %H:%M:%f', created_ms / 1000.0, 'unixepoch') AS created,
        strftime('%Y-%m-%d %H:%M:%f', updated_ms / 1000.0, 'unixepoch') AS updated,
        strftime('%Y-%m-%d %H:%M:%f', cancel_ms / 1000.0, 'unixepoch') AS cancel_asked
        FROM mercury_operation;
    CREATE VIEW items AS SELECT
        item, workload, size_bytes, attributes,
        strftime('%Y-%m-%d %H:%M:%f', seen_ms / 1000.0, 'unixepoch') AS seen
        FROM mercury_item;
    CREATE VIEW recovery_points AS SELECT
        item, seq, id, kind, bytes, base, alias_of,
        strftime('%Y-%m-%d %H:%M:%f', taken_ms / 1000.0, 'unixepoch') AS taken
        FROM mercury_point;
",
    "
    ALTER TABLE mercury_take ADD COLUMN facts TEXT NOT NULL DEFAULT 'null';
",
    "
    ALTER TABLE mercury_operation ADD COLUMN priority TEXT;
    ALTER TABLE mercury_operation ADD COLUMN deadline_ms INTEGER;
    ALTER TABLE mercury_operation ADD COLUMN follows TEXT;
    ALTER TABLE mercury_item ADD COLUMN engine_version TEXT;

    DROP VIEW operations;
    CREATE VIEW operations AS SELECT
        id, verb, item, phase, run, outcome, fault, priority, follows,
        strftime('%Y-%m-%d %H:%M:%f', created_ms / 1000.0, 'unixepoch') AS created,
        strftime('%Y-%m-%d %H:%M:%f', updated_ms / 1000.0, 'unixepoch') AS updated,
        strftime('%Y-%m-%d %H:%M:%f', deadline_ms / 1000.0, 'unixepoch') AS deadline,
        strftime('%Y-%m-%d %H:%M:%f', cancel_ms / 1000.0, 'unixepoch') AS cancel_asked
        FROM mercury_operation;
    DROP VIEW items;
    CREATE VIEW items AS SELECT
        item, workload, engine_version, size_bytes, attributes,
        strftime('%Y-%m-%d %H:%M:%f', seen_ms / 1000.0, 'unixepoch') AS seen
        FROM mercury_item;
",
    "
    ALTER TABLE mercury_operation ADD COLUMN called_by TEXT;

    DROP VIEW operations;
    CREATE VIEW operations AS SELECT
        id, verb, item, phase, run, outcome, fault, priority, follows, called_by,
        strftime('%Y-%m-%d %H:%M:%f', created_ms / 1000.0, 'unixepoch') AS created,
        strftime('%Y-%m-%d %H:%M:%f', updated_ms / 1000.0, 'unixepoch') AS updated,
        strftime('%Y-%m-%d %H:%M:%f', deadline_ms / 1000.0, 'unixepoch') AS deadline,
        strftime('%Y-%m-%d %H:%M:%f', cancel_ms / 1000.0, 'unixepoch') AS cancel_asked
        FROM mercury_operation;
",
];
