//! Opens a library whose file has been checked, and proves that its tables have our shape.

use std::ffi::c_void;
use std::path::Path;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityErrors, check_layout_compatibility,
};
use abi_stable::library::{AbiHeaderRef, LibHeader, LibraryError, RootModule};

use super::error::{LoadError, LoadErrorKind};
use crate::abi::{ABI_MAJOR, AbiCPlugin, CTableError};

/// The header of a plugin with described types.
pub(super) fn header(
    path: &Path,
    file: &Path,
    symbol: &str,
) -> Result<&'static LibHeader, LoadError> {
    // SAFETY: what a plugin exports under this name is a `LibHeader`, which begins with the header
    // that `AbiHeaderRef` points to; `upgrade` looks at the magic before anything else.
    let header: AbiHeaderRef = unsafe { open(path, file, symbol) }?;
    header.upgrade().map_err(|error| {
        tracing::debug!(path = %path.display(), %error, "the library's header does not fit");
        let what =
            "was built with another version of abi_stable; build it with a released plugin-sdk";
        LoadError::new(LoadErrorKind::Layout, path, what)
    })
}

/// The table of a plugin in C.
pub(super) fn plain(path: &Path, file: &Path, symbol: &str) -> Result<AbiCPlugin, LoadError> {
    // SAFETY: what a plugin exports under this name is a table that says how long it is. That it
    // is true is the author's to see to.
    let table =
        unsafe { open::<*const AbiCPlugin>(path, file, symbol).map(|at| AbiCPlugin::read(at)) }?;
    table.map_err(|error| {
        let (kind, what) = match error {
            CTableError::NoMagic => (
                LoadErrorKind::Layout,
                "has a table that does not begin with MERCURY_MAGIC; start from \
                 include/mercury_plugin.h"
                    .to_owned(),
            ),
            CTableError::OtherMajor(theirs) => (
                LoadErrorKind::OtherAbi,
                format!("speaks version {theirs} of the plugin ABI, this agent speaks {ABI_MAJOR}"),
            ),
            CTableError::TooShort(size) => (
                LoadErrorKind::Layout,
                format!("has a table of {size} bytes, too short to be one; set its struct_size"),
            ),
            CTableError::NoFunction(name) => {
                (LoadErrorKind::Layout, format!("has no function `{name}` in its table"))
            }
        };
        LoadError::new(kind, path, what)
    })
}

/// Maps the library `path`, whose bytes are at `file`, and returns the address behind `symbol` as a
/// `T`. The library stays for good.
///
/// # Safety
///
/// `T` is a pointer to what the symbol is.
#[cfg(target_os = "linux")]
unsafe fn open<T: Copy>(path: &Path, file: &Path, symbol: &str) -> Result<T, LoadError> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

    // Thread-local destructors and threads of the plugin's keep pointing into it.
    const RTLD_NODELETE: i32 = 0x1000;

    let refused = |error: libloading::Error| {
        let what = "was refused by the system's loader; check what it depends on, and see \
                    `Trust::in_place` if that lies beside it";
        LoadError::new(LoadErrorKind::Refused, path, what).caused_by(error)
    };
    assert!(file.is_absolute(), "a path without a slash would be looked for in system directories");
    // SAFETY: opening runs the library's constructors. The policy trusts the bytes, they are whole,
    // and they export a plugin.
    let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) }
        .map_err(refused)?;
    // SAFETY: only the symbol's address is taken.
    let address: *const c_void = unsafe { *library.get(symbol.as_bytes()).map_err(refused)? };
    if !is_of(address, file) {
        let what = "was answered with another library by the system's loader; restart the agent";
        return Err(LoadError::new(LoadErrorKind::Refused, path, what));
    }
    // SAFETY: the caller's promise.
    let at = unsafe { *library.get::<T>(symbol.as_bytes()).map_err(refused)? };
    // Not closed: see above.
    std::mem::forget(library);
    Ok(at)
}

