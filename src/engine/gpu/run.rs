//! What one call dispatches: its cut, its buffers, its kernels with their bindings. Built once for a loop of equal calls.

use super::adapter::Device;
use super::params::{BACKGROUND, FIRST, LAST, OBSERVATION, Params, STORE};
use super::plan::{Need, Plan, WORK_PER_SITE};
use super::resident::{STEPS_AT_A_TIME, Store};
use super::shader::{Kernel, Ownership, Shape};
use super::uploaded::{Uploaded, buffer, storage};
use crate::engine::operation::Operation;
use crate::engine::{BLOCK, CostHistogram, Members, Scale};
use crate::error::{Error, Result};
use ndarray::Axis;
use std::ops::Range;

/// What a run is built for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    pub operation: Operation,
    pub source: Source,
    pub ownership: Ownership,
    pub count: usize,
    /// The store of resident members.
    pub store: Option<u64>,
}

/// Where the members of a call come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Given,
    /// Drawn from maps of diagonal scale.
    Diagonal,
    /// Drawn from maps of so many lower triangular scales: one, or one per problem.
    Lower(usize),
}

impl Source {
    pub fn of(members: Members) -> Self {
        match members {
            Members::Given(_) | Members::Listed(_) => Self::Given,
            Members::Drawn(draw) => match &draw.map.scale {
                Scale::Diagonal(_) => Self::Diagonal,
                Scale::Lower(scale) => Self::Lower(scale.len_of(Axis(0))),
            },
        }
    }
}

/// Buffers and dispatches of a call.
#[derive(Debug)]
pub struct Run {
    pub plan: Plan,
    pub slots: Slots,
    pub states: wgpu::Buffer,
    pub staging: wgpu::Buffer,
    pub draws: Option<Draws>,
    /// Whose each member is.
    pub list: Option<wgpu::Buffer>,
    /// What resident members need beside the dispatches of each chunk.
    pub resident: Vec<ResidentDispatches>,
    /// The dispatches of each chunk, and those that follow the last one.
    pub chunks: Vec<Vec<Dispatch>>,
    pub last: Vec<Dispatch>,
    /// What comes back: of each chunk, or where dispatches follow the last one, of them.
    pub results: Vec<Region>,
    pub select: Option<Select>,
}

/// Where a run keeps its states, in slots of [sites, capacity]. The first ones are the initial state and, in a
/// reverse sweep, the other checkpoints.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    pub cotangent: usize,
    pub epsilon: usize,
    pub background: usize,
    pub own_background: usize,
    pub at_times: usize,
}

/// The affine map and the keys of drawn members.
#[derive(Debug)]
pub struct Draws {
    pub map: wgpu::Buffer,
    pub keys: wgpu::Buffer,
    pub lower: Option<wgpu::Buffer>,
}

/// What a chunk of resident members needs beside its sweeps.
#[derive(Debug)]
pub struct ResidentDispatches {
    /// Brings them.
    pub fetch: Dispatch,
    /// An Adam step by the first, the second, ... numbers that were sent.
    pub adam: Vec<Dispatch>,
}

/// What a selection keeps on the device.
#[derive(Debug)]
pub struct Select {
    /// Counts `[P, BINS]` of u32.
    pub histogram: wgpu::Buffer,
    /// `[P]`
    pub bounds: wgpu::Buffer,
    /// How many a chunk listed, then their rows.
    pub listed: wgpu::Buffer,
    /// Their J_b and J_o: `[capacity, 2]`.
    pub listed_costs: wgpu::Buffer,
}

