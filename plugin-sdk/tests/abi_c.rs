//! Plugins in C: the same boundary, written by somebody else.
#![cfg(all(feature = "host", target_os = "linux"))]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use common::{Scratch, Services, ask, ask_with, trusted, until_called};
use fsm_core::{Graph, Outcome, StepCall, StepKind, Verdict};
use futures::executor::block_on;
use plugin_sdk::abi::{BoxFuture, CallError, Object, Reply, SinkHandle, SourceHandle};
use plugin_sdk::host::{
    BufferPool, ChannelSink, HostCalls, HostSource, InitError, Library, LoadErrorKind,
    PluginInstance,
};
use plugin_sdk::message::{self, Request, SealCall, TakeBegun, call};
use plugin_sdk::{
    Class, Data, Decision, Fault, Item, ItemId, OperationId, Overwrite, PluginManifest, PointId,
    PointKind, PointMeta, Receipt, RestoreRequest, RunPlan, TakeId, Timestamp, Wanted,
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Builds a plugin of one file with the system's compiler, every warning an error.
#[track_caller]
fn compiled(source: &str, to: &Path, defines: &[&str]) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-O1"])
        .args(["-shared", "-fPIC", "-pthread", "-I"])
        .arg(here.join("include"))
        .args(defines)
        .arg("-o")
        .arg(to)
        .arg(here.join(source))
        .output()
        .expect("there is a C compiler");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    to.to_owned()
}

const FILE_PLUGIN: &str = "examples/c/file_plugin.c";
const BUFFERS: usize = 2;

/// An engine in small: it keeps one stream, and answers as the engine does.
#[derive(Default)]
struct Archive {
    pool: Mutex<Option<BufferPool>>,
    reads: Mutex<Option<JoinHandle<Vec<u8>>>>,
    stored: Mutex<Bytes>,
    sealed: Mutex<Option<SealCall>>,
    /// The take, once it is finished.
    finished: Mutex<Option<Vec<Receipt>>>,
    /// The call that is refused.
    refuses: Mutex<Option<&'static str>>,
}

impl Archive {
    fn stream(&self) -> Object {
        let pool = BufferPool::new(BUFFERS, 1 << 20);
        let (sink, mut receiver) = ChannelSink::new(pool.clone());
        *self.pool.lock().expect("no panic under the lock") = Some(pool);
        let reads = std::thread::spawn(move || {
            let mut read = Vec::new();
            while let Some(chunk) = block_on(receiver.recv()) {
                read.extend_from_slice(&chunk);
            }
            assert_eq!(receiver.stats().foreign, 0, "every chunk is a loan");
            receiver.complete(Ok(message::encode(&receipt(read.len() as u64)).expect("JSON")));
            read
        });
        *self.reads.lock().expect("no panic under the lock") = Some(reads);
        Object::Sink(SinkHandle::serve(sink))
    }

    fn answer(&self, op: &str, body: &Bytes) -> Result<Reply, Fault> {
        if *self.refuses.lock().expect("no panic under the lock") == Some(op) {
            let cause = std::io::Error::other("no space left");
            return Err(Fault::user("archive.full", "the archive is full").caused_by(&cause));
        }
        let body = match op {
            call::TAKE_BEGIN => message::encode(&TakeBegun {
                take: TakeId::new("take \"1\""),
                begun_at: Timestamp::from_unix_ms(7),
                finished: self.finished.lock().expect("no panic under the lock").clone(),
                facts: json!(null),
            })?,
            call::STREAM_OPEN => return Ok(Reply::ok(message::encode(&())?).with(self.stream())),
            call::TAKE_FINISH => {
                let finish: message::TakeFinish = message::decode(body)?;
                assert_eq!(finish.take.as_str(), "take \"1\"");
                let reads = self.reads.lock().expect("no panic under the lock").take();
                let read = reads.expect("a stream was opened").join().expect("it was read");
                let receipts = vec![receipt(read.len() as u64)];
                *self.stored.lock().expect("no panic under the lock") = read.into();
                *self.finished.lock().expect("no panic under the lock") = Some(receipts.clone());
                message::encode(&receipts)?
            }
            call::SEAL => {
                *self.sealed.lock().expect("no panic under the lock") =
                    Some(message::decode(body)?);
                message::encode(&PointId::new("point \u{e9}"))?
            }
            call::SOURCE_OPEN => {
                let open: message::SourceOpen = message::decode(body)?;
                assert_eq!((open.point.as_str(), &*open.stream), ("point \u{e9}", "data"));
                let stored = self.stored.lock().expect("no panic under the lock").clone();
                let source = Object::Source(SourceHandle::serve(Memory(stored)));
                return Ok(Reply::ok(message::encode(&())?).with(source));
            }
            other => panic!("the plugin asked for {other}"),
        };
        Ok(Reply::ok(body))
    }
}

