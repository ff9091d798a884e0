//! Device memory: buffers, and numbers as they lie in them.

use super::adapter::Device;
use crate::engine::Precision;
use crate::error::{Error, Result};

/// A buffer that kernels read and write.
pub fn storage(device: &Device, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let limit = device.limits.max_storage_buffer_binding_size;
    if bytes > limit {
        return Err(Error::invalid(
            format!("buffer of {label}"),
            format!("at most {} MiB, the largest that this GPU binds", limit >> 20),
            format!("{} MiB", bytes >> 20),
            "use fewer members or problems at a time",
        ));
    }
    buffer(device, label, bytes, usage)
}

/// A buffer for anything.
pub fn buffer(device: &Device, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
    if device.refuses() {
        let message = format!("out of memory for a buffer of {label}, {bytes} bytes (made to fail)");
        return Err(Error::Device { message, help: "try a smaller --memory".into() });
    }
    let made = device.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.next_multiple_of(4),
        usage,
        mapped_at_creation: false,
    });
    device.check()?;
    Ok(made)
}

/// Numbers as the device holds them.
pub fn to_bytes(precision: Precision, numbers: impl Iterator<Item = f64>) -> Vec<u8> {
    match precision {
        Precision::F32 => numbers.flat_map(|v| (v as f32).to_ne_bytes()).collect(),
        Precision::F64 => numbers.flat_map(f64::to_ne_bytes).collect(),
    }
}

/// Numbers from the device.
pub fn from_bytes(precision: Precision, bytes: &[u8]) -> Vec<f64> {
    match precision {
        Precision::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter().map(f64::from).collect(),
        Precision::F64 => bytemuck::pod_collect_to_vec(bytes),
    }
}

/// Bytes of a buffer.
#[derive(Clone, Debug)]
pub struct Region {
    pub buffer: wgpu::Buffer,
    pub first: u64,
    pub bytes: u64,
}
