//! What a call is, and what it asks of the device's memory.

use super::plan::{MOST_LOOPED, Need};
use super::shader::Ownership;
use super::uploaded::Uploaded;
use crate::engine::operation::Operation;
use crate::engine::schedule::Segments;
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
    pub fn pattern(&self, control: usize) -> usize {
        match self.source {
            Source::Lower(_) if self.sums() => control * (control + 1),
            Source::LowRank(rank) if self.sums() => 3 * control * rank,
            _ => 0,
        }
    }

    /// Whether it selects among its members.
    pub fn selects(&self) -> bool {
        matches!(self.operation, Operation::Select(..))
    }

    /// Slots behind the first one that hold the rest of the control, with those in flight of a sweep that keeps nothing:
    /// two that take turns, and the first.
    fn in_flight(&self, control: ControlLayout) -> usize {
        control_slots(control) - 1 + if self.operation.reverse() { 0 } else { 3 }
    }

    /// Slots of cotangent, draws and B^-1 (x0 - xb).
    fn vectors(&self, control: ControlLayout) -> usize {
        control_slots(control) + self.epsilon(control) + 1
    }

    /// Slots of the draws; a single one has no use but keeps the others where they are.
    fn epsilon(&self, control: ControlLayout) -> usize {
        if self.source == Source::Given { 1 } else { control_slots(control) }
    }

    /// Slots of the draws of perturbed observations, and of the members' own backgrounds.
    fn own(&self, control: ControlLayout) -> usize {
        self.perturbations() + if self.ownership.own_background { control_slots(control) } else { 0 }
    }

    fn perturbations(&self) -> usize {
        2 * usize::from(self.ownership.perturbed)
    }

    /// Slots of the model's errors and of their cotangents or perturbations. Errors lie where their cotangents come to lie,
    /// behind that of x0, but in a tangent sweep, where their perturbations are.
    fn errors(&self, control: ControlLayout) -> usize {
        match self.operation {
            Operation::Tangent => 2 * control.errors,
            _ if self.operation.reverse() => control.errors,
            _ => 0,
        }
    }

    /// Slots of the projections on the factors of a low rank.
    fn projections(&self, sites: usize) -> usize {
        (2 * self.rank()).div_ceil(sites)
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
        let stored = if self.operation.whole_window() { uploaded.data.times } else { 0 };
        Need {
            count: self.count,
            per_problem: if self.ownership.listed { self.count } else { self.count / uploaded.problems() },
            // Sums need whole blocks; nothing else minds where a chunk ends.
            block: if self.sums() || self.selects() { BLOCK } else { 64 },
            sites: uploaded.data.sites,
            steps: self.operation.steps(&uploaded.data),
            reverse: self.operation.reverse(),
            slots: self.in_flight(control)
                + self.vectors(control)
                + self.own(control)
                + stored
                + self.projections(control.sites)
                + self.errors(control),
            parameters: control.parameters,
            pattern: self.pattern(control.len()),
            block_size: uploaded.data.operator.block_size,
            layout: uploaded.shape.layout,
            precision: uploaded.shape.precision,
        }
    }

    /// Where its states lie.
    pub fn slots(&self, segments: &Segments, times: usize, control: ControlLayout) -> Slots {
        let checkpoints = if self.operation.reverse() { segments.count() } else { 0 };
        let cotangent = self.in_flight(control) + checkpoints;
        let epsilon = cotangent + control_slots(control);
        let background = epsilon + self.epsilon(control);
        let perturbations = background + 1;
        let at_times = perturbations + self.own(control);
        let projections = at_times + if self.operation.whole_window() { times } else { 0 };
        let behind = projections + self.projections(control.sites);
        let (errors, error_cotangents) = match self.operation {
            Operation::Tangent => (behind, behind + control.errors),
            _ => (cotangent + 1, behind),
        };
        Slots {
            cotangent,
            epsilon: if self.ownership.perturbed { perturbations } else { epsilon },
            background,
            own_background: perturbations + self.perturbations(),
            at_times,
            projections,
            errors,
            error_cotangents,
        }
    }
}

/// Slots that a control takes: xi_k lies in the k-th after that of x0, the parameters in the one behind the last.
pub fn control_slots(control: ControlLayout) -> usize {
    control.len().div_ceil(control.sites)
}

/// Where a call keeps its states, in slots of [sites, capacity]. The first ones are the control and, in a reverse
/// sweep, the checkpoints but for the initial state.
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
}
