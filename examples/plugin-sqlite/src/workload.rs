//! The workload: what there is, whether it changed, and which machine does the work.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use plugin_sdk::{
    Claim, Class, Config, Decision, Fault, Item, ItemId, Machines, Manifest, Operation, PointKind,
    PointMeta, RestoreRequest, RunPlan, Wanted, Workload, async_trait, throttle,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    backup_machine::{Backup, Inspect},
    churn::{self, Fingerprint, Verdict},
    discover::{Depth, DiscoverOptions, discover},
    restore::FileMeta,
    restore_machine::{Receive, Restore},
};

/// The workload `sqlite`: each database file is an item, named by its path.
#[derive(Debug)]
pub struct Sqlite {
    settings: Settings,
}

/// The workload's configuration; the schema is in its manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    directories: Vec<PathBuf>,
    recursive: bool,
    extensions: Vec<String>,
    busy_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            directories: Vec::new(),
            recursive: false,
            extensions: vec!["db".to_owned()],
            busy_timeout_ms: 2_000,
        }
    }
}

#[async_trait]
impl Workload for Sqlite {
    fn manifest() -> Manifest {
        let classes = throttle::Policy::new()
            .class(throttle::Class::new("data"))
            .class(throttle::Class::new("restore").priority(throttle::Priority::Urgent));
        // No rules: a backup waits for a restore of the same database, and the other way round.
        Manifest::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), "sqlite")
            .operation(Operation::Discover)
            .operation(Operation::Backup(PointKind::Full))
            .operation(Operation::Restore)
            .throttle(classes)
            .config_schema(json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "directories": { "type": "array", "items": { "type": "string" } },
                    "recursive": { "type": "boolean", "default": false },
                    "extensions": {
                        "type": "array", "items": { "type": "string" }, "default": ["db"]
                    },
                    "busy_timeout_ms": { "type": "integer", "minimum": 0, "default": 2000 }
                }
            }))
    }

    fn open(config: Config) -> Result<Self, Fault> {
        Ok(Sqlite { settings: config.read()? })
    }

    async fn discover(&self) -> Result<Vec<Item>, Fault> {
        let settings = &self.settings;
        let options = DiscoverOptions {
            depth: if settings.recursive { Depth::Recursive } else { Depth::Flat },
            extensions: settings.extensions.clone(),
        };
        let discovery = discover(&settings.directories, &options)?;
        for error in &discovery.unreadable {
            tracing::warn!(%error, "left out");
        }
        let items = discovery.found.iter().filter_map(|found| {
            // An item's name is text; a path that is none cannot be named.
            let Some(path) = found.path.to_str() else {
                tracing::warn!(path = %found.path.display(), "left out: its path is not UTF-8");
                return None;
            };
            let id = ItemId::new("sqlite", "local", path).ok()?;
            let attributes = json!({ "page_size": found.page_size });
            Some(Item::new(id).size_bytes(found.bytes).attributes(attributes))
        });
        Ok(items.collect())
    }

    async fn decide(
        &self,
        item: &ItemId,
        wanted: &Wanted,
        points: &[PointMeta],
    ) -> Result<Decision, Fault> {
        if wanted.kind != PointKind::Full {
            let message = format!("there are no {} backups of an sqlite database", wanted.kind);
            return Err(Fault::user("sqlite.kind", message).advise("ask for a full backup"));
        }
        let path = Path::new(item.name());
        let now = Fingerprint::read(path)?;
        let mut reason = "there is nothing to compare it with".to_owned();
        if let (Some(newest), false) = (points.last(), wanted.even_if_unchanged)
            && let Some(token) = &newest.notes.change_token
            && let Ok(then) = Fingerprint::deserialize(token)
        {
            match churn::compare(&then, &now) {
                Verdict::Unchanged => {
                    return Ok(Decision::Skip {
                        reason: "nothing was committed since the newest recovery point".to_owned(),
                        unchanged_since: newest.id.clone(),
                    });
                }
                Verdict::Changed(why) => reason = why.to_string(),
                Verdict::Unknown(why) => reason = format!("it may have changed: {why}"),
            }
        }
        let input =
            Inspect { path: path.to_owned(), busy_timeout_ms: self.settings.busy_timeout_ms };
        let plan = RunPlan::new::<Backup>(input)?
            .because(reason)
            .claim(Claim::Item { class: "data".to_owned() })
            .claim(Claim::Streams { count: 1 });
        Ok(Decision::Run(plan))
    }

    async fn restore(&self, request: &RestoreRequest) -> Result<RunPlan, Fault> {
        let point = request.chain.last().ok_or_else(|| {
            Fault::new(Class::Chain, "sqlite.no_point", "there is no recovery point to restore")
        })?;
        let target = PathBuf::from(request.target.as_deref().unwrap_or(request.item.name()));
        if !target.is_absolute() {
            let message = format!("the target {} is not an absolute path", target.display());
            return Err(Fault::user("sqlite.target", message).advise("give an absolute path"));
        }
        let meta: Option<FileMeta> = serde_json::from_value(point.notes.details.clone()).ok();
        let input = Receive {
            point: point.id.clone(),
            target,
            key: request.operation.to_string(),
            overwrite: request.overwrite,
            meta,
        };
        Ok(RunPlan::new::<Restore>(input)?
            .claim(Claim::Item { class: "restore".to_owned() })
            .claim(Claim::Streams { count: 1 }))
    }

    fn machines(self: &Arc<Self>) -> Machines {
        Machines::new().with(Backup).with(Restore)
    }
}
