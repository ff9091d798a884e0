//! The hardware: runs a batch of members of one problem set in lockstep, on a CPU or a GPU behind one enum.
//!
//! An engine knows problems, controls and members; it knows no method and no posterior family.
//!
//! Members of P problems, M each, are numbered problem by problem: member k of problem p is row p * M + k of every
//! array. Numbers cross this boundary as f64, whatever the engine computes in.

mod ceilings;
mod check;
mod cpu;
mod gpu;
mod listed;
mod loaded;
mod local;
mod moments;
mod operation;
mod prepared;
mod ranks;
mod resident;
mod schedule;
mod selection;
mod span;
mod tree;

pub use ceilings::Ceilings;
pub use cpu::CpuEngine;
pub use gpu::{AdapterDescription, Fault, GpuEngine, adapters};
pub use listed::{Listed, Row};
pub use loaded::LoadedProblem;
pub use moments::{Moments, PatternSums};
pub use ranks::{Launched, Ranks, Traffic, Worker};
pub use resident::{AdamStep, Inspection, Resident};
pub use selection::{CostHistogram, Keep, MOST_KEPT, Selection};

use crate::error::{Error, Result};
use crate::problem::Problem;
use crate::random::Stream;
use check::check_weights;
use local::LocalEngine;
use ndarray::{Array1, Array2, Array3, ArrayView2};
use ranks::{Held, Request, concatenated};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// Members per block of a sum. Sums run over fixed blocks in a fixed order, whatever the chunks, lanes and threads.
pub const BLOCK: usize = 256;

/// A member has diverged when its state at the last assimilated time, its cost or its gradient holds a NaN or reaches
/// this magnitude, 2^55: what overflows on the way does not come back. Any smaller numbers can be squared and summed
/// over 65,536 members within the range of f32.
pub const DIVERGED: f64 = 36_028_797_018_963_968.0;

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// A real GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// A GPU; an error where there is none. Takes a software rasteriser if that is all there is, and says so.
    Gpu,
    /// The CPU engine.
    Cpu,
}

/// The number type that an engine computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 64-bit floats, where the hardware has them.
    F64,
}

impl Precision {
    /// "f32" or "f64".
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// The kernel of an engine that nobody asked for one.
pub(crate) const AUTO_KERNEL: &str = "auto";

/// Which engine to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// Where to compute. Default: auto.
    pub backend: Backend,
    /// Part of the adapter's name, case-insensitive. Default: the best one.
    pub adapter: Option<String>,
    /// Which of several adapters alike, from 0. Of ranks on one machine the second takes the next, and so on round; where the
    /// environment has VI4DVAR_DEVICE, a process takes that one. Default: 0.
    pub device: Option<usize>,
    /// The number type. Default: f32.
    pub precision: Precision,
    /// Threads of the CPU engine, on each rank. Default: all cores, or the rank's share of them.
    pub threads: Option<usize>,
    /// Most memory that a batch in flight may take, in MiB. Default: 1024.
    pub memory_mib: u64,
    /// The variant of a GPU's kernels. "auto": the fastest for the problem, measured when one of its shape is first loaded
    /// and kept on disk for each adapter and driver; a rule of thumb on a software rasteriser. "calibrate": measured anew.
    /// Else the variant itself, as [`LoadedProblem::kernel`] says it. The same variant on the same adapter gives the same
    /// bytes. Default: auto.
    pub kernel: String,
    /// A directory whose WGSL templates replace the GPU engine's own, for work on kernels. Default: none.
    pub shaders: Option<PathBuf>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            adapter: None,
            device: None,
            precision: Precision::F32,
            threads: None,
            memory_mib: 1024,
            kernel: AUTO_KERNEL.into(),
            shaders: None,
        }
    }
}

/// What an engine runs on, for messages and for the attributes of result files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// "cpu", "vulkan", "metal" or "dx12".
    pub backend: String,
    /// The adapter's name, or the CPU engine's instruction set.
    pub adapter: String,
    /// The driver with its version; empty for the CPU engine.
    pub driver: String,
    /// The number type.
    pub precision: Precision,
    /// True for a software rasteriser: right, but no faster than the CPU engine.
    pub software: bool,
    /// Threads of the CPU engine, 0 of a GPU. No answer depends on them.
    pub threads: usize,
}

impl std::fmt::Display for Hardware {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.adapter)?;
        match self.threads {
            0 => {}
            1 => write!(f, ", 1 thread")?,
            threads => write!(f, ", {threads} threads")?,
        }
        write!(f, " ({}, {}", self.backend, self.precision.name())?;
        if !self.driver.is_empty() {
            write!(f, ", {}", self.driver)?;
        }
        write!(f, ")")
    }
}

