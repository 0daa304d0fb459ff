//! What it costs to have a plugin in a process of its own.
//!
//! ```text
//! cargo bench -p plugin-sdk --features runner --bench isolation
//! ```
//!
//! In one run: a stream of chunks of 1 MiB, filled on one side and summed up on the other, through
//! the memory that parent and child share, through a Unix socket between two processes, and within
//! one process; a request and its answer, here and there; and the whole life of a child. Figures of
//! different computers cannot be compared; the ratios within a run can, and are printed at the
//! end.

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::future::ready;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
    use futures::executor::block_on;
    use plugin_sdk::abi::{BoxFuture, HostCalls, Object, Reply, SinkHandle};
    use plugin_sdk::host::{
        BufferPool, ChannelSink, Image, Library, NoCalls, PluginInstance, Process, Runner, Trust,
    };

    const CHUNK: usize = 1 << 20;
    const CHUNKS: u64 = 512;
    /// Starts this program as the other end of the socket.
    const WRITES: &str = "--writes-to-its-output";

    /// Hands out one sink.
    struct OneSink(Mutex<Option<SinkHandle>>);
    impl HostCalls for OneSink {
        fn call(&self, _: &str, _: Bytes) -> BoxFuture<Reply> {
            let sink = self.0.lock().ok().and_then(|mut sink| sink.take());
            let reply = Reply::ok("");
            Box::pin(ready(match sink {
                Some(sink) => reply.with(Object::Sink(sink)),
                None => reply,
            }))
        }
    }

    fn fixture() -> PathBuf {
        let program = std::env::current_exe().expect("a program");
        let profile = program.ancestors().nth(2).expect("it is in target/<profile>/deps");
        let library = profile.join("examples/libzoo.so");
        assert!(library.is_file(), "{} is missing: build the examples", library.display());
        library
    }

    fn image() -> Image {
        let trust = Trust::development("the benchmark's own library");
        Image::open(&fixture(), &trust).expect("a library")
    }

    fn process() -> Process {
        Process::new().runner(Runner::at(env!("CARGO_BIN_EXE_plugin-runner")))
    }

    fn sum(bytes: &[u8]) -> u64 {
        let words = bytes.chunks_exact(8);
        words.fold(0, |sum, word| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            sum.wrapping_add(u64::from_le_bytes(bytes))
        })
    }

    /// A stream from the plugin, from its first chunk to its receipt.
    fn stream(plugin: &PluginInstance) -> Duration {
        let (sink, mut receiver) = ChannelSink::new(BufferPool::new(4, CHUNK));
        let host = Arc::new(OneSink(Mutex::new(Some(SinkHandle::serve(sink)))));
        let begun = Instant::now();
        let task = plugin.start(format!("send:{CHUNKS}"), host);
        let reads = std::thread::spawn(move || {
            let mut all = 0;
            while let Some(chunk) = block_on(receiver.recv()) {
                std::hint::black_box(sum(&chunk));
                all += chunk.len() as u64;
            }
            receiver.complete(Ok(Bytes::new()));
            all
        });
        block_on(task).expect("a reply").result.expect("no error");
        assert_eq!(reads.join().expect("it reads"), CHUNKS * CHUNK as u64);
        begun.elapsed()
    }

    /// The same through a socket from another process.
    fn socket() -> Duration {
        let (mut near, far) = UnixStream::pair().expect("a socket pair");
        let begun = Instant::now();
        let mut writer = Command::new(std::env::current_exe().expect("a program"))
            .arg(WRITES)
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(far))
            .spawn()
            .expect("this program again");
        let mut chunk = vec![0; CHUNK];
        let mut ready = [0];
        near.read_exact(&mut ready).expect("it has begun");
        let started = begun.elapsed();
        for _ in 0..CHUNKS {
            near.read_exact(&mut chunk).expect("a chunk");
            std::hint::black_box(sum(&chunk));
        }
        let took = begun.elapsed() - started;
        writer.wait().expect("it ends");
        took
    }

    fn write_chunks() {
        let mut output = std::io::stdout().lock();
        let mut chunk = vec![0; CHUNK];
        output.write_all(&[1]).and_then(|()| output.flush()).expect("somebody reads");
        for number in 0..CHUNKS {
            chunk.fill(number as u8);
            output.write_all(&chunk).expect("somebody reads");
        }
        output.flush().expect("somebody reads");
    }

    fn request(plugin: &PluginInstance) -> Duration {
        let begun = Instant::now();
        let reply = block_on(plugin.start("echo:hello", Arc::new(NoCalls)));
        assert_eq!(reply.expect("a reply").result, Ok("hello".into()));
        begun.elapsed()
    }

    /// Start, load, instance, one request, end.
    fn life() -> Duration {
        let library = Library::isolated(image(), process()).expect("a plugin");
        let begun = Instant::now();
        let plugin = library.init("").expect("an instance");
        request(&plugin);
        drop(plugin);
        begun.elapsed()
    }

    fn best(
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        once: impl Fn() -> Duration,
    ) -> Duration {
        let mut best = Duration::MAX;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let each = (0..times).map(|_| once());
                each.inspect(|took| best = best.min(*took)).sum()
            });
        });
        best
    }

    pub(super) fn main() {
        if std::env::args().any(|argument| argument == WRITES) {
            return write_chunks();
        }
        let here = Library::map(image()).expect("a plugin").init("").expect("an instance");
        let isolated = Library::isolated(image(), process()).expect("a plugin");
        let apart = isolated.init("").expect("an instance").apart();
        let mut criterion = Criterion::default().configure_from_args();

        let mut group = criterion.benchmark_group("a stream in chunks of 1 MiB");
        group.throughput(Throughput::Bytes(CHUNKS * CHUNK as u64));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.measurement_time(Duration::from_secs(3));
        let in_process = best(&mut group, "in this process", || stream(&here));
        let shared = best(&mut group, "from a child, in shared memory", || stream(&apart));
        let by_socket = best(&mut group, "from a child, through a socket", socket);
        group.finish();

        let mut group = criterion.benchmark_group("a request and its answer");
        group.measurement_time(Duration::from_secs(2));
        let asked_here = best(&mut group, "in this process", || request(&here));
        let asked_apart = best(&mut group, "in a child", || request(&apart));
        group.finish();

        let mut group = criterion.benchmark_group("a child");
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        let whole = best(&mut group, "its whole life", life);
        group.finish();

        let rate = |took: Duration| (CHUNKS * CHUNK as u64) as f64 / took.as_secs_f64() / 1e9;
        println!("\nbest of this run:");
        println!("  stream in this process        {:>8.2} GB/s", rate(in_process));
        println!("  stream in shared memory       {:>8.2} GB/s", rate(shared));
        println!("  stream through a socket       {:>8.2} GB/s", rate(by_socket));
        println!(
            "  shared memory to socket       {:>8.2} times",
            by_socket.as_secs_f64() / shared.as_secs_f64()
        );
        println!("  request in this process       {:>8.1} us", asked_here.as_secs_f64() * 1e6);
        println!("  request in a child            {:>8.1} us", asked_apart.as_secs_f64() * 1e6);
        println!("  start, load, request, end     {:>8.2} ms", whole.as_secs_f64() * 1e3);
    }
}
