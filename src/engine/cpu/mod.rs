//! The CPU engine: SIMD lanes over members, threads over blocks of members, a block's whole sweep inside the cache.

mod batch;
mod ceiling;
mod data;
mod group;
mod lanes;
mod normals;
mod perturbed;
mod resident;
mod select;
mod sums;
mod sweep;
mod threads;
mod tile;

use super::operation::Operation;
use super::selection::Selector;
use super::span::{Results, Span};
use super::tree::Tree;
use super::{Counters, Draw, EngineSettings, Hardware, Moments, Precision, Terms};
use crate::error::{Error, Result};
use crate::problem::Problem;
use batch::Batch;
pub(super) use data::MOST_LANES;
pub(super) use resident::Resident;
use threads::Threads;

/// The CPU engine.
#[derive(Clone, Debug)]
pub struct CpuEngine {
    hardware: Hardware,
    threads: Threads,
}

impl CpuEngine {
    /// On all cores, or this process's share of them where several processes have the same ones.
    pub(super) fn new(settings: &EngineSettings, sharers: usize) -> Result<Self> {
        let share = || std::thread::available_parallelism().map_or(1, |cores| (cores.get() / sharers).max(1));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(settings.threads.unwrap_or_else(share))
            .thread_name(|i| format!("vi4dvar-{i}"))
            .build()
            .map_err(|e| Error::Hardware {
                message: format!("the system refused the threads of the CPU engine: {e}"),
                help: "ask for fewer with --threads".into(),
            })?;
        let hardware = Hardware {
            backend: "cpu".into(),
            adapter: format!("CPU, {}", lanes::instruction_set()),
            driver: String::new(),
            precision: settings.precision,
            software: false,
            threads: pool.current_num_threads(),
        };
        Ok(Self { hardware, threads: Threads::new(pool) })
    }

    pub(super) fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// The instruction set of its lanes.
    pub(super) fn instruction_set() -> &'static str {
        lanes::instruction_set()
    }

    pub(super) fn load(&self, problem: &Problem) -> Result<LoadedCpu> {
        Ok(match self.hardware.precision {
            Precision::F32 => LoadedCpu::F32(Batch::new(self.threads.clone(), problem)),
            Precision::F64 => LoadedCpu::F64(Batch::new(self.threads.clone(), problem)),
        })
    }
}

/// A problem set on the CPU engine, in its number type.
#[derive(Debug)]
pub(super) enum LoadedCpu {
    F32(Batch<f32>),
    F64(Batch<f64>),
}

macro_rules! on_batch {
    ($self:ident, $batch:ident => $call:expr) => {
        match $self {
            LoadedCpu::F32($batch) => $call,
            LoadedCpu::F64($batch) => $call,
        }
    };
}

impl LoadedCpu {
    pub(super) fn rows(&mut self, span: &Span, operation: Operation, input: &[f64]) -> Results {
        on_batch!(self, b => b.rows(span, operation, input))
    }

    pub(super) fn moments(&mut self, draw: &Draw, span: &Span, terms: Terms) -> Vec<Tree<Moments>> {
        on_batch!(self, b => b.moments(draw, span, terms))
    }

    pub(super) fn select(
        &mut self,
        span: &Span,
        terms: Terms,
        selector: &mut Selector,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        on_batch!(self, b => b.select(span, terms, selector, watch))
    }

    pub(super) fn assimilated_steps(&self) -> usize {
        on_batch!(self, b => b.assimilated_steps())
    }

    pub(super) fn counters(&self) -> Counters {
        on_batch!(self, b => b.counters())
    }

    pub(super) fn kernel_time(&self) -> std::time::Duration {
        on_batch!(self, b => b.kernel_time())
    }
}
