//! ABC rejection: its limits, its criterion, its weights, and what it holds in memory.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array1, Array2, Array3, Axis, array, s};
use vi4dvar::engine::{Backend, Engine, EngineSettings, Members, Precision, Terms};
use vi4dvar::method::abc::Criterion;
use vi4dvar::method::{AbcSettings, Analysis, PriorSettings, Silent};
use vi4dvar::model::Model;
use vi4dvar::problem::{
    Background, CovarianceFactor, ErrorCovariance, ObservationOperator, PointFunction, Problem, Window,
};
use vi4dvar::random::{Stream, normals};

const SITES: usize = 4;

fn cpu(precision: Precision) -> Engine {
    Engine::cpu(precision).unwrap()
}

/// Four sites at one time, two of them observed with as much noise as the background has.
fn easy(full: bool) -> Problem {
    let covariance = Array2::from_shape_fn((SITES, SITES), |(i, j)| 1.2 * 0.4f64.powi(i.abs_diff(j) as i32));
    Problem {
        model: Model::Lorenz96,
        parameters: array![[8.0]],
        parameter_std: None,
        true_parameters: None,
        model_error: None,
        window: Window { times: 1, assimilated_times: 1, steps_per_time: 1, dt: 0.05 },
        background: Background {
            mean: array![[1.0, 3.0, -2.0, 0.5]],
            error: if full {
                ErrorCovariance::Full(vec![CovarianceFactor::new(covariance).unwrap()])
            } else {
                ErrorCovariance::Diagonal(array![[1.0, 0.8, 1.2, 0.9]])
            },
            scale: array![0.9],
        },
        operator: ObservationOperator { function: PointFunction::Identity, block_size: 1 },
        observations: array![[[1.8, f64::NAN, -2.9, f64::NAN]]],
        observation_std: array![[[0.9, f64::NAN, 1.1, f64::NAN]]],
        weights: array![[1.0]],
        seeds: vec![21],
        truth: None,
    }
}

/// Three chaotic windows with squared observations, each with its own data and seed.
fn windows() -> Problem {
    let times = 5;
    let mut problem = easy(false);
    problem.window = Window { times, assimilated_times: 4, steps_per_time: 2, dt: 0.05 };
    problem.operator.function = PointFunction::Square;
    problem.background.mean = Array2::from_shape_fn((3, SITES), |(p, i)| 2.0 + p as f64 + (i as f64).sin());
    problem.background.scale = array![0.5, 1.0, 1.5];
    problem.observations =
        Array3::from_shape_fn(
            (3, times, SITES),
            |(p, t, i)| {
                if (t + i) % 2 == 0 { f64::NAN } else { 4.0 + (p + t) as f64 }
            },
        );
    problem.observation_std = Array3::from_elem((1, times, SITES), 3.0);
    problem.weights = Array2::ones((1, times));
    problem.seeds = vec![3, 4, 5];
    problem
}

/// The first trials of the prior, from the draws' addresses.
fn trials(problem: &Problem, count: usize) -> Array2<f64> {
    let n = problem.sites();
    let mut out = Array2::zeros((count, n));
    for (member, mut row) in out.outer_iter_mut().enumerate() {
        let z: Vec<f64> = (0..n.div_ceil(4) as u32)
            .flat_map(|quad| normals(problem.seeds[0], Stream::Abc, 0, member as u32, quad))
            .take(n)
            .map(f64::from)
            .collect();
        row.assign(&(&problem.background.mean_of(0) + &problem.background.square_root(0, Array1::from(z).view())));
    }
    out
}

fn record(analysis: &Analysis, name: &str) -> Vec<f64> {
    analysis.record(name).unwrap_or_else(|| panic!("no record {name}")).values.iter().copied().collect()
}

fn number(analysis: &Analysis, name: &str) -> f64 {
    record(analysis, name)[0]
}

fn worst<'a>(a: impl IntoIterator<Item = &'a f64>, b: impl IntoIterator<Item = &'a f64>) -> f64 {
    a.into_iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

/// Mean and covariance of the exact posterior of a linear problem of one time.
fn exact(problem: &Problem) -> (DVector<f64>, DMatrix<f64>) {
    let n = problem.sites();
    let precision = problem.background.precision_of(0);
    let r = problem.observation_precision(0);
    let matrix = DMatrix::from_fn(n, n, |i, j| precision[[i, j]] + if i == j { r[[0, i]] } else { 0.0 });
    let mean = problem.background.mean_of(0);
    let y = problem.observations_of(0);
    let force = DVector::from_fn(n, |i, _| if r[[0, i]] > 0.0 { r[[0, i]] * (y[[0, i]] - mean[i]) } else { 0.0 });
    let covariance = matrix.try_inverse().unwrap();
    (DVector::from_iterator(n, mean.iter().copied()) + &covariance * force, covariance)
}

