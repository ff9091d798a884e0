//! What one process computes on: a CPU or a GPU behind one enum. A rank has one, and a run without ranks has nothing else.

use super::operation::Operation;
use super::resident::Numbers;
use super::selection::Selector;
use super::span::{Results, Span};
use super::tree::Tree;
use super::{
    AUTO_KERNEL, AdamStep, BLOCK, Backend, Counters, CpuEngine, Draw, EngineSettings, GpuEngine, Hardware, Inspection,
    Listed, Moments, Row, Terms, cpu, gpu,
};
use crate::error::{Error, Result};
use crate::problem::Problem;
use ndarray::{Array2, ArrayView2};
use std::time::Duration;

/// Where a process stands among those on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number among them: the adapter that is its own.
    pub number: usize,
    /// How many of them share its cores.
    pub sharers: usize,
}

impl Place {
    /// Of a process that is alone.
    pub const ALONE: Self = Self { number: 0, sharers: 1 };
}

/// A CPU or a GPU, ready to load problems.
#[derive(Clone, Debug)]
pub enum LocalEngine {
    /// SIMD lanes over members, threads over blocks of members.
    Cpu(CpuEngine),
    /// wgpu compute shaders.
    Gpu(GpuEngine),
}

impl LocalEngine {
    /// Makes the engine that the settings ask for.
    ///
    /// # Errors
    /// As [`Engine::new`](super::Engine::new).
    pub fn new(settings: &EngineSettings, place: Place) -> Result<Self> {
        if let Some(threads) = settings.threads.filter(|t| !(1..=1024).contains(t)) {
            return Err(Error::invalid("threads", "1 to 1024", threads.to_string(), "leave it out to use all cores"));
        }
        if settings.memory_mib == 0 {
            return Err(Error::invalid("memory", "at least 1 MiB", "0", "leave it out for the default"));
        }
        if let (Backend::Cpu | Backend::Auto, Some(shaders)) = (settings.backend, &settings.shaders) {
            let found = format!("{} without a GPU", shaders.display());
            return Err(Error::invalid("shaders", "none, or --backend gpu", found, "the CPU engine has no shaders"));
        }
        if let (Backend::Cpu, Some(adapter)) = (settings.backend, &settings.adapter) {
            let found = format!("{adapter:?} with the CPU engine");
            return Err(Error::invalid("adapter", "none, or a GPU backend", found, "leave one of the two out"));
        }
        if let (Backend::Cpu, Some(device)) = (settings.backend, settings.device) {
            let found = format!("{device} with the CPU engine");
            return Err(Error::invalid("device", "none, or a GPU backend", found, "leave one of the two out"));
        }
        let cpu = || {
            if settings.kernel != AUTO_KERNEL {
                let found = format!("{:?} with the CPU engine", settings.kernel);
                return Err(Error::invalid("kernel", "auto, or a GPU", found, "leave it out, or use --backend gpu"));
            }
            Ok(Self::Cpu(CpuEngine::new(settings, place.sharers)?))
        };
        match settings.backend {
            Backend::Cpu => cpu(),
            Backend::Gpu => Ok(Self::Gpu(GpuEngine::new(settings, place.number)?)),
            Backend::Auto => match GpuEngine::best_real(settings, place.number)? {
                Some(gpu) => Ok(Self::Gpu(gpu)),
                None => match settings.device {
                    None => cpu(),
                    Some(device) => {
                        let found = format!("{device} without a GPU");
                        Err(Error::invalid("device", "none, or --backend gpu", found, "leave it out to use the CPU"))
                    }
                },
            },
        }
    }

    /// What it runs on.
    pub fn hardware(&self) -> &Hardware {
        match self {
            Self::Cpu(e) => e.hardware(),
            Self::Gpu(e) => e.hardware(),
        }
    }

    /// What went wrong with a GPU so far and was mended.
    pub fn faults(&self) -> Vec<String> {
        match self {
            Self::Cpu(_) => Vec::new(),
            Self::Gpu(e) => e.faults(),
        }
    }

    /// Makes a problem set ready to run, on this variant of the kernels if one is given.
    ///
    /// # Errors
    /// A state too large for the device; a variant that it cannot run.
    pub fn load(&self, problem: &Problem, kernel: Option<&str>) -> Result<LocalProblem> {
        Ok(match self {
            Self::Cpu(e) => LocalProblem::Cpu(Box::new(e.load(problem)?)),
            Self::Gpu(e) => LocalProblem::Gpu(Box::new(e.load(problem, kernel)?)),
        })
    }
}

/// A problem set on a CPU or a GPU.
#[derive(Debug)]
pub enum LocalProblem {
    Cpu(Box<cpu::LoadedCpu>),
    Gpu(Box<gpu::LoadedGpu>),
}

/// Members that live on a CPU or a GPU.
#[derive(Debug)]
pub struct LocalResident {
    rows: Vec<Row>,
    amplitude: f64,
    place: ResidentPlace,
}

#[derive(Debug)]
enum ResidentPlace {
    Cpu(cpu::Resident),
    Gpu(gpu::Resident),
}

