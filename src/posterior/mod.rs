//! The families q_theta: how a family's theta becomes members and the engine's sums a gradient of theta, and what can be
//! drawn from and weighed once it is fitted.

mod elbo;
mod flow;
mod full_rank;
mod low_rank;
mod mean_field;
mod mixture;
mod normal;

pub use elbo::{Elbo, log_normalizer, log_observation_normalizer};
#[cfg(feature = "neural")]
pub use flow::Flow;
pub use flow::FlowSettings;
pub use full_rank::FullRank;
pub use low_rank::LowRank;
pub use mean_field::MeanField;
pub use mixture::{Mixture, Mixtures};
pub use normal::Normal;

use crate::engine::{AffineMap, Moments};
use crate::random::Stream;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;
use std::ops::Range;

/// The families that VI-4DVAR fits, from the plainest to the richest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// A Gaussian with a diagonal covariance
    #[default]
    MeanField,
    /// A Gaussian whose precision is a diagonal plus a matrix of low rank
    LowRank,
    /// A Gaussian with any covariance
    FullRank,
    /// Gaussians around several minima, weighted by their evidence
    Mixture,
    /// A planar flow from a Gaussian
    Planar,
    /// A flow of affine couplings from a Gaussian
    #[serde(rename = "realnvp")]
    #[value(name = "realnvp")]
    RealNvp,
    /// A flow of rational-quadratic spline couplings from a Gaussian
    Spline,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::MeanField, Self::LowRank, Self::FullRank, Self::Mixture, Self::Planar, Self::RealNvp, Self::Spline];

    /// The name on the command line: "full-rank".
    pub fn name(self) -> &'static str {
        match self {
            Self::MeanField => "mean-field",
            Self::LowRank => "low-rank",
            Self::FullRank => "full-rank",
            Self::Mixture => "mixture",
            Self::Planar => "planar",
            Self::RealNvp => "realnvp",
            Self::Spline => "spline",
        }
    }

    /// The name in tables and figures: "VI full rank". The mean field is the slides' VI-4DVAR.
    pub fn title(self) -> &'static str {
        match self {
            Self::MeanField => "VI-4DVAR",
            Self::LowRank => "VI low rank",
            Self::FullRank => "VI full rank",
            Self::Mixture => "VI mixture",
            Self::Planar => "VI planar",
            Self::RealNvp => "VI RealNVP",
            Self::Spline => "VI spline",
        }
    }

    /// The family of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// Whether it is a normalizing flow, which takes the feature `neural`.
    pub fn is_flow(self) -> bool {
        matches!(self, Self::Planar | Self::RealNvp | Self::Spline)
    }
}

/// What the gradient of the ELBO is estimated by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// The gradient of `E_q[J]` by reparametrisation, that of the entropy in closed form (Kingma & Welling 2014).
    #[default]
    Plain,
    /// The path derivative of J + log q alone, "sticking the landing": no noise at all where q is the posterior (Roeder,
    /// Wu & Duvenaud 2017).
    Path,
}

/// Draws from a q.
#[derive(Clone, Debug)]
pub struct Draws {
    /// `[members, control]`
    pub states: Array2<f64>,
    /// log q at each: `[members]`
    pub log_density: Array1<f64>,
}

/// One q for each of P problems, to be drawn from and to be weighed.
pub trait Posterior: Send + Sync {
    /// P.
    fn problems(&self) -> usize;

    /// Length of a control vector.
    fn control(&self) -> usize;

    /// The draws of problem `p` with the numbers `members` in a stream: the same whichever others are drawn with them.
    fn draw(&self, p: usize, seed: u64, stream: Stream, members: Range<usize>) -> Draws;

    /// log q of problem `p` at each row: `[rows, control]` to `[rows]`.
    fn log_density(&self, p: usize, states: ArrayView2<f64>) -> Array1<f64>;
}

/// A Gaussian family with one q_theta for each of P problems: an affine map of standard normals, c = m + S eps.
///
/// The ELBO of q under the posterior p(x0 | y), up to log p(y), is
///
/// `ELBO = E_q[log p(y, x0)] - E_q[log q] = log_normalizer - E_q[J] + entropy(q) <= log p(y)`,
///
/// with J the cost (its 1/2 in both terms) and [`log_normalizer`] what J leaves out of log p(y, x0). The entropy is known
/// in closed form.
pub trait Gaussian: Send + Sync {
    /// P.
    fn problems(&self) -> usize;

    /// Length of a control vector.
    fn control(&self) -> usize;

    /// All parameters in one row for an optimiser, problem by problem: `[P * parameters]`.
    fn parameters(&mut self) -> &mut [f64];

    /// The parameters of problem `p`: `[parameters]`.
    fn row(&self, p: usize) -> ArrayView1<'_, f64>;

    /// The parameters of problem `p`, to be changed: `[parameters]`.
    fn row_mut(&mut self, p: usize) -> ArrayViewMut1<'_, f64>;

    /// What a step of each parameter is counted in: `[P * parameters]`.
    fn units(&self) -> Vec<f64>;

    /// The map c = m + S eps.
    fn to_map(&self) -> AffineMap;

    /// [`Self::to_map`] into a map that it made before.
    fn write_map(&self, map: &mut AffineMap) {
        *map = self.to_map();
    }

    /// log |det S| of problem `p`.
    fn log_det(&self, p: usize) -> f64;

    /// Entropy of problem `p`'s q: log |det S| + control / 2 log(2 pi e).
    fn entropy(&self, p: usize) -> f64 {
        self.log_det(p) + 0.5 * self.control() as f64 * (TAU.ln() + 1.0)
    }

    /// d(-ELBO)/dtheta from one draw's moments: `moments: [P]`, `gradient: [P * parameters]`, laid out as
    /// [`Self::parameters`]. Means are over the draws that did not diverge; where all did, the gradient is zero.
    fn pull_back(&self, moments: &[Moments], estimator: Estimator, gradient: &mut [f64]);

    /// Problem `p`'s q, as it is now.
    fn normal(&self, p: usize) -> Normal;

    /// The ELBO of problem `p` relative to the cost alone, `entropy(q) - E_q[J]`, from one draw's moments. Add
    /// [`log_normalizer`] to make it a bound on log p(y).
    fn elbo(&self, p: usize, moments: &Moments) -> Elbo {
        Elbo::new(self.entropy(p), moments)
    }
}
