//! Controls that hold model errors and parameters beside x0: every method against posteriors that are known exactly, the
//! strong constraint as the limit of the weak one, and twins whose truth has another model.

#[allow(dead_code, reason = "each test program uses some of it")]
#[path = "common/gaussian.rs"]
mod gaussian;

use gaussian::{gap, noise, number, record, ring_covariance};
use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, Array3, ArrayView1, Axis, array, s};
use std::f64::consts::TAU;
use vi4dvar::engine::{Engine, Precision};
use vi4dvar::experiment::{TwinKind, TwinSettings, simulate, simulate_set};
use vi4dvar::method::abc::Criterion;
use vi4dvar::method::ensemble::Start;
use vi4dvar::method::{
    AbcSettings, Analysis, EnsembleSettings, FourDVarSettings, Hessian, InitialFit, Minimiser, PriorSettings,
    ReferenceSettings, Silent, ViSettings,
};
use vi4dvar::model::Model;
use vi4dvar::optimizer::Schedule;
use vi4dvar::posterior::{Family, log_normalizer, log_observation_normalizer};
use vi4dvar::problem::{
    Background, CovarianceFactor, ErrorCovariance, ModelError, ObservationOperator, PointFunction, Problem, Window,
};
use vi4dvar::random::Stream;
use vi4dvar::validation::oracle::Oracle;

fn cpu() -> Engine {
    Engine::cpu(Precision::F64).unwrap()
}

// ---------------------------------------------------------------------------------------------------------------
// A random walk, whose posterior is known exactly
// ---------------------------------------------------------------------------------------------------------------

const SITES: usize = 4;
const TIMES: usize = 5;
const ASSIMILATED: usize = 4;

/// RK4 steps so short that nothing moves: the model is the identity, F is not felt, and what moves the state is its errors.
const STILL: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
struct Walk {
    full_b: bool,
    full_q: bool,
    steps_per_time: usize,
    interval: usize,
    estimated: bool,
}

/// An error before each stored time, at each step, and between stored times.
const WALKS: [Walk; 4] = [
    Walk { full_b: false, full_q: false, steps_per_time: 1, interval: 1, estimated: false },
    Walk { full_b: true, full_q: true, steps_per_time: 2, interval: 2, estimated: true },
    Walk { full_b: false, full_q: true, steps_per_time: 2, interval: 1, estimated: true },
    Walk { full_b: true, full_q: false, steps_per_time: 2, interval: 3, estimated: false },
];

impl Walk {
    /// Two problems with ingredients of their own, a third of the observations missing.
    fn build(self) -> Problem {
        let mut draw = noise(8, Stream::ObservationNoise);
        let covariance = |full: bool, size: f64| {
            let size = |p: usize| size * (1.0 + 0.5 * p as f64);
            if full {
                let factor = |p| CovarianceFactor::new(ring_covariance(SITES) * size(p)).unwrap();
                ErrorCovariance::Full((0..2).map(factor).collect())
            } else {
                ErrorCovariance::Diagonal(Array2::from_shape_fn((2, SITES), |(p, i)| {
                    (size(p) * (0.7 + 0.2 * i as f64)).sqrt()
                }))
            }
        };
        Problem {
            model: Model::Lorenz96,
            parameters: array![[8.0], [7.0]],
            parameter_std: self.estimated.then(|| array![[0.5], [0.8]]),
            true_parameters: None,
            model_error: Some(ModelError { covariance: covariance(self.full_q, 0.2), interval: self.interval }),
            window: Window {
                times: TIMES,
                assimilated_times: ASSIMILATED,
                steps_per_time: self.steps_per_time,
                dt: STILL,
            },
            background: Background {
                mean: Array2::from_shape_fn((2, SITES), |(p, i)| 3.0 + i as f64 - p as f64),
                error: covariance(self.full_b, 0.6),
                scale: array![1.0, 1.4],
            },
            operator: ObservationOperator { function: PointFunction::Identity, block_size: 1 },
            observations: Array3::from_shape_fn((2, TIMES, SITES), |(p, t, i)| {
                let y = 3.5 + i as f64 - p as f64 + 0.3 * t as f64 + draw();
                if (t + i + p) % 3 == 0 { f64::NAN } else { y }
            }),
            observation_std: Array3::from_shape_fn((2, TIMES, SITES), |(p, t, i)| {
                0.4 + 0.1 * ((i + t) % 3) as f64 + 0.2 * p as f64
            }),
            weights: array![[1.0, 0.7, 1.0, 0.5, 1.0]],
            seeds: vec![11, 12],
            truth: None,
        }
    }
}

/// Row of problem `p` in an ingredient that may be shared.
fn row(rows: usize, p: usize) -> usize {
    if rows == 1 { 0 } else { p }
}

fn dense(covariance: &ErrorCovariance, p: usize) -> DMatrix<f64> {
    match covariance {
        ErrorCovariance::Diagonal(std) => {
            let std = std.row(row(std.nrows(), p));
            DMatrix::from_diagonal(&DVector::from_iterator(std.len(), std.iter().map(|s| s * s)))
        }
        ErrorCovariance::Full(all) => {
            let c = &all[row(all.len(), p)].covariance;
            DMatrix::from_fn(c.nrows(), c.ncols(), |i, j| c[[i, j]])
        }
    }
}

/// The steps after which the model errs.
fn error_steps(problem: &Problem) -> Vec<usize> {
    let steps = (problem.window.assimilated_times - 1) * problem.window.steps_per_time;
    problem.model_error.as_ref().map_or(vec![], |q| (1..=steps).filter(|step| step % q.interval == 0).collect())
}

/// Mean and covariance of the control's prior: x0, then xi at each step with an error, then F.
fn prior(problem: &Problem, p: usize) -> (DVector<f64>, DMatrix<f64>) {
    let background = &problem.background;
    let b = dense(&background.error, p) * background.scale[row(background.scale.len(), p)];
    let (sites, errors) = (b.nrows(), error_steps(problem).len());
    let first = sites * (1 + errors);
    let n = first + problem.parameter_std.as_ref().map_or(0, Array2::ncols);
    let (mut mean, mut covariance) = (DVector::zeros(n), DMatrix::identity(n, n));
    for i in 0..sites {
        mean[i] = background.mean[[row(background.mean.nrows(), p), i]];
    }
    covariance.view_mut((0, 0), (sites, sites)).copy_from(&b);
    if let Some(std) = &problem.parameter_std {
        for k in 0..std.ncols() {
            mean[first + k] = problem.parameters[[row(problem.parameters.nrows(), p), k]];
            covariance[(first + k, first + k)] = std[[row(std.nrows(), p), k]].powi(2);
        }
    }
    (mean, covariance)
}

