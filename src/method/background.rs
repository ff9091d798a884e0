//! The background as if it were an analysis: the row that every method has to beat.

use crate::engine::{Engine, Members};
use crate::error::{Error, Result};
use crate::method::Analysis;
use crate::problem::Problem;
use crate::random::{Stream, normals};
use ndarray::{Array1, Array2, Array3, Axis, s};
use std::time::Instant;

/// What is known before any observation, for each problem of the set: the mean is the trajectory of xb, the standard
/// deviation that of `samples` trajectories from N(xb, B), those that overflow left out.
///
/// # Errors
/// Fewer than two samples, a device failure, or a background from which hardly any trajectory stays finite.
pub fn background(problem: &Problem, engine: &Engine, samples: usize) -> Result<Vec<Analysis>> {
    let started = Instant::now();
    if samples < 2 {
        return Err(Error::invalid("samples", "at least 2", samples.to_string(), "a deviation needs two"));
    }
    let (count, sites, times) = (problem.count(), problem.sites(), problem.window.times);
    // Of each problem the first member is xb itself.
    let members = samples + 1;
    let mut states = Array2::zeros((count * members, sites));
    for p in 0..count {
        let mean = problem.background.mean_of(p);
        states.row_mut(p * members).assign(&mean);
        for k in 0..samples {
            let epsilon: Array1<f64> = (0..sites.div_ceil(4) as u32)
                .flat_map(|block| normals(problem.seeds[p], Stream::Background, 0, k as u32, block))
                .take(sites)
                .map(f64::from)
                .collect();
            let state = &mean + &problem.background.square_root(p, epsilon.view());
            states.row_mut(p * members + 1 + k).assign(&state);
        }
    }
    let trajectories = engine.load(problem)?.forecast(Members::Given(states.view()))?;
    let seconds = started.elapsed().as_secs_f64() / count as f64;
    (0..count)
        .map(|p| {
            let own = trajectories.slice(s![p * members..(p + 1) * members, .., ..]);
            let kept: Vec<_> = (0..members)
                .filter(|&k| own.index_axis(Axis(0), k).iter().all(|x| x.abs() <= f64::from(f32::MAX)))
                .collect();
            if kept.first() != Some(&0) || kept.len() < 3 {
                let diverged = members - kept.len();
                return Err(Error::Diverged { what: "the background's forecast".into(), diverged, members });
            }
            let samples: Array3<f64> = own.select(Axis(0), &kept[1..]);
            let diverged = members - kept.len();
            Ok(Analysis {
                method: "Background".into(),
                mean: own.index_axis(Axis(0), 0).to_owned(),
                std: samples.std_axis(Axis(0), 1.0),
                summary: format!("{} samples, {diverged} diverged and left out, {times} times", kept.len() - 1),
                samples,
                records: Vec::new(),
                seconds,
            })
        })
        .collect()
}
