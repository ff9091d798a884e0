//! A problem set on the GPU: the dispatches of each operation, and what goes up and comes down.

use super::GpuEngine;
use super::adapter::Device;
use super::params::{BACKGROUND, FIRST, LAST, OBSERVATION, Params, STORE};
use super::plan::{DISPATCH_WORK, Need, Plan, WORK_PER_SITE};
use super::shader::{Kernel, MemberLayout, Shape};
use crate::engine::prepared::{BackgroundPrecision, Field, Prepared};
use crate::engine::{BLOCK, Costs, Counters, Draw, Gradients, Members, Moments, Precision, Scale, Terms};
use crate::error::{Error, Result};
use crate::problem::Problem;
use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3};
use std::ops::Range;

/// A problem set on the GPU engine.
#[derive(Debug)]
pub struct LoadedGpu {
    engine: GpuEngine,
    data: Prepared<f64>,
    shape: Shape,
    /// The problem set in device memory, and where each field lies in it.
    problem: wgpu::Buffer,
    places: Params,
    /// The last call's buffers and dispatches: a loop of equal calls builds them once.
    last: Option<(Call, Run)>,
    counters: Counters,
}

/// What a run is built for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Call {
    operation: Operation,
    drawn: bool,
    count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Forecast,
    Cost(Terms),
    Gradient(Terms),
    Moments(Terms),
    Tangent,
    Adjoint,
}

/// Buffers and dispatches of a call.
#[derive(Debug)]
struct Run {
    plan: Plan,
    slots: Slots,
    states: wgpu::Buffer,
    costs: wgpu::Buffer,
    staging: wgpu::Buffer,
    draws: Option<Draws>,
    sums: Option<Sums>,
    chunks: Vec<Vec<Dispatch>>,
    last: Vec<Dispatch>,
}

/// Where a run keeps its states, in slots of [sites, capacity]. The first ones are the initial state and, in a
/// reverse sweep, the other checkpoints.
#[derive(Clone, Copy, Debug)]
struct Slots {
    kept: usize,
    cotangent: usize,
    epsilon: usize,
    background: usize,
    at_times: usize,
}

/// The affine map and the keys of drawn members.
#[derive(Debug)]
struct Draws {
    map: wgpu::Buffer,
    keys: wgpu::Buffer,
}

/// The block sums and their totals.
#[derive(Debug)]
struct Sums {
    totals: wgpu::Buffer,
    runs: usize,
}

#[derive(Debug)]
struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    groups: [u32; 2],
    work: usize,
}

/// Numbers per block or run of blocks: see `shaders/sums.wgsl`.
fn quantities(sites: usize) -> usize {
    5 + 5 * sites
}

