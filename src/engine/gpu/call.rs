//! What a call is, and what it asks of the device's memory.

use super::plan::{MOST_LOOPED, Need};
use super::shader::Ownership;
use super::uploaded::Uploaded;
use crate::engine::operation::Operation;
use crate::engine::{BLOCK, Members, Scale};
use crate::error::{Error, Result};
use crate::problem::ControlLayout;
use ndarray::Axis;

/// All that decides about a call's buffers and kernels, and the number of its members.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    pub operation: Operation,
    pub source: Source,
    pub ownership: Ownership,
    /// The first row, among those of the batch, and how many it has.
    pub first: usize,
    pub count: usize,
    /// Members of one problem in the batch.
    pub per_problem: usize,
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
    /// Drawn from maps whose scales are a diagonal and this rank.
    LowRank(usize),
}

impl Source {
    pub fn of(members: Members) -> Self {
        match members {
            Members::Given(_) | Members::Listed(_) => Self::Given,
            Members::Drawn(draw) => match &draw.map.scale {
                Scale::Diagonal(_) => Self::Diagonal,
                Scale::Lower(scale) => Self::Lower(scale.len_of(Axis(0))),
                Scale::LowRank { left, .. } => Self::LowRank(left.len_of(Axis(2))),
            },
        }
    }

    /// How many sums there are on the pattern of the scale, beside those of a diagonal.
    pub fn pattern(self, control: usize) -> usize {
        match self {
            Self::Lower(_) => control * (control + 1),
            Self::LowRank(rank) => 3 * control * rank,
            Self::Given | Self::Diagonal => 0,
        }
    }
}

impl Call {
    /// Whether it ends in sums over blocks of members.
    pub fn sums(&self) -> bool {
        matches!(self.operation, Operation::Moments(_))
    }

    /// The rank of the scale that its members are drawn by.
    pub fn rank(&self) -> usize {
        if let Source::LowRank(rank) = self.source { rank } else { 0 }
    }

    /// How many sums on the pattern of a scale it leaves beside those of a diagonal: see `shaders/pattern.wgsl`.
    pub fn pattern(&self, control: usize) -> usize {
        if self.sums() { self.source.pattern(control) } else { 0 }
    }

    /// Whether it selects among its members.
    pub fn selects(&self) -> bool {
        matches!(self.operation, Operation::Select(..))
    }

    /// Refuses draws of a low rank over a control too long for one invocation.
    pub fn check(&self, control: ControlLayout) -> Result<()> {
        if self.rank() == 0 || control.len() <= MOST_LOOPED {
            return Ok(());
        }
        Err(Error::invalid(
            "draws of low rank",
            format!("a control of at most {MOST_LOOPED} numbers on a GPU"),
            control.len().to_string(),
            "use a diagonal scale, or --backend cpu",
        ))
    }

    /// What its cut has to fit.
    pub fn need(&self, uploaded: &Uploaded) -> Need {
        let control = uploaded.data.control;
        Need {
            first: self.first,
            count: self.count,
            per_problem: self.per_problem,
            // Sums need whole blocks; nothing else minds where a chunk ends.
            block: if self.sums() || self.selects() { BLOCK } else { 64 },
            sites: uploaded.data.sites,
            steps: self.operation.steps(&uploaded.data),
            reverse: self.operation.reverse(),
            slots: self.slots(0, uploaded.data.times, control).count,
            parameters: control.parameters,
            pattern: self.pattern(control.len()),
            block_size: uploaded.data.operator.block_size,
            layout: uploaded.shape.layout,
            precision: uploaded.shape.precision,
        }
    }

    /// Where its states lie, with so many checkpoints of a reverse sweep.
    pub fn slots(&self, checkpoints: usize, times: usize, control: ControlLayout) -> Slots {
        let whole = control_slots(control);
        let mut count = 0;
        let mut take = |slots: usize| {
            count += slots;
            count - slots
        };
        let (sweeps_back, tangent) = (self.operation.reverse(), self.operation == Operation::Tangent);
        let Ownership { perturbed, own_background, .. } = self.ownership;
        // The initial state is a checkpoint too; a sweep that keeps nothing has it, and two that take turns.
        take(whole - 1);
        take(if sweeps_back { checkpoints } else { 3 });
        let cotangent = take(whole);
        let drawn = take(if self.source == Source::Given { 0 } else { whole });
        let background = take(1);
        let perturbations = take(if perturbed { 2 } else { 0 });
        Slots {
            cotangent,
            epsilon: if perturbed { perturbations } else { drawn },
            background,
            own_background: take(if own_background { whole } else { 0 }),
            at_times: take(if self.operation.whole_window() { times } else { 0 }),
            projections: take((2 * self.rank()).div_ceil(control.sites)),
            // Where the cotangents of xi come to lie, unless a perturbation of xi is there.
            errors: if tangent { take(control.errors) } else { cotangent + 1 },
            error_cotangents: take(if sweeps_back || tangent { control.errors } else { 0 }),
            count,
        }
    }
}

/// Slots that a control takes: xi_k lies in the k-th after that of x0, the parameters in the one behind the last.
pub fn control_slots(control: ControlLayout) -> usize {
    control.len().div_ceil(control.sites)
}

/// Where a call keeps its states, in slots of [sites, capacity]. The first ones are the control and then, in a reverse
/// sweep, the checkpoints behind the initial state.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    pub cotangent: usize,
    pub epsilon: usize,
    pub background: usize,
    pub own_background: usize,
    pub at_times: usize,
    pub projections: usize,
    /// Of the model.
    pub errors: usize,
    /// Or their perturbations, in a tangent sweep.
    pub error_cotangents: usize,
    /// All of them.
    pub count: usize,
}
