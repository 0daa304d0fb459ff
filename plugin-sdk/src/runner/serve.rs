//! Requests from the connection to the plugin's code.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fsm_core::Cancellation;
use futures::executor::block_on;
use futures::future::{AbortHandle, AbortRegistration, Abortable};

use super::calls::ParentCalls;
use super::confine::{REFUSED, limit};
use super::connection::{Answer, Connection};
use crate::abi::{Object, TaskFault};
use crate::host::{Image, InitError, Library, LoadError, LoadErrorKind, Local};
use crate::wire::{
    Flow, Hello, Incoming, PROTOCOL, Receiver, Refusal, Status, ToChild, ToHost, pack,
};

/// Serves until the parent has closed its end; the exit code.
pub(super) fn serve(socket: OwnedFd) -> i32 {
    let connection = Arc::new(Connection::new(socket));
    let mut child = Child { connection, library: None, instance: None, jobs: Arc::default() };
    let mut receiver = Receiver::<ToChild>::default();
    loop {
        match receiver.next() {
            Ok(Some(incoming)) => match child.take(incoming) {
                Ok(()) => {}
                Err(Over(code)) => return code,
            },
            Ok(None) => match receiver.fill(child.connection.socket()) {
                Ok(Flow::Moved | Flow::Blocked) => {}
                Ok(Flow::Ended) => break,
                Err(error) => return refused(&error),
            },
            Err(error) => return refused(&error),
        }
    }
    // What the plugin does when it is dropped is done here, in the time that the parent gives.
    drop(child.instance);
    0
}

/// The child has nothing more to do.
struct Over(i32);

fn refused(error: &dyn std::error::Error) -> i32 {
    eprintln!("the conversation with the agent is broken: {error}");
    REFUSED
}

struct Child {
    connection: Arc<Connection>,
    library: Option<Library>,
    instance: Option<Arc<Local>>,
    jobs: Arc<Mutex<BTreeMap<u64, Job>>>,
}

/// How to reach a request under way.
struct Job {
    cancel: Cancellation,
    abandon: AbortHandle,
}

impl Child {
    fn take(&mut self, incoming: Incoming<ToChild>) -> Result<(), Over> {
        let Incoming { message, payload, descriptor } = incoming;
        match message {
            ToChild::Hello(hello) => return self.load(&hello, descriptor),
            ToChild::Init => self.init(payload),
            ToChild::Start { request, level } => {
                self.connection.set_level(level);
                self.start(request, payload);
            }
            ToChild::Cancel { request } => {
                if let Some(job) = jobs(&self.jobs).get(&request) {
                    job.cancel.request();
                }
            }
            ToChild::Abandon { request } => {
                self.connection.abandon(request);
                if let Some(job) = jobs(&self.jobs).remove(&request) {
                    job.abandon.abort();
                }
            }
            ToChild::Answer { call, status, handed } => {
                self.connection.tell(call, Answer { status, body: payload, handed, descriptor });
            }
            ToChild::Taken { request, sink } => {
                if let Some(slots) = self.slots(request, sink) {
                    slots.taken(&self.connection);
                }
            }
            ToChild::Closed { request, sink } => {
                if let Some(slots) = self.slots(request, sink) {
                    slots.close();
                }
            }
        }
        Ok(())
    }

    fn slots(&self, request: u64, sink: u64) -> Option<Arc<super::sink::Slots>> {
        let sinks = self.connection.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.get(&(request, sink)).cloned()
    }

    fn say(&self, message: &ToHost, payload: impl Into<Bytes>) {
        // Without a parent this process ends.
        let _ = self.connection.say(message, payload, None);
    }

    fn load(&mut self, hello: &Hello, descriptor: Option<OwnedFd>) -> Result<(), Over> {
        self.connection.set_level(hello.level);
        let path = Path::new(&hello.path);
        let loaded = prepare(hello, path).and_then(|()| {
            let image = match descriptor {
                Some(library) => Image::inherited(library, path)?,
                None => Image::trusted(path)?,
            };
            Library::mapped(image, self.connection.clone())
        });
        match loaded {
            Ok(library) => {
                let (manifest, body) = match hello.manifest.then(|| library.manifest()) {
                    None => (Status::Ok, Bytes::new()),
                    Some(Ok(manifest)) => (Status::Ok, manifest),
                    Some(Err(error)) => (Status::Panicked, error.to_string().into()),
                };
                self.say(&ToHost::Loaded { manifest }, body);
                self.library = Some(library);
                Ok(())
            }
            Err(error) => {
                let (kind, what) = (error.kind().name().to_owned(), error.what().to_owned());
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                self.say(&ToHost::Refused(Refusal { kind, what, cause }), Bytes::new());
                Err(Over(REFUSED))
            }
        }
    }

