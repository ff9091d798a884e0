//! The ensemble of 4DVAR against exact posteriors, in its limits, and its account of what went wrong.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array1, Array2, Array3, array};
use rand_distr::{Distribution, StandardNormal};
use vi4dvar::engine::{DIVERGED, Engine, Precision};
use vi4dvar::error::Error;
use vi4dvar::experiment::{TwinSettings, simulate_set};
use vi4dvar::method::ensemble::{Start, Status};
use vi4dvar::method::{Analysis, EnsembleSettings, FourDVarSettings, Minimiser, Silent};
use vi4dvar::model::Model;
use vi4dvar::problem::{
    Background, CovarianceFactor, ErrorCovariance, ObservationOperator, PointFunction, Problem, Window,
};
use vi4dvar::random::{Stream, StreamRng, normals};

fn cpu(precision: Precision) -> Engine {
    Engine::cpu(precision).unwrap()
}

fn run(settings: EnsembleSettings, problem: &Problem, precision: Precision) -> Vec<Analysis> {
    settings.run(problem, &cpu(precision), &mut Silent).unwrap()
}

fn number(analysis: &Analysis, name: &str) -> f64 {
    analysis.number(name).unwrap_or_else(|| panic!("no number {name}"))
}

fn record(analysis: &Analysis, name: &str) -> ndarray::ArrayD<f64> {
    analysis.record(name).unwrap_or_else(|| panic!("no record {name}")).values.clone()
}

fn statuses(analysis: &Analysis) -> Vec<usize> {
    record(analysis, "status").iter().map(|s| *s as usize).collect()
}

/// The covariance of neighbours on a ring.
fn covariance(n: usize) -> Array2<f64> {
    Array2::from_shape_fn((n, n), |(i, j)| {
        let distance = i.abs_diff(j).min(n - i.abs_diff(j)) as i32;
        0.8 * 0.4f64.powi(distance) + if i == j { 0.1 * i as f64 } else { 0.0 }
    })
}

/// One observed time and H = I, so that every posterior is Gaussian: P problems whose truths are draws of their priors
/// and whose last site is not observed.
fn linear(count: usize, n: usize, full: bool) -> Problem {
    let mut rng = StreamRng::new(4, Stream::Truth);
    let mut draw = move || -> f64 { StandardNormal.sample(&mut rng) };
    let b = CovarianceFactor::new(covariance(n)).unwrap();
    let deviations = covariance(n).diag().mapv(f64::sqrt);
    let mut mean = Array2::zeros((count, n));
    let mut observations = Array3::from_elem((count, 1, n), f64::NAN);
    for p in 0..count {
        let eps = Array1::from_shape_fn(n, |_| draw());
        let error = if full { b.lower.dot(&eps) } else { &deviations * &eps };
        for i in 0..n {
            mean[[p, i]] = 2.0 + error[i];
            let noise = draw();
            if i + 1 < n {
                observations[[p, 0, i]] = 2.0 + (0.3 + 0.1 * i as f64) * noise;
            }
        }
    }
    Problem {
        model: Model::Lorenz96,
        parameters: array![[8.0]],
        parameter_std: None,
        true_parameters: None,
        model_error: None,
        window: Window { times: 1, assimilated_times: 1, steps_per_time: 1, dt: 0.05 },
        background: Background {
            mean,
            error: if full {
                ErrorCovariance::Full(vec![b])
            } else {
                ErrorCovariance::Diagonal(deviations.insert_axis(ndarray::Axis(0)))
            },
            scale: array![1.0],
        },
        operator: ObservationOperator { function: PointFunction::Identity, block_size: 1 },
        observations,
        observation_std: Array3::from_shape_fn((1, 1, n), |(_, _, i)| 0.3 + 0.1 * i as f64),
        weights: array![[1.0]],
        seeds: (0..count as u64).map(|p| 100 + p).collect(),
        truth: None,
    }
}

