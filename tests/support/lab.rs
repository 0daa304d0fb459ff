//! A workload whose steps do what their items are named after, and wait for gates: files that a
//! test makes. Its streams are real ones.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mercury::{Engine, EngineBuilder, ItemId, Operation, Plugin, PointKind, Priority};
use plugin_sdk::{
    Claim, Config, Context, Decision, Fault, Host, Item, Machine, Machines, Manifest, PointMeta,
    PointNotes, RestoreRequest, Retry, RunPlan, Seal, Sealed, State, Step, Take, Wanted, Workload,
    async_trait, go, go_at,
    throttle::{Class, Conditional, Policy, Rule, Scope},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::World;

/// The workload; a strict one does not allow a log backup beside a full one.
pub struct Lab<const STRICT: bool> {
    settings: Settings,
}

#[derive(Deserialize)]
struct Settings {
    /// Where the gates are.
    gates: PathBuf,
    /// The version that discovery reports.
    #[serde(default)]
    engine: Option<String>,
}

struct Work;

impl Machine for Work {
    const NAME: &'static str = "work";
    type Host = Host;
    type Initial = Begin;
    type States = (Begin, Write, Fragile, Stubborn, Seal, Sealed);
}
plugin_sdk::check!(Work);

#[derive(Serialize, Deserialize)]
struct Begin {
    gates: PathBuf,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Write {
    gates: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Fragile {
    gates: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Stubborn {
    gates: PathBuf,
}

/// Attempts that [`Stubborn`] steps have begun in this process.
pub static STUBBORN_ATTEMPTS: AtomicUsize = AtomicUsize::new(0);

impl State<Work> for Begin {
    const NAME: &'static str = "begin";
    type Next = (Write, Fragile, Stubborn);

    async fn run(self, _: &Work, cx: &mut Context<'_, Work>) -> Step<Self> {
        let Begin { gates, name } = self;
        match name.split('-').next() {
            Some("pauses") => go(Fragile { gates }),
            Some("stubborn") => go(Stubborn { gates }),
            Some("parks") => go_at(cx.now() + Duration::from_secs(30 * 86_400), Write { gates }),
            _ => go(Write { gates }),
        }
    }
}

impl State<Work> for Write {
    const NAME: &'static str = "write";
    type Next = (Seal,);

    async fn run(self, _: &Work, cx: &mut Context<'_, Work>) -> Step<Self> {
        let take = match cx.host().take("take").await? {
            Take::Finished(finished) => finished,
            Take::Begun(take) => {
                let mut sink = take.stream("bytes").await?;
                sink.send(bytes::Bytes::from_static(b"bytes of the plugin's own")).await?;
                let operation = cx.host().operation().to_string();
                cx.progress(1, None);
                wait_for(&self.gates, &operation, || cx.check_cancelled())?;
                sink.finish().await?;
                take.finish().await?
            }
        };
        go(Seal::full(take, PointNotes::new()))
    }
}

impl State<Work> for Fragile {
    const NAME: &'static str = "fragile";
    const RETRY: Retry = Retry::times(1).or_pause();
    type Next = (Write,);

    async fn run(self, _: &Work, _: &mut Context<'_, Work>) -> Step<Self> {
        if !self.gates.join("mended").exists() {
            return Err(Fault::retryable("lab.broken", "it is broken"));
        }
        go(Write { gates: self.gates })
    }
}

impl State<Work> for Stubborn {
    const NAME: &'static str = "stubborn";
    const RETRY: Retry = Retry::times(3)
        .backoff(Duration::from_secs(1), 1.0)
        .attempt_timeout(Duration::from_secs(60));
    type Next = (Write,);

    async fn run(self, _: &Work, cx: &mut Context<'_, Work>) -> Step<Self> {
        STUBBORN_ATTEMPTS.fetch_add(1, Ordering::SeqCst);
        cx.progress(0, None);
        // It holds its thread, whatever it is asked.
        wait_for(&self.gates, "let-go", || Ok(()))?;
        go(Write { gates: self.gates })
    }
}

/// Waits, on a thread of the plugin's own, until the gate `name` is open, or all are.
fn wait_for(
    gates: &Path,
    name: &str,
    mut go_on: impl FnMut() -> Result<(), Fault>,
) -> Result<(), Fault> {
    while !gates.join(name).exists() && !gates.join("all").exists() {
        go_on()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[async_trait]
impl<const STRICT: bool> Workload for Lab<STRICT> {
    fn manifest() -> Manifest {
        let mut policy = Policy::new()
            .class(Class::new("data").alias("full"))
            .class(Class::new("log").priority(Priority::High))
            .rule(Scope::Item, "log/log", Rule::Coalesce)
            .when("engine<9", Conditional::new().rule(Scope::Item, "data/log", Rule::Wait));
        if !STRICT {
            policy = policy.rule(Scope::Item, "data/log", Rule::Allow);
        }
        Manifest::new("plugin-lab", "0.1.0", "lab").throttle(policy)
    }

    fn open(config: Config) -> Result<Self, Fault> {
        Ok(Lab { settings: config.read()? })
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        let id = ItemId::new("lab", "one", "plain");
        let mut item = Item::new(id.map_err(|error| Fault::bug("lab.item", error.to_string()))?);
        if let Some(engine) = &self.settings.engine {
            let version = engine.parse();
            let unread = |error: plugin_sdk::throttle::PolicyError| {
                Fault::user("lab.engine", error.to_string())
            };
            item = item.engine_version(version.map_err(unread)?);
        }
        Ok(vec![item])
    }

    async fn decide(
        &self,
        item: &ItemId,
        wanted: &Wanted,
        _: &[PointMeta],
    ) -> Result<Decision, Fault> {
        let (gates, name) = (self.settings.gates.clone(), item.name().to_owned());
        let class = if wanted.kind == PointKind::Log { "log" } else { "full" };
        let plan = RunPlan::new::<Work>(Begin { gates, name })?
            .claim(Claim::Item { class: class.to_owned() })
            .claim(Claim::Streams { count: 1 });
        Ok(Decision::Run(plan))
    }

    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        Err(Fault::permanent("lab.restore", "nothing is given back").advise("do not ask"))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Work)
    }
}

pub fn item(name: &str) -> ItemId {
    ItemId::new("lab", "one", name).unwrap()
}

/// An engine with the lab, still to be started.
pub fn builder(world: &World) -> EngineBuilder {
    world.bare().plugin(plugin::<false>(world, "16"))
}

pub fn plugin<const STRICT: bool>(world: &World, engine: &str) -> Plugin {
    let config = json!({ "gates": world.path("data"), "engine": engine });
    Plugin::linked::<Lab<STRICT>>().config("lab", config)
}

pub fn open(world: &World, gate: &str) {
    std::fs::write(world.path("data").join(gate), "").unwrap();
}

/// Asks for a full backup of the item `name` under the id `id`.
pub async fn full(engine: &Engine, name: &str, id: &str) -> Operation {
    engine.backup(&item(name)).id(id).submit().await.unwrap()
}

/// Asks for a log backup of the item `name` under the id `id`.
pub async fn log(engine: &Engine, name: &str, id: &str) -> Operation {
    engine.backup(&item(name)).kind(PointKind::Log).id(id).submit().await.unwrap()
}
