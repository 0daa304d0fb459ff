//! What one workload may be told in confidence.

use std::{collections::BTreeSet, fmt, sync::Arc};

use bytes::Bytes;
use fsm_core::Fault;
use futures::future::BoxFuture;
use plugin_sdk::{
    Manifest, Secret,
    abi::{HostCalls, Reply},
    host::NoCalls,
    message::{self, SecretGet, call},
};

use crate::SecretStore;

/// A workload's way to the store: the names that its manifest declares, and no others.
pub(crate) struct Vault {
    workload: String,
    declared: BTreeSet<String>,
    store: Option<Arc<dyn SecretStore>>,
    tokio: tokio::runtime::Handle,
}

impl Vault {
    pub(super) fn new(manifest: &Manifest, store: Option<Arc<dyn SecretStore>>) -> Self {
        Vault {
            workload: manifest.workload.clone(),
            declared: manifest.secrets.iter().cloned().collect(),
            store,
            tokio: tokio::runtime::Handle::current(),
        }
    }

    /// Answers a plugin that asks for a secret. The store is asked on the engine's runtime: whoever
    /// waits for the answer is on a thread of the plugin's.
    pub(super) fn serve(self: &Arc<Self>, body: &Bytes) -> BoxFuture<'static, Reply> {
        let refuse = |fault: &Fault| Reply::error(message::encode_fault(fault));
        let name = match message::decode::<SecretGet>(body) {
            Ok(SecretGet { name }) => name,
            Err(fault) => return Box::pin(futures::future::ready(refuse(&fault))),
        };
        let vault = Arc::clone(self);
        let found = self.tokio.spawn(async move { vault.secret(&name).await });
        Box::pin(async move {
            match found.await {
                Ok(Ok(secret)) => Reply::ok(secret.into_bytes()),
                Ok(Err(fault)) => refuse(&fault),
                Err(_) => refuse(&Fault::interrupted("the engine's task ended before its work")),
            }
        })
    }

    async fn secret(&self, name: &str) -> Result<Secret, Fault> {
        let workload = &self.workload;
        if !self.declared.contains(name) {
            let message =
                format!("workload `{workload}` asked for `{name}`, which it does not declare");
            tracing::warn!(workload, name, "an undeclared secret was asked for, and refused");
            return Err(Fault::bug("secret.undeclared", message)
                .advise("declare the secret in the workload's manifest"));
        }
        let Some(store) = &self.store else {
            let message = format!("this agent has no secrets, so none for `{workload}.{name}`");
            return Err(Fault::user("secret.no_store", message)
                .advise("start the agent with a store of secrets"));
        };
        store.secret(workload, name).await?.ok_or_else(|| {
            let message = format!("there is no secret `{name}` for workload `{workload}`");
            Fault::user("secret.missing", message).advise("put it into the agent's store")
        })
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("workload", &self.workload).finish_non_exhaustive()
    }
}

/// The host of requests that are not steps: it gives secrets, to log in with, and nothing else.
pub(super) struct Confidant(pub(super) Arc<Vault>);

impl HostCalls for Confidant {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<'static, Reply> {
        match op {
            call::SECRET => self.0.serve(&body),
            _ => NoCalls.call(op, body),
        }
    }
}
