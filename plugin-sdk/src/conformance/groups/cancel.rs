//! Runs are asked to stop.

use std::sync::Arc;

use fsm_core::Ending;

use crate::{
    conformance::{
        bench::{Baseline, Bench, Finding},
        desk::Blow,
        patience::within,
    },
    host::NoCalls,
    message::{self, Request},
};

use super::{
    counted,
    sound::{Run, at, delivers_cancel, places},
    without_fixture,
};

/// A step that was asked to stop may still ask for so much, to come to a good end.
const ASKED_AFTER_MAX: usize = 16;

pub(super) fn check(bench: &mut Bench) {
    let requests = requests(bench);
    bench.must("requests", requests);
    if let Some(finding) = without_fixture(bench) {
        return bench.must("runs", finding);
    }
    let baseline = match bench.baseline() {
        Ok(baseline) => baseline,
        Err(why) => return bench.must("runs", Finding::NotTried(why)),
    };
    for run in [Run::Backup, Run::Restore] {
        let (stops, ends) = runs(bench, &baseline, run);
        bench.must(&format!("{}_stops", run.as_str()), stops);
        bench.should(&format!("{}_ends_cancelled", run.as_str()), ends);
    }
}

/// Cancelled at each call, within the grace; the second finding is about how the runs ended.
fn runs(bench: &Bench, baseline: &Baseline, run: Run) -> (Finding, Finding) {
    let Some(rehearsal) = run.rehearsal(baseline) else {
        let why = || Finding::NotTried("it is not offered".to_owned());
        return (why(), why());
    };
    let graphs = bench.plugin().map(|plugin| plugin.graphs.clone()).unwrap_or_default();
    let places = places(rehearsal, bench.plays_max);
    let (mut cancelled, mut completed, mut failed) = (0, 0, None);
    let mut play = || {
        for &call in &places {
            let played = run.disturbed(bench, baseline, at(call, Blow::Cancel))?;
            let (asked, place) = (played.asked_after_blow, &rehearsal.crossings[call - 1]);
            if asked > ASKED_AFTER_MAX && delivers_cancel(&graphs, &place.state) {
                return Err(format!(
                    "{} asked to stop at call {call}: the step `{}` went on, and asked for {asked} \
                     more things",
                    run.as_str(),
                    place.state
                ));
            }
            match played.end {
                Ok(end) if end.ending == Ending::Cancelled => cancelled += 1,
                Ok(end) if end.ending == Ending::Completed => completed += 1,
                Ok(end) => failed = Some((call, end.state)),
                Err(why) => return Err(why),
            }
        }
        Ok(counted(places.len(), "time"))
    };
    let stops = play();
    let ends = match (&stops, failed) {
        (Err(_), _) => Finding::NotTried("it does not stop".to_owned()),
        (Ok(_), None) => Finding::Holds(format!("{cancelled} cancelled, {completed} too late")),
        (Ok(_), Some((call, state))) => {
            Finding::Broken(format!("asked to stop at call {call}, it ended in `{state}`"))
        }
    };
    (stops.into(), ends)
}

/// Requests that are no steps: cancelled before they began, twice, after their end, or dropped.
fn requests(bench: &Bench) -> Result<String, String> {
    let plugin = bench.instance()?;
    let workload = bench.plugin()?.workload.workload.clone();
    let request = message::encode(&Request::Machines { workload: workload.clone() })
        .map_err(|fault| fault.to_string())?;
    let start = || plugin.start(request.clone(), Arc::new(NoCalls));
    let silent = || format!("a request that was asked to stop is silent for {:?}", bench.patience);
    let mut task = start();
    task.cancel();
    task.cancel();
    let answer = within(bench.patience, &mut task).ok_or_else(silent)?;
    answer.map_err(|fault| format!("asked to stop twice: {fault}"))?;
    task.cancel();
    task.canceller().cancel();
    drop(task);
    drop(start());
    let task = start();
    let canceller = task.canceller();
    drop(task);
    canceller.cancel();
    let graphs: Result<Vec<fsm_core::Graph>, _> =
        bench.ask(&plugin, &Request::Machines { workload });
    graphs.map_err(|fault| format!("after requests were dropped: {fault}"))?;
    Ok("twice, after the end, and dropped without a word".to_owned())
}
