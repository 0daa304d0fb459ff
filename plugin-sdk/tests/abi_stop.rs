//! Requests that do not stop, and functions that do not return.
#![cfg(all(feature = "host", target_os = "linux"))]

mod common;

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{Services, ask, both, until, until_called, until_called_times};
use fsm_core::testing::ManualEnvironment;
use fsm_core::{Environment, Timestamp};
use futures::executor::block_on;
use plugin_sdk::abi::{Cancellation, TaskFault};
use plugin_sdk::host::{Ended, Stoppable, Watch};

const GRACE: Duration = Duration::from_secs(30);

fn clock() -> Arc<ManualEnvironment> {
    Arc::new(ManualEnvironment::new(Timestamp::from_unix_ms(1_000)))
}

fn poll(request: &mut Stoppable) -> Poll<Ended> {
    Pin::new(request).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_request_that_is_asked_to_stop_and_tidies_up_in_time_has_its_answer() {
    for (_, plugin) in both() {
        let (stop, clock) = (Cancellation::new(), clock());
        let task = plugin.start("until cancelled", Services::new());
        let mut request = task.stoppable(&stop, GRACE, clock.clone());
        assert!(poll(&mut request).is_pending());
        clock.advance(2 * GRACE);
        assert!(poll(&mut request).is_pending(), "nobody has asked it to stop");
        stop.request();
        let Ended::Answered(Ok(reply)) = block_on(&mut request) else { panic!("an answer") };
        assert_eq!(reply.result, Err("cancelled".into()));
        let finished = block_on(&mut request);
        assert!(matches!(finished, Ended::Answered(Err(TaskFault::Finished))), "{finished:?}");
    }
}

#[test]
fn a_request_that_ignores_it_is_abandoned_after_its_grace_and_not_sooner() {
    for (_, plugin) in both() {
        let (stop, clock, host) = (Cancellation::new(), clock(), Services::new());
        let task = plugin.start("hold", host.clone());
        let mut request = task.stoppable(&stop, GRACE, clock.clone());
        until_called(&host, &mut request);
        stop.request();
        assert!(poll(&mut request).is_pending());
        clock.advance(GRACE - Duration::from_millis(1));
        assert!(poll(&mut request).is_pending());
        clock.set_back(GRACE);
        assert!(poll(&mut request).is_pending(), "a clock that was set back gives more time");
        clock.advance(GRACE + Duration::from_millis(1));
        let Poll::Ready(Ended::Abandoned { asked_at, grace }) = poll(&mut request) else {
            panic!("its time is over")
        };
        assert_eq!((asked_at, grace), (Timestamp::from_unix_ms(1_000), GRACE));
        // It waits, so what it held is dropped all the same.
        until(&plugin, "drops", "+1");
    }
}

#[test]
fn a_request_that_blocks_its_thread_is_abandoned_and_its_calls_are_refused() {
    for (_, plugin) in both() {
        let (stop, clock, host) = (Cancellation::new(), clock(), Services::new());
        let task = plugin.start("block until told", host.clone());
        let mut request = task.stoppable(&stop, GRACE, clock.clone());
        // After the second call it blocks.
        until_called_times(&host, &mut request, 2);
        stop.request();
        assert!(poll(&mut request).is_pending());
        clock.advance(GRACE);
        assert!(matches!(poll(&mut request), Poll::Ready(Ended::Abandoned { .. })));
        assert_eq!(ask(&plugin, "drops"), "+0", "the job is still there");
        // What no host can do, the fixture does: it ends the loop.
        assert_eq!(ask(&plugin, "tell"), "+told");
        until(&plugin, "drops", "+1");
        let calls = host.calls.lock().expect("no panic under the lock").clone();
        assert_eq!(calls, ["blocking", "tell"], "the call after the end never arrived");
    }
}

#[test]
fn polls_that_hang_are_known_by_name_age_and_thread() {
    for (_, plugin) in both() {
        let clock = clock();
        let watch = Watch::new(clock.clone());
        let host = Services::new();
        let (end, ended) = mpsc::channel::<()>();
        *host.gate.lock().expect("no panic under the lock") = Some(ended);
        let task = watch.calling("fixture: start", || plugin.start("hang inline", host.clone()));
        let hangs = {
            let work = watch.polling("fixture: hang inline", task);
            thread::Builder::new().name("host-7".to_owned()).spawn(move || block_on(work))
        }
        .expect("a thread");
        while host.calls.lock().expect("no panic under the lock").is_empty() {
            thread::yield_now();
        }
        assert!(watch.older_than(GRACE).is_empty());
        clock.advance(GRACE + Duration::from_secs(1));
        let hanging = watch.older_than(GRACE);
        assert_eq!(hanging.len(), 1, "{watch:?}");
        assert_eq!(&*hanging[0].what, "fixture: hang inline");
        assert_eq!(hanging[0].since, Timestamp::from_unix_ms(1_000));
        assert_eq!(hanging[0].thread, "host-7");
        end.send(()).expect("the poll hangs on this");
        hangs.join().expect("the thread ends").expect("a reply");
        assert!(watch.older_than(Duration::ZERO).is_empty());
    }
}

#[test]
fn a_poll_that_panics_and_a_drop_that_hangs_are_seen_too() {
    struct Drops(Watch, Arc<ManualEnvironment>, Arc<Mutex<usize>>);
    impl Future for Drops {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            panic!("in poll")
        }
    }
    impl Drop for Drops {
        fn drop(&mut self) {
            self.1.advance(GRACE);
            *self.2.lock().expect("no panic under the lock") =
                self.0.older_than(GRACE - Duration::from_secs(1)).len();
        }
    }
    let clock = clock();
    let (watch, seen) = (Watch::new(clock.clone()), Arc::default());
    let mut work = watch.polling("drops", Drops(watch.clone(), clock.clone(), Arc::clone(&seen)));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = pin!(&mut work).poll(&mut Context::from_waker(Waker::noop()));
    }));
    assert!(panicked.is_err());
    clock.advance(GRACE);
    assert!(watch.older_than(Duration::ZERO).is_empty(), "the poll is over");
    drop(work);
    assert_eq!(*seen.lock().expect("no panic under the lock"), 1);
    let _ = clock.now();
}
