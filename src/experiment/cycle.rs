//! Cycled assimilation: one window after the other, each background the forecast from the analysis before.
//!
//! A window of L intervals moves on by one interval for each cycle, and the newest observations alone are assimilated,
//! which the time weights 0, .., 0, 1 say (Bocquet & Sakov 2013): no observation is used twice. L = 0 is 3DVar. B = x C is
//! static, with C the climatological covariance, shared by all; each seed under each factor x is one problem of a set, and
//! the sets of all windows see the same truths and observations. Errors alone are scored: the spread that belongs to a
//! minimum is the Laplace covariance's, at the price of as many tangents as sites in every cycle.

use crate::diagnostics::{Estimate, rmse};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::method::{FourDVarSettings, Observer, Progress, Silent};
use crate::model::Model;
use crate::problem::{
    Background, CovarianceFactor, ErrorCovariance, ObservationOperator, PointFunction, Problem, Window,
};
use crate::random::{Stream, StreamRng};
use ndarray::{Array1, Array2, Array3, ArrayView1, Axis, s};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;

/// Settings of cycled assimilation: every site is observed at every interval, with independent errors. The defaults are
/// the preset `sakov2008`.
///
/// The fields are at once settings, command-line flags and keys of a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[command(next_help_heading = "Cycled assimilation")]
pub struct CycleSettings {
    /// The model. Default: lorenz96
    #[arg(long, value_name = "NAME", value_parser = Model::from_name)]
    pub model: Model,
    /// Sites of the model state. Default: 40
    #[arg(long, value_name = "N")]
    pub sites: usize,
    /// RK4 step of the forecast model in model time units. Default: 0.05
    #[arg(long, value_name = "STEP")]
    pub dt: f64,
    /// RK4 steps of the forecast model between two observation times. Default: 1
    #[arg(long, value_name = "N")]
    pub steps_per_time: usize,
    /// The forcing F of the forecast model. Default: 8
    #[arg(long, value_name = "F")]
    pub forcing: f64,
    /// The forcing F of the truth. Default: that of the forecast model
    #[arg(long, value_name = "F")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_forcing: Option<f64>,
    /// RK4 steps of the truth between two observation times, in the same time. Default: those of the forecast model
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_steps_per_time: Option<usize>,
    /// Standard deviation of the independent noise that is added to the truth after each interval. Default: 0
    #[arg(long, value_name = "SD")]
    pub model_noise: f64,
    /// Standard deviation of the observation errors. Default: 1
    #[arg(long, value_name = "SD")]
    pub observation_std: f64,
    /// Standard deviation of the error of the first background. Default: 1
    #[arg(long, value_name = "SD")]
    pub initial_error: f64,
    /// Windows in intervals between observation times; 0 is 3DVar. Default: 0
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub windows: Vec<usize>,
    /// Factors x in B = x C, with C the climatological covariance; each goes with each window. Default: 0.02
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub factors: Vec<f64>,
    /// Cycles that are scored. Default: 2000
    #[arg(long, value_name = "N")]
    pub cycles: usize,
    /// Cycles before them that are not. Default: 400
    #[arg(long, value_name = "N")]
    pub burn_in: usize,
    /// States of the free run of the forecast model, one interval apart, that give the climatology. Default: 100000
    #[arg(long, value_name = "N")]
    pub climatology: usize,
    /// RK4 steps from a standard normal state to the attractor. Default: 1000
    #[arg(long, value_name = "STEPS")]
    pub spin_up: usize,
    /// The seed of the first experiment. Default: 1
    #[arg(long, value_name = "SEED")]
    pub seed: u64,
}

impl Default for CycleSettings {
    fn default() -> Self {
        Self {
            model: Model::Lorenz96,
            sites: 40,
            dt: 0.05,
            steps_per_time: 1,
            forcing: 8.0,
            true_forcing: None,
            true_steps_per_time: None,
            model_noise: 0.0,
            observation_std: 1.0,
            initial_error: 1.0,
            windows: vec![0],
            factors: vec![0.02],
            cycles: 2000,
            burn_in: 400,
            climatology: 100_000,
            spin_up: 1000,
            seed: 1,
        }
    }
}

