//! Damage is found, named, and never restored as if it were data.

mod common;

use archive::{Archive, ErrorKind, Key, Level, Result, Take};
use bytes::Bytes;
use common::faulty::Faulty;
use common::{EPOCH, assert_same, backup, key, memory, noise, restore, write};
use std::sync::Arc;

fn streams() -> [(&'static str, Bytes); 2] {
    [("data", noise(1, 90_000)), ("log", Bytes::from_static(b"a small log"))]
}

/// Everything that a restore does, from the key to the last byte.
async fn restore_all(store: &Arc<Faulty>) -> Result<Vec<Bytes>> {
    let archive = Archive::open(store.clone(), &key()).await?;
    let mut found = Vec::new();
    for name in archive.items().await? {
        let item = archive.item(&name).await?;
        for point in item.points().await? {
            item.read(&point).await?.verify_present().await?;
            for stream in &point.streams {
                found.push(restore(&item, &point, &stream.name).await?);
            }
        }
    }
    Ok(found)
}

/// Puts `damaged` in the place of an object: the restore is refused, or gives the right bytes.
async fn check(store: &Arc<Faulty>, name: &str, sound: &[u8], damaged: Vec<u8>, what: &str) {
    store.replace(name, damaged).await;
    match restore_all(store).await {
        // The footer and the tail of a pack are partly redundant for a restore.
        Ok(found) => {
            let expected: Vec<_> = streams().into_iter().map(|(_, bytes)| bytes).collect();
            assert!(found == expected, "{name}: {what} restored different bytes");
            assert!(name.contains("/packs/") || name.contains("/open/"), "{name}: {what} unseen");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{name}: {what}: {error:?}");
            assert_eq!(error.subject(), name, "{what}: {error:?}");
        }
    }
    store.replace(name, sound.to_vec()).await;
}

#[tokio::test]
async fn a_flipped_bit_anywhere_never_restores_different_bytes() {
    let (store, item) = memory().await;
    backup(&item, "p", &streams()).await.unwrap();
    for name in store.names().await {
        let sound = store.object(&name).await;
        // Every byte of small objects, and the whole outside of large ones.
        let step = if sound.len() < 2_000 { 1 } else { 101 };
        let edges = (0..64).chain(sound.len().saturating_sub(600)..sound.len());
        for at in edges.filter(|at| *at < sound.len()).chain((0..sound.len()).step_by(step)) {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << (at % 8);
            check(&store, &name, &sound, damaged, &format!("bit flipped in byte {at}")).await;
        }
    }
}

#[tokio::test]
async fn an_object_cut_short_or_grown_never_restores_different_bytes() {
    let (store, item) = memory().await;
    backup(&item, "p", &streams()).await.unwrap();
    for name in store.names().await {
        let sound = store.object(&name).await;
        let step = (sound.len() / 150).max(1);
        for length in (0..sound.len()).step_by(step) {
            let damaged = sound[..length].to_vec();
            check(&store, &name, &sound, damaged, &format!("cut to {length} bytes")).await;
        }
        let grown = [&sound[..], b"more"].concat();
        check(&store, &name, &sound, grown, "grown").await;
    }
}

#[tokio::test]
async fn one_object_in_the_place_of_another_never_restores_different_bytes() {
    let (store, item) = memory().await;
    backup(&item, "p", &streams()).await.unwrap();
    let names = store.names().await;
    for name in &names {
        let sound = store.object(name).await;
        for other in names.iter().filter(|other| *other != name) {
            let damaged = store.object(other).await;
            check(&store, name, &sound, damaged, &format!("replaced by {other}")).await;
        }
    }
}

#[tokio::test]
async fn a_pack_in_the_place_of_another_of_the_item_is_refused() {
    let (store, item) = memory().await;
    let first = backup(&item, "p1", &[("s", noise(1, 90_000))]).await.unwrap();
    backup(&item, "p2", &[("s", noise(2, 90_000))]).await.unwrap();
    let packs: Vec<_> =
        store.names().await.into_iter().filter(|name| name.contains("/packs/")).collect();
    let [a, b] = [store.object(&packs[0]).await, store.object(&packs[1]).await];
    assert_eq!(a.len(), b.len());
    store.replace(&packs[0], b).await;
    store.replace(&packs[1], a).await;
    let stream = item.read(&first).await.unwrap().stream("s").unwrap();
    assert_eq!(stream.read_at(0, 10).await.unwrap_err().kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn a_missing_pack_is_named_before_anything_is_restored() {
    let (store, item) = memory().await;
    let point = backup(&item, "p", &streams()).await.unwrap();
    let names = store.names().await;
    let pack = names.iter().find(|name| name.contains("/packs/")).unwrap();
    let sound = store.object(pack).await;
    store.remove(pack).await;
    let reader = item.read(&point).await.unwrap();
    let error = reader.verify_present().await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Damaged, pack.as_str()));
    let report = item.verify(&point, Level::Present).await.unwrap();
    assert_eq!((report.packs, report.problems[0].subject()), (1, pack.as_str()));
    // Bytes altered in place are found by the thorough check only.
    let mut damaged = sound.clone();
    damaged[5_000] ^= 1;
    store.replace(pack, damaged).await;
    assert!(item.verify(&point, Level::Present).await.unwrap().is_sound());
    let report = item.verify(&point, Level::Full).await.unwrap();
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].subject(), pack);
}

