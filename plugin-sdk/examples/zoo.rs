//! A plugin that does to its process whatever can be done to one, for the tests of isolation.

use std::io::Write;

use bytes::Bytes;
use plugin_sdk::abi::{
    BoxFuture, Call, CallError, Entry, HostHandle, Instance, Object, Place, Reply,
};

/// The plugin.
#[derive(Debug)]
pub struct Zoo;

impl Entry for Zoo {
    fn manifest() -> Vec<u8> {
        br#"{"workload":"zoo"}"#.to_vec()
    }

    fn init(config: Bytes) -> Result<Box<dyn Instance>, Vec<u8>> {
        match &config[..] {
            b"segfault" => segfault(),
            b"hang" => hang(),
            _ => Ok(Box::new(Zoo)),
        }
    }
}

plugin_sdk::export_entry!(Zoo);

unsafe extern "C" {
    safe fn fork() -> i32;
    safe fn getppid() -> i32;
    safe fn getpgid(process: i32) -> i32;
    safe fn setpgid(process: i32, group: i32) -> i32;
}

impl Instance for Zoo {
    fn start(&self, call: Call) -> BoxFuture<Reply> {
        if &call.request[..] == b"hang in start" {
            hang();
        }
        Box::pin(run(call))
    }

    fn place(&self, request: &Bytes) -> Place {
        if request.ends_with(b" inline") { Place::Inline } else { Place::Own }
    }
}

async fn run(call: Call) -> Reply {
    let request = String::from_utf8_lossy(&call.request).into_owned();
    let (verb, rest) = request.split_once(':').unwrap_or((&request, ""));
    match verb.trim_end_matches(" inline") {
        "echo" => Reply::ok(rest.to_owned()),
        "pid" => Reply::ok(std::process::id().to_string()),
        "panic" => panic!("as asked"),
        "panic in drop" => {
            let _held = DropsBadly;
            panic!("and then some");
        }
        "abort" => std::process::abort(),
        "segfault" => segfault(),
        "exit" => std::process::exit(rest.parse().unwrap_or(0)),
        "hang" => hang(),
        "deaf" => {
            // Begun, and never seen again.
            let _ = call.host.call("begun", "").await;
            // Whoever hears this knows that nothing is awaited any more.
            drop(call.host.call("deaf", ""));
            hang()
        }
        "overflow" => Reply::ok(overflow(1).to_string()),
        "allocate" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 64 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        "fork" => {
            if fork() == 0 {
                // The copy goes on for as long as it is let.
                hang();
            }
            Reply::ok(std::process::id().to_string())
        }
        "fork and exit" => {
            if fork() == 0 {
                hang();
            }
            std::process::exit(3)
        }
        "change sides" => {
            // To the agent's own group.
            match setpgid(0, getpgid(getppid())) {
                0 => hang(),
                _ => Reply::error("it may not"),
            }
        }
        "ask at once" => {
            let calls = (0..rest.parse().unwrap_or(1)).map(|_| call.host.call("large", ""));
            let replies = futures::future::join_all(calls).await;
            let bodies = replies.into_iter().filter_map(|reply| reply.ok()?.result.ok());
            Reply::ok(bodies.map(|body| body.len()).sum::<usize>().to_string())
        }
        "close everything" => {
            for number in 0..100 {
                close(number);
            }
            hang()
        }
        "print" => {
            println!("{rest}");
            eprintln!("{rest}, too");
            Reply::ok("printed")
        }
        "flood" => {
            let line = [b"no".repeat(50), b"\n".to_vec()].concat();
            let mut output = std::io::stdout().lock();
            for _ in 0..200_000 {
                if output.write_all(&line).is_err() {
                    break;
                }
            }
            for number in 0..50_000 {
                tracing::warn!(number, "flood");
            }
            Reply::ok("flooded")
        }
        "progress" => {
            // Asked, and not waited for.
            for _ in 0..rest.parse().unwrap_or(1000) {
                drop(call.host.call("note", "x"));
            }
            Reply::ok("noted")
        }
        "send" => send(&call.host, rest.parse().unwrap_or(1)).await,
        "descriptors" => Reply::ok(descriptors()),
        "status" => Reply::ok(std::fs::read("/proc/self/status").unwrap_or_default()),
        "limits" => Reply::ok(std::fs::read("/proc/self/limits").unwrap_or_default()),
        "environment" => {
            let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
            Reply::ok(names.collect::<Vec<_>>().join(" "))
        }
        "read stdin" => {
            let mut text = String::new();
            let read = std::io::Read::read_to_string(&mut std::io::stdin(), &mut text);
            Reply::ok(format!("{read:?}"))
        }
        other => Reply::error(format!("no such request: {other}")),
    }
}

/// Sends that many full buffers.
async fn send(host: &HostHandle, chunks: u64) -> Reply {
    let Ok(Reply { object: Some(Object::Sink(mut sink)), .. }) = host.call("sink", "").await else {
        return Reply::error("no sink");
    };
    for number in 0..chunks {
        let Ok(mut buffer) = sink.buffer(1 << 20).await else { break };
        buffer.fill(number as u8);
        let len = buffer.len();
        if sink.send(buffer.freeze(len)).await.is_err() {
            break;
        }
    }
    match sink.finish().await {
        Ok(receipt) => Reply::ok(receipt),
        Err(CallError::Refused(document)) => Reply::error(document),
        Err(error) => Reply::error(format!("{error:?}")),
    }
}

/// What the descriptors of this process are, but for the one that the list is read from.
fn descriptors() -> String {
    let mut links = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        if let Ok(link) = std::fs::read_link(entry.path()) {
            links.push(link.to_string_lossy().into_owned());
        }
    }
    links.retain(|link| !link.ends_with("/fd"));
    links.sort();
    links.join("\n")
}

unsafe extern "C" {
    #[link_name = "close"]
    safe fn close(number: i32) -> i32;
}

fn segfault() -> ! {
    // SAFETY: not at all; that is the point. Nothing is ever mapped at this address.
    unsafe { std::ptr::without_provenance_mut::<u8>(16).write_volatile(1) };
    hang()
}

#[allow(unconditional_recursion, reason = "that is the point")]
fn overflow(depth: u64) -> u64 {
    let page = [depth; 512];
    std::hint::black_box(&page);
    overflow(depth + 1) + page[0]
}

fn hang() -> ! {
    loop {
        std::hint::spin_loop();
        std::thread::yield_now();
    }
}

struct DropsBadly;
impl Drop for DropsBadly {
    fn drop(&mut self) {
        // A panic while another one unwinds ends the process.
        panic!("in drop");
    }
}
