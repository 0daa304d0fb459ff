//! What the boundary costs, beside what one would do without it.
//!
//! ```text
//! cargo build --release -p plugin-sdk --all-features --examples
//! cargo bench -p plugin-sdk --all-features --bench boundary
//! cargo bench -p plugin-sdk --all-features --bench boundary -- steps     # or calls, streams, loads
//! ```
//!
//! Both sides of a row are measured in turns, in one process, so that the ratio means something on
//! a machine that has other work. Prints a table of the medians of all turns; the last column is
//! what the ratio may be at most.

#[cfg(all(feature = "host", feature = "tokio", target_os = "linux"))]
fn main() {
    linux::main();
}

#[cfg(not(all(feature = "host", feature = "tokio", target_os = "linux")))]
fn main() {}

#[cfg(all(feature = "host", feature = "tokio", target_os = "linux"))]
mod linux {
    use std::future::poll_fn;
    use std::hint::black_box;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::thread;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use futures::channel::mpsc;
    use futures::executor::block_on;
    use futures::{SinkExt, StreamExt};
    use plugin_sdk::abi::{BoxFuture, Cancellation, LentBuffer, Object, Reply, SinkHandle};
    use plugin_sdk::host::{
        BufferPool, ChannelSink, ChunkReceiver, HostCalls, Library, PluginInstance, Trust,
    };

    const TURNS: usize = 15;
    const CHUNK: usize = 1 << 20;
    const BUFFERS: usize = 4;

    /// The fixture's library, as it was built for this profile.
    fn built() -> Option<PathBuf> {
        let program = std::env::current_exe().ok()?;
        let library = program.parent()?.parent()?.join("examples/libabi_fixture.so");
        library.is_file().then_some(library)
    }

    fn trusted() -> Trust {
        Trust::development("the benchmark's own library")
    }

    fn median(mut each: Vec<Duration>) -> Duration {
        each.sort_unstable();
        each[each.len() / 2]
    }

    /// The time of one of `times` calls.
    fn each(times: u32, mut call: impl FnMut()) -> Duration {
        let begun = Instant::now();
        for _ in 0..times {
            call();
        }
        begun.elapsed() / times
    }

    fn row(
        what: &str,
        beside: &str,
        at_most: Option<f64>,
        mut ours: impl FnMut() -> Duration,
        mut theirs: impl FnMut() -> Duration,
    ) {
        let (mut our_turns, mut their_turns) = (Vec::new(), Vec::new());
        ours();
        theirs();
        for _ in 0..TURNS {
            our_turns.push(ours());
            their_turns.push(theirs());
        }
        let (ours, theirs) = (median(our_turns), median(their_turns));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        let bound = match at_most {
            Some(most) if ratio > most => format!("{most}, MISSED"),
            Some(most) => most.to_string(),
            None => String::new(),
        };
        println!("| {what} | {ours:?} | {beside} | {theirs:?} | {ratio:.2} | {bound} |");
    }

    /// A host that hands out one sink.
    #[derive(Default)]
    struct Host(Mutex<Option<SinkHandle>>);

    impl HostCalls for Host {
        fn call(&self, _: &str, body: Bytes) -> BoxFuture<Reply> {
            let sink = self.0.lock().ok().and_then(|mut sink| sink.take()).map(Object::Sink);
            Box::pin(std::future::ready(Reply { result: Ok(body), object: sink }))
        }
    }

    trait Plain: Send + Sync {
        fn manifest(&self) -> Vec<u8>;
        fn cancel(&self);
    }
    struct Here(Cancellation);
    impl Plain for Here {
        fn manifest(&self) -> Vec<u8> {
            br#"{"workload":"fixture"}"#.to_vec()
        }
        fn cancel(&self) {
            self.0.request();
        }
    }

    fn calls(library: &Library, plugin: &PluginInstance) {
        let here: Box<dyn Plain> = Box::new(Here(Cancellation::new()));
        let task = plugin.start("keep the waker", Arc::<Host>::default());
        row(
            "call (`cancel` of a task)",
            "`dyn` call that does the same",
            Some(2.0),
            || each(100_000, || black_box(&task).cancel()),
            || each(100_000, || black_box(&here).cancel()),
        );
        row(
            "call that returns bytes (`manifest`)",
            "`dyn` call that does the same",
            None,
            || {
                each(20_000, || {
                    let _ = black_box(library.manifest());
                })
            },
            || each(20_000, || drop(black_box(Bytes::from(black_box(&here).manifest())))),
        );
    }

    fn steps(plugin: &PluginInstance) {
        let host = Arc::<Host>::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        let Ok(runtime) = runtime else { return };
        row(
            "job that does nothing, `Own`",
            "`tokio::spawn` and join",
            Some(2.0),
            || {
                each(2_000, || {
                    let _ = black_box(block_on(plugin.start("echo:", host.clone())));
                })
            },
            || {
                each(2_000, || {
                    let _ = black_box(block_on(runtime.spawn(async { black_box(Bytes::new()) })));
                })
            },
        );
        row(
            "job that does nothing, `Inline`",
            "`tokio::spawn` and join",
            None,
            || {
                each(2_000, || {
                    let _ = black_box(block_on(plugin.start("echo inline", host.clone())));
                })
            },
            || {
                each(2_000, || {
                    let _ = black_box(block_on(runtime.spawn(async { black_box(Bytes::new()) })));
                })
            },
        );
    }

