//! The host's services fail.

use fsm_core::{Class, Ending, Fault};

use crate::conformance::{
    bench::{Baseline, Bench, Finding},
    desk::{Blow, Moment},
};

use super::{
    counted,
    sound::{Run, at, kinds},
    without_fixture,
};

const CLASSES: [Class; 8] = [
    Class::Retryable,
    Class::User,
    Class::Permanent,
    Class::Chain,
    Class::Fenced,
    Class::Bug,
    Class::Cancelled,
    Class::Interrupted,
];

pub(super) fn check(bench: &mut Bench) {
    if let Some(finding) = without_fixture(bench) {
        return bench.must("services_fail", finding);
    }
    let baseline = match bench.baseline() {
        Ok(baseline) => baseline,
        Err(why) => return bench.must("services_fail", Finding::NotTried(why)),
    };
    for run in [Run::Backup, Run::Restore] {
        let (fails, mends) = services(bench, &baseline, run);
        bench.must(&format!("{}_services_fail", run.as_str()), fails);
        bench.should(&format!("{}_tries_again", run.as_str()), mends);
    }
}

/// Each kind of call fails with each class; the second finding is about those after which it pays
/// to try again.
fn services(bench: &Bench, baseline: &Baseline, run: Run) -> (Finding, Finding) {
    let Some(rehearsal) = run.rehearsal(baseline) else {
        let why = || Finding::NotTried("it is not offered".to_owned());
        return (why(), why());
    };
    let kinds = kinds(rehearsal);
    let mut gave_up = None;
    let mut play = || {
        for &call in &kinds {
            let op = &rehearsal.crossings[call - 1].op;
            let before = CLASSES.map(|class| (Moment::Before, class));
            for (moment, class) in before.into_iter().chain([(Moment::After, Class::Retryable)]) {
                let fault = Fault::new(class, "conformance.made", format!("`{op}` fails"));
                let played = run
                    .disturbed(bench, baseline, at(call, Blow::Fail(moment, fault)))
                    .map_err(|why| format!("{why} [{op}]"))?;
                let end = played.end.map_err(|why| format!("{why} [{op}]"))?;
                if class == Class::Retryable && end.ending != Ending::Completed {
                    gave_up.get_or_insert_with(|| (op.clone(), end.state.clone()));
                }
            }
        }
        Ok(format!("{}, each with {} classes", counted(kinds.len(), "call"), CLASSES.len()))
    };
    let fails = play();
    let mends = match (&fails, gave_up) {
        (Err(_), _) => Finding::NotTried("it does not stand a service that fails".to_owned()),
        (Ok(_), None) => Finding::Holds("what fails once and may be tried again is".to_owned()),
        (Ok(_), Some((op, state))) => {
            Finding::Broken(format!("`{op}` failed once, retryably, and it ended in `{state}`"))
        }
    };
    (fails.into(), mends)
}
