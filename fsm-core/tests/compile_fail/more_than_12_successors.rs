use fsm_core::{Machine, State, check};
use serde::{Deserialize, Serialize};

struct Backup;

impl Machine for Backup {
    const NAME: &'static str = "backup";
    type Host = ();
    type Initial = Freeze;
    type States = (
        Freeze,
        Done,
        Part<0>,
        Part<1>,
        Part<2>,
        Part<3>,
        Part<4>,
        Part<5>,
        Part<6>,
        Part<7>,
        Part<8>,
        Part<9>,
        Part<10>,
        Part<11>,
        Part<12>,
    );
}
check!(Backup);

#[derive(Serialize, Deserialize)]
struct Freeze;

impl State<Backup> for Freeze {
    const NAME: &'static str = "freeze";
    type Next = (
        Part<0>,
        Part<1>,
        Part<2>,
        Part<3>,
        Part<4>,
        Part<5>,
        Part<6>,
        Part<7>,
        Part<8>,
        Part<9>,
        Part<10>,
        Part<11>,
        Part<12>,
    );
}

#[derive(Serialize, Deserialize)]
struct Done;

impl State<Backup> for Done {
    const NAME: &'static str = "done";
    type Next = ();
}

/// As many states as are wanted: `Part<0>`, `Part<1>` and so on.
#[derive(Serialize, Deserialize)]
struct Part<const N: usize>;

impl<const N: usize> State<Backup> for Part<N> {
    const NAME: &'static str =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"][N];
    type Next = (Done,);
}

fn main() {}
