//! A traffic light with data in its states, and the ways in which it can be told to tick.
//!
//! Red becomes green, green stays green twice and becomes yellow, yellow becomes red and has
//! completed a cycle. Every contender does exactly this, and is asked at the end how many cycles
//! it counted.

pub(crate) mod ratios;

use std::{hint::black_box, sync::Arc};

use fsm_core::{
    AnyMachine, Context, Data, Hosted, Machine, Port, RunId, State, Step, StepCall, StepKind,
    Verdict, check, go,
};
use futures::FutureExt;
use serde::{Deserialize, Serialize};

/// How often a light ticks in a cycle.
pub(crate) const TICKS_PER_CYCLE: u64 = 5;

/// Something that ticks.
pub(crate) trait Ticks {
    /// Takes one transition.
    fn tick(&mut self);

    /// The cycles completed so far.
    fn cycles(&mut self) -> u64;
}

/// What somebody writes who needs no library: a `match`.
#[derive(Debug)]
pub(crate) enum Matched {
    Red { cycles: u64 },
    Green { cycles: u64, left: u64 },
    Yellow { cycles: u64 },
}

impl Default for Matched {
    fn default() -> Self {
        Matched::Red { cycles: 0 }
    }
}

impl Ticks for Matched {
    #[inline(never)]
    fn tick(&mut self) {
        *self = match *self {
            Matched::Red { cycles } => Matched::Green { cycles, left: 2 },
            Matched::Green { cycles, left: 0 } => Matched::Yellow { cycles },
            Matched::Green { cycles, left } => Matched::Green { cycles, left: left - 1 },
            Matched::Yellow { cycles } => Matched::Red { cycles: cycles + 1 },
        };
    }

    fn cycles(&mut self) -> u64 {
        match *self {
            Matched::Red { cycles }
            | Matched::Green { cycles, .. }
            | Matched::Yellow { cycles } => cycles,
        }
    }
}

pub(crate) struct Light;

impl Machine for Light {
    const NAME: &'static str = "light";
    type Host = ();
    type Initial = Red;
    type States = (Red, Green, Yellow, Off);
}
check!(Light);

#[derive(Serialize, Deserialize)]
pub(crate) struct Red {
    pub(crate) cycles: u64,
}

impl State<Light> for Red {
    const NAME: &'static str = "red";
    type Next = (Green, Off);

    async fn run(self, _: &Light, _: &mut Context<'_, Light>) -> Step<Self> {
        // Never so; but without a way out it would be no machine.
        if self.cycles == u64::MAX { go(Off) } else { go(Green { cycles: self.cycles, left: 2 }) }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Green {
    pub(crate) cycles: u64,
    pub(crate) left: u64,
}

impl State<Light> for Green {
    const NAME: &'static str = "green";
    type Next = (Green, Yellow);

    async fn run(self, _: &Light, _: &mut Context<'_, Light>) -> Step<Self> {
        let Green { cycles, left } = self;
        if left == 0 { go(Yellow { cycles }) } else { go(Green { cycles, left: left - 1 }) }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Yellow {
    pub(crate) cycles: u64,
}

impl State<Light> for Yellow {
    const NAME: &'static str = "yellow";
    type Next = (Red,);

    async fn run(self, _: &Light, _: &mut Context<'_, Light>) -> Step<Self> {
        go(Red { cycles: self.cycles + 1 })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Off;

impl State<Light> for Off {
    const NAME: &'static str = "off";
    type Next = ();
}

/// The machine driven by its types: no serde, no runtime.
pub(crate) struct Typed {
    context: Context<'static, Light>,
    state: TypedState,
}

enum TypedState {
    Red(Red),
    Green(Green),
    Yellow(Yellow),
    Off,
}

impl Default for Typed {
    fn default() -> Self {
        let context = Context::alone(run_id(), &(), &());
        Typed { context, state: TypedState::Red(Red { cycles: 0 }) }
    }
}

impl Ticks for Typed {
    #[inline(never)]
    fn tick(&mut self) {
        let cx = &mut self.context;
        self.state = match std::mem::replace(&mut self.state, TypedState::Off) {
            TypedState::Red(red) => match done(red.run(&Light, cx)).take() {
                Ok(green) => TypedState::Green(green),
                Err(_) => TypedState::Off,
            },
            TypedState::Green(green) => match done(green.run(&Light, cx)).take() {
                Ok(green) => TypedState::Green(green),
                Err(moved) => moved.take().map_or(TypedState::Off, TypedState::Yellow),
            },
            TypedState::Yellow(yellow) => {
                done(yellow.run(&Light, cx)).take().map_or(TypedState::Off, TypedState::Red)
            }
            TypedState::Off => TypedState::Off,
        };
    }

    fn cycles(&mut self) -> u64 {
        match &self.state {
            TypedState::Red(Red { cycles })
            | TypedState::Green(Green { cycles, .. })
            | TypedState::Yellow(Yellow { cycles }) => *cycles,
            TypedState::Off => 0,
        }
    }
}

/// The machine as a runtime drives it: states by name, data as JSON.
pub(crate) struct Erased {
    machine: Box<dyn AnyMachine>,
    port: Arc<dyn Port>,
    run: RunId,
    state: String,
    data: Data,
}

impl Default for Erased {
    fn default() -> Self {
        Erased {
            machine: Box::new(Hosted::new(Light, ())),
            port: Arc::new(()),
            run: run_id(),
            state: "red".to_owned(),
            data: Data::encode(&Red { cycles: 0 }).expect("two numbers have a JSON form"),
        }
    }
}

impl Erased {
    /// What a runtime asks next.
    pub(crate) fn call(&mut self) -> StepCall {
        StepCall {
            run: self.run.clone(),
            machine: "light".to_owned(),
            state: std::mem::take(&mut self.state),
            data: std::mem::take(&mut self.data),
            entry: 1,
            attempt: 1,
            kind: StepKind::Run,
            effects: Vec::new(),
            signals: Vec::new(),
            children: Vec::new(),
            deadline: None,
        }
    }
}

impl Ticks for Erased {
    #[inline(never)]
    fn tick(&mut self) {
        let call = self.call();
        let step = self.machine.step(call, Arc::clone(&self.port));
        match step.now_or_never().expect("a light waits for nothing").verdict {
            Verdict::Go { state, data, .. } => (self.state, self.data) = (state, data),
            other => unreachable!("a light only moves on, but: {other:?}"),
        }
    }

    fn cycles(&mut self) -> u64 {
        #[derive(Deserialize)]
        struct Cycles {
            cycles: u64,
        }
        self.data.decode::<Cycles>().expect("each state counts").cycles
    }
}

fn done<S>(step: impl Future<Output = Step<S>>) -> fsm_core::Go<S> {
    step.now_or_never().expect("a light waits for nothing").expect("a light does not fail")
}

fn run_id() -> RunId {
    RunId::new("light").expect("a word names a run")
}

/// Ticks `cycles` times around, out of the optimiser's sight, and checks that it did.
pub(crate) fn go_around(mut light: impl Ticks, cycles: u64) {
    let before = light.cycles();
    for _ in 0..cycles * TICKS_PER_CYCLE {
        black_box(&mut light).tick();
    }
    assert_eq!(light.cycles(), before + cycles);
}
