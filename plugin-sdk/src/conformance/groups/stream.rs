//! Buffers of all sizes, and a slow archive.

use std::sync::atomic::Ordering::SeqCst;

use crate::conformance::{
    bench::{Baseline, Bench, Finding, Task, completed},
    play::{Disturbance, Played},
    streams::Shape,
};

use super::{counted, sound, without_fixture};

/// A chunk of the plugin's own memory that is larger holds up everybody else.
const FOREIGN_BYTES_MAX: usize = 4 << 20;

pub(super) fn check(bench: &mut Bench) {
    if let Some(finding) = without_fixture(bench) {
        return bench.must("buffers", finding);
    }
    let baseline = match bench.baseline() {
        Ok(baseline) => baseline,
        Err(why) => return bench.must("buffers", Finding::NotTried(why)),
    };
    let longest = baseline.point.streams.values().map(bytes::Bytes::len).max().unwrap_or(0);
    let shape = |buffers, bytes| Shape { buffers, bytes, slow: 0, kept: false };
    let slow = Shape { slow: 3, ..shape(2, 4096) };
    let musts = [
        ("two_smallest_buffers", shape(2, 1)),
        ("two_large_buffers", shape(2, 1 << 20)),
        ("ends_on_a_boundary", shape(2, longest.clamp(1, 1 << 20))),
        ("slow_archive", slow),
    ];
    for (name, shape) in musts {
        let found = played(bench, &baseline, shape).map(|played| told(&played, shape));
        bench.must(name, found);
    }
    let one = played(bench, &baseline, shape(1, 1)).map(|played| told(&played, shape(1, 1)));
    bench.should("one_buffer", one);
    let kept = kept(bench, &baseline);
    bench.must("chunks_outlive_the_run", kept);
    let lends = lends(bench, &baseline);
    bench.should("fills_lent_buffers", lends);
}

fn played(bench: &Bench, baseline: &Baseline, shape: Shape) -> Result<Played, String> {
    let task = Task { shape, ..Task::new("shaped", Disturbance::Nothing) };
    let played = sound::backup(bench, baseline, task)?;
    completed(&played)?;
    Ok(played)
}

fn told(played: &Played, shape: Shape) -> String {
    let chunks = played.stats.lent.load(SeqCst) + played.stats.foreign.load(SeqCst);
    format!("{} through {}", counted(chunks, "chunk"), counted(shape.buffers, "buffer"))
}

/// What the host still holds when the run has ended and the instance is gone does not change.
fn kept(bench: &Bench, baseline: &Baseline) -> Result<String, String> {
    let shape = Shape { kept: true, ..Shape::default() };
    let played = played(bench, baseline, shape)?;
    match played.stats.kept() {
        (count, 0) => Ok(format!("{} unchanged after the end", counted(count, "chunk"))),
        (count, changed) => Err(format!("{changed} of {count} chunks changed after the end")),
    }
}

fn lends(bench: &Bench, baseline: &Baseline) -> Result<String, String> {
    let played = played(bench, baseline, Shape::default())?;
    let stats = &played.stats;
    let (lent, foreign) = (stats.lent.load(SeqCst), stats.foreign.load(SeqCst));
    let largest = stats.foreign_bytes_max.load(SeqCst);
    if largest > FOREIGN_BYTES_MAX {
        return Err(format!("a chunk of its own memory has {largest} bytes"));
    }
    match foreign {
        0 => Ok(format!("{}, none copied", counted(lent, "chunk"))),
        _ => Err(format!(
            "{foreign} of {} lie in memory of its own",
            counted(lent + foreign, "chunk")
        )),
    }
}
