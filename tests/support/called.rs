//! A workload whose programs call, and say in their first message what is to become of the call:
//! also what no workload should answer. Linked in, and loaded as a library, by the tests of ingress.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test's own plugin")]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::future::{Either, select};
use plugin_sdk::{
    Caller, Claim, Config, Context, Create, Decision, Endpoint, Fault, Host, IncomingCall, Item,
    ItemId, Machine, Machines, Manifest, OperationId, PointId, PointKind, PointMeta, PointNotes,
    RestoreRequest, Route, RunPlan, Seal, Sealed, State, Step, Take, Taken, Wanted, Workload,
    async_trait, go,
    throttle::{Class, Policy, Rule, Scope},
};
use serde::{Deserialize, Serialize};

pub struct Called {
    settings: Settings,
}

#[derive(Deserialize)]
struct Settings {
    /// Who may call.
    uid: u32,
    /// A file; some of what it does waits until it is there.
    gate: PathBuf,
}

/// What a caller wants.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    #[serde(rename = "do")]
    pub what: String,
    /// The operation to make, instead of the name that the host proposes, or to attach to.
    pub operation: Option<String>,
    pub item: String,
    pub point: Option<String>,
    pub patience_ms: Option<u64>,
    pub refusal: String,
}

/// Work on a call that the operation was made of.
struct Serve;

impl Machine for Serve {
    const NAME: &'static str = "serve";
    type Host = Host;
    type Initial = Open;
    type States = (Open, Save, GiveBack, Answer, Sealed, GivenBack, Answered);
}
plugin_sdk::check!(Serve);

#[derive(Serialize, Deserialize)]
struct Open {
    wish: Wish,
    gate: PathBuf,
}

impl State<Serve> for Open {
    const NAME: &'static str = "open";
    type Next = (Save, GiveBack, Answer);

