//! From a request to what the core can compare.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Core;
use super::exclusion_site::ExclusionSite;
use super::limit_site::LimitSite;
use super::request_state::{Need, Party};
use super::rulebook::{Bounds, ClassRef, LimitName, UnknownName};
use crate::acquire_error::{AcquireError, AcquireErrorKind, Conflict};
use crate::policy::Rule;
use crate::priority::Priority;
use crate::request::{Claim, Request};
use crate::resource::Resource;

/// A request whose names were found. Sorted from narrow to wide, without duplicates.
pub(super) struct Draft {
    pub(super) party: Party,
    pub(super) priority: Priority,
    exclusions: BTreeSet<(Resource, ClassRef)>,
    capacities: BTreeMap<LimitName, (u64, Bounds)>,
}

impl Draft {
    pub(super) fn exclusions(&self) -> &BTreeSet<(Resource, ClassRef)> {
        &self.exclusions
    }

    pub(super) fn capacities(&self) -> &BTreeMap<LimitName, (u64, Bounds)> {
        &self.capacities
    }
}

impl Core {
    /// Looks up every name of the request. Changes nothing.
    pub(super) fn draft(&self, request: &Request) -> Result<Draft, AcquireError> {
        let refused = |kind| AcquireError::new(request.owner(), kind);
        let malformed = |reason| Err(refused(AcquireErrorKind::Malformed { reason }));
        if request.claims.is_empty() {
            return malformed("it has no claims");
        }
        if request.claims.len() > Request::CLAIMS_MAX {
            return malformed("it has more than 8 claims");
        }
        let mut exclusions = BTreeSet::new();
        let mut capacities = BTreeMap::new();
        for claim in &request.claims {
            match claim {
                Claim::Exclusion { workload, resource, class } => {
                    let found = self.rules.class(workload, class).map_err(|name| {
                        refused(match name {
                            UnknownName::Workload => {
                                AcquireErrorKind::UnknownWorkload { workload: workload.clone() }
                            }
                            UnknownName::Class => AcquireErrorKind::UnknownClass {
                                workload: workload.clone(),
                                class: class.clone(),
                            },
                        })
                    })?;
                    exclusions.insert((resource.clone(), found));
                }
                Claim::Capacity { units: 0, .. } => return malformed("it claims no units"),
                Claim::Capacity { resource, limit, units } => {
                    let name = (resource.clone(), limit.clone());
                    let Some(bounds) = self.rules.bounds(&name) else {
                        let (resource, limit) = name;
                        return Err(refused(AcquireErrorKind::UnknownLimit { resource, limit }));
                    };
                    let sum = capacities.entry(name).or_insert((0, bounds));
                    sum.0 += u64::from(*units);
                    if sum.0 > u64::from(u32::MAX) {
                        return malformed("it claims more units than can be counted");
                    }
                }
            }
        }
        let of_classes =
            exclusions.iter().map(|&(_, class)| self.rules.class_priority(class)).max();
        let owner: Arc<str> = Arc::from(request.owner());
        let root = match request.root.as_deref() {
            Some(root) => Arc::from(root),
            None => Arc::clone(&owner),
        };
        Ok(Draft {
            party: Party { owner, root, lender: request.lender },
            priority: request.priority.or(of_classes).unwrap_or_default(),
            exclusions,
            capacities,
        })
    }

    /// Refuses what could never be granted.
    pub(super) fn check_units(&self, draft: &Draft) -> Result<(), AcquireError> {
        for ((resource, limit), &(units, bounds)) in &draft.capacities {
            // A limit that was never open may be opened to any size.
            if bounds.ceiling > 0 && units > u64::from(bounds.ceiling) {
                let kind = AcquireErrorKind::Unsatisfiable {
                    resource: resource.clone(),
                    limit: limit.clone(),
                    units,
                    ceiling: bounds.ceiling,
                };
                return Err(AcquireError::new(&draft.party.owner, kind));
            }
        }
        Ok(())
    }

    /// Refuses what the rules reject, by what is held at this moment.
    pub(super) fn check_rejections(
        &self,
        needs: &[Need],
        party: &Party,
    ) -> Result<(), AcquireError> {
        for need in needs {
            let Need::Exclusion { site, class } = *need else { continue };
            let resource = self.exclusions.name(site);
            let site = self.exclusions.get(site);
            for (held, id) in site.strangers(&party.root) {
                if let Rule::Reject(code) = self.rules.rule(site.scope, held, class) {
                    let kind = AcquireErrorKind::Rejected {
                        code: code.clone(),
                        conflict: self.conflict(resource, class, held, id),
                    };
                    return Err(AcquireError::new(&party.owner, kind));
                }
            }
        }
        Ok(())
    }

    /// Every holder that the draft conflicts with.
    pub(super) fn conflicts(&self, draft: &Draft) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (resource, class) in &draft.exclusions {
            let Some(slot) = self.exclusions.find(resource) else { continue };
            let site = self.exclusions.get(slot);
            // Which of the two began first is not known, so one allowed order is enough.
            for (held, id) in site.strangers(&draft.party.root) {
                if !self.rules.may_join(site.scope, held, *class)
                    && !self.rules.may_join(site.scope, *class, held)
                {
                    conflicts.push(self.conflict(resource, *class, held, id));
                }
            }
        }
        conflicts
    }

    /// Refers to the sites of the draft; the needs have to be given to `forget` in the end.
    pub(super) fn place_needs(&mut self, draft: Draft) -> Vec<Need> {
        let mut needs = Vec::with_capacity(draft.exclusions.len() + draft.capacities.len());
        for (resource, class) in draft.exclusions {
            let scope = resource.scope();
            let site = self.exclusions.refer(resource, || ExclusionSite::new(scope));
            needs.push(Need::Exclusion { site, class });
        }
        for (name, (units, bounds)) in draft.capacities {
            let site = self.limits.refer(name, || LimitSite::new(bounds.capacity));
            let units = u32::try_from(units).expect("the sum of units was checked");
            needs.push(Need::Capacity { site, units });
        }
        needs
    }

    /// Ends the references that `place_needs` made.
    pub(super) fn forget(&mut self, needs: &[Need]) {
        for need in needs {
            match *need {
                Need::Exclusion { site, .. } => self.exclusions.forget(site),
                Need::Capacity { site, .. } => self.limits.forget(site),
            }
        }
    }
}
