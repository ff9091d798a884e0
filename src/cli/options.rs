//! Options that several subcommands share.

use clap::{ArgAction, Args};
use serde::Serialize;
use std::path::PathBuf;
use vi4dvar::engine::{Backend, Engine, EngineSettings, Hardware, Precision, Ranks};
use vi4dvar::error::Result;
use vi4dvar::experiment::Preset;
use vi4dvar::method::abc::Criterion;
use vi4dvar::method::ensemble::Start;
use vi4dvar::method::vi::{InitialFit, Units};
use vi4dvar::method::{
    AbcSettings, AmortizedSettings, EnsembleSettings, FirstStart, FourDVarSettings, Hessian, Method, MethodSettings,
    Minimiser, PriorSettings, ReferenceSettings, VaeVarSettings, ViSettings,
};
use vi4dvar::optimizer::Schedule;
use vi4dvar::posterior::{Estimator, Family, FlowSettings};

/// Where and how to compute.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Hardware")]
pub(super) struct HardwareOptions {
    /// Where to compute: auto (a real GPU, else the CPU), gpu, cpu. Default: auto
    #[arg(long, value_name = "BACKEND", value_parser = backend)]
    pub backend: Backend,
    /// Part of the name of the adapter to use. Default: the best one
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Which of several adapters alike, from 0; no answer depends on it. Default: 0
    #[arg(long, value_name = "K")]
    #[serde(skip)]
    pub device: Option<usize>,
    /// The number type: f32, f64. Default: f32
    #[arg(long, value_name = "TYPE", value_parser = precision)]
    pub precision: Precision,
    /// Threads of the CPU engine, on each rank; no answer depends on them. Default: all cores
    #[arg(long, value_name = "N")]
    #[serde(skip)]
    pub threads: Option<usize>,
    /// Most memory that a batch in flight may take, in MiB; no answer depends on it. Default: 1024
    #[arg(long, value_name = "MIB")]
    #[serde(skip)]
    pub memory: u64,
    /// A GPU's kernels: auto (the fastest, measured once), calibrate (measure again), or a variant by its name in a
    /// result. Default: auto
    #[arg(long, value_name = "NAME")]
    pub kernel: String,
}

impl Default for HardwareOptions {
    fn default() -> Self {
        let EngineSettings { backend, adapter, device, precision, threads, memory_mib: memory, kernel, .. } =
            EngineSettings::default();
        Self { backend, adapter, device, precision, threads, memory, kernel }
    }
}

impl HardwareOptions {
    /// What an engine is made from.
    pub(super) fn settings(&self) -> EngineSettings {
        EngineSettings {
            backend: self.backend,
            adapter: self.adapter.clone(),
            device: self.device,
            precision: self.precision,
            threads: self.threads,
            memory_mib: self.memory,
            kernel: self.kernel.clone(),
            ..EngineSettings::default()
        }
    }

    /// The engine asked for, on all ranks; a software rasteriser is announced.
    pub(super) fn engine(&self, run: &RunOptions, ranks: &Ranks) -> Result<Engine> {
        let engine = Engine::over(&self.settings(), ranks)?;
        if !run.quiet {
            eprintln!("on {engine}");
        }
        announce(engine.hardware());
        Ok(engine)
    }
}

/// Says so where the adapter is a software rasteriser, even to those who asked for quiet.
fn announce(hardware: &Hardware) {
    if hardware.software {
        eprintln!("note: {} is a software rasteriser, no faster than --backend cpu", hardware.adapter);
    }
}

