//! How a call is cut to fit a device: members into chunks by memory and work, the window into segments by time.

use super::layout::MemberLayout;
use crate::engine::schedule::Segments;
use crate::engine::{BLOCK, Precision};
use crate::error::{Error, Result};
use std::ops::Range;

/// Most floating-point operations of one dispatch: 0.4 s at 10 GFLOP/s, where a driver allows about 2 s.
const DISPATCH_WORK: usize = 4_000_000_000;

/// Most RK4 steps of one dispatch. Mesa's software Vulkan silently drops all work of an invocation after 65,535 loop
/// iterations, and a reverse sweep makes two per step.
const DISPATCH_STEPS: usize = 8_192;

/// Members that a dispatch has at least before the window is cut instead: enough to fill a large GPU.
const FEWEST_MEMBERS: usize = 16_384;

/// Operations per member, site and RK4 step of a reverse sweep: forward, stages again, adjoint.
pub const WORK_PER_SITE: usize = 90;

/// Blocks whose sums are added on the device, where each leaves so many on the pattern of a scale: few, so that several devices
/// can share a batch, but more where a run leaves much. The host adds the rest, in f64.
pub fn blocks_per_run(pattern: usize) -> usize {
    match pattern {
        // Of a full rank over 63 numbers.
        0..=4096 => 16,
        // Over 127.
        4097..=16_384 => 64,
        _ => 256,
    }
}

/// Numbers per block or run of blocks, for a control of so many: see `shaders/sums.wgsl`.
pub fn quantities(control: usize) -> usize {
    5 + 5 * control
}

/// Numbers of a control that a workgroup sums over a block, where a control is more than x0.
pub const SUM_COLUMNS: usize = 4096;

/// Longest control, and most errors of the model, over which an invocation may loop: see `DISPATCH_STEPS`.
pub const MOST_LOOPED: usize = 40_000;

/// Most bytes of block sums on the pattern of a scale, before they are added up.
const MOST_PATTERN_BYTES: u64 = 64 << 20;

/// What a call may take at a time.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes of device memory.
    pub bytes: u64,
    /// Floating-point operations of one dispatch.
    pub work: usize,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Self { bytes, work: DISPATCH_WORK }
    }

    pub fn half(self) -> Self {
        Self { bytes: (self.bytes / 2).max(1), work: (self.work / 2).max(1) }
    }
}

/// What an operation asks for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The first row of the call, among those of the batch, and how many it has.
    pub first: usize,
    pub count: usize,
    /// Members of one problem in the batch.
    pub per_problem: usize,
    /// Members of one problem that a chunk never parts.
    pub block: usize,
    pub sites: usize,
    /// RK4 steps of the sweep.
    pub steps: usize,
    /// Whether it sweeps back, and so keeps the states of a segment and a checkpoint for each.
    pub reverse: bool,
    /// Slots of states beside those.
    pub slots: usize,
    /// Model parameters that are estimated.
    pub parameters: usize,
    /// Sums on the pattern of a scale of each block.
    pub pattern: usize,
    pub block_size: usize,
    pub layout: MemberLayout,
    pub precision: Precision,
}

/// The cut.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rows of each chunk, among those of the batch: whole blocks of members.
    pub chunks: Vec<Range<usize>>,
    /// Members between two sites in memory: at least the longest chunk.
    pub capacity: usize,
    pub segments: Segments,
    /// Bytes of the states, of what a reverse sweep keeps, of the lanes' costs and of their shares of the parameters'
    /// cotangents, in this order.
    pub bytes: u64,
    /// Where the second, the third and the fourth begin, in numbers.
    pub kept: usize,
    pub lane_costs: usize,
    pub lane_parameters: usize,
    /// Members of one problem in the batch.
    pub per_problem: usize,
    /// Blocks whose sums are added on the device.
    pub blocks_per_run: usize,
    /// Blocks whose sums on the pattern of a scale are made in one dispatch.
    pub pattern_blocks: usize,
    /// Most operations of one dispatch.
    pub most_work: usize,
}

impl Plan {
    /// Blocks of a sum over one problem's members.
    pub fn blocks_per_problem(&self) -> usize {
        self.per_problem.div_ceil(BLOCK)
    }

    /// Runs of blocks whose sums are added on the device, of one problem.
    pub fn runs_per_problem(&self) -> usize {
        self.blocks_per_problem().div_ceil(self.blocks_per_run)
    }

