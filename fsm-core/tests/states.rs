//! States that machines share, and machines of many states.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::sync::Mutex;

use fsm_core::{
    Context, Data, Ending, Erased, Graph, Machine, State, Step, StepCall, StepKind, Verdict, check,
    go,
};
use futures::FutureExt;
use serde::{Deserialize, Serialize};

fn call(state: &str, data: Data) -> StepCall {
    StepCall {
        run: "states".parse().unwrap(),
        machine: String::new(),
        state: state.to_owned(),
        data,
        entry: 1,
        attempt: 1,
        kind: StepKind::Run,
        effects: Vec::new(),
        signals: Vec::new(),
        children: Vec::new(),
        deadline: None,
    }
}

/// Steps `machine` from its initial state to a terminal one; the names of the states on the way.
fn walk<H>(machine: &dyn Erased<H>, host: &H, input: Data) -> Vec<String> {
    let graph = machine.graph();
    graph.validate().unwrap();
    let (mut state, mut data, mut way) = (graph.initial.clone(), input, Vec::new());
    while graph.state(&state).unwrap().ending.is_none() {
        way.push(state.clone());
        let outcome = machine.step(call(&state, data), host, &()).now_or_never().unwrap();
        match outcome.verdict {
            Verdict::Go { state: next, data: its, .. } => {
                assert!(graph.allows(&state, &next), "{state} -> {next}");
                (state, data) = (next, its);
            }
            other => panic!("{state}: {other:?}"),
        }
    }
    way.push(state);
    way
}

mod shared {
    use super::*;

    /// What machines that upload have in common.
    pub(super) type Bucket = Mutex<Vec<String>>;

    /// A machine that can use the state [`Upload`].
    pub(super) trait HasUploader: Machine<Host = Bucket> {
        /// What follows when the upload is there.
        type Uploaded: State<Self> + From<Receipt>;