impl HostCalls for Archive {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<Reply> {
        let reply = self.answer(op, &body);
        let reply = reply.unwrap_or_else(|fault| Reply::error(message::encode_fault(&fault)));
        Box::pin(std::future::ready(reply))
    }
}

fn receipt(length: u64) -> Receipt {
    let hash = "0".repeat(64);
    Receipt { take: TakeId::new("take \"1\""), stream: "data".to_owned(), length, hash }
}

struct Memory(Bytes);
impl HostSource for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, len: u64) -> BoxFuture<Result<Bytes, CallError>> {
        let from = usize::try_from(offset).expect("it fits").min(self.0.len());
        let to = usize::try_from(offset + len).expect("it fits").min(self.0.len());
        Box::pin(std::future::ready(Ok(self.0.slice(from..to))))
    }
}

fn item() -> ItemId {
    ItemId::new("c_file", "local", "file").expect("a fixed id is valid")
}

/// Asks the plugin for something, with the archive as its host.
fn request<T: DeserializeOwned>(
    plugin: &PluginInstance,
    host: &Arc<Archive>,
    request: &Request,
) -> Result<T, Fault> {
    let document = message::encode(request).expect("JSON");
    let reply = block_on(plugin.start(document, Arc::clone(host) as Arc<dyn HostCalls>));
    match reply.expect("a reply").result {
        Ok(reply) => message::decode(&reply),
        Err(fault) => Err(message::decode_fault(&fault)),
    }
}

fn step(
    plugin: &PluginInstance,
    host: &Arc<Archive>,
    machine: &str,
    (state, data): (&str, Data),
    kind: StepKind,
) -> Verdict {
    let call = StepCall {
        run: "nightly/1".parse().expect("a fixed id is valid"),
        machine: machine.to_owned(),
        state: state.to_owned(),
        data,
        entry: 1,
        attempt: 1,
        kind,
        effects: Vec::new(),
        signals: Vec::new(),
        children: Vec::new(),
        deadline: None,
    };
    let step = Request::Step { operation: OperationId::new("nightly"), item: item(), call };
    request::<Outcome>(plugin, host, &step).expect("an outcome").verdict
}

/// Runs a machine from `state` until a state that is not in `states`.
fn run(
    plugin: &PluginInstance,
    host: &Arc<Archive>,
    machine: &str,
    states: &[&str],
    input: Data,
) -> (String, Data) {
    let (mut state, mut data) = (states[0].to_owned(), input);
    while states.contains(&&*state) {
        match step(plugin, host, machine, (&state, data), StepKind::Run) {
            Verdict::Go { state: next, data: with, .. } => (state, data) = (next, with),
            other => panic!("{state}: {other:?}"),
        }
    }
    (state, data)
}

struct Built {
    dir: Scratch,
    library: Library,
    file: PathBuf,
    plugin: PluginInstance,
}

/// The example, which backs up a file of `content`.
fn built(name: &str, content: &[u8]) -> Built {
    let dir = Scratch::new(name);
    let to = dir.path().join("libfile_plugin.so");
    let library = Library::load(&compiled(FILE_PLUGIN, &to, &[]), &trusted()).expect("it loads");
    let file = dir.file("letters \"a\".bin", content);
    let config = json!({ "c_file": { "path": file } });
    let plugin = library.init(message::encode(&config).expect("JSON")).expect("an instance");
    Built { dir, library, file, plugin }
}

