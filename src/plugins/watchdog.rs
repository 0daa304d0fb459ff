//! Notices plugins whose code keeps a thread of this program's.
//!
//! A job of a plugin's runs on threads of the plugin's own, unless it asked to be polled in place;
//! code of its that is entered from here returns at once. A plugin that breaks this holds a thread
//! that other work needs, and nothing in the process can take the thread back. So it is told, once
//! for each such call, in the log and as an [`Event`]. The remedy is a process of the plugin's own.
//!
//! **How.** A thread of its own looks: where the program has one thread for all its tasks, a task
//! would wait behind the very call that it is to notice.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use plugin_sdk::host::Watch;

use super::calls::Services;
use crate::{Error, Event};

/// How long a call may take before it is told. By then a plugin breaks its contract by far.
const LONG: Duration = Duration::from_secs(30);

/// How often somebody looks.
const LOOK: Duration = Duration::from_secs(1);

/// The one who looks, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    _until: mpsc::Sender<()>,
}

impl Watchdog {
    /// Begins to look at `watch`, and to tell through `services`.
    pub(crate) fn begin(watch: Watch, services: &Arc<Services>) -> Result<Self, Error> {
        let (until, stopped) = mpsc::channel();
        let services = Arc::downgrade(services);
        let looking = move || {
            let mut told = BTreeSet::new();
            while stopped.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                look(&watch, &services, &mut told);
            }
        };
        let thread = std::thread::Builder::new().name("mercury-watchdog".to_owned());
        thread.spawn(looking).map_err(|error| {
            Error::stopped("no thread can be started to watch the plugins").caused_by(error)
        })?;
        Ok(Watchdog { _until: until })
    }
}

/// Tells of the calls that take long and have not been told yet.
fn look(watch: &Watch, services: &Weak<Services>, told: &mut BTreeSet<u64>) {
    let long = watch.older_than(LONG);
    told.retain(|number| long.iter().any(|call| call.number == *number));
    for call in long {
        if !told.insert(call.number) {
            continue;
        }
        let (plugin, thread) = (call.what.to_string(), call.thread);
        tracing::error!(
            plugin,
            thread,
            since = %call.since,
            "the plugin does not return: it keeps a thread of this program's; give it a process \
             of its own"
        );
        if let Some(services) = services.upgrade() {
            services.tell(Event::PluginBlocks { plugin, thread, since: call.since });
        }
    }
}
