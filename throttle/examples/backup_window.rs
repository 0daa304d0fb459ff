//! A busy half hour: 2,000 databases, 20 streams, and a clock that a test could move.
//!
//! At 20:58 the full backup of `orders` begins, on four streams. At 21:00 the logs of all
//! databases are due. At 21:03 somebody needs `stock` back at once. The restore is first in
//! line and needs two streams, while one at a time is given back: logs, which need one, pass
//! it 64 times and no more, then the next two streams are its own. The log backup of
//! `stock` has to wait for the restore; everybody else's goes on, and so does that of
//! `orders`, beside its full backup.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use throttle::{
    Acquire, Admission, Class, Clock, Limits, ManualClock, Permit, Policy, Priority, Request,
    Resource, Rule, Scope,
};

const DATABASES: u64 = 2_000;
const STREAMS: u32 = 20;
/// The minute at which the clock begins.
const BEGIN: u64 = 20 * 60 + 58;

fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", story()?);
    Ok(())
}

/// The half hour as a picture: a line for every two minutes, a letter for every stream.
pub(crate) fn story() -> Result<String, Box<dyn Error>> {
    let mut window = Window::new()?;
    window.ask("full", "orders", 4);
    while window.minute() < BEGIN + 2 {
        window.pass_a_second()?;
    }
    for number in 0..DATABASES {
        window.ask("log", &database(number), 1);
    }
    while window.minute() < BEGIN + 5 {
        window.pass_a_second()?;
    }
    window.ask("restore", "stock", 2);
    while !window.is_over() {
        window.pass_a_second()?;
    }
    window.conclude()
}

/// The 2nd of them is `orders`, the 401st is `stock`.
fn database(number: u64) -> String {
    match number {
        1 => "orders".to_owned(),
        400 => "stock".to_owned(),
        _ => format!("db-{number}"),
    }
}

/// How long the work of an owner takes.
fn duration(owner: &str) -> Duration {
    match owner.split_once(' ') {
        Some(("full", _)) => Duration::from_secs(20 * 60),
        Some(("restore", _)) => Duration::from_secs(8 * 60),
        _ => Duration::from_secs(10 + u64::try_from(owner.len()).unwrap_or(0) % 3 * 4),
    }
}

struct Window {
    clock: ManualClock,
    admission: Admission,
    waiting: FuturesUnordered<Acquire>,
    /// By the moment at which the work is done; the number tells equal moments apart.
    running: BTreeMap<Reverse<(Duration, usize)>, Permit>,
    started: BTreeMap<String, Duration>,
    drawn: String,
}

impl Window {
    fn new() -> Result<Self, Box<dyn Error>> {
        let clock = ManualClock::new();
        let admission = Admission::new(Limits::new().node("streams", STREAMS), clock.clone());
        let policy = Policy::new()
            .class(Class::new("full"))
            .class(Class::new("log").priority(Priority::High))
            .class(Class::new("restore").priority(Priority::Urgent))
            .rule(Scope::Item, "full/log", Rule::Allow);
        admission.register("sqlite", policy.compile()?)?;
        Ok(Self {
            clock,
            admission,
            waiting: FuturesUnordered::new(),
            running: BTreeMap::new(),
            started: BTreeMap::new(),
            drawn: String::new(),
        })
    }

    fn now(&self) -> Duration {
        self.clock.now().since_origin()
    }

    fn minute(&self) -> u64 {
        BEGIN + self.now().as_secs() / 60
    }

    fn is_over(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    fn ask(&mut self, class: &str, database: &str, streams: u32) {
        let request = Request::new(format!("{class} {database}"))
            .exclusion("sqlite", Resource::item(format!("sqlite/main/{database}")), class)
            .capacity(Resource::node(), "streams", streams);
        self.waiting.push(self.admission.acquire(request));
    }

    /// Whoever was let in starts, and whoever is done goes.
    fn pass_a_second(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(Some(permit)) = self.waiting.next().now_or_never() {
            let permit = permit?;
            let until = self.now() + duration(permit.owner());
            self.started.insert(permit.owner().to_owned(), self.now());
            self.running.insert(Reverse((until, self.started.len())), permit);
        }
        if self.now().as_secs().is_multiple_of(120) {
            self.draw()?;
        }
        self.clock.advance(Duration::from_secs(1));
        let now = self.now();
        while let Some(next) = self.running.last_entry()
            && next.key().0.0 <= now
        {
            drop(next.remove());
        }
        Ok(())
    }

    fn draw(&mut self) -> Result<(), Box<dyn Error>> {
        let snapshot = self.admission.snapshot();
        let mut streams = String::new();
        for (class, letter, count) in [("full", "F", 4), ("restore", "R", 2), ("log", "l", 1)] {
            let at_work = snapshot.holders.iter().filter(|holder| holder.owner.starts_with(class));
            streams += &letter.repeat(at_work.count() * count);
        }
        let (minute, waiting) = (self.minute(), snapshot.waiters.len());
        let (hour, minute) = (minute / 60, minute % 60);
        writeln!(self.drawn, "{hour}:{minute:02}  {streams:.<20}  {waiting:>4} wait")?;
        Ok(())
    }

    fn conclude(mut self) -> Result<String, Box<dyn Error>> {
        for (owner, asked) in [
            ("full orders", Duration::ZERO),
            ("log orders", Duration::from_secs(2 * 60)),
            ("restore stock", Duration::from_secs(5 * 60)),
            ("log stock", Duration::from_secs(2 * 60)),
        ] {
            let waited = (self.started[owner] - asked).as_secs();
            writeln!(self.drawn, "{owner} waited {} min {:02} s", waited / 60, waited % 60)?;
        }
        Ok(self.drawn)
    }
}
