//! The Gaussian whose precision is a diagonal plus a matrix of low rank, S = diag(a) (I - U K U').
//!
//! With K = C^-1 (I - (I + C)^-1/2), C = U'U, the second factor is (I + U U')^-1/2, so that the precision is
//! diag(a)^-1 (I + U U') diag(a)^-1: the form in which B^-1 + H'R^-1 H is exact once the rank reaches the number of observed
//! directions. A covariance of low rank would take all of them but one. theta = (mu, log a, U).
//!
//! Derivatives go through f(C) by its divided differences in C's eigenvectors (Daleckii & Krein 1965).

use super::{Estimator, Gaussian, Normal};
use crate::engine::{AffineMap, Moments, PatternSums, Scale};
use crate::error::{Error, Result};
use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayViewMut1, Axis, s};

/// One Gaussian of that form for each of P problems.
#[derive(Clone, Debug)]
pub struct LowRank {
    rank: usize,
    /// What a step of mu is counted in: `[P, control]`.
    units: Array2<f64>,
    /// mu, log a, then U row by row: `[P, 2 control + control rank]`.
    theta: Array2<f64>,
}

impl LowRank {
    /// From mu and a, each `[P, control]`, and U: `[P, control, rank]`. Steps of mu are counted in `units: [P, control]`.
    ///
    /// # Errors
    /// Shapes that do not match, a rank of 0, a number that is not finite, an a or a unit that is not > 0.
    pub fn new(mean: &Array2<f64>, diagonal: &Array2<f64>, factor: &Array3<f64>, units: Array2<f64>) -> Result<Self> {
        let ((problems, n), rank) = (mean.dim(), factor.len_of(Axis(2)));
        let fits = diagonal.dim() == (problems, n) && units.dim() == (problems, n);
        if !fits || factor.dim() != (problems, n, rank) || rank == 0 {
            let expected = format!("[{problems}, {n}] and [{problems}, {n}, at least 1]");
            let found = format!("{:?}, {:?} and {:?}", diagonal.shape(), units.shape(), factor.shape());
            return Err(Error::invalid("scale of q", expected, found, "give one of each per mean"));
        }
        crate::problem::check_finite("scale of q", mean.iter().chain(diagonal).chain(factor).chain(&units))?;
        if let Some(v) = diagonal.iter().chain(&units).find(|v| **v <= 0.0) {
            return Err(Error::invalid("scale of q", "numbers > 0", v.to_string(), "correct them"));
        }
        let mut theta = Array2::zeros((problems, n * (2 + rank)));
        for (p, mut row) in theta.outer_iter_mut().enumerate() {
            row.slice_mut(s![..n]).assign(&mean.row(p));
            row.slice_mut(s![n..2 * n]).assign(&diagonal.row(p).mapv(f64::ln));
            row.slice_mut(s![2 * n..]).iter_mut().zip(factor.index_axis(Axis(0), p)).for_each(|(to, v)| *to = *v);
        }
        Ok(Self { rank, units, theta })
    }

    /// The number of columns of U.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// mu of problem `p`: `[control]`.
    pub fn mean(&self, p: usize) -> ArrayView1<'_, f64> {
        self.theta.slice(s![p, ..self.control()])
    }

    /// a of problem `p`: `[control]`.
    fn diagonal(&self, p: usize) -> Array1<f64> {
        let n = self.control();
        self.theta.slice(s![p, n..2 * n]).mapv(f64::exp)
    }

    /// U of problem `p`: `[control, rank]`.
    fn factor(&self, p: usize) -> ArrayView2<'_, f64> {
        let row = self.theta.row(p).to_slice().expect("theta is contiguous");
        let shape = (self.control(), self.rank);
        ArrayView2::from_shape(shape, &row[2 * shape.0..]).expect("as many entries as theta has left")
    }
}

/// C = U'U by its eigenvectors, and functions of it.
struct Gram {
    /// Eigenvalues of C: `[rank]`.
    values: Vec<f64>,
    /// Eigenvectors in columns: `[rank, rank]`.
    vectors: Array2<f64>,
}

/// f(s) = (1 - (1 + s)^-1/2) / s, written so that it does not cancel: K = f(C).
fn shrink(s: f64) -> f64 {
    let root = (1.0 + s).sqrt();
    1.0 / (root * (root + 1.0))
}

/// ((1 + s)^1/2 - 1) / s: (I + U U')^1/2 = I + U g(C) U'.
fn stretch(s: f64) -> f64 {
    1.0 / ((1.0 + s).sqrt() + 1.0)
}

/// (f(s) - f(t)) / (s - t) of [`shrink`], which is 1 / (p (p + 1)) with p = (1 + s)^1/2:
/// -(p + q + 1) / (p (p + 1) q (q + 1) (p + q)).
fn shrink_difference(s: f64, t: f64) -> f64 {
    let (p, q) = ((1.0 + s).sqrt(), (1.0 + t).sqrt());
    -(p + q + 1.0) / (p * (p + 1.0) * q * (q + 1.0) * (p + q))
}

impl Gram {
    fn new(factor: ArrayView2<f64>) -> Self {
        let r = factor.ncols();
        let gram = factor.t().dot(&factor);
        let eigen = SymmetricEigen::new(DMatrix::from_fn(r, r, |i, j| gram[[i, j]]));
        Self {
            values: eigen.eigenvalues.iter().map(|v| v.max(0.0)).collect(),
            vectors: Array2::from_shape_fn((r, r), |(i, j)| eigen.eigenvectors[(i, j)]),
        }
    }

    fn apply(&self, f: impl Fn(f64) -> f64) -> Array2<f64> {
        let scaled = &self.vectors * &self.values.iter().map(|v| f(*v)).collect::<Array1<_>>();
        scaled.dot(&self.vectors.t())
    }

