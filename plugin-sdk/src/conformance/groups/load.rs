//! The library, its manifest and its graphs.

use std::{fs, path::PathBuf};

use fsm_core::{Cancel, Ending, Graph};

use crate::{
    Operation, PluginManifest,
    conformance::bench::{Bench, Finding, Plugin},
    host::Library,
    message::{self, Request, SCHEMA},
};

use super::counted;

pub(super) fn check(bench: &mut Bench) {
    let library = match bench.subject.load(bench.grace) {
        Ok(library) => library,
        Err(error) => return bench.must("loads", Finding::Broken(error.to_string())),
    };
    let how = match bench.subject.path() {
        Some(_) => "its symbol, version and layout are right",
        None => "it is linked into this program",
    };
    bench.must("loads", Finding::Holds(how.to_owned()));
    let manifest = match manifest(&library) {
        Ok(manifest) => manifest,
        Err(why) => return bench.must("manifest", Finding::Broken(why)),
    };
    bench.must("manifest", Ok(summary(&manifest)));
    let wanted = bench.item().ok().map(|item| item.workload().to_owned());
    let found = manifest
        .workloads
        .iter()
        .find(|workload| wanted.as_ref().is_none_or(|wanted| *wanted == workload.workload));
    let Some(workload) = found.cloned() else {
        let why = format!("there is no workload `{}` in it", wanted.unwrap_or_default());
        return bench.must("workload", Finding::Broken(why));
    };
    let declares = match workload.operations.len() {
        0 => Finding::Broken("it does not say what may be asked for".to_owned()),
        count => Finding::Holds(counted(count, "operation")),
    };
    bench.plugin = Some(Plugin { library, manifest, workload, graphs: Vec::new() });
    bench.should("operations", declares);
    let graphs = match graphs(bench) {
        Ok(graphs) => graphs,
        Err(why) => {
            bench.plugin = None;
            let found = match bench.fixture().is_none() {
                true => Finding::NotTried(format!("without a fixture: {why}")),
                false => Finding::Broken(why),
            };
            return bench.must("instance", found);
        }
    };
    bench.must("instance", Ok(format!("it opens with {}", counted(graphs.len(), "machine"))));
    bench.must("graph", sound(&graphs));
    bench.should("graph_docs", documented(&graphs));
    bench.should("graph_undo", undoes(&graphs));
    bench.should("graph_waits", bounded(&graphs));
    if let Some(plugin) = &mut bench.plugin {
        plugin.graphs = graphs;
    }
    let twice = twice(bench);
    bench.must("init_twice", twice);
    let copies = two_copies(bench);
    bench.must("two_copies", copies);
}

fn manifest(library: &Library) -> Result<PluginManifest, String> {
    let read = || {
        let document = library.manifest().map_err(|error| error.to_string())?;
        serde_json::from_slice::<PluginManifest>(&document)
            .map_err(|error| format!("it cannot be read: {error}"))
    };
    let manifest = read()?;
    if read()? != manifest {
        return Err("it is another one each time".to_owned());
    }
    if manifest.schema > SCHEMA {
        return Err(format!("it speaks message schema {}, this kit {SCHEMA}", manifest.schema));
    }
    if manifest.workloads.is_empty() {
        return Err("it has no workload".to_owned());
    }
    for workload in &manifest.workloads {
        let name = &workload.workload;
        if name.is_empty() || name.contains('/') {
            return Err(format!("`{name}` is no name of a workload"));
        }
        if workload.plugin.is_empty() || workload.version.is_empty() {
            return Err(format!(
                "workload `{name}` does not say of which plugin and version it is"
            ));
        }
        let same = manifest.workloads.iter().filter(|other| other.workload == *name).count();
        if same > 1 {
            return Err(format!("{same} workloads have the name `{name}`"));
        }
    }
    Ok(manifest)
}

fn summary(manifest: &PluginManifest) -> String {
    let workloads: Vec<_> = manifest.workloads.iter().map(|w| w.workload.as_str()).collect();
    let first = &manifest.workloads[0];
    format!("{} {}: {}, SDK {}", first.plugin, first.version, workloads.join(", "), manifest.sdk)
}

fn graphs(bench: &Bench) -> Result<Vec<Graph>, String> {
    let workload = bench.plugin()?.workload.workload.clone();
    let instance = bench.instance()?;
    let asked = bench.ask(&instance, &Request::Machines { workload });
    asked.map_err(|fault| format!("it does not show its machines: {fault}"))
}

fn sound(graphs: &[Graph]) -> Result<String, String> {
    if graphs.is_empty() {
        return Err("it has no machine".to_owned());
    }
    for graph in graphs {
        graph.validate().map_err(|error| error.to_string())?;
    }
    let states = graphs.iter().map(|graph| graph.states.len()).sum();
    Ok(format!("{}: each reachable, each leads to an end", counted(states, "state")))
}

