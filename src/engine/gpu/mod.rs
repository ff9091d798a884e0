//! The GPU engine: WGSL compute kernels through wgpu. The only room that touches wgpu.

mod adapter;
mod batch;
mod ceiling;
mod layout;
mod params;
mod plan;
mod resident;
mod run;
mod select;
mod shader;
mod uploaded;

pub use adapter::{AdapterDescription, adapters};
pub(super) use batch::LoadedGpu;
pub(super) use resident::Resident;

use super::{EngineSettings, Hardware};
use crate::error::Result;
use crate::problem::Problem;
use adapter::Device;
use shader::{Binding, Kernel, Shape};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The GPU engine: an open device, and the kernels compiled for it so far.
#[derive(Clone, Debug)]
pub struct GpuEngine {
    device: Arc<Device>,
    pipelines: Arc<Mutex<HashMap<(Kernel, Shape), wgpu::ComputePipeline>>>,
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
        Self { device: Arc::new(device), pipelines: Arc::default(), memory: settings.memory_mib << 20 }
    }

    pub(super) fn hardware(&self) -> &Hardware {
        &self.device.hardware
    }

    pub(super) fn load(&self, problem: &Problem) -> Result<LoadedGpu> {
        LoadedGpu::new(self.clone(), problem)
    }

    /// A kernel specialised for a shape, compiled on first use.
    fn pipeline(&self, kernel: Kernel, shape: &Shape) -> Result<wgpu::ComputePipeline> {
        let shape = &Shape { ownership: kernel.specialise(shape.ownership), ..*shape };
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(&(kernel, *shape)) {
            return Ok(pipeline.clone());
        }
        let device = &self.device.device;
        let label = Some(kernel.entry_point());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(shader::source(kernel, shape)?.into()),
        });
        let entries: Vec<_> = (0..)
            .zip(kernel.bindings(shape.ownership))
            .map(|(binding, kind)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match kind {
                        Binding::Uniform => wgpu::BufferBindingType::Uniform,
                        Binding::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Binding::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let bindings = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&bindings)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&layout),
            module: &module,
            entry_point: Some(kernel.entry_point()),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        self.device.check()?;
        pipelines.insert((kernel, *shape), pipeline.clone());
        Ok(pipeline)
    }
}
