//! VI-4DVAR: the mean-field Gaussian of largest ELBO, found by Adam on batched Monte Carlo gradients.
//!
//! One iteration: theta becomes an affine map, the engine draws a batch from it and returns the sums of the adjoint
//! gradients, the posterior turns them into the gradient of -ELBO, Adam moves theta = (mu, log sigma) of every
//! problem at once. Its steps do not change if the cost is multiplied by a constant (but for its epsilon), so the
//! division of the loss by J(xb) in the slides' code has no counterpart.

use super::samples::{MAX_DIVERGED_SHARE, Samples};
use super::{
    Analysis, MOST_ITERATIONS, MOST_MEMBERS, Observer, Progress, Record, check_count, check_positive, check_share,
};
use crate::engine::{Draw, Engine, LoadedProblem, Members, Moments, Terms};
use crate::error::{Error, Result};
use crate::optimizer::{Adam, AdamSettings, Schedule, norm};
use crate::posterior::{Elbo, MeanField, log_normalizer};
use crate::problem::Problem;
use crate::random::Stream;
use ndarray::{Array1, Array2, s};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The method's name in tables.
pub const NAME: &str = "VI-4DVAR";

/// Draws at least that the share of diverged ones is taken over: a batch of one may lose its draw now and then.
const DIVERGENCE_DRAWS: usize = 32;

/// What the learning rate of mu and the initial sigma are counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Units {
    /// The model's units, as in the slides. Right where the posterior's deviation is well above the learning rate:
    /// Adam's steps have the size of the learning rate, whatever the posterior's width.
    #[default]
    Physical,
    /// The background's standard deviation at each site. Right for variables of any size.
    Background,
}

/// Settings of VI-4DVAR.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Iterations of Adam at most. Default: 1500.
    pub iterations: usize,
    /// Monte Carlo draws per iteration. Default: 1.
    pub batch: usize,
    /// Adam's learning rate for mu, in `units`, and for log sigma. Default: 0.01.
    pub learning_rate: f64,
    /// Its schedule. Default: constant.
    pub schedule: Schedule,
    /// sigma at the start, in `units`, at every site; mu starts at x_b. Default: 1.
    pub initial_std: f64,
    /// What the two are counted in. Default: physical units.
    pub units: Units,
    /// Stop when the ELBO's mean over a window exceeds that over the window before by less than this times
    /// max(1, |ELBO|), in every problem. Default: never.
    pub tolerance: Option<f64>,
    /// Iterations of that window. Default: 100.
    pub window: usize,
    /// Samples drawn from the fitted posterior, at least 2. Default: 1000.
    pub samples: usize,
    /// Fresh draws for the ELBO of the fitted posterior, at least 2. Default: 4096.
    pub elbo_draws: usize,
    /// Share of diverged draws (over the last 32 at least) and of diverged samples above which there is no answer.
    /// Default: 0.5.
    pub max_diverged_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            iterations: 1500,
            batch: 1,
            learning_rate: 0.01,
            schedule: Schedule::Constant,
            initial_std: 1.0,
            units: Units::Physical,
            tolerance: None,
            window: 100,
            samples: 1000,
            elbo_draws: 4096,
            max_diverged_share: MAX_DIVERGED_SHARE,
        }
    }
}

