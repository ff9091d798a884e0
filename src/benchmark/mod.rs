//! Throughput on this machine: operations, sizes and engines, each row checked, timed, and held against what the
//! device can do.
//!
//! A row is one operation on a twin problem of one size on one engine. Before it is timed, a few members are computed on
//! it and on the CPU engine in f64; a row that differs is an error and has no times. Its work is counted
//! ([`work`](Work)), its limits are measured in the same run ([`Ceilings`]).

mod batches;
mod check;
mod measure;
mod row;
mod scaling;
mod table;
mod task;
mod work;

pub use batches::{BatchRow, BatchStudy};
pub use row::{Limit, Row};
pub use scaling::{ScalingEvent, ScalingRow, scaling_heading, scaling_line};
pub use table::{heading, line};
pub use work::Work;

use crate::engine::{Backend, Ceilings, Engine, EngineSettings, Hardware, Precision, adapters};
use crate::error::{Error, Result};
use crate::experiment::TwinSettings;
use crate::method::ViSettings;
use crate::model::Model;
use crate::posterior::Family;
use crate::problem::{PointFunction, Problem};
use measure::Patience;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a row times. One unit of work is one member of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Trajectories of given members, to the host
    Forecast,
    /// Costs of given members, to the host
    Cost,
    /// Costs and gradients of given members, to the host
    Gradient,
    /// The ELBO gradient: members drawn on the device, their gradients summed there
    Elbo,
    /// One iteration of VI: an ELBO gradient and Adam's step on the host
    Vi,
    /// Trials of ABC: drawn on the device, their costs, the best selected there
    Abc,
    /// One iteration of the ensemble of 4DVAR: every member's gradient with observations of its own, and its Adam step on
    /// the device
    Ensemble,
}

impl Operation {
    /// All, in the order of the table.
    pub const ALL: [Self; 7] =
        [Self::Forecast, Self::Cost, Self::Gradient, Self::Elbo, Self::Vi, Self::Abc, Self::Ensemble];

    /// The name in tables, flags and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forecast => "forecast",
            Self::Cost => "cost",
            Self::Gradient => "gradient",
            Self::Elbo => "elbo",
            Self::Vi => "vi",
            Self::Abc => "abc",
            Self::Ensemble => "ensemble",
        }
    }

    /// Whether the host hands members over.
    fn given(self) -> bool {
        matches!(self, Self::Forecast | Self::Cost | Self::Gradient | Self::Ensemble)
    }

    /// Bytes of arrays on the host for each member: what is handed over, and what comes back.
    fn host_bytes(self, size: &Size) -> f64 {
        let row = 8.0 * size.sites as f64;
        match self {
            Self::Forecast => row + row * size.times as f64,
            Self::Cost => row + 17.0,
            Self::Gradient => 2.0 * row + 17.0,
            // Drawn members leave nothing but sums.
            Self::Elbo | Self::Vi | Self::Abc => 0.0,
            Self::Ensemble => 3.0 * row,
        }
    }
}

/// What a row calls: an operation, and the family by which the members of an ELBO gradient are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Job {
    operation: Operation,
    /// Of operations that fit a family.
    family: Option<Family>,
}

impl Job {
    /// The operation, once for each family where it fits one. The engine draws no flow: its `elbo` is not there.
    fn all(operation: Operation, families: &[Family]) -> Vec<Self> {
        let one = |family| Self { operation, family };
        let drawn = |family: &&Family| operation == Operation::Vi || !family.is_flow();
        match operation {
            Operation::Elbo | Operation::Vi => families.iter().filter(drawn).map(|family| one(Some(*family))).collect(),
            _ => vec![one(None)],
        }
    }

    /// "elbo full-rank"; the mean field goes without saying.
    fn name(&self) -> String {
        match self.family.filter(|family| *family != Family::MeanField) {
            Some(family) => format!("{} {}", self.operation.name(), family.name()),
            None => self.operation.name().into(),
        }
    }
}

