//! Waiting for foreign code, but not for ever.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What `future` gives, unless it takes longer than `longest`; then it is dropped.
pub(super) fn within<T>(longest: Duration, future: impl Future<Output = T>) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let began = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = longest.checked_sub(began.elapsed())?;
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_waited_for_and_silence_is_not() {
        let (tell, told) = futures::channel::oneshot::channel();
        let thread = thread::spawn(move || tell.send(7));
        assert_eq!(within(Duration::from_secs(60), told), Some(Ok(7)));
        thread.join().unwrap().unwrap();
        assert_eq!(within(Duration::ZERO, std::future::pending::<()>()), None);
    }
}