    async fn run(self, _: &Serve, cx: &mut Context<'_, Serve>) -> Step<Self> {
        let Open { wish, gate } = self;
        if wish.item == "slow" {
            cx.progress(0, None);
            while !gate.exists() {
                cx.check_cancelled()?;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        match wish.what.as_str() {
            "restore" => go(GiveBack { point: PointId::new(wish.point.unwrap_or_default()) }),
            "other" => go(Answer { linger: (wish.item == "lingers").then_some(gate) }),
            _ => go(Save),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Save;

impl State<Serve> for Save {
    const NAME: &'static str = "save";
    type Next = (Sealed,);

    async fn run(self, _: &Serve, cx: &mut Context<'_, Serve>) -> Step<Self> {
        let host = cx.host().clone();
        let Taken { connection, .. } = host.call().await?;
        cx.progress(1, None);
        let mut connection = UnixStream::from(connection);
        let Take::Begun(take) = host.take("bytes").await? else {
            return Err(Fault::bug("called.take", "a call is taken once"));
        };
        let length = save(&take, "bytes", &mut connection).await?;
        let take = take.finish().await?;
        let point = Seal::full(take, PointNotes::new()).make(&host).await?;
        writeln!(connection, "saved {length} in {}", point.as_str())?;
        go(Sealed { point })
    }
}

/// Sends what the caller says until it has said everything.
async fn save(
    take: &plugin_sdk::OpenTake,
    name: &str,
    connection: &mut UnixStream,
) -> Result<u64, Fault> {
    let mut sink = take.stream(name).await?;
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        let read = connection.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        sink.send(buffer[..read].to_vec()).await?;
    }
    sink.finish().await?;
    Ok(length)
}

#[derive(Serialize, Deserialize)]
struct GiveBack {
    point: PointId,
}

impl State<Serve> for GiveBack {
    const NAME: &'static str = "give-back";
    type Next = (GivenBack,);

    async fn run(self, _: &Serve, cx: &mut Context<'_, Serve>) -> Step<Self> {
        let Taken { connection, .. } = cx.host().call().await?;
        let mut connection = UnixStream::from(connection);
        let source = cx.host().source(&self.point, "bytes").await?;
        let bytes = source.read_at(0, usize::try_from(source.length()).unwrap_or(0)).await?;
        connection.write_all(&bytes)?;
        go(GivenBack { bytes: source.length() })
    }
}

#[derive(Serialize, Deserialize)]
struct GivenBack {
    bytes: u64,
}

impl State<Serve> for GivenBack {
    const NAME: &'static str = "given-back";
    type Next = ();
}

#[derive(Serialize, Deserialize)]
struct Answer {
    /// It goes on after it has hung up, until this is there.
    linger: Option<PathBuf>,
}

impl State<Serve> for Answer {
    const NAME: &'static str = "answer";
    type Next = (Answered,);

    async fn run(self, _: &Serve, cx: &mut Context<'_, Serve>) -> Step<Self> {
        let Taken { call, connection, .. } = cx.host().call().await?;
        cx.progress(1, None);
        let mut connection = UnixStream::from(connection);
        let mut said = String::new();
        connection.read_to_string(&mut said)?;
        connection.write_all(said.to_uppercase().as_bytes())?;
        let again = match cx.host().call().await {
            Ok(_) => "taken twice".to_owned(),
            Err(fault) => fault.code().to_owned(),
        };
        drop(connection);
        while self.linger.as_ref().is_some_and(|gate| !gate.exists()) {
            cx.check_cancelled()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        go(Answered { said, uid: call.peer.uid, pid: call.peer.pid, again })
    }
}

#[derive(Serialize, Deserialize)]
struct Answered {
    said: String,
    uid: u32,
    pid: u32,
    again: String,
}

impl State<Serve> for Answered {
    const NAME: &'static str = "answered";
    type Next = ();
}

/// A backup that the host begins, and that calls attach to: as many as its item is named after.
struct Command;

impl Machine for Command {
    const NAME: &'static str = "command";
    type Host = Host;
    type Initial = Await;
    type States = (Await, Seal, Sealed);
}
plugin_sdk::check!(Command);

#[derive(Serialize, Deserialize)]
struct Await {
    calls: usize,
}

impl State<Command> for Await {
    const NAME: &'static str = "await";
    type Next = (Seal,);

    async fn run(self, _: &Command, cx: &mut Context<'_, Command>) -> Step<Self> {
        let host = cx.host().clone();
        let take = match host.take("bytes").await? {
            Take::Finished(take) => take,
            Take::Begun(take) => {
                for number in 0..self.calls {
                    let asked_to_stop = cx.cancellation().requested();
                    let next = std::pin::pin!(host.next_call());
                    let Either::Left((taken, _)) = select(next, asked_to_stop).await else {
                        return Err(Fault::cancelled());
                    };
                    let Taken { connection, .. } = taken?;
                    cx.progress(number as u64 + 1, None);
                    let mut connection = UnixStream::from(connection);
                    let name = if number == 0 { "bytes".to_owned() } else { number.to_string() };
                    let length = save(&take, &name, &mut connection).await?;
                    writeln!(connection, "saved {length}")?;
                }
                take.finish().await?
            }
        };
        go(Seal::full(take, PointNotes::new()))
    }
}

#[async_trait]
impl Workload for Called {
    fn manifest() -> Manifest {
        let policy = Policy::new()
            .class(Class::new("data"))
            .class(Class::new("meta"))
            .rule(Scope::Item, "data/data", Rule::Coalesce)
            .rule(Scope::Item, "meta/meta", Rule::Allow)
            .rule(Scope::Item, "data/meta", Rule::Allow);
        Manifest::new("plugin-called", "0.1.0", "called").throttle(policy).ingress()
    }

    fn open(config: Config) -> Result<Self, Fault> {
        Ok(Called { settings: config.read()? })
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        Ok(Vec::new())
    }

    async fn decide(&self, item: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        let calls = item.name().parse().unwrap_or(1);
        Ok(Decision::Run(RunPlan::new::<Command>(Await { calls })?.claim(on_item("data"))))
    }

    async fn restore(&self, _: &RestoreRequest) -> Result<RunPlan, Fault> {
        Err(Fault::permanent("called.restore", "its programs ask for it").advise("do not ask"))
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, Fault> {
        let Settings { uid, .. } = self.settings;
        Ok(vec![
            Endpoint::new("door").caller(Caller::Uid(uid)),
            Endpoint::new("narrow")
                .caller(Caller::Uid(uid))
                .first_message(64, Duration::from_secs(20))
                .connections_max(2),
            Endpoint::new("others").caller(Caller::Uid(uid.wrapping_add(1))),
        ])
    }

    fn route(&self, call: &IncomingCall) -> Route {
        let Ok(wish) = serde_json::from_slice::<Wish>(&call.first) else {
            return Route::refuse("called.unread", *b"what is that?");
        };
        self.routed(call, &wish)
            .unwrap_or_else(|fault| Route::refuse(fault.code(), fault.to_string().into_bytes()))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Serve).with(Command)
    }
}

fn on_item(class: &str) -> Claim {
    Claim::Item { class: class.to_owned() }
}

impl Called {
    fn routed(&self, call: &IncomingCall, wish: &Wish) -> Result<Route, Fault> {
        let gate = self.settings.gate.clone();
        let bad = |error: plugin_sdk::InvalidItemId| Fault::user("called.item", error.to_string());
        let named = wish.operation.as_deref().map(OperationId::new);
        let operation = named.clone().unwrap_or_else(|| call.id.clone());
        let workload = if wish.what == "foreign item" { "lab" } else { "called" };
        let name = if wish.item.is_empty() { "db" } else { &wish.item };
        let item = ItemId::new(workload, "one", name).map_err(bad)?;
        let mut plan = RunPlan::new::<Serve>(Open { wish: wish.clone(), gate: gate.clone() })?;
        let full = |plan| Create::backup(operation.clone(), item.clone(), PointKind::Full, plan);
        let create = match wish.what.as_str() {
            "backup" | "foreign item" => full(plan.claim(on_item("data"))),
            "restore" => {
                let point = PointId::new(wish.point.clone().unwrap_or_default());
                Create::restore(operation, item, point, plan.claim(on_item("data")))
            }
            "other" => Create::other(operation, item, plan.claim(on_item("meta"))),
            "claim" => full(plan.claim(on_item("no such class"))),
            "machine" => {
                plan.machine = "no such machine".to_owned();
                full(plan)
            }
            "attach" => return Ok(Route::attach(operation, wish.refusal.as_bytes())),
            "refuse" => return Ok(Route::refuse("called.refused", wish.refusal.as_bytes())),
            "refuse at length" => return Ok(Route::refuse("called.refused", vec![b'x'; 1 << 20])),
            "panic" => panic!("no such call"),
            "abort" => std::process::abort(),
            "hang" => {
                while !gate.exists() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                return Ok(Route::refuse("called.late", *b"at last"));
            }
            other => return Err(Fault::user("called.unknown", format!("what is {other}?"))),
        };
        let create = create.refusal(wish.refusal.as_bytes());
        Ok(match wish.patience_ms {
            Some(patience) => create.patience(Duration::from_millis(patience)).into(),
            None => create.into(),
        })
    }
}
