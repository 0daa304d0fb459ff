//! A plugin whose panics would end its host does not compile.
#![cfg(all(feature = "host", target_os = "linux"))]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// This crate's library as it was built for this program: the newest.
fn library() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    let deps = program.parent().expect("it is in a directory");
    let built = fs::read_dir(deps).expect("the directory is readable").filter_map(Result::ok);
    let named = built.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("libplugin_sdk-") && name.ends_with(".rlib")
    });
    let newest = named.max_by_key(|entry| {
        entry.metadata().and_then(|metadata| metadata.modified()).expect("the file has a time")
    });
    newest.expect("this crate was built").path()
}

/// Compiles a plugin that does nothing.
fn compile(strategy: &str) -> Output {
    let program = std::env::current_exe().expect("this program has a path");
    let deps = program.parent().expect("it is in a directory");
    let scratch = std::env::temp_dir().join(format!("mercury-{strategy}-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a scratch directory");
    let source = scratch.join("plugin.rs");
    fs::write(
        &source,
        "struct Nothing;
         impl plugin_sdk::abi::RootProvider for Nothing {
             type Root = plugin_sdk::abi::PluginRoot_Ref;
             fn root() -> Self::Root { unimplemented!() }
         }
         plugin_sdk::export_entry!(@root Nothing);",
    )
    .expect("the scratch directory is writable");
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-type=cdylib", "--emit=metadata", "--color=never"])
        .arg(format!("-Cpanic={strategy}"))
        .arg(format!("-Ldependency={}", deps.display()))
        .arg(format!("--extern=plugin_sdk={}", library().display()))
        .arg("--out-dir")
        .arg(&scratch)
        .arg(&source)
        .env("CARGO_CRATE_NAME", "nothing")
        .output()
        .expect("there is a compiler");
    let _ = fs::remove_dir_all(&scratch);
    output
}

#[test]
fn a_plugin_with_panic_abort_does_not_compile_and_one_with_unwind_does() {
    let unwinds = compile("unwind");
    assert!(unwinds.status.success(), "{}", String::from_utf8_lossy(&unwinds.stderr));
    let aborts = compile("abort");
    let said = String::from_utf8_lossy(&aborts.stderr).into_owned();
    assert!(!aborts.status.success(), "{said}");
    assert!(said.contains("must be built with panic = \"unwind\""), "{said}");
}