/// An affine map from standard normals to controls, c = m + S eps, for each problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AffineMap {
    /// m: `[P, control]`.
    pub mean: Array2<f64>,
    /// S.
    pub scale: Scale,
}

/// The matrix S of an affine map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scale {
    /// The diagonal of S: `[P, control]`.
    Diagonal(Array2<f64>),
    /// A lower triangular S: `[1 | P, control, control]`.
    Lower(Array3<f64>),
    /// S = diag(d) + W Z'.
    LowRank {
        /// d: `[P, control]`.
        diagonal: Array2<f64>,
        /// W: `[P, control, rank]`, rank 1 to control.
        left: Array3<f64>,
        /// Z: `[P, control, rank]`.
        right: Array3<f64>,
    },
}

impl AffineMap {
    /// Whether every number of it is finite.
    pub fn is_finite(&self) -> bool {
        let scale = match &self.scale {
            Scale::Diagonal(scale) => scale.iter().all(|v| v.is_finite()),
            Scale::Lower(scale) => scale.iter().all(|v| v.is_finite()),
            Scale::LowRank { diagonal, left, right } => diagonal.iter().chain(left).chain(right).all(|v| v.is_finite()),
        };
        scale && self.mean.iter().all(|v| v.is_finite())
    }
}

/// Members drawn on the device from an affine map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// The map.
    pub map: AffineMap,
    /// The stream of the draws; the key is each problem's seed.
    pub stream: Stream,
    /// The iteration of the draws' counter.
    pub iteration: u32,
    /// M, members per problem.
    pub count: usize,
}

/// The members of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Members<'a> {
    /// Controls in physical units: `[P * M, control]`.
    Given(ArrayView2<'a, f64>),
    /// Drawn on the device.
    Drawn(&'a Draw),
    /// Given, with a list that says whose each is: any number for each problem, with observations of their own if
    /// wanted.
    Listed(Listed<'a>),
}

/// Which terms of the cost to compute; an absent one counts as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// J_b = 1/2 (x0 - xb)' B^-1 (x0 - xb), with the prior of whatever else the control holds: J_q = 1/2 sum_k |xi_k|^2 of
    /// model errors eta_k = Q^1/2 xi_k, and the same of parameters as of x0.
    pub background: bool,
    /// J_o = 1/2 sum_t w_t (H(x_t) - y_t)' R_t^-1 (H(x_t) - y_t)
    pub observation: bool,
}

impl Terms {
    /// Every term.
    pub const ALL: Self = Self { background: true, observation: true };
}

/// The cost of each member, in its terms.
#[derive(Clone, Debug)]
pub struct Costs {
    /// J_b: `[P * M]`.
    pub background: Array1<f64>,
    /// J_o: `[P * M]`.
    pub observation: Array1<f64>,
    /// Whether the member's last state, cost or gradient reached [`DIVERGED`]: `[P * M]`. Its numbers mean nothing.
    pub diverged: Vec<bool>,
}

impl Costs {
    /// Zeros for `count` members.
    fn empty(count: usize) -> Self {
        Self { background: Array1::zeros(count), observation: Array1::zeros(count), diverged: vec![false; count] }
    }

    /// J = J_b + J_o: `[P * M]`.
    pub fn total(&self) -> Array1<f64> {
        &self.background + &self.observation
    }
}

/// The cost of each member with its gradient.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// The cost.
    pub costs: Costs,
    /// dJ/dcontrol: `[P * M, control]`.
    pub gradient: Array2<f64>,
}

/// Work done since the problem was loaded, by all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// RK4 steps of members, recomputed ones included.
    pub model_steps: u64,
    /// Adjoint RK4 steps of members.
    pub adjoint_steps: u64,
    /// Tangent RK4 steps of members.
    pub tangent_steps: u64,
    /// Kernel dispatches; 0 on the CPU engine.
    pub dispatches: u64,
    /// Calls for which a device's buffers were made: a loop of equal calls, or of ever fewer members, makes them once.
    pub preparations: u64,
    /// Submissions to the device's queue; 0 on the CPU engine.
    pub submissions: u64,
    /// Bytes sent to the device.
    pub bytes_up: u64,
    /// Bytes read back from the device.
    pub bytes_down: u64,
}

impl Counters {
    /// Adds other work.
    fn add(&mut self, other: &Self) {
        self.model_steps += other.model_steps;
        self.adjoint_steps += other.adjoint_steps;
        self.tangent_steps += other.tangent_steps;
        self.dispatches += other.dispatches;
        self.preparations += other.preparations;
        self.submissions += other.submissions;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
    }

