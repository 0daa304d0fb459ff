//! The plugin in C stands what the conformance kit does to it.
#![cfg(all(feature = "conformance", target_os = "linux"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plugin_sdk::ItemId;
use plugin_sdk::conformance::{Fixture, FixtureError, Kit, Subject, Verdict};
use plugin_sdk::host::{Process, Runner};
use serde_json::{Value, json};

/// A directory with the one file in it.
struct OneFile(PathBuf);

impl OneFile {
    fn path(&self) -> PathBuf {
        self.0.join("letters.bin")
    }
}

fn content(path: &Path) -> Result<Option<String>, FixtureError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path)?;
    let sum = bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte));
    Ok(Some(format!("{} bytes, {sum:x}", bytes.len())))
}

impl Fixture for OneFile {
    fn item(&self) -> ItemId {
        ItemId::new("c_file", "local", "file").expect("a fixed id is valid")
    }
    fn config(&self) -> Value {
        json!({ "path": self.path() })
    }
    fn seed(&mut self) -> Result<(), FixtureError> {
        let content: Vec<u8> = (0..700_001_u32).map(|at| (at % 253) as u8).collect();
        let _ = fs::remove_file(self.0.join("copy.bin"));
        Ok(fs::write(self.path(), content)?)
    }
    fn mutate(&mut self) -> Result<(), FixtureError> {
        let mut content = fs::read(self.path())?;
        content[350_000] ^= 1;
        Ok(fs::write(self.path(), content)?)
    }
    fn wipe(&mut self) -> Result<(), FixtureError> {
        Ok(fs::remove_file(self.path())?)
    }
    fn digest(&mut self) -> Result<Option<String>, FixtureError> {
        content(&self.path())
    }
    fn elsewhere(&self) -> Option<String> {
        Some(self.0.join("copy.bin").display().to_string())
    }
    fn digest_elsewhere(&mut self) -> Result<Option<String>, FixtureError> {
        content(&self.0.join("copy.bin"))
    }
    fn leftovers(&mut self) -> Result<Vec<String>, FixtureError> {
        let entries = fs::read_dir(&self.0)?.collect::<Result<Vec<_>, _>>()?;
        let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name != "letters.bin" && name != "copy.bin").collect())
    }
}

/// It has one item and no secret, and a test program is not the kit's own.
const NOT_TRIED: [&str; 6] = [
    "no_panic_in_drop",
    "other_item",
    "standard_output",
    "no_secret_in_the_log",
    "no_secret_written_down",
    "threads",
];

#[test]
fn the_plugin_in_c_stands_the_conformance_kit_loaded_and_isolated() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = std::env::temp_dir().join(format!("mercury-c-kit-{}", std::process::id()));
    let data = scratch.join("data");
    fs::create_dir_all(&data).expect("a scratch directory");
    let library = scratch.join("libfile_plugin.so");
    let built = Command::new("cc")
        .args(["-std=c11", "-g", "-O1", "-shared", "-fPIC", "-pthread", "-I"])
        .arg(here.join("include"))
        .arg("-o")
        .arg(&library)
        .arg(here.join("examples/c/file_plugin.c"))
        .output()
        .expect("there is a C compiler");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let process = Process::new().runner(Runner::at(env!("CARGO_BIN_EXE_plugin-runner")));
    for subject in [Subject::library(&library), Subject::isolated(&library, process)] {
        let report = Kit::new(subject).fixture(OneFile(data.clone())).run();
        println!("{report}");
        let of = |verdict| report.checks.iter().filter(move |check| check.verdict == verdict);
        let failed: Vec<_> = of(Verdict::Failed).collect();
        // It should skip a file that has not changed, and it does not look.
        assert!(failed.iter().all(|check| check.name == "skips_unchanged"), "{failed:#?}");
        let skipped: Vec<_> = of(Verdict::Skipped).map(|check| check.name.as_str()).collect();
        assert_eq!(skipped, NOT_TRIED, "{report}");
    }
    let _ = fs::remove_dir_all(&scratch);
}
