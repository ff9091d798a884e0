//! Twin experiments: a truth from the model itself, and a background and observations made from it.
//!
//! Every random ingredient comes from a stream of its own under the one seed, and each stream is read in full
//! whatever the other settings are: another share of dropped observations leaves truth, background and noise alone,
//! and a longer window keeps its first times.

use crate::error::{Error, Result};
use crate::memory;
use crate::model::{Model, ParameterValues};
use crate::problem::{
    Background, CovarianceFactor, ErrorCovariance, ModelError, ObservationOperator, PointFunction, Problem, Window,
};
use crate::random::{Stream, StreamRng, derived_seed};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, Axis, s};
use rand_distr::{Distribution, StandardNormal, Uniform};
use serde::{Deserialize, Serialize};

/// How truth and background are related.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TwinKind {
    /// The truth is on the attractor and the background lies around it, as on the slides. Good for RMSE.
    #[default]
    Classic,
    /// The background is on the attractor, B and R come from its run, and the truth is drawn from N(xb, B): what
    /// calibration needs, because the truth is then a draw from the very prior that is assimilated.
    Prior,
}

/// A twin experiment. The defaults are the case study of the slides, preset `isda-16`.
///
/// The fields are at once settings, command-line flags and keys of a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[command(next_help_heading = "Twin experiment")]
pub struct TwinSettings {
    /// How truth and background are related. Default: classic
    #[arg(long, value_name = "KIND")]
    pub kind: TwinKind,
    /// The model. Default: lorenz96
    #[arg(long, value_name = "NAME", value_parser = Model::from_name)]
    pub model: Model,
    /// Sites of the model state. Default: 16
    #[arg(long, value_name = "N")]
    pub sites: usize,
    /// Stored times, the initial one included. Default: 16
    #[arg(long, value_name = "N")]
    pub times: usize,
    /// Times whose observations are assimilated; later ones are kept for verification. Default: 12
    #[arg(long, value_name = "N")]
    pub assimilated_times: usize,
    /// Share of the observations that is dropped, at random over times and sites. Default: 0.5
    #[arg(long, value_name = "SHARE")]
    pub drop: f64,
    /// Observe every n-th time only. Default: 1
    #[arg(long, value_name = "N")]
    pub time_stride: usize,
    /// Whether time 0, the state that is sought, is observed too. Default: false
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub observe_initial: bool,
    /// Background deviations: an interval of percentages of half the amplitude of the state, from which each site
    /// draws its own. Default: 10,20
    #[arg(long, value_name = "LOW,HIGH", value_parser = interval, allow_hyphen_values = true)]
    pub background_noise: [f64; 2],
    /// Observation deviations: an interval of percentages of half the amplitude of what is observed, from which each
    /// time and site draws its own. Default: 5,10
    #[arg(long, value_name = "LOW,HIGH", value_parser = interval, allow_hyphen_values = true)]
    pub observation_noise: [f64; 2],
    /// Standard deviation of every background error, in place of --background-noise. Default: none
    #[arg(long, value_name = "SD")]
    pub background_std: Option<f64>,
    /// Standard deviation of every observation error, in place of --observation-noise. Default: none
    #[arg(long, value_name = "SD")]
    pub observation_std: Option<f64>,
    /// Sites over which background errors are correlated, as exp(-distance / this); 0 for none. Default: 0
    #[arg(long, value_name = "SITES")]
    pub background_correlation: f64,
    /// The point-wise function of the observation operator. Default: square
    #[arg(long, value_name = "NAME", value_parser = PointFunction::from_name)]
    pub operator: PointFunction,
    /// Sites averaged into one observation. Default: 1
    #[arg(long, value_name = "SITES")]
    pub block_size: usize,
    /// RK4 step in model time units. Default: 0.1
    #[arg(long, value_name = "STEP")]
    pub dt: f64,
    /// RK4 steps between two stored times. Default: 1
    #[arg(long, value_name = "N")]
    pub steps_per_time: usize,
    /// Parameters of the forecast model. Any that is not named is the model's own, of lorenz63 sigma=10, rho=28, beta=8/3.
    /// Default: forcing=8
    #[arg(long, value_name = "NAME=VALUE,..")]
    pub parameters: ParameterValues,
    /// Standard deviations of the parameters' prior, around --parameters: of all of them, which are then estimated together
    /// with the state. Default: none, they are known
    #[arg(long, value_name = "NAME=SD,..")]
    #[serde(skip_serializing_if = "ParameterValues::is_empty")]
    pub parameter_std: ParameterValues,
    /// The truth's parameters. Default: --parameters, or a draw from their prior where they are estimated
    #[arg(long, value_name = "NAME=VALUE,..")]
    #[serde(skip_serializing_if = "ParameterValues::is_empty")]
    pub true_parameters: ParameterValues,
    /// RK4 steps between two stored times in the truth's run, whose step is shorter or longer accordingly. Default:
    /// --steps-per-time
    #[arg(long, value_name = "N")]
    pub true_steps_per_time: Option<usize>,
    /// Standard deviation of the model's errors, which are then estimated with the state (weak constraint); 0 is the strong
    /// constraint in the same control. Default: none, the model is perfect
    #[arg(long, value_name = "SD")]
    pub model_error_std: Option<f64>,
    /// RK4 steps between two errors of the model. Default: --steps-per-time, an error before each stored time
    #[arg(long, value_name = "STEPS")]
    pub model_error_interval: Option<usize>,
    /// Sites over which the model's errors are correlated, as exp(-distance / this); 0 for none. Default: 0
    #[arg(long, value_name = "SITES")]
    pub model_error_correlation: f64,
    /// Standard deviation of the errors that the truth's run makes, as often and as correlated. Default: --model-error-std
    #[arg(long, value_name = "SD")]
    pub model_noise: Option<f64>,
    /// RK4 steps from a standard normal state to the attractor. Default: 63
    #[arg(long, value_name = "STEPS")]
    pub spin_up: usize,
    /// The seed of everything random, the methods' draws included. Default: 1
    #[arg(long, value_name = "SEED")]
    pub seed: u64,
}

