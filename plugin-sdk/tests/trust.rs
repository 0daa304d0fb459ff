//! What a policy trusts, what it refuses, and that what was checked is what is loaded.
#![cfg(all(feature = "host", target_os = "linux"))]

mod common;

use std::fs;
use std::io::{Cursor, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Scratch, ask, built, trusted};
use minisign::KeyPair;
use plugin_sdk::PluginManifest;
use plugin_sdk::host::{
    Digest, Image, Library, LoadError, LoadErrorKind, PluginLock, Sidecar, SigningKey, Trust,
    target,
};

/// A file that a policy may trust; that it is no library is found out after that.
const FILE: &[u8] = b"not a library";

#[track_caller]
fn refused(found: Result<impl Sized, LoadError>, expected: LoadErrorKind, advice: &str) {
    let Err(error) = found else { panic!("not refused") };
    assert_eq!(error.kind(), expected, "{error}");
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains(advice), "{line}");
    assert!(line.len() < 500, "{line}");
}

/// A directory of which every one above it belongs to this user or to root, and to nobody else.
fn sound(name: &str) -> Option<Scratch> {
    let homes = [env!("CARGO_TARGET_TMPDIR").into(), std::env::var_os("HOME").unwrap_or_default()];
    let found = homes.iter().map(PathBuf::from).find(|home| {
        let probe = home.join(format!(".mercury-probe-{name}-{}", std::process::id()));
        let sound = fs::write(&probe, FILE).is_ok()
            && home.canonicalize().is_ok_and(|real| real == *home)
            && fs::set_permissions(&probe, fs::Permissions::from_mode(0o600)).is_ok()
            && Image::open(&probe, &Trust::agent_owned()).is_ok();
        let _ = fs::remove_file(&probe);
        sound
    });
    if found.is_none() {
        assert!(std::env::var_os("MERCURY_REQUIRE_SERVERS").is_none(), "no sound directory");
        println!("NOT CHECKED: there is no directory here that only its owner can write to");
    }
    let scratch = Scratch::within(&found?, name);
    mode(scratch.path(), 0o755);
    Some(scratch)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

fn private(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, content).expect("the directory is writable");
    mode(&path, 0o644);
    path
}

/// A copy of a plugin's library, under a name of its own.
fn copy(dir: &Scratch, example: &str) -> PathBuf {
    let path = dir.path().join("libacme.so");
    replace(&path, example);
    path
}

/// Puts a copy of a plugin's library at `path`, in one move.
fn replace(path: &Path, example: &str) {
    let beside = path.with_extension("new");
    // Without its symbols it is a tenth of the size, which is hashed again and again here.
    let stripped = Command::new("strip").arg("-o").arg(&beside).arg(built(example)).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(built(example), &beside).expect("it is copied");
    }
    fs::rename(&beside, path).expect("it is renamed");
}

fn pinned(dir: &Scratch, library: &Path) -> Trust {
    let mut lock = PluginLock::new();
    let bytes = fs::read(library).expect("it is readable");
    let name = library.file_name().expect("a name").to_string_lossy();
    lock.pin(&name, None, None, &target(), Digest::of(&bytes));
    let path = dir.path().join("plugins.lock");
    lock.write(&path).expect("the directory is writable");
    trusted().pinned(path)
}

#[track_caller]
fn manifest(library: &Library) -> String {
    String::from_utf8_lossy(&library.manifest().expect("a manifest")).into_owned()
}

#[test]
fn only_a_path_past_trusted_owners_is_trusted() {
    let Some(dir) = sound("owners") else { return };
    let parent = dir.path().join("vendor");
    fs::create_dir_all(parent.join("acme")).expect("a directory");
    mode(&parent, 0o755);
    mode(&parent.join("acme"), 0o755);
    let path = private(&parent.join("acme"), "libacme.so", FILE);
    let open = || Image::open(&path, &Trust::agent_owned());
    open().expect("it is trusted");
    // Sticky or not: whoever may write to the directory may put a file there.
    for open_to_others in [0o777, 0o1777, 0o775] {
        mode(&parent, open_to_others);
        refused(open(), LoadErrorKind::Untrusted, "vendor is writable by others than its owner");
    }
    mode(&parent, 0o755);
    mode(&path, 0o666);
    refused(open(), LoadErrorKind::Untrusted, "libacme.so is writable by others");
    mode(&path, 0o644);
    open().expect("it is trusted again");
}

