//! The dispatches of a chunk of a call, in their order: which kernels, with which numbers. Knows no device object.

use super::call::{Call, Slots, Source};
use super::params::{BACKGROUND, EPSILON, FIRST, LAST, LEFT, OBSERVATION, Params, STORE};
use super::plan::{BLOCKS_PER_RUN, Plan, WORK_PER_SITE, quantities};
use super::shader::{Kernel, Ownership, Shape, pattern_tile};
use crate::engine::BLOCK;
use crate::engine::operation::Operation;
use crate::error::{Error, Result};
use std::ops::Range;

/// Adam steps whose numbers are sent at a time.
pub const STEPS_AT_A_TIME: usize = 64;

/// One dispatch.
#[derive(Clone, Copy, Debug)]
pub struct Dispatch {
    pub kernel: Kernel,
    /// As far as the kernel minds.
    pub ownership: Ownership,
    pub params: Params,
    /// Its second uniform: `Blocks` or `Runs` of its kernel.
    pub blocks: Option<[u32; 4]>,
    /// Workgroups.
    pub groups: [u32; 2],
    /// Floating-point operations, where they may be many.
    pub work: usize,
}

/// The dispatches of one chunk.
#[derive(Clone, Debug)]
pub struct ChunkDispatches {
    /// Brings resident members.
    pub fetch: Option<Dispatch>,
    pub sweep: Vec<Dispatch>,
    /// An Adam step by the first, the second, ... numbers that were sent.
    pub adam: Vec<Dispatch>,
}

/// A call as it was cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    pub call: &'a Call,
    pub plan: &'a Plan,
    pub slots: &'a Slots,
    pub shape: &'a Shape,
    pub problems: usize,
    /// Where the problem's ingredients lie.
    pub places: &'a Params,
    pub store_stride: usize,
    /// Most workgroups in one dimension.
    pub most_groups: usize,
}

