//! What goes to a device's queue and comes back, counted.

use super::adapter::Device;
use super::buffers::Region;
use super::run::Ready;
use super::timer::Timer;
use crate::engine::Counters;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// Most bytes that go up in a buffer written in place.
const MOST_UPLOADED: u64 = 1 << 20;

/// The queue of a loaded problem.
#[derive(Debug)]
pub struct Submissions {
    pub device: Arc<Device>,
    pub counters: Counters,
    /// Most floating-point operations of one submission.
    pub most_work: usize,
    timer: Option<Timer>,
    upload: Option<Upload>,
}

/// What goes up at the beginning of a small call, in a buffer that the host writes in place: the wait at the call's end
/// maps it for the next. (`write_buffer` makes a buffer and a list of commands each time.)
#[derive(Debug)]
struct Upload {
    buffer: wgpu::Buffer,
    mapped: bool,
    /// Where its parts go, with the next submission.
    copies: Vec<Region>,
}

impl Submissions {
    pub fn new(device: Arc<Device>, most_work: usize) -> Self {
        Self { device, counters: Counters::default(), most_work, timer: None, upload: None }
    }

    /// Goes on with another device.
    ///
    /// # Errors
    /// The new device's.
    pub fn move_to(&mut self, device: Arc<Device>) -> Result<()> {
        self.device = device;
        self.upload = None;
        if self.timer.is_some() {
            self.timer = Timer::new(&self.device)?;
        }
        Ok(())
    }

    /// Times kernels from now on, or no longer. What was timed is forgotten.
    pub fn time_kernels(&mut self, on: bool) -> Result<()> {
        self.timer = if on { Timer::new(&self.device)? } else { None };
        Ok(())
    }

    /// The time in kernels so far, of what has come back.
    pub fn kernel_time(&self) -> Option<Duration> {
        self.timer.as_ref().map(|timer| timer.spent)
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

    /// Sends the beginnings of several buffers with the next submission.
    pub fn send_with_next(&mut self, parts: &[(&wgpu::Buffer, &[u8])]) -> Result<()> {
        let align = |bytes: usize| bytes.next_multiple_of(wgpu::MAP_ALIGNMENT as usize) as u64;
        let bytes = parts.iter().map(|(_, part)| align(part.len())).sum();
        if self.upload.as_ref().is_none_or(|upload| upload.buffer.size() < bytes) && bytes <= MOST_UPLOADED {
            let buffer = self.device.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("upload"),
                size: bytes.next_power_of_two(),
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            });
            self.device.check()?;
            self.upload = Some(Upload { buffer, mapped: true, copies: Vec::new() });
        }
        let Some(upload) = self.upload.as_mut().filter(|upload| upload.mapped && upload.buffer.size() >= bytes) else {
            parts.iter().for_each(|(buffer, part)| self.send(buffer, part));
            return Ok(());
        };
        upload.copies.clear();
        let mut view = upload.buffer.get_mapped_range_mut(..bytes).map_err(|e| failure(&self.device, &e))?;
        let mut first = 0;
        for (buffer, part) in parts {
            view.slice(first as usize..first as usize + part.len()).copy_from_slice(part);
            upload.copies.push(Region { buffer: (*buffer).clone(), first, bytes: part.len() as u64 });
            first += align(part.len());
            self.counters.bytes_up += part.len() as u64;
        }
        Ok(())
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
            if self.timer.as_ref().is_some_and(|timer| !timer.has_room()) {
                self.wait()?;
            }
            let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            if let Some(upload) = self.upload.as_mut().filter(|upload| !upload.copies.is_empty()) {
                upload.buffer.unmap();
                upload.mapped = false;
                for to in upload.copies.drain(..) {
                    encoder.copy_buffer_to_buffer(&upload.buffer, to.first, &to.buffer, 0, to.bytes);
                }
            }
            if dispatches.peek().is_some() {
                let timestamp_writes = self.timer.as_mut().map(Timer::next);
                let mut pass =
                    encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { timestamp_writes, label: None });
                let mut work = 0;
                while let Some(d) = dispatches.next_if(|d| work == 0 || work + d.work <= self.most_work) {
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
                if let Some(timer) = self.timer.as_ref().filter(|_| bytes > 0) {
                    timer.resolve(&mut encoder);
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
        self.poll()?;
        let view = staging.get_mapped_range(..bytes).map_err(|e| failure(&self.device, &e))?;
        let result = read(&view);
        drop(view);
        staging.unmap();
        Ok(result)
    }

    /// Waits until everything submitted is done.
    pub fn wait(&mut self) -> Result<()> {
        if let Some(timer) = &self.timer {
            let mut encoder = self.device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            timer.resolve(&mut encoder);
            self.device.queue.submit([encoder.finish()]);
        }
        self.poll()?;
        self.device.check()
    }

    /// Waits, and takes the times that were resolved.
    fn poll(&mut self) -> Result<()> {
        if let Some(timer) = &self.timer {
            timer.begin_fetch();
        }
        let upload = self.upload.as_mut().filter(|upload| !upload.mapped);
        if let Some(upload) = &upload {
            upload.buffer.map_async(wgpu::MapMode::Write, .., |_| {});
        }
        self.device.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failure(&self.device, &e))?;
        if let Some(upload) = upload {
            upload.mapped = true;
        }
        if let Some(timer) = &mut self.timer {
            timer.end_fetch();
        }
        Ok(())
    }
}

fn failure(device: &Device, e: &dyn std::fmt::Display) -> Error {
    device.check().err().unwrap_or_else(|| Error::Device {
        message: e.to_string(),
        help: "try a smaller --memory, or --backend cpu".into(),
    })
}
