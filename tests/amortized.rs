//! Amortized inference: trained networks against exact posteriors, as starts of other methods, and in files.
#![cfg(feature = "neural")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/gaussian.rs"]
mod gaussian;

use gaussian::{exact, linear, noise, number, record};
use ndarray::{Array2, Array3, Axis, array};
use std::fs;
use vi4dvar::engine::{Engine, Precision};
use vi4dvar::experiment::{TwinKind, training_windows};
use vi4dvar::method::{
    AmortizedSettings, AmortizedTraining, Analysis, FirstStart, FourDVarSettings, InitialFit, Method, MethodSettings,
    NetworkSettings, Recognition, Recognized, Silent, ViSettings,
};
use vi4dvar::neural::{Architecture, TrainingSettings};
use vi4dvar::output::Attributes;
use vi4dvar::problem::{ErrorCovariance, PointFunction, Problem};
use vi4dvar::random::Stream;
use vi4dvar::{TwinSettings, simulate, simulate_set};

fn engine() -> Engine {
    Engine::cpu(Precision::F32).unwrap()
}

/// Linear-Gaussian problems of one time with one B and R: their own backgrounds, masks, and observations of their own truths.
fn linear_windows(problems: usize, full: bool, seed: u64) -> Problem {
    let one = linear(8, 1, full);
    let n = one.sites();
    let mut draw = noise(seed, Stream::Truth);
    let std = one.background.std_of(0);
    let mut set = one.select(&vec![0; problems]);
    set.seeds = (0..problems as u64).map(|p| 1000 * seed + p).collect();
    set.background.mean = Array2::from_shape_simple_fn((problems, n), || 3.0 + draw());
    set.observations = Array3::from_shape_fn((problems, 1, n), |(p, _, j)| {
        let y = set.background.mean[[p, j]] + std[j] * draw() + 0.4 * draw();
        if draw() > 0.5 { f64::NAN } else { y }
    });
    set
}

fn small(posterior: Recognized) -> AmortizedTraining {
    AmortizedTraining {
        windows: 0,
        training_draws: 8,
        network: NetworkSettings { posterior, network_width: 24, network_layers: 2, ..NetworkSettings::default() },
        training: TrainingSettings {
            epochs: 20,
            training_batch: 32,
            training_rate: 0.05,
            ..TrainingSettings::default()
        },
    }
}

fn train(windows: &Problem, settings: AmortizedTraining) -> Recognition {
    let settings = AmortizedTraining { windows: windows.count(), ..settings };
    Recognition::train(windows, &settings, &engine(), 5, &mut Silent).unwrap()
}

/// Root mean squares over unseen problems: of the mean's distance to the exact one, in exact deviations given all other sites,
/// and of the error of the logarithm of those deviations.
fn distance_to_exact(network: &Recognition, full: bool) -> (f64, f64) {
    let unseen = linear_windows(50, full, 77);
    let engine = engine();
    let said = network.infer(&unseen, &mut engine.load(&unseen).unwrap()).unwrap();
    let (mut of_mean, mut of_std, mut count) = (0.0, 0.0, 0.0);
    for (p, said) in said.iter().enumerate() {
        let truth = exact(&unseen.single(p));
        for i in 0..unseen.sites() {
            let std = truth.precision[(i, i)].sqrt().recip();
            of_mean += ((said.mean()[i] - truth.mean[i]) / std).powi(2);
            of_std += (said.std()[i] / std).ln().powi(2);
            count += 1.0;
        }
    }
    (f64::sqrt(of_mean / count), f64::sqrt(of_std / count))
}

#[test]
fn a_mean_field_comes_near_the_exact_one() {
    // The limits are about twice what is found.
    for (full, architecture, limits) in
        [(false, Architecture::Convolution, (0.15, 0.06)), (true, Architecture::Dense, (0.35, 0.2))]
    {
        let mut settings = small(Recognized::MeanField);
        settings.network.architecture = Some(architecture);
        let network = train(&linear_windows(1500, full, 1), settings);
        let (mean, std) = distance_to_exact(&network, full);
        println!("{architecture:?}: mean {mean:.3}, log sd {std:.3}");
        assert!(mean < limits.0 && std < limits.1, "{architecture:?}: mean {mean}, log sd {std}");
    }
}

