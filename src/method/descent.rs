//! Minimising J in the latent control z ~ N(0, I), over any members of a problem set at once, the window lengthened in
//! stages.
//!
//! `transform.rs` has the control c of a z, around the member's own background, and the cost of z, exact on the host; the
//! observation term comes from the engine, one call for all members that still move. With a Gaussian prior J's curvature is
//! at least 1 in every direction as far as J is convex, so |dJ/dz| bounds the distance to the minimum in background
//! deviations.

use super::Record;
use super::resident::{self, Course};
use super::starts::Starts;
use super::transform::Transform;
use crate::engine::{Engine, Listed, LoadedProblem, Members, Precision, Row, Terms};
use crate::error::Result;
use crate::optimizer::{
    AdamSettings, Evaluation, LbfgsSettings, Minimum, Request, Watch, minimise_adam, minimise_lbfgs,
};
use crate::problem::Problem;
use crate::random::{Stream, standard_normals};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What moves the control to the minimum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Minimiser {
    /// L-BFGS with a strong-Wolfe line search.
    #[default]
    Lbfgs,
    /// Adam.
    Adam,
}

/// A minimiser with its constants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descent {
    pub minimiser: Minimiser,
    pub lbfgs: LbfgsSettings,
    pub adam: AdamSettings,
    /// Adam's steps on the device between two looks at the members; none for Adam on the host, which keeps the best
    /// point and the cost of every step.
    pub look: Option<usize>,
}

/// Tolerances of the stages before the last, which need only lead into the next one's basin.
const LOOSE: f64 = 1e-3;

/// Members that a thread takes at a time outside the engine.
const GRAIN: usize = 256;

/// Default tolerances on gradient and cost: round-off level.
pub(super) fn tolerances(precision: Precision) -> (f64, f64) {
    match precision {
        Precision::F32 => (1e-5, 1e-7),
        Precision::F64 => (1e-8, 1e-13),
    }
}

impl Descent {
    /// The same, content with less.
    fn loose(self) -> Self {
        let LbfgsSettings { gradient_tolerance, cost_tolerance, .. } = self.lbfgs;
        Self {
            lbfgs: LbfgsSettings {
                gradient_tolerance: gradient_tolerance.max(LOOSE),
                cost_tolerance: cost_tolerance.max(LOOSE),
                ..self.lbfgs
            },
            ..self
        }
    }
}

/// A problem set on an engine, in windows of growing length.
pub(super) struct Windows<'a> {
    pub problem: &'a Problem,
    transforms: Vec<Transform<'a>>,
    /// The last one is the whole window.
    loaded: Vec<LoadedProblem>,
}

/// Where a member came to rest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rest {
    /// In the last window.
    pub minimum: Minimum,
    /// Iterations and evaluations in all windows together.
    pub iterations: usize,
    pub evaluations: usize,
    /// Steps of the model in all windows together, and as many of its adjoint; those made again on the way back do not
    /// count.
    pub steps: u64,
}

/// What overflowed on the way to the minima of one problem's members.
pub(super) fn overflows(rests: &[Rest]) -> Record {
    let longest = rests.iter().map(|r| r.minimum.overflows.len()).max().unwrap_or(0);
    let mut total = Array1::zeros(longest);
    for rest in rests {
        total.iter_mut().zip(&rest.minimum.overflows).for_each(|(sum, n)| *sum += f64::from(*n));
    }
    let long = "evaluations in the whole window that overflowed and count for nothing, over starts or members, on the way to \
                each cost of the longest history";
    Record::new("overflows", long, &["longest_history"], total)
}

/// The same for people, where there is anything to say.
pub(super) fn overflow_note(rests: &[Rest]) -> String {
    let of = |r: &Rest| r.minimum.overflows.iter().map(|n| u64::from(*n)).sum::<u64>();
    match rests.iter().map(of).sum::<u64>() {
        0 => String::new(),
        overflows => format!("; {overflows} evaluations overflowed and count for nothing"),
    }
}

impl<'a> Windows<'a> {
    /// The windows of `stages` stages: each ends at a later assimilated time, the last one at the last (Pires, Vautard &
    /// Talagrand 1996). A stage that would add no observation is left out.
    ///
    /// # Errors
    /// What [`Engine::load`] refuses.
    pub fn new(problem: &'a Problem, engine: &Engine, stages: usize) -> Result<Self> {
        let transforms = (0..problem.count()).map(|p| Transform::gaussian(problem, p));
        Self::through(transforms.collect(), problem, engine, stages)
    }

