//! The reference posterior against posteriors that are known exactly, and what it says when its samplers disagree.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, Array3, Axis, array};
use std::f64::consts::TAU;
use std::ops::ControlFlow;
use vi4dvar::engine::{Backend, Engine, EngineSettings, Precision};
use vi4dvar::method::{Analysis, Observer, Progress, ReferenceSettings, Silent, ViSettings};
use vi4dvar::model::Model;
use vi4dvar::problem::{
    Background, CovarianceFactor, ErrorCovariance, ObservationOperator, PointFunction, Problem, Window,
};

/// One time of five sites: sites 0 to 3 observed as they are with deviations of their own, correlated B.
fn linear() -> Problem {
    let covariance = Array2::from_shape_fn((5, 5), |(i, j)| {
        let deviation = |i: usize| 1.0 + 0.3 * i as f64;
        deviation(i) * deviation(j) * 0.6f64.powi(i.abs_diff(j) as i32)
    });
    Problem {
        model: Model::Lorenz96,
        parameters: array![[8.0]],
        parameter_std: None,
        true_parameters: None,
        model_error: None,
        window: Window { times: 2, assimilated_times: 1, steps_per_time: 1, dt: 0.05 },
        background: Background {
            mean: array![[1.0, 2.0, -1.0, 3.0, 0.5]],
            error: ErrorCovariance::Full(vec![CovarianceFactor::new(covariance).unwrap()]),
            scale: array![1.5],
        },
        operator: ObservationOperator { function: PointFunction::Identity, block_size: 1 },
        observations: Array3::from_shape_fn((1, 2, 5), |(_, t, i)| {
            if t == 0 && i < 4 { [3.0, 1.0, -4.0, 5.5][i] } else { f64::NAN }
        }),
        observation_std: Array3::from_shape_fn((1, 2, 5), |(_, _, i)| 0.3 + 0.2 * i as f64),
        weights: array![[0.8, 1.0]],
        seeds: vec![7],
        truth: None,
    }
}

/// Nothing but x_0^2 is seen, and x_b is 0: the posterior of site 0 has two modes of equal mass.
fn two_modes() -> Problem {
    let mut observations = Array3::from_elem((1, 1, 4), f64::NAN);
    observations[[0, 0, 0]] = 4.0;
    Problem {
        model: Model::Lorenz96,
        parameters: array![[8.0]],
        parameter_std: None,
        true_parameters: None,
        model_error: None,
        window: Window { times: 1, assimilated_times: 1, steps_per_time: 1, dt: 0.05 },
        background: Background {
            mean: Array2::zeros((1, 4)),
            error: ErrorCovariance::Diagonal(array![[1.5, 1.0, 2.0, 0.5]]),
            scale: array![1.0],
        },
        operator: ObservationOperator { function: PointFunction::Square, block_size: 1 },
        observations,
        observation_std: Array3::from_elem((1, 1, 4), 0.5),
        weights: array![[1.0]],
        seeds: vec![9],
        truth: None,
    }
}

/// Four times of eight sites, squared: as the case study, but small. Three problems of different data and seeds.
fn three() -> Problem {
    let mut states: Vec<Vec<f64>> = vec![(0..8).map(|i| 8.0 + (i as f64 * 1.7).sin()).collect()];
    Model::Lorenz96.integrate(&[8.0], &mut states[0], 0.05, 300);
    for t in 1..4 {
        let mut next = states[t - 1].clone();
        Model::Lorenz96.integrate(&[8.0], &mut next, 0.1, 1);
        states.push(next);
    }
    Problem {
        model: Model::Lorenz96,
        parameters: array![[8.0]],
        parameter_std: None,
        true_parameters: None,
        model_error: None,
        window: Window { times: 4, assimilated_times: 4, steps_per_time: 1, dt: 0.1 },
        background: Background {
            mean: Array2::from_shape_fn((3, 8), |(p, i)| states[0][i] + 0.4 * ((p * 8 + i) as f64).cos()),
            error: ErrorCovariance::Diagonal(Array2::from_elem((1, 8), 0.8)),
            scale: array![1.0],
        },
        operator: ObservationOperator { function: PointFunction::Square, block_size: 1 },
        // The more observations, the more levels: the problems end one after the other.
        observations: Array3::from_shape_fn((3, 4, 8), |(p, t, i)| {
            if t > 0 && (i + t) % 4 <= p { states[t][i].powi(2) + 0.5 * ((t * 8 + i) as f64).sin() } else { f64::NAN }
        }),
        observation_std: Array3::from_elem((1, 4, 8), 1.5),
        weights: Array2::ones((1, 4)),
        seeds: vec![31, 32, 33],
        truth: None,
    }
}

fn small() -> ReferenceSettings {
    ReferenceSettings { particles: 300, nuts_draws: 50, nuts_tune: 60, samples: 100, ..ReferenceSettings::default() }
}

fn cpu(precision: Precision, threads: Option<usize>) -> Engine {
    Engine::new(&EngineSettings { backend: Backend::Cpu, precision, threads, ..EngineSettings::default() }).unwrap()
}

