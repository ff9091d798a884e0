//! What a fit leaves behind of each iteration, and which iteration was the best.

use crate::error::{Error, Result};
use crate::method::Record;
use crate::posterior::Elbo;
use ndarray::Array1;

/// Draws at least that the share of diverged ones is taken over: a batch of one may lose its draw now and then.
const DIVERGENCE_DRAWS: usize = 32;

/// The ELBO's mean over some iterations.
#[derive(Clone, Copy, Debug)]
struct Window {
    mean: f64,
    /// Its standard error, taking iterations as independent.
    error: f64,
}

impl Window {
    /// Iterations with a diverged draw are left out; nothing if fewer than two remain.
    fn of(elbo: &[f64]) -> Option<Self> {
        let bounds = || elbo.iter().filter(|e| !e.is_nan());
        let count = bounds().count() as f64;
        if count < 2.0 {
            return None;
        }
        let mean = bounds().sum::<f64>() / count;
        let deviation: f64 = bounds().map(|e| (e - mean) * (e - mean)).sum();
        Some(Self { mean, error: (deviation / (count - 1.0) / count).sqrt() })
    }
}

/// That the fit returned is not the last one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fallback {
    pub iteration: usize,
    pub gain: f64,
    pub error: f64,
}

/// One iteration of one problem, before the optimiser's step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Relative to the cost alone.
    pub elbo: Elbo,
    pub entropy: f64,
    /// Means over the draws.
    pub cost_background: f64,
    pub cost_observation: f64,
    pub gradient_norm: f64,
    /// Draws that diverged.
    pub diverged: usize,
}

/// What a window's end has shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    /// It was the best so far: the parameters are worth keeping.
    pub best: bool,
    /// The ELBO has stopped rising.
    pub settled: bool,
}

/// The history of one problem.
#[derive(Clone)]
pub(super) struct Track {
    log_normalizer: f64,
    pub elbo: Vec<f64>,
    elbo_error: Vec<f64>,
    entropy: Vec<f64>,
    cost_background: Vec<f64>,
    cost_observation: Vec<f64>,
    gradient_norm: Vec<f64>,
    diverged: Vec<f64>,
    /// Iterations over which the share of diverged draws is taken, and how many diverged in the last of them.
    divergence_window: usize,
    recently_diverged: f64,
    previous: Option<Window>,
    /// The best window, and the iteration at its end.
    best: Option<(Window, usize)>,
}

impl Track {
    /// For a fit of `iterations` iterations with `batch` draws each.
    pub fn new(iterations: usize, batch: usize, log_normalizer: f64) -> Self {
        let series = || Vec::with_capacity(iterations);
        Self {
            log_normalizer,
            elbo: series(),
            elbo_error: series(),
            entropy: series(),
            cost_background: series(),
            cost_observation: series(),
            gradient_norm: series(),
            diverged: series(),
            divergence_window: DIVERGENCE_DRAWS.div_ceil(batch),
            recently_diverged: 0.0,
            previous: None,
            best: None,
        }
    }

    pub fn push(&mut self, step: Step) {
        self.elbo.push(step.elbo.value + self.log_normalizer);
        self.elbo_error.push(step.elbo.error);
        self.entropy.push(step.entropy);
        self.cost_background.push(step.cost_background);
        self.cost_observation.push(step.cost_observation);
        self.gradient_norm.push(step.gradient_norm);
        self.diverged.push(step.diverged as f64);
    }

    /// Refuses to go on once more than `share` of the recent draws diverged.
    pub fn check_divergence(&mut self, batch: usize, share: f64) -> Result<()> {
        let done = self.diverged.len();
        self.recently_diverged += self.diverged[done - 1];
        if done > self.divergence_window {
            self.recently_diverged -= self.diverged[done - 1 - self.divergence_window];
        }
        let draws = self.divergence_window * batch;
        if done < self.divergence_window || self.recently_diverged <= share * draws as f64 {
            return Ok(());
        }
        let what = format!("VI-4DVAR around iteration {done}");
        Err(Error::Diverged { what, diverged: self.recently_diverged as usize, members: draws })
    }

