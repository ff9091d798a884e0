//! Linear-Gaussian problems with their exact posteriors, from the textbook formulae and no code of the crate but the
//! problem's own arrays.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, Array3, ArrayD, array};
use rand_distr::{Distribution, StandardNormal};
use vi4dvar::method::Analysis;
use vi4dvar::model::Model;
use vi4dvar::problem::{
    Background, CovarianceFactor, ErrorCovariance, ObservationOperator, PointFunction, Problem, Window,
};
use vi4dvar::random::{Stream, StreamRng};

pub fn noise(seed: u64, stream: Stream) -> impl FnMut() -> f64 {
    let mut rng = StreamRng::new(seed, stream);
    move || StandardNormal.sample(&mut rng)
}

/// A covariance on a ring: variances between 0.5 and 1.5, correlation 0.5^distance.
pub fn ring_covariance(n: usize) -> Array2<f64> {
    Array2::from_shape_fn((n, n), |(i, j)| {
        let distance = i.abs_diff(j).min(n - i.abs_diff(j));
        let variance = |i: usize| 1.0 + 0.5 * (i as f64).sin();
        (variance(i) * variance(j)).sqrt() * 0.5f64.powi(distance as i32)
    })
}

/// Identity observations of one time, so that the posterior is Gaussian: a quarter of them missing.
pub fn linear(n: usize, block_size: usize, full: bool) -> Problem {
    let mut draw = noise(5, Stream::ObservationNoise);
    let error = if full {
        ErrorCovariance::Full(vec![CovarianceFactor::new(ring_covariance(n)).unwrap()])
    } else {
        ErrorCovariance::Diagonal(ring_covariance(n).diag().mapv(f64::sqrt).insert_axis(ndarray::Axis(0)))
    };
    let observed = n / block_size;
    Problem {
        model: Model::Lorenz96,
        parameters: array![[8.0]],
        parameter_std: None,
        true_parameters: None,
        model_error: None,
        window: Window { times: 1, assimilated_times: 1, steps_per_time: 1, dt: 0.05 },
        background: Background {
            mean: Array2::from_shape_fn((1, n), |(_, i)| 3.0 + i as f64 % 3.0),
            error,
            scale: array![1.0],
        },
        operator: ObservationOperator { function: PointFunction::Identity, block_size },
        observations: Array3::from_shape_fn(
            (1, 1, observed),
            |(_, _, j)| {
                if j % 4 == 3 { f64::NAN } else { 3.5 + draw() }
            },
        ),
        observation_std: Array3::from_shape_fn((1, 1, observed), |(_, _, j)| 0.3 + 0.2 * (j % 3) as f64),
        weights: array![[0.7]],
        seeds: vec![11],
        truth: None,
    }
}

pub struct Exact {
    pub mean: DVector<f64>,
    pub precision: DMatrix<f64>,
    pub covariance: DMatrix<f64>,
    pub log_evidence: f64,
}

/// The posterior of a linear-Gaussian problem of one time, from the textbook formulae.
pub fn exact(problem: &Problem) -> Exact {
    let n = problem.background.mean.ncols();
    let b = match &problem.background.error {
        ErrorCovariance::Diagonal(s) => DMatrix::from_fn(n, n, |i, j| if i == j { s[[0, i]] * s[[0, i]] } else { 0.0 }),
        ErrorCovariance::Full(b) => DMatrix::from_fn(n, n, |i, j| b[0].covariance[[i, j]]),
    } * problem.background.scale[0];
    let xb = DVector::from_fn(n, |i, _| problem.background.mean[[0, i]]);
    let block = problem.operator.block_size;
    let rows: Vec<usize> = (0..n / block).filter(|j| !problem.observations[[0, 0, *j]].is_nan()).collect();
    let h = DMatrix::from_fn(rows.len(), n, |r, i| if i / block == rows[r] { 1.0 / block as f64 } else { 0.0 });
    let y = DVector::from_fn(rows.len(), |r, _| problem.observations[[0, 0, rows[r]]]);
    let r = DMatrix::from_diagonal(&DVector::from_fn(rows.len(), |r, _| {
        problem.observation_std[[0, 0, rows[r]]].powi(2) / problem.weights[[0, 0]]
    }));
    let precision = b.clone().try_inverse().unwrap() + h.transpose() * r.clone().try_inverse().unwrap() * &h;
    let covariance = precision.clone().try_inverse().unwrap();
    let innovation = &y - &h * &xb;
    let mean = &xb + &covariance * h.transpose() * r.clone().try_inverse().unwrap() * &innovation;
    let s = &h * b * h.transpose() + r;
    let log_evidence = if rows.is_empty() {
        0.0
    } else {
        -0.5 * (innovation.transpose() * s.clone().try_inverse().unwrap() * &innovation)[(0, 0)]
            - 0.5 * (s * std::f64::consts::TAU).determinant().ln()
    };
    Exact { mean, precision, covariance, log_evidence }
}

pub fn record(analysis: &Analysis, name: &str) -> ArrayD<f64> {
    let found = analysis.records.iter().find(|r| r.name == name);
    found.unwrap_or_else(|| panic!("no record {name}")).values.clone()
}

pub fn number(analysis: &Analysis, name: &str) -> f64 {
    *record(analysis, name).first().unwrap()
}

/// Largest |a - b| / scale; what is not finite is refused.
pub fn gap<'a>(a: impl IntoIterator<Item = &'a f64>, b: impl IntoIterator<Item = f64>, scale: f64) -> f64 {
    let (mut worst, mut count) = (0.0f64, 0);
    let mut b = b.into_iter();
    for a in a {
        let b = b.next().expect("as many expected values");
        assert!(a.is_finite() && b.is_finite(), "{a} against {b}");
        worst = worst.max((a - b).abs() / scale);
        count += 1;
    }
    assert!(count > 0 && b.next().is_none());
    worst
}
