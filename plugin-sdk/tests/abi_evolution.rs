//! Agents and plugins of different years in one process.
//!
//! Beside the tests here, `host/open.rs` has a host of a later version that loads the same three
//! plugins: that of 1.0, the present one, and one of a later version.
#![cfg(all(feature = "host", target_os = "linux"))]

mod common;
#[path = "fixtures/abi_v1/wire.rs"]
mod wire;

use std::fmt::Debug;
use std::ptr;
use std::sync::{Arc, Mutex};

use abi_stable::library::AbiHeaderRef;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::RStr;
use common::{Services, ask, ask_with, built, loaded, trusted};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use wire::{
    AbiBytes, AbiCall, AbiHost, AbiInstance, AbiLog, AbiOutcome, AbiTask, AbiToken, HostTable,
    PluginRoot_Ref,
};

/// What the plugins that the host of 1.0 loaded have logged.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A plugin as the host of 1.0 loads and uses it.
struct Old {
    root: PluginRoot_Ref,
    instance: AbiInstance,
}

impl Old {
    #[track_caller]
    fn load(name: &str, config: &str) -> Self {
        // SAFETY: the tests' own library, which exports a header under this name; it stays loaded.
        let header = unsafe {
            let library = Library::open(Some(built(name)), RTLD_NOW | RTLD_LOCAL).expect("opens");
            let symbol = format!("mercury_plugin_v1_{name}");
            let header = *library.get::<AbiHeaderRef>(symbol.as_bytes()).expect("a plugin");
            std::mem::forget(library);
            header.upgrade().expect("the same abi_stable")
        };
        let root = header.init_root_module::<PluginRoot_Ref>().expect("a plugin of 1.0 or later");
        let data = AbiToken(ptr::null());
        let table = HostTable { data, log_enabled, log }.leak_into_prefix();
        match (root.init())(table, AbiBytes::of(config.into())) {
            AbiOutcome::Ok(instance) => Self { root, instance },
            AbiOutcome::Error(text) | AbiOutcome::Panicked(text) => {
                panic!("no instance: {}", String::from_utf8_lossy(&text.to_vec()))
            }
        }
    }

    fn manifest(&self) -> String {
        match (self.root.manifest())() {
            AbiOutcome::Ok(text) | AbiOutcome::Error(text) | AbiOutcome::Panicked(text) => {
                String::from_utf8(text.to_vec()).expect("text")
            }
        }
    }

    /// As `common::ask`: `+` and the reply, `-` and the error, `!` and the panic.
    fn ask(&self, request: &str) -> String {
        let host = AbiHost { data: ptr::null(), call, drop: nothing };
        let call = AbiCall { request: AbiBytes::of(request.into()), host, id: 1 };
        // SAFETY: the instance is of this root.
        let task = unsafe { (self.root.start())(self.instance.data, call) };
        let (sign, text) = match task.run() {
            Ok(reply) => (if reply.status == 0 { '+' } else { '-' }, reply.body.to_vec()),
            Err(text) => ('!', text),
        };
        format!("{sign}{}", String::from_utf8_lossy(&text))
    }
}

unsafe extern "C" fn call(_: *const (), op: RStr<'_>, body: AbiBytes) -> AbiTask {
    assert_eq!(op.as_str(), "echo");
    AbiTask::ready(wire::AbiReply::ok(body.to_vec()))
}
unsafe extern "C" fn nothing(_: *const ()) {}
extern "C" fn log_enabled(_: AbiToken, level: u8, _: RStr<'_>) -> bool {
    level <= 3
}
extern "C" fn log(_: AbiToken, log: AbiLog<'_>) {
    LOGGED.lock().expect("no panic under the lock").push(log.message.to_string());
}

#[test]
fn a_host_of_1_0_works_with_plugins_of_1_0_of_today_and_of_later() {
    let [first, today, later] =
        ["abi_v1", "abi_fixture", "abi_longer"].map(|name| Old::load(name, ""));
    assert_eq!(first.manifest(), "v1");
    assert_eq!(today.manifest(), r#"{"workload":"fixture"}"#);
    assert_eq!(later.manifest(), "longer");
    assert_eq!(first.ask("hello"), "+hello");
    assert_eq!(later.ask("hello"), "+hello");
    assert_eq!(first.ask("ask"), "+from 1.0");
    for (request, reply) in [
        ("echo:hello", "+hello"),
        ("refuse:why", "-why"),
        ("call:echo", "+from the plugin"),
        ("panic", "!bug at row 7"),
        ("panic inline", "!bug at row 7"),
    ] {
        assert_eq!(today.ask(request), reply, "{request}");
    }
    assert_eq!(first.ask("log"), "+logged");
    assert_eq!(today.ask("log"), "+0");
    let logged = LOGGED.lock().expect("no panic under the lock").clone();
    for text in ["a word from 1.0", "dumping", "bug at row 7"] {
        assert!(logged.iter().any(|line| line == text), "{text} is not in {logged:?}");
    }
}

#[test]
fn todays_host_works_with_plugins_of_1_0_of_today_and_of_later() {
    let plugins = ["abi_v1", "abi_fixture", "abi_longer"]
        .map(|name| loaded(name).init("").expect("an instance"));
    assert_eq!(ask(&plugins[0], "hello"), "+hello");
    assert_eq!(ask_with(&plugins[0], "ask", Services::new()), "+from 1.0");
    assert_eq!(ask(&plugins[0], "log"), "+logged");
    assert_eq!(ask(&plugins[1], "echo:hello"), "+hello");
    assert_eq!(ask(&plugins[2], "hello"), "+hello");
}

/// The level and the number of lines of each record.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, usize)>>>);

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Count(usize);
        impl Visit for Count {
            fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
                self.0 += format!("{value:?}").lines().count();
            }
        }
        let mut count = Count(0);
        event.record(&mut count);
        let lines = (*event.metadata().level(), count.0);
        self.0.lock().expect("no panic under the lock").push(lines);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn what_differs_in_a_layout_is_told_at_length_at_debug_level_only() {
    let lines = Lines::default();
    let refused = tracing::subscriber::with_default(lines.clone(), || {
        plugin_sdk::host::Library::load(&built("abi_changed"), &trusted())
    });
    assert_eq!(refused.expect_err("refused").to_string().lines().count(), 1);
    let lines = lines.0.lock().expect("no panic under the lock").clone();
    assert!(lines.iter().any(|(level, lines)| *level == Level::DEBUG && *lines > 20), "{lines:?}");
    // One line for each field of a record.
    assert!(lines.iter().all(|(level, lines)| *level == Level::DEBUG || *lines < 5), "{lines:?}");
}
