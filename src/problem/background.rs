//! The background x_b and its error covariance B with a factor on it.

use super::{ErrorCovariance, check_finite, check_shape, select, shared};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView1};
use serde::{Deserialize, Serialize};

/// x_b and B = scale * (the covariance of `error`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Background {
    /// x_b: `[1 | P, sites]`.
    pub mean: Array2<f64>,
    /// The covariance before scaling.
    pub error: ErrorCovariance,
    /// A factor on B for each problem, > 0: `[1 | P]`.
    pub scale: Array1<f64>,
}

impl Background {
    /// x_b of problem `p`: `[sites]`.
    pub fn mean_of(&self, p: usize) -> ArrayView1<'_, f64> {
        self.mean.row(shared(self.mean.nrows(), p))
    }

    /// The factor on B of problem `p`.
    pub fn scale_of(&self, p: usize) -> f64 {
        self.scale[shared(self.scale.len(), p)]
    }

    /// sqrt(diag B) of problem `p`: `[sites]`.
    pub fn std_of(&self, p: usize) -> Array1<f64> {
        self.error.std_of(p) * self.scale_of(p).sqrt()
    }

    /// B^1/2 z of problem `p`, with B^1/2 the deviations or the Cholesky factor: `[sites]`.
    pub fn square_root(&self, p: usize, z: ArrayView1<f64>) -> Array1<f64> {
        self.error.square_root(p, z) * self.scale_of(p).sqrt()
    }

    /// (B^1/2)' g of problem `p`: `[sites]`.
    pub fn square_root_transposed(&self, p: usize, g: ArrayView1<f64>) -> Array1<f64> {
        self.error.square_root_transposed(p, g) * self.scale_of(p).sqrt()
    }

    /// B^-1/2 d of problem `p`, the inverse of [`Self::square_root`]: `[sites]`.
    pub fn whiten(&self, p: usize, d: ArrayView1<f64>) -> Array1<f64> {
        self.error.whiten(p, d) / self.scale_of(p).sqrt()
    }

    /// B^-1 of problem `p`: `[sites, sites]`.
    pub fn precision_of(&self, p: usize) -> Array2<f64> {
        self.error.precision_of(p) / self.scale_of(p)
    }

    /// log det B of problem `p`.
    pub fn log_det(&self, p: usize) -> f64 {
        self.error.log_det(p) + self.mean.ncols() as f64 * self.scale_of(p).ln()
    }

    /// The backgrounds of some of the problems, in that order.
    pub(super) fn select(&self, problems: &[usize]) -> Self {
        Self {
            mean: select(&self.mean, problems),
            error: self.error.select(problems),
            scale: select(&self.scale, problems),
        }
    }

    pub(super) fn check(&self, problems: usize) -> Result<()> {
        let sites = self.mean.ncols();
        check_shape("background", self.mean.shape(), &[problems, sites])?;
        check_finite("background", self.mean.iter())?;
        check_shape("background scale", self.scale.shape(), &[problems])?;
        if let Some(s) = self.scale.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(Error::invalid("background scale", "finite factors > 0", s.to_string(), "correct the factor"));
        }
        self.error.check("background", problems, sites, false)
    }
}