#[test]
fn a_low_rank_gains_on_a_mean_field_where_sites_are_correlated() {
    let windows = linear_windows(1500, true, 1);
    let best = |posterior| {
        let mut settings = small(posterior);
        settings.network.architecture = Some(Architecture::Dense);
        let network = train(&windows, settings);
        let history = network.history().clone();
        history.lowest()
    };
    let (low_rank, mean_field) = (best(Recognized::LowRank), best(Recognized::MeanField));
    println!("-ELBO: low rank {low_rank:.3}, mean field {mean_field:.3}");
    assert!(low_rank < mean_field - 0.02, "-ELBO: low rank {low_rank}, mean field {mean_field}");
}

/// Windows of Lorenz-96 that train in a second.
fn twin() -> TwinSettings {
    TwinSettings {
        kind: TwinKind::Prior,
        sites: 8,
        times: 8,
        assimilated_times: 6,
        background_noise: [5.0, 10.0],
        operator: PointFunction::Identity,
        ..TwinSettings::default()
    }
}

/// A network trained on them, in a file.
fn trained(posterior: Recognized) -> (tempfile::TempDir, AmortizedSettings) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("weights.nc");
    let network = train(&training_windows(&twin(), 800).unwrap(), small(posterior));
    network.write(&path, &Attributes::new(), false).unwrap();
    let settings =
        AmortizedSettings { weights: Some(path), samples: 200, importance_draws: 2000, ..AmortizedSettings::default() };
    (directory, settings)
}

fn rmse(problem: &Problem, analyses: &[Analysis]) -> f64 {
    let error = |(p, a): (usize, &Analysis)| {
        let gap = &a.mean - &problem.truth_of(p).unwrap();
        gap.row(0).mapv(|e| e * e).mean().unwrap()
    };
    (analyses.iter().enumerate().map(error).sum::<f64>() / analyses.len() as f64).sqrt()
}

#[test]
fn other_methods_start_from_what_the_network_says() {
    let (_directory, amortized) = trained(Recognized::MeanField);
    let problem = simulate_set(&twin(), &(1..=10).collect::<Vec<_>>()).unwrap();
    let engine = engine();
    let vi = ViSettings {
        batch: Some(256),
        learning_rate: 0.03,
        tolerance: Some(3e-3),
        window: 25,
        samples: 200,
        importance_draws: 2000,
        initial_std: 0.3,
        ..ViSettings::default()
    };
    let four_d_var = FourDVarSettings { starts: 1, samples: 20, ..FourDVarSettings::default() };
    let cold = MethodSettings { amortized, vi, four_d_var, ..MethodSettings::default() };
    let mut warm = cold.clone();
    warm.vi.start = Some(InitialFit::Amortized);
    warm.four_d_var.first_start = FirstStart::Amortized;
    let run = |settings: &MethodSettings, method| settings.run(method, &problem, &engine, &mut Silent).unwrap();
    let method = Method::Vi(vi.family);
    // Each problem alone, because a set goes on until all of it has settled.
    let iterations = |settings: &MethodSettings| -> usize {
        let alone = |p| settings.run(method, &problem.single(p), &engine, &mut Silent).unwrap().remove(0);
        (0..5).map(|p| record(&alone(p), "elbo").len()).sum()
    };
    let (from_background, from_network) = (iterations(&cold), iterations(&warm));
    println!("VI: {from_background} iterations cold, {from_network} warm");
    assert!(from_network < from_background, "{from_network} against {from_background}");
    // 4DVAR ends in the same minima, sooner.
    let (far, near) = (run(&cold, Method::FourDVar), run(&warm, Method::FourDVar));
    let total = |all: &[Analysis]| all.iter().map(|a| record(a, "cost").len()).sum::<usize>();
    println!("4DVAR: {} iterations cold, {} warm", total(&far), total(&near));
    assert!(total(&near) < total(&far));
    for (far, near) in far.iter().zip(&near) {
        let (a, b) = (number(far, "twice_minimum_cost"), number(near, "twice_minimum_cost"));
        assert!(b < a + 0.01 * a.abs().max(1.0), "{b} against {a}");
    }
    // The network alone is nearer to the truth than the background, and no fit is better than the minimum by accident.
    let [prior, alone] = [Method::Prior, Method::Amortized].map(|m| rmse(&problem, &run(&cold, m)));
    println!("RMSE: prior {prior:.3}, network {alone:.3}, 4DVAR {:.3}", rmse(&problem, &far));
    assert!(alone < 0.85 * prior, "{alone} against {prior}");
}

