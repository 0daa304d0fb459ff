//! What a start does with what an earlier process has left.

use std::sync::Arc;

use super::{
    claims::{Part, claims},
    execute::{Origin, carry},
    handle::{Enlisted, Inner},
};
use crate::{Error, operation::Phase};

/// Gives every unfinished operation its task again.
///
/// All exclusions are taken back before anything new is admitted. Two operations that cannot both
/// have held theirs are reported, and the younger one waits like a new one.
pub(super) async fn unfinished(inner: &Arc<Inner>) -> Result<(), Error> {
    let services = &inner.services;
    let mut left = Vec::new();
    for status in services.catalog.unfinished().await? {
        let mut held = None;
        if status.phase == Phase::Running
            && let Some(planned) = services.catalog.planned(status.id.clone()).await?
        {
            let adopted = claims(&status, &planned.plan, Part::Exclusions)
                .map_err(Error::from)
                .and_then(|request| Ok(inner.admission.adopt(request)?));
            match adopted {
                Ok(permit) => held = Some(permit),
                Err(error) => {
                    tracing::warn!(operation = %status.id, %error, "exclusions are lost");
                }
            }
        }
        left.push((status, held));
    }
    inner.admission.open();
    for (status, held) in left {
        tracing::info!(operation = %status.id, phase = %status.phase, "continuing");
        if let Enlisted::First(entry) = inner.enlist(&status.id)? {
            if status.cancel_at.is_some() {
                entry.cancel.request();
            }
            carry(inner, entry, status, Origin::Left(held));
        }
    }
    Ok(())
}
