//! Which recovery point covers a moment: pure.

use fsm_core::{Fault, Timestamp};
use plugin_sdk::{Manifest, PointKind, PointMeta, Until};

use crate::Error;

/// The first of `points`, oldest first, from which the item can be restored as it was at `time`.
///
/// That is a point of that very moment; or a log that was taken later, as a log covers every moment
/// since the one before it; or a point that was made because nothing had changed since then.
pub(super) fn covering(points: &[PointMeta], time: Timestamp) -> Option<&PointMeta> {
    let begun = points.iter().map(|point| point.taken_at).min()?;
    if time < begun {
        return None;
    }
    let unchanged = |point: &PointMeta| {
        let of = point.alias_of.as_ref();
        of.and_then(|of| points.iter().find(|other| other.id == *of))
            .is_some_and(|of| of.taken_at <= time)
    };
    points.iter().find(|point| {
        point.taken_at == time
            || point.taken_at > time && (point.kind == PointKind::Log || unchanged(point))
    })
}

/// Whether a restore of `last` can stop at `until`, by what can be said without the workload.
pub(super) fn check_until(
    until: &Until,
    last: &PointMeta,
    manifest: &Manifest,
) -> Result<(), Error> {
    if !manifest.restores_until {
        let message = format!("workload `{}` restores whole points only", manifest.workload);
        return Err(Fault::user("until.unsupported", message)
            .advise("restore to the end of a point")
            .into());
    }
    match until {
        Until::Time(time) if *time > last.taken_at => {
            let message = format!("point {} ends at {}, before {time}", last.id, last.taken_at);
            Err(Fault::user("until.after_end", message)
                .advise("choose an earlier time, or a later point")
                .into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use plugin_sdk::{ItemId, PointId};

    use super::*;

    const FULL: PointKind = PointKind::Full;
    const LOG: PointKind = PointKind::Log;

    /// Points with these names, kinds and times; `=x` behind a name makes it an alias of `x`.
    fn points(points: &[(&str, PointKind, u64)]) -> Vec<PointMeta> {
        let item = ItemId::new("w", "i", "n").expect("a fixed id is valid");
        let point = |(seq, (name, kind, at)): (usize, &(&str, PointKind, u64))| {
            let (id, of) = name.split_once('=').map_or((*name, None), |(id, of)| (id, Some(of)));
            let at = Timestamp::from_unix_ms(*at);
            let mut point =
                PointMeta::new(PointId::new(id), item.clone(), seq as u64 + 1, *kind, at);
            point.alias_of = of.map(PointId::new);
            point
        };
        points.iter().enumerate().map(point).collect()
    }

    #[track_caller]
    fn check(listed: &[(&str, PointKind, u64)], time: u64, expected: Option<&str>) {
        let points = points(listed);
        let found = covering(&points, Timestamp::from_unix_ms(time));
        assert_eq!(found.map(|point| point.id.as_str()), expected, "{time} in {listed:?}");
    }

    #[test]
    fn a_log_covers_what_lies_before_it() {
        let listed = [("full", FULL, 10), ("log", LOG, 20), ("later", LOG, 30)];
        check(&listed, 9, None);
        check(&listed, 10, Some("full"));
        check(&listed, 11, Some("log"));
        check(&listed, 20, Some("log"));
        check(&listed, 21, Some("later"));
        check(&listed, 31, None);
    }

    #[test]
    fn a_full_point_covers_its_own_moment_only() {
        let listed = [("full", FULL, 10), ("second", FULL, 20), ("log", LOG, 30)];
        check(&listed, 15, Some("log"));
        check(&listed, 20, Some("second"));
        check(&[("full", FULL, 10), ("second", FULL, 20)], 15, None);
    }

    #[test]
    fn nothing_had_changed_before_an_alias() {
        let listed = [("full", FULL, 10), ("again=full", FULL, 20), ("other=full", FULL, 30)];
        check(&listed, 15, Some("again"));
        check(&listed, 30, Some("other"));
        check(&[("a", FULL, 10), ("b", FULL, 20), ("c=b", FULL, 30)], 15, None);
    }
}