impl LoadedGpu {
    pub fn new(engine: GpuEngine, problem: &Problem) -> Result<Self> {
        let precision = engine.hardware().precision;
        let data = Prepared::new(problem, |v| v);
        let sites = problem.sites();
        let shape = Shape {
            model: data.model,
            sites,
            operator: data.operator,
            full_background: matches!(data.background, BackgroundPrecision::Full { .. }),
            precision,
            layout: MemberLayout::choose(sites, data.operator.block_size, precision, &engine.device.limits)?,
        };
        let mut numbers = vec![data.dt / 2.0, data.dt, data.dt / 6.0];
        let mut place = |field: &Field<f64>| {
            let at = numbers.len() as u32;
            numbers.extend(&field.values);
            (at, field.stride as u32)
        };
        let mut places = Params { steps_per_time: data.steps_per_time as u32, ..Params::default() };
        (places.parameters, places.parameters_stride) = place(&data.parameters);
        (places.mean, places.mean_stride) = place(&data.mean);
        (places.observation, places.observation_stride) = place(&data.observation);
        (places.weight, places.weight_stride) = place(&data.precision);
        match &data.background {
            BackgroundPrecision::Diagonal(field) => (places.inverse, places.inverse_stride) = place(field),
            BackgroundPrecision::Full { matrix, factor } => {
                (places.factor, places.factor_stride) = place(factor);
                (places.inverse, _) = place(&Field { values: matrix.clone(), stride: 0 });
            }
        }
        let bytes = to_bytes(precision, numbers.into_iter());
        let device = &engine.device;
        let limit = device.limits.max_storage_buffer_binding_size;
        if bytes.len() as u64 > limit {
            return Err(Error::invalid(
                "problem set",
                format!("at most {} MiB of observations and backgrounds on this GPU", limit >> 20),
                format!("{} MiB", bytes.len() >> 20),
                "use fewer problems at a time, or --backend cpu",
            ));
        }
        let buffer = storage(device, "problem", bytes.len() as u64)?;
        device.queue.write_buffer(&buffer, 0, &bytes);
        let counters = Counters { bytes_up: bytes.len() as u64, ..Counters::default() };
        Ok(Self { engine, data, shape, problem: buffer, places, last: None, counters })
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn forecast(&mut self, members: Members) -> Result<Array3<f64>> {
        let (times, sites) = (self.data.times, self.data.sites);
        let mut out = Array3::zeros((members.count(self.problems()), times, sites));
        self.each_chunk(
            Operation::Forecast,
            members,
            |_, _, _| Ok(()),
            |this, run, rows| {
                this.read_slots(run, run.slots.at_times, times, rows, out.as_slice_mut().expect("standard layout"))
            },
        )?;
        Ok(out)
    }

    pub fn tangent(&mut self, members: Members, directions: ArrayView2<f64>) -> Result<Array3<f64>> {
        let (times, sites) = (self.data.times, self.data.sites);
        let mut out = Array3::zeros((members.count(self.problems()), times, sites));
        let directions = directions.as_standard_layout();
        self.each_chunk(
            Operation::Tangent,
            members,
            |this, run, rows| {
                let values = directions.as_slice().expect("standard layout");
                this.write_slots(run, run.slots.cotangent, 1, rows, values)
            },
            |this, run, rows| {
                this.read_slots(run, run.slots.at_times, times, rows, out.as_slice_mut().expect("standard layout"))
            },
        )?;
        Ok(out)
    }

    pub fn adjoint(&mut self, members: Members, forcing: ArrayView3<f64>) -> Result<Array2<f64>> {
        let (times, sites) = (self.data.times, self.data.sites);
        let mut out = Array2::zeros((members.count(self.problems()), sites));
        let forcing = forcing.as_standard_layout();
        self.each_chunk(
            Operation::Adjoint,
            members,
            |this, run, rows| {
                let values = forcing.as_slice().expect("standard layout");
                this.write_slots(run, run.slots.at_times, times, rows, values)
            },
            |this, run, rows| {
                this.read_slots(run, run.slots.cotangent, 1, rows, out.as_slice_mut().expect("standard layout"))
            },
        )?;
        Ok(out)
    }

    pub fn cost(&mut self, members: Members, terms: Terms) -> Result<Costs> {
        let mut costs = empty_costs(members.count(self.problems()));
        self.each_chunk(
            Operation::Cost(terms),
            members,
            |_, _, _| Ok(()),
            |this, run, rows| this.read_costs(run, rows, &mut costs),
        )?;
        Ok(costs)
    }

    pub fn gradient(&mut self, members: Members, terms: Terms) -> Result<Gradients> {
        let count = members.count(self.problems());
        let mut costs = empty_costs(count);
        let mut gradient = Array2::zeros((count, self.data.sites));
        self.each_chunk(
            Operation::Gradient(terms),
            members,
            |_, _, _| Ok(()),
            |this, run, rows| {
                this.read_costs(run, rows.clone(), &mut costs)?;
                this.read_slots(run, run.slots.cotangent, 1, rows, gradient.as_slice_mut().expect("standard layout"))
            },
        )?;
        Ok(Gradients { costs, gradient })
    }

    pub fn moments(&mut self, draw: &Draw, terms: Terms) -> Result<Vec<Moments>> {
        let sites = self.data.sites;
        let per_run = quantities(sites);
        let mut numbers = Vec::new();
        self.each_chunk(
            Operation::Moments(terms),
            Members::Drawn(draw),
            |_, _, _| Ok(()),
            |this, run, rows| {
                if rows.end == run.plan.chunks.last().map_or(0, |c| c.end) {
                    let sums = run.sums.as_ref().expect("a moments run has sums");
                    numbers = this.read(run, &[(&sums.totals, 0, sums.runs * per_run)])?;
                }
                Ok(())
            },
        )?;
        let runs_per_problem = numbers.len() / per_run / self.problems();
        let mut runs = numbers.chunks(per_run).map(|q| {
            let array = |k: usize| q[5 + k * sites..5 + (k + 1) * sites].to_vec();
            Moments {
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
            }
        });
        let mut moments = Vec::with_capacity(self.data.seeds.len());
        for _ in 0..self.data.seeds.len() {
            let mut total = runs.next().expect("a run of blocks per problem");
            for _ in 1..runs_per_problem {
                total.merge(&runs.next().expect("equally many per problem"));
            }
            moments.push(total);
        }
        if numbers.iter().any(|v| !v.is_finite()) {
            return Err(Error::Device {
                message: "a sum over members is not finite although diverged members were left out".into(),
                help: "use --precision f64 or --backend cpu, and report this".into(),
            });
        }
        Ok(moments)
    }

    fn problems(&self) -> usize {
        self.data.seeds.len()
    }

    /// Runs an operation chunk by chunk: `fill` sends what a chunk needs beside its members, `read` takes its results.
    fn each_chunk(
        &mut self,
        operation: Operation,
        members: Members,
        mut fill: impl FnMut(&mut Self, &Run, Range<usize>) -> Result<()>,
        mut read: impl FnMut(&mut Self, &Run, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let call =
            Call { operation, drawn: matches!(members, Members::Drawn(_)), count: members.count(self.problems()) };
        let run = match self.last.take() {
            Some((last, run)) if last == call => run,
            _ => self.build(call)?,
        };
        let given = match &members {
            Members::Given(array) => Some(array.as_standard_layout()),
            Members::Drawn(draw) => {
                self.send_draw(&run, draw);
                None
            }
        };
        for (chunk, dispatches) in run.plan.chunks.iter().zip(&run.chunks) {
            if let Some(given) = &given {
                self.write_slots(&run, 0, 1, chunk.clone(), given.as_slice().expect("standard layout"))?;
            }
            fill(self, &run, chunk.clone())?;
            let last: &[Dispatch] = if chunk.end == call.count { &run.last } else { &[] };
            self.submit(dispatches.iter().chain(last));
            read(self, &run, chunk.clone())?;
        }
        self.engine.device.check()?;
        self.count_steps(&call, &run.plan);
        self.last = Some((call, run));
        Ok(())
    }

    fn count_steps(&mut self, call: &Call, plan: &Plan) {
        let steps = self.steps(call.operation);
        let again = plan.segments.range(plan.segments.count() - 1).start;
        let (model, adjoint, tangent) = match call.operation {
            Operation::Forecast | Operation::Cost(_) => (steps, 0, 0),
            Operation::Gradient(_) | Operation::Moments(_) | Operation::Adjoint => (steps + again, steps, 0),
            Operation::Tangent => (steps, 0, steps),
        };
        self.counters.model_steps += (model * call.count) as u64;
        self.counters.adjoint_steps += (adjoint * call.count) as u64;
        self.counters.tangent_steps += (tangent * call.count) as u64;
    }

    /// RK4 steps of an operation's sweep.
    fn steps(&self, operation: Operation) -> usize {
        match operation {
            Operation::Forecast | Operation::Tangent | Operation::Adjoint => self.data.stored_steps(),
            Operation::Cost(terms) | Operation::Gradient(terms) | Operation::Moments(terms) => {
                if terms.observation {
                    self.data.assimilated_steps()
                } else {
                    0
                }
            }
        }
    }

    /// Cuts a call and makes its buffers and dispatches.
    fn build(&mut self, call: Call) -> Result<Run> {
        let Call { operation, drawn, count } = call;
        let (problems, sites, times) = (self.problems(), self.data.sites, self.data.times);
        let precision = self.shape.precision;
        let device = self.engine.device.clone();
        let reverse = matches!(operation, Operation::Gradient(_) | Operation::Moments(_) | Operation::Adjoint);
        let moments = matches!(operation, Operation::Moments(_));
        let stored = match operation {
            Operation::Forecast | Operation::Tangent | Operation::Adjoint => times,
            _ => 0,
        };
        let states_in_flight = if reverse { 0 } else { 3 };
        let need = Need {
            count,
            per_problem: count / problems,
            // Sums need whole blocks; nothing else minds where a chunk ends.
            block: if moments { BLOCK } else { 64 },
            sites,
            steps: self.steps(operation),
            reverse,
            slots: states_in_flight + 3 + stored,
            precision,
        };
        let plan = Plan::new(&need, self.engine.memory, &device.limits)?;
        let kept = if reverse { plan.segments.count() } else { states_in_flight };
        let cotangent = kept + if reverse { plan.segments.length() } else { 0 };
        let slots =
            Slots { kept, cotangent, epsilon: cotangent + 1, background: cotangent + 2, at_times: cotangent + 3 };
        let capacity = plan.capacity;
        let number = precision.bytes();
        let states = storage(&device, "states", plan.bytes)?;
        let costs = storage(&device, "costs", (3 * capacity * number) as u64)?;
        let blocks_per_problem = need.per_problem.div_ceil(BLOCK);
        let runs_per_problem = blocks_per_problem.div_ceil(256);
        let (blocks, runs) = (problems * blocks_per_problem, problems * runs_per_problem);
        let per_run = quantities(sites);
        let partials =
            if moments { Some(storage(&device, "partials", (blocks * per_run * number) as u64)?) } else { None };
        let sums = if moments {
            Some(Sums { totals: storage(&device, "totals", (runs * per_run * number) as u64)?, runs })
        } else {
            None
        };
        let staged = match operation {
            Operation::Moments(_) => runs * per_run,
            Operation::Cost(_) => 3 * capacity,
            _ => 3 * capacity + stored.max(1) * sites * capacity,
        };
        let staging = buffer(
            &device,
            "staging",
            (staged * number) as u64,
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        )?;
        let draws = if drawn {
            Some(Draws {
                map: storage(&device, "map", (2 * problems * sites * number) as u64)?,
                keys: storage(&device, "keys", (8 + 8 * problems) as u64)?,
            })
        } else {
            None
        };
        let builder = Builder { loaded: self, device: &device, states: &states, costs: &costs };
        let mut chunks = Vec::with_capacity(plan.chunks.len());
        for rows in &plan.chunks {
            let mut dispatches = Vec::new();
            let params = Params {
                rows: rows.len() as u32,
                capacity: capacity as u32,
                first_row: rows.start as u32,
                per_problem: need.per_problem as u32,
                cotangent: slots.cotangent as u32,
                background: slots.background as u32,
                kept: slots.kept as u32,
                at_times: slots.at_times as u32,
                ..builder.loaded.places
            };
            if let Some(draws) = &draws {
                let params = Params { next_state: slots.epsilon as u32, ..params };
                let groups = (capacity * sites.div_ceil(4)).div_ceil(64);
                dispatches.push(builder.dispatch(Kernel::Draw, params, groups, 0, &[&draws.map, &draws.keys])?);
            }
            builder.sweep(operation, &plan, params, &mut dispatches)?;
            if let Some(partials) = &partials {
                let block = |row: usize| row / need.per_problem * blocks_per_problem + row % need.per_problem / BLOCK;
                let first = block(rows.start);
                let count = block(rows.end - 1) + 1 - first;
                let uniform =
                    builder.uniform(&[first as u32, blocks_per_problem as u32, count as u32, blocks as u32])?;
                let params = Params { next_state: slots.epsilon as u32, ..params };
                dispatches.push(builder.dispatch(Kernel::Sums, params, count, 0, &[partials, &uniform])?);
            }
            chunks.push(dispatches);
        }
        let mut last = Vec::new();
        if let (Some(partials), Some(sums)) = (&partials, &sums) {
            let uniform = builder.uniform(&[
                blocks_per_problem as u32,
                runs_per_problem as u32,
                blocks as u32,
                (runs * per_run) as u32,
            ])?;
            let params = Params { rows: 1, capacity: capacity as u32, ..Params::default() };
            last.push(builder.dispatch(
                Kernel::Totals,
                params,
                runs * per_run,
                0,
                &[partials, &sums.totals, &uniform],
            )?);
        }
        device.check()?;
        Ok(Run { plan, slots, states, costs, staging, draws, sums, chunks, last })
    }

    /// Sends the affine map and the iteration.
    fn send_draw(&mut self, run: &Run, draw: &Draw) {
        let Some(draws) = &run.draws else { return };
        let Scale::Diagonal(scale) = &draw.map.scale;
        let rows = draw.map.mean.rows().into_iter().zip(scale.rows());
        let numbers = rows.flat_map(|(mean, scale)| mean.to_vec().into_iter().chain(scale.to_vec()));
        let map = to_bytes(self.shape.precision, numbers);
        let mut keys = vec![draw.stream as u32, draw.iteration];
        keys.extend(self.data.seeds.iter().flat_map(|s| [*s as u32, (*s >> 32) as u32]));
        let keys: &[u8] = bytemuck::cast_slice(&keys);
        self.engine.device.queue.write_buffer(&draws.map, 0, &map);
        self.engine.device.queue.write_buffer(&draws.keys, 0, keys);
        self.counters.bytes_up += (map.len() + keys.len()) as u64;
    }

    /// Submits dispatches in order, in pieces that no driver takes for a hang.
    fn submit<'a>(&mut self, dispatches: impl Iterator<Item = &'a Dispatch>) {
        let device = self.engine.device.clone();
        let mut dispatches = dispatches.peekable();
        while dispatches.peek().is_some() {
            let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                let mut work = 0;
                while let Some(d) = dispatches.next_if(|d| work == 0 || work + d.work <= DISPATCH_WORK) {
                    pass.set_pipeline(&d.pipeline);
                    pass.set_bind_group(0, &d.bindings, &[]);
                    pass.dispatch_workgroups(d.groups[0], d.groups[1], 1);
                    work += d.work;
                    self.counters.dispatches += 1;
                }
            }
            device.queue.submit([encoder.finish()]);
            self.counters.submissions += 1;
        }
    }

