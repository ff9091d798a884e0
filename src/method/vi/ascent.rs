//! The Adam loop that raises an ELBO, and its iteration for any Gaussian family.
//!
//! One iteration: theta becomes an affine map, the engine draws a batch from it and returns the sums of the adjoint
//! gradients, the posterior turns them into the gradient of -ELBO, Adam moves theta of every problem at once. Its steps do
//! not change if the cost is multiplied by a constant (but for its epsilon), so the division of the loss by J(xb) in the
//! slides' code has no counterpart.

use super::track::{Fallback, Soundness, Step, Track};
use super::{Course, NAME};
use crate::checkpoint;
use crate::engine::{Draw, Engine, LoadedProblem, Moments, Terms};
use crate::error::{Error, Result};
use crate::method::{Observer, Progress};
use crate::optimizer::{Adam, norm};
use crate::posterior::{Elbo, Estimator, Gaussian, log_normalizer};
use crate::problem::Problem;
use crate::random::Stream;
use ndarray::{Array1, ArrayView1, ArrayViewMut1};
use serde::{Deserialize, Serialize};

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// How often a problem's step may be halved because its draws diverge.
const MOST_CUTS: usize = 6;

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

    /// Halves the step of problem `p`, which starts again from where it is put.
    fn slow(&mut self, p: usize);

    /// The optimiser of each problem, or of all.
    fn adams(&mut self) -> &mut [Adam];

    /// Tells that parameters were changed from outside.
    fn moved(&mut self) {}
}

/// Where a climb stands.
#[derive(Serialize, Deserialize)]
struct Climb {
    iteration: usize,
    stop: Option<Stop>,
    tracks: Vec<Track>,
    /// Of each problem: the parameters that it began with, those at the end of its best window, and those now.
    first: Vec<Array1<f64>>,
    best: Vec<Option<Array1<f64>>>,
    rows: Vec<Array1<f64>>,
    adams: Vec<Adam>,
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
    let problems = normalizers.len();
    let kept: Option<Climb> = checkpoint::begin(observer.keeper())?;
    let resumed = kept.is_some();
    let rows = |climber: &dyn Climber| (0..problems).map(|p| climber.row(p).to_owned()).collect::<Vec<_>>();
    let mut climb = kept.unwrap_or_else(|| Climb {
        iteration: 0,
        stop: None,
        tracks: normalizers.into_iter().map(|own| Track::new(iterations, batch, own)).collect(),
        first: rows(climber),
        best: vec![None; problems],
        rows: Vec::new(),
        adams: Vec::new(),
    });
    if resumed {
        climb.rows.iter().enumerate().for_each(|(p, row)| climber.row_mut(p).assign(row));
        climber.adams().clone_from_slice(&climb.adams);
        climber.moved();
    }
    while climb.stop.is_none() && climb.iteration < iterations {
        let Climb { iteration, tracks, first, best, .. } = &mut climb;
        let steps = climber.step(*iteration)?;
        *iteration += 1;
        let done = *iteration;
        let gradients: Vec<f64> = steps.iter().map(|step| step.gradient_norm).collect();
        for (p, (track, step)) in tracks.iter_mut().zip(steps).enumerate() {
            track.push(step);
            match track.soundness(batch, course.max_diverged_share) {
                Soundness::Worse if track.cuts.len() < MOST_CUTS => {
                    climber.slow(p);
                    track.cut();
                }
                Soundness::Sound | Soundness::Worse => {}
                Soundness::Lost(error) if track.cuts.len() == MOST_CUTS || !track.began_sound() => return Err(error),
                Soundness::Lost(_) => {
                    climber.row_mut(p).assign(best[p].as_ref().unwrap_or(&first[p]));
                    climber.slow(p);
                    climber.moved();
                    track.cut();
                }
            }
        }

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
                climb.stop = Some(Stop::Tolerance);
            }
        }
        let tracks = &climb.tracks;
        let elbo = tracks.iter().map(|t| t.elbo[done - 1]).sum::<f64>() / tracks.len() as f64;
        let figures = [("ELBO", elbo), ("|gradient|", norm(&gradients))];
        let progress = Progress { method: NAME, iteration: done, iterations, figures: &figures };
        if observer.progress(&progress).is_break() {
            climb.stop = climb.stop.or(Some(Stop::Caller));
        }
        checkpoint::keep_fetched(observer.keeper(), &mut || {
            climb.rows = rows(climber);
            climb.adams = climber.adams().to_vec();
            Ok(checkpoint::to_bytes(&climb))
        })?;
    }
    climb.rows = rows(climber);
    climb.adams = climber.adams().to_vec();
    checkpoint::end(observer.keeper(), &climb)?;
    let Climb { tracks, best, stop, .. } = climb;
    let mut fallbacks = vec![None; tracks.len()];
    for (p, (track, best)) in tracks.iter().zip(best).enumerate() {
        if let (Some(fallback), Some(best)) = (track.fallback(window), best) {
            climber.row_mut(p).assign(&best);
            fallbacks[p] = Some(fallback);
        }
    }
    Ok(Ascent { tracks, stop: stop.unwrap_or(Stop::Iterations), fallbacks })
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
    let problems = normalizers.len();
    let adam = Adam::of_parts(course.adam(), units, course.iterations, problems);
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

    fn slow(&mut self, p: usize) {
        self.adam.slow(p);
    }

    fn adams(&mut self) -> &mut [Adam] {
        std::slice::from_mut(&mut self.adam)
    }

    fn moved(&mut self) {
        self.q.write_map(&mut self.draw.map);
    }
}
