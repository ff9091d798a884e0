//! The engine under validation, and how its numbers are compared.

use super::Check;
use super::oracle::{self, Oracle, Real};
use crate::engine::{AffineMap, Backend, Draw, Engine, EngineSettings, LoadedProblem, Moments, Precision, Scale};
use crate::error::{Error, Result};
use crate::experiment::{TwinSettings, simulate};
use crate::model::Model;
use crate::problem::{PointFunction, Problem};
use crate::random::Stream;
use ndarray::{Array2, Array3};

/// What a check measured.
pub(super) struct Measured {
    pub figure: f64,
    pub threshold: f64,
    pub meaning: String,
}

impl Measured {
    pub fn new(figure: f64, threshold: f64, meaning: impl Into<String>) -> Self {
        Self { figure, threshold, meaning: meaning.into() }
    }
}

/// A check.
pub(super) type Run = fn(&Subject) -> Result<Measured>;

/// An engine under validation.
pub(super) struct Subject {
    pub settings: EngineSettings,
    pub engine: Engine,
}

impl Subject {
    /// Runs a check. What cannot run has failed.
    ///
    /// # Errors
    /// A kernel asked for by name that does not take the check's problems: that says nothing about the adapter.
    pub fn check(&self, name: &'static str, run: Run) -> Result<Check> {
        let precision = self.settings.precision;
        Ok(match run(self) {
            Ok(Measured { figure, threshold, meaning }) => {
                Check { name, precision, figure, threshold, meaning, failure: None }
            }
            Err(Error::Invalid { what, expected, found, help }) if what.starts_with("kernel") => {
                return Err(Error::Invalid { what: format!("{name}, kernel"), expected, found, help });
            }
            Err(error) => {
                let failure = Some(error.to_string());
                Check { name, precision, figure: f64::NAN, threshold: 0.0, meaning: "could not run".into(), failure }
            }
        })
    }

    /// One of two bounds, by number type.
    pub fn bound(&self, f32: f64, f64: f64) -> f64 {
        match self.settings.precision {
            Precision::F32 => f32,
            Precision::F64 => f64,
        }
    }

    pub fn load(&self, problem: &Problem) -> Result<LoadedProblem> {
        self.engine.load(problem)
    }

    pub fn on_cpu(&self) -> bool {
        self.settings.backend == Backend::Cpu
    }

    /// The same adapter with little memory; the CPU engine, which needs none, with one thread.
    pub fn cut_small(&self, memory_mib: u64) -> Result<Engine> {
        let threads = if self.on_cpu() { Some(1) } else { self.settings.threads };
        Engine::new(&EngineSettings { memory_mib, threads, ..self.settings.clone() })
    }

    /// What an evaluation of the oracle in f32 may cost an f32 engine, times 32; a fixed bound in f64.
    pub fn bound_by_plain_f32(&self, loss: impl FnOnce() -> f64) -> f64 {
        match self.settings.precision {
            Precision::F32 => 32.0 * loss().max(f64::from(f32::EPSILON)),
            Precision::F64 => 1e-9,
        }
    }
}

/// A twin problem: half of the observations, windows of `times` times; of Lorenz-63 where the sites are three.
pub(super) fn twin(
    sites: usize,
    times: usize,
    steps_per_time: usize,
    dt: f64,
    operator: PointFunction,
) -> TwinSettings {
    let dt_spin_up = 0.05;
    TwinSettings {
        model: if sites == 3 { Model::Lorenz63 } else { Model::Lorenz96 },
        sites,
        times,
        assimilated_times: times,
        steps_per_time,
        dt,
        operator,
        // As long a spin-up whatever the step.
        spin_up: (6.0 / dt.max(dt_spin_up / 50.0)) as usize,
        observe_initial: true,
        seed: 20_260_000 + sites as u64,
        ..TwinSettings::default()
    }
}

pub(super) fn problem(settings: &TwinSettings) -> Result<Problem> {
    simulate(settings)
}

/// Standard normals, by the oracle: `[rows, columns]`.
pub(super) fn normals(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    let values = (0..rows).flat_map(|row| oracle::normals(seed, 900, 0, row as u32, columns));
    Array2::from_shape_vec((rows, columns), values.collect()).expect("rows times columns of them")
}

/// Members around the prior mean: `[rows, control]`.
pub(super) fn members(problem: &Problem, rows: usize) -> Array2<f64> {
    let mean = problem.control_mean(0);
    normals(rows, mean.len(), 77) * 0.4 + &mean
}

/// A draw around the background.
pub(super) fn draw(problem: &Problem, count: usize) -> Draw {
    let sites = problem.sites();
    let mean = problem.background.mean_of(0).to_owned().insert_axis(ndarray::Axis(0));
    let scale = Array2::from_shape_fn((1, sites), |(_, i)| 0.2 + 0.02 * (i % 7) as f64);
    Draw { map: AffineMap { mean, scale: Scale::Diagonal(scale) }, stream: Stream::MonteCarlo, iteration: 3, count }
}

/// Draws that differ in the pattern of their scale: diagonal, lower triangular, a diagonal and a low rank.
pub(super) fn draws(problem: &Problem, count: usize) -> [Draw; 3] {
    let plain = draw(problem, count);
    let n = problem.sites();
    let with = |scale: Scale| Draw { map: AffineMap { scale, ..plain.map.clone() }, ..plain.clone() };
    let lower = Array3::from_shape_fn((1, n, n), |(_, i, j)| match i.cmp(&j) {
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => 0.3,
        std::cmp::Ordering::Greater => 0.15 * ((3 * i + 5 * j) as f64).sin() / (1 + i - j) as f64,
    });
    let factor = |phase: f64| Array3::from_shape_fn((1, n, 3), |(_, i, k)| 0.2 * (phase + (i * (k + 2)) as f64).sin());
    let low_rank = Scale::LowRank { diagonal: Array2::from_elem((1, n), 0.2), left: factor(0.0), right: factor(1.0) };
    [with(Scale::Lower(lower)), with(low_rank), plain.clone()]
}

