//! A request on its way to a permit, and what it is kept with.

use crate::core::PreparedIndex;
use crate::request::Request;
use crate::shared::Shared;
use crate::sync::Arc;

/// A request and the admission that it is made to.
///
/// It is shared by whoever hands it in and by the permits that come of it, so that none of
/// them copies a name.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) shared: Arc<Shared>,
    pub(crate) request: Request,
    /// Where its names are, if they were looked up beforehand.
    pub(crate) prepared: Option<PreparedIndex>,
}

impl Ticket {
    /// A ticket for a request that is handed in once.
    pub(crate) fn once(shared: Arc<Shared>, request: Request) -> Arc<Self> {
        Arc::new(Self { shared, request, prepared: None })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(prepared) = self.prepared {
            self.shared.apply(|core| core.unprepare(prepared));
        }
    }
}
