//! The hardware: runs a batch of members of one problem set in lockstep, on a CPU or a GPU behind one enum.
//!
//! An engine knows problems, controls and members; it knows no method and no posterior family.
//!
//! Members of P problems, M each, are numbered problem by problem: member k of problem p is row p * M + k of every
//! array. Numbers cross this boundary as f64, whatever the engine computes in.

mod ceilings;
mod cpu;
mod gpu;
mod listed;
mod moments;
mod operation;
mod prepared;
mod resident;
mod schedule;
mod selection;

pub use ceilings::Ceilings;
pub use cpu::CpuEngine;
pub use gpu::{AdapterDescription, Fault, GpuEngine, adapters};
pub use listed::{Listed, Row};
pub use moments::{Moments, PatternSums};
pub use resident::{AdamStep, Inspection, Resident};
pub use selection::{CostHistogram, Keep, MOST_KEPT, Selection};

use crate::error::{Error, Result};
use crate::memory;
use crate::problem::Problem;
use crate::random::Stream;
use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3, Axis};
use selection::Selector;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

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

/// What to do about results that the host has no memory for.
const FEWER: &str = "use fewer members at a time";

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
    /// The number type. Default: f32.
    pub precision: Precision,
    /// Threads of the CPU engine. Default: all cores.
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
#[derive(Clone, Debug, PartialEq)]
pub struct AffineMap {
    /// m: `[P, control]`.
    pub mean: Array2<f64>,
    /// S.
    pub scale: Scale,
}

/// The matrix S of an affine map.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Work done since the problem was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// A CPU or a GPU, ready to load problems.
#[derive(Clone, Debug)]
pub enum Engine {
    /// SIMD lanes over members, threads over blocks of members.
    Cpu(CpuEngine),
    /// wgpu compute shaders.
    Gpu(GpuEngine),
}

impl Engine {
    /// Makes the engine that the settings ask for.
    ///
    /// # Errors
    /// No adapter for `Backend::Gpu`, no adapter of that name, no f64 on it, or zero threads or memory.
    pub fn new(settings: &EngineSettings) -> Result<Self> {
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
        let cpu = || {
            if settings.kernel != AUTO_KERNEL {
                let found = format!("{:?} with the CPU engine", settings.kernel);
                return Err(Error::invalid("kernel", "auto, or a GPU", found, "leave it out, or use --backend gpu"));
            }
            Ok(Self::Cpu(CpuEngine::new(settings)?))
        };
        match settings.backend {
            Backend::Cpu => cpu(),
            Backend::Gpu => Ok(Self::Gpu(GpuEngine::new(settings)?)),
            Backend::Auto => match GpuEngine::best_real(settings)? {
                Some(gpu) => Ok(Self::Gpu(gpu)),
                None => cpu(),
            },
        }
    }

    /// The CPU engine on all cores.
    ///
    /// # Errors
    /// The system refuses threads.
    pub fn cpu(precision: Precision) -> Result<Self> {
        Self::new(&EngineSettings { backend: Backend::Cpu, precision, ..EngineSettings::default() })
    }

    /// What the engine runs on.
    pub fn hardware(&self) -> &Hardware {
        match self {
            Self::Cpu(e) => e.hardware(),
            Self::Gpu(e) => e.hardware(),
        }
    }

    /// The variant of the kernels that the problems loaded so far run on (several, separated by "; ", where they differ),
    /// or the CPU engine's instruction set. Part of what a result depends on: files have it as an attribute.
    pub fn kernel(&self) -> String {
        match self {
            Self::Cpu(_) => CpuEngine::instruction_set().into(),
            Self::Gpu(e) => e.kernels().join("; "),
        }
    }

    /// What went wrong with a GPU so far and was mended: a device lost and opened anew, memory refused and asked for in
    /// smaller pieces. The numbers are those of an undisturbed run.
    pub fn faults(&self) -> Vec<String> {
        match self {
            Self::Cpu(_) => Vec::new(),
            Self::Gpu(e) => e.faults(),
        }
    }

    /// Makes a GPU fail, from whatever thread, to try out how a program takes it. A CPU has no such faults.
    pub fn inject(&self, fault: Fault) {
        match self {
            Self::Cpu(_) => {}
            Self::Gpu(e) => e.inject(fault),
        }
    }

