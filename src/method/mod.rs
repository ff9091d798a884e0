//! The methods: each is Settings + run(problem, engine, observer) -> one Analysis per problem of the set.

pub mod abc;
pub mod amortized;
mod control;
mod descent;
pub mod ensemble;
pub mod four_d_var;
mod laplace;
mod prior;
pub mod reference;
mod resident;
mod samples;
mod starts;
mod transform;
pub mod vae_var;
pub mod vi;

pub use abc::Settings as AbcSettings;
#[cfg(feature = "neural")]
pub use amortized::Recognition;
pub use amortized::{AmortizedTraining, NetworkSettings, Recognized, Settings as AmortizedSettings};
pub use descent::Minimiser;
pub use ensemble::Settings as EnsembleSettings;
pub use four_d_var::{FirstStart, Minima, Settings as FourDVarSettings};
pub use laplace::Hessian;
pub use prior::Settings as PriorSettings;
pub use reference::Settings as ReferenceSettings;
pub use vae_var::{Settings as VaeVarSettings, Vae, VaeSettings};
pub use vi::{InitialFit, Settings as ViSettings, Units};

use crate::checkpoint::{self, MaybeKeeper};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::memory;
use crate::optimizer::Watch;
use crate::posterior::Family;
use crate::problem::Problem;
use ndarray::{Array, Array2, Array3, ArrayD, Dimension};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Instant;

/// Every method, in the order in which tables show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// The prior N(xb, B), before any observation.
    Prior,
    /// 4DVAR: the most probable initial state, with a Laplace covariance.
    FourDVar,
    /// ABC rejection: the trials of the prior that are closest to the observations.
    Abc,
    /// Ensemble of 4DVAR: one minimisation for each perturbation of background and observations.
    Ensemble,
    /// VAE-Var: 4DVAR whose background errors have a learned distribution.
    VaeVar,
    /// VI-4DVAR over the latents of that distribution.
    VaeVi,
    /// What a recognition network, trained on many windows, says of this one.
    Amortized,
    /// VI-4DVAR: the distribution of largest ELBO in a family.
    Vi(Family),
    /// The posterior itself, by tempered SMC, checked by NUTS.
    Reference,
}

impl Method {
    /// All of them, in the order in which tables show them.
    pub const ALL: [Self; 15] = [
        Self::Prior,
        Self::FourDVar,
        Self::Abc,
        Self::Ensemble,
        Self::VaeVar,
        Self::VaeVi,
        Self::Amortized,
        Self::Vi(Family::MeanField),
        Self::Vi(Family::LowRank),
        Self::Vi(Family::FullRank),
        Self::Vi(Family::Mixture),
        Self::Vi(Family::Planar),
        Self::Vi(Family::RealNvp),
        Self::Vi(Family::Spline),
        Self::Reference,
    ];

    /// Those of the slides' case study, with what they are measured against.
    pub const CASE_STUDY: [Self; 6] =
        [Self::Prior, Self::FourDVar, Self::Abc, Self::Ensemble, Self::Vi(Family::MeanField), Self::Reference];

