//! What a transition costs in memory: fsm-core beside state machine libraries without durability.
//!
//! Every contender is the same traffic light (`fsm-core/benches/light`). The last lines are the
//! ratios to a `match` written by hand.

#[path = "../../../fsm-core/benches/light/mod.rs"]
mod light;

use criterion::{Criterion, Throughput};

use self::light::{
    Erased, Matched, TICKS_PER_CYCLE, Ticks, Typed,
    ratios::{self, Contender},
};

fn main() {
    let contenders = [
        Contender::new("match by hand", Matched::default),
        Contender::new("rust-fsm", by_rust_fsm::Light::default),
        Contender::new("statig", by_statig::Light::default),
        Contender::new("smlang", by_smlang::Light::default),
        Contender::new("fsm-core, typed", Typed::default),
        Contender::new("fsm-core, erased, JSON", Erased::default),
    ];
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("transitions");
    group.throughput(Throughput::Elements(100 * TICKS_PER_CYCLE));
    for contender in &contenders {
        group.bench_function(contender.name(), |bencher| {
            bencher.iter(|| contender.go_around(100));
        });
    }
    group.finish();
    criterion.final_summary();
    // Whoever only wants to know that the benchmark works does not wait for figures.
    if !std::env::args().any(|argument| argument == "--test") {
        ratios::print(&contenders);
    }
}

/// Its macro knows no data in states; its trait does.
mod by_rust_fsm {
    use rust_fsm::{StateMachine, StateMachineImpl};

    use super::{Matched, Ticks};

    pub(crate) struct Rules;

    impl StateMachineImpl for Rules {
        type Input = ();
        type State = Matched;
        type Output = ();
        const INITIAL_STATE: Matched = Matched::Red { cycles: 0 };

        fn transition(state: &Matched, (): &()) -> Option<Matched> {
            Some(match *state {
                Matched::Red { cycles } => Matched::Green { cycles, left: 2 },
                Matched::Green { cycles, left: 0 } => Matched::Yellow { cycles },
                Matched::Green { cycles, left } => Matched::Green { cycles, left: left - 1 },
                Matched::Yellow { cycles } => Matched::Red { cycles: cycles + 1 },
            })
        }

        fn output(_: &Matched, (): &()) -> Option<()> {
            None
        }
    }

    #[derive(Default)]
    pub(crate) struct Light(StateMachine<Rules>);

    impl Ticks for Light {
        #[inline(never)]
        fn tick(&mut self) {
            self.0.consume(&()).expect("a light always ticks");
        }

        fn cycles(&mut self) -> u64 {
            match *self.0.state() {
                Matched::Red { cycles }
                | Matched::Green { cycles, .. }
                | Matched::Yellow { cycles } => cycles,
            }
        }
    }
}

mod by_statig {
    use statig::blocking::*;

    use super::Ticks;

    #[derive(Default)]
    pub(crate) struct Rules;

    pub(crate) struct Tick;

    #[state_machine(initial = "State::red(0)")]
    impl Rules {
        #[state]
        fn red(cycles: &mut u64, event: &Tick) -> Outcome<State> {
            let Tick = event;
            Transition(State::green(*cycles, 2))
        }

        #[state]
        fn green(cycles: &mut u64, left: &mut u64, event: &Tick) -> Outcome<State> {
            let Tick = event;
            match *left {
                0 => Transition(State::yellow(*cycles)),
                left => Transition(State::green(*cycles, left - 1)),
            }
        }

        #[state]
        fn yellow(cycles: &mut u64, event: &Tick) -> Outcome<State> {
            let Tick = event;
            Transition(State::red(*cycles + 1))
        }
    }

    pub(crate) struct Light(StateMachine<Rules>);

    impl Default for Light {
        fn default() -> Self {
            let mut light = Rules.state_machine();
            light.init();
            Light(light)
        }
    }

    impl Ticks for Light {
        #[inline(never)]
        fn tick(&mut self) {
            self.0.handle(&Tick);
        }

        fn cycles(&mut self) -> u64 {
            match self.0.state() {
                State::Red { cycles } | State::Green { cycles, .. } | State::Yellow { cycles } => {
                    *cycles
                }
            }
        }
    }
}

mod by_smlang {
    use smlang::statemachine;

    use super::Ticks;

    #[derive(Clone, Copy, PartialEq)]
    pub(crate) struct Cycles(u64);

    #[derive(Clone, Copy, PartialEq)]
    pub(crate) struct Going {
        cycles: u64,
        left: u64,
    }

    statemachine! {
        transitions: {
            *Red(Cycles) + Tick / turn_green = Green(Going),
            Green(Going) + Tick [is_over] / turn_yellow = Yellow(Cycles),
            Green(Going) + Tick [!is_over] / stay_green = Green(Going),
            Yellow(Cycles) + Tick / turn_red = Red(Cycles),
        }
    }

    pub(crate) struct Rules;

    impl StateMachineContext for Rules {
        fn is_over(&self, going: &Going) -> Result<bool, ()> {
            Ok(going.left == 0)
        }

        fn turn_green(&mut self, red: &Cycles) -> Result<Going, ()> {
            Ok(Going { cycles: red.0, left: 2 })
        }

        fn stay_green(&mut self, green: &Going) -> Result<Going, ()> {
            Ok(Going { left: green.left - 1, ..*green })
        }

        fn turn_yellow(&mut self, green: &Going) -> Result<Cycles, ()> {
            Ok(Cycles(green.cycles))
        }

        fn turn_red(&mut self, yellow: &Cycles) -> Result<Cycles, ()> {
            Ok(Cycles(yellow.0 + 1))
        }
    }

    pub(crate) struct Light(StateMachine<Rules>);

    impl Default for Light {
        fn default() -> Self {
            Light(StateMachine::new(Rules, Cycles(0)))
        }
    }

    impl Ticks for Light {
        #[inline(never)]
        fn tick(&mut self) {
            assert!(self.0.process_event(Events::Tick).is_ok(), "a light always ticks");
        }

        fn cycles(&mut self) -> u64 {
            match self.0.state() {
                States::Red(Cycles(cycles)) | States::Yellow(Cycles(cycles)) => *cycles,
                States::Green(going) => going.cycles,
            }
        }
    }
}