#[test]
fn an_analysis_has_what_vi_has() {
    let (_directory, amortized) = trained(Recognized::LowRank);
    let problem = simulate(&TwinSettings { seed: 4, ..twin() }).unwrap();
    let analysis = amortized.run(&problem, &engine()).unwrap().remove(0);
    assert_eq!((analysis.method.as_str(), analysis.samples.shape()), ("Amortized", &[200, 8, 8][..]));
    for name in ["variational_mean", "variational_std", "final_elbo", "iwae", "k_hat", "verdict", "log_evidence"] {
        assert!(record(&analysis, name).iter().all(|v| v.is_finite()), "{name}");
    }
    assert!(number(&analysis, "final_elbo") <= number(&analysis, "iwae") + 0.1);
    assert!(analysis.record("elbo").is_none(), "nothing was iterated");
    assert!(analysis.summary.contains("trust"), "{}", analysis.summary);
    // Samples at t = 0 are draws of what the network says.
    let std = record(&analysis, "variational_std");
    let ratio = analysis.std.row(0).iter().zip(&std).map(|(a, b)| (a / b).ln().abs()).fold(0.0, f64::max);
    assert!(ratio < 0.25, "{ratio}");
}

#[test]
fn a_delta_says_that_it_has_no_spread() {
    let (_directory, amortized) = trained(Recognized::Delta);
    let problem = simulate_set(&twin(), &(1..=10).collect::<Vec<_>>()).unwrap();
    let analyses = amortized.run(&problem, &engine()).unwrap();
    assert_eq!(analyses[3].samples.shape(), [1, 8, 8]);
    assert!(analyses[3].summary.contains("says nothing of its error"), "{}", analyses[3].summary);
    assert!(analyses[3].record("final_elbo").is_none());
    let prior = MethodSettings::default().run(Method::Prior, &problem, &engine(), &mut Silent).unwrap();
    let (point, prior) = (rmse(&problem, &analyses), rmse(&problem, &prior));
    println!("RMSE: prior {prior:.3}, delta {point:.3}");
    assert!(point < 0.85 * prior, "{point} against {prior}");
    let error = amortized.normals(&problem, &engine()).unwrap_err().to_string();
    assert!(error.contains("points"), "{error}");
}

#[test]
fn a_network_survives_its_file() {
    let (directory, amortized) = trained(Recognized::MeanField);
    let path = amortized.weights.clone().unwrap();
    let network = Recognition::read(&path).unwrap();
    let again = directory.path().join("again.nc");
    network.write(&again, &Attributes::new(), false).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
    assert!(network.write(&again, &Attributes::new(), false).is_err(), "nothing is written over");
    // What is read says what was written.
    let problem = simulate_set(&twin(), &[3, 4]).unwrap();
    let trained = train(&training_windows(&twin(), 800).unwrap(), small(Recognized::MeanField));
    let say = |network: &Recognition| {
        network.infer(&problem, &mut engine().load(&problem).unwrap()).unwrap().remove(1).mean().to_owned()
    };
    assert_eq!(say(&network), say(&trained));
}