fn documented(graphs: &[Graph]) -> Result<String, String> {
    for graph in graphs {
        if let Some(state) = graph.states.iter().find(|state| state.doc.is_empty()) {
            return Err(format!("state `{}` of `{}` has no doc", state.name, graph.machine));
        }
    }
    Ok("each state says what it does".to_owned())
}

/// A machine whose states change the world has an end for the case that its work is not done. A
/// machine without one ends where it stands, which is right if there is nothing to undo.
fn undoes(graphs: &[Graph]) -> Result<String, String> {
    let ends = |graph: &Graph, wanted: fn(Ending) -> bool| {
        graph.states.iter().filter_map(|state| state.ending).any(wanted)
    };
    let deferred = |graph: &Graph| {
        let undoing = |state: &&fsm_core::StateInfo| state.cancel == Cancel::Defer;
        graph.states.iter().filter(undoing).count()
    };
    let mut told = Vec::new();
    for graph in graphs {
        let failing = ends(graph, |ending| ending == Ending::Failed);
        let stopping = ends(graph, |ending| ending == Ending::Cancelled);
        if failing != stopping {
            let (has, lacks) =
                if failing { ("failed", "cancelled") } else { ("cancelled", "failed") };
            return Err(format!(
                "`{}` has an end for runs that {has}, and none for those that {lacks}",
                graph.machine
            ));
        }
        let kind = if failing { "tidies up" } else { "stops where it is" };
        told.push(format!("`{}` {kind} ({} not cancelled)", graph.machine, deferred(graph)));
    }
    Ok(told.join(", "))
}

fn bounded(graphs: &[Graph]) -> Result<String, String> {
    for graph in graphs {
        for state in &graph.states {
            if state.wait.as_ref().is_some_and(|wait| wait.at_most_ms.is_none()) {
                let (state, machine) = (&state.name, &graph.machine);
                return Err(format!("state `{state}` of `{machine}` may wait for ever"));
            }
        }
    }
    Ok("no state waits for ever".to_owned())
}

/// Two instances do not know of each other.
fn twice(bench: &Bench) -> Result<String, String> {
    let (one, other) = (bench.instance()?, bench.instance()?);
    let workload = bench.plugin()?.workload.workload.clone();
    let machines = Request::Machines { workload };
    let expected = &bench.plugin()?.graphs;
    for instance in [&one, &other, &one] {
        let graphs: Vec<Graph> =
            bench.ask(instance, &machines).map_err(|fault| fault.to_string())?;
        if graphs != *expected {
            return Err("a second instance has other machines".to_owned());
        }
    }
    drop(one);
    let graphs: Vec<Graph> =
        bench.ask(&other, &machines).map_err(|fault| format!("after the first ended: {fault}"))?;
    match graphs == *expected {
        true => Ok("two instances, one of which ends first".to_owned()),
        false => Err("an instance changes when another one ends".to_owned()),
    }
}

/// A file that goes away.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        // A file that is left in the temporary directory does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

/// The same library under another name is another library, as two vendors' are.
fn two_copies(bench: &Bench) -> Finding {
    let Some(path) = bench.subject.path() else {
        return Finding::NotTried("a linked plugin is no file".to_owned());
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let copy = Copy(std::env::temp_dir().join(format!("{}-{name}", std::process::id())));
    if let Err(error) = fs::copy(path, &copy.0) {
        return Finding::NotTried(format!("it could not be copied: {error}"));
    }
    let both = || {
        let plugin = bench.plugin()?;
        let second =
            bench.subject.load_copy(&copy.0, bench.grace).map_err(|error| error.to_string())?;
        let found = manifest(&second)?;
        if found != plugin.manifest {
            return Err("the copy has another manifest".to_owned());
        }
        let empty = message::encode(&serde_json::json!({})).map_err(|fault| fault.to_string())?;
        // Whether it opens without a configuration is its own affair; that it answers is not.
        let opened = second.init(empty);
        let first = bench.instance()?;
        let workload = plugin.workload.workload.clone();
        let discover = Request::Machines { workload };
        bench
            .ask::<Vec<Graph>>(&first, &discover)
            .map_err(|fault| format!("beside a copy it answers: {fault}"))?;
        drop(opened);
        Ok("it runs beside a copy of itself".to_owned())
    };
    both().into()
}

/// The operations of a manifest as one word each, for messages.
pub(super) fn word(operation: Operation) -> String {
    match operation {
        Operation::Discover => "discover".to_owned(),
        Operation::Backup(kind) => format!("backup ({kind})"),
        Operation::Restore => "restore".to_owned(),
    }
}
