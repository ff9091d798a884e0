//! The continuous ranked probability score of a sample.

/// Fair CRPS of M >= 2 samples in ascending order against the truth: mean |X - y| minus half the mean |X - X'| over
/// pairs of different members, sum_ij |x_i - x_j| / (2 M (M - 1)) (Ferro 2013). In units of the state, lower is better;
/// its expectation does not depend on M. Negative values are possible.
///
/// The pairs cost one pass over the sorted samples: sum_{i<j} (x_j - x_i) = sum_i (2 i - M - 1) x_i, i from 1.
///
/// # Panics
/// If there are fewer than two samples.
pub fn fair_crps(sorted: &[f64], truth: f64) -> f64 {
    let m = sorted.len();
    assert!(m >= 2, "a fair score needs two samples");
    // Differences from the truth, so that a large common value costs no digits.
    let (mut distance, mut pairs) = (0.0, 0.0);
    for (i, x) in sorted.iter().enumerate() {
        let d = x - truth;
        distance += d.abs();
        pairs += (2.0 * i as f64 + 1.0 - m as f64) * d;
    }
    let m = m as f64;
    distance / m - pairs / (m * (m - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;

    #[test]
    fn crps_of_worked_examples() {
        assert_eq!(fair_crps(&[0.0, 1.0], 0.0), 0.0);
        // (1 + 0 + 2) / 3 - (1 + 3 + 2) * 2 / (2 * 3 * 2) = 1 - 1.
        assert_eq!(fair_crps(&[0.0, 1.0, 3.0], 1.0), 0.0);
        assert_eq!(fair_crps(&[2.0, 2.0, 2.0], 5.0), 3.0);
    }

    #[test]
    fn crps_equals_the_double_sum() {
        let mut x: Vec<f64> = normals(1, (1, 1, 50)).into_iter().collect();
        x.sort_by(f64::total_cmp);
        let mean = x.iter().map(|a| (a - 0.3).abs()).sum::<f64>() / 50.0;
        let pairs = x.iter().map(|a| x.iter().map(|b| (a - b).abs()).sum::<f64>()).sum::<f64>();
        let expected = mean - pairs / (2.0 * 50.0 * 49.0);
        assert!((fair_crps(&x, 0.3) - expected).abs() < 1e-14);
        let far: Vec<f64> = x.iter().map(|a| a + 1e9).collect();
        assert!((fair_crps(&far, 1e9 + 0.3) - expected).abs() < 1e-6);
    }

    /// Gneiting & Raftery 2007: CRPS(N(0, 1), y) = y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi), at y = 0.
    #[test]
    fn crps_of_many_normals_is_that_of_the_normal() {
        let mut x: Vec<f64> = normals(2, (1, 1, 200_000)).into_iter().collect();
        x.sort_by(f64::total_cmp);
        let exact = (2.0 - 2f64.sqrt()) / (2.0 * std::f64::consts::PI).sqrt();
        assert!((fair_crps(&x, 0.0) - exact).abs() < 0.004, "{exact}");
    }
}