    /// Blocks of the chunk that has most.
    pub fn most_blocks(&self) -> usize {
        self.chunks.iter().map(|rows| self.blocks(rows).len()).max().unwrap_or(1)
    }

    /// The runs of some blocks, among all runs of the batch.
    pub fn runs(&self, blocks: &Range<usize>) -> Range<usize> {
        let each = self.blocks_per_problem();
        let run = |block: usize| block / each * self.runs_per_problem() + block % each / self.blocks_per_run;
        run(blocks.start)..run(blocks.end - 1) + 1
    }

    /// The blocks of the call. Where there are sums, it has whole runs of each problem.
    pub fn all_blocks(&self) -> Range<usize> {
        let (first, last) = (&self.chunks[0], &self.chunks[self.chunks.len() - 1]);
        self.blocks(&(first.start..last.end))
    }

    /// The runs of the call.
    pub fn all_runs(&self) -> Range<usize> {
        self.runs(&self.all_blocks())
    }

    /// The blocks of a chunk of whole blocks, among all blocks of the batch.
    pub fn blocks(&self, rows: &Range<usize>) -> Range<usize> {
        parts(rows, self.per_problem, BLOCK)
    }

    /// Cuts a call to stay within a budget and the device's largest binding.
    ///
    /// # Errors
    /// Even one block of members does not fit.
    pub fn new(need: &Need, budget: Budget, limits: &wgpu::Limits) -> Result<Self> {
        let largest = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let (pattern_blocks, pattern_bytes) = pattern(need, budget, largest)?;
        let bytes_left = budget.bytes.saturating_sub(pattern_bytes).min(largest) as usize;
        let slot_bytes = need.sites * need.precision.bytes();
        let work = need.steps.max(1) * need.sites * WORK_PER_SITE;
        let least = need.per_problem.min(need.block);
        // Rows of whole memory transactions, but a handful of members takes no room for 64.
        let padded = |members: usize| if members < 64 { members } else { members.next_multiple_of(64) };
        let mut capacity = padded((budget.work / work).max(FEWEST_MEMBERS).min(need.count));
        loop {
            let step_work = capacity * need.sites * WORK_PER_SITE;
            let longest = (budget.work / step_work).clamp(1, DISPATCH_STEPS);
            let number = need.precision.bytes();
            let slot = slot_bytes * capacity;
            let lane_costs = need.layout.invocations(capacity) * number;
            let of_lanes = lane_costs * (1 + need.parameters);
            let other = need.slots * slot + of_lanes;
            let (segments, checkpoints, kept) = if need.reverse {
                let step = need.layout.kept_per_step(capacity, need.sites, need.block_size) * number;
                let room = bytes_left.saturating_sub(other);
                let segments = Segments::choose(need.steps, step, slot, room, longest);
                (segments, segments.count(), segments.length() * step)
            } else {
                (Segments::choose(need.steps, 0, 0, usize::MAX, longest), 0, 0)
            };
            let slots = (need.slots + checkpoints) * slot;
            let bytes = slots + kept + of_lanes;
            if bytes <= bytes_left {
                return Ok(Self {
                    chunks: chunks(need, capacity),
                    capacity,
                    segments,
                    bytes: bytes as u64,
                    kept: slots / number,
                    lane_costs: (slots + kept) / number,
                    lane_parameters: (slots + kept + lane_costs) / number,
                    per_problem: need.per_problem,
                    blocks_per_run: blocks_per_run(need.pattern),
                    pattern_blocks,
                    most_work: budget.work,
                });
            }
            if capacity <= padded(least) {
                return Err(Error::invalid(
                    "memory",
                    format!(
                        "at least {} MiB for {least} members of this window",
                        ((bytes as u64 + pattern_bytes) >> 20) + 1
                    ),
                    format!("{} MiB (the budget, or the largest buffer of the GPU)", budget.bytes.min(largest) >> 20),
                    "raise --memory, shorten the window, or use --backend cpu",
                ));
            }
            capacity = padded((capacity / 2).max(least));
        }
    }
}

