//! The time of kernels by the device's own clock.

use super::adapter::Device;
use super::buffers::buffer;
use crate::error::Result;
use std::time::Duration;

/// Passes that are timed before their times are fetched.
const PASSES: u32 = 64;

/// Times compute passes: a timestamp at the beginning and the end of each, fetched with whatever comes back anyway.
#[derive(Debug)]
pub struct Timer {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Passes timed since the last fetch.
    passes: u32,
    /// Seconds of one tick.
    tick: f64,
    pub spent: Duration,
}

impl Timer {
    /// A timer, or None where the device has no clock for us.
    pub fn new(device: &Device) -> Result<Option<Self>> {
        if !device.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let queries = device.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("passes"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * PASSES,
        });
        let bytes = u64::from(2 * PASSES * wgpu::QUERY_SIZE);
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let staged = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Some(Self {
            queries,
            resolved: buffer(device, "timestamps", bytes, usage)?,
            staging: buffer(device, "staged timestamps", bytes, staged)?,
            passes: 0,
            tick: f64::from(device.queue.get_timestamp_period()) * 1e-9,
            spent: Duration::ZERO,
        }))
    }

    /// Whether the next pass can be timed before the times are fetched.
    pub fn has_room(&self) -> bool {
        self.passes < PASSES
    }

    /// What a pass writes.
    pub fn next(&mut self) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * self.passes;
        self.passes += 1;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    /// Puts the times where `begin_fetch` finds them, once the passes are done.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        if self.passes > 0 {
            encoder.resolve_query_set(&self.queries, 0..2 * self.passes, &self.resolved, 0);
            encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, self.bytes());
        }
    }

    /// Asks for the times; `end_fetch` follows, once everything submitted is done.
    pub fn begin_fetch(&self) {
        if self.passes > 0 {
            self.staging.map_async(wgpu::MapMode::Read, ..self.bytes(), |_| {});
        }
    }

    /// Adds the times.
    pub fn end_fetch(&mut self) {
        if self.passes == 0 {
            return;
        }
        if let Ok(view) = self.staging.get_mapped_range(..self.bytes()) {
            for pair in bytemuck::pod_collect_to_vec::<u8, u64>(&view).chunks_exact(2) {
                self.spent += Duration::from_secs_f64(pair[1].saturating_sub(pair[0]) as f64 * self.tick);
            }
        }
        self.staging.unmap();
        self.passes = 0;
    }

    fn bytes(&self) -> u64 {
        u64::from(2 * self.passes * wgpu::QUERY_SIZE)
    }
}
