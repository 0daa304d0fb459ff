//! The one task that tells the admission when something is due.
//!
//! **How.** It sleeps until the time that [`Admission::tick`](throttle::Admission::tick) names. A
//! request that begins to wait wakes it, as its deadline may be the first one. A grant, which is
//! to be taken back if nobody comes for it, wakes nobody; but only who waits is granted something,
//! so while somebody does, the task looks again after as long as a grant lasts. While nobody
//! waits, it sleeps.

use std::{pin::pin, time::Duration};

use futures::future::select;
use tokio::{runtime::Handle, task::AbortHandle};

use super::door::Door;

/// How long a grant waits for whoever asked for it.
pub(super) const CLAIM_WITHIN: Duration = Duration::from_secs(30);

/// The task; it ends with this.
#[derive(Debug)]
pub(crate) struct Ticking(AbortHandle);

impl Ticking {
    /// Begins to tick the admission of `door`.
    pub(crate) fn begin(door: Door, tokio: &Handle) -> Self {
        Ticking(tokio.spawn(tick(door)).abort_handle())
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn tick(door: Door) {
    while !door.admission.is_closed() {
        let due = door.admission.tick();
        let again = door.is_waited_at().then(|| door.now() + CLAIM_WITHIN);
        let news = pin!(door.news.notified());
        match due.into_iter().chain(again).min() {
            Some(next) => {
                select(pin!(door.time.sleep_until(next)), news).await;
            }
            None => news.await,
        }
    }
}
