//! Somebody panics.

use crate::conformance::{
    bench::{Baseline, Bench, Finding},
    desk::Blow,
};

use super::{
    counted,
    sound::{Run, at, kinds},
    without_fixture,
};

pub(super) fn check(bench: &mut Bench) {
    match without_fixture(bench) {
        Some(finding) => bench.must("host_panics", finding),
        None => match bench.baseline() {
            Ok(baseline) => {
                for run in [Run::Backup, Run::Restore] {
                    let found = host_panics(bench, &baseline, run);
                    bench.must(&format!("{}_host_panics", run.as_str()), found);
                }
            }
            Err(why) => bench.must("host_panics", Finding::NotTried(why)),
        },
    }
    let none = match bench.panics().first() {
        None => Finding::Holds("it has not panicked so far".to_owned()),
        Some(text) => Finding::Broken(text.clone()),
    };
    bench.must("no_panic", none);
    let dropped = match (bench.owns_process, bench.log.lines()) {
        (true, Some(_)) => match bench.log.panics().first() {
            None => Ok("nothing panicked when it was dropped".to_owned()),
            Some(line) => Err(line.clone()),
        }
        .into(),
        _ => Finding::NotTried("others log in this process".to_owned()),
    };
    bench.must("no_panic_in_drop", dropped);
}

/// A call that panics on the host's side is a fault of that call.
fn host_panics(bench: &Bench, baseline: &Baseline, run: Run) -> Finding {
    let Some(rehearsal) = run.rehearsal(baseline) else {
        return Finding::NotTried("it is not offered".to_owned());
    };
    let kinds = kinds(rehearsal);
    let play = || {
        for &call in &kinds {
            run.disturbed(bench, baseline, at(call, Blow::Panic))
                .map_err(|why| format!("{why} [{}]", rehearsal.crossings[call - 1].op))?;
        }
        Ok(counted(kinds.len(), "call"))
    };
    play().into()
}