impl Default for TwinSettings {
    fn default() -> Self {
        Self {
            kind: TwinKind::Classic,
            model: Model::Lorenz96,
            sites: 16,
            times: 16,
            assimilated_times: 12,
            drop: 0.5,
            time_stride: 1,
            observe_initial: false,
            background_noise: [10.0, 20.0],
            observation_noise: [5.0, 10.0],
            background_std: None,
            observation_std: None,
            background_correlation: 0.0,
            operator: PointFunction::Square,
            block_size: 1,
            dt: 0.1,
            steps_per_time: 1,
            parameters: ParameterValues::default(),
            parameter_std: ParameterValues::default(),
            true_parameters: ParameterValues::default(),
            true_steps_per_time: None,
            model_error_std: None,
            model_error_interval: None,
            model_error_correlation: 0.0,
            model_noise: None,
            spin_up: 63,
            seed: 1,
        }
    }
}

/// Reads "10,20".
fn interval(text: &str) -> std::result::Result<[f64; 2], String> {
    let wrong = || "expected two numbers, LOW,HIGH".to_string();
    let (low, high) = text.split_once(',').ok_or_else(wrong)?;
    let number = |s: &str| s.trim().parse().map_err(|_| wrong());
    Ok([number(low)?, number(high)?])
}

impl TwinSettings {
    /// The stored times and the time step.
    pub fn window(&self) -> Window {
        Window {
            times: self.times,
            assimilated_times: self.assimilated_times,
            steps_per_time: self.steps_per_time,
            dt: self.dt,
        }
    }

    /// H.
    pub fn observation_operator(&self) -> ObservationOperator {
        ObservationOperator { function: self.operator, block_size: self.block_size }
    }

    /// The same experiment on another model: of as many sites as it can have, with its own parameters and a step that suits it,
    /// over about the same model time.
    pub fn with_model(self, model: Model) -> Self {
        if model == self.model {
            return self;
        }
        let steps = |time: f64| (time / model.step()).round().max(1.0) as usize;
        let (least, most) = model.sites().into_inner();
        Self {
            model,
            sites: self.sites.clamp(least, most),
            dt: model.step(),
            steps_per_time: steps(self.dt * self.steps_per_time as f64),
            spin_up: steps(self.dt * self.spin_up as f64),
            parameters: ParameterValues::default(),
            parameter_std: ParameterValues::default(),
            true_parameters: ParameterValues::default(),
            ..self
        }
    }

    /// The same with every parameter of the model named.
    pub fn completed(mut self) -> Self {
        self.parameters = self.parameters.completed(self.model);
        self
    }

    /// The model's parameters, in its order.
    pub fn model_parameters(&self) -> Vec<f64> {
        self.parameters.or_default(self.model)
    }

    /// Standard deviations of their prior, where they are estimated.
    fn parameter_stds(&self) -> Option<Vec<f64>> {
        self.parameter_std.all_or_none(self.model)
    }

    /// RK4 steps between two errors of the model.
    fn error_interval(&self) -> usize {
        self.model_error_interval.unwrap_or(self.steps_per_time)
    }

    /// Q of errors of that deviation.
    fn error_covariance(&self, std: f64) -> Result<ErrorCovariance> {
        let stds = Array1::from_elem(self.sites, std);
        if self.model_error_correlation == 0.0 || std == 0.0 {
            return Ok(ErrorCovariance::Diagonal(stds.insert_axis(Axis(0))));
        }
        let covariance = covariance(&stds, self.model_error_correlation);
        Ok(ErrorCovariance::Full(vec![CovarianceFactor::named("model_error_covariance", covariance)?]))
    }