/// Time, site, value and error variance of each assimilated observation of problem `p`.
fn observed(problem: &Problem, p: usize) -> Vec<(usize, usize, f64, f64)> {
    let mut all = Vec::new();
    for t in 0..problem.window.assimilated_times {
        for i in 0..problem.observations.shape()[2] {
            let y = problem.observations[[p, t, i]];
            let std = problem.observation_std[[row(problem.observation_std.shape()[0], p), t, i]];
            if !y.is_nan() {
                all.push((t, i, y, std * std / problem.weights[[0, t]]));
            }
        }
    }
    all
}

/// The posterior of one random walk, from the textbook formulae.
struct Exact {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
    precision: DMatrix<f64>,
    log_evidence: f64,
    /// J at the mean, of all terms and of that of the observations.
    least_cost: f64,
    least_observation_cost: f64,
    observations: f64,
    /// The states at all stored times, one below the other, and the model's errors, as linear maps of the control.
    states: DMatrix<f64>,
    errors: DMatrix<f64>,
}

fn exact(problem: &Problem, p: usize) -> Exact {
    let (prior_mean, c) = prior(problem, p);
    let n = prior_mean.len();
    let steps = error_steps(problem);
    let root = problem.model_error.as_ref().map(|q| dense(&q.covariance, p).cholesky().unwrap().l());
    let (mut states, mut errors) = (DMatrix::zeros(TIMES * SITES, n), DMatrix::zeros(steps.len() * SITES, n));
    for t in 0..TIMES {
        states.view_mut((t * SITES, 0), (SITES, SITES)).fill_with_identity();
        for (k, _) in steps.iter().enumerate().filter(|(_, step)| **step <= t * problem.window.steps_per_time) {
            let eta = root.as_ref().unwrap();
            states.view_mut((t * SITES, SITES * (1 + k)), (SITES, SITES)).copy_from(eta);
        }
    }
    for k in 0..steps.len() {
        errors.view_mut((k * SITES, SITES * (1 + k)), (SITES, SITES)).copy_from(root.as_ref().unwrap());
    }
    let seen = observed(problem, p);
    let g = DMatrix::from_fn(seen.len(), n, |k, j| states[(seen[k].0 * SITES + seen[k].1, j)]);
    let r = DMatrix::from_diagonal(&DVector::from_iterator(seen.len(), seen.iter().map(|o| o.3)));
    let departure = DVector::from_iterator(seen.len(), seen.iter().map(|o| o.2)) - &g * &prior_mean;
    let r_inverse = r.clone().try_inverse().unwrap();
    let precision = c.clone().try_inverse().unwrap() + g.transpose() * &r_inverse * &g;
    let covariance = precision.clone().try_inverse().unwrap();
    let increment = &covariance * g.transpose() * &r_inverse * &departure;
    let innovation = &g * &c * g.transpose() + r;
    let misfit = departure.dot(&(innovation.clone().try_inverse().unwrap() * &departure));
    let residual = &departure - &g * &increment;
    Exact {
        mean: prior_mean + increment,
        log_evidence: -0.5 * misfit - 0.5 * (innovation * TAU).determinant().ln(),
        least_cost: 0.5 * misfit,
        least_observation_cost: 0.5 * residual.dot(&(r_inverse * &residual)),
        observations: seen.len() as f64,
        covariance,
        precision,
        states,
        errors,
    }
}

/// How many standard errors of `count` independent samples an estimate may be off. Of the thousand or so that a test
/// compares, one would be this far off with probability 1 %.
const ERRORS: f64 = 4.5;

/// Mean and covariance of sampled trajectories over all times and sites, the records of the model's errors and of the
/// parameters, against the exact ones.
fn assert_sampled(a: &Analysis, exact: &Exact, count: f64, label: &str) {
    let samples = a.samples.to_shape((a.samples.len_of(Axis(0)), TIMES * SITES)).unwrap();
    let (mean, covariance) =
        (&exact.states * &exact.mean, &exact.states * &exact.covariance * exact.states.transpose());
    let centred = &samples - &samples.mean_axis(Axis(0)).unwrap();
    let sampled = centred.t().dot(&centred) / (samples.nrows() as f64 - 1.0);
    let close = |found: f64, want: f64, variance: f64, what: &str| {
        let errors = (found - want).abs() / (variance / count).sqrt();
        assert!(errors < ERRORS, "{label}: {what} is {found} and not {want}, {errors:.1} standard errors away");
    };
    for i in 0..TIMES * SITES {
        let own = covariance[(i, i)];
        close(samples.column(i).mean().unwrap(), mean[i], own, &format!("mean {i}"));
        for j in 0..=i {
            let variance = own * covariance[(j, j)] + covariance[(i, j)].powi(2);
            close(sampled[[i, j]], covariance[(i, j)], variance, &format!("covariance {i}, {j}"));
        }
    }
    let (mean, covariance) =
        (&exact.errors * &exact.mean, &exact.errors * &exact.covariance * exact.errors.transpose());
    let (found, spread) = (record(a, "model_error_mean"), record(a, "model_error_spread"));
    for (i, (found, spread)) in found.iter().zip(&spread).enumerate() {
        let own = covariance[(i, i)];
        close(*found, mean[i], own, &format!("mean of error {i}"));
        close(*spread, own.sqrt(), 0.5 * own, &format!("deviation of error {i}"));
    }
    assert_eq!(found.shape(), [exact.errors.nrows() / SITES, SITES], "{label}");
    if !exact.mean.len().is_multiple_of(SITES) {
        let last = exact.mean.len() - 1;
        let own = exact.covariance[(last, last)];
        close(number(a, "parameter_mean"), exact.mean[last], own, "mean of F");
        close(number(a, "parameter_spread"), own.sqrt(), 0.5 * own, "deviation of F");
    }
}

fn assert_close<'a>(
    found: impl IntoIterator<Item = &'a f64>,
    want: impl IntoIterator<Item = f64>,
    bound: f64,
    label: &str,
) {
    let off = gap(found, want, 1.0);
    assert!(off < bound, "{label}: off by {off:e}");
}

