//! Takes: failed streams, holds, receipts that outlive their process, and kills.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use archive::{Archive, ErrorKind, Options, Receipt, Take};
use bytes::Bytes;
use common::faulty::Fault;
use common::{EPOCH, assert_same, backup, key, memory, noise, request, restore, write};

#[tokio::test]
async fn one_failed_stream_means_no_point_and_the_next_backup_succeeds() {
    let (store, item) = memory().await;
    let (a, b) = (noise(1, 400_000), noise(2, 400_000));
    let session = item.begin(Take::new("t1", EPOCH)).await.unwrap();
    write(&session, "a", &a).await.unwrap();
    let mut failing = session.stream("b").unwrap();
    failing.write(b.slice(..200_000)).await.unwrap();
    store.fail(1, Fault::DeadBefore);
    assert_eq!(failing.finish().await.unwrap_err().kind(), ErrorKind::Storage);
    store.heal();
    let error = session.seal(request("p1")).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Input, "b"));
    assert!(item.points().await.unwrap().is_empty());
    let point = backup(&item, "p2", &[("a", a.clone()), ("b", b.clone())]).await.unwrap();
    assert_same(&restore(&item, &point, "a").await.unwrap(), &a);
    assert_same(&restore(&item, &point, "b").await.unwrap(), &b);
}

#[tokio::test]
async fn a_dropped_or_unfinished_stream_means_no_point() {
    let (_, item) = memory().await;
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    let open = session.stream("a").unwrap();
    assert_eq!(session.seal(request("p")).await.unwrap_err().kind(), ErrorKind::Input);
    drop(open);
    assert_eq!(session.seal(request("p")).await.unwrap_err().kind(), ErrorKind::Input);
    assert_eq!(session.stream("a").unwrap_err().kind(), ErrorKind::Exists);
}

#[tokio::test]
async fn receipts_are_sealed_by_another_process() {
    let (store, item) = memory().await;
    let (a, b) = (noise(1, 2_000_000), noise(2, 50));
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    let receipts =
        [write(&session, "a", &a).await.unwrap(), write(&session, "b", &b).await.unwrap()];
    let kept = serde_json::to_string(&receipts).unwrap();
    drop((session, item));

    let archive = Archive::open(store, &key()).await.unwrap();
    let item = archive.item("orders").await.unwrap();
    let holds = item.holds().await.unwrap();
    assert_eq!(holds.len(), 2);
    assert!(holds.iter().all(|hold| receipts.contains(&hold.receipt)));
    let receipts: Vec<Receipt> = serde_json::from_str(&kept).unwrap();
    let point = item.seal(request("p").receipts(receipts)).await.unwrap();
    item.release(&"t".into()).await.unwrap();
    assert!(item.holds().await.unwrap().is_empty());
    assert_same(&restore(&item, &point, "a").await.unwrap(), &a);
    assert_same(&restore(&item, &point, "b").await.unwrap(), &b);
}

#[tokio::test]
async fn a_take_is_sealed_whole_or_not_at_all() {
    let (_, item) = memory().await;
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    let a = write(&session, "a", &noise(1, 10)).await.unwrap();
    let b = write(&session, "b", &noise(2, 10)).await.unwrap();
    let error = item.seal(request("p").receipts([a.clone()])).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Input, "take t"));
    item.seal(request("p").receipts([a, b])).await.unwrap();
}

#[tokio::test]
async fn a_released_or_forged_receipt_is_refused() {
    let (_, item) = memory().await;
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    let receipt = write(&session, "a", &noise(1, 10)).await.unwrap();
    let mut forged = receipt.clone();
    forged.length += 1;
    let error = item.seal(request("p").receipts([forged])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    item.release(session.take()).await.unwrap();
    let error = item.seal(request("p").receipts([receipt])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn finishing_the_same_stream_of_the_same_take_again_gives_the_same_receipt() {
    let (_, item) = memory().await;
    for _ in 0..2 {
        let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
        write(&session, "a", &noise(1, 400_000)).await.unwrap();
    }
    assert_eq!(item.holds().await.unwrap().len(), 1);
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    let error = write(&session, "a", &noise(2, 400_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_take_is_stored_again_only_from_where_it_was_not_checkpointed() {
    const PACK: u64 = 1 << 20;
    let bytes = noise(3, 20_000_000);
    for percent in [10, 50, 90] {
        let (store, _) = memory().await;
        let mut options = Options::default();
        options.pack_bytes = PACK;
        let archive = Archive::open(store.clone(), &key()).await.unwrap();
        let item = archive.with_options(options).unwrap().item("orders").await.unwrap();
        let session = item.begin(Take::new("killed", EPOCH)).await.unwrap();
        let mut writer = session.stream("s").unwrap();
        let reached = bytes.len() * percent / 100;
        writer.write(bytes.slice(..reached)).await.unwrap();
        drop((writer, session));
        settle(&store).await;
        let session = item.begin(Take::new("again", EPOCH)).await.unwrap();
        let receipt = write(&session, "s", &bytes).await.unwrap();
        // What the pipeline had taken in but not cut yet when it was killed is not stored either.
        let in_flight = 5 << 20;
        let most = (bytes.len() - reached) as u64 + 3 * PACK + in_flight;
        let new = receipt.stats.new_raw_bytes;
        assert!(new <= most, "{percent} %: {new} bytes are new, at most {most} expected");
        assert!(receipt.stats.reused_chunks > 0 || percent == 10);
        let point = session.seal(request("p")).await.unwrap();
        assert_same(&restore(&item, &point, "s").await.unwrap(), &bytes);
    }
}

/// Lets the packs arrive that were on their way when the writer was dropped.
async fn settle(store: &common::faulty::Faulty) {
    let mut last = u64::MAX;
    while last != store.puts() {
        last = store.puts();
        for _ in 0..200 {
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_hold_that_is_released_while_holds_are_listed_hides_no_other() {
    let (store, item) = memory().await;
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    for name in ["a", "b"] {
        write(&session, name, &noise(1, 10)).await.unwrap();
    }
    // The first call lists, the second reads the first hold.
    store.fail(2, Fault::Gone);
    let holds = item.holds().await.unwrap();
    assert!(store.heal().unwrap().contains("/hold-"));
    assert_eq!(holds.len(), 1);
}

/// A buffer of its caller's, counted while somebody holds it.
struct Lent {
    bytes: Bytes,
    _held: std::sync::Arc<()>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_lets_go_of_its_callers_buffers_however_little_is_in_them() {
    let (_, item) = memory().await;
    let bytes = noise(1, 400_000);
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    let mut writer = session.stream("s").unwrap();
    let count = std::sync::Arc::new(());
    for at in (0..bytes.len()).step_by(100) {
        let lent = Lent { bytes: bytes.slice(at..at + 100), _held: count.clone() };
        writer.write(Bytes::from_owner(lent)).await.unwrap();
        // The queue of the cutting thread, and the two ends of it.
        let held = std::sync::Arc::strong_count(&count) - 1;
        assert!(held <= 6, "{held} buffers are held after {at} bytes");
    }
    writer.finish().await.unwrap();
    assert_eq!(std::sync::Arc::strong_count(&count), 1);
    let point = session.seal(request("p")).await.unwrap();
    assert_same(&restore(&item, &point, "s").await.unwrap(), &bytes);
}
