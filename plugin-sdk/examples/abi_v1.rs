//! A plugin that was built when version 1.0 of the boundary was all there was: it knows nothing of
//! this crate, only the frozen types.

#[path = "../tests/fixtures/abi_v1/wire.rs"]
mod wire;

use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleResult};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::RStr;
use wire::{
    AbiBytes, AbiCall, AbiInstance, AbiLog, AbiOutcome, AbiReply, AbiTask, HostTable_Ref,
    PluginRoot, PluginRoot_Ref,
};

/// What `export_entry!` made then.
// SAFETY: no other symbol of this library has the name.
#[unsafe(export_name = "mercury_plugin_v1_abi_v1")]
// SAFETY: `construct` erases the type that is named here.
static HEADER: LibHeader =
    unsafe { LibHeader::from_constructor::<PluginRoot_Ref>(construct, CheckTypeLayout::Yes) };

extern "C" fn construct() -> RootModuleResult {
    abi_stable::library::__call_root_module_loader(|| {
        PluginRoot { manifest, init, start }.leak_into_prefix()
    })
}

extern "C" fn manifest() -> AbiOutcome<AbiBytes> {
    AbiOutcome::Ok(AbiBytes::of(b"v1".to_vec()))
}

extern "C" fn init(host: HostTable_Ref, _config: AbiBytes) -> AbiOutcome<AbiInstance> {
    unsafe extern "C" fn release(data: *const ()) {
        // SAFETY: `data` is the box below, and this is its one release.
        drop(unsafe { Box::from_raw(data.cast_mut().cast::<HostTable_Ref>()) });
    }
    let data = Box::into_raw(Box::new(host)).cast_const().cast();
    AbiOutcome::Ok(AbiInstance { data, drop: release })
}

unsafe extern "C" fn start(instance: *const (), call: AbiCall) -> AbiTask {
    // SAFETY: the host passes the `data` of an instance that it has not dropped.
    let host = unsafe { *instance.cast::<HostTable_Ref>() };
    let request = call.request.to_vec();
    match &request[..] {
        b"log" => {
            log(host, call.id, "a word from 1.0");
            AbiTask::ready(AbiReply::ok(b"logged".to_vec()))
        }
        b"ask" => {
            let body = AbiBytes::of(b"from 1.0".to_vec());
            // SAFETY: the handle is not dropped yet.
            let task = unsafe { (call.host.call)(call.host.data, RStr::from_str("echo"), body) };
            match task.run() {
                Ok(reply) => AbiTask::ready(reply),
                Err(text) => AbiTask::ready(AbiReply { status: 1, ..AbiReply::ok(text) }),
            }
        }
        _ => AbiTask::ready(AbiReply::ok(request)),
    }
}

fn log(host: HostTable_Ref, call: u64, message: &str) {
    let target = RStr::from_str("abi_v1");
    if !(host.log_enabled())(host.data(), 3, target) {
        return;
    }
    let nothing = RStr::from_str("");
    (host.log())(
        host.data(),
        AbiLog {
            kind: 0,
            level: 3,
            line: 0,
            span: 0,
            parent: 0,
            call,
            name: nothing,
            target,
            file: nothing,
            message: RStr::from_str(message),
            fields: nothing,
        },
    );
}
