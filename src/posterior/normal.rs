//! One Gaussian N(m, S S') with its density, whatever family it was fitted in.

use super::Draws;
use crate::error::{Error, Result};
use crate::random::{Stream, standard_normals};
use nalgebra::{Cholesky, DMatrix};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use std::f64::consts::TAU;
use std::ops::Range;

/// A Gaussian N(m, S S').
#[derive(Clone, Debug)]
pub struct Normal {
    mean: Array1<f64>,
    root: Root,
    log_det: f64,
}

/// S, in the form in which it is cheap.
#[derive(Clone, Debug)]
enum Root {
    /// Its diagonal.
    Diagonal(Array1<f64>),
    /// S and its inverse.
    Dense(Array2<f64>, Array2<f64>),
    /// S = diag(d) (I - U K U') and S^-1 = (I + U L U') diag(d)^-1.
    LowRank { diagonal: Array1<f64>, factor: Array2<f64>, shrink: Array2<f64>, stretch: Array2<f64> },
}

impl Normal {
    /// From standard deviations `[control]`.
    pub fn diagonal(mean: Array1<f64>, std: Array1<f64>) -> Self {
        Self { log_det: std.mapv(f64::ln).sum(), mean, root: Root::Diagonal(std) }
    }

    /// From a lower triangular S with a positive diagonal: `[control, control]`.
    pub fn lower(mean: Array1<f64>, lower: Array2<f64>) -> Self {
        let n = mean.len();
        let matrix = DMatrix::from_fn(n, n, |i, j| lower[[i, j]]);
        let inverse = matrix.solve_lower_triangular(&DMatrix::identity(n, n)).expect("a positive diagonal");
        let inverse = Array2::from_shape_fn((n, n), |(i, j)| inverse[(i, j)]);
        Self { log_det: lower.diag().mapv(f64::ln).sum(), mean, root: Root::Dense(lower, inverse) }
    }

    /// From a covariance: `[control, control]`.
    ///
    /// # Errors
    /// A covariance that is not positive definite.
    pub fn of_covariance(mean: Array1<f64>, covariance: ArrayView2<f64>) -> Result<Self> {
        Ok(Self::lower(mean, Self::lower_root(covariance)?))
    }

    /// From diag(d) (I - U K U') with its inverse (I + U L U') diag(d)^-1.
    pub(super) fn low_rank(
        mean: Array1<f64>,
        diagonal: Array1<f64>,
        factor: Array2<f64>,
        [shrink, stretch]: [Array2<f64>; 2],
        log_det: f64,
    ) -> Self {
        Self { mean, root: Root::LowRank { diagonal, factor, shrink, stretch }, log_det }
    }

    /// Lower triangular L with L L' = a covariance.
    ///
    /// # Errors
    /// A covariance that is not positive definite.
    pub(crate) fn lower_root(covariance: ArrayView2<f64>) -> Result<Array2<f64>> {
        let n = covariance.nrows();
        let matrix = DMatrix::from_fn(n, n, |i, j| 0.5 * (covariance[[i, j]] + covariance[[j, i]]));
        let Some(cholesky) = Cholesky::new(matrix) else {
            return Err(Error::invalid(
                "covariance of q",
                "a positive definite matrix",
                "one that is not",
                "add a multiple of the identity, or start from the background",
            ));
        };
        let lower = cholesky.l();
        Ok(Array2::from_shape_fn((n, n), |(i, j)| lower[(i, j)]))
    }