#[tokio::test]
async fn a_damaged_point_hides_no_other_and_stops_no_backup() {
    let (store, item) = memory().await;
    for id in ["p1", "p2"] {
        backup(&item, id, &[("s", noise(1, 90_000))]).await.unwrap();
    }
    let names = store.names().await;
    let damaged = names.iter().find(|name| name.contains("/points/")).unwrap();
    store.replace(damaged, b"rubbish".to_vec()).await;
    let archive = Archive::open(store.clone(), &key()).await.unwrap();
    let item = archive.item("orders").await.unwrap();
    let error = item.points().await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Damaged, damaged.as_str()));
    let listing = item.listing().await.unwrap();
    assert_eq!(listing.points.len(), 1);
    assert_eq!(listing.damaged.len(), 1);
    let point = backup(&item, "p3", &[("s", noise(1, 90_000))]).await.unwrap();
    assert_eq!(point.seq, 3);
    assert_same(&restore(&item, &point, "s").await.unwrap(), &noise(1, 90_000));
}

#[tokio::test]
async fn a_stranger_at_the_last_place_of_a_log_is_named_and_nothing_is_put_before_it() {
    let (store, item) = memory().await;
    backup(&item, "p1", &[("s", noise(1, 90_000))]).await.unwrap();
    let names = store.names().await;
    let last_beside = |name: &String| format!("{}/{}", name.rsplit_once('/').unwrap().0, u64::MAX);
    let last = last_beside(names.iter().find(|name| name.contains("/points/")).unwrap());
    store.replace(&last, b"rubbish".to_vec()).await;
    let error = backup(&item, "p2", &[("s", noise(1, 90_000))]).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Damaged, last.as_str()));
    // Among the checkpoints of a take any place that is free will do.
    let pin = names.iter().find(|name| name.ends_with("/00000000")).unwrap();
    store.replace(&last_beside(pin), b"rubbish".to_vec()).await;
    let session = item.begin(Take::new("p1", EPOCH)).await.unwrap();
    write(&session, "other", &noise(2, 90_000)).await.unwrap();
}

#[tokio::test]
async fn a_lost_pack_is_stored_again_by_the_next_backup() {
    let (store, item) = memory().await;
    let bytes = noise(1, 300_000);
    backup(&item, "p1", &[("s", bytes.clone())]).await.unwrap();
    for pack in store.names().await.iter().filter(|name| name.contains("/packs/")) {
        store.remove(pack).await;
    }
    let point = backup(&item, "p2", &[("s", bytes.clone())]).await.unwrap();
    assert_same(&restore(&item, &point, "s").await.unwrap(), &bytes);
}

#[tokio::test]
async fn a_wrong_key_is_refused_before_anything_else_and_writes_nothing() {
    let (store, item) = memory().await;
    backup(&item, "p", &streams()).await.unwrap();
    let puts = store.puts();
    let wrong = Key::from_bytes([8; 32]);
    for result in [
        Archive::open(store.clone(), &wrong).await,
        Archive::open_or_create(store.clone(), &wrong).await,
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongKey);
        assert_eq!(error.advice(), "give the key that this archive was created with");
    }
    assert_eq!(store.puts(), puts);
}

#[tokio::test]
async fn nothing_at_rest_shows_a_name_or_a_byte() {
    let (store, item) = memory().await;
    backup(&item, "secret-point", &[("secret-stream", vec![b'x'; 200_000].into())]).await.unwrap();
    for name in store.names().await {
        let object = store.object(&name).await;
        for secret in ["orders", "secret", "xxxxxxxx"] {
            assert!(!name.contains(secret), "{name}");
            let found = object.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{name} shows {secret}");
        }
    }
}
