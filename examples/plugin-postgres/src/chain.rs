//! Which points a restore needs, and where the next log begins: pure functions over points.
//!
//! **Promise.** A chain is one full point and logs that follow it without a gap, all of one
//! lineage (one cluster, one timeline), and ends in the point that was asked for. What is missing is
//! named.
//!
//! **How.** Nothing but the notes counts: points are ordered by their place in the log, not by when
//! they were sealed. A log may begin before the full point that it is replayed onto, and one full
//! point's logs go on over the next, so that a moment between two full points can be restored. The
//! points' base links are for retention alone.

use plugin_sdk::{Class, Fault, PointId, PointMeta, Timestamp, Until};

use crate::{
    lsn::Lsn,
    notes::{Base, Lineage, Notes, Wal},
};

/// The points that restore `target`, in the order in which they are applied.
///
/// # Errors
///
/// A fault of class [`Chain`](Class::Chain) that names the full point or the stretch of log that is
/// missing; a [`User`](Class::User) fault if `until` is no place in a log.
pub fn plan(
    points: &[PointMeta],
    target: &PointId,
    until: Option<&Until>,
) -> Result<Vec<PointId>, Fault> {
    let end = points.iter().find(|point| point.id == *target);
    let end = end.ok_or_else(|| {
        let message = format!("recovery point `{target}` is missing");
        Fault::new(Class::Chain, "chain.missing", message).advise("restore another point")
    })?;
    let stop = Stop::of(until)?;
    let wal = match Notes::of(end)? {
        Notes::Base(base) if stop.is_after(&base) => return Ok(vec![target.clone()]),
        Notes::Base(base) => return Err(no_base(&base.lineage, &stop)),
        Notes::Wal(wal) => wal,
    };
    // What cannot be read may be of a newer version, and not be needed.
    let known: Vec<(&PointMeta, Notes)> = points
        .iter()
        .filter_map(|point| Some((point, Notes::of(point).ok()?)))
        .filter(|(_, notes)| *notes.lineage() == wal.lineage)
        .collect();
    let bases = known.iter().filter_map(|(point, notes)| match notes {
        Notes::Base(base) if base.stop <= wal.to && stop.is_after(base) => Some((*point, base)),
        _ => None,
    });
    // The newest: an older one would need more of the log, and the same log at the end.
    let newest = bases.max_by_key(|(point, base)| (base.stop, std::cmp::Reverse(point.seq)));
    let (first, base) = newest.ok_or_else(|| no_base(&wal.lineage, &stop))?;
    let mut chain = vec![first.id.clone()];
    let mut reached = wal.lineage.segment_bytes.ceiling(base.stop);
    loop {
        if wal.from <= reached {
            chain.push(target.clone());
            return Ok(chain);
        }
        let logs = known.iter().filter_map(|(point, notes)| match notes {
            Notes::Wal(log) if log.from <= reached && log.to > reached && log.to <= wal.to => {
                Some((*point, log))
            }
            _ => None,
        });
        let farthest = logs.max_by_key(|(point, log)| (log.to, std::cmp::Reverse(point.seq)));
        let Some((point, log)) = farthest else { return Err(gap(&known, reached, &wal, target)) };
        chain.push(point.id.clone());
        reached = log.to;
    }
}

/// Where a replay stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    End,
    Time(Timestamp),
    Position(Lsn),
}

impl Stop {
    fn of(until: Option<&Until>) -> Result<Self, Fault> {
        Ok(match until {
            None => Stop::End,
            Some(Until::Time(time)) => Stop::Time(*time),
            Some(Until::Position(position)) => Stop::Position(position_of(position)?),
            Some(_) => {
                return Err(Fault::user("postgres.until", "there is no such place to stop at")
                    .advise("give a time or a log sequence number"));
            }
        })
    }

    /// Whether a replay that begins with `base` can stop there.
    fn is_after(self, base: &Base) -> bool {
        match self {
            Stop::End => true,
            Stop::Time(time) => base.stopped_at <= time,
            Stop::Position(position) => base.stop <= position,
        }
    }
}

/// Reads a place in the log that somebody asked for.
pub(crate) fn position_of(text: &str) -> Result<Lsn, Fault> {
    text.parse().map_err(|error| {
        Fault::user("postgres.lsn", format!("`{text}` is no place in a log"))
            .caused_by(&error)
            .advise("give what `pg_current_wal_lsn()` answered, such as 0/3000148")
    })
}

