//! How well the parameters of a model were estimated.

use super::{Estimate, coverage, rank, ratio_of_squares};
use ndarray::{ArrayView1, ArrayView2, Axis};
use serde::Serialize;

/// Estimated parameters against the true ones, over all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ParameterQuality<T = f64> {
    /// Root mean square error of the posterior mean.
    pub rmse: T,
    /// Root of the mean posterior variance.
    pub spread: T,
    /// Share of the true parameters in their central 50 % interval: see [`coverage()`].
    pub coverage_50: T,
    /// The same for the central 90 %.
    pub coverage_90: T,
}

impl ParameterQuality {
    /// From samples `[samples, parameters]`; `None` of fewer than two.
    pub fn new(samples: ArrayView2<f64>, truth: ArrayView1<f64>) -> Option<Self> {
        let (count, parameters) = samples.dim();
        if count < 2 || parameters == 0 {
            return None;
        }
        let mean = samples.mean_axis(Axis(0))?;
        let over = |values: Vec<f64>| values.iter().sum::<f64>() / parameters as f64;
        let ranks: Vec<_> = (samples.axis_iter(Axis(1)).zip(truth))
            .map(|(column, truth)| {
                let mut sorted = column.to_vec();
                sorted.sort_unstable_by(f64::total_cmp);
                rank(&sorted, *truth)
            })
            .collect();
        Some(Self {
            rmse: over((&mean - &truth).iter().map(|e| e * e).collect()).sqrt(),
            spread: over(samples.var_axis(Axis(0), 1.0).to_vec()).sqrt(),
            coverage_50: over(ranks.iter().map(|r| coverage(*r, 0.5)).collect()),
            coverage_90: over(ranks.iter().map(|r| coverage(*r, 0.9)).collect()),
        })
    }

    /// Over repeated twins, the errors and spreads by their squares; `None` where there are none.
    pub(super) fn over(twins: &[Self]) -> Option<ParameterQuality<Estimate>> {
        let squares = |f: fn(&Self) -> f64| ratio_of_squares(&twins.iter().map(|q| (f(q), 1.0)).collect::<Vec<_>>());
        let mean = |f: fn(&Self) -> f64| Estimate::new(&twins.iter().map(f).collect::<Vec<_>>());
        Some(ParameterQuality {
            rmse: squares(|q| q.rmse)?,
            spread: squares(|q| q.spread)?,
            coverage_50: mean(|q| q.coverage_50)?,
            coverage_90: mean(|q| q.coverage_90)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn parameters_of_a_worked_example() {
        let samples = array![[7.0, 1.0], [9.0, 3.0], [8.0, 2.0]];
        let quality = ParameterQuality::new(samples.view(), array![8.5, 10.0].view()).unwrap();
        // Errors 0.5 and 8, variances 1 and 1; three samples, four cells: the truths lie in the third and in the last.
        assert_eq!((quality.rmse, quality.spread), ((64.25f64 / 2.0).sqrt(), 1.0));
        assert_eq!((quality.coverage_50, quality.coverage_90), (0.5, 0.9));
        let over = ParameterQuality::over(&[quality, quality]).unwrap();
        assert_eq!((over.rmse.mean, over.rmse.count), (quality.rmse, 2));
        assert_eq!(ParameterQuality::new(samples.slice(ndarray::s![..1, ..]), array![0.0, 0.0].view()), None);
    }
}
