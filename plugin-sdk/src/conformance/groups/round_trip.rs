//! Backup, change, loss, restore.

use fsm_core::Ending;

use crate::{
    Decision, Operation, Overwrite, PointId, PointKind,
    conformance::{
        archive::MemoryArchive,
        bench::{Baseline, Bench, Finding, Task, completed},
        play::Disturbance,
    },
};

use super::{load, sound::sound, without_fixture};

pub(super) fn check(bench: &mut Bench) {
    if let Some(finding) = without_fixture(bench) {
        return bench.must("full", finding);
    }
    let baseline = match bench.baseline() {
        Ok(baseline) => baseline,
        Err(why) => return bench.must("full", Finding::Broken(why)),
    };
    let bytes: usize = baseline.point.streams.values().map(bytes::Bytes::len).sum();
    let streams = super::counted(baseline.point.streams.len(), "stream");
    bench.must(
        "full",
        Ok(format!("{streams} of {bytes} bytes, ended in `{}`", baseline.backup.state)),
    );
    let discovered = discovered(bench);
    bench.should("discover", discovered);
    let (unchanged, changed) = (unchanged(bench, &baseline), changed(bench, &baseline));
    bench.should("skips_unchanged", unchanged);
    bench.must("never_skips_changed", changed);
    if baseline.restore.is_none() {
        let why = || Finding::NotTried("restores are not offered".to_owned());
        return ["restore", "second_backup", "older_point"]
            .map(|name| bench.must(name, why()))
            .into_iter()
            .collect();
    }
    bench.must("restore", Ok("what was wiped is back, and equal".to_owned()));
    for kind in [PointKind::Full, PointKind::Differential, PointKind::Log] {
        if kind != PointKind::Full
            && !bench
                .plugin()
                .is_ok_and(|plugin| plugin.workload.operations.contains(&Operation::Backup(kind)))
        {
            continue;
        }
        let found = second(bench, &baseline, kind);
        bench.must(&format!("second_{kind}"), found);
    }
    let older = older(bench, &baseline);
    bench.must("older_point", older);
    let refused = refuses(bench, &baseline);
    bench.must("refuses_to_replace", refused);
    let replaced = replaces(bench, &baseline);
    bench.should("replaces", replaced);
    let elsewhere = elsewhere(bench, &baseline);
    bench.must("elsewhere", elsewhere);
}

fn discovered(bench: &Bench) -> Finding {
    if !bench.offers(Operation::Discover) {
        return Finding::NotTried(format!("{} is not offered", load::word(Operation::Discover)));
    }
    let find = || {
        bench.seed()?;
        let item = bench.item()?;
        let request = crate::message::Request::Discover { workload: item.workload().to_owned() };
        let items: Vec<crate::Item> =
            bench.ask(&bench.instance()?, &request).map_err(|fault| fault.to_string())?;
        if let Some(stray) = items.iter().find(|found| found.id.workload() != item.workload()) {
            return Err(format!("it finds {}, of another workload", stray.id));
        }
        match items.iter().any(|found| found.id == item) {
            true => Ok(format!("the item is among {}", super::counted(items.len(), "item"))),
            false => Err(format!("{item} is not among the {} that it finds", items.len())),
        }
    };
    find().into()
}

/// An archive that holds a full point of the item as it is now.
fn after_full(bench: &Bench) -> Result<MemoryArchive, String> {
    bench.seed()?;
    bench.settle()?;
    let archive = MemoryArchive::new();
    let task = Task::new("first", Disturbance::Nothing);
    completed(&bench.back_up(PointKind::Full, &archive, task)?)?;
    Ok(archive)
}

fn unchanged(bench: &Bench, baseline: &Baseline) -> Result<String, String> {
    let archive = after_full(bench)?;
    let decided = bench.decide(&bench.item()?, PointKind::Full, &archive, "next")?;
    if bench.digest()?.as_ref() != Some(&baseline.seeded) {
        return Err("to decide has changed the item".to_owned());
    }
    match decided {
        Decision::Skip { reason, unchanged_since } => {
            let known = archive.metas().iter().any(|point| point.id == unchanged_since);
            match known {
                true => Ok(format!("skipped: {reason}")),
                false => {
                    Err(format!("it skips for the sake of {unchanged_since}, which is no point"))
                }
            }
        }
        Decision::Run(plan) => {
            let reason = plan.reason.map_or_else(String::new, |reason| format!(": {reason}"));
            Err(format!("it backs up an item that has not changed{reason}"))
        }
    }
}

fn changed(bench: &Bench, baseline: &Baseline) -> Result<String, String> {
    let archive = after_full(bench)?;
    bench.mutate()?;
    if bench.digest()?.as_ref() == Some(&baseline.seeded) {
        return Err("the fixture's `mutate` does not change the digest".to_owned());
    }
    match bench.decide(&bench.item()?, PointKind::Full, &archive, "next")? {
        Decision::Run(plan) => {
            Ok(plan.reason.unwrap_or_else(|| "a changed item is backed up".to_owned()))
        }
        Decision::Skip { reason, .. } => {
            Err(format!("it skips an item that has changed: {reason}"))
        }
    }
}

