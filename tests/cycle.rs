//! Cycled assimilation against dense implementations of its own, from the library and as a command.

use assert_cmd::Command;
use nalgebra::{DMatrix, DVector};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use std::fs;
use tempfile::{TempDir, tempdir};
use vi4dvar::experiment::{CyclePreset, CycleSettings, CycledErrors, CycledKind, CycledMethod, Cycles};
use vi4dvar::model::Model;
use vi4dvar::problem::PointFunction;
use vi4dvar::{Engine, Precision, Silent, Stream, StreamRng};

/// Lorenz-96 by RK4, straight from the equations; of three numbers Lorenz-63 with Lorenz's parameters.
fn model(x: &DVector<f64>, forcing: f64, dt: f64, steps: usize) -> DVector<f64> {
    let n = x.len();
    let tendency = |x: &DVector<f64>| {
        if n == 3 {
            let (x, y, z) = (x[0], x[1], x[2]);
            return DVector::from_vec(vec![10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z]);
        }
        DVector::from_fn(n, |i, _| (x[(i + 1) % n] - x[(i + n - 2) % n]) * x[(i + n - 1) % n] - x[i] + forcing)
    };
    (0..steps).fold(x.clone(), |x, _| {
        let k1 = tendency(&x);
        let k2 = tendency(&(&x + &k1 * (dt / 2.0)));
        let k3 = tendency(&(&x + &k2 * (dt / 2.0)));
        let k4 = tendency(&(&x + &k3 * dt));
        x + (k1 + k2 * 2.0 + k3 * 2.0 + k4) * (dt / 6.0)
    })
}

/// The forecast model's.
fn forcing(settings: &CycleSettings) -> f64 {
    settings.parameters.get("forcing").unwrap_or(8.0)
}

/// What the oracle knows of an experiment, one entry for each observation time from 0 on.
struct Oracle {
    settings: CycleSettings,
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
    initial_noise: DVector<f64>,
    truth: Vec<DVector<f64>>,
    observations: Vec<DVector<f64>>,
}

/// RMSE at the window's end, of the background there, and at the window's start.
type Errors = [f64; 3];

fn rmse(a: &DVector<f64>, b: &DVector<f64>) -> f64 {
    ((a - b).norm_squared() / a.len() as f64).sqrt()
}

impl Oracle {
    fn new(settings: &CycleSettings, seed: u64) -> Self {
        let n = settings.sites;
        let (mean, covariance) = settings.climatology().unwrap();
        let draw = |rng: &mut StreamRng| DVector::from_fn(n, |_, _| StandardNormal.sample(rng));
        let stream = |stream| StreamRng::new(seed, stream);
        let (mut noise, mut model_noise) = (stream(Stream::ObservationNoise), stream(Stream::ModelNoise));
        let steps = settings.true_steps_per_time.unwrap_or(settings.steps_per_time);
        let forcing = settings.true_parameters.get("forcing").unwrap_or(forcing(settings));
        let dt = settings.dt * settings.steps_per_time as f64 / steps as f64;
        let mut truth = vec![model(&draw(&mut stream(Stream::SpinUp)), forcing, dt, settings.spin_up)];
        for k in 0..(settings.burn_in + settings.cycles) * settings.shift {
            let next = model(&truth[k], forcing, dt, steps) + draw(&mut model_noise) * settings.model_noise;
            truth.push(next);
        }
        let mut mask = stream(Stream::Mask);
        let square = settings.operator == PointFunction::Square;
        let observations = truth
            .iter()
            .map(|x| {
                let y = x.map(|v| if square { v * v } else { v }) + draw(&mut noise) * settings.observation_std;
                y.map(|y| if mask.random::<f64>() < settings.drop { f64::NAN } else { y })
            })
            .collect();
        Self {
            settings: settings.clone(),
            mean: DVector::from_iterator(n, mean),
            covariance: DMatrix::from_fn(n, n, |i, j| covariance.covariance[[i, j]]),
            initial_noise: draw(&mut stream(Stream::BackgroundNoise)),
            truth,
            observations,
        }
    }

