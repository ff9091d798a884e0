//! VAE-Var against 4DVAR where its decoder is affine, against a cost of its own where it is not, and in cycles.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/gaussian.rs"]
mod gaussian;

use gaussian::{exact, linear, ring_covariance};
use ndarray::{Array1, Array2, ArrayView1, Axis, array};
use std::fs;
use tempfile::tempdir;
use vi4dvar::experiment::{CycleSettings, CycledKind, CycledMethod, ErrorSource, VaeTerms};
use vi4dvar::method::vae_var::Network;
use vi4dvar::neural::TrainingHistory;
use vi4dvar::problem::CovarianceFactor;
use vi4dvar::{
    Backend, Engine, EngineSettings, Estimator, Family, FourDVarSettings, PointFunction, Precision, Problem, Schedule,
    Silent, Stream, TwinSettings, Vae, VaeVarSettings, ViSettings, random, simulate,
};

fn engine() -> Engine {
    let settings = EngineSettings { backend: Backend::Cpu, precision: Precision::F64, ..EngineSettings::default() };
    Engine::new(&settings).unwrap()
}

fn largest(d: impl IntoIterator<Item = f64>) -> f64 {
    d.into_iter().fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d.abs()) })
}

/// The Gaussian that a problem's B is.
fn affine(problem: &Problem) -> Vae {
    let covariance = problem.background.precision_of(0);
    let n = covariance.nrows();
    let inverse = nalgebra::DMatrix::from_fn(n, n, |i, j| covariance[[i, j]]).try_inverse().unwrap();
    let b = Array2::from_shape_fn((n, n), |(i, j)| 0.5 * (inverse[(i, j)] + inverse[(j, i)]));
    Vae::gaussian(Array1::zeros(n), &CovarianceFactor::new(b).unwrap()).unwrap()
}

/// A decoder that is far from affine, of `latents` to `sites`.
fn bent(latents: usize, sites: usize) -> Vae {
    let normals =
        |k: u32, rows: usize, columns: usize| random::standard_normals(5, Stream::Weights, k, 0..rows, columns);
    let decoder = Network {
        places: 1,
        weights: vec![normals(0, latents, 9) * 0.5, normals(1, 9, 9) * 0.3, normals(2, 9, sites) * 0.4],
        biases: vec![normals(3, 1, 9).row(0).to_owned(), normals(4, 1, 9).row(0).to_owned(), Array1::zeros(sites)],
        skip: Array2::from_shape_fn((latents, sites), |(i, j)| if i == j { 0.9 } else { 0.0 }),
    };
    let covariance = ring_covariance(sites) * 0.3;
    let root = CovarianceFactor::new(covariance.clone()).unwrap().lower;
    let mean = Array1::from_shape_fn(sites, |i| 0.1 * (i as f64).cos());
    let kl = Array1::ones(latents);
    Vae::new(mean, covariance, root, None, decoder, 0.2, kl, TrainingHistory::default()).unwrap()
}

#[test]
fn an_affine_decoder_is_3dvar_exactly() {
    for full in [false, true] {
        let problem = linear(16, 1, full);
        let minima = VaeVarSettings::default()
            .minima(&affine(&problem), &FourDVarSettings::default(), &problem, &engine(), &mut Silent)
            .unwrap();
        let want = exact(&problem).mean;
        let gap = largest(minima.controls.row(0).iter().zip(want.iter()).map(|(a, b)| a - b));
        // Where the minimiser's tolerances let it stop.
        assert!(gap < 1e-6, "full B {full}: {gap}");
    }
}

