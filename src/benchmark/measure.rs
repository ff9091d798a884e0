//! One row: checked, warmed up, timed.

use super::check::{mismatch, tolerance};
use super::row::{Limit, Row};
use super::task::{Answer, DIFFERENT, FIT, Task};
use super::work::Work;
use super::{Job, Operation, Size};
use crate::engine::{Ceilings, Engine};
use crate::error::Result;
use crate::problem::Problem;
use std::time::Instant;

/// Members that are compared with the CPU engine in f64: more than a group of lanes or a workgroup, and not a multiple.
pub const CHECKED: usize = 65;
/// Members of a full batch that are compared, evenly spaced.
const SPREAD: usize = 16;
/// Members that say how long a full batch will take.
const PILOT: usize = 4096;
/// A measurement lasts at least this long: shorter calls are repeated within it.
const SHORTEST: f64 = 0.01;
const FEWEST: usize = 5;
const MOST: usize = 100;

/// How long a row may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Seconds of all measurements, about.
    row: f64,
    /// Seconds of a call beyond which the row is left out.
    call: f64,
    repeats: Option<usize>,
}

impl Patience {
    pub fn new(quick: bool, repeats: Option<usize>) -> Self {
        let (row, call) = if quick { (0.05, 1.0) } else { (0.4, 8.0) };
        Self { row, call, repeats }
    }
}

/// What to measure.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    pub engine: &'a Engine,
    /// The CPU engine in f64.
    pub reference: &'a Engine,
    pub ceilings: &'a Ceilings,
    pub problem: &'a Problem,
    pub size: Size,
    pub job: Job,
    pub members: usize,
}

pub enum Outcome {
    Row(Box<Row>),
    /// A call would take about so many seconds.
    TooLong(f64),
}

/// Seconds that something takes, and what it gives.
pub fn timed<T>(call: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let clock = Instant::now();
    let result = call()?;
    Ok((clock.elapsed().as_secs_f64(), result))
}

/// Checks and times a row.
///
/// # Errors
/// A device failure.
pub fn row(case: &Case, patience: &Patience) -> Result<Outcome> {
    let Case { engine, reference, problem, size, job, members, .. } = *case;
    let operation = job.operation;
    let hardware = engine.hardware();
    let mut row = Row::empty(hardware, job, &size, members);
    let bound = tolerance(&size, hardware.precision, !operation.given() || operation == Operation::Ensemble);

    // A few members, before any time counts.
    let few = members.min(CHECKED);
    let want = Task::new(reference, problem, job, few)?.figures()?;
    let mut task = Task::new(engine, problem, job, few)?;
    let (first, got) = timed(|| task.figures())?;
    if row.backend == "gpu" {
        let (second, _) = timed(|| task.figures())?;
        row.compile_seconds = (first - second).max(0.0);
    }
    if let Some(difference) = mismatch(&got, &want, bound) {
        row.error = Some(difference);
        return Ok(Outcome::Row(Box::new(row)));
    }

    // How long the whole batch will take.
    let per_call = |task: &mut Task| -> Result<f64> {
        task.call()?;
        let (seconds, _) = timed(|| task.call())?;
        Ok(seconds)
    };
    let mut expected = per_call(&mut task)?;
    for pilot in [few, PILOT.min(members)] {
        let longest = expected * pilot as f64 / few as f64;
        if pilot > few && longest < patience.call {
            expected = per_call(&mut Task::new(engine, problem, job, pilot)?)? / pilot as f64 * members as f64;
        }
    }
    if expected > patience.call {
        return Ok(Outcome::TooLong(expected));
    }

    // The whole batch: members all over it are compared once more.
    let mut task = Task::new(engine, problem, job, members)?;
    row.kernel = Some(task.kernel());
    task.set_iterations((patience.row / FEWEST as f64 / expected.max(1e-9)) as usize);
    let (mut seconds, answer) = timed(|| task.call())?;
    if let Some(difference) = spread_mismatch(case, &answer, bound)? {
        row.error = Some(difference);
        return Ok(Outcome::Row(Box::new(row)));
    }
    drop(answer);
    if seconds < patience.row {
        seconds = timed(|| task.call())?.0;
    }

    let calls = ((SHORTEST / seconds).ceil() as usize).clamp(1, 100_000);
    let fitting = (patience.row / (seconds * calls as f64)) as usize;
    let repeats = patience.repeats.unwrap_or(fitting.clamp(FEWEST, MOST));
    let units = (calls * task.iterations()) as f64;
    let measure = |task: &mut Task| -> Result<(f64, Option<f64>)> {
        let before = task.kernel_seconds();
        let (seconds, ()) = timed(|| (0..calls).try_for_each(|_| task.call().map(drop)))?;
        let kernels = before.zip(task.kernel_seconds()).map(|(before, after)| (after - before) / units);
        Ok((seconds / units, kernels))
    };
    let mut pairs = (0..repeats).map(|_| measure(&mut task)).collect::<Result<Vec<_>>>()?;
    let samples: Vec<f64> = pairs.iter().map(|(seconds, _)| *seconds).collect();
    // A GPU's clock costs a little time of its own, so kernels are timed apart.
    if row.backend == "gpu" {
        task.time_kernels(true)?;
        pairs = (0..repeats.min(3 * FEWEST)).map(|_| measure(&mut task)).collect::<Result<_>>()?;
    }
    let mut kernels: Vec<f64> = pairs.into_iter().filter_map(|(_, kernels)| kernels).collect();
    fill(&mut row, case, &samples, &mut kernels);
    Ok(Outcome::Row(Box::new(row)))
}

