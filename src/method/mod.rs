//! The methods: each is Settings + run(problem, engine, observer) -> one Analysis per problem of the set.

mod background;
pub mod four_d_var;
mod laplace;
mod samples;
pub mod vi;

pub use background::background;
pub use four_d_var::Settings as FourDVarSettings;
pub use laplace::Hessian;
pub use vi::{Settings as ViSettings, Units};

use crate::error::{Error, Result};
use ndarray::{Array, Array2, Array3, ArrayD, Dimension};

/// Most members that a method takes for one problem: what a draw's counter holds.
const MOST_MEMBERS: usize = u32::MAX as usize;
/// Most iterations, likewise; the one after the last is kept for fresh draws.
const MOST_ITERATIONS: usize = u32::MAX as usize - 1;

/// What a method found out about one problem.
#[derive(Clone, Debug)]
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
    /// Wall time of the method in seconds. Kept out of result files, which are the same bytes on every run.
    pub seconds: f64,
}

/// A named array of an analysis, written to result files as it is.
#[derive(Clone, Debug)]
pub struct Record {
    /// Variable name: `elbo`, `minimum_cost`, ...
    pub name: &'static str,
    /// One line for people.
    pub long_name: &'static str,
    /// Units, "1" where there are none.
    pub units: &'static str,
    /// Names of the axes: `iteration`, `start`, `site`, `site_2`, `time`, `sample`.
    pub dimensions: &'static [&'static str],
    /// The values.
    pub values: ArrayD<f64>,
}

impl Record {
    /// A record without units.
    fn new<D: Dimension>(
        name: &'static str,
        long_name: &'static str,
        dimensions: &'static [&'static str],
        values: Array<f64, D>,
    ) -> Self {
        debug_assert_eq!(values.ndim(), dimensions.len(), "{name}");
        Self { name, long_name, units: "1", dimensions, values: values.into_dyn() }
    }

    /// A single number.
    fn scalar(name: &'static str, long_name: &'static str, value: f64) -> Self {
        Self::new(name, long_name, &[], ndarray::arr0(value))
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
    Err(Error::invalid(flag, "a share above 0, at most 1", value.to_string(), "0.5 allows half"))
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
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn progress(&mut self, _: &Progress) -> std::ops::ControlFlow<()> {
        std::ops::ControlFlow::Continue(())
    }
}