    /// Refuses settings from which no twin can be made.
    ///
    /// # Errors
    /// The first field at fault.
    pub fn check(&self) -> Result<()> {
        let refuse =
            |what: &str, expected: String, found: String, help: &str| Err(Error::invalid(what, expected, found, help));
        self.model.check_sites(self.sites)?;
        self.window().check()?;
        self.observation_operator().check(self.sites)?;
        if self.sites.checked_mul(self.times).is_none_or(|n| n > VALUES_AT_MOST) {
            let found = format!("{} times of {} sites", self.times, self.sites);
            let expected = "a trajectory of at most 4 GiB".to_string();
            return refuse("times and sites", expected, found, "store fewer times, with more steps per time");
        }
        if !(0.0..=1.0).contains(&self.drop) {
            return refuse("drop", "a share from 0 to 1".into(), self.drop.to_string(), "0.5 drops half");
        }
        if self.spin_up > SPIN_UP_AT_MOST {
            let expected = format!("at most {SPIN_UP_AT_MOST} RK4 steps");
            return refuse("spin-up", expected, self.spin_up.to_string(), "a thousand steps forget where they began");
        }
        if self.time_stride == 0 {
            return refuse("time-stride", "at least 1".into(), "0".into(), "1 observes every time");
        }
        for (what, [low, high]) in
            [("background-noise", self.background_noise), ("observation-noise", self.observation_noise)]
        {
            // No share of an amplitude is as large, and what is drawn from an interval wants twice its length.
            if !(low > 0.0 && low <= high && high <= f64::MAX / 2.0) {
                let found = format!("{low},{high}");
                return refuse(what, "LOW,HIGH with 0 < LOW <= HIGH".into(), found, "give percentages, such as 10,20");
            }
        }
        if !(self.background_correlation >= 0.0 && self.background_correlation.is_finite()) {
            let found = self.background_correlation.to_string();
            return refuse("background-correlation", "a length >= 0 in sites".into(), found, "0 is a diagonal B");
        }
        if self.background_correlation > 0.0 && self.sites > FULL_SITES_AT_MOST {
            let expected = format!("at most {FULL_SITES_AT_MOST} sites with a full B");
            return refuse("sites", expected, self.sites.to_string(), "set background-correlation to 0");
        }
        self.parameters.check("parameters", self.model)?;
        self.parameter_std.check_deviations("parameter-std", self.model)?;
        self.true_parameters.check("true-parameters", self.model)?;
        for (what, std) in [("background-std", self.background_std), ("observation-std", self.observation_std)] {
            if let Some(std) = std.filter(|s| !(s.is_finite() && *s > 0.0)) {
                let help = "leave it out for deviations from the amplitude";
                return refuse(what, "a finite deviation > 0".into(), std.to_string(), help);
            }
        }
        for (what, std) in [("model-error-std", self.model_error_std), ("model-noise", self.model_noise)] {
            if let Some(std) = std.filter(|s| !(s.is_finite() && *s >= 0.0)) {
                return refuse(what, "a finite deviation >= 0".into(), std.to_string(), "leave it out for none");
            }
        }
        if !(self.model_error_correlation >= 0.0 && self.model_error_correlation.is_finite()) {
            let found = self.model_error_correlation.to_string();
            return refuse("model-error-correlation", "a length >= 0 in sites".into(), found, "0 is a diagonal Q");
        }
        if self.model_error_correlation > 0.0 && self.sites > FULL_SITES_AT_MOST {
            let expected = format!("at most {FULL_SITES_AT_MOST} sites with a full Q");
            return refuse("sites", expected, self.sites.to_string(), "set model-error-correlation to 0");
        }
        let steps = (self.assimilated_times - 1) * self.steps_per_time;
        let errs = self.model_error_std.is_some() || self.model_noise.is_some_and(|s| s > 0.0);
        if errs && steps == 0 {
            let expected = "at least 2 with errors of the model, which are made between times".to_string();
            let help = "assimilate more times, or leave the model's errors out";
            return refuse("assimilated-times", expected, self.assimilated_times.to_string(), help);
        }
        if errs && !(1..=steps).contains(&self.error_interval()) {
            let expected = format!("1 to {steps}, the steps of the assimilation window");
            let help = "change it, or leave the model's errors out";
            return refuse("model-error-interval", expected, self.error_interval().to_string(), help);
        }
        if !errs && (self.model_error_interval.is_some() || self.model_error_correlation > 0.0) {
            let what = "model-error-std";
            return refuse(what, "a deviation of the errors".into(), "none".into(), "say how large the errors are");
        }
        if let Some(true_steps) = self.true_steps_per_time {
            if !(1..=TRUE_STEPS_AT_MOST).contains(&true_steps) {
                let expected = format!("1 to {TRUE_STEPS_AT_MOST}");
                return refuse("true-steps-per-time", expected, true_steps.to_string(), "change it, or leave it out");
            }
            if errs && !self.error_interval().is_multiple_of(self.steps_per_time) {
                let expected = "whole stored times where the truth has steps of its own".to_string();
                let help = "change it, or leave --true-steps-per-time out";
                return refuse("model-error-interval", expected, self.error_interval().to_string(), help);
            }
        }
        Ok(())
    }
}