/// The values that the methods' settings take. Those of several methods come first.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Methods")]
pub(super) struct MethodOptions {
    /// Iterations of VI; the most that a minimisation of 4DVAR or the ensemble makes. Default: 1500
    #[arg(long, value_name = "N")]
    pub iterations: usize,
    /// Samples drawn from each posterior. Default: 1000
    #[arg(long, value_name = "N")]
    pub samples: usize,
    /// Share of diverged members above which there is no answer. Default: 0.5
    #[arg(long, value_name = "SHARE")]
    pub max_diverged_share: f64,
    /// 4DVAR and ensemble: what minimises. Default: lbfgs
    #[arg(long, value_name = "NAME")]
    pub minimiser: Minimiser,
    /// 4DVAR and ensemble by Adam: learning rate, in background deviations. Default: 0.05
    #[arg(long, value_name = "RATE")]
    pub minimiser_learning_rate: f64,
    /// 4DVAR and ensemble by Adam: schedule. Default: cosine
    #[arg(long, value_name = "NAME")]
    pub minimiser_schedule: Schedule,
    /// 4DVAR and ensemble by L-BFGS: pairs kept. Default: 20
    #[arg(long, value_name = "N")]
    pub history: usize,
    /// 4DVAR and ensemble: stop at this share of the gradient's norm at the start. Default: 1e-8 in f64, 1e-5 in f32
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_tolerance: Option<f64>,
    /// 4DVAR and ensemble: stop when an iteration lowers the cost by less than this share. Default: 1e-13 in f64, 1e-7
    /// in f32
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_tolerance: Option<f64>,
    /// 4DVAR and ensemble, quasi-static: windows of growing length that a minimisation from a background passes
    /// through. Default: 1
    #[arg(long, value_name = "N")]
    pub stages: usize,
    /// Prior: samples drawn from N(xb, B). Default: 1000
    #[arg(long, value_name = "N")]
    pub prior_keep: usize,
    /// 4DVAR: starting points, the background first; the lowest minimum is kept. Default: 8
    #[arg(long, value_name = "N")]
    pub starts: usize,
    /// 4DVAR: the first of them. Default: background
    #[arg(long, value_name = "NAME")]
    pub first_start: FirstStart,
    /// 4DVAR: the Hessian under the Laplace covariance. Default: gauss-newton
    #[arg(long, value_name = "NAME")]
    pub hessian: Hessian,
    /// ABC: trials drawn from N(xb, B). Default: 100000
    #[arg(long, value_name = "N")]
    pub abc_trials: usize,
    /// ABC: share of the trials to keep, the best. Default: 0.001
    #[arg(long, value_name = "SHARE")]
    pub abc_keep: f64,
    /// ABC: keep all trials whose criterion is at or below this, whatever their share. Default: no threshold
    #[arg(long, value_name = "COST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abc_threshold: Option<f64>,
    /// ABC: what a trial is judged by. Default: observation
    #[arg(long, value_name = "NAME")]
    pub criterion: Criterion,
    /// ABC: weight the kept trials by exp(-J_o). Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub abc_weights: bool,
    /// Ensemble: members. Default: 100
    #[arg(long, value_name = "N")]
    pub members: usize,
    /// Ensemble: amplitude of the perturbations of background and observations. Default: 1
    #[arg(long, value_name = "FACTOR")]
    pub perturbation: f64,
    /// Ensemble: where a member's minimisation starts. Default: minimum
    #[arg(long, value_name = "NAME")]
    pub ensemble_start: Start,
    /// Ensemble: count members in spurious minima too. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub keep_spurious: bool,
    /// VAE-Var and VAE-VI: the file of a learned distribution of background errors. Default: none
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae: Option<PathBuf>,
    /// VAE-Var: whether the cost has the latents' prior term. Default: true
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub prior_term: bool,
    /// VAE-Var: whether the cost has the log-determinant. Default: true
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub log_det_term: bool,
    /// VAE-Var: whether the cost has the observations. Default: true
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub observation_term: bool,
    /// VAE-VI: the family over the latents, mean-field or full-rank. Default: full-rank
    #[arg(long, value_name = "NAME", hide_possible_values = true)]
    pub latent_family: Family,
    /// Amortized, and VI or 4DVAR that start from it: the file of a trained network. Default: none
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// VI: the families that the method "vi" stands for. Default: mean-field
    #[arg(long, value_name = "NAMES", value_delimiter = ',', hide_possible_values = true)]
    #[serde(skip)]
    pub family: Vec<Family>,
    /// VI: Monte Carlo draws per iteration. Default: 1 for a mean field, 256 for other families
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// VI: what learning rate and initial deviation are counted in. Default: physical
    #[arg(long, value_name = "NAME")]
    pub units: Units,
    /// VI: Adam's learning rate. Default: 0.01
    #[arg(long, value_name = "RATE")]
    pub learning_rate: f64,
    /// VI: Adam's schedule. Default: constant for a mean field, cosine for other families
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// VI: how the ELBO's gradient is estimated. Default: plain for a mean field, path for other families
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimator: Option<Estimator>,
    /// VI: where a fit starts. Default: background for a mean field, laplace for other families
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vi_start: Option<InitialFit>,
    /// VI: columns of the low-rank family's factor. Default: 8
    #[arg(long, value_name = "N")]
    pub rank: usize,
    /// VI: layers of a normalizing flow. Default: 8
    #[arg(long, value_name = "N")]
    pub flow_layers: usize,
    /// VI: width of the hidden layers of a coupling's network. Default: 64
    #[arg(long, value_name = "N")]
    pub flow_width: usize,
    /// VI: hidden layers of a coupling's network. Default: 2
    #[arg(long, value_name = "N")]
    pub flow_hidden: usize,
    /// VI: powers of the likelihood that a fit passes through, 1 for the whole alone. Default: 1
    #[arg(long, value_name = "N")]
    pub tempering: usize,
    /// VI: minimisations on whose minima a mixture is built. Default: 32
    #[arg(long, value_name = "N")]
    pub mixture_starts: usize,
    /// VI: standard deviation of a fit that starts at the background. Default: 1
    #[arg(long, value_name = "STD")]
    pub initial_std: f64,
    /// VI: stop when the smoothed ELBO gains less than this share. Default: never
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// VI: iterations over which the ELBO is smoothed for that. Default: 100
    #[arg(long, value_name = "N")]
    pub smoothing_window: usize,
    /// VI: fresh draws that weigh the result: its ELBO, IWAE bound, k-hat and verdict. Default: 200000
    #[arg(long, value_name = "N")]
    pub importance_draws: usize,
    /// VI: resample the samples from those draws by their importance weights. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub corrected: bool,
    /// Reference: particles of each SMC run. Default: 2048
    #[arg(long, value_name = "N")]
    pub particles: usize,
    /// Reference: independent SMC runs, which must agree. Default: 2
    #[arg(long, value_name = "N")]
    pub runs: usize,
    /// Reference: effective share of the particles that a temper level leaves. Default: 0.5
    #[arg(long, value_name = "SHARE")]
    pub ess_share: f64,
    /// Reference: most leapfrog steps of an HMC move. Default: 16
    #[arg(long, value_name = "N")]
    pub leapfrog_steps: usize,
    /// Reference: most HMC moves at a level. Default: 10
    #[arg(long, value_name = "N")]
    pub moves: usize,
    /// Reference: correlation with the level's start at which particles have moved enough. Default: 0.2
    #[arg(long, value_name = "SHARE")]
    pub correlation: f64,
    /// Reference: whether NUTS checks the particles. Default: true
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub cross_check: bool,
    /// Reference: chains of NUTS. Default: 4
    #[arg(long, value_name = "N")]
    pub nuts_chains: usize,
    /// Reference: draws of each chain. Default: 500
    #[arg(long, value_name = "N")]
    pub nuts_draws: usize,
    /// Reference: draws of each chain before those, which tune it. Default: 500
    #[arg(long, value_name = "N")]
    pub nuts_tune: usize,
}

