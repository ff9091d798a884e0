//! The settings of cycled assimilation: at once command-line flags and keys of a configuration file.

use super::{CycledKind, CycledMethod, VaeTerms};
use crate::error::{Error, Result};
use crate::method::Vae;
use crate::method::vae_var::ErrorOrigin;
use crate::model::{Model, ParameterValues};
use crate::posterior::Family;
use crate::problem::{PointFunction, Window};
use serde::{Deserialize, Serialize};

/// Settings of cycled assimilation, with independent observation errors. The defaults are the preset `sakov2008`.
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
    /// Parameters of the forecast model; where they are estimated, the first guess. Any that is not named is the model's own,
    /// of lorenz63 sigma=10, rho=28, beta=8/3. Default: forcing=8
    #[arg(long, value_name = "NAME=VALUE,..")]
    pub parameters: ParameterValues,
    /// Standard deviations of the first guess of the parameters: of all of them, which are then estimated in every cycle.
    /// Default: none, they are known
    #[arg(long, value_name = "NAME=SD,..")]
    #[serde(skip_serializing_if = "ParameterValues::is_empty")]
    pub parameter_std: ParameterValues,
    /// Factor by which the variance of an estimated parameter grows from one cycle's posterior to the next one's prior.
    /// Default: 1.002
    #[arg(long, value_name = "X")]
    pub parameter_inflation: f64,
    /// Parameters of the truth. Default: those of the forecast model
    #[arg(long, value_name = "NAME=VALUE,..")]
    #[serde(skip_serializing_if = "ParameterValues::is_empty")]
    pub true_parameters: ParameterValues,
    /// RK4 steps of the truth between two observation times, in the same time. Default: those of the forecast model
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_steps_per_time: Option<usize>,
    /// Standard deviation of the independent noise that is added to the truth after each interval. Default: 0
    #[arg(long, value_name = "SD")]
    pub model_noise: f64,
    /// Standard deviation of the errors that the forecast model is taken to make in each interval (weak constraint). What is
    /// learnt of them is not carried on: windows that overlap forget it. Default: none, the model is taken to be perfect
    #[arg(long, value_name = "SD")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_error_std: Option<f64>,
    /// The point-wise function of the observation operator. Default: identity
    #[arg(long, value_name = "NAME", value_parser = PointFunction::from_name)]
    pub operator: PointFunction,
    /// Share of the observations that is dropped, at random over times and sites. Default: 0
    #[arg(long, value_name = "SHARE")]
    pub drop: f64,
    /// Standard deviation of the observation errors. Default: 1
    #[arg(long, value_name = "SD")]
    pub observation_std: f64,
    /// Standard deviation of the error of the first background. Default: 1
    #[arg(long, value_name = "SD")]
    pub initial_error: f64,
    /// How each cycle is assimilated, and where its background's covariance comes from. Default: 4dvar
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub methods: Vec<CycledKind>,
    /// Windows in intervals between observation times; 0 is 3DVar. Default: 0
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub windows: Vec<usize>,
    /// Intervals by which a window moves on, at most its length; the newest observations, of as many times, are
    /// assimilated. Default: 1
    #[arg(long, value_name = "N")]
    pub shift: usize,
    /// Factors x in B = x C, with C the climatological covariance, or x P_e with that of background errors (--errors); each
    /// goes with each window of 4dvar and vae-var. The first is that of the static part of the others' backgrounds.
    /// Default: 0.02
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub factors: Vec<f64>,
    /// Factors on the covariance that vi and ensemble carry from one cycle to the next; each goes with each window.
    /// Default: 1.1
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub inflations: Vec<f64>,
    /// Share of the static B = x C in the backgrounds of vi and ensemble; the rest is what they carry. Default: 0
    #[arg(long, value_name = "SHARE")]
    pub static_share: f64,
    /// Members of the ensemble, and samples of the posterior of vi, whose covariance is carried: the fewer, the more
    /// inflation it takes. Default: 400
    #[arg(long, value_name = "N")]
    pub members: usize,
    /// Terms of the cost of vae-var beside the observations; each goes with each window and factor. Default: all
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub vae_terms: Vec<VaeTerms>,
    /// Background errors that are collected to learn from, by cycles of 4dvar with each window. Default: 20000
    #[arg(long, value_name = "N")]
    pub error_samples: usize,
    /// Experiments that make them, side by side, each after a burn-in. Default: 100
    #[arg(long, value_name = "N")]
    pub error_experiments: usize,
    /// Factors x in B = x C of those cycles: one for all windows, or one for each. Default: 0.02
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub error_factors: Vec<f64>,
    /// Starting points of each minimisation of the cost: the background, and draws around it. Default: 1
    #[arg(long, value_name = "N")]
    pub starts: usize,
    /// The Gaussian family that vi fits. Default: full-rank
    #[arg(long, value_name = "FAMILY")]
    pub family: Family,
    /// Iterations of vi in each cycle, from the Laplace approximation at 4DVAR's minimum. Default: 50
    #[arg(long, value_name = "N")]
    pub iterations: usize,
    /// Draws of each of those iterations. Default: 64
    #[arg(long, value_name = "N")]
    pub batch: usize,
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
            parameters: ParameterValues::default(),
            parameter_std: ParameterValues::default(),
            parameter_inflation: 1.002,
            true_parameters: ParameterValues::default(),
            true_steps_per_time: None,
            model_noise: 0.0,
            model_error_std: None,
            operator: PointFunction::Identity,
            drop: 0.0,
            observation_std: 1.0,
            initial_error: 1.0,
            methods: vec![CycledKind::FourDVar],
            windows: vec![0],
            shift: 1,
            factors: vec![0.02],
            inflations: vec![1.1],
            static_share: 0.0,
            members: 400,
            vae_terms: vec![VaeTerms::All],
            error_samples: 20_000,
            error_experiments: 100,
            error_factors: vec![0.02],
            starts: 1,
            family: Family::FullRank,
            iterations: 50,
            batch: 64,
            cycles: 2000,
            burn_in: 400,
            climatology: 100_000,
            spin_up: 1000,
            seed: 1,
        }
    }
}

