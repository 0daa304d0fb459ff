//! The rules of the workloads, for the versions of the systems that they work on.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use plugin_sdk::Item;
use throttle::{Admission, Class, CompiledPolicy, EngineVersion, Policy};

use crate::Error;

/// The kind of work that a plan without claims does, and the only one that a manifest without
/// rules knows: one at a time on each item.
pub(crate) const DATA: &str = "data";

/// The rules of all workloads.
///
/// A workload has one policy, so with instances of several versions the rules for the oldest hold
/// for all of them: they restrict the most. A version that is not known yet is older than any.
#[derive(Debug, Default)]
pub(crate) struct Policies(Mutex<BTreeMap<String, Rules>>);

#[derive(Debug)]
struct Rules {
    declared: Policy,
    engine: Option<EngineVersion>,
    compiled: CompiledPolicy,
}

impl Policies {
    /// Makes the rules of a workload known to the admission.
    pub(crate) fn register(
        &self,
        admission: &Admission,
        workload: &str,
        declared: &Policy,
        engine: Option<EngineVersion>,
    ) -> Result<(), Error> {
        let declared = match *declared == Policy::new() {
            true => Policy::new().class(Class::new(DATA)),
            false => declared.clone(),
        };
        let compiled = compile(&declared, engine.as_ref())?;
        admission.register(workload, compiled.clone())?;
        self.lock().insert(workload.to_owned(), Rules { declared, engine, compiled });
        Ok(())
    }

    /// Discovery found `items` of a workload: the rules follow the versions that they report.
    pub(crate) fn discovered(
        &self,
        admission: &Admission,
        workload: &str,
        items: &[Item],
    ) -> Result<(), Error> {
        let oldest = items.iter().filter_map(|item| item.engine_version.clone()).min();
        let mut all = self.lock();
        let Some(rules) = all.get_mut(workload) else { return Ok(()) };
        if oldest.is_none() || rules.engine == oldest {
            return Ok(());
        }
        let compiled = compile(&rules.declared, oldest.as_ref())?;
        admission.replace(workload, compiled.clone())?;
        (rules.engine, rules.compiled) = (oldest, compiled);
        Ok(())
    }

    /// The rules of a workload, as they are at this moment.
    pub(crate) fn of(&self, workload: &str) -> Option<CompiledPolicy> {
        self.lock().get(workload).map(|rules| rules.compiled.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Rules>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compile(declared: &Policy, engine: Option<&EngineVersion>) -> Result<CompiledPolicy, Error> {
    match engine {
        Some(engine) => Ok(declared.compile_for(engine)?),
        None => Ok(declared.compile_for(&"0".parse()?)?),
    }
}
