//! The process dies, and another one goes on.

use crate::conformance::{
    bench::{Baseline, Bench, Finding},
    desk::{Blow, Moment},
    play::Disturbance,
};

use super::{
    counted,
    sound::{Run, at, places},
    without_fixture,
};

pub(super) fn check(bench: &mut Bench) {
    if let Some(finding) = without_fixture(bench) {
        return bench.must("killed", finding);
    }
    let baseline = match bench.baseline() {
        Ok(baseline) => baseline,
        Err(why) => return bench.must("killed", Finding::NotTried(why)),
    };
    for run in [Run::Backup, Run::Restore] {
        let calls = calls(bench, &baseline, run);
        bench.must(&format!("{}_killed_at_calls", run.as_str()), calls);
        let writes = writes(bench, &baseline, run);
        bench.must(&format!("{}_killed_at_writes", run.as_str()), writes);
    }
}

fn survives(
    bench: &Bench,
    baseline: &Baseline,
    run: Run,
    state: &str,
    disturbance: Disturbance,
) -> Result<(), String> {
    let told = disturbance.to_string();
    let played = run.disturbed(bench, baseline, disturbance)?;
    if played.deaths == 0 {
        return Err(format!("{} {told}: it did not come to that", run.as_str()));
    }
    match played.end {
        Ok(end) if end.state == state => Ok(()),
        Ok(end) => {
            let why = end.fault.map_or_else(String::new, |fault| format!(" ({fault})"));
            Err(format!(
                "{} {told}: it ended in `{}`{why}, not in `{state}`",
                run.as_str(),
                end.state
            ))
        }
        Err(why) => Err(format!("{} {told}: {why}", run.as_str())),
    }
}

/// Killed at each call of each step, before it was done and after.
fn calls(bench: &Bench, baseline: &Baseline, run: Run) -> Finding {
    let Some(rehearsal) = run.rehearsal(baseline) else {
        return Finding::NotTried("it is not offered".to_owned());
    };
    let places = places(rehearsal, bench.plays_max / 2);
    let play = || {
        for &call in &places {
            for moment in Moment::BOTH {
                let disturbance = at(call, Blow::Kill(moment));
                survives(bench, baseline, run, &rehearsal.state, disturbance)
                    .map_err(|why| format!("{why} [{}]", rehearsal.crossings[call - 1].op))?;
            }
        }
        let all = rehearsal.crossings.len();
        Ok(format!("at {} of {}, each before and after", places.len(), counted(all, "call")))
    };
    play().into()
}

/// Killed at each write of the journal, that is before and after each step.
fn writes(bench: &Bench, baseline: &Baseline, run: Run) -> Finding {
    let Some(rehearsal) = run.rehearsal(baseline) else {
        return Finding::NotTried("it is not offered".to_owned());
    };
    let play = || {
        for write in 1..=rehearsal.writes {
            for moment in Moment::BOTH {
                let disturbance = Disturbance::Write(write, moment);
                survives(bench, baseline, run, &rehearsal.state, disturbance)?;
            }
        }
        Ok(format!("at {}, each before and after", counted(rehearsal.writes, "write")))
    };
    play().into()
}