/// Most RK4 steps before the window, as many as a window has at most.
const SPIN_UP_AT_MOST: usize = u32::MAX as usize / 2;
/// Most RK4 steps of a truth between two stored times.
const TRUE_STEPS_AT_MOST: usize = 1 << 20;
/// Values of a variable of 4 GiB.
const VALUES_AT_MOST: usize = 1 << 29;
/// Sites up to which a full B is factored: 8192^2 values are 512 MiB.
const FULL_SITES_AT_MOST: usize = 8192;

/// The twin problem of the settings and their seed.
///
/// # Errors
/// Settings that [`TwinSettings::check`] refuses, or a truth that leaves the range of numbers.
pub fn simulate(settings: &TwinSettings) -> Result<Problem> {
    simulate_set(settings, &[settings.seed])
}

/// The twin problems of several seeds, stacked into one set that runs in lockstep. Each is what [`simulate`] gives
/// for its seed alone.
///
/// # Errors
/// No seed, settings that [`TwinSettings::check`] refuses, or a truth that leaves the range of numbers.
pub fn simulate_set(settings: &TwinSettings, seeds: &[u64]) -> Result<Problem> {
    settings.check()?;
    check_memory(settings, seeds.len())?;
    let twins = seeds.iter().map(|&seed| Twin::draw(settings, seed)).collect::<Result<Vec<_>>>()?;
    if twins.is_empty() {
        return Err(Error::invalid("seeds", "at least one", "none", "give a seed for each twin"));
    }
    let rows = |pick: fn(&Twin) -> ArrayView1<f64>| {
        ndarray::stack(Axis(0), &twins.iter().map(pick).collect::<Vec<_>>()).expect("twins have one shape")
    };
    let planes = |pick: fn(&Twin) -> ArrayView2<f64>| {
        ndarray::stack(Axis(0), &twins.iter().map(pick).collect::<Vec<_>>()).expect("twins have one shape")
    };
    let error = if settings.background_correlation > 0.0 {
        let factor = |t: &Twin| CovarianceFactor::new(covariance(&t.background_std, settings.background_correlation));
        ErrorCovariance::Full(twins.iter().map(factor).collect::<Result<_>>()?)
    } else {
        ErrorCovariance::Diagonal(rows(|t| t.background_std.view()))
    };
    let observation_std: Array3<f64> = planes(|t| t.observation_std.view());
    let problem = Problem {
        model: settings.model,
        parameters: Array1::from_vec(settings.model_parameters()).insert_axis(Axis(0)),
        parameter_std: settings.parameter_stds().map(|std| Array1::from_vec(std).insert_axis(Axis(0))),
        true_parameters: if settings.parameter_stds().is_some()
            || twins.iter().any(|t| t.parameters.to_vec() != settings.model_parameters())
        {
            Some(rows(|t| t.parameters.view()))
        } else {
            None
        },
        model_error: (settings.model_error_std)
            .map(|std| -> Result<_> {
                let covariance = settings.error_covariance(std)?;
                Ok(ModelError { covariance, interval: settings.error_interval() })
            })
            .transpose()?,
        window: settings.window(),
        background: Background { mean: rows(|t| t.background.view()), error, scale: Array1::ones(1) },
        operator: settings.observation_operator(),
        observations: planes(|t| t.observations.view()),
        observation_std,
        weights: Array2::ones((1, settings.times)),
        seeds: seeds.to_vec(),
        truth: Some(planes(|t| t.truth.view())),
    };
    problem.check()?;
    Ok(problem)
}

/// Refuses sets that the machine has no memory for, before any of it is asked for.
fn check_memory(settings: &TwinSettings, twins: usize) -> Result<()> {
    let TwinSettings { times, sites, block_size, .. } = *settings;
    // Truth, observations and their deviations, first of each twin and then in one array.
    let of_times = times.saturating_mul(sites + 2 * (sites / block_size));
    let of_sites = if settings.background_correlation > 0.0 { sites.saturating_mul(3 * sites) } else { 0 };
    let each = of_times.saturating_mul(2).saturating_add(of_sites);
    let what = format!("{twins} twins of {times} times of {sites} sites");
    memory::check(&what, &[twins, each], "make fewer of them at a time, or smaller ones")
}

/// As many windows for a network to learn from: twins of seeds derived from that of the settings, which no run of consecutive
/// seeds meets, without their truth.
///
/// # Errors
/// As [`simulate_set`].
pub fn training_windows(settings: &TwinSettings, count: usize) -> Result<Problem> {
    settings.check()?;
    check_memory(settings, count)?;
    let seeds: Vec<u64> = (0..count as u64).map(|k| derived_seed(settings.seed, Stream::Windows, k)).collect();
    Ok(Problem { truth: None, true_parameters: None, ..simulate_set(settings, &seeds)? })
}

