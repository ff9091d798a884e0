//! Times variants of the kernels on this device: the sums of an ELBO gradient, by the device's clock where it has one.

use super::buffers::{from_bytes, to_bytes};
use super::call::{Call, Source};
use super::layout::MemberLayout;
use super::pipelines::Pipelines;
use super::plan::{Budget, WORK_PER_SITE};
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
    budget: Budget,
    candidates: &[MemberLayout],
) -> Result<MemberLayout> {
    let own = uploaded.shape.layout;
    let budget = Budget { bytes: budget.bytes.min(MEMORY), ..budget };
    let work = uploaded.data.stored_steps().max(1) * uploaded.data.sites * WORK_PER_SITE;
    let members = (WORK / work).clamp(FEWEST, MEMBERS);
    let problems = uploaded.problems();
    let per_problem = members.div_ceil(problems);
    let call = Call {
        operation: Operation::Moments(Terms::ALL),
        source: Source::Diagonal,
        ownership: Ownership::default(),
        first: 0,
        count: problems * per_problem,
        per_problem,
        store: None,
    };
    let mut queue = Submissions::new(uploaded.device.clone(), budget.work);
    queue.time_kernels(true)?;
    let chosen = race(uploaded, pipelines, budget, &call, &mut queue, candidates);
    uploaded.set_layout(own);
    chosen
}

fn race(
    uploaded: &mut Uploaded,
    pipelines: &Pipelines,
    budget: Budget,
    call: &Call,
    queue: &mut Submissions,
    candidates: &[MemberLayout],
) -> Result<MemberLayout> {
    let mut needed = Vec::new();
    for layout in candidates {
        uploaded.set_layout(*layout);
        needed.push(Run::kernels(uploaded, call, budget)?);
    }
    // All side by side; one that the driver does not take is found alone, and left out by its time.
    let _ = pipelines.get(&needed.concat());

    let clock = Instant::now();
    let mut failure = None;
    let mut reference = None;
    let mut best: Vec<(Duration, MemberLayout)> = candidates.iter().map(|layout| (Duration::MAX, *layout)).collect();
    for _ in 0..ROUNDS {
        for (seconds, layout) in &mut best {
            uploaded.set_layout(*layout);
            let timed = Run::new(uploaded, *call, budget, None).and_then(|mut run| {
                // The first makes the memory real, and some drivers compile only now.
                time(uploaded, pipelines, queue, &mut run)?;
                time(uploaded, pipelines, queue, &mut run)
            });
            *seconds = match timed {
                // A driver that drops work without a word is fast.
                Ok((_, sums)) if !agree(reference.get_or_insert_with(|| sums.clone()), &sums) => Duration::MAX,
                Ok((timed, _)) => timed.min(*seconds),
                Err(error) => {
                    failure = Some(error);
                    Duration::MAX
                }
            };
        }
        best.sort_by_key(|(seconds, _)| *seconds);
        // What takes half as long again will not win.
        let hopeful = best[0].0.saturating_mul(3) / 2;
        best.retain(|(seconds, _)| *seconds <= hopeful && *seconds < Duration::MAX);
        if best.len() <= 1 || clock.elapsed() > ENOUGH {
            break;
        }
    }
    match (best.first(), failure) {
        (Some((_, layout)), _) => Ok(*layout),
        (None, Some(failure)) => Err(failure),
        (None, None) => Ok(candidates[0]),
    }
}

/// Whether counts and costs of two variants are about the same; in a long window in f32 they are not the same.
fn agree(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).take(4).all(|(a, b)| a.is_finite() && (a - b).abs() <= 0.05 * a.abs().max(b.abs()))
}

/// The time of one call, of members around the background, and its sums.
fn time(
    uploaded: &Uploaded,
    pipelines: &Pipelines,
    queue: &mut Submissions,
    run: &mut Run,
) -> Result<(Duration, Vec<f64>)> {
    let clock = Instant::now();
    let before = queue.kernel_time();
    if let Some(draws) = &run.memory.draws {
        let (control, mean) = (uploaded.data.control.len(), &uploaded.data.mean);
        let of = |p: usize| (0..control).map(move |i| mean.at(p, i)).chain((0..control).map(|_| 0.1));
        let map = to_bytes(uploaded.shape.precision, (0..uploaded.problems()).flat_map(of));
        queue.send(&draws.map, &map);
    }
    let precision = uploaded.shape.precision;
    let mut sums = Vec::new();
    let chunks = run.plan.chunks.len();
    for k in 0..chunks {
        let chunk = run.chunk(uploaded, pipelines, k)?;
        let results = if k + 1 == chunks { &run.results[..] } else { &[] };
        sums = queue.submit(&chunk.sweep, results, &run.memory.staging, |bytes| from_bytes(precision, bytes))?;
    }
    let timed = match (before, queue.kernel_time()) {
        (Some(before), Some(after)) => after - before,
        _ => clock.elapsed(),
    };
    Ok((timed, sums))
}
