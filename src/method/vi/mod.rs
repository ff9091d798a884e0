//! VI-4DVAR: the distribution of largest ELBO in a family, found by Adam on batched Monte Carlo gradients.

mod ascent;
#[cfg(feature = "neural")]
mod flow;
mod gaussian;
mod importance;
mod latent;
mod minima;
mod mixture;
mod track;

use super::control::control_records;
use super::samples::{MAX_DIVERGED_SHARE, Samples};
use super::{
    Analysis, MOST_ITERATIONS, MOST_MEMBERS, Observer, PosteriorMembers, Record, check_count, check_positive,
    check_samples, check_share,
};
use crate::engine::{Engine, LoadedProblem, Members};
use crate::error::{Error, Result};
use crate::memory;
use crate::optimizer::{AdamSettings, Schedule};
use crate::posterior::{Estimator, Family, FlowSettings, Normal, Posterior, log_normalizer};
use crate::problem::Problem;
use crate::random::Stream;
use ndarray::{Axis, concatenate, s};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The method's name.
pub const NAME: &str = "VI-4DVAR";

/// What the learning rate of a mean-field mean and the initial deviation are counted in.
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

/// Where a fit starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum InitialFit {
    /// At x_b, with the initial deviation at every site.
    #[default]
    Background,
    /// At the lowest of 4DVAR's minima, with the Gauss-Newton Hessian there as precision.
    Laplace,
    /// At what a trained recognition network says of the observations (`--weights`).
    Amortized,
}

/// Settings of VI-4DVAR. What is `None` depends on the family: the mean field is fitted as in the slides, the others by the
/// path estimator, from Laplace, in larger batches and with a learning rate that falls to zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is fitted. Default: a mean field.
    pub family: Family,
    /// Iterations of Adam at most. Default: 1500.
    pub iterations: usize,
    /// Monte Carlo draws per iteration. Default: 1 for a mean field, 256 for the others.
    pub batch: Option<usize>,
    /// Adam's learning rate: of a mean-field mean in `units`, of other parameters as their family counts them. Default:
    /// 0.01.
    pub learning_rate: f64,
    /// Its schedule. Default: constant for a mean field, cosine for the others.
    pub schedule: Option<Schedule>,
    /// How the ELBO's gradient is estimated. Default: plain for a mean field, path for the others.
    pub estimator: Option<Estimator>,
    /// Where the fit starts; a mixture always starts from minima. Default: at the background for a mean field, from Laplace
    /// for the others.
    pub start: Option<InitialFit>,
    /// The deviation of a fit that starts at the background, in `units`, at every site. Default: 1.
    pub initial_std: f64,
    /// What the two are counted in. Default: physical units.
    pub units: Units,
    /// Columns of the low-rank family's factor, at most the number of sites. Default: 8.
    pub rank: usize,
    /// The layers of a normalizing flow.
    pub flow: FlowSettings,
    /// Powers of the likelihood that the first half of the iterations passes through, from a hundredth up to 1, so that q
    /// is drawn to the posterior's mass and not to the nearest minimum. Default: 1, the whole likelihood throughout.
    pub tempering: usize,
    /// Starting points of the minimisations whose minima a mixture is built on. Default: 32.
    pub mixture_starts: usize,
    /// Stop when the ELBO's mean over a window exceeds that over the window before by less than this times
    /// max(1, |ELBO|), in every problem. Default: never.
    pub tolerance: Option<f64>,
    /// Iterations of that window. Default: 100.
    pub window: usize,
    /// Samples drawn from the fitted posterior, at least 2. Default: 1000.
    pub samples: usize,
    /// Fresh draws by which the fit is weighed against the posterior: its ELBO, IWAE bound, k-hat and verdict, which is less
    /// often wrong the more they are. At least 100. Default: 200,000.
    pub importance_draws: usize,
    /// Whether the samples are resampled from those draws by their importance weights. Default: false.
    pub corrected: bool,
    /// Share of diverged draws (over the last 32 at least) and of diverged samples above which there is no answer.
    /// Default: 0.5.
    pub max_diverged_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            family: Family::MeanField,
            iterations: 1500,
            batch: None,
            learning_rate: 0.01,
            schedule: None,
            estimator: None,
            start: None,
            initial_std: 1.0,
            units: Units::Physical,
            rank: 8,
            flow: FlowSettings::default(),
            tempering: 1,
            mixture_starts: 32,
            tolerance: None,
            window: 100,
            samples: 1000,
            importance_draws: 200_000,
            corrected: false,
            max_diverged_share: MAX_DIVERGED_SHARE,
        }
    }
}

