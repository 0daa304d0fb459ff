//! The host of one process: whom the steps of its runs work for, and what answers them.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    panic::resume_unwind,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fsm_core::{Environment, Fault, Port, Progress, RunId, testing::ManualEnvironment};
use futures::{
    channel::oneshot,
    future::{BoxFuture, ready},
    lock::{Mutex as Turn, OwnedMutexGuard},
};
use serde::Serialize;

use super::{
    archive::MemoryArchive,
    desk::{Blow, Crossing, Desk, Moment},
    streams::{self, Shape, StreamStats},
};
use crate::{
    ItemId, OperationId, PointId, Receipt, TakeId,
    abi::{HostCalls, Object, Reply, SinkHandle, SourceHandle},
    host::{StepHost, StepHosts},
    message::{
        self, Intent, SealCall, SourceOpen, StreamOpen, TakeBegin, TakeBegun, TakeFinish, call,
    },
};

/// For whom the runs of a play work.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) operation: OperationId,
    pub(super) item: ItemId,
    /// The points that may be read.
    pub(super) chain: BTreeSet<PointId>,
    pub(super) shape: Shape,
}

/// Something that a call waits for, and that whoever plays has to do.
#[derive(Debug)]
pub(super) enum Errand {
    Cancel,
    Meet,
}

/// The host of one process.
pub(super) struct Floor {
    pub(super) archive: MemoryArchive,
    pub(super) scope: Scope,
    pub(super) stats: Arc<StreamStats>,
    desk: Arc<Desk>,
    environment: ManualEnvironment,
    state: Mutex<State>,
    /// Told whenever a job has ended.
    ended: Condvar,
    turn: Arc<Turn<()>>,
}

#[derive(Default)]
struct State {
    killed: bool,
    errand: Option<(Errand, oneshot::Sender<()>)>,
    /// Jobs that the plugin may be at work on.
    jobs: usize,
    at_work: BTreeMap<RunId, (String, usize)>,
    open: BTreeMap<TakeId, OpenTake>,
}

#[derive(Default)]
struct OpenTake {
    opened: BTreeSet<String>,
    finished: Vec<Receipt>,
}

impl Floor {
    pub(super) fn new(
        archive: MemoryArchive,
        scope: Scope,
        desk: Arc<Desk>,
        environment: ManualEnvironment,
        stats: Arc<StreamStats>,
    ) -> Arc<Self> {
        Arc::new(Floor {
            archive,
            scope,
            stats,
            desk,
            environment,
            state: Mutex::default(),
            ended: Condvar::new(),
            turn: Arc::default(),
        })
    }

    /// A step of `run` begins in `state`.
    pub(super) fn step_begins(&self, run: &RunId, state: &str) {
        let step = self.desk.step();
        self.state().at_work.insert(run.clone(), (state.to_owned(), step));
    }

    pub(super) fn step_ends(&self, run: &RunId) {
        self.state().at_work.remove(run);
    }

    /// Whether a step is at work.
    pub(super) fn is_at_work(&self) -> bool {
        !self.state().at_work.is_empty()
    }

    /// The states whose steps are at work.
    pub(super) fn states_at_work(&self) -> Vec<String> {
        self.state().at_work.values().map(|(state, _)| state.clone()).collect()
    }

    pub(super) fn is_killed(&self) -> bool {
        self.state().killed
    }

    /// What a call waits for.
    pub(super) fn errand(&self) -> Option<(Errand, oneshot::Sender<()>)> {
        self.state().errand.take()
    }

