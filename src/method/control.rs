//! What the samples of a method say about the parts of the control that trajectories do not show: the parameters and the
//! model's errors.

use super::Record;
use crate::problem::Problem;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, s};

/// Mean and deviation over sampled controls `[samples, control]` of problem `p`, of those that did not diverge:
/// `parameter_mean`, `parameter_spread` (parameter) and the samples themselves, `parameter_sample` (sample, parameter), where parameters are estimated;
/// `model_error_mean` and `model_error_spread` (error, site) where the model errs. Nothing where x0 is all of the control.
pub(super) fn control_records(problem: &Problem, p: usize, controls: ArrayView2<f64>) -> Vec<Record> {
    let layout = problem.control();
    let mut records = Vec::new();
    if controls.nrows() < 2 {
        return records;
    }
    if layout.parameters > 0 {
        let samples = controls.slice(s![.., layout.parameters()]);
        records.extend([
            Record::new(
                "parameter_mean",
                "posterior mean of the model's parameters",
                &["parameter"],
                samples.mean_axis(Axis(0)).expect("samples"),
            ),
            Record::new(
                "parameter_spread",
                "posterior standard deviation of the model's parameters",
                &["parameter"],
                samples.std_axis(Axis(0), 1.0),
            ),
            Record::new(
                "parameter_sample",
                "posterior sample of the model's parameters",
                &["parameter_draw", "parameter"],
                samples.to_owned(),
            ),
        ]);
    }
    if layout.errors > 0 {
        let mut errors = Array2::zeros((controls.nrows(), layout.errors * layout.sites));
        for (control, mut to) in controls.outer_iter().zip(errors.outer_iter_mut()) {
            let eta = problem.model_errors_in(p, control);
            to.assign(&ArrayView1::from(eta.as_slice().expect("standard layout")));
        }
        let shape = (layout.errors, layout.sites);
        let reshape = |values: ndarray::Array1<f64>| values.into_shape_with_order(shape).expect("errors times sites");
        records.extend([
            Record::new(
                "model_error_mean",
                "posterior mean of the model's errors",
                &["error", "site"],
                reshape(errors.mean_axis(Axis(0)).expect("samples")),
            ),
            Record::new(
                "model_error_spread",
                "posterior standard deviation of the model's errors",
                &["error", "site"],
                reshape(errors.std_axis(Axis(0), 1.0)),
            ),
        ]);
    }
    records
}
