//! Error of the mean and spread: at the initial time, over the assimilated window, and in the forecast.

use ndarray::{ArrayView2, s};
use serde::Serialize;

/// Scores of one analysis, all in the units of the state.
///
/// The window is the assimilated times, the initial one included; the forecast is the stored times after them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Root mean square error of the mean at time 0.
    pub rmse_initial: f64,
    /// The same over the assimilated window.
    pub rmse_window: f64,
    /// The same in the forecast; `None` where every stored time is assimilated.
    pub rmse_forecast: Option<f64>,
    /// Mean posterior standard deviation at time 0.
    pub std_initial: f64,
    /// The same over the assimilated window.
    pub std_window: f64,
    /// The same in the forecast.
    pub std_forecast: Option<f64>,
}

impl Scores {
    /// Scores of `mean` and `std` against `truth`, each `[times, sites]`.
    ///
    /// # Panics
    /// If the shapes differ or `assimilated_times` is not from 1 to times.
    pub fn new(mean: ArrayView2<f64>, std: ArrayView2<f64>, truth: ArrayView2<f64>, assimilated_times: usize) -> Self {
        assert_eq!(mean.shape(), truth.shape(), "mean and truth must have one shape");
        assert_eq!(std.shape(), truth.shape(), "std and truth must have one shape");
        let times = truth.nrows();
        let rmse = |from: usize, to: usize| {
            let error = &mean.slice(s![from..to, ..]) - &truth.slice(s![from..to, ..]);
            (error.mapv(|e| e * e).mean().expect("times were checked")).sqrt()
        };
        let spread = |from: usize, to: usize| std.slice(s![from..to, ..]).mean().expect("times were checked");
        let forecast = assimilated_times < times;
        Self {
            rmse_initial: rmse(0, 1),
            rmse_window: rmse(0, assimilated_times),
            rmse_forecast: forecast.then(|| rmse(assimilated_times, times)),
            std_initial: spread(0, 1),
            std_window: spread(0, assimilated_times),
            std_forecast: forecast.then(|| spread(assimilated_times, times)),
        }
    }

    /// The mean of each score over several analyses.
    ///
    /// # Panics
    /// If there are none.
    pub fn average(scores: &[Self]) -> Self {
        assert!(!scores.is_empty(), "an average needs at least one");
        let mean = |score: fn(&Self) -> f64| scores.iter().map(score).sum::<f64>() / scores.len() as f64;
        let forecast = scores.iter().all(|s| s.rmse_forecast.is_some());
        Self {
            rmse_initial: mean(|s| s.rmse_initial),
            rmse_window: mean(|s| s.rmse_window),
            rmse_forecast: forecast.then(|| mean(|s| s.rmse_forecast.unwrap_or(f64::NAN))),
            std_initial: mean(|s| s.std_initial),
            std_window: mean(|s| s.std_window),
            std_forecast: forecast.then(|| mean(|s| s.std_forecast.unwrap_or(f64::NAN))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn scores_of_a_worked_example() {
        let truth = array![[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]];
        let mean = array![[3.0, 4.0], [1.0, 1.0], [2.0, 4.0]];
        let std = array![[1.0, 3.0], [4.0, 4.0], [0.5, 1.5]];
        let scores = Scores::new(mean.view(), std.view(), truth.view(), 2);
        assert_eq!(scores.rmse_initial, 12.5f64.sqrt());
        assert_eq!(scores.rmse_window, 6.25f64.sqrt());
        assert_eq!(scores.rmse_forecast, Some(2.0f64.sqrt()));
        assert_eq!((scores.std_initial, scores.std_window, scores.std_forecast), (2.0, 3.0, Some(1.0)));
    }

    #[test]
    fn scores_without_a_forecast() {
        let zeros = Array2::<f64>::zeros((3, 4));
        let scores = Scores::new(zeros.view(), zeros.view(), zeros.view(), 3);
        assert_eq!((scores.rmse_forecast, scores.std_forecast), (None, None));
    }
}
