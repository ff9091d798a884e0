//! The experiments of one window: assimilating the newest observations, and what goes on to the next cycle.

use super::truth::Truth;
use super::{CycleSettings, CycledErrors, CycledKind, CycledMethod, VaeTerms};
use crate::diagnostics::covariance;
use crate::diagnostics::rmse;
use crate::engine::{Engine, Members};
use crate::error::{Error, Result};
use crate::method::{EnsembleSettings, FourDVarSettings, PosteriorMembers, Silent, Vae, VaeVarSettings, ViSettings};
use crate::problem::{Background, CovarianceFactor, ErrorCovariance, ModelError, Problem};
use crate::random::{Stream, derived_seed};
use ndarray::{Array1, Array2, Array3, ArrayView1, Axis, concatenate, s};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What keeps a carried covariance positive definite: this share of its mean variance on the diagonal.
const FLOOR: f64 = 1e-6;

/// The experiments of one kind and window: problem `e * seeds + k` is method `e` on the truth of seed `k`.
pub(super) struct CycledSet<'a> {
    settings: &'a CycleSettings,
    pub methods: Vec<CycledMethod>,
    problem: Problem,
    /// x C, the static part of carried backgrounds.
    fixed: Array2<f64>,
    seeds: Vec<u64>,
    /// What is known of its background's errors but for their mean.
    vae: Option<Vae>,
    /// Their mean.
    bias: Option<Array1<f64>>,
    /// Of the last two forecasts of each background: the newer one minus the older. `[P, sites]`
    pub differences: Array2<f64>,
}

/// What a set carries from one cycle to the next.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptSet {
    background: Background,
    parameters: Array2<f64>,
    parameter_std: Option<Array2<f64>>,
    differences: Array2<f64>,
}

/// What an assimilation leaves, problem by problem.
struct Analyses {
    /// Trajectories from the prior mean and from the analysis: `[P, times, sites]`.
    background: Array3<f64>,
    analysis: Array3<f64>,
    /// Those of members of the posterior, where there are any: `[P][members, times, sites]`.
    members: Vec<Array3<f64>>,
    /// Posterior mean and deviation of the parameters: `[P, parameters]`.
    parameters: [Array2<f64>; 2],
}

impl<'a> CycledSet<'a> {
    pub fn new(
        settings: &'a CycleSettings,
        methods: &[CycledMethod],
        seeds: &[u64],
        mean: &Array1<f64>,
        climate: &CovarianceFactor,
        vae: Option<&Vae>,
    ) -> Result<Self> {
        let (count, intervals) = (methods.len() * seeds.len(), methods[0].window());
        let window = settings.window(intervals);
        let mut weights = Array2::zeros((1, window.times));
        let newest = if intervals == 0 { 1 } else { settings.shift };
        weights.slice_mut(s![0, intervals + 1 - newest..=intervals]).fill(1.0);
        let fixed = &climate.covariance * settings.factors[0];
        let (error, scale) = match methods[0] {
            CycledMethod::Carried { .. } => {
                let first = if settings.initial_error > 0.0 {
                    Array2::from_diag_elem(settings.sites, settings.initial_error.powi(2))
                } else {
                    fixed.clone()
                };
                (vec![CovarianceFactor::new(first)?], Array1::ones(1))
            }
            _ => {
                let factors = methods.iter().flat_map(|m| vec![m.factor().expect("it assimilates"); seeds.len()]);
                let errors = vae.map(|vae| CovarianceFactor::new(vae.covariance.clone())).transpose()?;
                (vec![errors.unwrap_or_else(|| climate.clone())], factors.collect())
            }
        };
        let parameters = Array1::from_vec(settings.model_parameters());
        // The baseline has one time and no model.
        let is_model = methods[0] != CycledMethod::OptimalInterpolation;
        let rows = |row: Array1<f64>| row.broadcast((count, row.len())).expect("one row for each problem").to_owned();
        let problem = Problem {
            model: settings.model,
            parameters: rows(parameters),
            parameter_std: settings.parameter_stds().filter(|_| is_model).map(|std| rows(Array1::from_vec(std))),
            true_parameters: None,
            model_error: settings.model_error_std.filter(|_| intervals > 0).map(|std| ModelError {
                covariance: ErrorCovariance::Diagonal(Array2::from_elem((1, settings.sites), std)),
                interval: settings.steps_per_time,
            }),
            window,
            background: Background { mean: rows(mean.clone()), scale, error: ErrorCovariance::Full(error) },
            operator: settings.observation_operator(),
            observations: Array3::from_elem((count, window.times, settings.sites), f64::NAN),
            observation_std: Array3::from_elem((1, window.times, settings.sites), settings.observation_std),
            weights,
            seeds: seeds.repeat(methods.len()),
            truth: None,
        };
        let differences = Array2::zeros((count, settings.sites));
        let bias = vae.map(|vae| vae.mean.clone());
        let vae = vae.map(Vae::centred);
        Ok(Self { settings, methods: methods.to_vec(), problem, fixed, seeds: seeds.to_vec(), vae, bias, differences })
    }