/// Nonlinear, with a full B, errors of the model and an estimated forcing beside x0; with a factor on B too.
#[test]
fn an_affine_decoder_is_4dvar_exactly() {
    let twin = TwinSettings { background_correlation: 2.0, times: 6, assimilated_times: 5, ..TwinSettings::default() };
    let weak = TwinSettings { model_error_std: Some(0.1), parameter_std: [("forcing", 0.4)].into(), ..twin.clone() };
    for (settings, scale) in [(twin.clone(), 1.0), (twin, 0.3), (weak, 1.0)] {
        let mut problem = simulate(&settings).unwrap();
        let vae = affine(&problem);
        problem.background.scale.fill(scale);
        let four_d_var = FourDVarSettings { starts: 2, samples: 4000, ..FourDVarSettings::default() };
        let (engine, own) = (engine(), VaeVarSettings::default());
        let plain = four_d_var.minima(&problem, &engine, &mut Silent).unwrap();
        let learned = own.minima(&vae, &four_d_var, &problem, &engine, &mut Silent).unwrap();
        assert!(
            largest(&plain.controls - &learned.controls) < 1e-5,
            "{scale}: {:?}",
            &plain.controls - &learned.controls
        );
        // Samples are not the same draws: the two roots differ.
        let plain = four_d_var.run(&problem, &engine, &mut Silent).unwrap().swap_remove(0);
        let learned = own.run(&vae, &four_d_var, &problem, &engine, &mut Silent).unwrap().swap_remove(0);
        assert!(largest(&plain.mean - &learned.mean) < 1e-4);
        let ratio = learned.std.row(0).sum() / plain.std.row(0).sum();
        assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    }
}

/// J(z), from the equations and in loops of its own.
fn cost(problem: &Problem, vae: &Vae, terms: &VaeVarSettings, z: &[f64]) -> f64 {
    let error = |z: &[f64]| -> Vec<f64> {
        let mut h = z.to_vec();
        let layers = vae.decoder.weights.len();
        for (l, (w, b)) in vae.decoder.weights.iter().zip(&vae.decoder.biases).enumerate() {
            h = (0..w.ncols())
                .map(|j| {
                    let sum = b[j] + (0..w.nrows()).map(|i| h[i] * w[[i, j]]).sum::<f64>();
                    if l + 1 < layers { (1.0 + sum.exp()).ln() } else { sum }
                })
                .collect();
        }
        let stretch = 1.0 / (1.0 - vae.reconstruction_std.powi(2)).sqrt();
        (0..h.len())
            .map(|j| stretch * (h[j] + (0..z.len()).map(|i| z[i] * vae.decoder.skip[[i, j]]).sum::<f64>()))
            .collect()
    };
    let mut total = 0.0;
    if terms.prior_term {
        total += 0.5 * z.iter().map(|z| z * z).sum::<f64>();
    }
    if terms.log_det_term {
        let step = 1e-5;
        let columns: Vec<Vec<f64>> = (0..z.len())
            .map(|k| {
                let side = |s: f64| {
                    let mut z = z.to_vec();
                    z[k] += s * step;
                    error(&z)
                };
                side(1.0).iter().zip(side(-1.0)).map(|(a, b)| (a - b) / (2.0 * step)).collect()
            })
            .collect();
        let gram = nalgebra::DMatrix::from_fn(z.len(), z.len(), |i, j| {
            let ridge = if i == j { vae.reconstruction_std.powi(2) } else { 0.0 };
            columns[i].iter().zip(&columns[j]).map(|(a, b)| a * b).sum::<f64>() + ridge
        });
        total += 0.5 * gram.determinant().ln();
    }
    let n = problem.sites();
    let whitened = error(z);
    let mut x: Vec<f64> = (0..n)
        .map(|i| {
            let own: f64 = (0..n).map(|j| vae.root[[i, j]] * whitened[j]).sum();
            problem.background.mean[[0, i]] + vae.mean[i] + problem.background.scale[0].sqrt() * own
        })
        .collect();
    let tendency = |x: &[f64]| -> Vec<f64> {
        (0..n).map(|i| (x[(i + 1) % n] - x[(i + n - 2) % n]) * x[(i + n - 1) % n] - x[i] + 8.0).collect()
    };
    let add = |x: &[f64], a: f64, k: &[f64]| x.iter().zip(k).map(|(x, k)| x + a * k).collect::<Vec<f64>>();
    let dt = problem.window.dt;
    for t in 0..problem.window.assimilated_times {
        for i in 0..n {
            let y = problem.observations[[0, t, i]];
            if terms.observation_term && !y.is_nan() {
                total += 0.5 * ((y - x[i] * x[i]) / problem.observation_std_of(0)[[t, i]]).powi(2);
            }
        }
        for _ in 0..problem.window.steps_per_time {
            let k1 = tendency(&x);
            let k2 = tendency(&add(&x, dt / 2.0, &k1));
            let k3 = tendency(&add(&x, dt / 2.0, &k2));
            let k4 = tendency(&add(&x, dt, &k3));
            for i in 0..n {
                x[i] += dt / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]);
            }
        }
    }
    total
}