/// The numbers of an Adam loop, all of them decided.
#[derive(Clone, Copy, Debug)]
struct Course {
    iterations: usize,
    batch: usize,
    learning_rate: f64,
    schedule: Schedule,
    estimator: Estimator,
    tolerance: Option<f64>,
    window: usize,
    max_diverged_share: f64,
}

impl Course {
    /// The optimiser's part of it.
    fn adam(&self) -> AdamSettings {
        AdamSettings { learning_rate: self.learning_rate, schedule: self.schedule, ..AdamSettings::default() }
    }
}

/// What the fit of a family leaves behind.
struct Fitted {
    /// The method's name in tables.
    title: &'static str,
    posterior: Box<dyn Posterior>,
    /// None where nothing was iterated.
    ascent: Option<ascent::Ascent>,
    /// Of each problem: what the family has to say beside all others.
    records: Vec<Vec<Record>>,
    /// Of each problem: what its summary adds.
    notes: Vec<String>,
    /// Of each problem: what the fit itself knows to be missing.
    faults: Vec<Option<String>>,
}

impl Settings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        check_count("iterations", self.iterations, 1..=MOST_ITERATIONS)?;
        check_count("batch", self.batch.unwrap_or(1), 1..=MOST_MEMBERS)?;
        check_count("smoothing-window", self.window, 2..=MOST_ITERATIONS)?;
        check_count("samples", self.samples, 2..=MOST_MEMBERS)?;
        check_count("importance-draws", self.importance_draws, 100..=MOST_MEMBERS)?;
        check_count("rank", self.rank, 1..=100_000)?;
        // One power takes no iteration of its own; of several each has at least one, in the first half.
        check_count("tempering", self.tempering, 1..=(self.iterations / 2).clamp(1, 1000))?;
        check_count("mixture-starts", self.mixture_starts, 1..=100_000)?;
        check_positive("learning-rate", self.learning_rate)?;
        check_positive("initial-std", self.initial_std)?;
        check_positive("tolerance", self.tolerance.unwrap_or(1.0))?;
        check_share("max-diverged-share", self.max_diverged_share)?;
        self.flow.check()?;
        if self.family.is_flow() && !cfg!(feature = "neural") {
            return Err(Error::invalid(
                "family",
                "a family that this build has",
                format!("{}, a normalizing flow", self.family.name()),
                "build with --features neural, or choose mean-field, low-rank, full-rank or mixture",
            ));
        }
        Ok(())
    }

    /// What the family leaves open, decided.
    fn course(&self) -> Course {
        let plain = self.family == Family::MeanField;
        Course {
            iterations: self.iterations,
            batch: self.batch.unwrap_or(if plain { 1 } else { 256 }),
            learning_rate: self.learning_rate,
            schedule: self.schedule.unwrap_or(if plain { Schedule::Constant } else { Schedule::Cosine }),
            estimator: self.estimator.unwrap_or(if plain { Estimator::Plain } else { Estimator::Path }),
            tolerance: self.tolerance,
            window: self.window,
            max_diverged_share: self.max_diverged_share,
        }
    }

    /// Assimilates every problem of the set: one analysis each, whose `seconds` are those of the whole set.
    ///
    /// The fit returned is the last one, unless the ELBO's mean over some window of iterations was higher than over
    /// the last one by more than three standard errors; then it is the fit at that window's end, and the summary says
    /// so. `samples` are drawn from it at time 0 and carried to the last stored time by the model; `mean` and `std`
    /// are theirs. Then it is weighed by fresh draws, and the summary ends in a verdict: whether its mean and its spread are
    /// to be trusted.
    ///
    /// Records by iteration: `elbo` (NaN: a draw diverged), `elbo_error` (NaN: fewer than two draws, or a tempered
    /// likelihood), `entropy`, `cost_background`, `cost_observation`, `gradient_norm`, `diverged`, `step_factor`; of the fit:
    /// `variational_mean`, `variational_std` (site), `variational_covariance` (site, site_2) where the family has one,
    /// `component_weight` (component), `component_mean` (component, site) of a mixture; numbers: `final_elbo`,
    /// `final_elbo_error`, `iwae`, `iwae_error`, `k_hat`, `effective_draws`, `verdict` and what it rests on,
    /// `gradients`, `log_normalizer`, `observation_count`,
    /// `diverged_samples`.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, an engine's failure, too many draws or samples diverged.
    pub fn run(&self, problem: &Problem, engine: &Engine, observer: &mut dyn Observer) -> Result<Vec<Analysis>> {
        self.run_from(problem, engine, None, observer)
    }

    /// The same from a Gaussian for each problem, whose member of the family is where the fit starts: what
    /// [`InitialFit::Amortized`] needs. A flow's Gaussian starts there; a mixture starts from minima.
    ///
    /// # Errors
    /// As [`Self::run`]; another number or size of Gaussians than the problems have; none for [`InitialFit::Amortized`].
    pub fn run_from(
        &self,
        problem: &Problem,
        engine: &Engine,
        start: Option<&[Normal]>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Analysis>> {
        self.check()?;
        check_samples(problem, self.samples)?;
        let (problems, n) = (problem.count(), problem.control().len());
        memory::check("the history of VI", &[problems, self.iterations, 9], "use fewer iterations")?;
        memory::check(
            "the importance draws",
            &[problems, self.importance_draws, n + 2],
            "use fewer --importance-draws",
        )?;
        self.check_start(problem, start)?;
        let clock = Instant::now();
        let mut minima = minima::Minima::new(problem, engine)?;
        minima.start = start;
        let fitted = match self.family {
            Family::MeanField | Family::LowRank | Family::FullRank => {
                self.fit_gaussian(&mut minima, engine, observer)?
            }
            Family::Mixture => self.fit_mixture(&mut minima, engine, observer)?,
            #[cfg(feature = "neural")]
            Family::Planar | Family::RealNvp | Family::Spline => self.fit_flow(&mut minima, engine, observer)?,
            #[cfg(not(feature = "neural"))]
            Family::Planar | Family::RealNvp | Family::Spline => unreachable!("checked"),
        };
        let mut analyses = self.analyses(problem, &mut minima, &fitted)?;
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }

    /// Describes and weighs a Gaussian for each problem that was not fitted to it alone.
    #[cfg(feature = "neural")]
    pub(super) fn weigh(
        &self,
        problem: &Problem,
        engine: &Engine,
        title: &'static str,
        normals: Vec<Normal>,
        notes: Vec<String>,
    ) -> Result<Vec<Analysis>> {
        let mut minima = minima::Minima::new(problem, engine)?;
        let records = normals.iter().map(|normal| gaussian::records(normal, self.family, problem.control())).collect();
        let faults = vec![None; problem.count()];
        let posterior: crate::posterior::Mixtures = normals.into_iter().map(Into::into).collect();
        let posterior = Box::new(posterior);
        self.analyses(problem, &mut minima, &Fitted { title, posterior, ascent: None, records, notes, faults })
    }

    /// Refuses Gaussians to start from that do not fit the problems, or none where the settings ask for them.
    fn check_start(&self, problem: &Problem, start: Option<&[Normal]>) -> Result<()> {
        let wanted = self.start == Some(InitialFit::Amortized);
        if wanted && self.family == Family::Mixture {
            let help = "a mixture starts from minima: leave --vi-start out";
            return Err(Error::invalid("vi-start", "background or laplace", "amortized, for a mixture", help));
        }
        let expected = format!("{} Gaussians of {} numbers", problem.count(), problem.control().len());
        match start {
            None if wanted => {
                let help = "name the weights of a trained network, or give Gaussians to `run_from`";
                Err(Error::invalid("start of VI-4DVAR", expected, "none", help))
            }
            Some(q) if q.len() != problem.count() || q.iter().any(|q| q.mean().len() != problem.control().len()) => {
                let found = format!("{} of {}", q.len(), q.first().map_or(0, |q| q.mean().len()));
                Err(Error::invalid("start of VI-4DVAR", expected, found, "give one for each problem"))
            }
            _ => Ok(()),
        }
    }

    /// Fits a single Gaussian to every problem and draws `samples` members of it, without weighing the fit: what a cycle
    /// carries on. Starts at the lowest minimum of `starts` starts, the first of them the background.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, a family that is no single Gaussian, an engine's failure, too many draws
    /// diverged.
    pub fn members(
        &self,
        problem: &Problem,
        engine: &Engine,
        starts: usize,
        observer: &mut dyn Observer,
    ) -> Result<PosteriorMembers> {
        self.check()?;
        self.check_start(problem, None)?;
        if !matches!(self.family, Family::MeanField | Family::LowRank | Family::FullRank) {
            let found = self.family.name();
            return Err(Error::invalid(
                "family",
                "mean-field, low-rank or full-rank",
                found,
                "choose a single Gaussian",
            ));
        }
        let mut minima = minima::Minima::new(problem, engine)?;
        minima.search(starts, observer)?;
        let (normals, _) = self.fit_normals(&mut minima, engine, observer)?;
        let mut center = problem.control_means();
        let mut std = center.clone();
        for ((normal, mut center), mut std) in normals.iter().zip(center.outer_iter_mut()).zip(std.outer_iter_mut()) {
            center.assign(&normal.mean());
            std.assign(&normal.std());
        }
        let draw =
            |(p, normal): (usize, &Normal)| normal.draw(problem.seeds[p], Stream::Posterior, 0..self.samples).states;
        Ok(PosteriorMembers { center, members: normals.iter().enumerate().map(draw).collect(), std })
    }

    /// Samples the fit, weighs it and describes it.
    fn analyses(&self, problem: &Problem, minima: &mut minima::Minima, fitted: &Fitted) -> Result<Vec<Analysis>> {
        let q = fitted.posterior.as_ref();
        let weighed = importance::weigh(self, problem, minima, q, &fitted.faults)?;
        let states: Vec<_> = (0..problem.count())
            .map(|p| match &weighed[p].resampled {
                Some(states) => states.clone(),
                None => q.draw(p, problem.seeds[p], Stream::Posterior, 0..self.samples).states,
            })
            .collect();
        let views: Vec<_> = states.iter().map(|s| s.view()).collect();
        let states = concatenate(Axis(0), &views).expect("rows of one length");
        let trajectories = minima.whole().forecast(Members::Given(states.view()))?;
        let mut analyses = Vec::with_capacity(problem.count());
        for (p, weighed) in weighed.into_iter().enumerate() {
            let track = fitted.ascent.as_ref().map(|ascent| &ascent.tracks[p]);
            let drawn = trajectories.slice(s![p * self.samples..(p + 1) * self.samples, .., ..]);
            let samples = Samples::new(drawn, &format!("the posterior of {}", fitted.title), self.max_diverged_share)?;
            let mut records = track.map(track::Track::records).unwrap_or_default();
            records.extend(fitted.records[p].iter().cloned());
            records.extend(weighed.records);
            let count = problem.assimilated_count(p) as f64;
            let iterations = track.map_or(0, |track| track.elbo.len());
            let gradients = minima.evaluations[p] + self.course().batch * iterations;
            records.extend([
                Record::scalar(
                    "gradients",
                    "member-gradients of the fit, and of the minimisations that it starts from or is judged by",
                    gradients as f64,
                ),
                Record::scalar(
                    "log_normalizer",
                    "what the cost leaves out of log p(y, x0)",
                    log_normalizer(problem, p),
                ),
                Record::scalar("observation_count", "number of assimilated observations", count),
                Record::scalar("diverged_samples", "samples left out because they diverged", samples.diverged as f64),
            ]);
            let controls = states.slice(s![p * self.samples..(p + 1) * self.samples, ..]);
            records.extend(control_records(problem, p, controls.select(Axis(0), &samples.kept).view()));
            analyses.push(Analysis {
                method: fitted.title.into(),
                mean: samples.mean,
                std: samples.std,
                samples: samples.trajectories,
                records,
                summary: {
                    let ending = fitted.ascent.as_ref().map(|ascent| self.ending(ascent, p)).unwrap_or_default();
                    format!("{ending}{}; {}", fitted.notes[p], weighed.sentence)
                },
                seconds: 0.0,
            });
        }
        Ok(analyses)
    }

    /// How the loop ended for problem `p`.
    fn ending(&self, ascent: &ascent::Ascent, p: usize) -> String {
        let done = ascent.tracks[p].elbo.len();
        let mut text = match ascent.stop {
            ascent::Stop::Iterations => format!("did all {done} iterations"),
            ascent::Stop::Tolerance => {
                format!("stopped after {done} iterations: the ELBO's mean over {} no longer rose", self.window)
            }
            ascent::Stop::Caller => format!("ended by the caller after {done} of {} iterations", self.iterations),
        };
        if let Some(track::Fallback { iteration, gain, error }) = ascent.fallbacks[p] {
            text += &format!(
                "; kept the fit of iteration {iteration}, where the ELBO was higher than at the end by {gain:.3} +- {error:.3}"
            );
        }
        let track = &ascent.tracks[p];
        if track.diverged() > 0.0 {
            text += &format!("; {} draws diverged on the way", track.diverged());
        }
        if let Some(first) = track.cuts.first() {
            let count = track.cuts.len();
            text += &format!(", and the step was halved {count} times because of it, first after iteration {first}");
        }
        text
    }

    /// The loop alone, from the background, on a problem that is loaded already: what a bench times.
    pub(crate) fn iterate(
        &self,
        problem: &Problem,
        loaded: &mut LoadedProblem,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        #[cfg(feature = "neural")]
        if self.family.is_flow() {
            let base = Self { family: Family::FullRank, ..*self }.at_background(problem)?;
            let base = (0..problem.count()).map(|p| base.normal(p)).collect();
            let mut flow = crate::posterior::Flow::new(self.family, &self.flow, base, &problem.seeds)?;
            return self.raise_flow(problem, loaded, &mut flow, observer).map(drop);
        }
        let mut q = self.at_background(problem)?;
        let mut source = ascent::engine(std::slice::from_mut(loaded));
        let normalizers = ascent::normalizers(problem);
        ascent::raise(&self.course(), normalizers, &[1.0], &mut source, q.as_mut(), observer).map(drop)
    }
}
