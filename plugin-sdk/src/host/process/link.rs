//! The conversation with one child, as its two ends see it: whoever has a request, and the thread
//! that attends to the child.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};
use serde::Serialize;

use crate::abi::{Crash, HostCalls, Reply, TaskFault};
use crate::wire::{Flow, Outgoing, Refusal, Status, ToChild, WireError, send};

/// So much may wait for a child to read it; more is read by nobody.
const OUTGOING_BYTES_MAX: usize = 64 << 20;
/// While so much waits already, calls are not answered.
const ANSWERS_BYTES_MAX: usize = 4 << 20;

/// The conversation with one child.
pub(super) struct Link {
    state: Mutex<State>,
    /// Notified at each step of the greeting, and of a request that was cancelled.
    moved: Condvar,
    /// Wakes the thread that attends to the child.
    bell: OwnedFd,
}

#[derive(Default)]
struct State {
    /// The attending thread's socket, once there is one.
    socket: Option<Arc<OwnedFd>>,
    outgoing: VecDeque<Outgoing>,
    outgoing_bytes: usize,
    /// Why the child can be told nothing more, though it is there.
    unsent: Option<String>,
    greeting: Greeting,
    requests: BTreeMap<u64, Request>,
    /// Requests that have ended here, of which something is left in the child.
    left: BTreeMap<u64, Left>,
    next: u64,
    /// Since when there has been nothing to do.
    idle_since: Option<Instant>,
    closing: bool,
    /// Whether the child is to be killed.
    killed: bool,
    ended: Option<Crash>,
    /// Whether somebody has told how the child ended.
    told: bool,
}

/// How far the child has come before its first request.
#[derive(Clone, Debug, Default)]
pub(super) enum Greeting {
    #[default]
    Starting,
    /// The library is loaded; the answer to the question for its manifest.
    Loaded(Status, Bytes),
    Refused(Refusal),
    /// The answer to the question for an instance.
    Ready(Status, Bytes),
}

/// A request under way.
struct Request {
    reply: Arc<Pending>,
    host: Arc<dyn HostCalls>,
    /// Its number in the log.
    call: u64,
    /// When the child is killed because the request was cancelled and has not ended.
    kill_at: Option<Instant>,
    /// Whether the plugin has heard that it was cancelled.
    asked: bool,
    /// Whether the plugin has let go of its end already; the answer is still on its way.
    gone: bool,
}

/// What a request that has ended has left in the child.
struct Left {
    /// Kept until the plugin lets go of its end: it may mean something to the host that a job is
    /// still at work.
    host: Arc<dyn HostCalls>,
    kill_at: Instant,
}

/// The answer to a request, until its task takes it.
#[derive(Default)]
pub(super) struct Pending(Mutex<Answered>);

#[derive(Default)]
struct Answered {
    answer: Option<Result<Reply, TaskFault>>,
    waker: Option<Waker>,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Answered> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Reply, TaskFault>> {
        let mut answered = self.lock();
        if let Some(answer) = answered.answer.take() {
            return Poll::Ready(answer);
        }
        let before = answered.waker.replace(cx.waker().clone());
        drop(answered);
        // A waker's drop is foreign code.
        drop(before);
        Poll::Pending
    }

