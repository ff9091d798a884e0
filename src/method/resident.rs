//! Adam on members that stay on the device: nothing but a look at where they stand comes back, every so many steps.

use super::starts::Starts;
use crate::checkpoint;
use crate::engine::{AdamStep, Listed, LoadedProblem, Terms};
use crate::error::{Error, Result};
use crate::optimizer::{AdamSettings, AdamSteps, Minimum, Reason, Watch};
use crate::problem::Problem;
use ndarray::{Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Adam's course.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub adam: AdamSettings,
    pub iterations: usize,
    /// Relative to the norm at the start.
    pub gradient_tolerance: f64,
    /// Steps between two looks.
    pub look: usize,
}

/// Time between two looks at all numbers of the members: what a failing device costs at most, and what a checkpoint may have.
const STRETCH: Duration = Duration::from_secs(2);
/// Failures in a row, with none of those stretches of time between them.
const MOST_FAILURES: usize = 6;

/// What a minimisation needs to go on.
#[derive(Clone, Serialize, Deserialize)]
struct State {
    minima: Vec<Minimum>,
    /// The lowest cost of each.
    costs: Vec<f64>,
    /// Those that still move.
    live: Vec<usize>,
    steps: AdamSteps,
    done: usize,
    looks: usize,
    /// Of those that still move, from the device: controls, and Adam's running means.
    numbers: [Array2<f64>; 3],
}

/// Moves members from `states` to where Adam, with each parameter in units of its background deviation, leaves them:
/// the last point, in the whitened control, not the best one. `history` has one cost for each look.
pub(super) fn minimise(
    course: Course,
    problem: &Problem,
    loaded: &mut LoadedProblem,
    starts: Starts,
    states: ArrayView2<f64>,
    watch: &mut dyn Watch,
) -> Result<Vec<Minimum>> {
    let (count, n) = states.dim();
    let mut state = checkpoint::begin(watch.keeper())?.unwrap_or_else(|| State {
        minima: vec![Minimum::unseen(vec![0.0; n]); count],
        costs: vec![f64::INFINITY; count],
        live: (0..count).collect(),
        steps: course.adam.steps(course.iterations),
        done: 0,
        looks: 0,
        numbers: [states.to_owned(), Array2::zeros((count, n)), Array2::zeros((count, n))],
    });
    let mut failures = 0;
    while !state.live.is_empty() {
        // What was on a device that failed is gone: back to where the host last knew it, and on from there to the same numbers.
        // After a failure in short stretches, so that the next one comes too late to undo all.
        let patience = if failures == 0 { STRETCH } else { Duration::ZERO };
        match stretch(&course, patience, problem, loaded, starts, &mut state, watch) {
            Err(Error::Device { .. }) if failures < MOST_FAILURES => failures += 1,
            outcome => {
                outcome?;
                failures = 0;
            }
        }
        checkpoint::keep(watch.keeper(), &state)?;
    }
    checkpoint::end(watch.keeper(), &state)?;
    Ok(state.minima)
}

/// Moves the members that are live until none is, or for a while, after which the host knows where they are.
fn stretch(
    course: &Course,
    patience: Duration,
    problem: &Problem,
    loaded: &mut LoadedProblem,
    starts: Starts,
    state: &mut State,
    watch: &mut dyn Watch,
) -> Result<()> {
    let units = problem.control_stds();
    let n = units.ncols();
    let State { mut minima, mut costs, mut live, mut steps, mut done, mut looks, .. } = state.clone();
    let mut resident = {
        let rows: Vec<_> = live.iter().map(|&index| starts.rows[index]).collect();
        let [states, mean, square] = &state.numbers;
        let listed = Listed { states: states.view(), rows: &rows, amplitude: starts.amplitude };
        let backgrounds = starts.backgrounds.select(Axis(0), &live);
        loaded.settle_moving(listed, backgrounds.view(), units.view(), [mean.view(), square.view()])?
    };
    let clock = Instant::now();
    loop {
        let seen = loaded.inspect(&mut resident, Terms::ALL)?;
        let total = seen.costs.total();
        looks += 1;
        let mut ended: Vec<Option<Reason>> = vec![None; live.len()];
        for (place, &index) in live.iter().enumerate() {
            let minimum = &mut minima[index];
            minimum.iterations = done;
            minimum.evaluations = done + looks;
            if seen.costs.diverged[place] {
                minimum.overflow();
                minimum.cost = f64::INFINITY;
                ended[place] = Some(Reason::Diverged);
                continue;
            }
            minimum.cost = total[place];
            minimum.gradient_norm = seen.gradient_norm[place];
            minimum.pass(minimum.cost);
            costs[index] = costs[index].min(minimum.cost);
            if done == 0 {
                minimum.start_gradient_norm = minimum.gradient_norm;
            }
            if minimum.gradient_norm <= course.gradient_tolerance * minimum.start_gradient_norm {
                ended[place] = Some(Reason::GradientTolerance);
            } else if done == course.iterations {
                ended[place] = Some(Reason::IterationLimit);
            }
        }
        if watch.progress(done, &costs).is_break() {
            ended.iter_mut().for_each(|reason| *reason = reason.or(Some(Reason::Interrupted)));
        }
        if ended.iter().any(Option::is_some) {
            let states = loaded.states(&resident)?;
            for ((place, &index), reason) in live.iter().enumerate().zip(&ended) {
                let Some(reason) = *reason else { continue };
                let departure = &states.row(place) - &starts.backgrounds.row(index);
                let p = starts.rows[index].problem as usize;
                minima[index].reason = reason;
                minima[index].point = problem.control_whitened(p, departure.view()).to_vec();
            }
            let keep: Vec<usize> = (0..live.len()).filter(|place| ended[*place].is_none()).collect();
            if keep.is_empty() {
                let numbers = [0; 3].map(|_| Array2::zeros((0, n)));
                *state = State { minima, costs, live: Vec::new(), steps, done, looks, numbers };
                return Ok(());
            }
            loaded.gather(&mut resident, &keep)?;
            live = keep.iter().map(|&place| live[place]).collect();
        }
        let next: Vec<AdamStep> = steps.by_ref().take(course.look.min(course.iterations - done)).collect();
        loaded.adam(&mut resident, &next, Terms::ALL)?;
        done += next.len();
        if clock.elapsed() > patience {
            let [mean, square] = loaded.running_means(&resident)?;
            let numbers = [loaded.states(&resident)?, mean, square];
            *state = State { minima, costs, live, steps, done, looks, numbers };
            return Ok(());
        }
    }
}
