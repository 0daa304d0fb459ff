//! The conversation with the parent, as the plugin's threads use it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use bytes::Bytes;
use futures::channel::oneshot;

use super::sink::Slots;
use crate::abi::{CallError, TaskFault};
use crate::host::Elsewhere;
use crate::wire::{Handed, LogRecord, Outgoing, Status, ToHost, send};

/// The connection to the parent.
pub(super) struct Connection {
    socket: OwnedFd,
    /// Held while a message is written.
    writing: Mutex<()>,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    next_call: AtomicU64,
    /// The open streams, by their request and their number in it.
    pub(super) sinks: Mutex<BTreeMap<(u64, u64), Arc<Slots>>>,
    level: AtomicU8,
}

/// Who waits for the answer to a call.
struct Waiting {
    request: u64,
    teller: Teller,
}

enum Teller {
    Future(oneshot::Sender<Answer>),
    Thread(mpsc::SyncSender<Answer>),
}

/// An answer of the parent's.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) body: Bytes,
    pub(super) handed: Option<Handed>,
    pub(super) descriptor: Option<OwnedFd>,
}

impl Answer {
    /// The bytes of an answer that hands nothing over.
    pub(super) fn into_bytes(self) -> Result<Bytes, CallError> {
        match self.status {
            Status::Ok => Ok(self.body),
            Status::Error => Err(CallError::Refused(self.body)),
            Status::Revoked => Err(CallError::Fault(TaskFault::Revoked)),
            Status::Finished => Err(CallError::Fault(TaskFault::Finished)),
            Status::Panicked => {
                let text = String::from_utf8_lossy(&self.body).into_owned();
                Err(CallError::Fault(TaskFault::Panicked(text)))
            }
        }
    }
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let (writing, waiting, sinks) = Default::default();
        let (next_call, level) = (AtomicU64::new(1), AtomicU8::new(0));
        Self { socket, writing, waiting, next_call, sinks, level }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says `message`. Waits until the parent has room for it.
    pub(super) fn say(
        &self,
        message: &ToHost,
        payload: impl Into<Bytes>,
        descriptor: Option<OwnedFd>,
    ) -> io::Result<()> {
        let frame = Outgoing::new(message, payload.into());
        let mut frame = frame.map_err(io::Error::other)?.with(descriptor);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // A parent that has gone takes this process with it.
        send(&self.socket, &mut frame).map(drop)
    }

    /// Sends a call; `message` is made with its number. The answer comes to who is returned.
    pub(super) fn ask(
        self: &Arc<Self>,
        request: u64,
        message: impl FnOnce(u64) -> ToHost,
        payload: impl Into<Bytes>,
    ) -> Asked {
        let (call, answer) = self.expect(request);
        if let Err(error) = self.say(&message(call), payload, None) {
            self.refuse(call, &error);
        }
        answer
    }

    /// A number for a call that is sent later, and who waits for its answer.
    pub(super) fn expect(self: &Arc<Self>, request: u64) -> (u64, Asked) {
        let (teller, answer) = oneshot::channel();
        let call = self.enter(request, Teller::Future(teller));
        (call, Asked { connection: self.clone(), request, call, answer: Some(answer) })
    }

    /// The answer to a call that the thread waits for, unless the request is abandoned.
    pub(super) fn ask_now(
        &self,
        request: u64,
        message: impl FnOnce(u64) -> ToHost,
        payload: impl Into<Bytes>,
    ) -> Option<Answer> {
        let (teller, answer) = mpsc::sync_channel(1);
        let call = self.enter(request, Teller::Thread(teller));
        if let Err(error) = self.say(&message(call), payload, None) {
            self.refuse(call, &error);
        }
        answer.recv().ok()
    }

    fn enter(&self, request: u64, teller: Teller) -> u64 {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        self.waiting().insert(call, Waiting { request, teller });
        call
    }

    /// A call that could not be sent: it was too long.
    fn refuse(&self, call: u64, error: &io::Error) {
        let body = format!("the call could not be sent: {error}").into();
        self.tell(call, Answer { status: Status::Panicked, body, handed: None, descriptor: None });
    }

    /// Gives an answer to who waits for it, if anybody still does.
    pub(super) fn tell(&self, call: u64, answer: Answer) {
        let waiting = self.waiting().remove(&call);
        match waiting.map(|waiting| waiting.teller) {
            Some(Teller::Future(teller)) => drop(teller.send(answer)),
            Some(Teller::Thread(teller)) => drop(teller.send(answer)),
            None => {}
        }
    }

    /// The request will have no more answers: threads that wait for one go on.
    pub(super) fn abandon(&self, request: u64) {
        self.waiting().retain(|_, waiting| {
            waiting.request != request || matches!(waiting.teller, Teller::Future(_))
        });
    }

    pub(super) fn set_level(&self, level: u8) {
        self.level.store(level, Ordering::Relaxed);
    }
}

impl Elsewhere for Arc<Connection> {
    fn is_wanted(&self, level: u8) -> bool {
        level <= self.level.load(Ordering::Relaxed)
    }

    fn take(&self, record: LogRecord) {
        // A record that cannot be sent is lost, as the log itself is then.
        let _ = self.say(&ToHost::Log(record), Bytes::new(), None);
    }
}

/// An answer that is waited for. Dropped before it is there, the parent hears of it.
pub(super) struct Asked {
    connection: Arc<Connection>,
    request: u64,
    call: u64,
    answer: Option<oneshot::Receiver<Answer>>,
}

impl Asked {
    /// The answer; for ever pending if the request is over.
    pub(super) async fn answer(mut self) -> Answer {
        let answer = match &mut self.answer {
            Some(answer) => answer.await.ok(),
            None => None,
        };
        self.answer = None;
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.answer.is_some() && self.connection.waiting().remove(&self.call).is_some() {
            let message = ToHost::Drop { request: self.request, call: self.call };
            // Whoever cannot be told does not answer either.
            let _ = self.connection.say(&message, Bytes::new(), None);
        }
    }
}
