//! A problem set as an engine reads it: in its number type, each ingredient once where the problems share it.

use crate::model::Model;
use crate::problem::{ControlLayout, ErrorCovariance, ObservationOperator, Problem};

/// Numbers stored once for all problems, or once per problem.
#[derive(Debug)]
pub struct Field<T> {
    pub values: Vec<T>,
    /// Numbers per problem, or 0 where the problems share them.
    pub stride: usize,
}

impl<T: Copy> Field<T> {
    /// Number `i` of a problem.
    #[inline(always)]
    pub fn at(&self, problem: usize, i: usize) -> T {
        self.values[problem * self.stride + i]
    }
}

/// The inverse of a full B: the matrix `[sites, sites]`, and a factor on it.
#[derive(Debug)]
pub struct FullPrecision<T> {
    pub matrix: Field<T>,
    pub factor: Field<T>,
}

/// When the model errs, and the root of Q.
#[derive(Debug)]
pub struct PreparedErrors<T> {
    /// RK4 steps between two errors.
    pub interval: usize,
    pub root: ErrorRoot<T>,
}

/// Q^1/2.
#[derive(Debug)]
pub enum ErrorRoot<T> {
    /// Its diagonal: `[sites]`.
    Diagonal(Field<T>),
    /// Lower triangular: `[sites, sites]`.
    Lower(Field<T>),
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
    /// Of the model, where they are no part of the control.
    pub parameters: Field<T>,
    pub parameter_count: usize,
    pub control: ControlLayout,
    /// The prior mean: `[control]`.
    pub mean: Field<T>,
    /// The diagonal of the prior's inverse covariance: `[control]`. Of x0 it serves where B is diagonal.
    pub precision: Field<T>,
    pub full_background: Option<FullPrecision<T>>,
    pub errors: Option<PreparedErrors<T>>,
    /// y, 0 where nothing is assimilated: `[assimilated, observations]`.
    pub observation: Field<T>,
    /// w_t / sigma^2, 0 where nothing is assimilated: `[assimilated, observations]`.
    pub observation_precision: Field<T>,
    /// sigma, 0 where nothing is assimilated: `[assimilated, observations]`.
    pub observation_deviation: Field<T>,
    pub seeds: Vec<u64>,
}

impl<T: Copy> Prepared<T> {
    /// Converts a problem set, each number by `convert`.
    pub fn new(problem: &Problem, convert: impl Fn(f64) -> T) -> Self {
        let count = problem.count();
        // From the numbers of each problem, or from those of the first where they are shared.
        let collect = |shared: bool, row: &dyn Fn(usize) -> Vec<f64>| {
            let rows = if shared { 1 } else { count };
            let values: Vec<T> = (0..rows).flat_map(row).map(&convert).collect();
            Field { stride: if shared { 0 } else { values.len() / rows }, values }
        };
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
        let per_time = problem.observations_per_time();
        let background = &problem.background;
        let shared_rows = |array: &Option<ndarray::Array2<f64>>| array.as_ref().is_none_or(|a| a.nrows() == 1);
        let estimated = problem.parameter_std.is_some();
        let full_background = background.error.factor_of(0).map(|_| FullPrecision {
            matrix: collect(background.error.is_shared(), &|p| {
                background.error.precision_of(p).into_raw_vec_and_offset().0
            }),
            factor: collect(scales_shared, &|p| vec![1.0 / background.scale_of(p)]),
        });
        let errors = problem.model_error.as_ref().map(|q| PreparedErrors {
            interval: q.interval,
            root: match &q.covariance {
                ErrorCovariance::Diagonal(std) => {
                    ErrorRoot::Diagonal(collect(std.nrows() == 1, &|p| q.covariance.std_of(p).to_vec()))
                }
                ErrorCovariance::Full(factors) => ErrorRoot::Lower(collect(factors.len() == 1, &|p| {
                    factors[if factors.len() == 1 { 0 } else { p }].lower.iter().copied().collect()
                })),
            },
        });
        Self {
            model: problem.model,
            sites: problem.sites(),
            per_time,
            times: problem.window.times,
            assimilated,
            steps_per_time: problem.window.steps_per_time,
            dt: problem.window.dt,
            operator: problem.operator,
            parameter_count: problem.parameters.ncols(),
            parameters: collect(problem.parameters.nrows() == 1, &|p| problem.parameters_of(p).to_vec()),
            control: problem.control(),
            mean: collect(background.mean.nrows() == 1 && (!estimated || problem.parameters.nrows() == 1), &|p| {
                problem.control_mean(p).to_vec()
            }),
            precision: collect(
                background.error.is_shared() && scales_shared && shared_rows(&problem.parameter_std),
                &|p| problem.control_std(p).iter().map(|s| 1.0 / (s * s)).collect(),
            ),
            full_background,
            errors,
            observation: collect(observations_shared, &|p| {
                let y = problem.observations_of(p);
                (0..assimilated).flat_map(|t| y.row(t).to_vec()).map(|y| if y.is_nan() { 0.0 } else { y }).collect()
            }),
            observation_precision: collect(precision_shared, &|p| {
                precisions[p].iter().take(assimilated * per_time).copied().collect()
            }),
            observation_deviation: collect(precision_shared, &|p| {
                let std = problem.observation_std_of(p);
                precisions[p]
                    .indexed_iter()
                    .take(assimilated * per_time)
                    .map(|(at, r)| if *r > 0.0 { std[at] } else { 0.0 })
                    .collect()
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
}
