//! An instance of a plugin whose code is in children of this process.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
#[cfg(feature = "conformance")]
use std::time::Duration;

use bytes::Bytes;

use super::attend::{self, Errand};
use super::link::{Greeting, IsClosing, Link};
use super::options::Process;
use super::work::RemoteWork;
use crate::abi::{Crash, HostCalls, Reply, TaskFault};
use crate::host::error::{InitError, LoadError, LoadErrorKind};
use crate::host::image::Image;
use crate::host::instance::{Backend, Work};
use crate::host::log::{CallSpan, level_wanted};
use crate::host::redact::Redactor;
use crate::wire::{Refusal, Status};

/// A library that children load.
pub(in crate::host) struct Template {
    image: Image,
    redactor: Arc<Redactor>,
    options: Arc<Process>,
}

impl Template {
    /// A library that was examined as data and is trusted.
    ///
    /// # Errors
    ///
    /// [`LoadErrorKind::Runner`] if there is no program to load it with.
    pub(in crate::host) fn new(image: Image, options: Process) -> Result<Self, LoadError> {
        let found = options.runner.path();
        found.map_err(|why| LoadError::new(LoadErrorKind::Runner, image.path(), why))?;
        Ok(Self { image, redactor: Arc::default(), options: Arc::new(options) })
    }

    /// What keeps the library's secrets out of what is shown of it.
    pub(in crate::host) fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    fn errand(&self) -> io::Result<Errand> {
        // A library that is loaded in place may need what lies beside it.
        let library = self.image.is_sealed().then(|| self.image.descriptor().try_clone_to_owned());
        Ok(Errand {
            path: self.image.path().to_owned(),
            redactor: self.redactor.clone(),
            library: library.transpose()?,
            manifest: false,
            config: None,
            options: self.options.clone(),
            idle: None,
        })
    }

    fn start(&self, errand: impl FnOnce(Errand) -> Errand) -> Result<Arc<Link>, Crash> {
        let prepared = self.errand().map_err(|error| Crash::NotStarted(error.to_string()))?;
        attend::start(errand(prepared))
    }

    /// Asks a child of its own for the manifest. Blocks until it is there.
    pub(in crate::host) fn manifest(&self) -> Result<Bytes, LoadError> {
        let error = |kind, what: String| LoadError::new(kind, self.image.path(), what);
        let crashed = |crash: Crash| match crash {
            Crash::NotStarted(why) => {
                error(LoadErrorKind::Runner, format!("cannot be isolated: {why}"))
            }
            crash => error(LoadErrorKind::Crashed, format!("crashed when it was loaded: {crash}")),
        };
        let asked = self.start(|errand| Errand { manifest: true, ..errand });
        let link = asked.map_err(crashed)?;
        let greeting = link.await_greeting(|greeting| !matches!(greeting, Greeting::Starting));
        link.close();
        match greeting.map_err(crashed)? {
            Greeting::Loaded(Status::Ok, manifest) => Ok(manifest),
            Greeting::Refused(Refusal { kind, what, cause }) => {
                let error = error(LoadErrorKind::named(&kind), what);
                Err(match cause {
                    Some(cause) => error.caused_by(cause),
                    None => error,
                })
            }
            Greeting::Loaded(_, text) => {
                let text = String::from_utf8_lossy(&text);
                let what = format!("gave no manifest, it panicked: {text}");
                Err(error(LoadErrorKind::Manifest, what))
            }
            Greeting::Starting | Greeting::Ready(..) => {
                Err(error(LoadErrorKind::Crashed, "gave no manifest".to_owned()))
            }
        }
    }

    /// Makes an instance in a child, to see whether it can be made. The child stays for a while,
    /// for requests that belong to no run. Blocks until it is there.
    pub(in crate::host) fn init(self: &Arc<Self>, config: Bytes) -> Result<Remote, InitError> {
        let remote = Remote::new(self.clone(), config, Lifetime::Shared);
        let link = remote.current().map_err(InitError::Crashed)?;
        let ready =
            |greeting: &Greeting| matches!(greeting, Greeting::Ready(..) | Greeting::Refused(_));
        match link.await_greeting(ready).map_err(InitError::Crashed)? {
            Greeting::Ready(Status::Ok, _) => Ok(remote),
            Greeting::Ready(Status::Panicked, text) => {
                Err(InitError::Panicked(String::from_utf8_lossy(&text).into_owned()))
            }
            Greeting::Ready(_, document) => Err(InitError::Refused(document)),
            Greeting::Refused(refusal) => Err(InitError::Crashed(Crash::NotStarted(refusal.what))),
            Greeting::Starting | Greeting::Loaded(..) => {
                Err(InitError::Crashed(Crash::NotStarted("it said nothing".to_owned())))
            }
        }
    }
}

