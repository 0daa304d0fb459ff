//! Finding databases in directories.
//!
//! Files are told by their extension and by their first bytes. Symbolic links
//! inside a directory are not followed, so that no database is found twice or
//! outside of what was configured.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::database::{JournalMode, read_header};
use crate::error::{Error, ErrorKind};
use crate::raw_file::RawFile;

/// Whether directories inside a directory are searched too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Depth {
    /// Only the directory itself.
    #[default]
    Flat,
    /// The directory and all below it.
    Recursive,
}

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiscoverOptions {
    /// Whether to go into directories; [`Depth::Flat`] by default.
    pub depth: Depth,
    /// Extensions without the dot, compared without regard to ASCII case; `db` by default.
    pub extensions: Vec<String>,
}

impl Default for DiscoverOptions {
    fn default() -> Self {
        Self { depth: Depth::Flat, extensions: vec!["db".to_owned()] }
    }
}

/// A database file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Where it is: the configured directory and the path below it.
    pub path: PathBuf,
    /// The size of its main file.
    pub bytes: u64,
    /// Its page size in bytes; `None` for a database that has never been written to.
    pub page_size: Option<u32>,
    /// Its journal mode; `None` for a database that has never been written to.
    pub journal_mode: Option<JournalMode>,
}

/// What a search brought to light.
#[derive(Debug)]
#[non_exhaustive]
pub struct Discovery {
    /// The databases, sorted by path, each once.
    pub found: Vec<Found>,
    /// Files and directories with a fitting name that could not be read as such.
    pub unreadable: Vec<Error>,
}

/// Searches `directories` for databases.
///
/// # Errors
///
/// [`ErrorKind::Missing`] if a configured directory does not exist or is
/// something else, [`ErrorKind::Denied`] if it cannot be listed. Trouble further
/// down is part of the result.
pub fn discover(directories: &[PathBuf], options: &DiscoverOptions) -> Result<Discovery, Error> {
    let mut search = Search { options, found: BTreeMap::new(), unreadable: BTreeMap::new() };
    let mut pending: BTreeSet<PathBuf> = BTreeSet::new();
    for directory in directories {
        search.list(directory, &mut pending)?;
    }
    while let Some(directory) = pending.pop_first() {
        if let Err(error) = search.list(&directory, &mut pending) {
            search.unreadable.insert(directory, error);
        }
    }
    Ok(Discovery {
        found: search.found.into_values().collect(),
        unreadable: search.unreadable.into_values().collect(),
    })
}

struct Search<'a> {
    options: &'a DiscoverOptions,
    found: BTreeMap<PathBuf, Found>,
    unreadable: BTreeMap<PathBuf, Error>,
}

impl Search<'_> {
    fn list(&mut self, directory: &Path, pending: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
        let at = |error| Error::io(directory, error);
        for entry in fs::read_dir(directory).map_err(at)? {
            let entry = entry.map_err(at)?;
            let kind = entry.file_type().map_err(at)?;
            let path = entry.path();
            if kind.is_dir() && self.options.depth == Depth::Recursive {
                pending.insert(path);
            } else if kind.is_file() && self.is_wanted(&path) {
                match inspect(&path) {
                    Ok(found) => drop(self.found.insert(path, found)),
                    // It was there when the directory was listed and is gone now.
                    Err(error) if error.kind() == ErrorKind::Missing => {}
                    Err(error) => drop(self.unreadable.insert(path, error)),
                }
            }
        }
        Ok(())
    }

    fn is_wanted(&self, path: &Path) -> bool {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| {
            self.options.extensions.iter().any(|wanted| wanted.eq_ignore_ascii_case(extension))
        })
    }
}

fn inspect(path: &Path) -> Result<Found, Error> {
    let file = RawFile::open(path).map_err(|error| Error::io(path, error))?;
    let header = read_header(&file, path)?;
    Ok(Found {
        path: path.to_owned(),
        bytes: file.metadata().map_err(|error| Error::io(path, error))?.len(),
        page_size: header.map(|header| header.page_size),
        journal_mode: header.map(|header| header.journal_mode),
    })
}