/// With every choice of terms, for fewer latents than sites and for as many.
#[test]
fn minima_are_those_of_the_cost_in_the_book() {
    let twin = TwinSettings { sites: 8, times: 4, assimilated_times: 3, dt: 0.05, ..TwinSettings::default() };
    let problem = simulate(&twin).unwrap();
    let all = VaeVarSettings::default;
    for terms in [
        all(),
        VaeVarSettings { log_det_term: false, ..all() },
        VaeVarSettings { prior_term: false, ..all() },
        VaeVarSettings { observation_term: false, ..all() },
    ] {
        for latents in [5, 8] {
            let vae = bent(latents, 8);
            let settings = FourDVarSettings { starts: 1, samples: 10, ..FourDVarSettings::default() };
            let analysis = terms.run(&vae, &settings, &problem, &engine(), &mut Silent).unwrap().swap_remove(0);
            let z = analysis.record("latent").unwrap().values.iter().copied().collect::<Vec<_>>();
            let found = *analysis.record("cost").unwrap().values.iter().last().unwrap();
            let want = cost(&problem, &vae, &terms, &z);
            assert!((found - want).abs() < 1e-6 * want.abs().max(1.0), "{terms:?}: {found} {want}");
            let slope = largest((0..latents).map(|k| {
                let side = |s: f64| {
                    let mut z = z.clone();
                    z[k] += s * 1e-4;
                    cost(&problem, &vae, &terms, &z)
                };
                (side(1.0) - side(-1.0)) / 2e-4
            }));
            assert!(slope < 2e-3, "{terms:?}, {latents} latents: {slope}");
        }
    }
}

#[test]
fn files_keep_every_number_and_refuse_what_is_damaged() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("vae.nc");
    let mut trained = bent(5, 8);
    let (training, held_out) = (vec![3.0, 2.0], vec![2.5, 2.25]);
    trained.history = TrainingHistory { training, held_out, before: 9.0, best: 1, stopped_early: true };
    trained.write(&path, &Default::default(), false).unwrap();
    assert_eq!(Vae::read(&path).unwrap(), trained);
    assert!(trained.write(&path, &Default::default(), false).unwrap_err().to_string().contains("exists"));
    let gaussian = affine(&linear(8, 1, true));
    gaussian.write(&path, &Default::default(), true).unwrap();
    assert_eq!(Vae::read(&path).unwrap(), gaussian);

    let bytes = fs::read(&path).unwrap();
    for (what, length) in [("empty", 0), ("half", bytes.len() / 2), ("a byte short", bytes.len() - 1)] {
        let broken = directory.path().join("broken.nc");
        fs::write(&broken, &bytes[..length]).unwrap();
        let message = Vae::read(&broken).unwrap_err().to_string();
        assert!(message.contains("broken.nc"), "{what}: {message}");
    }
    let other = directory.path().join("problem.nc");
    linear(8, 1, false).single(0).write(&other, &Default::default(), false).unwrap();
    let message = Vae::read(&other).unwrap_err().to_string();
    assert!(message.contains("learned error distribution"), "{message}");
    let mut spoiled = bent(5, 8);
    spoiled.decoder.weights[1][[2, 3]] = f64::NAN;
    let nan = directory.path().join("nan.nc");
    spoiled.write(&nan, &Default::default(), false).unwrap();
    let message = Vae::read(&nan).unwrap_err().to_string();
    assert!(message.contains("finite") && message.contains("nan.nc"), "{message}");
}