/// Mean and covariance of the posterior of problem 0 of a linear set, from the textbook formulae.
fn exact(problem: &Problem) -> (DVector<f64>, DMatrix<f64>) {
    let n = problem.background.mean.ncols();
    let b = match &problem.background.error {
        ErrorCovariance::Full(b) => DMatrix::from_fn(n, n, |i, j| b[0].covariance[[i, j]]),
        ErrorCovariance::Diagonal(s) => DMatrix::from_fn(n, n, |i, j| if i == j { s[[0, i]] * s[[0, i]] } else { 0.0 }),
    };
    let r = DMatrix::from_fn(n, n, |i, j| {
        let observed = i == j && !problem.observations[[0, 0, i]].is_nan();
        if observed { problem.observation_std[[0, 0, i]].powi(-2) } else { 0.0 }
    });
    let p = (b.try_inverse().unwrap() + &r).try_inverse().unwrap();
    let xb = DVector::from_fn(n, |i, _| problem.background.mean[[0, i]]);
    let d = DVector::from_fn(n, |i, _| {
        let y = problem.observations[[0, 0, i]];
        if y.is_nan() { 0.0 } else { y - xb[i] }
    });
    (&xb + &p * r * d, p)
}

fn twins(seeds: &[u64]) -> Problem {
    simulate_set(&TwinSettings::default(), seeds).unwrap()
}

/// Twins that are easy: the state itself is observed, and the window is short.
fn easy(seeds: &[u64]) -> Problem {
    let twin = TwinSettings {
        operator: PointFunction::Identity,
        times: 7,
        assimilated_times: 6,
        dt: 0.05,
        ..TwinSettings::default()
    };
    simulate_set(&twin, seeds).unwrap()
}

#[test]
fn ensemble_samples_a_gaussian_posterior() {
    for (full, minimiser, start) in [
        (true, Minimiser::Lbfgs, Start::Background),
        (false, Minimiser::Lbfgs, Start::Minimum),
        (true, Minimiser::Adam, Start::Minimum),
    ] {
        let problem = linear(1, 6, full);
        let members = 2000;
        let settings = EnsembleSettings { members, minimiser, start, ..EnsembleSettings::default() };
        let a = run(settings, &problem, Precision::F64).remove(0);
        let (mean, p) = exact(&problem);
        let states = a.samples.index_axis(ndarray::Axis(1), 0);
        assert_eq!(states.nrows(), members);
        let m = members as f64;
        for i in 0..6 {
            let error = (p[(i, i)] / m).sqrt();
            assert!(
                (a.mean[[0, i]] - mean[i]).abs() < 4.0 * error,
                "full {full} site {i}: {} {}",
                a.mean[[0, i]],
                mean[i]
            );
            for j in 0..6 {
                let sum = states.outer_iter().map(|x| (x[i] - a.mean[[0, i]]) * (x[j] - a.mean[[0, j]])).sum::<f64>();
                let got = sum / (m - 1.0);
                let error = ((p[(i, i)] * p[(j, j)] + p[(i, j)].powi(2)) / m).sqrt();
                assert!((got - p[(i, j)]).abs() < 4.5 * error, "full {full} ({i}, {j}): {got} {}", p[(i, j)]);
            }
        }
    }
}

/// For one problem J at the members' minima has mean J* + p / 2 and variance p / 2 + 2 J*.
#[test]
fn ensemble_mean_cost_of_one_problem() {
    let problem = linear(1, 8, true);
    let a = run(EnsembleSettings { members: 4000, ..EnsembleSettings::default() }, &problem, Precision::F64).remove(0);
    let best = number(&a, "four_d_var_cost");
    let error = ((3.5 + 2.0 * best) / 4000.0).sqrt();
    assert_eq!(number(&a, "observation_count"), 7.0);
    assert!((number(&a, "mean_minimum_cost") - best - 3.5).abs() < 4.0 * error, "{}", a.summary);
    let costs = record(&a, "minimum_cost");
    let terms = record(&a, "minimum_cost_background") + record(&a, "minimum_cost_observation");
    assert!((&costs - &terms).iter().all(|d| d.abs() < 1e-12));
    let variance = costs.iter().map(|j| (j - best - 3.5).powi(2)).sum::<f64>() / 4000.0;
    assert!((variance / (3.5 + 2.0 * best) - 1.0).abs() < 0.25, "{variance} {best}");
}