impl Settings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        check_count("iterations", self.iterations, 1..=MOST_ITERATIONS)?;
        check_count("batch", self.batch, 1..=MOST_MEMBERS)?;
        check_count("smoothing-window", self.window, 2..=MOST_ITERATIONS)?;
        check_count("samples", self.samples, 2..=MOST_MEMBERS)?;
        check_count("elbo-draws", self.elbo_draws, 2..=MOST_MEMBERS)?;
        check_positive("learning-rate", self.learning_rate)?;
        check_positive("initial-std", self.initial_std)?;
        check_positive("tolerance", self.tolerance.unwrap_or(1.0))?;
        check_share("max-diverged-share", self.max_diverged_share)
    }

    /// Assimilates every problem of the set: one analysis each, whose `seconds` are those of the whole set.
    ///
    /// The fit returned is the last one, unless the ELBO's mean over some window of iterations was higher than over
    /// the last one by more than three standard errors; then it is the fit at that window's end, and the summary says
    /// so. `samples` are drawn from it at time 0 and carried to the last stored time by the model; `mean` and `std`
    /// are theirs. Records by iteration: `elbo` (NaN: a draw diverged), `elbo_error` (NaN: fewer than two draws),
    /// `entropy`, `cost_background`, `cost_observation`, `gradient_norm`, `diverged`; by site: `variational_mean`,
    /// `variational_std`; numbers: `final_elbo`, `final_elbo_error`, `log_normalizer`, `observation_count`,
    /// `diverged_samples`.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, an engine's failure, too many draws or samples diverged.
    pub fn run(&self, problem: &Problem, engine: &Engine, observer: &mut dyn Observer) -> Result<Vec<Analysis>> {
        self.check()?;
        let clock = Instant::now();
        let mut loaded = engine.load(problem)?;
        let mut fit = self.fit(problem, &mut loaded, observer)?;
        let fallbacks: Vec<_> = (0..problem.count()).map(|p| fit.keep_the_best(p)).collect();

        // The loop uses iterations below `self.iterations`: these draws are fresh.
        let map = fit.q.to_map();
        let iteration = self.iterations as u32;
        let mut draw = Draw { map, stream: Stream::MonteCarlo, iteration, count: self.elbo_draws };
        let moments = loaded.moments(&draw, Terms::ALL)?;
        draw = Draw { stream: Stream::Posterior, iteration: 0, count: self.samples, ..draw };
        let trajectories = loaded.forecast(Members::Drawn(&draw))?;

        let mut analyses = Vec::with_capacity(problem.count());
        for (p, track) in fit.tracks.iter().enumerate() {
            let drawn = trajectories.slice(s![p * self.samples..(p + 1) * self.samples, .., ..]);
            let samples = Samples::new(drawn, "VI-4DVAR's posterior", self.max_diverged_share)?;
            let mut elbo = fit.q.elbo(p, &moments[p]);
            elbo.value += track.log_normalizer;
            let mut records = track.records();
            records.extend([
                Record::new("variational_mean", "mu of the fitted Gaussian", &["site"], fit.q.mean(p).to_owned()),
                Record::new(
                    "variational_std",
                    "sigma of the fitted Gaussian",
                    &["site"],
                    fit.q.log_std(p).mapv(f64::exp),
                ),
                Record::scalar("final_elbo", "ELBO of the fit from fresh draws, a bound on log p(y)", elbo.value),
                Record::scalar("final_elbo_error", "Monte Carlo standard error of final_elbo", elbo.error),
                Record::scalar("log_normalizer", "what the cost leaves out of log p(y, x0)", track.log_normalizer),
                Record::scalar(
                    "observation_count",
                    "number of assimilated observations",
                    problem.assimilated_count(p) as f64,
                ),
                Record::scalar("diverged_samples", "samples left out because they diverged", samples.diverged as f64),
            ]);
            analyses.push(Analysis {
                method: NAME.into(),
                mean: samples.mean,
                std: samples.std,
                samples: samples.trajectories,
                records,
                summary: self.summary(&fit, p, &elbo, &moments[p], fallbacks[p]),
                seconds: 0.0,
            });
        }
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }

    /// The loop alone, on a problem that is loaded already: what a bench times.
    pub(crate) fn iterate(
        &self,
        problem: &Problem,
        loaded: &mut LoadedProblem,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        self.fit(problem, loaded, observer).map(drop)
    }

    /// The loop.
    fn fit(&self, problem: &Problem, loaded: &mut LoadedProblem, observer: &mut dyn Observer) -> Result<Fit> {
        let shape = (problem.count(), problem.sites());
        let mean = Array2::from_shape_fn(shape, |(p, i)| problem.background.mean_of(p)[i]);
        let units = match self.units {
            Units::Physical => Array2::ones(shape),
            Units::Background => {
                let std: Vec<_> = (0..shape.0).map(|p| problem.background.std_of(p)).collect();
                Array2::from_shape_fn(shape, |(p, i)| std[p][i])
            }
        };
        let mut q = MeanField::new(&mean, &(&units * self.initial_std))?;
        // log sigma has no unit.
        let units: Vec<f64> =
            units.outer_iter().flat_map(|u| u.to_vec().into_iter().chain(vec![1.0; shape.1])).collect();
        let settings =
            AdamSettings { learning_rate: self.learning_rate, schedule: self.schedule, ..AdamSettings::default() };
        let mut gradient = vec![0.0; units.len()];
        let mut adam = Adam::new(settings, units, self.iterations);
        let mut draw = Draw { map: q.to_map(), stream: Stream::MonteCarlo, iteration: 0, count: self.batch };
        let mut tracks: Vec<_> = (0..problem.count())
            .map(|p| Track::new(self.iterations, log_normalizer(problem, p), DIVERGENCE_DRAWS.div_ceil(self.batch)))
            .collect();
        let mut stop = Stop::Iterations;
        for iteration in 0..self.iterations {
            draw.iteration = iteration as u32;
            let moments = loaded.moments(&draw, Terms::ALL)?;
            q.pull_back(&moments, &mut gradient);
            for (p, track) in tracks.iter_mut().enumerate() {
                track.push(&q, p, &moments[p], &gradient[p * 2 * shape.1..(p + 1) * 2 * shape.1]);
                track.check_divergence(self.batch, self.max_diverged_share)?;
            }
            adam.step(q.parameters(), &gradient);
            q.write_map(&mut draw.map);
            if !draw.map.is_finite() {
                let what = format!("VI-4DVAR, whose mu or sigma overflowed at iteration {}", iteration + 1);
                return Err(Error::Diverged { what, diverged: self.batch, members: self.batch });
            }

            if (iteration + 1).is_multiple_of(self.window) {
                let mut settled = true;
                for (p, track) in tracks.iter_mut().enumerate() {
                    settled &= track.close_window(&q, p, self.window, self.tolerance);
                }
                if settled {
                    stop = Stop::Tolerance;
                    break;
                }
            }
            let elbo = tracks.iter().map(|t| t.elbo[iteration]).sum::<f64>() / tracks.len() as f64;
            let figures = [("ELBO", elbo), ("|gradient|", norm(&gradient))];
            let progress =
                Progress { method: NAME, iteration: iteration + 1, iterations: self.iterations, figures: &figures };
            if observer.progress(&progress).is_break() {
                stop = Stop::Caller;
                break;
            }
        }
        Ok(Fit { q, tracks, stop, window: self.window })
    }

    fn summary(&self, fit: &Fit, p: usize, elbo: &Elbo, moments: &Moments, fallback: Option<Fallback>) -> String {
        let track = &fit.tracks[p];
        let done = track.elbo.len();
        let mut text = match fit.stop {
            Stop::Iterations => format!("did all {done} iterations"),
            Stop::Tolerance => {
                format!("stopped after {done} iterations: the ELBO's mean over {} no longer rose", self.window)
            }
            Stop::Caller => format!("ended by the caller after {done} of {} iterations", self.iterations),
        };
        text += &match moments.diverged {
            0 => format!("; ELBO = {:.3} +- {:.3} from {} fresh draws", elbo.value, elbo.error, moments.count),
            k => format!("; no ELBO: {k} of {} fresh draws diverged", moments.count),
        };
        if let Some(Fallback { iteration, gain, error }) = fallback {
            text += &format!(
                "; kept the fit of iteration {iteration}, where the ELBO was higher than at the end by {gain:.3} +- {error:.3}"
            );
        }
        let diverged: f64 = track.diverged.iter().sum();
        if diverged > 0.0 {
            text += &format!("; {diverged} draws diverged on the way");
        }
        text
    }
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Iterations,
    Tolerance,
    Caller,
}

