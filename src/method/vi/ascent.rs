//! The Adam loop that raises an ELBO, and its iteration for any Gaussian family.
//!
//! One iteration: theta becomes an affine map, the engine draws a batch from it and returns the sums of the adjoint
//! gradients, the posterior turns them into the gradient of -ELBO, Adam moves theta of every problem at once. Its steps do
//! not change if the cost is multiplied by a constant (but for its epsilon), so the division of the loss by J(xb) in the
//! slides' code has no counterpart.

use super::track::{Fallback, Step, Track};
use super::{Course, NAME};
use crate::engine::{Draw, Engine, LoadedProblem, Moments, Terms};
use crate::error::{Error, Result};
use crate::method::{Observer, Progress};
use crate::optimizer::{Adam, norm};
use crate::posterior::{Elbo, Estimator, Gaussian, log_normalizer};
use crate::problem::Problem;
use crate::random::Stream;
use ndarray::{Array1, ArrayView1, ArrayViewMut1};

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Iterations,
    Tolerance,
    Caller,
}

/// What the loop leaves behind, beside the family's parameters.
pub(super) struct Ascent {
    pub tracks: Vec<Track>,
    pub stop: Stop,
    /// Of each problem, where its fit is that of an earlier window.
    pub fallbacks: Vec<Option<Fallback>>,
}

/// The power of the likelihood at the first of several levels.
const COLDEST: f64 = 0.01;

/// The powers to which the likelihood is raised, level by level: from a hundredth to 1 by a constant factor.
pub(super) fn tempers(levels: usize) -> Vec<f64> {
    (0..levels).map(|k| COLDEST.powf((levels - 1 - k) as f64 / (levels - 1).max(1) as f64)).collect()
}

/// The problem at each power, which the time weights carry into the engine.
///
/// # Errors
/// What [`Engine::load`] refuses.
pub(super) fn load(problem: &Problem, engine: &Engine, tempers: &[f64]) -> Result<Vec<LoadedProblem>> {
    let level = |temper: &f64| {
        let mut tempered = problem.clone();
        tempered.weights.mapv_inplace(|w| w * temper);
        engine.load(&tempered)
    };
    tempers.iter().map(level).collect()
}

/// What the loop raises the ELBO of.
pub(super) trait Climber {
    /// One iteration: draws, their gradient, and a step along it. What each problem was before that step.
    ///
    /// # Errors
    /// An engine's; parameters that overflow.
    fn step(&mut self, iteration: usize) -> Result<Vec<Step>>;

    /// The parameters of problem `p`.
    fn row(&self, p: usize) -> ArrayView1<'_, f64>;

    /// The parameters of problem `p`, to be changed.
    fn row_mut(&mut self, p: usize) -> ArrayViewMut1<'_, f64>;
}

/// Steps until the course ends, and goes back to the best window where that was better than the last. Windows count after
/// `annealing` iterations. `normalizers`: what the cost leaves out of the log density, of each problem.
///
/// # Errors
/// The climber's; too many diverged draws.
pub(super) fn climb(
    course: &Course,
    normalizers: Vec<f64>,
    annealing: usize,
    climber: &mut dyn Climber,
    observer: &mut dyn Observer,
) -> Result<Ascent> {
    let Course { iterations, batch, window, .. } = *course;
    let mut best: Vec<Option<Array1<f64>>> = vec![None; normalizers.len()];
    let mut tracks: Vec<_> = normalizers.into_iter().map(|own| Track::new(iterations, batch, own)).collect();
    let mut stop = Stop::Iterations;
    for iteration in 0..iterations {
        let steps = climber.step(iteration)?;
        let gradients: Vec<f64> = steps.iter().map(|step| step.gradient_norm).collect();
        for (track, step) in tracks.iter_mut().zip(steps) {
            track.push(step);
            track.check_divergence(batch, course.max_diverged_share)?;
        }

        let done = iteration + 1;
        if done.is_multiple_of(window) && done >= annealing + window {
            let mut settled = true;
            for (p, track) in tracks.iter_mut().enumerate() {
                let closed = track.close_window(window, course.tolerance);
                settled &= closed.settled;
                if closed.best {
                    best[p] = Some(climber.row(p).to_owned());
                }
            }
            if settled {
                stop = Stop::Tolerance;
                break;
            }
        }
        let elbo = tracks.iter().map(|t| t.elbo[iteration]).sum::<f64>() / tracks.len() as f64;
        let figures = [("ELBO", elbo), ("|gradient|", norm(&gradients))];
        let progress = Progress { method: NAME, iteration: done, iterations, figures: &figures };
        if observer.progress(&progress).is_break() {
            stop = Stop::Caller;
            break;
        }
    }
    let mut fallbacks = vec![None; tracks.len()];
    for (p, (track, best)) in tracks.iter().zip(best).enumerate() {
        if let (Some(fallback), Some(best)) = (track.fallback(window), best) {
            climber.row_mut(p).assign(&best);
            fallbacks[p] = Some(fallback);
        }
    }
    Ok(Ascent { tracks, stop, fallbacks })
}

