//! What is assimilated: window, background, observations, operator, and the files that hold them.

mod background;
mod control;
mod covariance;
mod file;
mod operator;
mod window;

pub use background::Background;
pub use control::{ControlLayout, ModelError};
pub use covariance::{CovarianceFactor, ErrorCovariance};
pub use operator::{ObservationOperator, PointFunction};
pub use window::Window;

pub(crate) use file::VARIABLES;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::random::{Stream, normals};
use ndarray::{Array, Array2, Array3, ArrayView1, ArrayView2, Axis, RemoveAxis};
use serde::{Deserialize, Serialize};

/// A set of P assimilation problems of one shape, P >= 1, run in lockstep.
///
/// Each ingredient has a leading axis of length P, or of length 1 where all problems share it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// The dynamics.
    pub model: Model,
    /// Model parameters: `[1 | P, parameters]`. Where they are estimated, the mean of their prior.
    pub parameters: Array2<f64>,
    /// Standard deviations of the parameters' prior, > 0: `[1 | P, parameters]`. None where they are known.
    pub parameter_std: Option<Array2<f64>>,
    /// The true parameters where they are known and others than `parameters` (twin experiments): `[1 | P, parameters]`.
    pub true_parameters: Option<Array2<f64>>,
    /// The model's errors within the window (weak constraint). None in the strong constraint.
    pub model_error: Option<ModelError>,
    /// The stored times and the time step.
    pub window: Window,
    /// x_b and B.
    pub background: Background,
    /// H: a point-wise function, then a linear projection.
    pub operator: ObservationOperator,
    /// y, NaN where nothing was observed: `[1 | P, times, observations]`.
    pub observations: Array3<f64>,
    /// sqrt(diag R), read only where observed: `[1 | P, times, observations]`.
    pub observation_std: Array3<f64>,
    /// w_t >= 0, the weight of each observation time in J_o: `[1 | P, times]`. Times from
    /// `window.assimilated_times` on are never assimilated, whatever their weight.
    pub weights: Array2<f64>,
    /// The seed of each problem's random streams: `[P]`. Its length is P.
    pub seeds: Vec<u64>,
    /// The true trajectory where it is known (twin experiments): `[1 | P, times, sites]`.
    pub truth: Option<Array3<f64>>,
}

impl Problem {
    /// P, the number of problems in the set.
    pub fn count(&self) -> usize {
        self.seeds.len()
    }

    /// Number of sites of the model state.
    pub fn sites(&self) -> usize {
        self.background.mean.ncols()
    }

    /// Observations per time: sites / block size.
    pub fn observations_per_time(&self) -> usize {
        self.observations.len_of(Axis(2))
    }

