//! Choosing an adapter and opening it as a device.

use super::layout::{Fit, MemberLayout};
use crate::engine::{EngineSettings, Hardware, Precision};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// An adapter, as `vi4dvar devices` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterDescription {
    /// The adapter's name.
    pub name: String,
    /// "vulkan", "metal" or "dx12".
    pub backend: String,
    /// The driver with its version.
    pub driver: String,
    /// "discrete GPU", "integrated GPU", "virtual GPU", "software" or "other".
    pub kind: &'static str,
    /// Whether f64 kernels run on it.
    pub f64: bool,
    /// The largest buffer that a kernel can bind, in bytes.
    pub largest_binding: u64,
    /// The variant of the kernels for 40 sites and as many steps in f32, where nothing was measured.
    pub rule_of_thumb: String,
}

/// All adapters, best first: the first is the one that a GPU engine uses.
pub fn adapters() -> Vec<AdapterDescription> {
    enumerate().iter().map(describe).collect()
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: wgpu::Limits,
    pub hardware: Hardware,
    pub info: wgpu::AdapterInfo,
    /// Invocations of a subgroup, where there are subgroup operations and subgroups of one size.
    pub subgroup: Option<u32>,
    /// The first error that nobody asked for.
    failure: Arc<Mutex<Option<String>>>,
    lost: Arc<AtomicBool>,
    /// Whether a failure was of memory.
    full: Arc<AtomicBool>,
    /// Buffers that are still to be refused, where someone tries that out.
    refusals: AtomicU32,
}

/// The environment's word on which of several adapters alike this process takes.
const DEVICE: &str = "VI4DVAR_DEVICE";

/// The one that the settings or the environment ask for among those that are like the first: of a machine's GPUs of a kind, not
/// of one GPU's drivers. The `number`-th process on this machine takes the `number`-th behind it, counted round.
///
/// # Errors
/// One beyond the last.
fn pick(adapters: Vec<wgpu::Adapter>, settings: &EngineSettings, number: usize) -> Result<Option<wgpu::Adapter>> {
    let kind = |adapter: &wgpu::Adapter| {
        let AdapterDescription { name, backend, driver, .. } = describe(adapter);
        (name, backend, driver)
    };
    let Some(first) = adapters.first().map(kind) else { return Ok(None) };
    let mut alike: Vec<_> = adapters.into_iter().filter(|adapter| kind(adapter) == first).collect();
    let own = std::env::var(DEVICE).ok();
    let wanted = match &own {
        None => settings.device,
        Some(text) => Some(text.parse().unwrap_or(usize::MAX)),
    };
    if wanted.is_some_and(|wanted| wanted >= alike.len()) {
        let what = if own.is_some() { DEVICE } else { "device" };
        let found = own.unwrap_or_else(|| settings.device.unwrap_or_default().to_string());
        let expected = format!("0 to {}, of {} {}", alike.len() - 1, alike.len(), first.0);
        return Err(Error::invalid(what, expected, found, "leave it out for the first, or see `vi4dvar devices`"));
    }
    let next = if own.is_some() { 0 } else { number };
    let taken = (wanted.unwrap_or(0) + next) % alike.len();
    Ok(Some(alike.swap_remove(taken)))
}

/// Adapters, best first.
fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(descriptor.with_env());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let low_power = wgpu::PowerPreference::from_env() == Some(wgpu::PowerPreference::LowPower);
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => u8::from(low_power),
        wgpu::DeviceType::IntegratedGpu => u8::from(!low_power),
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

/// Invocations of a subgroup, where there are subgroup operations and subgroups of one size.
fn subgroup(adapter: &wgpu::Adapter) -> Option<u32> {
    let info = adapter.get_info();
    let one_size = info.subgroup_min_size == info.subgroup_max_size;
    (one_size && adapter.features().contains(wgpu::Features::SUBGROUP)).then_some(info.subgroup_max_size)
}

fn describe(adapter: &wgpu::Adapter) -> AdapterDescription {
    let info = adapter.get_info();
    let fit = Fit {
        sites: 40,
        ring: true,
        steps: 40,
        block: 1,
        precision: Precision::F32,
        limits: &adapter.limits(),
        subgroup: subgroup(adapter),
        software: info.device_type == wgpu::DeviceType::Cpu,
    };
    AdapterDescription {
        rule_of_thumb: MemberLayout::rule_of_thumb(&fit).map_or("none".into(), |layout| layout.to_string()),
        backend: info.backend.to_str().to_owned(),
        driver: [info.driver, info.driver_info].iter().filter(|s| !s.is_empty()).cloned().collect::<Vec<_>>().join(" "),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete GPU",
            wgpu::DeviceType::IntegratedGpu => "integrated GPU",
            wgpu::DeviceType::VirtualGpu => "virtual GPU",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        },
        f64: adapter.features().contains(wgpu::Features::SHADER_F64),
        largest_binding: adapter.limits().max_storage_buffer_binding_size,
        name: info.name,
    }
}