/// Whether the system's loader opened `file` for the library that `address` lies in.
///
/// It takes a file that it knows by name or by inode for the one that it has. Names and inodes of
/// images are never used twice; this is the proof.
#[cfg(target_os = "linux")]
fn is_of(address: *const c_void, file: &Path) -> bool {
    use std::ffi::{CStr, OsStr};
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;

    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: `dladdr` only compares the address, and fills `info` in if it does not return 0.
    if unsafe { libc::dladdr(address, info.as_mut_ptr()) } == 0 {
        return false;
    }
    // SAFETY: it did not return 0, so `info` is filled in.
    let name = unsafe { info.assume_init() }.dli_fname;
    // SAFETY: the loader's own string, which lives as long as the library, that is for good.
    let name = unsafe { CStr::from_ptr(name) };
    OsStr::from_bytes(name.to_bytes()) == file.as_os_str()
}

#[cfg(not(target_os = "linux"))]
unsafe fn open<T: Copy>(path: &Path, _file: &Path, _symbol: &str) -> Result<T, LoadError> {
    let what = "cannot be loaded: dynamic plugins are not supported on this platform yet";
    Err(LoadError::new(LoadErrorKind::OtherPlatform, path, what))
}

/// The root behind `header`, once its layout is known to fit in one direction or the other.
///
/// A newer plugin has everything that this host knows. An older plugin lacks what was added since;
/// then this host must have everything that the plugin knows, and reading an added field answers
/// "not there".
pub(super) fn root<R: RootModule>(path: &Path, header: &LibHeader) -> Result<R, LoadError> {
    let forward = match header.init_root_module::<R>() {
        Ok(root) => return Ok(root),
        Err(error @ LibraryError::AbiInstability(_)) => error,
        Err(error) => return Err(other(path, &error)),
    };
    let Some(theirs) = header.layout() else { return Err(mismatch(path, &forward)) };
    if let Err(backward) = check_layout_compatibility(theirs, <R as StableAbi>::LAYOUT) {
        return Err(other_sdk(path, &backward).unwrap_or_else(|| mismatch(path, &forward)));
    }
    // SAFETY: the check above shows that `R` has every field of the plugin's root, in place and of
    // the same type, and more after them; a prefix reference reads a field only if the table
    // itself says that it has it.
    unsafe { header.init_root_module_with_unchecked_layout::<R>() }
        .map_err(|error| other(path, &error))
}

/// The refusal of a plugin whose SDK is of another release line than ours. `abi_stable` takes every
/// type of such a crate for another type, so this is the reason, whatever else differs.
fn other_sdk(path: &Path, differ: &AbiInstabilityErrors) -> Option<LoadError> {
    let (theirs, ours) = differ.errors.iter().flat_map(|error| &error.errs).find_map(|error| {
        let AbiInstability::PackageVersion(versions) = error else { return None };
        Some((versions.expected, versions.found))
    })?;
    let what = format!(
        "was built with plugin-sdk {theirs}, this agent with {ours}; build it with the agent's \
         release line"
    );
    Some(LoadError::new(LoadErrorKind::OtherAbi, path, what))
}

fn mismatch(path: &Path, error: &LibraryError) -> LoadError {
    // Hundreds of lines, for whoever changed a type of the boundary.
    tracing::debug!(path = %path.display(), %error, "the layouts differ");
    let what = "has tables of another layout than its version says; build it with a released \
                plugin-sdk";
    LoadError::new(LoadErrorKind::Layout, path, what)
}

