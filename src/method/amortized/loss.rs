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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::StreamRng;
    use rand::RngExt;

    /// J = 1/2 (x - a)' A (x - a), with its gradient, at each row.
    fn quadratic(states: &Array2<f64>) -> (Array1<f64>, Array2<f64>) {
        let n = states.ncols();
        let a = Array2::from_shape_fn((n, n), |(i, j)| if i == j { 2.0 + i as f64 } else { 0.3 });
        let departure = states - &Array1::from_shape_fn(n, |i| i as f64 - 1.0);
        let gradient = departure.dot(&a);
        (0.5 * (&departure * &gradient).sum_axis(Axis(1)), gradient)
    }

    #[test]
    fn gradients_of_the_loss_are_differences() {
        let mut rng = StreamRng::new(3, Stream::Starts);
        let mut uniform = || rng.random::<f64>() - 0.5;
        for rank in [0, 1, 3] {
            let said = Said {
                mean: Array1::from_shape_simple_fn(4, &mut uniform),
                std: Array1::from_shape_simple_fn(4, || 0.7 + uniform()),
                columns: Array2::from_shape_simple_fn((4, rank), &mut uniform),
            };
            let eps = normals(5, 2, 7, 6, 4 + rank);
            // The fourth draw diverged.
            let diverged: Vec<bool> = (0..6).map(|k| k == 3).collect();
            let at = |said: &Said| {
                let (costs, gradients) = quadratic(&states(said, eps.view()));
                loss(said, eps.view(), costs.view(), gradients.view(), &diverged).unwrap()
            };
            let found = at(&said);
            let h = 1e-6;
            let difference = |change: &dyn Fn(&mut Said, f64)| {
                let [up, down] = [h, -h].map(|by| {
                    let mut moved = said.clone();
                    change(&mut moved, by);
                    at(&moved).value
                });
                (up - down) / (2.0 * h)
            };
            for i in 0..4 {
                let want = difference(&|s, by| s.mean[i] += by);
                assert!((found.by_mean[i] - want).abs() < 1e-6, "mean {i}: {} {want}", found.by_mean[i]);
                let want = difference(&|s, by| s.std[i] *= by.exp());
                assert!((found.by_log_std[i] - want).abs() < 1e-6, "log std {i}: {} {want}", found.by_log_std[i]);
                for r in 0..rank {
                    let want = difference(&|s, by| s.columns[[i, r]] += by);
                    let found = found.by_columns[[i, r]];
                    assert!((found - want).abs() < 1e-6, "column {i}, {r}: {found} {want}");
                }
            }
        }
        let point = Said { mean: Array1::ones(4), std: Array1::zeros(0), columns: Array2::zeros((4, 0)) };
        let eps = normals(5, 2, 7, 6, 4);
        let (costs, gradients) = quadratic(&states(&point, eps.view()));
        let found = loss(&point, eps.view(), costs.view(), gradients.view(), &[false]).unwrap();
        assert_eq!((found.value, found.by_mean), (costs[0], gradients.row(0).to_owned()));
    }

    #[test]
    fn draws_come_in_pairs_of_opposite_sign() {
        let eps = normals(5, 2, 7, 6, 4);
        assert_eq!(eps.dim(), (6, 4));
        assert!((0..3).all(|k| eps.row(k) == -&eps.row(k + 3)) && eps.row(0) != eps.row(1));
        assert_ne!(eps, normals(5, 2, 8, 6, 4));
        assert_ne!(eps, normals(5, 3, 7, 6, 4));
    }
}
