//! The background x_b and its error covariance B, diagonal or full, with the square root that preconditions.

use super::{check_finite, check_shape, select, shared};
use crate::error::{Error, Result};
use nalgebra::{Cholesky, DMatrix, DVector, Dyn};
use ndarray::{Array1, Array2, ArrayView1};

/// x_b and B = scale * (the covariance of `error`).
#[derive(Clone, Debug)]
pub struct Background {
    /// x_b: `[1 | P, sites]`.
    pub mean: Array2<f64>,
    /// The covariance before scaling.
    pub error: BackgroundError,
    /// A factor on B for each problem, > 0: `[1 | P]`.
    pub scale: Array1<f64>,
}

/// The covariance of the background error.
#[derive(Clone, Debug)]
pub enum BackgroundError {
    /// Standard deviations: `[1 | P, sites]`.
    Diagonal(Array2<f64>),
    /// A full covariance, shared by all problems.
    Full(CovarianceFactor),
}

/// A covariance with its Cholesky factor and its inverse.
#[derive(Clone, Debug)]
pub struct CovarianceFactor {
    /// The covariance: `[sites, sites]`.
    pub covariance: Array2<f64>,
    /// Lower triangular L with L L' = covariance: `[sites, sites]`.
    pub lower: Array2<f64>,
    /// The covariance's inverse: `[sites, sites]`.
    pub precision: Array2<f64>,
}

impl CovarianceFactor {
    /// Factors a covariance.
    ///
    /// # Errors
    /// A matrix that is not square, not finite, not symmetric to 1e-8 relative, or not positive definite; the
    /// last with its smallest eigenvalue.
    pub fn new(covariance: Array2<f64>) -> Result<Self> {
        let what = "background_covariance";
        let n = covariance.nrows();
        if covariance.ncols() != n || n == 0 {
            return Err(Error::invalid(
                what,
                "a square matrix",
                format!("{n} x {}", covariance.ncols()),
                "give one row and one column per site",
            ));
        }
        check_finite(what, covariance.iter())?;
        let largest = covariance.iter().fold(0.0f64, |a, v| a.max(v.abs()));
        for i in 0..n {
            for j in 0..i {
                let gap = (covariance[[i, j]] - covariance[[j, i]]).abs();
                if gap > 1e-8 * largest {
                    return Err(Error::invalid(
                        what,
                        "a symmetric matrix",
                        format!("entries ({i}, {j}) and ({j}, {i}) differing by {gap:e}"),
                        "symmetrise it",
                    ));
                }
            }
        }
        let matrix = DMatrix::from_fn(n, n, |i, j| 0.5 * (covariance[[i, j]] + covariance[[j, i]]));
        let Some(cholesky) = Cholesky::new(matrix.clone()) else {
            let smallest = matrix.symmetric_eigenvalues().min();
            return Err(Error::invalid(
                what,
                "a positive definite matrix",
                format!("a smallest eigenvalue of {smallest:e}"),
                "localise it, or add a multiple of the identity",
            ));
        };
        let back = |m: &DMatrix<f64>| Array2::from_shape_fn((n, n), |(i, j)| m[(i, j)]);
        Ok(Self { lower: back(&cholesky.l()), precision: back(&Cholesky::<f64, Dyn>::inverse(&cholesky)), covariance })
    }
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
        let factor = self.scale_of(p).sqrt();
        match &self.error {
            BackgroundError::Diagonal(std) => &std.row(shared(std.nrows(), p)) * factor,
            BackgroundError::Full(b) => b.covariance.diag().mapv(|v| v.sqrt() * factor),
        }
    }

    /// B^1/2 z of problem `p`, with B^1/2 the deviations or the Cholesky factor: `[sites]`.
    pub fn square_root(&self, p: usize, z: ArrayView1<f64>) -> Array1<f64> {
        match &self.error {
            BackgroundError::Diagonal(_) => &self.std_of(p) * &z,
            BackgroundError::Full(b) => b.lower.dot(&z) * self.scale_of(p).sqrt(),
        }
    }

    /// (B^1/2)' g of problem `p`: `[sites]`.
    pub fn square_root_transposed(&self, p: usize, g: ArrayView1<f64>) -> Array1<f64> {
        match &self.error {
            BackgroundError::Diagonal(_) => &self.std_of(p) * &g,
            BackgroundError::Full(b) => b.lower.t().dot(&g) * self.scale_of(p).sqrt(),
        }
    }

    /// B^-1/2 d of problem `p`, the inverse of [`Self::square_root`]: `[sites]`.
    pub fn whiten(&self, p: usize, d: ArrayView1<f64>) -> Array1<f64> {
        match &self.error {
            BackgroundError::Diagonal(_) => &d / &self.std_of(p),
            BackgroundError::Full(b) => {
                let n = d.len();
                let lower = DMatrix::from_fn(n, n, |i, j| b.lower[[i, j]]);
                let rhs = DVector::from_fn(n, |i, _| d[i] / self.scale_of(p).sqrt());
                let z = lower.solve_lower_triangular(&rhs).expect("a Cholesky factor has a positive diagonal");
                Array1::from_iter(z.iter().copied())
            }
        }
    }

    /// B^-1 of problem `p`: `[sites, sites]`.
    pub fn precision_of(&self, p: usize) -> Array2<f64> {
        match &self.error {
            BackgroundError::Diagonal(_) => Array2::from_diag(&self.std_of(p).mapv(|s| 1.0 / (s * s))),
            BackgroundError::Full(b) => &b.precision / self.scale_of(p),
        }
    }

    /// The backgrounds of some of the problems, in that order.
    pub(super) fn select(&self, problems: &[usize]) -> Self {
        Self {
            mean: select(&self.mean, problems),
            error: match &self.error {
                BackgroundError::Diagonal(std) => BackgroundError::Diagonal(select(std, problems)),
                full => full.clone(),
            },
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
        match &self.error {
            BackgroundError::Diagonal(std) => {
                check_shape("background_std", std.shape(), &[problems, sites])?;
                match std.indexed_iter().find(|(_, s)| !(s.is_finite() && **s > 0.0)) {
                    None => Ok(()),
                    Some(((_, site), s)) => Err(Error::invalid(
                        format!("background_std at site {site}"),
                        "a finite deviation > 0",
                        s.to_string(),
                        "correct the deviation",
                    )),
                }
            }
            BackgroundError::Full(b) if b.covariance.nrows() != sites => Err(Error::invalid(
                "background_covariance",
                format!("{sites} rows and columns, one per site"),
                b.covariance.nrows().to_string(),
                "match it to the background",
            )),
            BackgroundError::Full(_) => Ok(()),
        }
    }
}
