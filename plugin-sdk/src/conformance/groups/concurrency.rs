//! Operations at the same time.

use futures::FutureExt;
use throttle::{Admission, Class, Limits, Policy, Request as Asked, Resource, SystemClock};

use crate::{
    Claim, Decision, Item, Operation, PointKind, RunPlan, Wanted,
    conformance::{
        archive::MemoryArchive,
        bench::{Baseline, Bench, Finding, Task, completed},
        desk::Blow,
        play::Meanwhile,
    },
    host::PluginInstance,
    message::Request,
};

use super::{
    counted,
    sound::{self, at, kinds},
    without_fixture,
};

/// The kind of work that a plan without claims does.
const DATA: &str = "data";

pub(super) fn check(bench: &mut Bench) {
    let policy = policy(bench);
    bench.must("rules", policy);
    if let Some(finding) = without_fixture(bench) {
        return bench.must("claims", finding);
    }
    let baseline = match bench.baseline() {
        Ok(baseline) => baseline,
        Err(why) => return bench.must("claims", Finding::NotTried(why)),
    };
    let claims = claims(bench);
    bench.must("claims", claims.as_ref().map(|(_, told)| told.clone()).map_err(Clone::clone));
    let answers = answers(bench, &baseline);
    bench.must("answers_meanwhile", answers);
    let same = match claims {
        Ok((plan, _)) => same_item(bench, &baseline, &plan),
        Err(why) => Finding::NotTried(why),
    };
    bench.must("same_item", same);
    let neighbours = neighbours(bench, &baseline);
    bench.must("other_item", neighbours);
}

fn declared(bench: &Bench) -> Result<Policy, String> {
    let declared = bench.plugin()?.workload.throttle.clone();
    Ok(match declared == Policy::new() {
        true => Policy::new().class(Class::new(DATA)),
        false => declared,
    })
}

/// A throttle with the plugin's rules, and room for everything that they do not keep apart.
fn admission(bench: &Bench) -> Result<Admission, String> {
    // Rules under a condition need a version, which nobody has named.
    let policy = declared(bench)?;
    let compiled = policy.compile().map_err(|error| error.to_string())?;
    let admission = Admission::new(Limits::new().node("streams", u32::MAX), SystemClock::new());
    let workload = &bench.plugin()?.workload.workload;
    admission.register(workload, compiled).map_err(|error| error.to_string())?;
    Ok(admission)
}

fn policy(bench: &Bench) -> Result<String, String> {
    admission(bench)?;
    Ok("the manifest's rules can be read".to_owned())
}

/// A plan's claims as a request to the throttle.
fn asked(bench: &Bench, plan: &RunPlan, owner: &str) -> Result<Asked, String> {
    let item = bench.item()?;
    let workload = item.workload();
    let mut asked = Asked::new(owner);
    let excludes = |claim: &Claim| !matches!(claim, Claim::Streams { .. });
    if !plan.claims.iter().any(excludes) {
        asked = asked.exclusion(workload, Resource::item(item.as_str()), DATA);
    }
    for claim in &plan.claims {
        asked = match claim {
            Claim::Streams { count } => asked.capacity(Resource::node(), "streams", *count),
            Claim::Item { class } => {
                asked.exclusion(workload, Resource::item(item.as_str()), class)
            }
            Claim::Instance { class } => {
                let instance = format!("{workload}/{}", item.instance());
                asked.exclusion(workload, Resource::instance(instance), class)
            }
        };
    }
    Ok(asked)
}

/// What a backup claims is what the manifest declares.
fn claims(bench: &Bench) -> Result<(RunPlan, String), String> {
    bench.seed()?;
    let nothing = MemoryArchive::new();
    let decided = bench.decide(&bench.item()?, PointKind::Full, &nothing, "claims")?;
    let Decision::Run(plan) = decided else {
        return Err("it skips an item that was never backed up".to_owned());
    };
    let request = asked(bench, &plan, "claims")?;
    let granted = admission(bench)?.acquire(request).now_or_never();
    match granted {
        Some(Ok(permit)) => drop(permit),
        Some(Err(error)) => return Err(format!("its claims are refused: {error}")),
        None => return Err("its claims are never granted".to_owned()),
    }
    let told = match plan.claims.len() {
        0 => "it claims nothing, and gets `data` on the item".to_owned(),
        count => format!("{} granted", counted(count, "claim")),
    };
    Ok((plan, told))
}