/// What to time: every combination of the lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Default: all.
    pub operations: Vec<Operation>,
    /// What `elbo` and `vi` fit, of the rank and layers that VI has by default: all but the mixture, whose iterations are
    /// those of one full-rank Gaussian for each component; flows in `vi` alone. Default: mean-field.
    pub families: Vec<Family>,
    /// The functions h of the observation operator. Default: square.
    pub operators: Vec<PointFunction>,
    /// Default, where it is empty: the CPU engine, and the GPU where there is a real one.
    pub backends: Vec<Backend>,
    /// Default: f32.
    pub precisions: Vec<Precision>,
    /// Default: Lorenz-96.
    pub model: Model,
    /// Default: 16.
    pub sites: Vec<usize>,
    /// Stored times, the initial one included, all of them assimilated. Default: 12.
    pub times: Vec<usize>,
    /// RK4 steps between two stored times. Default: 1.
    pub steps_per_time: Vec<usize>,
    /// Default: 1, 1024 and 65536.
    pub members: Vec<usize>,
    /// Measurements of a row. Default: as many as take about 0.4 s, at least 5.
    pub repeats: Option<usize>,
    /// Short measurements: about 0.05 s a row. Default: false.
    pub quick: bool,
    /// Part of the adapter's name. Default: the best one.
    pub adapter: Option<String>,
    /// Which of several adapters alike, as [`EngineSettings::device`]. Default: 0.
    pub device: Option<usize>,
    /// Threads of the CPU engine. Default: all cores.
    pub threads: Option<usize>,
    /// Most memory that a batch in flight may take, in MiB. Default: 1024.
    pub memory_mib: u64,
    /// The variant of a GPU's kernels, as [`EngineSettings::kernel`]. Default: auto.
    pub kernel: String,
    /// A directory with the GPU's shaders, as [`EngineSettings::shaders`]. Default: none.
    pub shaders: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        let EngineSettings { adapter, device, threads, memory_mib, kernel, shaders, .. } = EngineSettings::default();
        Self {
            operations: Operation::ALL.to_vec(),
            families: vec![Family::MeanField],
            operators: vec![PointFunction::Square],
            backends: Vec::new(),
            precisions: vec![Precision::F32],
            model: Model::Lorenz96,
            sites: vec![16],
            times: vec![12],
            steps_per_time: vec![1],
            members: vec![1, 1024, 65_536],
            repeats: None,
            quick: false,
            adapter,
            device,
            threads,
            memory_mib,
            kernel,
            shaders,
        }
    }
}

