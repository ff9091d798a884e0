//! The kernels compiled for a device so far.

use super::adapter::Device;
use super::shader::{self, Binding, Kernel, Shape};
use super::templates::Templates;
use crate::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The pipelines of a device, compiled on first use.
#[derive(Debug)]
pub struct Pipelines {
    device: Arc<Device>,
    templates: Templates,
    compiled: Mutex<HashMap<(Kernel, Shape), wgpu::ComputePipeline>>,
}

impl Pipelines {
    pub fn new(device: Arc<Device>, templates: Templates) -> Self {
        Self { device, templates, compiled: Mutex::default() }
    }

    /// A kernel specialised for a shape.
    ///
    /// # Errors
    /// A kernel that the driver does not take.
    pub fn get(&self, kernel: Kernel, shape: &Shape) -> Result<wgpu::ComputePipeline> {
        let shape = &Shape { ownership: kernel.specialise(shape.ownership), ..*shape };
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = compiled.get(&(kernel, *shape)) {
            return Ok(pipeline.clone());
        }
        let pipeline = self.compile(kernel, shape)?;
        self.device.check()?;
        compiled.insert((kernel, *shape), pipeline.clone());
        Ok(pipeline)
    }

    fn compile(&self, kernel: Kernel, shape: &Shape) -> Result<wgpu::ComputePipeline> {
        let device = &self.device.device;
        let label = Some(kernel.entry_point());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(shader::source(kernel, shape, &self.templates)?.into()),
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
                    // One bind group serves all dispatches of a kernel: they differ in their uniforms alone.
                    has_dynamic_offset: *kind == Binding::Uniform,
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
        Ok(device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&layout),
            module: &module,
            entry_point: Some(kernel.entry_point()),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        }))
    }
}