/// It answers what it is asked while a step is at work.
fn answers(bench: &Bench, baseline: &Baseline) -> Result<String, String> {
    let item = bench.item()?;
    let ask = |plugin: &PluginInstance| {
        if bench.offers(Operation::Discover) {
            let request = Request::Discover { workload: item.workload().to_owned() };
            bench.ask::<Vec<Item>>(plugin, &request).map_err(|fault| fault.to_string())?;
        }
        let wanted = Wanted::new("meanwhile".into(), PointKind::Full);
        let request = Request::Decide { item: item.clone(), wanted, points: Vec::new() };
        bench.ask::<Decision>(plugin, &request).map(drop).map_err(|fault| fault.to_string())
    };
    let kinds = kinds(&baseline.backup);
    for &call in &kinds {
        meet(bench, baseline, call, &ask)?;
    }
    Ok(format!("asked at {}", counted(kinds.len(), "call")))
}

/// Does something else at call `call` of a backup, whose result must be as ever.
fn meet(
    bench: &Bench,
    baseline: &Baseline,
    call: usize,
    meanwhile: Meanwhile<'_>,
) -> Result<(), String> {
    let task = Task { meanwhile: Some(meanwhile), ..Task::new("outer", at(call, Blow::Meet)) };
    let played = sound::backup(bench, baseline, task)?;
    let op = &baseline.backup.crossings[call - 1].op;
    match &played.meanwhile {
        Some(why) => Err(format!("meanwhile, at `{op}`: {why}")),
        None => completed(&played),
    }
}

/// Two backups of one item at the same time, if the rules allow it.
fn same_item(bench: &Bench, baseline: &Baseline, plan: &RunPlan) -> Finding {
    let play = || {
        let admission = admission(bench)?;
        let first = admission.acquire(asked(bench, plan, "first")?).now_or_never();
        let second = admission.acquire(asked(bench, plan, "second")?).now_or_never();
        drop(first);
        if !matches!(second, Some(Ok(_))) {
            return Ok(None);
        }
        let another = |plugin: &PluginInstance| {
            let archive = MemoryArchive::new();
            let task = Task::beside("inner", plugin);
            completed(&bench.back_up(PointKind::Full, &archive, task)?)
        };
        let kinds = kinds(&baseline.backup);
        for &call in &kinds {
            meet(bench, baseline, call, &another)?;
        }
        Ok(Some(format!("a second backup at {}", counted(kinds.len(), "call"))))
    };
    match play() {
        Ok(Some(told)) => Finding::Holds(told),
        Ok(None) => Finding::Holds("the rules keep two backups of one item apart".to_owned()),
        Err(why) => Finding::Broken(why),
    }
}

/// A backup of another item at the same time.
fn neighbours(bench: &Bench, baseline: &Baseline) -> Finding {
    let neighbour = bench.stage().ok().and_then(|fixture| fixture.neighbour());
    let Some(neighbour) = neighbour else {
        return Finding::NotTried("the fixture names no other item".to_owned());
    };
    let another = |plugin: &PluginInstance| {
        let archive = MemoryArchive::new();
        let task = Task::beside("neighbour", plugin);
        completed(&bench.back_up_item(neighbour.clone(), PointKind::Full, &archive, task)?)
    };
    let kinds = kinds(&baseline.backup);
    let play = || {
        for &call in &kinds {
            meet(bench, baseline, call, &another)?;
        }
        Ok(format!("a backup of {neighbour} at {}", counted(kinds.len(), "call")))
    };
    play().into()
}
