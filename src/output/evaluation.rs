//! Evaluation files: cost, gradient and, on request, trajectory of each member of a batch.

use crate::engine::Gradients;
use crate::error::Result;
use crate::netcdf::{Attributes, Writer};
use crate::problem::Problem;
use ndarray::ArrayView3;
use std::path::Path;

/// Writes what an engine found for `[members]` of one problem, with `trajectory: [members, times, sites]` on request.
///
/// The numbers of a member that diverged are written as the engine left them.
///
/// # Errors
/// A set of several problems, arrays that do not fit each other, a variable over 4 GiB, a file that exists (unless `overwrite`), or a failing
/// disk.
pub fn write_evaluation(
    path: impl AsRef<Path>,
    problem: &Problem,
    gradients: &Gradients,
    trajectory: Option<ArrayView3<f64>>,
    attributes: &Attributes,
    overwrite: bool,
) -> Result<()> {
    problem.check_single()?;
    let costs = &gradients.costs;
    let mut writer = Writer::default();
    writer.numbers("cost_background", &["member"], "1", "background term of the cost", costs.background.view())?;
    writer.numbers("cost_observation", &["member"], "1", "observation term of the cost", costs.observation.view())?;
    writer.numbers("cost", &["member"], "1", "cost", costs.total())?;
    writer.numbers(
        "gradient",
        &["member", problem.control().dimensions()[0]],
        "1",
        if problem.control().is_state() {
            "derivative of the cost with respect to the initial state"
        } else {
            "derivative of the cost with respect to initial state, whitened model errors and parameters"
        },
        gradients.gradient.view(),
    )?;
    writer.flags("diverged", "member", "1 where the member diverged and its numbers mean nothing", &costs.diverged)?;
    if let Some(trajectory) = trajectory {
        writer.numbers("time", &["time"], "model time units", "time since the initial state", problem.time_axis())?;
        writer.numbers("trajectory", &["member", "time", "site"], "1", "state", trajectory)?;
    }
    writer.attributes(&problem.attributes());
    writer.attributes(attributes);
    writer.write(path.as_ref(), overwrite)
}
