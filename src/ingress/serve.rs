//! One task for each endpoint, and one for each call until a step has it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fsm_core::{Cancellation, Environment, Timestamp};
use futures::future::{BoxFuture, FutureExt};
use plugin_sdk::{IncomingCall, OperationId, Peer, Route};
use tokio::{
    net::{UnixListener, UnixStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, JoinSet},
};

use super::{
    endpoint::Checked,
    first,
    refusal::Refusal,
    socket::{Bound, Socket},
    waiting::{Over, Waiting},
};
use crate::events::Event;

/// How long a workload may take to say where a call belongs.
const ROUTE_WITHIN: Duration = Duration::from_secs(5);
/// How long a caller may take to read why it is refused.
const TELL_WITHIN: Duration = Duration::from_secs(5);
/// How long the host waits after it could not accept a call: it has no descriptor left, say.
const BREATH: Duration = Duration::from_millis(100);

/// Who knows where calls belong.
pub(crate) trait Reception: Send + Sync + 'static {
    /// Has the workload say where a call belongs. Dropping the future gives up.
    fn route<'a>(
        &'a self,
        workload: &'a str,
        said: Said,
    ) -> BoxFuture<'a, Result<(IncomingCall, Route), Refusal>>;

    /// Puts a call where it belongs. Driven to its end.
    fn place<'a>(
        &'a self,
        workload: &'a str,
        route: Route,
        waiting: &'a Arc<Waiting>,
    ) -> BoxFuture<'a, Result<Placed, Refusal>>;

    /// A call that was placed came to nothing. Driven to its end.
    fn came_to_nothing<'a>(
        &'a self,
        placed: &'a Placed,
        waiting: &'a Arc<Waiting>,
        over: Over,
    ) -> BoxFuture<'a, ()>;

    /// Tells whoever listens.
    fn tell(&self, event: Event);
}

/// What a caller said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) endpoint: String,
    pub(crate) peer: Peer,
    pub(crate) first: Vec<u8>,
}

/// A call that waits for a step.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) operation: OperationId,
    pub(crate) with: With,
    /// How long the caller waits.
    pub(crate) patience: Option<Duration>,
    /// What it is told if it comes to nothing.
    pub(crate) refusal: Vec<u8>,
}

/// What a call is to its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    /// The operation was made of it.
    Own,
    /// It is one of those that the operation caused.
    Attached,
}

/// Everything that listens. Dropped, it stops.
#[derive(Debug)]
pub(crate) struct Ingress {
    sockets: Mutex<Vec<Socket>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    signs: Signs,
}

#[derive(Clone, Debug, Default)]
struct Signs {
    /// No call is accepted any more.
    closed: Cancellation,
    /// Calls that wait come to nothing.
    stop: Cancellation,
}

impl Ingress {
    /// Begins to listen.
    pub(crate) fn begin(
        bound: Bound,
        reception: &Arc<dyn Reception>,
        environment: &Arc<dyn Environment>,
        tokio: &Handle,
    ) -> Self {
        let signs = Signs::default();
        let (mut sockets, mut tasks) = (Vec::new(), Vec::new());
        for (socket, listener, endpoint) in bound.0 {
            sockets.push(socket);
            let places = Arc::new(Semaphore::new(endpoint.connections_max as usize));
            let now = environment.now();
            let attendant = Arc::new(Attendant {
                endpoint,
                places,
                reception: Arc::clone(reception),
                environment: Arc::clone(environment),
                signs: signs.clone(),
                complaints: Mutex::new(Complaints { left: Complaints::BURST, since: now, kept: 0 }),
            });
            tasks.push(tokio.spawn(attendant.listen(listener)));
        }
        Ingress { sockets: Mutex::new(sockets), tasks: Mutex::new(tasks), signs }
    }

    /// Accepts nothing any more. Calls that wait go on waiting.
    pub(crate) fn close(&self) {
        self.signs.closed.request();
        let sockets =
            std::mem::take(&mut *self.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        drop(sockets);
    }

    /// Lets all calls that wait come to nothing, and waits for that.
    pub(crate) async fn stop(&self) {
        self.close();
        self.signs.stop.request();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // Whatever has become of it, it is over.
            let _ = task.await;
        }
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.signs.closed.request();
        self.signs.stop.request();
    }
}