/// How many blocks' sums on the pattern of a scale are made at a time, and the bytes of those and of their totals.
fn pattern(need: &Need, budget: Budget, largest: u64) -> Result<(usize, u64)> {
    if need.pattern == 0 {
        return Ok((0, 0));
    }
    let bytes = (need.pattern * need.precision.bytes()) as u64;
    let rows = need.first..need.first + need.count;
    let blocks = parts(&rows, need.per_problem, BLOCK).len();
    let runs = parts(&rows, need.per_problem, BLOCK * blocks_per_run(need.pattern)).len();
    let most = MOST_PATTERN_BYTES.min(budget.bytes / 8) / bytes;
    let at_a_time = (budget.work / (2 * BLOCK * need.pattern)).min(most as usize).clamp(1, blocks);
    let totals = runs as u64 * bytes;
    if totals.max(bytes) > largest {
        return Err(Error::invalid(
            "scale of the draws",
            format!("at most {} MiB of sums on its pattern, the largest buffer of this GPU", largest >> 20),
            format!("{} MiB", totals >> 20),
            "use a lower rank, fewer problems or members at a time, or --backend cpu",
        ));
    }
    Ok((at_a_time, at_a_time as u64 * bytes + totals))
}

/// The parts of so many members of one problem that rows are in, among all parts of the batch.
fn parts(rows: &Range<usize>, per_problem: usize, members: usize) -> Range<usize> {
    let each = per_problem.div_ceil(members);
    let part = |row: usize| row / per_problem * each + row % per_problem / members;
    part(rows.start)..part(rows.end - 1) + 1
}