/// Over problems whose truths are draws of their priors the mean is p (Bennett-Talagrand for perturbed members).
#[test]
fn ensemble_mean_cost_over_problems_is_the_number_of_observations() {
    let (count, p) = (400, 7.0f64);
    let analyses =
        run(EnsembleSettings { members: 8, ..EnsembleSettings::default() }, &linear(count, 8, true), Precision::F64);
    let mean = |name: &str| analyses.iter().map(|a| number(a, name)).sum::<f64>() / count as f64;
    // 2 J* is chi-squared with p degrees of freedom; the mean of 8 members adds (p / 2 + 2 J*) / 8.
    let error = ((0.5 * p + 1.5 * p / 8.0) / count as f64).sqrt();
    assert!((mean("mean_minimum_cost") - p).abs() < 4.0 * error, "{}", mean("mean_minimum_cost"));
    assert!((mean("four_d_var_cost") - 0.5 * p).abs() < 4.0 * error, "{}", mean("four_d_var_cost"));
}

#[test]
fn ensemble_without_perturbation_is_4dvar_in_every_member() {
    let problem = twins(&[1, 3]);
    let four = FourDVarSettings { starts: 1, samples: 2, ..FourDVarSettings::default() };
    let four = four.run(&problem, &cpu(Precision::F64), &mut Silent).unwrap();
    let settings =
        EnsembleSettings { members: 5, perturbation: 0.0, start: Start::Background, ..EnsembleSettings::default() };
    for (a, four) in run(settings, &problem, Precision::F64).iter().zip(&four) {
        let minimum = record(four, "initial_state");
        let states = record(a, "initial_state");
        for state in states.outer_iter() {
            assert!(state.iter().zip(&minimum).all(|(x, y)| (x - y).abs() < 1e-4), "{state} {minimum}");
        }
        assert!((&a.mean - &four.mean).iter().all(|d| d.abs() < 1e-2));
        assert!(a.std.iter().all(|s| *s < 1e-12), "{}", a.std);
        assert_eq!(statuses(a), [0; 5]);
    }
}

#[test]
fn ensemble_in_stages_ends_at_the_same_minimum() {
    let problem = easy(&[1, 2]);
    let settings = EnsembleSettings { members: 10, start: Start::Background, ..EnsembleSettings::default() };
    let whole = run(settings, &problem, Precision::F64);
    let staged = run(EnsembleSettings { stages: 3, ..settings }, &problem, Precision::F64);
    let minimum = run(EnsembleSettings { start: Start::Minimum, ..settings }, &problem, Precision::F64);
    for ((whole, staged), minimum) in whole.iter().zip(&staged).zip(&minimum) {
        for other in [staged, minimum] {
            let gap = record(whole, "initial_state") - record(other, "initial_state");
            assert!(gap.iter().all(|d| d.abs() < 1e-4), "{gap}");
            assert_ne!(record(whole, "evaluations"), record(other, "evaluations"));
        }
        // A shorter window takes fewer steps.
        let per_evaluation =
            |a: &Analysis| number(a, "model_steps_per_member") / record(a, "evaluations").mean().unwrap();
        assert_eq!(per_evaluation(whole), 5.0);
        assert!(per_evaluation(staged) < 5.0, "{}", per_evaluation(staged));
        assert_eq!(number(whole, "adjoint_steps_per_member"), number(whole, "model_steps_per_member"));
    }
    let four = |stages| {
        let settings = FourDVarSettings { stages, starts: 1, samples: 2, ..FourDVarSettings::default() };
        settings.run(&problem, &cpu(Precision::F64), &mut Silent).unwrap()
    };
    for (whole, staged) in four(1).iter().zip(&four(3)) {
        let gap = record(whole, "initial_state") - record(staged, "initial_state");
        assert!(gap.iter().all(|d| d.abs() < 1e-4), "{gap}");
    }
}

