//! Weighs a fit against the posterior by fresh draws: its bounds on log p(y), k-hat, samples corrected by their weights, and
//! the verdict.

use super::Settings;
use super::minima::{Minima, Minimum};
use crate::diagnostics::{
    Corrected, CostFit, Estimate, OtherMinimum, Psis, Verdict, VerdictInput, elbo, iwae, log_evidence,
};
use crate::engine::{DIVERGED, Listed, LoadedProblem, Members, Row, Terms};
use crate::error::Result;
use crate::method::laplace::Hessian;
use crate::method::{Record, Silent};
use crate::posterior::{Draws, Posterior, log_normalizer};
use crate::problem::Problem;
use crate::random::{Stream, StreamRng};
use ndarray::{Array1, Array2, Axis, concatenate};
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
    /// Samples at time 0, resampled by their weights, where they were asked for: `[samples, control]`.
    pub resampled: Option<Array2<f64>>,
}

/// Draws of one problem from q, with the logarithms of p(y, x0) / q(x0).
pub(super) struct Weights {
    /// `[draws, control]`
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
    let n = problem.control().len();
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

/// What the draws of one problem say.
struct Seen {
    psis: Psis,
    corrected: Corrected,
    elbo: Estimate,
    evidence: Estimate,
    bound: Estimate,
    diverged: usize,
    /// Deviation of q itself: `[control]`.
    std: Array1<f64>,
    resampled: Option<Array2<f64>>,
}

/// Weights whose mean the IWAE bound takes the logarithm of, by default.
const IWAE_DRAWS: usize = 100;

/// k-hat above which a mean of weights is likely to lie well below what it estimates.
const HEAVY: f64 = 0.7;

/// Effective draws below which samples drawn from them again are hardly more than copies.
const FEW: f64 = 100.0;

/// Weighs every problem's fit. `faults`: of each, what the fit itself knows to be missing.
///
/// # Errors
/// An engine's.
pub(super) fn weigh(
    settings: &Settings,
    problem: &Problem,
    minima: &mut Minima,
    q: &dyn Posterior,
    faults: &[Option<String>],
) -> Result<Vec<Weighed>> {
    let mut seen = Vec::with_capacity(problem.count());
    let mut means = Array2::zeros((problem.count(), problem.control().len()));
    for p in 0..problem.count() {
        let seed = problem.seeds[p];
        let from_q = |members| q.draw(p, seed, Stream::Importance, members);
        let Weights { states, log } = draw(problem, minima.whole(), p, settings.importance_draws, &from_q)?;
        let psis = Psis::new(&log);
        means.row_mut(p).assign(&states.mean_axis(Axis(0)).expect("at least 100 draws"));
        seen.push(Seen {
            corrected: Corrected::new(states.view(), &psis.weights),
            elbo: elbo(&log).expect("at least 100 draws"),
            evidence: log_evidence(&log).expect("at least 100 draws"),
            bound: iwae(&log, IWAE_DRAWS).expect("at least 100 draws"),
            diverged: log.iter().filter(|w| **w == f64::NEG_INFINITY).count(),
            std: states.std_axis(Axis(0), 1.0),
            resampled: settings.corrected.then(|| resample(&states, &psis.weights, settings.samples, seed)),
            psis,
        });
    }
    // What no draw of q can see: where a descent from its mean ends, and where others do.
    let own = minima.descend(&means)?;
    let own_states = Array2::from_shape_fn(means.raw_dim(), |(p, i)| own[p].state[i]);
    let laplaces = minima.laplace(&own_states, Hessian::GaussNewton)?;
    let others = minima.known(&mut Silent)?;
    let numbers = seen.into_iter().zip(own.iter().zip(others)).zip(laplaces);
    Ok(numbers
        .enumerate()
        .map(|(p, ((seen, (own, others)), laplace))| {
            let gap = (&means.row(p) - &own.state) / laplace.covariance.diag().mapv(f64::sqrt);
            let other_minima: Vec<_> = others.iter().map(|other| compare(own, other, &seen)).collect();
            let verdict = Verdict::new(&VerdictInput {
                k_hat: seen.psis.k_hat,
                draws: settings.importance_draws,
                diverged: seen.diverged,
                corrected: &seen.corrected,
                cost_fit: CostFit::new(2.0 * own.cost, problem.assimilated_count(p)),
                other_minima: &other_minima,
                fault: faults[p].as_deref(),
                minimum_distance: Some((gap.dot(&gap) / gap.len() as f64).sqrt()),
            });
            let sentence = match seen.elbo.mean.is_nan() {
                true => format!("no ELBO: {} of {} fresh draws diverged", seen.diverged, settings.importance_draws),
                false => format!(
                    "ELBO = {:.3} +- {:.3}, log p(y) {} {:.3}",
                    seen.elbo.mean,
                    error(&seen.elbo),
                    if seen.psis.k_hat > HEAVY { "likely above" } else { "about" },
                    seen.evidence.mean
                ),
            };
            let mut records = records(&seen, &verdict, own.cost, problem.control().dimensions()[0]);
            let mut sentence = format!("{sentence}, k-hat {:.2}; {}", seen.psis.k_hat, verdict.sentence);
            if settings.corrected {
                records.push(Record::scalar(
                    "corrected",
                    "1: samples are drawn again by their importance weights",
                    1.0,
                ));
                let effective = seen.psis.effective_draws();
                let few = if effective < FEW { ", too few" } else { "" };
                sentence +=
                    &format!("; that is the fit, its samples are corrected by {effective:.0} effective draws{few}");
            }
            Weighed { records, sentence, resampled: seen.resampled }
        })
        .collect())
}

/// Another minimum against the one that a descent from q's mean reached.
fn compare(own: &Minimum, other: &Minimum, seen: &Seen) -> OtherMinimum {
    let deviations = seen.std.iter().zip(&seen.corrected.std).map(|(a, b)| a.max(*b));
    let apart = other.state.iter().zip(&own.state).zip(deviations).map(|((a, b), std)| (a - b).abs() / std);
    OtherMinimum { gain: own.cost - other.cost, distance: apart.fold(0.0, f64::max) }
}

fn error(estimate: &Estimate) -> f64 {
    estimate.standard_error.unwrap_or(f64::NAN)
}

fn records(seen: &Seen, verdict: &Verdict, cost: f64, control: &str) -> Vec<Record> {
    let Seen { psis, corrected, elbo, evidence, bound, .. } = seen;
    vec![
        Record::scalar(
            "final_elbo",
            "ELBO of the fit from fresh draws, a bound on log p(y); NaN if one diverged",
            elbo.mean,
        ),
        Record::scalar("final_elbo_error", "Monte Carlo standard error of final_elbo", error(elbo)),
        Record::scalar(
            "iwae",
            "mean log of the mean of 100 importance weights, a tighter bound on log p(y)",
            bound.mean,
        ),
        Record::scalar("iwae_error", "Monte Carlo standard error of iwae", error(bound)),
        Record::scalar(
            "log_evidence",
            "log of the mean of all importance weights, an estimate of log p(y)",
            evidence.mean,
        ),
        Record::scalar("log_evidence_error", "its standard error, too small where k_hat is above 0.5", error(evidence)),
        Record::scalar("k_hat", "Pareto shape of the largest importance weights", psis.k_hat),
        Record::scalar("effective_draws", "effective number of importance draws", psis.effective_draws()),
        Record::scalar("unseen_share", "posterior mass that the importance draws are expected to miss", verdict.unseen),
        Record::scalar(
            "corrected_coverage",
            "posterior mass in the fit's 90 % intervals, by importance",
            verdict.coverage,
        ),
        Record::scalar("corrected_coverage_error", "standard error of corrected_coverage", verdict.coverage_error),
        Record::scalar(
            "corrected_mean_gap",
            "distance of the fit's mean to the corrected one, in its sd",
            corrected.mean_gap,
        ),
        Record::new("corrected_mean", "mean by importance weights", &[control], corrected.mean.clone()),
        Record::new("corrected_std", "standard deviation by importance weights", &[control], corrected.std.clone()),
        Record::scalar("twice_nearest_minimum_cost", "2 J at the minimum below the fit's mean", 2.0 * cost),
        Record::scalar("verdict", "2: trust mean and spread, 1: the mean only, 0: neither", verdict.trust.number()),
    ]
}

/// Draws again, with replacement, each as often as its weight says (systematic resampling: Kitagawa 1996).
fn resample(states: &Array2<f64>, weights: &[f64], samples: usize, seed: u64) -> Array2<f64> {
    let offset: f64 = StreamRng::new(seed, Stream::Importance).random();
    let mut below = 0.0;
    let mut next = 0;
    let mut rows = Vec::with_capacity(samples);
    for (k, weight) in weights.iter().enumerate() {
        below += weight * samples as f64;
        while next < samples && next as f64 + offset < below {
            rows.push(k);
            next += 1;
        }
    }
    // Rounding may leave the last one out.
    rows.resize(samples, rows.last().copied().unwrap_or(0));
    states.select(Axis(0), &rows)
}
