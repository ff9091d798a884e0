//! Given members with a list that says whose each is, and observations of their own.

use crate::error::{Error, Result};
use ndarray::ArrayView2;

/// Whose a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its problem.
    pub problem: u32,
    /// Its number there, which addresses its draws.
    pub member: u32,
}

/// Given controls, any number for each problem, each with the problem's observations or with its own.
///
/// A member's numbers do not depend on the others in the list, so that those which have converged can be left out.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Controls in physical units: `[rows, control]`.
    pub states: ArrayView2<'a, f64>,
    /// Whose each is, problems in ascending order: `[rows]`.
    pub rows: &'a [Row],
    /// a >= 0: the member's observations are y + a sqrt(R) eps, with standard normals eps from the problem's seed, the
    /// stream [`ObservationPerturbation`](crate::random::Stream::ObservationPerturbation), the member's number, the
    /// time and the observation. [`Problem::perturbed_observations`](crate::problem::Problem::perturbed_observations)
    /// gives the same. 0: the problem's observations.
    pub amplitude: f64,
}

impl Listed<'_> {
    /// Checks everything but the states.
    pub(super) fn check(&self, problems: usize) -> Result<()> {
        check_rows(self.rows, problems)?;
        if !(self.amplitude.is_finite() && self.amplitude >= 0.0) {
            return Err(Error::invalid(
                "amplitude of the perturbations",
                "a finite number >= 0",
                self.amplitude.to_string(),
                "1 for an ensemble, 0 for none",
            ));
        }
        Ok(())
    }
}

/// Refuses a list that is empty, too long, out of order or of problems that are not there.
fn check_rows(rows: &[Row], problems: usize) -> Result<()> {
    let refuse =
        |expected: String, found: String| Err(Error::invalid("list of members", expected, found, "correct the list"));
    if rows.is_empty() || u32::try_from(rows.len()).is_err() {
        return refuse(format!("1 to {} rows", u32::MAX), rows.len().to_string());
    }
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].problem > pair[1].problem) {
        let found = format!("problem {} before {}", pair[0].problem, pair[1].problem);
        return refuse("problems in ascending order".into(), found);
    }
    match rows.iter().find(|row| row.problem as usize >= problems) {
        Some(row) => refuse(format!("problems 0 to {}", problems - 1), row.problem.to_string()),
        None => Ok(()),
    }
}