impl Cut<'_> {
    /// The dispatches of chunk `k`.
    ///
    /// # Errors
    /// More workgroups than the device takes.
    pub fn chunk(&self, k: usize) -> Result<ChunkDispatches> {
        let Self { call, plan, slots, shape, .. } = *self;
        let (rows, capacity, sites) = (&plan.chunks[k], plan.capacity, shape.sites);
        let params = Params {
            rows: rows.len() as u32,
            capacity: capacity as u32,
            first_row: rows.start as u32,
            per_problem: plan.per_problem as u32,
            cotangent: slots.cotangent as u32,
            epsilon: slots.epsilon as u32,
            background: slots.background as u32,
            kept: plan.kept as u32,
            lane_costs: plan.lane_costs as u32,
            at_times: slots.at_times as u32,
            own_background: slots.own_background as u32,
            store_stride: self.store_stride as u32,
            rank: call.rank() as u32,
            projections: slots.projections as u32,
            pattern: call.pattern(sites) as u32,
            ..*self.places
        };
        let mut sweep = Vec::new();
        if call.source != Source::Given {
            let groups = (capacity * sites.div_ceil(4)).div_ceil(64);
            let read = call.sums() || call.source != Source::Diagonal;
            let params = Params { flags: if read { EPSILON } else { 0 }, ..params };
            sweep.push(self.dispatch(Kernel::Draw, params, groups)?);
        }
        if let Source::Lower(_) = call.source {
            let drawn = self.dispatch(Kernel::Lower, params, (capacity * sites).div_ceil(64))?;
            sweep.push(Dispatch { work: capacity * sites * sites, ..drawn });
        }
        let project = |flags: u32| -> Result<Dispatch> {
            let groups = (capacity * call.rank()).div_ceil(64);
            let dispatch = self.dispatch(Kernel::Project, Params { flags, ..params }, groups)?;
            Ok(Dispatch { work: 2 * capacity * sites * call.rank(), ..dispatch })
        };
        if let Source::LowRank(rank) = call.source {
            sweep.push(project(0)?);
            let drawn = self.dispatch(Kernel::LowRank, params, (capacity * sites).div_ceil(64))?;
            sweep.push(Dispatch { work: 2 * capacity * sites * rank, ..drawn });
        }
        self.sweep(params, &mut sweep)?;
        let blocks = plan.blocks(rows);
        let last = match call.operation {
            Operation::Select(_, best) => best,
            _ => (self.problems * plan.blocks_per_problem()) as u32,
        };
        let words = [blocks.start as u32, plan.blocks_per_problem() as u32, blocks.len() as u32, last];
        let mut over_blocks = |kernel: Kernel| -> Result<()> {
            let dispatch = self.dispatch(kernel, params, blocks.len())?;
            sweep.push(Dispatch { blocks: Some(words), ..dispatch });
            Ok(())
        };
        if call.selects() {
            over_blocks(Kernel::Select)?;
            over_blocks(Kernel::Gather)?;
        }
        if call.sums() {
            over_blocks(Kernel::Sums)?;
            if call.rank() > 0 {
                sweep.push(project(LEFT)?);
            }
            if call.pattern(sites) > 0 {
                for first in blocks.clone().step_by(plan.pattern_blocks) {
                    sweep.extend(self.pattern(params, first..(first + plan.pattern_blocks).min(blocks.end))?);
                }
            }
            if k + 1 == plan.chunks.len() {
                sweep.push(self.totals()?);
            }
        }
        let groups = (capacity * sites).div_ceil(64);
        let adam = |step: usize| self.dispatch(Kernel::Adam, Params { first_step: step as u32, ..params }, groups);
        let steps = if call.store.is_some() { STEPS_AT_A_TIME } else { 0 };
        Ok(ChunkDispatches {
            fetch: call.store.map(|_| self.dispatch(Kernel::Fetch, params, groups)).transpose()?,
            sweep,
            adam: (0..steps).map(adam).collect::<Result<_>>()?,
        })
    }

    /// Sums on the pattern of the scale over blocks, and adds them up.
    fn pattern(&self, params: Params, blocks: Range<usize>) -> Result<[Dispatch; 2]> {
        let Self { call, plan, shape, .. } = *self;
        let low_rank = call.rank() > 0;
        let kernel = if low_rank { Kernel::LowRankPattern } else { Kernel::LowerPattern };
        let (rows, columns) = pattern_tile(kernel, shape.sites);
        let tiles = if low_rank {
            (2 * shape.sites).div_ceil(rows) * (2 * call.rank()).div_ceil(columns)
        } else {
            // Of two triangles.
            let side = shape.sites.div_ceil(rows);
            side * (side + 1)
        };
        let (groups, per_problem) = (blocks.len() * tiles, plan.blocks_per_problem());
        let words = [blocks.start as u32, per_problem as u32, blocks.len() as u32, tiles as u32];
        let run = |block: usize| block / per_problem * plan.runs_per_problem() + block % per_problem / BLOCKS_PER_RUN;
        let totals = (run(blocks.end - 1) + 1 - run(blocks.start)) * params.pattern as usize;
        let over_blocks = |kernel: Kernel, groups: usize, work: usize| -> Result<Dispatch> {
            Ok(Dispatch { blocks: Some(words), work, ..self.dispatch(kernel, params, groups)? })
        };
        Ok([
            over_blocks(kernel, groups, 2 * BLOCK * groups * rows * columns)?,
            over_blocks(Kernel::PatternTotals, totals.div_ceil(64), 0)?,
        ])
    }

    /// Adds the blocks' sums.
    fn totals(&self) -> Result<Dispatch> {
        let plan = self.plan;
        let (blocks, runs) = (plan.blocks_per_problem(), plan.runs_per_problem());
        let numbers = self.problems * runs * quantities(self.shape.sites);
        let params = Params { rows: 1, capacity: plan.capacity as u32, ..Params::default() };
        let words = [blocks as u32, runs as u32, (self.problems * blocks) as u32, numbers as u32];
        Ok(Dispatch { blocks: Some(words), ..self.dispatch(Kernel::Totals, params, numbers)? })
    }

    /// The sweeps over one chunk.
    fn sweep(&self, params: Params, dispatches: &mut Vec<Dispatch>) -> Result<()> {
        let Self { call: Call { operation, ownership, .. }, plan, shape, .. } = *self;
        let terms = operation.terms();
        let mut flags = 0;
        flags |= if terms.observation { OBSERVATION } else { 0 };
        flags |= if terms.background { BACKGROUND } else { 0 };
        flags |= if *operation == Operation::Forecast { STORE } else { 0 };
        if terms.background && shape.full_background {
            let groups = (plan.capacity * shape.sites).div_ceil(64);
            let dispatch = self.dispatch(Kernel::Background, params, groups)?;
            dispatches.push(Dispatch { work: plan.capacity * shape.sites * shape.sites, ..dispatch });
        }
        let count = plan.segments.count();
        let groups = (params.rows as usize).div_ceil(shape.layout.members_per_group());
        let mut sweep = |kernel: Kernel, k: usize, state: usize, next: usize| -> Result<()> {
            let range = plan.segments.range(k);
            let ends = if k == 0 { FIRST } else { 0 } | if k + 1 == count { LAST } else { 0 };
            // Of a reverse sweep, observations and the background enter on the way back alone.
            let ahead = operation.reverse() && kernel == Kernel::Forward;
            let params = Params {
                first_step: range.start as u32,
                steps: range.len() as u32,
                state: state as u32,
                next_state: next as u32,
                flags: if ahead { flags & !OBSERVATION } else { flags } | ends,
                ..params
            };
            let mut dispatch = self.dispatch(kernel, params, groups)?;
            if ahead {
                dispatch.ownership = Ownership { listed: ownership.listed, ..Ownership::default() };
            }
            dispatch.work = params.rows as usize * range.len() * shape.sites * WORK_PER_SITE;
            dispatches.push(dispatch);
            Ok(())
        };
        if operation.reverse() {
            let kernel = if *operation == Operation::Adjoint { Kernel::Adjoint } else { Kernel::Reverse };
            (0..count - 1).try_for_each(|k| sweep(Kernel::Forward, k, k, k + 1))?;
            (0..count).rev().try_for_each(|k| sweep(kernel, k, k, k + 1))
        } else {
            let kernel = if *operation == Operation::Tangent { Kernel::Tangent } else { Kernel::Forward };
            // Slot 0 keeps the initial state; the others take turns.
            let slot = |k: usize| if k == 0 { 0 } else { 1 + k % 2 };
            (0..count).try_for_each(|k| sweep(kernel, k, slot(k), slot(k + 1)))
        }
    }

    /// A dispatch of `groups` workgroups. They fold into two dimensions here and nowhere else.
    fn dispatch(&self, kernel: Kernel, params: Params, groups: usize) -> Result<Dispatch> {
        let most = self.most_groups;
        let y = groups.div_ceil(most).max(1);
        let x = groups.div_ceil(y);
        if y > most {
            return Err(Error::invalid(
                "members",
                format!("at most {} workgroups in one dispatch", most * most),
                groups.to_string(),
                "use a smaller --memory, which makes smaller chunks",
            ));
        }
        Ok(Dispatch {
            kernel,
            ownership: kernel.specialise(self.call.ownership),
            params: Params { groups_x: x as u32, ..params },
            blocks: None,
            groups: [x as u32, y as u32],
            work: 0,
        })
    }
}