/// A method of cycled assimilation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CycledMethod {
    /// The climatological mean, whatever is observed.
    Climatology,
    /// 3DVar whose background is always the climatological mean, with B = C.
    OptimalInterpolation,
    /// 3DVar or 4DVar whose background is the forecast, with B = x C.
    Variational {
        /// Intervals; 0 is 3DVar.
        window: usize,
        /// x.
        factor: f64,
    },
}

impl CycledMethod {
    /// The name used in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Climatology => "Climatology",
            Self::OptimalInterpolation => "Optimal interpolation",
            Self::Variational { window: 0, .. } => "3DVar",
            Self::Variational { .. } => "4DVar",
        }
    }

    /// Intervals of its window.
    pub fn window(self) -> usize {
        match self {
            Self::Variational { window, .. } => window,
            Self::Climatology | Self::OptimalInterpolation => 0,
        }
    }

    /// x in B = x C; none where nothing is assimilated.
    pub fn factor(self) -> Option<f64> {
        match self {
            Self::Climatology => None,
            Self::OptimalInterpolation => Some(1.0),
            Self::Variational { factor, .. } => Some(factor),
        }
    }
}

/// What came of cycled assimilation. Displays as a table for people.
#[derive(Clone, Debug)]
pub struct Cycles {
    /// Model time units between two observation times.
    pub interval: f64,
    /// Cycles that are not scored.
    pub burn_in: usize,
    /// The seed of each repetition.
    pub seeds: Vec<u64>,
    /// One for each method.
    pub methods: Vec<CycledErrors>,
}

/// The errors of one method: RMSE over sites, NaN in cycles before its window is filled.
#[derive(Clone, Debug)]
pub struct CycledErrors {
    /// Whose.
    pub method: CycledMethod,
    /// Of the analysis at the window's end, the newest observation time: `[seeds, cycles]`.
    pub analysis: Array2<f64>,
    /// Of the background there: `[seeds, cycles]`.
    pub forecast: Array2<f64>,
    /// Of the analysis at the window's start: `[seeds, cycles]`.
    pub window_start: Array2<f64>,
}

/// One method's RMSE, the mean over the scored cycles and over seeds.
#[derive(Clone, Debug, Serialize)]
pub struct CycledScores {
    /// Its name.
    pub method: &'static str,
    /// Intervals of its window.
    pub window: usize,
    /// x in B = x C.
    pub factor: Option<f64>,
    /// At the window's end.
    pub analysis: Estimate,
    /// Of the background there.
    pub forecast: Estimate,
    /// At the window's start.
    pub window_start: Estimate,
}

/// Most cycles of one run.
const MOST_CYCLES: usize = 10_000_000;
/// Longest window in intervals.
const LONGEST_WINDOW: usize = 10_000;
/// Most sites: their covariance, its root and its inverse take 1.5 GiB.
const MOST_SITES: usize = 8192;
/// Numbers that all problems of a window and all errors may each take: 4 GiB.
const MOST_NUMBERS: usize = 1 << 29;

impl CycleSettings {
    /// Model time units between two observation times.
    pub fn interval(&self) -> f64 {
        self.dt * self.steps_per_time as f64
    }