    /// Model parameters of problem `p`: `[parameters]`.
    pub fn parameters_of(&self, p: usize) -> ArrayView1<'_, f64> {
        self.parameters.row(shared(self.parameters.nrows(), p))
    }

    /// Observations of problem `p`: `[times, observations]`.
    pub fn observations_of(&self, p: usize) -> ArrayView2<'_, f64> {
        self.observations.index_axis(Axis(0), shared(self.observations.len_of(Axis(0)), p))
    }

    /// Observation deviations of problem `p`: `[times, observations]`.
    pub fn observation_std_of(&self, p: usize) -> ArrayView2<'_, f64> {
        self.observation_std.index_axis(Axis(0), shared(self.observation_std.len_of(Axis(0)), p))
    }

    /// Time weights of problem `p`: `[times]`.
    pub fn weights_of(&self, p: usize) -> ArrayView1<'_, f64> {
        self.weights.row(shared(self.weights.nrows(), p))
    }

    /// True trajectory of problem `p`: `[times, sites]`.
    pub fn truth_of(&self, p: usize) -> Option<ArrayView2<'_, f64>> {
        self.truth.as_ref().map(|t| t.index_axis(Axis(0), shared(t.len_of(Axis(0)), p)))
    }

    /// w_t / sigma^2 of problem `p`, 0 where nothing is assimilated: `[assimilated times, observations]`.
    pub fn observation_precision(&self, p: usize) -> Array2<f64> {
        let assimilated = self.window.assimilated_times;
        let (y, std, w) = (self.observations_of(p), self.observation_std_of(p), self.weights_of(p));
        Array2::from_shape_fn((assimilated, y.ncols()), |(t, j)| {
            if y[[t, j]].is_nan() || w[t] == 0.0 { 0.0 } else { w[t] / (std[[t, j]] * std[[t, j]]) }
        })
    }

    /// Number of assimilated observations of problem `p` (those of positive weight).
    pub fn assimilated_count(&self, p: usize) -> usize {
        self.observation_precision(p).iter().filter(|r| **r > 0.0).count()
    }

    /// y + a sqrt(R) eps, the observations of one member of an ensemble, as engines draw them from `(seed,
    /// ObservationPerturbation, member, time, observation)`: `[times, observations]`, NaN where nothing was observed.
    pub fn perturbed_observations(&self, p: usize, member: u32, amplitude: f64) -> Array2<f64> {
        let (y, std) = (self.observations_of(p), self.observation_std_of(p));
        Array2::from_shape_fn(y.raw_dim(), |(t, j)| {
            let draws = normals(self.seeds[p], Stream::ObservationPerturbation, t as u32, member, (j / 4) as u32);
            y[[t, j]] + if y[[t, j]].is_nan() { 0.0 } else { amplitude * std[[t, j]] * f64::from(draws[j % 4]) }
        })
    }

    /// The set that holds problem `p` alone.
    ///
    /// # Panics
    /// Where there is no problem of that number.
    pub fn single(&self, p: usize) -> Self {
        self.select(&[p])
    }

    /// The set of some of the problems, in that order; a problem may come more than once.
    ///
    /// # Panics
    /// Where there is no problem of one of the numbers.
    pub fn select(&self, problems: &[usize]) -> Self {
        Self {
            model: self.model,
            parameters: select(&self.parameters, problems),
            parameter_std: self.parameter_std.as_ref().map(|std| select(std, problems)),
            true_parameters: self.true_parameters.as_ref().map(|truth| select(truth, problems)),
            model_error: (self.model_error.as_ref())
                .map(|q| ModelError { covariance: q.covariance.select(problems), interval: q.interval }),
            window: self.window,
            background: self.background.select(problems),
            operator: self.operator,
            observations: select(&self.observations, problems),
            observation_std: select(&self.observation_std, problems),
            weights: select(&self.weights, problems),
            seeds: problems.iter().map(|p| self.seeds[*p]).collect(),
            truth: self.truth.as_ref().map(|truth| select(truth, problems)),
        }
    }

    /// Checks every shape and every number. Engines call it before they touch anything.
    ///
    /// # Errors
    /// The first ingredient at fault, with what was expected and found.
    pub fn check(&self) -> Result<()> {
        let (p, sites) = (self.count(), self.sites());
        if p == 0 {
            return Err(Error::invalid("problem set", "at least one problem", "none", "give one seed per problem"));
        }
        self.model.check_sites(sites)?;
        self.window.check()?;
        self.operator.check(sites)?;
        let times = self.window.times;
        let per_time = sites / self.operator.block_size;
        check_shape("model parameters", self.parameters.shape(), &[p, self.model.parameter_names().len()])?;
        check_shape("observations", self.observations.shape(), &[p, times, per_time])?;
        check_shape("observation_std", self.observation_std.shape(), &[p, times, per_time])?;
        check_shape("weights", self.weights.shape(), &[p, times])?;
        if let Some(truth) = &self.truth {
            check_shape("truth", truth.shape(), &[p, times, sites])?;
            check_finite("truth", truth.iter())?;
        }
        check_finite("model parameters", self.parameters.iter())?;
        if let Some(w) = self.weights.iter().find(|w| !(w.is_finite() && **w >= 0.0)) {
            return Err(Error::invalid("weights", "finite numbers >= 0", w.to_string(), "correct the weights"));
        }
        if let Some(y) = self.observations.iter().find(|y| y.is_infinite()) {
            return Err(Error::invalid(
                "observation",
                "finite numbers, or NaN where nothing was observed",
                y.to_string(),
                "mark missing observations by NaN",
            ));
        }
        for k in 0..p.min(self.observations.len_of(Axis(0)).max(self.observation_std.len_of(Axis(0)))) {
            let (y, std) = (self.observations_of(k), self.observation_std_of(k));
            for ((index, y), std) in y.indexed_iter().zip(std.iter()) {
                let usable = std.is_finite() && *std > 0.0;
                if !(y.is_nan() || usable) {
                    return Err(Error::invalid(
                        format!("observation_std at time {}, observation {}", index.0, index.1),
                        "a finite deviation > 0 wherever something was observed",
                        std.to_string(),
                        "correct the deviation, or set the observation to NaN",
                    ));
                }
            }
        }
        self.background.check(p)?;
        self.check_control()
    }
}

/// The row that problem `p` reads of an ingredient stored `rows` times (once, or once per problem).
pub(crate) fn shared(rows: usize, p: usize) -> usize {
    if rows == 1 { 0 } else { p }
}

/// The rows of an ingredient that some of the problems read; what all share stays shared.
pub(crate) fn select<D: RemoveAxis>(ingredient: &Array<f64, D>, problems: &[usize]) -> Array<f64, D> {
    if ingredient.len_of(Axis(0)) == 1 { ingredient.clone() } else { ingredient.select(Axis(0), problems) }
}

/// Refuses a shape whose leading axis is neither 1 nor P, or whose other axes differ. `expected[0]` is P.
pub(crate) fn check_shape(what: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    let fits =
        found.len() == expected.len() && (found[0] == 1 || found[0] == expected[0]) && found[1..] == expected[1..];
    if fits {
        return Ok(());
    }
    Err(Error::invalid(
        what,
        format!("shape {expected:?} (or 1 in front where all problems share it)"),
        format!("{found:?}"),
        "correct the shape",
    ))
}

/// Refuses NaN and infinity.
pub(crate) fn check_finite<'a>(what: &str, values: impl Iterator<Item = &'a f64>) -> Result<()> {
    match values.enumerate().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some((i, v)) => Err(Error::invalid(what, "finite numbers", format!("{v} at index {i}"), "correct the value")),
    }
}
