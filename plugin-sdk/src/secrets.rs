//! A workload's way to its secrets, outside of steps too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fsm_core::Fault;

use crate::{
    Secret,
    abi::{HostHandle, TaskFault},
    message::{self, SecretGet, call},
};

/// Gets the secrets that the workload's manifest declares ([`Manifest::secret`]).
///
/// [`Workload::open`] finds it in its [`Config`] and keeps it, so that discovering and deciding can
/// log in. A step has [`Host::secret`] besides. Ask each time: a secret may have been changed, and
/// what is not kept cannot be lost.
///
/// [`Manifest::secret`]: crate::Manifest::secret
/// [`Workload::open`]: crate::Workload::open
/// [`Config`]: crate::Config
/// [`Host::secret`]: crate::Host::secret
#[derive(Clone, Default)]
pub struct Secrets(Arc<Source>);

#[derive(Default)]
struct Source {
    /// The hosts of the workload's requests that are under way, in the order of their beginning.
    hosts: Mutex<BTreeMap<u64, HostHandle>>,
    /// What a test gives instead.
    given: BTreeMap<String, Secret>,
}

impl Secrets {
    /// These secrets and no host's: for an author's test.
    ///
    /// ```
    /// use plugin_sdk::{Config, Secret, Secrets};
    ///
    /// let secrets = Secrets::given([("password", Secret::new("hunter2"))]);
    /// let config = Config::default().with_secrets(secrets);
    /// let password = futures::executor::block_on(config.secrets().get("password"))?;
    /// assert_eq!(password.expose_str()?, "hunter2");
    /// # Ok::<(), plugin_sdk::Fault>(())
    /// ```
    pub fn given<N: Into<String>>(secrets: impl IntoIterator<Item = (N, Secret)>) -> Self {
        let given = secrets.into_iter().map(|(name, secret)| (name.into(), secret)).collect();
        Secrets(Arc::new(Source { given, ..Source::default() }))
    }

    /// The secret `name`, while any request to the workload is under way.
    ///
    /// # Errors
    ///
    /// The host's fault: `secret.undeclared` if the manifest does not ask for it, `secret.missing`
    /// if the host has none of that name. `secret.no_request` if no request is under way.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives nothing up.
    pub async fn get(&self, name: &str) -> Result<Secret, Fault> {
        if let Some(secret) = self.0.given.get(name) {
            return Ok(Secret::new(secret.expose()));
        }
        // The newest first: it lasts longest. All belong to the same workload, and are given the
        // same.
        let hosts: Vec<HostHandle> = self.lock().values().rev().cloned().collect();
        for host in hosts {
            match ask(&host, name).await {
                Err(fault) if fault.class() == fsm_core::Class::Interrupted => {}
                answer => return answer,
            }
        }
        let message = format!("secret `{name}` was asked for while no request is under way");
        Err(Fault::bug("secret.no_request", message).advise("ask for it inside of a request"))
    }

    /// Asks `host` too, until what is returned drops.
    pub(crate) fn lend(&self, host: &HostHandle) -> Lent {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, host.clone());
        Lent { secrets: self.clone(), id }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, HostHandle>> {
        // No code that can panic runs under this lock.
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// A request's host among those that are asked for secrets.
#[derive(Debug)]
pub(crate) struct Lent {
    secrets: Secrets,
    id: u64,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let host = self.secrets.lock().remove(&self.id);
        drop(host); // after the lock: the last clone calls the host
    }
}

/// Asks one host for a secret.
pub(crate) async fn ask(host: &HostHandle, name: &str) -> Result<Secret, Fault> {
    let body = message::encode(&SecretGet { name: name.to_owned() })?;
    let reply = host.call(call::SECRET, body).await.map_err(|fault| match fault {
        TaskFault::Revoked => Fault::interrupted("the host no longer serves this request"),
        fault => Fault::bug("host.call", "the host's `secret` gave no answer").caused_by(&fault),
    })?;
    match reply.result {
        // A copy of this side's own, so that the host's is overwritten now.
        Ok(bytes) => Ok(Secret::new(&*bytes)),
        Err(error) => Err(message::decode_fault(&error)),
    }
}
