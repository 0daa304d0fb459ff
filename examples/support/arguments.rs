//! What was asked for on the command line.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::report::Report;

const MEGABYTES: u64 = 200;

/// The arguments of an example; all of them can be left out.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The user's own database.
    pub database: Option<PathBuf>,
    /// How large a database the example creates.
    pub bytes: u64,
    /// The plugin's library.
    pub plugin: PathBuf,
    /// Whether what the example makes stays.
    pub keep: bool,
}

impl Arguments {
    /// Reads the command line.
    ///
    /// # Errors
    ///
    /// A report that lists the arguments there are.
    pub fn read() -> Result<Self, Report> {
        let mut read = Arguments {
            database: None,
            bytes: MEGABYTES * 1_000_000,
            plugin: built_beside(&std::env::current_exe()?, "plugin_sqlite"),
            keep: false,
        };
        let mut given = std::env::args_os().skip(1);
        while let Some(argument) = given.next() {
            match argument.to_str() {
                Some("--megabytes") => read.bytes = megabytes(given.next())? * 1_000_000,
                Some("--plugin") => read.plugin = given.next().ok_or_else(usage)?.into(),
                Some("--keep") => read.keep = true,
                Some("-h" | "--help") => {
                    println!("{USAGE}");
                    std::process::exit(0);
                }
                Some(unknown) if unknown.starts_with('-') => return Err(usage()),
                _ if read.database.is_none() => read.database = Some(argument.into()),
                _ => return Err(usage()),
            }
        }
        Ok(read)
    }

    /// The same for an example that makes its own database, and takes no other.
    ///
    /// # Errors
    ///
    /// As [`read`](Arguments::read).
    pub fn read_without_database() -> Result<Self, Report> {
        let read = Arguments::read()?;
        if read.database.is_some() { Err(usage()) } else { Ok(read) }
    }
}

fn megabytes(argument: Option<OsString>) -> Result<u64, Report> {
    let number = argument.and_then(|argument| argument.to_str()?.parse().ok());
    number.filter(|number| (1..=1_000_000).contains(number)).ok_or_else(usage)
}

const USAGE: &str = "\
the arguments, all of them optional, are
  DATABASE       your own SQLite database, which is only read (quickstart)
  --megabytes N  how large a database is created otherwise
  --plugin PATH  the plugin's library
  --keep         leave what was made where it is";

fn usage() -> Report {
    Report::new(USAGE)
}

/// The library of the crate `plugin`: `cargo` puts it into `target/<profile>/deps` when it builds an example into
/// `target/<profile>/examples`.
pub fn built_beside(program: &Path, plugin: &str) -> PathBuf {
    let profile = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    profile.join("deps").join(format!("{DLL_PREFIX}{plugin}{DLL_SUFFIX}"))
}
