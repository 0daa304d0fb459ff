//! Watches an operation that does not work, so that others may use what it does not need.
//!
//! **How.** One task for each operation that was admitted. Steps, retries and short timers keep
//! what they have. An operation of which nothing is at work for [`LONG`] gives its capacity back,
//! as does one whose step was given up and has not let go within [`PATIENCE`]: its exclusions stay
//! with the step. The task ends when the last who may be at work has gone.

use std::{
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::{Either, select};
use plugin_sdk::OperationId;
use tokio::sync::watch;

use crate::{
    admission::{Activity, Pass, Standing},
    plugins::calls::Services,
};

/// How long an operation may do nothing before its capacity goes to others.
const LONG: Duration = Duration::from_secs(60);
/// How long a step that was given up may go on before it counts as one that does not stop.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

const DOES_NOT_STOP: &str = "a step that was given up does not stop; what it excludes stays \
                             excluded until it does, or until this process ends";

/// Watches what is at work for `pass`, for as long as something may be.
pub(super) fn tend(services: &Arc<Services>, pass: &Arc<Pass>) {
    let watching = Watching {
        operation: pass.operation().clone(),
        activity: pass.activity(),
        pass: Arc::downgrade(pass),
        services: Arc::downgrade(services),
        told: false,
    };
    services.tokio.spawn(watching.watch());
}

/// Keeps neither the engine nor the operation.
struct Watching {
    operation: OperationId,
    activity: watch::Receiver<Activity>,
    pass: Weak<Pass>,
    services: Weak<Services>,
    /// It was said that a step does not stop.
    told: bool,
}

impl Watching {
    async fn watch(mut self) {
        while self.look().await.is_some() {}
        self.stops();
    }

    /// `None` once nothing can be at work any more.
    async fn look(&mut self) -> Option<()> {
        let seen = *self.activity.borrow_and_update();
        let patience = match seen.standing() {
            Standing::Working => None,
            Standing::LettingGo => Some(PATIENCE),
            Standing::Idle => Some(LONG),
        };
        if seen.standing() != Standing::LettingGo {
            self.stops();
        }
        if let Some(patience) = patience
            && self.is_unchanged_for(patience).await?
        {
            self.is_over(seen)?;
        } else if patience.is_some() {
            return Some(());
        }
        self.activity.changed().await.ok()
    }

    async fn is_unchanged_for(&mut self, patience: Duration) -> Option<bool> {
        let environment = Arc::clone(&self.services.upgrade()?.environment);
        let sleep = pin!(environment.sleep_until(environment.now() + patience));
        let changed = pin!(self.activity.changed());
        match select(changed, sleep).await {
            Either::Left((changed, _)) => changed.ok().map(|()| false),
            Either::Right(((), _)) => Some(true),
        }
    }

    /// Nothing has changed for too long.
    fn is_over(&mut self, seen: Activity) -> Option<()> {
        let (services, pass) = (self.services.upgrade()?, self.pass.upgrade()?);
        let why = match seen.standing() {
            Standing::LettingGo => DOES_NOT_STOP,
            _ => "nothing of it is at work for long",
        };
        if pass.give_back_since(seen) {
            services.has_given_back(&self.operation, why);
        }
        if seen.standing() == Standing::LettingGo {
            self.told = true;
            services.is_stuck(&self.operation, DOES_NOT_STOP.to_owned());
        }
        Some(())
    }

    /// A step that did not stop has stopped.
    fn stops(&mut self) {
        if std::mem::take(&mut self.told)
            && let Some(services) = self.services.upgrade()
        {
            services.goes_on(&self.operation);
        }
    }
}
