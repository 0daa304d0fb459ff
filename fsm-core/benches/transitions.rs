//! What a transition costs in memory, compared with a `match` written by hand.
//!
//! `cargo bench -p fsm-core --bench transitions`; the last lines are the ratios. The same beside
//! other libraries is in `benches/peers`.

mod light;

use criterion::Criterion;

use self::light::{
    Erased, Matched, TICKS_PER_CYCLE, Typed,
    ratios::{self, Contender},
};

fn main() {
    let contenders = [
        Contender::new("match by hand", Matched::default),
        Contender::new("fsm-core, typed", Typed::default),
        Contender::new("fsm-core, erased, JSON", Erased::default),
    ];
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("transitions");
    group.throughput(criterion::Throughput::Elements(100 * TICKS_PER_CYCLE));
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
