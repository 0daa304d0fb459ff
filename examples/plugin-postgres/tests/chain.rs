//! Planning over histories that are drawn: full points and logs, in any order, with gaps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use plugin_postgres::{Base, Lineage, Lsn, Notes, SegmentSize, Wal, next_log, plan};
use plugin_sdk::{Class, ItemId, PointId, PointKind, PointMeta, PointNotes, Timestamp, Until};
use proptest::prelude::*;

const SEGMENT: u64 = 1 << 20;

fn lineage(timeline: u32) -> Lineage {
    let segment_bytes = SegmentSize::try_from(SEGMENT).unwrap();
    Lineage { system_id: "7".to_owned(), timeline, segment_bytes }
}

fn at(segment: u64) -> Lsn {
    Lsn::new(segment * SEGMENT)
}

/// A full point that is consistent within a segment; the log of that segment is in it. The clock
/// goes with the log, ten seconds a segment.
fn full(segment: u64) -> Notes {
    Notes::Base(Base {
        lineage: lineage(1),
        start: Lsn::new(segment * SEGMENT + 40),
        checkpoint: Lsn::new(segment * SEGMENT + 96),
        stop: Lsn::new(segment * SEGMENT + 256),
        stopped_at: time(segment) + std::time::Duration::from_secs(1),
        server_version: 150_004,
    })
}

/// The log of these segments, without the last.
fn log(from: u64, to: u64) -> Notes {
    let covered_at = time(to);
    Notes::Wal(Wal { lineage: lineage(1), from: at(from), to: at(to), covered_at })
}

fn time(segment: u64) -> Timestamp {
    Timestamp::from_unix_ms(segment * 10_000)
}

fn points(notes: &[Notes]) -> Vec<PointMeta> {
    let item = ItemId::new("postgres", "main", "cluster").unwrap();
    let point = |(seq, notes): (usize, &Notes)| {
        let (kind, taken_at) = match notes {
            Notes::Base(base) => (PointKind::Full, base.stopped_at),
            Notes::Wal(wal) => (PointKind::Log, wal.covered_at),
        };
        let id = PointId::new(format!("p{seq}"));
        let mut point = PointMeta::new(id, item.clone(), seq as u64 + 1, kind, taken_at);
        point.notes = PointNotes::new().details(serde_json::to_value(notes).unwrap());
        point
    };
    notes.iter().enumerate().map(point).collect()
}

#[track_caller]
fn check(notes: &[Notes], target: usize, until: Option<Until>, expected: Result<&[&str], &str>) {
    let points = points(notes);
    let plan = plan(&points, &points[target].id, until.as_ref());
    match (&plan, expected) {
        (Ok(plan), Ok(expected)) => {
            let plan: Vec<&str> = plan.iter().map(PointId::as_str).collect();
            assert_eq!(plan, expected);
        }
        (Err(fault), Err(code)) => assert_eq!(fault.code(), code, "{fault:?}"),
        _ => panic!("{plan:?} instead of {expected:?}"),
    }
}

#[test]
fn a_chain_is_a_full_point_and_the_logs_behind_it() {
    let history = [full(2), log(3, 5), log(5, 6), full(6), log(6, 9)];
    check(&history, 0, None, Ok(&["p0"]));
    check(&history, 2, None, Ok(&["p0", "p1", "p2"]));
    // The newest full point serves, although the log begins before it.
    check(&history, 4, None, Ok(&["p3", "p4"]));
    // A moment before that is reached from the older one.
    check(&history, 4, Some(Until::Time(time(6))), Ok(&["p0", "p1", "p2", "p4"]));
    let position = |lsn: Lsn| Some(Until::Position(lsn.to_string()));
    check(&history, 4, position(Lsn::new(6 * SEGMENT + 100)), Ok(&["p0", "p1", "p2", "p4"]));
    check(&history, 4, position(at(7)), Ok(&["p3", "p4"]));
}

#[test]
fn what_is_missing_is_named() {
    let history = [full(2), log(3, 5), log(7, 9)];
    check(&history, 2, None, Err("chain.gap"));
    let listed = points(&history);
    let fault = plan(&listed, &listed[2].id, None).unwrap_err();
    assert_eq!(fault.class(), Class::Chain);
    assert_eq!(
        fault.message(),
        "the log from 0/500000 to 0/700000 (timeline 1) is in no point, and `p2` needs it"
    );
    check(&[log(3, 5)], 0, None, Err("chain.no_full"));
    check(&[full(2), log(3, 5)], 1, Some(Until::Time(time(1))), Err("chain.no_full"));
    check(&[full(2)], 0, Some(Until::Time(time(1))), Err("chain.no_full"));
    check(&[full(2), log(3, 5)], 1, Some(Until::Position("noon".into())), Err("postgres.lsn"));
}

#[test]
fn another_timeline_is_no_part_of_a_chain() {
    let mut other = log(5, 6);
    if let Notes::Wal(wal) = &mut other {
        wal.lineage.timeline = 2;
    }
    check(&[full(2), log(3, 5), other], 2, None, Err("chain.no_full"));
}

