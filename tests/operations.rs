//! Operations: asked for once, carried out once, in order, and stopped when somebody says so.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use mercury::{Class, Engine, ErrorKind, Event, Outcome, Phase, Shutdown};
use support::{
    World, back_up, check, ended, has_progressed, hash, ids, in_phase, in_state, large, operation,
    small, soon, until,
};

/// A world with one database that takes a slow engine a while.
fn one_large() -> World {
    let world = World::new();
    large(&world.database("orders.db"), 8);
    world
}

/// Starts the engine again, and checks that the database has exactly the points `expected`, that
/// the newest can be restored, and that nothing unfinished is held.
async fn again(world: &World, expected: &[&str]) -> Engine {
    let engine = world.start().await;
    let item = world.item("orders.db");
    let source = hash(&world.database("orders.db"));
    let unfinished = engine.operations().await.unwrap().into_iter();
    for status in unfinished.filter(|status| !status.phase.is_final()) {
        ended(&engine.operation(&status.id).await.unwrap()).await.unwrap();
    }
    let points = engine.points(&item).await.unwrap();
    assert_eq!(ids(&points), expected);
    if let Some(newest) = points.last() {
        assert_eq!(world.restored(&engine, &item, &newest.id).await, source);
    }
    let archived = world.archive().await.item(item.as_str()).await.unwrap();
    assert!(archived.holds().await.unwrap().is_empty());
    engine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_twice_is_one_operation_one_run_and_one_point() {
    let world = World::new();
    small(&world.database("orders.db"), 1_000);
    let item = world.item("orders.db");
    let engine = world.start().await;
    let submit = || engine.backup(&item).id("nightly").submit();
    let all = soon(futures::future::join_all((0..8).map(|_| submit()))).await;
    for asked in all {
        let outcome = ended(&asked.unwrap()).await.unwrap();
        assert!(matches!(outcome, Outcome::BackedUp { .. }), "{outcome:?}");
    }
    let later = submit().await.unwrap();
    assert!(matches!(ended(&later).await.unwrap(), Outcome::BackedUp { .. }));
    assert_eq!(engine.operations().await.unwrap().len(), 1);
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["nightly/1"]);
    let runs: u32 =
        world.store().query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap();
    assert_eq!(runs, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_for_something_else_is_refused() {
    let world = World::new();
    small(&world.database("orders.db"), 10);
    small(&world.database("other.db"), 10);
    let engine = world.start().await;
    back_up(&engine, &world.item("orders.db"), "nightly").await.unwrap();
    let other = engine.backup(&world.item("other.db")).id("nightly").submit().await;
    check(&other.unwrap_err(), ErrorKind::Request, Class::User, "operation.id_taken");
    assert_eq!(engine.points(&world.item("other.db")).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_that_is_given_up_half_way_leaves_nothing_undone() {
    let world = World::new();
    small(&world.database("orders.db"), 10);
    let item = world.item("orders.db");
    let engine = world.start().await;
    let submit = engine.backup(&item).id("nightly").submit();
    // Polled once and dropped: it may have been accepted.
    assert!(futures::FutureExt::now_or_never(submit).is_none());
    let asked = engine.backup(&item).id("nightly").submit().await;
    // Given up before or after it was written down, it is the same operation.
    let _ = asked.map_err(|error| panic!("{error:?}"));
    let same = engine.operation(&operation("nightly")).await.unwrap();
    ended(&same).await.unwrap();
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["nightly/1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submitted_operation_survives_an_engine_that_is_dropped() {
    let world = World::new();
    small(&world.database("orders.db"), 1_000);
    let item = world.item("orders.db");
    let engine = world.start().await;
    let asked = engine.backup(&item).id("nightly").even_if_unchanged().submit().await.unwrap();
    drop((engine, asked));
    let engine = after_drop(&world).await;
    let left = engine.operation(&operation("nightly")).await.unwrap();
    ended(&left).await.unwrap();
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["nightly/1"]);
}

/// Starts the engine again, once the dropped one is out of the way.
async fn after_drop(world: &World) -> Engine {
    soon(async {
        loop {
            match world.builder().start().await {
                Ok(engine) => return engine,
                Err(error) if error.kind() == ErrorKind::InUse => tokio::task::yield_now().await,
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_dropped_half_way_stops_there_and_goes_on_at_the_next_start() {
    let world = one_large();
    let engine = world.start_slow().await;
    let mut events = engine.subscribe();
    let item = world.item("orders.db");
    let backup = engine.backup(&item).id("nightly").submit().await.unwrap();
    until(&mut events, |event| has_progressed(event, "nightly")).await;
    drop(engine);
    assert_eq!(backup.status().await.unwrap().phase, Phase::Running, "an operation is a handle");
    drop(backup);
    // The last handle has gone: this subscription is told, and the directory becomes free.
    soon(async { while events.next().await.is_some() {} }).await;
    let engine = after_drop(&world).await;
    ended(&engine.operation(&operation("nightly")).await.unwrap()).await.unwrap();
    assert_eq!(ids(&engine.points(&item).await.unwrap()), ["nightly/1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_during_a_shutdown_is_refused_or_carried_out_by_the_next_start() {
    let world = World::new();
    small(&world.database("orders.db"), 10);
    let item = world.item("orders.db");
    for round in 0..10_u32 {
        let engine = world.start().await;
        let submits: Vec<_> = (0..4)
            .map(|number| {
                let request = engine.backup(&item).id(format!("op-{round}-{number}"));
                tokio::spawn(request.even_if_unchanged().submit())
            })
            .collect();
        for _ in 0..round * 3 {
            tokio::task::yield_now().await;
        }
        soon(engine.shutdown(Duration::ZERO)).await;
        let next = world.start().await;
        for submit in submits {
            match submit.await.unwrap() {
                Ok(accepted) => {
                    let left = next.operation(accepted.id()).await.unwrap();
                    ended(&left).await.unwrap();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}"),
            }
        }
        soon(next.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_list_say_what_there_is() {
    let world = World::new();
    small(&world.database("orders.db"), 10);
    let item = world.item("orders.db");
    let engine = world.start().await;
    assert_eq!(engine.operations().await.unwrap(), []);
    let point = back_up(&engine, &item, "one").await.unwrap();
    let restore = engine.restore(&item, &point).id("two").to("not absolute").submit().await;
    ended(&restore.unwrap()).await.unwrap_err();
    let all = engine.operations().await.unwrap();
    let seen: Vec<_> = all.iter().map(|status| (status.id.as_str(), status.phase)).collect();
    assert_eq!(seen, [("one", Phase::Succeeded), ("two", Phase::Failed)]);
    assert_eq!(all[0].run.as_ref().map(ToString::to_string), Some("one/1".to_owned()));
    assert!(matches!(all[0].outcome, Some(Outcome::BackedUp { .. })));
    assert_eq!(all[1].fault.as_ref().map(|fault| fault.code()), Some("sqlite.target"));
    assert!(all[0].created_at <= all[0].updated_at && all[0].updated_at <= all[1].updated_at);
    assert_eq!(engine.operation(&operation("one")).await.unwrap().status().await.unwrap(), all[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_in_the_order_of_what_happened() {
    let world = World::new();
    small(&world.database("orders.db"), 1_000);
    let engine = world.start().await;
    let mut events = engine.subscribe();
    back_up(&engine, &world.item("orders.db"), "nightly").await.unwrap();
    let mut heard = Vec::new();
    loop {
        let event = soon(events.next()).await.unwrap();
        heard.push(match &event {
            Event::Phase { phase, .. } => format!("phase {phase}"),
            Event::State { state, .. } => format!("state {state}"),
            Event::Sealed { point, .. } => format!("point {point}"),
            Event::StreamOpened { stream, .. } => format!("stream {stream} opened"),
            Event::StreamClosed { stream, .. } => format!("stream {stream} closed"),
            Event::Progress { .. } => continue,
            other => panic!("{other:?}"),
        });
        if in_phase(&event, "nightly", Phase::Succeeded) {
            break;
        }
    }
    let expected = [
        "phase queued",
        "phase running",
        "state inspect",
        "state copy",
        "stream database opened",
        "stream database closed",
        "state seal",
        "point nightly/1",
        "state sealed",
        "phase succeeded",
    ];
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_is_cancelled_while_it_waits_never_works() {
    let world = one_large();
    small(&world.database("other.db"), 10);
    let engine = world.slow(world.builder().streams(1)).start().await.unwrap();
    let mut events = engine.subscribe();
    let occupant = engine.backup(&world.item("orders.db")).id("occupant").submit().await.unwrap();
    until(&mut events, |event| in_state(event, "occupant", "copy")).await;
    let waiting = engine.backup(&world.item("other.db")).id("waiting").submit().await.unwrap();
    until(&mut events, |event| in_phase(event, "waiting", Phase::Queued)).await;

    waiting.cancel().await.unwrap();
    assert!(waiting.status().await.unwrap().cancel_at.is_some());
    let error = ended(&waiting).await.unwrap_err();
    assert_eq!((error.kind(), error.class()), (ErrorKind::Cancelled, Class::Cancelled));
    assert_eq!(waiting.status().await.unwrap().phase, Phase::Cancelled);
    assert_eq!(engine.points(&world.item("other.db")).await.unwrap(), []);
    assert_eq!(occupant.status().await.unwrap().phase, Phase::Running);
    let run: (String, String) = world
        .store()
        .query_row("SELECT status, state FROM runs WHERE run = 'waiting/1'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(run, ("cancelled".to_owned(), "inspect".to_owned()), "no step of it ran");
    engine.shutdown(Duration::ZERO).await;
    again(&world, &["occupant/1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_was_acknowledged_survives_a_restart() {
    let world = one_large();
    let engine = world.start_slow().await;
    let mut events = engine.subscribe();
    let backup = engine.backup(&world.item("orders.db")).id("unwanted").submit().await.unwrap();
    until(&mut events, |event| in_state(event, "unwanted", "copy")).await;
    engine.shutdown(Duration::ZERO).await;
    backup.cancel().await.unwrap();
    drop((engine, backup));

    let engine = world.start().await;
    let left = engine.operation(&operation("unwanted")).await.unwrap();
    let error = ended(&left).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(engine.points(&world.item("orders.db")).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_cancelled_half_way_leaves_no_point_and_a_whole_archive() {
    let world = one_large();
    let engine = world.start_slow().await;
    let mut events = engine.subscribe();
    let item = world.item("orders.db");
    let backup = engine.backup(&item).id("unwanted").submit().await.unwrap();
    until(&mut events, |event| has_progressed(event, "unwanted")).await;
    backup.cancel().await.unwrap();
    let error = ended(&backup).await.unwrap_err();
    assert_eq!((error.kind(), error.class()), (ErrorKind::Cancelled, Class::Cancelled));
    assert_eq!(engine.points(&item).await.unwrap(), []);
    assert_eq!(engine.shutdown(Duration::ZERO).await, Shutdown::Drained);

    let engine = again(&world, &[]).await;
    back_up(&engine, &item, "wanted").await.unwrap();
    engine.shutdown(Duration::ZERO).await;
    again(&world, &["wanted/1"]).await;
    let released: Vec<String> = {
        let store = world.store();
        let mut select = store.prepare("SELECT status FROM mercury_take ORDER BY id").unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(released, ["released", "finished"], "nothing of the cancelled take is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_cancelled_half_way_leaves_nothing_beside_its_target() {
    let world = one_large();
    let item = world.item("orders.db");
    let engine = world.start().await;
    let point = back_up(&engine, &item, "first").await.unwrap();
    engine.shutdown(Duration::ZERO).await;
    let engine = world.start_slow().await;
    let mut events = engine.subscribe();
    let target = world.unused("copy.db");
    let restore = engine.restore(&item, &point).id("unwanted").to(target.to_str().unwrap());
    let restore = restore.submit().await.unwrap();
    until(&mut events, |event| has_progressed(event, "unwanted")).await;
    restore.cancel().await.unwrap();
    let error = ended(&restore).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(support::names(target.parent().unwrap()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_comes_through_at_whatever_moment_it_is_asked_for() {
    let world = World::new();
    let item = world.item("orders.db");
    large(&world.database("orders.db"), 2);
    let engine = world.start().await;
    let mut made = Vec::new();
    for yields in 0..60_u32 {
        let id = format!("op-{yields}");
        let backup = engine.backup(&item).id(&id).even_if_unchanged().submit().await.unwrap();
        for _ in 0..yields * yields {
            tokio::task::yield_now().await;
        }
        backup.cancel().await.unwrap();
        // It ends at once, one way or the other: no cancel is lost, and none breaks anything.
        match ended(&backup).await {
            Ok(Outcome::BackedUp { point, .. }) => made.push(point.to_string()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}"),
        }
    }
    assert_eq!(ids(&engine.points(&item).await.unwrap()), made);
    let running: u32 = world
        .store()
        .query_row("SELECT count(*) FROM runs WHERE status = 'active'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(running, 0, "no run is left behind");
    assert_eq!(engine.shutdown(Duration::ZERO).await, Shutdown::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_after_the_end_changes_nothing() {
    let world = World::new();
    small(&world.database("orders.db"), 10);
    let item = world.item("orders.db");
    let engine = world.start().await;
    back_up(&engine, &item, "done").await.unwrap();
    let before = engine.operations().await.unwrap();
    engine.cancel(&operation("done")).await.unwrap();
    assert_eq!(engine.operations().await.unwrap(), before);
    let unknown = engine.cancel(&operation("unknown")).await.unwrap_err();
    check(&unknown, ErrorKind::Request, Class::User, "operation.unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_does_not_wait_leaves_an_operation_that_goes_on_at_the_next_start() {
    let world = one_large();
    let engine = world.start_slow().await;
    let mut events = engine.subscribe();
    let item = world.item("orders.db");
    let backup = engine.backup(&item).id("nightly").submit().await.unwrap();
    until(&mut events, |event| has_progressed(event, "nightly")).await;
    let waiting = backup.clone();
    let outcome = tokio::spawn(async move { waiting.outcome().await });
    let left = soon(engine.shutdown(Duration::ZERO)).await;
    assert_eq!(left, Shutdown::Resumable(vec![operation("nightly")]));
    let stopped = soon(outcome).await.unwrap().unwrap_err();
    check(&stopped, ErrorKind::Stopped, Class::Retryable, "operation.unfinished");
    let refused = engine.backup(&item).submit().await.unwrap_err();
    check(&refused, ErrorKind::Stopped, Class::Retryable, "engine.stopped");
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(1), events.next()).await
    {
        assert!(!matches!(event, Event::Stuck { .. }), "a shutdown is no trouble: {event:?}");
    }
    again(&world, &["nightly/1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_with_patience_lets_work_end() {
    let world = World::new();
    large(&world.database("orders.db"), 2);
    let engine = world.start().await;
    let backup = engine.backup(&world.item("orders.db")).id("last").submit().await.unwrap();
    assert_eq!(soon(engine.shutdown(Duration::from_secs(50))).await, Shutdown::Drained);
    assert!(matches!(ended(&backup).await.unwrap(), Outcome::BackedUp { .. }));
}

/// What the events say of operations between the state `inspect` and the state `sealed`.
#[derive(Default)]
struct AtWork {
    now: BTreeSet<String>,
    most: usize,
    order: Vec<String>,
}

impl AtWork {
    fn hear(&mut self, event: &Event) {
        let Event::State { operation, state } = event else { return };
        match state.as_str() {
            "inspect" => {
                self.now.insert(operation.to_string());
                self.order.push(format!("+{operation}"));
            }
            "sealed" => {
                self.now.remove(operation.as_str());
                self.order.push(format!("-{operation}"));
            }
            _ => {}
        }
        self.most = self.most.max(self.now.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_backups_of_one_database_run_one_after_the_other() {
    let world = World::new();
    large(&world.database("orders.db"), 2);
    let item = world.item("orders.db");
    let engine = world.start().await;
    let mut events = engine.subscribe();
    for id in ["one", "two", "three"] {
        engine.backup(&item).id(id).even_if_unchanged().submit().await.unwrap();
    }
    let (mut at_work, mut ends) = (AtWork::default(), 0);
    until(&mut events, |event| {
        at_work.hear(event);
        ends += u32::from(matches!(event, Event::Phase { phase: Phase::Succeeded, .. }));
        ends == 3
    })
    .await;
    assert_eq!(at_work.most, 1, "{:?}", at_work.order);
    assert_eq!(engine.points(&item).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_backed_up_side_by_side_and_never_more_than_the_limit_says() {
    let world = World::new();
    let databases = ["a.db", "b.db", "c.db", "d.db", "e.db"];
    for name in databases {
        large(&world.database(name), 2);
    }
    let rate = std::num::NonZeroU64::new(8 << 20).unwrap();
    let engine = world.builder().streams(2).bytes_per_second(rate).start().await.unwrap();
    let mut events = engine.subscribe();
    for name in databases {
        engine.backup(&world.item(name)).id(name).submit().await.unwrap();
    }
    let (mut at_work, mut ends) = (AtWork::default(), 0);
    until(&mut events, |event| {
        at_work.hear(event);
        ends += usize::from(matches!(event, Event::Phase { phase: Phase::Succeeded, .. }));
        ends == databases.len()
    })
    .await;
    assert_eq!(at_work.most, 2, "{:?}", at_work.order);
}