/// Everything in an analysis but its time.
fn bytes(analysis: &Analysis) -> Vec<u64> {
    let records = analysis.records.iter().flat_map(|r| r.values.iter());
    let numbers = analysis.mean.iter().chain(&analysis.std).chain(&analysis.samples).chain(records);
    numbers.map(|v| v.to_bits()).collect()
}

#[test]
fn keeping_every_trial_gives_the_prior() {
    for full in [false, true] {
        let problem = easy(full);
        let count = 3000;
        let settings = AbcSettings { trials: count, keep: 1.0, samples: count, ..AbcSettings::default() };
        let abc = settings.run(&problem, &cpu(Precision::F64), &mut Silent).unwrap().remove(0);
        let all = trials(&problem, count);
        assert!(worst(abc.mean.row(0), &all.mean_axis(Axis(0)).unwrap()) < 1e-12);
        assert!(worst(abc.std.row(0), &all.std_axis(Axis(0), 1.0)) < 1e-12);
        // Exactly those trials, in the order of their cost.
        let kept: Vec<usize> = record(&abc, "kept_trial").iter().map(|k| *k as usize).collect();
        assert_eq!(abc.samples.slice(s![.., 0, ..]), all.select(Axis(0), &kept));
        let mut sorted = kept;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..count).collect::<Vec<_>>());
        assert_eq!(number(&abc, "acceptance_rate"), 1.0);
        assert!((number(&abc, "importance_ess") / number(&abc, "kept_importance_ess") - 1.0).abs() < 1e-9);
        // And they are draws of N(xb, B).
        let error = (count as f64).sqrt().recip();
        for (i, sd) in problem.background.std_of(0).iter().enumerate() {
            assert!((abc.mean[[0, i]] - problem.background.mean_of(0)[i]).abs() < 4.0 * sd * error);
            assert!((abc.std[[0, i]] / sd - 1.0).abs() < 4.0 * error);
        }
    }
}

#[test]
fn trials_are_not_the_samples_of_the_prior() {
    let problem = easy(false);
    let settings = AbcSettings { trials: 100, keep: 1.0, ..AbcSettings::default() };
    let abc = settings.run(&problem, &cpu(Precision::F64), &mut Silent).unwrap().remove(0);
    let prior = PriorSettings { samples: 100, ..PriorSettings::default() };
    let prior = prior.run(&problem, &cpu(Precision::F64)).unwrap().remove(0);
    assert!(abc.samples.iter().all(|x| prior.samples.iter().all(|y| x != y)));
}

#[test]
fn the_kept_are_those_of_least_observation_cost_among_all_trials() {
    let problem = windows();
    let engine = cpu(Precision::F64);
    let count = 2000;
    for criterion in [Criterion::Observation, Criterion::Total] {
        let settings = AbcSettings { trials: count, keep: 0.02, criterion, ..AbcSettings::default() };
        for (p, abc) in settings.run(&problem, &engine, &mut Silent).unwrap().iter().enumerate() {
            let alone = problem.single(p);
            let all = trials(&alone, count);
            let costs = engine.load(&alone).unwrap().cost(Members::Given(all.view()), Terms::ALL).unwrap();
            let cost =
                |k: usize| costs.observation[k] + if criterion == Criterion::Total { costs.background[k] } else { 0.0 };
            let mut best: Vec<usize> = (0..count).collect();
            best.sort_by(|a, b| cost(*a).total_cmp(&cost(*b)));
            best.truncate(40);
            assert_eq!(record(abc, "kept_trial"), best.iter().map(|k| *k as f64).collect::<Vec<_>>());
            assert!((number(abc, "threshold") / cost(best[39]) - 1.0).abs() < 1e-12);
            assert_eq!((number(abc, "acceptance_rate"), number(abc, "trials")), (0.02, 2000.0));
            let (edges, counts) = (record(abc, "cost_bin_edge"), record(abc, "cost_count"));
            for (k, got) in counts.iter().enumerate() {
                let want = (0..count).filter(|t| (edges[k]..edges[k + 1]).contains(&cost(*t))).count();
                assert!((got - want as f64).abs() <= 1.0, "bin {k}: {got}, {want} expected");
            }
            assert_eq!(counts.iter().sum::<f64>(), count as f64);
            // The samples are the kept, carried forward by the model.
            let states = all.select(Axis(0), &best);
            let want = engine.load(&alone).unwrap().forecast(Members::Given(states.view())).unwrap();
            assert_eq!(abc.samples, want);
            assert!(worst(&abc.mean, &want.mean_axis(Axis(0)).unwrap()) < 1e-12);
            assert!(worst(&abc.std, &want.std_axis(Axis(0), 1.0)) < 1e-12);
        }
    }
}

