//! A machine written by hand, as it might come over a boundary: it answers what it likes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use fsm_core::{
    AnyMachine, Data, Ending, Fault, Graph, Outcome, Port, Retry, StateInfo, StepCall, Verdict,
};
use futures::future::BoxFuture;

type Answer = dyn Fn(StepCall, u32) -> Outcome + Send + Sync;

pub(crate) struct Lying {
    pub(crate) graph: Graph,
    answer: Box<Answer>,
    calls: Mutex<BTreeMap<String, u32>>,
}

pub(crate) fn state(name: &str, next: &[&str]) -> StateInfo {
    StateInfo {
        name: name.to_owned(),
        doc: String::new(),
        next: next.iter().map(|&next| next.to_owned()).collect(),
        retry: Retry::NEVER,
        wait: None,
        cancel: fsm_core::Cancel::Deliver,
        ending: next.is_empty().then_some(Ending::Completed),
    }
}

pub(crate) fn graph(initial: &str, states: Vec<StateInfo>) -> Graph {
    Graph {
        machine: "lying".to_owned(),
        doc: String::new(),
        version: 1,
        initial: initial.to_owned(),
        states,
    }
}

pub(crate) fn to(state: &str) -> Outcome {
    let data = Data::encode(&()).unwrap();
    let verdict = Verdict::Go { state: state.to_owned(), data, wake_at: None };
    Outcome::from(verdict)
}

impl Lying {
    /// `work` leads to `other` and `done`, and `other` to `done`. `answer` is told how often the
    /// same was asked before.
    pub(crate) fn new(
        initial: &str,
        answer: impl Fn(StepCall, u32) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let states =
            vec![state("work", &["other", "done"]), state("other", &["done"]), state("done", &[])];
        Lying { graph: graph(initial, states), answer: Box::new(answer), calls: Mutex::default() }
    }
}

impl AnyMachine for Lying {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn step(&self, call: StepCall, _: Arc<dyn Port>) -> BoxFuture<'_, Outcome> {
        let asked = format!("{} {} {:?}", call.run, call.entry, call.kind);
        let before = {
            let mut calls = self.calls.lock().unwrap();
            let count = calls.entry(asked).or_default();
            *count += 1;
            *count - 1
        };
        Box::pin(async move { (self.answer)(call, before) })
    }

    fn migrate(
        &self,
        _: u32,
        state: String,
        data: Data,
    ) -> BoxFuture<'_, Result<(String, Data), Fault>> {
        Box::pin(async { Ok((state, data)) })
    }
}
