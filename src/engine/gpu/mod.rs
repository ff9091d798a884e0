//! The GPU engine: WGSL compute kernels through wgpu. The only room that touches wgpu.

mod adapter;
mod batch;
mod buffers;
mod cache;
mod calibrate;
mod call;
mod ceiling;
mod choice;
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
mod templates;
mod timer;
mod uploaded;

pub use adapter::{AdapterDescription, adapters};
pub(super) use batch::LoadedGpu;
pub(super) use resident::Resident;

use super::{EngineSettings, Hardware};
use crate::error::{Error, Result};
use crate::problem::Problem;
use adapter::Device;
use choice::Choices;
use pipelines::Pipelines;
use std::sync::{Arc, Mutex, PoisonError};
use templates::Templates;

/// The GPU engine: an open device, and the kernels compiled for it so far.
#[derive(Clone, Debug)]
pub struct GpuEngine {
    settings: EngineSettings,
    /// Which of the adapters that match.
    number: usize,
    hardware: Hardware,
    opened: Arc<Mutex<Opened>>,
    choices: Arc<Choices>,
    /// Most bytes that a batch may take.
    memory: u64,
    faults: Arc<Mutex<Vec<String>>>,
}

/// A device, and its kernels.
#[derive(Clone, Debug)]
struct Opened {
    device: Arc<Device>,
    pipelines: Arc<Pipelines>,
}

/// A device's fault, to try out how a program takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device is gone, as after a driver's reset.
    DeviceLost,
    /// The next so many buffers are refused.
    OutOfMemory {
        /// How many.
        buffers: u32,
    },
}

/// Attempts at a call that the device fails, from the second on with half the budget of the one before.
const MOST_ATTEMPTS: usize = 6;

impl Opened {
    fn new(device: Device, templates: Templates) -> Self {
        let device = Arc::new(device);
        Self { pipelines: Arc::new(Pipelines::new(device.clone(), templates)), device }
    }
}

impl GpuEngine {
    /// On the adapter of this number among those alike that match, counted round.
    pub(super) fn new(settings: &EngineSettings, number: usize) -> Result<Self> {
        Self::on(Device::open(settings, number)?, settings, number)
    }

    /// The same among those that are no software rasteriser, if there is one.
    pub(super) fn best_real(settings: &EngineSettings, number: usize) -> Result<Option<Self>> {
        Device::open_real(settings, number)?.map(|device| Self::on(device, settings, number)).transpose()
    }

    fn on(device: Device, settings: &EngineSettings, number: usize) -> Result<Self> {
        let Hardware { adapter, backend, driver, software, .. } = &device.hardware;
        let templates = Templates::new(settings.shaders.as_deref())?;
        let choices = Choices::new(&settings.kernel, [backend, adapter, driver], *software, &templates)?;
        Ok(Self {
            settings: settings.clone(),
            number,
            hardware: device.hardware.clone(),
            opened: Arc::new(Mutex::new(Opened::new(device, templates))),
            choices: Arc::new(choices),
            memory: settings.memory_mib.saturating_mul(1 << 20),
            faults: Arc::default(),
        })
    }

    pub(super) fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// What went wrong with the device so far, and was mended.
    pub(super) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the device fail.
    pub(super) fn inject(&self, fault: Fault) {
        let device = self.opened().device;
        match fault {
            Fault::DeviceLost => device.device.destroy(),
            Fault::OutOfMemory { buffers } => device.refuse(buffers),
        }
    }

    /// The device in use.
    fn opened(&self) -> Opened {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a failure of `failed`: the device to go on with, a new one where that is gone.
    ///
    /// # Errors
    /// No device opens any more.
    fn recover(&self, failed: &Device, failure: &Error) -> Result<Opened> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever a device does after a failure other than of memory is not to be relied on, and that it is lost comes to be
        // known late. Another problem may have opened a new one already.
        if !failed.was_full() && std::ptr::eq(&raw const *opened.device, failed) {
            // The same adapter again, under which the answers so far were computed.
            let settings = EngineSettings { adapter: Some(self.hardware.adapter.clone()), ..self.settings.clone() };
            let templates = Templates::new(settings.shaders.as_deref())?;
            *opened = Opened::new(Device::open(&settings, self.number)?, templates);
        }
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(failure.to_string());
        Ok(opened.clone())
    }

    /// The variants of the kernels that problems were loaded with so far.
    pub(super) fn kernels(&self) -> Vec<String> {
        self.choices.used()
    }

    pub(super) fn load(&self, problem: &Problem, kernel: Option<&str>) -> Result<LoadedGpu> {
        let layout = kernel.map(str::parse).transpose()?;
        let mut attempts = 0;
        loop {
            let opened = self.opened();
            match LoadedGpu::new(self, opened.clone(), problem, layout) {
                Err(failure @ Error::Device { .. }) if attempts < MOST_ATTEMPTS => {
                    attempts += 1;
                    self.recover(&opened.device, &failure)?;
                }
                outcome => return outcome,
            }
        }
    }
}
