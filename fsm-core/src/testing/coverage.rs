//! Which edges of a machine's graph were taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{Body, Graph, Record, RunId};

/// Which edges of one machine's graph histories have taken, and which they have not.
///
/// ```
/// # use fsm_core::{Context, Machine, State, Step, check, go};
/// # use serde::{Deserialize, Serialize};
/// # struct Turnstile;
/// # #[derive(Serialize, Deserialize)] struct Locked { coins: u32 }
/// # #[derive(Serialize, Deserialize)] struct Open;
/// # impl Machine for Turnstile {
/// #     const NAME: &'static str = "turnstile";
/// #     type Host = (); type Initial = Locked; type States = (Locked, Open);
/// # }
/// # impl State<Turnstile> for Locked {
/// #     const NAME: &'static str = "locked"; type Next = (Locked, Open);
/// #     async fn run(self, _: &Turnstile, _: &mut Context<'_, Turnstile>) -> Step<Self> {
/// #         go(Open)
/// #     }
/// # }
/// # impl State<Turnstile> for Open { const NAME: &'static str = "open"; type Next = (); }
/// use fsm_core::{Graph, Record, testing::EdgeCoverage};
///
/// let graph = Graph::of::<Turnstile>();
/// let history: Vec<Record> = Vec::new(); // from `Runtime::history`
/// let mut coverage = EdgeCoverage::of(&graph);
/// coverage.add(&history);
/// assert_eq!(coverage.missing(), [("locked", "locked"), ("locked", "open")]);
/// println!("{coverage}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeCoverage {
    machine: String,
    /// From, to, and how often; in the graph's order.
    edges: Vec<(String, String, u64)>,
    /// Taken, but not in the graph: of an older version, or a record that is wrong.
    undeclared: BTreeSet<(String, String)>,
}

impl EdgeCoverage {
    /// No edge of `graph` was taken yet.
    pub fn of(graph: &Graph) -> Self {
        let from = graph.states.iter();
        let edges =
            from.flat_map(|from| from.next.iter().map(|to| (from.name.clone(), to.clone(), 0)));
        EdgeCoverage {
            machine: graph.machine.clone(),
            edges: edges.collect(),
            undeclared: BTreeSet::new(),
        }
    }

    /// Counts the edges that `records` have taken: of one run or of several, each run's in order.
    /// Runs of other machines do not count.
    pub fn add(&mut self, records: &[Record]) {
        let mut stands: BTreeMap<&RunId, &str> = BTreeMap::new();
        for record in records {
            let Body::Enter { machine, state, .. } = &record.body else { continue };
            if *machine != self.machine {
                continue;
            }
            if let Some(from) = stands.insert(&record.run, state) {
                self.take(from, state, 1);
            }
        }
    }

    /// Counts what `other`, of the same machine, has counted.
    pub fn merge(&mut self, other: &EdgeCoverage) {
        for (from, to, times) in other.edges.iter().filter(|(.., times)| *times > 0) {
            self.take(from, to, *times);
        }
        self.undeclared.extend(other.undeclared.iter().cloned());
    }

    fn take(&mut self, from: &str, to: &str, times: u64) {
        match self.edges.iter_mut().find(|edge| edge.0 == from && edge.1 == to) {
            Some((.., taken)) => *taken += times,
            None => {
                self.undeclared.insert((from.to_owned(), to.to_owned()));
            }
        }
    }

    /// The machine's name.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// How often the edge from state `from` to state `to` was taken.
    pub fn taken(&self, from: &str, to: &str) -> u64 {
        let edge = self.edges.iter().find(|edge| edge.0 == from && edge.1 == to);
        edge.map_or(0, |(.., times)| *times)
    }

    /// The edges that were not taken, in the graph's order.
    pub fn missing(&self) -> Vec<(&str, &str)> {
        let missing = self.edges.iter().filter(|(.., times)| *times == 0);
        missing.map(|(from, to, _)| (from.as_str(), to.as_str())).collect()
    }

    /// Edges that were taken although the graph does not have them.
    pub fn undeclared(&self) -> impl Iterator<Item = (&str, &str)> {
        self.undeclared.iter().map(|(from, to)| (from.as_str(), to.as_str()))
    }

    /// Whether every edge was taken.
    pub fn is_complete(&self) -> bool {
        self.edges.iter().all(|(.., times)| *times > 0)
    }
}

/// A line an edge, those that were not taken marked.
impl fmt::Display for EdgeCoverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.edges.len() - self.missing().len();
        write!(f, "{}: {taken} of {} edges taken", self.machine, self.edges.len())?;
        let widest = self.edges.iter().map(|(from, to, _)| from.len() + to.len()).max();
        let width = widest.unwrap_or(0) + " -> ".len();
        for (from, to, times) in &self.edges {
            let edge = format!("{from} -> {to}");
            match times {
                0 => write!(f, "\n  {edge:width$}  never")?,
                times => write!(f, "\n  {edge:width$}  {times}")?,
            }
        }
        for (from, to) in self.undeclared() {
            let edge = format!("{from} -> {to}");
            write!(f, "\n  {edge:width$}  undeclared")?;
        }
        Ok(())
    }
}
