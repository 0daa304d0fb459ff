//! A fault at every call to the store in turn: nothing half done is ever visible.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use archive::{Archive, ErrorKind, Item, Options, PointEntry, Result, Take};
use bytes::Bytes;
use common::faulty::{Fault, Faulty};
use common::{EPOCH, assert_same, key, noise, request, restore, write};

const SMALL_PACKS: u64 = 1 << 20;

async fn open(store: &std::sync::Arc<Faulty>) -> Result<Item> {
    let archive = Archive::open_or_create(store.clone(), &key()).await?;
    let mut options = Options::default();
    options.pack_bytes = SMALL_PACKS;
    archive.with_options(options)?.item("orders").await
}

/// The whole story of a process: open, write two streams at once, seal, release.
async fn story(
    store: &std::sync::Arc<Faulty>,
    take: &str,
    point: &str,
    streams: &[(&str, Bytes); 2],
) -> Result<PointEntry> {
    let item = open(store).await?;
    let session = item.begin(Take::new(take, EPOCH)).await?;
    let [a, b] = streams;
    futures::future::try_join(write(&session, a.0, &a.1), write(&session, b.0, &b.1)).await?;
    let entry = session.seal(request(point)).await?;
    item.release(session.take()).await?;
    Ok(entry)
}

async fn check_point(item: &Item, point: &PointEntry, streams: &[(&str, Bytes); 2]) {
    for (name, bytes) in streams {
        assert_same(&restore(item, point, name).await.unwrap(), bytes);
    }
}

/// Fails call 1, then call 2, and so on, until a story runs to its end with no fault left.
async fn check(fault: Fault) {
    let first = [("data", noise(1, 2_500_000)), ("log", noise(2, 30_000))];
    let mut changed = first[0].1.to_vec();
    changed[1_000_000..1_400_000].copy_from_slice(&noise(3, 400_000));
    let second = [("data", Bytes::from(changed)), ("log", noise(4, 30_000))];
    let mut nth = 0;
    loop {
        nth += 1;
        let store = Faulty::new();
        story(&store, "t1", "p1", &first).await.unwrap();
        store.fail(nth, fault);
        let result = story(&store, "t2", "p2", &second).await;
        let hit = store.heal();
        let context = format!("{fault:?} at call {nth}: {hit:?}");
        if hit.is_none() {
            result.unwrap();
            assert!(nth > 20, "only {nth} calls were tried");
            return;
        }
        // A lost answer to a put-if-absent may be healed by the call itself; all else is an error.
        if let Err(error) = &result {
            let expected = if fault == Fault::Full { ErrorKind::Full } else { ErrorKind::Storage };
            assert_eq!(error.kind(), expected, "{context}: {error:?}");
        }
        let item = open(&store).await.unwrap();
        let points = item.points().await.expect(&context);
        check_point(&item, &points[0], &first).await;
        if let Some(point) = points.get(1) {
            check_point(&item, point, &second).await;
        }
        // Whatever happened, the same point can be made now, and there is one of it.
        let point = story(&store, "t3", "p2", &second).await.expect(&context);
        check_point(&item, &point, &second).await;
        assert_eq!(item.points().await.unwrap().len(), 2, "{context}");
    }
}

#[tokio::test]
async fn a_call_that_fails_leaves_no_partial_point() {
    check(Fault::Before).await;
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_no_partial_point() {
    check(Fault::After).await;
}

#[tokio::test]
async fn a_process_that_dies_at_a_call_leaves_no_partial_point() {
    check(Fault::DeadBefore).await;
}

#[tokio::test]
async fn a_process_that_dies_after_a_call_leaves_no_partial_point() {
    check(Fault::DeadAfter).await;
}

#[tokio::test]
async fn a_full_disk_is_called_so_and_leaves_no_partial_point() {
    check(Fault::Full).await;
}

#[tokio::test]
async fn creating_an_archive_can_be_retried_after_a_fault_at_any_call() {
    for fault in [Fault::Before, Fault::After, Fault::DeadBefore, Fault::DeadAfter] {
        for nth in 1.. {
            let store = Faulty::new();
            store.fail(nth, fault);
            let result = open(&store).await;
            if store.heal().is_none() {
                result.unwrap();
                break;
            }
            let item = open(&store).await.unwrap();
            common::backup(&item, "p", &[("s", noise(1, 100))]).await.unwrap();
        }
    }
}
