//! What must hold after every play, whatever went wrong in it.

use fsm_core::{Ending, Graph};

use crate::{
    Overwrite, PointKind,
    conformance::{
        archive::{MemoryArchive, StoredPoint},
        bench::{Baseline, Bench, Rehearsal, Task, completed},
        desk::{Blow, Crossing},
        play::{Disturbance, Played},
    },
};

/// Which run is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Backup,
    Restore,
}

impl Run {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Run::Backup => "backup",
            Run::Restore => "restore",
        }
    }

    /// What it does undisturbed; `None` if it is not offered.
    pub(super) fn rehearsal(self, baseline: &Baseline) -> Option<&Rehearsal> {
        match self {
            Run::Backup => Some(&baseline.backup),
            Run::Restore => baseline.restore.as_ref(),
        }
    }

    /// Plays it once, disturbed, and checks what must hold in the end.
    pub(super) fn disturbed(
        self,
        bench: &Bench,
        baseline: &Baseline,
        disturbance: Disturbance,
    ) -> Result<Played, String> {
        let told = disturbance.to_string();
        let played = match self {
            Run::Backup => backup(bench, baseline, Task::new("again", disturbance)),
            Run::Restore => restore(bench, baseline, Task::new("again", disturbance)),
        };
        played.map_err(|why| format!("{} {told}: {why}", self.as_str()))
    }
}

/// Plays a full backup of the seeded item.
pub(super) fn backup(bench: &Bench, baseline: &Baseline, task: Task<'_>) -> Result<Played, String> {
    bench.seed()?;
    let archive = MemoryArchive::new();
    let played = bench.back_up(PointKind::Full, &archive, task)?;
    sound(bench, &played)?;
    if bench.digest()?.as_ref() != Some(&baseline.seeded) {
        return Err("the backup has changed the item".to_owned());
    }
    let end = played.end.as_ref().map_err(Clone::clone)?;
    let points = archive.points();
    match (end.ending, points.len()) {
        (Ending::Completed, 0) => return Err("the run completed without a point".to_owned()),
        (_, 0 | 1) => {}
        (_, many) => return Err(format!("one run has made {many} points")),
    }
    if end.ending == Ending::Completed
        && let [left, ..] = &archive.unsealed()[..]
    {
        return Err(format!(
            "it was sent twice: take {left} is finished and in no point (adopt a finished take)"
        ));
    }
    if let Some(point) = points.first() {
        same_content(bench, baseline, &archive, point)?;
    }
    Ok(played)
}

/// A point holds what was seeded: its streams are those of the undisturbed run, or it restores to
/// the same item.
fn same_content(
    bench: &Bench,
    baseline: &Baseline,
    archive: &MemoryArchive,
    point: &StoredPoint,
) -> Result<(), String> {
    if point.streams == baseline.point.streams {
        return Ok(());
    }
    if baseline.restore.is_none() {
        let names = |point: &StoredPoint| point.streams.keys().cloned().collect::<Vec<_>>();
        let (expected, found) = (names(&baseline.point), names(point));
        return match expected == found {
            true => Ok(()),
            false => Err(format!("its point has the streams {found:?}, not {expected:?}")),
        };
    }
    bench.wipe()?;
    let task = Task::new("proof", Disturbance::Nothing);
    let restored = bench.restore(&point.meta.id, None, Overwrite::Refuse, archive, task)?;
    completed(&restored).map_err(|why| format!("its point cannot be restored: {why}"))?;
    match bench.digest()?.as_ref() == Some(&baseline.seeded) {
        true => Ok(()),
        false => Err("its point restores to something else than was backed up".to_owned()),
    }
}

