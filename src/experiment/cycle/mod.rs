//! Cycled assimilation: one window after the other, each background the forecast from the analysis before.
//!
//! A window of L intervals moves on by S of them for each cycle, and the observations of the newest S times alone are
//! assimilated, which the time weights 0, .., 0, 1, .., 1 say (S = 1: Bocquet & Sakov 2013): no observation is used twice.
//! L = 0 is 3DVar. The background's covariance is static, B = x C with C the climatological covariance, or carried: that of
//! the posterior's members at the next window's start, inflated, and mixed with the static one if wanted. Each seed under
//! each factor is one problem of a set, and the sets of all methods and windows see the same truths and observations.
//!
//! B = x P_e, of the background errors of such cycles, in place of x C, and VAE-Var with a decoder learned from the same
//! errors: `errors.rs`. Both take the errors' mean off the background, so that they differ in the shape of a distribution
//! and in nothing else.
//!
//! Where the parameters are estimated, their posterior mean and variance are the next cycle's prior, the variance times
//! `parameter_inflation`: with a constant lambda > 1 a cycle forgets a share of about 1 - 1 / lambda of what is known.
//! Correlations of parameters with the state do not go on.

mod errors;
mod set;
mod settings;
mod truth;

pub use errors::{BackgroundErrors, ErrorQuality, ErrorSource, LearnedErrors};
pub use settings::CycleSettings;

use crate::checkpoint;
use crate::diagnostics::Estimate;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::method::{Observer, Progress, Vae};
use ndarray::{Array2, Array3, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use set::{CycledSet, KeptSet, rmse_of};
use std::fmt;
use truth::Truth;

/// How a cycle is assimilated, and where its background's covariance comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CycledKind {
    /// 4DVar, or 3DVar, with B = x C
    #[default]
    #[serde(rename = "4dvar")]
    #[value(name = "4dvar")]
    FourDVar,
    /// VI-4DVAR, whose posterior is carried on
    Vi,
    /// 4DVar, with the covariance of an ensemble of 4DVAR carried on
    Ensemble,
    /// 4DVar, or 3DVar, through a decoder of learned background errors
    VaeVar,
}

/// Which terms the cost of VAE-Var has beside the observations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum VaeTerms {
    /// The latents' prior term and the log-determinant
    #[default]
    All,
    /// The log-determinant alone
    NoPrior,
    /// The prior term alone
    NoLogDet,
}