    /// N with <M, dK> = <N, dC>, for a symmetric M.
    fn pull_back_shrink(&self, m: &Array2<f64>) -> Array2<f64> {
        let mut inner = self.vectors.t().dot(m).dot(&self.vectors);
        inner.indexed_iter_mut().for_each(|((i, j), v)| *v *= shrink_difference(self.values[i], self.values[j]));
        self.vectors.dot(&inner).dot(&self.vectors.t())
    }
}

impl Gaussian for LowRank {
    fn problems(&self) -> usize {
        self.theta.nrows()
    }

    fn control(&self) -> usize {
        self.units.ncols()
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
        let rest = self.theta.ncols() - self.control();
        // log a and U have no unit.
        self.units.outer_iter().flat_map(|u| u.to_vec().into_iter().chain(vec![1.0; rest])).collect()
    }

    /// S = diag(a) + W Z' with Z = U and W = -diag(a) U K.
    fn to_map(&self) -> AffineMap {
        let (problems, n, r) = (self.problems(), self.control(), self.rank);
        let mut mean = Array2::zeros((problems, n));
        let mut diagonal = mean.clone();
        let (mut left, mut right) = (Array3::zeros((problems, n, r)), Array3::zeros((problems, n, r)));
        for p in 0..problems {
            let (a, factor) = (self.diagonal(p), self.factor(p));
            let shrunk = factor.dot(&Gram::new(factor).apply(shrink));
            mean.row_mut(p).assign(&self.mean(p));
            left.index_axis_mut(Axis(0), p).assign(&(shrunk * &(-&a).insert_axis(Axis(1))));
            right.index_axis_mut(Axis(0), p).assign(&factor);
            diagonal.row_mut(p).assign(&a);
        }
        AffineMap { mean, scale: Scale::LowRank { diagonal, left, right } }
    }

    /// sum log a - 1/2 log det(I + U'U).
    fn log_det(&self, p: usize) -> f64 {
        let n = self.control();
        let gram = Gram::new(self.factor(p));
        self.theta.slice(s![p, n..2 * n]).sum() - 0.5 * gram.values.iter().map(|s| s.ln_1p()).sum::<f64>()
    }

    /// With G the mean of g eps' and S = diag(a) (I - U K U'), of which the engine returns G U and G'W, W = -diag(a) U K:
    /// d/dlog a_i is a_i (G - G U K U')_ii; d/dU is -diag(a) G U K + G'W - 2 U N, N the pull-back of the symmetric part of
    /// U' diag(a) G U through K(U'U). The plain entropy adds -1 and U (I + U'U)^-1; the path estimator takes g - S^-T eps
    /// for g, S^-T = diag(a)^-1 (I + U L U'), L = (I + C)^1/2 less 1, over C.
    fn pull_back(&self, moments: &[Moments], estimator: Estimator, gradient: &mut [f64]) {
        for (p, (m, out)) in moments.iter().zip(gradient.chunks_exact_mut(self.theta.ncols())).enumerate() {
            out.fill(0.0);
            let kept = m.count - m.diverged;
            if kept == 0 {
                continue;
            }
            let PatternSums::LowRank { gradient_right, epsilon_left, epsilon_right } = &m.pattern else {
                unreachable!("draws from a map of low rank return its sums");
            };
            let mean = |sums: &[f64]| ArrayView1::from(sums).mapv(|v| v / kept as f64);
            let (factor, gram) = (self.factor(p), Gram::new(self.factor(p)));
            let k = gram.apply(shrink);
            // diag(a) g instead of g from here on.
            let a = self.diagonal(p);
            let column = a.view().insert_axis(Axis(1));
            let mut g = &a * &mean(&m.gradient);
            let mut diagonal = &a * &mean(&m.gradient_epsilon);
            let mut right = gradient_right * &column / kept as f64;
            let mut left = epsilon_left / kept as f64;
            if estimator == Estimator::Path {
                // diag(a) S^-T = I + U L U'; S^-1 W = -U (I + C)^1/2 K.
                let l = gram.apply(stretch);
                let (e, right_e) = (mean(&m.epsilon), epsilon_right / kept as f64);
                g -= &(&e + &factor.dot(&l).dot(&factor.t().dot(&e)));
                let spread = factor.dot(&l);
                diagonal -= &(mean(&m.epsilon_squared) + (&spread * &right_e).sum_axis(Axis(1)));
                right -= &(&right_e + &spread.dot(&factor.t().dot(&right_e)));
                left += &right_e.dot(&gram.apply(|s| (1.0 + s).sqrt() * shrink(s)));
            }
            let shrunk = factor.dot(&k);
            let mut d_log = diagonal - (&right * &shrunk).sum_axis(Axis(1));
            let cross = factor.t().dot(&right);
            let inner = gram.pull_back_shrink(&((&cross + &cross.t()) * 0.5));
            let mut d_factor = left - right.dot(&k) - factor.dot(&inner) * 2.0;
            if estimator == Estimator::Plain {
                d_log -= 1.0;
                d_factor += &factor.dot(&gram.apply(|s| 1.0 / (1.0 + s)));
            }
            let d_mean = &g / &a;
            let all = d_mean.iter().chain(&d_log).chain(&d_factor);
            out.iter_mut().zip(all).for_each(|(to, v)| *to = *v);
        }
    }

    fn normal(&self, p: usize) -> Normal {
        let gram = Gram::new(self.factor(p));
        let inner = [gram.apply(shrink), gram.apply(stretch)];
        Normal::low_rank(self.mean(p).to_owned(), self.diagonal(p), self.factor(p).to_owned(), inner, self.log_det(p))
    }
}
