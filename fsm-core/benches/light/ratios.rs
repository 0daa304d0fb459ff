//! Contenders side by side: rounds in turn, so that whatever else the machine does meets all.

use std::time::Instant;

use super::{TICKS_PER_CYCLE, Ticks, go_around};

const ROUNDS: usize = 15;
const CYCLES: u64 = 20_000;

/// One way to tick, and what to call it.
pub(crate) struct Contender {
    name: &'static str,
    go_around: Box<dyn Fn(u64)>,
}

impl Contender {
    /// Lights that `make` makes.
    pub(crate) fn new<L: Ticks>(name: &'static str, make: impl Fn() -> L + 'static) -> Self {
        Contender { name, go_around: Box::new(move |cycles| go_around(make(), cycles)) }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Ticks a fresh light `cycles` times around.
    pub(crate) fn go_around(&self, cycles: u64) {
        (self.go_around)(cycles);
    }
}

/// Prints nanoseconds per transition, the median of the rounds, and how many times the first
/// contender's they are.
pub(crate) fn print(contenders: &[Contender]) {
    let mut times_ns: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, times_ns) in contenders.iter().zip(&mut times_ns) {
            let start = Instant::now();
            contender.go_around(CYCLES);
            let ticks = CYCLES * TICKS_PER_CYCLE;
            times_ns.push(start.elapsed().as_nanos() as f64 / ticks as f64);
        }
    }
    let medians_ns = times_ns.into_iter().map(|mut times_ns| {
        times_ns.sort_by(f64::total_cmp);
        times_ns[ROUNDS / 2]
    });
    let medians_ns: Vec<f64> = medians_ns.collect();
    println!("| contender | ns per transition | ratio |\n| --- | --- | --- |");
    for (contender, median_ns) in contenders.iter().zip(&medians_ns) {
        let ratio = median_ns / medians_ns[0];
        println!("| {} | {median_ns:.1} | {ratio:.1} |", contender.name);
    }
}
