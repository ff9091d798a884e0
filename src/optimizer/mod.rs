//! How parameters move: Adam and L-BFGS, with the reason why each stopped. Knows no data assimilation.

mod adam;
mod lbfgs;
mod line_search;

pub use adam::{Adam, AdamSettings, AdamSteps, Schedule};
pub use lbfgs::LbfgsSettings;

/// Minimises many functions in lockstep by L-BFGS with a strong-Wolfe line search.
pub use lbfgs::minimise as minimise_lbfgs;

/// Minimises many functions in lockstep by Adam.
pub use adam::minimise as minimise_adam;

use crate::checkpoint::MaybeKeeper;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// A function's value and gradient at a point. A value or gradient that is not finite says that the function is not
/// defined there.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// f(x).
    pub cost: f64,
    /// df/dx: `[x]`.
    pub gradient: Vec<f64>,
}

impl Evaluation {
    /// Whether value and gradient are finite.
    fn is_finite(&self) -> bool {
        self.cost.is_finite() && self.gradient.iter().all(|g| g.is_finite())
    }
}

/// Where one minimisation wants its function evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Which minimisation asks: its index among the starts.
    pub index: usize,
    /// x.
    pub point: &'a [f64],
}

/// Watches minimisations.
pub trait Watch {
    /// Called after each batch with the iterations done by the one furthest ahead and the lowest cost found so far by each
    /// (infinite where there is none). `Break` ends them all; the best points are kept.
    fn progress(&mut self, iteration: usize, costs: &[f64]) -> ControlFlow<()>;

    /// Where they keep their state.
    fn keeper(&mut self) -> MaybeKeeper<'_> {
        None
    }
}

impl<F: FnMut(usize, &[f64]) -> ControlFlow<()>> Watch for F {
    fn progress(&mut self, iteration: usize, costs: &[f64]) -> ControlFlow<()> {
        self(iteration, costs)
    }
}

/// The best point that a minimisation has seen, which need not be its last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Minimum {
    /// The point of lowest cost.
    pub point: Vec<f64>,
    /// Its cost; infinite where the function was not finite even at the start.
    pub cost: f64,
    /// Euclidean norm of its gradient.
    pub gradient_norm: f64,
    /// Euclidean norm of the gradient at the start; NaN where the function was not finite there.
    pub start_gradient_norm: f64,
    /// The cost at the start and after each iteration.
    pub history: Vec<f64>,
    /// Evaluations that were not finite on the way to each entry of the history, and after its last.
    pub overflows: Vec<u32>,
    /// Iterations done.
    pub iterations: usize,
    /// Evaluations of cost and gradient together.
    pub evaluations: usize,
    /// Why it stopped.
    pub reason: Reason,
}

/// Why a minimisation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The gradient's norm fell below its tolerance.
    GradientTolerance,
    /// An iteration lowered the cost by less than its tolerance.
    CostTolerance,
    /// No lower cost along the search direction, nor along the negative gradient.
    NoDecrease,
    /// The last iteration allowed.
    IterationLimit,
    /// The caller ended it.
    Interrupted,
    /// The function is not finite at the start (L-BFGS), or where the parameters moved (Adam).
    Diverged,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::GradientTolerance => "the gradient fell below its tolerance",
            Self::CostTolerance => "the cost no longer fell by more than its tolerance",
            Self::NoDecrease => "no lower cost along the search direction, nor along the gradient: round-off level",
            Self::IterationLimit => "the iteration limit",
            Self::Interrupted => "ended by the caller",
            Self::Diverged => "the cost is not finite",
        })
    }
}

/// Euclidean norm.
pub(crate) fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}
