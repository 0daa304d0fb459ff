//! A graph as JSON, Mermaid and DOT.

use std::fmt::Write;

use serde::Serialize;

use super::{Graph, StateInfo};
use crate::Ending;

impl Graph {
    /// The graph as one line of JSON: the form in which it crosses boundaries.
    pub fn to_json(&self) -> String {
        json(self)
    }

    /// The graph as one line of JSON for whoever draws it: as [`Graph::to_json`] writes it, with
    /// the name of the state `current` beside it as `"current"`.
    ///
    /// A reader of graphs finds the same graph in it. A state that the graph does not have is
    /// left out.
    pub fn to_json_at(&self, current: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Marked<'g> {
            #[serde(flatten)]
            graph: &'g Graph,
            #[serde(skip_serializing_if = "Option::is_none")]
            current: Option<&'g str>,
        }
        json(&Marked { graph: self, current: self.drawn(current).map(|state| &*state.name) })
    }

    /// The graph as a Mermaid `stateDiagram-v2`, with `current` highlighted and what states wait
    /// for as notes.
    pub fn to_mermaid(&self, current: Option<&str>) -> String {
        let mut text = String::from("stateDiagram-v2\n");
        for state in &self.states {
            let id = mermaid_id(&state.name);
            line(&mut text, format_args!("    state \"{}\" as {id}", mermaid_text(&state.name)));
            if let Some(wait) = &state.wait {
                let wait = mermaid_text(&wait.to_string());
                line(&mut text, format_args!("    note right of {id}: waits for {wait}"));
            }
        }
        line(&mut text, format_args!("    [*] --> {}", mermaid_id(&self.initial)));
        for state in &self.states {
            let from = mermaid_id(&state.name);
            for next in &state.next {
                line(&mut text, format_args!("    {from} --> {}", mermaid_id(next)));
            }
            if let Some(ending) = state.ending {
                line(&mut text, format_args!("    {from} --> [*]: {}", ending.as_str()));
            }
        }
        if let Some(StateInfo { name, .. }) = self.drawn(current) {
            text.push_str("    classDef current fill:#ffd866,stroke:#333,stroke-width:2px\n");
            line(&mut text, format_args!("    class {} current", mermaid_id(name)));
        }
        text
    }

    /// The graph in Graphviz' DOT language, with `current` highlighted and what states wait for in
    /// their labels.
    pub fn to_dot(&self, current: Option<&str>) -> String {
        let mut text = String::new();
        line(&mut text, format_args!("digraph \"{}\" {{", quoted(&self.machine)));
        text.push_str("    rankdir=LR;\n    node [shape=box, style=rounded];\n");
        for state in &self.states {
            let shape = match state.ending {
                None => "",
                Some(Ending::Completed) => ", peripheries=2",
                Some(_) => ", peripheries=2, color=firebrick",
            };
            let fill = if current == Some(state.name.as_str()) {
                ", style=\"rounded,filled\", fillcolor=\"#ffd866\""
            } else {
                ""
            };
            let label = state.wait.as_ref().map_or_else(String::new, |wait| {
                let (name, wait) = (quoted(&state.name), quoted(&wait.to_string()));
                format!("label=\"{name}\\nwaits for {wait}\", ")
            });
            let (name, doc) = (quoted(&state.name), quoted(&one_line(&state.doc)));
            let attributes = format!("{label}tooltip=\"{doc}\"{shape}{fill}");
            line(&mut text, format_args!("    \"{name}\" [{attributes}];"));
        }
        for state in &self.states {
            for next in &state.next {
                let (from, to) = (quoted(&state.name), quoted(next));
                line(&mut text, format_args!("    \"{from}\" -> \"{to}\";"));
            }
        }
        text.push_str("}\n");
        text
    }

    /// The graph as a table for a terminal: a line a state, its successors, its doc and what it
    /// waits for.
    pub fn to_text(&self) -> String {
        let rows: Vec<_> = self.states.iter().map(row).collect();
        let widest = |cell: fn(&[String; 3]) -> &String| {
            rows.iter().map(|row| cell(row).chars().count()).max().unwrap_or(0)
        };
        let (name_width, next_width) = (widest(|row| &row[0]), widest(|row| &row[1]));
        let mut text = String::new();
        for [name, next, about] in &rows {
            let row = format!("{name:name_width$}  {next:next_width$}  {about}");
            line(&mut text, format_args!("{}", row.trim_end()));
        }
        text
    }

    /// The state to highlight: a drawing shows no state that the graph does not have.
    fn drawn(&self, current: Option<&str>) -> Option<&StateInfo> {
        self.state(current?)
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        // Strings, integers and finite floats always have a JSON form.
        unreachable!("a graph has a JSON form: {error}")
    })
}

/// What the table says of a state: its name, what follows, and what it is about.
fn row(state: &StateInfo) -> [String; 3] {
    let next = match state.ending {
        Some(ending) => format!("({})", ending.as_str()),
        None => format!("-> {}", state.next.join(", ")),
    };
    let wait = state.wait.as_ref().map(|wait| format!("(waits for {wait})"));
    let about = match wait {
        Some(wait) if state.doc.is_empty() => wait,
        Some(wait) => format!("{} {wait}", state.doc),
        None => state.doc.clone(),
    };
    [&state.name, &next, &about].map(|cell| one_line(cell))
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{arguments}");
}

/// Mermaid's ids are words; each other character becomes its code, so that ids stay distinct.
fn mermaid_id(name: &str) -> String {
    let mut id = String::from("s_");
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() {
            id.push(letter);
        } else {
            let _ = write!(id, "_{:x}_", u32::from(letter));
        }
    }
    id
}

/// Text in a Mermaid diagram. Its grammar knows no escape, but whatever is not plainly text can
/// stand as the number of its character, which the reader sees as the character.
fn mermaid_text(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if letter.is_alphanumeric() || " -_.,/()!?'".contains(letter) {
            escaped.push(letter);
        } else if letter.is_control() {
            escaped.push(' ');
        } else {
            let _ = write!(escaped, "#{};", u32::from(letter));
        }
    }
    escaped
}

/// Text inside DOT's quotes. Backslashes and control characters become escapes, so that names that
/// differ stay different.
fn quoted(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '"' | '\\' => escaped.extend(['\\', letter]),
            '\n' => escaped.push_str("\\n"),
            _ if letter.is_control() => {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(letter));
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