/// Defect 4 of the slides' code. Where nothing was observed the posterior is the prior, and so are the trials that J_o
/// keeps; those that J keeps are narrower.
#[test]
fn seed_defect_4_the_criterion_of_the_slides_counts_the_prior_twice() {
    let problem = easy(false);
    let settings = AbcSettings { trials: 200_000, keep: 0.01, ..AbcSettings::default() };
    let [proper, slides] = [Criterion::Observation, Criterion::Total].map(|criterion| {
        AbcSettings { criterion, ..settings }.run(&problem, &cpu(Precision::F32), &mut Silent).unwrap().remove(0)
    });
    let prior = problem.background.std_of(0);
    for site in [1, 3] {
        assert!((proper.std[[0, site]] / prior[site] - 1.0).abs() < 4.0 / 4000f64.sqrt());
        assert!(slides.std[[0, site]] < 0.8 * prior[site], "{}", slides.std[[0, site]] / prior[site]);
    }
    assert!(slides.summary.contains("prior twice") && !proper.summary.contains("prior twice"));
    // Both costs keep their half.
    let kept = record(&slides, "kept_trial")[0] as usize;
    let x = trials(&problem, kept + 1).row(kept).to_owned();
    let (r, y) = (problem.observation_precision(0), problem.observations_of(0));
    let background: f64 =
        (0..SITES).map(|i| 0.5 * ((x[i] - problem.background.mean_of(0)[i]) / prior[i]).powi(2)).sum();
    let observation: f64 = [0, 2].iter().map(|&i| 0.5 * r[[0, i]] * (x[i] - y[[0, i]]).powi(2)).sum();
    assert!((record(&slides, "kept_cost_background")[0] - background).abs() < 1e-5);
    assert!((record(&slides, "kept_cost_observation")[0] - observation).abs() < 1e-5);
}

#[test]
fn weighted_trials_converge_to_the_exact_posterior() {
    for full in [false, true] {
        let problem = easy(full);
        let (mean, covariance) = exact(&problem);
        for (trials, samples) in [(2_000, 1_000), (200_000, 10_000)] {
            let settings = AbcSettings { trials, keep: 1.0, weights: true, samples, ..AbcSettings::default() };
            let abc = settings.run(&problem, &cpu(Precision::F32), &mut Silent).unwrap().remove(0);
            let ess = number(&abc, "importance_ess");
            assert!(ess > 0.2 * trials as f64, "{ess}");
            let error = ess.sqrt().recip();
            assert_eq!(abc.samples.shape(), [samples, 1, SITES]);
            let resampled = abc.samples.mean_axis(Axis(0)).unwrap();
            for i in 0..SITES {
                let sd = covariance[(i, i)].sqrt();
                assert!((abc.mean[[0, i]] - mean[i]).abs() < 4.0 * sd * error, "mean of site {i}, {trials} trials");
                assert!((abc.std[[0, i]] / sd - 1.0).abs() < 4.0 * error, "sd of site {i}, {trials} trials");
                assert!((resampled[[0, i]] - abc.mean[[0, i]]).abs() < 4.0 * sd / (samples as f64).sqrt());
            }
            let weights = record(&abc, "kept_weight");
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            assert!(!abc.summary.contains("WARNING"), "{}", abc.summary);
        }
    }
}

#[test]
fn a_threshold_keeps_what_a_share_keeps_there() {
    let problem = windows().single(0);
    let engine = cpu(Precision::F32);
    let share = AbcSettings { trials: 5000, keep: 0.01, samples: 20, ..AbcSettings::default() };
    let by_share = share.run(&problem, &engine, &mut Silent).unwrap().remove(0);
    let threshold = Some(number(&by_share, "threshold"));
    let by_threshold = AbcSettings { threshold, ..share }.run(&problem, &engine, &mut Silent).unwrap().remove(0);
    assert_eq!(bytes(&by_threshold), bytes(&by_share));
    // More are kept than come out as samples: those at even ranks, while mean and deviation are of all.
    assert_eq!((by_share.samples.len_of(Axis(0)), record(&by_share, "kept_trial").len()), (20, 50));
    let all = AbcSettings { samples: 50, ..share }.run(&problem, &engine, &mut Silent).unwrap().remove(0);
    assert_eq!((&all.mean, &all.std), (&by_share.mean, &by_share.std));
    assert_eq!(by_share.samples.index_axis(Axis(0), 3), all.samples.index_axis(Axis(0), 7));
    let refused = AbcSettings { threshold: Some(1e-12), ..share }.run(&problem, &engine, &mut Silent).unwrap_err();
    assert!(refused.exit_code() == 2 && refused.to_string().contains("abc-threshold"), "{refused}");
}