/// Compares members all over a large batch of given ones.
fn spread_mismatch(case: &Case, answer: &Answer, bound: f64) -> Result<Option<String>> {
    let Case { reference, problem, job, members, .. } = *case;
    if !job.operation.given() || job.operation == Operation::Ensemble || members <= CHECKED {
        return Ok(None);
    }
    let rows: Vec<_> = (0..SPREAD).map(|k| k * (members - 1) / (SPREAD - 1)).collect();
    let want = Task::with(reference, problem, job, SPREAD, |k| rows[k] % DIFFERENT)?.call()?.figures(None);
    Ok(mismatch(&answer.figures(Some(&rows)), &want, bound).map(|m| format!("of {members} members, {m}")))
}

/// The value below which this share of sorted values lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() as f64 - 1.0);
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] * (1.0 - part) + sorted[high] * part
}

/// What follows from the samples: seconds of a call or of one of its iterations.
fn fill(row: &mut Row, case: &Case, samples: &[f64], kernels: &mut [f64]) {
    let Case { engine, ceilings, size, job, members, .. } = *case;
    let operation = job.operation;
    let hardware = engine.hardware();
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    kernels.sort_by(f64::total_cmp);
    row.seconds = quantile(&sorted, 0.5);
    row.ceiling_gflops = ceilings.flops * 1e-9;
    row.ceiling_gbytes_per_second = ceilings.bytes * 1e-9;
    row.readback_seconds = ceilings.readback.as_secs_f64();
    row.spread = [quantile(&sorted, 0.25), quantile(&sorted, 0.75)];
    row.members_per_second = members as f64 / row.seconds;
    // A device that cannot tell is not one that takes no time.
    row.kernel_seconds = Some(kernels).filter(|k| !k.is_empty()).map_or(f64::NAN, |k| quantile(k, 0.5));
    if row.kernel_seconds <= 0.0 {
        row.kernel_seconds = f64::NAN;
    }
    let work = Work::of(job, &size, hardware.precision, row.backend == "gpu");
    let per_second = |work: f64, seconds: f64| work * members as f64 / seconds * 1e-9;
    let inner = if row.kernel_seconds.is_nan() { row.seconds } else { row.kernel_seconds };
    row.gflops = per_second(work.flops, inner);
    row.gflops_end_to_end = per_second(work.flops, row.seconds);
    row.gbytes_per_second = per_second(work.bytes, inner);
    let instructions = work.instruction_seconds(ceilings) * members as f64;
    let memory = work.bytes * members as f64 / ceilings.bytes;
    let (bound, limit) =
        if instructions >= memory { (instructions, Limit::Instructions) } else { (memory, Limit::Memory) };
    (row.fraction_of_limit, row.limit) = match operation {
        Operation::Vi => {
            let readback = ceilings.readback.as_secs_f64();
            ((bound + readback) / row.seconds, if readback > bound { Limit::Readback } else { limit })
        }
        _ => (bound / inner, limit),
    };
    row.fraction_of_multiply_adds = work.instructions() * members as f64 / (ceilings.flops / 2.0) / inner;
    // What comparisons with other programs count in.
    let scale = if operation == Operation::Vi { FIT as f64 } else { 1.0 };
    row.samples = samples.iter().map(|s| s * scale).collect();
    row.per_run = if operation == Operation::Vi { 1 } else { members };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|s| quantile(&sorted, s)), [1.0, 1.75, 3.0, 8.0]);
        assert_eq!(quantile(&[3.0], 0.5), 3.0);
    }
}