impl LocalProblem {
    /// Rows of a batch that are not worth parting.
    pub fn rows_together(&self) -> usize {
        match self {
            Self::Cpu(_) => cpu::MOST_LANES,
            Self::Gpu(_) => BLOCK,
        }
    }

    /// Drawn members of a problem whose sums are made together.
    pub fn members_together(&self, draw: &Draw, operation: Operation) -> usize {
        match (self, operation) {
            (Self::Gpu(e), Operation::Moments(_)) => BLOCK * e.blocks_per_run(draw),
            _ => BLOCK,
        }
    }

    pub fn rows(&mut self, span: &Span, operation: Operation, input: &[f64]) -> Result<Results> {
        match self {
            Self::Cpu(e) => Ok(e.rows(span, operation, input)),
            Self::Gpu(e) => e.rows(span, operation, input),
        }
    }

    pub fn moments(&mut self, draw: &Draw, span: &Span, terms: Terms) -> Result<Vec<Tree<Moments>>> {
        match self {
            Self::Cpu(e) => Ok(e.moments(draw, span, terms)),
            Self::Gpu(e) => e.moments(draw, span, terms),
        }
    }

    pub fn select(
        &mut self,
        draw: &Draw,
        span: &Span,
        terms: Terms,
        selector: &mut Selector,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Cpu(e) => e.select(span, terms, selector, watch),
            Self::Gpu(e) => e.select(draw, span, terms, selector, watch),
        }
    }

    /// `numbers` are the backgrounds and Adam's running means of the members.
    pub fn settle(
        &mut self,
        members: Listed,
        [backgrounds, mean, square]: [ArrayView2<f64>; 3],
        units: ArrayView2<f64>,
    ) -> Result<LocalResident> {
        let numbers = [members.states, backgrounds, mean, square];
        let place = match self {
            Self::Cpu(e) => ResidentPlace::Cpu(e.settle(numbers, units)),
            Self::Gpu(e) => ResidentPlace::Gpu(e.settle(numbers, units)?),
        };
        Ok(LocalResident { rows: members.rows.to_vec(), amplitude: members.amplitude, place })
    }

    pub fn adam(&mut self, members: &mut LocalResident, steps: &[AdamStep], terms: Terms) -> Result<()> {
        let LocalResident { rows, amplitude, place } = members;
        match (self, place) {
            (Self::Cpu(e), ResidentPlace::Cpu(r)) => {
                e.adam(r, rows, *amplitude, steps, terms);
                Ok(())
            }
            (Self::Gpu(e), ResidentPlace::Gpu(r)) => e.adam(r, rows, *amplitude, steps, terms),
            _ => unreachable!("settled here"),
        }
    }

    pub fn inspect(&mut self, members: &mut LocalResident, terms: Terms) -> Result<Inspection> {
        let LocalResident { rows, amplitude, place } = members;
        match (self, place) {
            (Self::Cpu(e), ResidentPlace::Cpu(r)) => Ok(e.inspect(r, rows, *amplitude, terms)),
            (Self::Gpu(e), ResidentPlace::Gpu(r)) => e.inspect(r, rows, *amplitude, terms),
            _ => unreachable!("settled here"),
        }
    }

    pub fn numbers(&mut self, members: &LocalResident, kind: Numbers, control: usize) -> Result<Array2<f64>> {
        match (self, &members.place) {
            (Self::Cpu(_), ResidentPlace::Cpu(r)) => Ok(r.numbers(kind, control)),
            (Self::Gpu(e), ResidentPlace::Gpu(r)) => e.numbers(r, kind),
            _ => unreachable!("settled here"),
        }
    }

    /// The variant of the kernels, or the instruction set.
    pub fn kernel(&self) -> String {
        match self {
            Self::Cpu(_) => CpuEngine::instruction_set().into(),
            Self::Gpu(e) => e.kernel(),
        }
    }

    pub fn assimilated_steps(&self) -> usize {
        match self {
            Self::Cpu(e) => e.assimilated_steps(),
            Self::Gpu(e) => e.assimilated_steps(),
        }
    }

    pub fn counters(&self) -> Counters {
        match self {
            Self::Cpu(e) => e.counters(),
            Self::Gpu(e) => e.counters(),
        }
    }

    pub fn time_kernels(&mut self, on: bool) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Gpu(e) => e.time_kernels(on),
        }
    }

    pub fn kernel_time(&self) -> Option<Duration> {
        match self {
            Self::Cpu(e) => Some(e.kernel_time()),
            Self::Gpu(e) => e.kernel_time(),
        }
    }
}

impl LocalResident {
    /// Keeps the members at these places alone, of which there is at least one.
    pub fn gather(&mut self, keep: &[usize], control: usize) {
        match &mut self.place {
            ResidentPlace::Cpu(r) => r.gather(keep, control),
            ResidentPlace::Gpu(r) => r.gather(keep),
        }
        self.rows = keep.iter().map(|&k| self.rows[k]).collect();
    }
}
