//! What has not changed is not stored again.

mod common;

use archive::Take;
use bytes::Bytes;
use common::{EPOCH, assert_same, backup, memory, noise, request, restore, write};

#[tokio::test]
async fn the_same_bytes_again_store_nothing() {
    let (store, item) = memory().await;
    let bytes = noise(1, 4_000_000);
    backup(&item, "p1", &[("s", bytes.clone())]).await.unwrap();
    let packs = packs(&store).await;
    let session = item.begin(Take::new("t2", EPOCH)).await.unwrap();
    let stats = write(&session, "s", &bytes).await.unwrap().stats;
    assert_eq!((stats.new_raw_bytes, stats.new_stored_bytes), (0, 0));
    assert_eq!(stats.read_bytes, 4_000_000);
    assert_eq!(stats.reused_chunks, stats.chunks);
    assert_eq!(self::packs(&store).await, packs);
}

#[tokio::test]
async fn an_insertion_stores_its_neighbourhood_only() {
    let (_, item) = memory().await;
    let bytes = noise(1, 4_000_000);
    backup(&item, "p1", &[("s", bytes.clone())]).await.unwrap();
    let mut changed = bytes.to_vec();
    changed.splice(1_234_567..1_234_567, *b"just a few bytes");
    let changed = Bytes::from(changed);
    let session = item.begin(Take::new("t2", EPOCH)).await.unwrap();
    let stats = write(&session, "s", &changed).await.unwrap().stats;
    assert!(stats.new_raw_bytes < 200_000, "{stats:?}");
    let point = session.seal(request("p2")).await.unwrap();
    assert_same(&restore(&item, &point, "s").await.unwrap(), &changed);
}

#[tokio::test]
async fn zeros_are_stored_once_within_a_stream() {
    let (_, item) = memory().await;
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    let stats = write(&session, "s", &vec![0; 8 << 20].into()).await.unwrap().stats;
    assert!(stats.new_raw_bytes <= 128 << 10, "{stats:?}");
    assert!(stats.new_stored_bytes < 1_000, "{stats:?}");
}

#[tokio::test]
async fn a_stream_finds_what_another_stream_of_the_item_stored() {
    let (_, item) = memory().await;
    backup(&item, "p1", &[("a", noise(1, 1_000_000))]).await.unwrap();
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    let stats = write(&session, "b", &noise(1, 1_000_000)).await.unwrap().stats;
    assert_eq!(stats.new_raw_bytes, 0);
    assert_eq!(session.stats(), stats);
}

#[tokio::test]
async fn a_base_is_searched_however_many_logs_came_since() {
    let (_, item) = memory().await;
    let bytes = noise(1, 1_000_000);
    backup(&item, "full", &[("s", bytes.clone())]).await.unwrap();
    for n in 0..40 {
        item.seal(request(&format!("log{n}")).base("full")).await.unwrap();
    }
    let session = item.begin(Take::new("t", EPOCH)).await.unwrap();
    assert_eq!(write(&session, "s", &bytes).await.unwrap().stats.new_raw_bytes, 0);
}

/// A database of 4 KiB pages: a row table that grows at its end, and an index over a value that
/// grows with it, so that the newest rows are in the newest pages of both.
fn database(rows: u32, changed_from: u32) -> Bytes {
    const ROWS_A_PAGE: u32 = 36;
    const KEYS_A_PAGE: u32 = 340;
    let mut pages = Vec::new();
    let page = |pages: &mut Vec<u8>, kind: u8, first: u32, rows: u32, row_bytes: usize| {
        let mut page = vec![kind; 16];
        for row in first..first + rows {
            let version = u8::from(row >= changed_from);
            let mut hasher = blake3::Hasher::new();
            hasher.update(&row.to_le_bytes()).update(&[kind, version]);
            let mut bytes = vec![0; row_bytes];
            hasher.finalize_xof().fill(&mut bytes);
            page.extend(bytes);
        }
        page.resize(4096, 0);
        pages.extend(page);
    };
    for row in (0..rows).step_by(ROWS_A_PAGE as usize) {
        page(&mut pages, 1, row, ROWS_A_PAGE.min(rows - row), 112);
        // The index grows between the pages of the table.
        if row % KEYS_A_PAGE < ROWS_A_PAGE {
            page(&mut pages, 2, row, KEYS_A_PAGE.min(rows - row), 12);
        }
    }
    pages.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_changed_at_its_end_stores_at_most_six_percent_of_itself() {
    let (_, item) = memory().await;
    let rows = 150_000;
    backup(&item, "p1", &[("db", database(rows, u32::MAX))]).await.unwrap();
    let changed = database(rows + rows / 100, rows - rows / 100);
    let session = item.begin(Take::new("t2", EPOCH)).await.unwrap();
    let stats = write(&session, "db", &changed).await.unwrap().stats;
    let most = changed.len() as u64 * 6 / 100;
    assert!(stats.new_raw_bytes <= most, "{} of {}", stats.new_raw_bytes, changed.len());
}

async fn packs(store: &common::faulty::Faulty) -> Vec<String> {
    store.names().await.into_iter().filter(|name| name.contains("/packs/")).collect()
}