#[test]
fn a_lock_file_that_others_can_write_is_no_lock() {
    let Some(dir) = sound("lock-owners") else { return };
    let library = private(dir.path(), "libacme.so", FILE);
    let mut lock = PluginLock::new();
    lock.pin("libacme.so", None, None, &target(), Digest::of(FILE));
    let path = private(dir.path(), "plugins.lock", lock.to_toml().as_bytes());
    let trust = Trust::agent_owned().pinned(&path);
    Image::open(&library, &trust).expect("it is trusted");
    mode(&path, 0o666);
    let refusal = Image::open(&library, &trust);
    refused(refusal, LoadErrorKind::Untrusted, "plugins.lock is writable by others");
}

#[test]
fn a_symbolic_link_out_of_the_directory_is_refused() {
    let Some(dir) = sound("links") else { return };
    let inside = dir.path().join("inside");
    fs::create_dir_all(&inside).expect("a directory");
    mode(&inside, 0o755);
    private(dir.path(), "elsewhere.so", FILE);
    let version = private(&inside, "libacme.so.1", FILE);
    let link = |target: &str, name: &str| {
        let path = inside.join(name);
        symlink(target, &path).expect("a link");
        path
    };
    let open = |path: &Path| Image::open(path, &Trust::agent_owned());

    let sibling =
        open(&link("libacme.so.1", "libacme.so")).expect("a link to a sibling is followed");
    assert_eq!(sibling.path(), version, "it is known by its own name");
    for target in ["../elsewhere.so", "/etc/passwd", "libacme.so", "../inside/libacme.so.1"] {
        let name = format!("to-{}", target.replace(['/', '.'], "-"));
        refused(open(&link(target, &name)), LoadErrorKind::SymbolicLink, "name the file itself");
    }
    symlink(&inside, dir.path().join("link")).expect("a link");
    let through = dir.path().join("link/libacme.so.1");
    refused(open(&through), LoadErrorKind::SymbolicLink, "symbolic link");
    Image::open(&through, &trusted()).expect("development follows links");
}

#[test]
fn a_relative_path_or_a_bare_name_is_never_looked_for() {
    for path in ["libm.so.6", "./libm.so.6", "lib/libm.so.6", "/usr/../usr/libm.so.6", ""] {
        for trust in [Trust::agent_owned(), Trust::root_owned()] {
            let refusal = Library::load(Path::new(path), &trust);
            refused(refusal, LoadErrorKind::RelativePath, "full path");
        }
    }
    let refusal = Library::load(Path::new("libm.so.6"), &trusted());
    refused(refusal, LoadErrorKind::Missing, "no such file");
    refused(
        Library::load(Path::new("/"), &Trust::root_owned()),
        LoadErrorKind::NotAFile,
        "library",
    );
}

#[test]
fn a_lock_file_allows_what_it_pins_and_nothing_else() {
    let dir = Scratch::new("lock");
    let library = dir.file("libacme.so", FILE);
    let lock = dir.path().join("plugins.lock");
    let trust = trusted().pinned(&lock);
    let open = || Image::open(&library, &trust);
    let write = |name: &str, target: &str, bytes: &[u8]| {
        let mut pins = PluginLock::new();
        pins.pin(name, None, None, target, Digest::of(bytes));
        pins.write(&lock).expect("it is written");
    };

    refused(open(), LoadErrorKind::LockMissing, "plugins.lock; put it there");
    fs::write(&lock, "form = 1\n[[plugin]]\nlibrary = 5\n").expect("it is written");
    refused(open(), LoadErrorKind::LockDamaged, "line 3");
    write("libother.so", &target(), FILE);
    refused(open(), LoadErrorKind::NotPinned, "pin it there");
    write("libacme.so", "vax-vms", FILE);
    refused(open(), LoadErrorKind::NotPinnedHere, "for vax-vms but not for");
    write("libacme.so", &target(), b"another build");
    refused(open(), LoadErrorKind::DigestMismatch, "install the pinned build");
    write("libacme.so", &target(), FILE);
    assert_eq!(open().expect("it is pinned").digest().expect("a digest"), Digest::of(FILE));
}

