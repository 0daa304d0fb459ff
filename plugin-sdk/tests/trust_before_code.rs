//! A file that is refused has run none of its code: not even its constructors.
#![cfg(all(feature = "host", target_os = "linux"))]

mod common;

use std::path::Path;

use common::{Scratch, built, trusted};
use plugin_sdk::host::{
    Digest, Image, Library, LoadErrorKind, PluginLock, SigningKey, Trust, target,
};

/// How often the plugin's constructor has run in this process.
fn constructed() -> usize {
    let trace = std::env::temp_dir().join(format!("mercury-trace-{}", std::process::id()));
    std::fs::read(trace).map_or(0, |trace| trace.len())
}

#[test]
fn nothing_of_a_refused_file_has_run() {
    let dir = Scratch::new("before-code");
    let bytes = std::fs::read(built("traced_plugin")).expect("it is readable");
    let path = dir.file("libacme.so", &bytes);
    let lock = dir.path().join("plugins.lock");
    let mut pins = PluginLock::new();
    pins.pin("libacme.so", None, None, &target(), Digest::of(b"another build"));
    pins.write(&lock).expect("it is written");
    let vendor = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let vendor = SigningKey::parse(vendor).expect("a public key");

    let policies = [
        // The temporary directory is writable by everybody.
        (Trust::root_owned(), LoadErrorKind::Untrusted),
        (Trust::agent_owned(), LoadErrorKind::Untrusted),
        (trusted().pinned(&lock), LoadErrorKind::DigestMismatch),
        (trusted().pinned(dir.path().join("absent")), LoadErrorKind::LockMissing),
        (trusted().signed_by(vendor), LoadErrorKind::SignatureMissing),
        (trusted().with_sidecar(), LoadErrorKind::SidecarMissing),
    ];
    for (trust, expected) in policies {
        let error = Library::load(&path, &trust).expect_err("it is refused");
        assert_eq!(error.kind(), expected, "{error}");
        assert!(!error.kind().code_may_have_run());
    }
    std::fs::write(dir.path().join("acme.plugin.toml"), "form = 1").expect("it is written");
    let error = Library::load(&path, &trusted()).expect_err("it is refused");
    assert_eq!(error.kind(), LoadErrorKind::SidecarDamaged);
    std::fs::remove_file(dir.path().join("acme.plugin.toml")).expect("it is removed");
    let image = Image::open(&path, &trusted()).expect("it is trusted");
    assert_eq!(constructed(), 0, "opening an image runs nothing either");

    // The same file, trusted: so the constructor would have left its trace.
    Library::map(image).expect("it loads");
    assert_eq!(constructed(), 1);
    let _ = std::fs::remove_file(
        Path::new(&std::env::temp_dir()).join(format!("mercury-trace-{}", std::process::id())),
    );
}
