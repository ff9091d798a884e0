//! The buffers of a call, and those of resident members.

use super::buffers::{Region, buffer, storage};
use super::call::{Call, Slots, Source};
use super::plan::{Plan, quantities};
use super::shader::Kernel;
use super::uploaded::Uploaded;
use crate::engine::CostHistogram;
use crate::engine::operation::Operation;
use crate::error::Result;

/// Bytes of a row of the list: see `shaders/member.wgsl`.
const ROW_BYTES: usize = 20;

/// The buffers of a call.
#[derive(Debug)]
pub struct Memory {
    pub states: wgpu::Buffer,
    pub costs: wgpu::Buffer,
    pub staging: wgpu::Buffer,
    pub draws: Option<Draws>,
    /// Whose each member is.
    pub list: Option<wgpu::Buffer>,
    pub sums: Option<Sums>,
    pub select: Option<Select>,
    pub store: Option<Store>,
}

/// The affine map and the keys of drawn members.
#[derive(Debug)]
pub struct Draws {
    pub map: wgpu::Buffer,
    pub keys: wgpu::Buffer,
    /// What multiplies the draws beside a diagonal: L of each problem or of all, or W of each and then Z of each.
    pub scale: Option<wgpu::Buffer>,
}

/// Sums over blocks of members.
#[derive(Debug)]
pub struct Sums {
    /// `[quantities, blocks]`
    pub partials: wgpu::Buffer,
    /// `[runs, quantities]`
    pub totals: wgpu::Buffer,
    /// On the pattern of a scale: of the blocks of a dispatch, and of runs.
    pub pattern: Option<[wgpu::Buffer; 2]>,
}

/// What a selection keeps on the device.
#[derive(Clone, Debug)]
pub struct Select {
    /// Counts `[P, BINS]` of u32.
    pub histogram: wgpu::Buffer,
    /// Sums of weights: `[blocks of a chunk, 3]`.
    pub partials: wgpu::Buffer,
    /// `[P]`
    pub bounds: wgpu::Buffer,
    /// How many a chunk listed, then their rows.
    pub listed: wgpu::Buffer,
    /// Their J_b and J_o: `[capacity, 2]`.
    pub listed_costs: wgpu::Buffer,
}

/// Where resident members are kept between calls.
#[derive(Clone, Debug)]
pub struct Store {
    pub id: u64,
    /// Control, background, and Adam's running means: `[4, control, stride]`.
    pub numbers: wgpu::Buffer,
    pub stride: usize,
    /// `[P, control]`
    pub units: wgpu::Buffer,
    /// Adam's numbers: `[STEPS_AT_A_TIME, 8]`.
    pub steps: wgpu::Buffer,
}

impl Memory {
    /// Makes the buffers of a call, cut by `plan`. Resident members come with their store.
    ///
    /// # Errors
    /// A buffer larger than the device binds.
    pub fn new(uploaded: &Uploaded, call: &Call, plan: &Plan, store: Option<&Store>) -> Result<Self> {
        let (problems, control) = (uploaded.problems(), uploaded.data.control.len());
        let (device, number) = (&uploaded.device, uploaded.shape.precision.bytes());
        let capacity = plan.capacity;
        let sums = if call.sums() {
            let numbers = |count: usize| (count * quantities(control) * number) as u64;
            Some(Sums {
                partials: storage(device, "partials", numbers(plan.all_blocks().len()))?,
                totals: storage(device, "totals", numbers(plan.all_runs().len()))?,
                pattern: match call.pattern(control) * number {
                    0 => None,
                    bytes => Some([
                        storage(device, "pattern partials", (plan.pattern_blocks * bytes) as u64)?,
                        storage(device, "pattern totals", (plan.all_runs().len() * bytes) as u64)?,
                    ]),
                },
            })
        } else {
            None
        };
        let select = if call.selects() {
            Some(Select {
                histogram: storage(device, "histogram", (4 * CostHistogram::BINS * problems) as u64)?,
                partials: storage(device, "partials", (3 * number * plan.most_blocks()) as u64)?,
                bounds: storage(device, "bounds", (number * problems) as u64)?,
                listed: storage(device, "listed", (4 + 4 * capacity) as u64)?,
                listed_costs: storage(device, "listed costs", (2 * number * capacity) as u64)?,
            })
        } else {
            None
        };
        let scale = match call.source {
            Source::Lower(matrices) => matrices * control * control,
            Source::LowRank(rank) => 2 * problems * control * rank,
            Source::Given | Source::Diagonal => 0,
        };
        let draws = match call.source {
            Source::Given => None,
            Source::Diagonal | Source::Lower(_) | Source::LowRank(_) => Some(Draws {
                scale: if scale > 0 { Some(storage(device, "scale", (scale * number) as u64)?) } else { None },
                map: storage(device, "map", (2 * problems * control * number) as u64)?,
                keys: storage(device, "keys", (8 + 8 * problems) as u64)?,
            }),
        };
        let list =
            if call.ownership.listed { Some(storage(device, "list", (call.count * ROW_BYTES) as u64)?) } else { None };
        let states = storage(device, "states", plan.bytes)?;
        let costs = storage(device, "costs", (3 * capacity * number) as u64)?;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let mut memory =
            Self { staging: costs.clone(), states, costs, draws, list, sums, select, store: store.cloned() };
        // A selection stages what a chunk listed apart, and the histogram at the end.
        let listed =
            if call.selects() { ((4 + 2 * number) * capacity).max(4 * CostHistogram::BINS * problems) } else { 0 };
        let slots = call.slots(plan.segments.count(), uploaded.data.times, uploaded.data.control);
        let staged = memory.results(uploaded, call, plan, &slots).iter().map(|r| r.bytes).sum::<u64>();
        memory.staging = buffer(device, "staging", staged.max(listed as u64), usage)?;
        Ok(memory)
    }

