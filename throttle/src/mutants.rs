//! Bugs that are put in on purpose, to see which checks notice (`tests/mutants.sh`).
//!
//! What stands behind `cfg!(mutant = "NAME")` is the bug of that name. Under `--cfg mutant` all of
//! them are compiled in, and `cfg!` asks when the program runs whether its bug is the one that the
//! environment names: one build serves them all.

use std::env;
use std::sync::OnceLock;

/// Takes the place of the standard one, which answers when the crate is built.
macro_rules! cfg {
    (mutant = $name:literal) => {
        $crate::mutants::is_chosen($name)
    };
}

/// Whether `THROTTLE_MUTANT` names this bug.
pub(crate) fn is_chosen(name: &str) -> bool {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN.get_or_init(|| env::var("THROTTLE_MUTANT").ok()).as_deref() == Some(name)
}
