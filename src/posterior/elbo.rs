//! The evidence lower bound of any family: its estimate from moments, and the constant that the cost leaves out.

use crate::engine::Moments;
use crate::problem::Problem;
use std::f64::consts::TAU;

/// A Monte Carlo estimate of the ELBO of one problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elbo {
    /// The estimate; NaN where a draw diverged, for then it bounds nothing.
    pub value: f64,
    /// Its standard error; NaN for fewer than two draws.
    pub error: f64,
}

impl Elbo {
    /// `entropy(q) - E_q[J]`, the ELBO relative to the cost alone, from the moments of draws from q.
    pub fn new(entropy: f64, moments: &Moments) -> Self {
        let kept = (moments.count - moments.diverged) as f64;
        let cost = (moments.cost_background + moments.cost_observation) / kept;
        Self {
            value: if moments.diverged > 0 { f64::NAN } else { entropy - cost },
            error: if kept < 2.0 { f64::NAN } else { (moments.cost_deviation / ((kept - 1.0) * kept)).sqrt() },
        }
    }
}

/// What J leaves out of log p(y, c) for problem `p`: -1/2 log det(2 pi B) - 1/2 sum log(2 pi R / w), the sum over
/// the assimilated observations, with the prior covariance of the whole control in B's place. A weight w_t counts as an
/// error variance of R / w_t.
pub fn log_normalizer(problem: &Problem, p: usize) -> f64 {
    let n = problem.control().len() as f64;
    -0.5 * (n * TAU.ln() + problem.control_log_det(p)) + log_observation_normalizer(problem, p)
}

/// What J_o leaves out of log p(y | x0) for problem `p`: -1/2 sum log(2 pi R / w), over the assimilated observations.
pub fn log_observation_normalizer(problem: &Problem, p: usize) -> f64 {
    let precision = problem.observation_precision(p);
    -0.5 * precision.iter().filter(|r| **r > 0.0).map(|r| TAU.ln() - r.ln()).sum::<f64>()
}