    fn init(&mut self, config: Bytes) {
        let Some(library) = &self.library else { return };
        let (status, body) = match library.init_mapped(config) {
            Ok(instance) => {
                self.instance = Some(Arc::new(instance));
                (Status::Ok, Bytes::new())
            }
            Err(InitError::Refused(document)) => (Status::Error, document),
            Err(InitError::Panicked(text)) => (Status::Panicked, text.into()),
            Err(InitError::Crashed(crash)) => (Status::Panicked, crash.to_string().into()),
        };
        self.say(&ToHost::Ready { status }, body);
    }

    /// Serves a request on a thread of its own: whatever the plugin does in its functions, the
    /// conversation goes on.
    fn start(&self, request: u64, document: Bytes) {
        let Some(instance) = self.instance.clone() else { return };
        let (abandon, registration) = AbortHandle::new_pair();
        let cancel = Cancellation::new();
        jobs(&self.jobs).insert(request, Job { cancel: cancel.clone(), abandon });
        let (connection, jobs_left) = (self.connection.clone(), self.jobs.clone());
        let calls = ParentCalls { connection: connection.clone(), request };
        let serving =
            std::thread::Builder::new().name("plugin-request".to_owned()).spawn(move || {
                let answer = run(&instance, request, document, calls, &cancel, registration);
                jobs(&jobs_left).remove(&request);
                if let Some(answer) = answer {
                    done(&connection, request, answer);
                }
            });
        if let Err(error) = serving {
            let text = format!("the plugin's process has no thread for the request: {error}");
            done(&self.connection, request, Err(TaskFault::Panicked(text)));
        }
    }
}

fn jobs(jobs: &Mutex<BTreeMap<u64, Job>>) -> std::sync::MutexGuard<'_, BTreeMap<u64, Job>> {
    // No code that can panic runs under this lock.
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Speaks the parent's language, and keeps within its limits.
fn prepare(hello: &Hello, path: &Path) -> Result<(), LoadError> {
    let refuse = |what: String| Err(LoadError::new(LoadErrorKind::Runner, path, what));
    if hello.protocol != PROTOCOL {
        let (theirs, ours) = (hello.protocol, PROTOCOL);
        return refuse(format!(
            "the runner speaks version {ours} of the protocol, the agent {theirs}; install the \
             runner that came with the agent"
        ));
    }
    match limit(hello) {
        Ok(()) => Ok(()),
        Err(error) => refuse(format!("its process cannot be limited ({error})")),
    }
}

/// Runs a request to its end; no answer if it was abandoned.
fn run(
    instance: &Local,
    request: u64,
    document: Bytes,
    calls: ParentCalls,
    cancel: &Cancellation,
    registration: AbortRegistration,
) -> Option<Result<crate::abi::Reply, TaskFault>> {
    let connection = calls.connection.clone();
    let served = async {
        let mut work = pin!(instance.start_as(request, document, Arc::new(calls), None));
        let mut asked = Some(cancel.requested());
        poll_fn(|cx| {
            if let Some(heard) = &mut asked
                && pin!(heard).poll(cx).is_ready()
            {
                asked = None;
                crate::host::Work::cancel(&*work);
                // Without a parent this process ends.
                let _ = connection.say(&ToHost::Asked { request }, Bytes::new(), None);
            }
            work.as_mut().poll(cx)
        })
        .await
    };
    block_on(Abortable::new(served, registration)).ok()
}

fn done(connection: &Connection, request: u64, answer: Result<crate::abi::Reply, TaskFault>) {
    let (status, body, object) = pack(answer);
    let (status, body, descriptor) = match object {
        None => (status, body, None),
        Some(Object::Descriptor(owned)) => (status, body, Some(owned)),
        // Nothing asks for it: a host's requests are answered with documents.
        Some(_) => {
            let text = "an isolated plugin cannot hand a stream or a source to its host";
            (Status::Panicked, Bytes::from_static(text.as_bytes()), None)
        }
    };
    let message = ToHost::Done { request, status, descriptor: descriptor.is_some() };
    if let Err(error) = connection.say(&message, body, descriptor) {
        let text = format!("the plugin's answer could not be sent: {error}");
        let message = ToHost::Done { request, status: Status::Panicked, descriptor: false };
        // Without a parent there is nobody to tell.
        let _ = connection.say(&message, text, None);
    }
}