/// One twin.
struct Twin {
    /// The truth's: `[parameters]`.
    parameters: Array1<f64>,
    /// `[times, sites]`
    truth: Array2<f64>,
    /// `[sites]`
    background: Array1<f64>,
    /// `[sites]`
    background_std: Array1<f64>,
    /// NaN where nothing was observed: `[times, observations]`.
    observations: Array2<f64>,
    /// `[times, observations]`
    observation_std: Array2<f64>,
}

impl Twin {
    fn draw(settings: &TwinSettings, seed: u64) -> Result<Self> {
        let sites = settings.sites;
        let normal = |stream| {
            let mut rng = StreamRng::new(seed, stream);
            move || -> f64 { StandardNormal.sample(&mut rng) }
        };
        let mut deviations = StreamRng::new(seed, Stream::Deviations);
        let mut percentage = |[low, high]: [f64; 2]| -> f64 {
            Uniform::new_inclusive(low, high).expect("the interval was checked").sample(&mut deviations) / 100.0
        };

        let mut of_parameters = normal(Stream::Parameters);
        let prior = settings.model_parameters();
        let parameters: Vec<f64> = (settings.true_parameters.by_parameter(settings.model).into_iter().enumerate())
            .map(|(k, given)| {
                let draw = of_parameters();
                given.unwrap_or_else(|| prior[k] + settings.parameter_stds().map_or(0.0, |std| std[k] * draw))
            })
            .collect();
        let mut spin_up = normal(Stream::SpinUp);
        let mut attractor = Array1::from_shape_simple_fn(sites, &mut spin_up);
        let state = attractor.as_slice_mut().expect("a fresh array is contiguous");
        let own = if settings.kind == TwinKind::Prior { &prior } else { &parameters };
        settings.model.integrate(own, state, settings.dt, settings.spin_up);

        let half = half_amplitude(attractor.iter());
        let background_std = Array1::from_shape_simple_fn(sites, || {
            let share = percentage(settings.background_noise);
            settings.background_std.unwrap_or(share * half)
        });
        let correlated = |noise: Array1<f64>| -> Result<Array1<f64>> {
            if settings.background_correlation == 0.0 {
                return Ok(&noise * &background_std);
            }
            let covariance = covariance(&background_std, settings.background_correlation);
            Ok(CovarianceFactor::new(covariance)?.lower.dot(&noise))
        };

        // The classic twin's background lies around the truth, the prior twin's truth around the background. Either
        // way the run that starts on the attractor sets the amplitudes from which the deviations follow.
        let perfect = TwinSettings {
            model_noise: Some(0.0),
            model_error_std: None,
            true_steps_per_time: None,
            ..settings.clone()
        };
        let reference = trajectory(&perfect, own, &attractor, seed)?;
        let (truth, background) = match settings.kind {
            TwinKind::Classic => {
                let noise = Array1::from_shape_simple_fn(sites, normal(Stream::BackgroundNoise));
                (trajectory(settings, &parameters, &attractor, seed)?, &attractor + &correlated(noise)?)
            }
            TwinKind::Prior => {
                let noise = Array1::from_shape_simple_fn(sites, normal(Stream::Truth));
                (trajectory(settings, &parameters, &(&attractor + &correlated(noise)?), seed)?, attractor)
            }
        };

        let shape = (settings.times, sites / settings.block_size);
        let observe = |trajectory: &Array2<f64>| {
            let mut observed = Array2::zeros(shape);
            for (x, mut y) in trajectory.rows().into_iter().zip(observed.rows_mut()) {
                let values = settings.observation_operator().apply(&x.to_vec());
                y.assign(&ArrayView1::from(&values));
            }
            observed
        };
        let observed = mask(settings, seed, shape);
        let seen = observe(&reference);
        let assimilated = s![..settings.assimilated_times, ..];
        let seen = seen.slice(assimilated);
        let chosen = seen.iter().zip(observed.slice(assimilated)).filter(|(_, observed)| **observed).map(|(v, _)| v);
        let half = match half_amplitude(chosen) {
            // Nothing observed, or a single value: no amplitude of its own.
            half if half > 0.0 => half,
            _ => half_amplitude(seen.iter()),
        };
        let observation_std = Array2::from_shape_simple_fn(shape, || {
            let share = percentage(settings.observation_noise);
            settings.observation_std.unwrap_or(share * half)
        });
        let noise = Array2::from_shape_simple_fn(shape, normal(Stream::ObservationNoise));
        let mut observations = observe(&truth) + &observation_std * &noise;
        ndarray::Zip::from(&mut observations).and(&observed).for_each(|y, observed| {
            if !observed {
                *y = f64::NAN;
            }
        });
        Ok(Self {
            parameters: Array1::from_vec(parameters),
            truth,
            background,
            background_std,
            observations,
            observation_std,
        })
    }
}

