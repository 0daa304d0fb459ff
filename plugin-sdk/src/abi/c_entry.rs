//! The entry of plugins that are not written in Rust.
//!
//! A header of `abi_stable` describes each type in a form that only Rust can build. So a plugin in C
//! exports a plain table instead, under [`C_SYMBOL_PREFIX`] and the major version: the same three
//! functions over the same types, behind a magic number, a version and the table's own size.
//! `include/mercury_plugin.h` declares all of it.
//!
//! **How it grows.** As the root does: a later minor version adds functions after the last one, in
//! either table. Whoever reads a table reads as much of it as its size says. Nothing proves that
//! the author compiled the right header; a plugin of this kind is best run in a process of its own.

use abi_stable::StableAbi;
use abi_stable::std_types::RStr;

use super::bytes::AbiBytes;
use super::root::{AbiCall, AbiInstance, AbiLog, AbiOutcome, AbiToken};
use super::task::AbiTask;

/// What the symbol of a plain table begins with; the major version follows.
pub const C_SYMBOL_PREFIX: &str = "mercury_c_plugin_v";

/// The first bytes of a plain table: `mrcyplug`, as a number.
pub const C_MAGIC: u64 = u64::from_be_bytes(*b"mrcyplug");

/// The minor version of the boundary that this crate speaks.
pub const ABI_MINOR: u32 = 0;

/// What a plugin written in C shows its host.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct AbiCPlugin {
    pub(crate) magic: u64,
    pub(crate) abi_major: u32,
    pub(crate) abi_minor: u32,
    pub(crate) struct_size: usize,
    pub(crate) manifest: extern "C" fn() -> AbiOutcome<AbiBytes>,
    pub(crate) init: unsafe extern "C" fn(*const AbiCHost, AbiBytes) -> AbiOutcome<AbiInstance>,
    pub(crate) start: unsafe extern "C" fn(*const (), AbiCall) -> AbiTask,
}

/// What a host shows a plugin written in C for as long as the library is loaded.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct AbiCHost {
    pub(crate) magic: u64,
    pub(crate) abi_major: u32,
    pub(crate) abi_minor: u32,
    pub(crate) struct_size: usize,
    pub(crate) data: AbiToken,
    pub(crate) log_enabled: extern "C" fn(AbiToken, u8, RStr<'_>) -> bool,
    pub(crate) log: extern "C" fn(AbiToken, AbiLog<'_>),
}

impl std::fmt::Debug for AbiCPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AbiCPlugin").field("abi_minor", &self.abi_minor).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AbiCHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AbiCHost").field("abi_minor", &self.abi_minor).finish_non_exhaustive()
    }
}

/// Why a plain table cannot be used.
#[cfg(feature = "host")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CTableError {
    NoMagic,
    OtherMajor(u32),
    TooShort(usize),
    NoFunction(&'static str),
}

#[cfg(feature = "host")]
impl AbiCPlugin {
    /// Reads a table.
    ///
    /// # Safety
    ///
    /// `table` is aligned and readable for 24 bytes; and, if these say that it is a table of this
    /// major version, for as many bytes as they say.
    pub(crate) unsafe fn read(table: *const Self) -> Result<Self, CTableError> {
        use std::mem::offset_of;
        use std::ptr::addr_of;

        // SAFETY: the caller's promise.
        let (magic, major, size) = unsafe {
            let magic = addr_of!((*table).magic).read();
            let major = addr_of!((*table).abi_major).read();
            (magic, major, addr_of!((*table).struct_size).read())
        };
        if magic != C_MAGIC {
            return Err(CTableError::NoMagic);
        }
        if major != super::root::ABI_MAJOR {
            return Err(CTableError::OtherMajor(major));
        }
        // Version 1.0 ends with `start`. What is added later is read if the size covers it.
        if size < offset_of!(Self, start) + size_of::<usize>() {
            return Err(CTableError::TooShort(size));
        }
        for (name, offset) in [
            ("manifest", offset_of!(Self, manifest)),
            ("init", offset_of!(Self, init)),
            ("start", offset_of!(Self, start)),
        ] {
            // SAFETY: the size covers the field, which is a pointer. It is read as a number, as a
            // function's pointer may not be null in Rust.
            if unsafe { table.byte_add(offset).cast::<usize>().read() } == 0 {
                return Err(CTableError::NoFunction(name));
            }
        }
        // SAFETY: the table is as long as this type, and none of its functions is null.
        Ok(unsafe { table.read() })
    }
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;

    extern "C" fn manifest() -> AbiOutcome<AbiBytes> {
        AbiOutcome::Error(String::new().into())
    }
    unsafe extern "C" fn init(_: *const AbiCHost, _: AbiBytes) -> AbiOutcome<AbiInstance> {
        AbiOutcome::Error(String::new().into())
    }
    unsafe extern "C" fn start(_: *const (), _: AbiCall) -> AbiTask {
        AbiTask::panicked(String::new())
    }

    /// A table of a later minor version: one more function.
    #[repr(C)]
    struct Later {
        known: AbiCPlugin,
        explain: usize,
    }

    fn table() -> Later {
        let known = AbiCPlugin {
            magic: C_MAGIC,
            abi_major: 1,
            abi_minor: 7,
            struct_size: size_of::<Later>(),
            manifest,
            init,
            start,
        };
        Later { known, explain: 1 }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut AbiCPlugin), expected: Result<(), CTableError>) {
        let mut table = table();
        change(&mut table.known);
        // SAFETY: the table is whole, whatever it says of itself.
        let read = unsafe { AbiCPlugin::read(&raw const table.known) };
        assert_eq!(read.map(|_| ()), expected);
        assert_eq!(table.explain, 1);
    }

    #[test]
    fn a_table_is_read_as_far_as_it_goes_and_refused_for_its_own_reason() {
        check(|_| (), Ok(()));
        check(|table| table.struct_size = size_of::<AbiCPlugin>(), Ok(()));
        check(|table| table.magic += 1, Err(CTableError::NoMagic));
        check(|table| table.abi_major = 2, Err(CTableError::OtherMajor(2)));
        let short = size_of::<AbiCPlugin>() - 1;
        check(|table| table.struct_size = short, Err(CTableError::TooShort(short)));
        check(|table| table.struct_size = 0, Err(CTableError::TooShort(0)));
    }

    #[test]
    fn a_missing_function_is_refused_by_name() {
        for (nth, name) in ["manifest", "init", "start"].into_iter().enumerate() {
            let mut table = table();
            let at = std::mem::offset_of!(AbiCPlugin, manifest) + nth * size_of::<usize>();
            // SAFETY: the field is a pointer, and nobody looks at it as a function any more.
            unsafe { (&raw mut table.known).byte_add(at).cast::<usize>().write(0) };
            // SAFETY: the table is whole.
            let read = unsafe { AbiCPlugin::read(&raw const table.known) };
            assert_eq!(read.map(|_| ()), Err(CTableError::NoFunction(name)));
        }
    }
}