/// Says in which cycle something failed.
fn in_cycle(error: Error, cycle: usize, method: CycledMethod) -> Error {
    let place =
        |what: String| format!("{what} in cycle {cycle} of {} with a window of {}", method.name(), method.window());
    match error {
        Error::Diverged { what, diverged, members } => Error::Diverged { what: place(what), diverged, members },
        Error::Invalid { what, expected, found, help } => Error::Invalid { what: place(what), expected, found, help },
        other => other,
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
    Static {
        /// Intervals; 0 is 3DVar.
        window: usize,
        /// x.
        factor: f64,
    },
    /// A method whose background has the covariance of the last posterior's members.
    Carried {
        /// VI or ensemble.
        kind: CycledKind,
        /// Intervals.
        window: usize,
        /// What the covariance is multiplied by.
        inflation: f64,
    },
    /// VAE-Var whose background is the forecast, with learned errors of x times the variance.
    Learned {
        /// Intervals; 0 is VAE-3DVar.
        window: usize,
        /// x.
        factor: f64,
        /// Of its cost.
        terms: VaeTerms,
    },
}

impl CycledMethod {
    /// The name used in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Climatology => "Climatology",
            Self::OptimalInterpolation => "Optimal interpolation",
            Self::Static { window: 0, .. } => "3DVar",
            Self::Static { .. } | Self::Carried { kind: CycledKind::FourDVar, .. } => "4DVar",
            Self::Carried { kind: CycledKind::Vi, .. } => "VI-4DVAR",
            Self::Carried { kind: CycledKind::Ensemble, .. } => "Ens. 4DVAR",
            Self::Carried { kind: CycledKind::VaeVar, .. } => "VAE-Var",
            Self::Learned { window: 0, terms, .. } => match terms {
                VaeTerms::All => "VAE-3DVar",
                VaeTerms::NoPrior => "VAE-3DVar, no prior",
                VaeTerms::NoLogDet => "VAE-3DVar, no log det",
            },
            Self::Learned { terms, .. } => match terms {
                VaeTerms::All => "VAE-4DVar",
                VaeTerms::NoPrior => "VAE-4DVar, no prior",
                VaeTerms::NoLogDet => "VAE-4DVar, no log det",
            },
        }
    }

    /// Intervals of its window.
    pub fn window(self) -> usize {
        match self {
            Self::Static { window, .. } | Self::Carried { window, .. } | Self::Learned { window, .. } => window,
            Self::Climatology | Self::OptimalInterpolation => 0,
        }
    }

    /// x in B = x C or x P_e; none where B is no multiple of either.
    pub fn factor(self) -> Option<f64> {
        match self {
            Self::Climatology | Self::Carried { .. } => None,
            Self::OptimalInterpolation => Some(1.0),
            Self::Static { factor, .. } | Self::Learned { factor, .. } => Some(factor),
        }
    }

    /// The factor on a carried covariance.
    pub fn inflation(self) -> Option<f64> {
        if let Self::Carried { inflation, .. } = self { Some(inflation) } else { None }
    }

    /// Whether it is measured against and not tuned: the same whatever the settings.
    pub fn is_baseline(self) -> bool {
        matches!(self, Self::Climatology | Self::OptimalInterpolation)
    }

    /// Whether both are cycled as one set of problems.
    fn together(self, other: Self) -> bool {
        match (self, other) {
            (Self::Static { window, .. }, Self::Static { window: other, .. }) => window == other,
            (Self::Learned { window, terms, .. }, Self::Learned { window: other, terms: also, .. }) => {
                (window, terms) == (other, also)
            }
            (Self::Carried { kind, window, .. }, Self::Carried { kind: other, window: also, .. }) => {
                (kind, window) == (other, also)
            }
            _ => false,
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
    /// The names of the model's parameters.
    pub parameter_names: &'static [&'static str],
    /// The truth's parameters.
    pub true_parameters: Vec<f64>,
    /// What static covariances are multiples of: "C", that of climatology, or "P_e", of background errors.
    pub covariance: &'static str,
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
    /// The posterior's spread at the window's end, the root of the mean variance over sites; NaN where a method has none.
    pub spread: Array2<f64>,
    /// Posterior mean of the estimated parameters: `[seeds, cycles, parameters]`, no parameters where none are estimated.
    pub parameter_mean: Array3<f64>,
    /// Their posterior deviation.
    pub parameter_std: Array3<f64>,
    /// Wall time of one analysis in seconds, a share of the batch that it was made in. Kept out of result files.
    pub seconds: f64,
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
    /// The factor on a carried covariance.
    pub inflation: Option<f64>,
    /// At the window's end.
    pub analysis: Estimate,
    /// Of the background there.
    pub forecast: Estimate,
    /// At the window's start.
    pub window_start: Estimate,
    /// Mean spread at the window's end.
    pub spread: Option<Estimate>,
    /// Of each estimated parameter; nothing where none are.
    pub parameters: Vec<CycledParameter>,
}

/// How well a parameter was estimated.
#[derive(Clone, Debug, Serialize)]
pub struct CycledParameter {
    /// Its name.
    pub name: &'static str,
    /// RMSE over the scored cycles: the root of each seed's mean square, then their mean.
    pub rmse: Estimate,
    /// Mean posterior deviation.
    pub spread: Estimate,
}

impl CycleSettings {
    /// Cycles every method from each seed, each set's experiments in lockstep. Which others run beside it is no part of
    /// a method's answer. Where the observer breaks, the cycles that are left stay NaN.
    ///
    /// # Errors
    /// No seed, settings that cannot work, a truth that leaves the range of numbers, an engine's failure, a minimisation
    /// whose cost is not finite at the background.
    pub fn run(&self, seeds: &[u64], engine: &Engine, observer: &mut dyn Observer) -> Result<Cycles> {
        self.run_learned(seeds, &[], engine, observer)
    }

