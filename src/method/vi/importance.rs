//! Weighs a fit against the posterior by fresh draws: its bounds on log p(y), k-hat, samples corrected by their weights, and
//! the verdict.

use super::Settings;
use super::minima::{Minima, Minimum, lowest};
use crate::diagnostics::{Psis, elbo, log_evidence};
use crate::engine::{DIVERGED, Listed, LoadedProblem, Members, Row, Terms};
use crate::error::Result;
use crate::method::{Record, Silent};
use crate::posterior::{Draws, Posterior, log_normalizer};
use crate::problem::Problem;
use crate::random::{Stream, StreamRng};
use ndarray::{Array2, Axis, concatenate, s};
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
        let parts: Vec<_> = (first..end)
            .into_par_iter()
            .step_by(GRAIN)
            .map(|start| q(start..(start + GRAIN).min(end)))
            .collect();
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
