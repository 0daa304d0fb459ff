//! The frozen root: the two tables that plugin and host show each other.
//!
//! **How they grow.** A later minor version adds fields after the last one, never elsewhere; a
//! reader asks for an added field and is told whether the other side has it. A change of any other
//! kind is a new major version, which has a symbol of its own. (`abi_stable` also compares the
//! version of the crate that defines a type: the major version, or the minor one before 1.0, of
//! plugin-sdk is therefore part of the boundary.) What travels inside the documents
//! evolves on its own, and is where nearly everything evolves.

use std::fmt;
use std::marker::PhantomData;

use abi_stable::StableAbi;
use abi_stable::library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult};
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::RStr;

use super::bytes::AbiBytes;
use super::guard::contain_quietly;
use super::host_calls::AbiHost;
use super::task::AbiTask;

/// The major version of the boundary. It is part of the name of the exported symbol.
pub const ABI_MAJOR: u32 = 1;

/// What the exported symbol's name begins with; the version and the crate's name follow.
pub const SYMBOL_PREFIX: &str = "mercury_plugin_v";

/// What a plugin shows its host.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRoot_Ref)))]
pub struct PluginRoot {
    /// The plugin's manifest, a document.
    pub manifest: extern "C" fn() -> AbiOutcome<AbiBytes>,
    /// Makes an instance from a configuration document. It may be called several times.
    pub init: extern "C" fn(HostTable_Ref, AbiBytes) -> AbiOutcome<AbiInstance>,
    /// Starts a request on an instance of this plugin (its `data`).
    #[sabi(last_prefix_field)]
    pub start: unsafe extern "C" fn(*const (), AbiCall) -> AbiTask,
}

/// Starts a request on an instance (its `data`).
#[cfg(feature = "host")]
pub(crate) type Start = unsafe extern "C" fn(*const (), AbiCall) -> AbiTask;

/// What a host shows a plugin for as long as the library is loaded.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostTable_Ref)))]
pub struct HostTable {
    /// Given back to the host with each call.
    pub data: AbiToken,
    /// Whether a record of this level (1 error … 5 trace) and target is wanted.
    pub log_enabled: extern "C" fn(AbiToken, u8, RStr<'_>) -> bool,
    /// Takes a record.
    #[sabi(last_prefix_field)]
    pub log: extern "C" fn(AbiToken, AbiLog<'_>),
}

/// A pointer that only the host looks behind.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct AbiToken(pub(crate) *const ());

// SAFETY: the host puts a shared reference to `Sync` data that lives for ever behind it.
unsafe impl Send for AbiToken {}
// SAFETY: as above.
unsafe impl Sync for AbiToken {}

/// One record of the log.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiLog<'a> {
    /// One of the constants of [`record`](super::record).
    pub kind: u8,
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u8,
    /// The line in `file`, 0 if unknown.
    pub line: u32,
    /// The span that is opened or closed; 0 for an event.
    pub span: u64,
    /// The plugin's own span around this record, 0 for none.
    pub parent: u64,
    /// The request that the record belongs to ([`AbiCall::id`]), 0 for none.
    pub call: u64,
    /// The span's name.
    pub name: RStr<'a>,
    /// The module that logs.
    pub target: RStr<'a>,
    /// The source file, empty if unknown.
    pub file: RStr<'a>,
    /// The text.
    pub message: RStr<'a>,
    /// The fields, a JSON object, or empty.
    pub fields: RStr<'a>,
}

/// One request.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct AbiCall {
    /// A document.
    pub request: AbiBytes,
    /// The host, for the time of this request.
    pub host: AbiHost,
    /// A number of the host's, unique in the process, for the log.
    pub id: u64,
}

/// A value, a typed error, or a contained panic.
#[repr(C, u8)]
#[derive(StableAbi, Debug)]
pub enum AbiOutcome<T> {
    /// The value.
    Ok(T),
    /// The error's document.
    Error(AbiBytes),
    /// The other side panicked; the text of the panic.
    Panicked(AbiBytes),
}

/// An initialised plugin, as it crosses.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiInstance {
    pub(super) data: *const (),
    pub(super) drop: unsafe extern "C" fn(*const ()),
}

// SAFETY: the only constructor takes a `Send + Sync` value.
unsafe impl Send for AbiInstance {}
// SAFETY: as above; the other side only takes shared references.
unsafe impl Sync for AbiInstance {}

impl AbiInstance {
    pub(super) fn new<I: Send + Sync + 'static>(instance: I) -> Self {
        unsafe extern "C" fn release<I>(data: *const ()) {
            contain_quietly("dropping an instance", || {
                // SAFETY: `data` is the box below; this is the one call of `drop`.
                drop(unsafe { Box::from_raw(data.cast_mut().cast::<I>()) });
            });
        }
        Self { data: Box::into_raw(Box::new(instance)).cast_const().cast(), drop: release::<I> }
    }

    /// What `start` wants to see; valid as long as this value.
    #[cfg(feature = "host")]
    pub(crate) fn data(&self) -> *const () {
        self.data
    }
}

impl Drop for AbiInstance {
    fn drop(&mut self) {
        // SAFETY: called once, here.
        unsafe { (self.drop)(self.data) }
    }
}

impl RootModule for PluginRoot_Ref {
    abi_stable::declare_root_module_statics! {PluginRoot_Ref}
    const BASE_NAME: &'static str = "mercury_plugin";
    const NAME: &'static str = "mercury_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

/// Something that has a root to export.
pub trait RootProvider: 'static {
    /// The type of the root.
    type Root: RootModule;
    /// The root.
    fn root() -> Self::Root;
}

/// The static that a plugin exports; made by [`export_entry!`](crate::export_entry).
#[must_use]
pub const fn header<P: RootProvider>() -> LibHeader {
    extern "C" fn construct<P: RootProvider>() -> RootModuleResult {
        abi_stable::library::__call_root_module_loader(P::root)
    }
    // SAFETY: `construct` erases a `P::Root`, which is the type given here.
    unsafe { LibHeader::from_constructor::<P::Root>(construct::<P>, CheckTypeLayout::Yes) }
}

/// The root of `E` in a dynamic library.
pub struct Exported<E>(PhantomData<E>);

macro_rules! opaque_debug {
    ($($name:ident: $type:ty),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
opaque_debug!(
    PluginRoot: PluginRoot,
    HostTable: HostTable,
    AbiToken: AbiToken,
    AbiInstance: AbiInstance,
    AbiLog: AbiLog<'_>
);

impl<E> fmt::Debug for Exported<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exported").finish_non_exhaustive()
    }
}