    fn forecast(&self, x: &DVector<f64>, intervals: usize) -> DVector<f64> {
        let CycleSettings { dt, steps_per_time, .. } = self.settings;
        model(x, forcing(&self.settings), dt, steps_per_time * intervals)
    }

    /// xa = xb + B (B + R)^-1 (y - xb)
    fn gain(&self, xb: &DVector<f64>, b: &DMatrix<f64>, y: &DVector<f64>) -> DVector<f64> {
        let n = xb.len();
        let r = DMatrix::identity(n, n) * self.settings.observation_std.powi(2);
        xb + b * (b + r).lu().solve(&(y - xb)).unwrap()
    }

    /// The errors of 3DVar, cycle by cycle.
    fn three_d_var(&self, factor: f64) -> Vec<Errors> {
        let b = &self.covariance * factor;
        let mut xb = &self.truth[1] + &self.initial_noise * self.settings.initial_error;
        let cycle = |k: usize| {
            let xa = self.gain(&xb, &b, &self.observations[k]);
            let errors = [rmse(&xa, &self.truth[k]), rmse(&xb, &self.truth[k]), rmse(&xa, &self.truth[k])];
            xb = self.forecast(&xa, 1);
            errors
        };
        (1..self.truth.len()).map(cycle).collect()
    }

    fn optimal_interpolation(&self) -> Vec<Errors> {
        let cycle = |k: usize| {
            let xa = self.gain(&self.mean, &self.covariance, &self.observations[k]);
            [rmse(&xa, &self.truth[k]), rmse(&self.mean, &self.truth[k]), rmse(&xa, &self.truth[k])]
        };
        (1..self.truth.len()).map(cycle).collect()
    }

    /// h
    fn observe(&self, x: &DVector<f64>) -> DVector<f64> {
        match self.settings.operator {
            PointFunction::Square => x.map(|v| v * v),
            _ => x.clone(),
        }
    }

    /// Innovations of a control, x0 and where it is estimated F, over their deviations: of the newest `shift` times of the
    /// window that ends at time `end`.
    fn innovations(&self, control: &DVector<f64>, end: usize, window: usize) -> DVector<f64> {
        let CycleSettings { sites, dt, steps_per_time, shift, observation_std, .. } = self.settings;
        let forcing = if control.len() > sites { control[sites] } else { forcing(&self.settings) };
        let mut all = Vec::new();
        for t in window + 1 - shift..=window {
            let x = model(&control.rows(0, sites).into_owned(), forcing, dt, steps_per_time * t);
            let (h, y) = (self.observe(&x), &self.observations[end + t - window]);
            all.extend((0..sites).filter(|i| !y[*i].is_nan()).map(|i| (y[i] - h[i]) / observation_std));
        }
        DVector::from_vec(all)
    }

    /// Minimum and Gauss-Newton Hessian of the cost with prior N(b, precision^-1), by Gauss-Newton with the Jacobian from
    /// central differences.
    fn minimise(
        &self,
        b: &DVector<f64>,
        precision: &DMatrix<f64>,
        end: usize,
        window: usize,
    ) -> (DVector<f64>, DMatrix<f64>) {
        let mut c = b.clone();
        let mut hessian = precision.clone();
        for _ in 0..100 {
            let h = 1e-5;
            let columns: Vec<_> = (0..c.len())
                .map(|i| {
                    let shifted = |by: f64| {
                        let mut c = c.clone();
                        c[i] += by;
                        self.innovations(&c, end, window)
                    };
                    (shifted(-h) - shifted(h)) / (2.0 * h)
                })
                .collect();
            let jacobian = DMatrix::from_columns(&columns);
            let gradient = jacobian.transpose() * self.innovations(&c, end, window) + precision * (b - &c);
            hessian = precision + jacobian.transpose() * &jacobian;
            let step = hessian.clone().lu().solve(&gradient).unwrap();
            c += &step;
            if step.norm() < 1e-10 {
                break;
            }
        }
        (c, hessian)
    }

