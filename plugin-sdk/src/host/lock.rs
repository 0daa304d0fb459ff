//! Which libraries an agent may run: the file `plugins.lock`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// The form of lock files that this version reads and writes.
const FORM: u32 = 1;

/// The content of a lock file: for each library the hashes of the builds that may run, by platform.
///
/// ```
/// use plugin_sdk::host::{Digest, PluginLock, target};
///
/// let mut lock = PluginLock::new();
/// lock.pin("libacme.so", Some("acme"), Some("1.2.3"), &target(), Digest::of(b"a library"));
/// let text = lock.to_toml();
/// assert!(text.contains("library = \"libacme.so\""));
/// assert_eq!(PluginLock::parse(&text), Ok(lock));
/// ```
///
/// As a file:
///
/// ```toml
/// form = 1
///
/// [[plugin]]
/// library = "libacme.so"
/// id = "acme"
/// version = "1.2.3"
///
/// [plugin.targets]
/// aarch64-linux-gnu = ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
/// x86_64-linux-gnu = ["sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"]
/// ```
///
/// A hash of a scheme that this version does not know is kept and ignored. `id` and `version` may
/// be left out; if they are there, they are compared with what the plugin says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginLock {
    form: u32,
    #[serde(default, rename = "plugin", skip_serializing_if = "Vec::is_empty")]
    plugins: Vec<Pin>,
}

/// One version of one library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pin {
    library: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    targets: BTreeMap<String, Vec<String>>,
}

/// Why a library is not the one that is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unpinned {
    NoEntry,
    OtherTargets(Vec<String>),
    OtherBytes,
}

/// Why a text is no lock file: in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLock(String);

impl PluginLock {
    /// A lock file that allows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { form: FORM, plugins: Vec::new() }
    }

    /// Reads the text of a lock file.
    ///
    /// # Errors
    ///
    /// [`InvalidLock`], which names the line.
    pub fn parse(text: &str) -> Result<Self, InvalidLock> {
        let lock: Self =
            toml::from_str(text).map_err(|error| InvalidLock(one_line(text, &error)))?;
        if lock.form != FORM {
            let form = lock.form;
            return Err(InvalidLock(format!("it has the form {form}, this agent reads {FORM}")));
        }
        Ok(lock)
    }

    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // Strings, numbers and lists of them always have a form in TOML.
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// Allows the build of `library` for `target` whose hash is `digest`, as version `version` of
    /// the plugin `id`. Earlier versions, and builds for other targets, stay allowed; what was
    /// pinned for this target of this version is replaced.
    pub fn pin(
        &mut self,
        library: &str,
        id: Option<&str>,
        version: Option<&str>,
        target: &str,
        digest: Digest,
    ) {
        let same = |pin: &Pin| {
            pin.library == library && pin.id.as_deref() == id && pin.version.as_deref() == version
        };
        let at = self.plugins.iter().position(same).unwrap_or_else(|| {
            let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
            let (id, version) = (owned(id), owned(version));
            let targets = BTreeMap::new();
            self.plugins.push(Pin { library: library.to_owned(), id, version, targets });
            self.plugins.len() - 1
        });
        self.plugins[at].targets.insert(target.to_owned(), vec![digest.to_string()]);
    }

    /// Takes the plugin `id` out, or only its version `version`. Says whether there was one.
    pub fn unpin(&mut self, id: &str, version: Option<&str>) -> bool {
        let before = self.plugins.len();
        self.plugins.retain(|pin| {
            let other = version.is_some_and(|version| pin.version.as_deref() != Some(version));
            pin.id.as_deref() != Some(id) || other
        });
        self.plugins.len() < before
    }

    /// Writes the file durably, in one move: readers see the old one or the new one.
    ///
    /// # Errors
    ///
    /// Any of writing a file beside it and renaming that.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = File::create(&beside)?;
        file.write_all(self.to_toml().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    /// The entry by which the build of `library` with this hash may run on `target`.
    pub(super) fn find(
        &self,
        library: &str,
        target: &str,
        digest: Digest,
    ) -> Result<&Pin, Unpinned> {
        let pins: Vec<&Pin> = self.plugins.iter().filter(|pin| pin.library == library).collect();
        if pins.is_empty() {
            return Err(Unpinned::NoEntry);
        }
        let here: Vec<_> = pins.iter().filter(|pin| pin.targets.contains_key(target)).collect();
        if here.is_empty() {
            let targets = pins.iter().flat_map(|pin| pin.targets.keys().cloned()).collect();
            return Err(Unpinned::OtherTargets(targets));
        }
        let allows =
            |pin: &Pin| pin.targets[target].iter().any(|allowed| allowed.parse() == Ok(digest));
        here.into_iter().copied().find(|pin| allows(pin)).ok_or(Unpinned::OtherBytes)
    }
}

