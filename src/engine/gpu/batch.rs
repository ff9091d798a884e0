//! The operations on the GPU: what goes up for a call, and what comes down.

use super::buffers::{Region, from_bytes, to_bytes};
use super::calibrate;
use super::call::{Call, Source};
use super::layout::{Fit, MemberLayout};
use super::memory::Store;
use super::pipelines::Pipelines;
use super::plan::{Budget, blocks_per_run, quantities};
use super::run::Run;
use super::shader::Ownership;
use super::submissions::Submissions;
use super::uploaded::Uploaded;
use super::{GpuEngine, MOST_ATTEMPTS, Opened};
use crate::engine::operation::Operation;
use crate::engine::span::{Results, Span};
use crate::engine::tree::Tree;
use crate::engine::{BLOCK, Costs, Counters, DIVERGED, Draw, Members, Moments, PatternSums, Row, Scale, Terms};
use crate::error::{Error, Result};
use crate::problem::Problem;
use ndarray::Array2;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A problem set on the GPU engine.
#[derive(Debug)]
pub struct LoadedGpu {
    pub(super) uploaded: Uploaded,
    pub(super) pipelines: Arc<Pipelines>,
    /// For another device, should this one fail.
    engine: GpuEngine,
    problem: Problem,
    budget: Budget,
    /// Failures since a call last succeeded.
    failures: usize,
    pub(super) queue: Submissions,
    /// The last call's buffers and dispatches: a loop of equal calls builds them once.
    pub(super) last: Option<Run>,
}

impl LoadedGpu {
    pub(super) fn new(
        engine: &GpuEngine,
        opened: Opened,
        problem: &Problem,
        layout: Option<MemberLayout>,
    ) -> Result<Self> {
        let Opened { device, pipelines } = opened;
        let budget = Budget::new(engine.memory);
        let mut uploaded = Uploaded::new(device.clone(), problem)?;
        let shape = uploaded.shape;
        let fit = Fit { limits: &device.limits, ..uploaded.fit() };
        let fastest = |candidates: &[MemberLayout]| calibrate::fastest(&mut uploaded, &pipelines, budget, candidates);
        let layout = match layout {
            Some(layout) => layout.check(&fit).map(|()| layout)?,
            None => engine.choices.resolve(&shape, problem, &fit, fastest)?,
        };
        uploaded.set_layout(layout);
        let mut queue = Submissions::new(device, budget.work);
        queue.counters.bytes_up = uploaded.bytes;
        Ok(Self {
            uploaded,
            pipelines,
            engine: engine.clone(),
            problem: problem.clone(),
            budget,
            failures: 0,
            queue,
            last: None,
        })
    }

    /// Makes a call, and where the device fails makes it again. The numbers are the same, because a call depends on nothing
    /// that was before it.
    ///
    /// # Errors
    /// The call's; the device's last failure where it fails again and again.
    pub(super) fn persist<T>(&mut self, mut call: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        for _ in 0..MOST_ATTEMPTS {
            let outcome = call(self);
            let outcome = self.recovered(outcome);
            if !matches!(outcome, Err(Error::Device { .. })) {
                return outcome;
            }
        }
        call(self)
    }

    /// A call's outcome, with the problem ready for another call where the device failed: on a new device if the old one is
    /// gone, with half the budget if it was full or fails again.
    ///
    /// # Errors
    /// The call's; no device opens any more.
    pub(super) fn recovered<T>(&mut self, outcome: Result<T>) -> Result<T> {
        let Err(failure @ Error::Device { .. }) = &outcome else { return outcome };
        // What is on the device may be gone, and may be what fills it.
        self.last = None;
        let mut failed = self.uploaded.device.clone();
        loop {
            self.failures += 1;
            let Opened { device, pipelines } = self.engine.recover(&failed, failure)?;
            let full = Arc::ptr_eq(&failed, &device);
            if full || self.failures > 1 {
                self.budget = self.budget.half();
                self.queue.most_work = self.budget.work;
            }
            if full {
                return outcome;
            }
            match Uploaded::new(device.clone(), &self.problem) {
                // The device that another problem opened meanwhile failed too.
                Err(Error::Device { .. }) if self.failures < MOST_ATTEMPTS => failed = device,
                uploaded => {
                    let layout = self.uploaded.shape.layout;
                    self.uploaded = uploaded?;
                    self.uploaded.set_layout(layout);
                    self.pipelines = pipelines;
                    self.queue.move_to(device)?;
                    return outcome;
                }
            }
        }
    }