/// Backgrounds perturbed so far that the model cannot carry some of them: which ones, plain integration knows too.
#[test]
fn ensemble_leaves_out_the_members_that_diverge() {
    let mut problem = easy(&[5]);
    let sites = 16;
    problem.background.error = ErrorCovariance::Diagonal(Array2::from_elem((1, sites), WIDE));
    problem.background.scale = array![1.0];
    let members = 60;
    let settings =
        EnsembleSettings { members, start: Start::Background, max_diverged_share: 0.9, ..EnsembleSettings::default() };
    let a = run(settings, &problem, Precision::F64).remove(0);
    let largest: Vec<f64> = (0..members as u32)
        .map(|k| {
            let eps = |i: usize| normals(5, Stream::BackgroundPerturbation, 0, k, i as u32 / 4)[i % 4];
            let mut x: Vec<f64> =
                (0..sites).map(|i| problem.background.mean[[0, i]] + WIDE * f64::from(eps(i))).collect();
            Model::Lorenz96.integrate(&[8.0], &mut x, 0.05, 5);
            x.iter().fold(0.0, |a, x| if x.is_nan() { f64::INFINITY } else { f64::max(a, x.abs()) })
        })
        .collect();
    let status = statuses(&a);
    let diverged = status.iter().filter(|s| **s == Status::Diverged as usize).count();
    assert!((5..40).contains(&diverged), "{diverged}: choose another deviation");
    for (status, largest) in status.iter().zip(&largest) {
        // In between a cost or a gradient may be out of range although the state is not.
        if *largest >= DIVERGED || *largest < 1e4 {
            assert_eq!(*status == Status::Diverged as usize, *largest >= DIVERGED, "{largest}");
        }
    }
    assert_eq!(number(&a, "diverged_members"), diverged as f64);
    let kept = status.iter().filter(|s| **s <= 1).count();
    assert_eq!(number(&a, "kept_members"), kept as f64);
    assert_eq!(a.samples.len_of(ndarray::Axis(0)) as f64, kept as f64 - number(&a, "diverged_samples"));
    assert!(a.mean.iter().chain(&a.std).all(|x| x.abs() < 1e3), "{}", a.mean);
    assert!(a.summary.contains("diverged (member"), "{}", a.summary);
    let strict = EnsembleSettings { max_diverged_share: 0.01, ..settings };
    let error = strict.run(&problem, &cpu(Precision::F64), &mut Silent).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. } | Error::Invalid { .. }), "{error}");
}

/// Standard deviation of a background that the model cannot carry for long.
const WIDE: f64 = 16.0;

#[test]
fn ensemble_counts_spurious_minima() {
    let problem = twins(&[4]);
    let settings = EnsembleSettings { members: 60, start: Start::Background, ..EnsembleSettings::default() };
    let a = run(settings, &problem, Precision::F64).remove(0);
    let (status, costs, bound) = (statuses(&a), record(&a, "minimum_cost"), number(&a, "spurious_cost"));
    let spurious = status.iter().filter(|s| **s == Status::Spurious as usize).count();
    assert!(spurious > 0 && number(&a, "spurious_members") == spurious as f64, "{}", a.summary);
    for (status, cost) in status.iter().zip(&costs) {
        assert_eq!(*status == Status::Spurious as usize, *cost > bound, "{status} {cost} {bound}");
    }
    assert_eq!(a.samples.len_of(ndarray::Axis(0)), 60 - spurious);
    // Members left out may have gone on longer than those that count: a file needs one number of steps.
    assert_eq!(record(&a, "cost").shape()[1], record(&a, "mean_cost").len());
    let all = run(EnsembleSettings { keep_spurious: true, ..settings }, &problem, Precision::F64).remove(0);
    assert_eq!((number(&all, "kept_members"), number(&all, "spurious_members")), (60.0, 0.0));
    assert_eq!(record(&all, "initial_state"), record(&a, "initial_state"));
    assert!(number(&all, "mean_minimum_cost") > number(&a, "mean_minimum_cost"));
}