    /// 4DVar from the first cycle that has a whole window: its errors, and mean and deviation of F where that is estimated.
    fn four_d_var(&self, window: usize, factor: f64) -> (Vec<Errors>, Vec<[f64; 2]>) {
        let CycleSettings { sites, shift, parameter_inflation, .. } = self.settings;
        let own = forcing(&self.settings);
        let of_state = (&self.covariance * factor).try_inverse().unwrap();
        let first = window.div_ceil(shift) * shift;
        let start = &self.truth[first - window] + &self.initial_noise * self.settings.initial_error;
        let mut b = DVector::from_iterator(sites, start.iter().copied());
        let mut std = self.settings.parameter_std.get("forcing");
        if std.is_some() {
            b = b.push(own);
        }
        let (mut errors, mut parameters) = (Vec::new(), Vec::new());
        for end in (first..self.truth.len()).step_by(shift) {
            let n = b.len();
            let mut precision = DMatrix::zeros(n, n);
            precision.view_mut((0, 0), (sites, sites)).copy_from(&of_state);
            if let Some(std) = std {
                precision[(sites, sites)] = std.powi(-2);
            }
            let (c, hessian) = self.minimise(&b, &precision, end, window);
            let forcing = |c: &DVector<f64>| if n > sites { c[sites] } else { own };
            let at = |c: &DVector<f64>, intervals: usize| {
                let CycleSettings { dt, steps_per_time, .. } = self.settings;
                model(&c.rows(0, sites).into_owned(), forcing(c), dt, steps_per_time * intervals)
            };
            let truth = &self.truth[end];
            errors.push([
                rmse(&at(&c, window), truth),
                rmse(&at(&b, window), truth),
                rmse(&at(&c, 0), &self.truth[end - window]),
            ]);
            if let Some(std) = &mut std {
                let posterior = hessian.try_inverse().unwrap()[(sites, sites)].sqrt();
                parameters.push([forcing(&c), posterior]);
                *std = posterior * parameter_inflation.sqrt();
            }
            let next = at(&c, shift);
            b.rows_mut(0, sites).copy_from(&next);
            if n > sites {
                b[sites] = c[sites];
            }
        }
        (errors, parameters)
    }

    /// The extended Kalman filter whose covariance is inflated: RMSE and spread of each analysis. A window of one interval
    /// of which the newest time is observed, with errors of the model of variance q, is this as far as it is linear.
    fn kalman_filter(&self, inflation: f64, q: f64) -> Vec<[f64; 2]> {
        let n = self.settings.sites;
        let r = DMatrix::identity(n, n) * self.settings.observation_std.powi(2);
        let mut b = DMatrix::identity(n, n) * self.settings.initial_error.powi(2);
        let mut x = &self.truth[0] + &self.initial_noise * self.settings.initial_error;
        let cycle = |k: usize| {
            let h = 1e-5;
            let columns: Vec<_> = (0..n)
                .map(|i| {
                    let shifted = |by: f64| {
                        let mut x = x.clone();
                        x[i] += by;
                        self.forecast(&x, 1)
                    };
                    (shifted(h) - shifted(-h)) / (2.0 * h)
                })
                .collect();
            let jacobian = DMatrix::from_columns(&columns);
            let forecast = &jacobian * &b * jacobian.transpose() + DMatrix::identity(n, n) * q;
            let gain = &forecast * (&forecast + &r).try_inverse().unwrap();
            let predicted = self.forecast(&x, 1);
            x = &predicted + &gain * (&self.observations[k] - &predicted);
            let analysis = (DMatrix::identity(n, n) - gain) * forecast;
            b = &analysis * inflation;
            [rmse(&x, &self.truth[k]), (analysis.trace() / n as f64).sqrt()]
        };
        (1..self.truth.len()).map(cycle).collect()
    }
}

