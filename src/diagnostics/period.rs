//! The three periods of a run over which scores are taken.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One thing for each period: time 0; the assimilated window, time 0 included; the stored times after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Periods<T> {
    /// At time 0.
    pub initial: T,
    /// Over the assimilated window.
    pub window: T,
    /// In the forecast; `None` where every stored time is assimilated.
    pub forecast: Option<T>,
}

impl Periods<Range<usize>> {
    /// The stored times of each period.
    ///
    /// # Panics
    /// If `assimilated_times` is not from 1 to `times`.
    pub fn new(times: usize, assimilated_times: usize) -> Self {
        assert!((1..=times).contains(&assimilated_times), "{assimilated_times} of {times} times assimilated");
        let forecast = (assimilated_times < times).then_some(assimilated_times..times);
        Self { initial: 0..1, window: 0..assimilated_times, forecast }
    }

    /// The last stored time of each period: 0, the window's end, the forecast's end.
    pub fn ends(&self) -> Periods<usize> {
        self.map(|times| times.end - 1)
    }

    /// The mean of each period of one number per time.
    ///
    /// # Panics
    /// If there are fewer numbers than times.
    pub fn means(&self, per_time: &[f64]) -> Periods<f64> {
        self.map(|times| per_time[times.clone()].iter().sum::<f64>() / times.len() as f64)
    }
}

impl<T> Periods<T> {
    /// Something else for each period.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> Periods<U> {
        Periods { initial: f(&self.initial), window: f(&self.window), forecast: self.forecast.as_ref().map(f) }
    }

    /// The periods that there are, by name, in the order of time.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &T)> {
        let forecast = self.forecast.as_ref().map(|f| ("forecast", f));
        [("initial", &self.initial), ("window", &self.window)].into_iter().chain(forecast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_split_the_stored_times() {
        let periods = Periods::new(4, 3);
        assert_eq!(periods, Periods { initial: 0..1, window: 0..3, forecast: Some(3..4) });
        assert_eq!(periods.ends(), Periods { initial: 0, window: 2, forecast: Some(3) });
        let means = periods.means(&[1.0, 2.0, 6.0, 5.0]);
        assert_eq!(means, Periods { initial: 1.0, window: 3.0, forecast: Some(5.0) });
        assert_eq!(Periods::new(4, 4).forecast, None);
        assert_eq!(
            means.named().map(|(n, v)| format!("{n} {v}")).collect::<Vec<_>>().join(", "),
            "initial 1, window 3, forecast 5"
        );
    }
}
