//! Error of the mean, and the spread that goes with it.

use ndarray::{ArrayView2, Zip};

/// Root mean square error of `mean` against `truth`, both `[times, sites]`, over all of them.
///
/// # Panics
/// If the shapes differ.
pub fn rmse(mean: ArrayView2<f64>, truth: ArrayView2<f64>) -> f64 {
    let sum = Zip::from(mean).and(truth).fold(0.0, |sum, m, t| sum + (m - t) * (m - t));
    (sum / truth.len() as f64).sqrt()
}

/// Root of the mean variance over all times and sites, the RMSE that the mean should have: `std: [times, sites]`.
///
/// The mean of `samples` = M draws errs by 1/M more in variance than the posterior's own mean, so the variance of a
/// calibrated ensemble is counted (M + 1) / M times; `None` where mean and deviation come from no sample. The variances
/// are averaged, then the root is taken (Fortin et al. 2014). Divided by [`rmse`], the spread-skill ratio: ideal 1,
/// lower where the spread is too small.
pub fn spread(std: ArrayView2<f64>, samples: Option<usize>) -> f64 {
    let inflation = samples.map_or(1.0, |m| (m + 1) as f64 / m as f64);
    (inflation * std.iter().map(|s| s * s).sum::<f64>() / std.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn accuracy_of_a_worked_example() {
        let (mean, truth) = (array![[3.0, 4.0], [1.0, 1.0]], array![[0.0, 0.0], [1.0, 1.0]]);
        assert_eq!(rmse(mean.view(), truth.view()), 2.5);
        let std = array![[1.0, 3.0], [5.0, 1.0]];
        assert_eq!(spread(std.view(), None), 3.0);
        assert!((spread(std.view(), Some(4)) - 11.25f64.sqrt()).abs() < 1e-15);
    }
}