/// Bytes of a buffer.
#[derive(Debug)]
pub struct Region {
    pub buffer: wgpu::Buffer,
    pub first: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Dispatch {
    pub pipeline: wgpu::ComputePipeline,
    pub bindings: wgpu::BindGroup,
    pub groups: [u32; 2],
    pub work: usize,
}

/// Bytes of a row of the list: see `shaders/member.wgsl`.
pub const ROW_BYTES: usize = 20;

/// Blocks whose sums are added on the device. The host adds the rest, in f64.
pub const BLOCKS_PER_RUN: usize = 256;

/// Numbers per block or run of blocks: see `shaders/sums.wgsl`.
pub fn quantities(sites: usize) -> usize {
    5 + 5 * sites
}

impl Run {
    /// Cuts a call and makes its buffers and dispatches. Resident members come with their store.
    ///
    /// # Errors
    /// A call that does not fit the device or the memory budget.
    pub fn new(uploaded: &Uploaded, call: Call, store: Option<&Store>) -> Result<Self> {
        let Call { operation, source, ownership, count, .. } = call;
        let (problems, sites, times) = (uploaded.problems(), uploaded.data.sites, uploaded.data.times);
        let precision = uploaded.shape.precision;
        let device = uploaded.engine.device.clone();
        let reverse = operation.reverse();
        let moments = matches!(operation, Operation::Moments(_));
        let selects = matches!(operation, Operation::Select(..));
        let stored = if operation.whole_window() { times } else { 0 };
        let states_in_flight = if reverse { 0 } else { 3 };
        // Backgrounds, and the draws of perturbed observations.
        let own = usize::from(ownership.own_background) + 2 * usize::from(ownership.perturbed);
        let need = Need {
            count,
            per_problem: if ownership.listed { count } else { count / problems },
            // Sums need whole blocks; nothing else minds where a chunk ends.
            block: if moments || selects { BLOCK } else { 64 },
            sites,
            steps: operation.steps(&uploaded.data),
            reverse,
            slots: states_in_flight + 3 + own + stored,
            block_size: uploaded.data.operator.block_size,
            layout: uploaded.shape.layout,
            precision,
        };
        let plan = Plan::new(&need, uploaded.engine.memory, &device.limits)?;
        let cotangent = if reverse { plan.segments.count() } else { states_in_flight };
        let slots = Slots {
            cotangent,
            epsilon: if ownership.perturbed { cotangent + 3 } else { cotangent + 1 },
            background: cotangent + 2,
            own_background: cotangent + 3 + 2 * usize::from(ownership.perturbed),
            at_times: cotangent + 3 + own,
        };
        let after_slots = slots.at_times + stored;
        let capacity = plan.capacity;
        let number = precision.bytes();
        let states = storage(&device, "states", plan.bytes)?;
        let costs = storage(&device, "costs", (3 * capacity * number) as u64)?;
        let blocks_per_problem = plan.blocks_per_problem();
        let runs_per_problem = blocks_per_problem.div_ceil(BLOCKS_PER_RUN);
        let (blocks, runs) = (problems * blocks_per_problem, problems * runs_per_problem);
        let per_run = quantities(sites);
        let sums = if moments {
            let numbers = |count: usize| (count * per_run * number) as u64;
            Some((storage(&device, "partials", numbers(blocks))?, storage(&device, "totals", numbers(runs))?))
        } else {
            None
        };
        let region = |buffer: &wgpu::Buffer, first: usize, count: usize| Region {
            buffer: buffer.clone(),
            first: (first * number) as u64,
            bytes: (count * number) as u64,
        };
        let select = if selects {
            let most_blocks = plan.chunks.iter().map(|rows| plan.blocks(rows).len()).max().unwrap_or(1);
            let buffers = Select {
                histogram: storage(&device, "histogram", (4 * CostHistogram::BINS * problems) as u64)?,
                bounds: storage(&device, "bounds", (number * problems) as u64)?,
                listed: storage(&device, "listed", (4 + 4 * capacity) as u64)?,
                listed_costs: storage(&device, "listed costs", (2 * number * capacity) as u64)?,
            };
            let partials = storage(&device, "partials", (3 * number * most_blocks) as u64)?;
            Some((buffers, partials, 3 * most_blocks))
        } else {
            None
        };
        let slot = |at: usize, count: usize| region(&states, at * sites * capacity, count * sites * capacity);
        let results = match operation {
            Operation::Forecast | Operation::Tangent => vec![slot(slots.at_times, times)],
            Operation::Adjoint => vec![slot(slots.cotangent, 1)],
            Operation::Cost(_) => vec![region(&costs, 0, 3 * capacity)],
            Operation::Gradient(_) => vec![region(&costs, 0, 3 * capacity), slot(slots.cotangent, 1)],
            Operation::Moments(_) => sums.iter().map(|(_, totals)| region(totals, 0, runs * per_run)).collect(),
            Operation::Select(..) => select
                .iter()
                .flat_map(|(select, partials, count)| {
                    [region(partials, 0, *count), Region { buffer: select.listed.clone(), first: 0, bytes: 4 }]
                })
                .collect(),
        };
        // A selection stages what a chunk listed apart, and the histogram at the end.
        let listed = if selects { ((4 + 2 * number) * capacity).max(4 * CostHistogram::BINS * problems) } else { 0 };
        let staged = results.iter().map(|r| r.bytes).sum::<u64>().max(listed as u64);
        let staging = buffer(&device, "staging", staged, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        let lower = match source {
            Source::Lower(matrices) => Some(storage(&device, "scale", (matrices * sites * sites * number) as u64)?),
            Source::Given | Source::Diagonal => None,
        };
        let draws = match source {
            Source::Given => None,
            Source::Diagonal | Source::Lower(_) => Some(Draws {
                lower,
                map: storage(&device, "map", (2 * problems * sites * number) as u64)?,
                keys: storage(&device, "keys", (8 + 8 * problems) as u64)?,
            }),
        };
        let list = if ownership.listed { Some(storage(&device, "list", (count * ROW_BYTES) as u64)?) } else { None };
        let steps_in_group = uploaded.shape.layout.steps_in_group(plan.segments.length());
        let builder = Builder {
            uploaded,
            device: &device,
            states: &states,
            costs: &costs,
            list: list.as_ref(),
            ownership,
            steps_in_group,
        };
        let mut chunks = Vec::with_capacity(plan.chunks.len());
        let mut resident = Vec::new();
        for rows in &plan.chunks {
            let mut dispatches = Vec::new();
            let params = Params {
                rows: rows.len() as u32,
                capacity: capacity as u32,
                first_row: rows.start as u32,
                per_problem: need.per_problem as u32,
                cotangent: slots.cotangent as u32,
                epsilon: slots.epsilon as u32,
                background: slots.background as u32,
                kept: (after_slots * sites * capacity) as u32,
                lane_costs: plan.lane_costs as u32,
                at_times: slots.at_times as u32,
                own_background: slots.own_background as u32,
                store_stride: store.map_or(0, |s| s.stride as u32),
                ..uploaded.places
            };
            if let Some(draws) = &draws {
                let groups = (capacity * sites.div_ceil(4)).div_ceil(64);
                dispatches.push(builder.dispatch(Kernel::Draw, params, groups, 0, &[&draws.map, &draws.keys])?);
                if let Some(lower) = &draws.lower {
                    let groups = (capacity * sites).div_ceil(64);
                    let work = capacity * sites * sites;
                    dispatches.push(builder.dispatch(Kernel::Lower, params, groups, work, &[lower])?);
                }
            }
            if let Some(store) = store {
                let groups = (capacity * sites).div_ceil(64);
                let adam = |step: usize| {
                    let params = Params { first_step: step as u32, ..params };
                    let extra = [&store.numbers, &store.units, &store.steps];
                    builder.dispatch(Kernel::Adam, params, groups, 0, &extra)
                };
                resident.push(ResidentDispatches {
                    fetch: builder.dispatch(Kernel::Fetch, params, groups, 0, &[&store.numbers])?,
                    adam: (0..STEPS_AT_A_TIME).map(adam).collect::<Result<_>>()?,
                });
            }
            builder.sweep(operation, &plan, params, &mut dispatches)?;
            if let Some((partials, _)) = &sums {
                let uniform = builder.blocks(&plan, rows, blocks as u32)?;
                let groups = plan.blocks(rows).len();
                dispatches.push(builder.dispatch(Kernel::Sums, params, groups, 0, &[partials, &uniform])?);
            }
            if let (Some((select, partials, _)), Operation::Select(_, best)) = (&select, operation) {
                let groups = plan.blocks(rows).len();
                let uniform = builder.blocks(&plan, rows, best)?;
                let Select { histogram, bounds, listed, listed_costs } = select;
                let mut add = |kernel, extra: &[&wgpu::Buffer]| -> Result<()> {
                    dispatches.push(builder.dispatch(kernel, params, groups, 0, extra)?);
                    Ok(())
                };
                add(Kernel::Select, &[&uniform, histogram, partials])?;
                add(Kernel::Gather, &[&uniform, histogram, bounds, listed, listed_costs])?;
            }
            chunks.push(dispatches);
        }
        let mut last = Vec::new();
        if let Some((partials, totals)) = &sums {
            let uniform = builder.uniform(&[
                blocks_per_problem as u32,
                runs_per_problem as u32,
                blocks as u32,
                (runs * per_run) as u32,
            ])?;
            let params = Params { rows: 1, capacity: capacity as u32, ..Params::default() };
            last.push(builder.dispatch(Kernel::Totals, params, runs * per_run, 0, &[partials, totals, &uniform])?);
        }
        device.check()?;
        let select = select.map(|(select, ..)| select);
        Ok(Run { plan, slots, states, staging, draws, list, resident, chunks, last, results, select })
    }
}

/// Makes the dispatches of one run.
#[derive(Clone, Copy)]
struct Builder<'a> {
    uploaded: &'a Uploaded,
    device: &'a Device,
    states: &'a wgpu::Buffer,
    costs: &'a wgpu::Buffer,
    list: Option<&'a wgpu::Buffer>,
    ownership: Ownership,
    steps_in_group: usize,
}

impl Builder<'_> {
    /// The sweeps of an operation over one chunk.
    fn sweep(&self, operation: Operation, plan: &Plan, params: Params, dispatches: &mut Vec<Dispatch>) -> Result<()> {
        let shape = self.uploaded.shape;
        let terms = operation.terms();
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
        let groups = (params.rows as usize).div_ceil(shape.layout.members_per_group());
        let work = |p: &Params| p.rows as usize * p.steps as usize * shape.sites * WORK_PER_SITE;
        let mut sweep = |builder: &Self, kernel: Kernel, k: usize, state: usize, next: usize| -> Result<()> {
            let mut p = segment(k, state, next);
            // Of a reverse sweep, observations enter on the way back alone.
            if operation.reverse() && kernel == Kernel::Forward {
                p.flags &= !OBSERVATION;
            }
            dispatches.push(builder.dispatch(kernel, p, groups, work(&p), &[])?);
            Ok(())
        };
        if operation.reverse() {
            let kernel = if operation == Operation::Adjoint { Kernel::Adjoint } else { Kernel::Reverse };
            let listed = Ownership { listed: self.ownership.listed, ..Ownership::default() };
            let forward = Self { ownership: listed, ..*self };
            (0..count - 1).try_for_each(|k| sweep(&forward, Kernel::Forward, k, k, k + 1))?;
            (0..count).rev().try_for_each(|k| sweep(self, kernel, k, k, k + 1))?;
        } else {
            let kernel = if operation == Operation::Tangent { Kernel::Tangent } else { Kernel::Forward };
            // Slot 0 keeps the initial state; the others take turns.
            let slot = |k: usize| if k == 0 { 0 } else { 1 + k % 2 };
            (0..count).try_for_each(|k| sweep(self, kernel, k, slot(k), slot(k + 1)))?;
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
        let shape = Shape { ownership: self.ownership, steps_in_group: self.steps_in_group, ..self.uploaded.shape };
        let pipeline = self.uploaded.engine.pipeline(kernel, &shape)?;
        let list = self.list.filter(|_| kernel.specialise(self.ownership).listed);
        let buffers = [&uniform, &self.uploaded.problem, self.states, self.costs];
        let entries: Vec<_> = (0..)
            .zip(buffers.into_iter().chain(list).chain(extra.iter().copied()))
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bindings = self.device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.entry_point()),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Ok(Dispatch { pipeline, bindings, groups: [x as u32, y as u32], work })
    }

    /// The `Blocks` of a chunk; `last` is what its kernel reads beside them.
    fn blocks(&self, plan: &Plan, rows: &Range<usize>, last: u32) -> Result<wgpu::Buffer> {
        let own = plan.blocks(rows);
        self.uniform(&[own.start as u32, plan.blocks_per_problem() as u32, own.len() as u32, last])
    }

    fn uniform(&self, words: &[u32]) -> Result<wgpu::Buffer> {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let size = bytes.len().next_multiple_of(16) as u64;
        let made = buffer(self.device, "params", size, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
        self.device.queue.write_buffer(&made, 0, bytes);
        Ok(made)
    }
}
