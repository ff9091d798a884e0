//! Normalizing flows: a full-rank Gaussian first, then the layers in front of it, by the engine's gradient of each member.
//!
//! One iteration: eps is drawn by address and passes through the layers, the engine returns J and dJ/dx0 of each member,
//! and the way back through the layers turns these into the gradient of -ELBO with respect to every network. Members pass
//! in pieces, on all threads, of a size that depends on nothing but the batch: sums have one value.

use super::ascent::{self, Ascent, Climber, Stop};
use super::minima::Minima;
use super::track::Step;
use super::{Course, Fitted, Settings};
use crate::engine::{DIVERGED, Engine, LoadedProblem, Members, Terms};
use crate::error::Result;
use crate::method::Observer;
use crate::optimizer::{Adam, norm};
use crate::posterior::{Elbo, Family, Flow, Normal, Posterior};
use crate::problem::Problem;
use crate::random::{Stream, standard_normals};
use ndarray::{Array2, ArrayView1, ArrayViewMut1, Axis, concatenate, s};
use rayon::prelude::*;
use std::ops::Range;

/// Members of a piece, which passes through the layers on one thread.
const PIECE: usize = 128;

/// Numbers of members that are on their way at a time, before each layer: what bounds the memory.
const NUMBERS: usize = 1 << 21;

impl Settings {
    /// Fits one flow per problem, in front of the full-rank Gaussian fitted before it.
    pub(super) fn fit_flow(&self, minima: &mut Minima, engine: &Engine, observer: &mut dyn Observer) -> Result<Fitted> {
        let problem = minima.problem;
        Flow::check(self.family, &self.flow, problem.control().len(), problem.count())?;
        let gaussian = Self { family: Family::FullRank, ..*self };
        let (base, before) = gaussian.fit_normals(minima, engine, observer)?;
        let mut flow = Flow::new(self.family, &self.flow, base, &problem.seeds)?;
        let mut notes = vec![String::new(); problem.count()];
        let ascent = if before.stop == Stop::Caller {
            notes.fill("; that was of the Gaussian, the flow has not begun".into());
            before
        } else {
            for (gradients, track) in minima.evaluations.iter_mut().zip(&before.tracks) {
                *gradients += self.course().batch * track.elbo.len();
            }
            self.raise_flow(problem, minima.whole(), &mut flow, observer)?
        };
        Ok(Fitted {
            title: self.family.title(),
            posterior: Box::new(flow),
            ascent: Some(ascent),
            records: vec![Vec::new(); problem.count()],
            notes,
            faults: vec![None; problem.count()],
        })
    }

    /// Fits the flow of this family that starts as `base`, a Gaussian for each problem: the layers alone, by this batch,
    /// learning rate, schedule, estimator and iterations.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, an engine's failure, too many draws diverged.
    pub fn fit_flow_from(
        &self,
        problem: &Problem,
        engine: &Engine,
        base: Vec<Normal>,
        observer: &mut dyn Observer,
    ) -> Result<Flow> {
        self.check()?;
        let mut flow = Flow::new(self.family, &self.flow, base, &problem.seeds)?;
        self.raise_flow(problem, &mut engine.load(problem)?, &mut flow, observer)?;
        Ok(flow)
    }

    /// The loop alone.
    pub(super) fn raise_flow(
        &self,
        problem: &Problem,
        loaded: &mut LoadedProblem,
        flow: &mut Flow,
        observer: &mut dyn Observer,
    ) -> Result<Ascent> {
        let course = self.course();
        let units = flow.units();
        let adams = vec![Adam::new(course.adam(), units, course.iterations); problem.count()];
        ascent::climb(
            &course,
            ascent::normalizers(problem),
            0,
            &mut FlowClimber { course, seeds: &problem.seeds, loaded, flow, adams },
            observer,
        )
    }
}

/// The flows of a problem set on their way up.
struct FlowClimber<'a> {
    course: Course,
    seeds: &'a [u64],
    loaded: &'a mut LoadedProblem,
    flow: &'a mut Flow,
    /// One for each problem.
    adams: Vec<Adam>,
}

/// Sums over the draws of one problem that did not diverge.
#[derive(Clone)]
struct Sums {
    cost_background: f64,
    cost_observation: f64,
    /// -log q
    surprise: f64,
    /// -J - log q of each.
    bounds: Vec<f64>,
    gradient: Vec<f64>,
}

