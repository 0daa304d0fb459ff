//! The examples print what their stories say.

#[path = "../examples/slots.rs"]
#[allow(dead_code, reason = "its main is for those who run it")]
mod slots;

#[path = "../examples/why_waiting.rs"]
#[allow(dead_code, reason = "its main is for those who run it")]
mod why_waiting;

#[path = "../examples/backup_window.rs"]
#[allow(dead_code, reason = "its main is for those who run it")]
mod backup_window;

#[test]
fn two_databases_share_one_slot() {
    assert_eq!(
        slots::story().unwrap(),
        "orders has the slot\n\
         request of stock would have to wait for orders\n\
         stock saves its log meanwhile\n\
         stock has the slot\n"
    );
}

#[test]
fn a_snapshot_says_why_each_of_them_waits() {
    assert_eq!(why_waiting::story().unwrap(), include_str!("why_waiting.txt"));
}

#[test]
fn two_thousand_logs_a_full_and_a_restore_share_twenty_streams() {
    assert_eq!(backup_window::story().unwrap(), include_str!("backup_window.txt"));
}
