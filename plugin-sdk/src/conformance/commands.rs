//! A fixture that is a file with commands in it: for libraries of any language.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use serde::Deserialize;
use serde_json::Value;

use super::fixture::{Fixture, FixtureError};
use crate::ItemId;

/// A fixture that runs commands, from a TOML file:
///
/// ```toml
/// item = "greeting/files/{dir}/item.txt"
/// elsewhere = "{dir}/copy.txt"
/// secrets = ["hunter2-CANARY"]
///
/// [config]
/// directory = "{dir}"
///
/// [run]
/// seed = "echo 'good morning' > item.txt"
/// mutate = "echo 'good night' > item.txt"
/// wipe = "rm -f item.txt"
/// digest = "cat item.txt 2>/dev/null || true"
/// digest_elsewhere = "cat copy.txt 2>/dev/null || true"
/// leftovers = "ls *.new 2>/dev/null || true"
/// ```
///
/// `{dir}` is an empty directory that exists for as long as the fixture, and in which the commands
/// run, by `sh -c`. One that fails says why on its standard error. What `digest` prints is the
/// item's content, and nothing at all that there is no item; each line of `leftovers` is something
/// that is left. `neighbour`, and `settle`, are as in [`Fixture`].
#[derive(Debug)]
pub struct CommandFixture {
    file: FixtureFile,
    item: ItemId,
    neighbour: Option<ItemId>,
    directory: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FixtureFile {
    item: String,
    #[serde(default)]
    neighbour: Option<String>,
    #[serde(default)]
    elsewhere: Option<String>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    config: Value,
    run: Commands,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Commands {
    seed: String,
    mutate: String,
    wipe: String,
    digest: String,
    #[serde(default)]
    settle: Option<String>,
    #[serde(default)]
    digest_elsewhere: Option<String>,
    #[serde(default)]
    leftovers: Option<String>,
}

impl CommandFixture {
    /// Reads the file at `path`, and makes the directory.
    ///
    /// # Errors
    ///
    /// What does not fit in the file, or why there is no directory.
    pub fn read(path: &Path) -> Result<Self, FixtureError> {
        Self::parse(&fs::read_to_string(path)?)
    }

    /// As [`read`](CommandFixture::read), from the file's text.
    ///
    /// # Errors
    ///
    /// As `read`.
    pub fn parse(text: &str) -> Result<Self, FixtureError> {
        let mut file: FixtureFile = toml::from_str(text)?;
        let directory = fresh_directory()?;
        let name = directory.to_str().ok_or("the temporary directory's path is not UTF-8")?;
        let named = |text: &str| text.replace("{dir}", name);
        fill(&mut file.config, name);
        file.elsewhere = file.elsewhere.as_deref().map(named);
        let item = named(&file.item).parse()?;
        let neighbour = file.neighbour.as_deref().map(|text| named(text).parse()).transpose()?;
        Ok(CommandFixture { file, item, neighbour, directory })
    }

    fn run(&self, what: &str, command: &str) -> Result<String, FixtureError> {
        let output =
            Command::new("sh").args(["-c", command]).current_dir(&self.directory).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`{what}` ended with {}: {}", output.status, said.trim()).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a command prints, unless that is nothing.
    fn printed(&self, what: &str, command: &str) -> Result<Option<String>, FixtureError> {
        Ok(Some(self.run(what, command)?).filter(|printed| !printed.is_empty()))
    }
}

fn fresh_directory() -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    loop {
        let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(format!("conformance-{process}-{next}"));
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| directory),
        }
    }
}

/// Replaces `{dir}` in every text of `value`.
fn fill(value: &mut Value, directory: &str) {
    match value {
        Value::String(text) => *text = text.replace("{dir}", directory),
        Value::Array(values) => values.iter_mut().for_each(|value| fill(value, directory)),
        Value::Object(fields) => fields.values_mut().for_each(|value| fill(value, directory)),
        _ => {}
    }
}

impl Drop for CommandFixture {
    fn drop(&mut self) {
        // What is left in the temporary directory does no harm.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Fixture for CommandFixture {
    fn item(&self) -> ItemId {
        self.item.clone()
    }

    fn config(&self) -> Value {
        self.file.config.clone()
    }

    fn seed(&mut self) -> Result<(), FixtureError> {
        self.run("seed", &self.file.run.seed).map(drop)
    }

    fn settle(&mut self) -> Result<(), FixtureError> {
        self.file.run.settle.as_ref().map_or(Ok(()), |settle| self.run("settle", settle).map(drop))
    }

    fn mutate(&mut self) -> Result<(), FixtureError> {
        self.run("mutate", &self.file.run.mutate).map(drop)
    }

    fn wipe(&mut self) -> Result<(), FixtureError> {
        self.run("wipe", &self.file.run.wipe).map(drop)
    }

    fn digest(&mut self) -> Result<Option<String>, FixtureError> {
        self.printed("digest", &self.file.run.digest)
    }

    fn elsewhere(&self) -> Option<String> {
        self.file.elsewhere.clone()
    }

    fn digest_elsewhere(&mut self) -> Result<Option<String>, FixtureError> {
        let digest = self.file.run.digest_elsewhere.as_ref();
        digest.map_or(Ok(None), |digest| self.printed("digest_elsewhere", digest))
    }

    fn neighbour(&self) -> Option<ItemId> {
        self.neighbour.clone()
    }

    fn leftovers(&mut self) -> Result<Vec<String>, FixtureError> {
        let Some(leftovers) = &self.file.run.leftovers else { return Ok(Vec::new()) };
        let printed = self.run("leftovers", leftovers)?;
        Ok(printed.lines().map(str::to_owned).collect())
    }

    fn secrets(&self) -> Vec<String> {
        self.file.secrets.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        item = "files/here/{dir}/item"
        [config]
        directories = ["{dir}"]
        [run]
        seed = "echo one > item"
        mutate = "echo two > item"
        wipe = "rm item"
        digest = "cat item 2>/dev/null || true"
    "#;

    #[test]
    fn commands_run_where_the_item_is() {
        let mut fixture = CommandFixture::parse(FILE).unwrap();
        let directory = fixture.directory.to_str().unwrap().to_owned();
        assert_eq!(fixture.item().name(), format!("{directory}/item"));
        assert_eq!(fixture.config()["directories"][0], directory.as_str());
        assert_eq!(fixture.digest().unwrap(), None);
        fixture.seed().unwrap();
        assert_eq!(fixture.digest().unwrap().as_deref(), Some("one\n"));
        fixture.mutate().unwrap();
        assert_eq!(fixture.digest().unwrap().as_deref(), Some("two\n"));
        fixture.wipe().unwrap();
        let failed = fixture.wipe().unwrap_err().to_string();
        assert!(failed.contains("`wipe` ended with") && failed.contains("item"), "{failed}");
        drop(fixture);
        assert!(!Path::new(&directory).exists());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let unknown = CommandFixture::parse(&FILE.replace("wipe =", "wife =")).unwrap_err();
        assert!(unknown.to_string().contains("wife"), "{unknown}");
        let nowhere = CommandFixture::parse(&FILE.replace("files/here/", "")).unwrap_err();
        assert!(nowhere.to_string().contains("workload/instance/name"), "{nowhere}");
    }
}
