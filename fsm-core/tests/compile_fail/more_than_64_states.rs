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
        Part<13>,
        Part<14>,
        Part<15>,
        Part<16>,
        Part<17>,
        Part<18>,
        Part<19>,
        Part<20>,
        Part<21>,
        Part<22>,
        Part<23>,
        Part<24>,
        Part<25>,
        Part<26>,
        Part<27>,
        Part<28>,
        Part<29>,
        Part<30>,
        Part<31>,
        Part<32>,
        Part<33>,
        Part<34>,
        Part<35>,
        Part<36>,
        Part<37>,
        Part<38>,
        Part<39>,
        Part<40>,
        Part<41>,
        Part<42>,
        Part<43>,
        Part<44>,
        Part<45>,
        Part<46>,
        Part<47>,
        Part<48>,
        Part<49>,
        Part<50>,
        Part<51>,
        Part<52>,
        Part<53>,
        Part<54>,
        Part<55>,
        Part<56>,
        Part<57>,
        Part<58>,
        Part<59>,
        Part<60>,
        Part<61>,
        Part<62>,
    );
}
check!(Backup);

#[derive(Serialize, Deserialize)]
struct Freeze;

impl State<Backup> for Freeze {
    const NAME: &'static str = "freeze";
    type Next = (Done,);
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
    const NAME: &'static str = "part";
    type Next = (Done,);
}

fn main() {}
