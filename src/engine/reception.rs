//! What is made of a workload's calls: a call belongs to an operation that is under way, or an
//! operation is made of it.
//!
//! The workload's answer is doubted as everything that a plugin says. An operation that is made of
//! a call is written down, with its plan, before its task begins; from then on it is an operation
//! like others, and goes through the same decision (a restore's chain is planned and found present),
//! the same admission, and the same end.

use std::sync::{Arc, Weak};

use fsm_core::{Class, Fault};
use futures::future::{BoxFuture, FutureExt};
use plugin_sdk::{Create, IncomingCall, OperationId, Overwrite, Route, Work};

use super::{
    execute::{self, first_run},
    handle::{Enlisted, Inner},
};
use crate::{
    catalog::{Accepted, MadeOf, Terms},
    events::Event,
    ingress::{Over, Placed, Reception, Refusal, Said, Waiting, With},
    operation::{CalledBy, Task},
    plugins::calls::Services,
};

/// Makes operations of calls, for as long as the engine is there.
pub(super) struct Desk {
    pub(super) engine: Weak<Inner>,
    pub(super) services: Arc<Services>,
}

impl Desk {
    fn engine(&self) -> Result<Arc<Inner>, Refusal> {
        self.engine.upgrade().filter(|inner| !inner.is_closed()).ok_or_else(Refusal::stopped)
    }
}

impl Reception for Desk {
    fn route<'a>(
        &'a self,
        workload: &'a str,
        said: Said,
    ) -> BoxFuture<'a, Result<(IncomingCall, Route), Refusal>> {
        async move {
            let hosted = self.engine()?.hosted(workload).cloned().ok_or_else(Refusal::stopped)?;
            let Said { endpoint, peer, first } = said;
            let id = unused_id(&self.services).await?;
            let call = IncomingCall::new(id, endpoint, peer, first);
            let route = hosted.route(call.clone()).await?;
            Ok((call, route))
        }
        .boxed()
    }

    fn place<'a>(
        &'a self,
        workload: &'a str,
        route: Route,
        waiting: &'a Arc<Waiting>,
    ) -> BoxFuture<'a, Result<Placed, Refusal>> {
        async move {
            let inner = self.engine()?;
            let placed = match route {
                Route::Attach { operation, refusal } => {
                    let attached = attach(&inner, workload, &operation, waiting).await;
                    attached.map_err(|error| error.telling(refusal.clone()))?;
                    Placed { operation, with: With::Attached, patience: None, refusal }
                }
                Route::Create(create) => {
                    let (operation, patience) = (create.operation.clone(), create.patience);
                    let refusal = create.refusal.clone();
                    let created = make(&inner, workload, *create, waiting).await;
                    created.map_err(|error| error.telling(refusal.clone()))?;
                    Placed { operation, with: With::Own, patience, refusal }
                }
                _ => return Err(Refusal::broken("it routes in an unknown way")),
            };
            let CalledBy { endpoint, peer } = called_by(&waiting.call);
            let operation = placed.operation.clone();
            self.services.tell(Event::Called { operation, endpoint, peer });
            Ok(placed)
        }
        .boxed()
    }

    fn came_to_nothing<'a>(
        &'a self,
        placed: &'a Placed,
        waiting: &'a Arc<Waiting>,
        over: Over,
    ) -> BoxFuture<'a, ()> {
        let Placed { operation, with, .. } = placed;
        async move {
            self.services.callers.forget(operation, waiting);
            let (code, why) = match over {
                Over::HungUp => ("call.hung_up", "the caller hung up before it was served"),
                Over::Impatient => ("call.impatient", "the caller could not wait any longer"),
                // The next start says of it that it was lost.
                Over::Taken | Over::Unserved | Over::Stopped => return,
            };
            if *with == With::Own
                && let Some(inner) = self.engine.upgrade()
            {
                let why = Fault::new(Class::Cancelled, code, why);
                self.services.callers.explain(operation, why);
                if let Err(error) = inner.cancel(operation).await {
                    tracing::warn!(%operation, %error, "it goes on without its caller");
                }
            }
        }
        .boxed()
    }

    fn tell(&self, event: Event) {
        self.services.tell(event);
    }
}

/// A name that no operation has.
async fn unused_id(services: &Services) -> Result<OperationId, Refusal> {
    loop {
        let now = services.environment.now().as_unix_ms();
        let unique = services.environment.random() as u32;
        let id = OperationId::new(format!("call-{now}-{unique:08x}"));
        if services.catalog.operation(id.clone()).await?.is_none() {
            return Ok(id);
        }
    }
}

fn called_by(call: &IncomingCall) -> CalledBy {
    CalledBy { endpoint: call.endpoint.clone(), peer: call.peer }
}

/// Puts a call into the line of an operation that is under way.
async fn attach(
    inner: &Arc<Inner>,
    workload: &str,
    operation: &OperationId,
    waiting: &Arc<Waiting>,
) -> Result<(), Refusal> {
    let not_there = || {
        let why = format!("there is no operation `{operation}` under way");
        Refusal::new("ingress.not_under_way", why)
    };
    let services = &inner.services;
    let status = services.catalog.operation(operation.clone()).await?.ok_or_else(not_there)?;
    if status.task.item().workload() != workload {
        let whose = status.task.item().workload();
        return Err(Refusal::broken(format!("it attaches to `{operation}`, which is {whose}'s")));
    }
    match services.callers.attach(operation, waiting) {
        true => Ok(()),
        false => Err(not_there()),
    }
}

/// Makes an operation of a call.
async fn make(
    inner: &Arc<Inner>,
    workload: &str,
    create: Create,
    waiting: &Arc<Waiting>,
) -> Result<(), Refusal> {
    let Create { operation, item, work, plan, .. } = create;
    if item.workload() != workload {
        return Err(Refusal::broken(format!("it makes work on {item}, of another workload")));
    }
    let run = first_run(&operation)
        .map_err(|error| Refusal::broken(format!("it names an operation badly: {error}")))?;
    let hosted = inner.hosted(workload).ok_or_else(Refusal::stopped)?;
    let machine = hosted.machine_name(&plan.machine);
    if inner.runtime.first_record(run, &machine, plan.input.clone()).is_err() {
        let why = format!("it plans with the machine `{}`, which it does not have", plan.machine);
        return Err(Refusal::broken(why));
    }
    let task = match work {
        Work::Backup(kind) => Task::Backup { item, kind, even_if_unchanged: true },
        Work::Restore(point) => {
            let (target, overwrite, until) = (None, Overwrite::Refuse, None);
            Task::Restore { item, point, target, overwrite, until }
        }
        Work::Other => Task::Other { item },
        _ => return Err(Refusal::broken("it makes work of an unknown kind")),
    };
    let exists = || Refusal::broken(format!("it makes an operation that exists: `{operation}`"));
    let Enlisted::First(entry) = inner.enlist(&operation)? else { return Err(exists()) };
    let made_of = MadeOf { by: called_by(&waiting.call), plan };
    let accepting = execute::Accepting {
        id: operation.clone(),
        task,
        terms: Terms::default(),
        made_of: Some((made_of, Arc::clone(waiting))),
    };
    match execute::accept(Arc::clone(inner), entry, accepting).await? {
        (_, Accepted::New) => Ok(()),
        (_, Accepted::Known) => Err(exists()),
    }
}
