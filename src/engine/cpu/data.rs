//! How a group of lanes reads a problem set.

use super::lanes::{Lanes, Scalar};
use crate::engine::prepared::Field;

/// Most lanes of any instruction set.
pub const MOST_LANES: usize = 16;

/// The problem of each lane.
#[derive(Clone, Copy)]
pub struct Source<'a, C> {
    context: C,
    problems: &'a [usize; MOST_LANES],
    /// Whether all lanes are members of one problem.
    one: bool,
}

impl<'a, C: Copy> Source<'a, C> {
    /// Whether a field holds anything but 0 among its numbers `range`, for any lane.
    #[inline(always)]
    pub fn any<V: Lanes<Context = C>>(&self, field: &Field<V::Scalar>, range: std::ops::Range<usize>) -> bool {
        let lanes = if self.one || field.stride == 0 { 1 } else { V::LANES };
        self.problems.iter().take(lanes).any(|p| range.clone().any(|i| field.at(*p, i).to_f64() != 0.0))
    }

    /// Of lanes whose problems are in increasing order.
    #[inline(always)]
    pub fn new<V: Lanes<Context = C>>(context: C, problems: &'a [usize; MOST_LANES]) -> Self {
        Self { context, problems, one: problems[0] == problems[V::LANES - 1] }
    }

    /// Numbers of a field, where they are the same for each lane.
    #[inline(always)]
    pub fn shared<'f, T>(&self, field: &'f Field<T>, range: std::ops::Range<usize>) -> Option<&'f [T]> {
        if self.one || field.stride == 0 { Some(&field.values[self.problems[0] * field.stride..][range]) } else { None }
    }

    /// Number `i` of a field, for each lane.
    #[inline(always)]
    pub fn read<V: Lanes<Context = C>>(&self, field: &Field<V::Scalar>, i: usize) -> V {
        if self.one || field.stride == 0 {
            return V::fill(self.context, field.at(self.problems[0], i));
        }
        let mut gathered = [V::Scalar::from_f32(0.0); MOST_LANES];
        for (to, problem) in gathered.iter_mut().zip(self.problems).take(V::LANES) {
            *to = field.at(*problem, i);
        }
        V::load(self.context, &gathered)
    }
}