/// A second backup, of `kind`, after a change.
fn second(bench: &Bench, baseline: &Baseline, kind: PointKind) -> Result<String, String> {
    let archive = after_full(bench)?;
    bench.mutate()?;
    let wanted = bench.digest()?.ok_or("the fixture has no item after `mutate`")?;
    let task = Task::new("second", Disturbance::Nothing);
    let played = bench.back_up(kind, &archive, task)?;
    sound(bench, &played)?;
    completed(&played)?;
    let points = archive.points();
    let point = points.last().filter(|_| points.len() == 2);
    let point =
        point.ok_or_else(|| format!("there are {} points after two backups", points.len()))?;
    if point.meta.kind != kind {
        return Err(format!("a {kind} backup was wanted, and a {} point made", point.meta.kind));
    }
    give_back(bench, &archive, &point.meta.id, &wanted)?;
    let _ = baseline;
    Ok("the change is in it".to_owned())
}

fn give_back(
    bench: &Bench,
    archive: &MemoryArchive,
    point: &PointId,
    wanted: &str,
) -> Result<(), String> {
    bench.wipe()?;
    let task = Task::new("restored", Disturbance::Nothing);
    let played = bench.restore(point, None, Overwrite::Refuse, archive, task)?;
    sound(bench, &played)?;
    completed(&played)?;
    match bench.digest()?.as_deref() == Some(wanted) {
        true => Ok(()),
        false => Err("what is restored is not what was backed up".to_owned()),
    }
}

/// The first of two points still restores to the first content.
fn older(bench: &Bench, baseline: &Baseline) -> Result<String, String> {
    let archive = after_full(bench)?;
    bench.mutate()?;
    let task = Task::new("second", Disturbance::Nothing);
    completed(&bench.back_up(PointKind::Full, &archive, task)?)?;
    give_back(bench, &archive, &PointId::new("first"), &baseline.seeded)?;
    Ok("the first of two points restores to the first content".to_owned())
}

/// Something that is there is not replaced unless it may be.
fn refuses(bench: &Bench, baseline: &Baseline) -> Result<String, String> {
    bench.seed()?;
    bench.mutate()?;
    let there = bench.digest()?;
    let archive = baseline.archive.branch();
    let task = Task::new("over", Disturbance::Nothing);
    let id = &baseline.point.meta.id;
    let how = match bench.restore(id, None, Overwrite::Refuse, &archive, task) {
        Ok(played) => {
            sound(bench, &played)?;
            let end = played.end.as_ref().map_err(Clone::clone)?;
            if end.ending == Ending::Completed {
                return Err(
                    "it claims to have restored over an item that it must not replace".to_owned()
                );
            }
            format!("the run ended {} in `{}`", end.ending.as_str(), end.state)
        }
        Err(refused) => refused,
    };
    match bench.digest()? == there {
        true => Ok(how),
        false => Err(format!("it has changed an item that it must not replace ({how})")),
    }
}

fn replaces(bench: &Bench, baseline: &Baseline) -> Result<String, String> {
    bench.seed()?;
    bench.mutate()?;
    let archive = baseline.archive.branch();
    let task = Task::new("over", Disturbance::Nothing);
    let id = &baseline.point.meta.id;
    let played = bench.restore(id, None, Overwrite::Replace, &archive, task)?;
    sound(bench, &played)?;
    completed(&played)?;
    match bench.digest()?.as_ref() == Some(&baseline.seeded) {
        true => Ok("an item that may be replaced is".to_owned()),
        false => Err("what is there is not what was backed up".to_owned()),
    }
}

fn elsewhere(bench: &Bench, baseline: &Baseline) -> Finding {
    let target = match bench.stage() {
        Ok(fixture) => fixture.elsewhere(),
        Err(why) => return Finding::NotTried(why),
    };
    let Some(target) = target else {
        return Finding::NotTried("the fixture names no other place".to_owned());
    };
    let restore = || {
        bench.seed()?;
        bench.mutate()?;
        let here = bench.digest()?;
        let archive = baseline.archive.branch();
        let task = Task::new("beside", Disturbance::Nothing);
        let id = &baseline.point.meta.id;
        let played = bench.restore(id, Some(target.clone()), Overwrite::Refuse, &archive, task)?;
        sound(bench, &played)?;
        completed(&played)?;
        if bench.digest()? != here {
            return Err("the restore beside it has changed the item itself".to_owned());
        }
        let there = bench.stage()?.digest_elsewhere();
        match there.map_err(|error| format!("the copy cannot be read: {error}"))? {
            Some(there) if there == baseline.seeded => Ok(format!("to {target}, equal")),
            Some(_) => Err("the copy is not what was backed up".to_owned()),
            None => Err("there is no copy".to_owned()),
        }
    };
    restore().into()
}
