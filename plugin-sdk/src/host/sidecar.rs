//! What a plugin is, readable without running any of it: the file `acme.plugin.toml`.

use std::collections::BTreeSet;
use std::path::Path;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::lock::one_line;
use crate::PluginManifest;

/// The form of sidecars that this version reads and writes.
const FORM: u32 = 1;

/// A plugin's description beside its library: `acme.plugin.toml` beside `libacme.so`.
///
/// Loading a library runs its constructors; the sidecar can be read before. What it says is
/// compared with the library's bytes before they are loaded, and with the manifest that is embedded
/// in them afterwards, so that what an operator has read is what runs.
///
/// ```
/// use plugin_sdk::host::Sidecar;
///
/// let text = r#"
/// form = 1
/// id = "acme"
/// version = "1.2.3"
/// sdk = ">=0.1, <0.2"
/// digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
/// workloads = ["acmedb"]
///
/// [capabilities]
/// secrets = ["password"]
/// "#;
/// let sidecar = Sidecar::parse(text)?;
/// assert!(sidecar.capabilities.secrets.contains("password"));
/// # Ok::<(), plugin_sdk::host::InvalidSidecar>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sidecar {
    /// The version of this document's form.
    pub form: u32,
    /// The plugin's name, as in its manifest.
    pub id: String,
    /// The plugin's version (semver.org).
    pub version: String,
    /// The versions of the SDK that the plugin works with.
    pub sdk: VersionReq,
    /// The hash of the library.
    pub digest: Digest,
    /// The workloads that it implements.
    pub workloads: BTreeSet<String>,
    /// What it asks for beyond running.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// What a plugin asks its host for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// The names of its secrets, of all of its workloads together.
    #[serde(default)]
    pub secrets: BTreeSet<String>,
}

/// Why a text is no sidecar: in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSidecar(String);

impl Sidecar {
    /// Reads the text of a sidecar. Unknown fields are tolerated.
    ///
    /// # Errors
    ///
    /// [`InvalidSidecar`], which names the line.
    pub fn parse(text: &str) -> Result<Self, InvalidSidecar> {
        let sidecar: Self =
            toml::from_str(text).map_err(|error| InvalidSidecar(one_line(text, &error)))?;
        if sidecar.form != FORM {
            let form = sidecar.form;
            return Err(InvalidSidecar(format!("it has the form {form}, this agent reads {FORM}")));
        }
        Ok(sidecar)
    }

    /// What `manifest` says, of the library whose hash is `digest`: for whoever builds the plugin.
    ///
    /// # Errors
    ///
    /// [`InvalidSidecar`] if the manifest has no workload, or `sdk` is no range of versions.
    pub fn of(
        manifest: &PluginManifest,
        sdk: &str,
        digest: Digest,
    ) -> Result<Self, InvalidSidecar> {
        let invalid = |what: &str| InvalidSidecar(what.to_owned());
        let workloads = &manifest.workloads;
        let first = workloads.first().ok_or_else(|| invalid("the manifest has no workload"))?;
        let secrets = workloads.iter().flat_map(|workload| &workload.secrets);
        Ok(Self {
            form: FORM,
            id: first.plugin.clone(),
            version: first.version.clone(),
            sdk: sdk.parse().map_err(|_| invalid("the SDK's range is no range of versions"))?,
            digest,
            workloads: workloads.iter().map(|workload| workload.workload.clone()).collect(),
            capabilities: Capabilities { secrets: secrets.cloned().collect() },
        })
    }

    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // Strings, numbers and lists of them always have a form in TOML.
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// The name of the sidecar of the library `library`.
    #[must_use]
    pub fn file_name(library: &Path) -> String {
        let stem = library.file_stem().unwrap_or_default().to_string_lossy();
        format!("{}.plugin.toml", stem.strip_prefix("lib").unwrap_or(&stem))
    }

    /// Whether the plugin works with version `sdk` of the SDK.
    #[must_use]
    pub fn fits(&self, sdk: &str) -> bool {
        sdk.parse::<Version>().is_ok_and(|sdk| self.sdk.matches(&sdk))
    }
}

impl std::fmt::Display for InvalidSidecar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidSidecar {}