#[test]
fn a_plugin_in_c_backs_up_a_file_and_restores_it() {
    // Not a multiple of a buffer, and more than all buffers hold.
    let content: Vec<u8> = (0..3_000_001_u32).map(|at| (at % 251) as u8).collect();
    let Built { dir, library, plugin, .. } = built("c-file", &content);
    let host = Arc::<Archive>::default();

    let manifest = library.manifest().expect("a manifest");
    let manifest: PluginManifest = serde_json::from_slice(&manifest).expect("a manifest");
    assert_eq!(manifest.workloads[0].workload, "c_file");
    let workload = "c_file".to_owned();
    let items: Vec<Item> =
        request(&plugin, &host, &Request::Discover { workload: workload.clone() }).expect("items");
    assert_eq!(items[0].id, item());
    let graphs: Vec<Graph> =
        request(&plugin, &host, &Request::Machines { workload }).expect("machines");
    for graph in &graphs {
        graph.validate().expect("a sound graph");
    }

    let wanted = Wanted::new(OperationId::new("nightly"), PointKind::Full);
    let decide = Request::Decide { item: item(), wanted, points: Vec::new() };
    let Decision::Run(plan) = request(&plugin, &host, &decide).expect("a decision") else {
        panic!("it wants to run")
    };
    let (end, data) = run(&plugin, &host, &plan.machine, &["send", "seal"], plan.input);
    assert_eq!((&*end, data.as_text()), ("sealed", Some("{\"point\":\"point \u{e9}\"}")));
    let sealed = host.sealed.lock().expect("no panic under the lock").take().expect("sealed");
    assert_eq!(sealed.receipts, [receipt(content.len() as u64)]);
    assert_eq!(sealed.taken_at, Timestamp::from_unix_ms(7));
    assert!(*host.stored.lock().expect("no panic under the lock") == content);
    let pool = host.pool.lock().expect("no panic under the lock").clone().expect("a stream");
    let stats = pool.stats();
    assert_eq!((stats.lends, stats.lent), (stats.returns, 0), "every buffer came back, once");
    assert!(stats.lent_peak <= BUFFERS);

    let point = PointMeta::new(
        PointId::new("point \u{e9}"),
        item(),
        1,
        PointKind::Full,
        Timestamp::from_unix_ms(7),
    );
    let mut restore = RestoreRequest::new(OperationId::new("back"), item(), vec![point]);
    let refused =
        request::<RunPlan>(&plugin, &host, &Request::Restore { restore: restore.clone() });
    assert_eq!(refused.expect_err("it is there").code(), "c_file.exists");
    restore.overwrite = Overwrite::Replace;
    let target = dir.path().join("restored");
    restore.target = Some(target.display().to_string());
    let plan: RunPlan = request(&plugin, &host, &Request::Restore { restore }).expect("a plan");
    let (end, _) = run(&plugin, &host, &plan.machine, &["fetch"], plan.input);
    assert_eq!(end, "restored");
    assert!(std::fs::read(&target).expect("it was restored") == content);
}

#[test]
fn a_finished_take_is_adopted_and_an_empty_file_is_a_file() {
    let Built { dir: _dir, plugin, .. } = built("c-adopt", b"");
    let host = Arc::<Archive>::default();
    let send = || step(&plugin, &host, "backup", ("send", Data::default()), StepKind::Run);
    let first = send();
    assert!(matches!(&first, Verdict::Go { state, .. } if state == "seal"), "{first:?}");
    assert!(host.reads.lock().expect("no panic under the lock").is_none());
    assert_eq!(send(), first, "the second attempt finds the take and opens no stream");
}

#[test]
fn the_faults_of_host_and_system_and_the_failure_edges_of_c_are_typed() {
    let Built { dir: _dir, plugin, file, .. } = built("c-faults", b"hello");
    let host = Arc::<Archive>::default();
    let ends = |kind: StepKind| step(&plugin, &host, "backup", ("send", Data::default()), kind);
    for op in [call::TAKE_BEGIN, call::STREAM_OPEN, call::TAKE_FINISH] {
        *host.refuses.lock().expect("no panic under the lock") = Some(op);
        let Verdict::Fault(fault) = ends(StepKind::Run) else { panic!("{op} was refused") };
        assert_eq!((fault.class(), fault.code()), (Class::User, "archive.full"), "{op}");
        assert_eq!(fault.chain(), ["no space left"], "{op}");
    }
    *host.refuses.lock().expect("no panic under the lock") = None;
    std::fs::remove_file(file).expect("it was there");
    let Verdict::Fault(fault) = ends(StepKind::Run) else { panic!("the file is gone") };
    assert_eq!((fault.class(), fault.code()), (Class::User, "c_file.open"));

    assert_eq!(ends(StepKind::Interrupted), Verdict::Again);
    let spent = Fault::retryable("c_file.read", "no luck");
    assert_eq!(ends(StepKind::Exhausted(spent.clone())), Verdict::Fault(spent));
    let Verdict::Fault(fault) = ends(StepKind::Cancel) else { panic!("cancelled") };
    assert_eq!(fault.class(), Class::Cancelled);

    let no_path = message::encode(&json!({ "c_file": {} })).expect("JSON");
    let dir = Scratch::new("c-config");
    let to = dir.path().join("libfile_plugin.so");
    let library = Library::load(&compiled(FILE_PLUGIN, &to, &[]), &trusted()).expect("it loads");
    let Err(InitError::Refused(document)) = library.init(no_path) else { panic!("refused") };
    assert_eq!(message::decode_fault(&document).code(), "config.invalid");
    let dance = r#"{"schema":1,"body":{"request":"dance"}}"#;
    assert!(ask(&plugin, dance).contains("request.unknown"));
    for rubbish in ["", "{", "[]", "\"", r#"{"body":{"request":"#, r#"{"schema":1,"body":7}"#] {
        assert!(ask(&plugin, rubbish).contains("message.decode"), "{rubbish}");
    }
}