    /// Sends `[rows, slices, sites]` of all rows' values into slots.
    fn write_slots(&mut self, run: &Run, slot: usize, slices: usize, rows: Range<usize>, values: &[f64]) -> Result<()> {
        let (sites, capacity) = (self.data.sites, run.plan.capacity);
        let per_row = slices * sites;
        let offset = (slot * sites * capacity * self.shape.precision.bytes()) as u64;
        let numbers = (0..per_row).flat_map(|i| {
            let rows = rows.clone();
            (0..capacity).map(move |k| if k < rows.len() { values[(rows.start + k) * per_row + i] } else { 0.0 })
        });
        let bytes = to_bytes(self.shape.precision, numbers);
        self.engine.device.queue.write_buffer(&run.states, offset, &bytes);
        self.counters.bytes_up += bytes.len() as u64;
        Ok(())
    }

    /// Takes `[rows, slices, sites]` from slots into the rows' places among all rows' values.
    fn read_slots(
        &mut self,
        run: &Run,
        slot: usize,
        slices: usize,
        rows: Range<usize>,
        values: &mut [f64],
    ) -> Result<()> {
        let (sites, capacity) = (self.data.sites, run.plan.capacity);
        let per_row = slices * sites;
        let numbers = self.read(run, &[(&run.states, slot * sites * capacity, per_row * capacity)])?;
        for (k, row) in rows.enumerate() {
            for i in 0..per_row {
                values[row * per_row + i] = numbers[i * capacity + k];
            }
        }
        Ok(())
    }

