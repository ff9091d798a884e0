//! What a device can do at most, measured on it: arithmetic, memory, and the way back to the host.

use super::Engine;
use super::local::LocalEngine;
use crate::error::Result;
use std::time::Duration;

/// Numbers of a readback: the gradient of a mean-field Gaussian over 64 sites. What it takes is latency, not size.
pub(super) const READBACK_NUMBERS: usize = 128;

/// The limits of an engine's device in the engine's number type, measured. Each is the best of several attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Floating-point operations per second, two for each multiply-add: independent chains of multiply-adds in
    /// registers, on all threads or the whole GPU.
    pub flops: f64,
    /// Vector instructions per second and lane, multiply-adds and additions in equal parts: half of `flops` where one unit does
    /// both, up to twice as many on a processor that adds beside multiplying. Of a GPU, half of `flops`.
    pub instructions: f64,
    /// Bytes per second of a copy between two buffers that no cache holds, each byte counted once read and once written.
    pub bytes: f64,
    /// Submitting a copy of 128 numbers to the host and waiting for it; zero on a CPU, which has nothing to bring back.
    pub readback: Duration,
}

impl Engine {
    /// Measures the device's limits; takes about half a second.
    ///
    /// # Errors
    /// A device failure.
    pub fn ceilings(&self) -> Result<Ceilings> {
        match &self.local {
            LocalEngine::Cpu(e) => Ok(e.ceilings()),
            LocalEngine::Gpu(e) => e.ceilings(),
        }
    }
}
