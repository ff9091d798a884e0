//! What is estimated: the initial state, and where the problem has them, the model's errors within the window and its
//! parameters. One control vector, with a Gaussian prior.

use super::{ErrorCovariance, Problem, check_shape, shared};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The errors that a model makes within the window (weak constraint, forcing form):
/// x -> x + eta_k every `interval` steps, eta_k ~ N(0, Q), each independent of the others.
///
/// The control holds them whitened, as xi_k with eta_k = Q^1/2 xi_k, so that Q -> 0 leaves the strong constraint and
/// Q = 0 is it. There is none after the last assimilated time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelError {
    /// Q, of the error added at one time. Deviations may be 0.
    pub covariance: ErrorCovariance,
    /// RK4 steps between two errors: 1 for an error after each step, the window's `steps_per_time` for one before each
    /// stored time.
    pub interval: usize,
}

/// Most bytes of a control vector in doubles.
const LARGEST_CONTROL: u64 = 1 << 32;

/// The layout of a member's control vector: x0, then each time's xi, then the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlLayout {
    /// Numbers of x0 and of each xi: the number of sites.
    pub sites: usize,
    /// Times at which the model has an error; 0 in the strong constraint.
    pub errors: usize,
    /// Model parameters that are estimated: all of them, or none.
    pub parameters: usize,
}

impl ControlLayout {
    /// Length of the whole control vector.
    #[expect(clippy::len_without_is_empty, reason = "a control is never empty")]
    pub fn len(&self) -> usize {
        self.sites * (1 + self.errors) + self.parameters
    }

    /// Whether it is x0 and nothing else.
    pub fn is_state(&self) -> bool {
        self.errors + self.parameters == 0
    }

    /// Where xi_k lies, `k` from 0.
    pub fn error(&self, k: usize) -> Range<usize> {
        self.sites * (1 + k)..self.sites * (2 + k)
    }

    /// Where the parameters lie.
    pub fn parameters(&self) -> Range<usize> {
        self.len() - self.parameters..self.len()
    }

    /// The names of its dimension in files, and of a matrix' second one: "site" where each number belongs to one.
    pub fn dimensions(&self) -> [&'static str; 2] {
        if self.is_state() { ["site", "site_2"] } else { ["control", "control_2"] }
    }
}

impl Problem {
    /// What a control vector holds.
    pub fn control(&self) -> ControlLayout {
        let steps = self.window.assimilated_times.saturating_sub(1) * self.window.steps_per_time;
        ControlLayout {
            sites: self.sites(),
            errors: self.model_error.as_ref().map_or(0, |q| steps / q.interval),
            parameters: if self.parameter_std.is_some() { self.parameters.ncols() } else { 0 },
        }
    }

    /// The prior mean of the control of problem `p`: x_b, zeros, and the parameters. `[control]`
    pub fn control_mean(&self, p: usize) -> Array1<f64> {
        let layout = self.control();
        let mut mean = Array1::zeros(layout.len());
        mean.slice_mut(s![..layout.sites]).assign(&self.background.mean_of(p));
        if layout.parameters > 0 {
            mean.slice_mut(s![layout.parameters()]).assign(&self.parameters_of(p));
        }
        mean
    }

    /// The prior means of all problems: `[P, control]`.
    pub fn control_means(&self) -> Array2<f64> {
        self.each_problem(|p| self.control_mean(p))
    }

    /// The prior standard deviations of the control of problem `p`: `[control]`.
    pub fn control_std(&self, p: usize) -> Array1<f64> {
        self.blocks(p, self.background.std_of(p), Array1::ones(self.control().errors * self.sites()), |std| {
            std.to_owned()
        })
    }

    /// The prior standard deviations of all problems: `[P, control]`.
    pub fn control_stds(&self) -> Array2<f64> {
        self.each_problem(|p| self.control_std(p))
    }

    /// L z of problem `p`, with L L' the prior covariance of the control: `[control]`.
    pub fn control_root(&self, p: usize, z: ArrayView1<f64>) -> Array1<f64> {
        let [state, errors, parameters] = self.split(z);
        self.blocks(p, self.background.square_root(p, state), errors.to_owned(), |std| &std * &parameters)
    }

    /// L' g of problem `p`: `[control]`.
    pub fn control_root_transposed(&self, p: usize, g: ArrayView1<f64>) -> Array1<f64> {
        let [state, errors, parameters] = self.split(g);
        self.blocks(p, self.background.square_root_transposed(p, state), errors.to_owned(), |std| &std * &parameters)
    }

    /// L^-1 d of problem `p`: `[control]`.
    pub fn control_whitened(&self, p: usize, d: ArrayView1<f64>) -> Array1<f64> {
        let [state, errors, parameters] = self.split(d);
        self.blocks(p, self.background.whiten(p, state), errors.to_owned(), |std| &parameters / &std)
    }

    /// log det of the prior covariance of the control of problem `p`.
    pub fn control_log_det(&self, p: usize) -> f64 {
        let parameters = self.parameter_std_of(p).map_or(0.0, |std| std.mapv(|s| 2.0 * s.ln()).sum());
        self.background.log_det(p) + parameters
    }

