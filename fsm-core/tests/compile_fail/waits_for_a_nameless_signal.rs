use fsm_core::{Machine, State, Wait, check};
use serde::{Deserialize, Serialize};

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
    const WAIT: Wait = Wait::for_signals(&["approval", ""]);
    type Next = (Done,);
}

#[derive(Serialize, Deserialize)]
struct Done;

impl State<Backup> for Done {
    const NAME: &'static str = "done";
    type Next = ();
}

fn main() {}
