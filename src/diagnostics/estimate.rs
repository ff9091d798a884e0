//! Means over repeated twins with their standard errors.

use serde::Serialize;

/// A mean over independent repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error: sample deviation / sqrt(count). `None` for a single repetition.
    pub standard_error: Option<f64>,
    /// Repetitions that had the score.
    pub count: usize,
}

impl Estimate {
    /// The mean of `values`; `None` where there are none.
    pub fn new(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        let standard_error = (count > 1).then(|| (squares / (count - 1) as f64 / count as f64).sqrt());
        (count > 0).then_some(Self { mean, standard_error, count })
    }
}

/// sqrt(mean a^2 / mean b^2) over pairs (a, b): the spread-skill ratio over repeated twins from each one's spread and
/// RMSE. Unlike the mean of the ratios it is 1 for a calibrated ensemble however few sites a twin has; its standard
/// error is that of its linearisation. `None` where there are no pairs.
pub fn ratio_of_squares(pairs: &[(f64, f64)]) -> Option<Estimate> {
    let count = pairs.len();
    let mean = |f: fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / count as f64;
    let (a, b) = (mean(|p| p.0 * p.0), mean(|p| p.1 * p.1));
    let ratio = (a / b).sqrt();
    let influence: Vec<f64> = pairs.iter().map(|p| ratio / 2.0 * (p.0 * p.0 / a - p.1 * p.1 / b)).collect();
    Estimate::new(&influence).map(|e| Estimate { mean: ratio, ..e })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;

    #[test]
    fn estimate_of_a_worked_example() {
        let estimate = Estimate::new(&[1.0, 2.0, 3.0, 6.0]).unwrap();
        // Squared deviations 4, 1, 0, 9: variance 14 / 3.
        assert_eq!((estimate.mean, estimate.count), (3.0, 4));
        assert!((estimate.standard_error.unwrap() - (14.0f64 / 12.0).sqrt()).abs() < 1e-15);
        assert_eq!(Estimate::new(&[7.0]).unwrap(), Estimate { mean: 7.0, standard_error: None, count: 1 });
        assert_eq!(Estimate::new(&[]), None);
    }

    /// The linearised error against the scatter of the ratio over 2000 repetitions.
    #[test]
    fn ratio_has_the_standard_error_that_it_states() {
        let z = normals(1, (2000, 40, 2)).mapv(f64::abs);
        let mut ratios = Vec::new();
        let mut stated = Vec::new();
        for repetition in z.outer_iter() {
            let pairs: Vec<_> = repetition.outer_iter().map(|p| (1.0 + 0.2 * p[0], 1.0 + p[1])).collect();
            let estimate = ratio_of_squares(&pairs).unwrap();
            ratios.push(estimate.mean);
            stated.push(estimate.standard_error.unwrap());
        }
        let scatter = Estimate::new(&ratios).unwrap().standard_error.unwrap() * 2000f64.sqrt();
        let stated = Estimate::new(&stated).unwrap().mean;
        assert!((stated / scatter - 1.0).abs() < 0.08, "{stated} {scatter}");
        assert_eq!(ratio_of_squares(&[(3.0, 2.0)]).unwrap(), Estimate { mean: 1.5, standard_error: None, count: 1 });
    }
}
