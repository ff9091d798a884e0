//! What a call is, and what it asks of the device's memory.

use super::plan::Need;
use super::shader::Ownership;
use super::uploaded::Uploaded;
use crate::engine::operation::Operation;
use crate::engine::schedule::Segments;
use crate::engine::{BLOCK, Members, Scale};
use ndarray::Axis;

/// All that decides about a call's buffers and kernels, and the number of its members.
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
    pub fn pattern(&self, sites: usize) -> usize {
        match self.source {
            Source::Lower(_) if self.sums() => sites * (sites + 1),
            Source::LowRank(rank) if self.sums() => 3 * sites * rank,
            _ => 0,
        }
    }

    /// Whether it selects among its members.
    pub fn selects(&self) -> bool {
        matches!(self.operation, Operation::Select(..))
    }

    /// Slots in flight of a sweep that keeps nothing: the initial state, and two that take turns.
    fn in_flight(&self) -> usize {
        if self.operation.reverse() { 0 } else { 3 }
    }

    /// Slots of the members' own backgrounds, and of the draws of perturbed observations.
    fn own(&self) -> usize {
        usize::from(self.ownership.own_background) + 2 * usize::from(self.ownership.perturbed)
    }

    /// Slots of the projections on the factors of a low rank.
    fn projections(&self, sites: usize) -> usize {
        (2 * self.rank()).div_ceil(sites)
    }

    /// What its cut has to fit.
    pub fn need(&self, uploaded: &Uploaded) -> Need {
        let stored = if self.operation.whole_window() { uploaded.data.times } else { 0 };
        Need {
            count: self.count,
            per_problem: if self.ownership.listed { self.count } else { self.count / uploaded.problems() },
            // Sums need whole blocks; nothing else minds where a chunk ends.
            block: if self.sums() || self.selects() { BLOCK } else { 64 },
            sites: uploaded.data.sites,
            steps: self.operation.steps(&uploaded.data),
            reverse: self.operation.reverse(),
            slots: self.in_flight() + 3 + self.own() + stored + self.projections(uploaded.data.sites),
            pattern: self.pattern(uploaded.data.sites),
            block_size: uploaded.data.operator.block_size,
            layout: uploaded.shape.layout,
            precision: uploaded.shape.precision,
        }
    }

    /// Where its states lie.
    pub fn slots(&self, segments: &Segments, times: usize) -> Slots {
        let reverse = self.operation.reverse();
        let cotangent = if reverse { segments.count() } else { self.in_flight() };
        let perturbed = self.ownership.perturbed;
        Slots {
            cotangent,
            epsilon: if perturbed { cotangent + 3 } else { cotangent + 1 },
            background: cotangent + 2,
            own_background: cotangent + 3 + 2 * usize::from(perturbed),
            at_times: cotangent + 3 + self.own(),
            projections: cotangent + 3 + self.own() + if self.operation.whole_window() { times } else { 0 },
        }
    }
}

/// Where a call keeps its states, in slots of [sites, capacity]. The first ones are the initial state and, in a
/// reverse sweep, the other checkpoints.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    pub cotangent: usize,
    pub epsilon: usize,
    pub background: usize,
    pub own_background: usize,
    pub at_times: usize,
    pub projections: usize,
}