/// What a child is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    /// Requests that belong to no run. It goes when it is idle for a while.
    Shared,
    /// One run. It goes with the last handle.
    Run,
}

/// An instance whose requests go to one child at a time. A child that has died is followed by
/// another, which knows nothing of what the first one had in memory.
pub(in crate::host) struct Remote {
    template: Arc<Template>,
    config: Bytes,
    lifetime: Lifetime,
    record: Arc<Record>,
    link: Mutex<Option<Arc<Link>>>,
}

impl Remote {
    fn new(template: Arc<Template>, config: Bytes, lifetime: Lifetime) -> Self {
        let (record, link) = Default::default();
        Self { template, config, lifetime, record, link }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The child that there is, or a new one.
    fn current(&self) -> Result<Arc<Link>, Crash> {
        let mut link = self.lock();
        if let Some(link) = &*link {
            return Ok(link.clone());
        }
        let options = &self.template.options;
        let started = self.template.start(|errand| Errand {
            config: Some(self.config.clone()),
            idle: (self.lifetime == Lifetime::Shared).then_some(options.idle),
            ..errand
        })?;
        Ok(link.insert(started).clone())
    }

    /// Makes room for another child in the place of `gone`.
    fn replace(&self, gone: &Arc<Link>) {
        self.lock().take_if(|link| Arc::ptr_eq(link, gone));
    }

    fn begin(&self, document: Bytes, host: Arc<dyn HostCalls>) -> Result<RemoteWork, TaskFault> {
        let options = &self.template.options;
        if self.lifetime == Lifetime::Run {
            self.record.check(options.crashes).map_err(TaskFault::Crashed)?;
        }
        let span = CallSpan::new();
        loop {
            let link = self.current().map_err(TaskFault::Crashed)?;
            match link.begin(span.id(), level_wanted(), document.clone(), &host) {
                Ok(request) => {
                    let (options, record) = (options.clone(), self.record.clone());
                    return Ok(RemoteWork::new(link, options, record, request, span));
                }
                // A child that ended on its own time; the next one is new, so this ends.
                Err(Ok(IsClosing)) => self.replace(&link),
                Err(Err(error)) => {
                    let why = format!("the request is longer than any ({error})");
                    return Err(TaskFault::Crashed(Crash::NotStarted(why)));
                }
            }
        }
    }
}

impl Backend for Remote {
    fn start(&self, request: Bytes, host: Arc<dyn HostCalls>) -> Pin<Box<dyn Work>> {
        match self.begin(request, host) {
            Ok(work) => Box::pin(work),
            Err(fault) => Box::pin(Failed(Some(fault))),
        }
    }

    fn apart(&self) -> Option<Arc<dyn Backend>> {
        let (template, config) = (self.template.clone(), self.config.clone());
        Some(Arc::new(Remote::new(template, config, Lifetime::Run)))
    }

    #[cfg(feature = "conformance")]
    fn await_asked(&self, longest: Duration) {
        let link = self.lock().clone();
        if let Some(link) = link {
            link.await_asked(longest);
        }
    }

    #[cfg(feature = "conformance")]
    fn kill(&self) {
        if let Some(link) = self.lock().take() {
            link.kill();
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(link) = self.lock().take() {
            link.close();
        }
    }
}

/// A request that failed before it began.
struct Failed(Option<TaskFault>);

impl Work for Failed {
    fn cancel(&self) {}
}

impl Future for Failed {
    type Output = Result<Reply, TaskFault>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(self.0.take().unwrap_or(TaskFault::Finished)))
    }
}

/// How the children of an instance have ended lately.
#[derive(Default)]
pub(super) struct Record(Mutex<Crashes>);

#[derive(Default)]
struct Crashes {
    in_a_row: u32,
    last: Option<Crash>,
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Crashes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a request ended. A child that dies under several requests has died once.
    pub(super) fn note(&self, link: &Link, answer: &Result<Reply, TaskFault>) {
        let mut crashes = self.lock();
        match answer {
            Err(TaskFault::Crashed(crash)) => {
                if link.is_first_to_tell() {
                    crashes.in_a_row += 1;
                    crashes.last = Some(crash.clone());
                }
            }
            _ => *crashes = Crashes::default(),
        }
    }

    fn check(&self, most: u32) -> Result<(), Crash> {
        let crashes = self.lock();
        match &crashes.last {
            Some(last) if crashes.in_a_row >= most => {
                Err(Crash::GivenUp { crashes: crashes.in_a_row, last: Box::new(last.clone()) })
            }
            _ => Ok(()),
        }
    }
}
