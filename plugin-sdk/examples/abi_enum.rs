//! A plugin that claims to be of this version, but whose outcomes have one more variant.
// The derive makes accessors that only a host would use.
#![allow(dead_code, non_camel_case_types, missing_debug_implementations)]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;
use plugin_sdk::abi::{
    AbiBytes, AbiCall, AbiInstance, AbiTask, AbiToken, HostTable_Ref, RootProvider,
};

#[repr(C, u8)]
#[derive(StableAbi)]
enum AbiOutcome<T> {
    Ok(T),
    Error(AbiBytes),
    Panicked(AbiBytes),
    Later(AbiToken),
}

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRoot_Ref)))]
struct PluginRoot {
    manifest: extern "C" fn() -> AbiOutcome<AbiBytes>,
    init: extern "C" fn(HostTable_Ref, AbiBytes) -> AbiOutcome<AbiInstance>,
    #[sabi(last_prefix_field)]
    start: unsafe extern "C" fn(*const (), AbiCall) -> AbiTask,
}

impl RootModule for PluginRoot_Ref {
    abi_stable::declare_root_module_statics! {PluginRoot_Ref}
    const BASE_NAME: &'static str = "mercury_plugin";
    const NAME: &'static str = "mercury_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

struct Provider;
impl RootProvider for Provider {
    type Root = PluginRoot_Ref;
    fn root() -> PluginRoot_Ref {
        PluginRoot { manifest, init, start }.leak_into_prefix()
    }
}

// None of them is ever called: the layout is refused before.
extern "C" fn manifest() -> AbiOutcome<AbiBytes> {
    std::process::abort()
}
extern "C" fn init(_: HostTable_Ref, _: AbiBytes) -> AbiOutcome<AbiInstance> {
    std::process::abort()
}
unsafe extern "C" fn start(_: *const (), _: AbiCall) -> AbiTask {
    std::process::abort()
}

plugin_sdk::export_entry!(@root Provider);
