//! How far one posterior is from a reference posterior, in the reference's deviations.

use super::{covariance, coverage, rank};
use ndarray::{Array2, ArrayView2, Zip};

/// Root mean square over times and sites of (mean - reference mean) / reference deviation, all `[times, sites]`.
/// 0 is equal; 1 is off by a deviation. The reference's own Monte Carlo error is in it: 1 / sqrt(its effective size).
///
/// # Panics
/// If the shapes differ.
pub fn distance_of_mean(mean: ArrayView2<f64>, reference: ArrayView2<f64>, std: ArrayView2<f64>) -> f64 {
    let square = |sum, m: &f64, r: &f64, s: &f64| sum + ((m - r) / s).powi(2);
    (Zip::from(mean).and(reference).and(std).fold(0.0, square) / std.len() as f64).sqrt()
}

/// Root mean square over times and sites of log(deviation / reference deviation), both `[times, sites]`: 0 is equal,
/// 0.69 is half or twice as wide, infinity a deviation of 0.
///
/// # Panics
/// If the shapes differ.
pub fn distance_of_std(std: ArrayView2<f64>, reference: ArrayView2<f64>) -> f64 {
    let square = |sum, s: &f64, r: &f64| sum + (s / r).ln().powi(2);
    (Zip::from(std).and(reference).fold(0.0, square) / std.len() as f64).sqrt()
}

/// Frobenius norm of the difference of two sample covariances, in that of the reference's: `samples: [M, sites]`,
/// `reference: [N, sites]`. 0 is equal. Two samples of one distribution are about sqrt(effective rank (1/M + 1/N)) apart.
///
/// # Panics
/// If they have another number of sites, or fewer than two samples.
pub fn distance_of_covariance(samples: ArrayView2<f64>, reference: ArrayView2<f64>) -> f64 {
    let norm = |matrix: &Array2<f64>| matrix.iter().map(|v| v * v).sum::<f64>().sqrt();
    let expected = covariance(reference);
    norm(&(covariance(samples) - &expected)) / norm(&expected)
}

/// Share of a reference posterior's samples inside the samples' own central interval of that level, averaged over the
/// sites: `samples: [M, sites]`, `reference: [N, sites]`. The level itself, on average, where both are of one
/// distribution, however few they are: see [`coverage()`]. NaN where there are none.
///
/// # Panics
/// If they have another number of sites.
pub fn coverage_of(samples: ArrayView2<f64>, reference: ArrayView2<f64>, level: f64) -> f64 {
    assert_eq!(samples.ncols(), reference.ncols(), "both must have the same sites");
    let mut sum = 0.0;
    for (samples, reference) in samples.columns().into_iter().zip(reference.columns()) {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        sum += reference.iter().map(|x| coverage(rank(&sorted, *x), level)).sum::<f64>();
    }
    sum / reference.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;
    use ndarray::{Axis, array};

    #[test]
    fn covariances_differ_by_what_is_missing() {
        // Covariances [[2, 2], [2, 2]] and its diagonal: sqrt(8) / sqrt(16) missing.
        let reference = array![[-1.0, -1.0], [1.0, 1.0]];
        let independent = array![[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]] * (1.5f64).sqrt();
        assert_eq!(distance_of_covariance(reference.view(), reference.view()), 0.0);
        let distance = distance_of_covariance(independent.view(), reference.view());
        assert!((distance - 0.5f64.sqrt()).abs() < 1e-12, "{distance}");
    }

    #[test]
    fn coverage_of_a_reference_is_that_of_its_distribution() {
        let draws = |seed, count| normals(seed, (1, count, 6)).remove_axis(Axis(0));
        let reference: Array2<f64> = draws(1, 20_000);
        // 2 Phi(1.645 s) - 1 of a sample of deviation s; few samples cover as much on average.
        for (s, covered) in [(1.0, 0.9), (0.5, 0.5892), (2.0, 0.998_98)] {
            let own = draws(2, 20_000) * s;
            assert!((coverage_of(own.view(), reference.view(), 0.9) - covered).abs() < 0.006, "{s}");
        }
        let few = (0..200).map(|k| coverage_of(draws(10 + k, 19).view(), reference.view(), 0.9)).sum::<f64>() / 200.0;
        assert!((few - 0.9).abs() < 0.01, "{few}");
        let shifted = coverage_of((draws(2, 20_000) + 1e6).view(), reference.view(), 0.9);
        assert!(shifted == 0.0 && coverage_of(reference.view(), draws(3, 0).view(), 0.9).is_nan());
    }

    #[test]
    fn distances_of_worked_examples() {
        let (mean, reference, std) = (array![[1.0, 5.0]], array![[2.0, 2.0]], array![[1.0, 3.0]]);
        assert_eq!(distance_of_mean(mean.view(), reference.view(), std.view()), 1.0);
        assert_eq!(distance_of_mean(mean.view(), mean.view(), std.view()), 0.0);
        let wide = array![[2.0, 1.5]];
        assert!((distance_of_std(wide.view(), std.view()) - 2f64.ln()).abs() < 1e-15);
        assert_eq!(distance_of_std(array![[0.0, 1.0]].view(), std.view()), f64::INFINITY);
    }
}