    /// The same, with another transform for each problem.
    ///
    /// # Errors
    /// What [`Engine::load`] refuses.
    pub fn through(
        transforms: Vec<Transform<'a>>,
        problem: &'a Problem,
        engine: &Engine,
        stages: usize,
    ) -> Result<Self> {
        problem.check()?;
        let assimilated = problem.window.assimilated_times;
        let mut loaded = Vec::new();
        let mut before = 0;
        for stage in 1..stages {
            let mut shorter = problem.clone();
            let end = (assimilated * stage).div_ceil(stages);
            shorter.weights.slice_axis_mut(Axis(1), (end..).into()).fill(0.0);
            let observations = (0..problem.count()).map(|p| shorter.assimilated_count(p)).sum();
            if observations > before {
                loaded.push(engine.load(&shorter)?);
            }
            before = observations;
        }
        loaded.push(engine.load(problem)?);
        Ok(Self { problem, transforms, loaded })
    }

    /// The problem set over the whole window.
    pub fn whole(&mut self) -> &mut LoadedProblem {
        self.loaded.last_mut().expect("at least the whole window")
    }

    /// c of the latent control z: `[control]`.
    pub fn control(&self, p: usize, background: ArrayView1<f64>, z: &[f64]) -> Array1<f64> {
        let mut control = Array1::zeros(background.len());
        self.transforms[p].control(background, z, control.as_slice_mut().expect("one run"));
        control
    }

    /// dc/dz of problem `p` at z: `[control, latents]`.
    pub fn jacobian(&self, p: usize, z: &[f64]) -> Array2<f64> {
        self.transforms[p].jacobian(z)
    }

    /// Length of z.
    pub fn latents(&self) -> usize {
        self.transforms[0].latents(self.problem.control().len())
    }

    /// The trajectories of states of problem `p`: `[states, times, sites]`.
    ///
    /// # Errors
    /// An engine's.
    pub fn forecast(&mut self, p: usize, states: ArrayView2<f64>) -> Result<Array3<f64>> {
        let rows: Vec<_> = (0..states.nrows()).map(|k| Row { problem: p as u32, member: k as u32 }).collect();
        self.whole().forecast(Members::Listed(Listed { states, rows: &rows, amplitude: 0.0 }))
    }

    /// The minima of the unperturbed problems from `starts` starts each: xb or the `first` of each problem (`[P, control]`),
    /// then draws from N(xb, B).
    ///
    /// # Errors
    /// An engine's.
    pub fn unperturbed(
        &mut self,
        descent: &Descent,
        starts: usize,
        first: Option<ArrayView2<f64>>,
        watch: &mut dyn Watch,
    ) -> Result<Vec<Rest>> {
        let (problem, n) = (self.problem, self.latents());
        let mut rows = Vec::with_capacity(problem.count() * starts);
        let mut from = Vec::with_capacity(problem.count() * starts);
        for (p, &seed) in problem.seeds.iter().enumerate() {
            rows.extend((0..starts).map(|k| Row { problem: p as u32, member: k as u32 }));
            from.push(match first {
                None => vec![0.0; n],
                Some(first) => problem.control_whitened(p, (&first.row(p) - &problem.control_mean(p)).view()).to_vec(),
            });
            from.extend(standard_normals(seed, Stream::Starts, 0, 1..starts, n).outer_iter().map(|z| z.to_vec()));
        }
        let means = problem.control_means();
        let backgrounds = means.select(Axis(0), &rows.iter().map(|row| row.problem as usize).collect::<Vec<_>>());
        let starts = Starts { rows: &rows, backgrounds: backgrounds.view(), amplitude: 0.0, roots: None };
        self.minimise(descent, starts, from, true, watch)
    }

    /// Minimises J of every member from the controls `from`, window by window or in the whole one alone.
    ///
    /// # Errors
    /// An engine's.
    pub fn minimise(
        &mut self,
        descent: &Descent,
        starts: Starts,
        from: Vec<Vec<f64>>,
        staged: bool,
        watch: &mut dyn Watch,
    ) -> Result<Vec<Rest>> {
        let mut from = from;
        let (problem, transforms, stages) = (self.problem, &self.transforms, self.loaded.len());
        let first = if staged { 0 } else { stages - 1 };
        let mut rests: Vec<Rest> = Vec::new();
        for (stage, loaded) in self.loaded.iter_mut().enumerate().skip(first) {
            let evaluate = |requests: &[Request]| evaluate(transforms, loaded, starts, requests);
            let descent = if stage + 1 < stages { descent.loose() } else { *descent };
            let minima = match descent.minimiser {
                Minimiser::Lbfgs => match starts.roots {
                    None => minimise_lbfgs(&from, descent.lbfgs, evaluate, watch)?,
                    Some(roots) => preconditioned(roots, starts.rows, &from, descent.lbfgs, evaluate, watch)?,
                },
                Minimiser::Adam => {
                    let LbfgsSettings { iterations, gradient_tolerance, .. } = descent.lbfgs;
                    match descent.look {
                        None => minimise_adam(&from, descent.adam, iterations, gradient_tolerance, evaluate, watch)?,
                        Some(look) => {
                            let course = Course { adam: descent.adam, iterations, gradient_tolerance, look };
                            let mut states = starts.backgrounds.to_owned();
                            for ((mut state, row), z) in states.outer_iter_mut().zip(starts.rows).zip(&from) {
                                let background = state.to_owned();
                                let state = state.as_slice_mut().expect("one run");
                                transforms[row.problem as usize].control(background.view(), z, state);
                            }
                            resident::minimise(course, problem, loaded, starts, states.view(), watch)?
                        }
                    }
                }
            };
            let steps = loaded.assimilated_steps() as u64;
            if stage + 1 < stages {
                from = minima.iter().map(|m| m.point.clone()).collect();
            }
            if rests.is_empty() {
                let none = |minimum| Rest { minimum, iterations: 0, evaluations: 0, steps: 0 };
                rests = minima.into_iter().map(none).collect();
            } else {
                rests.iter_mut().zip(minima).for_each(|(rest, minimum)| rest.minimum = minimum);
            }
            for rest in &mut rests {
                rest.iterations += rest.minimum.iterations;
                rest.evaluations += rest.minimum.evaluations;
                rest.steps += steps * rest.minimum.evaluations as u64;
            }
        }
        Ok(rests)
    }
}