#[test]
fn what_cannot_be_is_refused() {
    let problem = linear(8, 1, true);
    let none = VaeVarSettings { prior_term: false, log_det_term: false, observation_term: false, ..Default::default() };
    let run = |settings: &VaeVarSettings, vae: &Vae| {
        settings.minima(vae, &FourDVarSettings::default(), &problem, &engine(), &mut Silent).unwrap_err().to_string()
    };
    assert!(run(&none, &affine(&problem)).contains("cost terms"));
    let message = run(&VaeVarSettings::default(), &bent(5, 9));
    assert!(message.contains("8 sites") && message.contains('9'), "{message}");
    let message = VaeVarSettings::default().check().unwrap_err().to_string();
    assert!(message.contains("--vae"), "{message}");
    let dead = bent(3, 8);
    let parts = |kl: Array1<f64>| {
        let Vae { mean, covariance, root, decoder, .. } = dead.clone();
        Vae::new(mean, covariance, root, None, decoder, 0.2, kl, TrainingHistory::default())
    };
    assert!(parts(array![0.0, 0.0, 0.0]).unwrap_err().to_string().contains("latents"));
    assert_eq!(parts(array![1.0, 0.0, 2.0]).unwrap().latents(), 2);
    assert!(parts(array![1.0, 2.0]).is_err());
}

fn cycled() -> CycleSettings {
    CycleSettings {
        sites: 8,
        windows: vec![0, 2],
        cycles: 30,
        burn_in: 10,
        climatology: 2000,
        factors: vec![0.5, 1.5],
        error_samples: 600,
        error_experiments: 20,
        error_factors: vec![0.05],
        ..CycleSettings::default()
    }
}

/// With the errors' own Gaussian as decoder, VAE-3DVar and VAE-4DVar are 3DVar and 4DVar with B = x P_e, cycle by cycle.
#[test]
fn cycles_by_an_affine_decoder_are_those_of_the_errors_covariance() {
    let engine = engine();
    let settings = CycleSettings { methods: vec![CycledKind::FourDVar, CycledKind::VaeVar], ..cycled() };
    let learned: Vec<Vae> = (0..2)
        .map(|k| {
            let errors = settings.background_errors(k, &engine, &mut Silent).unwrap();
            let (mean, covariance) = moments(&errors.truth);
            Vae::gaussian(mean, &CovarianceFactor::new(covariance).unwrap()).unwrap()
        })
        .collect();
    let cycles = settings.run_learned(&[1, 2], &learned, &engine, &mut Silent).unwrap();
    let of = |window: usize, factor: f64, learned: bool| {
        let same = |m: CycledMethod| {
            m.window() == window && m.factor() == Some(factor) && matches!(m, CycledMethod::Learned { .. }) == learned
        };
        cycles.methods.iter().find(|e| same(e.method) && !e.method.is_baseline()).unwrap()
    };
    for window in [0, 2] {
        for factor in [0.5, 1.5] {
            let (plain, decoded) = (of(window, factor, false), of(window, factor, true));
            let scored = ndarray::s![.., 10..];
            let gap = largest(&plain.analysis.slice(scored) - &decoded.analysis.slice(scored));
            assert!(gap < 1e-4, "window {window}, factor {factor}: {gap}");
        }
    }
    assert_eq!(of(0, 0.5, true).method.name(), "VAE-3DVar");
    assert_eq!(of(2, 0.5, true).method.name(), "VAE-4DVar");
    // A background without its errors' mean has less of an error.
    let without = settings.run(&[1, 2], &engine, &mut Silent).unwrap_err().to_string();
    assert!(without.contains("learned background errors"), "{without}");
}

fn moments(errors: &Array2<f64>) -> (Array1<f64>, Array2<f64>) {
    let mean = errors.mean_axis(Axis(0)).unwrap();
    let departures = errors - &mean;
    (mean, departures.t().dot(&departures) / (errors.nrows() - 1) as f64)
}

