//! How many streams there are, and for whom.

use std::collections::BTreeMap;

use fsm_core::Fault;
use plugin_sdk::ItemId;
use throttle::{Claim, CompiledPolicy, Limits, Resource, Scope};

use super::ticks::CLAIM_WITHIN;
use crate::{Error, ErrorKind};

/// The limit that everybody's streams count against who has no lane.
const STREAMS: &str = "streams";
/// Streams that are open at once on the node, unless the embedder says otherwise.
const STREAMS_OF_NODE: u32 = 4;
/// Workloads that are asked for a decision at once.
const PROBES: u32 = 8;

/// The host's limits on streams.
///
/// A lane is a number of the node's streams that belongs to work of one class alone. It is a limit
/// of its own (`streams.log` beside `streams`), so neither can take the other's place.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    pub(crate) node: u32,
    /// By the class that it is for.
    pub(crate) lanes: BTreeMap<String, u32>,
    pub(crate) workloads: BTreeMap<String, u32>,
    pub(crate) each: BTreeMap<Scope, u32>,
}

impl Default for Lanes {
    fn default() -> Self {
        let (lanes, workloads, each) = Default::default();
        Lanes { node: STREAMS_OF_NODE, lanes, workloads, each }
    }
}

impl Lanes {
    /// The limits, in the throttle's words.
    ///
    /// # Errors
    ///
    /// If the lanes leave nothing for work that has none.
    pub(crate) fn limits(&self) -> Result<Limits, Error> {
        let reserved: u32 = self.lanes.values().fold(0, |sum, lane| sum.saturating_add(*lane));
        if reserved >= self.node {
            let message = format!(
                "{reserved} of the node's {} streams are in lanes, and none is left for other work",
                self.node
            );
            let fault = Fault::user("engine.lanes", message)
                .advise("allow more streams, or make the lanes smaller");
            return Err(Error::new(ErrorKind::Request, fault));
        }
        let mut limits = Limits::new()
            .node(STREAMS, self.node - reserved)
            .node("probes", PROBES)
            .claim_within(CLAIM_WITHIN);
        for (class, streams) in &self.lanes {
            limits = limits.node(lane(class), *streams);
        }
        for (workload, streams) in &self.workloads {
            limits = limits.workload(workload, STREAMS, *streams);
        }
        for (scope, streams) in &self.each {
            limits = limits.each(*scope, STREAMS, *streams);
        }
        Ok(limits)
    }

    /// What `streams` streams for work of `class` on `item` count against: the node, and whatever
    /// else the host or the workload's `policy` bounds.
    pub(crate) fn claims(
        &self,
        item: &ItemId,
        class: &str,
        policy: &CompiledPolicy,
        streams: u32,
    ) -> Vec<Claim> {
        let class = policy.proper_name(class).unwrap_or(class);
        let has_lane = self.lanes.contains_key(class);
        let limit = if has_lane { lane(class) } else { STREAMS.to_owned() };
        let workload = item.workload();
        let by_host = |scope| {
            let named = scope == Scope::Workload && self.workloads.contains_key(workload);
            !has_lane && (named || self.each.contains_key(&scope))
        };
        let instance = Resource::instance(format!("{workload}/{}", item.instance()));
        let resources = [Resource::workload(workload), instance, Resource::item(item.as_str())];
        let bounded = resources.into_iter().filter(|resource| {
            by_host(resource.scope()) || policy.bounds(resource.scope(), &limit)
        });
        let all = std::iter::once(Resource::node()).chain(bounded);
        all.map(|resource| Claim::capacity(resource, &*limit, streams)).collect()
    }
}

fn lane(class: &str) -> String {
    format!("{STREAMS}.{class}")
}
