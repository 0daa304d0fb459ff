//! From the text of a policy to its tables.

use std::collections::BTreeMap;

use super::compiled::{ClassIndex, CompiledPolicy};
use super::declared::Policy;
use super::error::{PolicyError, PolicyErrorKind};
use super::rule::Rule;
use crate::resource::Scope;

pub(super) fn compile(policy: &Policy) -> Result<CompiledPolicy, PolicyError> {
    let lookup = name_classes(policy)?;
    let count = policy.classes.len();
    let mut cells = BTreeMap::new();
    for (&scope, rules) in &policy.rules {
        let rules = rules
            .iter()
            .map(|(text, rule)| PairRule::parse(&lookup, text, rule))
            .collect::<Result<Vec<_>, _>>()?;
        cells.insert(scope, fill(policy, scope, count, &rules)?);
    }
    let mut limits = BTreeMap::new();
    for (&scope, bounds) in &policy.limits {
        for (limit, &capacity) in bounds {
            if limit.is_empty() {
                return Err(PolicyError::new(PolicyErrorKind::MalformedName, "limit"));
            }
            if capacity == 0 {
                return Err(PolicyError::new(
                    PolicyErrorKind::ZeroLimit,
                    format!("{limit} of {scope}"),
                ));
            }
            limits.insert((scope, limit.clone()), capacity);
        }
    }
    Ok(CompiledPolicy {
        names: policy.classes.iter().map(|class| class.name.clone()).collect(),
        priorities: policy.classes.iter().map(|class| class.priority).collect(),
        lookup,
        cells,
        limits,
    })
}

fn name_classes(policy: &Policy) -> Result<BTreeMap<String, ClassIndex>, PolicyError> {
    if policy.classes.len() > Policy::CLASSES_MAX {
        return Err(PolicyError::new(
            PolicyErrorKind::TooManyClasses,
            format!("{} classes", policy.classes.len()),
        ));
    }
    let mut lookup = BTreeMap::new();
    for (class, index) in policy.classes.iter().zip(0..) {
        for name in std::iter::once(&class.name).chain(&class.aliases) {
            if name.is_empty() || name.contains(['/', '>', '*']) {
                return Err(PolicyError::new(PolicyErrorKind::MalformedName, name));
            }
            if lookup.insert(name.clone(), index).is_some() {
                return Err(PolicyError::new(PolicyErrorKind::DuplicateClass, name));
            }
        }
    }
    Ok(lookup)
}

/// Decides every cell by the most specific rule that fits it.
fn fill(
    policy: &Policy,
    scope: Scope,
    count: usize,
    rules: &[PairRule<'_>],
) -> Result<Vec<Rule>, PolicyError> {
    let mut cells = Vec::with_capacity(count * count);
    for running in 0..count {
        for asked in 0..count {
            let fitting: Vec<_> = rules.iter().filter(|rule| rule.fits(running, asked)).collect();
            let most_specific = fitting.iter().map(|rule| rule.specificity()).max();
            let mut decided: Option<&Rule> = None;
            for rule in fitting.iter().filter(|rule| Some(rule.specificity()) == most_specific) {
                if decided.is_some_and(|decided| decided != rule.rule) {
                    let (running, asked) = (&policy.classes[running], &policy.classes[asked]);
                    return Err(PolicyError::new(
                        PolicyErrorKind::AmbiguousRules,
                        format!("{}>{} on {scope}", running.name, asked.name),
                    ));
                }
                decided = Some(rule.rule);
            }
            cells.push(decided.cloned().unwrap_or(Rule::Wait));
        }
    }
    Ok(cells)
}

/// One rule with the names of its pair resolved; `None` stands for any class.
struct PairRule<'policy> {
    running: Option<usize>,
    asked: Option<usize>,
    is_directed: bool,
    rule: &'policy Rule,
}

impl<'policy> PairRule<'policy> {
    fn parse(
        lookup: &BTreeMap<String, ClassIndex>,
        text: &str,
        rule: &'policy Rule,
    ) -> Result<Self, PolicyError> {
        let (running, asked, is_directed) = match (text.split_once('/'), text.split_once('>')) {
            (Some((one, other)), None) => (one, other, false),
            (None, Some((running, asked))) => (running, asked, true),
            _ => return Err(PolicyError::new(PolicyErrorKind::MalformedPair, text)),
        };
        let resolve = |name: &str| match name {
            "*" => Ok(None),
            "" => Err(PolicyError::new(PolicyErrorKind::MalformedPair, text)),
            name => match lookup.get(name) {
                Some(&class) => Ok(Some(usize::from(class))),
                None => Err(PolicyError::new(
                    PolicyErrorKind::UnknownClass,
                    format!("{name} in {text}"),
                )),
            },
        };
        let (running, asked) = (resolve(running)?, resolve(asked)?);
        let is_one_class = running.is_some() && running == asked;
        match rule {
            Rule::Reject(_) if !is_one_class && !is_directed => {
                Err(PolicyError::new(PolicyErrorKind::RejectWithoutDirection, text))
            }
            Rule::Coalesce if !is_one_class => {
                Err(PolicyError::new(PolicyErrorKind::CoalesceAcrossClasses, text))
            }
            _ => Ok(Self { running, asked, is_directed, rule }),
        }
    }

    fn fits(&self, running: usize, asked: usize) -> bool {
        let is_match = |one: Option<usize>, other: usize| one.is_none_or(|one| one == other);
        (is_match(self.running, running) && is_match(self.asked, asked))
            || (!self.is_directed && is_match(self.running, asked) && is_match(self.asked, running))
    }

    fn specificity(&self) -> (usize, bool) {
        let names = usize::from(self.running.is_some()) + usize::from(self.asked.is_some());
        (names, self.is_directed)
    }
}
