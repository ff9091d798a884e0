//! The prior: what the background says before any observation, and what every method has to beat.

use super::control::control_records;
use super::samples::{MAX_DIVERGED_SHARE, Samples};
use super::{Analysis, MOST_MEMBERS, Record, check_count, check_samples, check_share};
use crate::engine::{Engine, Members};
use crate::error::{Error, Result};
use crate::problem::Problem;
use crate::random::{Stream, standard_normals};
use ndarray::{Array2, Axis, s};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Settings of the prior.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Samples of N(xb, B), at least 2. Default: 1000.
    pub samples: usize,
    /// Share of diverged samples above which there is no answer. Default: 0.5.
    pub max_diverged_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { samples: 1000, max_diverged_share: MAX_DIVERGED_SHARE }
    }
}

impl Settings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        check_count("prior-keep", self.samples, 2..=MOST_MEMBERS)?;
        check_share("max-diverged-share", self.max_diverged_share)
    }

    /// One analysis for each problem of the set, whose `seconds` are those of the whole set.
    ///
    /// `samples` are from N(xb, B) at time 0, carried to the last stored time by the model; `mean` and `std` are
    /// theirs. Records: `background_trajectory` (time, site), the forecast from xb itself, and `diverged_samples`.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, an engine's failure, a trajectory of xb that diverges, or too many
    /// samples diverged.
    pub fn run(&self, problem: &Problem, engine: &Engine) -> Result<Vec<Analysis>> {
        self.check()?;
        check_samples(problem, self.samples)?;
        let clock = Instant::now();
        // Row 0 of each problem is xb itself.
        let members = self.samples + 1;
        let mut states = Array2::zeros((problem.count() * members, problem.control().len()));
        for (p, mut own) in states.axis_chunks_iter_mut(Axis(0), members).enumerate() {
            let mean = problem.control_mean(p);
            own.row_mut(0).assign(&mean);
            let epsilon = standard_normals(problem.seeds[p], Stream::Background, 0, 0..self.samples, mean.len());
            for (epsilon, mut state) in epsilon.outer_iter().zip(own.outer_iter_mut().skip(1)) {
                state.assign(&(&mean + &problem.control_root(p, epsilon)));
            }
        }
        let trajectories = engine.load(problem)?.forecast(Members::Given(states.view()))?;
        let mut analyses = Vec::with_capacity(problem.count());
        for (p, own) in trajectories.axis_chunks_iter(Axis(0), members).enumerate() {
            let background = own.index_axis(Axis(0), 0).to_owned();
            if background.iter().any(|x| !x.is_finite()) {
                return Err(Error::Diverged { what: "the background's forecast".into(), diverged: 1, members: 1 });
            }
            let samples = Samples::new(own.slice(s![1.., .., ..]), "the prior", self.max_diverged_share)?;
            let (kept, diverged) = (samples.trajectories.len_of(Axis(0)), samples.diverged);
            let mut records = vec![
                Record::new("background_trajectory", "forecast from xb itself", &["time", "site"], background),
                Record::scalar("diverged_samples", "samples left out because they diverged", diverged as f64),
            ];
            let controls = states.slice(s![p * members + 1..(p + 1) * members, ..]);
            records.extend(control_records(problem, p, controls.select(Axis(0), &samples.kept).view()));
            analyses.push(Analysis {
                method: super::Method::Prior.title().into(),
                mean: samples.mean,
                std: samples.std,
                summary: format!("{kept} samples of N(xb, B), {diverged} diverged"),
                samples: samples.trajectories,
                records,
                seconds: 0.0,
            });
        }
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }
}
