//! Square roots of covariances, ready to multiply one short vector after the other.

use crate::problem::Problem;
use nalgebra::{Cholesky, DMatrix};
use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};

/// A with A A' = some covariance.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Factor {
    /// The diagonal of A.
    Diagonal(Vec<f64>),
    /// Lower triangular, stored both ways so that every inner loop runs along memory.
    Lower { rows: Vec<f64>, columns: Vec<f64> },
}

impl Factor {
    /// The identity.
    pub fn identity(n: usize) -> Self {
        Self::Diagonal(vec![1.0; n])
    }

    /// L with L L' the prior covariance of the control of problem `p`.
    pub fn prior(problem: &Problem, p: usize) -> Self {
        let mut rows = Array2::from_diag(&problem.control_std(p));
        let Some(b) = problem.background.error.factor_of(p) else {
            return Self::Diagonal(rows.diag().to_vec());
        };
        let sites = problem.sites();
        rows.slice_mut(s![..sites, ..sites]).assign(&(&b.lower * problem.background.scale_of(p).sqrt()));
        Self::Lower { rows: rows.iter().copied().collect(), columns: rows.t().iter().copied().collect() }
    }

    /// The square root of a covariance `[n * n]`: its Cholesky factor, or the deviations alone where the covariance is
    /// not positive definite or `diagonal` is asked for.
    pub fn covariance(covariance: &[f64], n: usize, diagonal: bool) -> Self {
        let deviations =
            || Self::Diagonal((0..n).map(|i| covariance[i * n + i].sqrt().max(f64::MIN_POSITIVE)).collect());
        if diagonal {
            return deviations();
        }
        match Cholesky::new(DMatrix::from_row_slice(n, n, covariance)) {
            None => deviations(),
            Some(cholesky) => {
                let lower = cholesky.l();
                Self::Lower { rows: lower.transpose().as_slice().to_vec(), columns: lower.as_slice().to_vec() }
            }
        }
    }

    /// out += scale A v
    pub fn add(&self, scale: f64, v: &[f64], out: &mut [f64]) {
        match self {
            Self::Diagonal(d) => {
                for ((out, d), v) in out.iter_mut().zip(d).zip(v) {
                    *out += scale * d * v;
                }
            }
            Self::Lower { columns, .. } => {
                let n = v.len();
                for (j, column) in columns.chunks_exact(n).enumerate() {
                    let s = scale * v[j];
                    for (out, a) in out[j..].iter_mut().zip(&column[j..]) {
                        *out += s * a;
                    }
                }
            }
        }
    }

    /// out += scale A' r
    pub fn add_transposed(&self, scale: f64, r: &[f64], out: &mut [f64]) {
        match self {
            Self::Diagonal(_) => self.add(scale, r, out),
            Self::Lower { rows, .. } => {
                let n = r.len();
                for (i, row) in rows.chunks_exact(n).enumerate() {
                    let s = scale * r[i];
                    for (out, a) in out[..=i].iter_mut().zip(&row[..=i]) {
                        *out += s * a;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factor_multiplies_back_to_its_covariance() {
        let covariance = [4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let factor = Factor::covariance(&covariance, 3, false);
        assert!(matches!(factor, Factor::Lower { .. }));
        for (j, expected) in covariance.chunks(3).enumerate() {
            let (mut unit, mut half, mut whole) = ([0.0; 3], [0.0; 3], [1.0; 3]);
            unit[j] = 1.0;
            factor.add_transposed(1.0, &unit, &mut half);
            factor.add(2.0, &half, &mut whole);
            assert!(whole.iter().zip(expected).all(|(w, e)| (w - 1.0 - 2.0 * e).abs() < 1e-12), "{whole:?}");
        }
    }

    #[test]
    fn factor_of_what_is_not_positive_definite_is_its_deviations() {
        let Factor::Diagonal(d) = Factor::covariance(&[4.0, 4.0, 4.0, 4.0 - 1e-3], 2, false) else { panic!() };
        assert_eq!(d[0], 2.0);
        assert!(matches!(Factor::covariance(&[1.0, 0.5, 0.5, 1.0], 2, true), Factor::Diagonal(_)));
    }
}