/// Three iterations lead nowhere near a minimum.
#[test]
fn ensemble_names_the_members_that_are_stuck() {
    let settings =
        EnsembleSettings { members: 6, iterations: 3, start: Start::Background, ..EnsembleSettings::default() };
    let error = settings.run(&twins(&[1]), &cpu(Precision::F64), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("6 far from any minimum"), "{error}");
}

/// Bit by bit: what has ended is NaN.
fn assert_same(a: &Analysis, b: &Analysis) {
    assert_eq!((&a.mean, &a.std, &a.samples, &a.summary), (&b.mean, &b.std, &b.samples, &b.summary));
    assert_eq!(a.records.len(), b.records.len());
    for (a, b) in a.records.iter().zip(&b.records) {
        assert_eq!((&a.name, a.values.shape()), (&b.name, b.values.shape()));
        assert!(a.values.iter().zip(&b.values).all(|(a, b)| a.to_bits() == b.to_bits()), "{} differs", a.name);
    }
}

#[test]
fn ensemble_together_equals_alone() {
    let problem = twins(&[1, 2, 3]);
    for precision in [Precision::F32, Precision::F64] {
        for settings in [
            EnsembleSettings { members: 21, ..EnsembleSettings::default() },
            EnsembleSettings { members: 21, start: Start::Background, stages: 3, ..EnsembleSettings::default() },
        ] {
            let together = run(settings, &problem, precision);
            for (p, together) in together.iter().enumerate() {
                let alone = run(settings, &problem.single(p), precision).remove(0);
                assert_same(together, &alone);
            }
        }
    }
}

#[test]
fn ensemble_more_members_keep_the_first() {
    let problem = twins(&[1, 7]);
    for precision in [Precision::F32, Precision::F64] {
        let few = run(EnsembleSettings { members: 10, ..EnsembleSettings::default() }, &problem, precision);
        let many = run(EnsembleSettings { members: 33, ..EnsembleSettings::default() }, &problem, precision);
        for (few, many) in few.iter().zip(&many) {
            for name in ["initial_state", "minimum_cost", "evaluations", "status"] {
                let (few, many) = (record(few, name), record(many, name));
                assert_eq!(few, many.slice_axis(ndarray::Axis(0), (..10).into()), "{name}");
            }
        }
    }
}

#[test]
fn ensemble_settings() {
    let default = EnsembleSettings::default();
    assert_eq!((default.members, default.perturbation, default.stages, default.history), (100, 1.0, 1, 20));
    assert_eq!((default.start, default.minimiser), (Start::Minimum, Minimiser::Lbfgs));
    assert_eq!(toml::from_str::<EnsembleSettings>(&toml::to_string(&default).unwrap()).unwrap(), default);
    for wrong in [
        EnsembleSettings { members: 1, ..default },
        EnsembleSettings { stages: 0, ..default },
        EnsembleSettings { history: 0, ..default },
        EnsembleSettings { iterations: 0, ..default },
        EnsembleSettings { perturbation: -1.0, ..default },
        EnsembleSettings { perturbation: f64::NAN, ..default },
        EnsembleSettings { learning_rate: 0.0, ..default },
        EnsembleSettings { max_diverged_share: 0.0, ..default },
        EnsembleSettings { gradient_tolerance: Some(0.0), ..default },
    ] {
        assert!(matches!(wrong.check(), Err(Error::Invalid { .. })), "{wrong:?}");
    }
}