    /// At the end of a window of `len` iterations: whether it was the best, and whether the ELBO has stopped rising by
    /// more than `tolerance`.
    pub fn close_window(&mut self, len: usize, tolerance: Option<f64>) -> Closed {
        let done = self.elbo.len();
        let Some(window) = Window::of(&self.elbo[done - len..]) else { return Closed { best: false, settled: false } };
        let best = self.best.is_none_or(|(best, _)| window.mean > best.mean);
        if best {
            self.best = Some((window, done));
        }
        let settled = match (self.previous.replace(window), tolerance) {
            (Some(previous), Some(tolerance)) => window.mean - previous.mean < tolerance * previous.mean.abs().max(1.0),
            _ => false,
        };
        Closed { best, settled }
    }

    /// The best window, if it was better than the last `len` iterations beyond three standard errors.
    pub fn fallback(&self, len: usize) -> Option<Fallback> {
        let (best, iteration) = self.best?;
        let last = Window::of(&self.elbo[self.elbo.len().saturating_sub(len)..])?;
        let (gain, error) = (best.mean - last.mean, best.error.hypot(last.error));
        (gain > 3.0 * error).then_some(Fallback { iteration, gain, error })
    }

    /// Draws that diverged in all.
    pub fn diverged(&self) -> f64 {
        self.diverged.iter().sum()
    }

    pub fn records(&self) -> Vec<Record> {
        let series = [
            ("elbo", "ELBO, a bound on log p(y); NaN where a draw diverged", &self.elbo),
            ("elbo_error", "Monte Carlo standard error of elbo; NaN for fewer than two draws", &self.elbo_error),
            ("entropy", "entropy of the fitted distribution", &self.entropy),
            ("cost_background", "mean of the background cost over the draws", &self.cost_background),
            ("cost_observation", "mean of the observation cost over the draws", &self.cost_observation),
            ("gradient_norm", "norm of the gradient of -ELBO with respect to the parameters", &self.gradient_norm),
            ("diverged", "draws that diverged", &self.diverged),
        ];
        let record = |(name, long_name, values): (&str, &str, &Vec<f64>)| {
            Record::new(name, long_name, &["iteration"], Array1::from_vec(values.clone()))
        };
        series.into_iter().map(record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_fit_is_kept_only_beyond_its_monte_carlo_error() {
        // Means over 100 iterations have a standard error of 0.1, their difference one of 0.14.
        for (levels, kept) in [([0.0, 5.0, 1.0], Some(200)), ([0.0, 5.0, 4.7], None), ([0.0, 1.0, 2.0], None)] {
            let mut track = Track::new(300, 64, 0.0);
            for level in levels {
                track.elbo.extend((0..100).map(|i| level + if i % 2 == 0 { 1.0 } else { -1.0 }));
                track.close_window(100, None);
            }
            assert_eq!(track.fallback(100).map(|f| f.iteration), kept, "{levels:?}");
        }
    }

    #[test]
    fn windows_leave_out_iterations_without_a_bound() {
        let window = Window::of(&[1.0, f64::NAN, 3.0]).unwrap();
        assert_eq!((window.mean, window.error), (2.0, 1.0));
        assert!(Window::of(&[1.0, f64::NAN]).is_none());
    }

    #[test]
    fn diverged_draws_are_judged_over_a_window() {
        // 32 draws at 8 a time: a window of 4.
        let mut track = Track::new(10, 8, 0.0);
        let judge = |track: &mut Track, diverged: f64| {
            track.diverged.push(diverged);
            track.check_divergence(8, 0.5)
        };
        for diverged in [8.0, 8.0, 0.0, 0.0, 8.0, 8.0] {
            assert!(judge(&mut track, diverged).is_ok());
        }
        let error = judge(&mut track, 8.0).unwrap_err();
        assert!(matches!(error, Error::Diverged { diverged: 24, members: 32, .. }), "{error}");
    }
}
