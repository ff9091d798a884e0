//! What a fit leaves behind of each iteration, and which iteration was the best.

use crate::error::Error;
use crate::method::Record;
use crate::posterior::Elbo;
use ndarray::Array1;
use serde::{Deserialize, Serialize};

/// Draws at least that the share of diverged ones is taken over: a batch of one may lose its draw now and then.
const DIVERGENCE_DRAWS: usize = 32;

/// Share of the recent draws that may diverge, and more and more of them, before the step is halved.
const TOLERATED: f64 = 0.1;

/// The ELBO's mean over some iterations.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
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

/// How many of the recent draws diverge.
#[derive(Debug)]
pub(super) enum Soundness {
    /// Few, or it is not yet time to say.
    Sound,
    /// Some, and more than before.
    Worse,
    /// Too many for a gradient to mean anything.
    Lost(Error),
}

/// The history of one problem.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Track {
    log_normalizer: f64,
    pub elbo: Vec<f64>,
    elbo_error: Vec<f64>,
    entropy: Vec<f64>,
    cost_background: Vec<f64>,
    cost_observation: Vec<f64>,
    gradient_norm: Vec<f64>,
    diverged: Vec<f64>,
    /// Iterations over which the share of diverged draws is taken, how many diverged in the last of them, and how many in
    /// those of the last window that was whole; since the step was last halved.
    divergence_window: usize,
    recently_diverged: f64,
    diverged_before: f64,
    /// Iterations after which the step was halved because draws diverged.
    pub cuts: Vec<usize>,
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
            diverged_before: 0.0,
            cuts: Vec::new(),
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

    /// Judges the draws since the last cut of the step: lost where more than `share` of the recent ones diverged.
    pub fn soundness(&mut self, batch: usize, share: f64) -> Soundness {
        let window = self.divergence_window;
        let done = self.diverged.len() - self.cuts.last().unwrap_or(&0);
        let own = &self.diverged[self.diverged.len() - done..];
        self.recently_diverged += own[done - 1];
        if done > window {
            self.recently_diverged -= own[done - 1 - window];
        }
        if done < window {
            return Soundness::Sound;
        }
        let draws = window * batch;
        let recent = self.recently_diverged;
        if recent > share * draws as f64 {
            let what = format!("VI-4DVAR around iteration {}", self.diverged.len());
            return Soundness::Lost(Error::Diverged { what, diverged: recent as usize, members: draws });
        }
        if !done.is_multiple_of(window) {
            return Soundness::Sound;
        }
        let before = std::mem::replace(&mut self.diverged_before, recent);
        // In the first window there is nothing to compare with: a wide start may be on its way to a narrower fit.
        let worse = done > window && recent > before && recent > TOLERATED * draws as f64;
        if worse { Soundness::Worse } else { Soundness::Sound }
    }

    /// Whether no more than half of its first draws diverged: whether there is anything to go back to.
    pub fn began_sound(&self) -> bool {
        self.diverged.len() > self.divergence_window
    }

    /// Notes that the step was halved here.
    pub fn cut(&mut self) {
        self.cuts.push(self.diverged.len());
        (self.recently_diverged, self.diverged_before) = (0.0, 0.0);
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

    /// The factor on the learning rate in each iteration.
    fn step_factors(&self) -> Vec<f64> {
        let halved = |iteration: usize| self.cuts.iter().filter(|after| **after <= iteration).count();
        (0..self.elbo.len()).map(|iteration| 0.5_f64.powi(halved(iteration) as i32)).collect()
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
            ("step_factor", "factor on the learning rate; halved where draws diverge", &self.step_factors()),
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
            track.soundness(8, 0.5)
        };
        for diverged in [8.0, 8.0, 0.0, 0.0, 8.0, 8.0] {
            assert!(matches!(judge(&mut track, diverged), Soundness::Sound));
        }
        let Soundness::Lost(error) = judge(&mut track, 8.0) else { panic!("24 of 32 are too many") };
        assert!(matches!(error, Error::Diverged { diverged: 24, members: 32, .. }), "{error}");
        // After a cut the window begins anew.
        track.cut();
        for diverged in [8.0, 8.0, 0.0] {
            assert!(matches!(judge(&mut track, diverged), Soundness::Sound));
        }
    }

    #[test]
    fn a_growing_share_of_diverged_draws_is_worse_and_a_shrinking_one_is_not() {
        for (shares, worse) in [([0.0, 2.0, 3.0], [8, 12]), ([3.0, 2.0, 1.0], [0, 0]), ([2.0, 2.0, 0.5], [0, 0])] {
            let mut track = Track::new(12, 8, 0.0);
            let mut found = Vec::new();
            for k in 0..12 {
                track.diverged.push(shares[k / 4]);
                if matches!(track.soundness(8, 0.5), Soundness::Worse) {
                    found.push(k + 1);
                }
            }
            let worse: Vec<usize> = worse.into_iter().filter(|k| *k > 0).collect();
            assert_eq!(found, worse, "{shares:?}");
        }
    }
}
