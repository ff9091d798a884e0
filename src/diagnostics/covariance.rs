//! Sample covariances and correlations of the state.

use super::Periods;
use ndarray::{Array2, ArrayView2, ArrayView3, Axis};

/// Sample covariance of `samples: [M, sites]` with divisor M - 1: `[sites, sites]`.
///
/// # Panics
/// If there are fewer than two samples.
pub fn covariance(samples: ArrayView2<f64>) -> Array2<f64> {
    assert!(samples.nrows() >= 2, "a covariance needs two samples");
    let deviations = &samples - &samples.mean_axis(Axis(0)).expect("two samples");
    deviations.t().dot(&deviations) / (samples.nrows() - 1) as f64
}

/// The correlations of a covariance `[sites, sites]`; NaN beside a variance of 0.
pub fn correlation(covariance: ArrayView2<f64>) -> Array2<f64> {
    let std = covariance.diag().mapv(f64::sqrt);
    Array2::from_shape_fn(covariance.dim(), |(i, j)| {
        if i == j && std[i] > 0.0 { 1.0 } else { covariance[[i, j]] / (std[i] * std[j]) }
    })
}

/// Sample covariances at time 0, at the window's end and at the forecast's end: `samples: [M, times, sites]`.
///
/// # Panics
/// If there are fewer than two samples, or `assimilated_times` is not from 1 to times.
pub fn covariances(samples: ArrayView3<f64>, assimilated_times: usize) -> Periods<Array2<f64>> {
    let ends = Periods::new(samples.len_of(Axis(1)), assimilated_times).ends();
    ends.map(|time| covariance(samples.index_axis(Axis(1), *time)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn covariance_of_a_worked_example() {
        let samples = array![[1.0, 2.0], [2.0, 6.0], [3.0, 4.0]];
        let covariance = covariance(samples.view());
        assert_eq!(covariance, array![[1.0, 1.0], [1.0, 4.0]]);
        assert_eq!(correlation(covariance.view()), array![[1.0, 0.5], [0.5, 1.0]]);
        let trajectories = ndarray::stack![Axis(1), samples, 2.0 * &samples, 3.0 * &samples];
        let all = covariances(trajectories.view(), 2);
        let nine = &covariance * 9.0;
        assert_eq!(all, Periods { initial: covariance.clone(), window: covariance * 4.0, forecast: Some(nine) });
    }
}