    /// The name on the command line and of result files: "4dvar", "vi" for the mean field, "vi-full-rank".
    pub fn name(self) -> &'static str {
        match self {
            Self::Prior => "prior",
            Self::FourDVar => "4dvar",
            Self::Abc => "abc",
            Self::Ensemble => "ensemble",
            Self::VaeVar => "vae-var",
            Self::VaeVi => "vae-vi",
            Self::Amortized => "amortized",
            Self::Vi(Family::MeanField) => "vi",
            Self::Vi(Family::LowRank) => "vi-low-rank",
            Self::Vi(Family::FullRank) => "vi-full-rank",
            Self::Vi(Family::Mixture) => "vi-mixture",
            Self::Vi(Family::Planar) => "vi-planar",
            Self::Vi(Family::RealNvp) => "vi-realnvp",
            Self::Vi(Family::Spline) => "vi-spline",
            Self::Reference => "reference",
        }
    }

    /// The name in tables and figures: "4DVAR".
    pub fn title(self) -> &'static str {
        match self {
            Self::Prior => "Prior",
            Self::FourDVar => four_d_var::NAME,
            Self::Abc => abc::NAME,
            Self::Ensemble => ensemble::NAME,
            Self::VaeVar => vae_var::NAME,
            Self::VaeVi => vae_var::VI_NAME,
            Self::Amortized => amortized::NAME,
            Self::Vi(family) => family.title(),
            Self::Reference => reference::NAME,
        }
    }

    /// One line for people.
    fn about(self) -> &'static str {
        match self {
            Self::Prior => "The prior N(xb, B), before any observation",
            Self::FourDVar => "4DVAR: the most probable initial state, with a Laplace covariance",
            Self::Abc => "ABC rejection: the trials of the prior that are closest to the observations",
            Self::Ensemble => {
                "Ensemble of 4DVAR: one minimisation for each perturbation of background and observations"
            }
            Self::VaeVar => "VAE-Var: 4DVAR with a learned distribution of background errors: --vae",
            Self::VaeVi => "VI-4DVAR over the latents of that distribution: --vae",
            Self::Amortized => "What a recognition network says at once, trained by `train amortized`: --weights",
            Self::Vi(Family::MeanField) => {
                "VI-4DVAR: the family of largest ELBO, a mean-field Gaussian if not said otherwise"
            }
            Self::Vi(Family::LowRank) => "VI-4DVAR by a Gaussian whose precision is a diagonal plus a low rank",
            Self::Vi(Family::FullRank) => "VI-4DVAR by a Gaussian with any covariance",
            Self::Vi(Family::Mixture) => "VI-4DVAR by Gaussians around several minima",
            Self::Vi(Family::Planar) => "VI-4DVAR by a planar flow",
            Self::Vi(Family::RealNvp) => "VI-4DVAR by a flow of affine couplings",
            Self::Vi(Family::Spline) => "VI-4DVAR by a flow of spline couplings",
            Self::Reference => "The posterior itself, by tempered SMC, checked by NUTS",
        }
    }
}

impl clap::ValueEnum for Method {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()).help(self.about()))
    }
}

impl Serialize for Method {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The settings of every method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MethodSettings {
    /// The prior's.
    pub prior: PriorSettings,
    /// 4DVAR's.
    pub four_d_var: FourDVarSettings,
    /// ABC's.
    pub abc: AbcSettings,
    /// The ensemble's.
    pub ensemble: EnsembleSettings,
    /// VAE-Var's, which minimises as 4DVAR does and fits its latents as VI-4DVAR does.
    pub vae_var: VaeVarSettings,
    /// Those of amortized inference, whose network VI-4DVAR and 4DVAR may start from.
    pub amortized: AmortizedSettings,
    /// VI-4DVAR's, of any family.
    pub vi: ViSettings,
    /// The reference posterior's.
    pub reference: ReferenceSettings,
}

impl MethodSettings {
    /// Refuses settings of a method that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self, method: Method) -> Result<()> {
        match method {
            Method::Prior => self.prior.check(),
            Method::FourDVar => {
                if self.four_d_var.first_start == FirstStart::Amortized {
                    self.amortized.check()?;
                }
                self.four_d_var.check()
            }
            Method::Abc => self.abc.check(),
            Method::Ensemble => self.ensemble.check(),
            Method::VaeVar | Method::VaeVi => self.vae_var.check(),
            Method::Amortized => self.amortized.check(),
            Method::Vi(family) => {
                if self.vi.start == Some(InitialFit::Amortized) {
                    self.amortized.check()?;
                }
                ViSettings { family, ..self.vi }.check()
            }
            Method::Reference => self.reference.check(),
        }
    }

    /// Most samples that a method keeps of one problem.
    pub fn samples_of(&self, method: Method) -> usize {
        match method {
            Method::Prior => self.prior.samples,
            Method::FourDVar | Method::VaeVar => self.four_d_var.samples,
            Method::Abc => self.abc.samples,
            Method::Ensemble => self.ensemble.members,
            Method::Amortized => self.amortized.samples,
            Method::VaeVi | Method::Vi(_) => self.vi.samples,
            Method::Reference => self.reference.samples,
        }
    }