/// Plays a restore of the seeded item's point to where the item was.
pub(super) fn restore(
    bench: &Bench,
    baseline: &Baseline,
    task: Task<'_>,
) -> Result<Played, String> {
    bench.seed()?;
    bench.wipe()?;
    let archive = baseline.archive.branch();
    let id = &baseline.point.meta.id;
    let played = bench.restore(id, None, Overwrite::Refuse, &archive, task)?;
    sound(bench, &played)?;
    let end = played.end.as_ref().map_err(Clone::clone)?;
    match bench.digest()? {
        Some(found) if found == baseline.seeded => Ok(played),
        Some(_) => Err("it has left an item that is neither whole nor absent".to_owned()),
        None if end.ending == Ending::Completed => {
            Err("the run completed, and there is no item".to_owned())
        }
        None => Ok(played),
    }
}

/// The run came to an end in time, nobody panicked, and nothing is left.
pub(super) fn sound(bench: &Bench, played: &Played) -> Result<(), String> {
    if let Some(panic) = played.panics.first() {
        return Err(panic.clone());
    }
    if let Some(overdue) = played.overdue.first() {
        return Err(overdue.clone());
    }
    let left = bench.stage()?.leftovers();
    match left.map_err(|error| format!("the fixture cannot look for leftovers: {error}"))?.first() {
        Some(left) => {
            let how = match &played.end {
                Ok(end) => format!("the run ended {} in `{}`", end.ending.as_str(), end.state),
                Err(why) => why.clone(),
            };
            Err(format!("{left} is left ({how})"))
        }
        None => played.end.as_ref().map(drop).map_err(Clone::clone),
    }
}

/// The calls at which a run is disturbed: of each kind of call in each step the first, the second
/// and the last, and of the others an even sample, up to `at_most` in all.
pub(super) fn places(rehearsal: &Rehearsal, at_most: usize) -> Vec<usize> {
    let crossings = &rehearsal.crossings;
    let is_chosen = |place: &usize| {
        let (before, rest) = crossings.split_at(*place);
        let same = |other: &&Crossing| **other == rest[0];
        before.iter().filter(same).count() < 2 || !rest[1..].contains(&rest[0])
    };
    let (mut chosen, others): (Vec<usize>, Vec<usize>) = (0..crossings.len()).partition(is_chosen);
    let room = at_most.saturating_sub(chosen.len()).min(others.len());
    chosen.extend((0..room).map(|part| others[part * others.len() / room]));
    chosen.sort_unstable();
    chosen.iter().map(|place| place + 1).collect()
}

/// The first call of each kind in each step.
pub(super) fn kinds(rehearsal: &Rehearsal) -> Vec<usize> {
    let crossings = &rehearsal.crossings;
    let is_first = |place: &usize| !crossings[..*place].contains(&crossings[*place]);
    (0..crossings.len()).filter(is_first).map(|place| place + 1).collect()
}

/// Whether the state named `state` is asked to stop at once.
pub(super) fn delivers_cancel(graphs: &[Graph], machine_state: &str) -> bool {
    let states = graphs.iter().filter_map(|graph| graph.state(machine_state));
    states.into_iter().all(|state| state.cancel == fsm_core::Cancel::Deliver)
}

/// The disturbance of call `call` by `blow`.
pub(super) fn at(call: usize, blow: Blow) -> Disturbance {
    Disturbance::Call(call, blow)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter is one call.
    #[track_caller]
    fn check(calls: &str, at_most: usize, expected: &[usize]) {
        let crossing =
            |op: char| Crossing { op: op.to_string(), state: "state".to_owned(), step: 1 };
        let crossings = calls.chars().map(crossing).collect();
        let rehearsal = Rehearsal { crossings, writes: 0, state: String::new() };
        assert_eq!(places(&rehearsal, at_most), expected, "{calls}");
    }

    #[test]
    fn each_kind_of_call_is_disturbed_at_its_beginning_and_at_its_end() {
        check("", 9, &[]);
        check("abab", 1, &[1, 2, 3, 4]);
        check("abbbbbbbbc", 5, &[1, 2, 3, 9, 10]);
        check("abbbbbbbbc", 7, &[1, 2, 3, 4, 6, 9, 10]);
        check("abbbbbbbbc", 99, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }
}