/// The range of deviations and factors: beyond, what engines square in f32 says nothing.
const LEAST: f64 = 1e-8;
const MOST: f64 = 1e8;
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

    /// The methods, baselines first, then every window of each with each of its factors or inflations.
    pub fn methods(&self) -> Vec<CycledMethod> {
        let mut all = vec![CycledMethod::Climatology, CycledMethod::OptimalInterpolation];
        for &kind in &self.methods {
            for &window in &self.windows {
                match kind {
                    CycledKind::FourDVar => {
                        all.extend(self.factors.iter().map(|&factor| CycledMethod::Static { window, factor }));
                    }
                    CycledKind::VaeVar => all.extend(self.vae_terms.iter().flat_map(|&terms| {
                        self.factors.iter().map(move |&factor| CycledMethod::Learned { window, factor, terms })
                    })),
                    CycledKind::Vi | CycledKind::Ensemble => {
                        let of = |&inflation: &f64| CycledMethod::Carried { kind, window, inflation };
                        all.extend(self.inflations.iter().map(of));
                    }
                }
            }
        }
        all
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
            let expected = format!("{}a number from {LEAST:e} to {MOST:e}", if positive { "" } else { "0, or " });
            let fits = (LEAST..=MOST).contains(&value) || !positive && value == 0.0;
            if fits { Ok(()) } else { Err(Error::invalid(what, expected, value.to_string(), help)) }
        };
        self.parameters.check("parameters", self.model)?;
        self.parameter_std.check_deviations("parameter-std", self.model)?;
        for std in self.parameter_stds().into_iter().flatten() {
            number("parameter-std", std, true, "leave it out where the parameters are known")?;
        }
        self.true_parameters.check("true-parameters", self.model)?;
        number("parameter-inflation", self.parameter_inflation, true, "1 is for a parameter that never changes")?;
        whole("true-steps-per-time", self.true_steps_per_time.unwrap_or(1), 1, 1 << 20, "correct the truth's steps")?;
        number("model-noise", self.model_noise, false, "0 is a perfect model")?;
        number("model-error-std", self.model_error_std.unwrap_or(0.0), false, "leave it out for a perfect model")?;
        number("observation-std", self.observation_std, true, "correct the deviation")?;
        number("initial-error", self.initial_error, false, "0 starts at the truth")?;
        for (what, share) in [("drop", self.drop), ("static-share", self.static_share)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::invalid(what, "a share from 0 to 1", share.to_string(), "correct the share"));
            }
        }
        for (what, count) in [
            ("methods", self.methods.len()),
            ("windows", self.windows.len()),
            ("factors", self.factors.len()),
            ("inflations", self.inflations.len()),
            ("vae-terms", self.vae_terms.len()),
            ("error-factors", self.error_factors.len()),
        ] {
            if count == 0 {
                return Err(Error::invalid(what, "at least one", "none", format!("give --{what}")));
            }
        }
        let distinct = |values: &[f64]| values.iter().enumerate().all(|(k, v)| !values[..k].contains(v));
        let windows: Vec<f64> = self.windows.iter().map(|w| *w as f64).collect();
        let methods: Vec<f64> = self.methods.iter().map(|kind| f64::from(*kind as u8)).collect();
        let terms: Vec<f64> = self.vae_terms.iter().map(|terms| f64::from(*terms as u8)).collect();
        for (what, values) in [
            ("methods", &methods),
            ("windows", &windows),
            ("factors", &self.factors),
            ("inflations", &self.inflations),
            ("vae-terms", &terms),
        ] {
            if !distinct(values) {
                return Err(Error::invalid(what, "each one once", "one that is given twice", "leave one of them out"));
            }
        }
        whole("shift", self.shift, 1, LONGEST_WINDOW, "count intervals between observation times")?;
        for window in &self.windows {
            whole("windows", *window, 0, LONGEST_WINDOW, "count intervals between observation times")?;
            if *window == 0 && !self.parameter_std.is_empty() {
                let expected = "windows of at least 1 interval, in which an estimated parameter is felt";
                return Err(Error::invalid("windows", expected, "0", "give --windows 1, or leave --parameter-std out"));
            }
            if self.shift > (*window).max(1) {
                let expected = format!("windows of at least {} intervals, by which they move on", self.shift);
                return Err(Error::invalid("windows", expected, window.to_string(), "change --shift"));
            }
        }
        for (what, factors, help) in [
            ("factors", &self.factors, "correct the factor on the climatological covariance"),
            ("inflations", &self.inflations, "1 carries the covariance as it is"),
            ("error-factors", &self.error_factors, "correct the factor on the climatological covariance"),
        ] {
            factors.iter().try_for_each(|factor| number(what, *factor, true, help))?;
        }
        if self.carries() {
            let help = "give more, or a --static-share";
            let least = if self.static_share > 0.0 { 2 } else { self.sites + 2 };
            whole("members", self.members, least, 1_000_000, help)?;
            whole("iterations", self.iterations, 1, 1_000_000, "correct the number of iterations")?;
            whole("batch", self.batch, 2, 1_000_000, "correct the number of draws")?;
            if !matches!(self.family, Family::MeanField | Family::LowRank | Family::FullRank) {
                let expected = "mean-field, low-rank or full-rank";
                return Err(Error::invalid("family", expected, self.family.name(), "choose a single Gaussian"));
            }
        }
        if ![1, self.windows.len()].contains(&self.error_factors.len()) {
            let expected = format!("one, or one for each of {} windows", self.windows.len());
            let found = self.error_factors.len().to_string();
            return Err(Error::invalid("error-factors", expected, found, "correct their number"));
        }
        whole("error-samples", self.error_samples, 1, 10_000_000, "correct the number of errors")?;
        whole("error-experiments", self.error_experiments, 1, 100_000, "correct the number of experiments")?;
        whole("starts", self.starts, 1, 100_000, "1 starts at the background")?;
        whole("cycles", self.cycles, 1, MOST_CYCLES, "correct the number of cycles")?;
        let help = "burn in for at least the longest window, which has to be filled";
        whole("burn-in", self.burn_in, self.longest().max(1).div_ceil(self.shift), MOST_CYCLES, help)?;
        let help = "a covariance needs more states than sites";
        whole("climatology", self.climatology, self.sites + 1, 100_000_000, help)
    }

    /// Whether some method carries a covariance from cycle to cycle.
    fn carries(&self) -> bool {
        self.methods.iter().any(|kind| matches!(kind, CycledKind::Vi | CycledKind::Ensemble))
    }

    /// Refuses distributions of background errors that do not fit.
    pub(super) fn check_learned(&self, learned: &[Vae]) -> Result<()> {
        let refuse = |expected: String, found: String, help: &str| {
            Err(Error::invalid("learned background errors", expected, found, help))
        };
        if learned.is_empty() && !self.methods.contains(&CycledKind::VaeVar) {
            return Ok(());
        }
        if learned.len() != self.windows.len() {
            let expected = format!("one distribution for each of {} windows", self.windows.len());
            return refuse(expected, learned.len().to_string(), "train one for each, or give as many files");
        }
        for (vae, window) in learned.iter().zip(&self.windows) {
            if vae.sites() != self.sites {
                return refuse(format!("{} sites", self.sites), vae.sites().to_string(), "train it for this model");
            }
            let here = ErrorOrigin { model: self.model, window: *window };
            if let Some(origin) = vae.origin.filter(|origin| *origin != here) {
                let say = |o: ErrorOrigin| format!("errors of {} with a window of {}", o.model.name(), o.window);
                return refuse(say(here), say(origin), "give one for each window, in the order of --windows");
            }
        }
        Ok(())
    }

    /// Refuses runs that no memory holds.
    pub(super) fn check_size(&self, seeds: usize) -> Result<()> {
        let product = |factors: &[usize]| factors.iter().try_fold(1, |a: usize, n| a.checked_mul(*n));
        let errors = product(&[4, self.methods().len(), seeds, self.burn_in + self.cycles]);
        // Observations, and trajectories of members, from background and minimum.
        let times = self.longest() + 1;
        let carried = if self.carries() { self.members } else { 0 };
        let experiments = self.factors.len().max(self.inflations.len());
        let problem = product(&[3 + carried, experiments, seeds, times, self.sites]);
        for (what, numbers, help) in [
            ("errors of all cycles", errors, "use fewer cycles, repetitions, windows or factors"),
            ("states of a window", problem, "use fewer repetitions, factors or members, or a shorter window"),
        ] {
            if numbers.is_none_or(|n| n > MOST_NUMBERS) {
                let found = numbers.map_or("more than can be counted".into(), |n| n.to_string());
                return Err(Error::invalid(what, format!("at most {MOST_NUMBERS} numbers"), found, help));
            }
        }
        Ok(())
    }

    /// Intervals of the longest window.
    pub(super) fn longest(&self) -> usize {
        self.windows.iter().copied().max().unwrap_or(0).max(self.shift)
    }

    /// Times of a window: its own, and the one to which the next window's start moves.
    pub(super) fn window(&self, intervals: usize) -> Window {
        Window {
            times: intervals.max(1) + 1,
            assimilated_times: intervals + 1,
            steps_per_time: self.steps_per_time,
            dt: self.dt,
        }
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
            steps_per_time: steps(self.interval()),
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
    pub(super) fn model_parameters(&self) -> Vec<f64> {
        self.parameters.or_default(self.model)
    }

    /// Deviations of the first guess of the parameters, where they are estimated.
    pub(super) fn parameter_stds(&self) -> Option<Vec<f64>> {
        self.parameter_std.all_or_none(self.model)
    }

    /// Parameters, step and steps per interval of the truth.
    pub(super) fn truth(&self) -> (Vec<f64>, f64, usize) {
        let steps = self.true_steps_per_time.unwrap_or(self.steps_per_time);
        let given = self.true_parameters.by_parameter(self.model);
        let parameters = given.into_iter().zip(self.model_parameters()).map(|(own, other)| own.unwrap_or(other));
        (parameters.collect(), self.interval() / steps as f64, steps)
    }
}
