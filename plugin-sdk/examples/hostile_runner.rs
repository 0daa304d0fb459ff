//! A runner that does not keep to the protocol, for the tests of isolation: a plugin can make its
//! process say whatever it likes. What it does wrong is the name that it was started under.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

/// Where a stream's memory says how many slots were sent, and which: behind the slots.
const SENT: u64 = 6 << 20;
const TAKEN: u64 = SENT + 64;
const PARENT_WAITS: u64 = SENT + 128;
const ENTRIES: u64 = SENT + 256;

/// The conversation, and the last memory that it brought.
struct Parent(UnixStream, Option<File>);

/// A stream of the parent's.
struct Stream {
    sink: Value,
    memory: File,
}

impl Stream {
    /// Says that `slots` were sent, each of the same kind.
    fn claim(&self, slots: u32, slot: u32, len: u32) {
        let entry = [slot.to_le_bytes(), len.to_le_bytes()].concat();
        for number in 0..8 {
            self.put(ENTRIES + number * 8, &entry);
        }
        self.put(SENT, &slots.to_le_bytes());
    }

    fn get(&self, at: u64) -> [u8; 4] {
        let mut bytes = [0; 4];
        self.memory.read_exact_at(&mut bytes, at).unwrap_or_default();
        bytes
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).unwrap_or_default();
    }
}

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
        self.receive(&mut number);
        let all = u32::from_le_bytes(number) as usize;
        self.receive(&mut number);
        let head = u32::from_le_bytes(number) as usize;
        let mut body = vec![0; all - 4];
        if self.0.read_exact(&mut body).is_err() {
            std::process::exit(0);
        }
        serde_json::from_slice(&body[..head]).unwrap_or_default()
    }

    /// Fills `bytes`, and keeps a descriptor that comes with them.
    fn receive(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [IoSliceMut::new(bytes)];
            let received = recvmsg(&self.0, parts, &mut control, RecvFlags::CMSG_CLOEXEC);
            let Ok(count @ 1..) = received.map(|received| received.bytes) else {
                std::process::exit(0)
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(mut owned) = message {
                    self.1 = owned.next().map(File::from).or(self.1.take());
                }
            }
            bytes = &mut bytes[count..];
        }
    }

    fn hear_kind(&mut self, kind: &str) -> Value {
        loop {
            let message = self.hear();
            if message["m"] == kind {
                return message;
            }
        }
    }

    fn stream(&mut self, request: &Value) -> Stream {
        self.say(&json!({ "m": "call", "request": request, "call": 1, "op": "sink" }), b"");
        let sink = self.hear_kind("answer")["handed"]["sink"].clone();
        match self.1.take() {
            Some(memory) => Stream { sink, memory },
            None => std::process::exit(1),
        }
    }
}

fn main() {
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    let mut parent = Parent(socket.into(), None);
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
    let sent = |sink: &Value| json!({ "m": "sent", "request": request, "sink": sink });
    let mut lie = |slots: u32, slot: u32, len: u32| {
        let stream = parent.stream(request);
        stream.claim(slots, slot, len);
        parent.say(&sent(&stream.sink), b"");
    };
    match how {
        "a slot past the end" => lie(1, 6, 10),
        "a slot that jumps" => lie(1, u32::MAX, 10),
        "a chunk longer than its slot" => lie(1, 5, (1 << 20) + 1),
        "a chunk of nothing" => lie(1, 0, 0),
        "more slots than there are" => lie(7, 0, 1),
        "fewer slots than none" => lie(u32::MAX, 0, 1),
        "slots without end, and no clock is looked at" => {
            let stream = parent.stream(request);
            stream.claim(6, 0, 1 << 20);
            parent.say(&sent(&stream.sink), b"");
            loop {
                let taken = u32::from_le_bytes(stream.get(TAKEN));
                stream.claim(taken.wrapping_add(6), 0, 1 << 20);
                if stream.get(PARENT_WAITS) != [0; 4] {
                    stream.put(PARENT_WAITS, &[0; 4]);
                    parent.say(&sent(&stream.sink), b"");
                }
            }
        }
        "somebody else's stream" => parent.say(&sent(&json!(77)), b""),
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
        "short questions whose answers it does not read" => {
            for call in 0..1000 {
                let call = json!({ "m": "call", "request": request, "call": call, "op": "echo" });
                parent.say(&call, b"");
            }
        }
        "long questions that are not answered" => {
            let body = vec![0; 1 << 20];
            for call in 0..1000 {
                let call = json!({ "m": "call", "request": request, "call": call, "op": "never" });
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
