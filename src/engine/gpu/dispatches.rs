//! The dispatches of a chunk of a call, in their order: which kernels, with which numbers. Knows no device object.

use super::call::{Call, Slots, Source, control_slots};
use super::params::{BACKGROUND, EPSILON, FIRST, LAST, LEFT, OBSERVATION, Params, STORE, TRANSPOSED};
use super::plan::{Plan, SUM_COLUMNS, WORK_PER_SITE, quantities};
use super::shader::{Kernel, Ownership, Shape, pattern_tile};
use crate::engine::BLOCK;
use crate::engine::operation::Operation;
use crate::error::{Error, Result};
use crate::problem::ControlLayout;
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
    pub control: ControlLayout,
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
        let (rows, capacity, control) = (&plan.chunks[k], plan.capacity, self.control.len());
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
            lane_parameters: plan.lane_parameters as u32,
            errors: slots.errors as u32,
            error_cotangents: slots.error_cotangents as u32,
            error_count: self.errors_in_sweep() as u32,
            at_times: slots.at_times as u32,
            own_background: slots.own_background as u32,
            store_stride: self.store_stride as u32,
            rank: call.rank() as u32,
            projections: slots.projections as u32,
            pattern: call.pattern(control) as u32,
            blocks_per_run: plan.blocks_per_run as u32,
            call_block: plan.all_blocks().start as u32,
            call_run: plan.all_runs().start as u32,
            ..*self.places
        };
        let mut sweep = Vec::new();
        if call.source != Source::Given {
            let groups = (capacity * control.div_ceil(4)).div_ceil(64);
            let read = call.sums() || call.source != Source::Diagonal;
            let params = Params { flags: if read { EPSILON } else { 0 }, ..params };
            sweep.push(self.dispatch(Kernel::Draw, params, groups)?);
        }
        if let Source::Lower(_) = call.source {
            let drawn = self.dispatch(Kernel::Lower, params, (capacity * control).div_ceil(64))?;
            sweep.push(Dispatch { work: capacity * control * control, ..drawn });
        }
        let project = |flags: u32| -> Result<Dispatch> {
            let groups = (capacity * call.rank()).div_ceil(64);
            let dispatch = self.dispatch(Kernel::Project, Params { flags, ..params }, groups)?;
            Ok(Dispatch { work: 2 * capacity * control * call.rank(), ..dispatch })
        };
        if let Source::LowRank(rank) = call.source {
            sweep.push(project(0)?);
            let drawn = self.dispatch(Kernel::LowRank, params, (capacity * control).div_ceil(64))?;
            sweep.push(Dispatch { work: 2 * capacity * control * rank, ..drawn });
        }
        self.sweep(params, &mut sweep)?;
        let blocks = plan.blocks(rows);
        let last = match call.operation {
            Operation::Select(_, best) => best,
            _ => plan.all_blocks().len() as u32,
        };
        let words = [blocks.start as u32, plan.blocks_per_problem() as u32, blocks.len() as u32, last];
        let mut over_blocks = |kernel: Kernel, groups: usize| -> Result<()> {
            let dispatch = self.dispatch(kernel, params, groups)?;
            sweep.push(Dispatch { blocks: Some(words), ..dispatch });
            Ok(())
        };
        if call.selects() {
            over_blocks(Kernel::Select, blocks.len())?;
            over_blocks(Kernel::Gather, blocks.len())?;
        }
        if call.sums() {
            let each = if shape.control.is_empty() { 1 } else { control.div_ceil(SUM_COLUMNS) };
            over_blocks(Kernel::Sums, blocks.len() * each)?;
            if call.rank() > 0 {
                sweep.push(project(LEFT)?);
            }
            if call.pattern(control) > 0 {
                for first in blocks.clone().step_by(plan.pattern_blocks) {
                    sweep.extend(self.pattern(params, first..(first + plan.pattern_blocks).min(blocks.end))?);
                }
            }
            if k + 1 == plan.chunks.len() {
                sweep.push(self.totals()?);
            }
        }
        let groups = (capacity * control).div_ceil(64);
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
        let (rows, columns) = pattern_tile(kernel, shape);
        let tiles = if low_rank {
            (2 * self.control.len()).div_ceil(rows) * (2 * call.rank()).div_ceil(columns)
        } else {
            // Of two triangles.
            let side = self.control.len().div_ceil(rows);
            side * (side + 1)
        };
        let (groups, per_problem) = (blocks.len() * tiles, plan.blocks_per_problem());
        let words = [blocks.start as u32, per_problem as u32, blocks.len() as u32, tiles as u32];
        let totals = plan.runs(&blocks).len() * params.pattern as usize;
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
        let (blocks, runs) = (plan.all_blocks(), plan.all_runs());
        let numbers = runs.len() * quantities(self.control.len());
        let params = Params {
            rows: 1,
            capacity: plan.capacity as u32,
            control: self.control.len() as u32,
            blocks_per_run: plan.blocks_per_run as u32,
            call_block: blocks.start as u32,
            call_run: runs.start as u32,
            ..Params::default()
        };
        let each = [plan.blocks_per_problem(), plan.runs_per_problem()].map(|each| each as u32);
        let words = [each[0], each[1], blocks.len() as u32, numbers as u32];
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
        let Slots { cotangent, errors, error_cotangents, .. } = *self.slots;
        let swept = self.errors_in_sweep();
        self.errors(params, [1, errors], swept, dispatches)?;
        if *operation == Operation::Tangent {
            self.errors(params, [cotangent + 1, error_cotangents], swept, dispatches)?;
        }
        if terms.background && shape.full_background {
            let groups = (plan.capacity * shape.sites).div_ceil(64);
            let dispatch = self.dispatch(Kernel::Background, params, groups)?;
            dispatches.push(Dispatch { work: plan.capacity * shape.sites * shape.sites, ..dispatch });
        }
        let count = plan.segments.count();
        let groups = (params.rows as usize).div_ceil(shape.layout.members_per_group());
        let behind = control_slots(self.control);
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
            // Checkpoints: the initial state, and the others behind the control.
            let slot = |k: usize| if k == 0 { 0 } else { behind - 1 + k };
            (0..count - 1).try_for_each(|k| sweep(Kernel::Forward, k, slot(k), slot(k + 1)))?;
            (0..count).rev().try_for_each(|k| sweep(kernel, k, slot(k), slot(k + 1)))?;
            let params = Params { flags: flags | TRANSPOSED, ..params };
            self.errors(params, [error_cotangents, cotangent + 1], self.control.errors, dispatches)
        } else {
            let kernel = if *operation == Operation::Tangent { Kernel::Tangent } else { Kernel::Forward };
            // Slot 0 keeps the initial state; two others take turns.
            let slot = |k: usize| if k == 0 { 0 } else { behind + k % 2 };
            (0..count).try_for_each(|k| sweep(kernel, k, slot(k), slot(k + 1)))
        }
    }

    /// The model's errors within the sweep.
    fn errors_in_sweep(&self) -> usize {
        let segments = &self.plan.segments;
        match self.places.error_interval as usize {
            0 => 0,
            interval => self.control.errors.min(segments.range(segments.count() - 1).end / interval),
        }
    }

    /// From so many errors' xi to the errors, or from their cotangents back: a few at a time where each is much work.
    fn errors(
        &self,
        params: Params,
        [from, to]: [usize; 2],
        count: usize,
        dispatches: &mut Vec<Dispatch>,
    ) -> Result<()> {
        let (capacity, sites) = (self.plan.capacity, self.control.sites);
        let each = capacity * sites * if self.shape.control.full_errors { sites } else { 1 };
        let at_a_time = (self.plan.most_work / each).max(1);
        for first in (0..count).step_by(at_a_time) {
            let steps = at_a_time.min(count - first);
            let (state, next_state) = (from as u32, to as u32);
            let params = Params { first_step: first as u32, steps: steps as u32, state, next_state, ..params };
            let dispatch = self.dispatch(Kernel::Errors, params, (capacity * sites * steps).div_ceil(64))?;
            dispatches.push(Dispatch { work: each * steps, ..dispatch });
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::plan::{Budget, Need};
    use super::super::shader::Beside;
    use super::*;
    use crate::engine::{Precision, Terms};
    use crate::model::Model;
    use crate::problem::{ObservationOperator, PointFunction};

    /// A full Q of 200 sites for 16,384 members is too much work for 30 errors at a time, and the sweep reaches 20 of them.
    #[test]
    fn errors_are_made_before_the_sweeps_and_their_cotangents_after_them() {
        let control = ControlLayout { sites: 200, errors: 30, parameters: 1 };
        let layout = "lanes=8".parse().unwrap();
        let shape = Shape {
            model: Model::Lorenz96,
            sites: control.sites,
            operator: ObservationOperator { function: PointFunction::Identity, block_size: 1 },
            full_background: false,
            control: Beside { errors: true, full_errors: true, parameters: true },
            precision: Precision::F32,
            ownership: Ownership::default(),
            one_problem: true,
            wide_integers: false,
            layout,
            steps_in_group: 0,
        };
        let (source, ownership) = (Source::Given, Ownership::default());
        let call = Call {
            operation: Operation::Gradient(Terms::ALL),
            source,
            ownership,
            first: 0,
            count: 16_384,
            per_problem: 16_384,
            store: None,
        };
        let need = Need {
            first: 0,
            count: call.count,
            per_problem: call.count,
            block: BLOCK,
            sites: control.sites,
            steps: 41,
            reverse: true,
            slots: call.slots(0, 42, control).count,
            parameters: 1,
            pattern: 0,
            block_size: 1,
            layout,
            precision: Precision::F32,
        };
        let limits = wgpu::Limits {
            max_storage_buffer_binding_size: 4 << 30,
            max_buffer_size: 4 << 30,
            ..wgpu::Limits::default()
        };
        let plan = Plan::new(&need, Budget::new(4 << 30), &limits).unwrap();
        let slots = call.slots(plan.segments.count(), 42, control);
        let places = Params { error_interval: 2, control: control.len() as u32, ..Params::default() };
        let (call, plan, slots, shape, places) = (&call, &plan, &slots, &shape, &places);
        let cut = Cut { call, plan, slots, shape, control, places, store_stride: 0, most_groups: 65_535 };
        let sweep = cut.chunk(0).unwrap().sweep;
        let is_sweep = |d: &Dispatch| matches!(d.kernel, Kernel::Forward | Kernel::Reverse);
        let first = sweep.iter().position(is_sweep).unwrap();
        let last = sweep.iter().rposition(is_sweep).unwrap();
        for (dispatches, errors, from, to) in [
            (&sweep[..first], 20, 1, slots.errors),
            (&sweep[last + 1..], 30, slots.error_cotangents, slots.cotangent + 1),
        ] {
            assert!(dispatches.len() > 1);
            let mut next = 0;
            for Dispatch { kernel, params, groups, work, .. } in dispatches {
                assert_eq!((*kernel, params.first_step, params.error_count), (Kernel::Errors, next, 20));
                assert_eq!((params.state as usize, params.next_state as usize), (from, to));
                assert!(*work <= plan.most_work, "{work}");
                let numbers = params.steps as usize * control.sites * plan.capacity;
                assert!((groups[0] * groups[1]) as usize * 64 >= numbers, "{groups:?}");
                next += params.steps;
            }
            assert_eq!(next, errors);
        }
    }
}
