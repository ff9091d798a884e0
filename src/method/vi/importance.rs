//! Weighs a fit against the posterior by fresh draws: its bounds on log p(y), k-hat, samples corrected by their weights, and
//! the verdict.

use super::Settings;
use super::minima::Minima;
use crate::diagnostics::{Estimate, Psis, elbo, log_evidence};
use crate::engine::{DIVERGED, Listed, LoadedProblem, Members, Row, Terms};
use crate::error::Result;
use crate::method::Record;
use crate::posterior::{Draws, Posterior, log_normalizer};
use crate::problem::Problem;
use crate::random::{Stream, StreamRng};
use ndarray::{Array2, Axis, concatenate};
use rand::RngExt;
use rayon::prelude::*;
use std::ops::Range;

/// Numbers of a batch of draws on the host.
const NUMBERS: usize = 1 << 22;

/// Draws that a thread makes at a time.
const GRAIN: usize = 4096;

/// A fit of one problem, weighed.
pub(super) struct Weighed {
    pub records: Vec<Record>,
    /// The end of the summary: what the fit is worth.
    pub sentence: String,
    /// Samples at time 0, resampled by their weights, where they were asked for: `[samples, sites]`.
    pub corrected: Option<Array2<f64>>,
}

/// Draws of one problem from q, with the logarithms of p(y, x0) / q(x0).
pub(super) struct Weights {
    /// `[draws, sites]`
    pub states: Array2<f64>,
    /// Minus infinity where a draw diverged: `[draws]`.
    pub log: Vec<f64>,
}

/// Draws from a q of problem `p`, given by their numbers, weighed on the engine.
///
/// # Errors
/// An engine's.
pub(super) fn draw(
    problem: &Problem,
    loaded: &mut LoadedProblem,
    p: usize,
    draws: usize,
    q: &(dyn Fn(Range<usize>) -> Draws + Sync),
) -> Result<Weights> {
    let n = problem.sites();
    let normalizer = log_normalizer(problem, p);
    let mut states = Vec::new();
    let mut log = Vec::with_capacity(draws);
    let batch = (NUMBERS / n).clamp(1, draws);
    for first in (0..draws).step_by(batch) {
        let end = (first + batch).min(draws);
        let parts: Vec<_> =
            (first..end).into_par_iter().step_by(GRAIN).map(|start| q(start..(start + GRAIN).min(end))).collect();
        let views: Vec<_> = parts.iter().map(|d| d.states.view()).collect();
        let drawn = concatenate(Axis(0), &views).expect("rows of one length");
        // What overflowed in q itself diverges on the engine, which takes finite numbers alone.
        let given = drawn.mapv_into(|x| if x.is_finite() { x } else { DIVERGED });
        let rows: Vec<_> = (first..end).map(|k| Row { problem: p as u32, member: k as u32 }).collect();
        let listed = Listed { states: given.view(), rows: &rows, amplitude: 0.0 };
        let costs = loaded.cost(Members::Listed(listed), Terms::ALL)?;
        let density = parts.iter().flat_map(|d| &d.log_density);
        for (k, (cost, density)) in costs.total().iter().zip(density).enumerate() {
            let weight = normalizer - cost - density;
            log.push(if costs.diverged[k] || !weight.is_finite() { f64::NEG_INFINITY } else { weight });
        }
        states.push(given);
    }
    let views: Vec<_> = states.iter().map(|s| s.view()).collect();
    Ok(Weights { states: concatenate(Axis(0), &views).expect("rows of one length"), log })
}

/// Weighs every problem's fit.
///
/// # Errors
/// An engine's.
pub(super) fn weigh(
    settings: &Settings,
    problem: &Problem,
    minima: &mut Minima,
    q: &dyn Posterior,
) -> Result<Vec<Weighed>> {
    let mut all = Vec::with_capacity(problem.count());
    for p in 0..problem.count() {
        let seed = problem.seeds[p];
        let from_q = |members| q.draw(p, seed, Stream::Importance, members);
        let weights = draw(problem, minima.whole(), p, settings.importance_draws, &from_q)?;
        let psis = Psis::new(&weights.log);
        let bound = elbo(&weights.log).expect("at least 100 draws");
        let evidence = log_evidence(&weights.log).expect("at least 100 draws");
        let error = |estimate: &Estimate| estimate.standard_error.unwrap_or(f64::NAN);
        let records = vec![
            Record::scalar("final_elbo", "ELBO of the fit from fresh draws, a bound on log p(y)", bound.mean),
            Record::scalar("final_elbo_error", "Monte Carlo standard error of final_elbo", error(&bound)),
            Record::scalar("iwae", "log of the mean importance weight, a tighter bound on log p(y)", evidence.mean),
            Record::scalar("iwae_error", "Monte Carlo standard error of iwae", error(&evidence)),
            Record::scalar("k_hat", "Pareto shape of the largest importance weights", psis.k_hat),
            Record::scalar("effective_draws", "effective number of importance draws", psis.effective_draws()),
        ];
        let sentence = format!("ELBO = {:.3} +- {:.3}", bound.mean, error(&bound));
        let corrected = settings.corrected.then(|| resample(&weights, &psis, settings.samples, seed));
        all.push(Weighed { records, sentence, corrected });
    }
    Ok(all)
}

/// Draws again, with replacement, each as often as its weight says (systematic resampling: Kitagawa 1996).
fn resample(weights: &Weights, psis: &Psis, samples: usize, seed: u64) -> Array2<f64> {
    let offset: f64 = StreamRng::new(seed, Stream::Importance).random();
    let mut below = 0.0;
    let mut next = 0;
    let mut rows = Vec::with_capacity(samples);
    for (k, weight) in psis.weights.iter().enumerate() {
        below += weight * samples as f64;
        while next < samples && next as f64 + offset < below {
            rows.push(k);
            next += 1;
        }
    }
    // Rounding may leave the last one out.
    rows.resize(samples, rows.last().copied().unwrap_or(0));
    weights.states.select(Axis(0), &rows)
}
