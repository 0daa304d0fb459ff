//! What is loaded, what is refused, and how the refusal reads.
#![cfg(all(feature = "host", target_os = "linux"))]

mod common;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::{Scratch, ask, both, built, fixture, loaded, trusted};
use plugin_sdk::host::{InitError, Library, LoadErrorKind, Trust};

/// The file is refused for this reason, in one line that names it and says `advice`.
#[track_caller]
fn check(path: &Path, expected: LoadErrorKind, advice: &str) {
    let error = Library::load(path, &trusted()).expect_err("the file is refused");
    assert_eq!(error.kind(), expected, "{error}");
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains(&*path.file_name().unwrap_or_default().to_string_lossy()), "{line}");
    assert!(line.contains(advice), "{line}");
    assert!(line.len() < 300, "{line}");
}

fn libc() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this process has a map");
    maps.split_whitespace()
        .find(|word| word.starts_with('/') && word.contains("libc.so"))
        .map(PathBuf::from)
        .expect("this program uses the C library")
}

#[test]
fn a_file_that_is_no_plugin_is_refused_for_its_own_reason() {
    let dir = Scratch::new("refused");
    let whole = std::fs::read(built("abi_fixture")).expect("the fixture is readable");

    check(&dir.path().join("absent.so"), LoadErrorKind::Missing, "no such file");
    check(dir.path(), LoadErrorKind::NotAFile, "name the library itself");
    check(Path::new("/dev/null"), LoadErrorKind::NotAFile, "is not a file");
    check(&dir.file("empty.so", b""), LoadErrorKind::NotALibrary, "empty");
    check(&dir.file("text.so", b"#!/bin/sh\n"), LoadErrorKind::NotALibrary, "not a dynamic");
    check(&dir.file("magic.so", b"\x7fELF"), LoadErrorKind::Damaged, "copy it again");
    let mut other = whole.clone();
    other[18] = 8; // e_machine: MIPS
    check(&dir.file("other.so", &other), LoadErrorKind::OtherPlatform, "processor");
    check(&libc(), LoadErrorKind::NotAPlugin, "exports no plugin");
    check(&built("abi_changed"), LoadErrorKind::Layout, "build it with a released");
    check(&built("abi_enum"), LoadErrorKind::Layout, "build it with a released");
    check(&built("abi_major"), LoadErrorKind::OtherAbi, "version 2.0.0 of the plugin ABI");
    for part in [20, 64, 200, 4096, whole.len() / 2, whole.len() - 1] {
        check(&dir.file("cut.so", &whole[..part]), LoadErrorKind::Damaged, "again");
    }
}

/// The fixture's library with each `from` in it made a `to` of the same length.
fn fixture_with(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(built("abi_fixture")).expect("the fixture is readable");
    let mut replaced = 0;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            replaced += 1;
        }
    }
    assert!(replaced > 0);
    bytes
}

#[test]
fn a_plugin_of_another_version_is_refused_by_its_symbol() {
    let newer = fixture_with("mercury_plugin_v1_abi_fixture", "mercury_plugin_v2_abi_fixture");
    let dir = Scratch::new("version");
    check(
        &dir.file("newer.so", &newer),
        LoadErrorKind::OtherAbi,
        "speaks version 2 of the plugin ABI, this agent speaks 1",
    );
}

#[test]
fn a_plugin_built_with_another_major_version_of_the_sdk_is_refused_by_that_name() {
    let ours = env!("CARGO_PKG_VERSION");
    let theirs = format!("9{}", &ours[1..]);
    let newer = fixture_with(&format!("plugin-sdk;{ours}"), &format!("plugin-sdk;{theirs}"));
    let dir = Scratch::new("sdk");
    let advice = format!("was built with plugin-sdk {theirs}, this agent with {ours}");
    check(&dir.file("newer.so", &newer), LoadErrorKind::OtherAbi, &advice);
}

