//! What goes to a device's queue and comes back, counted.

use super::adapter::Device;
use super::buffers::Region;
use super::plan::DISPATCH_WORK;
use super::run::Ready;
use crate::engine::Counters;
use crate::error::{Error, Result};
use std::sync::Arc;

/// The queue of a loaded problem.
#[derive(Debug)]
pub struct Submissions {
    pub device: Arc<Device>,
    pub counters: Counters,
}

impl Submissions {
    pub fn new(device: Arc<Device>) -> Self {
        Self { device, counters: Counters::default() }
    }

    /// Sends the beginning of a buffer.
    pub fn send(&mut self, buffer: &wgpu::Buffer, bytes: &[u8]) {
        self.send_at(buffer, 0, bytes);
    }

    /// Sends a part of a buffer.
    pub fn send_at(&mut self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        self.device.queue.write_buffer(buffer, offset, bytes);
        self.counters.bytes_up += bytes.len() as u64;
    }

    /// Submits dispatches in order, in pieces that no driver takes for a hang, and reads the results through `staging`,
    /// one region after the other.
    pub fn submit<'a, R>(
        &mut self,
        dispatches: impl IntoIterator<Item = &'a Ready>,
        results: &[Region],
        staging: &wgpu::Buffer,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let device = self.device.clone();
        let mut dispatches = dispatches.into_iter().peekable();
        let mut bytes = 0;
        loop {
            let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            if dispatches.peek().is_some() {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                let mut work = 0;
                while let Some(d) = dispatches.next_if(|d| work == 0 || work + d.work <= DISPATCH_WORK) {
                    pass.set_pipeline(&d.pipeline);
                    pass.set_bind_group(0, &d.bindings, &d.offsets[..d.uniforms]);
                    pass.dispatch_workgroups(d.groups[0], d.groups[1], 1);
                    work += d.work;
                    self.counters.dispatches += 1;
                }
            }
            if dispatches.peek().is_none() {
                for region in results {
                    encoder.copy_buffer_to_buffer(&region.buffer, region.first, staging, bytes, region.bytes);
                    bytes += region.bytes;
                }
            }
            device.queue.submit([encoder.finish()]);
            self.counters.submissions += 1;
            if dispatches.peek().is_none() {
                break;
            }
        }
        if bytes == 0 {
            return Ok(read(&[]));
        }
        self.read_back(staging, bytes, read)
    }

    /// The first `bytes` of a staging buffer, once everything submitted is done.
    fn read_back<R>(&mut self, staging: &wgpu::Buffer, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.counters.bytes_down += bytes;
        staging.map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        self.wait()?;
        let view = staging.get_mapped_range(..bytes).map_err(|e| self.failure(&e))?;
        let result = read(&view);
        drop(view);
        staging.unmap();
        Ok(result)
    }

    /// Waits until everything submitted is done.
    pub fn wait(&self) -> Result<()> {
        self.device.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| self.failure(&e))?;
        self.device.check()
    }

    fn failure(&self, e: &dyn std::fmt::Display) -> Error {
        self.device.check().err().unwrap_or_else(|| Error::Device {
            message: e.to_string(),
            help: "try a smaller --memory, or --backend cpu".into(),
        })
    }
}