/// Runs of whole blocks of at most `capacity` rows.
fn chunks(need: &Need, capacity: usize) -> Vec<Range<usize>> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let (mut start, last) = (need.first, need.first + need.count);
    while start < last {
        let within = start % need.per_problem;
        let end = start - within + (within - within % need.block + need.block).min(need.per_problem);
        let block = start..end.min(last);
        start = block.end;
        match chunks.last_mut() {
            Some(last) if block.end - last.start <= capacity => last.end = block.end,
            _ => chunks.push(block),
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    fn need(count: usize, per_problem: usize, steps: usize) -> Need {
        Need {
            first: 0,
            count,
            per_problem,
            block: BLOCK,
            sites: 40,
            steps,
            reverse: true,
            slots: 3,
            parameters: 0,
            pattern: 0,
            block_size: 1,
            layout: "lanes=1,group=64".parse().unwrap(),
            precision: Precision::F32,
        }
    }

    #[test]
    fn chunks_tile_the_members_in_whole_blocks() {
        let limits = wgpu::Limits::default();
        for (count, per_problem) in [(1, 1), (1_000_000, 1_000_000), (3_000, 1_000), (5_000, 1), (7 * 513, 513)] {
            let plan = Plan::new(&need(count, per_problem, 100), Budget::new(1 << 26), &limits).unwrap();
            let mut next = 0;
            for chunk in &plan.chunks {
                assert_eq!(chunk.start, next);
                assert!(chunk.len() <= plan.capacity);
                assert_eq!((chunk.start % per_problem) % BLOCK, 0);
                next = chunk.end;
            }
            assert_eq!(next, count);
            assert!(plan.bytes <= 1 << 26);
            // A part of them has the chunks that end in it.
            let first = count / 2 / per_problem * per_problem;
            let part = Need { first, count: count - first, ..need(count, per_problem, 100) };
            let chunks = Plan::new(&part, Budget::new(1 << 26), &limits).unwrap().chunks;
            assert_eq!((chunks[0].start, chunks[chunks.len() - 1].end), (first, count));
            assert!(chunks.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }

    #[test]
    fn long_windows_are_cut_below_the_software_drivers_loop_bound() {
        let plan = Plan::new(&need(3, 3, 1_000_000), Budget::new(1 << 30), &wgpu::Limits::default()).unwrap();
        assert!(2 * plan.segments.length() < 65_535 && plan.segments.count() > 100);
    }

    /// Large states and long windows, on devices that bind 128 MiB at most and on large ones.
    #[test]
    fn large_states_and_long_windows_fit() {
        let small = wgpu::Limits::default();
        let large = wgpu::Limits {
            max_storage_buffer_binding_size: 2 << 30,
            max_buffer_size: 2 << 30,
            ..wgpu::Limits::default()
        };
        assert_eq!(small.max_storage_buffer_binding_size, 128 << 20);
        for (sites, steps) in [(1_000, 39), (4_096, 39), (1_000, 10_000), (4_096, 1_000), (40, 10_000), (16, 100_000)] {
            let layouts = [(1, "lanes=1,group=64"), (8, "lanes=8,group=64"), (256, "lanes=256,group=256")];
            for (_, layout) in layouts.into_iter().filter(|(lanes, _)| 2 * lanes <= sites) {
                for (memory, limits) in [(64, &small), (1024, &small), (1024, &large), (16 << 10, &large)] {
                    for count in [1, 300, 65_536, 1_000_000] {
                        for precision in [Precision::F32, Precision::F64] {
                            let layout = layout.parse().unwrap();
                            let need = Need { sites, layout, precision, ..need(count, count, steps) };
                            let plan = match Plan::new(&need, Budget::new(memory << 20), limits) {
                                Ok(plan) => plan,
                                // A block of 256 members of 4,096 sites needs more than this; the user is told how much.
                                Err(error) => {
                                    assert!(
                                        count > 1 && sites >= 1_000 && error.to_string().contains("MiB"),
                                        "{error}"
                                    );
                                    continue;
                                }
                            };
                            assert!(
                                plan.bytes <= (memory << 20).min(limits.max_storage_buffer_binding_size),
                                "{need:?}"
                            );
                            let (length, segments) = (plan.segments.length(), plan.segments.count());
                            assert!(length <= DISPATCH_STEPS && length * segments >= steps, "{need:?}");
                            let work = length * plan.capacity * sites * WORK_PER_SITE;
                            assert!(work <= DISPATCH_WORK || length == 1, "{need:?}: {work} operations");
                        }
                    }
                }
            }
        }
    }

    /// Sums on the pattern of a full rank: within the budget together with the states, and refused where they cannot be.
    #[test]
    fn sums_on_a_pattern_are_part_of_the_budget() {
        let limits = wgpu::Limits::default();
        for (sites, memory, count, problems) in [
            (16, 1, 65_536, 1),
            (40, 64, 1_000_000, 20),
            (1_000, 64, 65_536, 1),
            (1_000, 1024, 300, 9),
            (4_096, 1024, 300, 1),
        ] {
            let pattern = sites * (sites + 1);
            let need = Need { sites, pattern, ..need(count * problems, count, 11) };
            let plan = Plan::new(&need, Budget::new(memory << 20), &limits).unwrap();
            let (blocks, runs) = (plan.blocks_per_problem() * problems, plan.runs_per_problem() * problems);
            let bytes = 4 * pattern * (plan.pattern_blocks + runs);
            assert!((1..=blocks).contains(&plan.pattern_blocks), "{plan:?}");
            assert!(plan.bytes + bytes as u64 <= memory << 20, "{need:?}: {} and {bytes} bytes", plan.bytes);
            assert!(plan.pattern_blocks == 1 || 2 * BLOCK * pattern * plan.pattern_blocks <= DISPATCH_WORK, "{plan:?}");
        }
        for (sites, memory, problems) in [(1_000, 4, 1), (8_192, 1024, 1), (1_000, 16 << 10, 40)] {
            let need = Need { sites, pattern: sites * (sites + 1), ..need(problems * 300, 300, 11) };
            let error = Plan::new(&need, Budget::new(memory << 20), &limits).unwrap_err();
            assert!(error.to_string().contains("MiB"), "{error}");
        }
    }

    /// As after a failure: less at a time, down to one block of members and one step.
    #[test]
    fn half_of_a_budget_makes_shorter_dispatches() {
        let (need, limits) = (need(100_000, 100_000, 1_000), wgpu::Limits::default());
        let mut budget = Budget::new(1 << 26);
        let mut before = usize::MAX;
        for _ in 0..5 {
            let plan = Plan::new(&need, budget, &limits).unwrap();
            let work = plan.segments.length() * plan.capacity * need.sites * WORK_PER_SITE;
            assert!(work <= budget.work && plan.bytes <= budget.bytes && work < before, "{plan:?}");
            (before, budget) = (work, budget.half());
        }
    }

    #[test]
    fn a_budget_too_small_is_refused_with_the_bytes() {
        let huge = Need { sites: 100_000, slots: 1_000_000, ..need(1, 1, 10) };
        let error = Plan::new(&huge, Budget::new(1 << 20), &wgpu::Limits::default()).unwrap_err();
        assert!(error.to_string().contains("MiB"), "{error}");
    }
}
