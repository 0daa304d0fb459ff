use fsm_core::{Machine, State, Wait, check};
use serde::{Deserialize, Serialize};
use std::time::Duration;

struct Backup;

impl Machine for Backup {
    const NAME: &'static str = "backup";
    type Host = ();
    type Initial = Freeze;
    type States = (Freeze, Done);
}
check!(Backup);

#[derive(Serialize, Deserialize)]
struct Freeze;

impl State<Backup> for Freeze {
    const NAME: &'static str = "freeze";
    const WAIT: Wait = Wait::NONE.at_most(Duration::from_secs(60));
    type Next = (Done,);
}

#[derive(Serialize, Deserialize)]
struct Done;

impl State<Backup> for Done {
    const NAME: &'static str = "done";
    type Next = ();
}

fn main() {}
