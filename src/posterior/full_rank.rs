//! The full-rank Gaussian q = N(mu, L L'), c = mu + L eps with L lower triangular.
//!
//! theta lives in the coordinates of a base N(m0, L0 L0') where the fit starts: mu = m0 + L0 u and L = L0 T, theta = (u, T)
//! with T's diagonal by its logarithm. A step of Adam is then of the same size in every direction of the base, whatever
//! the posterior's shape.

use super::{Estimator, Gaussian, Normal};
use crate::engine::{AffineMap, Moments, PatternSums, Scale};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayViewMut1, Axis, s};

/// One full-rank Gaussian for each of P problems.
#[derive(Clone, Debug)]
pub struct FullRank {
    /// m0: `[P, control]`.
    base_mean: Array2<f64>,
    /// L0: `[P, control, control]`.
    base: Array3<f64>,
    /// u, then T row by row up to the diagonal: `[P, control + control (control + 1) / 2]`.
    theta: Array2<f64>,
}

impl FullRank {
    /// From means `[P, control]` and lower triangular factors `[P, control, control]`, which are the base too.
    ///
    /// # Errors
    /// Shapes that do not match, a number that is not finite, a diagonal that is not > 0.
    pub fn new(mean: Array2<f64>, lower: Array3<f64>) -> Result<Self> {
        let (problems, n) = mean.dim();
        if lower.dim() != (problems, n, n) {
            let (expected, found) = (format!("[{problems}, {n}, {n}]"), format!("{:?}", lower.shape()));
            return Err(Error::invalid("factors of q", expected, found, "give one matrix per mean"));
        }
        crate::problem::check_finite("means of q", mean.iter())?;
        crate::problem::check_finite("factors of q", lower.iter())?;
        let fits = |((_, i, j), v): ((usize, usize, usize), &f64)| if i == j { *v > 0.0 } else { i > j || *v == 0.0 };
        if let Some(((_, i, j), v)) = lower.indexed_iter().find(|entry| !fits(*entry)) {
            let (expected, found) = ("lower triangular, its diagonal > 0", format!("{v} in row {i}, column {j}"));
            return Err(Error::invalid("factors of q", expected, found, "give Cholesky factors"));
        }
        // u = 0 and T = I, whose diagonal's logarithm is 0 as well.
        Ok(Self { theta: Array2::zeros((problems, n + n * (n + 1) / 2)), base_mean: mean, base: lower })
    }

    /// mu of problem `p`: `[control]`.
    pub fn mean(&self, p: usize) -> Array1<f64> {
        let n = self.control();
        &self.base_mean.row(p) + &self.base.index_axis(Axis(0), p).dot(&self.theta.slice(s![p, ..n]))
    }

    /// L of problem `p`: `[control, control]`.
    pub fn lower(&self, p: usize) -> Array2<f64> {
        let mut lower = self.base.index_axis(Axis(0), p).dot(&self.triangle(p));
        // What a product of triangles leaves above the diagonal is exactly zero; say so.
        lower.indexed_iter_mut().filter(|((i, j), _)| j > i).for_each(|(_, v)| *v = 0.0);
        lower
    }

    /// T of problem `p`: `[control, control]`.
    fn triangle(&self, p: usize) -> Array2<f64> {
        let n = self.control();
        let mut triangle = Array2::zeros((n, n));
        for ((i, j), value) in lower_entries(n).zip(self.theta.slice(s![p, n..])) {
            triangle[[i, j]] = if i == j { value.exp() } else { *value };
        }
        triangle
    }
}

/// Row and column of the entries of a lower triangle, row by row.
fn lower_entries(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(|i| (0..=i).map(move |j| (i, j)))
}

/// X with L' X = Y for a lower triangular L.
fn solve_transposed(lower: ArrayView2<f64>, mut y: Array2<f64>) -> Array2<f64> {
    let n = lower.nrows();
    for i in (0..n).rev() {
        let known: Array1<f64> = lower.slice(s![i + 1.., i]).dot(&y.slice(s![i + 1.., ..]));
        y.row_mut(i).zip_mut_with(&known, |y, known| *y = (*y - known) / lower[[i, i]]);
    }
    y
}