    pub fn counters(&self) -> Counters {
        self.queue.counters
    }

    pub fn assimilated_steps(&self) -> usize {
        self.uploaded.data.assimilated_steps()
    }

    /// The variant of its kernels.
    pub fn kernel(&self) -> String {
        self.uploaded.shape.layout.to_string()
    }

    pub fn time_kernels(&mut self, on: bool) -> Result<()> {
        self.queue.time_kernels(on)
    }

    pub fn kernel_time(&self) -> Option<Duration> {
        self.queue.kernel_time()
    }

    /// Runs an operation that says something of each row of a span. `input` is what a tangent or adjoint takes beside them.
    pub fn rows(&mut self, span: &Span, operation: Operation, input: &[f64]) -> Result<Results> {
        let (count, control) = (span.count(), self.control());
        let per_row = operation.per_row(self.uploaded.data.times * self.uploaded.data.sites, control);
        let has_costs = operation.has_costs();
        let mut costs = Costs::empty(if has_costs { count } else { 0 });
        let mut values = vec![0.0; count * per_row];
        self.each_chunk(operation, span, input, |chunk| {
            if has_costs {
                chunk.put_costs(&mut costs);
            }
            chunk.put(if has_costs { 3 * chunk.capacity } else { 0 }, per_row, &mut values);
        })?;
        Ok(Results { costs, values })
    }

    /// The moments of each problem, over the span.
    pub fn moments(&mut self, draw: &Draw, span: &Span, terms: Terms) -> Result<Vec<Tree<Moments>>> {
        let (control, problems) = (self.control(), self.uploaded.problems());
        let per_run = quantities(control);
        let mut numbers = Vec::new();
        let mut runs = 0..0;
        self.each_chunk(Operation::Moments(terms), span, &[], |chunk| (numbers, runs) = (chunk.numbers, chunk.runs))?;
        if numbers.iter().any(|v| !v.is_finite()) {
            return Err(Error::Device {
                message: "a sum over members is not finite although diverged members were left out".into(),
                help: "use --precision f64 or --backend cpu, and report this".into(),
            });
        }
        let each = draw.count.div_ceil(BLOCK).div_ceil(self.blocks_per_run(draw));
        let (sums, on_pattern) = numbers.split_at(runs.len() * per_run);
        let mut on_pattern = on_pattern.chunks((on_pattern.len() / runs.len()).max(1));
        let mut totals: Vec<Tree<Moments>> = (0..problems).map(|_| Tree::default()).collect();
        for (run, q) in runs.zip(sums.chunks(per_run)) {
            let array = |k: usize| q[5 + k * control..5 + (k + 1) * control].to_vec();
            let moments = Moments {
                count: q[1] as usize,
                diverged: (q[1] - q[0]) as usize,
                cost_background: q[2],
                cost_observation: q[3],
                cost_deviation: q[4],
                gradient: array(0),
                gradient_squared: array(1),
                epsilon: array(2),
                epsilon_squared: array(3),
                gradient_epsilon: array(4),
                pattern: pattern(&draw.map.scale, on_pattern.next().unwrap_or_default()),
            };
            totals[run / each].push(run % each, moments);
        }
        Ok(totals)
    }

    /// Runs an operation chunk by chunk.
    fn each_chunk(
        &mut self,
        operation: Operation,
        span: &Span,
        input: &[f64],
        mut take: impl FnMut(Chunk),
    ) -> Result<()> {
        self.persist(|loaded| loaded.each_chunk_once(operation, span, input, &mut take))
    }