/// What the loop leaves behind.
struct Fit {
    q: MeanField,
    tracks: Vec<Track>,
    stop: Stop,
    window: usize,
}

/// That the fit returned is not the last one.
#[derive(Clone, Copy, Debug)]
struct Fallback {
    iteration: usize,
    gain: f64,
    error: f64,
}

impl Fit {
    /// Replaces problem `p`'s fit by the one of its best window, if that was better than the last window's beyond
    /// three standard errors.
    fn keep_the_best(&mut self, p: usize) -> Option<Fallback> {
        let track = &self.tracks[p];
        let best = track.best.as_ref()?;
        let last = Window::of(&track.elbo[track.elbo.len().saturating_sub(self.window)..])?;
        let (gain, error) = (best.window.mean - last.mean, best.window.error.hypot(last.error));
        (gain > 3.0 * error).then(|| {
            self.q.row_mut(p).assign(&best.parameters);
            Fallback { iteration: best.iteration, gain, error }
        })
    }
}

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

/// The best window so far, with the parameters at its end.
#[derive(Clone, Debug)]
struct BestWindow {
    window: Window,
    iteration: usize,
    parameters: Array1<f64>,
}

/// The history of one problem.
struct Track {
    log_normalizer: f64,
    elbo: Vec<f64>,
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
    best: Option<BestWindow>,
}

