//! Requests whose names were looked up beforehand.

use super::Core;
use super::draft::Draft;
use super::request_state::{Need, Needs, Place, Record, nanoseconds};
use super::requests::Entry;
use crate::acquire_error::{AcquireError, AcquireErrorKind};
use crate::request::Request;
use crate::request_id::RequestId;

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
        self.drafts[index.0].replace(PreparedDraft {
            draft,
            stamp,
            edition,
            idle: None,
            granted_again: 0,
        })
    }

    fn remove(&mut self, index: PreparedIndex) -> Option<PreparedDraft> {
        let removed = self.drafts[index.0].take()?;
        self.vacant.push(index);
        Some(removed)
    }

    fn get_mut(&mut self, index: PreparedIndex) -> &mut PreparedDraft {
        self.drafts[index.0].as_mut().expect("a prepared request lives as long as its ticket")
    }

    /// The needs of those that were granted the short way, and how often they were since this
    /// was asked.
    pub(super) fn take_granted_again(&mut self) -> Vec<(Needs, u64)> {
        let granted = self.drafts.iter_mut().flatten().filter(|known| known.granted_again > 0);
        granted
            .map(|known| (known.draft.needs.clone(), std::mem::take(&mut known.granted_again)))
            .collect()
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
    /// How often it was granted the short way since that was counted for each of its needs.
    granted_again: u64,
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
        let times = prepared.granted_again;
        if times > 0 {
            self.count(&prepared.draft.needs, |counts| counts.handed_in_and_granted(times));
        }
        self.forget_draft(&prepared.draft);
        if let Some(mut idle) = prepared.idle {
            idle.prepared = None;
            self.retire(idle);
        }
    }

    /// Grants a request that was handed in before, the short way: if nobody stands in any line
    /// that it would join, nothing is set aside there, and nobody works on what it works on,
    /// there is nothing to compare and nobody to pass. Everybody else goes the long way
    /// ([`Core::submit`], [`Core::grant`]), which does the same and more. So does who has
    /// another permit of the same request, if no record of it is idle.
    #[inline]
    pub(super) fn grant_again(&mut self, index: PreparedIndex) -> Option<RequestId> {
        let Self { prepared, limits, exclusions, parties, counters, requests, .. } = self;
        let known = prepared.get_mut(index);
        if !self.is_open || !known.draft.is_plain || known.edition != self.rules.edition() {
            return None;
        }
        let record = known.idle.as_deref()?;
        let is_free = record.needs.iter().all(|&need| match need {
            Need::Exclusion { site, .. } => exclusions.get(site).is_deserted(),
            Need::Capacity { site, units } => limits.get(site).is_free_for(units),
        });
        if !is_free || parties.get(record.party.root).is_waiting() {
            return None;
        }
        let mut record = known.idle.take()?;
        let id = requests.next_id();
        let due = nanoseconds(self.now.since_origin()).saturating_sub(known.draft.head_start);
        record.place = Place { due, rank: id.number, id };
        record.since = self.now;
        record.members.claim_only(id);
        for &need in &record.needs {
            match need {
                Need::Exclusion { site, class } => {
                    exclusions.get_mut(site).hold(class, id, record.party.root);
                }
                Need::Capacity { site, units } => {
                    limits.get_mut(site).hold(id, units);
                }
            }
        }
        if record.has_exclusions() {
            parties.get_mut(record.party.root).start_holding();
        }
        parties.get_mut(record.party.owner).start_owning();
        requests.insert(id, Entry::Holder(record));
        known.granted_again += 1;
        counters.count_evaluation();
        Some(id)
    }

    /// A record with what the names of a request mean that is handed in.
    pub(super) fn drafted(
        &mut self,
        request: &Request,
        index: Option<PreparedIndex>,
    ) -> Result<(Box<Record>, i64), AcquireError> {
        let Some(index) = index else {
            let draft = self.checked_draft(request)?;
            let mut record = self.blank_record();
            (record.party, record.needs) = (draft.party, draft.needs);
            self.add_first_member(&mut record);
            return Ok((record, draft.head_start));
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
        let head_start = prepared.draft.head_start;
        if let Some(record) = prepared.idle.take() {
            return Ok((record, head_start));
        }
        let mut record = self.blank_record();
        let PreparedDraft { draft, stamp, .. } = self.prepared.get_mut(index);
        record.prepared = Some(*stamp);
        record.party = draft.party;
        record.needs.extend_from_slice(&draft.needs);
        self.refer_again(&record.needs);
        self.refer_again_to_party(record.party);
        self.add_first_member(&mut record);
        Ok((record, head_start))
    }
}