impl Default for PluginLock {
    fn default() -> Self {
        Self::new()
    }
}

impl Pin {
    pub(super) fn claims_nothing(&self) -> bool {
        self.id.is_none() && self.version.is_none()
    }
}

/// The platform of this program, as lock files name it: `x86_64-linux-gnu`, say.
#[must_use]
pub fn target() -> String {
    let environment = if cfg!(target_env = "musl") { "-musl" } else { "-gnu" };
    let environment = if cfg!(target_os = "linux") { environment } else { "" };
    format!("{}-{}{environment}", std::env::consts::ARCH, std::env::consts::OS)
}

/// A message of TOML's, in one line and with the line's number.
pub(super) fn one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', ", ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

impl std::fmt::Display for InvalidLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidLock {}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn lock() -> PluginLock {
        let text = format!(
            "form = 1\n[[plugin]]\nlibrary = 'a.so'\n[plugin.targets]\nhere = ['blake9:00', '{A}']\n\
             [[plugin]]\nlibrary = 'b.so'\n[plugin.targets]\nthere = ['{A}']\n"
        );
        PluginLock::parse(&text).expect("a lock file")
    }

    #[track_caller]
    fn check(library: &str, target: &str, digest: &Digest, expected: Result<(), Unpinned>) {
        assert_eq!(lock().find(library, target, *digest).map(|_| ()), expected);
    }

    #[test]
    fn a_library_is_found_by_name_platform_and_bytes() {
        let (test, other) = (A.parse().expect("a digest"), Digest::of(b"other"));
        assert_eq!(test, Digest::of(b"test"));
        check("a.so", "here", &test, Ok(()));
        check("a.so", "here", &other, Err(Unpinned::OtherBytes));
        check("b.so", "here", &test, Err(Unpinned::OtherTargets(vec!["there".to_owned()])));
        check("c.so", "here", &test, Err(Unpinned::NoEntry));
    }

    #[test]
    fn pinning_replaces_this_build_and_keeps_the_others() {
        let [one, two, three] = [b"1", b"2", b"3"].map(|bytes| Digest::of(bytes));
        let mut lock = PluginLock::new();
        lock.pin("a.so", Some("a"), Some("1"), "here", one);
        lock.pin("a.so", Some("a"), Some("1"), "there", two);
        lock.pin("a.so", Some("a"), Some("2"), "here", three);
        lock.pin("a.so", Some("a"), Some("1"), "here", two);
        assert_eq!(lock.find("a.so", "here", one), Err(Unpinned::OtherBytes));
        assert!(lock.find("a.so", "here", two).is_ok());
        assert!(lock.find("a.so", "here", three).is_ok());
        assert!(lock.unpin("a", Some("1")) && !lock.unpin("b", None));
        assert_eq!(lock.find("a.so", "here", two), Err(Unpinned::OtherBytes));
        assert_eq!(PluginLock::parse(&lock.to_toml()), Ok(lock));
    }

    #[test]
    fn a_damaged_text_is_refused_in_one_line_that_names_the_place() {
        for (text, expected) in [
            ("form = 1\n[[plugin]\n", "line 2"),
            ("form = 1\n[[plugin]]\nlibrary = 'a.so'\n", "targets"),
            ("form = 1\nplugins = []\n", "unknown field"),
            ("form = 2\n", "the form 2"),
            ("", "form"),
        ] {
            let error = PluginLock::parse(text).expect_err("damaged").to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
