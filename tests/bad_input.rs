//! Whatever is wrong with what the engine is given: a typed error, the source untouched, and every
//! earlier recovery point as restorable as before.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use mercury::{Class, Engine, ErrorKind, Event, ItemId, KeySource, Plugin, PointId, Trust};
use support::{
    World, back_up, check, ended, full::Room, hash, ids, in_state, large, names, small, until,
};

/// An item with one good recovery point, whose source may go bad afterwards.
struct Protected {
    engine: Engine,
    item: ItemId,
    path: PathBuf,
    point: PointId,
    content: String,
}

impl Protected {
    async fn new(world: &World) -> Self {
        let path = world.database("orders.db");
        small(&path, 1_000);
        let (item, content) = (world.item("orders.db"), hash(&path));
        let engine = world.start().await;
        let point = back_up(&engine, &item, "good").await.unwrap();
        Protected { engine, item, path, point, content }
    }

    /// A backup of the source as it is now fails so, and harms nothing.
    async fn fails(&self, world: &World, class: Class, code: &str) {
        let source = self.path.exists().then(|| hash(&self.path));
        let error = back_up(&self.engine, &self.item, "bad").await.unwrap_err();
        check(&error, ErrorKind::Operation, class, code);
        assert!(error.to_string().contains("orders.db"), "it names the file: {error}");
        assert_eq!(self.path.exists().then(|| hash(&self.path)), source);
        self.is_unharmed(world).await;
    }