    /// Runs a method: one analysis for each problem of the set.
    ///
    /// # Errors
    /// Whatever the method's own `run` refuses.
    pub fn run(
        &self,
        method: Method,
        problem: &Problem,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Analysis>> {
        match method {
            Method::Prior => self.prior.run(problem, engine),
            Method::FourDVar if self.four_d_var.first_start == FirstStart::Amortized => {
                let clock = Instant::now();
                let means = self.amortized.means(problem, engine)?;
                timed(clock, self.four_d_var.run_from(problem, engine, Some(means.view()), observer)?)
            }
            Method::FourDVar => self.four_d_var.run(problem, engine, observer),
            Method::Abc => self.abc.run(problem, engine, observer),
            Method::Ensemble => self.ensemble.run(problem, engine, observer),
            Method::VaeVar => self.vae_var.run(&self.vae_var.load()?, &self.four_d_var, problem, engine, observer),
            Method::VaeVi => self.vae_var.run_vi(&self.vae_var.load()?, &self.vi, problem, engine, observer),
            Method::Amortized => self.amortized.run(problem, engine),
            Method::Vi(family) if self.vi.start == Some(InitialFit::Amortized) => {
                let clock = Instant::now();
                let normals = self.amortized.normals(problem, engine)?;
                let settings = ViSettings { family, ..self.vi };
                timed(clock, settings.run_from(problem, engine, Some(&normals), observer)?)
            }
            Method::Vi(family) => ViSettings { family, ..self.vi }.run(problem, engine, observer),
            Method::Reference => self.reference.run(problem, engine, observer),
        }
    }
}

/// Analyses that took the time since `clock`.
fn timed(clock: Instant, mut analyses: Vec<Analysis>) -> Result<Vec<Analysis>> {
    let seconds = clock.elapsed().as_secs_f64();
    analyses.iter_mut().for_each(|a| a.seconds = seconds);
    Ok(analyses)
}

/// Refuses to keep trajectories of more samples of each problem than the machine has memory for.
fn check_samples(problem: &Problem, samples: usize) -> Result<()> {
    let numbers = [problem.count(), samples, problem.window.times, problem.sites()];
    memory::check("the samples' trajectories", &numbers, "keep fewer samples or members of each problem")
}

/// Most members that a method takes for one problem: what a draw's counter holds.
const MOST_MEMBERS: usize = u32::MAX as usize;
/// Most iterations, likewise; the one after the last is kept for fresh draws.
const MOST_ITERATIONS: usize = u32::MAX as usize - 1;

/// What a method found out about one problem.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Analysis {
    /// The method's name as tables show it: "4DVAR", "VI-4DVAR".
    pub method: String,
    /// Posterior mean of the trajectory (4DVAR: the trajectory of the minimum): `[times, sites]`.
    pub mean: Array2<f64>,
    /// Posterior standard deviation of the trajectory: `[times, sites]`.
    pub std: Array2<f64>,
    /// Sampled trajectories: `[samples, times, sites]`.
    pub samples: Array3<f64>,
    /// Everything else worth keeping, named: histories, minima, covariances, posterior parameters.
    pub records: Vec<Record>,
    /// One sentence: why it stopped, and what to think of it.
    pub summary: String,
    /// Wall time of the method in seconds, for the whole set. Kept out of result files, which are the same bytes on
    /// every run; NaN where the analysis comes from a file.
    pub seconds: f64,
}

/// Controls that stand for the posterior of each problem of a set: what a cycle carries on.
#[derive(Clone, Debug)]
pub struct PosteriorMembers {
    /// Where the method puts the analysis: `[P, control]`.
    pub center: Array2<f64>,
    /// Members of the posterior: `[P][members, control]`.
    pub members: Vec<Array2<f64>>,
    /// Posterior deviations of the control, exact where the method knows them: `[P, control]`.
    pub std: Array2<f64>,
}

/// A named array of an analysis, written to result files as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Variable name: `elbo`, `minimum_cost`, ...
    pub name: String,
    /// One line for people.
    pub long_name: String,
    /// Units, "1" where there are none.
    pub units: String,
    /// Names of the axes: `iteration`, `start`, `site`, `site_2`, `time`, `sample`.
    pub dimensions: Vec<String>,
    /// The values.
    pub values: ArrayD<f64>,
}

impl Record {
    /// A record without units.
    pub fn new<D: Dimension>(name: &str, long_name: &str, dimensions: &[&str], values: Array<f64, D>) -> Self {
        debug_assert_eq!(values.ndim(), dimensions.len(), "{name}");
        Self {
            name: name.into(),
            long_name: long_name.into(),
            units: "1".into(),
            dimensions: dimensions.iter().map(|d| (*d).to_string()).collect(),
            values: values.into_dyn(),
        }
    }

    /// A single number.
    pub fn scalar(name: &str, long_name: &str, value: f64) -> Self {
        Self::new(name, long_name, &[], ndarray::arr0(value))
    }
}

