//! What disturbs one play of a trial, and how it is written down.

use std::{fmt, str::FromStr};

/// How a write of the journal ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Death {
    /// Nothing is written, and the process hears nothing any more.
    Before,
    /// It is written, and the process hears nothing any more.
    After,
    /// Nothing is written, and the process hears of an error.
    ErrorBefore,
    /// It is written, and the process hears of an error.
    ErrorAfter,
}

/// Whether a step is disturbed before it has run or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    Before,
    After,
}

/// What a disturbed step answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    Retryable,
    Permanent,
}

/// One thing that goes wrong. Writes are counted from 1 in each process, calls of steps and waits
/// over all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blow {
    Crash { write: usize, death: Death },
    Repeat { call: usize, known: usize },
    Fail { call: usize, moment: Moment, failure: Failure },
    Cancel { call: usize, moment: Moment },
    CancelWait { wait: usize },
}

/// The blows of one play, in the order in which they fall. As text it is what
/// [`Trial::replay`](super::Trial::replay) reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Schedule(pub(super) Vec<Blow>);

/// Death and its name.
pub(super) const DEATHS: [(Death, &str); 4] = [
    (Death::Before, "before"),
    (Death::After, "after"),
    (Death::ErrorBefore, "error-before"),
    (Death::ErrorAfter, "error-after"),
];
pub(super) const MOMENTS: [(Moment, &str); 2] =
    [(Moment::Before, "before"), (Moment::After, "after")];
pub(super) const FAILURES: [(Failure, &str); 2] =
    [(Failure::Retryable, "retryable"), (Failure::Permanent, "permanent")];

impl Schedule {
    /// The deaths, one a process.
    pub(super) fn crashes(&self) -> impl Iterator<Item = (usize, Death)> {
        self.0.iter().filter_map(|blow| match *blow {
            Blow::Crash { write, death } => Some((write, death)),
            _ => None,
        })
    }

    /// The blow that falls on a step, if one does.
    pub(super) fn on_step(&self) -> Option<Blow> {
        self.0.iter().copied().find(|blow| !matches!(blow, Blow::Crash { .. }))
    }

    /// In words.
    pub(super) fn told(&self) -> String {
        if self.0.is_empty() {
            return "nothing disturbs it".to_owned();
        }
        let told: Vec<_> = self.0.iter().map(Blow::told).collect();
        told.join(", then ")
    }
}

impl Blow {
    fn told(&self) -> String {
        match *self {
            Blow::Crash { write, death: Death::Before } => {
                format!("the process dies at write {write} before it lands")
            }
            Blow::Crash { write, death: Death::After } => {
                format!("the process dies at write {write} after it has landed")
            }
            Blow::Crash { write, death: Death::ErrorBefore } => {
                format!("write {write} is heard as an error and has not landed")
            }
            Blow::Crash { write, death: Death::ErrorAfter } => {
                format!("write {write} is heard as an error but has landed")
            }
            Blow::Repeat { call, known } => {
                format!("step call {call} runs again, its first {known} effects recorded")
            }
            Blow::Fail { call, moment, failure } => {
                let when = match moment {
                    Moment::Before => "before it ran",
                    Moment::After => "after it ran, its outcome lost",
                };
                format!("step call {call} fails {when} with a {} fault", name(failure, &FAILURES))
            }
            Blow::Cancel { call, moment } => {
                let when = name(moment, &MOMENTS);
                format!("the run is asked to stop in step call {call}, {when} its work")
            }
            Blow::CancelWait { wait } => {
                format!("the run is asked to stop when everything stands still for time {wait}")
            }
        }
    }
}

fn name<T: PartialEq>(of: T, names: &[(T, &'static str)]) -> &'static str {
    names.iter().find(|(known, _)| *known == of).map_or("", |(_, name)| name)
}

fn named<T: Copy>(name: &str, names: &[(T, &str)]) -> Option<T> {
    names.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, blow) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match *blow {
                Blow::Crash { write, death } => write!(f, "write {write} {}", name(death, &DEATHS)),
                Blow::Repeat { call, known } => write!(f, "repeat {call} {known}"),
                Blow::Fail { call, moment, failure } => {
                    let (moment, failure) = (name(moment, &MOMENTS), name(failure, &FAILURES));
                    write!(f, "fail {call} {moment} {failure}")
                }
                Blow::Cancel { call, moment } => {
                    write!(f, "cancel {call} {}", name(moment, &MOMENTS))
                }
                Blow::CancelWait { wait } => write!(f, "cancel-wait {wait}"),
            }?;
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let blows = parts.map(|part| blow(part).ok_or_else(|| format!("`{part}` is no blow")));
        Ok(Schedule(blows.collect::<Result<_, _>>()?))
    }
}

fn blow(text: &str) -> Option<Blow> {
    let words: Vec<_> = text.split_whitespace().collect();
    Some(match words[..] {
        ["write", write, death] => {
            Blow::Crash { write: write.parse().ok()?, death: named(death, &DEATHS)? }
        }
        ["repeat", call, known] => {
            Blow::Repeat { call: call.parse().ok()?, known: known.parse().ok()? }
        }
        ["fail", call, moment, failure] => Blow::Fail {
            call: call.parse().ok()?,
            moment: named(moment, &MOMENTS)?,
            failure: named(failure, &FAILURES)?,
        },
        ["cancel", call, moment] => {
            Blow::Cancel { call: call.parse().ok()?, moment: named(moment, &MOMENTS)? }
        }
        ["cancel-wait", wait] => Blow::CancelWait { wait: wait.parse().ok()? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, told: &str) {
        let schedule: Schedule = text.parse().unwrap();
        assert_eq!(schedule.to_string(), text);
        assert_eq!(schedule.told(), told);
    }

    #[test]
    fn a_schedule_is_read_as_it_is_written() {
        check("", "nothing disturbs it");
        check(
            "write 3 before, write 1 error-after",
            "the process dies at write 3 before it lands, then write 1 is heard as an error but \
             has landed",
        );
        check("repeat 2 1", "step call 2 runs again, its first 1 effects recorded");
        check(
            "fail 4 after permanent",
            "step call 4 fails after it ran, its outcome lost with a permanent fault",
        );
        check("cancel 2 before", "the run is asked to stop in step call 2, before its work");
        check("cancel-wait 1", "the run is asked to stop when everything stands still for time 1");
        assert!("write 3".parse::<Schedule>().is_err());
    }
}
