//! The thread that attends to one child: starts it, talks to it, watches its time, buries it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::child::{Child, crash};
use super::link::{Greeting, Link};
use super::options::Process;
use super::output::{Allowance, Output};
use super::work::{Served, Service};
use crate::abi::{Crash, Object, contain};
use crate::host::log::{HostLog, level_wanted};
use crate::host::redact::Redactor;
use crate::wire::{
    Flow, Hello, Incoming, LogRecord, PROTOCOL, Receiver, Status, ToChild, ToHost, WireError,
    unpack,
};

/// How long a child that is not needed any more may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(2);

/// The signal by which a child is killed.
const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();

/// More reads than this are not needed to empty a socket.
const LAST_READS: usize = 64;

/// What a child is started for.
pub(super) struct Errand {
    pub(super) path: PathBuf,
    /// What keeps the plugin's secrets out of the log.
    pub(super) redactor: Arc<Redactor>,
    /// The library itself, where the child is not to open it by its path.
    pub(super) library: Option<OwnedFd>,
    /// Whether its manifest is wanted.
    pub(super) manifest: bool,
    /// The configuration of its instance.
    pub(super) config: Option<Bytes>,
    pub(super) options: Arc<Process>,
    /// How long it may be idle, if not for ever.
    pub(super) idle: Option<Duration>,
}

/// Starts a child, and a thread that attends to it until it is buried.
pub(super) fn start(errand: Errand) -> Result<Arc<Link>, Crash> {
    let not_started = |error: std::io::Error| Crash::NotStarted(error.to_string());
    let link = Arc::new(Link::new().map_err(not_started)?);
    let attending = link.clone();
    std::thread::Builder::new()
        .name("plugin-process".to_owned())
        .spawn(move || {
            // Whatever happens here, nobody is left waiting.
            let ended = contain(|| attend(&attending, errand));
            attending.end(&ended.unwrap_or_else(Crash::NotStarted));
        })
        .map_err(not_started)?;
    Ok(link)
}

/// From the start of the child to its end.
fn attend(link: &Arc<Link>, errand: Errand) -> Crash {
    let log = HostLog::new(&errand.path, errand.redactor);
    let runner = match errand.options.runner.path() {
        Ok(runner) => runner,
        Err(why) => return Crash::NotStarted(why),
    };
    let child = match Child::spawn(&runner, &errand.path, &errand.options) {
        Ok(child) => child,
        Err(error) => return Crash::NotStarted(error.to_string()),
    };
    tracing::debug!(plugin = log.plugin(), pid = child.id(), "started a plugin's process");
    let now = Instant::now();
    let mut attendant = Attendant {
        link,
        log,
        options: &errand.options,
        idle: errand.idle,
        start_by: Some(now + errand.options.start_grace),
        makes_instance: errand.config.is_some(),
        receiver: Receiver::default(),
        services: BTreeMap::new(),
        holds_back: false,
        outputs: [Output::new("stdout"), Output::new("stderr")],
        open: [true; 3],
        records: Allowance::new(10_000, 1_000),
        farewell: None,
        verdict: None,
    };
    if let Err(error) = attendant.greet(&child, errand.library, errand.manifest, errand.config) {
        attendant.verdict = Some(Crash::NotStarted(error.to_string()));
        child.kill();
    }
    attendant.converse(&child);
    attendant.hear_last(&child);
    let (verdict, farewell) = (attendant.verdict.take(), attendant.farewell.is_some());
    let ended = crash(child.bury());
    tracing::debug!(plugin = attendant.log.plugin(), ?ended, farewell, "a plugin's process ended");
    verdict.unwrap_or(ended)
}

struct Attendant<'a> {
    link: &'a Arc<Link>,
    log: HostLog,
    options: &'a Process,
    idle: Option<Duration>,
    /// By when it has to be ready.
    start_by: Option<Instant>,
    /// Whether ready means: there is an instance.
    makes_instance: bool,
    receiver: Receiver<ToHost>,
    /// What the requests under way have asked for.
    services: BTreeMap<u64, Service>,
    /// Whether answers wait until the child has read others.
    holds_back: bool,
    outputs: [Output; 2],
    /// Which of socket, output and errors the child has not closed.
    open: [bool; 3],
    records: Allowance,
    /// By when it has to be gone.
    farewell: Option<Instant>,
    /// Why it is being killed.
    verdict: Option<Crash>,
}