    /// The methods, baselines first, then every window with every factor.
    pub fn methods(&self) -> Vec<CycledMethod> {
        let of = |window: &usize| {
            let window = *window;
            self.factors.iter().map(move |&factor| CycledMethod::Variational { window, factor })
        };
        let baselines = [CycledMethod::Climatology, CycledMethod::OptimalInterpolation];
        baselines.into_iter().chain(self.windows.iter().flat_map(of)).collect()
    }

    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        self.model.check_sites(self.sites)?;
        self.window(1).check()?;
        if self.sites > MOST_SITES {
            let help = "use fewer sites: B is full";
            return Err(Error::invalid("sites", format!("at most {MOST_SITES}"), self.sites.to_string(), help));
        }
        let whole = |what: &str, value: usize, least: usize, most: usize, help: &str| {
            let expected = format!("{least} to {most}");
            let refused = || Err(Error::invalid(what, expected, value.to_string(), help));
            if (least..=most).contains(&value) { Ok(()) } else { refused() }
        };
        let number = |what: &str, value: f64, positive: bool, help: &str| {
            let expected = if positive { "a finite number > 0" } else { "a finite number >= 0" };
            let fits = value.is_finite() && (value > 0.0 || !positive && value == 0.0);
            if fits { Ok(()) } else { Err(Error::invalid(what, expected, value.to_string(), help)) }
        };
        for (what, forcing) in [("forcing", self.forcing), ("true-forcing", self.true_forcing.unwrap_or(0.0))] {
            if !forcing.is_finite() {
                return Err(Error::invalid(what, "a finite number", forcing.to_string(), "8 is chaotic"));
            }
        }
        whole("true-steps-per-time", self.true_steps_per_time.unwrap_or(1), 1, 1 << 20, "correct the truth's steps")?;
        number("model-noise", self.model_noise, false, "0 is a perfect model")?;
        number("observation-std", self.observation_std, true, "correct the deviation")?;
        number("initial-error", self.initial_error, false, "0 starts at the truth")?;
        for (what, count) in [("windows", self.windows.len()), ("factors", self.factors.len())] {
            if count == 0 {
                return Err(Error::invalid(what, "at least one", "none", format!("give --{what}")));
            }
        }
        for window in &self.windows {
            whole("windows", *window, 0, LONGEST_WINDOW, "count intervals between observation times")?;
        }
        for factor in &self.factors {
            number("factors", *factor, true, "correct the factor on the climatological covariance")?;
        }
        whole("cycles", self.cycles, 1, MOST_CYCLES, "correct the number of cycles")?;
        let help = "burn in for at least the longest window, which has to be filled";
        whole("burn-in", self.burn_in, self.longest().max(1), MOST_CYCLES, help)?;
        let help = "a covariance needs more states than sites";
        whole("climatology", self.climatology, self.sites + 1, 100_000_000, help)
    }

    fn longest(&self) -> usize {
        self.windows.iter().copied().max().unwrap_or(0)
    }

    /// Times of a window: its own, and the one to which the next window's start moves.
    fn window(&self, intervals: usize) -> Window {
        Window {
            times: intervals.max(1) + 1,
            assimilated_times: intervals + 1,
            steps_per_time: self.steps_per_time,
            dt: self.dt,
        }
    }

    fn parameters(&self, forcing: f64) -> Vec<f64> {
        match self.model {
            Model::Lorenz96 => vec![forcing],
        }
    }

    /// A state on the attractor of the model with that forcing and step.
    fn spun_up(&self, rng: &mut StreamRng, forcing: f64, dt: f64) -> Result<Vec<f64>> {
        let mut state: Vec<f64> = (0..self.sites).map(|_| StandardNormal.sample(rng)).collect();
        self.model.integrate(&self.parameters(forcing), &mut state, dt, self.spin_up);
        check_bounded(&state)?;
        Ok(state)
    }

    /// Mean and covariance of a free run of the forecast model. It has a seed of its own, so all experiments share it.
    ///
    /// # Errors
    /// A run that leaves the range of numbers, or whose covariance is not positive definite.
    pub fn climatology(&self) -> Result<(Array1<f64>, CovarianceFactor)> {
        let mut state = self.spun_up(&mut StreamRng::new(0, Stream::Climatology), self.forcing, self.dt)?;
        let parameters = self.parameters(self.forcing);
        let mut sum = Array1::zeros(self.sites);
        let mut products = Array2::zeros((self.sites, self.sites));
        let mut left = self.climatology;
        while left > 0 {
            let mut block = Array2::zeros((left.min(1000), self.sites));
            for mut row in block.rows_mut() {
                self.model.integrate(&parameters, &mut state, self.dt, self.steps_per_time);
                row.assign(&ArrayView1::from(&state));
            }
            left -= block.nrows();
            sum += &block.sum_axis(Axis(0));
            products += &block.t().dot(&block);
        }
        check_bounded(&state)?;
        let count = self.climatology as f64;
        let mean: Array1<f64> = sum / count;
        let covariance = Array2::from_shape_fn(products.raw_dim(), |(i, j)| {
            (products[[i, j]] - count * mean[i] * mean[j]) / (count - 1.0)
        });
        Ok((mean, CovarianceFactor::new(covariance)?))
    }

    /// Cycles every method from each seed, each window's experiments in lockstep. Which others run beside it is no part of
    /// a method's answer. Where the observer breaks, the cycles that are left stay NaN.
    ///
    /// # Errors
    /// No seed, settings that cannot work, a truth that leaves the range of numbers, an engine's failure, a minimisation
    /// whose cost is not finite at the background.
    pub fn run(&self, seeds: &[u64], engine: &Engine, observer: &mut dyn Observer) -> Result<Cycles> {
        self.check()?;
        if seeds.is_empty() {
            return Err(Error::invalid("seeds", "at least one", "none", "give a seed for each experiment"));
        }
        let total = self.burn_in + self.cycles;
        let errors = [3, self.methods().len(), seeds.len(), total].iter().try_fold(1, |a: usize, n| a.checked_mul(*n));
        // Observations, and trajectories from background and minimum.
        let problem = [3, self.factors.len(), seeds.len(), self.longest() + 1, self.sites];
        let problem = problem.iter().try_fold(1, |a: usize, n| a.checked_mul(*n));
        for (what, numbers, help) in [
            ("errors of all cycles", errors, "use fewer cycles, repetitions, windows or factors"),
            ("states of a window", problem, "use fewer repetitions or factors, or a shorter window"),
        ] {
            if numbers.is_none_or(|n| n > MOST_NUMBERS) {
                let found = numbers.map_or("more than can be counted".into(), |n| n.to_string());
                return Err(Error::invalid(what, format!("at most {MOST_NUMBERS} numbers"), found, help));
            }
        }
        let (mean, covariance) = self.climatology()?;
        let mut twins = seeds.iter().map(|&seed| Twin::new(self, seed)).collect::<Result<Vec<_>>>()?;
        let blank = || Array2::from_elem((seeds.len(), total), f64::NAN);
        let errors = |method| CycledErrors { method, analysis: blank(), forecast: blank(), window_start: blank() };
        let methods = self.methods();
        let mut sets: Vec<CycledSet> = methods
            .chunk_by(|a, b| matches!(a, CycledMethod::Variational { .. }) && a.window() == b.window())
            .filter(|methods| methods[0] != CycledMethod::Climatology)
            .map(|methods| CycledSet::new(self, methods, seeds, &mean, &covariance))
            .collect();
        let mut all: Vec<CycledErrors> = methods.iter().map(|method| errors(*method)).collect();
        for cycle in 1..=total {
            twins.par_iter_mut().try_for_each(|twin| twin.advance(self))?;
            let mut rest = all.as_mut_slice();
            let baseline = rest.split_off_first_mut().expect("climatology is a method");
            for (k, twin) in twins.iter().enumerate() {
                let error = rmse_of(mean.view(), twin.truth(0));
                for errors in [&mut baseline.analysis, &mut baseline.forecast, &mut baseline.window_start] {
                    errors[[k, cycle - 1]] = error;
                }
            }
            for set in &mut sets {
                let own = rest.split_off_mut(..set.methods.len()).expect("methods in the order of the sets");
                set.cycle(cycle, &twins, engine, own)?;
            }
            let errors = all.iter().map(|e| e.analysis.column(cycle - 1).mean().unwrap_or(f64::NAN));
            let lowest = errors.fold(f64::INFINITY, f64::min);
            let figures = [("lowest RMSE", lowest)];
            let progress = Progress { method: "cycles", iteration: cycle, iterations: total, figures: &figures };
            if observer.progress(&progress).is_break() {
                break;
            }
        }
        Ok(Cycles { interval: self.interval(), burn_in: self.burn_in, seeds: seeds.to_vec(), methods: all })
    }
}

