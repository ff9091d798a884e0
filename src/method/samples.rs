//! Samples of a posterior: their mean and spread without the diverged ones.

use crate::engine::DIVERGED;
use crate::error::{Error, Result};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis, Zip};

/// Share of diverged members from which on an answer means nothing: the default of every method.
pub(super) const MAX_DIVERGED_SHARE: f64 = 0.5;

/// Trajectories sampled from a posterior.
pub(super) struct Samples {
    /// Mean over the samples: `[times, sites]`.
    pub mean: Array2<f64>,
    /// Standard deviation over the samples (divisor one less than their number): `[times, sites]`.
    pub std: Array2<f64>,
    /// Those that did not diverge: `[samples, times, sites]`.
    pub trajectories: Array3<f64>,
    /// Which of all these are.
    pub kept: Vec<usize>,
    /// How many diverged.
    pub diverged: usize,
}

impl Samples {
    /// Leaves out the trajectories that diverged, and sums up the others.
    ///
    /// # Errors
    /// More than `max_diverged_share` of them, or all but one, diverged.
    pub fn new(all: ArrayView3<f64>, what: &str, max_diverged_share: f64) -> Result<Self> {
        let count = all.len_of(Axis(0));
        let sound = |t: &usize| all.index_axis(Axis(0), *t).iter().all(|x| x.abs() < DIVERGED);
        let kept: Vec<usize> = (0..count).filter(sound).collect();
        let diverged = count - kept.len();
        if kept.len() < 2 || diverged as f64 > max_diverged_share * count as f64 {
            return Err(Error::Diverged { what: format!("the samples of {what}"), diverged, members: count });
        }
        let trajectories = if diverged == 0 { all.to_owned() } else { all.select(Axis(0), &kept) };
        let mean = trajectories.mean_axis(Axis(0)).expect("at least two samples");
        let std = trajectories.std_axis(Axis(0), 1.0);
        Ok(Self { mean, std, trajectories, kept, diverged })
    }
}

/// A weighted mean and deviation of trajectories, updated one at a time (West 1979).
pub(super) struct Spread {
    mean: Array2<f64>,
    /// Weighted sum of squared deviations from the mean.
    deviation: Array2<f64>,
    weight: f64,
    square_weight: f64,
}

impl Spread {
    pub fn new(times: usize, sites: usize) -> Self {
        let zeros = Array2::zeros((times, sites));
        Self { mean: zeros.clone(), deviation: zeros, weight: 0.0, square_weight: 0.0 }
    }

    /// Adds a trajectory `[times, sites]` of weight >= 0.
    pub fn add(&mut self, trajectory: ArrayView2<f64>, weight: f64) {
        if weight == 0.0 {
            return;
        }
        self.weight += weight;
        self.square_weight += weight * weight;
        let share = weight / self.weight;
        Zip::from(&mut self.mean).and(&mut self.deviation).and(trajectory).for_each(|mean, deviation, x| {
            let gap = x - *mean;
            *mean += share * gap;
            *deviation += weight * gap * (x - *mean);
        });
    }

    /// `[times, sites]`
    pub fn mean(&self) -> &Array2<f64> {
        &self.mean
    }

    /// Standard deviation, unbiased in the variance: with equal weights the divisor is one less than the number.
    /// `[times, sites]`; 0 where all weight is on one.
    pub fn std(&self) -> Array2<f64> {
        let divisor = self.weight - self.square_weight / self.weight;
        if divisor <= 0.0 {
            return Array2::zeros(self.mean.raw_dim());
        }
        self.deviation.mapv(|d| (d / divisor).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn samples_leave_the_diverged_out() {
        let all = array![[[1.0, 2.0]], [[f64::NAN, 0.0]], [[3.0, 6.0]], [[0.0, 1e39]]];
        let s = Samples::new(all.view(), "q", 0.5).unwrap();
        assert_eq!((s.mean, s.diverged), (array![[2.0, 4.0]], 2));
        assert!((&s.std - &array![[2f64.sqrt(), 8f64.sqrt()]]).iter().all(|d| d.abs() < 1e-14));
        assert_eq!(s.trajectories.shape(), [2, 1, 2]);
        assert!(matches!(Samples::new(all.view(), "q", 0.4), Err(Error::Diverged { diverged: 2, members: 4, .. })));
    }

    #[test]
    fn a_spread_by_weights_is_that_of_repeated_trajectories() {
        let all = array![[[1.0, 2.0]], [[1.0, 2.0]], [[4.0, -6.0]], [[0.5, 1.0]]];
        let want = Samples::new(all.view(), "q", 0.5).unwrap();
        let mut equal = Spread::new(1, 2);
        all.outer_iter().for_each(|t| equal.add(t, 3.0));
        assert!((equal.mean() - &want.mean).iter().chain(&(equal.std() - &want.std)).all(|d| d.abs() < 1e-14));
        let mut weighted = Spread::new(1, 2);
        for (k, weight) in [(1, 2.0), (2, 1.0), (3, 1.0), (0, 0.0)] {
            weighted.add(all.index_axis(Axis(0), k), weight);
        }
        assert!((weighted.mean() - &want.mean).iter().all(|d| d.abs() < 1e-14));
        // The same sum of squares, over 4 - 6/4 and not over 3.
        let ratio = (3.0f64 / 2.5).sqrt();
        assert!((weighted.std() - &want.std * ratio).iter().all(|d| d.abs() < 1e-14));
    }
}
