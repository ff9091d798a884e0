//! Times variants of the kernels on this device: the sums of an ELBO gradient, by the device's clock where it has one.

use super::buffers::to_bytes;
use super::call::{Call, Source};
use super::layout::MemberLayout;
use super::pipelines::Pipelines;
use super::run::Run;
use super::shader::Ownership;
use super::submissions::Submissions;
use super::uploaded::Uploaded;
use crate::engine::Terms;
use crate::engine::operation::Operation;
use crate::error::Result;
use std::time::{Duration, Instant};

/// Members, where their work allows: enough to fill a large GPU.
const MEMBERS: usize = 16_384;
/// Fewest members.
const FEWEST: usize = 1_024;
/// Floating-point operations of one timing, if that leaves enough members.
const WORK: usize = 4_000_000_000;
/// Most bytes of a timing.
const MEMORY: u64 = 512 << 20;
/// When no further round begins.
const ENOUGH: Duration = Duration::from_millis(1500);
/// Rounds over the variants, each with as many timings.
const ROUNDS: usize = 3;

/// The fastest of several variants for a problem set, by the best of several timings of each. Variants take turns, so that
/// a clock that speeds up or slows down favours none.
///
/// # Errors
/// No variant that runs.
pub fn fastest(
    uploaded: &mut Uploaded,
    pipelines: &Pipelines,
    budget: u64,
    candidates: &[MemberLayout],
) -> Result<MemberLayout> {
    let own = uploaded.shape.layout;
    let budget = budget.min(MEMORY);
    let work = uploaded.data.stored_steps().max(1) * uploaded.data.sites * super::plan::WORK_PER_SITE;
    let members = (WORK / work).clamp(FEWEST, MEMBERS);
    let problems = uploaded.problems();
    let call = Call {
        operation: Operation::Moments(Terms::ALL),
        source: Source::Diagonal,
        ownership: Ownership::default(),
        count: problems * members.div_ceil(problems),
        store: None,
    };
    let mut queue = Submissions::new(uploaded.device.clone());
    queue.time_kernels(true)?;
    let mut wanted = Vec::new();
    for layout in candidates {
        uploaded.shape.layout = *layout;
        wanted.extend(Run::kernels(uploaded, &call, budget)?);
    }
    pipelines.get(&wanted)?;

    let clock = Instant::now();
    let mut best: Vec<(Duration, MemberLayout)> = candidates.iter().map(|layout| (Duration::MAX, *layout)).collect();
    for _ in 0..ROUNDS {
        for (seconds, layout) in &mut best {
            uploaded.shape.layout = *layout;
            let mut run = Run::new(uploaded, call, budget, None)?;
            // The first makes the memory real, and some drivers compile only now.
            time(uploaded, pipelines, &mut queue, &mut run)?;
            *seconds = (*seconds).min(time(uploaded, pipelines, &mut queue, &mut run)?);
        }
        best.sort_by_key(|(seconds, _)| *seconds);
        // What takes half as long again will not win.
        let hopeful = best[0].0 * 3 / 2;
        best.retain(|(seconds, _)| *seconds <= hopeful);
        if best.len() == 1 || clock.elapsed() > ENOUGH {
            break;
        }
    }
    uploaded.shape.layout = own;
    Ok(best[0].1)
}

/// The time of one call, of members around the background.
fn time(uploaded: &Uploaded, pipelines: &Pipelines, queue: &mut Submissions, run: &mut Run) -> Result<Duration> {
    let clock = Instant::now();
    let before = queue.kernel_time();
    if let Some(draws) = &run.memory.draws {
        let (sites, mean) = (uploaded.data.sites, &uploaded.data.mean);
        let of = |p: usize| (0..sites).map(move |i| mean.at(p, i)).chain((0..sites).map(|_| 0.1));
        let map = to_bytes(uploaded.shape.precision, (0..uploaded.problems()).flat_map(of));
        queue.send(&draws.map, &map);
    }
    let chunks = run.plan.chunks.len();
    for k in 0..chunks {
        let chunk = run.chunk(uploaded, pipelines, k)?;
        let results = if k + 1 == chunks { &run.results[..] } else { &[] };
        queue.submit(&chunk.sweep, results, &run.memory.staging, |_| ())?;
    }
    Ok(match (before, queue.kernel_time()) {
        (Some(before), Some(after)) => after - before,
        _ => clock.elapsed(),
    })
}