/// A truth with its observations, from one seed.
struct Twin {
    state: Vec<f64>,
    observation_noise: StreamRng,
    model_noise: StreamRng,
    /// The error of the first background, in standard deviations: `[sites]`.
    initial_noise: Array1<f64>,
    /// Truth and observations of the last times, the newest first, as many as the longest window has.
    past: VecDeque<(Array1<f64>, Array1<f64>)>,
}

impl Twin {
    fn new(settings: &CycleSettings, seed: u64) -> Result<Self> {
        let (forcing, dt, _) = settings.truth();
        let state = settings.spun_up(&mut StreamRng::new(seed, Stream::SpinUp), forcing, dt)?;
        let mut rng = StreamRng::new(seed, Stream::BackgroundNoise);
        let mut twin = Self {
            state,
            observation_noise: StreamRng::new(seed, Stream::ObservationNoise),
            model_noise: StreamRng::new(seed, Stream::ModelNoise),
            initial_noise: Array1::from_shape_simple_fn(settings.sites, || StandardNormal.sample(&mut rng)),
            past: VecDeque::new(),
        };
        twin.observe(settings);
        Ok(twin)
    }

    /// To the next observation time.
    fn advance(&mut self, settings: &CycleSettings) -> Result<()> {
        let (forcing, dt, steps) = settings.truth();
        settings.model.integrate(&settings.parameters(forcing), &mut self.state, dt, steps);
        for x in &mut self.state {
            let noise: f64 = StandardNormal.sample(&mut self.model_noise);
            *x += settings.model_noise * noise;
        }
        check_bounded(&self.state)?;
        self.observe(settings);
        Ok(())
    }