impl FlowClimber<'_> {
    /// Adds the members `members` of each problem to its sums.
    fn add(&mut self, iteration: u32, members: Range<usize>, sums: &mut [Sums]) -> Result<()> {
        let flow = &*self.flow;
        let n = flow.control();
        let each = members.len();
        let pieces: Vec<(usize, Range<usize>)> = (0..sums.len())
            .flat_map(|p| members.clone().step_by(PIECE).map(move |first| (p, first)))
            .map(|(p, first)| (p, first..(first + PIECE).min(members.end)))
            .collect();
        let passes: Vec<_> = pieces
            .par_iter()
            .map(|(p, own)| {
                flow.pass(
                    *p,
                    standard_normals(self.seeds[*p], Stream::MonteCarlo, iteration, own.clone(), n),
                    self.course.estimator,
                )
            })
            .collect();
        let views: Vec<_> = passes.iter().map(|(_, draws)| draws.states.view()).collect();
        let states = concatenate(Axis(0), &views).expect("rows of one length");
        // What overflowed in the layers diverges on the engine, which takes finite numbers alone.
        let given: Array2<f64> = states.mapv_into(|x| if x.abs() < DIVERGED { x } else { DIVERGED });
        let gradients = self.loaded.gradient(Members::Given(given.view()), Terms::ALL)?;
        let costs = &gradients.costs;
        let first_row = |p: usize, own: &Range<usize>| p * each + own.start - members.start;
        let results: Vec<_> = pieces
            .par_iter()
            .zip(passes)
            .map(|((p, own), (pass, draws))| {
                let first = first_row(*p, own);
                let rows = first..first + own.len();
                let kept: Vec<bool> =
                    rows.clone().zip(&draws.log_density).map(|(k, q)| !costs.diverged[k] && q.is_finite()).collect();
                let gradient = gradients.gradient.slice(s![rows.clone(), ..]);
                let gradient = flow.pull_back(*p, pass, gradient, &kept);
                (kept, draws.log_density, gradient)
            })
            .collect();
        for ((p, own), (kept, log_density, gradient)) in pieces.iter().zip(results) {
            let first = first_row(*p, own);
            let sums = &mut sums[*p];
            for (k, log_q) in (first..).zip(log_density).zip(kept).filter_map(|(row, kept)| kept.then_some(row)) {
                sums.cost_background += costs.background[k];
                sums.cost_observation += costs.observation[k];
                sums.surprise -= log_q;
                sums.bounds.push(-costs.background[k] - costs.observation[k] - log_q);
            }
            sums.gradient.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
        Ok(())
    }
}

impl Climber for FlowClimber<'_> {
    fn step(&mut self, iteration: usize) -> Result<Vec<Step>> {
        let (problems, batch) = (self.adams.len(), self.course.batch);
        let none = Sums {
            cost_background: 0.0,
            cost_observation: 0.0,
            surprise: 0.0,
            bounds: Vec::with_capacity(batch),
            gradient: vec![0.0; self.flow.row(0).len()],
        };
        let mut sums = vec![none; problems];
        let at_a_time = (NUMBERS / (problems * self.flow.control())).max(PIECE);
        for first in (0..batch).step_by(at_a_time) {
            self.add(iteration as u32, first..(first + at_a_time).min(batch), &mut sums)?;
        }
        let steps = sums.iter_mut().map(|sums| sums.finish(batch)).collect();
        let parameters = self.flow.parameters();
        let each = parameters.len() / problems;
        parameters.par_chunks_exact_mut(each).zip(&mut self.adams).zip(&sums).for_each(|((own, adam), sums)| {
            adam.step(own, &sums.gradient);
        });
        Ok(steps)
    }

    fn row(&self, p: usize) -> ArrayView1<'_, f64> {
        self.flow.row(p)
    }

    fn row_mut(&mut self, p: usize) -> ArrayViewMut1<'_, f64> {
        self.flow.row_mut(p)
    }

    fn slow(&mut self, p: usize) {
        self.adams[p].slow(0);
    }

    fn adams(&mut self) -> &mut [Adam] {
        &mut self.adams
    }
}

impl Sums {
    /// The gradient becomes a mean; the rest is what the iteration was.
    fn finish(&mut self, batch: usize) -> Step {
        let kept = self.bounds.len() as f64;
        let share = if kept > 0.0 { 1.0 / kept } else { 0.0 };
        self.gradient.iter_mut().for_each(|g| *g *= share);
        let mean = self.bounds.iter().sum::<f64>() / kept;
        let deviation: f64 = self.bounds.iter().map(|b| (b - mean) * (b - mean)).sum();
        let diverged = batch - self.bounds.len();
        Step {
            elbo: Elbo {
                value: if diverged > 0 { f64::NAN } else { mean },
                error: if kept < 2.0 { f64::NAN } else { (deviation / ((kept - 1.0) * kept)).sqrt() },
            },
            entropy: self.surprise / kept,
            cost_background: self.cost_background / kept,
            cost_observation: self.cost_observation / kept,
            gradient_norm: norm(&self.gradient),
            diverged,
        }
    }
}
