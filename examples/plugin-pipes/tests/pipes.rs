//! The whole way: a system writes into pipes and starts the program, which calls an agent that has
//! the plugin; and back. Processes, pipes and sockets are real, the system is played by the test.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use mercury::{
    Engine, ErrorKind, Event, Events, Isolation, ItemId, Key, KeySource, Outcome, Plugin, PointId,
    Process, Runner, Shutdown, Trust,
};
use plugin_pipes::Pipes;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing that is waited for takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Here,
    Apart,
}

const BOTH: [Where; 2] = [Where::Here, Where::Apart];

struct World {
    root: TempDir,
    key: Key,
}

impl World {
    fn new() -> Self {
        World { root: TempDir::new().unwrap(), key: Key::generate().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("calls/pipes/door.sock")
    }

    async fn start(&self, place: Where, more: Value) -> Engine {
        let mut config = json!({ "users": [fs::metadata("/proc/self").unwrap().uid()] });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let program = std::env::current_exe().unwrap();
        let target = program.ancestors().nth(2).unwrap();
        let plugin = match place {
            Where::Here => Plugin::linked::<Pipes>(),
            Where::Apart => {
                let trust = Trust::development("built together with this test");
                let process =
                    Process::new().runner(Runner::at(target.join("examples/pipes_runner")));
                Plugin::library(target.join("deps/libplugin_pipes.so"), trust)
                    .isolation(Isolation::Process(process))
            }
        };
        Engine::builder()
            .state_dir(self.path("state"))
            .archive_dir(self.path("archive"), KeySource::given(self.key.clone()))
            .plugin(plugin.config("pipes", config))
            .ingress_dir(self.path("calls"))
            .start()
            .await
            .unwrap()
    }

    /// A pipe with a name.
    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    fn save(&self, item: &str, pipes: &[(&str, &Path)]) -> Child {
        let mut program = program();
        program.arg("save").arg(self.socket()).arg(item);
        start(program, pipes)
    }

    fn restore(&self, item: &str, point: &PointId, pipes: &[(&str, &Path)]) -> Child {
        let mut program = program();
        program.arg("restore").arg(self.socket()).arg(item).arg(point.as_str());
        start(program, pipes)
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pipes"))
}

/// The program without anything to do.
fn program_alone() -> Command {
    let mut program = program();
    program.args(["save", "/run/nowhere"]);
    program
}

fn start(mut program: Command, pipes: &[(&str, &Path)]) -> Child {
    for (name, path) in pipes {
        program.arg(format!("{name}={}", path.display()));
    }
    program.stdout(Stdio::piped()).spawn().unwrap()
}

/// Bytes that repeat nowhere.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> =
        std::iter::repeat_with(&mut next).take(length / 8 + 1).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// The system writes into a pipe.
fn writing(path: PathBuf, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        File::options().write(true).open(path).unwrap().write_all(&bytes).unwrap();
    })
}

/// The system reads from a pipe.
fn reading(path: PathBuf) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    })
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it does not come")
}