    fn observe(&mut self, settings: &CycleSettings) {
        let truth = Array1::from_vec(self.state.clone());
        let observations = truth.mapv(|x| {
            let noise: f64 = StandardNormal.sample(&mut self.observation_noise);
            x + settings.observation_std * noise
        });
        self.past.push_front((truth, observations));
        self.past.truncate(settings.longest() + 1);
    }

    /// The truth so many intervals ago: `[sites]`.
    fn truth(&self, ago: usize) -> ArrayView1<'_, f64> {
        self.past[ago].0.view()
    }
}

impl CycleSettings {
    /// Forcing, step and steps per interval of the truth.
    fn truth(&self) -> (f64, f64, usize) {
        let steps = self.true_steps_per_time.unwrap_or(self.steps_per_time);
        (self.true_forcing.unwrap_or(self.forcing), self.interval() / steps as f64, steps)
    }
}

/// The experiments of one window: problem `e * seeds + k` is method `e` on the truth of seed `k`.
struct CycledSet {
    methods: Vec<CycledMethod>,
    problem: Problem,
    initial_error: f64,
}

impl CycledSet {
    fn new(
        settings: &CycleSettings,
        methods: &[CycledMethod],
        seeds: &[u64],
        mean: &Array1<f64>,
        covariance: &CovarianceFactor,
    ) -> Self {
        let (count, intervals) = (methods.len() * seeds.len(), methods[0].window());
        let window = settings.window(intervals);
        let mut weights = Array2::zeros((1, window.times));
        weights[[0, intervals]] = 1.0;
        let factors = methods.iter().flat_map(|m| vec![m.factor().expect("it assimilates"); seeds.len()]);
        let problem = Problem {
            model: settings.model,
            parameters: Array1::from_vec(settings.parameters(settings.forcing)).insert_axis(Axis(0)),
            parameter_std: None,
            true_parameters: None,
            model_error: None,
            window,
            background: Background {
                mean: mean.broadcast((count, settings.sites)).expect("one row for each problem").to_owned(),
                scale: factors.collect(),
                error: ErrorCovariance::Full(vec![covariance.clone()]),
            },
            operator: ObservationOperator { function: PointFunction::Identity, block_size: 1 },
            observations: Array3::from_elem((count, window.times, settings.sites), f64::NAN),
            observation_std: Array3::from_elem((1, window.times, settings.sites), settings.observation_std),
            weights,
            seeds: seeds.repeat(methods.len()),
            truth: None,
        };
        Self { methods: methods.to_vec(), problem, initial_error: settings.initial_error }
    }

