//! What each operation calls: the inputs made once, a call that is timed, and what it says for a check.

use super::check::Figure;
use super::{Job, Operation};
use crate::engine::{
    AdamStep, AffineMap, Costs, Draw, Engine, Keep, Listed, LoadedProblem, Members, Moments, PatternSums, Resident,
    Row, Scale, Selection, Terms,
};
use crate::error::Result;
use crate::method::{Silent, ViSettings};
use crate::optimizer::{AdamSettings, AdamSteps};
use crate::posterior::Family;
use crate::problem::Problem;
use crate::random::{Stream, normals};
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis};

/// Different members that the host makes; larger batches repeat them.
pub const DIFFERENT: usize = 1024;
/// Iterations of VI in one of the peers' runs, and at most in one call.
pub const FIT: usize = 1500;
/// Adam's steps of the ensemble between two looks, as its method takes them, and at most in one call.
const LOOK: usize = 20;

/// An operation, ready to be called.
pub struct Task<'a> {
    operation: Operation,
    problem: &'a Problem,
    loaded: LoadedProblem,
    /// Given members: `[members, sites]`.
    states: Array2<f64>,
    draw: Draw,
    resident: Option<(Resident, AdamSteps)>,
    vi: ViSettings,
    /// Of one call.
    iterations: usize,
}

/// What a call leaves.
pub enum Answer {
    Forecast(Array3<f64>),
    Costs(Costs),
    Gradients(Costs, Array2<f64>),
    Moments(Vec<Moments>),
    Selection(Vec<Selection>),
    Nothing,
}

impl<'a> Task<'a> {
    pub fn new(engine: &Engine, problem: &'a Problem, job: Job, members: usize) -> Result<Self> {
        Self::with(engine, problem, job, members, |row| row % DIFFERENT)
    }

    /// A task whose given members are these of the different ones.
    pub fn with(
        engine: &Engine,
        problem: &'a Problem,
        Job { operation, family }: Job,
        members: usize,
        pick: impl Fn(usize) -> usize,
    ) -> Result<Self> {
        let family = family.unwrap_or_default();
        let n = problem.sites();
        let (mean, std) = (problem.background.mean_of(0), problem.background.std_of(0));
        let mut states = Array2::zeros((0, n));
        if operation.given() {
            let different = Array2::from_shape_fn((members.min(DIFFERENT), n), |(row, i)| {
                let draws = normals(problem.seeds[0], Stream::Starts, 0, pick(row) as u32, (i / 4) as u32);
                mean[i] + std[i] * f64::from(draws[i % 4])
            });
            states = Array2::from_shape_fn((members, n), |(row, i)| different[[row % DIFFERENT, i]]);
        }
        let map = AffineMap { mean: mean.to_owned().insert_axis(Axis(0)), scale: scale(family, &std) };
        let stream = if operation == Operation::Abc { Stream::Abc } else { Stream::MonteCarlo };
        let draw = Draw { map, stream, iteration: 0, count: members };
        let mut loaded = engine.load(problem)?;
        let resident = match operation {
            Operation::Ensemble => {
                let rows: Vec<_> = (0..members).map(|k| Row { problem: 0, member: k as u32 }).collect();
                let listed = Listed { states: states.view(), rows: &rows, amplitude: 1.0 };
                let units = std.insert_axis(Axis(0));
                let resident = loaded.settle(listed, states.view(), units.view())?;
                states = Array2::zeros((0, n));
                Some((resident, AdamSettings { learning_rate: 0.05, ..AdamSettings::default() }.steps(usize::MAX)))
            }
            _ => None,
        };
        let vi = ViSettings { family, batch: Some(members), ..ViSettings::default() };
        Ok(Self { operation, problem, loaded, states, draw, resident, vi, iterations: 1 })
    }

    /// Iterations of one call: of VI and the ensemble, else 1.
    pub fn iterations(&self) -> usize {
        self.iterations
    }

    /// Sets them, within those of a whole fit of VI or between two looks of the ensemble.
    pub fn set_iterations(&mut self, iterations: usize) {
        self.iterations = match self.operation {
            Operation::Vi => iterations.clamp(1, FIT),
            Operation::Ensemble => iterations.clamp(1, LOOK),
            _ => 1,
        };
    }

