//! The examples say what they said when somebody last read it. To read it anew, after a change:
//! `cargo run -p fsm-core --all-features --example NAME > fsm-core/tests/NAME.txt`.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![allow(dead_code)] // The `main` of an example only prints its story.

#[path = "../examples/order_saga/main.rs"]
mod order_saga;
#[path = "../examples/turnstile.rs"]
mod turnstile;
#[cfg(feature = "sqlite")]
#[path = "../examples/upgrade.rs"]
mod upgrade;

#[test]
fn the_turnstile_tells_its_story() {
    assert_eq!(turnstile::story().unwrap(), include_str!("turnstile.txt"));
}

#[test]
fn the_orders_tell_their_story() {
    assert_eq!(order_saga::story().unwrap(), include_str!("order_saga.txt"));
}

#[cfg(feature = "sqlite")]
#[test]
fn the_upgrade_tells_its_story() {
    assert_eq!(upgrade::story().unwrap(), include_str!("upgrade.txt"));
}
