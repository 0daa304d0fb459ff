//! A secret reaches the plugin that declares it, and nothing else: no state directory, no archive,
//! no log, no error, no environment.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "support/secretive.rs"]
mod secretive;
mod support;

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use mercury::{
    Class, Engine, Error, ErrorKind, Isolation, ItemId, MemorySecrets, Outcome, Plugin, Process,
    Runner, Secret, SecretDirectory, SecretStore, Trust,
};
use support::{World, check, ended, soon};

/// What must be nowhere. In JSON, in an address and in a debugging print it looks different.
const CANARY: &str = "hunter2-\"CANARY\"/CAGE";
/// A part of it that looks the same everywhere.
const MARK: &str = "CANARY";

fn item(name: &str) -> ItemId {
    ItemId::new("secretive", "one", name).unwrap()
}

fn secrets() -> MemorySecrets {
    MemorySecrets::new()
        .with("secretive", "password", Secret::new(CANARY))
        .with("secretive", "root", Secret::new("of another one"))
        .with("other", "token", Secret::new("of another one"))
}

fn linked() -> Plugin {
    Plugin::linked::<secretive::Secretive>()
}

fn library() -> Plugin {
    let program = std::env::current_exe().unwrap();
    let target = program.parent().and_then(Path::parent).unwrap();
    let library = target.join("examples/libsecretive_library.so");
    Plugin::library(library, Trust::development("built together with this test"))
}

fn loaded() -> Plugin {
    library().in_process()
}

fn isolated() -> Plugin {
    library().isolation(Isolation::Process(Process::new().runner(Runner::at(support::runner()))))
}

async fn start(world: &World, plugin: Plugin, secrets: impl SecretStore) -> Engine {
    let config = serde_json::json!({ "right": "/CAGE" });
    let builder = world.bare().plugin(plugin.config("secretive", config));
    builder.secrets(secrets).start().await.unwrap()
}

/// Backs `item` up, and returns the error together with everything that is shown of the operation.
async fn failed(engine: &Engine, name: &str, shown: &mut String) -> Error {
    let backup = engine.backup(&item(name)).submit().await.unwrap();
    let error = ended(&backup).await.err().unwrap_or_else(|| panic!("it {name}, unpunished"));
    *shown += &format!("{error} {error:?} {:?}\n", error.fault());
    *shown += &format!("{:?}\n", backup.status().await.unwrap());
    error
}