    /// Waits until the plugin is at work on no job of this process; false if it still is after
    /// `longest`.
    pub(super) fn wait_for_jobs(&self, longest: Duration) -> bool {
        let state = self.state();
        let busy = |state: &mut State| state.jobs > 0;
        let waited = self.ended.wait_timeout_while(state, longest, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever drives the process.
    fn ring(&self) {
        self.environment.spawn(Box::pin(ready(())));
    }

    /// Stands still for good: the process has died.
    async fn die<T>(&self) -> T {
        self.state().killed = true;
        self.ring();
        pending().await
    }

    async fn wait_for(&self, errand: Errand) {
        let (done, answer) = oneshot::channel();
        self.state().errand = Some((errand, done));
        self.ring();
        // Nobody answers in a process that is about to die.
        let _ = answer.await;
    }

    /// Does the work of one call, unless that call is disturbed.
    pub(super) async fn cross<T>(
        &self,
        run: &RunId,
        op: &str,
        work: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (state, step) = self.state().at_work.get(run).cloned().unwrap_or_default();
        match self.desk.enter(Crossing { op: op.to_owned(), state, step }) {
            None => work(),
            Some(Blow::Kill(moment)) => {
                if moment == Moment::After {
                    let _ = work();
                }
                self.die().await
            }
            Some(Blow::Cancel) => {
                self.wait_for(Errand::Cancel).await;
                work()
            }
            Some(Blow::Meet) => {
                self.wait_for(Errand::Meet).await;
                work()
            }
            Some(Blow::Fail(Moment::Before, fault)) => Err(fault),
            Some(Blow::Fail(Moment::After, fault)) => work().and(Err(fault)),
            // As a panic, but without its report: nobody needs to read about this one.
            Some(Blow::Panic) => resume_unwind(Box::new(format!("the kit panics in `{op}`"))),
        }
    }

    /// Notes that a stream of a take is durable.
    pub(super) fn stream_finished(&self, receipt: Receipt, bytes: Bytes) -> Result<(), Fault> {
        let mut state = self.state();
        let open = state.open.get_mut(&receipt.take).ok_or_else(|| unknown(&receipt.take))?;
        self.archive.hold(&receipt, bytes);
        open.finished.push(receipt);
        Ok(())
    }

    fn take_begin(&self, run: &RunId, begin: TakeBegin) -> TakeBegun {
        let begun = self.archive.begin(run, begin.name, self.environment.now());
        if begun.finished.is_none() {
            self.state().open.insert(begun.take.clone(), OpenTake::default());
        }
        begun
    }

    fn take_finish(&self, finish: TakeFinish) -> Result<Vec<Receipt>, Fault> {
        let mut state = self.state();
        let take = state.open.get(&finish.take).ok_or_else(|| unknown(&finish.take))?;
        if take.finished.len() != take.opened.len() {
            let message = format!("a stream of take {} was not finished", finish.take);
            return Err(Fault::retryable("take.unfinished", message));
        }
        let finished = take.finished.clone();
        self.archive.finish(&finish.take, &finished, finish.facts);
        state.open.remove(&finish.take);
        Ok(finished)
    }

    fn stream_open(self: &Arc<Self>, run: &RunId, open: StreamOpen) -> Result<Object, Fault> {
        let mut state = self.state();
        let take = state.open.get_mut(&open.take).ok_or_else(|| unknown(&open.take))?;
        if !take.opened.insert(open.stream.clone()) {
            let message = format!("stream `{}` of take {} exists", open.stream, open.take);
            return Err(Fault::bug("stream.exists", message));
        }
        drop(state);
        let sink = streams::sink(Arc::clone(self), run.clone(), open);
        Ok(Object::Sink(SinkHandle::serve(sink)))
    }

    fn source_open(self: &Arc<Self>, run: &RunId, open: &SourceOpen) -> Result<Object, Fault> {
        if !self.scope.chain.contains(&open.point) {
            let message = format!("recovery point {} is not part of this restore", open.point);
            return Err(Fault::bug("source.foreign", message));
        }
        let bytes = self.archive.stream(&open.point, &open.stream).ok_or_else(|| {
            let message = format!("there is no stream `{}` in {}", open.stream, open.point);
            Fault::bug("source.unknown", message)
        })?;
        let source = streams::source(Arc::clone(self), run.clone(), bytes);
        Ok(Object::Source(SourceHandle::serve(source)))
    }

    fn seal(&self, run: &RunId, seal: SealCall) -> Result<PointId, Fault> {
        self.archive.seal(run, &self.scope.item, seal)
    }

    fn job_ended(&self) {
        self.state().jobs -= 1;
        self.ended.notify_all();
    }
}

fn unknown(take: &TakeId) -> Fault {
    Fault::bug("take.unknown", format!("take {take} was not begun by this attempt"))
}

impl StepHosts for Floor {
    fn begin(
        self: Arc<Self>,
        run: RunId,
        port: Arc<dyn Port>,
    ) -> BoxFuture<'static, Result<StepHost, Fault>> {
        Box::pin(async move {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            self.state().jobs += 1;
            let Scope { operation, item, .. } = self.scope.clone();
            let calls = Arc::new(StepCalls { floor: self, run, port, _turn: turn });
            Ok(StepHost { operation, item, calls })
        })
    }
}

/// What answers one attempt at a step.
struct StepCalls {
    floor: Arc<Floor>,
    run: RunId,
    port: Arc<dyn Port>,
    /// One job at a time.
    _turn: OwnedMutexGuard<()>,
}

impl Drop for StepCalls {
    fn drop(&mut self) {
        self.floor.job_ended();
    }
}

impl StepCalls {
    fn serve(&self, op: &str, body: Bytes) -> BoxFuture<'static, Result<Reply, Fault>> {
        let (floor, run, port) =
            (Arc::clone(&self.floor), self.run.clone(), Arc::clone(&self.port));
        let op = op.to_owned();
        Box::pin(async move {
            if op == call::EFFECT_INTENT {
                let Intent { effect } = message::decode(&body)?;
                floor.cross(&run, &op, || Ok(())).await?;
                port.intent(&effect).await?;
                return document(&());
            }
            let work = || match op.as_str() {
                call::TAKE_BEGIN => document(&floor.take_begin(&run, message::decode(&body)?)),
                call::TAKE_FINISH => document(&floor.take_finish(message::decode(&body)?)?),
                call::STREAM_OPEN => {
                    Ok(document(&())?.with(floor.stream_open(&run, message::decode(&body)?)?))
                }
                call::SOURCE_OPEN => {
                    Ok(document(&())?.with(floor.source_open(&run, &message::decode(&body)?)?))
                }
                call::SEAL => document(&floor.seal(&run, message::decode(&body)?)?),
                call::INGRESS_CALL | call::INGRESS_NEXT => {
                    Err(Fault::permanent("call.lost", "nobody calls the conformance kit"))
                }
                unknown => {
                    let message = format!("this host does not serve `{unknown}`");
                    Err(Fault::permanent("host.unknown_call", message))
                }
            };
            floor.cross(&run, &op, work).await
        })
    }
}

impl HostCalls for StepCalls {
    fn call(&self, op: &str, body: Bytes) -> BoxFuture<'static, Reply> {
        // These two are asked in passing, and answered at once.
        let at_once = match op {
            call::NOW => Some(document(&self.port.now())),
            call::PROGRESS => Some(message::decode::<Progress>(&body).and_then(|progress| {
                self.port.progress(progress);
                document(&())
            })),
            _ => None,
        };
        match at_once {
            Some(answer) => Box::pin(ready(answer.unwrap_or_else(|fault| refusal(&fault)))),
            None => {
                let answer = self.serve(op, body);
                Box::pin(async move { answer.await.unwrap_or_else(|fault| refusal(&fault)) })
            }
        }
    }
}

fn document<T: Serialize>(body: &T) -> Result<Reply, Fault> {
    message::encode(body).map(Reply::ok)
}

fn refusal(fault: &Fault) -> Reply {
    Reply::error(message::encode_fault(fault))
}
