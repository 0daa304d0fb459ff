//! From the text of a policy to its tables.

use std::collections::BTreeMap;

use super::compiled::{ClassIndex, CompiledPolicy};
use super::declared::Policy;
use super::error::{PolicyError, PolicyErrorKind};
use super::rule::Rule;
use super::version::{Condition, EngineVersion};
use crate::resource::Scope;

pub(super) fn compile(
    policy: &Policy,
    engine: Option<&EngineVersion>,
) -> Result<CompiledPolicy, PolicyError> {
    let lookup = name_classes(policy)?;
    let mut rules: BTreeMap<Scope, Vec<PairRule<'_>>> = BTreeMap::new();
    let mut limits = BTreeMap::new();
    add_rules(&mut rules, &lookup, &policy.rules, Layer::Always)?;
    add_limits(&mut limits, &policy.limits)?;
    for (text, part) in &policy.when {
        let condition = Condition::parse(text)?;
        let Some(engine) = engine else {
            return Err(PolicyError::new(PolicyErrorKind::VersionNeeded, text));
        };
        // What does not hold is checked as well.
        let (mut unused_rules, mut unused_limits) = (BTreeMap::new(), BTreeMap::new());
        let (rules, limits) = match condition.holds(engine) {
            true => (&mut rules, &mut limits),
            false => (&mut unused_rules, &mut unused_limits),
        };
        add_rules(rules, &lookup, &part.rules, Layer::Conditional)?;
        add_limits(limits, &part.limits)?;
    }
    let mut cells = BTreeMap::new();
    for (&scope, rules) in &rules {
        cells.insert(scope, fill(policy, scope, rules)?);
    }
    Ok(CompiledPolicy {
        names: policy.classes.iter().map(|class| class.name.clone()).collect(),
        priorities: policy.classes.iter().map(|class| class.priority).collect(),
        coalesce: policy.classes.iter().map(|class| class.coalesce).collect(),
        lookup,
        cells,
        limits,
    })
}

fn add_rules<'policy>(
    rules: &mut BTreeMap<Scope, Vec<PairRule<'policy>>>,
    lookup: &BTreeMap<String, ClassIndex>,
    declared: &'policy BTreeMap<Scope, BTreeMap<String, Rule>>,
    layer: Layer,
) -> Result<(), PolicyError> {
    for (&scope, pairs) in declared {
        for (text, rule) in pairs {
            let rule = PairRule::parse(lookup, text, rule, layer)?;
            rules.entry(scope).or_default().push(rule);
        }
    }
    Ok(())
}

/// Adds bounds; of two for one limit the smaller one counts.
fn add_limits(
    limits: &mut BTreeMap<(Scope, String), u32>,
    declared: &BTreeMap<Scope, BTreeMap<String, u32>>,
) -> Result<(), PolicyError> {
    for (&scope, bounds) in declared {
        for (limit, &capacity) in bounds {
            if limit.is_empty() {
                return Err(PolicyError::new(PolicyErrorKind::MalformedName, "limit"));
            }
            if capacity == 0 {
                let subject = format!("{limit} of {scope}");
                return Err(PolicyError::new(PolicyErrorKind::ZeroLimit, subject));
            }
            let bound = limits.entry((scope, limit.clone())).or_insert(capacity);
            *bound = capacity.min(*bound);
        }
    }
    Ok(())
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
fn fill(policy: &Policy, scope: Scope, rules: &[PairRule<'_>]) -> Result<Vec<Rule>, PolicyError> {
    let count = policy.classes.len();
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
    layer: Layer,
    rule: &'policy Rule,
}

/// Where a rule is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Always,
    Conditional,
}

impl<'policy> PairRule<'policy> {
    fn parse(
        lookup: &BTreeMap<String, ClassIndex>,
        text: &str,
        rule: &'policy Rule,
        layer: Layer,
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
            _ => Ok(Self { running, asked, is_directed, layer, rule }),
        }
    }

    fn fits(&self, running: usize, asked: usize) -> bool {
        let is_match = |one: Option<usize>, other: usize| one.is_none_or(|one| one == other);
        (is_match(self.running, running) && is_match(self.asked, asked))
            || (!self.is_directed && is_match(self.running, asked) && is_match(self.asked, running))
    }

    fn specificity(&self) -> (Layer, usize, bool) {
        let names = usize::from(self.running.is_some()) + usize::from(self.asked.is_some());
        (self.layer, names, self.is_directed)
    }
}