/// Against what the cycle itself says of its backgrounds, and the size of differences of forecasts.
#[test]
fn background_errors_are_those_of_the_cycle() {
    let engine = engine();
    let settings = CycleSettings { windows: vec![0], ..cycled() };
    let errors = settings.background_errors(0, &engine, &mut Silent).unwrap();
    assert_eq!(errors.truth.dim(), (600, 8));
    assert_eq!(errors.nmc.dim(), (600, 8));
    let rms = |e: &Array2<f64>| (e.iter().map(|e| e * e).sum::<f64>() / e.len() as f64).sqrt();
    let cycles = CycleSettings { factors: vec![0.05], cycles: 200, ..settings.clone() }
        .run(&[1, 2, 3, 4], &engine, &mut Silent)
        .unwrap();
    let forecast = cycles.methods.last().unwrap().forecast.slice(ndarray::s![.., 10..]).to_owned();
    let want = (forecast.iter().map(|e| e * e).sum::<f64>() / forecast.len() as f64).sqrt();
    assert!((rms(&errors.truth) / want - 1.0).abs() < 0.1, "{} for {want}", rms(&errors.truth));
    // The newer forecast is the better one: what it gains on the older is no larger than both errors together.
    assert!(rms(&errors.nmc) > 0.05 * want && rms(&errors.nmc) < 2.0 * want, "{}", rms(&errors.nmc));
    assert_eq!(errors.of(ErrorSource::Nmc), &errors.nmc);
    let again = settings.background_errors(0, &engine, &mut Silent).unwrap();
    assert_eq!(again.truth, errors.truth);
    let other = CycleSettings { seed: 2, ..settings }.background_errors(0, &engine, &mut Silent).unwrap();
    assert_ne!(other.truth, errors.truth);
}

#[test]
fn cycles_refuse_what_does_not_fit() {
    let settings = CycleSettings { methods: vec![CycledKind::VaeVar], windows: vec![0], ..cycled() };
    let b = CovarianceFactor::new(ring_covariance(9)).unwrap();
    let other = Vae::gaussian(Array1::zeros(9), &b).unwrap();
    let run = |settings: &CycleSettings, learned: &[Vae]| {
        settings.run_learned(&[1], learned, &engine(), &mut Silent).unwrap_err().to_string()
    };
    let message = run(&settings, std::slice::from_ref(&other));
    assert!(message.contains("8 sites") && message.contains('9'), "{message}");
    assert!(run(&settings, &[other.clone(), other]).contains("each of 1 windows"));
    let refused = |what: &str, change: fn(&mut CycleSettings)| {
        let mut changed = settings.clone();
        change(&mut changed);
        let message = changed.check().unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    };
    refused("vae-terms", |s| s.vae_terms.clear());
    refused("vae-terms", |s| s.vae_terms = vec![VaeTerms::All, VaeTerms::All]);
    refused("error-factors", |s| s.error_factors = vec![0.1, 0.2]);
    refused("error-factors", |s| s.error_factors = vec![-1.0]);
    refused("error-samples", |s| s.error_samples = 0);
    refused("error-experiments", |s| s.error_experiments = 0);
}

/// VI over the latents of an affine decoder is VI with B = L L': it reaches the exact posterior and its evidence.
#[test]
fn vi_over_the_latents_of_an_affine_decoder_reaches_the_posterior() {
    let problem = linear(8, 1, true);
    let exact = exact(&problem);
    for (family, iterations) in [(Family::FullRank, 600), (Family::MeanField, 600)] {
        let settings = VaeVarSettings { latent_family: family, ..Default::default() };
        let vi = ViSettings {
            iterations,
            batch: Some(64),
            schedule: Some(Schedule::Cosine),
            learning_rate: 0.05,
            estimator: Some(Estimator::Path),
            samples: 20_000,
            importance_draws: 20_000,
            ..ViSettings::default()
        };
        let analysis =
            settings.run_vi(&affine(&problem), &vi, &problem, &engine(), &mut Silent).unwrap().swap_remove(0);
        let number = |name: &str| analysis.number(name).unwrap_or_else(|| panic!("no {name}"));
        let (elbo, evidence) = (number("latent_elbo"), number("latent_log_evidence"));
        // A mean field's weights are heavier.
        let error = if family == Family::FullRank { 0.02 } else { 0.2 };
        assert!((evidence - exact.log_evidence).abs() < error, "{family:?}: {evidence} {}", exact.log_evidence);
        let gap = exact.log_evidence - elbo;
        match family {
            Family::FullRank => assert!(gap.abs() < 1e-2, "{gap}"),
            _ => assert!(gap > 1e-2 && gap < 1.0, "{gap}"),
        }
        let std = exact.covariance.diagonal().map(f64::sqrt);
        for i in 0..8 {
            let mean = (analysis.mean[[0, i]] - exact.mean[i]) / std[i];
            assert!(mean.abs() < 0.05, "{family:?}, site {i}: {mean}");
            let ratio = analysis.std[[0, i]] / std[i];
            assert!(family == Family::MeanField || (ratio - 1.0).abs() < 0.03, "site {i}: {ratio}");
        }
    }
    let settings = VaeVarSettings { latent_family: Family::LowRank, ..Default::default() };
    let refused = settings.run_vi(&affine(&problem), &ViSettings::default(), &problem, &engine(), &mut Silent);
    assert!(refused.unwrap_err().to_string().contains("latent-family"));
}