impl Gaussian for FullRank {
    fn problems(&self) -> usize {
        self.theta.nrows()
    }

    fn control(&self) -> usize {
        self.base_mean.ncols()
    }

    fn parameters(&mut self) -> &mut [f64] {
        self.theta.as_slice_mut().expect("theta is contiguous")
    }

    fn row(&self, p: usize) -> ArrayView1<'_, f64> {
        self.theta.row(p)
    }

    fn row_mut(&mut self, p: usize) -> ArrayViewMut1<'_, f64> {
        self.theta.row_mut(p)
    }

    fn units(&self) -> Vec<f64> {
        vec![1.0; self.theta.len()]
    }

    fn to_map(&self) -> AffineMap {
        let mut mean = self.base_mean.clone();
        let mut scale = self.base.clone();
        for p in 0..self.problems() {
            mean.row_mut(p).assign(&self.mean(p));
            scale.index_axis_mut(Axis(0), p).assign(&self.lower(p));
        }
        AffineMap { mean, scale: Scale::Lower(scale) }
    }

    fn log_det(&self, p: usize) -> f64 {
        let base: f64 = self.base.index_axis(Axis(0), p).diag().mapv(f64::ln).sum();
        let n = self.control();
        base + (0..n).map(|i| self.theta[[p, n + i * (i + 3) / 2]]).sum::<f64>()
    }

    /// With G the mean of g eps': d/du is `L0' E[g]`, d/dT the lower triangle of L0' G, the plain entropy's part -1 for each
    /// logarithm of the diagonal. The path estimator takes g - L^-T eps for g.
    fn pull_back(&self, moments: &[Moments], estimator: Estimator, gradient: &mut [f64]) {
        let n = self.control();
        for (p, (m, out)) in moments.iter().zip(gradient.chunks_exact_mut(self.theta.ncols())).enumerate() {
            let kept = m.count - m.diverged;
            let (d_mean, d_triangle) = out.split_at_mut(n);
            d_mean.fill(0.0);
            d_triangle.fill(0.0);
            if kept == 0 {
                continue;
            }
            let PatternSums::Lower { gradient_epsilon, epsilon_epsilon } = &m.pattern else {
                unreachable!("draws from a lower triangular map return its sums");
            };
            let scale = 1.0 / kept as f64;
            let base = self.base.index_axis(Axis(0), p);
            let triangle = self.triangle(p);
            // All of it in the base's coordinates: L0' g, and L0' g - T^-T eps.
            let g = ArrayView1::from(&m.gradient).mapv(|v| v * scale).insert_axis(Axis(1));
            let mut mean = base.t().dot(&g);
            let mut product = base.t().dot(&(gradient_epsilon * scale));
            if estimator == Estimator::Path {
                let e = ArrayView1::from(&m.epsilon).mapv(|v| v * scale).insert_axis(Axis(1));
                mean -= &solve_transposed(triangle.view(), e);
                let full = Array2::from_shape_fn((n, n), |(i, j)| epsilon_epsilon[[i.max(j), i.min(j)]] * scale);
                product -= &solve_transposed(triangle.view(), full);
            }
            d_mean.iter_mut().zip(&mean).for_each(|(d, v)| *d = *v);
            for ((i, j), d) in lower_entries(n).zip(d_triangle) {
                *d = match (i == j, estimator) {
                    (false, _) => product[[i, j]],
                    (true, Estimator::Plain) => product[[i, i]] * triangle[[i, i]] - 1.0,
                    (true, Estimator::Path) => product[[i, i]] * triangle[[i, i]],
                };
            }
        }
    }

    fn normal(&self, p: usize) -> Normal {
        Normal::lower(self.mean(p), self.lower(p))
    }
}