/// What the program said, and its exit code.
async fn ended(child: Child) -> (String, Option<i32>) {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = soon(waiting).await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

async fn until(events: &mut Events, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    soon(async {
        loop {
            let event = events.next().await.expect("the engine is there");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

fn item(name: &str) -> ItemId {
    ItemId::new("pipes", "local", name).unwrap()
}

/// Saves two pipes of these bytes; the point.
async fn saved(world: &World, tag: &str, data: &[u8], log: &[u8]) -> PointId {
    let (a, b) = (world.fifo(&format!("{tag}-a")), world.fifo(&format!("{tag}-b")));
    let system = [writing(a.clone(), data.to_vec()), writing(b.clone(), log.to_vec())];
    let (said, code) = ended(world.save("orders", &[("data", &a), ("log", &b)])).await;
    assert_eq!(code, Some(0), "{said}");
    system.into_iter().for_each(|system| system.join().unwrap());
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines[..2],
        [format!("done data {}", data.len()), format!("done log {}", log.len())]
    );
    PointId::new(lines[2].strip_prefix("point ").unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_system_wrote_into_pipes_comes_out_of_pipes() {
    for place in BOTH {
        let world = World::new();
        let engine = world.start(place, json!({})).await;
        let (data, log) = (noise(5_000_000, 1), noise(70_000, 2));
        let point = saved(&world, "save", &data, &log).await;
        // Nothing at all is also something.
        let empty = saved(&world, "empty", b"", b"").await;
        let points = engine.points(&item("orders")).await.unwrap();
        let ids: Vec<_> = points.iter().map(|point| point.id.clone()).collect();
        assert_eq!(ids, [point.clone(), empty.clone()]);

        for (tag, point, expected) in
            [("back", &point, [data, log]), ("none", &empty, [Vec::new(), Vec::new()])]
        {
            let paths = [world.fifo(&format!("{tag}-a")), world.fifo(&format!("{tag}-b"))];
            let system = paths.clone().map(reading);
            // In another order than they were saved in.
            let pipes = [("log", &*paths[1]), ("data", &*paths[0])];
            let (said, code) = ended(world.restore("orders", point, &pipes)).await;
            assert_eq!(code, Some(0), "{said}");
            assert!(said.ends_with(&format!("point {}\n", point.as_str())), "{said}");
            for (system, expected) in system.into_iter().zip(expected) {
                assert!(system.join().unwrap() == expected, "{tag}: other bytes");
            }
        }
        assert_eq!(soon(engine.shutdown(Duration::from_secs(30))).await, Shutdown::Drained);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_the_agent_begins_makes_the_system_call() {
    for place in BOTH {
        let world = World::new();
        let pipe = world.fifo("pipe");
        let bytes = noise(300_000, 3);
        let command = json!([
            env!("CARGO_BIN_EXE_pipes"),
            "save",
            world.socket(),
            "orders",
            format!("data={}", pipe.display()),
        ]);
        let engine = world.start(place, json!({ "command": command, "items": ["orders"] })).await;
        assert_eq!(soon(engine.discover()).await.unwrap()[0].id, item("orders"));
        let system = writing(pipe.clone(), bytes.clone());
        let backup = engine.backup(&item("orders")).id("nightly").submit().await.unwrap();
        let Outcome::BackedUp { point, stats, .. } = soon(backup.outcome()).await.unwrap() else {
            panic!("it backs up")
        };
        system.join().unwrap();
        assert_eq!(stats.read_bytes, bytes.len() as u64);
        let operations = engine.operations().await.unwrap();
        assert_eq!(operations.len(), 1, "the call became no operation of its own");
        assert_eq!(operations[0].called_by, None);

        let system = reading(pipe.clone());
        let (said, code) = ended(world.restore("orders", &point, &[("data", &pipe)])).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(system.join().unwrap() == bytes);

        // A command that calls nobody, and says so.
        soon(engine.shutdown(Duration::from_secs(30))).await;
        let engine = world.start(place, json!({ "command": ["false"] })).await;
        let backup = engine.backup(&item("orders")).submit().await.unwrap();
        assert_eq!(soon(backup.outcome()).await.unwrap_err().code(), "pipes.command");
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_of_another_user_is_heard_if_that_user_may_call_and_else_not() {
    const NOBODY: u32 = 65_534;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("left out: it takes root to be somebody else");
        return;
    }
    let world = World::new();
    // What somebody else needs to come as far as the socket and the program.
    fs::set_permissions(world.root.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let pipes = world.path("pipes");
    fs::copy(env!("CARGO_BIN_EXE_pipes"), &pipes).unwrap();
    let as_nobody = |path: &Path| {
        let mut program = Command::new(&pipes);
        program.uid(NOBODY).gid(NOBODY).arg("save").arg(world.socket()).arg("orders");
        start(program, &[("data", path)])
    };
    let pipe = world.fifo("pipe");
    for (users, is_heard) in [(vec![NOBODY], true), (vec![0, NOBODY - 1], false)] {
        let engine = world.start(Where::Here, json!({ "users": users })).await;
        let mut events = engine.subscribe();
        if is_heard {
            let system = writing(pipe.clone(), noise(1_000, 4));
            let (said, code) = ended(as_nobody(&pipe)).await;
            assert_eq!(code, Some(0), "{said}");
            system.join().unwrap();
            // Root is not declared.
            let (said, code) = ended(world.save("orders", &[("data", &pipe)])).await;
            assert_eq!(code, Some(1), "{said}");
        } else {
            let (said, code) = ended(as_nobody(&pipe)).await;
            assert_eq!(code, Some(1), "{said}");
        }
        let refused = |event: &Event| matches!(event, Event::CallRefused { .. });
        let Event::CallRefused { code, peer, .. } = until(&mut events, refused).await else {
            unreachable!("it was waited for")
        };
        assert_eq!((code.as_str(), peer.uid), ("ingress.peer", if is_heard { 0 } else { NOBODY }));
        let peers: Vec<_> = engine.operations().await.unwrap();
        let peers: Vec<_> = peers.iter().filter_map(|one| one.called_by.as_ref()).collect();
        assert_eq!(peers.len(), 1, "that of the one that was heard, and no other");
        assert_eq!((peers[0].peer.uid, peers[0].peer.gid), (NOBODY, NOBODY));
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

/// A program whose pipe the system keeps open, and writes nothing more into; and its operation.
async fn in_the_middle(world: &World, engine: &Engine) -> (Child, File, mercury::Operation) {
    let mut events = engine.subscribe();
    let pipe = world.fifo("pipe");
    let program = world.save("orders", &[("data", &pipe)]);
    let opening = move || File::options().write(true).open(pipe).unwrap();
    let mut system = soon(tokio::task::spawn_blocking(opening)).await.unwrap();
    system.write_all(b"the beginning").unwrap();
    let opened = |event: &Event| matches!(event, Event::StreamOpened { .. });
    let Event::StreamOpened { operation, .. } = until(&mut events, opened).await else {
        unreachable!("it was waited for")
    };
    (program, system, engine.operation(&operation).await.unwrap())
}

/// The system hears that nobody reads any more.
async fn is_told(mut system: File) {
    soon(async {
        loop {
            match system.write_all(b"more") {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_dies_in_the_middle_leaves_no_point_and_holds_nobody_up() {
    for place in BOTH {
        let world = World::new();
        let engine = world.start(place, json!({})).await;
        let (mut program, system, backup) = in_the_middle(&world, &engine).await;
        program.kill().unwrap();
        program.wait().unwrap();
        assert_eq!(soon(backup.outcome()).await.unwrap_err().code(), "pipes.gone");
        assert_eq!(engine.points(&item("orders")).await.unwrap(), []);
        is_told(system).await;
        saved(&world, "next", b"as ever", b"").await;
        soon(engine.shutdown(Duration::from_secs(30))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_whose_operation_is_cancelled_fails_and_so_does_one_without_an_agent() {
    for place in BOTH {
        let world = World::new();
        let engine = world.start(place, json!({})).await;
        let (program, system, backup) = in_the_middle(&world, &engine).await;
        backup.cancel().await.unwrap();
        assert_eq!(soon(backup.outcome()).await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(engine.points(&item("orders")).await.unwrap(), []);
        let (said, code) = ended(program).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.starts_with("failed: "), "{said}");
        is_told(system).await;

        soon(engine.shutdown(Duration::from_secs(30))).await;
        let (said, code) = ended(world.save("orders", &[("data", &world.path("pipe"))])).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.starts_with("failed: "), "{said}");
        let (said, code) = ended(start(program_alone(), &[])).await;
        assert_eq!((said.lines().count(), code), (2, Some(2)), "{said}");
    }
}