        /// Where to.
        fn target(&self) -> &str;
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Receipt {
        bytes: u64,
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Upload {
        pub(super) bytes: u64,
    }

    impl<M: HasUploader> State<M> for Upload {
        const NAME: &'static str = "upload";
        type Next = (M::Uploaded, GaveUp);

        async fn run(self, machine: &M, cx: &mut Context<'_, M>) -> Step<Self> {
            let bytes = self.bytes;
            if bytes == 0 {
                return go::<M, _, _, _>(GaveUp);
            }
            cx.host().lock().unwrap().push(format!("{}: {bytes}", machine.target()));
            go(M::Uploaded::from(Receipt { bytes }))
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct GaveUp;

    impl<M: HasUploader> State<M> for GaveUp {
        const NAME: &'static str = "gave_up";
        const ENDING: Ending = Ending::Failed;
        type Next = ();
    }

    /// Uploads, and is done.
    pub(super) struct Backup;

    impl Machine for Backup {
        const NAME: &'static str = "backup";
        type Host = Bucket;
        type Initial = Upload;
        type States = (Upload, Sealed, GaveUp);
    }
    check!(Backup);

    impl HasUploader for Backup {
        type Uploaded = Sealed;

        fn target(&self) -> &str {
            "archive"
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Sealed(Receipt);

    impl From<Receipt> for Sealed {
        fn from(receipt: Receipt) -> Self {
            Sealed(receipt)
        }
    }

    impl State<Backup> for Sealed {
        const NAME: &'static str = "sealed";
        type Next = ();
    }

    /// Uploads, tells somebody, and is done.
    pub(super) struct Report {
        pub(super) to: String,
    }

    impl Machine for Report {
        const NAME: &'static str = "report";
        type Host = Bucket;
        type Initial = Upload;
        type States = (Upload, Tell, Told, GaveUp);
    }
    check!(Report);

    impl HasUploader for Report {
        type Uploaded = Tell;

        fn target(&self) -> &str {
            &self.to
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Tell(Receipt);

    impl From<Receipt> for Tell {
        fn from(receipt: Receipt) -> Self {
            Tell(receipt)
        }
    }

    impl State<Report> for Tell {
        const NAME: &'static str = "tell";
        type Next = (Told,);

        async fn run(self, _: &Report, cx: &mut Context<'_, Report>) -> Step<Self> {
            cx.host().lock().unwrap().push(format!("told of {}", self.0.bytes));
            go(Told)
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Told;

    impl State<Report> for Told {
        const NAME: &'static str = "told";
        type Next = ();
    }
}

#[test]
fn two_machines_share_a_state_and_each_goes_its_own_way() {
    use shared::{Backup, Bucket, Report, Upload};
    let report = Report { to: "head office".to_owned() };
    let machines: [Box<dyn Erased<Bucket>>; 2] = [Box::new(Backup), Box::new(report)];
    let bucket = Bucket::default();
    let walk_all = |bytes| {
        let input = Data::encode(&Upload { bytes }).unwrap();
        machines.each_ref().map(|machine| walk(&**machine, &bucket, input.clone()))
    };
    assert_eq!(walk_all(3), [vec!["upload", "sealed"], vec!["upload", "tell", "told"]]);
    assert_eq!(*bucket.lock().unwrap(), ["archive: 3", "head office: 3", "told of 3"]);
    assert_eq!(walk_all(0), [["upload", "gave_up"], ["upload", "gave_up"]]);
}

mod many {
    use super::*;

    pub(super) struct Chain;

    /// States that lead to each other in the order of their names, the last one to nothing.
    macro_rules! chain {
        ($($Link:ident)+) => {
            impl Machine for Chain {
                const NAME: &'static str = "chain";
                type Host = ();
                type Initial = L0;
                type States = ($($Link,)+);
            }
            check!(Chain);
            chain! { @links $($Link)+ }
        };
        (@links $Link:ident $Next:ident $($Rest:ident)*) => {
            chain! { @link $Link ($Next,) {
                async fn run(self, _: &Chain, _: &mut Context<'_, Chain>) -> Step<Self> {
                    go($Next { steps: self.steps + 1 })
                }
            } }
            chain! { @links $Next $($Rest)* }
        };
        (@links $Link:ident) => { chain! { @link $Link () {} } };
        (@link $Link:ident $Next:ty { $($run:tt)* }) => {
            #[derive(Serialize, Deserialize)]
            pub(super) struct $Link {
                pub(super) steps: u32,
            }
            impl State<Chain> for $Link {
                const NAME: &'static str = stringify!($Link);
                type Next = $Next;
                $($run)*
            }
        };
    }
    chain! { L0 L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11 L12 L13 L14 L15 L16 L17 L18 L19 L20 L21 L22 L23
    L24 L25 L26 L27 L28 L29 L30 L31 L32 L33 L34 L35 L36 L37 L38 L39 L40 L41 L42 L43 L44 L45 L46 L47
    L48 L49 L50 L51 L52 L53 L54 L55 L56 L57 L58 L59 L60 L61 L62 L63 }

    /// Twelve ways on.
    pub(super) struct Junction;

    impl Machine for Junction {
        const NAME: &'static str = "junction";
        type Host = ();
        type Initial = Fork;
        type States = (
            Fork,
            Way<0>,
            Way<1>,
            Way<2>,
            Way<3>,
            Way<4>,
            Way<5>,
            Way<6>,
            Way<7>,
            Way<8>,
            Way<9>,
            Way<10>,
            Way<11>,
        );
    }
    check!(Junction);

    #[derive(Serialize, Deserialize)]
    pub(super) struct Fork {
        pub(super) way: usize,
    }

    impl State<Junction> for Fork {
        const NAME: &'static str = "fork";
        type Next = (
            Way<0>,
            Way<1>,
            Way<2>,
            Way<3>,
            Way<4>,
            Way<5>,
            Way<6>,
            Way<7>,
            Way<8>,
            Way<9>,
            Way<10>,
            Way<11>,
        );

        async fn run(self, _: &Junction, _: &mut Context<'_, Junction>) -> Step<Self> {
            match self.way {
                0 => go(Way::<0>),
                1 => go(Way::<1>),
                2 => go(Way::<2>),
                3 => go(Way::<3>),
                4 => go(Way::<4>),
                5 => go(Way::<5>),
                6 => go(Way::<6>),
                7 => go(Way::<7>),
                8 => go(Way::<8>),
                9 => go(Way::<9>),
                10 => go(Way::<10>),
                _ => go(Way::<11>),
            }
        }
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Way<const N: usize>;

    pub(super) const WAYS: [&str; 12] =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

    impl<const N: usize> State<Junction> for Way<N> {
        const NAME: &'static str = WAYS[N];
        type Next = ();
    }
}

#[test]
fn a_machine_of_64_states_steps_through_all_of_them() {
    use many::{Chain, L0};
    let way = walk::<()>(&Chain, &(), Data::encode(&L0 { steps: 0 }).unwrap());
    let all: Vec<_> = (0..64).map(|n| format!("L{n}")).collect();
    assert_eq!(way, all);
    assert_eq!(Graph::of::<Chain>().states.len(), 64);
}

#[test]
fn a_state_goes_to_each_of_12_successors() {
    use many::{Fork, Junction, WAYS};
    for (way, name) in WAYS.iter().enumerate() {
        let taken = walk::<()>(&Junction, &(), Data::encode(&Fork { way }).unwrap());
        assert_eq!(taken, ["fork", name]);
    }
}