impl Track {
    fn new(iterations: usize, log_normalizer: f64, divergence_window: usize) -> Self {
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
            divergence_window,
            recently_diverged: 0.0,
            previous: None,
            best: None,
        }
    }

    /// Notes an iteration: the moments of `q` before Adam's step, and their gradient.
    fn push(&mut self, q: &MeanField, p: usize, moments: &Moments, gradient: &[f64]) {
        let elbo = q.elbo(p, moments);
        let kept = (moments.count - moments.diverged) as f64;
        self.elbo.push(elbo.value + self.log_normalizer);
        self.elbo_error.push(elbo.error);
        self.entropy.push(q.entropy(p));
        self.cost_background.push(moments.cost_background / kept);
        self.cost_observation.push(moments.cost_observation / kept);
        self.gradient_norm.push(norm(gradient));
        self.diverged.push(moments.diverged as f64);
    }

    /// Refuses to go on once more than `share` of the recent draws diverged.
    fn check_divergence(&mut self, batch: usize, share: f64) -> Result<()> {
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

    /// At a window's end: notes the best, and says whether the ELBO has stopped rising by more than `tolerance`.
    fn close_window(&mut self, q: &MeanField, p: usize, len: usize, tolerance: Option<f64>) -> bool {
        let done = self.elbo.len();
        let Some(window) = Window::of(&self.elbo[done - len..]) else { return false };
        if self.best.as_ref().is_none_or(|b| window.mean > b.window.mean) {
            let parameters = q.row(p).to_owned();
            self.best = Some(BestWindow { window, iteration: done, parameters });
        }
        let previous = self.previous.replace(window);
        match (previous, tolerance) {
            (Some(previous), Some(tolerance)) => window.mean - previous.mean < tolerance * previous.mean.abs().max(1.0),
            _ => false,
        }
    }

    fn records(&self) -> Vec<Record> {
        let series = [
            ("elbo", "ELBO, a bound on log p(y); NaN where a draw diverged", &self.elbo),
            ("elbo_error", "Monte Carlo standard error of elbo; NaN for fewer than two draws", &self.elbo_error),
            ("entropy", "entropy of the variational Gaussian", &self.entropy),
            ("cost_background", "mean of the background cost over the draws", &self.cost_background),
            ("cost_observation", "mean of the observation cost over the draws", &self.cost_observation),
            ("gradient_norm", "norm of the gradient of -ELBO with respect to (mu, log sigma)", &self.gradient_norm),
            ("diverged", "draws that diverged", &self.diverged),
        ];
        series
            .into_iter()
            .map(|(name, long_name, values)| {
                Record::new(name, long_name, &["iteration"], Array1::from_vec(values.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fit of one site whose ELBO is 1 above `level` and 1 below it in turn.
    fn fit(levels: &[f64], window: usize) -> Fit {
        let q = |mean: f64| MeanField::new(&Array2::from_elem((1, 1), mean), &Array2::ones((1, 1))).unwrap();
        let mut track = Track::new(levels.len() * window, 0.0, 1);
        for (k, level) in levels.iter().enumerate() {
            track.elbo.extend((0..window).map(|i| level + if i % 2 == 0 { 1.0 } else { -1.0 }));
            track.close_window(&q(k as f64), 0, window, None);
        }
        Fit { q: q(levels.len() as f64), tracks: vec![track], stop: Stop::Iterations, window }
    }

    #[test]
    fn an_earlier_fit_is_kept_only_beyond_its_monte_carlo_error() {
        // Means over 100 iterations have a standard error of 0.1, their difference one of 0.14.
        for (levels, kept) in [(&[0.0, 5.0, 1.0], Some(1)), (&[0.0, 5.0, 4.7], None), (&[0.0, 1.0, 2.0], None)] {
            let mut fit = fit(levels, 100);
            let fallback = fit.keep_the_best(0);
            assert_eq!(fallback.map(|f| f.iteration), kept.map(|k| (k + 1) * 100), "{levels:?}");
            assert_eq!(fit.q.mean(0)[0], kept.map_or(3.0, |k| k as f64));
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
        let mut track = Track::new(10, 0.0, 4);
        let judge = |track: &mut Track, diverged: f64| {
            track.diverged.push(diverged);
            track.check_divergence(1, 0.5)
        };
        for diverged in [1.0, 1.0, 0.0, 0.0, 1.0, 1.0] {
            assert!(judge(&mut track, diverged).is_ok());
        }
        let error = judge(&mut track, 1.0).unwrap_err();
        assert!(matches!(error, Error::Diverged { diverged: 3, members: 4, .. }), "{error}");
    }
}
