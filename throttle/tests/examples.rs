//! The examples print what their stories say.

#[path = "../examples/slots.rs"]
#[allow(dead_code, reason = "its main is for those who run it")]
mod slots;

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
