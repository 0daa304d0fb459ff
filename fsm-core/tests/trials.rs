//! The machines of the examples on trial: killed at each write of the journal, twice in a row, with
//! each step repeated, failed and cancelled.
//!
//! `cargo test -p fsm-core --all-features --test trials -- --nocapture` shows the reports.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.
#![allow(dead_code)] // The `main` of an example only prints its story.

#[path = "../examples/order_saga/main.rs"]
mod order_saga;
#[path = "../examples/turnstile.rs"]
mod turnstile;
#[cfg(feature = "sqlite")]
#[path = "../examples/upgrade.rs"]
mod upgrade;

use fsm_core::{
    Ending, Hosted,
    testing::{ManualEnvironment, Trial, TrialReport},
};
use order_saga::{
    order::{Orders, Payment, Reserve},
    parcel::Parcels,
    shop::Shop,
};

fn show(name: &str, report: TrialReport) -> TrialReport {
    assert_eq!(report.schedules(), report.possible(), "{name}: no schedule is left out");
    println!("{name}: {report}");
    report
}

#[test]
fn the_turnstile_counts_each_coin_once_whatever_happens() {
    let trial = Trial::new("turnstile", &turnstile::Locked { coins: 0 })
        .machine(|_| Hosted::new(turnstile::Turnstile { price: 3 }, ()));
    let report = show("turnstile", trial.crash_everywhere().unwrap());
    assert!(report.deaths() > 100, "{report}");
    trial.repeat_every_effect().unwrap();
    trial.fail_every_step().unwrap();
    trial.cancel_every_step().unwrap();
}

/// An order to `address`, with what must hold of it at its end however it came to it.
fn order(address: &str) -> Trial<Shop> {
    Trial::new("order", &Reserve { address: address.to_owned() })
        .world(|| Shop::open(&ManualEnvironment::default()))
        .machine(|shop| Hosted::new(Orders, shop.clone()))
        .machine(|shop| Hosted::new(Parcels, shop.clone()))
        .observe(Shop::balance)
        .always_at_end(|shop, end| match (end.ending, shop.balance().trim_end()) {
            (Ending::Completed, "Teapots that are gone: 1. Money that came in: 40.") => Ok(()),
            (
                Ending::Cancelled | Ending::Failed,
                "Teapots that are gone: 0. Money that came in: 0.",
            ) => Ok(()),
            (ending, balance) => Err(format!("{}: {balance}", ending.as_str())),
        })
}

#[test]
fn an_order_that_is_paid_and_delivered_is_booked_once() {
    let paid = order("1 High Street").signal("p", &Payment { account: "mine".to_owned() });
    let report = show("order, delivered", paid.crash_everywhere().unwrap());
    assert!(report.schedules() > 500, "{report}");
    show("order, delivered, steps again", paid.repeat_every_effect().unwrap());
    show("order, delivered, failures", paid.fail_every_step().unwrap());
    show("order, delivered, cancels", paid.cancel_every_step().unwrap());
}

#[test]
fn an_order_that_comes_back_is_paid_back() {
    let paid = order("0 Nowhere").signal("p", &Payment { account: "mine".to_owned() });
    let report = show("order, returned", paid.crash_everywhere().unwrap());
    assert!(report.schedules() > 500, "{report}");
    show("order, returned, steps again", paid.repeat_every_effect().unwrap());
    show("order, returned, failures", paid.fail_every_step().unwrap());
    show("order, returned, cancels", paid.cancel_every_step().unwrap());
}

#[test]
fn an_order_that_is_never_paid_is_released() {
    let unpaid = order("1 High Street");
    show("order, unpaid", unpaid.crash_everywhere().unwrap());
    show("order, unpaid, failures", unpaid.fail_every_step().unwrap());
    show("order, unpaid, cancels", unpaid.cancel_every_step().unwrap());
}

#[cfg(feature = "sqlite")]
#[test]
fn a_loan_comes_to_its_end_in_each_version() {
    use upgrade::{BroughtBack, one, two};

    let reader = || "emma".to_owned();
    let trial = Trial::new("loan", &one::Lent { reader: reader() })
        .machine(|_| Hosted::new(one::Loans, ()))
        .signal("back", &BroughtBack {});
    show("loan, version 1", trial.crash_everywhere().unwrap());
    let trial = Trial::new("loan", &two::OnLoan { reader: reader(), renewals: 0 })
        .machine(|_| Hosted::new(two::Loans, ()))
        .signal("back", &BroughtBack {});
    show("loan, version 2", trial.crash_everywhere().unwrap());
}