/// Of a decoder that is not affine: the ELBO stays below the evidence, both by the same weights.
#[test]
fn vi_over_latents_bounds_the_evidence() {
    let twin = TwinSettings { sites: 8, times: 4, assimilated_times: 3, dt: 0.05, ..TwinSettings::default() };
    let problem = simulate(&twin).unwrap();
    let vi = ViSettings {
        iterations: 400,
        batch: Some(32),
        learning_rate: 0.03,
        samples: 200,
        importance_draws: 20_000,
        ..ViSettings::default()
    };
    let settings = VaeVarSettings::default();
    let analysis = settings.run_vi(&bent(5, 8), &vi, &problem, &engine(), &mut Silent).unwrap().swap_remove(0);
    let number = |name: &str| analysis.number(name).unwrap();
    let (elbo, iwae, evidence) = (number("latent_elbo"), number("latent_iwae"), number("latent_log_evidence"));
    assert!(elbo < iwae + 0.05 && iwae < evidence + 0.05, "{elbo} {iwae} {evidence}");
    let first = analysis.record("elbo").unwrap().values[0];
    assert!(elbo > first + 5.0, "{first} {elbo}");
    assert_eq!(analysis.record("latent_mean").unwrap().values.shape(), [5]);
    assert_eq!(analysis.samples.shape(), [200, 4, 8]);
}

/// A point-wise check that observations enter as everywhere: nothing observed is the most probable error.
#[test]
fn without_observations_it_is_the_mode_of_the_errors() {
    let mut problem = linear(8, 1, true);
    problem.observations.fill(f64::NAN);
    problem.operator.function = PointFunction::Identity;
    let vae = bent(8, 8);
    let settings = FourDVarSettings { starts: 4, ..FourDVarSettings::default() };
    let minima = VaeVarSettings { log_det_term: false, ..Default::default() }
        .minima(&vae, &settings, &problem, &engine(), &mut Silent)
        .unwrap();
    let zero = vae.decode(Array2::zeros((1, 8)).view());
    let at = |v: ArrayView1<f64>| v.to_owned();
    let gap = largest(at(minima.controls.row(0)) - at(problem.background.mean.row(0)) - at(zero.row(0)));
    assert!(gap < 1e-6, "{gap}");
}

