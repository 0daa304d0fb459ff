//! A graph as data: its forms, and what is refused.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use std::time::Duration;

use fsm_core::{Cancel, Ending, Graph, Machine, Retry, State, StateInfo, Wait, WaitInfo, check};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::support::{
    lying::{graph, state},
    world::Job,
};

/// A machine whose states wait.
struct Release;

impl Machine for Release {
    const NAME: &'static str = "release";
    type Host = ();
    type Initial = Ask;
    type States = (Ask, Gather, Published);
}
check!(Release);

#[derive(Serialize, Deserialize)]
struct Ask;

impl State<Release> for Ask {
    const NAME: &'static str = "ask";
    const DOC: &'static str = "Ask somebody.";
    const WAIT: Wait = Wait::for_signals(&["approval", "refusal"])
        .or_children()
        .at_most(Duration::from_secs(5400));
    type Next = (Gather,);
}

#[derive(Serialize, Deserialize)]
struct Gather;

impl State<Release> for Gather {
    const NAME: &'static str = "gather";
    const WAIT: Wait = Wait::for_children();
    type Next = (Published,);
}

#[derive(Serialize, Deserialize)]
struct Published;

impl State<Release> for Published {
    const NAME: &'static str = "published";
    type Next = ();
}

fn json<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

/// Names that mean something in the languages of the drawings.
const NASTY: [&str; 10] = [
    "say \"hi\"",
    "two\nlines",
    "two lines",
    "two\\nlines",
    "back\\",
    "a --> b; c",
    "<b>#35;</b>",
    "end",
    "[*]",
    "{note: it\r}",
];

/// A line of ten states that wait, each of which leads to the next one.
fn nasty() -> Graph {
    let mut states: Vec<_> = NASTY
        .windows(2)
        .map(|pair| StateInfo { doc: pair[0].to_owned(), ..state(pair[0], &pair[1..]) })
        .collect();
    for state in &mut states {
        let mut wait: WaitInfo = json("{}");
        wait.signals = vec![state.name.clone()];
        state.wait = Some(wait);
    }
    states.push(state(NASTY[9], &[]));
    graph(NASTY[0], states)
}

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
fn mermaid_is_not_broken_by_any_name() {
    let text = nasty().to_mermaid(Some(NASTY[0]));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("stateDiagram-v2"));
    let is_id =
        |text: &str| text == "[*]" || text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_text = |text: &str| !text.contains(['"', '<', '>', '{', '[', ':']);
    let mut seen = [0; 4];
    for line in lines {
        let line = line.strip_prefix("    ").unwrap();
        if let Some((name, id)) =
            line.strip_prefix("state \"").and_then(|line| line.split_once("\" as "))
        {
            assert!(is_text(name) && is_id(id), "{line}");
            seen[0] += 1;
        } else if let Some(note) = line.strip_prefix("note right of ") {
            let (id, wait) = note.split_once(": waits for ").unwrap();
            assert!(is_text(wait) && is_id(id), "{line}");
            seen[1] += 1;
        } else if let Some((from, to)) = line.split_once(" --> ") {
            assert!(is_id(from) && is_id(to.split(": ").next().unwrap()), "{line}");
            seen[2] += 1;
        } else {
            assert!(line.starts_with("class"), "{line}");
            seen[3] += 1;
        }
    }
    // Ten states, nine of which wait; nine edges, a beginning and an end.
    assert_eq!(seen, [10, 9, 11, 2], "{text}");
    assert!(text.contains("state \"say #34;hi#34;\" as s_say_20__22_hi_22_"), "{text}");
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

/// The quoted strings of a line of DOT; a quote that is not closed is not balanced.
fn quoted_strings(line: &str) -> Vec<String> {
    let (mut strings, mut open, mut letters) = (Vec::new(), None, line.chars());
    while let Some(letter) = letters.next() {
        match (letter, &mut open) {
            ('"', None) => open = Some(String::new()),
            ('"', Some(_)) => strings.extend(open.take()),
            ('\\', Some(text)) => text.extend(['\\', letters.next().unwrap()]),
            (_, Some(text)) => text.push(letter),
            (_, None) => {}
        }
    }
    assert_eq!(open, None, "{line}");
    strings
}

#[test]
fn dot_is_not_broken_by_any_name_and_tells_all_of_them_apart() {
    let text = nasty().to_dot(Some(NASTY[1]));
    let (edges, others): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| line.contains("\" -> \""));
    let states = others.iter().filter(|line| line.contains("tooltip="));
    let mut ids: Vec<_> = states.map(|line| quoted_strings(line)[0].clone()).collect();
    assert_eq!(ids.len(), 10, "{text}");
    let drawn: Vec<_> = edges.iter().map(|line| quoted_strings(line)).collect();
    assert_eq!(drawn, ids.windows(2).map(<[_]>::to_vec).collect::<Vec<_>>(), "{text}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10, "{text}");
    assert_eq!(text.matches("fillcolor").count(), 1, "{text}");
}