fn errors(cycles: &Cycles, method: CycledMethod) -> &CycledErrors {
    cycles.methods.iter().find(|e| e.method == method).unwrap()
}

/// Every error of seed `k`, from cycle `first` on, and none before.
fn assert_errors(what: &str, found: &CycledErrors, k: usize, first: usize, expected: &[Errors], tolerance: f64) {
    assert_eq!(expected.len(), found.analysis.ncols() + 1 - first, "{what}");
    for cycle in 1..=found.analysis.ncols() {
        let at = [k, cycle - 1];
        let found = [found.analysis[at], found.forecast[at], found.window_start[at]];
        if cycle < first {
            assert!(found.iter().all(|e| e.is_nan()), "{what}, cycle {cycle}: {found:?}");
            continue;
        }
        for (found, expected) in found.iter().zip(expected[cycle - first]) {
            // NaN is no agreement.
            let agrees = (found - expected).abs() <= tolerance;
            assert!(agrees, "{what}, cycle {cycle}: found {found}, expected {expected} to {tolerance:e}");
        }
    }
}

/// A truth that its own rounding does not carry away from the oracle's: little spin-up, few cycles.
fn short(steps_per_time: usize, cycles: usize) -> CycleSettings {
    CycleSettings {
        sites: 12,
        steps_per_time,
        cycles,
        burn_in: 4,
        climatology: 4000,
        spin_up: 20,
        ..Default::default()
    }
}

/// Fifty cycles of 3DVar and optimal interpolation by the Kalman gain, with a perfect model and with each way in which a
/// model can be wrong.
#[test]
fn three_d_var_and_optimal_interpolation_are_the_kalman_gain() {
    let engine = Engine::cpu(Precision::F64).unwrap();
    let cases = [
        ("perfect model", short(1, 46)),
        ("true forcing", CycleSettings { true_parameters: [("forcing", 9.0)].into(), ..short(1, 46) }),
        ("true step", CycleSettings { true_steps_per_time: Some(3), ..short(2, 26) }),
        ("model noise", CycleSettings { model_noise: 0.2, ..short(1, 46) }),
        ("Lorenz-63", CycleSettings { spin_up: 200, ..short(4, 26).with_model(Model::Lorenz63) }),
        ("precise observations", CycleSettings { observation_std: 0.3, initial_error: 0.1, ..short(1, 46) }),
    ];
    let mut finals = Vec::new();
    for (what, settings) in cases {
        let settings = CycleSettings { factors: vec![0.02, 0.3], ..settings };
        let cycles = settings.run(&[3, 8], &engine, &mut Silent).unwrap();
        for (k, seed) in [3, 8].into_iter().enumerate() {
            let oracle = Oracle::new(&settings, seed);
            let interpolated = errors(&cycles, CycledMethod::OptimalInterpolation);
            assert_errors(what, interpolated, k, 1, &oracle.optimal_interpolation(), 1e-6);
            for factor in [0.02, 0.3] {
                let found = errors(&cycles, CycledMethod::Static { window: 0, factor });
                assert_errors(what, found, k, 1, &oracle.three_d_var(factor), 1e-6);
            }
            let climatology = oracle.truth[1..].iter().map(|x| [rmse(&oracle.mean, x); 3]).collect::<Vec<_>>();
            assert_errors(what, errors(&cycles, CycledMethod::Climatology), k, 1, &climatology, 1e-9);
        }
        finals.push(cycles.methods[2].analysis[[0, 20]]);
    }
    // Each case is another experiment, so that a flag without effect would be seen.
    for (k, a) in finals.iter().enumerate() {
        assert!(finals[..k].iter().all(|b| (a - b).abs() > 1e-6), "{finals:?}");
    }
}