impl Analysis {
    /// The record of that name.
    pub fn record(&self, name: &str) -> Option<&Record> {
        self.records.iter().find(|r| r.name == name)
    }

    /// The record of that name, where it is a single number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.record(name).filter(|r| r.values.len() == 1).and_then(|r| r.values.first().copied())
    }
}

/// Refuses a setting that is not a finite number > 0. `flag` names it as the command line does.
fn check_positive(flag: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::invalid(flag, "a finite number > 0", value.to_string(), "correct the setting, or leave it out"))
}

/// Refuses a share that is not in (0, 1].
fn check_share(flag: &str, value: f64) -> Result<()> {
    if value > 0.0 && value <= 1.0 {
        return Ok(());
    }
    Err(Error::invalid(flag, "a share above 0, at most 1", value.to_string(), "correct the setting, or leave it out"))
}

/// Refuses a count outside the range in which it makes sense.
fn check_count(flag: &str, value: usize, range: std::ops::RangeInclusive<usize>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(Error::invalid(flag, expected, value.to_string(), "correct the setting, or leave it out"))
}

/// Where a running method stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The method's name.
    pub method: &'a str,
    /// Iterations done.
    pub iteration: usize,
    /// Iterations at most.
    pub iterations: usize,
    /// The figures worth showing, named: ("ELBO", -61.2), ("|gradient|", 0.3).
    pub figures: &'a [(&'static str, f64)],
}

/// Watches a running method: progress bars, logs, cancellation.
pub trait Observer {
    /// Called after each iteration. `Break` ends the run early; what has been found so far is kept.
    fn progress(&mut self, progress: &Progress) -> std::ops::ControlFlow<()>;

    /// Where the method's loops keep their state, so that a run that was cut off can go on: see [`crate::checkpoint`].
    fn keeper(&mut self) -> MaybeKeeper<'_> {
        None
    }
}

/// What `work` gives, or gave in the run that is resumed.
pub(crate) fn once<T: Serialize + serde::de::DeserializeOwned>(
    observer: &mut dyn Observer,
    work: impl FnOnce(&mut dyn Observer) -> Result<T>,
) -> Result<T> {
    let found = match checkpoint::begin(observer.keeper())? {
        Some(kept) => kept,
        None => work(observer)?,
    };
    checkpoint::end(observer.keeper(), &found)?;
    Ok(found)
}

/// Tells an observer of minimisations.
struct Watched<'a> {
    method: &'static str,
    iterations: usize,
    /// Starts of which the lowest counts.
    starts: usize,
    observer: &'a mut dyn Observer,
    stopped: bool,
}

impl<'a> Watched<'a> {
    fn new(method: &'static str, iterations: usize, starts: usize, observer: &'a mut dyn Observer) -> Self {
        Self { method, iterations, starts, observer, stopped: false }
    }
}

impl Watch for Watched<'_> {
    fn progress(&mut self, iteration: usize, costs: &[f64]) -> ControlFlow<()> {
        let lowest = costs.chunks(self.starts).map(|c| c.iter().copied().fold(f64::INFINITY, f64::min));
        let (count, sum) = lowest.filter(|c| c.is_finite()).fold((0.0, 0.0), |(n, sum), c| (n + 1.0, sum + c));
        let figures = [("J", sum / f64::max(count, 1.0))];
        let progress = Progress { method: self.method, iteration, iterations: self.iterations, figures: &figures };
        self.stopped |= self.observer.progress(&progress).is_break();
        if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn keeper(&mut self) -> MaybeKeeper<'_> {
        self.observer.keeper()
    }
}

/// Tells an observer how the training of a network goes.
#[cfg(feature = "neural")]
struct WatchedTraining<'a> {
    method: &'static str,
    observer: &'a mut dyn Observer,
}

#[cfg(feature = "neural")]
impl crate::neural::Watch for WatchedTraining<'_> {
    fn progress(&mut self, iteration: usize, iterations: usize, [loss, held_out]: [f64; 2]) -> ControlFlow<()> {
        let figures = [("loss", loss), ("held out", held_out)];
        self.observer.progress(&Progress { method: self.method, iteration, iterations, figures: &figures })
    }

    fn keeper(&mut self) -> MaybeKeeper<'_> {
        self.observer.keeper()
    }
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn progress(&mut self, _: &Progress) -> std::ops::ControlFlow<()> {
        std::ops::ControlFlow::Continue(())
    }
}
