//! The journal suite catches journals that are wrong, each by the behaviour that it breaks.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod support;

use fsm_core::testing::journal_suite;

use self::support::faulty::{Faulty, Mistake};

/// The suite finds that a journal with `mistake` breaks `behaviour`, and says it with `words`.
#[track_caller]
fn check(mistake: Mistake, behaviour: &str, words: &str) {
    let failure = journal_suite(|| Faulty::new(mistake)).expect_err("the mistake is not caught");
    let how = failure.how(behaviour).unwrap_or_else(|| panic!("`{behaviour}` holds: {failure}"));
    assert!(how.contains(words), "`{words}` is not in: {how}");
}

#[test]
fn a_journal_without_a_mistake_passes() {
    let report = journal_suite(|| Faulty::new(Mistake::None)).unwrap();
    assert!(report.not_tried().is_empty(), "{report}");
}

#[test]
fn a_journal_that_acknowledges_before_it_stores_is_caught() {
    check(Mistake::AcknowledgesEarly, "durable", "when the journal is opened again");
}

#[test]
fn a_journal_that_loses_the_last_record_is_caught() {
    check(Mistake::LosesTheLast, "durable", "records instead of");
}

#[test]
fn a_journal_that_accepts_what_does_not_follow_is_caught() {
    check(Mistake::AcceptsDuplicates, "no_duplicate", "it was acknowledged");
    check(Mistake::AcceptsDuplicates, "one_of_two", "acknowledged [true, true]");
    check(Mistake::AcceptsGaps, "no_gap", "it was acknowledged");
}

#[test]
fn a_journal_that_writes_half_a_batch_is_caught() {
    check(Mistake::WritesHalf, "no_duplicate", "after the refusal of `new` there are 1 records");
}

#[test]
fn a_journal_that_hides_a_run_is_caught() {
    check(Mistake::HidesARun, "unfinished_pages", "instead of");
    check(Mistake::ListsEverything, "list", "unfinished: true");
}

#[test]
fn a_journal_that_forgets_too_much_is_caught() {
    check(Mistake::ForgetsChildren, "prune_children", "it says");
    check(Mistake::Miscounts, "prune_records", "records: 0");
}

#[test]
fn a_journal_that_changes_what_it_keeps_is_caught() {
    check(Mistake::MendsData, "any_data", "history");
}

#[test]
fn a_journal_that_looks_away_from_damage_is_caught() {
    check(Mistake::SkipsDamage, "missing_record", "it loads as");
    check(Mistake::SkipsDamage, "altered_record", "it loads as");
}
