//! The part of a batch of members that one rank works on.

use super::{Costs, Listed, Members};
use std::ops::Range;

/// Contiguous rows of a batch.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// The members of the span, or the whole draw that they are of.
    pub members: Members<'a>,
    /// Its rows among those of the batch, in which members are numbered problem by problem; from 0 where a list says whose
    /// each is.
    pub rows: Range<usize>,
    /// Members of each problem in the batch, or all of the span where a list says whose each is.
    pub per_problem: usize,
}

impl<'a> Span<'a> {
    /// All of a batch.
    pub fn whole(members: Members<'a>, problems: usize) -> Self {
        let count = members.count(problems);
        let per_problem = if let Members::Listed(_) = members { count } else { count / problems };
        Self { members, rows: 0..count, per_problem }
    }

    /// Its members.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Its list, if it has one.
    pub fn listed(&self) -> Option<Listed<'a>> {
        if let Members::Listed(listed) = self.members { Some(listed) } else { None }
    }
}

/// What an operation says of each row.
#[derive(Clone, Debug)]
pub struct Results {
    /// Empty where it has none.
    pub costs: Costs,
    /// As many numbers for each row as [`Operation::per_row`](super::operation::Operation::per_row) says.
    pub values: Vec<f64>,
}