fn other(path: &Path, error: &LibraryError) -> LoadError {
    tracing::debug!(path = %path.display(), %error, "the root could not be made");
    match error {
        LibraryError::IncompatibleVersionNumber { expected_version, actual_version, .. } => {
            let what = format!(
                "speaks version {actual_version} of the plugin ABI, this agent speaks \
                 {expected_version}"
            );
            LoadError::new(LoadErrorKind::OtherAbi, path, what)
        }
        _ => LoadError::new(LoadErrorKind::Layout, path, "could not make its root table"),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::PathBuf;

    use abi_stable::sabi_types::VersionStrings;

    use super::*;
    use crate::host::elf;

    /// The tables of a host of a later minor version: one more field in each.
    #[allow(dead_code, non_camel_case_types)] // what the derive generates
    mod later {
        use abi_stable::StableAbi;
        use abi_stable::std_types::RStr;

        use super::{RootModule, VersionStrings};
        use crate::abi::{AbiBytes, AbiCall, AbiInstance, AbiLog, AbiOutcome, AbiTask, AbiToken};

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = PluginRoot_Ref)))]
        pub(super) struct PluginRoot {
            pub(super) manifest: extern "C" fn() -> AbiOutcome<AbiBytes>,
            pub(super) init: extern "C" fn(HostTable_Ref, AbiBytes) -> AbiOutcome<AbiInstance>,
            #[sabi(last_prefix_field)]
            pub(super) start: unsafe extern "C" fn(*const (), AbiCall) -> AbiTask,
            pub(super) explain: extern "C" fn() -> u64,
        }

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = HostTable_Ref)))]
        pub(super) struct HostTable {
            pub(super) data: AbiToken,
            pub(super) log_enabled: extern "C" fn(AbiToken, u8, RStr<'_>) -> bool,
            #[sabi(last_prefix_field)]
            pub(super) log: extern "C" fn(AbiToken, AbiLog<'_>),
            pub(super) count: extern "C" fn(AbiToken, u64),
        }

        impl RootModule for PluginRoot_Ref {
            abi_stable::declare_root_module_statics! {PluginRoot_Ref}
            const BASE_NAME: &'static str = "mercury_plugin";
            const NAME: &'static str = "mercury_plugin";
            const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.1.0");
        }
    }

    fn built(name: &str) -> (PathBuf, &'static LibHeader) {
        let program = std::env::current_exe().expect("this program has a path");
        let target = program.ancestors().nth(2).expect("target/<profile>/deps/<program>");
        let path = target.join(format!("examples/lib{name}.so"));
        let file = std::fs::File::open(&path).expect("`cargo test` builds the examples first");
        let symbol = elf::plugin_symbol(&path, file).expect("a plugin");
        let header = header(&path, &path, symbol.as_str()).expect("it opens");
        (path, header)
    }

    /// The manifest that a host of a later version gets, and whether it finds its added function.
    fn seen_later(name: &str) -> (Vec<u8>, bool) {
        let (path, header) = built(name);
        let root = root::<later::PluginRoot_Ref>(&path, header).expect("it loads");
        let crate::abi::AbiOutcome::Ok(manifest) = (root.manifest())() else {
            panic!("no manifest")
        };
        (manifest.as_ref().to_vec(), root.explain().is_some_and(|explain| explain() == 42))
    }

    #[test]
    fn a_later_host_loads_an_earlier_plugin_and_sees_what_it_lacks() {
        let (_, plugin) = built("abi_fixture");
        assert!(plugin.init_root_module::<later::PluginRoot_Ref>().is_err(), "not forward");
        assert_eq!(seen_later("abi_v1"), (b"v1".to_vec(), false));
        assert_eq!(seen_later("abi_fixture"), (br#"{"workload":"fixture"}"#.to_vec(), false));
    }

    #[test]
    fn an_earlier_host_loads_a_later_plugin() {
        for name in ["abi_v1", "abi_fixture", "abi_longer"] {
            let (path, header) = built(name);
            root::<crate::abi::PluginRoot_Ref>(&path, header).expect("forward");
        }
    }

    #[test]
    fn a_change_that_is_no_addition_is_refused_in_both_directions() {
        for (name, kind) in [
            ("abi_changed", LoadErrorKind::Layout),
            ("abi_enum", LoadErrorKind::Layout),
            ("abi_major", LoadErrorKind::OtherAbi),
        ] {
            let (path, header) = built(name);
            let refused = root::<crate::abi::PluginRoot_Ref>(&path, header).map(|_| ());
            assert_eq!(refused.map_err(|error| error.kind()), Err(kind), "{name}");
            let refused = root::<later::PluginRoot_Ref>(&path, header).map(|_| ());
            assert_eq!(refused.map_err(|error| error.kind()), Err(kind), "{name}");
        }
    }
}