#[track_caller]
fn check_next(
    notes: &[Notes],
    timeline: u32,
    kept: Option<u64>,
    expected: Result<(u64, &str), &str>,
) {
    let points = points(notes);
    let next = next_log(&points, &lineage(timeline), kept.map(at));
    let next = next.as_ref().map(|next| (next.from, next.base.as_str()));
    match (next, expected) {
        (Ok(next), Ok((from, base))) => assert_eq!(next, (at(from), base)),
        (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
        (next, _) => panic!("{next:?} instead of {expected:?}"),
    }
}

#[test]
fn the_next_log_goes_on_where_the_last_one_ended() {
    check_next(&[full(2)], 1, Some(2), Ok((3, "p0")));
    check_next(&[full(2), log(3, 5)], 1, Some(5), Ok((5, "p1")));
    // Also over a newer full point, on which it builds.
    check_next(&[full(2), log(3, 5), full(7)], 1, Some(5), Ok((5, "p2")));
    // Unless the server has let go of what lies between.
    check_next(&[full(2), log(3, 5), full(7)], 1, Some(8), Ok((8, "p2")));
}

#[test]
fn without_what_it_needs_there_is_no_next_log() {
    check_next(&[], 1, Some(2), Err("no full point"));
    check_next(&[full(2)], 1, None, Err("slot is gone"));
    check_next(&[full(2)], 1, Some(4), Err("keeps its log from 0/400000 on only"));
    check_next(&[full(2), log(3, 5)], 1, Some(6), Err("0/600000"));
    check_next(&[full(2)], 2, Some(2), Err("timeline 2"));
}

/// A history as a server may have it: each entry is a full point, or a log that begins where the
/// one before it ended, or a few segments later.
fn histories() -> impl Strategy<Value = Vec<Notes>> {
    let gap = prop_oneof![4 => Just(0_u64), 1 => 1_u64..3];
    let entry = prop_oneof![
        (1_u64..4).prop_map(|ahead| (None, ahead)),
        (gap, 1_u64..4).prop_map(|(gap, length)| (Some(gap), length)),
    ];
    prop::collection::vec(entry, 1..12).prop_map(|entries| {
        let (mut logged, mut now) = (2, 2);
        let entry = |(gap, length): (Option<u64>, u64)| match gap {
            None => {
                now += length;
                full(now)
            }
            Some(gap) => {
                let from = logged + gap;
                logged = from + length;
                now = now.max(logged);
                log(from, logged)
            }
        };
        entries.into_iter().map(entry).collect()
    })
}

/// Whether `plan` is what a server can replay, by the rules' statement alone.
fn is_sound(notes: &[Notes], plan: &[PointId], target: usize) -> bool {
    let index = |id: &PointId| id.as_str()[1..].parse::<usize>().unwrap();
    let Notes::Base(base) = &notes[index(&plan[0])] else { return false };
    // The first segment that is not in the full point.
    let mut needed = base.stop.bytes() / SEGMENT + 1;
    for id in &plan[1..] {
        let Notes::Wal(wal) = &notes[index(id)] else { return false };
        if wal.from.bytes() / SEGMENT > needed {
            return false;
        }
        needed = needed.max(wal.to.bytes() / SEGMENT);
    }
    index(&plan[plan.len() - 1]) == target
}

/// Whether some full point has all of the log behind it in some points.
fn is_possible(notes: &[Notes], target: usize) -> bool {
    let Notes::Wal(wanted) = &notes[target] else { return true };
    let end = wanted.to.bytes() / SEGMENT;
    let held = |segment: u64| {
        notes.iter().any(|notes| match notes {
            Notes::Wal(wal) => wal.to <= wanted.to && (wal.from..wal.to).contains(&at(segment)),
            Notes::Base(_) => false,
        })
    };
    notes.iter().any(|notes| match notes {
        Notes::Base(base) => {
            let begin = base.stop.bytes() / SEGMENT + 1;
            base.stop <= wanted.to && (begin..end).all(held)
        }
        Notes::Wal(_) => false,
    })
}

proptest! {
    #[test]
    fn a_plan_is_sound_and_there_is_one_if_there_can_be(notes in histories()) {
        let points = points(&notes);
        for target in 0..notes.len() {
            match plan(&points, &points[target].id, None) {
                Ok(plan) => prop_assert!(is_sound(&notes, &plan, target), "{plan:?}"),
                Err(fault) => {
                    prop_assert_eq!(fault.class(), Class::Chain);
                    prop_assert!(!is_possible(&notes, target), "{}: {:?}", target, fault);
                }
            }
        }
    }

    #[test]
    fn the_next_log_is_one_that_the_server_still_has(notes in histories(), kept in 0_u64..40) {
        let listed = points(&notes);
        let Ok(next) = next_log(&listed, &lineage(1), Some(at(kept))) else { return Ok(()) };
        prop_assert!(next.from >= at(kept));
        // No log is sent twice, and with the newest full point it leaves no gap.
        let newest = |end: fn(&Notes) -> Option<u64>| notes.iter().filter_map(end).max();
        let logged = newest(|notes| match notes {
            Notes::Wal(wal) => Some(wal.to.bytes() / SEGMENT),
            Notes::Base(_) => None,
        });
        let based = newest(|notes| match notes {
            Notes::Base(base) => Some(base.stop.bytes() / SEGMENT + 1),
            Notes::Wal(_) => None,
        });
        let from = next.from.bytes() / SEGMENT;
        prop_assert!(logged.is_none_or(|logged| from >= logged));
        prop_assert!(Some(from) == logged || Some(from) == based);
    }
}
