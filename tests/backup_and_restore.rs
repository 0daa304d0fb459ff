//! The main job: a real database, through a plugin, into an archive and back.

use std::{path::Path, time::Duration};

use mercury::{Engine, Key, KeySource, Outcome, Plugin, Shutdown};
use plugin_sqlite::Sqlite;
use serde_json::json;

async fn start(root: &Path, key: &Key) -> Engine {
    Engine::builder()
        .state_dir(root.join("state"))
        .archive_dir(root.join("archive"), KeySource::given(key.clone()))
        .plugin(
            Plugin::linked::<Sqlite>()
                .config("sqlite", json!({ "directories": [root.join("data")] })),
        )
        .start()
        .await
        .expect("the engine starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_comes_back_identical() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("data")).unwrap();
    let path = root.path().join("data/orders.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT);
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 50000)
         INSERT INTO t SELECT n, 'row ' || n FROM c;",
    )
    .unwrap();
    let key = Key::generate().unwrap();
    let engine = start(root.path(), &key).await;
    let items = engine.discover().await.unwrap();
    assert_eq!(items.len(), 1);
    let item = items[0].id.clone();

    let backup = engine.backup(&item).id("first").submit().await.unwrap();
    let outcome = backup.outcome().await.unwrap();
    let Outcome::BackedUp { point, stats } = outcome else { panic!("{outcome:?}") };
    println!("{stats:?}");
    assert_eq!(stats.foreign_chunks, 0);

    let again = engine.backup(&item).id("second").submit().await.unwrap();
    let outcome = again.outcome().await.unwrap();
    assert!(matches!(outcome, Outcome::Skipped { .. }), "{outcome:?}");

    let target = root.path().join("copy.db");
    let restore =
        engine.restore(&item, &point).to(target.to_str().unwrap()).submit().await.unwrap();
    println!("{:?}", restore.outcome().await.unwrap());
    let copy = rusqlite::Connection::open(&target).unwrap();
    let rows: u32 = copy.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 50_000);
    let check: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    assert_eq!(engine.shutdown(Duration::from_secs(5)).await, Shutdown::Drained);
}