/// From training to cycles and twins, as a user goes.
#[cfg(feature = "neural")]
#[test]
fn from_the_command_line() {
    let d = tempdir().unwrap();
    let run = |line: &str| {
        let mut command = assert_cmd::Command::cargo_bin("vi4dvar").unwrap();
        command.current_dir(d.path()).args(line.split_whitespace()).assert()
    };
    let text = |assert: assert_cmd::assert::Assert| String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let few = "--backend cpu --sites 8 --burn-in 10 --climatology 1000 --error-samples 400 \
               --error-experiments 20 --error-factors 0.05 --epochs 3 --vae-width 8 --vae-hidden 1";
    let flags = "--preset sakov2008 --windows 0,1";
    let trained = text(run(&format!("train vae {flags} {few} --out t")).success());
    assert!(trained.contains("vae-3dvar") && trained.contains("energy distance"), "{trained}");
    for file in ["vae-3dvar.nc", "vae-3dvar.json", "vae-4dvar-1.nc", "vae-4dvar-1-errors.png", "vae-3dvar-loss.svg"] {
        assert!(fs::metadata(d.path().join("t").join(file)).unwrap().len() > 100, "{file}");
    }
    let again = run(&format!("train vae {flags} {few} --out t")).code(2);
    assert!(String::from_utf8_lossy(&again.get_output().stderr).contains("--force"));

    // Loaded, and trained on the way: the same tables.
    let methods = "--cycles 20 --methods 4dvar,vae-var --vae-terms all,no-log-det --repeat 2 --factors 1,2";
    let loaded = run(&format!("cycle {flags} {few} {methods} --vae t/vae-3dvar.nc,t/vae-4dvar-1.nc --out a")).success();
    let (loaded, on_the_way) = (text(loaded), text(run(&format!("cycle {flags} {few} {methods} --out b")).success()));
    let table = |text: &str| {
        let lines = text.lines().filter(|l| l.starts_with("VAE") || l.contains("DVar "));
        // But for the milliseconds at the end.
        lines.filter_map(|l| Some(l.rsplit_once(' ')?.0.trim_end().to_string())).collect::<Vec<_>>()
    };
    assert_eq!(table(&loaded), table(&on_the_way));
    assert!(loaded.contains("VAE-4DVar, no log det") && loaded.contains("1 P_e") && loaded.contains("at its best"));
    assert!(d.path().join("b/vae-3dvar-latents.png").exists() && !d.path().join("a/vae-3dvar.nc").exists());
    let nmc = text(
        run(&format!("cycle {flags} {few} --cycles 20 --methods 4dvar --errors nmc --repeat 2 --out c")).success(),
    );
    assert!(nmc.contains("P_e"), "{nmc}");

    // In a twin and of a problem file.
    let twin = "--sites 8 --backend cpu --samples 50 --iterations 30 --batch 8 --importance-draws 200 --starts 2";
    let methods = "--methods 4dvar,vae-var,vae-vi --vae t/vae-3dvar.nc";
    let twins = text(run(&format!("twin {twin} {methods} --out d")).success());
    assert!(twins.contains("VAE-Var") && twins.contains("VAE-VI"), "{twins}");
    run("assimilate d/problem.nc --method vae-var --vae t/vae-3dvar.nc --backend cpu --log-det-term=false --out v.nc")
        .success();
    run("compare d/4dvar.nc v.nc --out e").success();
    for (line, wanted) in [
        ("assimilate d/problem.nc --method vae-var --backend cpu --out w.nc", "--vae"),
        ("assimilate d/problem.nc --method vae-var --vae d/problem.nc --backend cpu --out w.nc", "learned error"),
        ("assimilate d/problem.nc --method vae-vi --vae missing.nc --backend cpu --out w.nc", "missing.nc"),
        ("cycle --preset vae-var-l63 --vae t/vae-3dvar.nc --out w", "one for each window"),
        ("cycle --preset vae-var-l63 --windows 0 --vae t/vae-3dvar.nc --out w", "3 sites"),
        ("train vae --epochs 0 --out w", "epochs"),
        ("train vae --reconstruction-std 2 --out w", "reconstruction-std"),
        ("train vae --latents 4 --out w", "latents"),
        ("train vae --preset vae-var-l96 --latents 7 --out w", "one at each site"),
        ("train vae --vae-architecture convolution --out w", "ring of equal sites"),
        ("train vae --preset vae-var-l96 --vae-radius 20 --out w", "vae-radius"),
        ("train vae --vae t/vae-3dvar.nc --out w", "that training uses"),
        ("train vae --factors 2 --out w", "that training uses"),
        ("train vae --error-samples 60 --out w", "held-out"),
        (
            "train vae --training-rate 1e30 --epochs 1 --error-samples 300 --error-experiments 20 --climatology 500 --windows 0 --burn-in 3 --backend cpu --out w",
            "training-rate",
        ),
    ] {
        let refused = run(line).code(2);
        let message = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(message.contains(wanted), "{line}: {message}");
        assert!(!d.path().join("w").exists() && !d.path().join("w.nc").exists(), "{line} left something");
    }
}