#[test]
fn a_bare_name_never_reaches_the_system_directories() {
    let libm = Library::load(Path::new("libm.so.6"), &trusted()).expect_err("not here");
    assert_eq!(libm.kind(), LoadErrorKind::Missing);
}

#[test]
fn only_what_root_alone_can_write_is_trusted() {
    let trusted = Library::load(&libc(), &Trust::root_owned()).expect_err("it is no plugin");
    assert_eq!(trusted.kind(), LoadErrorKind::NotAPlugin, "the system's own library is trusted");
    // The temporary directory is writable by everybody.
    let dir = Scratch::new("trust");
    let bytes = std::fs::read(built("abi_fixture")).expect("the fixture is readable");
    let path = dir.file("libacme.so", &bytes);
    let error = Library::load(&path, &Trust::root_owned()).expect_err("not trusted");
    assert_eq!(error.kind(), LoadErrorKind::Untrusted);
    assert!(error.to_string().contains("libacme.so: is not trusted: /tmp"), "{error}");
}

#[test]
fn a_plugin_loads_and_shows_its_manifest_loaded_or_linked() {
    let manifest = Bytes::from_static(br#"{"workload":"fixture"}"#);
    for library in [loaded("abi_fixture"), Library::linked::<fixture::Fixture>()] {
        assert_eq!(library.manifest().expect("a manifest"), manifest);
    }
}

#[test]
fn a_newer_plugin_loads_and_works() {
    let library = loaded("abi_longer");
    assert_eq!(library.manifest().expect("a manifest"), Bytes::from_static(b"longer"));
    assert_eq!(ask(&library.init("").expect("an instance"), "hello"), "+hello");
}

#[test]
fn a_refused_configuration_and_a_panic_in_init_are_typed() {
    for library in [loaded("abi_fixture"), Library::linked::<fixture::Fixture>()] {
        let refused = library.init("refuse").expect_err("refused");
        assert_eq!(refused, InitError::Refused(Bytes::from_static(br#"{"code":"no"}"#)));
        let panicked = library.init("panic").expect_err("a panic");
        assert_eq!(panicked, InitError::Panicked("no instance today".to_owned()));
    }
}

#[test]
fn panics_with_a_payload_that_panics_again_are_contained_in_manifest_and_init() {
    let library = loaded("abi_rude");
    let error = library.manifest().expect_err("a panic");
    assert_eq!(error.kind(), LoadErrorKind::Manifest);
    assert!(error.to_string().contains("libabi_rude.so: gave no manifest"), "{error}");
    assert!(matches!(library.init(""), Err(InitError::Panicked(_))));
}

#[test]
fn two_copies_of_a_library_and_two_instances_are_independent() {
    let dir = Scratch::new("copies");
    let bytes = std::fs::read(built("abi_fixture")).expect("the fixture is readable");
    let [one, two] = ["one.so", "two.so"].map(|name| {
        let library = Library::load(&dir.file(name, &bytes), &trusted()).expect("it loads");
        [library.init("").expect("an instance"), library.init("").expect("an instance")]
    });
    ask(&one[0], "echo");
    ask(&one[1], "echo");
    assert_eq!(ask(&one[0], "starts"), "+2");
    assert_eq!(ask(&one[1], "starts"), "+2");
    assert_eq!(ask(&one[0], "starts in library"), "+5");
    assert_eq!(ask(&two[0], "starts in library"), "+1");
}

#[test]
fn loaded_and_linked_answer_the_same() {
    for (request, expected) in [
        ("echo:hi", "+hi"),
        ("refuse:why", "-why"),
        ("thread", "+plugin-job"),
        ("call:echo", "+from the plugin"),
        ("call:refuse", "-not allowed"),
        ("read", "+23456789"),
        ("what", "-no such request: what"),
    ] {
        for (how, plugin) in both() {
            assert_eq!(ask(&plugin, request), expected, "{request}, {how}");
        }
    }
}