    fn sum(chunk: &[u8]) -> u64 {
        chunk.chunks_exact(8).fold(0, |sum, word| {
            sum.wrapping_add(u64::from_ne_bytes(word.try_into().unwrap_or_default()))
        })
    }

    /// The time of a chunk on its way from the plugin to a thread of the host's.
    fn ours(
        plugin: &PluginInstance,
        request: &str,
        chunks: u32,
        look: fn(&[u8]) -> u64,
    ) -> Duration {
        let (sink, receiver) = ChannelSink::new(BufferPool::new(BUFFERS, CHUNK));
        let host = Arc::new(Host(Mutex::new(Some(SinkHandle::serve(sink)))));
        let begun = Instant::now();
        let task = plugin.start(format!("{request}:{chunks}"), host);
        let reads = thread::spawn(move || {
            let mut receiver: ChunkReceiver = receiver;
            while let Some(chunk) = block_on(receiver.recv()) {
                black_box(look(&chunk));
            }
            receiver.complete(Ok(Bytes::new()));
        });
        let reply = block_on(task);
        let _ = reads.join();
        let took = begun.elapsed();
        assert!(matches!(reply, Ok(Reply { result: Ok(_), .. })), "{reply:?}");
        took / chunks
    }

    /// The same over a channel, between two threads.
    fn theirs(
        chunks: u32,
        mut make: impl FnMut() -> Bytes + Send + 'static,
        look: fn(&[u8]) -> u64,
    ) -> Duration {
        let (mut to, mut from) = mpsc::channel::<Bytes>(BUFFERS - 1);
        let begun = Instant::now();
        let sends = thread::spawn(move || {
            for _ in 0..chunks {
                let _ = block_on(to.send(make()));
            }
        });
        let reads = thread::spawn(move || {
            while let Some(chunk) = block_on(from.next()) {
                black_box(look(&chunk));
            }
        });
        let _ = (sends.join(), reads.join());
        begun.elapsed() / chunks
    }

    fn streams(plugin: &PluginInstance) {
        let chunk = Bytes::from(vec![7; CHUNK]);
        row(
            "chunk of 1 MiB, untouched",
            "channel of `Bytes`",
            Some(1.25),
            || ours(plugin, "send untouched", 4_000, |_| 0),
            || {
                let chunk = chunk.clone();
                theirs(4_000, move || chunk.clone(), |_| 0)
            },
        );
        row(
            "chunk of 1 MiB, filled and read",
            "channel of `Bytes`",
            Some(1.25),
            || ours(plugin, "send filled", 400, sum),
            || {
                let pool = BufferPool::new(BUFFERS, CHUNK);
                let make = move || {
                    let lent = block_on(poll_fn(|cx| pool.poll_lend(CHUNK, cx)));
                    let mut buffer = lent.unwrap_or_else(|_| LentBuffer::new(vec![0; CHUNK]));
                    buffer.fill(7);
                    buffer.freeze(CHUNK).into_bytes()
                };
                theirs(400, make, sum)
            },
        );
    }

    /// A first load of a copy, with all checks, to the first instance.
    fn loads(library: &std::path::Path) {
        let directory = std::env::temp_dir().join(format!("mercury-bench-{}", std::process::id()));
        if std::fs::create_dir_all(&directory).is_err() {
            return;
        }
        let mut took = Vec::new();
        for turn in 0..40 {
            let copy = directory.join(format!("libacme_{turn}.so"));
            if std::fs::copy(library, &copy).is_err() {
                return;
            }
            let begun = Instant::now();
            let loaded = Library::load(&copy, &trusted());
            let made = loaded.as_ref().map(|library| (library.manifest(), library.init("")));
            took.push(begun.elapsed());
            assert!(matches!(made, Ok((Ok(_), Ok(_)))), "{loaded:?}");
        }
        let _ = std::fs::remove_dir_all(&directory);
        let took = median(took);
        let fits = if took < Duration::from_millis(5) { "" } else { "  MISSED" };
        println!("| load, checks, manifest, init | {took:?} | | | | 5 ms{fits} |");
    }

    pub(super) fn main() {
        let Some(path) = built() else {
            println!("build the examples first: see the top of this file");
            return;
        };
        let Ok(library) = Library::load(&path, &trusted()) else {
            println!("{} does not load", path.display());
            return;
        };
        let Ok(plugin) = library.init("") else { return };
        println!("| across the boundary | median | without | median | ratio | at most |");
        println!("| --- | --- | --- | --- | --- | --- |");
        let named: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
        if wanted("calls") {
            calls(&library, &plugin);
        }
        if wanted("steps") {
            steps(&plugin);
        }
        if wanted("streams") {
            streams(&plugin);
        }
        if wanted("loads") {
            loads(&path);
        }
    }
}
