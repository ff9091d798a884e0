//! The adapter's limits: chains of multiply-adds in registers, a copy through its memory, and a small readback.

use super::GpuEngine;
use super::buffers::{buffer, storage, to_bytes};
use crate::engine::Ceilings;
use crate::engine::ceilings::READBACK_NUMBERS;
use crate::error::{Error, Result};
use std::time::{Duration, Instant};

const MULTIPLY_ADD: &str = include_str!("../../../shaders/ceiling_fma.wgsl");
const COPY: &str = include_str!("../../../shaders/ceiling_copy.wgsl");

/// Invocations of a dispatch of multiply-adds: enough for the largest GPU, within 65,535 workgroups.
const INVOCATIONS: u32 = 1 << 20;
/// Multiply-adds of an invocation in a round of the kernel.
const PER_ROUND: u32 = 128;
/// Most rounds of a dispatch, well below the loop limit of software drivers.
const MOST_ROUNDS: u32 = 1 << 9;
/// Bytes of each of the two buffers of a copy, where memory permits: beyond any cache.
const COPY_BYTES: u64 = 256 << 20;
/// Bytes that a workgroup copies.
const GROUP_BYTES: u64 = 256 * 16;
/// How long an attempt lasts at least, if the driver's patience permits.
const ATTEMPT: Duration = Duration::from_millis(20);
const ATTEMPTS: usize = 5;
const READBACKS: usize = 50;

impl GpuEngine {
    pub(in crate::engine) fn ceilings(&self) -> Result<Ceilings> {
        let flops = self.flops()?;
        let (bytes, readback) = (self.copied_bytes()?, self.readback()?);
        Ok(Ceilings { flops, instructions: flops / 2.0, bytes, readback })
    }

    fn flops(&self) -> Result<f64> {
        let device = &self.opened().device;
        let precision = device.hardware.precision;
        let real = precision.name();
        let source = format!("alias real = {real};\nalias real4 = vec4<{real}>;\n{MULTIPLY_ADD}");
        let pipeline = self.small_pipeline(&source, "multiply_add")?;
        // x = x / 2 + 1 tends to 2: neither overflow nor denormal numbers.
        let numbers = storage(device, "ceiling numbers", 2 * precision.bytes() as u64)?;
        device.queue.write_buffer(&numbers, 0, &to_bytes(precision, [0.5, 1.0].into_iter()));
        let result = storage(device, "ceiling result", u64::from(INVOCATIONS) * precision.bytes() as u64)?;
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let rounds = buffer(device, "ceiling rounds", 16, usage)?;
        let bindings = self.bind(&pipeline, &[&numbers, &result, &rounds]);
        let fastest = self.fastest(&pipeline, &bindings, INVOCATIONS / 64, MOST_ROUNDS, |count| {
            device.queue.write_buffer(&rounds, 0, bytemuck::cast_slice(&[count, 0, 0, 0]));
        })?;
        Ok(2.0 * f64::from(INVOCATIONS) * f64::from(PER_ROUND) * fastest)
    }

    fn copied_bytes(&self) -> Result<f64> {
        let device = &self.opened().device;
        let limits = &device.limits;
        let most = (self.memory / 4).min(limits.max_storage_buffer_binding_size).min(limits.max_buffer_size);
        let groups = (most.min(COPY_BYTES) / GROUP_BYTES).clamp(1, limits.max_compute_workgroups_per_dimension.into());
        let bytes = groups * GROUP_BYTES;
        let pipeline = self.small_pipeline(COPY, "copy")?;
        let buffers = [storage(device, "copied from", bytes)?, storage(device, "copied to", bytes)?];
        let bindings = self.bind(&pipeline, &buffers.each_ref());
        let fastest = self.fastest(&pipeline, &bindings, groups as u32, 1, |_| {})?;
        Ok(2.0 * bytes as f64 * fastest)
    }

    /// The median time of a submission that copies a few numbers into a buffer that the host then reads.
    fn readback(&self) -> Result<Duration> {
        let device = &self.opened().device;
        let bytes = (READBACK_NUMBERS * device.hardware.precision.bytes()) as u64;
        let from = storage(device, "readback source", bytes)?;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let to = buffer(device, "readback", bytes, usage)?;
        let mut times = Vec::with_capacity(READBACKS);
        for _ in 0..READBACKS {
            let clock = Instant::now();
            let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes);
            device.queue.submit([encoder.finish()]);
            to.slice(..).map_async(wgpu::MapMode::Read, |_| {});
            self.wait()?;
            to.unmap();
            times.push(clock.elapsed());
        }
        times.sort();
        Ok(times[READBACKS / 2])
    }

    /// The most units of work per second that a kernel does, a unit being one dispatch of one round. Rounds grow first,
    /// then the dispatches of a submission, until a submission is long enough to be timed by the host's clock.
    fn fastest(
        &self,
        pipeline: &wgpu::ComputePipeline,
        bindings: &wgpu::BindGroup,
        groups: u32,
        most_rounds: u32,
        set_rounds: impl Fn(u32),
    ) -> Result<f64> {
        let device = &self.opened().device;
        let (mut rounds, mut dispatches) = (1u32, 1u32);
        let (mut best, mut attempts) = (0.0f64, 0);
        set_rounds(rounds);
        let submit = |dispatches: u32| -> Result<Duration> {
            let clock = Instant::now();
            let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bindings, &[]);
            (0..dispatches).for_each(|_| pass.dispatch_workgroups(groups, 1, 1));
            drop(pass);
            device.queue.submit([encoder.finish()]);
            self.wait()?;
            Ok(clock.elapsed())
        };
        submit(1)?; // compiles, and touches the memory
        while attempts < ATTEMPTS {
            let elapsed = submit(dispatches)?;
            if elapsed < ATTEMPT && dispatches < 1 << 12 {
                if rounds < most_rounds {
                    rounds *= 2;
                    set_rounds(rounds);
                } else {
                    dispatches *= 2;
                }
            } else {
                best = best.max(f64::from(rounds) * f64::from(dispatches) / elapsed.as_secs_f64());
                attempts += 1;
            }
        }
        Ok(best)
    }

    fn small_pipeline(&self, source: &str, entry_point: &str) -> Result<wgpu::ComputePipeline> {
        let device = &self.opened().device.device;
        let label = Some(entry_point);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: None,
            module: &module,
            entry_point: Some(entry_point),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        self.opened().device.check()?;
        Ok(pipeline)
    }

    fn bind(&self, pipeline: &wgpu::ComputePipeline, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        self.opened().device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("ceiling"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    }

    fn wait(&self) -> Result<()> {
        self.opened().device.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| Error::Device {
            message: format!("waiting for the ceilings' kernels: {e}"),
            help: "close other programs that use the GPU, or use --backend cpu".into(),
        })?;
        self.opened().device.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Precision;

    #[test]
    fn ceiling_kernels_are_valid_wgsl() {
        let real = |name: &str| format!("alias real = {name};\nalias real4 = vec4<{name}>;\n{MULTIPLY_ADD}");
        for text in [real(Precision::F32.name()), real(Precision::F64.name()), COPY.to_owned()] {
            let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::FLOAT64)
                .validate(&module)
                .unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        }
    }
}
