//! Which points a restore needs: the default, by base links.

use std::collections::BTreeSet;

use fsm_core::{Class, Fault};

use crate::{PointId, PointMeta};

/// The points that `target` needs, bases before those that build on them, `target` last.
///
/// # Errors
///
/// A [`Class::Chain`] fault that names the point that is missing, or the one that needs itself.
pub(crate) fn base_links(points: &[PointMeta], target: &PointId) -> Result<Vec<PointId>, Fault> {
    let mut plan = Vec::new();
    let mut open = BTreeSet::new();
    visit(points, target, &mut open, &mut plan)?;
    Ok(plan)
}

fn visit(
    points: &[PointMeta],
    id: &PointId,
    open: &mut BTreeSet<PointId>,
    plan: &mut Vec<PointId>,
) -> Result<(), Fault> {
    if plan.contains(id) {
        return Ok(());
    }
    if !open.insert(id.clone()) {
        let message = format!("recovery point `{id}` needs itself");
        return Err(Fault::new(Class::Chain, "chain.cycle", message));
    }
    let point = points.iter().find(|point| point.id == *id).ok_or_else(|| {
        Fault::new(Class::Chain, "chain.missing", format!("recovery point `{id}` is missing"))
            .advise("restore an older point, or make a full backup to begin a new chain")
    })?;
    for base in &point.base {
        visit(points, base, open, plan)?;
    }
    open.remove(id);
    plan.push(id.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use fsm_core::Timestamp;

    use super::*;
    use crate::{ItemId, PointKind};

    fn points(links: &[(&str, &[&str])]) -> Vec<PointMeta> {
        let item = ItemId::new("w", "i", "n").expect("a fixed id is valid");
        let point = |(seq, (id, base)): (usize, &(&str, &[&str]))| {
            let (seq, at) = (seq as u64 + 1, Timestamp::default());
            let mut point =
                PointMeta::new(PointId::new(*id), item.clone(), seq, PointKind::Full, at);
            point.base = base.iter().map(|base| PointId::new(*base)).collect();
            point
        };
        links.iter().enumerate().map(point).collect()
    }

    #[track_caller]
    fn check(links: &[(&str, &[&str])], expected: Result<&[&str], &str>) {
        let plan = base_links(&points(links), &PointId::new("target"));
        let plan = plan.map(|plan| plan.iter().map(ToString::to_string).collect::<Vec<_>>());
        let expected = expected.map(|ids| ids.iter().map(ToString::to_string).collect());
        assert_eq!(plan.as_ref().map_err(|fault| fault.code()), expected.as_ref().map_err(|c| *c));
    }

    #[test]
    fn a_full_point_needs_nothing_else() {
        check(&[("older", &[]), ("target", &[])], Ok(&["target"]));
    }

    #[test]
    fn bases_come_before_what_builds_on_them() {
        check(
            &[("full", &[]), ("diff", &["full"]), ("target", &["diff"])],
            Ok(&["full", "diff", "target"]),
        );
    }

    #[test]
    fn a_missing_base_is_named_and_so_is_a_cycle() {
        check(&[("target", &["full"])], Err("chain.missing"));
        check(&[("a", &["target"]), ("target", &["a"])], Err("chain.cycle"));
    }
}
