//! A plugin that logs in with a secret, and gives it away in every way that its items are named
//! after. Loaded as a library, and linked in, by the test of secrets.

#![allow(missing_docs, unreachable_pub, reason = "a test's own plugin")]

use std::{path::PathBuf, sync::Arc};

use plugin_sdk::{
    Claim, Config, Context, Decision, Fault, Host, Item, ItemId, Machine, Machines, Manifest,
    Operation, PointId, PointKind, PointMeta, PointNotes, RestoreRequest, RunPlan, Seal, Sealed,
    Secrets, State, Step, Take, Wanted, Workload, async_trait, go, throttle,
};
use serde::{Deserialize, Serialize};

pub struct Secretive {
    secrets: Secrets,
    right: String,
}

#[derive(Deserialize)]
struct Settings {
    /// The end of the right password: so much may be known here.
    right: String,
}

impl Secretive {
    fn login(&self, password: &str) -> Result<(), Fault> {
        // What others on the computer can read of this process, or what it hands on.
        for file in ["/proc/self/cmdline", "/proc/self/environ"] {
            let shown = std::fs::read(file)?;
            if shown.windows(password.len()).any(|window| window == password.as_bytes()) {
                return Err(Fault::bug("secretive.shown", format!("it stands in {file}")));
            }
        }
        match password.ends_with(&self.right) {
            true => Ok(()),
            false => Err(Fault::user("secretive.login", "the password is wrong")),
        }
    }
}

struct Backup;

impl Machine for Backup {
    const NAME: &'static str = "backup";
    type Host = Host;
    type Initial = Send;
    type States = (Send, Seal, Sealed);
}
plugin_sdk::check!(Backup);

#[derive(Serialize, Deserialize)]
struct Send {
    what: String,
    note: Option<String>,
}

impl State<Backup> for Send {
    const NAME: &'static str = "send";
    type Next = (Send, Seal);

    async fn run(self, _: &Backup, cx: &mut Context<'_, Backup>) -> Step<Self> {
        let host = cx.host().clone();
        let password = host.secret("password").await?;
        let password = password.expose_str()?;
        match self.what.as_str() {
            "tells it in an error" => {
                let cause = std::io::Error::other(format!("{password} was refused"));
                return Err(Fault::user("secretive.login", format!("no login as sa:{password}"))
                    .advise(format!("do not use {password}"))
                    .caused_by(&cause));
            }
            "panics with it" => panic!("no login as sa:{password}"),
            "logs it" => {
                let span = tracing::info_span!("login", password);
                let _in = span.enter();
                tracing::error!(password, address = ?format!("sa:{password}@db"), "with {password}");
            }
            "keeps it in a state" if self.note.is_none() => {
                return go(Send { what: self.what, note: Some(password.to_owned()) });
            }
            "asks for another" => drop(host.secret("root").await?),
            "asks for one that is not there" => drop(host.secret("token").await?),
            _ => {}
        }
        let take = match host.take("work").await? {
            Take::Finished(finished) => finished,
            Take::Begun(take) => {
                let stream = if self.what == "names a stream after it" { password } else { "work" };
                let mut sink = take.stream(stream).await?;
                sink.send(b"what is backed up".to_vec()).await?;
                sink.finish().await?;
                take.finish().await?
            }
        };
        let mut notes = PointNotes::new();
        if self.what == "notes it" {
            notes.details = serde_json::json!({ "user": { "sa": password } });
        }
        go(Seal::full(take, notes))
    }
}

struct Restore;

impl Machine for Restore {
    const NAME: &'static str = "restore";
    type Host = Host;
    type Initial = Write;
    type States = (Write, Written);
}
plugin_sdk::check!(Restore);

#[derive(Serialize, Deserialize)]
struct Write {
    point: PointId,
    target: PathBuf,
    right: String,
}

impl State<Restore> for Write {
    const NAME: &'static str = "write";
    type Next = (Written,);

    async fn run(self, _: &Restore, cx: &mut Context<'_, Restore>) -> Step<Self> {
        let password = cx.host().secret("password").await?;
        if !password.expose_str()?.ends_with(&self.right) {
            return Err(Fault::user("secretive.login", "the password is wrong"));
        }
        let source = cx.host().source(&self.point, "work").await?;
        let bytes = source.read_at(0, usize::try_from(source.length()).unwrap_or(0)).await?;
        std::fs::write(&self.target, &bytes)?;
        go(Written)
    }
}

#[derive(Serialize, Deserialize)]
struct Written;

impl State<Restore> for Written {
    const NAME: &'static str = "written";
    type Next = ();
}

#[async_trait]
impl Workload for Secretive {
    fn manifest() -> Manifest {
        Manifest::new("plugin-secretive", "0.1.0", "secretive")
            .operation(Operation::Discover)
            .operation(Operation::Backup(PointKind::Full))
            .operation(Operation::Restore)
            .throttle(throttle::Policy::new().class(throttle::Class::new("data")))
            .secret("password")
            .secret("token")
    }

    fn open(config: Config) -> Result<Self, Fault> {
        let Settings { right } = config.read()?;
        Ok(Secretive { secrets: config.secrets(), right })
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        // From another thread: the way to secrets is the workload's, not one request's.
        let secrets = self.secrets.clone();
        let asked = std::thread::spawn(move || {
            futures::executor::block_on(async move { secrets.get("password").await })
        });
        let password = asked.join().map_err(|_| Fault::bug("secretive", "a thread panicked"))??;
        self.login(password.expose_str()?)?;
        let id = ItemId::new("secretive", "one", "behaves");
        Ok(vec![Item::new(id.map_err(|error| Fault::bug("secretive", error.to_string()))?)])
    }

    async fn decide(&self, item: &ItemId, _: &Wanted, _: &[PointMeta]) -> Result<Decision, Fault> {
        let password = self.secrets.get("password").await?;
        self.login(password.expose_str()?)?;
        let leaks = item.name() == "decides with it";
        let note = leaks.then(|| password.expose_str().map(ToOwned::to_owned)).transpose()?;
        let plan = RunPlan::new::<Backup>(Send { what: item.name().to_owned(), note })?;
        Ok(Decision::Run(plan.claim(Claim::Item { class: "data".to_owned() })))
    }

    async fn restore(&self, request: &RestoreRequest) -> Result<RunPlan, Fault> {
        let password = self.secrets.get("password").await?;
        self.login(password.expose_str()?)?;
        let point = request.chain.last().map(|point| point.id.clone());
        let point = point.ok_or_else(|| Fault::bug("secretive.chain", "nothing to restore"))?;
        let target = PathBuf::from(request.target.clone().unwrap_or_default());
        RunPlan::new::<Restore>(Write { point, target, right: self.right.clone() })
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Backup).with(Restore)
    }
}