fn run(settings: ReferenceSettings, problem: &Problem) -> Vec<Analysis> {
    settings.run(problem, &cpu(Precision::F32, None), &mut Silent).unwrap()
}

fn number(analysis: &Analysis, name: &str) -> f64 {
    analysis.number(name).unwrap_or_else(|| panic!("no record {name}"))
}

/// Everything that ends in a file.
fn assert_equal(a: &Analysis, b: &Analysis) {
    assert_eq!(a.mean, b.mean);
    assert_eq!(a.std, b.std);
    assert_eq!(a.samples, b.samples);
    assert_eq!(a.records, b.records);
    assert_eq!(a.summary, b.summary);
}

#[test]
fn reference_is_the_exact_posterior_where_that_is_gaussian() {
    let problem = linear();
    let analysis = &run(ReferenceSettings::default(), &problem)[0];

    let ErrorCovariance::Full(b) = &problem.background.error else { unreachable!() };
    let b = DMatrix::from_fn(5, 5, |i, j| 1.5 * b[0].covariance[[i, j]]);
    let h = DMatrix::from_fn(4, 5, |i, j| f64::from(u8::from(i == j)));
    let r = DMatrix::from_diagonal(&DVector::from_fn(4, |i, _| (0.3 + 0.2 * i as f64).powi(2) / 0.8));
    let departure = DVector::from_fn(4, |i, _| problem.observations[[0, 0, i]] - problem.background.mean[[0, i]]);
    let s = &h * &b * h.transpose() + r;
    let inverse = s.clone().try_inverse().unwrap();
    let gain = &b * h.transpose() * &inverse;
    let covariance = &b - &gain * &h * &b;
    let increment = gain * &departure;
    let log_evidence =
        -0.5 * (s * TAU).determinant().ln() - 0.5 * (departure.transpose() * inverse * &departure)[(0, 0)];

    // Some 3500 effective particles of 4096: four standard errors are 7 % of a deviation.
    let initial = analysis.samples.index_axis(Axis(1), 0);
    for i in 0..5 {
        let sd = covariance[(i, i)].sqrt();
        let mean = problem.background.mean[[0, i]] + increment[i];
        assert!((analysis.mean[[0, i]] - mean).abs() < 0.07 * sd, "site {i}: {} {mean}", analysis.mean[[0, i]]);
        assert!((analysis.std[[0, i]] / sd - 1.0).abs() < 0.06, "site {i}: {} {sd}", analysis.std[[0, i]]);
        for j in 0..i {
            let centred = |k: usize| &initial.column(k) - analysis.mean[[0, k]];
            let found = (centred(i) * centred(j)).mean().unwrap() / (sd * covariance[(j, j)].sqrt());
            let exact = covariance[(i, j)] / (sd * covariance[(j, j)].sqrt());
            assert!((found - exact).abs() < 0.15, "sites {i} and {j}: correlation {found}, exact {exact}");
        }
    }
    let (found, error) = (number(analysis, "log_evidence"), number(analysis, "log_evidence_error"));
    assert!((found - log_evidence).abs() < 0.2, "log evidence {found}, exact {log_evidence}");

    // Over 20 seeds the stated error has the size of the scatter about the exact value.
    let off = |seed: u64| {
        let other = Problem { seeds: vec![seed], ..problem.clone() };
        (number(&run(ReferenceSettings::default(), &other)[0], "log_evidence") - log_evidence).powi(2)
    };
    let scatter = ((100..120).map(off).sum::<f64>() / 20.0).sqrt();
    assert!((0.5..2.0).contains(&(error / scatter)), "log evidence is stated to {error}, and scatters by {scatter}");
    assert_eq!(number(analysis, "agreed"), 1.0, "{}", analysis.summary);
    assert!(number(analysis, "r_hat") < 1.02 && number(analysis, "nuts_ess") > 500.0, "{}", analysis.summary);
    assert_eq!(analysis.samples.dim(), (1000, 2, 5));

    // An ELBO bounds the evidence, constants included.
    let vi = ViSettings { batch: Some(64), ..ViSettings::default() };
    let vi = &vi.run(&problem, &cpu(Precision::F32, None), &mut Silent).unwrap()[0];
    let elbo = number(vi, "final_elbo");
    assert!(elbo < found + 0.1 && elbo > found - 5.0, "ELBO {elbo}, log evidence {found}");
}

#[test]
fn reference_without_observations_is_the_prior() {
    let mut problem = linear();
    problem.observations.fill(f64::NAN);
    let analysis = &run(ReferenceSettings::default(), &problem)[0];
    for i in 0..5 {
        let sd = problem.background.std_of(0)[i];
        assert!((analysis.mean[[0, i]] - problem.background.mean[[0, i]]).abs() < 0.07 * sd);
        assert!((analysis.std[[0, i]] / sd - 1.0).abs() < 0.06);
    }
    assert_eq!(number(analysis, "log_evidence"), 0.0);
    assert_eq!(number(analysis, "log_evidence_error"), 0.0);
    assert_eq!(number(analysis, "agreed"), 1.0, "{}", analysis.summary);
}