/// What a run tells as it goes.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The rows that follow are of this engine.
    Engine(&'a Hardware, &'a Ceilings),
    /// A row begins: of how many, which one, and its name.
    Begin(usize, usize, &'a str),
    /// A row is there.
    Row(&'a Row),
    /// Something was left out, and why.
    Note(&'a str),
}

/// The size of a row's problem.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Size {
    model: Model,
    operator: PointFunction,
    sites: usize,
    times: usize,
    steps_per_time: usize,
}

/// Values of a trajectory at most: 128 MiB.
const MOST_VALUES: usize = 1 << 24;
/// Bytes of arrays on the host at most.
const MOST_HOST_BYTES: f64 = 4.0 * (1u64 << 30) as f64;
/// The longest window in model time units: a window of many steps has shorter ones, or chaos leaves f32 and f64 nothing in
/// common. What a step costs does not depend on its length.
const LONGEST: f64 = 1.2;

impl Size {
    /// RK4 steps of the window.
    fn steps(&self) -> usize {
        self.times.saturating_sub(1).saturating_mul(self.steps_per_time)
    }

    fn twin(&self) -> TwinSettings {
        let dt = self.model.step().min(LONGEST / self.steps().max(1) as f64);
        TwinSettings {
            model: self.model,
            sites: self.sites,
            times: self.times,
            assimilated_times: self.times,
            steps_per_time: self.steps_per_time,
            operator: self.operator,
            dt,
            // To the attractor, over the same model time whatever the step.
            spin_up: ((6.3 / dt) as usize).min(20_000),
            ..TwinSettings::default()
        }
    }

    fn problem(&self) -> Result<Problem> {
        crate::experiment::simulate(&self.twin())
    }

    fn check(&self) -> Result<()> {
        if self.sites.checked_mul(self.times).is_none_or(|values| values > MOST_VALUES) {
            let found = format!("{} times of {} sites", self.times, self.sites);
            let expected = format!("at most {MOST_VALUES} values of a trajectory");
            return Err(Error::invalid("sites and times", expected, found, "use fewer times of more steps"));
        }
        self.twin().check()
    }
}

impl Settings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first one at fault.
    pub fn check(&self) -> Result<()> {
        let lists = [
            ("operation", self.operations.len()),
            ("family", self.families.len()),
            ("observation-operator", self.operators.len()),
            ("precision", self.precisions.len()),
            ("sites", self.sites.len()),
            ("times", self.times.len()),
            ("steps-per-time", self.steps_per_time.len()),
            ("members", self.members.len()),
        ];
        if let Some((name, _)) = lists.iter().find(|(_, len)| *len == 0) {
            return Err(Error::invalid(*name, "at least one", "none", "leave it out for the default"));
        }
        if self.families.contains(&Family::Mixture) {
            let expected = "a family that one loop fits";
            return Err(Error::invalid("family", expected, "mixture", "name full-rank: what a component costs"));
        }
        if let Some(family) = self.families.iter().find(|family| family.is_flow()) {
            ViSettings { family: *family, ..ViSettings::default() }.check()?;
            let rows = self.operations.iter().map(|operation| Job::all(*operation, &self.families).len());
            if rows.sum::<usize>() == 0 {
                let expected = "a family that the engine draws, or the operation vi";
                return Err(Error::invalid("family", expected, family.name(), "name --operation vi"));
            }
        }
        if let Some(count) = self.members.iter().find(|m| !(1..=u32::MAX as usize).contains(m)) {
            let expected = format!("1 to {}", u32::MAX);
            return Err(Error::invalid("members", expected, count.to_string(), "correct the list"));
        }
        if let Some(count) = self.repeats.filter(|r| !(1..=10_000).contains(r)) {
            return Err(Error::invalid(
                "repeats",
                "1 to 10000",
                count.to_string(),
                "leave it out for about 0.4 s a row",
            ));
        }
        self.sizes().iter().try_for_each(Size::check)
    }

    fn sizes(&self) -> Vec<Size> {
        let mut sizes = Vec::new();
        for &operator in &self.operators {
            for &sites in &self.sites {
                for &times in &self.times {
                    for &steps_per_time in &self.steps_per_time {
                        sizes.push(Size { model: self.model, operator, sites, times, steps_per_time });
                    }
                }
            }
        }
        sizes
    }

    /// Times every row, engine by engine, and tells `observer` as it goes. A row that is not what the CPU engine computes
    /// in f64 has an `error` and no times; one that is too large or would take too long is left out with a note.
    ///
    /// # Errors
    /// Settings that cannot work, a GPU that was asked for and is not there, a device failure, every row left out, or the
    /// observer's own.
    pub fn run(&self, observer: &mut dyn FnMut(Event) -> Result<()>) -> Result<Vec<Row>> {
        self.check()?;
        let fits = |operation: Operation, size: &Size, members: usize| {
            operation.host_bytes(size) * members as f64 <= MOST_HOST_BYTES
        };
        let (mut wanted, mut refused) = (Vec::new(), Vec::new());
        for size in self.sizes() {
            for job in self.operations.iter().flat_map(|operation| Job::all(*operation, &self.families)) {
                for &members in &self.members {
                    let list = if fits(job.operation, &size, members) { &mut wanted } else { &mut refused };
                    list.push((size, job, members));
                }
            }
        }
        if let (Some((size, Job { operation, .. }, members)), true) = (refused.first(), wanted.is_empty()) {
            let gib = operation.host_bytes(size) * *members as f64 / (1u64 << 30) as f64;
            let what = format!("{} of {members} members", operation.name());
            let found = format!("{gib:.1} GiB for {} sites and {} times", size.sites, size.times);
            return Err(Error::invalid(what, "at most 4 GiB on the host", found, "use fewer members, sites or times"));
        }
        for (size, Job { operation, .. }, members) in &refused {
            observer(Event::Note(&format!(
                "{} of {members} members of {} sites and {} times left out: more than 4 GiB on the host",
                operation.name(),
                size.sites,
                size.times
            )))?;
        }
        let engines = self.engines(observer)?;
        let reference = Engine::new(&self.reference())?;
        let total = engines.len() * wanted.len();
        let mut rows: Vec<Row> = Vec::with_capacity(total);
        let mut begun = 0;
        for engine in &engines {
            let ceilings = engine.ceilings()?;
            observer(Event::Engine(engine.hardware(), &ceilings))?;
            let mut problem: Option<(Size, Problem)> = None;
            for &(size, job, members) in &wanted {
                begun += 1;
                let name = format!(
                    "{} of {members} members, {} sites, {} times of {}, {} {}",
                    job.name(),
                    size.sites,
                    size.times,
                    size.steps_per_time,
                    engine.hardware().backend,
                    engine.hardware().precision.name()
                );
                observer(Event::Begin(begun, total, &name))?;
                if problem.as_ref().is_none_or(|(of, _)| *of != size) {
                    problem = Some((size, size.problem()?));
                }
                let Some((_, problem)) = &problem else { unreachable!("made just above") };
                let patience = Patience::new(self.quick, self.repeats);
                let case =
                    measure::Case { engine, reference: &reference, ceilings: &ceilings, problem, size, job, members };
                match measure::row(&case, &patience)? {
                    measure::Outcome::Row(row) => {
                        observer(Event::Row(&row))?;
                        rows.push(*row);
                    }
                    measure::Outcome::TooLong(seconds) => {
                        let reason = format!("{name} left out: one call would take about {seconds:.0} s");
                        observer(Event::Note(&reason))?;
                    }
                }
            }
        }
        if rows.is_empty() {
            let help = "use fewer members, sites or times, or leave --quick out";
            return Err(Error::invalid("rows", "at least one that takes seconds", "none", help));
        }
        Ok(rows)
    }

    /// The engine that a row is checked against.
    fn reference(&self) -> EngineSettings {
        let (backend, precision) = (Backend::Cpu, Precision::F64);
        EngineSettings { backend, precision, threads: self.threads, ..EngineSettings::default() }
    }

    /// The engine to time, but for its backend and its number type.
    fn engine(&self) -> EngineSettings {
        EngineSettings {
            threads: self.threads,
            memory_mib: self.memory_mib,
            adapter: self.adapter.clone(),
            device: self.device,
            kernel: self.kernel.clone(),
            shaders: self.shaders.clone(),
            ..EngineSettings::default()
        }
    }

    /// The engines to time, in the order of the lists.
    fn engines(&self, observer: &mut dyn FnMut(Event) -> Result<()>) -> Result<Vec<Engine>> {
        // What only a GPU has is no mistake where the CPU engine is timed beside one.
        let alone = self.backends.iter().all(|b| *b == Backend::Cpu) && !self.backends.is_empty();
        let settings = |backend, precision| {
            if alone || backend != Backend::Cpu {
                return EngineSettings { backend, precision, ..self.engine() };
            }
            let Self { threads, memory_mib, .. } = *self;
            EngineSettings { backend, precision, threads, memory_mib, ..EngineSettings::default() }
        };
        let mut engines = Vec::new();
        if self.backends.is_empty() {
            for &precision in &self.precisions {
                engines.push(Engine::new(&settings(Backend::Cpu, precision))?);
            }
            let there = adapters();
            if self.adapter.is_none() && there.iter().all(|a| a.kind == "software") {
                if self.kernel != EngineSettings::default().kernel || self.shaders.is_some() {
                    let found = "neither a real GPU nor --backend gpu";
                    let help = "add --backend gpu, or leave both out";
                    return Err(Error::invalid("--kernel or --shaders", "a GPU to use them on", found, help));
                }
                let found = if there.is_empty() { "no GPU" } else { "no GPU but a software rasteriser" };
                observer(Event::Note(&format!("{found} here: the CPU engine alone (--backend gpu asks for it)")))?;
                return Ok(engines);
            }
        }
        let named = if self.backends.is_empty() { &[Backend::Gpu][..] } else { &self.backends };
        for &backend in named {
            let mut refusal = None;
            let before = engines.len();
            for &precision in &self.precisions {
                match Engine::new(&settings(backend, precision)) {
                    Ok(engine) => engines.push(engine),
                    // An adapter without f64 still has f32.
                    Err(error @ Error::Hardware { .. }) => {
                        observer(Event::Note(&format!("left out: {error}")))?;
                        refusal = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            if let (Some(error), true) = (refusal, engines.len() == before) {
                return Err(error);
            }
        }
        Ok(engines)
    }
}
