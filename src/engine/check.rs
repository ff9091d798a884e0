//! What an engine refuses: arrays of the wrong shape, numbers that are not finite, members that cannot be.

use super::{DIVERGED, Members, Scale};
use crate::error::{Error, Result};
use crate::problem::Problem;
use ndarray::Axis;

/// Refuses deviations so small that a departure of one unit would count as divergence.
pub fn check_weights(problem: &Problem) -> Result<()> {
    let refuse = |what: &str, std: f64| {
        let expected = format!("deviations of at least {:.0e}", DIVERGED.sqrt().recip());
        Err(Error::invalid(what, expected, format!("{std:e}"), "rescale the problem, or leave the variable out"))
    };
    for p in 0..problem.count() {
        for (what, stds) in [
            ("background_std", Some(problem.background.std_of(p))),
            ("parameter_std", problem.parameter_std_of(p).map(|std| std.to_owned())),
        ] {
            if let Some(std) = stds.into_iter().flatten().find(|s| 1.0 / (s * s) >= DIVERGED) {
                return refuse(what, std);
            }
        }
        if let Some(w) = problem.observation_precision(p).into_iter().find(|w| *w >= DIVERGED) {
            return refuse("observation_std", w.sqrt().recip());
        }
    }
    Ok(())
}

/// The sizes of a loaded problem set.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub problems: usize,
    pub sites: usize,
    pub control: usize,
    pub times: usize,
}

impl Layout {
    /// Checks shape and finiteness of members and returns P * M.
    pub fn check_members(&self, members: Members) -> Result<usize> {
        match members {
            Members::Given(array) => {
                let rows = array.nrows();
                if rows == 0 || !rows.is_multiple_of(self.problems) {
                    return Err(Error::invalid(
                        "members",
                        format!("a positive multiple of the {} problems as rows", self.problems),
                        rows.to_string(),
                        "give the same number of members for each problem",
                    ));
                }
                // In whole runs: one number after the other would take longer than a small gradient.
                let finite = |run: &[f64]| run.iter().fold(true, |finite, v| finite & v.is_finite());
                let shape = [rows, self.control];
                if array.shape() != shape || !array.as_slice().is_some_and(finite) {
                    self.check_array("members", array.shape(), &shape, array.iter())?;
                }
                Ok(rows)
            }
            Members::Drawn(draw) => {
                let most = u32::MAX as usize / self.problems;
                if draw.count == 0 || draw.count > most {
                    let expected = format!("1 to {most} for each of {} problems", self.problems);
                    return Err(Error::invalid("members", expected, draw.count.to_string(), "change the count"));
                }
                let shape = [self.problems, self.control];
                self.check_array("mean of the draws", draw.map.mean.shape(), &shape, draw.map.mean.iter())?;
                let what = "scale of the draws";
                match &draw.map.scale {
                    Scale::Diagonal(scale) => self.check_array(what, scale.shape(), &shape, scale.iter())?,
                    Scale::Lower(scale) => {
                        let matrices = if scale.len_of(Axis(0)) == 1 { 1 } else { self.problems };
                        let shape = [matrices, self.control, self.control];
                        self.check_array(what, scale.shape(), &shape, scale.iter())?;
                        if let Some(((_, i, j), v)) = scale.indexed_iter().find(|((_, i, j), v)| j > i && **v != 0.0) {
                            let found = format!("{v} in row {i}, column {j}");
                            return Err(Error::invalid(what, "a lower triangular matrix", found, "put 0 there"));
                        }
                    }
                    Scale::LowRank { diagonal, left, right } => {
                        self.check_array("diagonal of the scale", diagonal.shape(), &shape, diagonal.iter())?;
                        let rank = left.len_of(Axis(2));
                        if !(1..=self.control).contains(&rank) {
                            let expected = format!("1 to {}, the length of a control", self.control);
                            return Err(Error::invalid("rank of the scale", expected, rank.to_string(), "change it"));
                        }
                        let shape = [self.problems, self.control, rank];
                        for (what, factor) in [("left factor of the scale", left), ("right factor of the scale", right)]
                        {
                            self.check_array(what, factor.shape(), &shape, factor.iter())?;
                        }
                    }
                }
                Ok(self.problems * draw.count)
            }
            Members::Listed(listed) => {
                listed.check(self.problems)?;
                let shape = [listed.rows.len(), self.control];
                self.check_array("members", listed.states.shape(), &shape, listed.states.iter())?;
                Ok(listed.rows.len())
            }
        }
    }

    pub fn check_array<'a>(
        &self,
        what: &str,
        found: &[usize],
        expected: &[usize],
        values: impl Iterator<Item = &'a f64>,
    ) -> Result<()> {
        if found != expected {
            return Err(Error::invalid(what, format!("shape {expected:?}"), format!("{found:?}"), "correct the shape"));
        }
        crate::problem::check_finite(what, values)
    }
}