    /// m: `[control]`.
    pub fn mean(&self) -> ArrayView1<'_, f64> {
        self.mean.view()
    }

    /// S S': `[control, control]`.
    pub fn covariance(&self) -> Array2<f64> {
        // The images of the unit vectors are the rows of S'.
        let root = self.apply(Array2::eye(self.mean.len()));
        root.t().dot(&root)
    }

    /// The inverse of the covariance: `[control, control]`.
    pub fn precision(&self) -> Array2<f64> {
        // The images of the unit vectors under S^-1, as rows.
        let whitened = self.whiten((Array2::eye(self.mean.len()) + &self.mean).view());
        whitened.dot(&whitened.t())
    }

    /// Standard deviations: `[control]`.
    pub fn std(&self) -> Array1<f64> {
        match &self.root {
            Root::Diagonal(std) => std.clone(),
            _ => self.apply(Array2::eye(self.mean.len())).mapv(|v| v * v).sum_axis(Axis(0)).mapv(f64::sqrt),
        }
    }

    /// Draws by address: those of an engine that draws from the same map.
    pub fn draw(&self, seed: u64, stream: Stream, members: Range<usize>) -> Draws {
        let normals = standard_normals(seed, stream, 0, members, self.mean.len());
        let log_density = self.log_density_of(&normals);
        Draws { states: self.map(normals), log_density }
    }

    /// log q at each row: `[rows, control]` to `[rows]`.
    pub fn log_density(&self, states: ArrayView2<f64>) -> Array1<f64> {
        self.log_density_of(&self.whiten(states))
    }

    /// S^-1 (x - m) of each row: `[rows, control]`. Its norm is the distance from m in standard deviations.
    pub fn whiten(&self, states: ArrayView2<f64>) -> Array2<f64> {
        let departures = &states - &self.mean;
        match &self.root {
            Root::Diagonal(std) => departures / std,
            Root::Dense(_, inverse) => departures.dot(&inverse.t()),
            Root::LowRank { diagonal, factor, stretch, .. } => {
                let scaled = departures / diagonal;
                let stretched = scaled.dot(factor).dot(stretch).dot(&factor.t());
                scaled + stretched
            }
        }
    }

    /// log q where the standard normals behind the draws are known: `[rows, control]` to `[rows]`.
    pub(super) fn log_density_of(&self, normals: &Array2<f64>) -> Array1<f64> {
        let constant = self.log_det + 0.5 * self.mean.len() as f64 * TAU.ln();
        normals.map_axis(Axis(1), |z| -0.5 * z.dot(&z) - constant)
    }

    /// S' g of each row: gradients with respect to x, to gradients with respect to z where x = m + S z.
    #[cfg(feature = "neural")]
    pub(super) fn pull_back(&self, gradients: ArrayView2<f64>) -> Array2<f64> {
        match &self.root {
            Root::Diagonal(std) => &gradients * std,
            Root::Dense(root, _) => gradients.dot(root),
            Root::LowRank { diagonal, factor, shrink, .. } => {
                let scaled = &gradients * diagonal;
                let shrunk = scaled.dot(factor).dot(&shrink.t()).dot(&factor.t());
                scaled - shrunk
            }
        }
    }

    /// m + S z of each row.
    pub(super) fn map(&self, normals: Array2<f64>) -> Array2<f64> {
        self.apply(normals) + &self.mean
    }

    /// S z of each row.
    fn apply(&self, normals: Array2<f64>) -> Array2<f64> {
        match &self.root {
            Root::Diagonal(std) => normals * std,
            Root::Dense(root, _) => normals.dot(&root.t()),
            Root::LowRank { diagonal, factor, shrink, .. } => {
                let shrunk = normals.dot(factor).dot(shrink).dot(&factor.t());
                (normals - shrunk) * diagonal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn a_density_is_that_of_the_covariance() {
        let covariance = array![[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]];
        let mean = array![1.0, -2.0, 0.5];
        let q = Normal::of_covariance(mean.clone(), covariance.view()).unwrap();
        assert!((q.covariance() - &covariance).iter().all(|d| d.abs() < 1e-14));
        let m = DMatrix::from_fn(3, 3, |i, j| covariance[[i, j]]);
        let (inverse, det) = (m.clone().try_inverse().unwrap(), m.determinant());
        let draws = q.draw(3, Stream::Importance, 5..9);
        for (x, log_density) in draws.states.outer_iter().zip(&draws.log_density) {
            let d = nalgebra::DVector::from_iterator(3, x.iter().zip(&mean).map(|(x, m)| x - m));
            let want = -0.5 * (d.transpose() * &inverse * &d)[0] - 0.5 * det.ln() - 1.5 * TAU.ln();
            assert!((log_density - want).abs() < 1e-12, "{log_density} {want}");
        }
        let again = q.log_density(draws.states.view());
        assert!((again - draws.log_density).iter().all(|d| d.abs() < 1e-12));
        assert!((q.precision().dot(&covariance) - Array2::<f64>::eye(3)).iter().all(|d| d.abs() < 1e-12));
        assert!(Normal::of_covariance(mean, array![[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]].view()).is_err());
    }

    #[test]
    fn draws_do_not_depend_on_those_around_them() {
        let q = Normal::diagonal(array![1.0, 2.0], array![0.5, 3.0]);
        let (all, one) = (q.draw(7, Stream::Posterior, 0..5), q.draw(7, Stream::Posterior, 3..4));
        assert_eq!(all.states.row(3), one.states.row(0));
        assert_eq!(all.log_density[3], one.log_density[0]);
    }
}
