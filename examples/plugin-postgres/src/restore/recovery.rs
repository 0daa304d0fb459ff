//! How far a server replays when it is started on a restored directory.

use std::{
    fs::{self, File},
    path::Path,
};

use plugin_sdk::{Fault, Timestamp};
use serde::{Deserialize, Serialize};

use super::file_fault;
use crate::lsn::Lsn;

/// Where the segments wait to be replayed, in the data directory; the server removes it when it
/// has come to the end.
pub(crate) const WAL_DIRECTORY: &str = "mercury_wal";

/// Where the replay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayTo {
    /// At the end of the log that was restored.
    End,
    /// Before the first commit that is later.
    Time(Timestamp),
    /// Behind the record that begins here, or the first one after.
    Position(Lsn),
}

/// The settings that say it: what an earlier restore wrote goes.
const OURS: [&str; 10] = [
    "restore_command",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
];

/// Has the server that is started on `directory` replay to `to`, then take writes.
pub(crate) fn configure(directory: &Path, to: ReplayTo) -> Result<(), Fault> {
    // The file that the server reads last.
    let path = directory.join("postgresql.auto.conf");
    let before = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(file_fault("read", &path, &error)),
    };
    // Written in place, so that owner and mode stay.
    fs::write(&path, settings(&before, to)).map_err(|error| file_fault("write", &path, &error))?;
    let signal = directory.join("recovery.signal");
    File::create(&signal).map_err(|error| file_fault("make", &signal, &error))?;
    Ok(())
}

fn settings(before: &str, to: ReplayTo) -> String {
    let is_ours = |line: &&str| {
        let name = line.split(['=', ' ', '\t']).next().unwrap_or_default();
        OURS.contains(&name)
    };
    let mut text: String = before.lines().filter(|line| !is_ours(line)).map(with_end).collect();
    let mut set = |name: &str, value: &str| text.push_str(&format!("{name} = '{value}'\n"));
    // The server runs these in its data directory.
    set("restore_command", &format!("cp \"{WAL_DIRECTORY}/%f\" \"%p\""));
    set("recovery_end_command", &format!("rm -rf {WAL_DIRECTORY}"));
    set("recovery_target_timeline", "current");
    set("recovery_target_action", "promote");
    set("recovery_target_inclusive", "on");
    // One target and no more: the server takes two for a mistake, even if one is empty.
    match to {
        ReplayTo::End => {}
        ReplayTo::Time(time) => set("recovery_target_time", &timestamp(time)),
        ReplayTo::Position(lsn) => set("recovery_target_lsn", &lsn.to_string()),
    }
    text
}

fn with_end(line: &str) -> String {
    format!("{line}\n")
}

/// As a server reads it that has not loaded the names of time zones yet: not even `Z` is known.
fn timestamp(time: Timestamp) -> String {
    let since = std::time::Duration::from_millis(time.as_unix_ms());
    let rfc3339 = humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string();
    format!("{}+00", rfc3339.trim_end_matches('Z').replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_target_is_replaced_and_other_settings_stay() {
        let first = settings("work_mem = '8MB'\n", ReplayTo::Time(Timestamp::from_unix_ms(1_500)));
        assert!(first.contains("recovery_target_time = '1970-01-01 00:00:01.500+00'\n"), "{first}");
        let second = settings(&first, ReplayTo::Position(Lsn::new(0x300_0148)));
        assert!(second.starts_with("work_mem = '8MB'\n"), "{second}");
        assert!(second.contains("recovery_target_lsn = '0/3000148'\n"), "{second}");
        assert!(!second.contains("recovery_target_time ="), "{second}");
        assert_eq!(second.matches("restore_command").count(), 1, "{second}");
        assert_eq!(settings(&second, ReplayTo::End).matches("recovery_target_lsn").count(), 0);
    }
}
