//! The workload: what there is, what a wanted backup needs, and which machine does the work.

use std::{path::PathBuf, sync::Arc};

use plugin_sdk::{
    Claim, Class, Config, Decision, Fault, Item, ItemId, Machines, Manifest, Operation, PointId,
    PointKind, PointMeta, RestoreRequest, RunPlan, Timestamp, Until, Wanted, Workload, async_trait,
    throttle,
};
use serde_json::json;

use crate::{
    chain::{self, NextLog, has_no_log_since_its_base, position_of},
    full_machine::{Full, Inspect},
    log_machine::{InspectLog, Log, next_or_full},
    notes::{Base, Notes, Wal},
    restore::{ReplayTo, refuse_existing},
    restore_machine::{Restore, Unpack, Wish},
    server::{Look, Server},
    settings::{Settings, schema},
};

/// The name of the one item of each cluster.
const ITEM: &str = "cluster";

/// The workload `postgres`: each configured cluster is an instance with one item.
#[derive(Debug)]
pub struct Postgres {
    settings: Arc<Settings>,
}

impl Postgres {
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }
}

#[async_trait]
impl Workload for Postgres {
    fn manifest() -> Manifest {
        // A log backup goes on beside a full one: a base backup of hours must not hold it up. A
        // restore goes to another directory, and holds up neither.
        let rule = throttle::Rule::Allow;
        let classes = throttle::Policy::new()
            .class(throttle::Class::new("data"))
            .class(throttle::Class::new("log").priority(throttle::Priority::High))
            .class(throttle::Class::new("restore").priority(throttle::Priority::Urgent))
            .rule(throttle::Scope::Item, "data/log", rule.clone())
            .rule(throttle::Scope::Item, "data/restore", rule.clone())
            .rule(throttle::Scope::Item, "log/restore", rule);
        Manifest::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), "postgres")
            .operation(Operation::Discover)
            .operation(Operation::Backup(PointKind::Full))
            .operation(Operation::Backup(PointKind::Log))
            .operation(Operation::Restore)
            .restores_until()
            .throttle(classes)
            .config_schema(schema())
    }

    fn open(config: Config) -> Result<Self, Fault> {
        let settings: Settings = config.read()?;
        for cluster in &settings.clusters {
            ItemId::new("postgres", &cluster.name, ITEM).map_err(|error| {
                Fault::user("config.invalid", format!("`{}` names no cluster", cluster.name))
                    .caused_by(&error)
                    .advise("use a name without a `/`")
            })?;
        }
        Ok(Postgres { settings: Arc::new(settings) })
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        let items = self.settings.clusters.iter().filter_map(|cluster| {
            let mut item = Item::new(ItemId::new("postgres", &cluster.name, ITEM).ok()?);
            let seen = Server::connect(cluster)
                .and_then(|mut server| Ok((server.look()?, server.size_bytes()?)));
            match seen {
                Ok((look, size_bytes)) => {
                    let Look { lineage, version, .. } = look;
                    let attributes = json!({
                        "system_id": lineage.system_id,
                        "timeline": lineage.timeline,
                        "server_version": version,
                    });
                    item = item.size_bytes(size_bytes).attributes(attributes);
                }
                // It is configured, so it is there; it may only be stopped.
                Err(fault) => tracing::warn!(cluster = %cluster.name, %fault, "cannot be reached"),
            }
            Some(item)
        });
        Ok(items.collect())
    }

    async fn decide(
        &self,
        item: &ItemId,
        wanted: &Wanted,
        points: &[PointMeta],
    ) -> Result<Decision, Fault> {
        let cluster = self.settings.cluster(item.instance())?;
        let name = cluster.name.clone();
        let mut server = Server::connect(cluster)?;
        let look = server.look()?;
        let kept = server.slot()?.kept();
        match wanted.kind {
            PointKind::Full => {
                let newest = newest(points, &look, |notes| matches!(notes, Notes::Base(_)));
                let kept = kept.is_some() || !cluster.logs;
                if let (Some(of), true, false) = (newest, kept, wanted.even_if_unchanged)
                    && is_unchanged(of, &look)
                {
                    return Ok(skip(of));
                }
                let begins_anew = has_no_log_since_its_base(points, &look.lineage);
                let plan = RunPlan::new::<Full>(Inspect { cluster: name, begins_anew })?
                    .claim(Claim::Item { class: "data".to_owned() })
                    .claim(Claim::Streams { count: 1 });
                Ok(Decision::Run(match newest {
                    Some(_) => plan.because("transactions have ended since the last full point"),
                    None => plan.because("there is no full point of this cluster and timeline"),
                }))
            }
            PointKind::Log if !cluster.logs => {
                let message = format!("cluster `{name}` is configured without log backups");
                Err(Fault::user("postgres.no_logs", message)
                    .advise("ask for a full backup, or set `logs` in the configuration"))
            }
            PointKind::Log => {
                let next = next_or_full(points, &look.lineage, kept)?;
                let base = points.iter().find(|point| point.id == next.base);
                if let (Some(of), false) = (base, wanted.even_if_unchanged)
                    && is_unchanged(of, &look)
                {
                    return Ok(skip(of));
                }
                let NextLog { from, .. } = next;
                let input = InspectLog::new(&name, look.lineage, next);
                Ok(Decision::Run(
                    RunPlan::new::<Log>(input)?
                        .because(format!("transactions have ended; the log goes on at {from}"))
                        .claim(Claim::Item { class: "log".to_owned() })
                        .claim(Claim::Streams { count: 1 }),
                ))
            }
            other => {
                let message = format!("there are no {other} backups of a PostgreSQL cluster");
                Err(Fault::user("postgres.kind", message).advise("ask for a full or a log backup"))
            }
        }
    }

    fn plan(&self, points: &[PointMeta], target: &PointId) -> Result<Vec<PointId>, Fault> {
        chain::plan(points, target, None)
    }

    fn plan_until(
        &self,
        points: &[PointMeta],
        target: &PointId,
        until: &Until,
    ) -> Result<Vec<PointId>, Fault> {
        chain::plan(points, target, Some(until))
    }

    async fn restore(&self, request: &RestoreRequest) -> Result<RunPlan, Fault> {
        // On another node nobody may know the cluster.
        let from = self.settings.cluster(request.item.instance()).ok();
        let from = from.and_then(|cluster| cluster.data.clone());
        let target = request.target.as_deref().map(PathBuf::from).or(from).ok_or_else(|| {
            Fault::user("postgres.target", "nothing says where the cluster came from")
                .advise("name the data directory that is to be made")
        })?;
        if !target.is_absolute() {
            let message = format!("the target {} is not an absolute path", target.display());
            return Err(Fault::user("postgres.target", message).advise("give an absolute path"));
        }
        refuse_existing(&target, request.overwrite)?;
        let (base, logs) = parts(&request.chain)?;
        let wish = Wish {
            target,
            key: request.operation.to_string(),
            overwrite: request.overwrite,
            base: base.0,
            start: base.1.start,
            replay_to: replay_to(request.until.as_ref(), &base.1, &logs)?,
            logs,
        };
        Ok(RunPlan::new::<Restore>(Unpack { wish })?
            .claim(Claim::Item { class: "restore".to_owned() })
            .claim(Claim::Streams { count: 1 }))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Full::of(self)).with(Log::of(self)).with(Restore)
    }
}

