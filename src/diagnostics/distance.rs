//! How far one posterior is from a reference posterior, in the reference's deviations.

use ndarray::{ArrayView2, Zip};

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

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

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
