//! What a child prints, line by line in the log.
//!
//! **Promise.** A line is cut at [`LINE_BYTES_MAX`]; of a flood only so many lines a second are
//! logged, and how many were left out is said. The child never waits for its output to be read.

use std::os::fd::AsFd;
use std::time::Instant;

use crate::host::log::HostLog;

/// The longest line that is shown.
const LINE_BYTES_MAX: usize = 8 << 10;
/// More of a line is kept, so that a secret that lies across that end is found.
const KEPT_BYTES_MAX: usize = LINE_BYTES_MAX + (4 << 10);

/// One of a child's outputs.
pub(super) struct Output {
    stream: &'static str,
    line: Vec<u8>,
    /// The rest of a line that was cut is left out.
    cut: bool,
    allowance: Allowance,
}

impl Output {
    pub(super) fn new(stream: &'static str) -> Self {
        let allowance = Allowance::new(1000, 200);
        Self { stream, line: Vec::new(), cut: false, allowance }
    }

    /// Reads what there is, up to a limit; whether the child has closed it.
    pub(super) fn read(&mut self, pipe: impl AsFd, log: &HostLog) -> bool {
        let mut buffer = [0; 16 << 10];
        // Not for ever: a child that prints without end has the rest of the loop wait.
        for _ in 0..16 {
            match rustix::io::read(&pipe, &mut buffer) {
                Ok(0) => {
                    self.end(log);
                    return true;
                }
                Ok(count) => self.take(&buffer[..count], log),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
        false
    }

    fn take(&mut self, bytes: &[u8], log: &HostLog) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = KEPT_BYTES_MAX - self.line.len();
            self.cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.end(log);
            }
        }
    }

    fn end(&mut self, log: &HostLog) {
        let cut = std::mem::take(&mut self.cut);
        if self.line.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.line);
        let Some(left_out) = self.allowance.ask() else { return };
        let (stream, plugin) = (self.stream, log.plugin());
        if left_out > 0 {
            tracing::warn!(target: "plugin", plugin, stream, left_out, "lines were left out");
        }
        let text = String::from_utf8_lossy(&line);
        let cut = cut || text.len() > LINE_BYTES_MAX;
        let text = log.redactor().clean_start(&text, LINE_BYTES_MAX);
        tracing::info!(target: "plugin", plugin, stream, cut, "{}", text.trim_end());
    }
}

/// How many records may be logged: a store that fills again at a rate.
pub(super) struct Allowance {
    most: f64,
    a_second: f64,
    left: f64,
    at: Instant,
    refused: u64,
}

impl Allowance {
    pub(super) fn new(most: u32, a_second: u32) -> Self {
        let (most, a_second) = (f64::from(most), f64::from(a_second));
        Self { most, a_second, left: most, at: Instant::now(), refused: 0 }
    }

    /// Whether one more may be logged; how many were refused since the last that was.
    pub(super) fn ask(&mut self) -> Option<u64> {
        self.ask_at(Instant::now())
    }

    fn ask_at(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * self.a_second).min(self.most);
        if self.left < 1.0 {
            self.refused += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.refused))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate_and_counted() {
        let mut allowance = Allowance::new(10, 5);
        let begun = allowance.at;
        let passed = (0..100).filter(|_| allowance.ask_at(begun).is_some()).count();
        assert_eq!(passed, 10);
        assert_eq!(allowance.ask_at(begun + Duration::from_secs(1)), Some(90));
        let later = begun + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| allowance.ask_at(later).is_some()).count(), 10);
    }

    #[test]
    fn a_line_without_end_takes_no_more_than_a_line() {
        let log = HostLog::new(std::path::Path::new("/test.so"), std::sync::Arc::default());
        let mut output = Output::new("stdout");
        for _ in 0..1000 {
            output.take(&[b'x'; 1000], &log);
        }
        assert_eq!((output.line.len(), output.cut), (KEPT_BYTES_MAX, true));
        output.take(b"\nnext", &log);
        assert_eq!((&output.line[..], output.cut), (&b"next"[..], false));
    }
}
