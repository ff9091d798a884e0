//! A row: one measurement, as `--json` prints it.

use super::{Job, Operation};
use crate::engine::{Hardware, Precision};
use crate::posterior::Family;
use serde::Serialize;

/// What holds a row back: the nearer of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Vector instructions: those that multiply at the rate of multiply-adds, or all at that of multiply-adds and additions.
    Instructions,
    /// Bytes at the rate of a copy.
    Memory,
    /// The way of the sums to the host, once an iteration.
    Readback,
}

/// One measurement. Numbers that are not known are NaN, `null` in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was timed.
    pub operation: Operation,
    /// The family that `elbo` and `vi` fit; null for other operations.
    pub family: Option<Family>,
    /// "cpu" or "gpu".
    pub backend: &'static str,
    /// The adapter's name, or the CPU engine's instruction set and threads.
    pub adapter: String,
    /// The number type.
    pub precision: Precision,
    /// The model's name.
    pub model: &'static str,
    /// Sites of the state.
    pub sites: usize,
    /// Stored times.
    pub times: usize,
    /// RK4 steps between two of them.
    pub steps_per_time: usize,
    /// Members of a call.
    pub members: usize,
    /// End to end: the median over the measurements of a call, or of one of its iterations.
    pub seconds: f64,
    /// members / seconds
    pub members_per_second: f64,
    /// Counted floating-point operations per kernel second, or per second where kernels are not timed; in 10^9.
    pub gflops: f64,
    /// Counted bytes, likewise.
    pub gbytes_per_second: f64,
    /// The time that the nearer bound allows over the time taken: that of the kernels where they are timed; of `vi` the
    /// whole iteration, whose bound has the readback in it.
    pub fraction_of_limit: f64,
    /// The nearer bound.
    pub limit: Limit,
    /// All counted instructions at the measured rate of multiply-adds, over the time taken: above 1 where a processor adds
    /// beside multiplying.
    pub fraction_of_multiply_adds: f64,
    /// The kernels alone: the median likewise.
    pub kernel_seconds: f64,
    /// Lower and upper quartile of `seconds`.
    pub spread: [f64; 2],
    /// What a GPU's first call took beyond a later one of as many members: compilation above all, where an earlier row has
    /// not needed the same kernels.
    pub compile_seconds: f64,
    /// Counted floating-point operations per second end to end, in 10^9.
    pub gflops_end_to_end: f64,
    /// The function h of the observation operator.
    pub operator: &'static str,
    /// The API: "cpu", "vulkan", "metal" or "dx12".
    pub api: String,
    /// The driver with its version.
    pub driver: String,
    /// The variant of the kernels, as `--kernel` takes it; of the CPU engine its instruction set. Null where not timed.
    pub kernel: Option<String>,
    /// Whether the adapter is a software rasteriser.
    pub software: bool,
    /// The device's limits, measured in the same run: 10^9 operations of multiply-adds and 10^9 bytes of a copy a second, and
    /// the seconds of a readback of 128 numbers.
    pub ceiling_gflops: f64,
    /// See `ceiling_gflops`.
    pub ceiling_gbytes_per_second: f64,
    /// See `ceiling_gflops`.
    pub readback_seconds: f64,
    /// Seconds of each measurement, and the units of work in one: members, or one whole fit of 1,500 iterations of `vi`.
    pub samples: Vec<f64>,
    /// See `samples`.
    pub per_run: usize,
    /// Why the row was not timed: what differed from the CPU engine in f64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Row {
    /// A row without measurements.
    pub(super) fn empty(hardware: &Hardware, job: Job, size: &super::Size, members: usize) -> Self {
        let Hardware { backend, adapter, driver, precision, software, .. } = hardware;
        Self {
            operation: job.operation,
            family: job.family,
            backend: if backend == "cpu" { "cpu" } else { "gpu" },
            adapter: adapter.clone(),
            precision: *precision,
            model: size.model.name(),
            sites: size.sites,
            times: size.times,
            steps_per_time: size.steps_per_time,
            members,
            seconds: f64::NAN,
            members_per_second: f64::NAN,
            gflops: f64::NAN,
            gbytes_per_second: f64::NAN,
            fraction_of_limit: f64::NAN,
            limit: Limit::Instructions,
            fraction_of_multiply_adds: f64::NAN,
            kernel_seconds: f64::NAN,
            spread: [f64::NAN; 2],
            compile_seconds: f64::NAN,
            gflops_end_to_end: f64::NAN,
            operator: size.operator.name(),
            api: backend.clone(),
            driver: driver.clone(),
            kernel: None,
            software: *software,
            ceiling_gflops: f64::NAN,
            ceiling_gbytes_per_second: f64::NAN,
            readback_seconds: f64::NAN,
            samples: Vec::new(),
            per_run: members,
            error: None,
        }
    }

    /// The operation with its family, where that is not the mean field.
    pub(super) fn name(&self) -> String {
        Job { operation: self.operation, family: self.family }.name()
    }

    /// A row of a small problem, for tests.
    #[cfg(test)]
    pub(crate) fn example(hardware: &Hardware, operation: Operation, members: usize) -> Self {
        let operator = crate::problem::PointFunction::Square;
        let size =
            super::Size { model: crate::model::Model::Lorenz96, operator, sites: 16, times: 12, steps_per_time: 1 };
        Self::empty(hardware, Job { operation, family: None }, &size, members)
    }
}
