//! What a trial that passed has tried.

use std::fmt;

use super::{EdgeCoverage, trace::Trace};
use crate::End;

/// What a trial that passed has tried.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialReport {
    machine: String,
    end: End,
    plays: usize,
    possible: usize,
    deaths: usize,
    steps_repeated: usize,
    repeated: usize,
    coverage: Vec<EdgeCoverage>,
}

impl TrialReport {
    pub(super) fn new(machine: &str, undisturbed: &Trace) -> Self {
        let end = undisturbed.end.clone();
        let coverage = undisturbed.graphs.iter().map(EdgeCoverage::of).collect();
        let machine = machine.to_owned();
        let mut report = TrialReport {
            machine,
            end,
            plays: 0,
            possible: 0,
            deaths: 0,
            steps_repeated: 0,
            repeated: 0,
            coverage,
        };
        report.cover(undisturbed);
        report
    }

    fn cover(&mut self, trace: &Trace) {
        for coverage in &mut self.coverage {
            trace.histories.iter().for_each(|history| coverage.add(history));
        }
    }

    /// Counts a disturbed play.
    pub(super) fn played(&mut self, trace: &Trace) {
        self.plays += 1;
        self.deaths += trace.deaths;
        self.steps_repeated += trace.steps_repeated;
        self.repeated += trace.repeated;
        self.cover(trace);
    }

    /// Counts schedules that there are, played or not.
    pub(super) fn there_are(&mut self, schedules: usize) {
        self.possible += schedules;
    }

    /// Adds what another trial of the same machine has tried.
    pub(super) fn add(&mut self, other: &TrialReport) {
        self.plays += other.plays;
        self.possible += other.possible;
        self.deaths += other.deaths;
        self.steps_repeated += other.steps_repeated;
        self.repeated += other.repeated;
        for (mine, other) in self.coverage.iter_mut().zip(&other.coverage) {
            mine.merge(other);
        }
    }

    /// How the undisturbed run ended.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// How many schedules were played.
    pub fn schedules(&self) -> usize {
        self.plays
    }

    /// How many schedules there are; more than were played if
    /// [`at_most`](super::Trial::at_most) says so.
    pub fn possible(&self) -> usize {
        self.possible
    }

    /// How many processes died, over all schedules.
    pub fn deaths(&self) -> usize {
        self.deaths
    }

    /// How many steps ran again after they had come to their end, over all schedules: nobody had
    /// heard of it, or what they answered was a fault.
    pub fn steps_run_again(&self) -> usize {
        self.steps_repeated
    }

    /// How many effects ran again under the key under which they had run, over all schedules.
    pub fn effects_run_again(&self) -> usize {
        self.repeated
    }

    /// Which edges were taken, machine by machine in the order in which they were given.
    pub fn coverage(&self) -> &[EdgeCoverage] {
        &self.coverage
    }
}

impl fmt::Display for TrialReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let End { ending, state, .. } = &self.end;
        write!(f, "{} ends {} in `{state}`: {}", self.machine, ending.as_str(), self.plays)?;
        if self.plays < self.possible {
            write!(f, " of {}", self.possible)?;
        }
        write!(
            f,
            " schedules, {} deaths, {} steps run again, {} effects run again under their key, 0 lost",
            self.deaths, self.steps_repeated, self.repeated
        )
    }
}