    /// The variant of the kernels, where there is a choice.
    pub fn kernel(&self) -> String {
        self.loaded.kernel()
    }

    /// Times kernels from now on, or no longer.
    pub fn time_kernels(&mut self, on: bool) -> Result<()> {
        self.loaded.time_kernels(on)
    }

    /// The time spent in kernels so far, where the device can tell.
    pub fn kernel_seconds(&self) -> Option<f64> {
        self.loaded.kernel_time().map(|t| t.as_secs_f64())
    }

    pub fn call(&mut self) -> Result<Answer> {
        let given = Members::Given(self.states.view());
        match self.operation {
            Operation::Forecast => self.loaded.forecast(given).map(Answer::Forecast),
            Operation::Cost => self.loaded.cost(given, Terms::ALL).map(Answer::Costs),
            Operation::Gradient => {
                self.loaded.gradient(given, Terms::ALL).map(|g| Answer::Gradients(g.costs, g.gradient))
            }
            Operation::Elbo => {
                let moments = self.loaded.moments(&self.draw, Terms::ALL).map(Answer::Moments);
                self.draw.iteration = self.draw.iteration.wrapping_add(1);
                moments
            }
            Operation::Vi => {
                self.vi.iterations = self.iterations;
                self.vi.iterate(self.problem, &mut self.loaded, &mut Silent)?;
                Ok(Answer::Nothing)
            }
            Operation::Abc => {
                // A thousandth, as the method keeps by default.
                let keep = Keep::Best((self.draw.count / 1000).clamp(2.min(self.draw.count), 1000));
                let terms = Terms { background: false, observation: true };
                let selection = self.loaded.select(&self.draw, terms, keep).map(Answer::Selection);
                self.draw.iteration = self.draw.iteration.wrapping_add(1);
                selection
            }
            Operation::Ensemble => {
                let Some((resident, steps)) = &mut self.resident else { unreachable!("settled when it was made") };
                let steps: Vec<AdamStep> = steps.take(self.iterations).collect();
                self.loaded.adam(resident, &steps, Terms::ALL)?;
                self.loaded.inspect(resident, Terms::ALL).map(|i| Answer::Costs(i.costs))
            }
        }
    }

    /// A first call, as the figures that a check compares.
    pub fn figures(&mut self) -> Result<Vec<Figure>> {
        if let Some((resident, steps)) = &mut self.resident {
            // The perturbed costs and gradients at the start, then where one step leads.
            let at_start = self.loaded.inspect(resident, Terms::ALL)?;
            let before = self.loaded.states(resident)?;
            self.loaded.adam(resident, &[steps.next().expect("steps do not end")], Terms::ALL)?;
            let moved = self.loaded.states(resident)? - before;
            let mut figures = costs(&at_start.costs, None);
            figures.push(Figure::of("gradient norms", at_start.gradient_norm.iter().copied()));
            figures.push(Figure::of("Adam's step", moved.iter().copied()).root_mean_square());
            return Ok(figures);
        }
        if self.operation == Operation::Vi {
            // One iteration's sums; what the method makes of them is the host's.
            return Ok(moments(&self.loaded.moments(&self.draw, Terms::ALL)?));
        }
        Ok(self.call()?.figures(None))
    }
}

impl Answer {
    /// What a check compares, of these rows alone where they are named.
    pub fn figures(&self, rows: Option<&[usize]>) -> Vec<Figure> {
        match self {
            Self::Forecast(trajectory) => match rows {
                None => vec![Figure::of("trajectories", trajectory.iter().copied())],
                Some(rows) => {
                    let picked = trajectory.select(Axis(0), rows);
                    vec![Figure::of("trajectories", picked.iter().copied())]
                }
            },
            Self::Costs(found) => costs(found, rows),
            Self::Gradients(found, gradient) => {
                let mut figures = costs(found, rows);
                figures.push(Figure::of("gradients", picked(gradient.view(), rows).iter().copied()));
                figures
            }
            Self::Moments(found) => moments(found),
            Self::Selection(found) => selection(found),
            Self::Nothing => Vec::new(),
        }
    }
}

