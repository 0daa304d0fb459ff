//! Reads what a file exports, without running any of it.
//!
//! `dlopen` runs a library's constructors, and maps a file that is cut short so that touching it
//! kills the process. So the file is read first, as data: whether it is a whole library for this
//! platform, whether it exports a plugin, and which version of the boundary that plugin speaks.

use std::fs::File;
use std::path::Path;

use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use object::{Object, ObjectSymbol, elf};

use super::error::{LoadError, LoadErrorKind};
use crate::abi::{ABI_MAJOR, C_SYMBOL_PREFIX, SYMBOL_PREFIX};

#[cfg(target_pointer_width = "64")]
type Header = elf::FileHeader64<object::Endianness>;
#[cfg(target_pointer_width = "32")]
type Header = elf::FileHeader32<object::Endianness>;

/// What a library exports a plugin as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PluginSymbol {
    /// A header with described types, under this name.
    Described(String),
    /// A plain table, under this name.
    Plain(String),
}

impl PluginSymbol {
    /// The name.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Described(name) | Self::Plain(name) => name,
        }
    }
}

/// The symbol that the plugin in `file` exports.
pub(super) fn plugin_symbol(path: &Path, file: File) -> Result<PluginSymbol, LoadError> {
    let fail = |kind, what: &str| Err(LoadError::new(kind, path, what));
    let size = match file.metadata() {
        Ok(metadata) => metadata.len(),
        Err(error) => {
            return Err(LoadError::new(LoadErrorKind::Unreadable, path, "cannot be examined")
                .caused_by(error));
        }
    };
    if size == 0 {
        return fail(LoadErrorKind::NotALibrary, "is empty; copy the plugin again");
    }
    let cache = ReadCache::new(file);
    match cache.read_bytes_at(0, 4) {
        Ok(magic) if magic == &b"\x7fELF"[..] => {}
        _ => return fail(LoadErrorKind::NotALibrary, "is not a dynamic library"),
    }
    let damaged = |error: object::Error| {
        let what = "is a damaged or incomplete library; copy the plugin again";
        LoadError::new(LoadErrorKind::Damaged, path, what).caused_by(error)
    };
    let Ok(header) = Header::parse(&cache) else {
        // The magic is right; either the rest is missing or the pointer width is another.
        return match cache.read_bytes_at(0, 64) {
            Ok(_) => fail(LoadErrorKind::OtherPlatform, "is a library for another platform"),
            Err(()) => fail(LoadErrorKind::Damaged, "is an incomplete library; copy it again"),
        };
    };
    let endian = header.endian().map_err(damaged)?;
    if MACHINE.is_some_and(|machine| header.e_machine(endian) != machine) {
        return fail(LoadErrorKind::OtherPlatform, "is a library for another processor");
    }
    if header.e_type(endian) != elf::ET_DYN {
        return fail(LoadErrorKind::NotALibrary, "is an ELF file, but not a dynamic library");
    }
    for segment in header.program_headers(endian, &cache).map_err(damaged)? {
        let (offset, len) = segment.file_range(endian);
        if offset.checked_add(len).is_none_or(|end| end > size) {
            let what = "is an incomplete library; copy the plugin again";
            return fail(LoadErrorKind::Damaged, what);
        }
    }
    let parsed = ElfFile::<Header, _>::parse(&cache).map_err(damaged)?;
    let exported = parsed
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| name.starts_with(SYMBOL_PREFIX) || name.starts_with(C_SYMBOL_PREFIX));
    choose(path, exported.map(ToOwned::to_owned).collect())
}

/// The one symbol of this version among the plugin symbols that a file exports.
fn choose(path: &Path, exported: Vec<String>) -> Result<PluginSymbol, LoadError> {
    let spoken: Vec<Option<u32>> = exported.iter().map(|name| major(name)).collect();
    let mut mine = exported
        .iter()
        .zip(&spoken)
        .filter_map(|(name, major)| (*major == Some(ABI_MAJOR)).then_some(name));
    match (mine.next(), mine.next()) {
        (Some(symbol), None) if symbol.starts_with(C_SYMBOL_PREFIX) => {
            Ok(PluginSymbol::Plain(symbol.clone()))
        }
        (Some(symbol), None) => Ok(PluginSymbol::Described(symbol.clone())),
        (Some(one), Some(two)) => {
            let what = format!("exports two plugins ({one}, {two}); load one library for each");
            Err(LoadError::new(LoadErrorKind::NotAPlugin, path, what))
        }
        (None, _) => match spoken.into_iter().flatten().max() {
            Some(theirs) => {
                let older = if theirs > ABI_MAJOR { "this agent" } else { "the plugin" };
                let what = format!(
                    "speaks version {theirs} of the plugin ABI, this agent speaks {ABI_MAJOR}; \
                     update {older}"
                );
                Err(LoadError::new(LoadErrorKind::OtherAbi, path, what))
            }
            None => {
                let what = "is a library, but exports no plugin (see `export!` in plugin-sdk)";
                Err(LoadError::new(LoadErrorKind::NotAPlugin, path, what))
            }
        },
    }
}

/// The version in a symbol's name: `mercury_plugin_v<version>_<crate>`, or
/// `mercury_c_plugin_v<version>`.
fn major(symbol: &str) -> Option<u32> {
    if let Some(version) = symbol.strip_prefix(C_SYMBOL_PREFIX) {
        return version.parse().ok();
    }
    let (version, _crate) = symbol.strip_prefix(SYMBOL_PREFIX)?.split_once('_')?;
    version.parse().ok()
}

/// What a library for this processor says it is for; unknown ones are left to the system's loader.
const MACHINE: Option<elf::Machine> = if cfg!(target_arch = "x86_64") {
    Some(elf::EM_X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(elf::EM_AARCH64)
} else {
    None
};

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(exported: &[&str], expected: Result<&str, LoadErrorKind>) {
        let exported = exported.iter().map(|name| (*name).to_owned()).collect();
        let chosen = choose(Path::new("/p.so"), exported);
        let chosen = chosen.as_ref().map(PluginSymbol::as_str).map_err(LoadError::kind);
        assert_eq!(chosen, expected.as_deref().map_err(|kind| *kind));
    }

    #[test]
    fn the_one_symbol_of_this_version_is_chosen() {
        check(&["mercury_plugin_v1_acme"], Ok("mercury_plugin_v1_acme"));
        check(&["mercury_plugin_v2_acme", "mercury_plugin_v1_acme"], Ok("mercury_plugin_v1_acme"));
        check(&["mercury_plugin_v2_acme"], Err(LoadErrorKind::OtherAbi));
        check(&["mercury_plugin_v0_acme"], Err(LoadErrorKind::OtherAbi));
        check(&["mercury_plugin_v1_a", "mercury_plugin_v1_b"], Err(LoadErrorKind::NotAPlugin));
        check(&["mercury_plugin_vx_acme", "mercury_plugin_v"], Err(LoadErrorKind::NotAPlugin));
        check(&[], Err(LoadErrorKind::NotAPlugin));
        check(&["mercury_c_plugin_v1"], Ok("mercury_c_plugin_v1"));
        check(&["mercury_c_plugin_v2", "mercury_c_plugin_v1"], Ok("mercury_c_plugin_v1"));
        check(&["mercury_c_plugin_v2"], Err(LoadErrorKind::OtherAbi));
        let both = &["mercury_c_plugin_v1", "mercury_plugin_v1_acme"];
        check(both, Err(LoadErrorKind::NotAPlugin));
        check(&["mercury_c_plugin_v1_acme"], Err(LoadErrorKind::NotAPlugin));
    }
}