#[test]
fn four_d_var_finds_the_exact_posterior_of_a_walk() {
    for walk in WALKS {
        let problem = walk.build();
        for hessian in [Hessian::GaussNewton, Hessian::Full] {
            let settings = FourDVarSettings { starts: 2, samples: 5000, hessian, ..FourDVarSettings::default() };
            let all = settings.run(&problem, &cpu(), &mut Silent).unwrap();
            for (p, a) in all.iter().enumerate() {
                let (exact, label) = (exact(&problem, p), format!("{walk:?}, {hessian:?}, problem {p}"));
                let n = exact.mean.len();
                assert_close(&record(a, "control"), exact.mean.iter().copied(), 1e-6, &label);
                assert_close(&record(a, "initial_state"), exact.mean.iter().copied().take(SITES), 1e-6, &label);
                let states = &exact.states * &exact.mean;
                assert_close(&a.mean, states.iter().copied(), 1e-6, &label);
                // The full Hessian is by differences of gradients.
                let bound = if hessian == Hessian::Full { 1e-6 } else { 1e-9 };
                // nalgebra lists columns first, of a symmetric matrix.
                assert_close(&record(a, "laplace_covariance"), exact.covariance.iter().copied(), bound, &label);
                assert_close(&record(a, "hessian"), exact.precision.iter().copied(), 100.0 * bound, &label);
                assert_sampled(a, &exact, 5000.0, &label);

                let least = number(a, "twice_minimum_cost") / 2.0;
                assert!((least - exact.least_cost).abs() < 1e-9, "{label}: J = {least}, {}", exact.least_cost);
                assert_terms(a, &problem, p, &exact.mean, exact.least_observation_cost);
                // For a Gaussian posterior Laplace's log p(y) is exact.
                let evidence = log_normalizer(&problem, p) - least
                    + 0.5 * (n as f64 * TAU.ln() + exact.covariance.determinant().ln());
                assert!((evidence - exact.log_evidence).abs() < 1e-8, "{label}: {evidence} {}", exact.log_evidence);
            }
        }
    }
}

/// Each term of the least cost is that of its own block, and with J_o they add up to J.
fn assert_terms(a: &Analysis, problem: &Problem, p: usize, control: &DVector<f64>, observation: f64) {
    let (mean, covariance) = prior(problem, p);
    let (d, weight) = (control - mean, covariance.try_inverse().unwrap());
    let term = |from: usize, to: usize| {
        let part = d.rows(from, to - from);
        0.5 * part.dot(&(weight.view((from, from), (to - from, to - from)) * part))
    };
    let (sites, n) = (problem.background.mean.ncols(), d.len());
    let parameters = problem.control().parameters().start;
    let mut sum = observation;
    for (name, want) in [
        ("minimum_cost_background", term(0, sites)),
        ("minimum_cost_errors", term(sites, parameters)),
        ("minimum_cost_parameters", term(parameters, n)),
    ] {
        let found = number(a, name);
        assert!((found - want).abs() < 1e-5, "problem {p}: {name} is {found} and not {want}");
        sum += found;
    }
    assert!((sum - number(a, "twice_minimum_cost") / 2.0).abs() < 1e-5, "problem {p}: {sum}");
}

#[test]
fn vi_fits_the_exact_posterior_of_a_walk() {
    for walk in WALKS {
        let problem = walk.build();
        for (family, start) in [
            (Family::FullRank, InitialFit::Laplace),
            (Family::FullRank, InitialFit::Background),
            (Family::LowRank, InitialFit::Laplace),
            (Family::Mixture, InitialFit::Laplace),
            #[cfg(feature = "neural")]
            (Family::Planar, InitialFit::Laplace),
        ] {
            if family == Family::LowRank && walk.full_b {
                continue; // The precision of a correlated B is no diagonal plus a low rank.
            }
            let rank = problem.assimilated_count(0).max(problem.assimilated_count(1));
            // From its answer the path estimator does not move; from the background it takes its time.
            let iterations = if start == InitialFit::Laplace { 100 } else { 1500 };
            let gaussian = matches!(family, Family::FullRank | Family::LowRank);
            let settings = ViSettings {
                family,
                rank,
                start: Some(start),
                iterations,
                batch: Some(64),
                learning_rate: 0.02,
                samples: 5000,
                importance_draws: 5000,
                ..ViSettings::default()
            };
            for (p, a) in settings.run(&problem, &cpu(), &mut Silent).unwrap().iter().enumerate() {
                let (exact, label) = (exact(&problem, p), format!("{walk:?}, {family:?} from {start:?}, problem {p}"));
                if gaussian {
                    assert_close(&record(a, "variational_mean"), exact.mean.iter().copied(), 3e-3, &label);
                    assert_close(&record(a, "variational_covariance"), exact.covariance.iter().copied(), 4e-3, &label);
                }
                assert_sampled(a, &exact, 5000.0, &label);
                for name in ["final_elbo", "iwae", "log_evidence"] {
                    let found = number(a, name);
                    assert!(
                        (found - exact.log_evidence).abs() < 2e-3,
                        "{label}: {name} {found}, {}",
                        exact.log_evidence
                    );
                }
            }
        }
    }
}

/// The best mean field has the posterior's mean, the deviations 1 / sqrt((P^-1)_ii) and, by them, a known ELBO.
#[test]
fn vi_fits_the_exact_mean_field_of_a_walk() {
    for walk in WALKS {
        let problem = walk.build();
        let settings = ViSettings {
            family: Family::MeanField,
            iterations: 1500,
            batch: Some(256),
            learning_rate: 0.03,
            schedule: Some(Schedule::Cosine),
            importance_draws: 20_000,
            ..ViSettings::default()
        };
        for (p, a) in settings.run(&problem, &cpu(), &mut Silent).unwrap().iter().enumerate() {
            let (exact, label) = (exact(&problem, p), format!("{walk:?}, problem {p}: {}", a.summary));
            let sd = exact.precision.diagonal().map(|h| h.sqrt().recip());
            for (i, sd) in sd.iter().enumerate() {
                let mean = (record(a, "variational_mean")[[i]] - exact.mean[i]) / sd;
                let std = record(a, "variational_std")[[i]] / sd;
                assert!(mean.abs() < 0.02 && (std - 1.0).abs() < 0.02, "{label}: {i}: mean {mean} sd, sd {std}");
            }
            // KL(q, p) = 1/2 (log det P - sum log sd_i^2), with trace and means cancelling.
            let divergence = 0.5 * exact.covariance.determinant().ln() - sd.map(f64::ln).sum();
            let (elbo, error) = (number(a, "final_elbo"), number(a, "final_elbo_error"));
            let want = exact.log_evidence - divergence;
            assert!((elbo - want).abs() < ERRORS * error + 2e-3, "{label}: ELBO {elbo} +- {error}, {want}");
        }
    }
}

