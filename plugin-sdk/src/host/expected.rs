//! What was said of a plugin before it ran, to be compared with what it says itself.

use std::collections::BTreeSet;
use std::path::Path;

use super::error::{LoadError, LoadErrorKind};
use super::lock::Pin;
use super::sidecar::Sidecar;
use crate::PluginManifest;

/// The claims of a sidecar manifest and of a lock entry, if there are any.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) sidecar: Option<Sidecar>,
    pub(super) pin: Option<Pin>,
}

impl Expected {
    /// Compares with the plugin's own manifest, a document. Without claims it is not asked for.
    pub(super) fn check<D: AsRef<[u8]>>(
        &self,
        path: &Path,
        document: impl FnOnce() -> Result<D, LoadError>,
    ) -> Result<(), LoadError> {
        if self.sidecar.is_none() && self.pin.as_ref().is_none_or(Pin::claims_nothing) {
            return Ok(());
        }
        let manifest: PluginManifest =
            serde_json::from_slice(document()?.as_ref()).map_err(|error| {
                let what = "gave a manifest that cannot be read; report it to the plugin's author";
                LoadError::new(LoadErrorKind::Manifest, path, what).caused_by(error)
            })?;
        self.difference(&manifest).map_or(Ok(()), |difference| {
            let what = format!("{difference}; install library and description anew, together");
            Err(LoadError::new(LoadErrorKind::ManifestMismatch, path, what))
        })
    }

    fn difference(&self, manifest: &PluginManifest) -> Option<String> {
        for workload in &manifest.workloads {
            if let Some(pin) = &self.pin {
                let differs = differs("lock entry", "name", pin.id.as_ref(), &workload.plugin);
                let differs = differs.or_else(|| {
                    self::differs("lock entry", "version", pin.version.as_ref(), &workload.version)
                });
                if differs.is_some() {
                    return differs;
                }
            }
            if let Some(sidecar) = &self.sidecar {
                let differs = differs("sidecar", "name", Some(&sidecar.id), &workload.plugin);
                let differs = differs.or_else(|| {
                    self::differs("sidecar", "version", Some(&sidecar.version), &workload.version)
                });
                if differs.is_some() {
                    return differs;
                }
            }
        }
        let sidecar = self.sidecar.as_ref()?;
        if !sidecar.fits(&manifest.sdk) {
            return Some(format!(
                "was built with SDK {}, outside of its sidecar's range {}",
                manifest.sdk, sidecar.sdk
            ));
        }
        let workloads = manifest.workloads.iter().map(|workload| &workload.workload).collect();
        let secrets = manifest.workloads.iter().flat_map(|workload| &workload.secrets).collect();
        difference("workloads", &sidecar.workloads, &workloads)
            .or_else(|| difference("secrets", &sidecar.capabilities.secrets, &secrets))
    }
}

fn differs(place: &str, what: &str, said: Option<&String>, is: &String) -> Option<String> {
    let said = said.filter(|said| *said != is)?;
    Some(format!("has the {what} `{is}`, but its {place} says `{said}`"))
}

fn difference(what: &str, said: &BTreeSet<String>, is: &BTreeSet<&String>) -> Option<String> {
    if let Some(extra) = is.iter().find(|name| !said.contains(name.as_str())) {
        return Some(format!("has `{extra}` among its {what}, which its sidecar does not say"));
    }
    let missing = said.iter().find(|name| !is.contains(name))?;
    Some(format!("has no `{missing}` among its {what}, although its sidecar says so"))
}
