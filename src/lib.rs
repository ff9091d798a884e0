//! Ensemble engine for variational data assimilation, on any GPU and on the CPU.
//!
//! It integrates Lorenz-96 or Lorenz-63 members and their adjoints in lockstep; 4DVAR, ABC, an ensemble of 4DVAR, VI-4DVAR and a
//! reference posterior are readings of one cost.
//!
//! ```
//! use vi4dvar::{Backend, Engine, EngineSettings, FourDVarSettings, Silent, TwinSettings, ViSettings};
//!
//! # fn main() -> vi4dvar::Result<()> {
//! // A problem: the twin experiment of Filoche and Béréziat, or your own (`Problem::read`, or field by field).
//! let problem = vi4dvar::simulate(&TwinSettings { seed: 3, ..TwinSettings::default() })?;
//!
//! // An engine: `Backend::Auto` takes a real GPU where there is one.
//! let engine = Engine::new(&EngineSettings { backend: Backend::Cpu, ..EngineSettings::default() })?;
//!
//! // Two of the methods, each one analysis per problem of the set: here one.
//! let map = FourDVarSettings { starts: 16, ..FourDVarSettings::default() }.run(&problem, &engine, &mut Silent)?;
//! let vi = ViSettings { batch: Some(64), ..ViSettings::default() }.run(&problem, &engine, &mut Silent)?;
//!
//! let truth = problem.truth_of(0).expect("a twin knows its truth");
//! for analysis in [&map[0], &vi[0]] {
//!     let error = (&analysis.mean - &truth).mapv(|e| e * e).mean().unwrap_or(f64::NAN).sqrt();
//!     println!("{:10} RMSE {error:.3}, mean sd {:.3}", analysis.method, analysis.std.mean().unwrap_or(f64::NAN));
//!     assert!(error < 1.0);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The rooms, from the inside out: [`model`] (the dynamics), [`problem`] (what is assimilated), [`engine`] (the
//! hardware), [`posterior`] and [`optimizer`], [`diagnostics`], [`method`], [`experiment`], [`benchmark`] and
//! [`validation`], [`output`]. A name below can be reached by its room's path too.

pub mod benchmark;
pub mod checkpoint;
pub mod diagnostics;
pub mod engine;
pub mod error;
pub mod experiment;
mod memory;
pub mod method;
pub mod model;
mod netcdf;
pub mod neural;
pub mod optimizer;
pub mod output;
pub mod posterior;
pub mod problem;
pub mod random;
pub mod validation;

// Errors that say what was expected, what was found and what to do.
pub use error::{Error, Result};

// The dynamics.
pub use model::{Dynamics, Lorenz63, Lorenz96, Model, Number, ParameterValues, Rk4};

// A set of problems: window, background, observations, operator.
pub use problem::{
    Background, ControlLayout, CovarianceFactor, ErrorCovariance, ObservationOperator, PointFunction, Problem, Window,
};

// An engine, the batches it runs and what comes back.
pub use engine::{
    AdamStep, AdapterDescription, AffineMap, Backend, Ceilings, CostHistogram, Costs, Counters, Draw, Engine,
    EngineSettings, Gradients, Hardware, Inspection, Keep, Launched, Listed, LoadedProblem, Members, Moments,
    Precision, Ranks, Resident, Row, Scale, Selection, Terms, Traffic, Worker, adapters,
};

// Random numbers, by address.
pub use random::{Stream, StreamRng, normals, philox};

// How parameters move, and the families that are fitted.
pub use optimizer::{
    Adam, AdamSettings, AdamSteps, LbfgsSettings, Minimum, Reason, Schedule, minimise_adam, minimise_lbfgs,
};
#[cfg(feature = "neural")]
pub use posterior::Flow;
pub use posterior::{
    Draws, Elbo, Estimator, Family, FlowSettings, FullRank, Gaussian, LowRank, MeanField, Mixture, Normal, Posterior,
    log_normalizer, log_observation_normalizer,
};

// Methods: settings whose `run` gives one analysis per problem.
#[cfg(feature = "neural")]
pub use method::Recognition;
pub use method::abc::Criterion;
pub use method::ensemble::{Start, Status};
pub use method::vi::{InitialFit, Units};
pub use method::{
    AbcSettings, AmortizedSettings, AmortizedTraining, Analysis, EnsembleSettings, FirstStart, FourDVarSettings,
    Hessian, Method, MethodSettings, Minima, Minimiser, NetworkSettings, Observer, PriorSettings, Progress, Recognized,
    Record, ReferenceSettings, Silent, Vae, VaeSettings, VaeVarSettings, ViSettings,
};

// Twin experiments and presets.
pub use experiment::{
    MethodScores, Outcome, Preset, Reference, ReferenceCount, ScoreTable, TwinKind, TwinSettings, scores, simulate,
    simulate_set, training_windows,
};

// Cycled assimilation and its presets.
pub use experiment::{
    BackgroundErrors, CyclePreset, CycleSettings, CycledErrors, CycledMethod, CycledParameter, CycledScores, Cycles,
    ErrorQuality, ErrorSource,
};

// Scores against a truth or a reference posterior; each one's function is in the room.
pub use diagnostics::{
    CostFit, CostFitSummary, Estimate, Periods, Rank, RankHistogram, ScoreInput, ScoreReference, ScoreSummary, Scores,
};

// Whether a fit can be trusted, from importance weights and minima; whether methods are calibrated.
pub use diagnostics::{Corrected, OtherMinimum, Psis, RankEcdf, Trust, UniformBand, Verdict, VerdictInput};
pub use experiment::{Sbc, SbcMethod, SbcRanks};

// Throughput, row by row.
pub use benchmark::Settings as BenchmarkSettings;

// Files.
pub use output::{
    AttributeValue, Attributes, SavedAnalysis, check_size, check_writable, read_analysis, read_members, write_analysis,
    write_evaluation, write_members, write_text,
};