#[test]
fn the_same_bytes_alone_or_in_a_set_and_for_any_threads_and_memory() {
    let problem = windows();
    let settings = AbcSettings { trials: 30_000, keep: 0.001, weights: true, ..AbcSettings::default() };
    let run = |problem: &Problem, threads: usize, memory_mib: u64| {
        let engine =
            EngineSettings { backend: Backend::Cpu, threads: Some(threads), memory_mib, ..EngineSettings::default() };
        settings.run(problem, &Engine::new(&engine).unwrap(), &mut Silent).unwrap()
    };
    let reference = run(&problem, 1, 1024);
    for (threads, memory) in [(2, 1024), (3, 1)] {
        for (a, b) in run(&problem, threads, memory).iter().zip(&reference) {
            assert_eq!(bytes(a), bytes(b), "{threads} threads, {memory} MiB");
        }
    }
    for (p, together) in reference.iter().enumerate() {
        assert_eq!(bytes(&run(&problem.single(p), 2, 1024)[0]), bytes(together), "problem {p}");
    }
}

#[test]
fn a_kept_set_that_means_little_is_called_so() {
    let mut problem = windows().single(0);
    let engine = cpu(Precision::F32);
    let run = |problem: &Problem, settings: AbcSettings| {
        settings.run(problem, &engine, &mut Silent).unwrap().remove(0).summary
    };
    let few = run(&problem, AbcSettings { trials: 1000, keep: 0.005, ..AbcSettings::default() });
    assert!(few.contains("5 kept trials are too few"), "{few}");
    // Observations a hundred times as exact: the best of a thousand trials are nowhere near.
    problem.observation_std.mapv_inplace(|s| s / 100.0);
    let far = run(&problem, AbcSettings { trials: 1000, keep: 0.1, ..AbcSettings::default() });
    assert!(far.contains("more about the threshold"), "{far}");
    let weighted = run(&problem, AbcSettings { trials: 1000, keep: 0.1, weights: true, ..AbcSettings::default() });
    assert!(weighted.contains("draw more"), "{weighted}");
}

#[test]
fn diverged_trials_are_counted_and_never_kept() {
    let mut problem = windows().single(0);
    problem.background.error = ErrorCovariance::Diagonal(Array2::from_elem((1, SITES), 25.0));
    let settings =
        AbcSettings { trials: 4000, keep: 1.0, samples: 4000, max_diverged_share: 1.0, ..AbcSettings::default() };
    let abc = settings.run(&problem, &cpu(Precision::F32), &mut Silent).unwrap().remove(0);
    let lost = number(&abc, "diverged_trials") as usize;
    assert!((100..3900).contains(&lost), "{lost}");
    assert_eq!(record(&abc, "kept_trial").len(), 4000 - lost);
    assert!(abc.samples.iter().chain(&abc.mean).chain(&abc.std).all(|x| x.is_finite()));
    let strict = AbcSettings { max_diverged_share: 0.01, ..settings };
    assert_eq!(strict.run(&problem, &cpu(Precision::F32), &mut Silent).unwrap_err().exit_code(), 1);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let good = AbcSettings::default();
    assert!(good.check().is_ok());
    for (flag, bad) in [
        ("abc-trials", AbcSettings { trials: 1, ..good }),
        ("abc-keep", AbcSettings { keep: 0.0, ..good }),
        ("abc-keep", AbcSettings { keep: 1.5, ..good }),
        ("abc-threshold", AbcSettings { threshold: Some(-1.0), ..good }),
        ("abc-threshold", AbcSettings { threshold: Some(f64::NAN), ..good }),
        ("samples", AbcSettings { samples: 1, ..good }),
        ("max-diverged-share", AbcSettings { max_diverged_share: 0.0, ..good }),
    ] {
        let error = bad.check().unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(flag), "{error}");
    }
}

/// Runs itself as a process of its own, once with few and once with many trials, and compares their peaks of memory.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_trials() {
    const TRIALS: &str = "VI4DVAR_TEST_TRIALS";
    if let Ok(trials) = std::env::var(TRIALS) {
        let trials: usize = trials.parse().unwrap();
        let settings = AbcSettings { trials, keep: 100.0 / trials as f64, ..AbcSettings::default() };
        settings.run(&easy(false), &cpu(Precision::F32), &mut Silent).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
        return;
    }
    let peak = |trials: usize| -> usize {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory_does_not_grow_with_the_trials", "--nocapture"])
            .env(TRIALS, trials.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = text.split_whitespace().skip_while(|w| !w.contains("VmHWM")).collect();
        words[1].parse().unwrap()
    };
    // One number for each of the others would be 20 MiB.
    let (few, many) = (peak(1_000_000), peak(6_000_000));
    assert!(many < few + 8 * 1024, "{few} KiB with a million trials, {many} KiB with six");
}