    /// Checks a problem set and makes it ready to run.
    ///
    /// # Errors
    /// Whatever [`Problem::check`] refuses, or a state too large for the device.
    pub fn load(&self, problem: &Problem) -> Result<LoadedProblem> {
        problem.check()?;
        check_weights(problem)?;
        Ok(LoadedProblem {
            id: resident::new_id(),
            layout: Layout {
                problems: problem.count(),
                sites: problem.sites(),
                control: problem.control().len(),
                times: problem.window.times,
            },
            inner: match self {
                Self::Cpu(e) => Inner::Cpu(Box::new(e.load(problem)?)),
                Self::Gpu(e) => Inner::Gpu(Box::new(e.load(problem)?)),
            },
        })
    }
}

/// Refuses deviations so small that a departure of one unit would count as divergence.
fn check_weights(problem: &Problem) -> Result<()> {
    let refuse = |what: &str, std: f64| {
        let expected = format!("deviations of at least {:.0e}", DIVERGED.sqrt().recip());
        Err(Error::invalid(what, expected, format!("{std:e}"), "rescale the problem, or leave the variable out"))
    };
    for p in 0..problem.count() {
        for (what, stds) in [
            ("background_std", Some(problem.background.std_of(p))),
            ("parameter_std", problem.parameter_std_of(p).map(|std| std.to_owned())),
        ] {
            if let Some(std) = stds.into_iter().flatten().find(|s| 1.0 / (s * s) >= DIVERGED) {
                return refuse(what, std);
            }
        }
        if let Some(w) = problem.observation_precision(p).into_iter().find(|w| *w >= DIVERGED) {
            return refuse("observation_std", w.sqrt().recip());
        }
    }
    Ok(())
}

/// A problem set on an engine: the operations.
#[derive(Debug)]
pub struct LoadedProblem {
    id: u64,
    layout: Layout,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Cpu(Box<cpu::LoadedCpu>),
    Gpu(Box<gpu::LoadedGpu>),
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    problems: usize,
    sites: usize,
    control: usize,
    times: usize,
}

macro_rules! on_engine {
    ($self:ident, $loaded:ident => $call:expr) => {
        match &mut $self.inner {
            Inner::Cpu($loaded) => $call,
            Inner::Gpu($loaded) => $call,
        }
    };
}

impl LoadedProblem {
    /// The trajectory at the stored times: `[P * M, times, sites]`. Time 0 is the initial state itself.
    ///
    /// # Errors
    /// Members of the wrong shape or not finite; a device failure.
    pub fn forecast(&mut self, members: Members) -> Result<Array3<f64>> {
        let count = self.layout.check_members(members)?;
        memory::check("the trajectories", &[count, self.layout.times, self.layout.sites], FEWER)?;
        on_engine!(self, e => e.forecast(members))
    }

    /// The cost terms of each member.
    ///
    /// # Errors
    /// Members of the wrong shape or not finite; a device failure.
    pub fn cost(&mut self, members: Members, terms: Terms) -> Result<Costs> {
        let count = self.layout.check_members(members)?;
        memory::check("the costs", &[count, 3], FEWER)?;
        on_engine!(self, e => e.cost(members, terms))
    }

    /// The cost terms and dJ/dcontrol of each member: the exact adjoint of the RK4 scheme.
    ///
    /// # Errors
    /// Members of the wrong shape or not finite; a device failure.
    pub fn gradient(&mut self, members: Members, terms: Terms) -> Result<Gradients> {
        let count = self.layout.check_members(members)?;
        memory::check("the gradients", &[count, self.layout.control + 3], FEWER)?;
        on_engine!(self, e => e.gradient(members, terms))
    }

    /// The sums that an ELBO gradient needs, over members drawn on the device, those of g eps' on S's pattern among them
    /// ([`Moments::pattern`]): one result per problem. Nothing else comes back from the device.
    ///
    /// # Errors
    /// A map of the wrong shape or not finite; sums that are too many for the device; a device failure. Diverged members
    /// are no error here.
    pub fn moments(&mut self, draw: &Draw, terms: Terms) -> Result<Vec<Moments>> {
        self.layout.check_members(Members::Drawn(draw))?;
        on_engine!(self, e => e.moments(draw, terms))
    }

