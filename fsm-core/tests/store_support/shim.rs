//! The file layer that fails on demand: `shim.c`, built for the test that uses it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) struct Shim {
    directory: tempfile::TempDir,
}

impl Shim {
    /// Builds it; `None`, with a notice, where there is no C compiler.
    pub(crate) fn build() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store_support/shim.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(directory.path().join("shim.so"))
            .arg(source)
            .arg("-ldl")
            .output();
        match built {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{said}");
                Some(Shim { directory })
            }
            Err(error) => {
                super::child::may_skip("faults below SQLite: cc cannot be run", &error);
                None
            }
        }
    }

    /// Puts it between `command` and the files whose paths begin with `files`.
    pub(crate) fn under(&self, command: &mut Command, files: &Path) {
        command.env("LD_PRELOAD", self.directory.path().join("shim.so")).env("SHIM_FILES", files);
    }

    /// Where it says which call failed.
    pub(crate) fn log(directory: &Path) -> PathBuf {
        directory.join("failed")
    }
}
