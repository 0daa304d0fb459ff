//! From a request's bytes to the workload's code and back.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use fsm_core::{Fault, Outcome, Port, Progress, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Config, Host, Machines, Manifest, PluginManifest, Secrets, Workload,
    abi::{Call, Entry, Instance, Place, Reply},
    message::{self, Intent, Migrated, Request, SCHEMA, call},
};

/// One to eight workloads as a plugin: what [`export!`](crate::export!) exports, and what a host
/// links statically.
#[derive(Debug)]
pub struct Bundle<W>(PhantomData<W>);

/// A tuple of [`Workload`]s. Implemented for tuples here, and by nobody else.
pub trait Workloads: sealed::Workloads + 'static {
    #[doc(hidden)]
    fn manifests() -> Vec<Manifest>;
    #[doc(hidden)]
    fn open(config: &mut dyn FnMut(&str) -> Config) -> Result<Opened, Fault>;
}

mod sealed {
    pub trait Workloads {}
}

/// The workloads of an instance, by name.
#[doc(hidden)]
#[derive(Default)]
pub struct Opened(BTreeMap<String, Box<dyn Serve>>);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

macro_rules! workloads {
    ($( ($($W:ident)+) )+) => { $(
        impl<$($W: Workload),+> sealed::Workloads for ($($W,)+) {}
        impl<$($W: Workload),+> Workloads for ($($W,)+) {
            fn manifests() -> Vec<Manifest> {
                vec![$($W::manifest()),+]
            }

            fn open(config: &mut dyn FnMut(&str) -> Config) -> Result<Opened, Fault> {
                let mut opened = Opened::default();
                $( opened.add($W::manifest().workload, Served::<$W>::open(config)?); )+
                Ok(opened)
            }
        }
    )+ };
}
workloads! {
    (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H)
}

impl Opened {
    fn add(&mut self, workload: String, served: impl Serve) {
        self.0.insert(workload, Box::new(served));
    }
}

impl<W: Workloads> Entry for Bundle<W> {
    fn manifest() -> Vec<u8> {
        let manifest = PluginManifest {
            schema: SCHEMA,
            sdk: env!("CARGO_PKG_VERSION").to_owned(),
            workloads: W::manifests(),
        };
        // Manifests are made of strings, numbers and JSON values; if one had no JSON form after
        // all, the empty document is refused by the host.
        serde_json::to_vec(&manifest).unwrap_or_default()
    }

    fn init(bytes: Bytes) -> Result<Box<dyn Instance>, Vec<u8>> {
        let open = || {
            let mut config: BTreeMap<String, Value> = message::decode(&bytes)?;
            let terms = message::decode_terms(&bytes);
            W::open(&mut |workload| {
                Config::new(config.remove(workload).unwrap_or_default()).terms(terms)
            })
        };
        match open() {
            Ok(workloads) => Ok(Box::new(Plugin { workloads: Arc::new(workloads) })),
            Err(fault) => Err(message::encode_fault(&fault).to_vec()),
        }
    }
}

/// An opened plugin.
struct Plugin {
    workloads: Arc<Opened>,
}

impl Instance for Plugin {
    fn start(&self, call: Call) -> BoxFuture<'static, Reply> {
        let workloads = Arc::clone(&self.workloads);
        Box::pin(async move {
            match serve(&workloads, call).await {
                Ok(reply) => Reply::ok(reply),
                Err(fault) => Reply::error(message::encode_fault(&fault)),
            }
        })
    }

    fn place(&self, request: &Bytes) -> Place {
        self.workloads.place(request)
    }
}

impl Opened {
    /// Where a request runs: where its workload says. Only if workloads of one plugin differ, the
    /// request is looked into here, on the host's thread.
    fn place(&self, request: &[u8]) -> Place {
        let mut places = self.0.values().map(|served| served.place());
        match (places.next(), places.next()) {
            (Some(only), None) => return only,
            _ if self.0.values().all(|served| matches!(served.place(), Place::Own)) => {
                return Place::Own;
            }
            _ => {}
        }
        let named = message::decode::<Addressed>(request).ok();
        let workload = named.as_ref().and_then(Addressed::workload);
        // A request for nobody is refused by whoever reads it.
        workload.and_then(|name| self.0.get(name)).map_or(Place::Own, |served| served.place())
    }
}

/// As much of a request as says whom it is for.
#[derive(Deserialize)]
struct Addressed {
    #[serde(default)]
    workload: Option<String>,
    #[serde(default)]
    item: Option<String>,
    #[serde(default)]
    restore: Option<Restored>,
}

#[derive(Deserialize)]
struct Restored {
    item: String,
}

