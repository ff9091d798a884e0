//! The minimum of the cost as a test of the whole problem (Bennett-Talagrand).

use super::Estimate;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF};

/// 2 J_min against chi-squared with p degrees of freedom, p the number of assimilated observations: what it follows
/// where model and operator are linear, errors Gaussian, and B and R right (Bennett 1992; Talagrand; Michel 2014).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostFit {
    /// 2 J_min.
    pub twice_minimum: f64,
    /// p.
    pub observations: usize,
    /// P(chi-squared >= 2 J_min): near 0 for a spurious minimum or errors stated too small, near 1 for errors stated
    /// too large.
    pub p_value: f64,
}

impl CostFit {
    /// `None` without observations, or where the minimum is not a finite number >= 0.
    pub fn new(twice_minimum: f64, observations: usize) -> Option<Self> {
        let sound = twice_minimum.is_finite() && twice_minimum >= 0.0;
        let p_value = upper_tail(twice_minimum, observations).filter(|_| sound)?;
        Some(Self { twice_minimum, observations, p_value })
    }
}

/// P(chi-squared with `degrees` >= x); `None` for 0 degrees.
pub(super) fn upper_tail(x: f64, degrees: usize) -> Option<f64> {
    ChiSquared::new(degrees as f64).ok().map(|distribution| distribution.sf(x))
}

/// [`CostFit`] over repeated twins: J_min has mean p/2 and variance p/2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CostFitSummary {
    /// J_min.
    pub minimum: Estimate,
    /// The mean of p/2 over the twins: what `minimum` should be.
    pub expected_minimum: f64,
    /// Variance of J_min - p/2 over the twins, with its standard error (from the fourth moment); `None` for fewer than
    /// two twins.
    pub variance: Option<Estimate>,
    /// The mean of p/2 again: what `variance` should be.
    pub expected_variance: f64,
    /// P(chi-squared >= sum of 2 J_min), as many degrees of freedom as all twins have observations.
    pub p_value: f64,
}

impl CostFitSummary {
    /// `None` where there are no twins.
    pub fn new(fits: &[CostFit]) -> Option<Self> {
        let over = |f: fn(&CostFit) -> f64| fits.iter().map(f).collect::<Vec<_>>();
        let minimum = Estimate::new(&over(|f| f.twice_minimum / 2.0))?;
        let expected = Estimate::new(&over(|f| f.observations as f64 / 2.0))?.mean;
        let p_value =
            upper_tail(fits.iter().map(|f| f.twice_minimum).sum(), fits.iter().map(|f| f.observations).sum())?;
        let variance = variance(&over(|f| (f.twice_minimum - f.observations as f64) / 2.0));
        Some(Self { minimum, expected_minimum: expected, variance, expected_variance: expected, p_value })
    }
}

/// Sample variance s^2 with divisor n - 1, and its standard error: Var(s^2) = (m4 - s^4 (n - 3) / (n - 1)) / n.
fn variance(values: &[f64]) -> Option<Estimate> {
    let n = values.len() as f64;
    if n < 2.0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let moment = |k| values.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / n;
    let square = moment(2) * n / (n - 1.0);
    let error = ((moment(4) - square * square * (n - 3.0) / (n - 1.0)) / n).max(0.0).sqrt();
    Some(Estimate { mean: square, standard_error: Some(error), count: values.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;

    /// Chi-squared with 2 degrees is exponential: P(>= x) = exp(-x/2); and the 5 % points of any table.
    #[test]
    fn p_values_are_those_of_tables() {
        let p = |x, degrees| CostFit::new(x, degrees).unwrap().p_value;
        assert!((p(3.0, 2) - (-1.5f64).exp()).abs() < 1e-12);
        for (x, degrees) in [(3.841, 1), (18.307, 10), (124.342, 100)] {
            assert!((p(x, degrees) - 0.05).abs() < 2e-5, "{degrees}");
        }
        assert_eq!(p(0.0, 5), 1.0);
        assert!(p(1e5, 90) < 1e-300);
        assert_eq!((CostFit::new(1.0, 0), CostFit::new(f64::NAN, 4), CostFit::new(-1.0, 4)), (None, None, None));
    }

    /// Half sums of p squared normals, p differing from twin to twin.
    #[test]
    fn summary_of_chi_squared_minima_meets_its_expectations() {
        let z = normals(1, (2000, 60, 1));
        let fit = |(k, z): (usize, ndarray::ArrayView2<f64>)| {
            let p = 40 + k % 21;
            CostFit::new(z.iter().take(p).map(|z| z * z).sum(), p).unwrap()
        };
        let fits: Vec<_> = z.outer_iter().enumerate().map(fit).collect();
        let summary = CostFitSummary::new(&fits).unwrap();
        let variance = summary.variance.unwrap();
        assert!((summary.expected_minimum - 25.0).abs() < 0.1);
        let off = |e: Estimate, expected: f64| (e.mean - expected) / e.standard_error.unwrap();
        assert!(off(summary.minimum, summary.expected_minimum).abs() < 4.0, "{summary:?}");
        assert!(off(variance, summary.expected_variance).abs() < 4.0, "{summary:?}");
        // The error of a variance of nearly normal values: s^2 sqrt(2 / n), here 4 % more for the kurtosis.
        assert!((variance.standard_error.unwrap() / variance.mean / (2.0f64 / 2000.0).sqrt() - 1.0).abs() < 0.2);
        assert!((0.001..0.999).contains(&summary.p_value), "{summary:?}");
        // Twice the cost is found out.
        let twice: Vec<_> = fits.iter().map(|f| CostFit::new(2.0 * f.twice_minimum, f.observations).unwrap()).collect();
        assert!(CostFitSummary::new(&twice).unwrap().p_value < 1e-10);
        assert_eq!(CostFitSummary::new(&[]), None);
        assert_eq!(CostFitSummary::new(&fits[..1]).unwrap().variance, None);
    }
}
