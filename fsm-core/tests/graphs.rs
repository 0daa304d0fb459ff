//! A graph as data: its forms, and what is refused.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::time::Duration;

use fsm_core::{Cancel, Ending, Graph, Retry, StateInfo};

use self::support::{
    lying::{graph, state},
    world::Job,
};

fn job() -> Graph {
    Graph::of::<Job>()
}

#[test]
fn json_brings_the_same_graph_back() {
    let mut sent = job();
    // A factor that a careless reader of decimal fractions gets wrong in the last digit.
    sent.states[0].retry = Retry::times(9)
        .backoff(Duration::from_millis(7), 1.183_040_861_303_253_6)
        .cap(Duration::from_secs(60))
        .attempt_timeout(Duration::from_secs(5))
        .or_pause();
    let received: Graph = serde_json::from_str(&sent.to_json()).unwrap();
    assert_eq!(received, sent);
    assert_eq!(received.fingerprint(), sent.fingerprint());
}

#[test]
fn a_factor_that_is_no_number_survives_json_too() {
    for factor in [f64::NAN, f64::INFINITY, -1.0] {
        let mut sent = job();
        sent.states[0].retry = Retry::times(3).backoff(Duration::from_secs(1), factor);
        let received: Graph = serde_json::from_str(&sent.to_json()).unwrap();
        assert_eq!(received, sent);
    }
}

#[test]
fn mermaid_has_each_state_and_each_edge_once() {
    let graph = job();
    let text = graph.to_mermaid(None);
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let count = |line: &str| lines.iter().filter(|other| **other == line).count();
    let mut edges = 1;
    assert_eq!(count("[*] --> s_work"), 1, "{text}");
    for state in &graph.states {
        assert_eq!(count(&format!("state \"{0}\" as s_{0}", state.name)), 1, "{text}");
        for next in &state.next {
            edges += 1;
            assert_eq!(count(&format!("s_{} --> s_{next}", state.name)), 1, "{text}");
        }
        if let Some(ending) = state.ending {
            edges += 1;
            assert_eq!(count(&format!("s_{} --> [*]: {}", state.name, ending.as_str())), 1);
        }
    }
    assert_eq!(lines.iter().filter(|line| line.contains("-->")).count(), edges, "{text}");
    assert!(graph.to_mermaid(Some("work")).contains("class s_work current"));
    assert_eq!(graph.to_mermaid(Some("nowhere")), text);
}

#[test]
fn mermaid_tells_similar_names_apart() {
    let names = ["a-b", "a b", "a_b", "a_2d_b", "ü"];
    let mut states: Vec<_> = names.map(|name| state(name, &["end"])).into();
    states.push(state("end", &[]));
    let text = graph("a-b", states).to_mermaid(None);
    let mut ids: Vec<_> =
        text.lines().filter_map(|line| line.split(" as ").nth(1)).map(str::to_owned).collect();
    assert_eq!(ids.len(), 6);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6, "{text}");
}

#[test]
fn dot_quotes_what_it_must() {
    let mut first = state("say \"hi\"", &["back\\slash"]);
    first.doc = "two\nlines".to_owned();
    let text = graph("say \"hi\"", vec![first, state("back\\slash", &[])]).to_dot(None);
    assert!(text.contains(r#""say \"hi\"" [tooltip="two lines"];"#), "{text}");
    assert!(text.contains(r#""say \"hi\"" -> "back\\slash";"#), "{text}");
    assert!(
        job().to_dot(Some("rest")).contains("\"rest\" [tooltip=\"\", style=\"rounded,filled\"")
    );
}

#[track_caller]
fn check_refused(initial: &str, states: Vec<StateInfo>, named: &str, what: &str) {
    let error = graph(initial, states).validate().unwrap_err().to_string();
    assert!(error.contains("`lying`") && error.contains(&format!("`{named}`")), "{error}");
    assert!(error.contains(what), "{error}");
}

#[test]
fn a_graph_built_by_hand_is_refused_for_the_same_mistakes() {
    job().validate().unwrap();
    let end = || state("end", &[]);
    check_refused("nowhere", vec![end()], "nowhere", "initial");
    check_refused("a", vec![state("a", &["b", "end"]), end()], "b", "not among the states");
    check_refused("a", vec![state("a", &["end"]), state("a", &["end"]), end()], "a", "two states");
    check_refused("a", vec![state("a", &["end"]), state("b", &["end"]), end()], "b", "unreachable");
    let trap = vec![state("a", &["b", "end"]), state("b", &["b"]), end()];
    check_refused("a", trap, "b", "no terminal state");
    check_refused("a", vec![state("a", &["end", "end"]), end()], "end", "twice");
    check_refused("", vec![state("", &["end"]), end()], "", "empty name");
    let endless = StateInfo { ending: None, ..end() };
    check_refused("end", vec![endless], "end", "ending");
    let mut many: Vec<_> =
        (0..64).map(|n| state(&n.to_string(), &[(n + 1).to_string().as_str()])).collect();
    many.push(state("64", &[]));
    check_refused("0", many.clone(), "", "at most 64");
    let mut most = many.split_off(1);
    most.truncate(64);
    graph("1", most).validate().unwrap();
}

#[test]
fn any_change_changes_the_fingerprint() {
    let original = job();
    let changes: [fn(&mut Graph); 14] = [
        |graph| graph.machine.push('!'),
        |graph| graph.doc.push('!'),
        |graph| graph.version += 1,
        |graph| graph.initial = "rest".to_owned(),
        |graph| graph.states.swap(0, 1),
        |graph| graph.states[0].name.push('!'),
        |graph| graph.states[0].doc.push('!'),
        |graph| graph.states[0].next.reverse(),
        |graph| graph.states[0].next.truncate(1),
        |graph| graph.states[0].retry = Retry::times(4),
        |graph| graph.states[0].retry = graph.states[0].retry.or_pause(),
        |graph| graph.states[0].cancel = Cancel::Defer,
        |graph| graph.states[5].ending = Some(Ending::Redirected),
        |graph| drop(graph.states.pop()),
    ];
    let mut fingerprints = vec![original.fingerprint()];
    for change in changes {
        let mut changed = original.clone();
        change(&mut changed);
        fingerprints.push(changed.fingerprint());
    }
    let count = fingerprints.len();
    fingerprints.sort();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), count);
}

#[test]
fn the_text_form_lists_states_with_their_successors() {
    let text = job().to_text();
    assert!(text.lines().any(|line| line == "rest     -> look, done"), "{text}");
    assert!(text.lines().any(|line| line == "failed   (failed)"), "{text}");
}
