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
use super::{Costs, Counters, Draw, EngineSettings, Gradients, Hardware, Members, Moments, Precision, Terms};
use crate::error::{Error, Result};
use crate::problem::Problem;
use batch::Batch;
use ndarray::{Array2, Array3, ArrayView2, ArrayView3};
pub(super) use resident::Resident;
use threads::Threads;

/// The CPU engine.
#[derive(Clone, Debug)]
pub struct CpuEngine {
    hardware: Hardware,
    threads: Threads,
}

impl CpuEngine {
    pub(super) fn new(settings: &EngineSettings) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(settings.threads.unwrap_or(0))
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
    pub(super) fn forecast(&mut self, members: Members) -> Result<Array3<f64>> {
        on_batch!(self, b => {
            let mut out = Array3::zeros((members.count(b.problems()), b.times(), b.sites()));
            b.run(members, Operation::Forecast, &[], None, out.as_slice_mut().expect("standard layout"));
            Ok(out)
        })
    }

    pub(super) fn cost(&mut self, members: Members, terms: Terms) -> Result<Costs> {
        on_batch!(self, b => {
            let mut costs = Costs::empty(members.count(b.problems()));
            b.run(members, Operation::Cost(terms), &[], Some(&mut costs), &mut []);
            Ok(costs)
        })
    }

    pub(super) fn gradient(&mut self, members: Members, terms: Terms) -> Result<Gradients> {
        on_batch!(self, b => {
            let count = members.count(b.problems());
            let mut costs = Costs::empty(count);
            let mut gradient = Array2::zeros((count, b.control()));
            b.run(members, Operation::Gradient(terms), &[], Some(&mut costs), gradient.as_slice_mut().expect("standard layout"));
            Ok(Gradients { costs, gradient })
        })
    }

    pub(super) fn moments(&mut self, draw: &Draw, terms: Terms) -> Result<Vec<Moments>> {
        on_batch!(self, b => Ok(b.moments(draw, terms)))
    }

    pub(super) fn select(
        &mut self,
        draw: &Draw,
        terms: Terms,
        selector: &mut Selector,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        on_batch!(self, b => b.select(draw, terms, selector, watch))
    }

    pub(super) fn tangent(&mut self, members: Members, directions: ArrayView2<f64>) -> Result<Array3<f64>> {
        on_batch!(self, b => {
            let mut out = Array3::zeros((members.count(b.problems()), b.times(), b.sites()));
            let directions = directions.as_standard_layout();
            let directions = directions.as_slice().expect("standard layout");
            b.run(members, Operation::Tangent, directions, None, out.as_slice_mut().expect("standard layout"));
            Ok(out)
        })
    }

    pub(super) fn adjoint(&mut self, members: Members, forcing: ArrayView3<f64>) -> Result<Array2<f64>> {
        on_batch!(self, b => {
            let mut out = Array2::zeros((members.count(b.problems()), b.control()));
            let forcing = forcing.as_standard_layout();
            let forcing = forcing.as_slice().expect("standard layout");
            b.run(members, Operation::Adjoint, forcing, None, out.as_slice_mut().expect("standard layout"));
            Ok(out)
        })
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