/// The truth at the stored times, with the errors that its model makes: `[times, sites]` from `initial: [sites]`.
fn trajectory(settings: &TwinSettings, parameters: &[f64], initial: &Array1<f64>, seed: u64) -> Result<Array2<f64>> {
    let mut x = initial.to_vec();
    let mut trajectory = Array2::zeros((settings.times, settings.sites));
    let (model, per_time) = (settings.model, settings.steps_per_time);
    let std = settings.model_noise.or(settings.model_error_std).unwrap_or(0.0);
    let errors = if std > 0.0 { Some(settings.error_covariance(std)?) } else { None };
    let mut rng = StreamRng::new(seed, Stream::ModelNoise);
    // As in the problem: no error after the last assimilated time.
    let last = (settings.assimilated_times - 1) * per_time;
    let mut err = |step: usize, x: &mut [f64]| {
        if let Some(q) = errors.as_ref().filter(|_| step <= last && step.is_multiple_of(settings.error_interval())) {
            let xi = Array1::from_shape_simple_fn(x.len(), || StandardNormal.sample(&mut rng));
            x.iter_mut().zip(q.square_root(0, xi.view())).for_each(|(x, eta)| *x += eta);
        }
    };
    for (t, mut row) in trajectory.rows_mut().into_iter().enumerate() {
        if t > 0 {
            match settings.true_steps_per_time {
                Some(steps) => {
                    let dt = settings.dt * per_time as f64 / steps as f64;
                    model.integrate(parameters, &mut x, dt, steps);
                    err(t * per_time, &mut x);
                }
                None => {
                    for step in (t - 1) * per_time..t * per_time {
                        model.integrate(parameters, &mut x, settings.dt, 1);
                        err(step + 1, &mut x);
                    }
                }
            }
        }
        row.assign(&ArrayView1::from(&x));
        // Engines compute in f32 too, and H may cube.
        if x.iter().any(|v| v.is_nan() || v.abs() > 1e12) {
            return Err(Error::invalid(
                "the twin's truth",
                "a bounded trajectory",
                format!("an overflow at time {t}"),
                "use a smaller dt with more steps per time, or other parameters",
            ));
        }
    }
    Ok(trajectory)
}

/// Where something is observed: `[times, observations]`.
fn mask(settings: &TwinSettings, seed: u64, shape: (usize, usize)) -> Array2<bool> {
    let mut rng = StreamRng::new(seed, Stream::Mask);
    let share = Uniform::new(0.0, 1.0).expect("a proper interval");
    Array2::from_shape_fn(shape, |(t, _)| {
        let kept = share.sample(&mut rng) >= settings.drop;
        kept && t % settings.time_stride == 0 && (t > 0 || settings.observe_initial)
    })
}

/// (max - min) / 2, 0 of nothing.
fn half_amplitude<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    if low <= high { (high - low) / 2.0 } else { 0.0 }
}