#[test]
fn four_d_var_is_gauss_newton_on_the_newest_observations() {
    let engine = Engine::cpu(Precision::F64).unwrap();
    let settings = CycleSettings { windows: vec![1, 3], factors: vec![0.02], ..short(4, 10) };
    let cycles = settings.run(&[5], &engine, &mut Silent).unwrap();
    let oracle = Oracle::new(&settings, 5);
    for window in [1, 3] {
        let found = errors(&cycles, CycledMethod::Static { window, factor: 0.02 });
        let (expected, _) = oracle.four_d_var(window, 0.02);
        assert_errors(&format!("window {window}"), found, 0, window, &expected, 2e-5);
    }
}

/// Windows that move on by more than one interval, squared observations, and observations that are missing.
#[test]
fn four_d_var_assimilates_all_new_times_once() {
    let engine = Engine::cpu(Precision::F64).unwrap();
    let cases = [
        CycleSettings { shift: 2, windows: vec![2, 3], ..short(2, 6) },
        CycleSettings { shift: 3, windows: vec![3], drop: 0.4, ..short(2, 6) },
        CycleSettings {
            operator: PointFunction::Square,
            observation_std: 4.0,
            initial_error: 0.2,
            drop: 0.3,
            windows: vec![1],
            ..short(2, 6)
        },
    ];
    for settings in cases {
        let settings = CycleSettings { factors: vec![0.005], ..settings };
        let cycles = settings.run(&[5], &engine, &mut Silent).unwrap();
        let oracle = Oracle::new(&settings, 5);
        for &window in &settings.windows {
            let found = errors(&cycles, CycledMethod::Static { window, factor: 0.005 });
            let (expected, _) = oracle.four_d_var(window, 0.005);
            let what = format!("window {window}, shift {}, {:?}", settings.shift, settings.operator);
            assert_errors(&what, found, 0, window.div_ceil(settings.shift), &expected, 5e-5);
        }
    }
}

/// F goes on with its posterior mean and its inflated posterior variance.
#[test]
fn forcing_is_estimated_as_gauss_newton_does() {
    let engine = Engine::cpu(Precision::F64).unwrap();
    let settings = CycleSettings {
        windows: vec![3],
        parameters: [("forcing", 7.0)].into(),
        true_parameters: [("forcing", 8.0)].into(),
        parameter_std: [("forcing", 0.3)].into(),
        parameter_inflation: 1.2,
        ..short(2, 8)
    };
    let cycles = settings.run(&[6], &engine, &mut Silent).unwrap();
    let (expected, parameters) = Oracle::new(&settings, 6).four_d_var(3, 0.02);
    let found = errors(&cycles, CycledMethod::Static { window: 3, factor: 0.02 });
    assert_errors("F estimated", found, 0, 3, &expected, 5e-5);
    for (k, [mean, std]) in parameters.iter().enumerate() {
        let at = [0, k + 2, 0];
        assert!((found.parameter_mean[at] - mean).abs() < 1e-5, "cycle {}: {} {mean}", k + 3, found.parameter_mean[at]);
        assert!(
            (found.parameter_std[at] / std - 1.0).abs() < 1e-4,
            "cycle {}: {} {std}",
            k + 3,
            found.parameter_std[at]
        );
    }
    assert!(parameters[parameters.len() - 1][0] > 7.3, "no way towards the truth: {parameters:?}");
    let scores = cycles.scores();
    assert!(scores[2].parameters.len() == 1 && scores[0].parameters.is_empty());
}

