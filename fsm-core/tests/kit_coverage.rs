//! Which edges were taken is counted from histories.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use fsm_core::{Body, Data, Graph, Record, Timestamp, testing::EdgeCoverage};

use self::support::{id, lying};

fn branching() -> Graph {
    let states = vec![
        lying::state("work", &["work", "rest", "done"]),
        lying::state("rest", &["done"]),
        lying::state("done", &[]),
    ];
    lying::graph("work", states)
}

/// The history of a run of `machine` that enters `states`.
fn history(run: &str, machine: &str, states: &[&str]) -> Vec<Record> {
    let enter = |(place, state): (usize, &&str)| Record {
        run: id(run),
        seq: place as u64 * 2 + 1,
        at: Timestamp::default(),
        body: Body::Enter {
            entry: place as u64 + 1,
            machine: machine.to_owned(),
            version: 1,
            origin: "tests 1".to_owned(),
            graph: String::new(),
            state: (*state).to_owned(),
            data: Data::default(),
            wake_at: None,
            carried: Box::default(),
        },
    };
    let between = |entered: Record| {
        let seq = entered.seq + 1;
        let intent =
            Record { seq, body: Body::Intent { effect: "e".to_owned() }, ..entered.clone() };
        [entered, intent]
    };
    states.iter().enumerate().map(enter).flat_map(between).collect()
}

#[test]
fn edges_are_counted_run_by_run() {
    let mut coverage = EdgeCoverage::of(&branching());
    let one = history("one", "lying", &["work", "work", "work", "rest"]);
    let other = history("other", "lying", &["work", "done"]);
    // Two runs that take turns do not take edges between them.
    let mixed: Vec<_> =
        one.chunks(2).zip(other.chunks(2)).flat_map(|(one, other)| [one, other].concat()).collect();
    coverage.add(&mixed);
    coverage.add(&history("foreign", "another", &["work", "rest"]));
    assert_eq!(coverage.taken("work", "work"), 1);
    assert_eq!(coverage.taken("work", "done"), 1);
    assert_eq!(coverage.missing(), [("work", "rest"), ("rest", "done")]);
    assert!(!coverage.is_complete());
}

#[test]
fn what_two_tests_have_taken_is_taken() {
    let count = |states: &[&str]| {
        let mut coverage = EdgeCoverage::of(&branching());
        coverage.add(&history("run", "lying", states));
        coverage
    };
    let mut all = count(&["work", "work", "done"]);
    all.merge(&count(&["work", "rest", "done"]));
    assert!(all.is_complete(), "{all}");
    let table = "lying: 4 of 4 edges taken\n  work -> work  1\n  work -> rest  1\n  \
                 work -> done  1\n  rest -> done  1";
    assert_eq!(all.to_string(), table);
}

#[test]
fn an_edge_that_the_graph_does_not_have_is_shown() {
    let mut coverage = EdgeCoverage::of(&branching());
    coverage.add(&history("run", "lying", &["work", "rest", "work"]));
    assert!(coverage.undeclared().eq([("rest", "work")]));
    assert!(coverage.to_string().ends_with("\n  rest -> work  undeclared"), "{coverage}");
    assert!(coverage.to_string().contains("work -> done  never"), "{coverage}");
}