    fn read_costs(&mut self, run: &Run, rows: Range<usize>, costs: &mut Costs) -> Result<()> {
        let capacity = run.plan.capacity;
        let numbers = self.read(run, &[(&run.costs, 0, 3 * capacity)])?;
        for (k, row) in rows.enumerate() {
            let (background, observation) = (numbers[k], numbers[capacity + k]);
            costs.background[row] = background;
            costs.observation[row] = observation;
            costs.diverged[row] =
                numbers[2 * capacity + k] != 0.0 || !background.is_finite() || !observation.is_finite();
        }
        Ok(())
    }

    /// Numbers from buffers: (buffer, first number, count), one after the other.
    fn read(&mut self, run: &Run, from: &[(&wgpu::Buffer, usize, usize)]) -> Result<Vec<f64>> {
        let device = self.engine.device.clone();
        let number = self.shape.precision.bytes();
        let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut bytes = 0;
        for (buffer, first, count) in from {
            let size = (count * number) as u64;
            encoder.copy_buffer_to_buffer(buffer, (first * number) as u64, &run.staging, bytes, size);
            bytes += size;
        }
        device.queue.submit([encoder.finish()]);
        self.counters.submissions += 1;
        self.counters.bytes_down += bytes;
        run.staging.map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        let failed = |e: &dyn std::fmt::Display| {
            device.check().err().unwrap_or_else(|| Error::Device {
                message: e.to_string(),
                help: "try a smaller --memory, or --backend cpu".into(),
            })
        };
        device.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failed(&e))?;
        let view = run.staging.get_mapped_range(..bytes).map_err(|e| failed(&e))?;
        let numbers = match self.shape.precision {
            Precision::F32 => bytemuck::cast_slice::<u8, f32>(&view).iter().map(|v| f64::from(*v)).collect(),
            Precision::F64 => bytemuck::cast_slice(&view).to_vec(),
        };
        drop(view);
        run.staging.unmap();
        Ok(numbers)
    }
}