/// The largest |difference| over the largest |wanted value|; NaN where a number is missing or not finite.
pub(super) fn error<'a>(got: impl IntoIterator<Item = &'a f64>, want: impl IntoIterator<Item = &'a f64>) -> f64 {
    let (mut largest, mut scale) = (0.0f64, 0.0f64);
    let (mut got, mut want) = (got.into_iter(), want.into_iter());
    loop {
        match (got.next(), want.next()) {
            (None, None) => return largest / if scale > 0.0 { scale } else { 1.0 },
            (Some(g), Some(w)) if g.is_finite() && w.is_finite() => {
                largest = largest.max((g - w).abs());
                scale = scale.max(w.abs());
            }
            _ => return f64::NAN,
        }
    }
}

/// The worse of two figures; NaN is the worst.
pub(super) fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// How many numbers of two arrays differ.
pub(super) fn differing<'a>(a: impl IntoIterator<Item = &'a f64>, b: impl IntoIterator<Item = &'a f64>) -> f64 {
    a.into_iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count() as f64
}

/// The oracle's gradients of all members, widened, J_b and J_o together: `[rows, sites]`, with each row's costs.
pub(super) fn true_gradients<T: Real>(problem: &Problem, members: &Array2<f64>) -> (Array2<f64>, Vec<(f64, f64)>) {
    let oracle = Oracle::<T>::new(problem, 0);
    let mut gradients = Array2::zeros(members.raw_dim());
    let mut costs = Vec::with_capacity(members.nrows());
    for (x0, mut to) in members.rows().into_iter().zip(gradients.rows_mut()) {
        let x0: Vec<T> = x0.iter().map(|v| T::of(*v)).collect();
        let (cost, gradient) = oracle.gradient(&x0);
        for (i, to) in to.iter_mut().enumerate() {
            *to = gradient.background[i].wide() + gradient.observation[i].wide();
        }
        costs.push((cost.background.wide(), cost.observation.wide()));
    }
    (gradients, costs)
}

/// The worst error of moments, each sum against what it could be at most, by Cauchy and Schwarz from the squares: sums
/// may cancel.
pub(super) fn error_of_sums(got: &Moments, want: &oracle::Sums) -> f64 {
    let largest = |v: &[f64]| v.iter().fold(0.0f64, |a, v| a.max(v.abs()));
    let count = (got.count - got.diverged) as f64;
    let (g2, e2) = (largest(&want.gradient_squared), largest(&want.epsilon_squared));
    let cost = want.cost_background + want.cost_observation;
    let deviation = want.cost_deviation.max(cost * cost / count * 1e-3);
    let one = |got: f64, want: f64, scale: f64| if got.is_finite() { (got - want).abs() / scale } else { f64::NAN };
    let many =
        |got: &[f64], want: &[f64], scale: f64| got.iter().zip(want).map(|(g, w)| one(*g, *w, scale)).fold(0.0, worse);
    [
        one(got.cost_background, want.cost_background, cost),
        one(got.cost_observation, want.cost_observation, cost),
        one(got.cost_deviation, want.cost_deviation, deviation),
        many(&got.gradient, &want.gradient, (count * g2).sqrt()),
        many(&got.gradient_squared, &want.gradient_squared, g2),
        many(&got.epsilon, &want.epsilon, (count * e2).sqrt()),
        many(&got.epsilon_squared, &want.epsilon_squared, e2),
        many(&got.gradient_epsilon, &want.gradient_epsilon, (g2 * e2).sqrt()),
    ]
    .into_iter()
    .fold(0.0, worse)
}

/// The worst error of sums on the pattern of a scale, each against what it could be at most.
pub(super) fn error_of_pattern(got: &Moments, want: &[oracle::OuterSum]) -> f64 {
    let got = got.pattern.arrays();
    if got.len() != want.len() {
        return f64::NAN;
    }
    let one = |(got, want): (&Array2<f64>, &oracle::OuterSum)| {
        let gap = |(g, w): (&f64, &f64)| if g.is_finite() { (g - w).abs() / want.most } else { f64::NAN };
        got.iter().zip(&want.values).map(gap).fold(0.0, worse)
    };
    got.into_iter().zip(want).map(one).fold(0.0, worse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_relative_to_the_largest_wanted_value_and_never_skips_nan() {
        assert_eq!(error(&[1.0, 2.5], &[1.0, 2.0]), 0.25);
        assert_eq!(error(&[0.5], &[0.0]), 0.5);
        assert!(error(&[f64::NAN, 1.0], &[1.0, 1.0]).is_nan());
        assert!(error(&[1.0], &[1.0, 1.0]).is_nan());
        assert!(worse(f64::NAN, 1.0).is_nan() && worse(1.0, 2.0) == 2.0);
    }

    #[test]
    fn a_row_without_a_number_fails() {
        let check = |figure: f64| Check {
            name: "",
            precision: Precision::F32,
            figure,
            threshold: 1.0,
            meaning: String::new(),
            failure: None,
        };
        assert!(check(1.0).passed() && !check(1.1).passed() && !check(f64::NAN).passed());
    }
}