    /// The same with what is known of background errors, one distribution for each window: static covariances are
    /// multiples of theirs, and VAE-Var has its decoder.
    ///
    /// # Errors
    /// As [`Self::run`]; VAE-Var without a distribution for each window, or one of another number of sites.
    pub fn run_learned(
        &self,
        seeds: &[u64],
        learned: &[Vae],
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Cycles> {
        self.check()?;
        self.check_learned(learned)?;
        if seeds.is_empty() {
            return Err(Error::invalid("seeds", "at least one", "none", "give a seed for each experiment"));
        }
        self.check_size(seeds.len())?;
        let total = self.burn_in + self.cycles;
        let (mean, climate) = self.climatology()?;
        let mut truths = seeds.iter().map(|&seed| Truth::new(self, seed)).collect::<Result<Vec<_>>>()?;
        let parameters = self.parameter_stds().map_or(0, |std| std.len());
        let errors = |method: CycledMethod| {
            let blank = || Array2::from_elem((seeds.len(), total), f64::NAN);
            let parameters = if method.is_baseline() { 0 } else { parameters };
            let of_parameters = || Array3::from_elem((seeds.len(), total, parameters), f64::NAN);
            CycledErrors {
                method,
                analysis: blank(),
                forecast: blank(),
                window_start: blank(),
                spread: blank(),
                parameter_mean: of_parameters(),
                parameter_std: of_parameters(),
                seconds: 0.0,
            }
        };
        let methods = self.methods();
        let mut sets: Vec<CycledSet> = methods
            .chunk_by(|a, b| a.together(*b))
            .filter(|methods| methods[0] != CycledMethod::Climatology)
            .map(|methods| {
                let window = self.windows.iter().position(|w| *w == methods[0].window() && !methods[0].is_baseline());
                let vae = window.and_then(|k| learned.get(k));
                CycledSet::new(self, methods, seeds, &mean, &climate, vae)
            })
            .collect::<Result<_>>()?;
        let mut all: Vec<CycledErrors> = methods.iter().map(|method| errors(*method)).collect();
        let kept: Option<(usize, Vec<KeptErrors>, Vec<KeptSet>)> = checkpoint::begin(observer.keeper())?;
        let mut cycle = 0;
        if let Some((done, errors, states)) = kept {
            self.advance(&mut truths, done)?;
            all.iter_mut().zip(errors).for_each(|(to, kept)| kept.put(to));
            sets.iter_mut().zip(states).for_each(|(set, state)| set.restore(state));
            cycle = done;
        }
        let state = |cycle: usize, all: &[CycledErrors], sets: &[CycledSet]| {
            let errors: Vec<_> = all.iter().map(KeptErrors::of).collect();
            let sets: Vec<_> = sets.iter().map(CycledSet::state).collect();
            (cycle, errors, sets)
        };
        while cycle < total {
            cycle += 1;
            self.advance(&mut truths, 1)?;
            let mut rest = all.as_mut_slice();
            let baseline = rest.split_off_first_mut().expect("climatology is a method");
            for (k, truth) in truths.iter().enumerate() {
                let error = rmse_of(mean.view(), truth.state(0));
                for errors in [&mut baseline.analysis, &mut baseline.forecast, &mut baseline.window_start] {
                    errors[[k, cycle - 1]] = error;
                }
            }
            for set in &mut sets {
                let own = rest.split_off_mut(..set.methods.len()).expect("methods in the order of the sets");
                let method = set.methods[0];
                set.cycle(cycle, &truths, engine, Some(own)).map_err(|e| in_cycle(e, cycle, method))?;
            }
            let errors = all.iter().map(|e| e.analysis.column(cycle - 1).mean().unwrap_or(f64::NAN));
            let lowest = errors.fold(f64::INFINITY, f64::min);
            let figures = [("lowest RMSE", lowest)];
            let progress = Progress { method: "cycles", iteration: cycle, iterations: total, figures: &figures };
            if observer.progress(&progress).is_break() {
                break;
            }
            checkpoint::keep_fetched(observer.keeper(), &mut || Ok(checkpoint::to_bytes(&state(cycle, &all, &sets))))?;
        }
        checkpoint::end(observer.keeper(), &state(cycle, &all, &sets))?;
        Ok(Cycles {
            interval: self.interval() * self.shift as f64,
            burn_in: self.burn_in,
            seeds: seeds.to_vec(),
            parameter_names: self.model.parameter_names(),
            true_parameters: self.truth().0,
            covariance: if learned.is_empty() { "C" } else { "P_e" },
            methods: all,
        })
    }
}

impl CycleSettings {
    /// Takes the truths through so many cycles.
    fn advance(&self, truths: &mut [Truth], cycles: usize) -> Result<()> {
        truths.par_iter_mut().try_for_each(|truth| (0..cycles * self.shift).try_for_each(|_| truth.advance(self)))
    }
}

/// The errors of one method, for a checkpoint.
#[derive(Serialize, Deserialize)]
struct KeptErrors {
    matrices: [Array2<f64>; 4],
    parameters: [Array3<f64>; 2],
    seconds: f64,
}

impl KeptErrors {
    fn of(errors: &CycledErrors) -> Self {
        let CycledErrors { analysis, forecast, window_start, spread, parameter_mean, parameter_std, .. } = errors;
        Self {
            matrices: [analysis, forecast, window_start, spread].map(Clone::clone),
            parameters: [parameter_mean, parameter_std].map(Clone::clone),
            seconds: errors.seconds,
        }
    }

