//! What no machine could hold or finish is refused in words, before memory is asked for.

use ndarray::{Array1, Array2, Array3};
use vi4dvar::engine::{AffineMap, Draw, Engine, Members, Precision, Scale, Terms};
use vi4dvar::error::Result;
use vi4dvar::experiment::TwinSettings;
use vi4dvar::method::{
    AbcSettings, EnsembleSettings, FourDVarSettings, Method, MethodSettings, PriorSettings, Silent, ViSettings,
};
use vi4dvar::model::Model;
use vi4dvar::posterior::Family;
use vi4dvar::problem::{
    Background, CovarianceFactor, ErrorCovariance, ModelError, ObservationOperator, PointFunction, Problem, Window,
};
use vi4dvar::random::Stream;
use vi4dvar::{simulate, simulate_set, training_windows};

#[track_caller]
fn assert_refused<T>(result: Result<T>, words: &[&str]) {
    let Err(error) = result else { panic!("accepted, expected a refusal with {words:?}") };
    assert_eq!(error.exit_code(), 2, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "\"{error}\" does not say {word:?}");
    }
}

/// A sound problem of few sites and a window as long as may be.
fn problem(sites: usize, steps_per_time: usize) -> Problem {
    Problem {
        model: Model::Lorenz96,
        parameters: Array2::from_elem((1, 1), 8.0),
        parameter_std: None,
        true_parameters: None,
        model_error: None,
        window: Window { times: 2, assimilated_times: 2, steps_per_time, dt: 0.01 },
        background: Background {
            mean: Array2::ones((1, sites)),
            error: ErrorCovariance::Diagonal(Array2::ones((1, sites))),
            scale: Array1::ones(1),
        },
        operator: ObservationOperator { function: PointFunction::Identity, block_size: 1 },
        observations: Array3::zeros((1, 2, sites)),
        observation_std: Array3::ones((1, 2, sites)),
        weights: Array2::ones((1, 2)),
        seeds: vec![1],
        truth: None,
    }
}

#[test]
fn a_control_of_more_errors_than_memory_is_refused_with_its_bytes() {
    let longest = u32::MAX as usize / 2;
    let errors = |sites: usize, interval: usize| {
        let mut problem = problem(sites, longest);
        let covariance = ErrorCovariance::Diagonal(Array2::ones((1, sites)));
        problem.model_error = Some(ModelError { covariance, interval });
        problem
    };
    errors(4, longest).check().unwrap();
    let bytes = (8 * 4 * (longest + 1)).to_string();
    let words = ["model_error_interval", "4 GiB", bytes.as_str(), "lengthen"];
    assert_refused(errors(4, 1).check(), &words);
    assert_refused(Engine::cpu(Precision::F32).unwrap().load(&errors(4, 1)), &words);
}

#[test]
fn a_factor_of_another_size_than_its_covariance_is_refused() {
    let full = |change: fn(&mut CovarianceFactor)| {
        let mut factor = CovarianceFactor::new(Array2::eye(4)).unwrap();
        change(&mut factor);
        let mut problem = problem(4, 1);
        problem.background.error = ErrorCovariance::Full(vec![factor]);
        problem.check()
    };
    full(|_| {}).unwrap();
    assert_refused(full(|b| b.lower = Array2::eye(3)), &["background_covariance", "4 rows", "3 and 3"]);
    assert_refused(full(|b| b.precision = Array2::zeros((4, 5))), &["background_covariance", "4 rows", "4 and 5"]);
}

#[test]
fn a_window_of_no_times_has_no_steps() {
    let empty = Window { times: 0, assimilated_times: 0, steps_per_time: 3, dt: 0.1 };
    assert_eq!(empty.steps(), 0);
    assert_refused(empty.check(), &["times", "at least one"]);
    let endless = Window { times: 2, assimilated_times: 2, steps_per_time: 2, dt: 1e308 };
    assert_refused(endless.check(), &["dt", "finite window", "for 2 steps"]);
}

#[test]
fn twins_beyond_any_machine_are_refused() {
    let twin = |change: fn(&mut TwinSettings)| {
        let mut settings = TwinSettings::default();
        change(&mut settings);
        settings
    };
    assert_refused(simulate(&twin(|t| t.spin_up = usize::MAX)), &["spin-up", "2147483647", "18446744073709551615"]);
    assert_refused(simulate(&twin(|t| t.background_noise = [1.0, f64::MAX])), &["background-noise", "LOW,HIGH"]);
    let large = twin(|t| (t.sites, t.times, t.assimilated_times) = (1 << 20, 256, 256));
    assert_refused(simulate_set(&large, &[1; 20]), &["memory of 20 twins", "GiB of this machine", "GiB ("]);
    assert_refused(training_windows(&twin(|_| {}), usize::MAX), &["memory of", "GiB of this machine"]);
    assert_refused(training_windows(&twin(|t| t.block_size = 0), 3), &["block_size"]);
}

#[test]
fn more_samples_than_the_machine_holds_are_refused_with_their_bytes() {
    let problem = problem(40, 10);
    let engine = Engine::cpu(Precision::F64).unwrap();
    let most = u32::MAX as usize;
    let samples = MethodSettings {
        prior: PriorSettings { samples: most, ..PriorSettings::default() },
        four_d_var: FourDVarSettings { samples: most, ..FourDVarSettings::default() },
        abc: AbcSettings { trials: most, samples: most, ..AbcSettings::default() },
        ensemble: EnsembleSettings { members: most, ..EnsembleSettings::default() },
        vi: ViSettings { samples: most, ..ViSettings::default() },
        ..MethodSettings::default()
    };
    let mean_field = Method::Vi(Family::MeanField);
    for method in [Method::Prior, Method::FourDVar, Method::Abc, Method::Ensemble, mean_field] {
        let refused = samples.run(method, &problem, &engine, &mut Silent);
        assert_refused(refused, &["memory of the samples", "GiB of this machine", "keep fewer"]);
    }
    let map = AffineMap { mean: Array2::ones((1, 40)), scale: Scale::Diagonal(Array2::ones((1, 40))) };
    let draw = Draw { map, stream: Stream::Background, iteration: 0, count: most };
    let mut loaded = engine.load(&problem).unwrap();
    assert_refused(loaded.forecast(Members::Drawn(&draw)), &["memory of the trajectories", "GiB (", "fewer"]);
    assert_refused(loaded.gradient(Members::Drawn(&draw), Terms::ALL), &["memory of the gradients", "GiB ("]);
}
