//! Amortized inference: a recognition network that reads observations and says at once what other methods iterate for.
//!
//! The network maps what is known of a window (observations, mask, deviations, background) to q(x0): a point as in R. Filoche
//! et al., *Learning 4DVAR inversion directly from observations* (arXiv 2211.09741), a mean-field Gaussian or one of low
//! rank. It is trained on many simulated windows by the same loss that each of them would be assimilated with, the 4DVAR
//! cost or -ELBO, and never sees a truth. It may be asked several times, each time around what it said before (iterative
//! amortized inference: Marino, Yue & Mandt 2018). Inputs and outputs are counted in the background's deviation around x_b, so
//! that one network serves any background.

#[cfg(feature = "neural")]
mod file;
#[cfg(feature = "neural")]
mod loss;
#[cfg(feature = "neural")]
mod network;
#[cfg(feature = "neural")]
mod training;

#[cfg(feature = "neural")]
pub use network::Recognition;

use super::samples::MAX_DIVERGED_SHARE;
use super::{Analysis, MOST_MEMBERS, check_count, check_share};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::neural::{Architecture, TrainingSettings};
use crate::posterior::Normal;
use crate::problem::Problem;
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
#[cfg(feature = "neural")]
use {
    super::{Record, ViSettings, control::control_records},
    crate::engine::{Members, Terms},
    crate::posterior::Family,
    ndarray::Axis,
    std::time::Instant,
};

/// The method's name in tables.
pub const NAME: &str = "Amortized";

/// What a recognition network says of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Recognized {
    /// A point, trained by the 4DVAR cost.
    Delta,
    /// A Gaussian with a diagonal covariance, trained by the ELBO.
    #[default]
    MeanField,
    /// A Gaussian whose covariance is a diagonal plus a matrix of low rank, trained by the ELBO.
    LowRank,
}

impl Recognized {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Delta, Self::MeanField, Self::LowRank];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::MeanField => "mean-field",
            Self::LowRank => "low-rank",
        }
    }
}

/// The shape of a recognition network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[command(next_help_heading = "Recognition network")]
pub struct NetworkSettings {
    /// What the network says of a window. Default: mean-field
    #[arg(long, value_name = "NAME")]
    pub posterior: Recognized,
    /// Columns of a low-rank posterior. Default: 4
    #[arg(long, value_name = "N")]
    pub posterior_rank: usize,
    /// The layers. Default: convolution for a ring of equal sites, else dense
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// Channels of a convolution at each site, or width of a dense layer. Default: 64
    #[arg(long, value_name = "N")]
    pub network_width: usize,
    /// Layers before the last. Default: 4
    #[arg(long, value_name = "N")]
    pub network_layers: usize,
    /// Sites on either side that a convolution sees. Default: 2
    #[arg(long, value_name = "SITES")]
    pub network_radius: usize,
    /// Times that the network is asked, first around x_b, then around its own mean. Default: 6
    #[arg(long, value_name = "N")]
    pub passes: usize,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            posterior: Recognized::MeanField,
            posterior_rank: 4,
            architecture: None,
            network_width: 64,
            network_layers: 4,
            network_radius: 2,
            passes: 6,
        }
    }
}

impl NetworkSettings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        check_count("posterior-rank", self.posterior_rank, 1..=1000)?;
        check_count("network-width", self.network_width, 1..=4096)?;
        check_count("network-layers", self.network_layers, 1..=100)?;
        check_count("network-radius", self.network_radius, 1..=100)?;
        check_count("passes", self.passes, 1..=100)
    }
}

/// How a recognition network is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AmortizedTraining {
    /// Simulated windows to train on, those held out included. Default: 20000
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub windows: usize,
    /// Draws of each window in each step, in pairs of opposite sign. Default: 8
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub training_draws: usize,
    /// The network.
    #[command(flatten)]
    #[serde(flatten)]
    pub network: NetworkSettings,
    /// The course of the training.
    #[command(flatten)]
    #[serde(flatten)]
    pub training: TrainingSettings,
}

impl Default for AmortizedTraining {
    fn default() -> Self {
        Self {
            windows: 20_000,
            training_draws: 8,
            network: NetworkSettings::default(),
            // Fewer epochs of more windows: a window costs nothing to make, and is learned by heart when seen often.
            training: TrainingSettings { epochs: 7, training_rate: 0.03, ..TrainingSettings::default() },
        }
    }
}

impl AmortizedTraining {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        check_count("windows", self.windows, 2..=1_000_000)?;
        check_count("training-draws", self.training_draws, 2..=4096)?;
        self.network.check()?;
        self.training.check()
    }
}

/// Settings of amortized inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The file of a trained network. Default: none, which is refused.
    pub weights: Option<PathBuf>,
    /// Samples drawn from what the network says, at least 2. Default: 1000.
    pub samples: usize,
    /// Fresh draws by which that is weighed against the posterior. Default: 200,000.
    pub importance_draws: usize,
    /// Whether the samples are resampled from those draws by their importance weights. Default: false.
    pub corrected: bool,
    /// Share of diverged samples above which there is no answer. Default: 0.5.
    pub max_diverged_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            weights: None,
            samples: 1000,
            importance_draws: 200_000,
            corrected: false,
            max_diverged_share: MAX_DIVERGED_SHARE,
        }
    }
}

#[cfg(not(feature = "neural"))]
fn absent() -> Error {
    let help = "build with --features neural";
    Error::invalid("amortized inference", "a build with networks", "one without", help)
}