    /// The best of the members drawn on the device, one result per problem: nothing but what is kept, a histogram and
    /// a few sums comes back from the device, and memory does not grow with the count. The criterion is the sum of
    /// `criterion`'s terms. The draws are those of the other operations: a kept member can be drawn again by its
    /// number.
    ///
    /// # Errors
    /// A map of the wrong shape or not finite; nothing to keep, or more than [`MOST_KEPT`] members in all; a device
    /// failure. Diverged members are no error here.
    pub fn select(&mut self, draw: &Draw, criterion: Terms, keep: Keep) -> Result<Vec<Selection>> {
        self.select_watched(draw, criterion, keep, &mut |_| Ok(()))
    }

    /// The same, with `watch` told now and then of how many members are done, over all problems; its error ends it.
    ///
    /// # Errors
    /// As [`select`](Self::select); that of `watch`.
    pub fn select_watched(
        &mut self,
        draw: &Draw,
        criterion: Terms,
        keep: Keep,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Selection>> {
        self.layout.check_members(Members::Drawn(draw))?;
        let mut selector = Selector::new(self.layout.problems, draw.count, keep)?;
        on_engine!(self, e => e.select(draw, criterion, &mut selector, watch))?;
        Ok(selector.finish(draw.count))
    }

    /// The tangent trajectory M_t v at the stored times, for one direction per member: `directions: [P * M,
    /// control]` to `[P * M, times, sites]`.
    ///
    /// # Errors
    /// Members or directions of the wrong shape or not finite; a device failure.
    pub fn tangent(&mut self, members: Members, directions: ArrayView2<f64>) -> Result<Array3<f64>> {
        let count = self.layout.check_members(members)?;
        self.layout.check_array("directions", directions.shape(), &[count, self.layout.control], directions.iter())?;
        memory::check("the tangent trajectories", &[count, self.layout.times, self.layout.sites], FEWER)?;
        on_engine!(self, e => e.tangent(members, directions))
    }

    /// The adjoint sum_t M_t' w_t of any forcing at the stored times: `forcing: [P * M, times, sites]` to
    /// `[P * M, control]`.
    ///
    /// # Errors
    /// Members or forcing of the wrong shape or not finite; a device failure.
    pub fn adjoint(&mut self, members: Members, forcing: ArrayView3<f64>) -> Result<Array2<f64>> {
        let count = self.layout.check_members(members)?;
        let shape = [count, self.layout.times, self.layout.sites];
        self.layout.check_array("forcing", forcing.shape(), &shape, forcing.iter())?;
        on_engine!(self, e => e.adjoint(members, forcing))
    }

    /// The variant of the kernels that it runs on, as [`EngineSettings::kernel`] takes it; of the CPU engine, its
    /// instruction set.
    pub fn kernel(&self) -> String {
        match &self.inner {
            Inner::Cpu(_) => CpuEngine::instruction_set().into(),
            Inner::Gpu(e) => e.kernel(),
        }
    }

    /// RK4 steps from time 0 to the last time with an assimilated observation: what a member's cost takes.
    pub fn assimilated_steps(&self) -> usize {
        match &self.inner {
            Inner::Cpu(e) => e.assimilated_steps(),
            Inner::Gpu(e) => e.assimilated_steps(),
        }
    }

    /// The work done so far.
    pub fn counters(&self) -> Counters {
        match &self.inner {
            Inner::Cpu(e) => e.counters(),
            Inner::Gpu(e) => e.counters(),
        }
    }

    /// Times kernels by the device's clock from now on, or no longer. On a GPU that costs two timestamps for each
    /// submission, which is why it is off; the CPU engine times its kernels always.
    ///
    /// # Errors
    /// A device failure.
    pub fn time_kernels(&mut self, on: bool) -> Result<()> {
        match &mut self.inner {
            Inner::Cpu(_) => Ok(()),
            Inner::Gpu(e) => e.time_kernels(on),
        }
    }

    /// The time spent in kernels so far, without what goes up, comes down and is converted on the way. On a GPU: since
    /// [`time_kernels`](Self::time_kernels), and None before it or where the device has no clock.
    pub fn kernel_time(&self) -> Option<Duration> {
        match &self.inner {
            Inner::Cpu(e) => Some(e.kernel_time()),
            Inner::Gpu(e) => e.kernel_time(),
        }
    }
}

impl Layout {
    /// Checks shape and finiteness of members and returns P * M.
    fn check_members(&self, members: Members) -> Result<usize> {
        match members {
            Members::Given(array) => {
                let rows = array.nrows();
                if rows == 0 || !rows.is_multiple_of(self.problems) {
                    return Err(Error::invalid(
                        "members",
                        format!("a positive multiple of the {} problems as rows", self.problems),
                        rows.to_string(),
                        "give the same number of members for each problem",
                    ));
                }
                // In whole runs: one number after the other would take longer than a small gradient.
                let finite = |run: &[f64]| run.iter().fold(true, |finite, v| finite & v.is_finite());
                let shape = [rows, self.control];
                if array.shape() != shape || !array.as_slice().is_some_and(finite) {
                    self.check_array("members", array.shape(), &shape, array.iter())?;
                }
                Ok(rows)
            }
            Members::Drawn(draw) => {
                let most = u32::MAX as usize / self.problems;
                if draw.count == 0 || draw.count > most {
                    let expected = format!("1 to {most} for each of {} problems", self.problems);
                    return Err(Error::invalid("members", expected, draw.count.to_string(), "change the count"));
                }
                let shape = [self.problems, self.control];
                self.check_array("mean of the draws", draw.map.mean.shape(), &shape, draw.map.mean.iter())?;
                let what = "scale of the draws";
                match &draw.map.scale {
                    Scale::Diagonal(scale) => self.check_array(what, scale.shape(), &shape, scale.iter())?,
                    Scale::Lower(scale) => {
                        let matrices = if scale.len_of(Axis(0)) == 1 { 1 } else { self.problems };
                        let shape = [matrices, self.control, self.control];
                        self.check_array(what, scale.shape(), &shape, scale.iter())?;
                        if let Some(((_, i, j), v)) = scale.indexed_iter().find(|((_, i, j), v)| j > i && **v != 0.0) {
                            let found = format!("{v} in row {i}, column {j}");
                            return Err(Error::invalid(what, "a lower triangular matrix", found, "put 0 there"));
                        }
                    }
                    Scale::LowRank { diagonal, left, right } => {
                        self.check_array("diagonal of the scale", diagonal.shape(), &shape, diagonal.iter())?;
                        let rank = left.len_of(Axis(2));
                        if !(1..=self.control).contains(&rank) {
                            let expected = format!("1 to {}, the length of a control", self.control);
                            return Err(Error::invalid("rank of the scale", expected, rank.to_string(), "change it"));
                        }
                        let shape = [self.problems, self.control, rank];
                        for (what, factor) in [("left factor of the scale", left), ("right factor of the scale", right)]
                        {
                            self.check_array(what, factor.shape(), &shape, factor.iter())?;
                        }
                    }
                }
                Ok(self.problems * draw.count)
            }
            Members::Listed(listed) => {
                listed.check(self.problems)?;
                let shape = [listed.rows.len(), self.control];
                self.check_array("members", listed.states.shape(), &shape, listed.states.iter())?;
                Ok(listed.rows.len())
            }
        }
    }

    fn check_array<'a>(
        &self,
        what: &str,
        found: &[usize],
        expected: &[usize],
        values: impl Iterator<Item = &'a f64>,
    ) -> Result<()> {
        if found != expected {
            return Err(Error::invalid(what, format!("shape {expected:?}"), format!("{found:?}"), "correct the shape"));
        }
        crate::problem::check_finite(what, values)
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

    /// M, or the whole count where a list says whose each member is.
    pub(crate) fn per_problem(&self, problems: usize) -> usize {
        match self {
            Members::Given(_) | Members::Drawn(_) => self.count(problems) / problems,
            Members::Listed(listed) => listed.rows.len(),
        }
    }
}
