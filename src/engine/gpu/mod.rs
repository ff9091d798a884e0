//! The GPU engine: WGSL compute kernels through wgpu. The only room that touches wgpu.

mod adapter;
mod batch;
mod buffers;
mod cache;
mod call;
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
mod timer;
mod uploaded;

pub use adapter::{AdapterDescription, adapters};
pub(super) use batch::LoadedGpu;
pub(super) use resident::Resident;

use super::{EngineSettings, Hardware};
use crate::error::Result;
use crate::problem::Problem;
use adapter::Device;
use pipelines::Pipelines;
use std::sync::Arc;

/// The GPU engine: an open device, and the kernels compiled for it so far.
#[derive(Clone, Debug)]
pub struct GpuEngine {
    device: Arc<Device>,
    pipelines: Arc<Pipelines>,
    /// Most bytes that a batch may take.
    memory: u64,
}

impl GpuEngine {
    pub(super) fn new(settings: &EngineSettings) -> Result<Self> {
        Ok(Self::on(Device::open(settings)?, settings))
    }

    /// On the best adapter that is no software rasteriser, if there is one.
    pub(super) fn best_real(settings: &EngineSettings) -> Result<Option<Self>> {
        Ok(Device::open_real(settings)?.map(|device| Self::on(device, settings)))
    }

    fn on(device: Device, settings: &EngineSettings) -> Self {
        let device = Arc::new(device);
        Self { pipelines: Arc::new(Pipelines::new(device.clone())), device, memory: settings.memory_mib << 20 }
    }

    pub(super) fn hardware(&self) -> &Hardware {
        &self.device.hardware
    }

    pub(super) fn load(&self, problem: &Problem) -> Result<LoadedGpu> {
        LoadedGpu::new(self.device.clone(), self.pipelines.clone(), self.memory, problem)
    }
}
