//! The kernels compiled for a device so far.

use super::adapter::Device;
use super::cache::CacheFile;
use super::shader::{self, Binding, Kernel, Shape};
use super::templates::Templates;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The stack of a thread that compiles: naga descends a few frames for each level of an expression.
const STACK: usize = 8 << 20;

/// The pipelines of a device, compiled on first use, with the driver's own cache where it has one.
#[derive(Debug)]
pub struct Pipelines {
    device: Arc<Device>,
    templates: Templates,
    compiled: Mutex<HashMap<(Kernel, Shape), wgpu::ComputePipeline>>,
    disk: Option<Disk>,
}

/// The driver's cache of pipelines, and where it is kept.
#[derive(Debug)]
struct Disk {
    cache: wgpu::PipelineCache,
    file: CacheFile,
    /// Bytes when it was read.
    read: usize,
}

impl Pipelines {
    pub fn new(device: Arc<Device>, templates: Templates) -> Self {
        Self { disk: Disk::open(&device), device, templates, compiled: Mutex::default() }
    }

    /// Kernels specialised for their shapes. Those that are not there yet are compiled side by side.
    ///
    /// # Errors
    /// A kernel that the driver does not take.
    pub fn get(&self, wanted: &[(Kernel, Shape)]) -> Result<Vec<wgpu::ComputePipeline>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<&(Kernel, Shape)> = Vec::new();
        for key in wanted {
            if !compiled.contains_key(key) && !missing.contains(&key) {
                missing.push(key);
            }
        }
        for (key, pipeline) in missing.iter().zip(self.compile_all(&missing)?) {
            compiled.insert(**key, pipeline);
        }
        Ok(wanted.iter().map(|key| compiled[key].clone()).collect())
    }

    /// Compiles kernels on as many threads as there are cores.
    fn compile_all(&self, wanted: &[&(Kernel, Shape)]) -> Result<Vec<wgpu::ComputePipeline>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
        let next = AtomicUsize::new(0);
        let work = || {
            let mut made = Vec::new();
            while let Some((at, (kernel, shape))) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                wanted.get(at).map(|key| (at, key))
            } {
                made.push((at, self.compile(*kernel, shape)));
            }
            made
        };
        let mut made = if threads <= 1 {
            work()
        } else {
            std::thread::scope(|scope| {
                let spawn = |_| std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
                let threads: std::io::Result<Vec<_>> = (0..threads).map(spawn).collect();
                let threads = threads.map_err(|e| Error::Device {
                    message: format!("the system refused a thread: {e}"),
                    help: "close other programs".into(),
                })?;
                Ok::<_, Error>(
                    threads.into_iter().flat_map(|t| t.join().expect("a compiling thread does not panic")).collect(),
                )
            })?
        };
        made.sort_by_key(|(at, _)| *at);
        let made = made.into_iter().map(|(_, pipeline)| pipeline).collect();
        self.device.check()?;
        made
    }

    /// A module. With wgpu's checks at run time in builds with debug assertions, which tests and CI use; for templates
    /// that are not ours; and on a software rasteriser, where leaving them out gains nothing that can be measured.
    /// `VI4DVAR_SHADER_CHECKS=1` switches them on, for a report of a fault, and `=0` off, to measure what they cost.
    #[expect(unsafe_code, reason = "modules without run-time checks")]
    fn module(&self, label: Option<&str>, text: String) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl(text.into()) };
        let device = &self.device.device;
        let checked = match std::env::var("VI4DVAR_SHADER_CHECKS").as_deref() {
            Ok("1") => true,
            Ok("0") => false,
            _ => self.device.hardware.software,
        };
        if cfg!(debug_assertions) || checked || !self.templates.are_built_in() {
            return device.create_shader_module(descriptor);
        }
        // SAFETY: the text is made of our own templates; no part of it comes from a user.
        // - Indices: every invocation clamps its member to `rows - 1` (`place` of lanes.wgsl, whose workgroups without a
        //   member return; the kernels of one invocation per number return beyond `rows` and the control, those over
        //   blocks clamp their block, and a tile of sums its rows and columns); slots are those of `Call::slots`, what is kept per invocation follows them, and the
        //   buffers are made for both by `Memory::new` from the same `Plan`; a trajectory in workgroup memory has room for
        //   the whole window; places in `problem` are those of `Uploaded::new`. Arrays of a member's sites are indexed by
        //   constants of the unrolled text. The one index that comes from a buffer is a listed member's problem and place
        //   in the store, which `Listed::check` and `Resident` bound on the host; bins of a histogram are clamped by
        //   `block.wgsl`. Errors of the model are counted up to `error_count`, which the control holds, and back again.
        // - Loops end: each counts up or down to a number of `params` or a constant, and those are below 8,192 by `Plan`, or at most `MOST_LOOPED`.
        // - Divisors are `capacity`, `per_problem`, `steps_per_time`, `error_interval`, `blocks_per_problem`, `runs_per_problem`,
        //   `blocks_per_run`, `rank`, `pattern` or `tiles`, which are at least 1 in every dispatch whose kernel divides by them.
        // The tests run the same texts with all checks on.
        unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }

    fn compile(&self, kernel: Kernel, shape: &Shape) -> Result<wgpu::ComputePipeline> {
        let device = &self.device.device;
        let label = Some(kernel.entry_point());
        let module = self.module(label, shader::source(kernel, shape, &self.templates)?);
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
            compilation_options: wgpu::PipelineCompilationOptions {
                // No kernel reads workgroup memory that it has not written.
                zero_initialize_workgroup_memory: false,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: self.disk.as_ref().map(|disk| &disk.cache),
        }))
    }
}

impl Disk {
    /// The cache of this adapter and driver, where wgpu has one for the backend.
    #[expect(unsafe_code, reason = "the driver reads a blob from disk")]
    fn open(device: &Device) -> Option<Self> {
        if !device.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let key = wgpu::util::pipeline_cache_key(&device.info)?;
        let file = CacheFile::named(&format!("{key}_{}_{}", device.info.driver, device.info.driver_info));
        let data = file.read();
        let descriptor = wgpu::PipelineCacheDescriptor { label: None, data: data.as_deref(), fallback: true };
        // SAFETY: the blob was returned by `get_data` for an adapter and driver of the same key: the file's name says so,
        // and its checksum that it is whole. wgpu compares adapter and driver with the blob's own header once more.
        let cache = unsafe { device.device.create_pipeline_cache(&descriptor) };
        Some(Self { cache, file, read: data.map_or(0, |data| data.len()) })
    }
}

impl Drop for Pipelines {
    /// Keeps what was compiled for the next run.
    fn drop(&mut self) {
        let nothing_new = self.compiled.get_mut().is_ok_and(|compiled| compiled.is_empty());
        if let Some(disk) = self.disk.as_ref().filter(|_| !nothing_new)
            && let Some(data) = disk.cache.get_data()
            && data.len() != disk.read
        {
            disk.file.write(&data);
        }
    }
}
