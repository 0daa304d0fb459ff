//! Requests whose names were looked up beforehand.

use super::Core;
use super::draft::Draft;
use super::request_state::Record;
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::priority::Priority;
use crate::request::Request;

/// The number of a prepared request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PreparedIndex(usize);

/// The prepared requests by number.
#[derive(Debug, Default)]
pub(super) struct PreparedDrafts {
    drafts: Vec<Option<PreparedDraft>>,
    vacant: Vec<PreparedIndex>,
}

impl PreparedDrafts {
    fn insert(&mut self, prepared: PreparedDraft) -> PreparedIndex {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.drafts.push(None);
            PreparedIndex(self.drafts.len() - 1)
        });
        self.drafts[index.0] = Some(prepared);
        index
    }

    fn remove(&mut self, index: PreparedIndex) -> Option<PreparedDraft> {
        let removed = self.drafts[index.0].take()?;
        self.vacant.push(index);
        Some(removed)
    }

    fn get(&self, index: PreparedIndex) -> Option<&PreparedDraft> {
        self.drafts[index.0].as_ref()
    }
}

/// What the names of a prepared request mean.
#[derive(Debug)]
pub(super) struct PreparedDraft {
    draft: Draft,
    /// Under which rules the names were looked up.
    edition: u64,
}

impl Core {
    /// Looks the names of a request up, for as often as it will be handed in.
    pub(crate) fn prepare(&mut self, request: &Request) -> Result<PreparedIndex, AcquireError> {
        if self.is_closed {
            return Err(AcquireError::new(request.owner(), AcquireErrorKind::Closed));
        }
        let draft = self.draft(request)?;
        if let Err(error) = self.check_units(&draft.needs, draft.party) {
            self.forget_draft(&draft);
            return Err(error);
        }
        Ok(self.prepared.insert(PreparedDraft { draft, edition: self.rules.edition() }))
    }

    /// A prepared request is not handed in any more.
    pub(crate) fn unprepare(&mut self, index: PreparedIndex) {
        if let Some(prepared) = self.prepared.remove(index) {
            self.forget_draft(&prepared.draft);
        }
    }

    /// Writes into `record` what the names of a request mean that is handed in.
    pub(super) fn draft_into(
        &mut self,
        record: &mut Record,
        request: &Request,
        index: Option<PreparedIndex>,
    ) -> Result<Priority, AcquireError> {
        let Some(index) = index else {
            let draft = self.draft(request)?;
            (record.party, record.needs) = (draft.party, draft.needs);
            return Ok(draft.priority);
        };
        let edition = self.rules.edition();
        let is_current = self.prepared.get(index).is_some_and(|known| known.edition == edition);
        if !is_current {
            // A replaced policy may call something else by the same names.
            let draft = self.draft(request)?;
            let outdated = self.prepared.drafts[index.0].replace(PreparedDraft { draft, edition });
            if let Some(outdated) = outdated {
                self.forget_draft(&outdated.draft);
            }
        }
        let draft = &self.prepared.get(index).expect("it lives as long as its ticket").draft;
        record.party = draft.party;
        record.needs.extend_from_slice(&draft.needs);
        let priority = draft.priority;
        self.refer_again(&record.needs);
        self.refer_again_to_party(record.party);
        Ok(priority)
    }
}
