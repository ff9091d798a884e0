//! The covariance of an error of the state, diagonal or full, with the square root that whitens it.

use super::{check_finite, check_shape, select, shared};
use crate::error::{Error, Result};
use nalgebra::{Cholesky, DMatrix, DVector, Dyn};
use ndarray::{Array1, Array2, ArrayView1};
use serde::{Deserialize, Serialize};

/// The covariance of the background error, or of the model's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ErrorCovariance {
    /// Standard deviations: `[1 | P, sites]`.
    Diagonal(Array2<f64>),
    /// A full covariance, shared by all problems or one for each: `[1 | P]`.
    Full(Vec<CovarianceFactor>),
}

/// A covariance with its Cholesky factor and its inverse.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
        Self::named("background_covariance", covariance)
    }

    /// The same, of a variable of another name.
    pub(crate) fn named(what: &str, covariance: Array2<f64>) -> Result<Self> {
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

impl ErrorCovariance {
    /// The factor of problem `p`, where the covariance is full.
    pub fn factor_of(&self, p: usize) -> Option<&CovarianceFactor> {
        match self {
            Self::Diagonal(_) => None,
            Self::Full(factors) => Some(&factors[shared(factors.len(), p)]),
        }
    }

    /// Whether all problems share it.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Diagonal(std) => std.nrows() == 1,
            Self::Full(factors) => factors.len() == 1,
        }
    }

    /// Standard deviations of problem `p`: `[sites]`.
    pub fn std_of(&self, p: usize) -> Array1<f64> {
        match self {
            Self::Diagonal(std) => std.row(shared(std.nrows(), p)).to_owned(),
            Self::Full(factors) => factors[shared(factors.len(), p)].covariance.diag().mapv(f64::sqrt),
        }
    }

    /// C of problem `p`: `[sites, sites]`.
    pub fn covariance_of(&self, p: usize) -> Array2<f64> {
        let diagonal = || Array2::from_diag(&self.std_of(p).mapv(|s| s * s));
        self.factor_of(p).map_or_else(diagonal, |factor| factor.covariance.clone())
    }

    /// C^1/2 z of problem `p`, with C^1/2 the deviations or the Cholesky factor: `[sites]`.
    pub fn square_root(&self, p: usize, z: ArrayView1<f64>) -> Array1<f64> {
        self.factor_of(p).map_or_else(|| self.std_of(p) * z, |factor| factor.lower.dot(&z))
    }

    /// (C^1/2)' g of problem `p`: `[sites]`.
    pub fn square_root_transposed(&self, p: usize, g: ArrayView1<f64>) -> Array1<f64> {
        self.factor_of(p).map_or_else(|| self.std_of(p) * g, |factor| factor.lower.t().dot(&g))
    }

    /// C^-1/2 d of problem `p`, the inverse of [`Self::square_root`]: `[sites]`.
    pub fn whiten(&self, p: usize, d: ArrayView1<f64>) -> Array1<f64> {
        let Some(factor) = self.factor_of(p) else { return &d / &self.std_of(p) };
        let n = d.len();
        let lower = DMatrix::from_fn(n, n, |i, j| factor.lower[[i, j]]);
        let z = lower.solve_lower_triangular(&DVector::from_fn(n, |i, _| d[i]));
        Array1::from_iter(z.expect("a Cholesky factor has a positive diagonal").iter().copied())
    }

    /// C^-1 of problem `p`: `[sites, sites]`.
    pub fn precision_of(&self, p: usize) -> Array2<f64> {
        let diagonal = || Array2::from_diag(&self.std_of(p).mapv(|s| 1.0 / (s * s)));
        self.factor_of(p).map_or_else(diagonal, |factor| factor.precision.clone())
    }

    /// log det C of problem `p`.
    pub fn log_det(&self, p: usize) -> f64 {
        let roots = self.factor_of(p).map_or_else(|| self.std_of(p), |factor| factor.lower.diag().to_owned());
        roots.mapv(|s| 2.0 * s.ln()).sum()
    }

    /// The covariances of some of the problems, in that order.
    pub(super) fn select(&self, problems: &[usize]) -> Self {
        match self {
            Self::Diagonal(std) => Self::Diagonal(select(std, problems)),
            Self::Full(factors) if factors.len() == 1 => Self::Full(factors.clone()),
            Self::Full(factors) => Self::Full(problems.iter().map(|p| factors[*p].clone()).collect()),
        }
    }

    /// Refuses shapes that do not fit, and deviations that are negative, or 0 unless `zero` says that they may be. Names
    /// variables as `what` with `_std` or `_covariance` behind.
    pub(super) fn check(&self, what: &str, problems: usize, sites: usize, zero: bool) -> Result<()> {
        match self {
            Self::Diagonal(std) => {
                let name = format!("{what}_std");
                check_shape(&name, std.shape(), &[problems, sites])?;
                let usable = |s: f64| s.is_finite() && (s > 0.0 || (zero && s == 0.0));
                match std.indexed_iter().find(|(_, s)| !usable(**s)) {
                    None => Ok(()),
                    Some(((_, site), s)) => Err(Error::invalid(
                        format!("{name} at site {site}"),
                        if zero { "a finite deviation >= 0" } else { "a finite deviation > 0" },
                        s.to_string(),
                        "correct the deviation",
                    )),
                }
            }
            Self::Full(factors) => {
                let name = format!("{what}_covariance");
                if factors.len() != 1 && factors.len() != problems {
                    let expected = format!("1 or {problems}, one for each problem");
                    return Err(Error::invalid(name, expected, factors.len().to_string(), "correct their number"));
                }
                let matrices = factors.iter().flat_map(|b| [&b.covariance, &b.lower, &b.precision]);
                match matrices.map(Array2::dim).find(|dim| *dim != (sites, sites)) {
                    None => Ok(()),
                    Some((rows, columns)) => Err(Error::invalid(
                        name,
                        format!("{sites} rows and columns, one per site"),
                        format!("{rows} and {columns}"),
                        "match it to the background",
                    )),
                }
            }
        }
    }
}
