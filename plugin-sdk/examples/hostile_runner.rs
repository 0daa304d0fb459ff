//! A runner that does not keep to the protocol, for the tests of isolation: a plugin can make its
//! process say whatever it likes. What it does wrong is the name that it was started under.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

struct Parent(UnixStream);

impl Parent {
    fn say(&mut self, message: &Value, payload: &[u8]) {
        let head = message.to_string();
        self.raw(head.len() + payload.len() + 4, head.len(), &[head.as_bytes(), payload].concat());
    }

    /// A frame with these lengths, whatever follows.
    fn raw(&mut self, all: usize, head: usize, bytes: &[u8]) {
        let frame = [&(all as u32).to_le_bytes()[..], &(head as u32).to_le_bytes(), bytes].concat();
        // The parent may have had enough.
        let _ = self.0.write_all(&frame);
    }

    /// The next message; the process ends with the conversation.
    fn hear(&mut self) -> Value {
        let mut number = [0; 4];
        let mut next = |stream: &mut UnixStream| match stream.read_exact(&mut number) {
            Ok(()) => u32::from_le_bytes(number) as usize,
            Err(_) => std::process::exit(0),
        };
        let (all, head) = (next(&mut self.0), next(&mut self.0));
        let mut body = vec![0; all - 4];
        if self.0.read_exact(&mut body).is_err() {
            std::process::exit(0);
        }
        serde_json::from_slice(&body[..head]).unwrap_or_default()
    }

    fn hear_kind(&mut self, kind: &str) -> Value {
        loop {
            let message = self.hear();
            if message["m"] == kind {
                return message;
            }
        }
    }

    fn sink(&mut self, request: &Value) -> Value {
        self.say(&json!({ "m": "call", "request": request, "call": 1, "op": "sink" }), b"");
        self.hear_kind("answer")["handed"]["sink"].clone()
    }
}

fn main() {
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    let mut parent = Parent(socket.into());
    let program = std::env::current_exe().unwrap_or_default();
    let how = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match how {
        "four gibibytes" => parent.raw(u32::MAX as usize, 8, b""),
        "a head longer than its frame" => parent.raw(16, 4000, &[0; 12]),
        "an unknown message" => parent.say(&json!({ "m": "surprise" }), b""),
        "no message" => parent.raw(12, 8, b"\xff\xfe{}{}[]"),
        "a descriptor that does not come" => {
            let done = json!({ "m": "done", "request": 0, "status": "ok", "descriptor": true });
            parent.say(&done, b"");
        }
        _ => {}
    }
    parent.say(&json!({ "m": "loaded", "manifest": "ok" }), b"{}");
    parent.say(&json!({ "m": "ready", "status": "ok" }), b"");
    if how == "a request that there never was" {
        parent.say(&json!({ "m": "gone", "request": 7000 }), b"");
    }
    let request = &parent.hear_kind("start")["request"];
    let chunk = |sink: &Value, slot: u64, len: u64| {
        let place = json!({ "m": "chunk", "request": request, "sink": sink });
        let mut message = place;
        message["slot"] = slot.into();
        message["len"] = len.into();
        message
    };
    match how {
        "a slot past the end" => {
            let sink = parent.sink(request);
            parent.say(&chunk(&sink, 6, 10), b"");
        }
        "a slot that jumps" => {
            let sink = parent.sink(request);
            parent.say(&chunk(&sink, u64::from(u32::MAX), 10), b"");
        }
        "a chunk longer than its slot" => {
            let sink = parent.sink(request);
            parent.say(&chunk(&sink, 5, (1 << 20) + 1), b"");
        }
        "a slot twice" => {
            let sink = parent.sink(request);
            for _ in 0..200 {
                parent.say(&chunk(&sink, 0, 1 << 20), b"");
            }
        }
        "somebody else's stream" => parent.say(&chunk(&json!(77), 0, 10), b""),
        "a source that it was not given" => {
            let read = json!({ "m": "read", "request": request, "call": 9, "source": 3,
                               "offset": u64::MAX, "len": 1 });
            parent.say(&read, b"");
        }
        "two calls of one number" => {
            let call = json!({ "m": "call", "request": request, "call": 1, "op": "never" });
            parent.say(&call, b"");
            parent.say(&call, b"");
        }
        "more calls than are answered" => {
            for call in 0..10_000 {
                let call = json!({ "m": "call", "request": request, "call": call, "op": "never" });
                parent.say(&call, b"");
            }
        }
        "questions whose answers it does not read" => {
            let body = vec![0; 1 << 20];
            for call in 0..1000 {
                let call = json!({ "m": "call", "request": request, "call": call, "op": "echo" });
                parent.say(&call, &body);
            }
        }
        "silence" => {
            let _ = parent.0.shutdown(std::net::Shutdown::Both);
        }
        _ => {}
    }
    loop {
        std::thread::park();
    }
}
