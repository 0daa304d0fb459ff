//! What operations wait for, and what they hold: the crate `throttle`, as the engine drives it.
//!
//! **Promise.** Deadlines expire and grants that nobody comes for are taken back without anybody's
//! help. What an operation excludes stays excluded for as long as any of its work may be at work;
//! its capacity goes to others while it waits for long.
//!
//! | | |
//! | --- | --- |
//! | [`door`] | the admission that every operation goes through, and the time it goes by |
//! | [`ticks`] | the one task that tells the admission when something is due |
//! | [`lanes`] | how many streams there are, for whom |
//! | [`policies`] | the rules of the workloads, for the versions of their systems |
//! | [`pass`] | a permit whose capacity comes and goes with the work |

mod door;
mod lanes;
mod pass;
mod policies;
mod ticks;
mod time;

pub(crate) use self::{
    door::Door,
    lanes::Lanes,
    pass::{Activity, AtWork, Pass, Standing, Taken},
    policies::{DATA, Policies},
    ticks::Ticking,
    time::Time,
};
