//! A plugin that has the symbol of this version, but says of itself that it is of the next major one.
// The derive makes accessors that only a host would use.
#![allow(dead_code, non_camel_case_types, missing_debug_implementations)]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;
use bytes::Bytes;
use plugin_sdk::abi::{
    AbiBytes, AbiCall, AbiInstance, AbiOutcome, AbiTask, BoxFuture, Call, Entry, HostTable_Ref,
    Instance, Reply, RootProvider,
};

struct Base;
impl Entry for Base {
    fn manifest() -> Vec<u8> {
        b"major".to_vec()
    }
    fn init(_: Bytes) -> Result<Box<dyn Instance>, Vec<u8>> {
        Ok(Box::new(Self))
    }
}
impl Instance for Base {
    fn start(&self, call: Call) -> BoxFuture<Reply> {
        Box::pin(async { Reply::ok(call.request) })
    }
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
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("2.0.0");
}

struct Provider;
impl RootProvider for Provider {
    type Root = PluginRoot_Ref;
    fn root() -> PluginRoot_Ref {
        let base = plugin_sdk::abi::root::<Base>();
        PluginRoot { manifest: base.manifest(), init: base.init(), start: base.start() }
            .leak_into_prefix()
    }
}

plugin_sdk::export_entry!(@root Provider);
