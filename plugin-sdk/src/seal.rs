//! The states that most backups end in.

use fsm_core::{Cancel, Context, Ending, Fault, Machine, State, Step, Timestamp, go};
use serde::{Deserialize, Serialize};

use crate::{
    FinishedTake, Host, PointId, PointKind, PointNotes, Receipt, Wanted, message::SealCall,
};

/// Makes a recovery point of receipts, then moves to [`Sealed`]. Part of any machine that names
/// it: put `Seal` and `Sealed` into `type States`, and go to `Seal` when the streams are durable.
///
/// Not cancelled: bytes that the database was told are saved are sealed or released, never lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seal {
    /// What the point holds.
    pub kind: PointKind,
    /// The points that it needs directly.
    pub base: Vec<PointId>,
    /// The moment that it restores.
    pub taken_at: Timestamp,
    /// The plugin's notes.
    pub notes: PointNotes,
    /// Its streams.
    pub receipts: Vec<Receipt>,
}

impl Seal {
    /// Seals `take` as a full point of the moment at which it was begun.
    pub fn full(take: FinishedTake, notes: PointNotes) -> Self {
        let FinishedTake { begun_at, receipts, .. } = take;
        Seal { kind: PointKind::Full, base: Vec::new(), taken_at: begun_at, notes, receipts }
    }

    /// Seals `take` as a log on top of `base`, which restores every moment up to `taken_at`.
    pub fn log(take: FinishedTake, base: PointId, taken_at: Timestamp, notes: PointNotes) -> Self {
        let receipts = take.receipts;
        Seal { kind: PointKind::Log, base: vec![base], taken_at, notes, receipts }
    }

    /// Makes the point, durably: what the state `Seal` does. For a machine that goes on after it
    /// (to let its database drop the log that is saved now) and so has a state of its own for
    /// this, with [`Cancel::Defer`]. A run makes one point in this way; doing it again finds it.
    ///
    /// # Errors
    ///
    /// As [`Host::seal`].
    pub async fn make(self, host: &Host) -> Result<PointId, Fault> {
        let Seal { kind, base, taken_at, notes, receipts } = self;
        let seal = SealCall { key: "point".to_owned(), kind, base, taken_at, notes, receipts };
        host.seal(&seal).await
    }
}

/// The end of a backup: its point exists. The run's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The point.
    pub point: PointId,
}

/// The end of a run that found that a backup of another kind is needed first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Redirect {
    /// Why, for people.
    pub reason: String,
    /// What to do instead.
    pub wanted: Wanted,
}

impl<M: Machine<Host = Host>> State<M> for Seal {
    const NAME: &'static str = "seal";
    const DOC: &'static str = "Make a recovery point of what is durable.";
    const CANCEL: Cancel = Cancel::Defer;
    type Next = (Sealed,);

    async fn run(self, _: &M, cx: &mut Context<'_, M>) -> Step<Self> {
        let point = self.make(cx.host()).await?;
        go::<M, _, _, _>(Sealed { point })
    }
}

impl<M: Machine<Host = Host>> State<M> for Sealed {
    const NAME: &'static str = "sealed";
    const DOC: &'static str = "The recovery point exists.";
    type Next = ();
}

impl<M: Machine<Host = Host>> State<M> for Redirect {
    const NAME: &'static str = "redirect";
    const DOC: &'static str = "A backup of another kind is needed first.";
    const ENDING: Ending = Ending::Redirected;
    type Next = ();
}