    /// What comes back of each chunk, or where sums over all of them follow, of the last.
    pub fn results(&self, uploaded: &Uploaded, call: &Call, plan: &Plan, slots: &Slots) -> Vec<Region> {
        let (capacity, sites, number) = (plan.capacity, uploaded.data.sites, uploaded.shape.precision.bytes());
        let control = uploaded.data.control.len();
        let region = |buffer: &wgpu::Buffer, first: usize, count: usize| Region {
            buffer: buffer.clone(),
            first: (first * number) as u64,
            bytes: (count * number) as u64,
        };
        let slot = |at: usize, numbers: usize| region(&self.states, at * sites * capacity, numbers * capacity);
        match call.operation {
            Operation::Forecast | Operation::Tangent => vec![slot(slots.at_times, uploaded.data.times * sites)],
            Operation::Adjoint => vec![slot(slots.cotangent, control)],
            Operation::Cost(_) => vec![region(&self.costs, 0, 3 * capacity)],
            Operation::Gradient(_) => vec![region(&self.costs, 0, 3 * capacity), slot(slots.cotangent, control)],
            Operation::Moments(_) => {
                let runs = plan.all_runs().len();
                let pattern = |[_, totals]: &[wgpu::Buffer; 2]| region(totals, 0, runs * call.pattern(control));
                let regions = |s: &Sums| {
                    let totals = region(&s.totals, 0, runs * quantities(control));
                    [totals].into_iter().chain(s.pattern.as_ref().map(pattern)).collect()
                };
                self.sums.as_ref().map_or(Vec::new(), regions)
            }
            Operation::Select(..) => (self.select.iter())
                .flat_map(|s| {
                    let listed = Region { buffer: s.listed.clone(), first: 0, bytes: 4 };
                    [region(&s.partials, 0, 3 * plan.most_blocks()), listed]
                })
                .collect(),
        }
    }

    /// The storage buffers that a kernel binds beside the first four and the list, in the order of its bindings.
    pub fn beside(&self, kernel: Kernel) -> Vec<&wgpu::Buffer> {
        let Self { draws, sums, select, store, .. } = self;
        let found: Option<Vec<_>> = match kernel {
            Kernel::Draw => draws.as_ref().map(|d| vec![&d.map, &d.keys]),
            Kernel::Lower | Kernel::Project | Kernel::LowRank => draws.as_ref().map(|d| d.scale.iter().collect()),
            Kernel::Sums => sums.as_ref().map(|s| vec![&s.partials]),
            Kernel::Totals => sums.as_ref().map(|s| vec![&s.partials, &s.totals]),
            Kernel::LowerPattern | Kernel::LowRankPattern => {
                sums.as_ref().and_then(|s| s.pattern.as_ref()).map(|[partials, _]| vec![partials])
            }
            Kernel::PatternTotals => sums.as_ref().and_then(|s| s.pattern.as_ref()).map(|both| both.iter().collect()),
            Kernel::Fetch => store.as_ref().map(|s| vec![&s.numbers]),
            Kernel::Adam => store.as_ref().map(|s| vec![&s.numbers, &s.units, &s.steps]),
            Kernel::Select => select.as_ref().map(|s| vec![&s.histogram, &s.partials]),
            Kernel::Gather => select.as_ref().map(|s| vec![&s.histogram, &s.bounds, &s.listed, &s.listed_costs]),
            Kernel::Background
            | Kernel::Errors
            | Kernel::Forward
            | Kernel::Reverse
            | Kernel::Adjoint
            | Kernel::Tangent => None,
        };
        found.unwrap_or_default()
    }
}