    fn each_chunk_once(
        &mut self,
        operation: Operation,
        span: &Span,
        input: &[f64],
        take: &mut dyn FnMut(Chunk),
    ) -> Result<()> {
        let mut run = self.begin(operation, span)?;
        let given = match &span.members {
            Members::Given(array) => Some(array.as_standard_layout()),
            Members::Listed(listed) => {
                self.send_list(&run, listed.rows, listed.amplitude, 0..);
                Some(listed.states.as_standard_layout())
            }
            Members::Drawn(draw) => {
                self.send_draw(&run, draw)?;
                None
            }
        };
        let chunks = run.plan.chunks.len();
        for k in 0..chunks {
            let rows = run.plan.chunks[k].start - span.rows.start..run.plan.chunks[k].end - span.rows.start;
            if let Some(given) = &given {
                self.write_slots(&run, 0, self.control(), rows.clone(), given.as_slice().expect("standard layout"));
            }
            match operation {
                Operation::Tangent => {
                    self.write_slots(&run, run.slots.cotangent, self.control(), rows.clone(), input);
                }
                Operation::Adjoint => {
                    let forcing = self.uploaded.data.times * self.uploaded.data.sites;
                    self.write_slots(&run, run.slots.at_times, forcing, rows.clone(), input);
                }
                _ => {}
            }
            let chunk = run.chunk(&self.uploaded, &self.pipelines, k)?;
            // Sums stay on the device until the last chunk has been added.
            let results: &[Region] = if run.call.sums() && k + 1 < chunks { &[] } else { &run.results };
            let precision = self.uploaded.shape.precision;
            let numbers =
                self.queue.submit(&chunk.sweep, results, &run.memory.staging, |b| from_bytes(precision, b))?;
            if !results.is_empty() {
                let runs = if run.call.sums() { run.plan.all_runs() } else { 0..0 };
                take(Chunk { rows, runs, capacity: run.plan.capacity, numbers });
            }
        }
        self.finish(run, 1)
    }

    /// Counts the steps of a call's members, each moved `times` times, and keeps its buffers for the next.
    pub(super) fn finish(&mut self, run: Run, times: usize) -> Result<()> {
        self.queue.device.check()?;
        run.call.operation.count(&run.plan.segments, run.call.count * times, &mut self.queue.counters);
        self.last = Some(run);
        self.failures = 0;
        Ok(())
    }

    /// Sends whose each member is, with the places of resident ones in their store, and the amplitude of the
    /// perturbations.
    pub(super) fn send_list(&mut self, run: &Run, rows: &[Row], amplitude: f64, places: impl IntoIterator<Item = u32>) {
        let Some(list) = &run.memory.list else { return };
        let words: Vec<u32> = (rows.iter().zip(places))
            .flat_map(|(row, place)| {
                let seed = self.uploaded.data.seeds[row.problem as usize];
                [row.problem, row.member, seed as u32, (seed >> 32) as u32, place]
            })
            .collect();
        self.queue.send(list, bytemuck::cast_slice(&words));
        self.uploaded.set_amplitude(amplitude);
        self.queue.counters.bytes_up += self.uploaded.shape.precision.bytes() as u64;
    }

    /// What a call dispatches, from the last one where it was the same.
    pub(super) fn begin(&mut self, operation: Operation, span: &Span) -> Result<Run> {
        let listed = span.listed();
        let perturbed = listed.is_some_and(|l| l.amplitude != 0.0) && operation.terms().observation;
        let call = Call {
            operation,
            source: Source::of(span.members),
            ownership: Ownership { listed: listed.is_some(), perturbed, own_background: false },
            first: span.rows.start,
            count: span.count(),
            per_problem: span.per_problem,
            store: None,
        };
        self.run(call, None)
    }

