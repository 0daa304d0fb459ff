//! Which clusters there are, and how they are reached.

use std::{fmt, path::PathBuf, time::Duration};

use plugin_sdk::Fault;
use serde::Deserialize;
use serde_json::{Value, json};

/// The workload's configuration; its schema is [`schema`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) clusters: Vec<Cluster>,
    /// Where `pg_basebackup` and `pg_receivewal` are; `PATH` is searched otherwise.
    pub(crate) programs: Option<PathBuf>,
    /// Where log waits on its way to the archive; the system's directory for temporary files
    /// otherwise.
    pub(crate) scratch: Option<PathBuf>,
}

/// One cluster: what one PostgreSQL server serves.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// The name of its instance.
    pub(crate) name: String,
    /// A directory with the server's socket, or a host's name.
    pub(crate) host: String,
    #[serde(default = "port")]
    pub(crate) port: u16,
    #[serde(default = "postgres")]
    pub(crate) user: String,
    /// A database that one may connect to.
    #[serde(default = "postgres")]
    pub(crate) database: String,
    #[serde(default)]
    password: Option<Password>,
    /// Its data directory: where it is restored to unless a target is named.
    #[serde(default)]
    pub(crate) data: Option<PathBuf>,
    /// Whether there are log backups, for which the server has to keep its log.
    #[serde(default = "yes")]
    pub(crate) logs: bool,
    /// The replication slot that makes it keep its log; derived from the name otherwise.
    #[serde(default)]
    slot: Option<String>,
}

/// Where a password is.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Password {
    /// In a file, alone.
    File(PathBuf),
    /// In a variable of the environment.
    Environment(String),
}

/// A password that is not printed.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.name).field("host", &self.host).finish()
    }
}

impl Settings {
    /// The cluster named `name`.
    ///
    /// # Errors
    ///
    /// A user fault if there is none.
    pub(crate) fn cluster(&self, name: &str) -> Result<&Cluster, Fault> {
        self.clusters.iter().find(|cluster| cluster.name == name).ok_or_else(|| {
            Fault::user("postgres.unknown_cluster", format!("there is no cluster `{name}`"))
                .advise("name it under `clusters` in the configuration of this plugin")
        })
    }
}

impl Cluster {
    /// How long is waited for a connection.
    pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

    /// The name of its replication slot.
    pub(crate) fn slot(&self) -> String {
        self.slot.clone().unwrap_or_else(|| {
            let valid =
                |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
            format!("mercury_{}", self.name.chars().map(valid).collect::<String>())
        })
    }

    /// Its password, read anew each time: somebody may have changed it.
    ///
    /// # Errors
    ///
    /// A user fault that says where it was looked for.
    pub(crate) fn password(&self) -> Result<Option<Secret>, Fault> {
        let missing = |what: String| {
            Fault::user("postgres.password", what)
                .advise("put the password where the configuration says, and nothing else")
        };
        match &self.password {
            None => Ok(None),
            Some(Password::File(path)) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    missing(format!("cannot read the password in {}", path.display()))
                        .caused_by(&error)
                })?;
                Ok(Some(Secret(text.trim_end_matches(['\r', '\n']).to_owned())))
            }
            Some(Password::Environment(variable)) => match std::env::var(variable) {
                Ok(text) => Ok(Some(Secret(text))),
                Err(_) => Err(missing(format!("no password in the variable {variable}"))),
            },
        }
    }
}

fn port() -> u16 {
    5432
}

fn postgres() -> String {
    "postgres".to_owned()
}

fn yes() -> bool {
    true
}

/// What a configuration may hold.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "clusters": { "type": "array", "items": {
                "type": "object",
                "additionalProperties": false,
                "required": ["name", "host"],
                "properties": {
                    "name": { "type": "string", "pattern": "^[^/]+$" },
                    "host": { "type": "string" },
                    "port": { "type": "integer", "minimum": 1, "maximum": 65535, "default": 5432 },
                    "user": { "type": "string", "default": "postgres" },
                    "database": { "type": "string", "default": "postgres" },
                    "password": { "oneOf": [
                        { "type": "object", "required": ["file"],
                          "properties": { "file": { "type": "string" } } },
                        { "type": "object", "required": ["environment"],
                          "properties": { "environment": { "type": "string" } } }
                    ] },
                    "data": { "type": "string" },
                    "logs": { "type": "boolean", "default": true },
                    "slot": { "type": "string", "pattern": "^[a-z0-9_]{1,63}$" }
                }
            } },
            "programs": { "type": "string" },
            "scratch": { "type": "string" }
        }
    })
}
