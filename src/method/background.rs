//! The background as if it were an analysis: what is known before any observation, and what every method has to beat.

use super::Analysis;
use super::samples::{MAX_DIVERGED_SHARE, Samples, standard_normals};
use crate::engine::{Engine, Members};
use crate::error::{Error, Result};
use crate::problem::Problem;
use crate::random::Stream;
use ndarray::{Array2, Axis, s};
use std::time::Instant;

/// For each problem of the set: `mean` is the trajectory of xb, `samples` are from N(xb, B) at time 0, carried to the
/// last stored time by the model, and `std` is their deviation. `seconds` are those of the whole set.
///
/// # Errors
/// Fewer than two samples, an engine's failure, a trajectory of xb that diverges, or half of the samples diverged.
pub fn background(problem: &Problem, engine: &Engine, samples: usize) -> Result<Vec<Analysis>> {
    super::check_count("samples", samples, 2..=super::MOST_MEMBERS)?;
    let clock = Instant::now();
    // Row 0 of each problem is xb itself.
    let members = samples + 1;
    let mut states = Array2::zeros((problem.count() * members, problem.sites()));
    for (p, mut own) in states.axis_chunks_iter_mut(Axis(0), members).enumerate() {
        let mean = problem.background.mean_of(p);
        own.row_mut(0).assign(&mean);
        let epsilon = standard_normals(problem.seeds[p], Stream::Background, 0, samples, problem.sites());
        for (epsilon, mut state) in epsilon.outer_iter().zip(own.outer_iter_mut().skip(1)) {
            state.assign(&(&mean + &problem.background.square_root(p, epsilon)));
        }
    }
    let trajectories = engine.load(problem)?.forecast(Members::Given(states.view()))?;
    let mut analyses = Vec::with_capacity(problem.count());
    for own in trajectories.axis_chunks_iter(Axis(0), members) {
        let mean = own.index_axis(Axis(0), 0).to_owned();
        if mean.iter().any(|x| !x.is_finite()) {
            return Err(Error::Diverged { what: "the background's forecast".into(), diverged: 1, members: 1 });
        }
        let samples = Samples::new(own.slice(s![1.., .., ..]), "the background", MAX_DIVERGED_SHARE)?;
        analyses.push(Analysis {
            method: "Background".into(),
            mean,
            std: samples.std,
            summary: format!(
                "{} samples of N(xb, B), {} diverged",
                samples.trajectories.len_of(Axis(0)),
                samples.diverged
            ),
            samples: samples.trajectories,
            records: Vec::new(),
            seconds: 0.0,
        });
    }
    let seconds = clock.elapsed().as_secs_f64();
    analyses.iter_mut().for_each(|a| a.seconds = seconds);
    Ok(analyses)
}