impl Settings {
    /// Refuses settings that cannot work, and weights that cannot be read.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        check_count("samples", self.samples, 2..=MOST_MEMBERS)?;
        check_count("importance-draws", self.importance_draws, 100..=MOST_MEMBERS)?;
        check_share("max-diverged-share", self.max_diverged_share)?;
        #[cfg(feature = "neural")]
        return self.network().map(drop);
        #[cfg(not(feature = "neural"))]
        Err(absent())
    }

    /// Assimilates every problem of the set, without an iteration: one analysis each, whose `seconds` are those of the whole
    /// set, weighing included.
    ///
    /// From a Gaussian come `samples`, their mean and deviation, and what VI-4DVAR records of a fit: `variational_mean`,
    /// `variational_std`, `final_elbo`, `iwae`, `k_hat`, `verdict` and the rest. A delta has one trajectory, a deviation of 0 that
    /// means nothing, and the record `cost_at_mean`.
    ///
    /// # Errors
    /// Settings, weights or a problem that cannot work, another problem than the network was trained for, an engine's failure,
    /// too many samples diverged; a build without the feature `neural`.
    #[cfg(feature = "neural")]
    pub fn run(&self, problem: &Problem, engine: &Engine) -> Result<Vec<Analysis>> {
        self.check()?;
        super::check_samples(problem, self.samples)?;
        let clock = Instant::now();
        let network = self.network()?;
        let mut analyses = match network.settings.posterior {
            Recognized::Delta => self.points(&network, problem, engine)?,
            family => {
                let normals = network.infer(problem, &mut engine.load(problem)?)?;
                let note = network.summary();
                let weighing = ViSettings {
                    family: if family == Recognized::MeanField { Family::MeanField } else { Family::FullRank },
                    samples: self.samples,
                    importance_draws: self.importance_draws,
                    corrected: self.corrected,
                    max_diverged_share: self.max_diverged_share,
                    ..ViSettings::default()
                };
                weighing.weigh(problem, engine, NAME, normals, vec![note; problem.count()])?
            }
        };
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }

    /// Refuses: this build has no networks.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "neural"))]
    pub fn run(&self, _: &Problem, _: &Engine) -> Result<Vec<Analysis>> {
        Err(absent())
    }

    /// What the network says of each problem, for VI-4DVAR to start from.
    ///
    /// # Errors
    /// As [`Self::run`]; a network that says points.
    pub fn normals(&self, problem: &Problem, engine: &Engine) -> Result<Vec<Normal>> {
        #[cfg(feature = "neural")]
        return self.network()?.infer(problem, &mut engine.load(problem)?);
        #[cfg(not(feature = "neural"))]
        Err(absent_for(problem, engine))
    }

    /// The mean that the network says of each problem, for 4DVAR to start from: `[P, sites]`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn means(&self, problem: &Problem, engine: &Engine) -> Result<Array2<f64>> {
        #[cfg(feature = "neural")]
        return self.network()?.means(problem, &mut engine.load(problem)?);
        #[cfg(not(feature = "neural"))]
        Err(absent_for(problem, engine))
    }

    /// The network of the file.
    #[cfg(feature = "neural")]
    fn network(&self) -> Result<Recognition> {
        let Some(path) = &self.weights else {
            let help = "train one with `vi4dvar train amortized`, and name it with --weights";
            return Err(Error::invalid("weights", "the file of a trained recognition network", "none", help));
        };
        Recognition::read(path)
    }

    /// One analysis for each point that the network says.
    #[cfg(feature = "neural")]
    fn points(&self, network: &Recognition, problem: &Problem, engine: &Engine) -> Result<Vec<Analysis>> {
        let mut loaded = engine.load(problem)?;
        let means = network.means(problem, &mut loaded)?;
        let costs = loaded.cost(Members::Given(means.view()), Terms::ALL)?;
        let trajectories = loaded.forecast(Members::Given(means.view()))?;
        let diverged = costs.diverged.iter().filter(|d| **d).count();
        if diverged > 0 {
            return Err(Error::Diverged { what: "what the network says".into(), diverged, members: problem.count() });
        }
        let analysis = |p: usize| {
            let trajectory = trajectories.index_axis(Axis(0), p).to_owned();
            let count = problem.assimilated_count(p) as f64;
            let cost = costs.background[p] + costs.observation[p];
            let state = means.row(p).to_owned();
            let mut records = vec![
                Record::scalar("cost_at_mean", "cost J of what the network says", cost),
                Record::scalar("observation_count", "number of assimilated observations", count),
                Record::new("initial_state", "initial state that the network says", &["site"], state),
            ];
            records.extend(control_records(problem, p, means.select(Axis(0), &[p]).view()));
            Analysis {
                method: NAME.into(),
                std: Array2::zeros(trajectory.raw_dim()),
                samples: trajectory.clone().insert_axis(Axis(0)),
                mean: trajectory,
                records,
                summary: format!(
                    "{}; a delta: the deviation of 0 says nothing of its error; 2 J = {:.1} for {count} observations",
                    network.summary(),
                    2.0 * cost
                ),
                seconds: 0.0,
            }
        };
        Ok((0..problem.count()).map(analysis).collect())
    }
}

/// [`absent`], whatever it was wanted for.
#[cfg(not(feature = "neural"))]
fn absent_for(_: &Problem, _: &Engine) -> Error {
    absent()
}