    /// The only point is the good one, and it restores to what it was.
    async fn is_unharmed(&self, world: &World) {
        assert_eq!(ids(&self.engine.points(&self.item).await.unwrap()), ["good/1"]);
        let restored = world.restored(&self.engine, &self.item, &self.point).await;
        assert_eq!(restored, self.content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_database() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    fs::write(&protected.path, "a letter to somebody, and longer than a header: ".repeat(100))
        .unwrap();
    protected.fails(&world, Class::User, "sqlite.not_a_database").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_a_damaged_schema() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    let mut bytes = fs::read(&protected.path).unwrap();
    bytes[100..200].fill(0xa5);
    fs::write(&protected.path, bytes).unwrap();
    protected.fails(&world, Class::Permanent, "sqlite.corrupt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_cut_short() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    let bytes = fs::read(&protected.path).unwrap();
    fs::write(&protected.path, &bytes[..4_096]).unwrap();
    protected.fails(&world, Class::Permanent, "sqlite.corrupt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_inside_a_database_never_becomes_a_restored_database() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    let Protected { engine, item, path, .. } = &protected;
    let mut bytes = fs::read(path).unwrap();
    // Its third page, which no header speaks of.
    bytes[8_192..12_288].fill(0xa5);
    fs::write(path, bytes).unwrap();
    let target = world.unused("copy.db");
    // Whoever looks first says so: the backup, or the restore of what it took as it was.
    let error = match back_up(engine, item, "damaged").await {
        Err(error) => error,
        Ok(point) => {
            let restore = engine.restore(item, &point).to(target.to_str().unwrap());
            ended(&restore.submit().await.unwrap()).await.unwrap_err()
        }
    };
    check(&error, ErrorKind::Operation, Class::Permanent, "sqlite.corrupt");
    assert_eq!(names(target.parent().unwrap()), [""; 0]);
    let restored = world.restored(engine, item, &protected.point).await;
    assert_eq!(restored, protected.content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    fs::remove_file(&protected.path).unwrap();
    protected.fails(&world, Class::User, "sqlite.missing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stays_locked() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    let writer = rusqlite::Connection::open(&protected.path).unwrap();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    protected.fails(&world, Class::Retryable, "sqlite.locked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_locked_for_a_while_is_backed_up_after_it() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    let writer = rusqlite::Connection::open(&protected.path).unwrap();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut events = protected.engine.subscribe();
    let backup = protected.engine.backup(&protected.item).id("patient").even_if_unchanged();
    let backup = backup.submit().await.unwrap();
    let failed = until(&mut events, |event| matches!(event, Event::AttemptFailed { .. })).await;
    let Event::AttemptFailed { operation, attempt, fault } = failed else { panic!("{failed:?}") };
    assert_eq!((operation.as_str(), attempt), ("patient", 1));
    assert_eq!((fault.class(), fault.code()), (Class::Retryable, "sqlite.locked"));
    assert!(fault.advice().is_some());
    writer.execute_batch("ROLLBACK").unwrap();
    ended(&backup).await.unwrap();
    assert_eq!(
        ids(&protected.engine.points(&protected.item).await.unwrap()),
        ["good/1", "patient/1"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_directory_that_is_not_there() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    fs::rename(world.path("data"), world.path("elsewhere")).unwrap();
    let error = protected.engine.discover().await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::User, "sqlite.missing");
    assert!(error.to_string().contains(world.path("data").to_str().unwrap()), "{error}");
    protected.is_unharmed(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_the_plugin_does_not_understand() {
    let world = World::new();
    let config = serde_json::json!({ "directoriess": [] });
    let plugin = Plugin::linked::<plugin_sqlite::Sqlite>().config("sqlite", config);
    let error = world.bare().plugin(plugin).start().await.unwrap_err();
    assert_eq!((error.kind(), error.class()), (ErrorKind::Plugin, Class::User), "{error:?}");
    assert!(error.advice().is_some(), "{error:?}");
    assert!(error.to_string().contains("directoriess"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_archive() {
    let world = World::new();
    let path = world.database("orders.db");
    large(&path, 2);
    let (item, content) = (world.item("orders.db"), hash(&path));
    let room = Room::new();
    let archive = archive::Archive::create(room.clone(), &world.key).await.unwrap();
    let builder = || mercury::Engine::builder().state_dir(world.path("state"));
    let engine = builder().archive(archive).plugin(world.plugin()).start().await.unwrap();
    let good = back_up(&engine, &item, "good").await.unwrap();

    // No room for the packs of the next backup.
    large_again(&path);
    let (source, objects) = (hash(&path), room.objects().await);
    room.fill();
    let error = back_up(&engine, &item, "bad").await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::User, "archive.full");
    assert_eq!(hash(&path), source);
    assert_eq!(room.objects().await, objects);
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["good/1"]);
    assert_eq!(world.restored(&engine, &item, &good).await, content);

    room.empty();
    let next = back_up(&engine, &item, "next").await.unwrap();
    assert_eq!(world.restored(&engine, &item, &next).await, source);
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["good/1", "next/1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_fails_once_is_tried_again() {
    let world = World::new();
    large(&world.database("orders.db"), 2);
    let item = world.item("orders.db");
    let room = Room::new();
    let archive = archive::Archive::create(room.clone(), &world.key).await.unwrap();
    let builder = mercury::Engine::builder().state_dir(world.path("state")).archive(archive);
    let engine = builder.plugin(world.plugin()).start().await.unwrap();
    // In the middle of the copy, and at the seal.
    for (id, state) in [("copying", "copy"), ("sealing", "seal")] {
        let mut events = engine.subscribe();
        let backup = engine.backup(&item).id(id).even_if_unchanged().submit().await.unwrap();
        until(&mut events, |event| in_state(event, id, state)).await;
        room.hiccup();
        match ended(&backup).await.unwrap() {
            mercury::Outcome::BackedUp { point, .. } => {
                let source = hash(&world.database("orders.db"));
                assert_eq!(world.restored(&engine, &item, &point).await, source);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["copying/1", "sealing/1"]);
}

/// Rewrites every row of what [`large`] made.
fn large_again(path: &Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch("UPDATE t SET noise = randomblob(65536)").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_wrong_missing_malformed_or_exposed() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    protected.engine.shutdown(std::time::Duration::ZERO).await;
    let start = async |key: KeySource| {
        let archive = world.path("archive");
        world.builder().archive_dir(archive, key).start().await.map(drop).unwrap_err()
    };

    let wrong = KeySource::create_file(world.path("wrong.key")).unwrap();
    check(&start(wrong).await, ErrorKind::Key, Class::User, "archive.wrong_key");
    let taken = KeySource::create_file(world.path("wrong.key")).unwrap_err();
    check(&taken, ErrorKind::Key, Class::User, "key.create");
    let missing = KeySource::file(world.path("no.key"));
    check(&start(missing).await, ErrorKind::Key, Class::User, "key.missing");
    let unset = KeySource::environment("MERCURY_TEST_NO_SUCH_VARIABLE");
    check(&start(unset).await, ErrorKind::Key, Class::User, "key.missing");

    let path = world.path("key");
    let private = |text: &str, mode| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        KeySource::file(&path)
    };
    for malformed in ["", "deadbeef", &"x".repeat(64), &"ab".repeat(33)] {
        let error = start(private(malformed, 0o600)).await;
        check(&error, ErrorKind::Key, Class::User, "key.malformed");
        assert!(malformed.is_empty() || !format!("{error:?}{error}").contains(malformed));
    }
    let exposed = start(private(&world.key.to_hex(), 0o644)).await;
    check(&exposed, ErrorKind::Key, Class::User, "key.exposed");

    // With the right key everything is as it was.
    let right = private(&world.key.to_hex(), 0o600);
    let builder = world.builder().archive_dir(world.path("archive"), right);
    let engine = builder.start().await.unwrap();
    Protected { engine, ..protected }.is_unharmed(&world).await;
}

/// A database that fills packs, and a point of it.
async fn packed(world: &World) -> (Engine, ItemId, PointId) {
    large(&world.database("orders.db"), 2);
    let item = world.item("orders.db");
    let engine = world.start().await;
    let point = back_up(&engine, &item, "first").await.unwrap();
    (engine, item, point)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_pack_is_found_before_the_target_is_touched() {
    let world = World::new();
    let (engine, item, point) = packed(&world).await;
    let target = world.unused("copy.db");
    fs::write(&target, "to be replaced, but not for nothing").unwrap();
    let pack = world.packs().pop().unwrap();
    let content = fs::read(&pack).unwrap();
    fs::remove_file(&pack).unwrap();

    let restore = || engine.restore(&item, &point).to(target.to_str().unwrap()).overwrite();
    let error = ended(&restore().submit().await.unwrap()).await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::Permanent, "archive.damaged");
    assert_eq!(names(target.parent().unwrap()), ["copy.db"]);
    assert_eq!(fs::read_to_string(&target).unwrap(), "to be replaced, but not for nothing");

    // Brought back from a copy of the archive, it serves again.
    fs::write(&pack, content).unwrap();
    ended(&restore().submit().await.unwrap()).await.unwrap();
    assert_eq!(hash(&target), hash(&world.database("orders.db")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_a_pack_never_reaches_a_target() {
    let world = World::new();
    let (engine, item, point) = packed(&world).await;
    let pack = world.packs().pop().unwrap();
    let content = fs::read(&pack).unwrap();
    let mut flipped = content.clone();
    flipped[content.len() / 2] ^= 1;
    fs::write(&pack, flipped).unwrap();

    let target = world.unused("copy.db");
    let restore = engine.restore(&item, &point).to(target.to_str().unwrap());
    let error = ended(&restore.submit().await.unwrap()).await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::Permanent, "archive.damaged");
    assert_eq!(names(target.parent().unwrap()), [""; 0], "nothing is half visible");
    fs::write(&pack, content).unwrap();
    let restored = world.restored(&engine, &item, &point).await;
    assert_eq!(restored, hash(&world.database("orders.db")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_damaged_point_spoils_no_other() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    let Protected { engine, item, path, .. } = &protected;
    small(path, 10);
    let second = back_up(engine, item, "second").await.unwrap();
    let files = world.files("archive").into_iter();
    let points: Vec<_> =
        files.filter(|path| path.parent().is_some_and(|dir| dir.ends_with("points"))).collect();
    let mut bytes = fs::read(&points[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[40..middle].fill(0);
    fs::write(&points[1], bytes).unwrap();

    // An engine that has not seen it whole.
    protected.engine.shutdown(std::time::Duration::ZERO).await;
    let engine = world.start().await;
    let listed = engine.points(item).await.unwrap_err();
    check(&listed, ErrorKind::Archive, Class::Permanent, "archive.damaged");
    let target = world.unused("copy.db");
    let restore = engine.restore(item, &second).to(target.to_str().unwrap());
    let error = ended(&restore.submit().await.unwrap()).await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::Permanent, "archive.damaged");
    assert!(!target.exists());
    assert_eq!(world.restored(&engine, item, &protected.point).await, protected.content);
    let third = back_up(&engine, item, "third").await.unwrap();
    assert_eq!(world.restored(&engine, item, &third).await, hash(path));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_that_is_no_plugin() {
    let world = World::new();
    let start = async |path: &Path| {
        let plugin = Plugin::library(path, Trust::development("a test's own file")).in_process();
        let error = world.bare().plugin(plugin).start().await.map(drop).unwrap_err();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(error.to_string().contains(&name), "{error}");
        error
    };
    let check = |error, code| check(&error, ErrorKind::Plugin, Class::User, code);

    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let system = maps
        .split_whitespace()
        .find(|word| {
            word.starts_with('/') && (word.contains("libm.so") || word.contains("libc.so"))
        })
        .unwrap();
    check(start(Path::new(system)).await, "plugin.not_a_plugin");
    let text = world.path("text.so");
    fs::write(&text, "#!/bin/sh\n").unwrap();
    check(start(&text).await, "plugin.not_a_plugin");
    check(start(&world.path("no.so")).await, "plugin.missing");

    // As if it had been built for the next version of the boundary.
    let mut library = fs::read(support::library()).unwrap();
    let symbol = b"mercury_plugin_v1_";
    let places: Vec<_> =
        (0..library.len() - symbol.len()).filter(|at| library[*at..].starts_with(symbol)).collect();
    assert!(!places.is_empty());
    for at in places {
        library[at + symbol.len() - 2] = b'2';
    }
    let newer = world.path("newer.so");
    fs::write(&newer, library).unwrap();
    check(start(&newer).await, "plugin.other_abi");

    let untrusted = Plugin::library(newer, Trust::root_owned()).in_process();
    let error = world.bare().plugin(untrusted).start().await.unwrap_err();
    check(error, "plugin.untrusted");
    world.start().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_exists_is_replaced_only_when_that_is_asked_for() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    let Protected { engine, item, path, point, content } = &protected;
    small(path, 10);
    let newer = hash(path);
    // The default target is where the point came from.
    let refused = ended(&engine.restore(item, point).submit().await.unwrap()).await.unwrap_err();
    check(&refused, ErrorKind::Operation, Class::User, "sqlite.exists");
    assert_eq!(hash(path), newer);
    assert_eq!(names(&world.path("data")), ["orders.db"]);

    let replacing = engine.restore(item, point).overwrite().submit().await.unwrap();
    ended(&replacing).await.unwrap();
    assert_eq!(hash(path), *content);
    assert_eq!(names(&world.path("data")), ["orders.db"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_in_use_is_not_replaced_under_its_application() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    let Protected { engine, item, path, point, .. } = &protected;
    let before = hash(path);
    let application = rusqlite::Connection::open(path).unwrap();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut events = engine.subscribe();
    let restore = engine.restore(item, point).id("in-use").overwrite().submit().await.unwrap();
    until(&mut events, |event| in_state(event, "in-use", "publish")).await;
    let failed = until(&mut events, |event| matches!(event, Event::AttemptFailed { .. })).await;
    let Event::AttemptFailed { fault, .. } = failed else { panic!("{failed:?}") };
    assert_eq!((fault.class(), fault.code()), (Class::Retryable, "sqlite.locked"));
    assert_eq!(hash(path), before);
    application.execute_batch("ROLLBACK").unwrap();
    drop(application);
    ended(&restore).await.unwrap();
    assert_eq!(names(&world.path("data")), ["orders.db"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_makes_no_sense() {
    let world = World::new();
    let protected = Protected::new(&world).await;
    let Protected { engine, item, point, .. } = &protected;

    let relative = engine.restore(item, point).to("copy.db").submit().await.unwrap();
    let error = ended(&relative).await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::User, "sqlite.target");
    let nowhere = engine.restore(item, point).to("/no/such/directory/copy.db");
    let error = ended(&nowhere.submit().await.unwrap()).await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::User, "sqlite.missing");

    let unknown = engine.restore(item, &PointId::new("no/1")).submit().await.unwrap();
    let error = ended(&unknown).await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::User, "point.unknown");
    let foreign = ItemId::new("oracle", "local", "orders").unwrap();
    let error = engine.backup(&foreign).submit().await.unwrap_err();
    check(&error, ErrorKind::Request, Class::User, "workload.unknown");
    let error = engine.operation(&support::operation("no")).await.unwrap_err();
    check(&error, ErrorKind::Request, Class::User, "operation.unknown");
    for malformed in ["", "a/b", "with space", "näh", &"x".repeat(181)] {
        let error = engine.backup(item).id(malformed).submit().await.unwrap_err();
        check(&error, ErrorKind::Request, Class::User, "operation.id");
    }
    let error = engine.backup(item).kind(mercury::PointKind::Log).submit().await.unwrap_err();
    check(&error, ErrorKind::Request, Class::User, "operation.unsupported");
    let error = Engine::builder().start().await.unwrap_err();
    check(&error, ErrorKind::Request, Class::User, "engine.setting");
    protected.is_unharmed(&world).await;
}