/// Where errors are small the posterior that VI-4DVAR and the ensemble carry on is the extended Kalman filter's, with and
/// without errors of the model, but for the noise of so many members.
#[test]
fn what_is_carried_is_the_kalman_filters_covariance() {
    let engine = Engine::cpu(Precision::F32).unwrap();
    for (inflation, noise) in [(1.0, None), (1.3, Some(0.05))] {
        let settings = CycleSettings {
            methods: vec![CycledKind::Vi, CycledKind::Ensemble],
            windows: vec![1],
            inflations: vec![inflation],
            members: 4000,
            iterations: 60,
            initial_error: 0.1,
            observation_std: 0.1,
            model_noise: noise.unwrap_or(0.0),
            model_error_std: noise,
            burn_in: 1,
            cycles: 7,
            ..short(1, 7)
        };
        let settings = CycleSettings { burn_in: 1, ..settings };
        let cycles = settings.run(&[2], &engine, &mut Silent).unwrap();
        let expected = Oracle::new(&settings, 2).kalman_filter(inflation, noise.unwrap_or(0.0f64).powi(2));
        for kind in settings.methods.clone() {
            let found = errors(&cycles, CycledMethod::Carried { kind, window: 1, inflation });
            for (k, [error, spread]) in expected.iter().enumerate() {
                let (own, own_spread) = (found.analysis[[0, k]], found.spread[[0, k]]);
                assert!(
                    (own_spread / spread - 1.0).abs() < 0.04,
                    "{kind:?} {k}: spread {own_spread}, expected {spread}"
                );
                assert!((own / error - 1.0).abs() < 0.06, "{kind:?} {k}: RMSE {own}, expected {error}");
            }
        }
    }
}

/// The static part alone is 4DVar's background, whatever the members say.
#[test]
fn a_static_share_of_one_is_static() {
    let engine = Engine::cpu(Precision::F64).unwrap();
    let settings = CycleSettings {
        methods: vec![CycledKind::FourDVar, CycledKind::Ensemble],
        windows: vec![2],
        members: 3,
        static_share: 1.0,
        initial_error: 0.0,
        ..short(2, 6)
    };
    let cycles = settings.run(&[4], &engine, &mut Silent).unwrap();
    let [fixed, carried] = [
        CycledMethod::Static { window: 2, factor: 0.02 },
        CycledMethod::Carried { kind: CycledKind::Ensemble, window: 2, inflation: 1.1 },
    ]
    .map(|method| errors(&cycles, method));
    let gap =
        (&fixed.analysis - &carried.analysis).iter().filter(|v| v.is_finite()).fold(0.0f64, |a, v| a.max(v.abs()));
    assert!(gap < 1e-5, "{gap}");
}

/// Every experiment by itself gives the bytes that it gives beside all others.
#[test]
fn experiments_together_are_those_one_by_one() {
    let engine = Engine::cpu(Precision::F32).unwrap();
    let settings = CycleSettings { windows: vec![0, 1, 3], factors: vec![0.02, 0.1], ..short(2, 20) };
    let seeds = [4, 1, 9];
    let together = settings.run(&seeds, &engine, &mut Silent).unwrap();
    let bits = |errors: &CycledErrors, k: usize| {
        let all = [&errors.analysis, &errors.forecast, &errors.window_start];
        all.map(|e| e.row(k).iter().map(|v| v.to_bits()).collect::<Vec<_>>())
    };
    for method in settings.methods() {
        let alone = match method {
            CycledMethod::Static { window, factor } => {
                CycleSettings { windows: vec![window], factors: vec![factor], ..settings.clone() }
            }
            _ => CycleSettings { windows: vec![0], factors: vec![1.0], ..settings.clone() },
        };
        for (k, seed) in seeds.into_iter().enumerate() {
            let alone = alone.run(&[seed], &engine, &mut Silent).unwrap();
            assert_eq!(bits(errors(&together, method), k), bits(errors(&alone, method), 0), "{method:?}, seed {seed}");
        }
    }
}

/// DAPPER's scores of this setting: climatology 7.6, optimal interpolation 1.25, 3DVar 1.04.
#[test]
fn sakov2012_has_the_scores_that_the_field_knows() {
    let engine = Engine::cpu(Precision::F32).unwrap();
    let settings = CycleSettings { cycles: 500, ..CyclePreset::from_name("sakov2012").unwrap().settings };
    let scores = settings.run(&[1, 2, 3], &engine, &mut Silent).unwrap().scores();
    let found: Vec<f64> = scores.iter().map(|s| s.analysis.mean).collect();
    for ((found, expected), room) in found.iter().zip([7.6, 1.25, 1.04]).zip([0.3, 0.05, 0.05]) {
        assert!((found - expected).abs() < room, "{found} for {expected}");
    }
}