impl Addressed {
    fn workload(&self) -> Option<&str> {
        let restored = self.restore.as_ref().map(|restore| &restore.item);
        let item = self.item.as_ref().or(restored);
        let of_item = item.and_then(|item| item.split('/').next());
        self.workload.as_deref().or(of_item)
    }
}

async fn serve(workloads: &Opened, call: Call) -> Result<Bytes, Fault> {
    let request = Request::decode(&call.request)?;
    let workload = match &request {
        Request::Discover { workload }
        | Request::Machines { workload }
        | Request::Endpoints { workload }
        | Request::Route { workload, .. }
        | Request::Migrate { workload, .. } => workload,
        Request::Decide { item, .. } | Request::Plan { item, .. } | Request::Step { item, .. } => {
            item.workload()
        }
        Request::Restore { restore } => restore.item.workload(),
    };
    let served = workloads.0.get(workload).ok_or_else(|| {
        Fault::permanent("workload.unknown", format!("there is no workload `{workload}` here"))
    })?;
    served.serve(request, call).await
}

#[async_trait]
trait Serve: Send + Sync + 'static {
    fn place(&self) -> Place;
    async fn serve(&self, request: Request, call: Call) -> Result<Bytes, Fault>;
}

struct Served<W> {
    workload: Arc<W>,
    place: Place,
    machines: Machines,
    secrets: Secrets,
}

impl<W: Workload> Served<W> {
    fn open(config: &mut dyn FnMut(&str) -> Config) -> Result<Self, Fault> {
        let secrets = Secrets::default();
        let config = config(&W::manifest().workload).with_secrets(secrets.clone());
        let workload = Arc::new(W::open(config)?);
        let (machines, place) = (workload.machines(), workload.place());
        Ok(Served { workload, place, machines, secrets })
    }

    fn unknown_machine(name: &str) -> Fault {
        Fault::permanent("machine.unknown", format!("there is no machine `{name}` here"))
    }
}

#[async_trait]
impl<W: Workload> Serve for Served<W> {
    fn place(&self) -> Place {
        self.place.clone()
    }

    async fn serve(&self, request: Request, call: Call) -> Result<Bytes, Fault> {
        let workload = &self.workload;
        let _lent = self.secrets.lend(&call.host);
        match request {
            Request::Discover { .. } => reply(&workload.discover().await?),
            Request::Decide { item, wanted, points } => {
                reply(&workload.decide(&item, &wanted, &points).await?)
            }
            Request::Plan { points, target, until, .. } => reply(&match until {
                Some(until) => workload.plan_until(&points, &target, &until)?,
                None => workload.plan(&points, &target)?,
            }),
            Request::Restore { restore } => reply(&workload.restore(&restore).await?),
            Request::Endpoints { .. } => reply(&workload.endpoints()?),
            Request::Route { call, .. } => reply(&workload.route(&call)),
            Request::Machines { .. } => reply(&self.machines.graphs()),
            Request::Migrate { machine, from, state, data, .. } => {
                let found = self.machines.get(&machine);
                let machine = found.ok_or_else(|| Self::unknown_machine(&machine))?;
                let (state, data) = machine.migrate(from, &state, data)?;
                reply(&Migrated { state, data })
            }
            Request::Step { operation, item, call: step } => {
                let found = self.machines.get(&step.machine);
                let machine = found.ok_or_else(|| Self::unknown_machine(&step.machine))?;
                let host = Host::new(call.host, operation, item);
                let port = Boundary { host: host.clone(), cancel: call.cancel };
                let outcome: Outcome = machine.step(step, &host, &port).await;
                reply(&outcome)
            }
        }
    }
}

fn reply<T: Serialize>(body: &T) -> Result<Bytes, Fault> {
    message::encode(body)
}

/// The runtime as a step sees it from this side of the boundary.
struct Boundary {
    host: Host,
    cancel: fsm_core::Cancellation,
}

impl Port for Boundary {
    fn intent<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Fault>> {
        let intent = Intent { effect: name.to_owned() };
        Box::pin(async move { self.host.ask(call::EFFECT_INTENT, &intent).await })
    }

    fn progress(&self, progress: Progress) {
        // Sent at once; whether and when the host answers is of no interest.
        let _ = self.host.ask::<_, ()>(call::PROGRESS, &progress).now_or_never();
    }

    fn now(&self) -> Timestamp {
        // The host answers from its clock at once; without an answer the step is not current.
        let now = self.host.ask::<_, Timestamp>(call::NOW, &()).now_or_never();
        now.and_then(Result::ok).unwrap_or_default()
    }

    fn cancellation(&self) -> fsm_core::Cancellation {
        self.cancel.clone()
    }
}
