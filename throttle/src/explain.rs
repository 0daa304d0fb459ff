//! A snapshot in words.

use std::fmt;
use std::time::Duration;

use crate::request::Claim;
use crate::snapshot::{Blocker, Holding, LimitUse, Relation, Snapshot, Standing, Waiting};

/// How many blockers are named before the rest is counted.
const NAMED: usize = 3;

impl fmt::Display for Snapshot {
    /// One line for each limit, permit and waiter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_closed {
            writeln!(f, "closed")?;
        } else if !self.is_open {
            writeln!(f, "not open yet")?;
        }
        self.limits.iter().try_for_each(|limit| writeln!(f, "{limit}"))?;
        self.holders.iter().try_for_each(|holder| writeln!(f, "{holder}"))?;
        self.waiters.iter().try_for_each(|waiter| writeln!(f, "{waiter}"))
    }
}

impl fmt::Display for LimitUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, limit, capacity, used } = self;
        write!(f, "{limit} of {resource}: {used} of {capacity} used")?;
        match (self.capacity, self.debt()) {
            (0, _) => f.write_str(", paused"),
            (_, 0) => Ok(()),
            (_, debt) => write!(f, ", {debt} too many"),
        }
    }
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has held ", self.owner)?;
        if self.claims.is_empty() {
            f.write_str("nothing")?;
        }
        for (index, claim) in self.claims.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{claim}")?;
        }
        write!(f, " for {}", Age(self.age))?;
        if !self.is_claimed {
            f.write_str(", and nobody has come for it")?;
        }
        Ok(())
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.standing {
            Standing::NotOpen => return write!(f, "{} waits for the opening", self.owner),
            Standing::Unclaimed => {
                return write!(f, "{} did not come for its permit and lost it", self.owner);
            }
            Standing::InLine => {}
        }
        write!(f, "{} waits for {}: ", self.owner, self.waits_for)?;
        if self.blockers.is_empty() {
            f.write_str("the limit is paused")?;
        }
        for (index, blocker) in self.blockers.iter().take(NAMED).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{blocker}")?;
        }
        if self.blockers.len() > NAMED {
            write!(f, " and {} more", self.blockers.len() - NAMED)?;
        }
        write!(f, ", position {}, overtaken {}", self.position, self.overtakes)?;
        if self.is_pinned {
            f.write_str(", pinned")?;
        }
        Ok(())
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.relation {
            Relation::Holds => write!(f, "{} has held it for {}", self.owner, Age(self.age)),
            Relation::IsAhead => write!(f, "{} is ahead", self.owner),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusion { resource, class, .. } => write!(f, "{resource} ({class})"),
            Self::Capacity { resource, limit, units } => {
                write!(f, "{units} {limit} of {resource}")
            }
        }
    }
}

/// A duration for people: its two largest units.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {} s", seconds % 60),
            (0, _, _) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} d {hours} h"),
        }
    }
}