#[test]
fn reference_finds_both_modes_and_says_that_nuts_found_one() {
    let problem = two_modes();
    let analysis = &run(ReferenceSettings::default(), &problem)[0];
    // By quadrature: the posterior of site 0, the others stay as they were.
    let (mut mass, mut second) = (0.0, 0.0);
    let step = 1e-4;
    for k in -60_000..=60_000 {
        let x = f64::from(k) * step;
        let density = (-0.5 * (x / 1.5).powi(2) - 0.5 * ((x * x - 4.0) / 0.5).powi(2)).exp() * step;
        mass += density;
        second += x * x * density;
    }
    let sd = (second / mass).sqrt();
    let log_evidence = (mass / (TAU.sqrt() * 1.5) / (TAU.sqrt() * 0.5)).ln();
    assert!(analysis.mean[[0, 0]].abs() < 0.1 * sd, "{}", analysis.mean);
    assert!((analysis.std[[0, 0]] / sd - 1.0).abs() < 0.03, "{} {sd}", analysis.std);
    for (i, prior) in [(1, 1.0), (2, 2.0), (3, 0.5)] {
        assert!((analysis.std[[0, i]] / prior - 1.0).abs() < 0.06, "{}", analysis.std);
    }
    let found = number(analysis, "log_evidence");
    assert!((found - log_evidence).abs() < 0.1, "log evidence {found}, exact {log_evidence}");
    let right = analysis.samples.outer_iter().filter(|s| s[[0, 0]] > 0.0).count();
    assert!((400..=600).contains(&right), "{right} of 1000 samples on the right");

    // Every chain starts at one minimum and stays there.
    assert_eq!(number(analysis, "agreed"), 0.0, "{}", analysis.summary);
    assert!((number(analysis, "outside_nuts") - 0.5).abs() < 0.1, "{}", analysis.summary);
    assert!(analysis.summary.contains("NUTS found one mode of several"), "{}", analysis.summary);
    assert!(number(analysis, "mean_gap") < 0.2, "{}", analysis.summary);
}

#[test]
fn reference_of_a_set_is_that_of_each_problem_alone() {
    let set = three();
    let together = run(small(), &set);
    let levels: Vec<f64> = together.iter().map(|a| a.record("levels").unwrap().values.sum()).collect();
    assert!(levels[0] < levels[2], "the problems should end one after the other: {levels:?}");
    for (p, analysis) in together.iter().enumerate() {
        assert_equal(analysis, &run(small(), &set.single(p))[0]);
    }
}

#[test]
fn reference_does_not_depend_on_threads() {
    let set = three();
    let all = run(small(), &set);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let alone = pool.install(|| small().run(&set, &cpu(Precision::F32, Some(1)), &mut Silent).unwrap());
    for (a, b) in all.iter().zip(&alone) {
        assert_equal(a, b);
    }
}

#[test]
fn reference_of_more_runs_and_without_the_cross_check() {
    let settings = ReferenceSettings { runs: 3, cross_check: false, ..small() };
    let analysis = &run(settings, &three().single(0))[0];
    assert_eq!(analysis.record("run_log_evidence").unwrap().values.len(), 3);
    assert!(analysis.record("r_hat").is_none());
    assert!(analysis.summary.contains("not checked by NUTS"), "{}", analysis.summary);
    // Runs are independent: no two have a number in common.
    let evidence = &analysis.record("run_log_evidence").unwrap().values;
    assert!(evidence[[0]] != evidence[[1]] && evidence[[1]] != evidence[[2]]);
}

#[test]
fn reference_that_is_ended_early_comes_back_marked() {
    struct Stop(usize);
    impl Observer for Stop {
        fn progress(&mut self, progress: &Progress) -> ControlFlow<()> {
            assert!(progress.iteration <= progress.iterations);
            self.0 -= 1;
            if self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    for rounds in [1, 4] {
        let engine = cpu(Precision::F32, None);
        let analysis = &small().run(&three(), &engine, &mut Stop(rounds)).unwrap()[2];
        assert_eq!(number(analysis, "agreed"), 0.0);
        assert!(analysis.summary.contains("the caller ended it"), "{}", analysis.summary);
    }
}

#[test]
fn reference_refuses_what_cannot_work() {
    let refuse = |settings: ReferenceSettings, flag: &str| {
        let error = settings.run(&linear(), &cpu(Precision::F32, None), &mut Silent).unwrap_err();
        assert!(error.to_string().starts_with(flag), "{error}");
    };
    let good = ReferenceSettings::default();
    refuse(ReferenceSettings { particles: 1, ..good }, "particles");
    refuse(ReferenceSettings { runs: 1, ..good }, "runs");
    refuse(ReferenceSettings { ess_share: 1.0, ..good }, "ess-share");
    refuse(ReferenceSettings { correlation: f64::NAN, ..good }, "correlation");
    refuse(ReferenceSettings { samples: 1, ..good }, "samples");
    refuse(ReferenceSettings { nuts_tune: 1, ..good }, "nuts-tune");

    // Deviations from which most trajectories overflow.
    let mut wild = three();
    wild.background.scale = array![1e6];
    let error = good.run(&wild, &cpu(Precision::F32, None), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("diverged in the particles of the reference posterior"), "{error}");
}
