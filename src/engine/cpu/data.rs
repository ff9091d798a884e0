//! How a group of lanes reads a problem set.

use super::lanes::{Lanes, Scalar};
use crate::engine::prepared::Field;

/// How a group of lanes reads a field.
pub trait Source<V: Lanes>: Copy {
    /// Number `i` of the field, for each lane.
    fn read(self, field: &Field<V::Scalar>, i: usize) -> V;
}

/// All lanes are members of one problem.
#[derive(Clone, Copy)]
pub struct OneProblem<C> {
    pub context: C,
    pub problem: usize,
}

impl<V: Lanes> Source<V> for OneProblem<V::Context> {
    #[inline(always)]
    fn read(self, field: &Field<V::Scalar>, i: usize) -> V {
        V::fill(self.context, field.at(self.problem, i))
    }
}

/// Most lanes of any instruction set.
pub const MOST_LANES: usize = 16;

/// Each lane is a member of a problem of its own.
#[derive(Clone, Copy)]
pub struct ManyProblems<'a, C> {
    pub context: C,
    pub problems: &'a [usize; MOST_LANES],
}

impl<V: Lanes> Source<V> for ManyProblems<'_, V::Context> {
    #[inline(always)]
    fn read(self, field: &Field<V::Scalar>, i: usize) -> V {
        if field.stride == 0 {
            return V::fill(self.context, field.at(0, i));
        }
        let mut gathered = [V::Scalar::from_f32(0.0); MOST_LANES];
        for (to, problem) in gathered.iter_mut().zip(self.problems).take(V::LANES) {
            *to = field.at(*problem, i);
        }
        V::load(self.context, &gathered)
    }
}