impl MethodOptions {
    /// Files that are read.
    pub(super) fn inputs(&self) -> Vec<&std::path::Path> {
        self.vae.iter().chain(&self.weights).map(PathBuf::as_path).collect()
    }

    /// The options that stand for a preset's settings.
    pub(super) fn new(preset: &Preset) -> Self {
        let MethodSettings { prior, four_d_var: f, abc: a, ensemble: e, vae_var, amortized, vi: v, reference: r } =
            &preset.methods;
        Self {
            iterations: v.iterations,
            samples: v.samples,
            max_diverged_share: v.max_diverged_share,
            minimiser: f.minimiser,
            minimiser_learning_rate: f.learning_rate,
            minimiser_schedule: f.schedule,
            history: f.history,
            gradient_tolerance: f.gradient_tolerance,
            cost_tolerance: f.cost_tolerance,
            stages: f.stages,
            prior_keep: prior.samples,
            starts: f.starts,
            first_start: f.first_start,
            hessian: f.hessian,
            abc_trials: a.trials,
            abc_keep: a.keep,
            abc_threshold: a.threshold,
            criterion: a.criterion,
            abc_weights: a.weights,
            members: e.members,
            perturbation: e.perturbation,
            ensemble_start: e.start,
            keep_spurious: e.keep_spurious,
            vae: vae_var.vae.clone(),
            prior_term: vae_var.prior_term,
            log_det_term: vae_var.log_det_term,
            observation_term: vae_var.observation_term,
            latent_family: vae_var.latent_family,
            weights: amortized.weights.clone(),
            family: vec![v.family],
            batch: v.batch,
            units: v.units,
            learning_rate: v.learning_rate,
            schedule: v.schedule,
            estimator: v.estimator,
            vi_start: v.start,
            rank: v.rank,
            flow_layers: v.flow.layers,
            flow_width: v.flow.width,
            flow_hidden: v.flow.hidden,
            tempering: v.tempering,
            mixture_starts: v.mixture_starts,
            initial_std: v.initial_std,
            tolerance: v.tolerance,
            smoothing_window: v.window,
            importance_draws: v.importance_draws,
            corrected: v.corrected,
            particles: r.particles,
            runs: r.runs,
            ess_share: r.ess_share,
            leapfrog_steps: r.leapfrog_steps,
            moves: r.moves,
            correlation: r.correlation,
            cross_check: r.cross_check,
            nuts_chains: r.nuts_chains,
            nuts_draws: r.nuts_draws,
            nuts_tune: r.nuts_tune,
        }
    }

