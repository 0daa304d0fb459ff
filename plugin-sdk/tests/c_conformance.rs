//! The plugin in C stands what the conformance kit does to it.
#![cfg(all(feature = "conformance", target_os = "linux"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plugin_sdk::ItemId;
use plugin_sdk::conformance::{Fixture, FixtureError, Grade, Kit, Subject, Verdict};
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

#[test]
fn the_plugin_in_c_stands_the_conformance_kit_loaded() {
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

    let report = Kit::new(Subject::library(&library)).fixture(OneFile(data)).run();
    println!("{report}");
    let of = |verdict| report.checks.iter().filter(move |check| check.verdict == verdict);
    // It should skip a file that has not changed, and it does not look.
    let failed: Vec<_> = of(Verdict::Failed).filter(|check| check.grade == Grade::Must).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(of(Verdict::Passed).count() > 10, "{report}");
    let _ = fs::remove_dir_all(&scratch);
}