impl Attendant<'_> {
    fn greet(
        &mut self,
        child: &Child,
        library: Option<OwnedFd>,
        manifest: bool,
        config: Option<Bytes>,
    ) -> Result<(), WireError> {
        let Some(path) = child.plugin().to_str() else {
            return Err(WireError::Unexpected("its path is not UTF-8"));
        };
        let hello = Hello {
            protocol: PROTOCOL,
            path: path.to_owned(),
            library: library.is_some(),
            manifest,
            level: level_wanted(),
            memory_bytes: self.options.memory_bytes,
            files: self.options.files,
        };
        // In front of what was asked for meanwhile.
        let hello = (ToChild::Hello(hello), Bytes::new(), library);
        let init = config.map(|config| (ToChild::Init, config, None));
        let first = [Some(hello), init].into_iter().flatten();
        self.link.connect(child.socket.clone(), first)
    }

    /// Talks until the child has ended.
    fn converse(&mut self, child: &Child) {
        let waker = Waker::from(self.link.clone());
        loop {
            // Who is being killed needs no more answers.
            if self.verdict.is_none() {
                self.serve(&mut Context::from_waker(&waker));
            }
            self.judge();
            if self.verdict.is_some() {
                child.kill();
            } else if self.farewell.is_none() && self.link.may_go(self.idle) {
                // The child takes the end of the conversation for its dismissal.
                let _ = rustix::net::shutdown(&child.socket, rustix::net::Shutdown::Write);
                self.farewell = Some(Instant::now() + FAREWELL);
            }
            if self.wait(child) {
                return;
            }
        }
    }

    /// Answers what can be answered now.
    fn serve(&mut self, cx: &mut Context<'_>) {
        let link = self.link;
        self.services.retain(|request, _| link.is_live(*request));
        self.holds_back = false;
        for service in self.services.values_mut() {
            match service.serve(link, cx) {
                Ok(served) => self.holds_back |= served == Served::HeldBack,
                Err(error) => {
                    self.verdict.get_or_insert(Crash::Protocol(error.to_string()));
                }
            }
        }
    }

    /// Waits for something to do; whether the child has ended.
    fn wait(&mut self, child: &Child) -> bool {
        let none = PollFlags::empty();
        let reads = self.open[0] && self.verdict.is_none();
        let mut wanted = if reads { PollFlags::IN } else { none };
        let mut at_once = false;
        if self.open[0] && self.verdict.is_none() {
            if self.link.flush() {
                wanted |= PollFlags::OUT;
            } else {
                // The child has read on since the answers were held back.
                at_once = self.holds_back;
            }
        }
        let pipe = |open| if open { PollFlags::IN } else { none };
        let bell = self.link.bell();
        let ended = child.ended();
        let mut fds = vec![PollFd::new(bell, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        // One that is closed is always ready, so it is left out.
        let mut others = Vec::new();
        for (index, (fd, wanted)) in [
            (child.socket.as_fd(), wanted),
            (child.output.as_fd(), pipe(self.open[1])),
            (child.errors.as_fd(), pipe(self.open[2])),
        ]
        .into_iter()
        .enumerate()
        {
            if !wanted.is_empty() {
                fds.push(PollFd::from_borrowed_fd(fd, wanted));
                others.push(index);
            }
        }
        let deadline = if at_once { Some(Instant::now()) } else { self.next_deadline() };
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        // Interrupted is as good as woken.
        let _ = poll(&mut fds, timeout.as_ref());
        let has_ended = !fds[1].revents().is_empty();
        if !fds[0].revents().is_empty() {
            let mut rings = [0; 8];
            let _ = rustix::io::read(bell, &mut rings);
        }
        let ready: Vec<usize> = fds[2..]
            .iter()
            .zip(&others)
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(_, index)| *index)
            .collect();
        for index in ready {
            match index {
                0 if reads => self.hear(child),
                0 => {}
                1 => self.open[1] = !self.outputs[0].read(&child.output, &self.log),
                _ => self.open[2] = !self.outputs[1].read(&child.errors, &self.log),
            }
        }
        has_ended
    }

    fn next_deadline(&self) -> Option<Instant> {
        let (kills, _) = self.link.deadline(self.idle);
        [kills, self.start_by, self.farewell].into_iter().flatten().min()
    }

    /// Whether the child has to be killed.
    fn judge(&mut self) {
        if self.verdict.is_some() {
            return;
        }
        let now = Instant::now();
        if self.start_by.is_some() && self.link.is_greeted(self.makes_instance) {
            self.start_by = None;
        }
        let late = self.start_by.is_some_and(|by| by <= now);
        let (_, passed) = self.link.deadline(None);
        if late || passed || self.farewell.is_some_and(|by| by <= now) {
            self.verdict = Some(Crash::TimedOut);
        } else if let Some(why) = self.link.unsent() {
            let plugin = self.log.plugin();
            tracing::warn!(
                plugin,
                why,
                "a plugin's process cannot be told anything, and is killed"
            );
            self.verdict = Some(Crash::Signal(SIGKILL));
        } else if self.link.is_killed() {
            self.verdict = Some(Crash::Signal(SIGKILL));
        } else if self.link.is_unread() {
            self.verdict = Some(Crash::Protocol("nothing, and reads nothing".to_owned()));
        }
    }

    /// Reads once.
    fn hear(&mut self, child: &Child) {
        match self.receiver.fill(&*child.socket) {
            Ok(Flow::Moved) => self.work_off(),
            Ok(Flow::Blocked) => {}
            Ok(Flow::Ended) => {
                // It ends, or it has given up what it was started for.
                self.open[0] = false;
                self.farewell.get_or_insert(Instant::now() + FAREWELL);
            }
            Err(error) => self.verdict = Some(Crash::Protocol(error.to_string())),
        }
    }

    /// What it said last, once it is dead.
    fn hear_last(&mut self, child: &Child) {
        // Whatever it has started itself says nothing more.
        child.kill();
        self.work_off();
        // Not more than can have been under way: another process may have its end, too.
        for _ in 0..LAST_READS {
            if self.verdict.is_some()
                || !matches!(self.receiver.fill(&*child.socket), Ok(Flow::Moved))
            {
                break;
            }
            self.work_off();
        }
        self.outputs[0].read(&child.output, &self.log);
        self.outputs[1].read(&child.errors, &self.log);
    }

    /// Takes the messages that have come in.
    fn work_off(&mut self) {
        while self.verdict.is_none() {
            let taken = match self.receiver.next() {
                Ok(Some(incoming)) => self.take(incoming),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                self.verdict = Some(Crash::Protocol(error.to_string()));
            }
        }
    }

    fn take(&mut self, incoming: Incoming<ToHost>) -> Result<(), WireError> {
        let Incoming { message, payload, descriptor } = incoming;
        let request = match &message {
            ToHost::Loaded { manifest } => {
                self.link.greet(Greeting::Loaded(*manifest, payload));
                return Ok(());
            }
            ToHost::Refused(refusal) => {
                self.link.greet(Greeting::Refused(refusal.clone()));
                self.verdict = Some(Crash::NotStarted(refusal.what.clone()));
                return Ok(());
            }
            ToHost::Ready { status } => {
                self.link.greet(Greeting::Ready(*status, payload));
                if *status != Status::Ok {
                    let why = "the plugin refused its configuration".to_owned();
                    self.verdict = Some(Crash::NotStarted(why));
                }
                return Ok(());
            }
            ToHost::Log(record) => {
                let spans = record.kind != crate::abi::record::EVENT;
                if spans || self.records.ask().is_some_and(|left_out| self.admit(left_out)) {
                    // A subscriber's panic is not the child's doing.
                    let call = self.link.call_of(record.call);
                    let _ = contain(|| self.log.relay(&LogRecord { call, ..record.clone() }));
                }
                return Ok(());
            }
            ToHost::Asked { request } => return self.link.asked(*request),
            ToHost::Gone { request } => return self.link.gone(*request),
            ToHost::Done { request, status, .. } => {
                if self.link.host(*request)?.is_some() {
                    let answer = unpack(*status, payload, descriptor.map(Object::Descriptor));
                    self.services.remove(request);
                    self.link.answered(*request, answer, self.options.abandon_grace);
                }
                return Ok(());
            }
            ToHost::Call { request, .. }
            | ToHost::Drop { request, .. }
            | ToHost::Sent { request, .. }
            | ToHost::Finish { request, .. }
            | ToHost::DropSink { request, .. }
            | ToHost::Read { request, .. }
            | ToHost::DropSource { request, .. } => *request,
        };
        let Some(host) = self.link.host(request)? else { return Ok(()) };
        let service = self.services.entry(request);
        service.or_insert_with(|| Service::new(request, host)).hear(message, payload)
    }

    fn admit(&self, left_out: u64) -> bool {
        if left_out > 0 {
            let plugin = self.log.plugin();
            tracing::warn!(target: "plugin", plugin, left_out, "records were left out");
        }
        true
    }
}