    /// What goes on to the next cycle.
    pub fn state(&self) -> KeptSet {
        KeptSet {
            background: self.problem.background.clone(),
            parameters: self.problem.parameters.clone(),
            parameter_std: self.problem.parameter_std.clone(),
            differences: self.differences.clone(),
        }
    }

    /// Goes back to where another set of this kind was.
    pub fn restore(&mut self, state: KeptSet) {
        let KeptSet { background, parameters, parameter_std, differences } = state;
        let problem = &mut self.problem;
        (problem.background, problem.parameters, problem.parameter_std) = (background, parameters, parameter_std);
        self.differences = differences;
    }

    /// Errors of the backgrounds of the cycle that comes, x_true - x_b: `[P, sites]`.
    pub fn background_errors(&self, truths: &[Truth]) -> Array2<f64> {
        let window = self.methods[0].window();
        let mut errors = Array2::zeros(self.differences.raw_dim());
        for (p, mut to) in errors.outer_iter_mut().enumerate() {
            to.assign(&(&truths[p % truths.len()].state(window) - &self.problem.background.mean_of(p)));
        }
        errors
    }

    /// Takes the mean of what is known of their errors off the backgrounds.
    fn unbias(&mut self) {
        if let (Some(mean), CycledMethod::Static { .. } | CycledMethod::Learned { .. }) = (&self.bias, self.methods[0])
        {
            self.problem.background.mean += mean;
        }
    }

