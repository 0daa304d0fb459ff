//! From a request to what the core can compare.

use super::Core;
use super::exclusion_site::ExclusionSite;
use super::limit_site::LimitSite;
use super::request_state::{Need, Needs, Party};
use super::rulebook::{LimitKey, UnknownName};
use super::table::Slot;
use crate::acquire_error::{AcquireError, AcquireErrorKind, Conflict};
use crate::policy::Rule;
use crate::request::{Claim, Request};
use crate::resource::Resource;

/// A request whose names were found. It refers to its sites and its party, until it becomes
/// a waiter or a holder or is given to [`Core::forget_draft`].
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) party: Party,
    /// That of its priority, in nanoseconds.
    pub(super) head_start: i64,
    /// Whether it comes with nothing else: no deadline, no past, no lender, and no key by which
    /// it could be one with another request.
    pub(super) is_plain: bool,
    /// Sorted from narrow to wide, without duplicates.
    pub(super) needs: Needs,
}

impl Core {
    /// Looks up every name of the request.
    pub(super) fn draft(&mut self, request: &Request) -> Result<Draft, AcquireError> {
        let refused = |kind: Box<_>| AcquireError::new(request.owner(), *kind);
        if request.claims.is_empty() {
            return Err(refused(malformed("it has no claims")));
        }
        if request.claims.len() > Request::CLAIMS_MAX {
            return Err(refused(malformed("it has more than 8 claims")));
        }
        let mut needs = Needs::new();
        for claim in &request.claims {
            if let Err(kind) = self.draft_claim(claim, &mut needs) {
                self.forget(&needs);
                return Err(refused(kind));
            }
        }
        if needs.len() > 1 {
            self.sort(&mut needs);
        }
        let of_classes = needs.iter().filter_map(|need| match *need {
            Need::Exclusion { class, .. } => Some(self.rules.class_priority(class)),
            Need::Capacity { .. } => None,
        });
        let priority = request.priority.or_else(|| of_classes.max()).unwrap_or_default();
        let head_start = self.rules.head_start(priority);
        let is_plain = request.deadline.is_none()
            && request.waited.is_zero()
            && request.lender.is_none()
            && request.coalesce_key.is_none();
        Ok(Draft { party: self.refer_to_party(request), head_start, is_plain, needs })
    }

    /// Adds what a claim is about to `needs`, which refer to it from then on.
    fn draft_claim(
        &mut self,
        claim: &Claim,
        needs: &mut Needs,
    ) -> Result<(), Box<AcquireErrorKind>> {
        match claim {
            Claim::Exclusion { workload, resource, class } => {
                let class = self.rules.class(workload, class).map_err(|name| {
                    Box::new(match name {
                        UnknownName::Workload => {
                            AcquireErrorKind::UnknownWorkload { workload: workload.clone() }
                        }
                        UnknownName::Class => AcquireErrorKind::UnknownClass {
                            workload: workload.clone(),
                            class: class.clone(),
                        },
                    })
                })?;
                let make = || (resource.clone(), ExclusionSite::new(resource.scope()));
                let site = self.exclusions.refer(resource, make);
                let need = Need::Exclusion { site, class };
                match needs.contains(&need) {
                    true => self.exclusions.forget(site),
                    false => needs.push(need),
                }
            }
            Claim::Capacity { units: 0, .. } => {
                return Err(malformed("it claims no units"));
            }
            Claim::Capacity { resource, limit, units } => {
                let site = self.refer_to_limit(resource, limit)?;
                let known = needs.iter_mut().find_map(|need| match need {
                    Need::Capacity { site: known, units } if *known == site => Some(units),
                    _ => None,
                });
                let Some(sum) = known else {
                    needs.push(Need::Capacity { site, units: *units });
                    return Ok(());
                };
                self.limits.forget(site);
                *sum = sum
                    .checked_add(*units)
                    .ok_or_else(|| malformed("it claims more units than can be counted"))?;
            }
        }
        Ok(())
    }

