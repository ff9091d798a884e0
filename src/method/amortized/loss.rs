//! The loss of one window and its gradient with respect to what a network says of it.

use super::network::Said;
use crate::random::{Stream, standard_normals};
use nalgebra::DMatrix;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate, s};
use std::f64::consts::TAU;

/// Draws of one window, in pairs of opposite sign: `[draws, sites + rank]`.
pub(super) fn normals(seed: u64, iteration: u32, window: usize, draws: usize, numbers: usize) -> Array2<f64> {
    let pairs = draws.div_ceil(2);
    let half = standard_normals(seed, Stream::Training, iteration, window * pairs..(window + 1) * pairs, numbers);
    concatenate(Axis(0), &[half.view(), (-&half).view()]).expect("rows of one length")
}

/// The loss of a window: of a Gaussian -ELBO up to its constant, `mean J - entropy`; of a point J.
pub(super) struct Loss {
    pub value: f64,
    /// With respect to mean, log std and columns.
    pub by_mean: Array1<f64>,
    pub by_log_std: Array1<f64>,
    pub by_columns: Array2<f64>,
}

/// A row of states x = mean + std e1 + columns e2 for each draw; a point's one row.
pub(super) fn states(said: &Said, normals: ArrayView2<f64>) -> Array2<f64> {
    let n = said.mean.len();
    if said.std.is_empty() {
        return said.mean.clone().insert_axis(Axis(0));
    }
    let own = &normals.slice(s![.., ..n]) * &said.std;
    own + normals.slice(s![.., n..]).dot(&said.columns.t()) + &said.mean
}

/// The loss from cost and gradient at those states; None where all diverged.
pub(super) fn loss(
    said: &Said,
    normals: ArrayView2<f64>,
    costs: ArrayView1<f64>,
    gradients: ArrayView2<f64>,
    diverged: &[bool],
) -> Option<Loss> {
    let kept: Vec<usize> = (0..costs.len()).filter(|k| !diverged[*k]).collect();
    if kept.is_empty() {
        return None;
    }
    let (n, rank) = said.columns.dim();
    let share = 1.0 / kept.len() as f64;
    let mut cost = 0.0;
    let mut by_mean = Array1::zeros(n);
    let mut by_log_std = Array1::zeros(said.std.len());
    let mut by_columns = Array2::zeros((n, rank));
    for k in kept {
        let (g, eps) = (gradients.row(k), normals.row(k));
        cost += share * costs[k];
        by_mean.scaled_add(share, &g);
        if !said.std.is_empty() {
            by_log_std += &(&g * &eps.slice(s![..n]) * &said.std * share);
            for r in 0..rank {
                by_columns.column_mut(r).scaled_add(share * eps[n + r], &g);
            }
        }
    }
    if said.std.is_empty() {
        return Some(Loss { value: cost, by_mean, by_log_std, by_columns });
    }
    // C = D (I + U U') D with D = diag(std) and D U = columns: log det by I + U'U, its gradient by Woodbury.
    let scaled = &said.columns / &said.std.view().insert_axis(Axis(1));
    let small =
        DMatrix::from_fn(rank, rank, |a, b| scaled.column(a).dot(&scaled.column(b)) + if a == b { 1.0 } else { 0.0 });
    let inverse = small.clone().try_inverse().unwrap_or_else(|| DMatrix::zeros(rank, rank));
    let inverse = Array2::from_shape_fn((rank, rank), |(a, b)| inverse[(a, b)]);
    let reduced = scaled.dot(&inverse);
    let entropy = said.std.mapv(f64::ln).sum()
        + 0.5 * if rank > 0 { small.determinant().ln() } else { 0.0 }
        + 0.5 * n as f64 * (TAU.ln() + 1.0);
    by_log_std += &((&reduced * &scaled).sum_axis(Axis(1)) - 1.0);
    by_columns -= &(&reduced / &said.std.view().insert_axis(Axis(1)));
    Some(Loss { value: cost - entropy, by_mean, by_log_std, by_columns })
}
