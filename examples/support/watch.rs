//! An operation's progress, on a terminal. Elsewhere nothing is shown.

use std::pin::pin;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mercury::{Engine, Error, Event, Operation, Outcome};

/// What came of an operation, and how long it took.
#[derive(Debug)]
pub struct Watched {
    pub outcome: Outcome,
    pub took: Duration,
}

/// Submits an operation and shows its progress until it ends.
pub async fn watch(
    engine: &Engine,
    title: &str,
    submit: impl Future<Output = Result<Operation, Error>>,
) -> Result<Watched, Error> {
    let start = Instant::now();
    let mut events = engine.subscribe();
    let asked = submit.await?;
    let bar = bar(title);
    let mut outcome = pin!(asked.outcome());
    loop {
        tokio::select! {
            outcome = &mut outcome => {
                bar.finish_and_clear();
                return Ok(Watched { outcome: outcome?, took: start.elapsed() });
            }
            Some(event) = events.next() => {
                if let Event::Progress { operation, progress } = event
                    && operation == *asked.id()
                {
                    show(&bar, progress.done, progress.total);
                }
            }
        }
    }
}

/// A bar that appears with the first progress.
pub fn bar(title: &str) -> ProgressBar {
    let bar = ProgressBar::no_length().with_message(title.to_owned());
    let template =
        "  {msg} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // Its own style does as well.
        Err(_) => bar,
    }
}

/// Moves the bar.
pub fn show(bar: &ProgressBar, done: u64, total: Option<u64>) {
    if let Some(total) = total {
        bar.set_length(total);
    }
    bar.set_position(done);
}
