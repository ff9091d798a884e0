//! A problem set in device memory.

use super::adapter::Device;
use super::buffers::{storage, to_bytes};
use super::layout::{Fit, MemberLayout};
use super::params::Params;
use super::plan::MOST_LOOPED;
use super::shader::{Beside, Ownership, Shape};
use crate::engine::prepared::{ErrorRoot, Field, Prepared, PreparedErrors};
use crate::error::{Error, Result};
use crate::problem::Problem;
use std::sync::Arc;

/// A problem set in device memory.
#[derive(Debug)]
pub struct Uploaded {
    pub device: Arc<Device>,
    pub data: Prepared<f64>,
    pub shape: Shape,
    /// Every ingredient, one after the other.
    pub problem: wgpu::Buffer,
    /// Where each ingredient lies in it.
    pub places: Params,
    /// Bytes sent.
    pub bytes: u64,
}

impl Uploaded {
    /// Sends a problem set.
    ///
    /// # Errors
    /// A state too large for a workgroup, or a set too large for a buffer.
    pub fn new(device: Arc<Device>, problem: &Problem) -> Result<Self> {
        let precision = device.hardware.precision;
        let data = Prepared::new(problem, |v| v);
        if data.control.errors > MOST_LOOPED {
            return Err(Error::invalid(
                "model errors",
                format!("at most {MOST_LOOPED} within the window on a GPU"),
                data.control.errors.to_string(),
                "use a longer interval between them, or --backend cpu",
            ));
        }
        let sites = problem.sites();
        let steps = data.stored_steps();
        let layout = MemberLayout::rule_of_thumb(&fit(&device, &data))?;
        let shape = Shape {
            model: data.model,
            sites,
            operator: data.operator,
            full_background: data.full_background.is_some(),
            control: Beside {
                errors: data.control.errors > 0,
                full_errors: matches!(&data.errors, Some(PreparedErrors { root: ErrorRoot::Lower(_), .. })),
                parameters: data.control.parameters > 0,
            },
            precision,
            ownership: Ownership::default(),
            one_problem: data.seeds.len() == 1,
            wide_integers: device.device.features().contains(wgpu::Features::SHADER_INT64),
            steps_in_group: layout.steps_in_group(steps),
            layout,
        };
        let mut numbers = vec![data.dt / 2.0, data.dt, data.dt / 6.0, 0.0];
        let mut place = |field: &Field<f64>| {
            let at = numbers.len() as u32;
            numbers.extend(&field.values);
            (at, field.stride as u32)
        };
        let mut places = Params {
            steps_per_time: data.steps_per_time as u32,
            control: data.control.len() as u32,
            ..Params::default()
        };
        (places.parameters, places.parameters_stride) = place(&data.parameters);
        (places.mean, places.mean_stride) = place(&data.mean);
        (places.observation, places.observation_stride) = place(&data.observation);
        (places.observation_precision, places.observation_precision_stride) = place(&data.observation_precision);
        (places.deviation, places.deviation_stride) = place(&data.observation_deviation);
        match &data.full_background {
            None => {
                (places.inverse, places.inverse_stride) = place(&data.precision);
                (places.prior_precision, places.prior_precision_stride) = (places.inverse, places.inverse_stride);
            }
            Some(full) => {
                (places.factor, places.factor_stride) = place(&full.factor);
                (places.inverse, places.inverse_stride) = place(&full.matrix);
                if data.control.parameters > 0 {
                    (places.prior_precision, places.prior_precision_stride) = place(&data.precision);
                }
            }
        }
        if let Some(errors) = &data.errors {
            places.error_interval = errors.interval as u32;
            let (ErrorRoot::Diagonal(root) | ErrorRoot::Lower(root)) = &errors.root;
            (places.error_root, places.error_root_stride) = place(root);
        }
        let bytes = to_bytes(precision, numbers.into_iter());
        let limit = device.limits.max_storage_buffer_binding_size;
        if bytes.len() as u64 > limit {
            return Err(Error::invalid(
                "problem set",
                format!("at most {} MiB of observations and backgrounds on this GPU", limit >> 20),
                format!("{} MiB", bytes.len() >> 20),
                "use fewer problems at a time, or --backend cpu",
            ));
        }
        let buffer = storage(&device, "problem", bytes.len() as u64)?;
        device.queue.write_buffer(&buffer, 0, &bytes);
        Ok(Self { device, data, shape, problem: buffer, places, bytes: bytes.len() as u64 })
    }

    /// What its kernels must fit.
    pub fn fit(&self) -> Fit<'_> {
        fit(&self.device, &self.data)
    }

    /// Sets the variant of its kernels.
    pub fn set_layout(&mut self, layout: MemberLayout) {
        self.shape.layout = layout;
        self.shape.steps_in_group = layout.steps_in_group(self.data.stored_steps());
    }

    /// Sets the amplitude of the perturbations of the calls that follow.
    pub fn set_amplitude(&self, amplitude: f64) {
        let precision = self.shape.precision;
        let number = to_bytes(precision, std::iter::once(amplitude));
        self.device.queue.write_buffer(&self.problem, 3 * precision.bytes() as u64, &number);
    }

    /// P.
    pub fn problems(&self) -> usize {
        self.data.seeds.len()
    }
}

fn fit<'a>(device: &'a Device, data: &Prepared<f64>) -> Fit<'a> {
    Fit {
        sites: data.sites,
        ring: data.model.reach().is_some(),
        steps: data.stored_steps(),
        block: data.operator.block_size,
        precision: device.hardware.precision,
        limits: &device.limits,
        subgroup: device.subgroup,
        software: device.hardware.software,
    }
}