#[test]
fn a_signature_by_a_trusted_key_over_these_bytes_is_asked_for() {
    let dir = Scratch::new("signature");
    let library = dir.file("libacme.so", FILE);
    let signature = dir.path().join("libacme.so.minisig");
    let [vendor, second, stranger] =
        [(); 3].map(|()| KeyPair::generate_unencrypted_keypair().expect("a key"));
    let key = |pair: &KeyPair| SigningKey::parse(&pair.pk.to_base64()).expect("a public key");
    let sign = |pair: &KeyPair, bytes: &[u8]| {
        let signed = minisign::sign(Some(&pair.pk), &pair.sk, Cursor::new(bytes), None, None);
        fs::write(&signature, signed.expect("a signature").into_string()).expect("written");
    };
    let trust = trusted().signed_by(key(&second)).signed_by(key(&vendor));
    let open = || Image::open(&library, &trust);

    refused(open(), LoadErrorKind::SignatureMissing, "libacme.so.minisig beside it");
    fs::write(&signature, "untrusted comment: none\nnothing").expect("it is written");
    refused(open(), LoadErrorKind::BadSignature, "damaged signature");
    sign(&stranger, FILE);
    refused(open(), LoadErrorKind::BadSignature, "does not trust");
    sign(&vendor, b"another build");
    refused(open(), LoadErrorKind::BadSignature, "does not fit");
    for pair in [&vendor, &second] {
        sign(pair, FILE);
        open().expect("it is signed");
    }
    // A public key may also be given as minisign's file has it.
    let file = second.pk.to_box().expect("a public key").to_string();
    let key = SigningKey::parse(&file).expect("a public key");
    Image::open(&library, &trusted().signed_by(key)).expect("it is signed");
    assert!(SigningKey::parse("no key").is_err());
}

#[test]
fn a_sidecar_is_compared_with_the_bytes_before_and_with_the_plugin_after() {
    let dir = Scratch::new("sidecar");
    let library = copy(&dir, "traced_plugin");
    let sidecar = dir.path().join("acme.plugin.toml");
    let digest = Digest::of(&fs::read(&library).expect("it is readable"));
    let load = || Library::load(&library, &trusted());

    let described = load().expect("without a sidecar it loads");
    let described: PluginManifest =
        serde_json::from_slice(&described.manifest().expect("a manifest")).expect("it is one");
    let needed = trusted().with_sidecar();
    let refusal = Library::load(&library, &needed);
    refused(refusal, LoadErrorKind::SidecarMissing, "acme.plugin.toml beside it");

    let right = Sidecar::of(&described, ">=0.1, <0.2", digest).expect("a sidecar");
    fs::write(&sidecar, right.to_toml()).expect("it is written");
    Library::load(&library, &needed).expect("it says what is so");
    assert_eq!(Image::open(&library, &needed).expect("an image").sidecar(), Some(&right));

    fs::write(&sidecar, "form = 1\nid = \n").expect("it is written");
    refused(load(), LoadErrorKind::SidecarDamaged, "line 2");
    let check = |kind, advice: &str, change: &dyn Fn(&mut Sidecar)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        fs::write(&sidecar, wrong.to_toml()).expect("it is written");
        refused(load(), kind, advice);
    };
    check(LoadErrorKind::OtherSdk, "is for SDK ^7, this agent has", &|wrong| {
        wrong.sdk = "^7".parse().expect("a range");
    });
    check(LoadErrorKind::DigestMismatch, "install both anew", &|wrong| {
        wrong.digest = Digest::of(b"another build");
    });
    let mismatch = LoadErrorKind::ManifestMismatch;
    check(mismatch, "has the name `plugin-traced`, but its sidecar says `other`", &|wrong| {
        wrong.id = "other".to_owned();
    });
    check(mismatch, "has the version `1.2.3`, but its sidecar says `1.2.4`", &|wrong| {
        wrong.version = "1.2.4".to_owned();
    });
    check(mismatch, "has no `more` among its workloads", &|wrong| {
        wrong.workloads.insert("more".to_owned());
    });
    check(mismatch, "has `password` among its secrets", &|wrong| {
        wrong.capabilities.secrets.clear();
    });
}