/// Who attends to one endpoint.
struct Attendant {
    endpoint: Checked,
    places: Arc<Semaphore>,
    reception: Arc<dyn Reception>,
    environment: Arc<dyn Environment>,
    signs: Signs,
    complaints: Mutex<Complaints>,
}

impl Attendant {
    async fn listen(self: Arc<Self>, listener: UnixListener) {
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.signs.closed.requested() => break,
                Some(ended) = calls.join_next(), if !calls.is_empty() => self.note(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.answer(stream, &mut calls),
                    Err(error) => {
                        tracing::warn!(endpoint = %self.endpoint, %error, "a call is not accepted");
                        let breath = self.sleep(BREATH);
                        tokio::select! {
                            () = self.signs.closed.requested() => break,
                            () = breath => {}
                        }
                    }
                },
            }
        }
        drop(listener);
        while let Some(ended) = calls.join_next().await {
            self.note(ended);
        }
    }

    fn note(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            tracing::error!(endpoint = %self.endpoint, %error, "a call was dropped");
        }
    }

    /// Looks who calls, before anything is read, and whether there is a place.
    fn answer(self: &Arc<Self>, stream: UnixStream, calls: &mut JoinSet<()>) {
        let peer = match stream.peer_cred() {
            Ok(peer) => {
                // A process of another namespace has no number here.
                let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
                Peer::new(peer.uid(), peer.gid(), pid)
            }
            Err(error) => {
                tracing::warn!(endpoint = %self.endpoint, %error, "a caller is not known");
                return;
            }
        };
        if !self.endpoint.admits(&peer) {
            let why = format!("user {} of group {} may not call", peer.uid, peer.gid);
            return self.complain(peer, "ingress.peer", why);
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let why = format!("{} calls wait already", self.endpoint.connections_max);
            return self.complain(peer, "ingress.full", why);
        };
        let attendant = Arc::clone(self);
        calls.spawn(async move { attendant.attend(stream, peer, place).await });
    }

    /// Hangs up on somebody who has no place here. Such callers may come as often as they like, so
    /// not each of them is told of.
    fn complain(&self, peer: Peer, code: &str, why: String) {
        let now = self.environment.now();
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = complaints.may_tell(now) {
            drop(complaints);
            let why = match kept {
                0 => why,
                kept => format!("{why}; {kept} more were refused since the last one was told of"),
            };
            self.tell(peer, &Refusal::new(code, why));
        }
    }

    fn tell(&self, peer: Peer, refusal: &Refusal) {
        let Refusal { code, why, .. } = refusal;
        let Peer { uid, pid, .. } = peer;
        tracing::warn!(endpoint = %self.endpoint, uid, pid, code, why, "a call is refused");
        self.reception.tell(Event::CallRefused {
            workload: self.endpoint.workload.clone(),
            endpoint: self.endpoint.name.clone(),
            peer,
            code: code.clone(),
            why: why.clone(),
        });
    }

    /// A call, until a step has it or it has come to nothing.
    async fn attend(&self, mut stream: UnixStream, peer: Peer, place: OwnedSemaphorePermit) {
        let (call, route) = match self.hear(&mut stream, peer).await {
            Ok(heard) => heard,
            Err(refusal) => return self.refuse(stream, peer, &refusal).await,
        };
        if let Route::Refuse { code, answer } = route {
            let refusal = Refusal::new(code, "its workload refuses it").telling(answer);
            return self.refuse(stream, peer, &refusal).await;
        }
        let waiting = Waiting::new(call, stream, place, &self.environment);
        let refusal = match self.reception.place(&self.endpoint.workload, route, &waiting).await {
            Ok(placed) => match self.watch(&waiting, &placed).await {
                Some((stream, _place, refusal)) => {
                    return self.refuse(stream, peer, &refusal).await;
                }
                None => return,
            },
            Err(refusal) => refusal,
        };
        if let Some((stream, _place)) = waiting.give_up() {
            self.refuse(stream, peer, &refusal).await;
        }
    }

    /// What the caller says, and where that belongs.
    async fn hear(
        &self,
        stream: &mut UnixStream,
        peer: Peer,
    ) -> Result<(IncomingCall, Route), Refusal> {
        let Checked { first_bytes_max, first_within, .. } = self.endpoint;
        let reading = first::read(stream, first_bytes_max);
        let first = self.within(first_within, reading).await?.unwrap_or_else(|| {
            let why = format!("it has not said what it wants within {first_within:?}");
            Err(Refusal::new("ingress.late", why))
        })?;
        let said = Said { endpoint: self.endpoint.name.clone(), peer, first };
        let routing = self.reception.route(&self.endpoint.workload, said);
        self.within(ROUTE_WITHIN, routing).await?.unwrap_or_else(|| {
            let why = format!("its workload has not said where it belongs within {ROUTE_WITHIN:?}");
            Err(Refusal::new("ingress.route_late", why))
        })
    }

    /// Watches a call that waits; `None` once a step has it.
    async fn watch(
        &self,
        waiting: &Arc<Waiting>,
        placed: &Placed,
    ) -> Option<(UnixStream, OwnedSemaphorePermit, Refusal)> {
        let patience = match placed.patience {
            Some(patience) => self.sleep(patience),
            None => std::future::pending().boxed(),
        };
        let over = tokio::select! {
            biased;
            over = waiting.over() => over,
            () = self.signs.stop.requested() => Over::Stopped,
            () = patience => Over::Impatient,
        };
        let (stream, place) = waiting.give_up()?;
        self.reception.came_to_nothing(placed, waiting, over).await;
        let operation = &placed.operation;
        let refusal = match over {
            Over::HungUp => Refusal::new("call.hung_up", format!("it waited for {operation}")),
            Over::Impatient => Refusal::new("call.impatient", format!("it waited for {operation}")),
            Over::Stopped => Refusal::stopped(),
            Over::Taken | Over::Unserved => {
                Refusal::new("call.unserved", format!("{operation} has ended without it"))
            }
        };
        Some((stream, place, refusal.telling(placed.refusal.clone())))
    }

    /// Says why, and hangs up.
    async fn refuse(&self, stream: UnixStream, peer: Peer, refusal: &Refusal) {
        self.tell(peer, refusal);
        let telling = first::tell(stream, &refusal.answer);
        // What fits is said at once, also when the engine stops.
        tokio::select! {
            biased;
            () = telling => {}
            () = self.signs.stop.requested() => {}
            () = self.sleep(TELL_WITHIN) => {}
        }
    }

    /// `work`, unless it takes too long: then `None`.
    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Refusal> {
        tokio::select! {
            biased;
            () = self.signs.stop.requested() => Err(Refusal::stopped()),
            done = work => Ok(Some(done)),
            () = self.sleep(limit) => Ok(None),
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.environment.sleep_until(self.environment.now() + duration)
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.workload, self.name)
    }
}

/// How much is told of callers who have no place.
struct Complaints {
    left: u32,
    since: Timestamp,
    /// How many were not told of.
    kept: u64,
}

impl Complaints {
    /// So many at once; then one a second.
    const BURST: u32 = 16;

    /// Whether one more may be told of now; then how many were not, before it.
    fn may_tell(&mut self, now: Timestamp) -> Option<u64> {
        let seconds = now.since(self.since).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(Self::BURST);
            self.since = now;
        }
        if self.left == 0 {
            self.kept += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_without_a_place_are_told_of_some_times_and_counted_always() {
        let start = Timestamp::from_unix_ms(0);
        let mut complaints = Complaints { left: Complaints::BURST, since: start, kept: 0 };
        let told: Vec<_> = (0..100).filter_map(|_| complaints.may_tell(start)).collect();
        assert_eq!(told, [0; 16]);
        let later = start + Duration::from_millis(2_500);
        let told: Vec<_> = (0..100).filter_map(|_| complaints.may_tell(later)).collect();
        assert_eq!(told, [84, 0]);
        assert_eq!(complaints.may_tell(later + Duration::from_secs(3_600)), Some(98));
    }
}
