//! The log of points: order, identity, fencing, aliases, and what a small log costs.

mod common;

use archive::{Epoch, ErrorKind, SealRequest, Take};
use common::{EPOCH, assert_same, backup, memory, noise, request, restore, write};

#[tokio::test]
async fn a_small_log_costs_two_puts() {
    let (store, item) = memory().await;
    backup(&item, "full", &[("data", noise(1, 300_000))]).await.unwrap();
    let before = store.puts();
    let log = noise(2, 16 << 10);
    let point = backup(&item, "log", &[("log", log.clone())]).await.unwrap();
    assert_eq!(store.puts() - before, 2);
    assert_same(&restore(&item, &point, "log").await.unwrap(), &log);
}

#[tokio::test]
async fn sealing_twice_finds_the_first_point() {
    let (_, item) = memory().await;
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    let receipt = write(&session, "s", &noise(1, 100)).await.unwrap();
    let first = session.seal(request("p")).await.unwrap();
    assert_eq!(session.seal(request("p")).await.unwrap(), first);
    assert_eq!(item.seal(request("p").receipts([receipt])).await.unwrap(), first);
    // Even when the holds are gone.
    item.release(session.take()).await.unwrap();
    assert_eq!(session.seal(request("p")).await.unwrap(), first);
    assert_eq!(item.points().await.unwrap(), [first]);
}

#[tokio::test]
async fn a_point_id_is_not_given_to_different_data() {
    let (_, item) = memory().await;
    backup(&item, "p", &[("s", noise(1, 100))]).await.unwrap();
    let session = item.begin(Take::new("other", EPOCH)).await.unwrap();
    write(&session, "s", &noise(2, 100)).await.unwrap();
    let error = session.seal(request("p")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    let less = item.seal(request("p")).await.unwrap_err();
    assert_eq!(less.kind(), ErrorKind::Exists);
}

#[tokio::test]
async fn an_alias_has_the_same_data_at_a_new_time_and_stores_none() {
    let (store, item) = memory().await;
    let bytes = noise(1, 400_000);
    backup(&item, "monday", &[("data", bytes.clone()), ("log", noise(2, 9))]).await.unwrap();
    let before = store.puts();
    let request = SealRequest::new("tuesday", EPOCH, 1_700_000_086_400).alias_of("monday");
    let alias = item.seal(request.clone()).await.unwrap();
    assert_eq!(store.puts() - before, 1);
    assert_eq!(alias.alias_of, Some("monday".into()));
    assert_same(&restore(&item, &alias, "data").await.unwrap(), &bytes);
    assert_same(&restore(&item, &alias, "log").await.unwrap(), &noise(2, 9));
    assert_eq!(item.seal(request).await.unwrap(), alias);
}

#[tokio::test]
async fn an_older_writer_is_fenced() {
    let (_, item) = memory().await;
    let old = item.begin(Take::new("old", Epoch(1))).await.unwrap();
    write(&old, "s", &noise(1, 100)).await.unwrap();
    let new = item.begin(Take::new("new", Epoch(2))).await.unwrap();
    write(&new, "s", &noise(2, 100)).await.unwrap();
    new.seal(SealRequest::new("new", Epoch(2), 2)).await.unwrap();
    let error = old.seal(SealRequest::new("old", Epoch(1), 3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(!error.is_retryable());
    let error = item.begin(Take::new("older", Epoch(1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(item.points().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_point_that_was_sealed_is_found_even_by_a_writer_that_is_fenced_since() {
    let (_, item) = memory().await;
    let session = item.begin(Take::new("old", EPOCH)).await.unwrap();
    let receipt = write(&session, "s", &noise(1, 100)).await.unwrap();
    let request = request("old").receipts([receipt]);
    let old = item.seal(request.clone()).await.unwrap();
    item.seal(SealRequest::new("new", Epoch(2), 2)).await.unwrap();
    assert_eq!(item.seal(request).await.unwrap(), old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sealers_get_numbers_of_their_own() {
    let (_, item) = memory().await;
    let tasks: Vec<_> = (0..12_u8)
        .map(|n| {
            let item = item.clone();
            tokio::spawn(async move {
                // Every third tries to be the same point.
                let id = if n % 3 == 0 { "same".to_owned() } else { format!("p{n}") };
                item.seal(SealRequest::new(id, EPOCH, 0)).await.unwrap().seq
            })
        })
        .collect();
    let mut seqs = std::collections::BTreeSet::new();
    for task in tasks {
        seqs.insert(task.await.unwrap());
    }
    assert_eq!(seqs, (1..=9).collect());
    assert_eq!(item.points().await.unwrap().len(), 9);
}

#[tokio::test]
async fn a_base_must_exist() {
    let (_, item) = memory().await;
    let error = item.seal(request("p").base("nowhere")).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::NotFound, "point nowhere"));
}
