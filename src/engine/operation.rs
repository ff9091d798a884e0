//! The operations of an engine, and the work that each is.

use super::prepared::Prepared;
use super::schedule::Segments;
use super::{Counters, Terms};
use serde::{Deserialize, Serialize};

/// What to compute for each member.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    Forecast,
    Cost(Terms),
    Gradient(Terms),
    /// Sums over drawn members.
    Moments(Terms),
    /// The best of drawn members: so many of each problem may be kept.
    Select(Terms, u32),
    /// Takes directions `[members, control]`.
    Tangent,
    /// Takes a forcing `[members, times, sites]`.
    Adjoint,
}

impl Operation {
    /// Whether it sweeps back.
    pub fn reverse(self) -> bool {
        matches!(self, Self::Gradient(_) | Self::Moments(_) | Self::Adjoint)
    }

    /// Whether it stores or reads something at every stored time.
    pub fn whole_window(self) -> bool {
        matches!(self, Self::Forecast | Self::Tangent | Self::Adjoint)
    }

    /// The terms of the cost that it computes.
    pub fn terms(self) -> Terms {
        match self {
            Self::Cost(terms) | Self::Gradient(terms) | Self::Moments(terms) | Self::Select(terms, _) => terms,
            Self::Forecast | Self::Tangent | Self::Adjoint => Terms { background: false, observation: false },
        }
    }

    /// Whether it leaves the costs of each member.
    pub fn has_costs(self) -> bool {
        matches!(self, Self::Cost(_) | Self::Gradient(_))
    }

    /// The numbers that it leaves of each member beside its costs: the trajectory at the stored times, or the gradient.
    pub fn per_row(self, trajectory: usize, control: usize) -> usize {
        match self {
            Self::Forecast | Self::Tangent => trajectory,
            Self::Adjoint | Self::Gradient(_) => control,
            Self::Cost(_) | Self::Moments(_) | Self::Select(..) => 0,
        }
    }

    /// The numbers that it takes of each member beside its control: a direction, or a forcing at the stored times.
    pub fn input_per_row(self, trajectory: usize, control: usize) -> usize {
        match self {
            Self::Tangent => control,
            Self::Adjoint => trajectory,
            _ => 0,
        }
    }

    /// RK4 steps of its sweep: J_b alone needs none.
    pub fn steps<T: Copy>(self, data: &Prepared<T>) -> usize {
        match self {
            _ if self.whole_window() => data.stored_steps(),
            _ if self.terms().observation => data.assimilated_steps(),
            _ => 0,
        }
    }

    /// Adds the steps of `members` members, swept in `segments`: all but the last are integrated twice on the way to
    /// a reverse sweep.
    pub fn count(self, segments: &Segments, members: usize, counters: &mut Counters) {
        let last = segments.range(segments.count() - 1);
        let (steps, members) = (last.end as u64, members as u64);
        counters.model_steps += members * steps;
        if self.reverse() {
            counters.model_steps += members * last.start as u64;
            counters.adjoint_steps += members * steps;
        }
        if self == Self::Tangent {
            counters.tangent_steps += members * steps;
        }
    }
}