/// Makes the dispatches of one run.
struct Builder<'a> {
    loaded: &'a LoadedGpu,
    device: &'a Device,
    states: &'a wgpu::Buffer,
    costs: &'a wgpu::Buffer,
}

impl Builder<'_> {
    /// The sweeps of an operation over one chunk.
    fn sweep(&self, operation: Operation, plan: &Plan, params: Params, dispatches: &mut Vec<Dispatch>) -> Result<()> {
        let shape = self.loaded.shape;
        let terms = match operation {
            Operation::Cost(terms) | Operation::Gradient(terms) | Operation::Moments(terms) => terms,
            _ => Terms { background: false, observation: false },
        };
        let mut flags = 0;
        flags |= if terms.observation { OBSERVATION } else { 0 };
        flags |= if terms.background { BACKGROUND } else { 0 };
        flags |= if operation == Operation::Forecast { STORE } else { 0 };
        if terms.background && shape.full_background {
            let groups = (plan.capacity * shape.sites).div_ceil(64);
            let work = plan.capacity * shape.sites * shape.sites;
            dispatches.push(self.dispatch(Kernel::Background, params, groups, work, &[])?);
        }
        let count = plan.segments.count();
        let segment = |k: usize, state: usize, next: usize| {
            let range = plan.segments.range(k);
            let ends = if k == 0 { FIRST } else { 0 } | if k + 1 == count { LAST } else { 0 };
            Params {
                first_step: range.start as u32,
                steps: range.len() as u32,
                state: state as u32,
                next_state: next as u32,
                flags: flags | ends,
                ..params
            }
        };
        let groups = (params.rows as usize).div_ceil(shape.layout.members_per_group);
        let work = |p: &Params| p.rows as usize * p.steps as usize * shape.sites * WORK_PER_SITE;
        match operation {
            Operation::Gradient(_) | Operation::Moments(_) | Operation::Adjoint => {
                for k in 0..count - 1 {
                    let p = segment(k, k, k + 1);
                    dispatches.push(self.dispatch(Kernel::Forward, p, groups, work(&p), &[])?);
                }
                let kernel = if operation == Operation::Adjoint { Kernel::Adjoint } else { Kernel::Reverse };
                for k in (0..count).rev() {
                    let p = segment(k, k, k + 1);
                    dispatches.push(self.dispatch(kernel, p, groups, work(&p), &[])?);
                }
            }
            Operation::Forecast | Operation::Cost(_) | Operation::Tangent => {
                let kernel = if operation == Operation::Tangent { Kernel::Tangent } else { Kernel::Forward };
                // Slot 0 keeps the initial state; the others take turns.
                let slot = |k: usize| if k == 0 { 0 } else { 1 + k % 2 };
                for k in 0..count {
                    let p = segment(k, slot(k), slot(k + 1));
                    dispatches.push(self.dispatch(kernel, p, groups, work(&p), &[])?);
                }
            }
        }
        Ok(())
    }

    /// A dispatch of `groups` workgroups. They fold into two dimensions here and nowhere else.
    fn dispatch(
        &self,
        kernel: Kernel,
        params: Params,
        groups: usize,
        work: usize,
        extra: &[&wgpu::Buffer],
    ) -> Result<Dispatch> {
        let most = self.device.limits.max_compute_workgroups_per_dimension as usize;
        let x = groups.min(most);
        let y = groups.div_ceil(x);
        if y > most {
            return Err(Error::invalid(
                "members",
                format!("at most {} workgroups in one dispatch", most * most),
                groups.to_string(),
                "use a smaller --memory, which makes smaller chunks",
            ));
        }
        let params = Params { groups_x: x as u32, ..params };
        let uniform = self.uniform(bytemuck::cast_slice(std::slice::from_ref(&params)))?;
        let pipeline = self.loaded.engine.pipeline(kernel, &self.loaded.shape)?;
        let buffers = [&uniform, &self.loaded.problem, self.states, self.costs];
        let entries: Vec<_> = (0..)
            .zip(buffers.iter().chain(extra))
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bindings = self.device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.entry_point()),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Ok(Dispatch { pipeline, bindings, groups: [x as u32, y as u32], work })
    }

    fn uniform(&self, words: &[u32]) -> Result<wgpu::Buffer> {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let size = bytes.len().next_multiple_of(16) as u64;
        let made = buffer(self.device, "params", size, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
        self.device.queue.write_buffer(&made, 0, bytes);
        Ok(made)
    }
}

fn storage(device: &Device, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let limit = device.limits.max_storage_buffer_binding_size;
    if bytes > limit {
        return Err(Error::invalid(
            format!("buffer of {label}"),
            format!("at most {} MiB, the largest that this GPU binds", limit >> 20),
            format!("{} MiB", bytes >> 20),
            "use fewer members or problems at a time",
        ));
    }
    buffer(device, label, bytes, usage)
}

fn buffer(device: &Device, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
    let made = device.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.next_multiple_of(4),
        usage,
        mapped_at_creation: false,
    });
    device.check()?;
    Ok(made)
}

fn to_bytes(precision: Precision, numbers: impl Iterator<Item = f64>) -> Vec<u8> {
    match precision {
        Precision::F32 => numbers.flat_map(|v| (v as f32).to_ne_bytes()).collect(),
        Precision::F64 => numbers.flat_map(f64::to_ne_bytes).collect(),
    }
}

fn empty_costs(count: usize) -> Costs {
    Costs { background: Array1::zeros(count), observation: Array1::zeros(count), diverged: vec![false; count] }
}