    fn put(&self, answer: Result<Reply, TaskFault>) {
        let waker = {
            let mut answered = self.lock();
            answered.answer.get_or_insert(answer);
            answered.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Why a request could not be given to this child: another one is needed.
pub(super) struct IsClosing;

impl Link {
    pub(super) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), moved: Condvar::new(), bell })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What panics under this lock is an allocation, and then the state is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Makes the attending thread look at the state again.
    pub(super) fn ring(&self) {
        // A bell that is full has been heard of.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Says `message` to the child, now or as soon as it listens.
    ///
    /// # Errors
    ///
    /// If the message is longer than one can be.
    pub(super) fn say(
        &self,
        message: &ToChild,
        payload: Bytes,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), WireError> {
        self.put(self.lock(), outgoing(message, payload)?.with(descriptor));
        Ok(())
    }

    fn put(&self, mut state: MutexGuard<'_, State>, frame: Outgoing) {
        if state.ended.is_some() {
            return;
        }
        state.outgoing_bytes += frame.len();
        state.outgoing.push_back(frame);
        // From here it is there sooner than by way of the other thread.
        let is_well = state.flush() && state.unsent.is_none();
        drop(state);
        if !is_well {
            self.ring();
        }
    }

    /// Gives the child a request.
    pub(super) fn begin(
        &self,
        call: u64,
        level: u8,
        document: Bytes,
        host: &Arc<dyn HostCalls>,
    ) -> Result<(u64, Arc<Pending>), Result<IsClosing, WireError>> {
        let mut state = self.lock();
        if state.closing || state.ended.is_some() {
            return Err(Ok(IsClosing));
        }
        let request = state.next;
        let frame = outgoing(&ToChild::Start { request, level }, document).map_err(Err)?;
        state.next += 1;
        state.idle_since = None;
        let reply = Arc::<Pending>::default();
        let (host, pending) = (host.clone(), reply.clone());
        let live = Request { reply, host, call, kill_at: None, asked: false, gone: false };
        state.requests.insert(request, live);
        self.put(state, frame);
        Ok((request, pending))
    }

    /// Asks the plugin to end a request, and sets a time to that.
    pub(super) fn cancel(&self, request: u64, grace: Duration) {
        let mut state = self.lock();
        let Some(live) = state.requests.get_mut(&request) else { return };
        live.kill_at.get_or_insert_with(|| Instant::now() + grace);
        if let Ok(frame) = outgoing(&ToChild::Cancel { request }, Bytes::new()) {
            self.put(state, frame);
            self.ring();
        }
    }

    /// Nobody wants the answer to a request any more.
    pub(super) fn abandon(&self, request: u64, grace: Duration) {
        let state = self.lock();
        if !state.requests.contains_key(&request) {
            return;
        }
        if let Some((state, _)) = self.part(state, request, grace)
            && let Ok(frame) = outgoing(&ToChild::Abandon { request }, Bytes::new())
        {
            self.put(state, frame);
        }
        self.ring();
    }

    /// Moves a request to those that have ended here. The lock comes back if something of it is
    /// left in the child.
    fn part<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        request: u64,
        grace: Duration,
    ) -> Option<(MutexGuard<'a, State>, Arc<Pending>)> {
        let Request { reply, host, gone, .. } = state.requests.remove(&request)?;
        if gone {
            state.note_idle();
            drop(state);
            // A host's own code, so after the lock.
            drop(host);
            return None;
        }
        state.left.insert(request, Left { host, kill_at: Instant::now() + grace });
        Some((state, reply))
    }