fn no_base(lineage: &Lineage, stop: &Stop) -> Fault {
    let when = match stop {
        Stop::End => String::new(),
        Stop::Time(time) => format!(" that was complete at {time}"),
        Stop::Position(position) => format!(" that was complete at {position}"),
    };
    let message = format!(
        "there is no full point of cluster {}, timeline {},{when} to replay the log onto",
        lineage.system_id, lineage.timeline
    );
    Fault::new(Class::Chain, "chain.no_full", message).advise("restore to a later moment")
}

fn gap(known: &[(&PointMeta, Notes)], reached: Lsn, wal: &Wal, target: &PointId) -> Fault {
    let beginnings = known.iter().filter_map(|(_, notes)| match notes {
        Notes::Wal(log) if log.from > reached && log.to <= wal.to => Some(log.from),
        _ => None,
    });
    let next = beginnings.min().unwrap_or(wal.from);
    let message = format!(
        "the log from {reached} to {next} (timeline {}) is in no point, and `{target}` needs it",
        wal.lineage.timeline
    );
    Fault::new(Class::Chain, "chain.gap", message)
        .advise("restore a point from before the gap, or one of a later full point")
}

/// Where the next log point begins, and on which point it builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextLog {
    /// The beginning of its first segment.
    pub from: Lsn,
    /// The newest point before it.
    pub base: PointId,
}

/// Decides where the next log of `lineage` begins, if the server keeps its log from `kept` on.
///
/// # Errors
///
/// Why there has to be a full point first, in words.
pub fn next_log(
    points: &[PointMeta],
    lineage: &Lineage,
    kept: Option<Lsn>,
) -> Result<NextLog, String> {
    let own = |point: &&PointMeta| Notes::of(point).is_ok_and(|of| of.lineage() == lineage);
    let Some(base) = newest(points.iter().filter(own), base_end) else {
        let other = points.iter().rev().find_map(|point| Notes::of(point).ok());
        return Err(match other {
            Some(other) if other.lineage().system_id != lineage.system_id => {
                format!("the server is another cluster now, {}", lineage.system_id)
            }
            Some(_) => format!("the server is on timeline {} now", lineage.timeline),
            None => "there is no full point".to_owned(),
        });
    };
    let Some(kept) = kept else {
        return Err("nothing makes the server keep its log: the replication slot is gone".into());
    };
    let log = newest(points.iter().filter(own), wal_end);
    let kept = lineage.segment_bytes.floor(kept);
    match log {
        // The newest of both is what the log builds on; the log itself goes on without a gap.
        Some((end, log)) if end >= kept => {
            let newer = if base.0 > end { base.1 } else { log };
            Ok(NextLog { from: end, base: newer.id.clone() })
        }
        _ if base.0 >= kept => Ok(NextLog { from: base.0, base: base.1.id.clone() }),
        _ => Err(format!("the server keeps its log from {kept} on only, {} is needed", base.0)),
    }
}

/// Whether no log was sealed since the newest full point of `lineage`: nobody wants what lies
/// between that point and the next, and the server need not keep it.
#[must_use]
pub fn has_no_log_since_its_base(points: &[PointMeta], lineage: &Lineage) -> bool {
    let own = |point: &&PointMeta| Notes::of(point).is_ok_and(|of| of.lineage() == lineage);
    let base = newest(points.iter().filter(own), base_end);
    let log = newest(points.iter().filter(own), wal_end);
    match (base, log) {
        (Some((base, _)), Some((log, _))) => log <= base,
        _ => true,
    }
}

fn newest<'p>(
    points: impl Iterator<Item = &'p PointMeta>,
    end: fn(&Notes) -> Option<Lsn>,
) -> Option<(Lsn, &'p PointMeta)> {
    let ends = points.filter_map(|point| Some((end(&Notes::of(point).ok()?)?, point)));
    ends.max_by_key(|(end, point)| (*end, point.seq))
}

/// Where the log that is in a full point ends.
fn base_end(notes: &Notes) -> Option<Lsn> {
    match notes {
        Notes::Base(base) => Some(base.lineage.segment_bytes.ceiling(base.stop)),
        Notes::Wal(_) => None,
    }
}

fn wal_end(notes: &Notes) -> Option<Lsn> {
    match notes {
        Notes::Wal(wal) => Some(wal.to),
        Notes::Base(_) => None,
    }
}
