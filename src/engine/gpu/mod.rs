//! The GPU engine: WGSL compute kernels through wgpu. The only room that touches wgpu.

mod adapter;
mod batch;
mod buffers;
mod cache;
mod calibrate;
mod call;
mod ceiling;
mod choice;
mod dispatches;
mod layout;
mod memory;
mod params;
mod pipelines;
mod plan;
mod resident;
mod run;
mod select;
mod shader;
mod submissions;
mod templates;
mod timer;
mod uploaded;

pub use adapter::{AdapterDescription, adapters};
pub(super) use batch::LoadedGpu;
pub(super) use resident::Resident;

use super::{EngineSettings, Hardware};
use crate::error::Result;
use crate::problem::Problem;
use adapter::Device;
use choice::Choices;
use pipelines::Pipelines;
use std::sync::Arc;
use templates::Templates;

/// The GPU engine: an open device, and the kernels compiled for it so far.
#[derive(Clone, Debug)]
pub struct GpuEngine {
    device: Arc<Device>,
    pipelines: Arc<Pipelines>,
    choices: Arc<Choices>,
    /// Most bytes that a batch may take.
    memory: u64,
}

impl GpuEngine {
    pub(super) fn new(settings: &EngineSettings) -> Result<Self> {
        Self::on(Device::open(settings)?, settings)
    }

    /// On the best adapter that is no software rasteriser, if there is one.
    pub(super) fn best_real(settings: &EngineSettings) -> Result<Option<Self>> {
        Device::open_real(settings)?.map(|device| Self::on(device, settings)).transpose()
    }

    fn on(device: Device, settings: &EngineSettings) -> Result<Self> {
        let Hardware { adapter, backend, driver, software, .. } = &device.hardware;
        let templates = Templates::new(settings.shaders.as_deref())?;
        let choices = Choices::new(&settings.kernel, [backend, adapter, driver], *software, &templates)?;
        let device = Arc::new(device);
        let pipelines = Arc::new(Pipelines::new(device.clone(), templates));
        Ok(Self { pipelines, choices: Arc::new(choices), device, memory: settings.memory_mib << 20 })
    }

    pub(super) fn hardware(&self) -> &Hardware {
        &self.device.hardware
    }

    /// The variants of the kernels that problems were loaded with so far.
    pub(super) fn kernels(&self) -> Vec<String> {
        self.choices.used()
    }

    pub(super) fn load(&self, problem: &Problem) -> Result<LoadedGpu> {
        LoadedGpu::new(self.device.clone(), self.pipelines.clone(), &self.choices, self.memory, problem)
    }
}