    /// Some methods, "vi" by its families.
    pub(super) fn methods(&self, named: &[Method]) -> Vec<Method> {
        let mut methods = Vec::new();
        for method in named {
            match method {
                Method::Vi(Family::MeanField) => methods.extend(self.family.iter().map(|f| Method::Vi(*f))),
                _ => methods.push(*method),
            }
        }
        methods.sort_unstable();
        methods.dedup();
        methods
    }

    /// The settings of every method.
    pub(super) fn settings(&self) -> MethodSettings {
        let (samples, max_diverged_share) = (self.samples, self.max_diverged_share);
        MethodSettings {
            prior: PriorSettings { samples: self.prior_keep, max_diverged_share },
            four_d_var: FourDVarSettings {
                starts: self.starts,
                first_start: self.first_start,
                stages: self.stages,
                minimiser: self.minimiser,
                iterations: self.iterations,
                gradient_tolerance: self.gradient_tolerance,
                cost_tolerance: self.cost_tolerance,
                history: self.history,
                learning_rate: self.minimiser_learning_rate,
                schedule: self.minimiser_schedule,
                hessian: self.hessian,
                samples,
                max_diverged_share,
            },
            abc: AbcSettings {
                trials: self.abc_trials,
                keep: self.abc_keep,
                threshold: self.abc_threshold,
                criterion: self.criterion,
                weights: self.abc_weights,
                samples,
                max_diverged_share,
            },
            ensemble: EnsembleSettings {
                members: self.members,
                perturbation: self.perturbation,
                start: self.ensemble_start,
                stages: self.stages,
                minimiser: self.minimiser,
                iterations: self.iterations,
                gradient_tolerance: self.gradient_tolerance,
                cost_tolerance: self.cost_tolerance,
                history: self.history,
                learning_rate: self.minimiser_learning_rate,
                schedule: self.minimiser_schedule,
                keep_spurious: self.keep_spurious,
                max_diverged_share,
            },
            vae_var: VaeVarSettings {
                vae: self.vae.clone(),
                prior_term: self.prior_term,
                log_det_term: self.log_det_term,
                observation_term: self.observation_term,
                latent_family: self.latent_family,
            },
            amortized: AmortizedSettings {
                weights: self.weights.clone(),
                samples,
                importance_draws: self.importance_draws,
                corrected: self.corrected,
                max_diverged_share,
            },
            vi: ViSettings {
                family: Family::default(),
                iterations: self.iterations,
                batch: self.batch,
                units: self.units,
                learning_rate: self.learning_rate,
                schedule: self.schedule,
                estimator: self.estimator,
                start: self.vi_start,
                rank: self.rank,
                flow: FlowSettings { layers: self.flow_layers, width: self.flow_width, hidden: self.flow_hidden },
                tempering: self.tempering,
                mixture_starts: self.mixture_starts,
                initial_std: self.initial_std,
                tolerance: self.tolerance,
                window: self.smoothing_window,
                samples,
                importance_draws: self.importance_draws,
                corrected: self.corrected,
                max_diverged_share,
            },
            reference: ReferenceSettings {
                particles: self.particles,
                runs: self.runs,
                ess_share: self.ess_share,
                leapfrog_steps: self.leapfrog_steps,
                moves: self.moves,
                correlation: self.correlation,
                cross_check: self.cross_check,
                nuts_chains: self.nuts_chains,
                nuts_draws: self.nuts_draws,
                nuts_tune: self.nuts_tune,
                samples,
                max_diverged_share,
            },
        }
    }
}