#[test]
fn a_lock_entry_that_says_another_version_is_a_mismatch() {
    let dir = Scratch::new("lock-version");
    let library = copy(&dir, "traced_plugin");
    let digest = Digest::of(&fs::read(&library).expect("it is readable"));
    let path = dir.path().join("plugins.lock");
    let load = |version: &str| {
        let mut lock = PluginLock::new();
        lock.pin("libacme.so", Some("plugin-traced"), Some(version), &target(), digest);
        lock.write(&path).expect("it is written");
        Library::load(&library, &trusted().pinned(&path))
    };
    load("1.2.3").expect("it is what is pinned");
    refused(load("1.2.2"), LoadErrorKind::ManifestMismatch, "its lock entry says `1.2.2`");
}

#[test]
fn the_tool_pins_what_the_loader_then_accepts() {
    let dir = Scratch::new("tool");
    let library = copy(&dir, "abi_fixture");
    let lock = dir.path().join("plugins.lock");
    let tool = built("abi_fixture").with_file_name("pin_plugin");
    let run = Command::new(tool).arg(&lock).arg(&library).output();
    let run = run.expect("`cargo test` builds the examples first");
    assert!(run.status.success(), "{run:?}");
    let trust = trusted().pinned(&lock);
    Library::load(&library, &trust).expect("it is pinned");
    fs::OpenOptions::new()
        .append(true)
        .open(&library)
        .and_then(|mut file| file.write_all(b"one byte more"))
        .expect("it is writable");
    refused(Library::load(&library, &trust), LoadErrorKind::DigestMismatch, "pinned");
}

#[test]
fn what_was_checked_is_what_is_loaded_whatever_happens_to_the_file() {
    type Meddle = fn(&Path);
    let meddlers: [(&str, Meddle); 4] = [
        ("replaced", |path| replace(path, "abi_longer")),
        ("overwritten", |path| {
            let other = path.with_file_name("libother.so");
            replace(&other, "abi_longer");
            fs::copy(other, path).expect("it is written in place");
        }),
        ("cut", |path| {
            let file = fs::OpenOptions::new().write(true).open(path).expect("it is writable");
            file.set_len(100).expect("it is cut short");
        }),
        ("removed", |path| fs::remove_file(path).expect("it is removed")),
    ];
    for (name, meddle) in meddlers {
        let dir = Scratch::new(&format!("meddled-{name}"));
        let path = copy(&dir, "abi_fixture");
        let image = Image::open(&path, &pinned(&dir, &path)).expect("it is pinned");
        meddle(&path);
        let library = Library::map(image).expect("what was checked is loaded");
        assert_eq!(manifest(&library), r#"{"workload":"fixture"}"#, "{name}");
    }
}

#[test]
fn a_file_that_is_being_replaced_is_loaded_as_pinned_or_not_at_all() {
    let dir = Scratch::new("race");
    let path = copy(&dir, "abi_fixture");
    let trust = pinned(&dir, &path);
    let other = dir.file("libother.so", b"");
    replace(&other, "abi_longer");
    let contents = [&other, &path].map(|path| fs::read(path).expect("it is readable"));
    let (mut loaded, mut refusals) = (0, 0);
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let path = &path;
        scope.spawn(move || {
            let beside = path.with_extension("new");
            for content in contents.iter().cycle() {
                fs::write(&beside, content).expect("it is written");
                fs::rename(&beside, path).expect("it is renamed");
                if stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty) {
                    break;
                }
            }
        });
        let begun = std::time::Instant::now();
        while (loaded == 0 || refusals == 0 || loaded + refusals < 8)
            && begun.elapsed() < std::time::Duration::from_secs(120)
        {
            match Library::load(path, &trust) {
                Ok(library) => {
                    loaded += 1;
                    assert_eq!(manifest(&library), r#"{"workload":"fixture"}"#);
                }
                Err(error) => {
                    refusals += 1;
                    assert_eq!(error.kind(), LoadErrorKind::DigestMismatch, "{error}");
                }
            }
        }
        drop(stop);
    });
    assert!(loaded > 0 && refusals > 0, "both were seen: {loaded} loaded, {refusals} refused");
}