    /// The last call's buffers and dispatches where they serve this one, or new ones.
    pub(super) fn run(&mut self, call: Call, store: Option<&Store>) -> Result<Run> {
        if let Some(mut run) = self.last.take()
            && run.take(&self.uploaded, &call, self.budget)
        {
            return Ok(run);
        }
        self.queue.counters.preparations += 1;
        loop {
            match Run::new(&self.uploaded, call, self.budget, store) {
                // Halved once too often.
                Err(Error::Invalid { .. }) if self.budget.bytes < self.engine.memory => {
                    self.budget.bytes = self.budget.bytes.saturating_mul(2);
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends the affine map and the iteration.
    pub(super) fn send_draw(&mut self, run: &Run, draw: &Draw) -> Result<()> {
        let Some(draws) = &run.memory.draws else { return Ok(()) };
        let precision = self.uploaded.shape.precision;
        // What is no diagonal is added by kernels of its own.
        let zeros;
        let (diagonal, scale) = match &draw.map.scale {
            Scale::Diagonal(scale) => (scale, Vec::new()),
            Scale::Lower(scale) => {
                zeros = Array2::zeros(draw.map.mean.raw_dim());
                (&zeros, to_bytes(precision, scale.iter().copied()))
            }
            Scale::LowRank { diagonal, left, right } => {
                (diagonal, to_bytes(precision, left.iter().chain(right).copied()))
            }
        };
        let rows = draw.map.mean.rows().into_iter().zip(diagonal.rows());
        let numbers = rows.flat_map(|(mean, scale)| mean.to_vec().into_iter().chain(scale.to_vec()));
        let map = to_bytes(precision, numbers);
        let mut keys = vec![draw.stream as u32, draw.iteration];
        keys.extend(self.uploaded.data.seeds.iter().flat_map(|s| [*s as u32, (*s >> 32) as u32]));
        let mut parts = vec![(&draws.map, &map[..]), (&draws.keys, bytemuck::cast_slice(&keys))];
        parts.extend(draws.scale.iter().map(|buffer| (buffer, &scale[..])));
        self.queue.send_with_next(&parts)
    }

    /// Blocks of drawn members whose sums are added on the device.
    pub fn blocks_per_run(&self, draw: &Draw) -> usize {
        blocks_per_run(Source::of(Members::Drawn(draw)).pattern(self.control()))
    }

    /// Numbers of a control.
    pub(super) fn control(&self) -> usize {
        self.uploaded.data.control.len()
    }

    /// Sends `[rows, per_row]` of all rows' values into slots, from one on.
    fn write_slots(&mut self, run: &Run, slot: usize, per_row: usize, rows: Range<usize>, values: &[f64]) {
        let (sites, capacity) = (self.uploaded.data.sites, run.plan.capacity);
        let offset = (slot * sites * capacity * self.uploaded.shape.precision.bytes()) as u64;
        let numbers = (0..per_row).flat_map(|i| {
            let rows = rows.clone();
            (0..capacity).map(move |k| if k < rows.len() { values[(rows.start + k) * per_row + i] } else { 0.0 })
        });
        let bytes = to_bytes(self.uploaded.shape.precision, numbers);
        self.queue.send_at(&run.memory.states, offset, &bytes);
    }
}

/// What came back of one chunk.
pub(super) struct Chunk {
    /// Its rows among those of the call.
    pub rows: Range<usize>,
    /// Of sums, the runs that they are over.
    pub runs: Range<usize>,
    pub capacity: usize,
    pub numbers: Vec<f64>,
}

impl Chunk {
    /// Puts the numbers from `first` on, `[per_row, capacity]`, into the rows' places in `values`.
    pub fn put(&self, first: usize, per_row: usize, values: &mut [f64]) {
        for (k, row) in self.rows.clone().enumerate() {
            for i in 0..per_row {
                values[row * per_row + i] = self.numbers[first + i * self.capacity + k];
            }
        }
    }

    /// Puts J_b, J_o and the flags, `[3, capacity]`, into the rows' places. Checks the flags again: a compiler that
    /// assumes that there is no NaN may have lost one.
    pub fn put_costs(&self, costs: &mut Costs) {
        for (k, row) in self.rows.clone().enumerate() {
            let [background, observation, flag] = [0, 1, 2].map(|q| self.numbers[q * self.capacity + k]);
            costs.background[row] = background;
            costs.observation[row] = observation;
            let sound = background.abs() < DIVERGED && observation.abs() < DIVERGED;
            costs.diverged[row] = flag != 0.0 || !sound;
        }
    }
}

/// The sums on a scale's pattern, as `shaders/pattern.wgsl` leaves them.
fn pattern(scale: &Scale, numbers: &[f64]) -> PatternSums {
    let mut numbers = numbers.iter();
    let mut pattern = PatternSums::zeros(scale);
    for array in pattern.arrays_mut() {
        for ((i, j), to) in array.indexed_iter_mut() {
            if j <= i || !matches!(scale, Scale::Lower(_)) {
                *to = *numbers.next().expect("as many as the pattern has");
            }
        }
    }
    pattern
}