    /// The parameters that a control of problem `p` stands for, its own or the problem's: `[parameters]`.
    pub fn parameters_in<'a>(&'a self, p: usize, control: &'a ArrayView1<f64>) -> ArrayView1<'a, f64> {
        let layout = self.control();
        if layout.parameters > 0 { control.slice(s![layout.parameters()]) } else { self.parameters_of(p) }
    }

    /// The model errors eta that a control of problem `p` stands for: `[errors, sites]`.
    pub fn model_errors_in(&self, p: usize, control: ArrayView1<f64>) -> Array2<f64> {
        let layout = self.control();
        let mut errors = Array2::zeros((layout.errors, layout.sites));
        if let Some(q) = &self.model_error {
            for (k, mut eta) in errors.outer_iter_mut().enumerate() {
                eta.assign(&q.covariance.square_root(p, control.slice(s![layout.error(k)])));
            }
        }
        errors
    }

    /// Standard deviations of the parameters' prior, of problem `p`, where they are estimated: `[parameters]`.
    pub fn parameter_std_of(&self, p: usize) -> Option<ArrayView1<'_, f64>> {
        self.parameter_std.as_ref().map(|std| std.row(shared(std.nrows(), p)))
    }

    /// True parameters of problem `p`, where they are known: `[parameters]`.
    pub fn true_parameters_of(&self, p: usize) -> Option<ArrayView1<'_, f64>> {
        self.true_parameters.as_ref().map(|truth| truth.row(shared(truth.nrows(), p)))
    }

    /// A control's numbers by their blocks: x0, all xi, the parameters.
    fn split<'a>(&self, control: ArrayView1<'a, f64>) -> [ArrayView1<'a, f64>; 3] {
        let layout = self.control();
        let (state, rest) = control.split_at(ndarray::Axis(0), layout.sites);
        let (errors, parameters) = rest.split_at(ndarray::Axis(0), layout.errors * layout.sites);
        [state, errors, parameters]
    }

    /// A control from its blocks; that of the parameters comes from their deviations.
    fn blocks(
        &self,
        p: usize,
        state: Array1<f64>,
        errors: Array1<f64>,
        parameters: impl FnOnce(ArrayView1<f64>) -> Array1<f64>,
    ) -> Array1<f64> {
        let mut control = state.into_raw_vec_and_offset().0;
        control.extend(errors);
        if let Some(std) = self.parameter_std_of(p) {
            control.extend(parameters(std));
        }
        Array1::from_vec(control)
    }

    fn each_problem(&self, row: impl Fn(usize) -> Array1<f64>) -> Array2<f64> {
        let mut all = Array2::zeros((self.count(), self.control().len()));
        all.outer_iter_mut().enumerate().for_each(|(p, mut to)| to.assign(&row(p)));
        all
    }

    /// Refuses a prior on parameters or a model error that cannot be.
    pub(super) fn check_control(&self) -> Result<()> {
        let problems = self.count();
        let names = self.model.parameter_names();
        let of_parameters = |what: &str, values: ArrayView2<f64>, positive: bool| {
            check_shape(what, values.shape(), &[problems, names.len()])?;
            let usable = |v: f64| v.is_finite() && (v > 0.0 || !positive);
            match values.indexed_iter().find(|(_, v)| !usable(**v)) {
                None => Ok(()),
                Some(((_, k), v)) => Err(Error::invalid(
                    format!("{what} of {}", names[k]),
                    if positive { "a finite deviation > 0" } else { "a finite number" },
                    v.to_string(),
                    "correct the number, or leave all of them out",
                )),
            }
        };
        if let Some(std) = &self.parameter_std {
            of_parameters("parameter_std", std.view(), true)?;
        }
        if let Some(truth) = &self.true_parameters {
            of_parameters("true parameters", truth.view(), false)?;
        }
        let Some(q) = &self.model_error else { return Ok(()) };
        if q.interval == 0 {
            return Err(Error::invalid("model_error_interval", "at least 1 step", "0", "correct the interval"));
        }
        q.covariance.check("model_error", problems, self.sites(), true)?;
        let layout = self.control();
        if layout.errors == 0 {
            let expected = "an interval that fits into the assimilation window";
            let found = format!("{} steps", q.interval);
            return Err(Error::invalid(
                "model_error_interval",
                expected,
                found,
                "shorten it, or leave model errors out",
            ));
        }
        // Of each member there is one such vector at least, and a file could not hold it either.
        let bytes = layout.errors.checked_add(1).and_then(|n| n.checked_mul(layout.sites)?.checked_mul(8));
        if bytes.is_none_or(|bytes| bytes as u64 > LARGEST_CONTROL) {
            let ControlLayout { sites, errors, .. } = layout;
            let bytes = bytes.map_or_else(|| "more bytes than can be counted".into(), |bytes| format!("{bytes} bytes"));
            let found = format!("{bytes} for {errors} errors of {sites} sites");
            let expected = format!("a control of at most {LARGEST_CONTROL} bytes (4 GiB)");
            return Err(Error::invalid("model_error_interval", expected, found, "lengthen it, or shorten the window"));
        }
        Ok(())
    }
}
