//! A graph as JSON, Mermaid and DOT.

use std::fmt::Write;

use super::{Graph, StateInfo};
use crate::Ending;

impl Graph {
    /// The graph as one line of JSON: the form in which it crosses boundaries.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| {
            // Strings, integers and finite floats always have a JSON form.
            unreachable!("a graph has a JSON form: {error}")
        })
    }

    /// The graph as a Mermaid `stateDiagram-v2`, with `current` highlighted.
    pub fn to_mermaid(&self, current: Option<&str>) -> String {
        let mut text = String::from("stateDiagram-v2\n");
        for state in &self.states {
            let id = mermaid_id(&state.name);
            line(&mut text, format_args!("    state \"{}\" as {id}", plain(&state.name)));
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
        if let Some(current) = current.filter(|current| self.state(current).is_some()) {
            text.push_str("    classDef current fill:#ffd866,stroke:#333,stroke-width:2px\n");
            line(&mut text, format_args!("    class {} current", mermaid_id(current)));
        }
        text
    }

    /// The graph in Graphviz' DOT language, with `current` highlighted.
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
            let (name, doc) = (quoted(&state.name), quoted(&state.doc));
            line(&mut text, format_args!("    \"{name}\" [tooltip=\"{doc}\"{shape}{fill}];"));
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

    /// The graph as a table for a terminal: a line a state, its successors and its doc.
    pub fn to_text(&self) -> String {
        let successors = |state: &StateInfo| match state.ending {
            Some(ending) => format!("({})", ending.as_str()),
            None => format!("-> {}", state.next.join(", ")),
        };
        let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let name_width = widest(&mut self.states.iter().map(|state| state.name.len()));
        let next_width = widest(&mut self.states.iter().map(|state| successors(state).len()));
        let mut text = String::new();
        for state in &self.states {
            let (name, next, doc) = (&state.name, successors(state), &state.doc);
            let row = format!("{name:name_width$}  {next:next_width$}  {doc}");
            line(&mut text, format_args!("{}", row.trim_end()));
        }
        text
    }
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

/// A name inside Mermaid's quotes, which know no escape.
fn plain(name: &str) -> String {
    name.replace(['"', '\n', '\r'], " ")
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ")
}