#[test]
fn ensemble_samples_the_exact_posterior_of_a_walk() {
    let members = 2000;
    // Adam keeps its members on the device, with backgrounds of the whole control.
    for (minimiser, start, walks) in [
        (Minimiser::Lbfgs, Start::Minimum, &WALKS[..]),
        (Minimiser::Lbfgs, Start::Background, &WALKS[1..2]),
        (Minimiser::Adam, Start::Minimum, &WALKS[2..3]),
    ] {
        for walk in walks {
            let mut problem = walk.build();
            // Perturbations have the variance R, whatever the weights are.
            problem.weights.fill(1.0);
            let settings = EnsembleSettings { members, minimiser, start, ..EnsembleSettings::default() };
            for (p, a) in settings.run(&problem, &cpu(), &mut Silent).unwrap().iter().enumerate() {
                let exact = exact(&problem, p);
                let label = format!("{walk:?}, {minimiser:?} from {start:?}, problem {p}: {}", a.summary);
                assert_eq!(a.samples.len_of(Axis(0)), members, "{label}");
                assert_sampled(a, &exact, members as f64, &label);
                // J at the members' minima has mean J* + p / 2 and variance p / 2 + 2 J*.
                assert_eq!(number(a, "observation_count"), exact.observations);
                let want = exact.least_cost + 0.5 * exact.observations;
                let error = ((0.5 * exact.observations + 2.0 * exact.least_cost) / members as f64).sqrt();
                let found = number(a, "mean_minimum_cost");
                assert!((found - want).abs() < ERRORS * error, "{label}: mean J {found}, {want} +- {error}");
            }
        }
    }
}

#[test]
fn reference_is_the_exact_posterior_of_a_walk() {
    for walk in [WALKS[0], WALKS[1]] {
        let problem = walk.build();
        for (p, a) in ReferenceSettings::default().run(&problem, &cpu(), &mut Silent).unwrap().iter().enumerate() {
            let (exact, label) = (exact(&problem, p), format!("{walk:?}, problem {p}: {}", a.summary));
            assert_eq!(number(a, "agreed"), 1.0, "{label}");
            // A thousand particles of 4096, correlated a little with their ancestors.
            assert_sampled(a, &exact, 700.0, &label);
            let (found, error) = (number(a, "log_evidence"), number(a, "log_evidence_error"));
            let off = (found - exact.log_evidence).abs();
            assert!(off < ERRORS * error && error < 0.1, "{label}: {found} +- {error}, {}", exact.log_evidence);
        }
    }
}

/// Trials are drawn with all of the control: weighted, they are importance samples of the posterior and of log p(y).
#[test]
fn abc_and_prior_draw_the_whole_control() {
    for walk in WALKS {
        let mut problem = walk.build();
        problem.observation_std *= 4.0;
        let trials = 100_000;
        let settings = AbcSettings {
            trials,
            keep: 1.0,
            weights: true,
            samples: 4000,
            criterion: Criterion::Observation,
            ..AbcSettings::default()
        };
        for (p, a) in settings.run(&problem, &cpu(), &mut Silent).unwrap().iter().enumerate() {
            let (exact, label) = (exact(&problem, p), format!("{walk:?}, problem {p}: {}", a.summary));
            let ess = number(a, "importance_ess");
            assert!(ess > 4000.0, "{label}");
            assert_sampled(a, &exact, 4000.0, &label);
            let weights = record(a, "kept_cost_observation").mapv(|j| (-j).exp());
            let evidence = weights.mean().unwrap().ln() + log_observation_normalizer(&problem, p);
            let error = (1.0 / ess - 1.0 / trials as f64).sqrt();
            assert!((evidence - exact.log_evidence).abs() < ERRORS * error, "{label}: {evidence} +- {error}");
        }
        problem.observations.fill(f64::NAN);
        let settings = PriorSettings { samples: 5000, ..PriorSettings::default() };
        for (p, a) in settings.run(&problem, &cpu()).unwrap().iter().enumerate() {
            assert_sampled(a, &exact(&problem, p), 5000.0, &format!("prior, {walk:?}, problem {p}"));
        }
    }
}