/// The files below `directory` that contain `text`.
fn holding(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if contains(&fs::read(&path).unwrap(), text) {
            found.push(path);
        }
    }
    found
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A log at its most talkative, kept. All tests of this program share it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn install() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let install = || {
            let log = Log::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .try_init()
                .unwrap();
            log
        };
        LOG.get_or_init(install).clone()
    }
    fn contains(&self, text: &str) -> bool {
        contains(&self.0.lock().unwrap(), text)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_leaves_no_trace_whatever_its_plugin_does_with_it() {
    leaves_no_trace(loaded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_leaves_no_trace_whatever_its_plugin_does_with_it_in_another_process() {
    leaves_no_trace(isolated()).await;
}

async fn leaves_no_trace(plugin: Plugin) {
    let log = Log::install();
    let world = World::new();
    let engine = start(&world, plugin, secrets()).await;
    let mut shown = String::new();

    // It is there to log in with: at discovery, at a decision, in steps.
    assert_eq!(engine.discover().await.unwrap()[0].id, item("behaves"));
    let target = world.path("restored");
    for name in ["behaves", "logs it"] {
        let backup = engine.backup(&item(name)).submit().await.unwrap();
        let Outcome::BackedUp { point, .. } = ended(&backup).await.unwrap() else { panic!() };
        let restore = engine.restore(&item(name), &point).to(target.to_str().unwrap());
        ended(&restore.submit().await.unwrap()).await.unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "what is backed up");
    }

    // Said by mistake, it is taken out of what is said.
    let error = failed(&engine, "tells it in an error", &mut shown).await;
    assert_eq!((error.class(), error.code()), (Class::User, "secretive.login"));
    assert_eq!(error.fault().message(), "no login as sa:***");
    assert_eq!(error.advice(), Some("do not use ***"));
    assert_eq!(error.fault().chain(), ["*** was refused"]);
    let error = failed(&engine, "panics with it", &mut shown).await;
    assert_eq!((error.class(), error.code()), (Class::Bug, "plugin.panicked"));
    assert!(error.to_string().contains("no login as sa:***"), "{error}");

    // Put where it would be kept, it is refused.
    for name in ["keeps it in a state", "notes it", "names a stream after it", "decides with it"] {
        let error = failed(&engine, name, &mut shown).await;
        assert_eq!(
            (error.class(), error.code()),
            (Class::Bug, "secret.leaked"),
            "{name}: {error:?}"
        );
        assert_eq!(engine.points(&item(name)).await.unwrap(), [], "{name}");
    }
    soon(engine.shutdown(Duration::ZERO)).await;
    drop(engine);

    assert!(!shown.contains(MARK), "{shown}");
    for place in ["state", "archive"] {
        assert_eq!(holding(&world.path(place), MARK), Vec::<PathBuf>::new(), "in {place}");
    }
    assert!(!log.contains(MARK));
    for file in ["/proc/self/cmdline", "/proc/self/environ"] {
        assert!(!contains(&fs::read(file).unwrap(), MARK), "in {file}");
    }
    // So that the search is known to find something: what stands there instead of it.
    assert!(!holding(&world.path("state"), "no login as sa:***").is_empty());
    assert!(
        log.contains("with ***") && log.contains(r#"\"password\":\"***\""#),
        "the plugin's record"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_manifest_declares_is_given() {
    let world = World::new();
    let engine = start(&world, linked(), secrets()).await;
    let mut shown = String::new();
    let error = failed(&engine, "asks for another", &mut shown).await;
    check(&error, ErrorKind::Operation, Class::Bug, "secret.undeclared");
    // `token` is there, but it is another workload's.
    let error = failed(&engine, "asks for one that is not there", &mut shown).await;
    check(&error, ErrorKind::Operation, Class::User, "secret.missing");
    assert!(!shown.contains("of another one"), "{shown}");
    soon(engine.shutdown(Duration::ZERO)).await;
    drop(engine);

    let config = serde_json::json!({ "right": "/CAGE" });
    let engine = world.bare().plugin(linked().config("secretive", config)).start().await.unwrap();
    let error = engine.discover().await.unwrap_err();
    check(&error, ErrorKind::Operation, Class::User, "secret.no_store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_come_from_a_private_directory_and_are_always_the_present_ones() {
    let world = World::new();
    let directory = world.path("credentials");
    fs::create_dir(&directory).unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&directory, 0o700);
    let file = directory.join("secretive.password");
    let engine = start(&world, linked(), SecretDirectory::new(&directory)).await;
    let refused = async |class, code| {
        let error = engine.discover().await.unwrap_err();
        check(&error, ErrorKind::Operation, class, code);
        error
    };

    refused(Class::User, "secret.missing").await;
    fs::write(&file, CANARY).unwrap();
    for open_to_others in [0o644, 0o604, 0o660, 0o602] {
        mode(&file, open_to_others);
        let error = refused(Class::User, "secret.exposed").await;
        assert!(error.advice().unwrap().contains("chmod go= "), "{error:?}");
    }
    mode(&file, 0o400);
    engine.discover().await.unwrap();
    mode(&directory, 0o755);
    refused(Class::User, "secret.exposed").await;
    mode(&directory, 0o700);
    // Changed beside the engine, as an operator rotates it.
    mode(&file, 0o600);
    fs::write(&file, "another one").unwrap();
    let error = engine.discover().await.unwrap_err();
    assert_eq!(error.code(), "secretive.login", "{error:?}");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused(Class::User, "secret.unreadable").await;
    fs::remove_dir(&file).unwrap();
    // A link inside of a private directory is its owner's: mounted secrets are made of such.
    fs::write(directory.join("v2"), CANARY).unwrap();
    mode(&directory.join("v2"), 0o600);
    symlink("v2", &file).unwrap();
    engine.discover().await.unwrap();
}

#[tokio::test]
async fn a_name_never_leads_out_of_the_directory() {
    let world = World::new();
    let directory = world.path("credentials");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(world.path("outside"), CANARY).unwrap();
    let store = SecretDirectory::new(&directory);
    for (workload, name) in [("a", "/../../outside"), ("..", "/outside"), ("a", "b/c"), ("", "x")] {
        let fault = store.secret(workload, name).await.unwrap_err();
        assert_eq!((fault.class(), fault.code()), (Class::Bug, "secret.name"), "{workload} {name}");
    }
}
