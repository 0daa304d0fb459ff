//! Requests whose names were looked up beforehand.

use super::Core;
use super::draft::Draft;
use super::request_state::Record;
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::priority::Priority;
use crate::request::Request;

/// The number of a prepared request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PreparedIndex(usize);

/// The prepared requests by number.
#[derive(Debug, Default)]
pub(super) struct PreparedDrafts {
    drafts: Vec<Option<PreparedDraft>>,
    vacant: Vec<PreparedIndex>,
    next_stamp: u64,
}

impl PreparedDrafts {
    fn insert(&mut self, draft: Draft, edition: u64) -> PreparedIndex {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.drafts.push(None);
            PreparedIndex(self.drafts.len() - 1)
        });
        self.set(index, draft, edition);
        index
    }

    /// Returns what was there before.
    fn set(&mut self, index: PreparedIndex, draft: Draft, edition: u64) -> Option<PreparedDraft> {
        let stamp = Stamp { index, number: self.next_stamp };
        self.next_stamp += 1;
        self.drafts[index.0].replace(PreparedDraft { draft, stamp, edition, idle: None })
    }

    fn remove(&mut self, index: PreparedIndex) -> Option<PreparedDraft> {
        let removed = self.drafts[index.0].take()?;
        self.vacant.push(index);
        Some(removed)
    }

    fn get_mut(&mut self, index: PreparedIndex) -> &mut PreparedDraft {
        self.drafts[index.0].as_mut().expect("a prepared request lives as long as its ticket")
    }

    /// Keeps the record of a request that is over for the next one of the same. Returns it if
    /// it is of no use for that.
    pub(super) fn give_back(&mut self, mut record: Box<Record>) -> Option<Box<Record>> {
        let known = record.prepared.and_then(|stamp| {
            let known = self.drafts.get_mut(stamp.index.0)?.as_mut()?;
            (known.stamp == stamp && known.idle.is_none()).then_some(known)
        });
        match known {
            Some(known) if record.rewind() => {
                known.idle = Some(record);
                None
            }
            _ => Some(record),
        }
    }
}

/// What the names of a prepared request mean.
#[derive(Debug)]
struct PreparedDraft {
    draft: Draft,
    stamp: Stamp,
    /// Under which rules the names were looked up.
    edition: u64,
    /// A record of such a request that is over. It refers to everything that the next one
    /// needs.
    idle: Option<Box<Record>>,
}

/// Tells the drafts of all prepared requests apart, also earlier ones of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    index: PreparedIndex,
    number: u64,
}

impl Core {
    /// Looks the names of a request up, for as often as it will be handed in.
    pub(crate) fn prepare(&mut self, request: &Request) -> Result<PreparedIndex, AcquireError> {
        if self.is_closed {
            return Err(AcquireError::new(request.owner(), AcquireErrorKind::Closed));
        }
        let draft = self.checked_draft(request)?;
        Ok(self.prepared.insert(draft, self.rules.edition()))
    }

    /// What the names of a request mean, if it can ever be granted.
    fn checked_draft(&mut self, request: &Request) -> Result<Draft, AcquireError> {
        let draft = self.draft(request)?;
        if let Err(error) = self.check_units(&draft.needs, draft.party) {
            self.forget_draft(&draft);
            return Err(error);
        }
        Ok(draft)
    }

    /// A prepared request is not handed in any more.
    pub(crate) fn unprepare(&mut self, index: PreparedIndex) {
        if let Some(prepared) = self.prepared.remove(index) {
            self.forget_prepared(prepared);
        }
    }

    fn forget_prepared(&mut self, prepared: PreparedDraft) {
        self.forget_draft(&prepared.draft);
        if let Some(mut idle) = prepared.idle {
            idle.prepared = None;
            self.retire(idle);
        }
    }

    /// A record with what the names of a request mean that is handed in.
    pub(super) fn drafted(
        &mut self,
        request: &Request,
        index: Option<PreparedIndex>,
    ) -> Result<(Box<Record>, Priority), AcquireError> {
        let Some(index) = index else {
            let draft = self.checked_draft(request)?;
            let mut record = self.blank_record();
            (record.party, record.needs) = (draft.party, draft.needs);
            self.add_first_member(&mut record);
            return Ok((record, draft.priority));
        };
        let edition = self.rules.edition();
        if self.prepared.get_mut(index).edition != edition {
            // A policy that came since may call something else by the same names, and bound a
            // limit to less than is asked for.
            let draft = self.checked_draft(request)?;
            if let Some(outdated) = self.prepared.set(index, draft, edition) {
                self.forget_prepared(outdated);
            }
        }
        let prepared = self.prepared.get_mut(index);
        let priority = prepared.draft.priority;
        if let Some(record) = prepared.idle.take() {
            return Ok((record, priority));
        }
        let mut record = self.blank_record();
        let PreparedDraft { draft, stamp, .. } = self.prepared.get_mut(index);
        record.prepared = Some(*stamp);
        record.party = draft.party;
        record.needs.extend_from_slice(&draft.needs);
        self.refer_again(&record.needs);
        self.refer_again_to_party(record.party);
        self.add_first_member(&mut record);
        Ok((record, priority))
    }
}