/// A scale around these deviations, of the pattern that the family has: a flow's, of the Gaussian that it starts as.
fn scale(family: Family, std: &Array1<f64>) -> Scale {
    let n = std.len();
    match family {
        Family::FullRank | Family::Planar | Family::RealNvp | Family::Spline => {
            Scale::Lower(Array3::from_shape_fn((1, n, n), |(_, i, j)| match i.cmp(&j) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => std[i],
                std::cmp::Ordering::Greater => 0.3 * std[i] / (1 + i - j) as f64,
            }))
        }
        Family::LowRank => {
            let shape = (1, n, ViSettings::default().rank.min(n));
            // Columns of a length near 1.
            let wave = |(_, i, k): (usize, usize, usize)| (2.0 / n as f64).sqrt() * (1.0 + (i * (k + 1)) as f64).sin();
            let right = Array3::from_shape_fn(shape, wave);
            let left = Array3::from_shape_fn(shape, |at| 0.3 * std[at.1] * wave(at));
            Scale::LowRank { diagonal: std.clone().insert_axis(Axis(0)), left, right }
        }
        Family::MeanField | Family::Mixture => Scale::Diagonal(std.clone().insert_axis(Axis(0))),
    }
}

fn picked(array: ArrayView2<f64>, rows: Option<&[usize]>) -> Array2<f64> {
    match rows {
        Some(rows) => array.select(Axis(0), rows),
        None => array.to_owned(),
    }
}

fn costs(found: &Costs, rows: Option<&[usize]>) -> Vec<Figure> {
    let of = |values: Vec<f64>| match rows {
        Some(rows) => rows.iter().map(|r| values[*r]).collect(),
        None => values,
    };
    vec![
        Figure::of("background costs", of(found.background.to_vec()).into_iter()),
        Figure::of("observation costs", of(found.observation.to_vec()).into_iter()),
        Figure::of("divergence flags", of(found.diverged.iter().map(|d| f64::from(*d)).collect()).into_iter()),
    ]
}

fn moments(found: &[Moments]) -> Vec<Figure> {
    let m = &found[0];
    let count = m.count as f64;
    // A sum of signed numbers cancels: its scale is what it would be without.
    let signed = |name, sum: &[f64], squares: &[f64]| {
        let scale = squares.iter().fold(0.0f64, |a, s| a.max((s * count).sqrt()));
        Figure::of(name, sum.iter().copied()).scaled(scale)
    };
    let mut figures = vec![
        Figure::of("counts", [count, m.diverged as f64].into_iter()),
        Figure::of("sums of J", [m.cost_background, m.cost_observation].into_iter()),
        signed("sum of g", &m.gradient, &m.gradient_squared),
        // Squares double a relative error.
        Figure::of("sum of g^2", m.gradient_squared.iter().copied()).loosened(2.0),
        signed("sum of eps", &m.epsilon, &m.epsilon_squared),
        Figure::of("sum of eps^2", m.epsilon_squared.iter().copied()).loosened(2.0),
        signed("sum of g eps", &m.gradient_epsilon, &m.gradient_squared),
    ];
    let names = match m.pattern {
        PatternSums::Diagonal => [""; 3],
        PatternSums::Lower { .. } => ["sum of g eps'", "sum of eps eps'", ""],
        PatternSums::LowRank { .. } => ["sum of g (Z' eps)'", "sum of eps (W' g)'", "sum of eps (Z' eps)'"],
    };
    // Of signed numbers again: of columns of a length near 1.
    let largest = m.gradient_squared.iter().fold(0.0f64, |a, s| a.max(*s));
    for (name, array) in names.into_iter().zip(m.pattern.arrays()) {
        let scale = if name.contains('g') { (largest * count).sqrt() } else { count };
        figures.push(Figure::of(name, array.iter().copied()).scaled(scale).loosened(2.0));
    }
    figures
}

fn selection(found: &[Selection]) -> Vec<Figure> {
    let s = &found[0];
    vec![
        Figure::of("counts", [s.count as f64, s.diverged as f64].into_iter()),
        Figure::of("costs of the kept", s.criterion().into_iter()),
    ]
}