/// The newest of `points` with the lineage of `look` that is `wanted`.
fn newest<'p>(
    points: &'p [PointMeta],
    look: &Look,
    wanted: fn(&Notes) -> bool,
) -> Option<&'p PointMeta> {
    points.iter().rev().find(|point| {
        Notes::of(point).is_ok_and(|notes| *notes.lineage() == look.lineage && wanted(&notes))
    })
}

/// Whether no transaction has ended since `point`. What the server writes to its log for itself
/// does not count.
fn is_unchanged(point: &PointMeta, look: &Look) -> bool {
    point.notes.change_token.as_ref().and_then(|token| token.as_str()) == Some(&look.snapshot)
}

fn skip(of: &PointMeta) -> Decision {
    Decision::Skip {
        reason: "no transaction has ended since the newest recovery point".to_owned(),
        unchanged_since: of.id.clone(),
    }
}

type Part<T> = (PointId, T);

/// The full point of a chain, and its logs.
fn parts(chain: &[PointMeta]) -> Result<(Part<Base>, Vec<Part<Wal>>), Fault> {
    let broken = || Fault::new(Class::Chain, "chain.order", "a chain is a full point and its logs");
    let (first, rest) = chain.split_first().ok_or_else(broken)?;
    let Notes::Base(base) = Notes::of(first)? else { return Err(broken()) };
    let logs = rest.iter().map(|point| match Notes::of(point)? {
        Notes::Wal(wal) => Ok((point.id.clone(), wal)),
        Notes::Base(_) => Err(broken()),
    });
    Ok(((first.id.clone(), base), logs.collect::<Result<_, Fault>>()?))
}

/// Where the replay ends. A server that does not find the place that it was told fails, so it is
/// told of none where the end of the log is meant.
fn replay_to(until: Option<&Until>, base: &Base, logs: &[Part<Wal>]) -> Result<ReplayTo, Fault> {
    let covered: Option<(Timestamp, _)> = logs.last().map(|(_, wal)| (wal.covered_at, wal.to));
    Ok(match (until, covered) {
        // A full point restores its own moment.
        (None, _) | (_, None) => ReplayTo::End,
        // Nothing was committed between the end of the log and this time.
        (Some(Until::Time(time)), Some((covered_at, _))) if *time > covered_at => ReplayTo::End,
        (Some(Until::Time(time)), _) => ReplayTo::Time(*time),
        (Some(Until::Position(text)), Some((_, to))) => match position_of(text)? {
            position if position < base.stop || position >= to => {
                let message = format!("{position} is not within {} and {to}", base.stop);
                return Err(Fault::user("postgres.lsn", message)
                    .advise("choose the log point that covers it"));
            }
            position => ReplayTo::Position(position),
        },
        (Some(_), _) => {
            return Err(Fault::user("postgres.until", "there is no such place to stop at")
                .advise("give a time or a log sequence number"));
        }
    })
}
