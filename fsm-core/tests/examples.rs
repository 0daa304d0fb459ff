//! The examples say what they said when somebody last read it.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

#[allow(dead_code)] // Its `main` only prints the story.
#[path = "../examples/turnstile.rs"]
mod turnstile;

#[test]
fn the_turnstile_tells_its_story() {
    assert_eq!(turnstile::story().unwrap(), include_str!("turnstile.txt"));
}