    /// Nobody will give this child another request: it ends once it has none.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.ring();
    }

    /// Has the child killed, and waits until it is buried.
    #[cfg(feature = "conformance")]
    pub(super) fn kill(&self) {
        self.lock().killed = true;
        self.ring();
        let going = |state: &mut State| state.ended.is_none();
        let ended = self.moved.wait_while(self.lock(), going);
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until the plugin has heard of each cancelled request, but not longer than `longest`.
    #[cfg(feature = "conformance")]
    pub(super) fn await_asked(&self, longest: Duration) {
        let unheard = |state: &mut State| {
            let mut cancelled = state.requests.values().filter(|live| live.kill_at.is_some());
            cancelled.any(|live| !live.asked)
        };
        let waited = self.moved.wait_timeout_while(self.lock(), longest, unheard);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether nobody before has told of the child's end.
    pub(super) fn is_first_to_tell(&self) -> bool {
        !std::mem::replace(&mut self.lock().told, true)
    }

    /// Waits until the child has come as far as `far_enough`, or has ended.
    pub(super) fn await_greeting(
        &self,
        far_enough: impl Fn(&Greeting) -> bool,
    ) -> Result<Greeting, Crash> {
        let waiting = |state: &mut State| state.ended.is_none() && !far_enough(&state.greeting);
        let state =
            self.moved.wait_while(self.lock(), waiting).unwrap_or_else(PoisonError::into_inner);
        match (&state.ended, &state.greeting) {
            (_, greeting) if far_enough(greeting) => Ok(greeting.clone()),
            (Some(crash), _) => Err(crash.clone()),
            (None, greeting) => Ok(greeting.clone()),
        }
    }
}

/// The attending thread's end.
impl Link {
    /// Begins the conversation: `first` goes before what was asked for meanwhile.
    pub(super) fn connect(
        &self,
        socket: Arc<OwnedFd>,
        first: impl DoubleEndedIterator<Item = (ToChild, Bytes, Option<OwnedFd>)>,
    ) -> Result<(), WireError> {
        let mut state = self.lock();
        for (message, payload, descriptor) in first.rev() {
            let frame = outgoing(&message, payload)?.with(descriptor);
            state.outgoing_bytes += frame.len();
            state.outgoing.push_front(frame);
        }
        state.socket = Some(socket);
        Ok(())
    }

    /// Sends what waits; whether something still does.
    pub(super) fn flush(&self) -> bool {
        !self.lock().flush()
    }

    /// Whether the child reads what it is told, so that it can be given more answers.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.lock();
        state.flush() || state.outgoing_bytes < ANSWERS_BYTES_MAX
    }

    /// Whether somebody wants the child killed.
    pub(super) fn is_killed(&self) -> bool {
        self.lock().killed
    }

    /// Whether the child reads nothing of what it is told.
    pub(super) fn is_unread(&self) -> bool {
        self.lock().outgoing_bytes > OUTGOING_BYTES_MAX
    }

    /// Why messages to the child were lost, if any were: what waits for their effect would wait for
    /// ever.
    pub(super) fn unsent(&self) -> Option<String> {
        self.lock().unsent.clone()
    }

    pub(super) fn greet(&self, greeting: Greeting) {
        let mut state = self.lock();
        state.greeting = greeting;
        // From here on it has nothing to do but what it is asked.
        state.note_idle();
        drop(state);
        self.moved.notify_all();
    }

    /// Whether the child has come as far as its first request, or as the question before it.
    pub(super) fn is_greeted(&self, ready: bool) -> bool {
        match self.lock().greeting {
            Greeting::Starting => false,
            Greeting::Loaded(..) => !ready,
            Greeting::Refused(_) | Greeting::Ready(..) => true,
        }
    }

    /// The number in the host's log of the request that the child calls `request`; 0 if it has
    /// no such request.
    pub(super) fn call_of(&self, request: u64) -> u64 {
        self.lock().requests.get(&request).map_or(0, |live| live.call)
    }

    /// The child can go once it has no request and nobody wants another one.
    pub(super) fn may_go(&self, idle: Option<Duration>) -> bool {
        let mut state = self.lock();
        if !state.requests.is_empty() || !state.left.is_empty() {
            return false;
        }
        let now = Instant::now();
        if let (Some(idle), Some(since)) = (idle, state.idle_since)
            && now >= since + idle
        {
            state.closing = true;
        }
        state.closing
    }

    /// The next moment at which a deadline passes, and whether one has passed.
    pub(super) fn deadline(&self, idle: Option<Duration>) -> (Option<Instant>, bool) {
        let state = self.lock();
        let kills = state.requests.values().filter_map(|live| live.kill_at);
        let kills = kills.chain(state.left.values().map(|left| left.kill_at)).min();
        let passed = kills.is_some_and(|at| at <= Instant::now());
        let quiet = idle.and_then(|idle| state.idle_since.map(|since| since + idle));
        (kills.into_iter().chain(quiet).min(), passed)
    }

    /// Who answers for a request; `None` if it has ended here, and what the child says about it was
    /// on its way.
    ///
    /// # Errors
    ///
    /// If there never was such a request.
    pub(super) fn host(&self, request: u64) -> Result<Option<Arc<dyn HostCalls>>, WireError> {
        let state = self.lock();
        if request >= state.next {
            return Err(WireError::Unexpected("a number that no request has"));
        }
        Ok(state.requests.get(&request).map(|live| live.host.clone()))
    }

    /// Whether a request has not ended here.
    pub(super) fn is_live(&self, request: u64) -> bool {
        self.lock().requests.contains_key(&request)
    }

    /// The child has answered a request.
    pub(super) fn answered(&self, request: u64, answer: Result<Reply, TaskFault>, grace: Duration) {
        let state = self.lock();
        let Some(reply) = state.requests.get(&request).map(|live| live.reply.clone()) else {
            return;
        };
        drop(self.part(state, request, grace));
        self.moved.notify_all();
        reply.put(answer);
    }

    /// The plugin has heard that a request was cancelled.
    pub(super) fn asked(&self, request: u64) -> Result<(), WireError> {
        let mut state = self.lock();
        if request >= state.next {
            return Err(WireError::Unexpected("a number that no request has"));
        }
        if let Some(live) = state.requests.get_mut(&request) {
            live.asked = true;
        }
        drop(state);
        self.moved.notify_all();
        Ok(())
    }

    /// Nothing of a request is left in the child.
    pub(super) fn gone(&self, request: u64) -> Result<(), WireError> {
        let mut state = self.lock();
        if request >= state.next {
            return Err(WireError::Unexpected("a number that no request has"));
        }
        if let Some(live) = state.requests.get_mut(&request) {
            live.gone = true;
            return Ok(());
        }
        let left = state.left.remove(&request);
        state.note_idle();
        drop(state);
        // A host's own code.
        drop(left.map(|left| left.host));
        Ok(())
    }

    /// The child is buried. Whoever waits for an answer hears how it ended.
    pub(super) fn end(&self, crash: &Crash) {
        let (requests, left, outgoing) = {
            let mut state = self.lock();
            state.ended.get_or_insert_with(|| crash.clone());
            state.socket = None;
            let requests = std::mem::take(&mut state.requests);
            (requests, std::mem::take(&mut state.left), std::mem::take(&mut state.outgoing))
        };
        self.moved.notify_all();
        for request in requests.into_values() {
            request.reply.put(Err(TaskFault::Crashed(crash.clone())));
        }
        drop((left, outgoing));
    }
}