    /// Assimilates the newest observations of all truths, in the cycle of that number from 1 on, and scores it where
    /// `errors` has a place for it.
    pub fn cycle(
        &mut self,
        cycle: usize,
        truths: &[Truth],
        engine: &Engine,
        errors: Option<&mut [CycledErrors]>,
    ) -> Result<()> {
        let window = self.methods[0].window();
        let first = window.max(1).div_ceil(self.settings.shift);
        if cycle < first {
            return Ok(());
        }
        let truth = |p: usize| &truths[p % truths.len()];
        let is_forecast = self.methods[0] != CycledMethod::OptimalInterpolation;
        for p in 0..self.problem.count() {
            for t in 0..=window {
                let mut own = self.problem.observations.slice_mut(s![p, t, ..]);
                own.assign(&truth(p).observations(window - t));
            }
            if cycle == first && is_forecast {
                let start = &truth(p).state(window) + &(&truth(p).initial_noise * self.settings.initial_error);
                self.problem.background.mean.row_mut(p).assign(&start);
            }
        }
        if cycle == first {
            self.unbias();
        }
        let clock = Instant::now();
        let analyses = self.assimilate(cycle, engine)?;
        let seconds = clock.elapsed().as_secs_f64() / self.problem.count() as f64;
        let errors = errors.unwrap_or_default();
        let cycles = self.settings.burn_in + self.settings.cycles + 1 - first;
        errors.iter_mut().for_each(|errors| errors.seconds += seconds / cycles as f64);
        for p in 0..if errors.is_empty() { 0 } else { self.problem.count() } {
            let (errors, at) = (&mut errors[p / truths.len()], [p % truths.len(), cycle - 1]);
            let [end, start] = [0, window].map(|ago| truth(p).state(ago));
            errors.analysis[at] = rmse_of(analyses.analysis.slice(s![p, window, ..]), end);
            errors.forecast[at] = rmse_of(analyses.background.slice(s![p, window, ..]), end);
            errors.window_start[at] = rmse_of(analyses.analysis.slice(s![p, 0, ..]), start);
            if let Some(members) = analyses.members.get(p) {
                let variances = members.index_axis(Axis(1), window).var_axis(Axis(0), 1.0);
                errors.spread[at] = variances.mean().expect("at least one site").sqrt();
            }
            if self.problem.parameter_std.is_some() {
                let [mean, std] = &analyses.parameters;
                errors.parameter_mean.slice_mut(s![at[0], at[1], ..]).assign(&mean.row(p));
                errors.parameter_std.slice_mut(s![at[0], at[1], ..]).assign(&std.row(p));
            }
        }
        if is_forecast { self.next(&analyses) } else { Ok(()) }
    }

    fn assimilate(&mut self, cycle: usize, engine: &Engine) -> Result<Analyses> {
        let settings = self.settings;
        // Every cycle has draws of its own.
        for (p, seed) in self.problem.seeds.iter_mut().enumerate() {
            *seed = derived_seed(self.seeds[p % self.seeds.len()], Stream::Cycle, cycle as u64);
        }
        let CycledMethod::Carried { kind, .. } = self.methods[0] else {
            let descent = FourDVarSettings { starts: settings.starts, ..FourDVarSettings::default() };
            let minima = match self.methods[0] {
                CycledMethod::Learned { terms, .. } => {
                    let (prior_term, log_det_term) = (terms != VaeTerms::NoPrior, terms != VaeTerms::NoLogDet);
                    let settings = VaeVarSettings { prior_term, log_det_term, ..VaeVarSettings::default() };
                    let vae = self.vae.as_ref().expect("checked: one for each window");
                    settings.minima(vae, &descent, &self.problem, engine, &mut Silent)?
                }
                _ => descent.minima(&self.problem, engine, &mut Silent)?,
            };
            let parameters = self.parameters_in(&minima.controls);
            let std = minima.parameter_std.unwrap_or_else(|| Array2::zeros(parameters.raw_dim()));
            return Ok(Analyses {
                background: minima.background,
                analysis: minima.analysis,
                members: Vec::new(),
                parameters: [parameters, std],
            });
        };
        let found = match kind {
            CycledKind::Vi => ViSettings {
                family: settings.family,
                iterations: settings.iterations,
                batch: Some(settings.batch),
                start: Some(crate::method::InitialFit::Laplace),
                samples: settings.members,
                ..ViSettings::default()
            }
            .members(&self.problem, engine, settings.starts, &mut Silent)?,
            CycledKind::Ensemble => EnsembleSettings { members: settings.members, ..EnsembleSettings::default() }
                .posterior_members(&self.problem, engine, settings.starts, &mut Silent)?,
            CycledKind::FourDVar | CycledKind::VaeVar => unreachable!("they carry nothing"),
        };
        self.forecast(found, engine)
    }