#[test]
fn each_drawing_says_what_a_state_waits_for() {
    let graph = Graph::of::<Release>();
    let (ask, gather) = ("approval or refusal or all children, at most 90 min", "all children");
    let text = graph.to_text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], format!("ask        -> gather     Ask somebody. (waits for {ask})"));
    assert_eq!(lines[1], format!("gather     -> published  (waits for {gather})"));
    assert_eq!(lines[2], "published  (completed)");

    let mermaid = graph.to_mermaid(None);
    assert!(mermaid.contains(&format!("\n    note right of s_ask: waits for {ask}\n")));
    assert!(mermaid.contains(&format!("\n    note right of s_gather: waits for {gather}\n")));
    assert_eq!(mermaid.matches("note").count(), 2, "{mermaid}");

    let dot = graph.to_dot(None);
    assert!(dot.contains(&format!(r#""ask" [label="ask\nwaits for {ask}", tooltip="#)), "{dot}");
    assert!(dot.contains(&format!(r#""gather" [label="gather\nwaits for {gather}", "#)), "{dot}");
    assert_eq!(dot.matches("label").count(), 2, "{dot}");
}

#[track_caller]
fn check_wait(wait: &str, shown: &str) {
    assert_eq!(json::<WaitInfo>(wait).to_string(), shown);
}

#[test]
fn the_longest_wait_is_shown_in_its_largest_unit() {
    check_wait(r#"{"signals":["go"],"at_most_ms":7200000}"#, "go, at most 2 h");
    check_wait(r#"{"signals":["go"],"at_most_ms":60000}"#, "go, at most 1 min");
    check_wait(r#"{"signals":["go"],"at_most_ms":61000}"#, "go, at most 61 s");
    check_wait(r#"{"signals":["go"],"at_most_ms":1500}"#, "go, at most 1500 ms");
    check_wait(r#"{"children":true,"at_most_ms":0}"#, "all children, at most 0 s");
}

#[test]
fn json_for_a_drawing_marks_the_current_state_and_is_the_same_graph() {
    let graph = Graph::of::<Release>();
    let text = graph.to_json_at(Some("gather"));
    assert_eq!(json::<serde_json::Value>(&text)["current"], "gather");
    assert_eq!(json::<Graph>(&text), graph);
    // Nothing is marked: the form that crosses boundaries.
    assert_eq!(graph.to_json_at(None), graph.to_json());
    assert_eq!(graph.to_json_at(Some("nowhere")), graph.to_json());
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
    check_refused("a\n", vec![state("a\n", &["end"]), end()], "a\n", "control character");
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
fn a_graph_whose_machine_has_no_proper_name_is_refused() {
    for name in ["", "two\nlines"] {
        let error = Graph { machine: name.to_owned(), ..job() }.validate().unwrap_err();
        assert!(error.to_string().contains("the machine's name"), "{error}");
    }
}

#[test]
fn a_wait_that_cannot_end_or_begin_is_refused() {
    Graph::of::<Release>().validate().unwrap();
    let waits = |name, next: &[&str], wait| {
        vec![StateInfo { wait: json(wait), ..state(name, next) }, state("end", &[])]
    };
    check_refused("a", waits("a", &["end"], "{}"), "a", "waits for nothing");
    check_refused("a", waits("a", &["end"], r#"{"at_most_ms":5}"#), "a", "waits for nothing");
    let nameless = r#"{"signals":["go",""],"children":true}"#;
    check_refused("a", waits("a", &["end"], nameless), "a", "empty name");
    let terminal = waits("a", &[], r#"{"signals":["go"]}"#).swap_remove(0);
    check_refused("a", vec![terminal], "a", "no step runs there");
}

#[test]
fn a_retry_policy_that_no_constructor_makes_is_refused() {
    let tried = |change: &str| {
        let policy = serde_json::to_string(&Retry::times(5)).unwrap();
        let (field, _) = change.split_once(':').unwrap();
        let old = policy.split(['{', ',', '}']).find(|part| part.starts_with(field)).unwrap();
        let retry = json(&policy.replace(old, change));
        vec![StateInfo { retry, ..state("a", &["end"]) }, state("end", &[])]
    };
    graph("a", tried(r#""factor":0.0"#)).validate().unwrap();
    check_refused("a", tried(r#""factor":-0.5"#), "a", "factor");
    check_refused("a", tried(r#""attempts":0"#), "a", "zero times");
}

#[test]
fn any_change_changes_the_fingerprint() {
    let original = job();
    let changes: [fn(&mut Graph); 15] = [
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
        |graph| graph.states[0].wait = json(r#"{"signals":["go"]}"#),
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