    fn put(self, to: &mut CycledErrors) {
        [to.analysis, to.forecast, to.window_start, to.spread] = self.matrices;
        [to.parameter_mean, to.parameter_std] = self.parameters;
        to.seconds = self.seconds;
    }
}

impl Cycles {
    /// What static covariances are multiples of, in words.
    pub fn covariance_name(&self) -> &'static str {
        if self.covariance == "C" { "the climatological covariance" } else { "the covariance of background errors" }
    }

    /// Cycles of each experiment, the burn-in included.
    pub fn count(&self) -> usize {
        self.methods[0].analysis.ncols()
    }

    /// The scores of each method.
    ///
    /// Means are over the cycles after the burn-in, their standard errors over seeds, whose experiments are independent.
    pub fn scores(&self) -> Vec<CycledScores> {
        let estimate = |errors: &Array2<f64>| {
            let scored = errors.slice(s![.., self.burn_in..]);
            Estimate::new(&scored.mean_axis(Axis(1)).expect("cycles to score").to_vec()).expect("at least one seed")
        };
        let of_parameter = |errors: &CycledErrors, k: usize| {
            let square_errors =
                errors.parameter_mean.slice(s![.., .., k]).mapv(|v| (v - self.true_parameters[k]).powi(2));
            let mean_squares = square_errors.slice(s![.., self.burn_in..]).mean_axis(Axis(1)).expect("cycles to score");
            CycledParameter {
                name: self.parameter_names[k],
                rmse: Estimate::new(&mean_squares.mapv(f64::sqrt).to_vec()).expect("at least one seed"),
                spread: estimate(&errors.parameter_std.slice(s![.., .., k]).to_owned()),
            }
        };
        let scores = |errors: &CycledErrors| CycledScores {
            method: errors.method.name(),
            window: errors.method.window(),
            factor: errors.method.factor(),
            inflation: errors.method.inflation(),
            analysis: estimate(&errors.analysis),
            forecast: estimate(&errors.forecast),
            window_start: estimate(&errors.window_start),
            spread: errors.method.inflation().map(|_| estimate(&errors.spread)),
            parameters: (0..errors.parameter_mean.len_of(Axis(2))).map(|k| of_parameter(errors, k)).collect(),
        };
        self.methods.iter().map(scores).collect()
    }
}

/// Below this share of the error a spread says nothing of it.
const BLIND: f64 = 1.0 / 3.0;

impl Cycles {
    /// What a reader of the table should not miss: methods that have lost the truth or do not know how wrong they are.
    pub fn notes(&self) -> Vec<String> {
        let scores = self.scores();
        let Some(baseline) = scores.iter().find(|s| s.method == CycledMethod::OptimalInterpolation.name()) else {
            return Vec::new();
        };
        let name = |s: &CycledScores| {
            let of = |x: f64| format!("{x} {}", self.covariance);
            let b = s.factor.map_or_else(|| format!("{} P", s.inflation.unwrap_or(1.0)), of);
            format!("{} with a window of {} and B = {b}", s.method, s.window)
        };
        let mut notes = Vec::new();
        for (s, _) in scores.iter().zip(&self.methods).filter(|(_, e)| !e.method.is_baseline()) {
            let blind = s.spread.as_ref().is_some_and(|spread| spread.mean < BLIND * s.analysis.mean);
            if s.analysis.mean.is_nan() || s.analysis.mean > baseline.analysis.mean {
                notes.push(format!("{} has lost the truth: optimal interpolation is better", name(s)));
            } else if blind {
                let help = "more inflation, members or a richer family may mend it";
                notes.push(format!("{} is far surer than it is right; {help}", name(s)));
            }
        }
        notes.extend(self.gains().iter().map(Gain::to_string));
        notes
    }

    /// VAE-Var, with all terms and without some, against 3DVar or 4DVar in the same windows, each at its best factor.
    pub fn gains(&self) -> Vec<Gain> {
        let mean =
            |e: &CycledErrors| e.analysis.slice(s![.., self.burn_in..]).mean_axis(Axis(1)).expect("cycles to score");
        let best = |wanted: &dyn Fn(CycledMethod) -> bool| {
            let own = self.methods.iter().filter(|e| wanted(e.method)).map(|e| (e, mean(e)));
            let own = own.filter_map(|(e, mean)| Some((e, mean.mean().filter(|m| m.is_finite())?, mean)));
            own.min_by(|(_, a, _), (_, b, _)| a.total_cmp(b)).map(|(e, _, mean)| (e, mean))
        };
        let gain = |(window, terms): (usize, VaeTerms)| {
            let (plain, of_plain) = best(&|m| matches!(m, CycledMethod::Static { window: w, .. } if w == window))?;
            let (learned, of_learned) =
                best(&|m| matches!(m, CycledMethod::Learned { window: w, terms: t, .. } if (w, t) == (window, terms)))?;
            let percent = (1.0 - &of_learned / &of_plain).mapv(|share| 100.0 * share);
            Some(Gain {
                plain: plain.method,
                learned: learned.method,
                seconds: [plain.seconds, learned.seconds],
                rmse: [Estimate::new(&of_plain.to_vec())?, Estimate::new(&of_learned.to_vec())?],
                percent: Estimate::new(&percent.to_vec())?,
            })
        };
        let of = |e: &CycledErrors| match e.method {
            CycledMethod::Learned { window, terms, .. } => Some((window, terms)),
            _ => None,
        };
        let mut all: Vec<_> = self.methods.iter().filter_map(of).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().filter_map(gain).collect()
    }
}

