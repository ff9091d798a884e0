//! The assimilation window: stored times, assimilated times, and the RK4 steps between them.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Stored times t = 0 .. times, `steps_per_time` RK4 steps of `dt` apart. Time 0 is the initial state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Number of stored times, the initial one included.
    pub times: usize,
    /// Observations at times below this one are assimilated; later ones are kept for verification.
    pub assimilated_times: usize,
    /// RK4 steps between two stored times.
    pub steps_per_time: usize,
    /// RK4 step in model time units.
    pub dt: f64,
}

impl Window {
    /// Time `t` in model time units.
    pub fn time(&self, t: usize) -> f64 {
        (t * self.steps_per_time) as f64 * self.dt
    }

    /// RK4 steps from the initial time to the last stored one.
    pub fn steps(&self) -> usize {
        self.times.saturating_sub(1) * self.steps_per_time
    }

    /// Refuses an empty window, a step that is not positive, and sizes beyond any machine.
    ///
    /// # Errors
    /// The field at fault.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str, expected: &str, found: String| {
            Err(Error::invalid(what, expected, found, "correct the window"))
        };
        if self.times == 0 {
            return refuse("times", "at least one stored time", "0".into());
        }
        if self.assimilated_times == 0 || self.assimilated_times > self.times {
            return refuse(
                "assimilated_times",
                &format!("1 to {} (the stored times)", self.times),
                self.assimilated_times.to_string(),
            );
        }
        if self.steps_per_time == 0 {
            return refuse("steps_per_time", "at least 1", "0".into());
        }
        if !(self.dt.is_finite() && self.dt > 0.0) {
            return refuse("dt", "a finite step > 0", self.dt.to_string());
        }
        let steps = (self.times - 1).checked_mul(self.steps_per_time).filter(|s| *s <= u32::MAX as usize / 2);
        if steps.is_none() {
            return refuse(
                "window",
                "at most 2^31 RK4 steps",
                format!("{} times of {} steps", self.times, self.steps_per_time),
            );
        }
        if !self.time(self.times - 1).is_finite() {
            let found = format!("{} of them for {} steps", self.dt, self.steps());
            return refuse("dt", "time units that add up to a finite window", found);
        }
        Ok(())
    }
}