impl Device {
    /// Opens the best adapter that matches the settings, for the `number`-th process on this machine.
    pub fn open(settings: &EngineSettings, number: usize) -> Result<Self> {
        let all = enumerate();
        if all.is_empty() {
            return Err(Error::Hardware {
                message: "no GPU adapter: no Vulkan, Metal or DX12 driver answered".into(),
                help:
                    "install the GPU's driver (or a software one: Debian's mesa-vulkan-drivers), or use --backend cpu"
                        .into(),
            });
        }
        let wanted = settings.adapter.clone().or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok());
        let names: Vec<_> = all.iter().map(|a| a.get_info().name).collect();
        let matches = |name: &str| match &wanted {
            None => true,
            Some(wanted) => name.to_lowercase().contains(&wanted.to_lowercase()),
        };
        let matching = all.into_iter().zip(&names).filter(|(_, name)| matches(name)).map(|(adapter, _)| adapter);
        let Some(adapter) = pick(matching.collect(), settings, number)? else {
            return Err(Error::Hardware {
                message: format!("no adapter named {:?}; found: {}", wanted.unwrap_or_default(), names.join("; ")),
                help: "give a part of one of these names, or leave --adapter out".into(),
            });
        };
        Self::from_adapter(&adapter, settings.precision)
    }

    /// The best adapter that is no software rasteriser, if there is one that can do what the settings ask for.
    pub fn open_real(settings: &EngineSettings, number: usize) -> Result<Option<Self>> {
        if settings.adapter.is_some() {
            return Self::open(settings, number).map(Some);
        }
        let wanted = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default().to_lowercase();
        let usable = |a: &AdapterDescription| {
            a.kind != "software"
                && a.name.to_lowercase().contains(&wanted)
                && (settings.precision == Precision::F32 || a.f64)
        };
        let real = enumerate().into_iter().filter(|a| usable(&describe(a))).collect();
        pick(real, settings, number)?.map(|adapter| Self::from_adapter(&adapter, settings.precision)).transpose()
    }

    fn from_adapter(adapter: &wgpu::Adapter, precision: Precision) -> Result<Self> {
        let description = describe(adapter);
        let required_features = match precision {
            Precision::F32 => wgpu::Features::empty(),
            Precision::F64 if description.f64 => wgpu::Features::SHADER_F64,
            Precision::F64 => {
                let able: Vec<_> = adapters().into_iter().filter(|a| a.f64).map(|a| a.name).collect();
                return Err(Error::Hardware {
                    message: format!("{} has no 64-bit floats", description.name),
                    help: if able.is_empty() {
                        "use --precision f32, or --backend cpu, which has both".into()
                    } else {
                        format!(
                            "use --precision f32, --adapter with one that has them ({}), or --backend cpu",
                            able.join("; ")
                        )
                    },
                });
            }
        };
        let optional = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::PIPELINE_CACHE
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_INT64;
        let required_features = required_features | (adapter.features() & optional);
        let info = adapter.get_info();
        let subgroup = subgroup(adapter);
        let limits = adapter.limits();
        let request = wgpu::DeviceDescriptor {
            label: Some("vi4dvar"),
            required_features,
            required_limits: limits.clone(),
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&request)).map_err(|e| Error::Hardware {
            message: format!("{} refused to open: {e}", description.name),
            help: "close other programs that use it, choose another --adapter, or use --backend cpu".into(),
        })?;
        let failure = Arc::new(Mutex::new(None));
        let keep = |failure: &Arc<Mutex<Option<String>>>, message: String| {
            failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(message);
        };
        let place = failure.clone();
        let full = Arc::new(AtomicBool::new(false));
        let filled = full.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            if matches!(e, wgpu::Error::OutOfMemory { .. }) {
                filled.store(true, Ordering::Release);
            }
            keep(&place, e.to_string());
        }));
        let place = failure.clone();
        let lost = Arc::new(AtomicBool::new(false));
        let gone = lost.clone();
        device.set_device_lost_callback(move |_, message| {
            gone.store(true, Ordering::Release);
            keep(&place, format!("device lost: {message}"));
        });
        let hardware = Hardware {
            software: description.kind == "software",
            backend: description.backend,
            adapter: description.name,
            driver: description.driver,
            precision,
            threads: 0,
        };
        let refusals = AtomicU32::new(0);
        Ok(Self { device, queue, limits, hardware, info, subgroup, failure, lost, full, refusals })
    }

    /// Whether nothing on it works any more.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Refuses the next so many buffers.
    pub fn refuse(&self, buffers: u32) {
        self.refusals.store(buffers, Ordering::Relaxed);
    }

    /// Takes one of the refusals, if there is one left.
    pub fn refuses(&self) -> bool {
        let refused =
            self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if refused {
            self.full.store(true, Ordering::Release);
        }
        refused
    }

    /// Whether memory has failed since this was last asked, on a device that is still there.
    pub fn was_full(&self) -> bool {
        self.full.swap(false, Ordering::AcqRel) && !self.is_lost()
    }

    /// The device's failure, if it has had one.
    pub fn check(&self) -> Result<()> {
        let failure = self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match failure.or_else(|| self.is_lost().then(|| "the device is lost".into())) {
            None => Ok(()),
            Some(message) => Err(Error::Device {
                message,
                help:
                    "try a smaller --memory (a driver resets a GPU that works about 2 s without a pause, or runs out \
                       of memory), or --backend cpu"
                        .into(),
            }),
        }
    }
}