/// Each problem of a set has the answer that it has alone, bit for bit.
#[test]
fn walks_of_a_set_are_those_of_each_problem_alone() {
    let vi = ViSettings { iterations: 30, batch: Some(8), samples: 20, importance_draws: 100, ..ViSettings::default() };
    let reference =
        ReferenceSettings { particles: 200, cross_check: false, samples: 20, ..ReferenceSettings::default() };
    let all = |problem: &Problem| {
        [
            PriorSettings { samples: 20, ..PriorSettings::default() }.run(problem, &cpu()),
            FourDVarSettings { samples: 20, ..FourDVarSettings::default() }.run(problem, &cpu(), &mut Silent),
            AbcSettings { trials: 500, keep: 0.1, ..AbcSettings::default() }.run(problem, &cpu(), &mut Silent),
            EnsembleSettings { members: 20, ..EnsembleSettings::default() }.run(problem, &cpu(), &mut Silent),
            vi.run(problem, &cpu(), &mut Silent),
            reference.run(problem, &cpu(), &mut Silent),
        ]
        .map(Result::unwrap)
    };
    for walk in WALKS {
        let set = walk.build();
        let together = all(&set);
        for p in 0..2 {
            for (together, alone) in together.iter().zip(all(&set.single(p))) {
                let (together, alone) = (&together[p], &alone[0]);
                assert_eq!(bits(&together.samples), bits(&alone.samples), "{walk:?}: {}", alone.method);
                assert_eq!(together.summary, alone.summary);
                assert_eq!(together.records.len(), alone.records.len());
                for (a, b) in together.records.iter().zip(&alone.records) {
                    assert_eq!((&a.name, bits(&a.values)), (&b.name, bits(&b.values)), "{walk:?}: {}", alone.method);
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Lorenz-96 and Lorenz-63
// ---------------------------------------------------------------------------------------------------------------

/// Twins of eight sites that are observed as they are.
fn twin() -> TwinSettings {
    TwinSettings {
        sites: 8,
        times: 12,
        assimilated_times: 11,
        drop: 0.25,
        dt: 0.05,
        operator: PointFunction::Identity,
        spin_up: 200,
        ..TwinSettings::default()
    }
}

/// A prior twin whose parameters are estimated, of either model; that of Lorenz-63 is nearly linear.
fn estimated(model: Model) -> TwinSettings {
    let parameter_std = model.parameter_names().iter().map(|name| (*name, 0.5)).collect();
    let twin = TwinSettings { kind: TwinKind::Prior, ..twin() };
    match model {
        Model::Lorenz96 => TwinSettings { parameter_std, ..twin },
        Model::Lorenz63 => TwinSettings {
            parameter_std,
            spin_up: 1000,
            background_std: Some(0.5),
            observation_std: Some(0.5),
            ..twin.with_model(model)
        },
    }
}

fn minimum(problem: &Problem) -> Analysis {
    let settings = FourDVarSettings {
        starts: 1,
        samples: 2,
        gradient_tolerance: Some(1e-12),
        cost_tolerance: Some(1e-16),
        ..FourDVarSettings::default()
    };
    settings.run(problem, &cpu(), &mut Silent).unwrap().remove(0)
}

/// Q = 0 is the strong constraint in a longer control, and Q -> 0 goes there as Q does.
#[test]
fn small_model_errors_tend_to_the_strong_constraint() {
    let strong = minimum(&simulate(&twin()).unwrap());
    assert!(strong.record("control").is_none() && strong.record("minimum_cost_errors").is_none());
    let weak = |std: f64| {
        let settings = TwinSettings { model_error_std: Some(std), model_noise: Some(0.0), ..twin() };
        minimum(&simulate(&settings).unwrap())
    };
    let gap = |a: &Analysis| (&a.mean - &strong.mean).iter().fold(0.0f64, |worst, d| worst.max(d.abs()));
    let none = weak(0.0);
    assert!(gap(&none) < 1e-6, "{:e}", gap(&none));
    assert!(record(&none, "control").iter().skip(8).all(|xi| xi.abs() < 1e-9));
    assert!((number(&none, "twice_minimum_cost") - number(&strong, "twice_minimum_cost")).abs() < 1e-9);
    assert!(record(&none, "model_error_spread").iter().all(|s| *s == 0.0));
    let gaps = [1e-1, 1e-2, 1e-3].map(|std| gap(&weak(std)));
    assert!(gaps[0] > 1e-3 && gaps[1] < 0.1 * gaps[0], "{gaps:?}");
    assert!((gaps[1] / gaps[2] / 100.0 - 1.0).abs() < 0.1, "not as Q: {gaps:?}");
}

/// The minimum by Gauss-Newton, and the Hessian there, along the oracle's tangents.
fn gauss_newton(problem: &Problem, p: usize) -> (DVector<f64>, DMatrix<f64>) {
    let oracle = Oracle::<f64>::new(problem, p);
    let (mean, covariance) = prior(problem, p);
    let (n, weight) = (mean.len(), covariance.try_inverse().unwrap());
    let seen = observed(problem, p);
    let mut control = mean.clone();
    for _ in 0..100 {
        let states = oracle.trajectory(control.as_slice());
        let residual =
            DVector::from_iterator(seen.len(), seen.iter().map(|(t, i, y, r)| (y - states[*t][*i]) / r.sqrt()));
        let mut jacobian = DMatrix::zeros(seen.len(), n);
        for j in 0..n {
            let tangent =
                oracle.tangent(control.as_slice(), DVector::from_fn(n, |i, _| f64::from(u8::from(i == j))).as_slice());
            for (k, (t, i, _, r)) in seen.iter().enumerate() {
                jacobian[(k, j)] = tangent[*t][*i] / r.sqrt();
            }
        }
        let hessian = &weight + jacobian.transpose() * &jacobian;
        let step =
            hessian.clone().try_inverse().unwrap() * (jacobian.transpose() * residual - &weight * (&control - &mean));
        if step.amax() < 1e-12 {
            return (control, hessian);
        }
        control += step;
    }
    panic!("Gauss-Newton has not come to rest");
}

#[test]
fn four_d_var_of_parameters_is_where_gauss_newton_ends() {
    let several = estimated(Model::Lorenz63);
    let several_and_errors = TwinSettings { model_error_std: Some(0.1), ..several.clone() };
    let estimated = estimated(Model::Lorenz96);
    let errs = TwinSettings { model_error_std: Some(0.1), model_error_correlation: 1.5, ..estimated.clone() };
    let often = TwinSettings {
        steps_per_time: 2,
        dt: 0.025,
        assimilated_times: 6,
        model_error_std: Some(0.03),
        model_error_interval: Some(1),
        ..errs.clone()
    };
    for settings in [estimated, errs, often, several, several_and_errors] {
        let problem = simulate_set(&settings, &[1, 2]).unwrap();
        let run = |stages| {
            let run = FourDVarSettings { starts: 1, samples: 2, stages, ..FourDVarSettings::default() };
            run.run(&problem, &cpu(), &mut Silent).unwrap()
        };
        let staged = run(3);
        for (p, a) in run(1).iter().enumerate() {
            let (control, hessian) = gauss_newton(&problem, p);
            assert_close(&record(&staged[p], "control"), control.iter().copied(), 1e-5, "in stages");
            let label = format!("{settings:?}, problem {p}: {}", a.summary);
            let observation = Oracle::<f64>::new(&problem, p).cost(control.as_slice()).observation;
            assert_terms(a, &problem, p, &control, observation);
            assert_close(&record(a, "control"), control.iter().copied(), 1e-5, &label);
            let covariance = hessian.try_inverse().unwrap();
            assert_close(&record(a, "laplace_covariance"), covariance.iter().copied(), 1e-5, &label);
            // Something has been learnt of each parameter, whose prior variance is 1/4.
            for k in problem.control().parameters() {
                assert!(covariance[(k, k)] < 0.24, "{label}: {}", covariance[(k, k)]);
            }
        }
    }
}

/// Where the problem is nearly linear all methods must have the same mean and deviation of each parameter.
#[test]
fn methods_agree_on_parameters() {
    Model::ALL.iter().for_each(|model| check_methods_agree(*model));
}

fn check_methods_agree(model: Model) {
    let problem = simulate(&TwinSettings { drop: 0.0, ..estimated(model) }).unwrap();
    let f = |a: &Analysis| -> Vec<(f64, f64)> {
        record(a, "parameter_mean").iter().copied().zip(record(a, "parameter_spread").iter().copied()).collect()
    };
    let reference = &ReferenceSettings::default().run(&problem, &cpu(), &mut Silent).unwrap()[0];
    assert_eq!(number(reference, "agreed"), 1.0, "{}", reference.summary);
    let vi = ViSettings {
        family: Family::FullRank,
        iterations: 500,
        samples: 4000,
        importance_draws: 5000,
        ..ViSettings::default()
    };
    let four = FourDVarSettings { samples: 4000, ..FourDVarSettings::default() };
    let ensemble = EnsembleSettings { members: 2000, ..EnsembleSettings::default() };
    for (a, count) in [
        (&vi.run(&problem, &cpu(), &mut Silent).unwrap()[0], 4000.0),
        (&four.run(&problem, &cpu(), &mut Silent).unwrap()[0], 4000.0),
        (&ensemble.run(&problem, &cpu(), &mut Silent).unwrap()[0], 2000.0),
    ] {
        // In units of the deviation: Monte Carlo on both sides, the reference's 4096 particles counted as 2000, and 3 % for
        // what a Gaussian misses.
        let error = (1.0f64 / count + 1.0 / 2000.0).sqrt();
        assert_eq!(f(a).len(), model.parameter_names().len());
        for ((m, s), (mean, spread)) in f(a).into_iter().zip(f(reference)) {
            let label = format!("{model:?}, {}: {m} +- {s}, reference {mean} +- {spread}", a.method);
            assert!((m - mean).abs() / spread < 4.0 * error + 0.03, "{label}");
            assert!((s / spread - 1.0).abs() < 4.0 * error / 2f64.sqrt() + 0.03, "{label}");
        }
    }
}

#[test]
fn records_of_a_control_are_those_of_its_blocks() {
    let settings = TwinSettings { parameter_std: [("forcing", 0.5)].into(), model_error_std: Some(0.1), ..twin() };
    let problem = simulate(&settings).unwrap();
    let n = 8 * 11 + 1;
    let vi = ViSettings { iterations: 20, samples: 50, importance_draws: 100, ..ViSettings::default() };
    let reference =
        ReferenceSettings { particles: 200, cross_check: false, samples: 50, ..ReferenceSettings::default() };
    let of = |problem: &Problem| {
        [
            PriorSettings { samples: 50, ..PriorSettings::default() }.run(problem, &cpu()),
            FourDVarSettings { starts: 1, samples: 50, ..FourDVarSettings::default() }.run(
                problem,
                &cpu(),
                &mut Silent,
            ),
            AbcSettings { trials: 500, keep: 0.1, ..AbcSettings::default() }.run(problem, &cpu(), &mut Silent),
            EnsembleSettings { members: 50, ..EnsembleSettings::default() }.run(problem, &cpu(), &mut Silent),
            vi.run(problem, &cpu(), &mut Silent),
            reference.run(problem, &cpu(), &mut Silent),
        ]
        .map(|a| a.unwrap().remove(0))
    };
    let of_parameters = ["parameter_mean", "parameter_spread", "parameter_sample"];
    let of_errors = ["model_error_mean", "model_error_spread"];
    for a in of(&problem) {
        let samples = record(&a, "parameter_sample");
        let found: Vec<f64> = samples.iter().copied().collect();
        let count = found.len() as f64;
        assert_eq!(samples.shape()[1], 1, "{}", a.method);
        let mean = found.iter().sum::<f64>() / count;
        let variance = found.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / (count - 1.0);
        assert!((number(&a, "parameter_mean") - mean).abs() < 1e-12, "{}", a.method);
        assert!((number(&a, "parameter_spread") - variance.sqrt()).abs() < 1e-12, "{}", a.method);
        for name in of_errors {
            let found = a.record(name).unwrap();
            assert_eq!(
                (found.values.shape(), found.dimensions.as_slice()),
                (&[10, 8][..], &["error".to_string(), "site".into()][..])
            );
        }
    }
    let four = &of(&problem)[1];
    assert_eq!(record(four, "control").shape(), [n]);
    assert_eq!(record(four, "laplace_covariance").shape(), [n, n]);
    assert_eq!(record(four, "minimum").shape(), [1, n]);
    // The parameters alone, the errors alone, neither.
    for (parameters, errors) in [(true, false), (false, true), (false, false)] {
        let part = Problem {
            parameter_std: problem.parameter_std.clone().filter(|_| parameters),
            model_error: problem.model_error.clone().filter(|_| errors),
            ..problem.clone()
        };
        for a in of(&part) {
            for (names, wanted) in [(&of_parameters[..], parameters), (&of_errors[..], errors)] {
                assert!(names.iter().all(|name| a.record(name).is_some() == wanted), "{}: {names:?}", a.method);
            }
            let whole = a.method == "4DVAR" && (parameters || errors);
            assert_eq!(a.record("control").is_some(), whole, "{}", a.method);
        }
    }
}

/// Parameters and errors are recorded of the same samples whose trajectories are kept.
#[test]
fn samples_that_diverge_have_no_parameters() {
    let mut problem = simulate(&TwinSettings { parameter_std: [("forcing", 0.5)].into(), ..twin() }).unwrap();
    problem.background.error = ErrorCovariance::Diagonal(Array2::from_elem((1, 8), 20.0));
    problem.observations.fill(f64::NAN);
    let vi = ViSettings {
        iterations: 5,
        batch: Some(16),
        initial_std: 12.0,
        samples: 200,
        importance_draws: 100,
        ..ViSettings::default()
    };
    let reference =
        ReferenceSettings { particles: 200, cross_check: false, samples: 400, ..ReferenceSettings::default() };
    for a in [
        PriorSettings { samples: 200, max_diverged_share: 1.0 }.run(&problem, &cpu()),
        FourDVarSettings { starts: 1, samples: 200, max_diverged_share: 1.0, ..FourDVarSettings::default() }.run(
            &problem,
            &cpu(),
            &mut Silent,
        ),
        ViSettings { max_diverged_share: 1.0, ..vi }.run(&problem, &cpu(), &mut Silent),
        ReferenceSettings { max_diverged_share: 1.0, ..reference }.run(&problem, &cpu(), &mut Silent),
    ] {
        let a = a.unwrap().remove(0);
        let (kept, found) = (a.samples.len_of(Axis(0)), record(&a, "parameter_sample").shape()[0]);
        assert!(number(&a, "diverged_samples") > 0.0 && found == kept, "{}: {found} of {kept}", a.method);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Twins
// ---------------------------------------------------------------------------------------------------------------

/// Bit by bit: what was not observed is NaN.
fn bits<'a>(values: impl IntoIterator<Item = &'a f64>) -> Vec<u64> {
    values.into_iter().map(|v| v.to_bits()).collect()
}

/// The noise of the background and of the observations, in their deviations, and the mask.
fn noises(problem: &Problem) -> (Vec<f64>, Vec<f64>, Vec<bool>) {
    let truth = problem.truth_of(0).unwrap();
    let background = (&problem.background.mean_of(0) - &truth.row(0)) / problem.background.std_of(0);
    let observation = (&problem.observations_of(0) - &truth) / problem.observation_std_of(0);
    let seen = observation.iter().map(|z| z.is_nan()).collect();
    (background.to_vec(), observation.iter().copied().filter(|z| !z.is_nan()).collect(), seen)
}

#[test]
fn twins_without_the_new_settings_are_as_they_were() {
    let base = simulate(&TwinSettings::default()).unwrap();
    assert!(base.parameter_std.is_none() && base.true_parameters.is_none() && base.model_error.is_none());
    assert!(base.control().is_state());
    // An estimated forcing, or errors of the model that the truth does not make, leave the data alone.
    for settings in [
        TwinSettings {
            parameter_std: [("forcing", 0.5)].into(),
            true_parameters: [("forcing", 8.0)].into(),
            ..TwinSettings::default()
        },
        TwinSettings { model_error_std: Some(0.2), model_noise: Some(0.0), ..TwinSettings::default() },
        TwinSettings { true_steps_per_time: Some(1), ..TwinSettings::default() },
    ] {
        let other = simulate(&settings).unwrap();
        assert_eq!((&other.truth, &other.background.mean), (&base.truth, &base.background.mean), "{settings:?}");
        assert_eq!(bits(&other.observations), bits(&base.observations), "{settings:?}");
        assert_eq!(other.observation_std, base.observation_std, "{settings:?}");
        assert_eq!(other.true_parameters.is_some(), !settings.parameter_std.is_empty(), "{settings:?}");
    }
}

/// Whatever the truth's model is, the other streams are read as before.
#[test]
fn a_truth_of_another_model_leaves_the_noises_alone() {
    for kind in [TwinKind::Classic, TwinKind::Prior] {
        let settings = TwinSettings { kind, ..twin() };
        let base = noises(&simulate(&settings).unwrap());
        for other in [
            TwinSettings { parameter_std: [("forcing", 0.5)].into(), ..settings.clone() },
            TwinSettings { true_parameters: [("forcing", 9.0)].into(), ..settings.clone() },
            TwinSettings { true_steps_per_time: Some(4), ..settings.clone() },
            TwinSettings { model_noise: Some(0.2), ..settings.clone() },
            TwinSettings { model_error_std: Some(0.2), model_error_correlation: 2.0, ..settings.clone() },
        ] {
            let (background, observation, seen) = noises(&simulate(&other).unwrap());
            assert_eq!(seen, base.2, "{other:?}");
            // Of the prior twin the truth lies around the background.
            assert_close(&background, base.0.iter().copied(), 1e-10, &format!("{other:?}"));
            assert_close(&observation, base.1.iter().copied(), 1e-10, &format!("{other:?}"));
        }
    }
}

/// The truth of problem `p` against the oracle's run of the problem as the truth's model has it.
fn assert_run(problem: &Problem, p: usize, truly: impl FnOnce(&mut Problem)) {
    let mut other = Problem { parameter_std: None, model_error: None, ..problem.single(p) };
    truly(&mut other);
    let truth = problem.truth_of(p).unwrap();
    let run = Oracle::<f64>::new(&other, 0).trajectory(&truth.row(0).to_vec());
    assert_close(truth, run.into_iter().flatten(), 1e-9, "the truth");
}

#[test]
fn true_parameters_are_drawn_from_their_prior() {
    let seeds: Vec<u64> = (0..400).collect();
    for (model, kind) in
        [(Model::Lorenz96, TwinKind::Prior), (Model::Lorenz96, TwinKind::Classic), (Model::Lorenz63, TwinKind::Prior)]
    {
        let settings = TwinSettings { kind, ..estimated(model) };
        let set = simulate_set(&settings, &seeds).unwrap();
        let usual = model.default_parameters();
        assert_eq!(set.parameters, Array2::from_shape_fn((1, usual.len()), |(_, k)| usual[k]));
        assert_eq!(set.parameter_std, Some(Array2::from_elem((1, usual.len()), 0.5)));
        for k in 0..usual.len() {
            let z: Vec<f64> = (0..400).map(|p| (set.true_parameters_of(p).unwrap()[k] - usual[k]) / 0.5).collect();
            let mean = z.iter().sum::<f64>() / 400.0;
            let square = z.iter().map(|z| z * z).sum::<f64>() / 400.0;
            assert!(mean.abs() < 4.0 / 20.0 && (square - 1.0).abs() < 4.0 * (2.0f64 / 400.0).sqrt(), "{mean} {square}");
        }
        for p in [0, 7, 399] {
            let own = set.true_parameters_of(p).unwrap().to_owned();
            assert_run(&set, p, |other| other.parameters = own.clone().insert_axis(Axis(0)));
            let alone = simulate(&TwinSettings { seed: p as u64, ..settings.clone() }).unwrap();
            assert_eq!(alone.true_parameters_of(0).unwrap(), own);
        }
    }
}

#[test]
fn the_truth_has_the_model_that_was_asked_for() {
    for kind in [TwinKind::Prior, TwinKind::Classic] {
        let settings = TwinSettings { kind, steps_per_time: 2, ..twin() };
        let forced =
            simulate(&TwinSettings { true_parameters: [("forcing", 9.5)].into(), ..settings.clone() }).unwrap();
        assert_eq!((&forced.true_parameters, &forced.parameters), (&Some(array![[9.5]]), &array![[8.0]]));
        assert_run(&forced, 0, |other| other.parameters = array![[9.5]]);
        let fine = simulate(&TwinSettings { true_steps_per_time: Some(5), ..settings.clone() }).unwrap();
        assert!(fine.true_parameters.is_none());
        assert_run(&fine, 0, |other| (other.window.steps_per_time, other.window.dt) = (5, 0.02));
        let both = TwinSettings {
            true_parameters: [("forcing", 7.0)].into(),
            true_steps_per_time: Some(1),
            model_error_std: Some(0.3),
            model_noise: Some(0.0),
            ..settings
        };
        assert_run(&simulate(&both).unwrap(), 0, |other| {
            (other.parameters, other.window.steps_per_time, other.window.dt) = (array![[7.0]], 1, 0.1);
        });
    }
}

/// What the truth does beyond the model is N(0, Q), as often as asked for and not after the last assimilated time.
#[test]
fn model_noise_has_the_covariance_that_was_asked_for() {
    let base = TwinSettings { times: 14, model_error_interval: Some(2), model_error_correlation: 1.5, ..twin() };
    let (made, assumed) = (Some(0.2), Some(0.05));
    for (settings, std) in [
        (TwinSettings { model_noise: made, ..base.clone() }, 0.2),
        (TwinSettings { model_noise: made, model_error_std: assumed, ..base.clone() }, 0.2),
        (TwinSettings { model_error_std: assumed, ..base.clone() }, 0.05),
        (
            TwinSettings {
                model_error_std: assumed,
                true_steps_per_time: Some(1),
                model_error_interval: Some(2),
                ..base
            },
            0.05,
        ),
    ] {
        let set = simulate_set(&settings, &(0..100).collect::<Vec<_>>()).unwrap();
        match &set.model_error {
            None => assert!(settings.model_error_std.is_none()),
            Some(q) => {
                assert_eq!((q.interval, q.covariance.is_shared()), (2, true));
                assert!(q.covariance.std_of(0).iter().all(|s| (s - 0.05).abs() < 1e-15));
            }
        }
        let mut products = Array2::<f64>::zeros((8, 8));
        let mut count = 0.0;
        for p in 0..100 {
            let truth = set.truth_of(p).unwrap();
            for t in 1..14 {
                let mut next = truth.row(t - 1).to_vec();
                Model::Lorenz96.integrate(&[8.0], &mut next, 0.05, 1);
                let eta = &truth.row(t) - &ArrayView1::from(&next);
                if t % 2 == 0 && t < 11 {
                    let column = eta.view().insert_axis(Axis(1));
                    products += &column.dot(&eta.view().insert_axis(Axis(0)));
                    count += 1.0;
                } else {
                    assert!(eta.iter().all(|e| e.abs() < 1e-12), "time {t}: {eta}");
                }
            }
        }
        for ((i, j), sum) in products.indexed_iter() {
            let distance = i.abs_diff(j).min(8 - i.abs_diff(j)) as f64;
            let correlation = (-distance / 1.5).exp();
            let error = ((1.0 + correlation * correlation) / count).sqrt();
            let found = sum / count / (std * std);
            assert!((found - correlation).abs() < ERRORS * error, "{settings:?}: ({i}, {j}) {found}, {correlation}");
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// What cannot be
// ---------------------------------------------------------------------------------------------------------------

#[test]
fn a_control_that_cannot_be_is_refused_by_name() {
    let good = WALKS[1].build();
    good.check().unwrap();
    let q = |change: &dyn Fn(&mut ModelError)| {
        let mut problem = good.clone();
        change(problem.model_error.as_mut().unwrap());
        problem
    };
    let std = |values: Array2<f64>| q(&|q: &mut ModelError| q.covariance = ErrorCovariance::Diagonal(values.clone()));
    let factor = |n| CovarianceFactor::new(ring_covariance(n)).unwrap();
    let full = |sites: usize, count: usize| {
        q(&|q: &mut ModelError| q.covariance = ErrorCovariance::Full((0..count).map(|_| factor(sites)).collect()))
    };
    let with = |parameter_std: Option<Array2<f64>>, true_parameters: Option<Array2<f64>>| Problem {
        parameter_std,
        true_parameters,
        ..good.clone()
    };
    let mut one_time = WALKS[0].build();
    one_time.window.assimilated_times = 1;
    for (problem, words) in [
        (q(&|q| q.interval = 0), ["model_error_interval", "at least 1"]),
        (q(&|q| q.interval = 7), ["model_error_interval", "7 steps"]),
        (one_time, ["model_error_interval", "1 steps"]),
        (std(Array2::from_elem((1, 4), -0.1)), ["model_error_std at site 0", "-0.1"]),
        (std(array![[0.1, f64::NAN, 0.1, 0.1]]), ["model_error_std at site 1", "NaN"]),
        (std(array![[0.1, 0.1, f64::INFINITY, 0.1]]), ["model_error_std at site 2", "inf"]),
        (std(Array2::ones((1, 3))), ["model_error_std", "[1, 3]"]),
        (std(Array2::ones((3, 4))), ["model_error_std", "[3, 4]"]),
        (full(4, 3), ["model_error_covariance", "1 or 2"]),
        (full(4, 0), ["model_error_covariance", "1 or 2"]),
        (full(5, 2), ["model_error_covariance", "4 rows"]),
        (with(Some(array![[0.0]]), None), ["parameter_std of forcing", "> 0"]),
        (with(Some(array![[0.5], [-1.0]]), None), ["parameter_std of forcing", "-1"]),
        (with(Some(array![[f64::NAN]]), None), ["parameter_std of forcing", "NaN"]),
        (with(Some(array![[0.5, 0.5]]), None), ["parameter_std", "[1, 2]"]),
        (with(Some(array![[0.5], [0.5], [0.5]]), None), ["parameter_std", "[3, 1]"]),
        (with(None, Some(array![[f64::INFINITY]])), ["true parameters of forcing", "inf"]),
        (with(None, Some(array![[8.0, 8.0]])), ["true parameters", "[1, 2]"]),
    ] {
        let error = problem.check().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{words:?}: {error}");
        assert!(Engine::cpu(Precision::F64).unwrap().load(&problem).is_err(), "{words:?}");
    }
    // Shared, or one for each; and no error at all.
    for problem in [full(4, 1), full(4, 2), std(Array2::zeros((1, 4))), std(Array2::ones((2, 4)))] {
        problem.check().unwrap();
    }
    let none = good.model_error.as_ref().unwrap();
    assert_eq!((none.interval, good.control().errors), (2, 3));
    let layout = good.control();
    assert_eq!((layout.len(), layout.error(1), layout.parameters()), (17, 8..12, 16..17));
    assert_eq!(good.control_mean(1).slice(s![4..16]).to_vec(), [0.0; 12]);
}
