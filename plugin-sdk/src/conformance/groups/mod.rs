//! The checks, a file for each group. Each finds something out and notes it; a group whose ground
//! is missing (no fixture, no round trip) says that it was not tried.

mod cancel;
mod concurrency;
mod errors;
mod fuzz;
mod hygiene;
mod lifecycle;
mod load;
mod panic;
mod round_trip;
mod sound;
mod stream;

use super::{
    bench::{Bench, Finding},
    report::{Group, Report},
};

/// Runs the groups that are wanted.
pub(super) fn run(mut bench: Bench) -> Report {
    let before = hygiene::Before::now(&bench);
    bench.enter(Group::Load);
    load::check(&mut bench);
    if bench.plugin.is_some() {
        for group in bench.groups.clone() {
            bench.enter(group);
            match group {
                Group::Load => {}
                Group::RoundTrip => round_trip::check(&mut bench),
                Group::Lifecycle => lifecycle::check(&mut bench),
                Group::Cancel => cancel::check(&mut bench),
                Group::Errors => errors::check(&mut bench),
                Group::Panic => panic::check(&mut bench),
                Group::Stream => stream::check(&mut bench),
                Group::Concurrency => concurrency::check(&mut bench),
                Group::Fuzz => fuzz::check(&mut bench),
                Group::Hygiene => hygiene::check(&mut bench, before.as_ref()),
            }
        }
    }
    bench.report()
}

/// Loads the plugin, as each run of the kit begins.
#[cfg(test)]
pub(super) fn prepare(bench: &mut Bench) {
    load::check(bench);
}

/// What is found where there is no fixture.
fn without_fixture(bench: &Bench) -> Option<Finding> {
    let missing = bench.fixture().is_none();
    missing.then(|| Finding::NotTried("there is no fixture".to_owned()))
}

/// `count` things, in words.
fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