    /// Assimilates the newest observations of all twins, in the cycle of that number from 1 on, and scores.
    fn cycle(&mut self, cycle: usize, twins: &[Twin], engine: &Engine, errors: &mut [CycledErrors]) -> Result<()> {
        let window = self.methods[0].window();
        let first = window.max(1);
        if cycle < first {
            return Ok(());
        }
        let twin = |p: usize| &twins[p % twins.len()];
        let problem = &mut self.problem;
        for p in 0..problem.count() {
            for t in 0..=window {
                problem.observations.slice_mut(s![p, t, ..]).assign(&twin(p).past[window - t].1);
            }
            if cycle == first && self.methods[0] != CycledMethod::OptimalInterpolation {
                let start = &twin(p).truth(window) + &(&twin(p).initial_noise * self.initial_error);
                problem.background.mean.row_mut(p).assign(&start);
            }
        }
        let descent = FourDVarSettings { starts: 1, ..FourDVarSettings::default() };
        let minima = descent.minima(problem, engine, &mut Silent)?;
        for p in 0..problem.count() {
            let (errors, at) = (&mut errors[p / twins.len()], [p % twins.len(), cycle - 1]);
            let [end, start] = [0, window].map(|ago| twin(p).truth(ago));
            errors.analysis[at] = rmse_of(minima.analysis.slice(s![p, window, ..]), end);
            errors.forecast[at] = rmse_of(minima.background.slice(s![p, window, ..]), end);
            errors.window_start[at] = rmse_of(minima.analysis.slice(s![p, 0, ..]), start);
        }
        self.next_background(&minima.analysis);
        Ok(())
    }

    /// The background of the next cycle, from the trajectories of this one's analyses: `[P, times, sites]`.
    fn next_background(&mut self, analysis: &Array3<f64>) {
        match self.methods[0] {
            CycledMethod::Climatology | CycledMethod::OptimalInterpolation => {}
            CycledMethod::Variational { .. } => {
                self.problem.background.mean.assign(&analysis.index_axis(Axis(1), 1));
            }
        }
    }
}

/// RMSE over sites.
fn rmse_of(state: ArrayView1<f64>, truth: ArrayView1<f64>) -> f64 {
    rmse(state.insert_axis(Axis(0)), truth.insert_axis(Axis(0)))
}

fn check_bounded(state: &[f64]) -> Result<()> {
    // Engines compute in f32 too.
    if state.iter().all(|x| x.abs() <= 1e12) {
        return Ok(());
    }
    Err(Error::invalid(
        "the model's run",
        "a bounded trajectory",
        "an overflow",
        "use a smaller dt with more steps per time, a smaller forcing, or less model noise",
    ))
}

impl Cycles {
    /// Cycles of each experiment, the burn-in included.
    pub fn count(&self) -> usize {
        self.methods[0].analysis.ncols()
    }

    /// The mean RMSE of each method.
    ///
    /// The mean is over the cycles after the burn-in, its standard error over seeds, whose experiments are independent.
    pub fn scores(&self) -> Vec<CycledScores> {
        let estimate = |errors: &Array2<f64>| {
            let scored = errors.slice(s![.., self.burn_in..]);
            Estimate::new(&scored.mean_axis(Axis(1)).expect("cycles to score").to_vec()).expect("at least one seed")
        };
        let scores = |errors: &CycledErrors| CycledScores {
            method: errors.method.name(),
            window: errors.method.window(),
            factor: errors.method.factor(),
            analysis: estimate(&errors.analysis),
            forecast: estimate(&errors.forecast),
            window_start: estimate(&errors.window_start),
        };
        self.methods.iter().map(scores).collect()
    }
}

impl fmt::Display for Cycles {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let heads = ["Mean RMSE", "window", "B / C", "analysis", "forecast", "window's start"];
        let [title, window, factor, analysis, forecast, start] = heads;
        writeln!(f, "{title:22}{window:>7}{factor:>9}{analysis:>18}{forecast:>18}{start:>18}")?;
        for scores in self.scores() {
            let cell = |e: &Estimate| {
                let mean = format!("{:.3}", e.mean);
                e.standard_error.map_or(mean.clone(), |error| format!("{mean} ± {error:.4}"))
            };
            let factor = scores.factor.map_or("-".into(), |x| x.to_string());
            let [analysis, forecast, start] = [&scores.analysis, &scores.forecast, &scores.window_start].map(cell);
            let (method, window) = (scores.method, scores.window);
            writeln!(f, "{method:22}{window:>7}{factor:>9}{analysis:>18}{forecast:>18}{start:>18}")?;
        }
        Ok(())
    }
}