#[test]
fn nobody_can_change_what_was_checked() {
    let dir = Scratch::new("sealed");
    let path = dir.file("libacme.so", FILE);
    let image = Image::open(&path, &trusted()).expect("it is trusted");
    assert!(image.is_sealed());
    let behind = format!("/proc/self/fd/{}", image.descriptor().as_raw_fd());
    let writable = fs::OpenOptions::new().write(true).open(&behind);
    let changed = writable.and_then(|mut file| file.write_all(b"other"));
    assert_eq!(changed.map_err(|error| error.kind()), Err(std::io::ErrorKind::PermissionDenied));
    let cut = fs::OpenOptions::new().write(true).open(&behind).and_then(|file| file.set_len(1));
    assert_eq!(cut.map_err(|error| error.kind()), Err(std::io::ErrorKind::PermissionDenied));
    assert_eq!(fs::read(&behind).expect("it is readable"), FILE);
}

#[test]
fn a_library_never_answers_for_another_one() {
    let dir = Scratch::new("identity");
    let path = copy(&dir, "abi_fixture");
    let load = || Library::load(&path, &trusted()).expect("it loads");
    let first = load().init("").expect("an instance");
    assert_eq!(ask(&first, "starts in library"), "+1");
    // The same bytes of the same path are the same library.
    let again = load().init("").expect("an instance");
    assert_eq!(ask(&again, "starts in library"), "+2");
    // Other bytes of the same path are another one, even though descriptors come and go.
    replace(&path, "abi_longer");
    for _ in 0..8 {
        drop(Image::open(&path, &trusted()).expect("it is trusted"));
    }
    assert_eq!(manifest(&load()), "longer");
    // And the first is still what it was.
    replace(&path, "abi_fixture");
    assert_eq!(ask(&load().init("").expect("an instance"), "starts in library"), "+3");
}

#[test]
fn a_child_loads_the_same_bytes_from_the_descriptor_that_it_inherits() {
    let dir = Scratch::new("inherited");
    let path = copy(&dir, "abi_fixture");
    let image = Image::open(&path, &trusted()).expect("it is trusted");
    let handed: OwnedFd = image.descriptor().try_clone_to_owned().expect("a descriptor");
    replace(&path, "abi_longer");
    let inherited = Image::inherited(handed, &path).expect("it is sealed");
    assert_eq!(inherited.digest().expect("a digest"), image.digest().expect("a digest"));
    let library = Library::map(inherited).expect("it loads");
    assert_eq!(manifest(&library), r#"{"workload":"fixture"}"#);

    let file = fs::File::open(&path).expect("it is readable");
    let refusal = Image::inherited(file.as_fd().try_clone_to_owned().expect("one more"), &path);
    refused(refusal, LoadErrorKind::NotSealed, "not sealed");
}

#[test]
fn in_place_the_first_file_of_a_path_is_the_only_one_for_a_process() {
    let dir = Scratch::new("in-place");
    let path = copy(&dir, "abi_fixture");
    let load = || Library::load(&path, &trusted().in_place());
    assert_eq!(manifest(&load().expect("it loads")), r#"{"workload":"fixture"}"#);
    assert_eq!(manifest(&load().expect("it loads again")), r#"{"workload":"fixture"}"#);
    replace(&path, "abi_longer");
    refused(load(), LoadErrorKind::Replaced, "restart the agent");
    let sealed = Library::load(&path, &trusted()).expect("a sealed copy has a name of its own");
    assert_eq!(manifest(&sealed), "longer");
}