#[test]
fn damaged_files_are_refused() {
    let (directory, amortized) = trained(Recognized::MeanField);
    let path = amortized.weights.unwrap();
    let whole = fs::read(&path).unwrap();
    let bad = directory.path().join("bad.nc");
    let refuse = |bytes: &[u8]| {
        fs::write(&bad, bytes).unwrap();
        Recognition::read(&bad).expect_err("damaged").to_string()
    };
    for share in [0, 10, 50, 99] {
        refuse(&whole[..whole.len() * share / 100]);
    }
    refuse(b"no network at all");
    let missing = Recognition::read(directory.path().join("missing.nc")).unwrap_err().to_string();
    assert!(missing.contains("missing.nc"), "{missing}");
    // A weight that is no number: the file's largest variable is the weights.
    let at = whole.len() - 8 * 4000;
    let mut nan = whole.clone();
    (0..4000).for_each(|k| nan[at + 8 * k..at + 8 * k + 8].copy_from_slice(&f64::NAN.to_be_bytes()));
    let error = refuse(&nan);
    assert!(error.contains("finite"), "{error}");
    // Layers of another width than the weights are for.
    let position = whole.windows(13).position(|w| w == b"network_width").unwrap();
    let value = (position..whole.len()).find(|k| whole[*k..].starts_with(&24u32.to_be_bytes())).unwrap();
    let mut wide = whole.clone();
    wide[value + 3] = 25;
    let error = refuse(&wide);
    assert!(error.contains("`weights`"), "{error}");
    // A problem file is no network.
    simulate(&twin()).unwrap().write(&bad, &Attributes::new(), true).unwrap();
    let error = Recognition::read(&bad).unwrap_err().to_string();
    assert!(error.contains("recognition"), "{error}");
}

#[test]
fn other_problems_than_trained_for_are_refused() {
    let (_directory, amortized) = trained(Recognized::MeanField);
    for (change, word) in [
        ((|s| s.assimilated_times = 5) as fn(&mut TwinSettings), "assimilated times"),
        (|s| s.parameters = [("forcing", 7.0)].into(), "parameters"),
        (|s| s.operator = PointFunction::Square, "operator"),
        (|s| s.dt = 0.05, "steps of"),
        (|s| s.parameter_std = [("forcing", 0.1)].into(), "initial state alone"),
        (|s| s.model_error_std = Some(0.1), "initial state alone"),
        (|s| s.sites = 4, "at least 5 sites"),
    ] {
        let mut settings = twin();
        change(&mut settings);
        let problem = simulate(&settings).unwrap();
        let error = amortized.run(&problem, &engine()).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let error = AmortizedSettings::default().check().unwrap_err().to_string();
    assert!(error.contains("--weights"), "{error}");
    let vi = ViSettings { start: Some(InitialFit::Amortized), ..ViSettings::default() };
    let problem = simulate(&twin()).unwrap();
    assert!(vi.run(&problem, &engine(), &mut Silent).is_err(), "nothing to start from");
    let q = vi4dvar::Normal::diagonal(array![0.0], array![1.0]);
    assert!(vi.run_from(&problem, &engine(), Some(&[q]), &mut Silent).is_err(), "of one number");
}

#[test]
fn a_convolution_reads_longer_rings() {
    let (_directory, amortized) = trained(Recognized::MeanField);
    let problem = simulate_set(&TwinSettings { sites: 24, ..twin() }, &(1..=5).collect::<Vec<_>>()).unwrap();
    let alone = rmse(&problem, &amortized.run(&problem, &engine()).unwrap());
    let prior =
        rmse(&problem, &MethodSettings::default().run(Method::Prior, &problem, &engine(), &mut Silent).unwrap());
    println!("RMSE on 24 sites: prior {prior:.3}, network {alone:.3}");
    assert!(alone < 0.9 * prior, "{alone} against {prior}");
    // A ring that is turned: what is said of it is turned.
    let problem = problem.single(0);
    let turn = |values: &ndarray::Array1<f64>| -> Vec<f64> {
        let mut turned = values.to_vec();
        turned.rotate_left(5);
        turned
    };
    let mut turned = problem.clone();
    for (to, from) in
        [(&mut turned.observations, &problem.observations), (&mut turned.observation_std, &problem.observation_std)]
    {
        for (mut to, from) in to.lanes_mut(Axis(2)).into_iter().zip(from.lanes(Axis(2))) {
            to.assign(&ndarray::Array1::from(turn(&from.to_owned())));
        }
    }
    turned.background.mean.row_mut(0).assign(&ndarray::Array1::from(turn(&problem.background.mean.row(0).to_owned())));
    let std = problem.background.std_of(0);
    turned.background.error = ErrorCovariance::Diagonal(ndarray::Array1::from(turn(&std)).insert_axis(Axis(0)));
    let means = |problem: &Problem| amortized.means(problem, &engine()).unwrap().row(0).to_owned();
    let (want, found) = (turn(&means(&problem)), means(&turned));
    assert!(found.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-4), "{found}\n{want:?}");
}