/// B_ij = s_i s_j exp(-d_ij / correlation), with d the distance on the ring; positive definite for any length.
fn covariance(std: &Array1<f64>, correlation: f64) -> Array2<f64> {
    let n = std.len();
    Array2::from_shape_fn((n, n), |(i, j)| {
        let distance = i.abs_diff(j).min(n - i.abs_diff(j));
        std[i] * std[j] * (-(distance as f64) / correlation).exp()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut TwinSettings)) -> Problem {
        let mut settings = TwinSettings::default();
        change(&mut settings);
        simulate(&settings).unwrap()
    }

    fn background_std(problem: &Problem) -> Array1<f64> {
        problem.background.std_of(0)
    }

    #[test]
    fn defaults_are_the_slides() {
        let d = TwinSettings::default();
        assert_eq!(
            (d.kind, d.model, d.sites, d.times, d.assimilated_times),
            (TwinKind::Classic, Model::Lorenz96, 16, 16, 12)
        );
        assert_eq!((d.drop, d.time_stride, d.observe_initial), (0.5, 1, false));
        assert_eq!((d.background_noise, d.observation_noise), ([10.0, 20.0], [5.0, 10.0]));
        assert_eq!((d.operator, d.block_size, d.background_correlation), (PointFunction::Square, 1, 0.0));
        assert_eq!((d.dt, d.steps_per_time, d.model_parameters(), d.spin_up), (0.1, 1, vec![8.0], 63));
    }

    #[test]
    fn mask_drops_the_share_and_all_of_time_zero() {
        for drop in [0.2, 0.5, 0.9] {
            let problem = with(|s| (s.sites, s.times, s.assimilated_times, s.drop) = (40, 401, 400, drop));
            let observed = problem.observations_of(0).mapv(|y| !y.is_nan());
            assert!(observed.row(0).iter().all(|o| !o));
            let n = 400.0 * 40.0;
            let share = observed.iter().filter(|o| **o).count() as f64 / n;
            let error = (drop * (1.0 - drop) / n).sqrt();
            assert!((share - (1.0 - drop)).abs() < 4.0 * error, "drop {drop}: observed {share}");
        }
        assert_eq!(with(|s| s.drop = 1.0).assimilated_count(0), 0);
        assert_eq!(with(|s| s.drop = 0.0).assimilated_count(0), 11 * 16);
        assert_eq!(with(|s| (s.drop, s.observe_initial) = (0.0, true)).assimilated_count(0), 12 * 16);
        assert_eq!(with(|s| (s.drop, s.time_stride) = (0.0, 3)).assimilated_count(0), 3 * 16);
    }

    #[test]
    fn deviations_are_the_percentages_of_half_the_amplitude() {
        for seed in 1..20 {
            let problem = with(|s| s.seed = seed);
            let truth = problem.truth_of(0).unwrap();
            let half = half_amplitude(truth.row(0).iter());
            assert!(background_std(&problem).iter().all(|s| (0.10..=0.20).contains(&(s / half))));
            let y = problem.observations_of(0);
            let seen: Vec<f64> = (0..12 * 16)
                .filter(|k| !y[[k / 16, k % 16]].is_nan())
                .map(|k| truth[[k / 16, k % 16]].powi(2))
                .collect();
            let half = half_amplitude(seen.iter());
            assert!(problem.observation_std_of(0).iter().all(|s| (0.05..=0.10).contains(&(s / half))));
        }
    }

    #[test]
    fn errors_have_the_deviations_that_b_and_r_state() {
        let (mut background, mut observation) = (Vec::new(), Vec::new());
        for seed in 0..200 {
            let problem = with(|s| s.seed = seed);
            let truth = problem.truth_of(0).unwrap();
            let error = &problem.background.mean_of(0) - &truth.row(0);
            background.extend(&error / &background_std(&problem));
            let z = (&problem.observations_of(0) - &truth.mapv(|x| x * x)) / problem.observation_std_of(0);
            observation.extend(z.iter().filter(|z| !z.is_nan()));
        }
        for z in [background, observation] {
            let n = z.len() as f64;
            let (mean, square) = (z.iter().sum::<f64>() / n, z.iter().map(|z| z * z).sum::<f64>() / n);
            assert!(mean.abs() < 4.0 / n.sqrt() && (square - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "{mean} {square}");
        }
    }

    #[test]
    fn streams_are_independent() {
        let base = with(|_| {});
        let fewer = with(|s| s.drop = 0.9);
        assert_eq!(base.truth, fewer.truth);
        assert_eq!(base.background.mean, fewer.background.mean);
        let noisier = with(|s| s.observation_noise = [20.0, 30.0]);
        assert_eq!((&base.truth, &base.background.mean), (&noisier.truth, &noisier.background.mean));
        let nan = |p: &Problem| p.observations.mapv(f64::is_nan);
        assert_eq!(nan(&base), nan(&noisier));
        // What survives a larger drop survived the smaller one.
        assert!(nan(&base).iter().zip(&nan(&fewer)).all(|(few, many)| !few || *many));
        let worse = with(|s| s.background_noise = [30.0, 40.0]);
        assert_eq!((&base.truth, nan(&base)), (&worse.truth, nan(&worse)));
        assert_eq!(base.observation_std, worse.observation_std);
        let longer = with(|s| s.times = 20);
        assert_eq!(longer.truth.unwrap().slice(s![.., ..16, ..]), base.truth.as_ref().unwrap());
        assert_ne!(base.truth, with(|s| s.seed = 2).truth);
    }

    #[test]
    fn set_holds_the_single_twins() {
        let settings = TwinSettings::default();
        let set = simulate_set(&settings, &[3, 1, 2]).unwrap();
        assert_eq!((set.count(), &set.seeds), (3, &vec![3, 1, 2]));
        let alone = simulate(&TwinSettings { seed: 1, ..settings }).unwrap();
        let second = set.single(1);
        assert_eq!(second.truth, alone.truth);
        assert_eq!(second.background.mean, alone.background.mean);
        assert_eq!(background_std(&second), background_std(&alone));
        assert_eq!(second.observations.mapv(f64::to_bits), alone.observations.mapv(f64::to_bits));
        assert_eq!(second.observation_std, alone.observation_std);
    }

    #[test]
    fn prior_twin_truth_is_a_draw_from_the_prior() {
        let mut squares = Vec::new();
        for seed in 0..200 {
            let problem = with(|s| (s.kind, s.seed) = (TwinKind::Prior, seed));
            let difference = &problem.truth_of(0).unwrap().row(0) - &problem.background.mean_of(0);
            squares.extend((difference / background_std(&problem)).mapv(|z| z * z));
            // xb and B do not depend on the draw of the truth.
            let half = half_amplitude(problem.background.mean_of(0).iter());
            assert!(background_std(&problem).iter().all(|s| (0.10..=0.20).contains(&(s / half))));
        }
        let n = squares.len() as f64;
        assert!((squares.iter().sum::<f64>() / n - 1.0).abs() < 4.0 * (2.0 / n).sqrt());
    }

    #[test]
    fn correlated_background_has_the_covariance_it_states() {
        let problem = with(|s| s.background_correlation = 3.0);
        let ErrorCovariance::Full(b) = &problem.background.error else { panic!("a full B") };
        let std = background_std(&problem);
        assert_eq!(std, background_std(&with(|_| {})));
        assert!((b[0].covariance[[0, 15]] / (std[0] * std[15]) - (-1.0f64 / 3.0).exp()).abs() < 1e-12);
        let n = 300;
        let mut sum = Array2::<f64>::zeros((16, 16));
        for seed in 0..n {
            let problem = with(|s| (s.background_correlation, s.seed) = (3.0, seed));
            let error = &problem.background.mean_of(0) - &problem.truth_of(0).unwrap().row(0);
            let z = problem.background.whiten(0, error.view());
            sum += &z.view().insert_axis(Axis(1)).dot(&z.view().insert_axis(Axis(0)));
        }
        let worst = (sum / n as f64 - Array2::<f64>::eye(16)).iter().fold(0.0f64, |a, v| a.max(v.abs()));
        assert!(worst < 5.0 * (2.0 / n as f64).sqrt(), "{worst}");
    }

    #[test]
    fn bad_settings_are_refused_by_name() {
        type Change = fn(&mut TwinSettings);
        let cases: [(&str, Change); 36] = [
            ("sites", |s| s.sites = 3),
            ("times", |s| s.times = 0),
            ("assimilated_times", |s| s.assimilated_times = 17),
            ("drop", |s| s.drop = 1.5),
            ("drop", |s| s.drop = f64::NAN),
            ("time-stride", |s| s.time_stride = 0),
            ("background-noise", |s| s.background_noise = [-1.0, 2.0]),
            ("observation-noise", |s| s.observation_noise = [10.0, 5.0]),
            ("background-correlation", |s| s.background_correlation = -1.0),
            ("block_size", |s| s.block_size = 3),
            ("dt", |s| s.dt = -0.1),
            ("times and sites", |s| (s.sites, s.times) = (1 << 20, 1 << 20)),
            ("the twin's truth", |s| s.dt = 2.0),
            ("parameters", |s| s.parameters = [("forcing", f64::NAN)].into()),
            ("parameters", |s| s.parameters = [("rho", 28.0)].into()),
            ("true-parameters", |s| s.true_parameters = [("forcing", f64::INFINITY)].into()),
            ("parameter-std", |s| s.parameter_std = [("forcing", 0.0)].into()),
            ("parameter-std", |s| s.parameter_std = [("forcing", f64::NAN)].into()),
            ("parameter-std", |s| {
                *s = TwinSettings::default().with_model(Model::Lorenz63);
                s.parameter_std = [("rho", 1.0)].into();
            }),
            ("sites", |s| s.model = Model::Lorenz63),
            ("background-std", |s| s.background_std = Some(0.0)),
            ("observation-std", |s| s.observation_std = Some(f64::NAN)),
            ("model-error-std", |s| s.model_error_std = Some(-0.1)),
            ("model-error-std", |s| s.model_error_std = Some(f64::INFINITY)),
            ("model-noise", |s| s.model_noise = Some(-0.1)),
            ("model-noise", |s| s.model_noise = Some(f64::NAN)),
            ("model-error-correlation", |s| (s.model_error_std, s.model_error_correlation) = (Some(0.1), -1.0)),
            ("model-error-interval", |s| (s.model_error_std, s.model_error_interval) = (Some(0.1), Some(0))),
            // Of the window's 11 steps.
            ("model-error-interval", |s| (s.model_error_std, s.model_error_interval) = (Some(0.1), Some(12))),
            ("model-error-interval", |s| (s.model_noise, s.model_error_interval) = (Some(0.1), Some(12))),
            // Nothing says how large the errors are.
            ("model-error-std", |s| s.model_error_interval = Some(1)),
            ("model-error-std", |s| s.model_error_correlation = 1.0),
            ("true-steps-per-time", |s| s.true_steps_per_time = Some(0)),
            ("true-steps-per-time", |s| s.true_steps_per_time = Some(1 << 30)),
            ("assimilated-times", |s| (s.model_error_std, s.assimilated_times) = (Some(0.1), 1)),
            ("model-error-interval", |s| {
                (s.steps_per_time, s.model_error_std) = (2, Some(0.1));
                (s.model_error_interval, s.true_steps_per_time) = (Some(1), Some(3));
            }),
        ];
        for (name, change) in cases {
            let mut settings = TwinSettings::default();
            change(&mut settings);
            let error = simulate(&settings).expect_err(name);
            assert!(error.to_string().starts_with(name), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