/// Whatever the attending thread waits for in futures rings the bell.
impl Wake for Link {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

impl State {
    fn note_idle(&mut self) {
        let ready = matches!(self.greeting, Greeting::Ready(..));
        if ready && self.requests.is_empty() && self.left.is_empty() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// Sends what waits; whether all of it is out.
    fn flush(&mut self) -> bool {
        let Some(socket) = &self.socket else { return self.outgoing.is_empty() };
        while let Some(frame) = self.outgoing.front_mut() {
            let before = frame.len();
            let sent = send(&**socket, frame);
            self.outgoing_bytes = self.outgoing_bytes.saturating_sub(before - frame.len());
            match sent {
                Ok(Flow::Moved) => drop(self.outgoing.pop_front()),
                Ok(Flow::Blocked) => return false,
                failed => {
                    // A child that is gone the attending thread finds by itself. Otherwise it may
                    // be there: a user has only so many descriptors under way at once.
                    if let Err(error) = failed {
                        self.unsent.get_or_insert_with(|| error.to_string());
                    }
                    self.outgoing.clear();
                    self.outgoing_bytes = 0;
                }
            }
        }
        true
    }
}

fn outgoing<M: Serialize>(message: &M, payload: Bytes) -> Result<Outgoing, WireError> {
    Outgoing::new(message, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_cannot_be_sent_is_not_forgotten_in_silence() {
        let link = Link::new().expect("a bell");
        // No socket at all.
        let (end, _other) = std::io::pipe().expect("a pipe");
        link.connect(Arc::new(end.into()), std::iter::empty()).expect("nothing to say");
        assert_eq!(link.unsent(), None);
        link.say(&ToChild::Init, Bytes::new(), None).expect("a short message");
        assert!(link.unsent().is_some());
        let mut rings = [0; 8];
        rustix::io::read(link.bell(), &mut rings).expect("the attending thread looks");
    }

    #[test]
    fn a_child_that_is_gone_is_no_failure_to_send() {
        let link = Link::new().expect("a bell");
        let (near, far) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        drop(far);
        link.connect(Arc::new(near.into()), std::iter::empty()).expect("nothing to say");
        link.say(&ToChild::Init, Bytes::new(), None).expect("a short message");
        assert_eq!(link.unsent(), None);
    }
}
