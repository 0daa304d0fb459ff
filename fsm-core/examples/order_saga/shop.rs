//! The world outside the machines.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fsm_core::{Environment, Fault, RunId, Timestamp, testing::ManualEnvironment};
use futures::channel::oneshot;

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The world outside the machines: the shelf, the bank, and a diary. It outlives every process.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) environment: ManualEnvironment,
    opened: Timestamp,
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    /// The keys under which something was done.
    done: BTreeSet<String>,
    /// The orders that a teapot is set aside for.
    set_aside: BTreeSet<RunId>,
    /// What the bank has booked: for which order, under which reference, how much.
    bookings: Vec<(RunId, String, i32)>,
    diary: Vec<(RunId, Timestamp, String)>,
    /// Somebody waits for the bank to fall silent.
    silence: Option<oneshot::Sender<()>>,
}

impl Shop {
    const PRICE: i32 = 40;

    pub(crate) fn open(environment: &ManualEnvironment) -> Self {
        let (environment, opened) = (environment.clone(), environment.now());
        Shop { environment, opened, books: Arc::default() }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_down(&self, order: &RunId, what: &str) {
        let now = self.environment.now();
        self.books().diary.push((order.clone(), now, what.to_owned()));
    }

    /// Does what needs doing once: again under the same key, it changes nothing.
    pub(crate) fn see_to(&self, order: &RunId, key: String, what: &str) -> Result<(), Fault> {
        if self.books().done.insert(key) {
            self.write_down(order, what);
        }
        Ok(())
    }

    pub(crate) fn set_aside(&self, order: &RunId, key: String) -> Result<(), Fault> {
        self.books().set_aside.insert(order.clone());
        self.see_to(order, key, "a teapot is set aside")
    }

    pub(crate) fn put_back(&self, order: &RunId, key: String) -> Result<(), Fault> {
        self.books().set_aside.remove(order);
        self.see_to(order, key, "the teapot is back on the shelf")
    }

    /// The bank books the next payment, and nobody ever hears its answer.
    pub(crate) fn bank_falls_silent(&self) -> oneshot::Receiver<()> {
        let (silence, silent) = oneshot::channel();
        self.books().silence = Some(silence);
        silent
    }

    pub(crate) async fn book(
        &self,
        order: &RunId,
        reference: String,
        account: &str,
    ) -> Result<(), Fault> {
        self.books().bookings.push((order.clone(), reference, Self::PRICE));
        self.write_down(order, &format!("the bank books {} from the {account}", Self::PRICE));
        let silence = self.books().silence.take();
        if let Some(silence) = silence {
            let _ = silence.send(());
            futures::future::pending::<()>().await;
        }
        Ok(())
    }

    pub(crate) fn finds_booking(&self, order: &RunId, reference: &str) -> Result<bool, Fault> {
        let found = self.books().bookings.iter().any(|(_, booked, _)| booked == reference);
        self.write_down(order, if found { "the booking is found" } else { "nothing is booked" });
        Ok(found)
    }

    /// Pays back what is booked for `order`, if anything is.
    pub(crate) fn pay_back(&self, order: &RunId, reference: String) -> Result<(), Fault> {
        let mut books = self.books();
        let of_order = books.bookings.iter().filter(|(of, ..)| of == order);
        let booked: i32 = of_order.map(|(.., amount)| amount).sum();
        if booked > 0 {
            books.bookings.push((order.clone(), reference, -booked));
            drop(books);
            self.write_down(order, &format!("the bank pays {booked} back"));
        }
        Ok(())
    }

    /// What has happened to `order`.
    pub(crate) fn diary(&self, order: &RunId) -> String {
        let books = self.books();
        let entries = books.diary.iter().filter(|(of, ..)| of == order).map(|(_, at, what)| {
            let minutes = at.since(self.opened).as_secs() / 60;
            let (day, hour, minute) = (minutes / 1_440, minutes / 60 % 24, minutes % 60);
            format!("  day {day}, {hour:02}:{minute:02}  {what}\n")
        });
        entries.collect()
    }

    pub(crate) fn balance(&self) -> String {
        let books = self.books();
        let money: i32 = books.bookings.iter().map(|(.., amount)| amount).sum();
        format!("Teapots that are gone: {}. Money that came in: {money}.\n", books.set_aside.len())
    }
}