#[test]
fn an_abandoned_job_in_c_is_told_and_leaves_nothing() {
    let Built { dir: _dir, plugin, .. } = built("c-abandon", b"hello");
    struct Waits(Services);
    impl HostCalls for Waits {
        fn call(&self, op: &str, _: Bytes) -> BoxFuture<Reply> {
            self.0.calls.lock().expect("no panic under the lock").push(op.to_owned());
            Box::pin(std::future::pending())
        }
    }
    let host = Arc::new(Waits(Services::default()));
    let call = json!({ "machine": "backup", "state": "send", "kind": "run", "data": "{}" });
    let step = message::encode(&json!({ "request": "step", "call": call })).expect("JSON");
    let mut task = plugin.start(step, Arc::clone(&host) as Arc<dyn HostCalls>);
    until_called(&host.0, &mut task);
    drop(task);
    // The job holds the host until it has ended, and it has: its call was revoked.
    while Arc::strong_count(&host) > 1 {
        std::thread::yield_now();
    }
    assert_eq!(*host.0.calls.lock().expect("no panic under the lock"), [call::TAKE_BEGIN]);
}

#[test]
fn a_table_that_is_spoilt_is_refused_for_its_own_reason() {
    for (define, kind, advice) in [
        ("-DMAGIC=7", LoadErrorKind::Layout, "does not begin with MERCURY_MAGIC"),
        ("-DMAJOR=2", LoadErrorKind::OtherAbi, "speaks version 2 of the plugin ABI"),
        ("-DSIZE=32", LoadErrorKind::Layout, "a table of 32 bytes, too short"),
        ("-DSTART=NULL", LoadErrorKind::Layout, "has no function `start`"),
        ("-DSYMBOL=mercury_c_plugin_v2", LoadErrorKind::OtherAbi, "speaks version 2"),
        ("-DSYMBOL=mercury_plugin", LoadErrorKind::NotAPlugin, "exports no plugin"),
    ] {
        let dir = Scratch::new("c-spoilt");
        let to = dir.path().join(format!("rude{}.so", define.replace(['=', '-'], "_")));
        let path = compiled("tests/fixtures/c/rude.c", &to, &[define]);
        let error = Library::load(&path, &trusted()).expect_err("refused");
        assert_eq!(error.kind(), kind, "{define}: {error}");
        let line = error.to_string();
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains(advice), "{define}: {line}");
    }
}

#[test]
fn what_is_no_text_and_far_too_much_of_it_does_no_harm() {
    let dir = Scratch::new("c-rude");
    let to = dir.path().join("rude.so");
    // A table that is longer than this host knows is a later plugin's.
    let later = ["-DSIZE=sizeof(mercury_c_plugin)+64"];
    let path = compiled("tests/fixtures/c/rude.c", &to, &later);
    is_borne(&Library::load(&path, &trusted()).expect("it loads"));
    #[cfg(feature = "runner")]
    is_borne(&isolated(&path));
}

#[cfg(feature = "runner")]
fn isolated(path: &Path) -> Library {
    use plugin_sdk::host::{Image, Process, Runner};

    let process = Process::new().runner(Runner::at(env!("CARGO_BIN_EXE_plugin-runner")));
    let image = Image::open(path, &trusted()).expect("it is a file");
    Library::isolated(image, process).expect("it is a plugin")
}

fn is_borne(library: &Library) {
    let error = library.manifest().expect_err("it has none");
    assert_eq!(error.kind(), LoadErrorKind::Manifest);
    assert_eq!(error.to_string().lines().count(), 1, "{error}");

    let plugin = library.init("").expect("an instance");
    assert_eq!(ask(&plugin, "log"), "+logged");
    assert_eq!(ask(&plugin, "empty"), "+");
    assert_eq!(ask(&plugin, "echo"), "+body");
    let bytes = Bytes::from_static(b"\xff\xfe");
    let host = Services::new();
    let reply = block_on(plugin.start(bytes, host.clone())).expect("a reply");
    assert!(reply.result.is_err(), "{reply:?}");
    let long = ask_with(&plugin, &"x".repeat(1000), host.clone());
    assert!(long.contains("no text, or too long"), "{long}");
    assert!(host.calls.lock().expect("no panic under the lock").is_empty());
}
