//! Whether a sample is Gaussian: skewness and kurtosis of all its dimensions together.

use nalgebra::{Cholesky, DMatrix};
use ndarray::{ArrayView2, Axis};
use serde::Serialize;
use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

/// Mardia's multivariate skewness and kurtosis (Mardia 1970), with how likely larger departures are in a sample of
/// independent Gaussians. Correlated samples make these too small.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mardia {
    /// Mean of (x_i' S^-1 x_j)^3 over all pairs; 0 for a symmetric distribution.
    pub skewness: f64,
    /// Its probability under normality.
    pub skewness_p: f64,
    /// Mean of (x_i' S^-1 x_i)^2 over its value for a Gaussian, d (d + 2): above 1 for heavy tails.
    pub kurtosis: f64,
    /// Its probability under normality, of both sides.
    pub kurtosis_p: f64,
}

/// Of `sample: [rows, d]`. Nothing where there are no more rows than d + 1, or they do not span all dimensions.
pub fn mardia(sample: ArrayView2<f64>) -> Option<Mardia> {
    let (rows, d) = sample.dim();
    if rows <= d + 1 {
        return None;
    }
    let departures = &sample - &sample.mean_axis(Axis(0))?;
    let covariance = departures.t().dot(&departures) / rows as f64;
    let lower = Cholesky::new(DMatrix::from_fn(d, d, |i, j| covariance[[i, j]]))?.l();
    let whitened = lower.solve_lower_triangular(&DMatrix::from_fn(d, rows, |i, k| departures[[k, i]]))?;
    let products = whitened.transpose() * &whitened;
    let (n, d) = (rows as f64, d as f64);
    let skewness = products.iter().map(|p| p.powi(3)).sum::<f64>() / (n * n);
    let kurtosis = (0..rows).map(|k| products[(k, k)].powi(2)).sum::<f64>() / n;
    let gaussian = d * (d + 2.0);
    let of_skewness = ChiSquared::new(d * (d + 1.0) * (d + 2.0) / 6.0).ok()?;
    let of_kurtosis = (kurtosis - gaussian) / (8.0 * gaussian / n).sqrt();
    Some(Mardia {
        skewness,
        skewness_p: of_skewness.sf(n * skewness / 6.0),
        kurtosis: kurtosis / gaussian,
        kurtosis_p: 2.0 * Normal::standard().sf(of_kurtosis.abs()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;
    use ndarray::array;

    /// One dimension: the squared skewness and the kurtosis of the textbook.
    #[test]
    fn one_dimension_is_the_textbook() {
        let sample = array![[1.0], [2.0], [4.0], [9.0]];
        let m: Vec<f64> = (2..5).map(|k| sample.iter().map(|x| (x - 4.0f64).powi(k)).sum::<f64>() / 4.0).collect();
        let found = mardia(sample.view()).unwrap();
        assert!((found.skewness - m[1] * m[1] / m[0].powi(3)).abs() < 1e-12);
        assert!((found.kurtosis - m[2] / m[0].powi(2) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn gaussians_pass_and_others_do_not() {
        let gaussian = normals(1, (1, 1000, 5)).remove_axis(Axis(0));
        let mixed = gaussian.dot(&normals(2, (1, 5, 5)).remove_axis(Axis(0)));
        let found = mardia(mixed.view()).unwrap();
        assert!(found.skewness_p > 0.01 && found.kurtosis_p > 0.01, "{found:?}");
        let heavy = &gaussian * &normals(3, (1, 1000, 1)).remove_axis(Axis(0)).mapv(f64::abs);
        let found = mardia(heavy.view()).unwrap();
        assert!(found.kurtosis > 1.3 && found.kurtosis_p < 1e-6, "{found:?}");
        let skew = mardia(gaussian.mapv(f64::exp).view()).unwrap();
        assert!(skew.skewness_p < 1e-6, "{skew:?}");
        assert_eq!(mardia(gaussian.slice(ndarray::s![..6, ..])), None);
    }
}
