//! A single-threaded executor that shows its order: first come, first served, or drawn from a
//! seed.
//!
//! **How.** A task is a number. Whoever wakes it puts the number into a queue, once; the executor
//! takes numbers out, from the front or from a drawn place, and polls the tasks that they name. A
//! number whose task has gone names nobody. Tasks are polled and dropped while no lock is held, so
//! that they may spawn and wake others.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::future::BoxFuture;

use super::draw::Draw;

pub(super) struct Executor {
    queue: Arc<Queue>,
    tasks: Mutex<Tasks>,
    /// Held by whoever polls.
    polling: Mutex<()>,
}

#[derive(Default)]
struct Tasks {
    waiting: BTreeMap<u64, BoxFuture<'static, ()>>,
    /// How often all tasks were dropped: the one that is polled meanwhile does not come back.
    dropped: u64,
}

struct Queue {
    ready: Mutex<Ready>,
    woken: Condvar,
}

struct Ready {
    order: VecDeque<u64>,
    queued: BTreeSet<u64>,
    numbers: u64,
    draw: Option<Draw>,
}

struct Task {
    number: u64,
    queue: Arc<Queue>,
}

impl Executor {
    pub(super) fn new(draw: Option<Draw>) -> Self {
        let (order, queued, numbers) = Default::default();
        let ready = Mutex::new(Ready { order, queued, numbers, draw });
        let queue = Arc::new(Queue { ready, woken: Condvar::new() });
        Executor { queue, tasks: Mutex::default(), polling: Mutex::default() }
    }

    pub(super) fn spawn(&self, task: BoxFuture<'static, ()>) {
        let number = self.queue.number();
        self.tasks().waiting.insert(number, task);
        self.queue.wake(number);
    }

    /// Drives `future` and the tasks until `future` completes; waits for other threads if nothing
    /// is ready.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let _polling = self.begin();
        let mut future = pin!(future);
        let main = self.queue.number();
        let waker = self.queue.waker(main);
        self.queue.first(main);
        loop {
            let Some(number) = self.queue.next() else {
                self.queue.wait(None);
                continue;
            };
            if number != main {
                self.poll(number);
            } else if let Poll::Ready(output) =
                future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return output;
            }
        }
    }

    /// Polls ready tasks until none is ready, or `go_on` says no.
    pub(super) fn run_while(&self, mut go_on: impl FnMut() -> bool) {
        let _polling = self.begin();
        while go_on() {
            let Some(number) = self.queue.next() else { return };
            self.poll(number);
        }
    }

    /// Waits until another thread has woken a task, but no longer than `longest`; false if none
    /// has.
    pub(super) fn wait(&self, longest: Duration) -> bool {
        self.queue.wait(Some(longest))
    }

    pub(super) fn drop_tasks(&self) {
        loop {
            let dropped = {
                let mut tasks = self.tasks();
                tasks.dropped += 1;
                std::mem::take(&mut tasks.waiting)
            };
            // A task that is dropped may spawn another one.
            if dropped.is_empty() {
                return;
            }
        }
    }

    fn poll(&self, number: u64) {
        let (task, dropped) = {
            let mut tasks = self.tasks();
            (tasks.waiting.remove(&number), tasks.dropped)
        };
        let Some(mut task) = task else { return };
        let waker = self.queue.waker(number);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            let mut tasks = self.tasks();
            if tasks.dropped == dropped {
                tasks.waiting.insert(number, task);
                return;
            }
        }
        drop(task);
    }

    fn begin(&self) -> MutexGuard<'_, ()> {
        match self.polling.try_lock() {
            Ok(polling) => polling,
            // Somebody's task has panicked, and the test that caught it goes on.
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {
                panic!("an environment's tasks are driven by one caller at a time")
            }
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn number(&self) -> u64 {
        let mut ready = self.ready();
        ready.numbers += 1;
        ready.numbers
    }

    fn waker(self: &Arc<Self>, number: u64) -> Waker {
        Waker::from(Arc::new(Task { number, queue: Arc::clone(self) }))
    }

    fn wake(&self, number: u64) {
        let mut ready = self.ready();
        if ready.queued.insert(number) {
            ready.order.push_back(number);
        }
        drop(ready);
        self.woken.notify_all();
    }

    /// Puts somebody new before those who are ready already: what a test asks for next reaches the
    /// tasks before they go on.
    fn first(&self, number: u64) {
        let mut ready = self.ready();
        ready.queued.insert(number);
        ready.order.push_front(number);
    }

    fn next(&self) -> Option<u64> {
        let mut ready = self.ready();
        let count = ready.order.len();
        let number = match &mut ready.draw {
            Some(draw) if count > 0 => {
                let place = draw.below(count);
                ready.order.swap_remove_back(place)
            }
            _ => ready.order.pop_front(),
        }?;
        ready.queued.remove(&number);
        Some(number)
    }

    /// Waits until something is ready; false if nothing is after `longest`.
    fn wait(&self, longest: Option<Duration>) -> bool {
        let ready = self.ready();
        let nothing = |ready: &mut Ready| ready.order.is_empty();
        let Some(longest) = longest else {
            drop(self.woken.wait_while(ready, nothing));
            return true;
        };
        let waited = self.woken.wait_timeout_while(ready, longest, nothing);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.queue.wake(self.number);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue.wake(self.number);
    }
}
