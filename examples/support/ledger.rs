//! What each operation cost, as a table.

use std::fmt;
use std::time::Duration;

use mercury::{BackupStats, Outcome};

/// The operations so far.
#[derive(Debug, Default)]
pub struct Ledger(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    operation: String,
    cost: Option<BackupStats>,
    read_bytes: Option<u64>,
    took: Duration,
}

impl Ledger {
    /// Notes what came of an operation.
    pub fn note(&mut self, operation: &str, outcome: &Outcome, took: Duration) {
        let (cost, read_bytes) = match outcome {
            Outcome::BackedUp { stats, .. } => (Some(*stats), Some(stats.read_bytes)),
            // What a plugin reports is its own matter; this one says how much it wrote.
            Outcome::Restored { report, .. } => (None, report["bytes"].as_u64()),
            _ => (None, None),
        };
        self.0.push(Entry { operation: operation.to_owned(), cost, read_bytes, took });
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, cells: [&str; 6]| {
            let [operation, read, new, stored, time, rate] = cells;
            writeln!(f, "  {operation:<15}{read:>12}{new:>12}{stored:>12}{time:>10}{rate:>8}")
        };
        row(f, ["operation", "read", "new", "stored", "time", "MB/s"])?;
        for Entry { operation, cost, read_bytes, took } in &self.0 {
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let seconds = took.as_secs_f64();
            row(
                f,
                [
                    operation,
                    &or_none(read_bytes.map(bytes)),
                    &or_none(cost.map(|cost| bytes(cost.new_bytes))),
                    &or_none(cost.map(|cost| bytes(cost.stored_bytes))),
                    &format!("{seconds:.2} s"),
                    &or_none(read_bytes.map(|read| format!("{:.0}", read as f64 / 1e6 / seconds))),
                ],
            )?;
        }
        Ok(())
    }
}

/// A number of bytes in words; a megabyte has a million of them.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..100_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// A part of a whole, in words.
pub fn percent(part: u64, whole: u64) -> String {
    format!("{:.2} %", 100.0 * share(part, whole))
}

/// A part of a whole, `0.0..=1.0`.
pub fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The most memory that this process has had at once, where the system tells.
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}
