//! Adam on members that stay on the device: nothing but a look at where they stand comes back, every so many steps.

use super::starts::Starts;
use crate::engine::{AdamStep, Listed, LoadedProblem, Terms};
use crate::error::Result;
use crate::optimizer::{AdamSettings, Minimum, Reason, Watch};
use crate::problem::Problem;
use ndarray::ArrayView2;

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

/// Moves members from `states` to where Adam, with each parameter in units of its background deviation, leaves them:
/// the last point, in the whitened control, not the best one. `history` has one cost for each look.
pub(super) fn minimise(
    course: Course,
    problem: &Problem,
    loaded: &mut LoadedProblem,
    starts: Starts,
    states: ArrayView2<f64>,
    watch: &mut Watch,
) -> Result<Vec<Minimum>> {
    let (count, n) = states.dim();
    let units = problem.control_stds();
    let listed = Listed { states, rows: starts.rows, amplitude: starts.amplitude };
    let mut resident = loaded.settle(listed, starts.backgrounds, units.view())?;
    let mut minima = vec![Minimum::unseen(vec![0.0; n]); count];
    let mut costs = vec![f64::INFINITY; count];
    let mut live: Vec<usize> = (0..count).collect();
    let mut steps = course.adam.steps(course.iterations);
    let (mut done, mut looks) = (0, 0);
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
                minimum.cost = f64::INFINITY;
                ended[place] = Some(Reason::Diverged);
                continue;
            }
            minimum.cost = total[place];
            minimum.gradient_norm = seen.gradient_norm[place];
            minimum.history.push(minimum.cost);
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
        if watch(done, &costs).is_break() {
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
                return Ok(minima);
            }
            loaded.gather(&mut resident, &keep)?;
            live = keep.iter().map(|&place| live[place]).collect();
        }
        let next: Vec<AdamStep> = steps.by_ref().take(course.look.min(course.iterations - done)).collect();
        loaded.adam(&mut resident, &next, Terms::ALL)?;
        done += next.len();
    }
}