    /// What was added since.
    fn since(&self, before: &Self) -> Self {
        Self {
            model_steps: self.model_steps - before.model_steps,
            adjoint_steps: self.adjoint_steps - before.adjoint_steps,
            tangent_steps: self.tangent_steps - before.tangent_steps,
            dispatches: self.dispatches - before.dispatches,
            preparations: self.preparations - before.preparations,
            submissions: self.submissions - before.submissions,
            bytes_up: self.bytes_up - before.bytes_up,
            bytes_down: self.bytes_down - before.bytes_down,
        }
    }
}

/// A CPU or a GPU, or one for each of several [`Ranks`], ready to load problems.
#[derive(Clone, Debug)]
pub struct Engine {
    local: LocalEngine,
    /// What the other ranks hold for it.
    held: Arc<Held>,
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.hardware())?;
        match self.ranks().count() {
            1 => Ok(()),
            ranks => write!(f, ", on each of {ranks} ranks"),
        }
    }
}

impl Engine {
    /// Makes the engine that the settings ask for, in this process.
    ///
    /// # Errors
    /// No adapter for `Backend::Gpu`, no adapter of that name or number, no f64 on it, or zero threads or memory.
    pub fn new(settings: &EngineSettings) -> Result<Self> {
        Self::over(settings, &Ranks::alone())
    }

    /// Makes the engine that the settings ask for, on each of these ranks. Answers do not depend on how many they are.
    ///
    /// # Errors
    /// As [`new`](Self::new), on any of them; ranks with other hardware than the first, whose answers would not be the
    /// same.
    pub fn over(settings: &EngineSettings, ranks: &Ranks) -> Result<Self> {
        let local = LocalEngine::new(settings, ranks.place())?;
        let held = Arc::new(Held::new(ranks));
        if ranks.count() > 1 {
            let request = Request::Open { engine: held.id, settings: settings.clone() };
            let own = || Ok(vec![local.hardware().clone()]);
            let all = ranks.ask(ranks.count(), &request, |_| Vec::new(), own, concatenated, |all, _| Ok(all))?.value;
            let alike = |h: &Hardware| Hardware { threads: 0, ..h.clone() };
            if let Some((rank, other)) = all.iter().enumerate().find(|(_, h)| alike(h) != alike(&all[0])) {
                return Err(Error::Hardware {
                    message: format!("rank 0 has {}, and rank {rank} has {other}", all[0]),
                    help: "start ranks on machines alike, or give them one --backend and --adapter that all have"
                        .into(),
                });
            }
        }
        Ok(Self { local, held })
    }

    /// The CPU engine on all cores.
    ///
    /// # Errors
    /// The system refuses threads.
    pub fn cpu(precision: Precision) -> Result<Self> {
        Self::new(&EngineSettings { backend: Backend::Cpu, precision, ..EngineSettings::default() })
    }

    /// The ranks that it spans.
    pub fn ranks(&self) -> &Ranks {
        &self.held.ranks
    }

    /// What the engine runs on; of several ranks, what the first has. The engine's own words say how many have it.
    pub fn hardware(&self) -> &Hardware {
        self.local.hardware()
    }

    /// The variant of the kernels that the problems loaded so far run on (several, separated by "; ", where they differ),
    /// or the CPU engine's instruction set. Part of what a result depends on: files have it as an attribute.
    pub fn kernel(&self) -> String {
        match &self.local {
            LocalEngine::Cpu(_) => CpuEngine::instruction_set().into(),
            LocalEngine::Gpu(e) => e.kernels().join("; "),
        }
    }

    /// What went wrong with a GPU so far and was mended: a device lost and opened anew, memory refused and asked for in
    /// smaller pieces. The numbers are those of an undisturbed run.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.local.faults();
        faults.extend(self.held.faults().iter().cloned());
        faults
    }

    /// Makes a GPU fail, from whatever thread, to try out how a program takes it. A CPU has no such faults. Of several ranks
    /// it is the first one's.
    pub fn inject(&self, fault: Fault) {
        match &self.local {
            LocalEngine::Cpu(_) => {}
            LocalEngine::Gpu(e) => e.inject(fault),
        }
    }

    /// Checks a problem set and makes it ready to run.
    ///
    /// # Errors
    /// Whatever [`Problem::check`] refuses, or a state too large for the device.
    pub fn load(&self, problem: &Problem) -> Result<LoadedProblem> {
        problem.check()?;
        check_weights(problem)?;
        LoadedProblem::new(&self.local, &self.held, problem)
    }
}

impl Members<'_> {
    /// P * M for a set of P problems, or as many as are listed.
    pub(crate) fn count(&self, problems: usize) -> usize {
        match self {
            Members::Given(array) => array.nrows(),
            Members::Drawn(draw) => problems * draw.count,
            Members::Listed(listed) => listed.rows.len(),
        }
    }
}
