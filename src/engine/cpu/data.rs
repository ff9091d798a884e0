//! A problem set in the engine's number type, and how a group of lanes reads it.

use super::lanes::{Lanes, Scalar};
use crate::model::Model;
use crate::problem::{BackgroundError, ObservationOperator, Problem};

/// Numbers stored once for all problems, or once per problem.
#[derive(Debug)]
pub struct Field<T> {
    values: Vec<T>,
    /// Numbers per problem, or 0 where the problems share them.
    stride: usize,
}

impl<T: Scalar> Field<T> {
    /// From the numbers of each of `problems` problems, or from those of the first where `shared`.
    fn collect(problems: usize, shared: bool, row: impl Fn(usize) -> Vec<f64>) -> Self {
        let rows = if shared { 1 } else { problems };
        let values: Vec<T> = (0..rows).flat_map(&row).map(T::from_f64).collect();
        Self { stride: if shared { 0 } else { values.len() / rows }, values }
    }

    #[inline(always)]
    fn at(&self, problem: usize, i: usize) -> T {
        self.values[problem * self.stride + i]
    }
}

/// The inverse of B.
#[derive(Debug)]
pub enum BackgroundPrecision<T> {
    /// Its diagonal: `[sites]`.
    Diagonal(Field<T>),
    /// The matrix `[sites, sites]`, shared, and a factor on it for each problem.
    Full { matrix: Vec<T>, factor: Field<T> },
}

/// A problem set, converted once.
#[derive(Debug)]
pub struct Prepared<T> {
    pub model: Model,
    pub sites: usize,
    /// Observations per time.
    pub per_time: usize,
    /// Stored times.
    pub times: usize,
    /// Times up to the last one assimilated.
    pub assimilated: usize,
    pub steps_per_time: usize,
    pub dt: f64,
    pub operator: ObservationOperator,
    pub parameters: Field<T>,
    pub parameter_count: usize,
    pub mean: Field<T>,
    pub background: BackgroundPrecision<T>,
    /// y, 0 where nothing is assimilated: `[assimilated, observations]`.
    pub observation: Field<T>,
    /// w_t / sigma^2, 0 where nothing is assimilated: `[assimilated, observations]`.
    pub precision: Field<T>,
    pub seeds: Vec<u64>,
}

impl<T: Scalar> Prepared<T> {
    pub fn new(problem: &Problem) -> Self {
        let count = problem.count();
        let scales_shared = problem.background.scale.len() == 1;
        let precisions: Vec<_> = (0..count).map(|p| problem.observation_precision(p)).collect();
        let assimilated = precisions
            .iter()
            .flat_map(|r| r.rows().into_iter().enumerate().filter(|(_, row)| row.iter().any(|r| *r > 0.0)))
            .map(|(t, _)| t + 1)
            .max()
            .unwrap_or(1);
        let observations_shared = problem.observations.len_of(ndarray::Axis(0)) == 1;
        let precision_shared = observations_shared
            && problem.observation_std.len_of(ndarray::Axis(0)) == 1
            && problem.weights.nrows() == 1;
        let background = match &problem.background.error {
            BackgroundError::Diagonal(std) => {
                BackgroundPrecision::Diagonal(Field::collect(count, std.nrows() == 1 && scales_shared, |p| {
                    problem.background.std_of(p).iter().map(|s| 1.0 / (s * s)).collect()
                }))
            }
            BackgroundError::Full(b) => BackgroundPrecision::Full {
                matrix: b.precision.iter().map(|v| T::from_f64(*v)).collect(),
                factor: Field::collect(count, scales_shared, |p| vec![1.0 / problem.background.scale_of(p)]),
            },
        };
        Self {
            model: problem.model,
            sites: problem.sites(),
            per_time: problem.observations_per_time(),
            times: problem.window.times,
            assimilated,
            steps_per_time: problem.window.steps_per_time,
            dt: problem.window.dt,
            operator: problem.operator,
            parameter_count: problem.parameters.ncols(),
            parameters: Field::collect(count, problem.parameters.nrows() == 1, |p| problem.parameters_of(p).to_vec()),
            mean: Field::collect(count, problem.background.mean.nrows() == 1, |p| {
                problem.background.mean_of(p).to_vec()
            }),
            background,
            observation: Field::collect(count, observations_shared, |p| {
                let y = problem.observations_of(p);
                (0..assimilated).flat_map(|t| y.row(t).to_vec()).map(|y| if y.is_nan() { 0.0 } else { y }).collect()
            }),
            precision: Field::collect(count, precision_shared, |p| {
                precisions[p].iter().take(assimilated * problem.observations_per_time()).copied().collect()
            }),
            seeds: problem.seeds.clone(),
        }
    }

    /// RK4 steps from the initial time to the last assimilated one.
    pub fn assimilated_steps(&self) -> usize {
        (self.assimilated - 1) * self.steps_per_time
    }

    /// RK4 steps from the initial time to the last stored one.
    pub fn stored_steps(&self) -> usize {
        (self.times - 1) * self.steps_per_time
    }

    /// Whether two problems differ in anything but their seed.
    pub fn varies(&self) -> bool {
        let background = match &self.background {
            BackgroundPrecision::Diagonal(f) => f.stride,
            BackgroundPrecision::Full { factor, .. } => factor.stride,
        };
        [self.parameters.stride, self.mean.stride, self.observation.stride, self.precision.stride, background]
            .iter()
            .any(|s| *s > 0)
    }
}

/// How a group of lanes reads a field.
pub trait Source<V: Lanes>: Copy {
    /// Number `i` of the field, for each lane.
    fn read(self, field: &Field<V::Scalar>, i: usize) -> V;
}

/// All lanes are members of one problem.
#[derive(Clone, Copy)]
pub struct OneProblem<C> {
    pub context: C,
    pub problem: usize,
}

impl<V: Lanes> Source<V> for OneProblem<V::Context> {
    #[inline(always)]
    fn read(self, field: &Field<V::Scalar>, i: usize) -> V {
        V::fill(self.context, field.at(self.problem, i))
    }
}

/// Most lanes of any instruction set.
pub const MOST_LANES: usize = 16;

/// Each lane is a member of a problem of its own.
#[derive(Clone, Copy)]
pub struct ManyProblems<'a, C> {
    pub context: C,
    pub problems: &'a [usize; MOST_LANES],
}

impl<V: Lanes> Source<V> for ManyProblems<'_, V::Context> {
    #[inline(always)]
    fn read(self, field: &Field<V::Scalar>, i: usize) -> V {
        if field.stride == 0 {
            return V::fill(self.context, field.at(0, i));
        }
        let mut gathered = [V::Scalar::from_f32(0.0); MOST_LANES];
        for (to, problem) in gathered.iter_mut().zip(self.problems).take(V::LANES) {
            *to = field.at(*problem, i);
        }
        V::load(self.context, &gathered)
    }
}