/// What J leaves out of log p(y, c), of each problem.
pub(super) fn normalizers(problem: &Problem) -> Vec<f64> {
    (0..problem.count()).map(|p| log_normalizer(problem, p)).collect()
}

/// Where the sums over a draw's members come from, under the likelihood of a level of tempering.
pub(super) type Source<'a> = dyn FnMut(usize, &Draw) -> Result<Vec<Moments>> + 'a;

/// An engine with the problem at each level.
pub(super) fn engine(loaded: &mut [LoadedProblem]) -> impl FnMut(usize, &Draw) -> Result<Vec<Moments>> {
    |level, draw| loaded[level].moments(draw, Terms::ALL)
}

/// Raises the ELBO of `q` under the likelihood at each of `tempers`, the last of which is 1, by the sums of `source`. Where
/// there are several, the first half of the iterations passes through all but the last; the ELBO that is noted is always
/// that of the whole likelihood.
///
/// # Errors
/// An engine's; too many diverged draws; parameters that overflow.
pub(super) fn raise(
    course: &Course,
    normalizers: Vec<f64>,
    tempers: &[f64],
    source: &mut Source,
    q: &mut dyn Gaussian,
    observer: &mut dyn Observer,
) -> Result<Ascent> {
    let units = q.units();
    let gradient = vec![0.0; units.len()];
    let adam = Adam::new(course.adam(), units, course.iterations);
    let draw = Draw { map: q.to_map(), stream: Stream::MonteCarlo, iteration: 0, count: course.batch };
    let annealing = if tempers.len() > 1 { course.iterations / 2 } else { 0 };
    let mut climber =
        GaussianClimber { tempers, annealing, source, estimator: course.estimator, q, draw, gradient, adam };
    climb(course, normalizers, annealing, &mut climber, observer)
}

/// A Gaussian family on the way up.
struct GaussianClimber<'a> {
    tempers: &'a [f64],
    /// Iterations in which the likelihood is tempered.
    annealing: usize,
    source: &'a mut Source<'a>,
    estimator: Estimator,
    q: &'a mut dyn Gaussian,
    draw: Draw,
    gradient: Vec<f64>,
    adam: Adam,
}

impl Climber for GaussianClimber<'_> {
    fn step(&mut self, iteration: usize) -> Result<Vec<Step>> {
        let last = self.tempers.len() - 1;
        let level = if iteration < self.annealing { iteration * last / self.annealing } else { last };
        let temper = self.tempers[level];
        self.draw.iteration = iteration as u32;
        let mut moments = (self.source)(level, &self.draw)?;
        self.q.pull_back(&moments, self.estimator, &mut self.gradient);
        let gradients = self.gradient.chunks_exact(self.gradient.len() / moments.len());
        let step = |(p, (m, gradient)): (usize, (&mut Moments, &[f64]))| {
            m.cost_observation /= temper;
            let kept = (m.count - m.diverged) as f64;
            let entropy = self.q.entropy(p);
            let mut elbo = Elbo::new(entropy, m);
            if temper < 1.0 {
                // The spread that came back is that of the tempered cost.
                elbo.error = f64::NAN;
            }
            Step {
                elbo,
                entropy,
                cost_background: m.cost_background / kept,
                cost_observation: m.cost_observation / kept,
                gradient_norm: norm(gradient),
                diverged: m.diverged,
            }
        };
        let steps = moments.iter_mut().zip(gradients).enumerate().map(step).collect();
        self.adam.step(self.q.parameters(), &self.gradient);
        self.q.write_map(&mut self.draw.map);
        if !self.draw.map.is_finite() {
            let what = format!("VI-4DVAR, whose mean or scale overflowed at iteration {}", iteration + 1);
            return Err(Error::Diverged { what, diverged: self.draw.count, members: self.draw.count });
        }
        Ok(steps)
    }

    fn row(&self, p: usize) -> ArrayView1<'_, f64> {
        self.q.row(p)
    }

    fn row_mut(&mut self, p: usize) -> ArrayViewMut1<'_, f64> {
        self.q.row_mut(p)
    }
}