    /// Trajectories of all that an assimilation found.
    fn forecast(&self, found: PosteriorMembers, engine: &Engine) -> Result<Analyses> {
        let PosteriorMembers { center, members, std } = found;
        let mut loaded = engine.load(&self.problem)?;
        let background = loaded.forecast(Members::Given(self.problem.control_means().view()))?;
        let analysis = loaded.forecast(Members::Given(center.view()))?;
        let rows: Vec<_> = (members.iter().enumerate())
            .flat_map(|(p, own)| {
                (0..own.nrows()).map(move |k| crate::engine::Row { problem: p as u32, member: k as u32 })
            })
            .collect();
        let views: Vec<_> = members.iter().map(|own| own.view()).collect();
        let states = concatenate(Axis(0), &views).expect("rows of one length");
        let listed = crate::engine::Listed { states: states.view(), rows: &rows, amplitude: 0.0 };
        let all = loaded.forecast(Members::Listed(listed))?;
        let mut next = 0;
        let trajectories = members.iter().map(|own| {
            let first = next;
            next += own.nrows();
            all.slice(s![first..next, .., ..]).to_owned()
        });
        let trajectories: Vec<_> = trajectories.collect();
        let parameters = self.parameters_in(&center);
        let layout = self.problem.control();
        let deviations = if layout.parameters > 0 {
            std.slice(s![.., layout.parameters()]).to_owned()
        } else {
            Array2::zeros(parameters.raw_dim())
        };
        Ok(Analyses { background, analysis, members: trajectories, parameters: [parameters, deviations] })
    }

    /// The parameters of each problem's control: `[P, parameters]`.
    fn parameters_in(&self, controls: &Array2<f64>) -> Array2<f64> {
        let mut all = Array2::zeros((self.problem.count(), self.problem.parameters.ncols()));
        for (p, mut to) in all.outer_iter_mut().enumerate() {
            to.assign(&self.problem.parameters_in(p, &controls.row(p)));
        }
        all
    }

    /// The prior of the next cycle.
    fn next(&mut self, analyses: &Analyses) -> Result<()> {
        let at = self.settings.shift;
        let background = &mut self.problem.background;
        background.mean.assign(&analyses.analysis.index_axis(Axis(1), at));
        self.differences = &background.mean - &analyses.background.index_axis(Axis(1), at);
        if let Some(std) = &mut self.problem.parameter_std {
            let [mean, deviation] = &analyses.parameters;
            self.problem.parameters.assign(mean);
            std.assign(&(deviation * self.settings.parameter_inflation.sqrt()));
        }
        if analyses.members.is_empty() {
            self.unbias();
            return Ok(());
        }
        let share = self.settings.static_share;
        let factor = |(p, members): (usize, &Array3<f64>)| -> Result<CovarianceFactor> {
            let CycledMethod::Carried { inflation, .. } = self.methods[p / self.seeds.len()] else {
                unreachable!("only a carried covariance has members")
            };
            let carried = covariance(members.index_axis(Axis(1), at)) * (inflation * (1.0 - share));
            let mut next = carried + &(&self.fixed * share);
            let floor = FLOOR * next.diag().mean().unwrap_or(0.0);
            // A single time has no errors in its control: they are made on the way to the next one.
            let error = if self.problem.window.assimilated_times == 1 { self.settings.model_error_std } else { None };
            let variance = error.map_or(0.0, |std| std * std) * (1.0 - share);
            next.diag_mut().mapv_inplace(|v| v + floor + variance);
            CovarianceFactor::new(next).map_err(|_| Error::Diverged {
                what: "the members that carry a background's covariance".into(),
                diverged: members.len_of(Axis(0)),
                members: members.len_of(Axis(0)),
            })
        };
        let factors = analyses.members.iter().enumerate().map(factor).collect::<Result<Vec<_>>>()?;
        background.error = ErrorCovariance::Full(factors);
        Ok(())
    }
}

/// RMSE over sites.
pub(super) fn rmse_of(state: ArrayView1<f64>, truth: ArrayView1<f64>) -> f64 {
    rmse(state.insert_axis(Axis(0)), truth.insert_axis(Axis(0)))
}
