//! Directories, and the engine that works in them.

use std::path::{Path, PathBuf};

use mercury::{Engine, EngineBuilder, KeySource, Plugin, Trust};
use serde_json::json;
use tempfile::TempDir;

use super::arguments::Arguments;
use super::report::Report;

/// A directory of the example's own, removed when this drops unless it is to be kept.
#[derive(Debug)]
pub struct Place {
    root: TempDir,
}

impl Place {
    /// Makes the directory, in the system's directory for temporary files (`TMPDIR`).
    pub fn new(name: &str, arguments: &Arguments) -> Result<Self, Report> {
        let prefix = format!("mercury-{name}-");
        let mut root = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        root.disable_cleanup(arguments.keep);
        std::fs::create_dir(root.path().join("data"))?;
        Ok(Place { root })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A path in the directory.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }
}

/// Prepares an engine with the plugin at `plugin`, loaded as a library, that looks for databases in
/// `data`. It keeps what it knows in `root/state` and its recovery points in `root/archive`.
pub fn engine(plugin: &Path, data: &Path, root: &Path, key: KeySource) -> EngineBuilder {
    // Whoever ships a plugin puts it where only the administrator can write, and says
    // `Trust::root_owned()` instead.
    let trust = Trust::development("an example, with a plugin from its own source tree");
    // In this process, as befits a plugin that is trusted like the program itself: the figures that
    // the examples show are the archive's. The example `isolated` does it the other way.
    let plugin = Plugin::library(plugin, trust)
        .in_process()
        .config("sqlite", json!({ "directories": [data] }));
    Engine::builder()
        .state_dir(root.join("state"))
        .archive_dir(root.join("archive"), key)
        .plugin(plugin)
}
