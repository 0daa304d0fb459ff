//! What the Linux kernel says about stalls.

use std::fs;
use std::path::PathBuf;

use super::pressure::Pressure;

/// One reading of a pressure stall file, such as `/proc/pressure/io` (Linux,
/// `Documentation/accounting/psi.rst`).
///
/// Averages are in hundredths of a percent of the time, `0..=10_000`.
///
/// # Examples
///
/// ```
/// use throttle::PressureStall;
///
/// let text = "some avg10=12.34 avg60=5.00 avg300=0.50 total=4711\n\
///             full avg10=1.00 avg60=0.00 avg300=0.00 total=17\n";
/// let stall = PressureStall::parse(text).ok_or("not a reading")?;
/// assert_eq!(stall.some_avg10, 1_234);
/// assert_eq!(stall.full_avg10, Some(100));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PressureStall {
    /// How much of the last ten seconds at least one task was stalled.
    pub some_avg10: u16,
    /// How much of the last ten seconds all tasks were stalled at once. The line is missing
    /// for the processor on older kernels.
    pub full_avg10: Option<u16>,
}

impl PressureStall {
    /// Reads the text of a pressure stall file; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let line = |kind: &str| {
            let mut words = text
                .lines()
                .map(str::split_ascii_whitespace)
                .find_map(|mut words| (words.next() == Some(kind)).then_some(words))?;
            hundredths(words.find_map(|word| word.strip_prefix("avg10="))?)
        };
        Some(Self { some_avg10: line("some")?, full_avg10: line("full") })
    }
}

/// A percentage with two digits behind the point, in hundredths.
fn hundredths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() != 2 {
        return None;
    }
    let value = whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(part.parse().ok()?)?;
    (value <= 10_000).then_some(value)
}

/// The share of the last ten seconds in which at least one task was stalled, from a pressure
/// stall file; in hundredths of a percent.
///
/// Where there is no such file, or it cannot be read, the pressure is not known; that is
/// logged once.
#[derive(Debug)]
pub struct StallFile {
    path: PathBuf,
    is_reported: bool,
}

impl StallFile {
    /// Reads the file at `path`: `/proc/pressure/io`, or `io.pressure` of a control group.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_reported: false }
    }
}

impl Pressure for StallFile {
    fn sample(&mut self) -> Option<u64> {
        let stall = fs::read_to_string(&self.path).ok();
        let stall = stall.as_deref().and_then(PressureStall::parse);
        if stall.is_none() && !self.is_reported {
            self.is_reported = true;
            tracing::info!(path = %self.path.display(), "no pressure reading; limits stay fixed");
        }
        Some(u64::from(stall?.some_avg10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(u16, Option<u16>)>) {
        let stall = PressureStall::parse(text);
        assert_eq!(stall.map(|stall| (stall.some_avg10, stall.full_avg10)), expected, "{text}");
    }

    #[test]
    fn both_lines_are_read_in_any_order() {
        check("some avg10=0.00 avg60=0.00 avg300=0.00 total=0", Some((0, None)));
        check("full avg10=0.07\nsome avg60=1.00 avg10=100.00", Some((10_000, Some(7))));
    }

    #[test]
    fn what_is_no_reading_is_none() {
        for text in [
            "",
            "some",
            "some avg10=",
            "some avg10=1",
            "some avg10=1.0",
            "some avg10=-1.00",
            "some avg10=100.01",
            "some avg10=999999.00",
            "full avg10=1.00",
        ] {
            check(text, None);
        }
    }
}