/// How to behave while running. Not part of the saved settings.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Running")]
pub(super) struct RunOptions {
    /// A TOML file with flags as keys (`sites = 40`); flags on the command line win
    #[arg(long, value_name = "F.toml")]
    pub config: Option<PathBuf>,
    /// Write over existing results. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub force: bool,
    /// No progress and no notes. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub quiet: bool,
}

/// How the state of a long run is kept.
#[derive(Args, Clone, Debug)]
pub(super) struct KeepOptions {
    /// Go on from where a run that was cut off was last kept, with the same settings; from the beginning where nothing was
    /// kept. Default: false
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub resume: bool,
    /// Seconds between two times that the state of the run is written to disk, beside its results. Default: 30
    #[arg(long, value_name = "SECONDS")]
    pub checkpoint_every: f64,
}

impl KeepOptions {
    /// Whether results at `out` may be written over: by force, or because they are those of the run that goes on.
    pub(super) fn overwrites(&self, run: &RunOptions, out: &std::path::Path) -> bool {
        run.force || self.resume && super::progress::checkpoint_of(out).exists()
    }
}

impl Default for KeepOptions {
    fn default() -> Self {
        Self { resume: false, checkpoint_every: 30.0 }
    }
}

pub(super) fn backend(name: &str) -> std::result::Result<Backend, String> {
    match name {
        "auto" => Ok(Backend::Auto),
        "gpu" => Ok(Backend::Gpu),
        "cpu" => Ok(Backend::Cpu),
        _ => Err("expected one of auto, gpu, cpu".into()),
    }
}

pub(super) fn precision(name: &str) -> std::result::Result<Precision, String> {
    match name {
        "f32" => Ok(Precision::F32),
        "f64" => Ok(Precision::F64),
        _ => Err("expected one of f32, f64".into()),
    }
}