/// What a learned distribution of errors gains in one window.
#[derive(Clone, Copy, Debug)]
pub struct Gain {
    /// 3DVar or 4DVar at its best factor.
    pub plain: CycledMethod,
    /// VAE-Var at its best.
    pub learned: CycledMethod,
    /// RMSE of the analysis, of both.
    pub rmse: [Estimate; 2],
    /// By how many per cent of it VAE-Var's is lower, seed by seed.
    pub percent: Estimate,
    /// Wall time of one analysis, of both.
    pub seconds: [f64; 2],
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let error = self.percent.standard_error.map_or(String::new(), |e| format!(" ± {e:.1}"));
        let (of, way) = (self.percent.mean.abs(), if self.percent.mean < 0.0 { "above" } else { "below" });
        let [a, b] = [self.learned, self.plain].map(|m| m.factor().unwrap_or(f64::NAN));
        write!(
            f,
            "{} at its best factor, {a}, is {of:.1}{error} % {way} {} at its best, {b}",
            self.learned.name(),
            self.plain.name()
        )
    }
}

impl fmt::Display for Cycles {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let scores = self.scores();
        let cell = |e: &Estimate| {
            let mean = format!("{:.3}", e.mean);
            e.standard_error.map_or(mean.clone(), |error| format!("{mean} ± {error:.4}"))
        };
        let spread = scores.iter().any(|s| s.spread.is_some());
        // Each with its deviation in a column behind it.
        let parameters: &[CycledParameter] =
            scores.iter().map(|s| &s.parameters[..]).find(|p| !p.is_empty()).unwrap_or(&[]);
        let row = |cells: Vec<String>| {
            let widths = [22, 7, 9, 18, 18, 18, 13, 18].into_iter().chain(std::iter::repeat(18));
            let shown = [true, true, true, true, true, true, true, spread].into_iter().chain(std::iter::repeat(true));
            let cells = cells.into_iter().zip(widths).zip(shown).enumerate().filter(|(_, (_, shown))| *shown);
            let text: String = cells
                .map(|(k, ((cell, w), _))| if k == 0 { format!("{cell:w$}") } else { format!(" {cell:>0$}", w - 1) })
                .collect();
            text.trim_end().to_string()
        };
        let heads = ["Mean RMSE", "window", "B", "analysis", "forecast", "window's start", "ms/analysis", "spread"]
            .map(String::from);
        let of_parameters = parameters.iter().flat_map(|p| [p.name.to_string(), "its sd".into()]);
        writeln!(f, "{}", row(heads.into_iter().chain(of_parameters).collect()))?;
        for (s, errors) in scores.iter().zip(&self.methods) {
            let static_part = if errors.method.is_baseline() { "C" } else { self.covariance };
            let factor = match (s.factor, s.inflation) {
                (Some(x), _) => format!("{x} {static_part}"),
                (None, Some(inflation)) => format!("{inflation} P"),
                (None, None) => "-".into(),
            };
            let [analysis, forecast, start] = [&s.analysis, &s.forecast, &s.window_start].map(cell);
            let spread = s.spread.as_ref().map_or("-".into(), cell);
            let computed = errors.method != CycledMethod::Climatology;
            let time = if computed { format!("{:.2}", 1e3 * errors.seconds) } else { "-".into() };
            let own = [s.method.into(), s.window.to_string(), factor, analysis, forecast, start, time, spread];
            let of_parameters = (0..parameters.len()).flat_map(|k| match s.parameters.get(k) {
                Some(p) => [cell(&p.rmse), cell(&p.spread)],
                None => ["-", "-"].map(String::from),
            });
            writeln!(f, "{}", row(own.into_iter().chain(of_parameters).collect()))?;
        }
        Ok(())
    }
}