/// DAPPER's scores of this setting: climatology 3.6, optimal interpolation 0.95, 3DVar 0.41.
#[test]
fn sakov2008_has_the_scores_that_the_field_knows() {
    let engine = Engine::cpu(Precision::F32).unwrap();
    let settings = CycleSettings { cycles: 500, ..CyclePreset::from_name("sakov2008").unwrap().settings };
    let scores = settings.run(&[1, 2, 3], &engine, &mut Silent).unwrap().scores();
    let found: Vec<f64> = scores.iter().map(|s| s.analysis.mean).collect();
    for ((found, expected), room) in found.iter().zip([3.64, 0.95, 0.41]).zip([0.1, 0.02, 0.02]) {
        assert!((found - expected).abs() < room, "{found} for {expected}");
    }
    assert!(scores.iter().all(|s| s.analysis.count == 3 && s.analysis.standard_error.unwrap() < 0.05));
}

#[test]
fn bad_settings_are_refused_by_name() {
    type Change = fn(&mut CycleSettings);
    let cases: [(&str, Change); 34] = [
        ("sites", |s| s.sites = 3),
        ("sites", |s| (s.sites, s.climatology) = (100_000, 1_000_000)),
        ("states of a window", |s| {
            (s.windows, s.burn_in, s.sites, s.factors) =
                (vec![9000], 9000, 8000, vec![1., 2., 3., 4., 5., 6., 7., 8., 9.]);
        }),
        ("dt", |s| s.dt = 0.0),
        ("steps_per_time", |s| s.steps_per_time = 0),
        ("parameters", |s| s.parameters = [("forcing", f64::NAN)].into()),
        ("true-parameters", |s| s.true_parameters = [("forcing", f64::INFINITY)].into()),
        ("true-steps-per-time", |s| s.true_steps_per_time = Some(0)),
        ("model-noise", |s| s.model_noise = -0.1),
        ("observation-std", |s| s.observation_std = 0.0),
        ("initial-error", |s| s.initial_error = f64::NAN),
        ("windows", |s| s.windows = vec![]),
        ("windows", |s| s.windows = vec![1, 1_000_000]),
        ("factors", |s| s.factors = vec![0.1, 0.0]),
        ("cycles", |s| s.cycles = 0),
        ("burn-in", |s| (s.windows, s.burn_in) = (vec![0, 5], 4)),
        ("climatology", |s| s.climatology = 40),
        ("the model's run", |s| s.dt = 2.0),
        ("parameter-std", |s| s.parameter_std = [("forcing", 0.0)].into()),
        ("parameter-inflation", |s| s.parameter_inflation = -1.0),
        ("model-error-std", |s| s.model_error_std = Some(-0.1)),
        ("drop", |s| s.drop = 1.5),
        ("static-share", |s| s.static_share = f64::NAN),
        ("methods", |s| s.methods = vec![]),
        ("inflations", |s| s.inflations = vec![]),
        ("inflations", |s| s.inflations = vec![0.0]),
        ("shift", |s| s.shift = 0),
        ("windows", |s| s.parameter_std = [("forcing", 0.1)].into()),
        ("windows", |s| s.windows = vec![2, 2]),
        ("methods", |s| s.methods = vec![CycledKind::Vi; 2]),
        ("starts", |s| s.starts = 0),
        ("windows", |s| (s.windows, s.shift) = (vec![2], 3)),
        ("members", |s| (s.methods, s.members) = (vec![CycledKind::Vi], 30)),
        ("family", |s| (s.methods, s.family) = (vec![CycledKind::Vi], vi4dvar::Family::Mixture)),
    ];
    let engine = Engine::cpu(Precision::F32).unwrap();
    for (name, change) in cases {
        let mut settings = CycleSettings::default();
        change(&mut settings);
        let error = settings.run(&[1], &engine, &mut Silent).expect_err(name);
        assert!(error.to_string().starts_with(&format!("{name}: expected ")), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    assert!(CycleSettings::default().run(&[], &engine, &mut Silent).unwrap_err().to_string().starts_with("seeds"));
}

fn program(directory: &TempDir, arguments: &str) -> Command {
    let mut command = Command::cargo_bin("vi4dvar").unwrap();
    command.current_dir(directory).args(arguments.split_whitespace());
    command
}

const SMALL: &str = "--backend cpu --quiet --sites 8 --cycles 30 --burn-in 10 --climatology 500 --repeat 2";

#[test]
fn cycle_command_writes_its_files_and_repeats_itself() {
    let d = tempdir().unwrap();
    let flags = "--windows 0,2 --factors 0.02,0.1 --true-parameters forcing=8.2 --seed 3 --out a";
    let first = program(&d, &format!("cycle {SMALL} {flags}")).assert().success();
    let text = String::from_utf8(first.get_output().stdout.clone()).unwrap();
    let head = "lorenz96, 8 sites observed every 0.05 time units, 30 cycles after a burn-in of 10, seeds 3 to 4\n";
    assert!(text.starts_with(head), "{text}");
    let rows: Vec<_> = text.lines().skip(2).map(|line| line.split_whitespace().next().unwrap()).take(6).collect();
    assert_eq!(rows, ["Climatology", "Optimal", "3DVar", "3DVar", "4DVar", "4DVar"], "{text}");
    program(&d, "cycle --config a/cycle.toml --quiet --out b").assert().success();
    for name in ["cycles.nc", "scores.json", "cycle.toml", "cycles.svg", "cycles.png", "windows.svg", "windows.png"] {
        let read = |folder: &str| fs::read(d.path().join(folder).join(name)).unwrap();
        assert!(!read("a").is_empty() && read("a") == read("b"), "{name}");
    }
    for name in ["cycles.svg", "windows.svg"] {
        let svg = fs::read_to_string(d.path().join("a").join(name)).unwrap();
        assert!(roxmltree::Document::parse(&svg).is_ok() && !svg.contains("NaN"), "{name}");
    }
    let scores: serde_json::Value = serde_json::from_slice(&fs::read(d.path().join("a/scores.json")).unwrap()).unwrap();
    assert_eq!((scores["burn_in"].as_u64(), scores["cycles"].as_u64()), (Some(10), Some(30)));
    let last = &scores["experiments"][5];
    assert_eq!((last["method"].as_str(), last["window"].as_u64()), (Some("4DVar"), Some(2)));
    assert!(last["factor"] == 0.1 && last["analysis"]["mean"].as_f64().is_some_and(|mean| mean > 0.0), "{last}");
    // Nothing is written over; with --force no figure of another experiment is left.
    let refused = program(&d, &format!("cycle {SMALL} --out a")).assert().code(2);
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("--force"));
    program(&d, &format!("cycle {SMALL} --out a --force")).assert().success();
    assert!(!d.path().join("a/windows.svg").exists());
}

#[test]
fn cycle_command_refuses_and_lists() {
    let d = tempdir().unwrap();
    for (flags, what) in [
        ("--windows 3 --burn-in 2", "burn-in"),
        ("--factors -1", "factors"),
        ("--preset lorenz", "bocquet2013"),
        ("--repeat 0", "--repeat"),
        ("--cycles 9000000 --repeat 100", "rmse_analysis"),
    ] {
        let refused = program(&d, &format!("cycle --backend cpu {flags} --out x")).assert().code(2);
        let text = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(text.contains(what) && !d.path().join("x").exists(), "{flags}: {text}");
    }
    let list = program(&d, "cycle --preset list").assert().success();
    let text = String::from_utf8(list.get_output().stdout.clone()).unwrap();
    let names: Vec<_> = text.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, CyclePreset::all().iter().map(|p| p.name).collect::<Vec<_>>());
}
