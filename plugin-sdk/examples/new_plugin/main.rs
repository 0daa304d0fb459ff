//! Somebody wants to write a plugin, and begins with one that works:
//!
//! ```text
//! cargo run --example new_plugin -- acme --dir ~/plugins
//! ```
//!
//! writes the crate `plugin-acme` into `~/plugins/plugin-acme`: the plugin of `greeting.rs` under
//! another name, a test that puts it through the conformance kit, and a README that says what to
//! change first. It builds outside of this workspace, against the SDK in this source tree.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const USAGE: &str = "usage: new_plugin NAME [--dir DIRECTORY] [--sdk PATH]";

/// The plugin that is copied, and the files around it. `{{name}}`, `{{Type}}`, `{{crate}}` and
/// `{{sdk}}` are replaced.
const PLUGIN: &str = include_str!("../greeting.rs");
const HEADER: &str = include_str!("template/header.txt");
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.txt")),
    ("README.md", include_str!("template/README.md.txt")),
    ("tests/conformance.rs", include_str!("template/conformance.rs.txt")),
    ("rustfmt.toml", include_str!("../../../rustfmt.toml")),
    (".gitignore", "/target\n"),
];

fn main() -> ExitCode {
    match new_plugin(env::args().skip(1)) {
        Ok(made) => {
            println!("{} is there. Next: cd {} && cargo test", made.display(), made.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Writes the crate; the answer is its directory.
fn new_plugin(mut arguments: impl Iterator<Item = String>) -> Result<PathBuf, String> {
    let (mut name, mut parent, mut sdk) = (None, PathBuf::from("."), None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--dir" => parent = value()?.into(),
            "--sdk" => sdk = Some(PathBuf::from(value()?)),
            option if option.starts_with('-') => {
                return Err(format!("unknown option {option}\n{USAGE}"));
            }
            _ if name.is_none() => name = Some(Name::parse(&argument)?),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let name = name.ok_or(USAGE)?;
    let sdk = sdk.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).to_owned());
    let sdk = sdk.canonicalize().map_err(|error| format!("{}: {error}", sdk.display()))?;
    let directory = parent.join(format!("plugin-{}", name.0));
    if directory.exists() {
        return Err(format!("{} exists already", directory.display()));
    }
    let fill = |template: &str| {
        template
            .replace("{{name}}", &name.0)
            .replace("{{Type}}", &name.type_name())
            .replace("{{crate}}", &format!("plugin_{}", name.0))
            .replace("{{sdk}}", &sdk.display().to_string())
    };
    write(&directory.join("src/lib.rs"), &(fill(HEADER) + &plugin(&name)))?;
    for (path, template) in FILES {
        write(&directory.join(path), &fill(template))?;
    }
    Ok(directory)
}

/// The code of `greeting.rs` under another name, without its first paragraph.
fn plugin(name: &Name) -> String {
    let code = PLUGIN.lines().skip_while(|line| line.starts_with("//!"));
    let renamed = code.map(|line| {
        line.replace("Greeting", &name.type_name()).replace("greeting", &name.0) + "\n"
    });
    renamed.collect()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(path, text));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// The name of a workload: lower-case letters, digits and underscores, a letter first.
struct Name(String);

impl Name {
    fn parse(text: &str) -> Result<Self, String> {
        let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        match begins && text.chars().all(fits) {
            true => Ok(Name(text.to_owned())),
            false => Err(format!(
                "`{text}` is no name for a workload: lower-case letters, digits and underscores"
            )),
        }
    }

    /// `acme_db` as `AcmeDb`.
    fn type_name(&self) -> String {
        let words = self.0.split('_').filter(|word| !word.is_empty());
        let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
        words.map(capital).collect()
    }
}