/// Minimises over v in z = from + S v by L-BFGS; the points that come back are z.
fn preconditioned(
    roots: &[Array2<f64>],
    rows: &[Row],
    from: &[Vec<f64>],
    settings: LbfgsSettings,
    mut evaluate: impl FnMut(&[Request]) -> Result<Vec<Evaluation>>,
    watch: &mut dyn Watch,
) -> Result<Vec<Minimum>> {
    let root = |index: usize| &roots[rows[index].problem as usize];
    let control =
        |index: usize, v: &[f64]| (&ArrayView1::from(&from[index]) + &root(index).dot(&ArrayView1::from(v))).to_vec();
    let over_v = |requests: &[Request]| {
        let points: Vec<_> = requests.par_iter().with_min_len(GRAIN).map(|r| control(r.index, r.point)).collect();
        let asked: Vec<_> = requests.iter().zip(&points).map(|(r, point)| Request { index: r.index, point }).collect();
        let mut evaluations = evaluate(&asked)?;
        evaluations.par_iter_mut().zip(requests).with_min_len(GRAIN).for_each(|(evaluation, request)| {
            evaluation.gradient = root(request.index).t().dot(&ArrayView1::from(&evaluation.gradient)).to_vec();
        });
        Ok(evaluations)
    };
    let origin: Vec<_> = from.iter().map(|z| vec![0.0; z.len()]).collect();
    let mut minima = minimise_lbfgs(&origin, settings, over_v, watch)?;
    minima.iter_mut().enumerate().for_each(|(index, minimum)| minimum.point = control(index, &minimum.point));
    Ok(minima)
}

/// J and dJ/dz at the requested controls; request `index` is of member `index` of the starts.
fn evaluate(
    transforms: &[Transform<'_>],
    loaded: &mut LoadedProblem,
    starts: Starts,
    requests: &[Request],
) -> Result<Vec<Evaluation>> {
    let rows: Vec<Row> = requests.iter().map(|r| starts.rows[r.index]).collect();
    let mut states = Array2::zeros((requests.len(), starts.backgrounds.ncols()));
    // A line search may try a point beyond all numbers; that is its business, not an error of the caller's.
    let mut beyond = vec![false; requests.len()];
    let place = |((state, request), beyond): ((&mut [f64], &Request), &mut bool)| {
        let (row, background) = (starts.rows[request.index], starts.backgrounds.row(request.index));
        transforms[row.problem as usize].control(background, request.point, state);
        if state.iter().any(|x| !x.is_finite()) {
            *beyond = true;
            state.iter_mut().zip(background).for_each(|(x, b)| *x = *b);
        }
    };
    let control = starts.backgrounds.ncols();
    let each = states.as_slice_mut().expect("one run").par_chunks_mut(control);
    each.zip(requests).zip(&mut beyond).with_min_len(GRAIN).for_each(place);
    let listed = Listed { states: states.view(), rows: &rows, amplitude: starts.amplitude };
    let result = loaded.gradient(Members::Listed(listed), Terms { background: false, observation: true })?;
    let finish = |k: usize| {
        let lost = beyond[k] || result.costs.diverged[k];
        let observation = if lost { f64::INFINITY } else { result.costs.observation[k] };
        let (cost, gradient) = transforms[rows[k].problem as usize].cost(requests[k].point, result.gradient.row(k));
        Evaluation { cost: cost + observation, gradient }
    };
    Ok((0..requests.len()).into_par_iter().with_min_len(GRAIN).map(finish).collect())
}