    pub(super) fn refer_to_limit(
        &mut self,
        resource: &Resource,
        limit: &str,
    ) -> Result<Slot, Box<AcquireErrorKind>> {
        let key = LimitKey(resource, limit);
        let unknown = || {
            let (resource, limit) = key.to_name();
            Box::new(AcquireErrorKind::UnknownLimit { resource, limit })
        };
        match self.limits.find(&key) {
            Some(site) if self.limits.get(site).ceiling.is_none() => Err(unknown()),
            Some(site) => {
                self.limits.refer_again(site);
                Ok(site)
            }
            None => {
                let name = key.to_name();
                let bounds = self.rules.bounds(&name).ok_or_else(unknown)?;
                let counter = self.counters.of_limit(resource.scope(), limit);
                Ok(self.limits.refer(&key, || (name, LimitSite::new(bounds, counter))))
            }
        }
    }

    /// From narrow to wide, exclusions before capacities, and by name.
    fn sort(&self, needs: &mut Needs) {
        let (exclusions, limits) = (&self.exclusions, &self.limits);
        needs.sort_unstable_by(|one, other| match (*one, *other) {
            (
                Need::Exclusion { site: one, class },
                Need::Exclusion { site: other, class: other_class },
            ) => exclusions.name(one).cmp(exclusions.name(other)).then(class.cmp(&other_class)),
            (Need::Capacity { site: one, .. }, Need::Capacity { site: other, .. }) => {
                limits.name(one).cmp(limits.name(other))
            }
            (Need::Exclusion { .. }, Need::Capacity { .. }) => std::cmp::Ordering::Less,
            (Need::Capacity { .. }, Need::Exclusion { .. }) => std::cmp::Ordering::Greater,
        });
    }

    /// Refuses what could never be granted.
    pub(super) fn check_units(&self, needs: &[Need], party: Party) -> Result<(), AcquireError> {
        for (slot, units) in needs.iter().filter_map(|need| need.capacity()) {
            // A limit that was never open may be opened to any size.
            let ceiling = self.limits.get(slot).ceiling.unwrap_or(0);
            if ceiling > 0 && units > ceiling {
                let (resource, limit) = self.limits.name(slot).clone();
                let units = u64::from(units);
                let kind = AcquireErrorKind::Unsatisfiable { resource, limit, units, ceiling };
                return Err(AcquireError::new(self.party_name(party.owner), kind));
            }
        }
        Ok(())
    }

    /// Refuses what the rules reject, by what is held at this moment.
    pub(super) fn check_rejections(
        &self,
        needs: &[Need],
        party: Party,
    ) -> Result<(), AcquireError> {
        for need in needs {
            let Need::Exclusion { site, class } = *need else { continue };
            let resource = self.exclusions.name(site);
            let site = self.exclusions.get(site);
            for (held, id) in site.strangers(party.root) {
                if let Rule::Reject(code) = self.rules.rule(site.scope, held, class) {
                    let kind = AcquireErrorKind::Rejected {
                        code: code.clone(),
                        conflict: self.conflict(resource, class, held, id),
                    };
                    return Err(AcquireError::new(self.party_name(party.owner), kind));
                }
            }
        }
        Ok(())
    }

    /// Every holder that the draft conflicts with.
    pub(super) fn conflicts(&self, draft: &Draft) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for need in &draft.needs {
            let Need::Exclusion { site, class } = *need else { continue };
            let resource = self.exclusions.name(site);
            let site = self.exclusions.get(site);
            // Which of the two began first is not known, so one allowed order is enough.
            for (held, id) in site.strangers(draft.party.root) {
                if !self.rules.may_join(site.scope, held, class)
                    && !self.rules.may_join(site.scope, class, held)
                {
                    conflicts.push(self.conflict(resource, class, held, id));
                }
            }
        }
        conflicts
    }

    /// Refers once more to everything that the needs are about.
    pub(super) fn refer_again(&mut self, needs: &[Need]) {
        for need in needs {
            match *need {
                Need::Exclusion { site, .. } => self.exclusions.refer_again(site),
                Need::Capacity { site, .. } => self.limits.refer_again(site),
            }
        }
    }

    /// Ends a reference to everything that the needs are about.
    pub(super) fn forget(&mut self, needs: &[Need]) {
        for need in needs {
            match *need {
                Need::Exclusion { site, .. } => self.exclusions.forget(site),
                Need::Capacity { site, .. } => self.limits.forget(site),
            }
        }
    }

    /// Ends a draft that became nothing.
    pub(super) fn forget_draft(&mut self, draft: &Draft) {
        self.forget(&draft.needs);
        self.forget_party(draft.party);
    }
}

fn malformed(reason: &'static str) -> Box<AcquireErrorKind> {
    Box::new(AcquireErrorKind::Malformed { reason })
}
