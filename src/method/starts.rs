//! Where minimisations of members start, whatever minimises.

use crate::engine::Row;
use ndarray::{Array2, ArrayView2};

/// Members to minimise.
#[derive(Clone, Copy)]
pub(super) struct Starts<'a> {
    /// Whose each is, in ascending order of problems.
    pub rows: &'a [Row],
    /// Each one's background: `[rows, sites]`.
    pub backgrounds: ArrayView2<'a, f64>,
    /// Amplitude of the perturbation of the observations.
    pub amplitude: f64,
    /// S of each problem, if L-BFGS is to move v in z = start + S v: where S S' is about the inverse Hessian, it sees a
    /// function of curvature 1. Gradient norms are then those of v.
    pub roots: Option<&'a [Array2<f64>]>,
}
