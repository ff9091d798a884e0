//! Tempered sequential Monte Carlo with HMC moves: from the prior to the posterior through pi_beta, beta = 0 to 1.
//!
//! In the whitened control z, x0 = xb + L z with L L' = B, pi_beta(z) is proportional to
//! exp(-1/2 z'z - beta J_o(x0)). Each level raises beta as far as the particles' weights permit, resamples, and moves the
//! particles by Hamiltonian Monte Carlo whose mass is the inverse of their own covariance (Del Moral, Doucet & Jasra
//! 2006; Buchholz, Chopin & Jacob 2021). A run asks for one batch of gradients at a time and knows no other run, so
//! that all runs of all problems go side by side, each at its own level.

use super::Settings;
use super::Way;
use super::factor::Factor;
use super::run::{Particles, Run};
use crate::checkpoint;
use crate::engine::{Engine, Members, Terms};
use crate::error::Result;
use crate::problem::Problem;
use ndarray::Array2;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// The part of the runs that must be done before the others are loaded without them.
const DONE_PART: usize = 16;
/// Bytes of the particles that go side by side; further problems wait.
const BUDGET: usize = 128 << 20;

/// Draws the particles of each run of each problem, run by run within each problem.
pub(super) fn sample(settings: &Settings, problem: &Problem, engine: &Engine, way: &mut Way) -> Result<Vec<Particles>> {
    let count = problem.count();
    let per_problem = settings.runs * settings.particles * problem.control().len() * 8 * 8;
    let group = (BUDGET / per_problem).clamp(1, count);
    let (mut first, mut results, kept): (usize, Vec<Particles>, Vec<Run>) =
        checkpoint::begin(way.keeper())?.unwrap_or_default();
    let mut kept = Some(kept).filter(|runs| !runs.is_empty());
    while first < count {
        let last = count.min(first + group);
        let mut runs = match kept.take() {
            None => starts(settings, problem, first..last),
            Some(kept) => rooted(problem, kept),
        };
        let done = [first as f64 / count as f64, (last - first) as f64 / count as f64];
        lockstep(settings, problem, engine, &mut runs, done, way, &(first, &results))?;
        results.extend(runs.into_iter().map(Run::finish));
        first = last;
        checkpoint::keep(way.keeper(), &(first, &results, Vec::<Run>::new()))?;
    }
    checkpoint::end(way.keeper(), &(first, &results, Vec::<Run>::new()))?;
    Ok(results)
}

/// Kept runs with the roots of their problems.
fn rooted(problem: &Problem, runs: Vec<Run>) -> Vec<Run> {
    runs.into_par_iter()
        .map(|run| {
            let root = Arc::new(Factor::prior(problem, run.p));
            run.rooted(root)
        })
        .collect()
}

/// The runs of some problems at the prior.
fn starts(settings: &Settings, problem: &Problem, range: Range<usize>) -> Vec<Run> {
    range
        .flat_map(|p| {
            let root = Arc::new(Factor::prior(problem, p));
            (0..settings.runs as u32).map(move |run| (p, run, root.clone())).collect::<Vec<_>>()
        })
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|(p, run, root)| Run::new(settings, problem, p, run, root))
        .collect()
}

/// Serves all runs with gradients until they are done or the caller ends them. `done`: the part of the way before them, and
/// theirs; `before`: what is kept beside them.
fn lockstep(
    settings: &Settings,
    problem: &Problem,
    engine: &Engine,
    runs: &mut [Run],
    done: [f64; 2],
    way: &mut Way,
    before: &(usize, &Vec<Particles>),
) -> Result<()> {
    let (n, particles) = (problem.control().len(), settings.particles);
    let terms = Terms { background: false, observation: true };
    let total = runs.len();
    loop {
        // A run is a problem of the set that is loaded. Those that are done stop costing when they are some of the set.
        let at: Vec<usize> = (0..total).filter(|k| !runs[*k].done()).collect();
        if at.is_empty() {
            return Ok(());
        }
        let set: Vec<usize> = at.iter().map(|k| runs[*k].p).collect();
        let mut loaded = engine.load(&problem.select(&set))?;
        let mut members = Array2::zeros((at.len() * particles, n));
        while at.iter().filter(|k| runs[**k].done()).count() * DONE_PART < at.len() {
            let loaded_now = runs.iter_mut().enumerate().filter(|(k, _)| at.binary_search(k).is_ok());
            let mut active: Vec<&mut Run> = loaded_now.map(|(_, run)| run).collect();
            let rows = members.as_slice_mut().expect("standard layout");
            active.par_iter_mut().zip(rows.par_chunks_mut(particles * n)).for_each(|(r, rows)| r.write_members(rows));
            let result = loaded.gradient(Members::Given(members.view()), terms)?;
            let costs = result.costs.observation.as_slice().expect("standard layout");
            let gradients = result.gradient.as_slice().expect("standard layout");
            active
                .par_iter_mut()
                .zip(costs.par_chunks(particles))
                .zip(gradients.par_chunks(particles * n))
                .zip(result.costs.diverged.par_chunks(particles))
                .try_for_each(|(((r, c), g), d)| r.advance(settings, c, g, d))?;
            // beta grows by orders of magnitude; five of them count as the whole way.
            let share = |r: &Run| (1.0 + r.beta.max(1e-9).log10() / 5.0).clamp(0.0, 1.0);
            let live = active.iter().map(|r| share(r)).sum::<f64>();
            let least = active.iter().map(|r| r.beta).fold(1.0, f64::min);
            let fraction = (live + (total - active.len()) as f64) / total as f64;
            if way.tell(done[0] + done[1] * fraction, least).is_break() {
                active.iter_mut().for_each(|r| r.interrupt());
                break;
            }
            checkpoint::keep(way.keeper(), &(before.0, before.1, &*runs))?;
        }
    }
}
